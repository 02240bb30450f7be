"""Who is making the adapter right now: what is missing is then to be waited for, and not to be made once more.

DVC deletes the adapter before it trains a new one, and notes in `.dvc/tmp/rwlock` which of its processes writes what.
Without DVC the old adapter stays in place until the new one is whole; the training is known by its lock.
"""

import json
from pathlib import Path

import psutil

from civilqa.program.lifecycle.locks import who_holds

ADAPTER = Path("models/adapter")
WORKSPACE_LOCK = Path(".checkpoints/workspace")
DVC_LOCKS = Path(".dvc/tmp/rwlock")


def who_writes(folder: Path) -> str | None:
    """Return the process that is making a folder, `process 12 (dvc)`, or None; also for any but the adapter's."""
    if folder.resolve() != ADAPTER.resolve():
        return None
    return _dvc_process(folder) or who_holds(WORKSPACE_LOCK)


def _dvc_process(folder: Path) -> str | None:
    """Return the DVC that runs the stage which writes the folder. One that was killed leaves its entry behind."""
    try:
        writers = json.loads(DVC_LOCKS.read_text(encoding="utf-8"))["write"]
        pid = int(writers[str(folder.resolve())]["pid"])
    except (OSError, ValueError, KeyError, TypeError):  # no DVC, nothing written now, or the file is being written
        return None
    return f"process {pid} (dvc)" if psutil.pid_exists(pid) else None
