"""Tables of questions and answers as people have them: text, JSON, Parquet and workbooks, one row at a time.

A table is never held in memory: a text file's bytes are read once to decide its encoding, then once more row by row.
"""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from civilqa.program.errors import RecordError
from civilqa.reading.archives import unpacked_gz, unpacked_member, zip_members
from civilqa.reading.columns import ANYTHING, EmptyFile, MissingColumns, Wanted
from civilqa.reading.delimited import read_delimited
from civilqa.reading.json_values import read_json
from civilqa.reading.names import shown_place
from civilqa.reading.parquet import read_parquet
from civilqa.reading.rows import BadRow, File, LeftOut, Row, Table, TableInfo
from civilqa.reading.workbooks import OLE_MAGIC, read_workbook

Reader = Callable[[File, Wanted], Iterator[Table | LeftOut]]
READERS: dict[str, Reader] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), read_delimited),
    **dict.fromkeys((".json", ".jsonl", ".jsonlines", ".ndjson"), read_json),
    **dict.fromkeys((".xlsx", ".xlsm", ".xls", ".ods"), read_workbook),
    ".parquet": read_parquet,
}
LFS_POINTER = b"version https://git-lfs"
WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<")
OBJECT = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*)?\{\s*"')
TEXT = re.compile(rb"\xff\xfe|[^\x00-\x08\x0e-\x1f]+\Z")


def find_files(source: str) -> tuple[list[Path], list[LeftOut]]:
    """Return the file that `source` names, or the tables of the folder and those in it, by name; and its other files.

    Raises:
        RecordError: nothing is there, a folder without tables, or an unknown suffix.
    """
    root = Path(source)
    if root.is_file():
        if not is_table(root.name):
            raise RecordError(unknown_suffix(str(root), root.name))
        return [root], []
    if not root.is_dir():
        raise RecordError(f"{root}: not found; put the dataset there or set prepare.source")
    found: dict[Path, str] = {}  # why it is left out, '' if it is not
    for folder, folders, names in os.walk(root):
        found |= {path: why_left_out(path) for path in (Path(folder) / name for name in (*folders, *names))}
        folders[:] = [name for name in folders if not found[Path(folder) / name]]
    by_name = sorted(found, key=lambda path: path.relative_to(root).parts)
    read: set[Path] = set()
    for path in sorted((path for path in by_name if path.is_file() and not found[path]), key=Path.is_symlink):
        if path.resolve() in read:
            found[path] = "a link to a file that is read"
        read.add(path.resolve())
    tables = [path for path in by_name if path.is_file() and not found[path]]
    if not tables:
        raise RecordError(f"{root}: no table in this folder; put a file there that ends in {known_suffixes()}")
    return tables, [LeftOut(str(path), found[path]) for path in by_name if found[path]]


def why_left_out(path: Path) -> str:
    """Return why what is in a folder is not read, '' if it is."""
    folder = path.is_dir()
    if is_hidden((path.name,)):
        return "a hidden folder" if folder else "a hidden file"
    if folder:
        return "a link to a folder" if path.is_symlink() else ""
    if not path.is_file():
        return "a link to nothing" if path.is_symlink() else "no file"
    return "" if is_table(path.name) else "no table"


def read_tables(path: Path, wanted: Wanted) -> Iterator[Table | LeftOut]:
    """Yield the tables of a file, and what of it is no table; a table's rows are to be read before the next is taken.

    A column without a name is left out if its cells are empty or whole numbers. What is inside an object is a column by
    a dotted name. The columns of JSON are the keys of its first objects: one that an object lacks is ''.

    Raises:
        RecordError: no such file, an unknown suffix, no text, or no usable header; from a table's rows, a file that
            cannot be trusted from some row on (a quote that is not closed, a damaged file).
    """
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise RecordError(f"{path}: not found; put the dataset there or set prepare.source") from None
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be opened ({error.strerror}); check that it is a file you may read"
        ) from None
    yield from read_file(File(path, shown_place(str(path)), path.name), wanted)


def read_file(file: File, wanted: Wanted) -> Iterator[Table | LeftOut]:
    if file.suffix == ".gz":
        with unpacked_gz(file) as inside:
            yield from read_file(inside, wanted)
    elif file.suffix == ".zip":
        yield from read_members(file, wanted)
    else:
        yield from find_reader(file)(file, wanted)


def read_members(file: File, wanted: Wanted) -> Iterator[Table | LeftOut]:
    """Yield the tables of a .zip, and of one inside it, and what is none."""
    for name, info, archive in zip_members(file):
        place, hidden = f"{file}/{shown_place(name)}", is_hidden(PurePosixPath(name).parts)
        deep = name.lower().endswith(".zip") and ".zip/" in str(file).lower()
        if hidden or deep or not is_table(name):
            reason = "a hidden file" if hidden else "an archive in an archive in an archive" if deep else "no table"
            yield LeftOut(place, reason)
            continue
        with unpacked_member(file, name, info, archive) as inside:
            try:
                for item in read_file(inside, wanted):
                    if isinstance(item, Table):
                        item.part = True
                    yield item
            except RecordError as error:
                yield unread(error, place, inside.suffix)


