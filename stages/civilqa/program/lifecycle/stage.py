"""How a program starts, what arguments it refuses, and how it ends when something is wrong.

Its heavy imports take seconds, in which Ctrl-C, too, must be one line: `start` comes before them, `run` last.
"""

import errno
import gc
import os
import re
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from civilqa.program.errors import ParameterError, PipelineError
from civilqa.program.lifecycle.languages import in_users_language, speaks_korean
from civilqa.program.lifecycle.machine_errors import ENGLISH, INTERRUPTED, KOREAN, Messages, explain
from civilqa.program.lifecycle.safe_output import printable, without_secrets

LOCKS = Path(".checkpoints")
LINE_END = "\n"  # of the terminal's ^C, or of a progress bar
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # Windows has neither SIGHUP nor, elsewhere, SIGBREAK

Handler = Callable[[int, object], None]

OWN = KOREAN if speaks_korean() else ENGLISH  # of who works with the pipeline; who asks a question reads Korean


class Terminated(SystemExit):
    """SIGTERM or SIGHUP. Like KeyboardInterrupt it is no Exception: what catches those goes on otherwise."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


def start(documentation: str = "", *, example: str = "", messages: Messages = OWN) -> None:
    """Begin a program: the first line of its script, before any other import; its last one is `run`.

    A signal ends it at once with a line that says so, and an error of the machine is told in one.

    Args:
        documentation: what `--help` prints. Empty for a script that reads its arguments itself, `--help` too.
        example: a key of params.yaml that is set instead of an argument. Empty for a script that takes arguments.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # trl tells its makers of every training
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this: the next file opened would get its number
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - until the end
    # DVC starts stages through a pipe, where Python on Windows or under LANG=C would not print Hangul.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True)

    def end(number: int, frame: object) -> None:
        os.write(sys.stderr.fileno(), f"\nerror: {describe(number, messages)}\n".encode())
        os._exit(128 + number)

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if message := explain(error, messages):
            print(f"error: {message}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    handle(end)
    sys.excepthook = tell
    if documentation:
        answer_arguments(documentation, example)
    gc.disable()  # nothing is garbage yet: looking for it takes a sixth of the imports' time


def answer_arguments(documentation: str, example: str) -> None:
    """End the program if it was asked for `--help`, or with status 2 if given arguments that it does not take.

    Args:
        documentation: of the script; its line `Params:` names the sections of params.yaml that it reads.
        example: the key to name where the arguments name none; empty for a script that takes arguments.
    """
    arguments = sys.argv[1:]
    refusal = f"stages/{Path(sys.argv[0]).name} takes no arguments: set"
    in_general = f"{refusal} e.g. {example} in params.yaml, or run: dvc exp run -S {example}=..."
    if {"-h", "--help"} & set(arguments):
        print(documentation.strip() + (f"\n\n{in_general}" if example else ""))
        sys.exit(0)
    if arguments and example:
        meant = find_meant(arguments, documentation)
        pairs = " ".join(f"-S {shlex.quote(f'{key}={quoted(value)}')}" for key, value in meant.items())
        message = f"{refusal} {', '.join(meant)} in params.yaml, or run: dvc exp run {pairs}" if meant else in_general
        print(in_users_language(printable(without_secrets(f"error: {message}"))), file=sys.stderr)
        sys.exit(2)


def quoted(value: str) -> str:
    """Return a value as DVC's parser of -S takes it: letters that are not English, and brackets, between quotes."""
    plain = value.isascii() and not set("()") & set(value)
    return value if plain or value.startswith(("[", "{", '"', "'")) else f'"{value}"'


def find_meant(arguments: list[str], documentation: str) -> dict[str, str]:
    """Return which keys of params.yaml arguments such as `--learning_rate 5e-5` or `epochs=2` mean, with the values."""
    from civilqa.program.parameters import read_params  # a third of a second, for which no run should wait

    try:
        params = read_params()
    except ParameterError:  # the arguments are refused either way, and the next run says what is wrong there
        return {}
    model = params.get("model")
    profile = str(model.get("profile")) if isinstance(model, dict) else ""
    sections = re.findall(r"\w+", "".join(re.findall(r"^Params:.*(?:\n +.*)*", documentation, re.MULTILINE)))
    keys = [key for name in sections if name in params for key in list_keys(name, params[name], profile)]
    meant = {}
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        name, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("--") or equals:  # neither is a value, nor -S before its key
            ending = f".{name.replace('-', '_')}"
            key = next((key for key in keys if f".{key}".endswith(ending)), None)
            if key is not None:
                meant[key] = value if equals else "true" if following.startswith("--") else following
    return meant


def list_keys(place: str, value: Any, profile: str) -> list[str]:
    """Return the full names of the keys below a place; of entries by profile, those of the selected one."""
    if not isinstance(value, dict) or place.count(".") == 3:
        return [place]
    names = [profile] if profile in value else value
    return [key for name in names for key in list_keys(f"{place}.{name}", value[name], profile)]


def terminate(number: int, frame: object) -> None:
    raise Terminated(number)


def handle(handler: Handler, ctrl_c: Handler | None = None) -> None:
    """Set the handler of each signal that is not ignored, as nohup and a shell's background jobs ask for."""
    for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ctrl_c if ctrl_c and number == signal.SIGINT else handler)


def describe(number: int, messages: Messages) -> str:
    return messages[INTERRUPTED].format(name="Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


def run(main: Callable[[], None], lock: str | None = None, messages: Messages = OWN) -> None:
    """Run a program's main; what a person can act on ends the process with a message and a status, no traceback.

    1: a PipelineError, or an error of the machine. 130: Ctrl-C. 143: SIGTERM. Any other exception is a defect of ours
    and keeps its traceback. Nothing shows a secret, nor anything of a file that a terminal would obey.

    Args:
        lock: the stage that no other process may run in this folder meanwhile, such as one whose DVC was killed. Two
            would write the same outputs, the earlier started perhaps with other parameters and last.
    """
    from tqdm import tqdm  # here, since a signal during these imports, too, must be one line

    from civilqa.program.lifecycle.locks import hold

    # What the pinned libraries will rename in their next version is nothing that a user of this one can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|torch)\.")
    # tqdm's thread only redraws bars that stand still, and where there is no memory for it Python waits for ever.
    tqdm.monitor_interval = 0
    gc.freeze()  # what was imported stays
    gc.enable()
    handle(terminate, ctrl_c=signal.default_int_handler)  # by exceptions: what was begun is cleared up
    message, status = "", 0
    try:
        with hold(LOCKS / lock, f"stages/{lock}.py in this folder") if lock else nullcontext():
            main()
        sys.stdout.flush()
    except PipelineError as error:
        message, status = in_users_language(f"error: {error}"), 1
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
