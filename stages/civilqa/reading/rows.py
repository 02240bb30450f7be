"""What a table is made of: its rows and columns, each cell as text."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from civilqa.reading.cleaning import clean
from civilqa.reading.names import is_known, shown_names

# What programs write where there is nothing. Source: pandas.read_csv, `na_values`; Excel's error values.
EMPTY = frozenset(
    (
        *("#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>", "n/a", "na", "nan"),
        *("nat", "none", "null", "#null!", "#div/0!", "#value!", "#ref!", "#name?", "#num!"),
    )
)

Cell = str | list[Any] | dict[str, Any]  # a list, or an empty object, stays what it is: it is no text


@dataclass(frozen=True, slots=True)
class File:
    """A file to read: where its bytes lie, and what messages call it; inside an archive the two differ.

    `name` is what it is called without the suffix of a .gz around it.
    """

    path: Path
    place: str
    name: str

    def __str__(self) -> str:
        return self.place

    @property
    def suffix(self) -> str:
        return PurePath(self.name).suffix.lower()


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    `line` is where the row starts, counted from 1; for Parquet and workbooks the row number, with Parquet's column
    names as row 1. What is inside an object has a field of its own: `taskinfo.output`.
    """

    file: str
    line: int
    fields: dict[str, Any]

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return Row, (self.file, self.line, self.fields)  # to another process in half the time of a dataclass's own way


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read as fields: why, and the whole of it as it stands in the file.

    `kind` is the word to count by; `columns` are those of its table, where the row does not name them itself.
    """

    file: str
    line: int
    reason: str
    raw: str
    kind: str = "unreadable"
    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class TableInfo:
    """How a table was read; `encoding` is a Python codec, None for binary formats, and `delimiter` None without one.

    `file` names a sheet in brackets where a workbook has several (`cases.xlsx[상담]`), a member of an archive behind
    it (`cases.zip/2024/a.csv`).
    """

    file: str
    format: str
    encoding: str | None
    delimiter: str | None
    columns: tuple[str, ...]


@dataclass(frozen=True)
class LeftOut:
    """A file, sheet or part of a file that is not read, and how many rows it holds; None where it is no table."""

    file: str
    reason: str
    rows: int | None = None


@dataclass(frozen=True)
class Shape:
    """Which columns make which field.

    `kind` is how it is called, `parts` the columns of each field, whose texts are joined by a blank line, `chat` the
    column that holds a conversation in place of question and answer, `prefix` the path of the object that all are in.
    """

    kind: str
    parts: Mapping[str, tuple[str, ...]]
    chat: str | None = None
    prefix: str = ""

    @cached_property
    def used(self) -> frozenset[str]:
        columns = {column for columns in self.parts.values() for column in columns}
        return frozenset(columns | {self.chat} if self.chat is not None else columns)


@dataclass
class Table:
    """A table, with what is found out about it while its rows are read.

    `shape` says where question and answer stand; None if nothing does, and `problem` is then the message for it.
    `part` tells whether the table is one of several in its file.
    """

    info: TableInfo
    shape: Shape | None
    problem: str = ""
    rows: Iterator[Row | BadRow] = field(default_factory=lambda: iter(()), compare=False, repr=False)
    part: bool = False
    header_line: int = 1
    lists: tuple[str, ...] = ()  # columns whose lists hold the rows, the outer one first
    read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # rows that are none, by what they are
    filled: int = 0  # cells that got the text of the merged cell which they belong to
    uncomputed: int = 0  # cells that are empty, since what their formula yields was never saved
    unused: Counter[str] = field(default_factory=Counter)  # columns with no part in the records: rows filled
    several_turns: int = 0  # conversations of several turns of which one was taken


def is_blank(cells: Sequence[str]) -> bool:
    """Tell whether no cell of a row holds more than spaces."""
    return not any(map(str.strip, cells))


def is_empty(text: str) -> bool:
    """Tell whether a cell holds nothing, or what stands for it, such as nan or #N/A."""
    return not text or (len(text) < 12 and text.strip().casefold() in EMPTY)


def check_columns(place: str, line: int, names: Sequence[str], mapped: Iterable[str] = ()) -> tuple[list[str], str]:
    """Return the cleaned column names, in NFC, '' for a column without one; and what no table that is used may have.

    That is a name twice that records are made of, '' for none. Of any name that is there again, the next is `비고 (2)`.

    Args:
        mapped: further names that records are made of.
    """
    names = [clean(name) for name in names]
    repeated = [name for name, times in Counter(filter(None, names)).items() if times > 1]
    wrong = sorted(name for name in repeated if is_known(name) or name in mapped)
    twice = f"{place}:{line}: column {shown_names(wrong)} is there more than once; rename or delete one"
    seen: Counter[str] = Counter()
    for index, name in enumerate(names if repeated else ()):
        seen[name] += 1
        if name and seen[name] > 1:
            names[index] = f"{name} ({seen[name]})"
    return names, twice if wrong else ""


def is_no_row(table: Table, header: list[str], cells: list[str]) -> bool:
    """Tell whether a row is empty, or names the columns once more, as in files put one below the other; count it.

    Args:
        header: the names as they stand there, cleaned.
    """
    if is_blank(cells):
        table.left_out["of empty cells"] += 1
    elif len(cells) >= len(header) and all(clean(cell) == name for cell, name in zip(cells, header, strict=False)):
        table.left_out["with the column names again"] += 1
    else:
        return False
    return True


def make_row(file: str, line: int, names: list[str], cells: list[Cell]) -> Row:
    """Return the row of as many cells as names; a column without a name is there where it is filled."""
    if "" not in names:
        return Row(file, line, dict(zip(names, cells, strict=True)))
    numbered = enumerate(zip(names, cells, strict=True), start=1)
    return Row(
        file,
        line,
        {name or f"column {number} (no name)": cell for number, (name, cell) in numbered if name or str(cell).strip()},
    )


def flatten(value: dict[str, Any]) -> Iterator[tuple[str, Cell]]:
    """Yield the fields of an object, those of an object inside it by dotted names: `taskinfo.output`."""
    for key, cell in value.items():
        name = clean(key)
        if isinstance(cell, dict) and cell:
            for inner, text in flatten(cell):
                yield f"{name}.{inner}", text
        else:
            yield name, cell_value(cell)


def cell_value(value: Any) -> Cell:
    """Return a cell as text; a list or an object as it is."""
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, list | dict) else cell_text(value)


def cell_text(value: Any) -> str:
    """Return a cell as text: '' for None and NaN, 3 for 3.0, a date without a midnight, JSON for lists and objects.

    Numbers lose the '.0' that pandas and Excel put to whole ones as soon as a column has a gap.

    Raises:
        UnicodeDecodeError: bytes that are not UTF-8.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, datetime) and value.time() == time() and value.tzinfo is None:
        return value.date().isoformat()
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
