"""Workbooks of Excel and LibreOffice, sheet by sheet.

.xlsx and .xlsm are read as a stream by openpyxl, .xls whole by xlrd, since it has at most 65,536 rows a sheet. .ods is
read here: what there is for it drops line breaks within a cell and knows no merged cells.
"""

import io
import re
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import IO, Any
from xml.etree import ElementTree

from civilqa.program.errors import RecordError
from civilqa.reading.archives import refuse_bomb, told_damage
from civilqa.reading.cleaning import clean
from civilqa.reading.columns import HEADER_ROWS, EmptyFile, Wanted, find_header, make_table
from civilqa.reading.names import shown_place
from civilqa.reading.rows import File, LeftOut, Row, Table, TableInfo, cell_text, check_columns, is_no_row, make_row

MAX_ROWS, MAX_COLUMNS = 1 << 20, 1 << 14  # of a sheet, by Excel's own limits; a file may claim to have more

OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# A .xlsx with a password is an OLE file with a part of this name.
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
ODS_TYPE = b"application/vnd.oasis.opendocument.spreadsheet"

Cells = tuple[int, list[str]]  # the number of a row, from 1 on, and its cells without the empty ones at its end


@dataclass
class Sheet:
    """A sheet of a workbook.

    `merged` says for the first row of merged cells their column, from 0 on, and their last row. It is complete for a
    row when that has been read.
    """

    name: str
    rows: Iterator[Cells]
    merged: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    filled: int = 0  # cells that got the text of the merged cell which they belong to
    uncomputed: int = 0  # cells that are empty, since what their formula yields was never saved


def read_workbook(file: File, wanted: Wanted) -> Iterator[Table | LeftOut]:
    """Yield a table for each sheet of a workbook, and the sheets that are empty.

    A formula is the value that was last saved. The text of merged cells stands in each row that they span.

    Raises:
        RecordError: it is no workbook, is protected or damaged, or has no cells.
    """
    with file.path.open("rb") as stream:
        begin = stream.read(64)
        stream.seek(0)
        with told_damage(file, "an Excel workbook"):
            form, sheets = open_sheets(file, stream, begin)
        tables = 0
        for sheet in sheets:
            place = f"{file}[{shown_place(sheet.name)}]" if len(sheets) > 1 else str(file)
            table = read_sheet(file, place, form, sheet, wanted)
            if table is None:
                yield LeftOut(place, "an empty sheet", 0)
                continue
            table.part = len(sheets) > 1
            tables += 1
            yield table
        if not tables:
            raise EmptyFile(f"{file}:1: the workbook has no cells; put the column names on the first row of a sheet")


def open_sheets(file: File, stream: IO[bytes], begin: bytes) -> tuple[str, list[Sheet]]:
    """Return the format of a workbook, by what it holds rather than by its suffix, and its sheets."""
    if begin.startswith(OLE_MAGIC):
        return "xls", xls_sheets(file, stream.read())
    archive = zipfile.ZipFile(stream)
    # Some parts are read whole. None can lie about its size: zipfile reads no more of it than it declares.
    refuse_bomb(file, sum(part.file_size for part in archive.infolist()))
    if "mimetype" in archive.namelist() and archive.read("mimetype").startswith(ODS_TYPE):
        return "ods", ods_sheets(archive)
    return "xlsx", xlsx_sheets(archive, stream)


def read_sheet(file: File, place: str, form: str, sheet: Sheet, wanted: Wanted) -> Table | None:
    """Return the table of a sheet, None for an empty one; rows without cells are no rows."""
    rows = (row for row in fill_merged(guarded(file, sheet.rows), sheet) if any(row[1]))
    head = list(islice(rows, HEADER_ROWS))
    if not head:
        return None
    cells = [cells for _, cells in head]
    number = find_header(cells, wanted) or 0
    line, header = head[number]
    names, twice = check_columns(place, line, header, wanted.columns.values())
    info = TableInfo(place, form, None, None, tuple(filter(None, names)))
    table = make_table(info, wanted, line=line, above=number, below=cells[number + 1 :], twice=twice)
    table.rows = sheet_rows(table, names, header, chain(head[number + 1 :], rows), sheet)
    return table


def sheet_rows(table: Table, names: list[str], header: list[str], rows: Iterator[Cells], sheet: Sheet) -> Iterator[Row]:
    again = [clean(name) for name in header]
    for line, cells in rows:
        table.filled, table.uncomputed = sheet.filled, sheet.uncomputed
        if not is_no_row(table, again, cells):
            width = max(len(names), len(cells))
            yield make_row(
                table.info.file, line, names + [""] * (width - len(names)), cells + [""] * (width - len(cells))
            )


