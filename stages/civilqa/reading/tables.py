"""Tables of questions and answers as people have them: CSV, TSV, JSONL, Parquet and Excel, one row at a time.

A table is never held in memory: a text file's bytes are read once to decide its encoding, then once more row by row.
Text is decoded strictly and wholly or not at all; no replacement character ever stands in for a letter of a statute.
"""

import codecs
import csv
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, time
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from civilqa.program.errors import RecordError

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon"}

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 1 << 16
BATCH_ROWS = 1000

# A quote that is never closed makes the rest of the file one field; the limit stops that before a 500 MB file is in
# memory. At 2,000 characters a page it is 5,000 pages.
FIELD_CHARACTERS = 10_000_000

# Of a workbook, or of a row group of a Parquet file: a file of a few kilobytes can unpack to what fills the memory.
UNPACKED_BYTES = 2 << 30

# How far to look for a JSONL file's first object, which names the columns.
HEAD_LINES = 1000

# CP949 decodes much that is no text, such as binary files. Tab, line breaks, vertical tab and form feed do occur in
# documents. Python's cp949 yields no C1 control (U+0080 to U+009F) at all: 0x80 and 0xff are invalid in it.
CONTROL = re.compile("[\x01-\x08\x0e-\x1f\x7f]")
HANGUL = re.compile("[가-힣]")

BOMS = (
    # A UTF-32 mark begins with a UTF-16 one, and leads to NUL characters, which are refused below.
    (codecs.BOM_UTF8, "utf-8-sig", "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16", "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16", "utf-16-be"),
)

# An old .xls and a password-protected .xlsx are both OLE files, not zip files.
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@dataclass(frozen=True)
class Row:
    """One row as text.

    `line` is where the row starts, counted from 1; for Parquet and Excel the row number, with the header as row 1.
    """

    file: str
    line: int
    fields: dict[str, str]


@dataclass(frozen=True)
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


def find_tables(source: str | list[str]) -> list[Path]:
    """Return the files of a file, a list of files or folders, or a folder (its tables by name, hidden ones left out).

    Raises:
        RecordError: nothing is there, a folder without tables, an unknown suffix, or a file that is named twice.
    """
    if not source:
        raise RecordError("prepare.source: is empty; name a file, several files or a folder")
    tables: list[Path] = []
    for name in [source] if isinstance(source, str) else source:
        path = Path(name)
        if path.is_dir():
            # "~$name.xlsx" is the lock that Excel leaves beside a workbook while it is open.
            found = [
                file
                for file in sorted(path.iterdir(), key=lambda file: file.name)
                if file.suffix.lower() in READERS and not file.name.startswith((".", "~$")) and file.is_file()
            ]
            if not found:
                raise RecordError(f"{path}: no table in this folder; put a file there that ends in {known_suffixes()}")
            tables += found
        elif path.is_file():
            reader_of(path)
            tables.append(path)
        else:
            raise RecordError(f"{path}: not found; put the dataset there or set prepare.source")
    seen: set[Path] = set()
    for path in tables:
        if path.resolve() in seen:
            raise RecordError(f"{path}: is named twice; name it once in prepare.source")
        seen.add(path.resolve())
    return tables


def open_table(path: Path) -> tuple[TableInfo, Iterator[Row | BadRow]]:
    """Return what a table is and an iterator over its rows; blank lines are no rows.

    A column without a name is left out as long as all its cells are empty. In a JSONL file the columns are the keys of
    its first object: a key that a later object lacks is '', and one that it has besides is in that row's fields.

    Raises:
        RecordError: from this call, no such file, an unknown suffix, no text, or no usable header; from the iterator, a
            file that cannot be trusted from some row on (a quote that is not closed, a damaged file).
    """
    items = reader_of(path)(path)
    try:
        info = next(items)
    except FileNotFoundError:
        raise RecordError(f"{path}: not found; put the dataset there or set prepare.source") from None
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be opened ({error.strerror}); check that it is a file you may read"
        ) from None
    return info, items  # type: ignore[return-value]  # a reader yields the TableInfo first, and only once


def known_suffixes() -> str:
    return ", ".join(READERS)


