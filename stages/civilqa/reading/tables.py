"""Tables of questions and answers as people have them: CSV, TSV, JSONL, Parquet and Excel, one row at a time.

A table is never held in memory: a text file's bytes are read once to decide its encoding, then once more row by row.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from civilqa.program.errors import RecordError
from civilqa.reading.binary import read_parquet, read_xlsx
from civilqa.reading.delimited import read_csv
from civilqa.reading.jsonl import read_jsonl
from civilqa.reading.rows import BadRow, Items, Row, TableInfo

READERS: dict[str, Callable[[Path], Items]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
    ".xlsx": read_xlsx,
}


def find_tables(source: str) -> list[Path]:
    """Return the file that `source` names, or the tables of the folder, by name and without hidden ones.

    Raises:
        RecordError: nothing is there, a folder without tables, an unknown suffix, or a file that is there twice by a
            link.
    """
    path = Path(source)
    if path.is_file():
        reader_of(path)
        return [path]
    if not path.is_dir():
        raise RecordError(f"{path}: not found; put the dataset there or set prepare.source")
    # "~$name.xlsx" is the lock that Excel leaves beside a workbook while it is open.
    tables = [
        file
        for file in sorted(path.iterdir(), key=lambda file: file.name)
        if file.suffix.lower() in READERS and not file.name.startswith((".", "~$")) and file.is_file()
    ]
    if not tables:
        raise RecordError(f"{path}: no table in this folder; put a file there that ends in {known_suffixes()}")
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