def guarded(file: File, rows: Iterator[Cells]) -> Iterator[Cells]:
    """Yield rows as far as a library can read them.

    Raises:
        RecordError: it cannot, or there are more than a sheet has.
    """
    with told_damage(file, "an Excel workbook") as at:
        for line, cells in rows:
            if line > MAX_ROWS or len(cells) > MAX_COLUMNS:
                raise RecordError(
                    f"{file}:{line}: a sheet has at most {MAX_ROWS} rows and {MAX_COLUMNS} columns; save it again"
                )
            while cells and not cells[-1]:
                cells.pop()
            at[0] = line
            yield line, cells


def fill_merged(rows: Iterator[Cells], sheet: Sheet) -> Iterator[Cells]:
    """Yield rows in which the text of merged cells stands in each row that they span, and count the cells filled.

    A row that has no cells of its own stays without.
    """
    spanning: dict[int, tuple[str, int]] = {}  # by column: the text and the last row
    for line, cells in rows:
        filled = list(cells)
        for column, (text, last) in list(spanning.items()):
            if line > last:
                del spanning[column]
            elif any(cells) and text and not (column < len(filled) and filled[column]):
                filled += [""] * (column + 1 - len(filled))
                filled[column] = text
                sheet.filled += 1
        for column, last in sheet.merged.get(line, ()):
            spanning[column] = (cells[column] if column < len(cells) else "", last)
        yield line, filled


# --- .xlsx and .xlsm -------------------------------------------------------------------------------------------------

# Merged cells, and cells with a formula but no value; t="str" without one is an empty text that was computed.
MARKED = re.compile(
    rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]+)(\d+):[A-Z]+(\d+)"'
    rb'|<(?:\w+:)?c\s(?![^>]*\st="str")[^>]*><(?:\w+:)?f\b[^<]*(?:/>|</(?:\w+:)?f>)'
    rb"(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v></(?:\w+:)?v>)?</(?:\w+:)?c>"
)
CHUNK_BYTES = 1 << 20
MARK_BYTES = 1 << 15  # a formula has at most 8,192 characters


def xlsx_sheets(archive: zipfile.ZipFile, stream: IO[bytes]) -> list[Sheet]:
    import openpyxl  # here, since only who has such a file should wait for the import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about styles and validations, of which nothing is read
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
    sheets = [Sheet(sheet.title, iter(())) for sheet in book.worksheets]
    for sheet, source in zip(sheets, book.worksheets, strict=True):
        sheet.rows = xlsx_rows(source, archive, sheet)
    return sheets


def xlsx_rows(source: Any, archive: zipfile.ZipFile, sheet: Sheet) -> Iterator[Cells]:
    from openpyxl.utils import column_index_from_string

    # openpyxl says nothing of them when it streams; merged cells stand behind the rows in the sheet's part.
    rest = b""
    with archive.open(source._worksheet_path) as part:
        while chunk := part.read(CHUNK_BYTES):
            text = rest + chunk
            end = 0
            for match in MARKED.finditer(text):
                end = match.end()
                if match[1] is None:
                    sheet.uncomputed += 1
                elif (last := int(match[3])) > (first := int(match[2])):
                    sheet.merged[first].append((column_index_from_string(match[1].decode()) - 1, last))
            rest = text[max(end, len(text) - MARK_BYTES) :]
    # Other programs write a wrong size into the sheet, and openpyxl would stop reading there.
    source.reset_dimensions()
    for line, values in enumerate(source.iter_rows(values_only=True), start=1):
        # Excel writes a carriage return in a cell as _x000D_. Source: ECMA-376 part 1, 22.9.2.19 ST_Xstring.
        yield line, [cell_text(value).replace("_x000D_", "\r") for value in values]


# --- .xls ------------------------------------------------------------------------------------------------------------


def xls_sheets(file: File, content: bytes) -> list[Sheet]:
    import xlrd

    protected = RecordError(f"{file}: is protected by a password; save it without one")
    if ENCRYPTED in content:
        raise protected
    try:
        # Merged cells count as formatting.
        book = xlrd.open_workbook(file_contents=content, formatting_info=True, ragged_rows=True, logfile=io.StringIO())
    except xlrd.XLRDError as error:
        raise protected if "encrypted" in str(error) else error from None
    sheets = []
    for source in book.sheets():
        sheet = Sheet(source.name, xls_rows(source, book.datemode))
        for first, end, column, _ in source.merged_cells:
            if end > first + 1:
                sheet.merged[first + 1].append((column, end))
        sheets.append(sheet)
    return sheets


