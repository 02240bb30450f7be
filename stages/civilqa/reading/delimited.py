"""CSV and TSV."""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from civilqa.program.errors import RecordError
from civilqa.reading.encoding import FIELD_CHARACTERS, find_encoding, read_lines
from civilqa.reading.rows import BadRow, Items, TableInfo, check_columns, make_row

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon"}


def read_csv(path: Path) -> Items:
    """Yield the TableInfo, then the rows of a CSV or TSV."""
    encoding = find_encoding(path)
    lines = read_lines(path, encoding)
    head = read_header_lines(lines)
    if not head:
        raise RecordError(f"{path}:1: the file is empty; want the column names on the first line, then the rows")
    if re.fullmatch(r'"?sep=.?"?', head[0].rstrip("\r\n"), re.IGNORECASE):
        raise RecordError(f"{path}:1: found '{head[0].strip()}', which is for Excel alone; delete this line")
    delimiter = find_delimiter("".join(head))

    csv.field_size_limit(FIELD_CHARACTERS)
    raw: list[str] = []  # the lines of the row being read
    reader = csv.reader(remember(chain(head, lines), raw), delimiter=delimiter, strict=True)
    line = 1
    try:
        names = check_columns(path, next(reader))
        yield TableInfo(str(path), path.suffix.lower()[1:], encoding, delimiter, tuple(filter(None, names)))
        raw.clear()
        line = reader.line_num + 1
        for cells in reader:
            if len(cells) == len(names):
                yield make_row(path, line, names, cells)
            elif len(cells) > 1 or "".join(raw).strip():
                yield BadRow(
                    str(path),
                    line,
                    f"found {count(len(cells), 'field')}, want {len(names)} as in the header; put a field that holds "
                    f'a {DELIMITERS[delimiter]} or a line break between double quotes ("...")',
                    "".join(raw).rstrip("\r\n"),
                )
            raw.clear()
            line = reader.line_num + 1
    except csv.Error as error:
        raise RecordError(quote_problem(path, line, raw, delimiter, str(error))) from None


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def remember(lines: Iterator[str], raw: list[str]) -> Iterator[str]:
    """Yield lines and keep them in `raw`, which the caller clears."""
    for line in lines:
        raw.append(line)
        yield line


def read_header_lines(lines: Iterator[str]) -> list[str]:
    """Return the first line, and those after it that a quoted line break joins to it."""
    head: list[str] = []
    quotes = 0
    for line in lines:
        head.append(line)
        quotes += line.count('"')
        # A quote inside a quoted field is doubled, so a finished row has an even number of them. One that has not after
        # 100 lines is broken, which the csv module will tell.
        if quotes % 2 == 0 or len(head) == 100:
            break
    return head


def find_delimiter(header: str) -> str:
    """Return the delimiter that splits the header into the most columns outside quotes; the comma in doubt."""
    unquoted = re.sub('"[^"]*"', "", header)
    return max(DELIMITERS, key=unquoted.count)


def quote_problem(path: Path, line: int, raw: list[str], delimiter: str, error: str) -> str:
    """Return the message for a row, from `line` on, that the csv module refused with `error`."""
    start = quoted_field_line(raw, delimiter, line)
    advice = 'close it, and write a double quote inside a quoted field twice ("")'
    if "end of data" in error:
        return f'{path}:{start}: the double quote (") that opens a field here is never closed; {advice}'
    if "field limit" in error:
        return (
            f'{path}:{start}: the double quote (") that opens a field here is not closed within '
            f"{FIELD_CHARACTERS} characters; {advice}"
        )
    if "expected after" in error:
        last = line + len(raw) - 1
        where = "" if last == start else f" on line {last}"
        return (
            f'{path}:{start}: the quoted field that starts here has text after its closing quote (")'
            f'{where}; write a double quote inside a quoted field twice ("")'
        )
    return f"{path}:{start}: no CSV: {error}; save the file again as 'CSV UTF-8'"


def quoted_field_line(raw: list[str], delimiter: str, first: int) -> int:
    """Return the line on which the last quoted field of a row starts; the row's lines are `raw`, from `first` on."""
    start, inside, field_starts, closed = first, False, True, False
    for number, text in enumerate(raw, start=first):
        for char in text:
            if inside:
                inside, closed = char != '"', char == '"'
            elif char == '"' and closed:
                inside, closed = True, False
            elif char == '"' and field_starts:
                start, inside, field_starts = number, True, False
            elif closed and char != delimiter:
                return start  # text after the closing quote, where the csv module stopped
            else:
                field_starts, closed = char == delimiter, False
    return start