def reader_of(path: Path) -> Callable[[Path], Items]:
    """Return the function that reads a file of this suffix."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise RecordError(f"{path}: unknown suffix '{path.suffix}'; save the file as one of {known_suffixes()}")
    return reader


# Text: the encoding


def find_encoding(path: Path) -> str:
    """Return the codec that decodes the whole file strictly: by its mark, its NUL bytes, then UTF-8, then CP949.

    Raises:
        RecordError: none does, or what it yields is no text; names the line and the byte.
    """
    advice = "save the file as 'CSV UTF-8'" if path.suffix.lower() in (".csv", ".tsv") else "save the file as UTF-8"
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    guess = guess_utf16(head) or "utf-8"
    marked = ((codec, strict_codec) for mark, codec, strict_codec in BOMS if head.startswith(mark))
    codec, strict_codec = next(marked, (guess, guess))

    failure, hangul = first_undecodable(path, strict_codec)
    if failure is None:
        return codec
    line, offset, byte, control = failure
    if control is not None:
        raise RecordError(f"{path}:{line}: not a text file ({control}); {advice}")
    found = f"0x{byte:02x}, byte {offset + 1} of the file"
    if strict_codec != "utf-8":
        raise RecordError(f"{path}:{line}: broken UTF-16 ({found}); {advice}")
    # The three bytes of a Hangul syllable in UTF-8 hardly occur in CP949 text, where they begin with a rare Hanja: a
    # file that has them is damaged UTF-8, and decoding it as CP949 could only yield mojibake.
    if hangul or codec == "utf-8-sig":
        raise RecordError(f"{path}:{line}: broken UTF-8 ({found}); {advice}")
    failure, _ = first_undecodable(path, "cp949")
    if failure is None and rare_syllables_share(path) <= 0.5:
        return "cp949"
    if failure is None:
        raise RecordError(
            f"{path}:{line}: not UTF-8 ({found}), and as CP949 it is not Korean but rare syllables that no word has; "
            f"{advice}"
        )
    cp949_line, offset, byte, control = failure
    if control is not None:
        raise RecordError(f"{path}:{cp949_line}: not a text file ({control}); {advice}")
    found_too = f"0x{byte:02x}, byte {offset + 1}, line {cp949_line}"
    raise RecordError(f"{path}:{line}: not UTF-8 ({found}) and not CP949 ({found_too}); {advice}")


def rare_syllables_share(path: Path) -> float:
    """Return the share, 0 to 1, of syllables like 뷁 that CP949 adds to EUC-KR among the characters of two bytes.

    It is next to 0 in Korean, and high where CP949 decodes what is not, such as the quotation marks of Windows-1252:
    the bytes of "don’t" would be "don뭪".
    """
    wide = rare = 0
    with path.open(encoding="cp949", newline="") as file:
        while text := file.read(CHUNK_BYTES):
            size = len(text.encode("cp949"))
            wide += size - len(text)
            # Python's euc_kr spells such a syllable out in 8 bytes in place of 2. Source: KS X 1001 annex 3.
            rare += (len(text.encode("euc_kr")) - size) // 6
    return rare / max(wide, 1)


def guess_utf16(head: bytes) -> str | None:
    """Return the byte order of UTF-16 without a mark, or None for anything else.

    In UTF-16 the bytes of separators are paired with a NUL byte, on the side that tells the byte order. Counting NUL
    bytes alone would mislead: U+AC00, 가, has one on the other side.
    """
    if b"\0" not in head:
        return None
    separators = b"\n\r\t ,;"
    total = sum(head.count(separator) for separator in separators)
    low, high = head[0::2], head[1::2]
    little = sum(a in separators and b == 0 for a, b in zip(low, high, strict=False))
    big = sum(a == 0 and b in separators for a, b in zip(low, high, strict=False))
    if max(little, big) * 2 < max(total, 1):
        return None
    return "utf-16-le" if little >= big else "utf-16-be"


def first_undecodable(path: Path, codec: str) -> tuple[tuple[int, int, int, str | None] | None, bool]:
    """Decode a file strictly; return (None, ...) if all of it is text, else where it is not.

    Returns:
        ((line, offset of the byte, the byte, the control character in words or None), whether Hangul came before).
    """
    decoder = codecs.getincrementaldecoder(codec)("strict")
    done, line, hangul, after_cr = 0, 1, False, False

    def breaks(text: str) -> int:
        # \r\n is one line break, also where it lies across two chunks.
        return text.count("\n") + text.count("\r") - text.count("\r\n") - (after_cr and text.startswith("\n"))

    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK_BYTES)
            kept = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                before = error.object[: error.start].decode(codec, errors="ignore")
                offset = done - kept + error.start
                hangul = hangul or HANGUL.search(before) is not None
                return (line + breaks(before), offset, error.object[error.start], None), hangul
            at = text.find("\0")
            control = "a NUL character" if at >= 0 else None
            if codec == "cp949" and at < 0 and (match := CONTROL.search(text)):
                at, control = match.start(), f"control character 0x{ord(match[0]):02x}"
            if control is not None:
                return (line + breaks(text[:at]), 0, 0, control), hangul
            if not chunk:
                return None, hangul
            hangul = hangul or HANGUL.search(text) is not None
            line += breaks(text)
            after_cr = text.endswith("\r") if text else after_cr
            done += len(chunk)


def read_lines(path: Path, encoding: str) -> Iterator[str]:
    """Yield lines with their ends, which are \\n, \\r\\n or \\r.

    Raises:
        RecordError: a line of more than FIELD_CHARACTERS characters.
    """
    # newline="" keeps the line ends for the csv module; unlike str.splitlines it does not split at U+2028 or \f.
    with path.open(encoding=encoding, newline="") as file:
        number = 1
        while line := file.readline(FIELD_CHARACTERS + 1):
            if len(line) > FIELD_CHARACTERS:
                raise RecordError(
                    f"{path}:{number}: found a line of more than {FIELD_CHARACTERS} characters; put one row on a line"
                )
            yield line
            number += 1


# Columns and cells


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


# CSV and TSV


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
        yield TableInfo(str(path), path.suffix.lower()[1:], encoding, delimiter, tuple(name for name in names if name))
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


# JSONL


def read_jsonl(path: Path) -> Items:
    """Yield the TableInfo, then the rows of a file with one JSON object a line."""
    encoding = find_encoding(path)
    items = read_objects(path, encoding)
    head: list[Row | BadRow] = []
    for item in items:
        head.append(item)
        if isinstance(item, Row) or len(head) == HEAD_LINES:
            break
    if not head:
        raise RecordError(f"{path}:1: the file is empty; want one JSON object a line")
    columns = tuple(head[-1].fields) if isinstance(head[-1], Row) else ()
    yield TableInfo(str(path), "jsonl", encoding, None, columns)
    empty = dict.fromkeys(columns, "")
    for item in chain(head, items):
        if isinstance(item, Row) and item.fields.keys() != empty.keys():
            yield Row(item.file, item.line, empty | item.fields)
        else:
            yield item


def read_objects(path: Path, encoding: str) -> Iterator[Row | BadRow]:
    """Yield the objects of a JSONL file as rows, each with its own keys."""
    first = True
    for line, text in enumerate(read_lines(path, encoding), start=1):
        text = text.strip()
        if not text:
            continue
        if first and (text in ("[", "{") or text.startswith("[{")):
            raise RecordError(
                f"{path}:{line}: found one JSON {'object' if text == '{' else 'array'} over the whole file, want JSON "
                "Lines; write each object on a line of its own, without the brackets and commas around them"
            )
        first = False
        try:
            value = json.loads(text, object_pairs_hook=unique_keys)
            if not isinstance(value, dict):
                raise ValueError(f"found a JSON {json_type(value)}, want an object")
            fields = unique_keys([(key.strip(), cell_text(cell)) for key, cell in value.items()])
            if "\\u" in text and re.search("[\ud800-\udfff]", "".join(chain(fields, fields.values()))):
                raise ValueError("found half of a surrogate pair (\\ud800 to \\udfff), which is no character")
        except json.JSONDecodeError as error:
            reason = f"no JSON: {error.msg} at character {error.colno}; write one JSON object a line"
            yield BadRow(str(path), line, reason, text)
        except ValueError as error:
            yield BadRow(str(path), line, f"{error}; write one JSON object a line", text)
        except RecursionError:
            yield BadRow(str(path), line, "JSON nested too deeply; write one JSON object a line", text)
        else:
            yield Row(str(path), line, fields)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; a key that is there twice is refused, for the second would silently replace the first."""
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key '{next(name for name in names if names.count(name) > 1)}' is there more than once")
    return value


