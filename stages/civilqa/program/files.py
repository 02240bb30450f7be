"""Files whose bytes depend on their content alone, and that are either whole or not there."""

import csv
import glob
import hashlib
import io
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from civilqa.program.errors import RecordError
from civilqa.program.lifecycle.machine_errors import writing

_JSON_LINE = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # Source: OWASP, CSV Injection


def at_hand(path: Path | str) -> Path:
    """Return where something is that git need not hold: here, or in the main checkout if DVC runs in a copy of it."""
    here, there = Path(path), Path(os.environ.get("DVC_ROOT", "."), path)
    return there if there.exists() and not here.exists() else here


@contextmanager
def open_aside(path: Path, binary: bool = False) -> Iterator[Any]:
    """Open a file for UTF-8 with Unix line ends beside `path`, and rename it to `path` once the block ends well.

    A killed or failing stage leaves the old file or none, never a half-written one. What a killed process of this
    machine left beside `path` is removed.

    Raises:
        OSError: names `path`, also where the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.part")
    _remove_leftovers(path)
    try:
        opened = aside.open("wb") if binary else aside.open("w", encoding="utf-8", newline="\n")
        with writing(path), opened as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # a file system may find out only now that it is full
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Remove what processes of this machine that are gone have left beside a path; another machine's may still run."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(platform.node())}.*.part"):
        number = left.suffixes[-2][1:]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            left.unlink(missing_ok=True)


@contextmanager
def folder_aside(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` to write into; it takes the place of `target` once the block ends well.

    Whenever it is killed, `target` is the old folder, the new one or none, never half of one or some of both. One
    process at a time may do this for a target. Of a link the link is replaced, not what it points to.
    """
    aside, old = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.old.part")
    _clear_up(target, aside, old)
    try:
        with writing(target):
            aside.mkdir(parents=True)
            yield aside
        if os.path.lexists(target):
            target.rename(old)
        aside.rename(target)
    finally:
        _clear_up(target, aside, old)


def _clear_up(target: Path, aside: Path, old: Path) -> None:
    """Undo what a block that ended badly, or was killed, has left."""
    if os.path.lexists(old) and not os.path.lexists(target):
        old.rename(target)
    for left in (aside, old):
        if left.is_symlink():
            left.unlink()
        elif left.exists():
            shutil.rmtree(left)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file; see open_aside."""
    with open_aside(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that diffs well: sorted keys, indented, in ASCII.

    ASCII, since DVC takes a metrics file for a binary one, and fails, when 30 % of its first 512 bytes are not: a few
    Korean category names are enough. `dvc metrics show` prints the escapes as Hangul again.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file that a stage wrote.

    Raises:
        RecordError: the file is missing or holds no JSON object.
    """
    try:
        return _parse_object(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise RecordError(f"{path}: not found; run the stage that writes it, or `dvc repro`") from None


def _parse_object(content: bytes, place: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or brackets by the thousand
        raise RecordError(f"{place}: no JSON: {error}; run the stage that writes it again") from None
    if not isinstance(value, dict):
        raise RecordError(f"{place}: found {type(value).__name__}, want a JSON object")
    return value


def json_line(row: Any) -> str:
    """Return one line of a JSONL file, keys in the order that the row gives them."""
    return _JSON_LINE.encode(row) + "\n"


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON object a line; the rows are not held in memory."""
    with open_aside(path) as file:
        file.writelines(map(json_line, rows))


def count_lines(path: Path) -> int:
    """Return the number of line ends in a file, 0 if it is not there."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSONL file.

    Raises:
        RecordError: the file is missing or a line of it is no JSON object; names the file and the line.
    """
    if not path.exists():
        raise RecordError(f"{path}: not found; run the stage that writes it, or `dvc repro`")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield _parse_object(line, f"{path}:{number}")


def write_csv(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    """Write a CSV with the given columns; a row must have exactly these keys.

    People open these in a spreadsheet, which takes a text that begins with one of FORMULA for a formula: such a text
    gets an apostrophe before it, which spreadsheets do not show. JSON and JSONL files hold everything as it is.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: without_formula(value) for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def without_formula(value: Any) -> Any:
    """Return a cell's value such that no spreadsheet runs it; numbers stay as they are."""
    if not isinstance(value, str):
        return value
    # A carriage return ends a row for many readers, and the csv module does not quote it before a bare line feed.
    return ("'" if value.startswith(FORMULA) else "") + value.replace("\r", " ")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, size and time of change of a folder's files: another stamp, and it was replaced or written to.

    It costs no reading, however large the files are. A folder that is not there has an empty one.
    """
    found = {}
    with suppress(FileNotFoundError):  # gone while it was looked at, as a whole or in part
        for path in sorted(folder.iterdir()):
            status = path.stat()
            found[path.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, as 64 hex digits."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
