"""What the machine refuses rather than the input is wrong: no space, no memory, no permission; in words to act on."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from civilqa.program.errors import PipelineError

Messages = dict[int | str, str]  # by errno, or by what else has to be told

MEMORY, INTERRUPTED = "memory", "interrupted"
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
FORBIDDEN = (errno.EACCES, errno.EPERM)

ENGLISH: Messages = {
    **dict.fromkeys(FULL, "the disk is full, or its quota is used up; free space, then run it again"),
    errno.EFBIG: "the file is larger than the file system or `ulimit -f` allows; raise the limit, then run it again",
    errno.EROFS: "the file system can only be read; mount it for writing, or work in another folder",
    **dict.fromkeys(
        FORBIDDEN, "this user has no permission; change the owner or the permissions (ls -l), then run it again"
    ),
    errno.EPIPE: "the program that was to read this output has ended",
    MEMORY: "there is not enough memory; close other programs, or lower the batch sizes and lengths in params.yaml "
    "(train.batch_size, train.max_length, evaluate.batch_size, benchmark, chat.batch_size), then run it again",
    INTERRUPTED: "interrupted ({name}); run it again: finished work is kept",
}
KOREAN: Messages = {
    **dict.fromkeys(FULL, "디스크가 가득 찼거나 할당량을 다 썼습니다. 공간을 비운 뒤 다시 실행하십시오."),
    errno.EFBIG: "파일이 파일 시스템이나 `ulimit -f`의 한도를 넘었습니다. 한도를 늘린 뒤 다시 실행하십시오.",
    errno.EROFS: "읽기 전용 파일 시스템입니다. 쓸 수 있는 폴더를 쓰십시오.",
    **dict.fromkeys(FORBIDDEN, "이 사용자에게 권한이 없습니다. 소유자나 권한을 바꾼 뒤(ls -l) 다시 실행하십시오."),
    errno.EPIPE: "출력을 받던 프로그램이 끝났습니다.",
    MEMORY: "메모리가 모자랍니다. 다른 프로그램을 끝내거나 params.yaml의 batch_size, max_new_tokens를 줄인 뒤 다시 "
    "실행하십시오.",
    INTERRUPTED: "중단했습니다({name}). 다시 실행할 수 있습니다. 끝난 일은 남아 있습니다.",
}
# In the system's own words, which say enough: something stands in the way, too many files are open, the disk fails.
PLAIN = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EMFILE, errno.ENFILE, errno.EIO)

# torch's CPU allocator raises a plain RuntimeError, Python one for a thread, the dynamic linker an ImportError.
_NO_MEMORY = re.compile(
    r"not enough memory|can(?:'t|not) allocate memory|unable to allocate|out of memory|can't start new thread"
    r"|threadpoolbuilderror|failed to map segment",
    re.IGNORECASE,
)
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors and tokenizers say the system's error in their text
# torch.save's writer in C++ says what failed and not why; it is a full disk, or a limit on the size of files.
_TORCH_WRITER = ("PytorchStreamWriter failed", "file write failed", "unexpected pos")


def explain(error: BaseException, messages: Messages = ENGLISH) -> str | None:
    """Return `where: what was found; what to do` for an error of the machine, or None for any other error."""
    if is_out_of_memory(error):
        said = str(error).strip().splitlines()
        return f"{said[0]}: {messages[MEMORY]}" if said else messages[MEMORY]
    number = error_number(error)
    path = getattr(error, "filename2", None) or getattr(error, "filename", None)
    where = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else None
    if number in messages:
        return f"{where or os.strerror(number)}: {messages[number]}"
    if number in PLAIN:
        return f"{where}: {os.strerror(number)}" if where else str(error)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    plain = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    return plain or _NO_MEMORY.search(str(error)) is not None


def error_number(error: BaseException) -> int | None:
    """Return the errno of an error, also of one that a library in another language has put into words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if any(said in text for said in _TORCH_WRITER):
        return errno.ENOSPC
    found = _RUST_ERROR.search(text)
    return int(found[1]) if found else None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the path in errors of the block's writes that do not say themselves where they happened.

    A write to an open file names none, and a library in another language raises an exception of its own: an OSError
    with `path` as its file name takes its place.
    """
    try:
        yield
    except Exception as error:
        number = None if isinstance(error, PipelineError) else error_number(error)
        if number not in (*FULL, errno.EFBIG) or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
