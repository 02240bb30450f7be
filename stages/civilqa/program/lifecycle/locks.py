"""One process at a time: a lock of the operating system, which ends with the process that holds it, however it ends.

A process id in a file would not do: one that was killed leaves it behind, and one whose parent was killed goes on
unseen. DVC killed while it trains is such a case: the training lives on, and the next `dvc repro` starts another.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from civilqa.program.errors import PipelineError

POLL_SECONDS = 1.0


@contextmanager
def hold(path: Path, purpose: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a path while the block runs; yields whether another process had to be waited for.

    The lock's two files are gone when it is given back. (filelock takes no lock on a file that was deleted meanwhile,
    so that nobody ends up with a lock of his own.)

    Args:
        purpose: what the holder does, for the message to whoever waits.
        wait: False ends at once if the lock is taken.

    Raises:
        PipelineError: the lock is taken, and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(f"{path}.lock"), Path(f"{path}.holder")
    waited = not _try_to_acquire(lock)
    if waited:
        message = f"{path}.lock: {_describe(holder)} holds it"
        if not wait:
            raise PipelineError(f"{message}; let it end, or end it, then start again")
        print(f"{message}: waiting for it to end. If it is left over from a run you killed, end it too.")
        sys.stdout.flush()
        while not _try_to_acquire(lock):
            time.sleep(POLL_SECONDS)
    try:
        holder.write_text(json.dumps({"pid": os.getpid(), "purpose": purpose}), encoding="utf-8")
        yield waited
    finally:
        holder.unlink(missing_ok=True)
        _give_back(lock)


def who_holds(path: Path) -> str | None:
    """Return the process that holds the lock of a path, `process 12 (training in this folder)`, or None."""
    holder = Path(f"{path}.holder")
    if not holder.exists():  # without a touch of the lock, which its next holder may be taking
        return None
    lock = FileLock(f"{path}.lock")
    if not _try_to_acquire(lock):
        return _describe(holder)
    _give_back(lock)
    return None


def _try_to_acquire(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _give_back(lock: FileLock) -> None:
    if sys.platform != "win32":  # where an open file cannot be deleted, and filelock deletes it itself
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _describe(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {found['pid']} ({found['purpose']})"
    except (OSError, ValueError, KeyError):  # it has the lock and has not written its name yet
        return "another process"
