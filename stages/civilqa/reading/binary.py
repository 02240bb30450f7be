"""Parquet files and Excel workbooks."""

import json
import warnings
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

from civilqa.program.errors import RecordError
from civilqa.reading.rows import BadRow, Items, Row, TableInfo, cell_text, check_columns, make_row

BATCH_ROWS = 1000

# Of a workbook, or of a row group of a Parquet file: a file of a few kilobytes can unpack to what fills the memory.
UNPACKED_BYTES = 2 << 30

# An old .xls and a password-protected .xlsx are both OLE files, not zip files.
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


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
            yield TableInfo(str(path), "parquet", None, None, tuple(filter(None, names)))
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
        try:
            # Some parts are read whole. None can lie about its size: zipfile reads no more of it than it declares.
            refuse_bomb(path, sum(part.file_size for part in zipfile.ZipFile(file).infolist()))
            with warnings.catch_warnings():
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
                        yield TableInfo(str(path), "xlsx", None, None, tuple(filter(None, names)))
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
