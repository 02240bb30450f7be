"""Which of several processes this one is, who started it, and which one is training the adapter.

`launch` in params.yaml may start the training stage more than once. torchrun and `accelerate launch` say which is which
in the environment, before anything of torch is set up.
"""

import os
from pathlib import Path

import psutil

from civilqa.program.lifecycle.locks import who_holds

ADAPTER = Path("models/adapter")
WORKSPACE_LOCK = Path(".checkpoints/workspace")


def process_count() -> int:
    """Return the number of processes that train together, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_index() -> int:
    """Return this process's number on its node, from 0: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def shards_weights() -> bool:
    """Return whether the processes share one copy of the weights (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def is_main_process() -> bool:
    """Return whether this process is the one that prints and writes files."""
    return os.environ.get("RANK", "0") == "0"


def find_dvc() -> psutil.Process | None:
    """Return the DVC that started this process, past any shell in between; None if none did."""
    if "DVC_STAGE" not in os.environ:
        return None
    return next((parent for parent in psutil.Process().parents() if "dvc" in " ".join(parent.cmdline())), None)


def is_gone(dvc: psutil.Process | None) -> bool:
    """Return whether the DVC that started this process has ended: it is then none of its ancestors any more."""
    return dvc is not None and dvc not in psutil.Process().parents()


def who_writes(folder: Path) -> str | None:
    """Return the process that is training the adapter of a folder, or None; also for any folder but the adapter's.

    DVC deletes the adapter before it trains a new one: what is missing is then to be waited for.
    """
    return who_holds(WORKSPACE_LOCK) if folder.resolve() == ADAPTER.resolve() else None
