"""Where in a table question, answer, category and difficulty stand.

By their names if they are known (`civilqa.reading.names`), else as prepare.columns says. The shapes of instruction
datasets are known as well: Alpaca, prompt and completion, chat messages, ShareGPT.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from civilqa.program.errors import RecordError
from civilqa.reading.cleaning import clean
from civilqa.reading.names import CHAT, CONTEXT, KNOWN, PAIRED, count, is_data, plain, shown_names, word_in
from civilqa.reading.rows import Row, Shape, Table, TableInfo

COLUMNS = ("question", "answer", "category", "difficulty")
ABOUT = ("category", "difficulty")  # fields that may stand outside of the object that holds the question
HEADER_ROWS = 20  # how far down the column names are looked for

MultiTurn = Literal["first", "last", "reject"]


class MissingColumns(RecordError):
    """A table has no column with what is wanted; `columns` are those that it has."""

    def __init__(self, message: str, columns: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.columns = columns


class EmptyFile(RecordError):
    """There is nothing in a file, and so nothing is lost without it."""


@dataclass(frozen=True)
class Wanted:
    """What is read of a table: `fields`, of which `required` must be there.

    `columns` says what some are called, by name or dotted path; `multi_turn` what happens to longer conversations.
    """

    fields: tuple[str, ...] = COLUMNS
    required: tuple[str, ...] = ("question", "answer")
    columns: Mapping[str, str] = field(default_factory=dict)
    multi_turn: MultiTurn = "reject"


ANYTHING = Wanted(fields=(), required=())


def find_shape(names: Sequence[str], wanted: Wanted, rows: Sequence[Row] = ()) -> Shape | None:
    """Return where a table's fields stand, None if it has not all that are required.

    Args:
        names: of its columns; what is inside objects has dotted names.
        rows: some rows, to see what a path of prepare.columns leads to.

    Raises:
        ValueError: two columns could be the same field.
    """
    if not wanted.fields or not all(has(column, names, rows) for column in wanted.columns.values()):
        return None
    top = {name: columns for name, columns in find_known("", names, wanted.columns).items() if name in ABOUT}
    if (shape := shape_at("", names, wanted, top)) is not None:
        return shape
    by_prefix: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_prefix[name.rpartition(".")[0]].append(name)
    # Of two objects that could both be meant none is better than the other.
    inner = [shape_at(prefix, inside, wanted, top) for prefix, inside in by_prefix.items() if prefix]
    found = [shape for shape in inner if shape is not None]
    return found[0] if len(found) == 1 else None


def shape_at(prefix: str, names: Sequence[str], wanted: Wanted, top: Mapping[str, list[str]]) -> Shape | None:
    """Return the shape of the columns at a prefix, which is '' or the dotted path of an object; None for no shape.

    Args:
        top: the columns known at the top that say the category of what stands further inside.

    Raises:
        ValueError: it is one, but two columns could be the same field.
    """
    mapped = wanted.columns
    found = find_known(prefix, names, mapped)
    named = {**top, **found, **{name: [column] for name, column in mapped.items()}}
    columns = {name: named[name] for name in wanted.fields if name in named}
    chat = found.get("chat")
    if "question" in mapped and mapped["question"] == mapped.get("answer"):
        chat = [mapped["question"]]
    elif all(name in columns for name in wanted.required):
        return text_shape(prefix, names, {name: only(name, each) for name, each in columns.items()}, mapped)
    elif chat is None or {"question", "answer"} & mapped.keys():
        return None
    column = only("chat", chat)
    kind = "chat messages" if plain(column.rpartition(".")[2]) == "messages" else "ShareGPT conversations"
    rest = {name: (only(name, each),) for name, each in columns.items() if name not in ("question", "answer")}
    return Shape(f"{kind} ({shown_names([column, *(each for (each,) in rest.values())])})", rest, column, prefix)


def text_shape(prefix: str, names: Sequence[str], columns: Mapping[str, str], mapped: Mapping[str, str]) -> Shape:
    """Return the shape of columns that hold text, with the name that it goes by."""
    parts = {name: (column,) for name, column in columns.items()}
    start = f"{prefix}." if prefix else ""
    word = word_in(columns["question"][len(start) :])
    kind = "question and answer" if "answer" in parts else "questions"
    if "question" in mapped or "answer" in mapped:
        kind = "as prepare.columns says"
    elif word == "instruction":
        # Where no object has one so far, a later one may have an input.
        contexts = [name for name in names if name.startswith(start) and plain(name[len(start) :]) in CONTEXT]
        parts["question"] = (columns["question"], contexts[0] if contexts else f"{start}input")
        kind = "Dolly" if contexts and plain(contexts[0][len(start) :]) == "context" else "Alpaca"
    elif word == "prompt":
        kind = "prompt and completion"
    listed = [column for each in parts.values() for column in each if column in names or column in columns.values()]
    return Shape(f"{kind} ({shown_names(listed)})", parts, prefix=prefix)


def with_late_fields(shape: Shape, names: Sequence[str], wanted: Wanted) -> Shape:
    """Return a shape with the fields of category and difficulty that only these columns of a later row name.

    Raises:
        ValueError: two columns could be the same field.
    """
    late: dict[str, list[str]] = {}
    for start in ("", f"{shape.prefix}." if shape.prefix else ""):  # what is beside the question counts more
        late |= find_known(start[:-1], [name for name in names if name.startswith(start)], wanted.columns)
    found = {name: (only(name, late[name]),) for name in lacking(shape, wanted) if name in late}
    if not found:
        return shape
    shown = shown_names(column for (column,) in found.values())
    return replace(shape, kind=f"{shape.kind.removesuffix(')')}, {shown})", parts={**shape.parts, **found})


def lacking(shape: Shape, wanted: Wanted) -> list[str]:
    """Return the fields that a shape has not, and need not have."""
    return [name for name in wanted.fields if name not in shape.parts and name not in wanted.required]


def only(field: str, columns: Sequence[str]) -> str:
    """Return the column of a field.

    Raises:
        ValueError: there are two.
    """
    if len(columns) > 1:
        raise ValueError(
            f"columns {shown_names(columns)} could both be the {field}; say in prepare.columns which one is"
        )
    return columns[0]


def find_known(prefix: str, names: Sequence[str], mapped: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the columns at a prefix by the field that their names are known for, and `chat` for a conversation.

    Of a field that two columns could be, all of them are there.

    Args:
        mapped: fields, and their columns, that need no looking for.
    """
    start = f"{prefix}." if prefix else ""
    by_word: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name not in mapped.values():
            by_word[word_in(name[len(start) :])].append(name)
    found: dict[str, list[str]] = {}
    for key, words in (*KNOWN.items(), ("chat", CHAT)):
        for word in words:
            same = by_word.get(word, [])
            if not same or key in mapped or PAIRED.get(word, word) not in by_word:
                continue
            bare = [name for name in same if name == start + word] or [
                name for name in same if plain(name[len(start) :]) == word
            ]
            found[key] = bare if len(bare) == 1 else same
            break
    return found


