"""The rows of a table as the fields that are wanted of it; what no field is made of stays beside them."""

import json
from collections.abc import Iterator
from typing import Any

from civilqa.program.errors import RecordError
from civilqa.reading.columns import Wanted, lacking, look_up, with_late_fields
from civilqa.reading.rows import BadRow, Row, Shape, Table, cell_text, is_empty
from civilqa.reading.turns import is_messages, join_messages, read_conversation, with_history


class Unusable(ValueError):
    """A row makes no fields; `kind` is the word to count by."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def field_rows(table: Table, wanted: Wanted) -> Iterator[Row | BadRow]:
    """Yield a table's rows with all fields that are wanted, '' where it has none, and the other columns after them.

    All of them are text. What is counted on the way stands in the table, which must have a shape.
    """
    shape, plan = table.shape, make_plan(table.shape, wanted)
    as_named = shape.chat is None and all(column == name for name, column, _ in plan)
    seen = set(table.info.columns) if lacking(shape, wanted) else None
    for row in table.rows:
        table.read += 1
        if isinstance(row, BadRow):
            yield row
            continue
        source = row.fields
        if seen is not None and not seen.issuperset(source):
            shape = table.shape = with_later_columns(table, row, seen, wanted)
            plan = make_plan(shape, wanted)
        fields = source if as_named else {}  # one row in place of two, where nothing is renamed
        try:
            spoken = conversation_in(shape, source)
            for name, column, columns in plan:
                if spoken is not None and name in ("question", "answer"):
                    continue
                # Nearly every cell is the text of one column. Where nothing is, something may be further inside.
                text = source.get(column)
                fields[name] = text if text and type(text) is str else join_texts(name, columns, source)
            if spoken is not None:
                fields |= take_turn(table, *spoken, wanted)
        except Unusable as error:
            raw = json.dumps(source, ensure_ascii=False, default=str)
            yield BadRow(row.file, row.line, str(error), raw, error.kind, tuple(source))
            continue
        for column, value in source.items():
            if column not in shape.used:
                text = value if isinstance(value, str) else cell_text(value)
                if value and not is_empty(text):
                    table.unused[column] += 1
                fields[column if column not in wanted.fields else f"{column} (not used)"] = text
        yield row if as_named else Row(row.file, row.line, fields)


def make_plan(shape: Shape, wanted: Wanted) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return for each field its name, its column if it has one alone, and its columns."""
    parts = [(name, shape.parts.get(name, ())) for name in wanted.fields]
    return [(name, columns[0] if len(columns) == 1 else "", columns) for name, columns in parts]


def with_later_columns(table: Table, row: Row, seen: set[str], wanted: Wanted) -> Shape:
    """Return the shape of a table with what the columns of a row name that are not `seen` so far; now they are.

    Raises:
        RecordError: two columns could be the same field.
    """
    names = [name for name in row.fields if name not in seen]
    seen.update(names)
    try:
        return with_late_fields(table.shape, names, wanted)
    except ValueError as error:
        raise RecordError(f"{row.file}:{row.line}: {error}") from None


def conversation_in(shape: Shape, row: dict[str, Any]) -> tuple[str, Any] | None:
    """Return the conversation that a row holds in place of texts, or goes on with, and its column; None for none."""
    if shape.chat is not None:
        return shape.chat, look_up(row, shape.chat)
    columns = {name: shape.parts.get(name, ()) for name in ("question", "answer")}
    asked, answered = (row.get(each[0]) if each else None for each in columns.values())
    if is_messages(asked):
        return columns["question"][0], join_messages(asked, answered)
    before = f"{shape.prefix}.history" if shape.prefix else "history"
    if shape.kind.startswith("Alpaca") and row.get(before) and isinstance(row[before], list):
        question, answer = (join_texts(name, each, row) for name, each in columns.items())
        return before, with_history(row[before], question, answer)
    return None


def join_texts(name: str, columns: tuple[str, ...], row: dict[str, Any]) -> str:
    """Return the text of a field; of several columns those that are not empty, with a blank line between.

    Raises:
        Unusable: a list or an object is there.
    """
    texts = []
    for column in columns:
        value = look_up(row, column)
        if isinstance(value, list | dict) and value:
            what = "a list" if isinstance(value, list) else "an object"
            raise Unusable(
                "nested", f"'{name}' holds {what}, want text; say in prepare.columns {where(name, column, value)}"
            )
        if value is not None and value not in ([], {}):
            texts.append(value if isinstance(value, str) else cell_text(value))
    return texts[0] if len(texts) == 1 else "\n\n".join(text for text in texts if not is_empty(text))


def where(name: str, column: str, value: list[Any] | dict[str, Any]) -> str:
    """Return what to say about a column that holds no text: the path to a text in it, or a conversation."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and {"role", "from"} & value[0].keys():
        return f"that it is a conversation: {{question: {column}, answer: {column}}}"
    while isinstance(value, list | dict) and value:
        key = 0 if isinstance(value, list) else max(value, key=lambda name: len(str(value[name])))
        column, value = f"{column}.{key}", value[key]
    return f"what inside it is the text, e.g. {{{name}: {column}}}"


def take_turn(table: Table, column: str, messages: Any, wanted: Wanted) -> dict[str, str]:
    """Return question and answer of a conversation, and beside them what of it they leave out.

    Raises:
        Unusable: it is no conversation, has no answer, or has several turns where these are rejected.
    """
    if messages in (None, "", []):
        raise Unusable("empty", f"empty '{column}'; fill it in or delete the row")
    try:
        conversation = read_conversation(messages)
    except ValueError as error:
        raise Unusable("unreadable", f"'{column}' {error}") from None
    turns, unanswered = conversation.turns, conversation.last_question
    if unanswered is not None and "answer" not in wanted.required:
        turns, unanswered = [*turns, (unanswered, "")], None
    if not turns:
        raise Unusable("unreadable", f"'{column}' holds a question without an answer")
    fields: dict[str, str] = {}
    if len(turns) > 1 or unanswered is not None:
        if wanted.multi_turn == "reject":
            raise Unusable(
                "multi_turn",
                f"'{column}' holds a conversation of several turns; cut it to one, or set prepare.multi_turn to first "
                "or last",
            )
        table.several_turns += 1
        fields[column] = cell_text(messages)
    if conversation.system:
        fields[f"{column}.system"] = conversation.system
        table.unused[f"{column}.system"] += 1
    question, answer = turns[0 if wanted.multi_turn == "first" else -1]
    return fields | {"question": question} | ({"answer": answer} if "answer" in wanted.fields else {})