def xls_rows(source: Any, datemode: int) -> Iterator[Cells]:
    import xlrd

    read: dict[int, Callable[[Any], Any]] = {
        xlrd.XL_CELL_DATE: lambda value: xlrd.xldate_as_datetime(value, datemode),
        xlrd.XL_CELL_BOOLEAN: bool,
        xlrd.XL_CELL_ERROR: lambda code: xlrd.error_text_from_code.get(code, "#N/A"),
    }
    for number in range(source.nrows):
        cells = source.row(number)
        yield number + 1, [cell_text(read.get(cell.ctype, lambda value: value)(cell.value)) for cell in cells]


# --- .ods ------------------------------------------------------------------------------------------------------------

# Source: OASIS OpenDocument 1.3, part 3, 9.1 (tables), 6.1 (text), 19.385 (types of values).
OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
MOST_SPACES = 1000  # that one element may stand for


def ods_sheets(archive: zipfile.ZipFile) -> list[Sheet]:
    # ElementTree fetches nothing that an entity names, and expat ends one that grows without end.
    names = []
    with archive.open("content.xml") as part:
        for _, element in ElementTree.iterparse(part, ("start",)):  # noqa: S314
            if element.tag == f"{TABLE}table":
                names.append(element.get(f"{TABLE}name", ""))
            if element.tag == f"{TABLE}table-row":
                element.clear()
    events = ElementTree.iterparse(archive.open("content.xml"), ("start", "end"))  # noqa: S314
    sheets = [Sheet(name, iter(())) for name in names]
    for sheet in sheets:
        sheet.rows = ods_rows(events, sheet)
    return sheets


def ods_rows(events: Iterator[tuple[str, ElementTree.Element]], sheet: Sheet) -> Iterator[Cells]:
    """Yield the rows of the next table; all sheets share the events, and are read one after the other."""
    above: list[ElementTree.Element] = []
    line = 1
    for event, element in events:
        if event == "start":
            if above or element.tag == f"{TABLE}table":
                above.append(element)
        elif above:
            above.pop()
            if element.tag == f"{TABLE}table-row":
                cells = ods_cells(element, line, sheet)
                repeated = int(element.get(f"{TABLE}number-rows-repeated", 1))
                for number in range(line, line + repeated if any(cells) else line):
                    yield number, list(cells)
                line += repeated
                above[-1].remove(element)  # else the whole sheet would be held
            if not above:
                return


def ods_cells(row: ElementTree.Element, line: int, sheet: Sheet) -> list[str]:
    cells: list[str] = []
    empty = 0  # cells that are written only if another follows: a row ends with thousands of them
    for cell in row:
        if cell.tag not in (f"{TABLE}table-cell", f"{TABLE}covered-table-cell"):
            continue
        repeated = int(cell.get(f"{TABLE}number-columns-repeated", 1))
        last = line + int(cell.get(f"{TABLE}number-rows-spanned", 1)) - 1
        if last > line:
            sheet.merged[line].append((len(cells) + empty, last))
        text = ods_value(cell)
        if not text:
            empty += repeated
            continue
        if len(cells) + empty + repeated > MAX_COLUMNS:
            raise ValueError(f"a row of more than {MAX_COLUMNS} columns")
        cells += [""] * empty + [text] * repeated
        empty = 0
    return cells


def ods_value(cell: ElementTree.Element) -> str:
    kind = cell.get(f"{OFFICE}value-type", "string")
    if kind in ("float", "currency", "percentage"):
        return cell_text(float(cell.get(f"{OFFICE}value", "nan")))
    if kind == "date":
        return cell.get(f"{OFFICE}date-value", "").replace("T", " ").removesuffix(" 00:00:00")
    if kind == "boolean":
        return cell.get(f"{OFFICE}boolean-value", "")
    # A comment on the cell has paragraphs of its own, further inside.
    return "\n".join(ods_text(paragraph) for paragraph in cell if paragraph.tag == f"{TEXT}p")


def ods_text(element: ElementTree.Element) -> str:
    parts = [element.text or ""]
    for child in element:
        if child.tag == f"{TEXT}s":
            parts.append(" " * min(int(child.get(f"{TEXT}c", 1)), MOST_SPACES))
        elif child.tag in (f"{TEXT}tab", f"{TEXT}line-break"):
            parts.append("\t" if child.tag == f"{TEXT}tab" else "\n")
        elif child.tag not in (f"{OFFICE}annotation", f"{TEXT}note", f"{TEXT}ruby-text"):
            parts.append(ods_text(child))
        parts.append(child.tail or "")
    return "".join(parts)
