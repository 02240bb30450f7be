"""Errors of the machine are known in whatever language a library says them; no other error is taken for one."""

import errno
import os

import pytest
import torch

from civilqa.program.files import folder_aside, open_aside
from civilqa.program.lifecycle.machine_errors import KOREAN, explain, writing


class Panic(BaseException):
    """What pyo3 raises for a panic in Rust."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "data/a.jsonl"), "data/a.jsonl: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "models"), "models: the file system can only be read"),
        (
            Exception('Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No" })'),
            "disk is full",
        ),
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


def test_every_error_is_told_in_korean_too():
    assert "디스크가 가득" in explain(OSError(errno.ENOSPC, "No space left on device", "a"), KOREAN)


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


def test_a_folder_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(IsADirectoryError), folder_aside(target) as aside:
        aside.write_text("no file", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]
    with folder_aside(target) as aside:
        (aside / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


def test_a_kill_between_old_and_new_folder_loses_neither(tmp_path):
    target, old = tmp_path / "folder", tmp_path / ".folder.old.part"
    old.mkdir()
    (old / "old").touch()
    with pytest.raises(IsADirectoryError), folder_aside(target):
        target.write_text("no file", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


def test_what_a_dead_process_was_writing_is_removed_and_a_live_one_s_is_kept(tmp_path):
    import platform

    dead, live = (tmp_path / f".a.txt.{platform.node()}.{pid}.part" for pid in (2**22 - 1, os.getppid()))
    dead.touch()
    live.touch()
    with open_aside(tmp_path / "a.txt") as file:
        file.write("a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [live.name, "a.txt"]