def unread(error: RecordError, place: str, suffix: str) -> LeftOut:
    """Return what cannot be read, in a folder or an archive, as left out: an empty file, or a note.

    Raises:
        RecordError: it is neither.
    """
    if not isinstance(error, EmptyFile) and suffix != ".txt":
        raise error
    return LeftOut(place, f"no table: {without_place(str(error), place)}")


def find_reader(file: File) -> Reader:
    """Return what reads a file, by its suffix; but what it holds decides where the two are of different kinds.

    Raises:
        RecordError: an unknown suffix, or what stands for the file where Git LFS has not fetched it.
    """
    if file.suffix not in READERS:
        raise RecordError(unknown_suffix(str(file), file.name))
    with file.path.open("rb") as stream:
        begin = stream.read(64)
    if begin.startswith(LFS_POINTER):
        raise RecordError(f"{file}: only points to the file, which Git LFS has not fetched; run `git lfs pull` there")
    reader = READERS[file.suffix]
    if reader is read_delimited and begin.startswith((b"PK\x03\x04", OLE_MAGIC)):
        return read_workbook
    if reader is read_delimited and OBJECT.match(begin):
        return read_json
    if reader is read_workbook and WEB_PAGE.match(begin):
        raise RecordError(f"{file}: is a web page and not a workbook; open it in Excel and save it as .xlsx")
    return read_delimited if reader is read_workbook and TEXT.match(begin) else reader


def usable_tables(path: Path, wanted: Wanted, left_out: list[LeftOut], part: bool = False) -> Iterator[Table]:
    """Yield the tables of a file that have the columns wanted; what of it has not goes to `left_out`.

    Args:
        part: whether the file is one of several, so that all of it may be left out.

    Raises:
        MissingColumns: no table in it has them.
        RecordError: it cannot be read.
    """
    problem, found, columns = "", False, ()
    for item in read_tables(path, wanted):
        if isinstance(item, LeftOut):
            left_out.append(item)
        elif item.shape is not None:
            found = True
            yield item
        else:
            problem, columns = problem or item.problem, columns or item.info.columns
            if item.part or part:
                left_out.append(leave_out(item))
    if not found:
        raise MissingColumns(
            problem or f"{path}: no table in it; put a file there that ends in {known_suffixes()}", columns
        )


def leave_out(table: Table) -> LeftOut:
    """Return a table without the columns as what is left out, with the number of its rows."""
    reason = without_place(table.problem, table.info.file).rpartition("; ")[0]  # without what to do
    try:
        rows = sum(1 for _ in table.rows)
        return LeftOut(table.info.file, reason, rows + table.left_out.total())
    except RecordError:  # a text that is no table; of a table it has been told why it is left out
        return LeftOut(table.info.file, reason)


def without_place(message: str, place: str) -> str:
    """Return a message about a file without the file and the line."""
    return re.sub(r"^:(\d+:)? ", "", message.removeprefix(place))


def open_table(path: Path) -> tuple[TableInfo, Iterator[Row | BadRow]]:
    """Return what the first table of a file is and an iterator over its rows, with the columns as they are.

    Raises:
        RecordError: see read_tables.
    """
    for item in (tables := read_tables(path, ANYTHING)):
        if isinstance(item, Table):
            return item.info, chained(item.rows, tables)
    raise RecordError(f"{path}: no table in it; put a file there that ends in {known_suffixes()}")


def chained(rows: Iterator[Row | BadRow], tables: Iterator[Table | LeftOut]) -> Iterator[Row | BadRow]:
    """Yield the rows, and close their file then."""
    yield from rows
    tables.close()  # type: ignore[attr-defined]  # a generator


def is_table(name: str) -> bool:
    path = PurePosixPath(name.lower())
    return path.suffix in READERS or path.suffix == ".zip" or (path.suffix == ".gz" and is_table(path.stem))


def is_hidden(parts: tuple[str, ...]) -> bool:
    # "~$name.xlsx" is the lock that Excel leaves beside a workbook while it is open; macOS adds __MACOSX to archives.
    return any(part.startswith((".", "~$")) or part == "__MACOSX" for part in parts)


def known_suffixes() -> str:
    return f"{', '.join(READERS)}, also inside .zip, or .gz (a.csv.gz)"


def unknown_suffix(place: str, name: str) -> str:
    suffixes = PurePosixPath(name).suffixes
    suffix = "".join(suffixes[-2:] if suffixes and suffixes[-1].lower() == ".gz" else suffixes[-1:])
    return f"{place}: unknown suffix '{suffix}'; save the file as one of {known_suffixes()}"
