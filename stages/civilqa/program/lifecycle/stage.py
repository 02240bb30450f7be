"""How a program runs, and how it ends when something is wrong."""

import errno
import gc
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
from civilqa.program.lifecycle.interruptions import Terminated, describe, handle, terminate
from civilqa.program.lifecycle.locks import hold
from civilqa.program.lifecycle.machine_errors import ENGLISH, Messages, explain
from civilqa.program.lifecycle.safe_output import printable, without_secrets

LOCKS = Path(".checkpoints")
LINE_END = "\n"  # of the terminal's ^C, or of a progress bar


def run(main: Callable[[], None], lock: str | None = None, messages: Messages = ENGLISH) -> None:
    """Run a program's main; what a person can act on ends the process with a message and a status, no traceback.

    1: a PipelineError, or an error of the machine. 130: Ctrl-C. 143: SIGTERM. Any other exception is a defect of ours
    and keeps its traceback. Nothing shows a secret, nor anything of a file that a terminal would obey.

    Args:
        lock: the stage that no other process may run in this folder meanwhile, such as one whose DVC was killed. Two
            would write the same outputs, the earlier started perhaps with other parameters and last.
    """
    # What the pinned libraries will rename in their next version is nothing that a user of this one can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|torch)\.")
    # tqdm's thread only redraws bars that stand still, and where there is no memory for it Python waits for ever.
    tqdm.monitor_interval = 0
    gc.freeze()  # what was imported stays
    gc.enable()
    handle(terminate, ctrl_c=signal.default_int_handler)
    message, status = "", 0
    try:
        with hold(LOCKS / lock, f"stages/{lock}.py in this folder") if lock else nullcontext():
            main()
        sys.stdout.flush()
    except PipelineError as error:
        message, status = f"error: {error}", 1
    except (KeyboardInterrupt, Terminated) as ended:
        number = getattr(ended, "number", signal.SIGINT)
        message, status = f"{LINE_END}error: {describe(number, messages)}", 128 + number
    except BrokenPipeError:
        # `| head`: who read the output has left. The interpreter would fail over it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message, status = f"error: standard output: {messages[errno.EPIPE]}", 1
    except SystemExit:
        raise
    except BaseException as error:  # what a library in Rust panics with, for want of a thread, is no Exception
        explained = explain(error, messages)
        message, status = traceback.format_exc() if explained is None else f"error: {explained}", 1
    handle(lambda number, frame: os._exit(status))  # nothing is left but what the interpreter clears up
    if status:
        # Outside the handlers: with the traceback the progress bars are gone, which would show themselves once more.
        print(printable(without_secrets(message)), file=sys.stderr)
        sys.exit(status)
