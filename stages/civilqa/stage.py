"""How a stage starts and how it ends when something is wrong."""

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
