"""How a program starts, and how it ends when something is wrong."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from tqdm import tqdm

from civilqa.program.errors import PipelineError
from civilqa.program.lifecycle.interruptions import Terminated, describe, end_at_once, raise_in_work
from civilqa.program.lifecycle.locks import hold
from civilqa.program.lifecycle.machine_errors import ENGLISH, Words, explain
from civilqa.program.lifecycle.safe_output import printable, without_secrets

LOCKS = Path(".checkpoints")
LINE_END = "\n"  # of the terminal's ^C, or of a progress bar


def run(main: Callable[[], None], alone: str | None = None, words: Words = ENGLISH) -> None:
    """Run a program's main; what a person can act on ends the process with a message and a status, no traceback.

    1: a PipelineError, or an error of the machine. 130: Ctrl-C. 143: SIGTERM. Any other exception is a defect of ours
    and keeps its traceback. Nothing shows a secret, nor anything of a file that a terminal would obey.

    Args:
        alone: the stage that no other process may run in this folder meanwhile, such as one whose DVC was killed. Two
            would write the same outputs, the earlier started perhaps with other parameters and last.
        words: in which errors of the machine are told.
    """
    open_missing_streams()
    # DVC starts stages through a pipe, where Python on Windows or under LANG=C would not print Hangul.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True)
    # What the pinned libraries will rename in their next version is nothing that a user of this one can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|torch)\.")
    # tqdm's thread only redraws bars that stand still, and where there is no memory for it Python waits for ever.
    tqdm.monitor_interval = 0
    raise_in_work()
    try:
        with hold(LOCKS / alone, f"stages/{alone}.py in this folder") if alone else nullcontext():
            main()
        sys.stdout.flush()
    except PipelineError as error:
        message, status = f"error: {error}", 1
    except KeyboardInterrupt:
        message, status = f"{LINE_END}error: {describe(signal.SIGINT, words)}", 128 + signal.SIGINT
    except Terminated as ended:
        message, status = f"{LINE_END}error: {describe(ended.number, words)}", 128 + ended.number
    except BrokenPipeError as error:
        # `| head`: who read the output has left. The interpreter would fail over it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message, status = f"error: standard output: {words[error.errno]}", 1
    except SystemExit:
        raise
    except BaseException as error:  # what a library in Rust panics with, for want of a thread, is no Exception
        explained = explain(error, words)
        message, status = traceback.format_exc() if explained is None else f"error: {explained}", 1
    else:
        end_at_once(0)
        return
    # Outside the handlers: with the traceback the progress bars are gone, which would show themselves once more.
    print(printable(without_secrets(message)), file=sys.stderr)
    sys.exit(status)


def open_missing_streams() -> None:
    """Put the null device in place of standard streams that whoever started this has closed.

    Python has None in their place then, which progress bars cannot write to, and the next file that is opened would
    get their number: what a library prints in C would end up in it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                opened = os.open(os.devnull, os.O_RDWR)
                if opened != number:
                    os.dup2(opened, number)
                    os.close(opened)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
