"""Ctrl-C and the signals that end a program: one line, a status that says so, nothing left half done.

Every program calls `end_while_importing` before its imports. These take seconds in which nothing is open, and a signal
ends the program at once; nor is anything garbage yet, which Python would look for again and again, a sixth of the time.
From `raise_in_work` on a signal is an exception, so that what was begun is cleared up; from `end_at_once` on the work
is done, and so is the program.
"""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from civilqa.program.lifecycle.machine_errors import ENGLISH, INTERRUPTED, Words, explain

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has neither SIGHUP nor, elsewhere, SIGBREAK


class Terminated(SystemExit):
    """SIGTERM or SIGHUP. Like KeyboardInterrupt it is no Exception: what catches those goes on otherwise."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def end_while_importing(words: Words = ENGLISH) -> None:
    """Let signals end the program at once with the line that says so, and errors of the machine be told in one."""

    def end(number: int, frame: FrameType | None) -> None:
        os.write(sys.stderr.fileno(), f"\nerror: {describe(number, words)}\n".encode())
        os._exit(128 + number)

    def tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        message = explain(error, words)
        if message is None:
            sys.__excepthook__(kind, error, traceback)
        else:
            print(f"error: {message}", file=sys.stderr)

    _replace(lambda number: end)
    sys.excepthook = tell
    gc.disable()


def raise_in_work() -> None:
    """Let signals interrupt the work by an exception."""
    gc.freeze()  # what was imported stays
    gc.enable()
    _replace(lambda number: signal.default_int_handler if number == signal.SIGINT else _raise)


def end_at_once(status: int) -> None:
    """Let signals end the program with a status: nothing is left to do but what the interpreter clears up."""

    def end(number: int, frame: FrameType | None) -> None:
        os._exit(status)

    _replace(lambda number: end)


def describe(number: int, words: Words) -> str:
    """Return the line for a program that a signal ended."""
    return words[INTERRUPTED].format(name="Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


def _replace(handler: Callable[[int], Any]) -> None:
    """Set the handler of each signal that is not ignored, as nohup and a shell's background jobs ask for."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        return
    for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler(number))


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)
