"""Errors of the machine are known in whatever language a library says them; no other error is taken for one."""

import errno
import os

import pytest
import torch

from civilqa.program.lifecycle.machine_errors import ENGLISH, KOREAN, explain, writing


class Panic(BaseException):
    """What pyo3 raises for a panic in Rust."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "data/a.jsonl"), "data/a.jsonl: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "models"), "models: the file system can only be read"),
        (OSError(errno.EACCES, "Permission denied", "a", None, "b"), "b: this user has no permission"),
        (Exception("Error while serializing: I/O error: File too large (os error 27)"), "`ulimit -f`"),
        (Exception("No space left on device (os error 28)"), "the disk is full"),
        (RuntimeError("PytorchStreamWriter failed writing file data/2: file write failed"), "the disk is full"),
        (MemoryError(), "there is not enough memory"),
        (RuntimeError("can't start new thread"), "there is not enough memory"),
        (Panic("ThreadPoolBuildError { kind: IOError(Os { code: 11, kind: WouldBlock }) }"), "not enough memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "there is not enough memory"),
    ],
)
def test_it_is_told_with_what_to_do(error, said):
    assert said in explain(error)


def test_for_what_stands_in_the_way_the_system_s_words_are_enough():
    assert explain(NotADirectoryError(errno.ENOTDIR, "Not a directory", "models")) == "models: Not a directory"
    assert explain(OSError(errno.EMFILE, "Too many open files")) == "[Errno 24] Too many open files"
    assert explain(Exception("a.json: Is a directory (os error 21)")) == "a.json: Is a directory (os error 21)"


def test_every_error_is_told_in_korean_too():
    assert "디스크가 가득" in explain(OSError(errno.ENOSPC, "No space left on device", "a"), KOREAN)
    assert ENGLISH.keys() == KOREAN.keys()


@pytest.mark.parametrize(
    "error", [KeyError("code: 28"), ValueError("28"), SystemExit(28), FileNotFoundError(2, "no", "a")]
)
def test_any_other_error_is_none_of_the_machine(error):
    assert explain(error) is None


def test_a_write_is_named_by_its_file(tmp_path):
    with pytest.raises(OSError, match="out") as caught, writing(tmp_path / "out.jsonl"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC


def test_torch_s_own_writer_is_recognised_on_a_full_disk(tmp_path):
    if not os.path.exists("/dev/full"):  # noqa: PTH110 - a device
        pytest.skip("no /dev/full here")
    with pytest.raises(OSError, match="weights") as caught, writing(tmp_path / "weights"):
        torch.save(torch.zeros(100_000), "/dev/full")
    assert caught.value.errno == errno.ENOSPC