def has(column: str, names: Sequence[str], rows: Iterable[Row]) -> bool:
    """Tell whether a table has a column, or something at this path in one of its rows."""
    return column in names or any(look_up(row.fields, column) is not None for row in rows)


def look_up(fields: Mapping[str, Any], path: str) -> Any:
    """Return what is at a path, None if nothing is: a field, a place in a list (`turns.0.text`), or a whole object."""
    if value := fields.get(path):
        return value
    at = path.rfind(".")
    while at > 0:
        inside = fields.get(path[:at])
        if isinstance(inside, list | dict):
            for step in path[at + 1 :].split("."):
                if isinstance(inside, list):
                    inside = inside[int(step)] if step.isdecimal() and int(step) < len(inside) else None
                else:
                    inside = inside.get(step) if isinstance(inside, dict) else None
            return inside
        at = path.rfind(".", 0, at)
    inner = {name[len(path) + 1 :]: value for name, value in fields.items() if name.startswith(f"{path}.")}
    return inner or value


# --- The line with the names -----------------------------------------------------------------------------------------


def find_header(head: Sequence[Sequence[str]], wanted: Wanted) -> int | None:
    """Return which of a table's first rows names the columns that are wanted, None if none does.

    Of rows right below each other that do, as where names are merged over two of them, it is the last.
    """
    found = None
    for index, cells in enumerate(head[:HEADER_ROWS]):
        try:
            names = any(cells) and find_shape([name for cell in cells if (name := clean(cell))], wanted) is not None
        except ValueError:  # names, but two could be the same field: told once the table is read by them
            names = True
        if names:
            found = index
        elif found is not None:
            break
    return found


def make_table(
    info: TableInfo,
    wanted: Wanted,
    *,
    line: int = 1,
    above: int = 0,
    rows: Sequence[Row] = (),
    below: Sequence[Sequence[str]] | None = None,
    twice: str = "",
) -> Table:
    """Return a table whose rows are still to be given.

    Args:
        line: of the column names.
        above: rows above them.
        rows: the first rows of a table that may hold lists and objects.
        below: the cells of some lines below the names, where these are a line that may itself be a row.
        twice: what is wrong with names that are there twice, which matters only if the table is used.

    Raises:
        RecordError: a table that is used has two columns that could be the same field.
    """
    names = [name for name in info.columns if name]
    try:
        shape = find_shape(names, wanted, rows)
    except ValueError as error:
        raise RecordError(twice or f"{info.file}:{line}: {error}") from None
    if twice and (shape is not None or not wanted.fields):
        raise RecordError(twice)
    known = find_known("", names, wanted.columns) if shape is None else {}
    problem = ""
    if not names and below is not None:
        problem = "found no column names; put them on the first line"
        if not wanted.fields:
            raise RecordError(f"{info.file}:{line}: {problem}")
    elif shape is None and wanted.required and not known and below is not None and is_data(names, below):
        problem = (
            f"found a row of {count(len(names), 'cell')} where the column names should be; put a line with the names "
            "above it, e.g. question,answer"
        )
        info, above = replace(info, columns=()), above + 1
    elif shape is None:
        problem = missing_columns(names, known, wanted)
    table = Table(info, shape, f"{info.file}:{line}: {problem}", header_line=line)
    table.left_out.update({"above the column names": above} if above else {})
    return table


def missing_columns(names: Sequence[str], known: Mapping[str, str], wanted: Wanted) -> str:
    """Return what a table without the columns that are wanted lacks, what it has, and what to do."""
    found = shown_names(names) or "none"
    if unmapped := [f"{column} ({name})" for name, column in wanted.columns.items() if column not in names]:
        return f"no column {', '.join(unmapped)}, as prepare.columns says; found {found}; say there what it is called"
    lacking = ", ".join(name for name in wanted.required if name not in known)
    if len(names) < len(wanted.required):
        return f"no column {lacking}; found {found}; a table needs one with the questions and one with the answers"
    return f"no column {lacking}; found {found}; say in prepare.columns what yours are called, e.g. {{question: 질문}}"
