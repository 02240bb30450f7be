"""CSV, TSV and other text with one row a line."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice

from civilqa.program.errors import RecordError
from civilqa.reading.cleaning import clean
from civilqa.reading.columns import HEADER_ROWS, EmptyFile, Wanted, find_header, make_table
from civilqa.reading.encoding import FIELD_CHARACTERS, find_encoding, read_lines
from civilqa.reading.names import count
from civilqa.reading.rows import BadRow, File, Row, Table, TableInfo, check_columns, is_blank, is_no_row, make_row

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
HEAD_LINES = 100  # read ahead to find the column names and the delimiter

# What Excel obeys on the first line of a CSV.
SEPARATOR = re.compile(r'"?sep=(.?)"?\s*', re.IGNORECASE)


def read_delimited(file: File, wanted: Wanted) -> Iterator[Table]:
    """Yield the table of a text file whose rows are lines, cells parted by a delimiter."""
    encoding = find_encoding(file)
    lines = read_lines(file, encoding)
    start = 0  # lines before the head
    first = next(lines, "")
    while first and not first.strip():
        first, start = next(lines, ""), start + 1
    if not first:
        raise EmptyFile(f"{file}:1: the file is empty; want the column names on the first line, then the rows")
    said = SEPARATOR.fullmatch(first)
    head = [*([] if said else [first]), *islice(lines, HEAD_LINES)]
    start += bool(said)
    delimiter, row = find_layout(head, said[1] if said else "", wanted)

    csv.field_size_limit(FIELD_CHARACTERS)
    raw: list[str] = []  # the lines of the row being read
    named = islice(parse(head, delimiter), row, row + 1)
    spaced = any(len(cells) > 1 and all(cell[:1] == " " for cell in cells[1:]) for cells in named)  # question, answer
    reader = csv.reader(remember(chain(head, lines), raw), delimiter=delimiter, strict=True, skipinitialspace=spaced)
    rows = number_rows(file, reader, raw, start)
    above, (line, header) = 0, next(rows, (start + 1, []))
    for _ in range(row):
        above += not is_blank(header)
        line, header = next(rows)
    names, twice = check_columns(str(file), line, header, wanted.columns.values())
    while any(names) and not names[-1]:
        names.pop()
    form = file.suffix[1:] if file.suffix in (".tsv", ".txt") else "csv"
    info = TableInfo(str(file), form, encoding, delimiter, tuple(filter(None, names)))
    below = parse(head[reader.line_num :], delimiter)
    table = make_table(info, wanted, line=line, above=above, below=below, twice=twice)
    table.rows = read_rows(table, rows, names, header, raw)
    yield table


def number_rows(file: File, reader: Iterator[list[str]], raw: list[str], start: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row starts, and its cells, none for a blank line; `raw` holds its text meanwhile.

    Raises:
        RecordError: a quote that is not closed, or text after one that is.
    """
    line = start + 1
    try:
        for cells in reader:
            yield line, cells
            raw.clear()
            line = start + reader.line_num + 1
    except csv.Error as error:
        raise RecordError(quote_problem(file, line, str(error))) from None


def read_rows(
    table: Table, rows: Iterator[tuple[int, list[str]]], names: list[str], header: list[str], raw: list[str]
) -> Iterator[Row | BadRow]:
    """Yield the rows below the column names; blank lines are no rows.

    Empty cells behind the last name are let pass as far as the line of the names has them too: one cell more is also
    what a comma outside quotes makes of a row whose last cell is empty.
    """
    width, again = len(names), [clean(name) for name in header[: len(names)]]
    for line, cells in rows:
        if not cells or is_no_row(table, again, cells):
            continue
        if width <= len(cells) <= max(width, len(header)) and is_blank(cells[width:]):
            yield make_row(table.info.file, line, names, cells[:width])
        else:
            yield BadRow(
                table.info.file,
                line,
                f"found {count(len(cells), 'field')}, want {width} as in the header; put a field that holds "
                f'a {DELIMITERS.get(table.info.delimiter, "delimiter")} or a line break between double quotes ("...")',
                "".join(raw).rstrip("\r\n"),
                columns=table.info.columns,
            )


def remember(lines: Iterator[str], raw: list[str]) -> Iterator[str]:
    """Yield lines and keep them in `raw`, which the caller clears."""
    for line in lines:
        raw.append(line)
        yield line


def find_layout(head: Sequence[str], delimiter: str, wanted: Wanted) -> tuple[str, int]:
    """Return the delimiter and which row has the column names, by the first lines of a file.

    It is the delimiter with which some row has the names that are wanted. Where none has them, it is the one that
    splits the first line with text into the most columns outside quotes, the comma in doubt.

    Args:
        delimiter: that the file itself says, '' if it says none.
    """
    unquoted = re.split(r"[\r\n]", re.sub('"[^"]*"', "", "".join(head)).lstrip("\r\n"), maxsplit=1)[0]
    by_count = sorted(DELIMITERS, key=unquoted.count, reverse=True)  # a stable sort: the comma in doubt
    for candidate in [delimiter] if delimiter else by_count:
        rows = parse(head, candidate)
        if (header := find_header(rows, wanted)) is not None:
            return candidate, header
    delimiter = delimiter or by_count[0]
    return delimiter, next((index for index, cells in enumerate(parse(head, delimiter)) if any(cells)), 0)


def parse(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Return the first rows of some lines as far as they can be read."""
    rows: list[list[str]] = []
    with suppress(csv.Error):  # told where the rows are read in earnest
        rows.extend(islice(csv.reader(lines, delimiter=delimiter), HEADER_ROWS))
    return rows


def quote_problem(file: File, line: int, error: str) -> str:
    """Return the message for a row, from `line` on, that the csv module refused with `error`."""
    start, twice = f"{file}:{line}: the row that starts here has", 'write a double quote in a quoted field twice ("")'
    if "expected after" in error:
        return f'{start} text behind the closing double quote (") of a field; {twice}'
    if "end of data" in error:
        return f'{start} a double quote (") that is never closed; close it, and {twice}'
    if "field limit" in error:
        return (
            f'{start} a double quote (") that is not closed within {FIELD_CHARACTERS} characters; close it, and {twice}'
        )
    return f"{file}:{line}: no CSV: {error}; save the file again as 'CSV UTF-8'"
