"""How a program starts: what has to be in place during its imports, which take seconds."""

import gc
import os
import sys
from pathlib import Path
from types import TracebackType

from civilqa.program.arguments import answer_arguments
from civilqa.program.lifecycle.interruptions import describe, handle
from civilqa.program.lifecycle.machine_errors import ENGLISH, Messages, explain


def start(documentation: str = "", *, example: str = "", messages: Messages = ENGLISH) -> None:
    """Begin a program: the first line of its script, before any other import; its last one is `run`.

    A signal ends it at once with a line that says so, and an error of the machine is told in one.

    Args:
        documentation: what `--help` prints. Empty for a script that reads its arguments itself, `--help` too.
        example: a key of params.yaml that is set instead of an argument. Empty for a script that takes arguments.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this: the next file opened would get its number
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
    # DVC starts stages through a pipe, where Python on Windows or under LANG=C would not print Hangul.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True)

    def end(number: int, frame: object) -> None:
        os.write(sys.stderr.fileno(), f"\nerror: {describe(number, messages)}\n".encode())
        os._exit(128 + number)

    def tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        message = explain(error, messages)
        if message is None:
            sys.__excepthook__(kind, error, traceback)
        else:
            print(f"error: {message}", file=sys.stderr)

    handle(end)
    sys.excepthook = tell
    if documentation:
        answer_arguments(documentation, example)
    gc.disable()  # nothing is garbage yet: looking for it takes a sixth of the imports' time
