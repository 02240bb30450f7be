"""Ctrl-C and the signals that end a program: one line, a status that says so, nothing left half done."""

import signal
from collections.abc import Callable

from civilqa.program.lifecycle.machine_errors import INTERRUPTED, Messages

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has neither SIGHUP nor, elsewhere, SIGBREAK

Handler = Callable[[int, object], None]


class Terminated(SystemExit):
    """SIGTERM or SIGHUP. Like KeyboardInterrupt it is no Exception: what catches those goes on otherwise."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def terminate(number: int, frame: object) -> None:
    """Handle a signal in the midst of the work: by an exception, so that what was begun is cleared up."""
    raise Terminated(number)


def handle(handler: Handler, ctrl_c: Handler | None = None) -> None:
    """Set the handler of each signal that is not ignored, as nohup and a shell's background jobs ask for."""
    for number in (getattr(signal, name) for name in NAMES if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ctrl_c if ctrl_c and number == signal.SIGINT else handler)


def describe(number: int, messages: Messages) -> str:
    """Return the line for a program that a signal ended."""
    return messages[INTERRUPTED].format(name="Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
