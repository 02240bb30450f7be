"""Arguments of a script that takes none: `--help` is answered, any other refused with what to set in params.yaml."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from civilqa.program.errors import ParameterError
from civilqa.program.lifecycle.safe_output import printable, without_secrets


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
        pairs = " ".join(f"-S {shlex.quote(f'{key}={value}')}" for key, value in meant.items())
        message = f"{refusal} {', '.join(meant)} in params.yaml, or run: dvc exp run {pairs}" if meant else in_general
        print(printable(without_secrets(f"error: {message}")), file=sys.stderr)
        sys.exit(2)


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
