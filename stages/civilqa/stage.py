"""How a program starts, and how it ends when something is wrong."""

import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from civilqa.errors import PipelineError
from civilqa.interruptions import Terminated, describe, end_at_once, raise_in_work
from civilqa.locks import hold
from civilqa.machine_errors import ENGLISH, Words, explain

LOCKS = Path(".checkpoints")
LINE_END = "\n"  # of the terminal's ^C, or of a progress bar


def run(main: Callable[[], None], alone: str | None = None, words: Words = ENGLISH) -> None:
    """Run a program's main; what a person can act on ends the process with a message and a status, no traceback.

    1: a PipelineError, or an error of the machine. 130: Ctrl-C. 143: SIGTERM. Any other exception is a defect of ours
    and keeps its traceback.

    Args:
        alone: the stage that no other process may run in this folder meanwhile, such as one whose DVC was killed. Two
            would write the same outputs, the earlier started perhaps with other parameters and last.
        words: in which errors of the machine are told.
    """
    # DVC starts stages through a pipe, where Python on Windows or under LANG=C would not print Hangul.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True)
    # What the pinned libraries will rename in their next version is nothing that a user of this one can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|torch)\.")
    raise_in_work()
    try:
        with hold(LOCKS / alone, f"stages/{alone}.py in this folder") if alone else nullcontext():
            main()
        sys.stdout.flush()
    except PipelineError as error:
        message, status = str(error), 1
    except KeyboardInterrupt:
        message, status = describe(signal.SIGINT, words), 128 + signal.SIGINT
    except Terminated as ended:
        message, status = describe(ended.number, words), 128 + ended.number
    except BaseException as error:  # what a library in Rust panics with, for want of a thread, is no Exception
        message, status = explain(error, words), 1
        if message is None:
            raise
    else:
        end_at_once(0)
        return
    # Outside the handlers: with the traceback the progress bars are gone, which would show themselves once more.
    print(f"{'' if status == 1 else LINE_END}error: {message}", file=sys.stderr)
    sys.exit(status)
