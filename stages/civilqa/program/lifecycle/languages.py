"""What the stages tell a person, in Korean where the terminal is Korean; what they write to files is English always.

A text is raised and printed in English. `korean.yaml` beside this has the Korean of each phrase, with its names in
braces. A text that has no entry as a whole is translated by lines, behind the place that it begins with, and in parts.
"""

import locale
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from civilqa.program.lifecycle.safe_output import printable

CATALOGUE = Path(__file__).with_name("korean.yaml")
# What a name in braces stands for, where not for any text: n, n1, ... for a number, the others for parts of a list.
NAMES = {"n": r"[0-9][0-9,.]*", "article": "[^;']+?", "which": "[^;']+?", "quoted": r"(?:(?!'\)).)+?"}
# Where a text falls into parts that are translated by themselves, and what stands there in Korean.
SEAMS = {"; ": "; ", ": ": ": ", ", ": ", ", " and ": ", "}


@cache
def speaks_korean() -> bool:
    """Return whether the user's language is Korean: as gettext looks for it, or as the system is set where none is."""
    names = (os.environ.get(key) for key in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"))
    language = next(filter(None, names), None) or locale.getlocale()[0] or ""
    return re.match(r"ko(rean)?\b|ko_", language, re.IGNORECASE) is not None


@cache
def _catalogue() -> dict[str, str]:
    from ruamel.yaml import YAML  # a tenth of a second, for which no run in English should wait

    return YAML(typ="safe").load(CATALOGUE.read_text(encoding="utf-8"))


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return a pattern for each entry that has names in braces, those with the most letters of their own first."""
    named = [entry for entry in _catalogue().items() if "{" in entry[0]]
    named.sort(key=lambda entry: len(re.sub(r"\{\w+\}", "", entry[0])), reverse=True)
    return [(re.compile(_pattern(english)), korean) for english, korean in named]


def _pattern(english: str) -> str:
    parts = re.split(r"\{(\w+)\}", english)
    names = (f"(?P<{name}>{NAMES.get(name.rstrip('0123456789'), '.+?')})" for name in parts[1::2])
    return "".join(re.escape(text) + next(names, "") for text in parts[::2])


def in_korean(text: str) -> str:
    """Return a text of the stages in Korean; what the catalogue does not know, such as a path, stays as it is."""
    if "\n" in text:
        return "\n".join(map(in_korean, text.split("\n")))
    if korean := _whole(text):
        return korean
    for place in re.finditer(": ", text):
        if korean := _whole(text[place.end() :]):
            return f"{in_korean(text[: place.start()])}: {korean}"
    for seam, korean in SEAMS.items():
        parts = text.split(seam)
        if len(parts) > 1 and (told := [in_korean(part) for part in parts]) != parts:
            return korean.join(told)
    return text


def _whole(text: str) -> str | None:
    """Return the Korean of a text that has an entry, None for another."""
    if text in _catalogue():
        return _catalogue()[text]
    for pattern, korean in _patterns():
        if found := pattern.fullmatch(text):
            return re.sub(r"\{(\w+)\}", lambda name, found=found: in_korean(found[name[1]]), korean)
    return None


def in_users_language(text: str) -> str:
    return in_korean(text) if speaks_korean() else text


def say(text: str, show: Callable[[str], None] = print) -> None:
    """Print a text in the user's language, without what a terminal would obey."""
    show(printable(in_users_language(text)))
