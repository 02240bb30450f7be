"""Files inside .gz and .zip, and what is refused of any packed file."""

import gzip
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from civilqa.program.errors import RecordError
from civilqa.program.lifecycle.machine_errors import writing
from civilqa.reading.rows import File

# Of an archive or a workbook, or of a row group of a Parquet file: one of a few kilobytes can unpack to what fills the
# memory or the disk.
UNPACKED_BYTES = 2 << 30
CHUNK_BYTES = 1 << 20


@contextmanager
def told_damage(file: File, kind: str) -> Iterator[list[int]]:
    """Let whatever a library meets damage with be a RecordError; the list yielded holds the row that it has come to."""
    at = [1]
    try:
        yield at
    except (RecordError, MemoryError):
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0].strip().rstrip(".")[:120] or type(error).__name__
        raise RecordError(
            f"{file}:{at[0]}: cannot be read as {kind} from here on ({said}); the file is damaged, export it again"
        ) from None


@contextmanager
def unpacked_gz(file: File) -> Iterator[File]:
    """Yield what is inside a .gz, as a file that is gone after the block.

    Raises:
        RecordError: it is damaged, or too large.
    """
    with file.path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as stream, unpacked(file, stream) as path:
        yield File(path, file.place, file.name[: -len(".gz")])


def zip_members(file: File) -> Iterator[tuple[str, zipfile.ZipInfo, zipfile.ZipFile]]:
    """Yield the name of each file in a .zip, in the order of their names, with what unpacked_member needs.

    Raises:
        RecordError: it is damaged, protected by a password, or too large.
    """
    with told_damage(file, "a zip file"):
        archive = zipfile.ZipFile(file.path)
    with archive:
        infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
        refuse_bomb(file, sum(info.file_size for info in infos))
        if any(info.flag_bits & 1 for info in infos):
            raise RecordError(f"{file}: is protected by a password; unpack it and give its files")
        for name, info in sorted(((member_name(info), info) for info in infos), key=lambda member: member[0]):
            yield name, info, archive


def member_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; without the flag for UTF-8 it is UTF-8 all the same, or CP949 as written by Windows."""
    if not info.flag_bits & 0x800:
        written = info.orig_filename.encode("cp437", "replace")
        for codec in ("utf-8", "cp949"):
            with suppress(UnicodeDecodeError):
                return written.decode(codec)
    return info.filename


@contextmanager
def unpacked_member(file: File, name: str, info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> Iterator[File]:
    """Yield a member of a .zip as a file that is gone after the block.

    Raises:
        RecordError: it is damaged.
    """
    with told_damage(file, "a zip file"):
        stream = archive.open(info)
    with stream, unpacked(file, stream) as path:
        yield File(path, f"{file}/{name}", PurePosixPath(name).name)


@contextmanager
def unpacked(file: File, stream: BinaryIO) -> Iterator[Path]:
    """Yield a file with what a packed stream holds, which is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="civilqa-") as folder:
        path = Path(folder) / "unpacked"
        size = 0
        with writing(path), path.open("wb") as target:
            while chunk := read_chunk(file, stream):
                size += len(chunk)
                refuse_bomb(file, size)
                target.write(chunk)
        yield path


def read_chunk(file: File, stream: BinaryIO) -> bytes:
    with told_damage(file, f"a {file.suffix[1:]} file"):
        return stream.read(CHUNK_BYTES)


def refuse_bomb(file: File, unpacked_bytes: int) -> None:
    """Raise a RecordError if what would be unpacked at a time is more than UNPACKED_BYTES."""
    if unpacked_bytes > UNPACKED_BYTES:
        raise RecordError(
            f"{file}: would unpack to {unpacked_bytes / 2**30:.1f} GiB, want at most {UNPACKED_BYTES / 2**30:.0f}; "
            "save the table as CSV, or in several files"
        )
