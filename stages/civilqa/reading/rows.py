"""What a table is made of: its rows and columns, each cell as text."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Any

from civilqa.program.errors import RecordError


@dataclass(frozen=True, slots=True)
class Row:
    """One row as text.

    `line` is where the row starts, counted from 1; for Parquet and Excel the row number, with the header as row 1.
    """

    file: str
    line: int
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read as fields: why, and the whole of it as it stands in the file."""

    file: str
    line: int
    reason: str
    raw: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class TableInfo:
    """How a file was read; `encoding` is a Python codec, None for binary formats, and `delimiter` None without one."""

    file: str
    format: str
    encoding: str | None
    delimiter: str | None
    columns: tuple[str, ...]


Items = Iterator[TableInfo | Row | BadRow]


def check_columns(path: Path, names: list[str]) -> list[str]:
    """Return the stripped column names; '' for a column without one.

    Raises:
        RecordError: no names at all, or one that is there twice.
    """
    names = [name.strip() for name in names]
    if not any(names):
        raise RecordError(f"{path}:1: found no column names; put them on the first line")
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise RecordError(f"{path}:1: column {', '.join(repeated)} is there more than once; rename or delete one")
    return names


def make_row(path: Path, line: int, names: list[str], cells: list[str]) -> Row:
    """Return the row of as many cells as names, without the columns that have no name.

    Raises:
        RecordError: a column without a name holds text.
    """
    fields = dict(zip(names, cells, strict=True))
    if "" in fields:
        del fields[""]
        for number, (name, cell) in enumerate(zip(names, cells, strict=True), start=1):
            if not name and cell.strip():
                raise RecordError(
                    f"{path}:1: column {number} has no name, and line {line} has text in it; "
                    "name the column or delete it"
                )
    return Row(str(path), line, fields)


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
