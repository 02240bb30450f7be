"""The text of an article, beside a citation of it, where the statutes are at hand."""

import functools
import threading
from datetime import date

from civilqa.law.commencement import Commencement
from civilqa.law.grammar import CIRCLED
from civilqa.law.statutes import ArticleNumber, act_of, article_number, load_reference
from civilqa.law.timeline import Timeline, article_text, read_timeline
from civilqa.law.verdicts import LookedUp
from civilqa.law.versions import find_statutes

CHARACTERS_SHOWN = 400  # of an article beside an answer in a terminal

_READING = threading.Lock()  # a repository of libgit2 is for one thread at a time


def text_at_hand(law: str, article: str) -> str | None:
    """Return an article's text as of `reference.as_of`, its title first.

    Of one that is promulgated and not in force by then, the text to come, after a line that says from when on. None
    where no statutes are at hand, or they do not have it.

    Raises:
        RecordError: `reference.statutes` names a folder without statutes.
    """
    timeline = _timelines(law).get(law)
    if timeline is None:
        return None
    number, today = article_number(article.partition(" ")[0]), date.fromisoformat(load_reference().as_of)
    if text := article_text(timeline, number, today):
        return text
    for since in _later(timeline, number, today):
        if text := article_text(timeline, number, since.day):
            return f"[{since.day} 시행: {since.provision}]\n{text}"
    return None


def cited_text(citation: LookedUp) -> str | None:
    """Return the text that a citation is of: the paragraph that it gives, else the beginning of the article."""
    text = text_at_hand(citation["law"], citation["article"])
    if text is None:
        return None
    if citation["paragraph"]:
        kept: list[str] = []
        for line in text.splitlines():
            number = CIRCLED.get(line[:1])
            if number == citation["paragraph"] or (kept and number is None):
                kept.append(line)
            elif kept:
                break
        text = "\n".join(kept) or text
    return text if len(text) <= CHARACTERS_SHOWN else f"{text[:CHARACTERS_SHOWN]}…"


@functools.lru_cache(128)
def _timelines(law: str) -> dict[str, Timeline]:
    """The timelines of an act and of its decrees and rules, or of a decree; nothing without statutes."""
    with _READING:
        statutes = find_statutes()
        histories = statutes.histories([act_of(law)]) if statutes else {}
    return {name: read_timeline(versions) for name, versions in histories.items()}


def _later(timeline: Timeline, article: ArticleNumber, today: date) -> list[Commencement]:
    later = {wording.since for (number, _), found in timeline.items() if number == article for wording in found}
    return sorted((since for since in later if since.day > today), key=lambda since: since.day)
