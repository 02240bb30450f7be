"""How a stage starts and how it ends when something is wrong."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable

from civilqa.errors import PipelineError
from civilqa.screen import printable, without_secrets


def run(main: Callable[[], None]) -> None:
    """Run a stage's main; a PipelineError ends the process with its message and exit code 1.

    Any other exception is a defect of ours and keeps its traceback. Neither shows a secret, nor anything of a file that
    a terminal would obey.
    """
    open_missing_streams()
    # DVC starts stages through a pipe, where Python on Windows or under LANG=C would not print Hangul.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True)
    # What the pinned libraries will rename in their next version is nothing that a user of this one can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|torch)\.")
    try:
        main()
    except PipelineError as error:
        print(printable(without_secrets(f"error: {error}")), file=sys.stderr)
        sys.exit(1)
    except Exception:
        print(printable(without_secrets(traceback.format_exc())), file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # `| head`: who read the output has left. The interpreter would fail over it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print("error: standard output was closed while the program still wrote to it; stopped", file=sys.stderr)
        sys.exit(1)


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
