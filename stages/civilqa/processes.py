"""Which of several processes this one is: `launch` in params.yaml may start the training stage more than once.

torchrun and `accelerate launch` say it in the environment, before anything of torch is set up.
"""

import os
import sys
from pathlib import Path


def process_count() -> int:
    """Return the number of processes that train together, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Return this process's number among all of them, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_index() -> int:
    """Return this process's number on its node, from 0: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main_process() -> bool:
    """Return whether this process is the one that prints and writes files."""
    return process_index() == 0


def silence_other_processes() -> None:
    """Send what any process but the main one prints to nowhere; its errors are still shown."""
    if not is_main_process():
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
