"""Which of several processes this one is, and who started it.

`launch` in params.yaml may start the training stage more than once. torchrun and `accelerate launch` say which is which
in the environment, before anything of torch is set up.
"""

import os
import sys
from pathlib import Path

import psutil


def process_count() -> int:
    """Return the number of processes that train together, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_index() -> int:
    """Return this process's number on its node, from 0: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main_process() -> bool:
    """Return whether this process is the one that prints and writes files."""
    return os.environ.get("RANK", "0") == "0"


def silence_other_processes() -> None:
    """Send what any process but the main one prints to nowhere; its errors are still shown."""
    if not is_main_process():
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process


def find_dvc() -> psutil.Process | None:
    """Return the DVC that started this process, past any shell in between; None if none did."""
    if "DVC_STAGE" not in os.environ:
        return None
    return next((parent for parent in psutil.Process().parents() if "dvc" in " ".join(parent.cmdline())), None)


def is_gone(dvc: psutil.Process | None) -> bool:
    """Return whether the DVC that started this process has ended: it is then none of its ancestors any more."""
    return dvc is not None and dvc not in psutil.Process().parents()
