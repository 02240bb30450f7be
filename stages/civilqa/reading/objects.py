"""Tables whose rows are objects, from JSON or Parquet: their columns, and rows that stand in lists further inside."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from civilqa.reading.columns import EmptyFile, Wanted, find_shape, look_up, make_table
from civilqa.reading.names import shown_names
from civilqa.reading.rows import BadRow, Row, Table, TableInfo, flatten

# How many rows name the columns: a key that the first object lacks may be in a later one.
HEAD_ROWS = 1000
LISTS = 3  # in each other, of which the innermost holds the rows: KorQuAD has paragraphs, and questions in each

ADVICE = "write an array of objects, or one JSON object a line"
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def object_table(
    info: TableInfo, rows: Iterator[Row | BadRow], wanted: Wanted, columns: Iterable[str] = (), twice: str = ""
) -> Table:
    """Return the table whose rows are objects; its columns are the keys of the first rows.

    Args:
        info: without columns.
        columns: those that are there even without rows.
        twice: see make_table.

    Raises:
        EmptyFile: there are no rows, and no columns.
    """
    head = list(islice(rows, HEAD_ROWS))
    lists = find_lists([row for row in head if isinstance(row, Row)], wanted) or ()
    if lists:
        rows = unfolded(chain(head, rows), lists)
        head = list(islice(rows, HEAD_ROWS))
    good = [row for row in head if isinstance(row, Row)]
    names = tuple(dict.fromkeys(chain(columns, *(row.fields for row in good))))
    if not head and not names:
        raise EmptyFile(f"{info.file}:1: the file is empty; want rows; {ADVICE}")
    info = TableInfo(info.file, info.format, info.encoding, None, names)
    table = make_table(info, wanted, line=head[0].line if head else 1, rows=good, twice=twice)
    if head and not good:
        table.problem = str(head[0])
    table.lists = lists
    table.rows = complete(without_hollow(table, chain(head, rows), wanted), names)
    return table


def without_hollow(table: Table, rows: Iterator[Row | BadRow], wanted: Wanted) -> Iterator[Row | BadRow]:
    """Yield rows but those around an empty list that hold nothing of a question either, which are counted."""
    if table.shape is None or not table.lists:
        yield from rows
        return
    asked = [column for name in wanted.required for column in table.shape.parts.get(name, ())]
    asked += [table.shape.chat] if table.shape.chat else []
    for row in rows:
        hollow = isinstance(row, Row) and any(row.fields.get(name) in ([], "") for name in table.lists)
        if hollow and not any(look_up(row.fields, column) for column in asked):
            table.left_out["with an empty list"] += 1
        else:
            yield row


def complete(rows: Iterator[Row | BadRow], columns: tuple[str, ...]) -> Iterator[Row | BadRow]:
    """Yield rows that have all columns of their table, '' where they lack one."""
    empty = dict.fromkeys(columns, "")
    for row in rows:
        if isinstance(row, Row) and row.fields.keys() != empty.keys():
            yield Row(row.file, row.line, empty | row.fields)
        else:
            yield row


def find_lists(rows: Sequence[Row], wanted: Wanted, depth: int = LISTS, inside: str = "") -> tuple[str, ...] | None:
    """Return the columns in whose lists the rows stand that have what is wanted, the outer one first.

    It is () if the rows themselves have it, and None if nothing has, or more than one list.

    Args:
        inside: the list whose elements the rows are, with a dot; of what stands beside it no list is looked into.
    """
    if not wanted.fields:
        return ()
    try:
        if find_shape(list(dict.fromkeys(name for row in rows for name in row.fields)), wanted, rows) is not None:
            return ()
    except ValueError:  # they have, but two could be the same field: told once the table is read by them
        return ()
    held = dict.fromkeys(
        name for row in rows for name, cell in row.fields.items() if name.startswith(inside) and holds_objects(cell)
    )
    found = []
    for name in held if depth else ():
        within = [row for row in unfolded(rows, (name,)) if isinstance(row, Row)]
        inner = find_lists(within, wanted, depth - 1, f"{name}.")
        if inner is not None:
            found.append((name, *inner))
    return found[0] if len(found) == 1 else None


def unfolded(rows: Iterable[Row | BadRow], lists: Sequence[str]) -> Iterator[Row | BadRow]:
    """Yield a row for each element of a list, with what stands beside it; for the list inside it of each element too.

    A row without such a list is itself.
    """
    for row in rows:
        if not lists or isinstance(row, BadRow) or not holds_objects(row.fields.get(lists[0])):
            yield row
            continue
        beside = {name: cell for name, cell in row.fields.items() if name != lists[0]}
        for element in row.fields[lists[0]]:
            inner = Row(row.file, row.line, beside | dict(flatten({lists[0]: element})))
            yield from unfolded([inner], lists[1:])


def holds_objects(cell: Any) -> bool:
    return isinstance(cell, list) and any(isinstance(element, dict) for element in cell)


def object_row(file: str, line: int, value: Any, text: str) -> Row | BadRow:
    """Return the row that a JSON value makes, or what is wrong with it; its text in the file is `text`.

    Args:
        value: an error where there is no value.
    """
    try:
        if isinstance(value, Exception):
            raise value
        if not isinstance(value, dict):
            raise ValueError(f"found a JSON {json_type(value)}, want an object")
        fields = unique_keys(list(flatten(value)))
        if SURROGATE.search(text) and re.search("[\ud800-\udfff]", json.dumps(value, ensure_ascii=False)):
            raise ValueError("found half of a surrogate pair (\\ud800 to \\udfff), which is no character")
    except (ValueError, RecursionError) as error:
        reason = "JSON nested too deeply" if isinstance(error, RecursionError) else error
        return BadRow(file, line, f"{reason}; {ADVICE}", text)
    return Row(file, line, fields)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a key that is there twice is refused, for the second would silently replace the first."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key '{shown_names([twice])}' is there more than once")
    return value


def json_type(value: Any) -> str:
    """Return JSON's own word for the type of a value that is no object."""
    if value is None:
        return "null"
    return {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}[type(value)]
