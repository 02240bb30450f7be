"""What differs between two texts, word by word."""

from collections.abc import Iterator
from difflib import SequenceMatcher

LEFT_OUT, PUT_IN, SAME = "-", "+", " "


def word_runs(old: str, new: str) -> Iterator[tuple[str, str]]:
    """Yield runs of words, each LEFT_OUT, PUT_IN or SAME, in order."""
    before, after = old.split(), new.split()
    for tag, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            yield SAME, " ".join(before[a:b])
            continue
        if b > a:
            yield LEFT_OUT, " ".join(before[a:b])
        if d > c:
            yield PUT_IN, " ".join(after[c:d])


def merge_words(old: str, new: str, around: int | None = None) -> str:
    """Return a word difference in one line: [-left out-] and {+put in+}, as git diff --word-diff writes it.

    Args:
        around: words that are shown on either side of a difference; without it all of them are.
    """
    marks = {LEFT_OUT: "[-{}-]", PUT_IN: "{{+{}+}}", SAME: "{}"}
    runs = list(word_runs(old, new))
    written = []
    for place, (kind, text) in enumerate(runs):
        words = text.split(" ")
        if kind == SAME and around is not None and len(words) > 2 * around:
            head = words[:around] if place else []
            tail = words[-around:] if place < len(runs) - 1 else []
            text = " ".join([*head, "…", *tail])
        written.append(marks[kind].format(text))
    return " ".join(written)
