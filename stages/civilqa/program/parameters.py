"""Reads params.yaml as DVC does and checks each section before a stage does any work."""

import difflib
import unicodedata
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from civilqa.program.errors import ParameterError

PARAMS_PATH = Path("params.yaml")

SECTIONS = (
    *("launch", "seed", "hardware", "model", "profiles", "tuning", "presets"),
    *("prepare", "split", "format", "train", "evaluate", "benchmark", "chat", "probe", "reference"),
)

# What numpy's and torch's generators both take.
Seed = Annotated[int, Field(ge=0, lt=2**32)]

# A number above these is a slip of the finger, and would be found out only when the memory or the patience ends.
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
Tokens = Annotated[int, Field(ge=1, le=2**20)]
Resamples = Annotated[int, Field(ge=100, le=1_000_000)]
ArticleCount = Annotated[int, Field(ge=0, le=100)]  # of a prompt


def _fits_a_path(text: str) -> str:
    if any(len(part.encode(errors="surrogatepass")) > 255 for part in text.split("/")) or len(text) > 4000:
        raise ValueError("no path, name or address is so long")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("holds control characters, or halves of one")
    return text


# A path, a name or an address. An empty one is null misspelt.
Text = Annotated[str, Field(min_length=1), pydantic.AfterValidator(_fits_a_path)]

FOUND_CHARACTERS = 200  # of a wrong value in a message


class Section(pydantic.BaseModel):
    """A section of params.yaml, or an entry of it; a stage declares its keys as fields.

    Strict: `epochs: "4"` is a mistake to report, not a number to guess. Unknown keys are refused and fields have no
    defaults, so that a misspelt key cannot leave a value in force that nobody chose.
    """

    model_config = pydantic.ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def read_params(path: Path = PARAMS_PATH) -> dict[str, Any]:
    """Return params.yaml as a dict; see parse_params."""
    try:
        return parse_params(path.read_bytes(), path)
    except FileNotFoundError:
        how = "run the stage from the root of the repository"
        raise ParameterError(f"{path}: not found in {Path.cwd()}; {how}") from None
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read: {error.strerror}; it must be a file that you may read") from None


def parse_params(content: str | bytes, path: Path = PARAMS_PATH) -> dict[str, Any]:
    """Return the content of a params.yaml, in UTF-8, as a dict.

    DVC writes `-S train.learning_rate=1e-5` as `1e-05`: a float in YAML 1.2, a string in PyYAML's YAML 1.1. The parser
    is therefore DVC's own, in Python, so that a stage and `dvc.lock` see the same value.

    Raises:
        ParameterError: it is no YAML mapping, or has a section that no stage knows.
    """
    try:
        # pure: the parser in C, which DVC takes, ends the whole process over brackets that are nested too deeply.
        params = YAML(typ="safe", pure=True).load(content if isinstance(content, str) else content.decode())
    except RecursionError:  # how far the parser gets before it differs between versions of Python
        raise ParameterError(f"{path}: not readable as YAML: nested too deeply") from None
    except (YAMLError, ValueError) as error:
        # ValueError: no UTF-8, a date that no calendar has, a number of thousands of digits.
        raise ParameterError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(params, dict):
        _refuse_any(path, [f"holds {type(params).__name__}, want sections such as 'train:'"])
    _refuse_any(path, [_unknown(str(name), SECTIONS, "section") for name in params if name not in SECTIONS])
    return params


def read_sections(path: Path = PARAMS_PATH, **types: type[Section]) -> tuple[Any, ...]:
    """Return one checked Section for each `section=Type`, in the order given; raises every problem in one message.

    A section with a seed of its own that is left empty, or out, has the project's.
    """
    params = read_params(path)
    sections, problems = [], []
    for name, section_type in types.items():
        if name not in params:
            problems.append(f"{name}: missing section")
            continue
        raw = params[name]
        if "seed" in section_type.model_fields and isinstance(raw, dict) and raw.get("seed") is None:
            raw = raw | {"seed": params.get("seed")}
        section, found = check(section_type, raw, name)
        sections.append(section)
        problems += found
    _refuse_any(path, problems)
    return tuple(sections)


def read_choice(section: str, name: str, section_type: type[Section], chosen_by: str, path: Path = PARAMS_PATH) -> Any:
    """Return the checked entry `name` of a section that holds named alternatives, such as presets.

    Args:
        chosen_by: the parameter that holds `name`, for the error message (`train.preset`).
    """
    choices = read_params(path).get(section)
    if not isinstance(choices, dict) or not choices:
        _refuse_any(path, [f"{section}: missing section"])
    if name not in choices:
        _refuse_any(path, [f"{chosen_by}: {_unknown(str(name), [*map(str, choices)], section[:-1])}"])
    choice, problems = check(section_type, choices[name], f"{section}.{name}")
    _refuse_any(path, problems)
    return choice


def check(section_type: type[Section], value: Any, place: str) -> tuple[Any, list[str]]:
    """Return (the section, []) or (None, problems) for a section's raw value; each problem names its place."""
    if not isinstance(value, dict):
        keys = ", ".join(section_type.model_fields)
        return None, [f"{place}: found {_found(value)}, want a mapping with the keys {keys}"]
    try:
        return section_type.model_validate(value), []
    except pydantic.ValidationError as error:
        problems: dict[str, list[str]] = {}  # a key that may be of several kinds has one of each
        for problem in error.errors():
            found, wanted = _describe(section_type, value, place, problem)
            problems.setdefault(found, []).append(wanted)
        return None, [f"{found}{', or '.join(wanted)}" for found, wanted in problems.items()]


def _describe(section_type: type[Section], value: Any, place: str, problem: dict[str, Any]) -> tuple[str, str]:
    """Return where something is found, and what is wanted there."""
    location = []
    for part in problem["loc"]:
        if not isinstance(value, dict if isinstance(part, str) else list):
            break  # pydantic goes on with the name of a kind
        location.append(str(part))
        value = value.get(part) if isinstance(value, dict) else value[part]
    where = ".".join([place, *location])
    if problem["type"] == "extra_forbidden":
        owner = _owner(section_type, location[:-1])
        known = [*owner.model_fields] if owner else []
        return f"{'.'.join([place, *location[:-1]])}: ", _unknown(location[-1], known, "key")
    if problem["type"] == "missing":
        return f"{where}: ", "missing"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{where}: found {_found(problem['input'])}; ", message


def _found(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= FOUND_CHARACTERS else f"{text[:FOUND_CHARACTERS]}... ({len(text)} characters)"


def _owner(section_type: type[Section], location: list[str]) -> type[Section] | None:
    """Return the section that the keys under `location` belong to, or None where that is no single one."""
    for name in location:
        field = section_type.model_fields.get(name)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, Section):
            return None
        section_type = field.annotation
    return section_type


def _unknown(name: str, known: list[str] | tuple[str, ...], kind: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return f"unknown {kind} '{name}'{hint}; there are: {', '.join(known)}"


def _refuse_any(path: Path, problems: list[str]) -> None:
    if problems:
        raise ParameterError("\n".join(f"{path}: {problem}" for problem in problems))