def json_type(value: Any) -> str:
    """Return JSON's own word for the type of a value that is no object."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return names[type(value)]


# Parquet and Excel


def read_parquet(path: Path) -> Items:
    """Yield the TableInfo, then the rows of a Parquet file."""
    import pyarrow.parquet  # here, since only who has such a file should wait for the import

    line = 1
    with path.open("rb") as file:
        try:
            # Not thread-bound: with BATCH_ROWS rows at a time threads cost more than they save.
            table = pyarrow.parquet.ParquetFile(file)
            for group in range(table.metadata.num_row_groups):
                refuse_bomb(path, table.metadata.row_group(group).total_byte_size)
            names = check_columns(path, table.schema_arrow.names)
            yield TableInfo(str(path), "parquet", None, None, tuple(name for name in names if name))
            line = 2
            for batch in table.iter_batches(BATCH_ROWS, use_threads=False):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield parquet_row(path, line, names, values)
                    line += 1
        except (RecordError, MemoryError):
            raise
        except Exception as error:  # pyarrow's own, OSError, and what converting damaged values raises
            raise RecordError(damaged(path, line, "a Parquet file", error)) from None


def parquet_row(path: Path, line: int, names: list[str], values: tuple[Any, ...]) -> Row | BadRow:
    """Return a row of values as text."""
    try:
        return make_row(path, line, names, [cell_text(value) for value in values])
    except UnicodeDecodeError as error:
        reason = f"found bytes that are not UTF-8 (0x{error.object[error.start]:02x}); write the column as text"
        return BadRow(str(path), line, reason, json.dumps(values, ensure_ascii=False, default=str))


def read_xlsx(path: Path) -> Items:
    """Yield the TableInfo, then the rows of the first sheet of a workbook; a formula is the value Excel last saved."""
    import openpyxl  # here, since only who has such a file should wait for the import

    line = 1
    with path.open("rb") as file:
        if file.read(len(OLE_MAGIC)) == OLE_MAGIC:
            raise RecordError(
                f"{path}: an old Excel file (.xls) or one with a password; "
                "save it as 'Excel Workbook (.xlsx)' without a password"
            )
        file.seek(0)
        try:
            with warnings.catch_warnings():
                check_unpacked_size(path, file)
                warnings.simplefilter("ignore")  # about styles and validations, of which nothing is read
                book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            with closing(book):
                if not book.worksheets:
                    raise RecordError(f"{path}: the workbook has no sheet with cells; put the table on its first sheet")
                sheet = book.worksheets[0]
                # Other programs write a wrong size into the sheet, and openpyxl would stop reading there.
                sheet.reset_dimensions()
                names: list[str] = []
                for line, values in enumerate(sheet.iter_rows(values_only=True), start=1):
                    # Excel writes a carriage return in a cell as _x000D_.
                    # Source: ECMA-376 part 1, 22.9.2.19 ST_Xstring.
                    cells = [cell_text(value).replace("_x000D_", "\r") for value in values]
                    while cells and not cells[-1]:
                        cells.pop()
                    if line == 1:
                        names = check_columns(path, cells)
                        columns = tuple(name for name in names if name)
                        yield TableInfo(str(path), "xlsx", None, None, columns)
                    elif cells:
                        width = max(len(names), len(cells))
                        wide_names = names + [""] * (width - len(names))
                        yield make_row(path, line, wide_names, cells + [""] * (width - len(cells)))
                if not names:
                    raise RecordError(f"{path}:1: the first sheet is empty; put the column names on its first row")
        except (RecordError, MemoryError):
            raise
        except Exception as error:  # zipfile's, the XML parser's, and any other that openpyxl meets damaged XML with
            raise RecordError(damaged(path, line, "an Excel workbook", error)) from None


def check_unpacked_size(path: Path, file: BinaryIO) -> None:
    """Refuse a workbook whose parts, of which some are read whole, unpack to more than UNPACKED_BYTES.

    A part cannot lie about its size: zipfile reads no more of it than it declares.
    """
    refuse_bomb(path, sum(part.file_size for part in zipfile.ZipFile(file).infolist()))
    file.seek(0)


def refuse_bomb(path: Path, unpacked_bytes: int) -> None:
    """Raise a RecordError if what would be unpacked at a time is more than UNPACKED_BYTES."""
    if unpacked_bytes > UNPACKED_BYTES:
        raise RecordError(
            f"{path}: would unpack to {unpacked_bytes / 2**30:.1f} GiB, want at most {UNPACKED_BYTES / 2**30:.0f}; "
            "save the table as CSV, or in several files"
        )


def damaged(path: Path, line: int, kind: str, error: Exception) -> str:
    """Return the message for a binary file that its library gave up on at or after row `line`."""
    said = (str(error).splitlines() or [""])[0].strip().rstrip(".")[:120] or type(error).__name__
    return f"{path}:{line}: cannot be read as {kind} from here on ({said}); the file is damaged, export it again"


READERS: dict[str, Callable[[Path], Items]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".xlsx": read_xlsx,
}
