"""What of an act is in force on a day: each wording of its articles and paragraphs, from when on, by what provision.

A promulgation changes the text at once and is in force later, in parts on days of their own; what it changes is what
differs from the version before.
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta

from civilqa.law.commencement import Commencement, Unit, read_going_on, read_term
from civilqa.law.statutes import ArticleNumber
from civilqa.law.versions import GONE, Version

ALWAYS = Commencement(date.min, "")  # of what stood there before the repository's history begins


@dataclass(frozen=True)
class Wording:
    """A text of a unit; None or GONE where it is no more.

    Attributes:
        since: from when on it is in force, and by what provision.
        number: of the promulgation that made it; empty for ALWAYS.
        order: which of the act's versions made it; their number, where a term (유효기간) ends it.
    """

    text: str | None
    since: Commencement
    number: str
    promulgated: date
    order: int

    @property
    def stands(self) -> bool:
        """Whether there is something that can be cited."""
        return self.text not in (None, GONE)


Timeline = dict[Unit, list[Wording]]


def read_timeline(versions: list[Version]) -> Timeline:
    """The wordings of every unit of an act, oldest promulgation first."""
    timeline: Timeline = {}
    for order, version in enumerate(versions):
        for unit in sorted({*timeline, *version.texts}):
            text, wordings = version.texts.get(unit), timeline.get(unit, [])
            before = wordings[-1] if wordings else None
            if text == (before.text if before else None):
                continue
            # A version that is in force earlier leaves out what is still to come: it does not change it back.
            left_out = before and before.since.day > version.effective
            if left_out and text == (wordings[-2].text if len(wordings) > 1 else None):
                continue
            since = ALWAYS if version.first else version.commencements.of(unit)
            number = "" if version.first else version.number
            timeline.setdefault(unit, []).append(Wording(text, since, number, version.promulgated, order))
    _end_terms(timeline, versions)
    return timeline


def _end_terms(timeline: Timeline, versions: list[Version]) -> None:
    """Add the end of what is in force for a term, as the supplementary provisions of the last version give it."""
    by_number = {version.number: version for version in versions if version.commencements}
    own = {number: day for number, (by, _, day) in versions[-1].supplements.items() if by is None}
    enactment = next(iter(own), None)
    articles, provisions = sorted({article for article, _ in timeline}), versions[-1].provisions()
    going_on = set().union(*(read_going_on(text, articles) for text in provisions.values()))
    for name, text in provisions.items():
        number = name.partition("호")[0].removeprefix("제")
        if number not in own:
            continue
        made = by_number.get(number)
        for term in read_term(text, name, made and made.commencements.main.day, articles):
            if term.places:
                units = [(article, paragraph or 0) for article, paragraph in term.places]
            elif number == enactment:
                units = [(article, 0) for article in articles if article not in going_on]
            else:  # of the amendments
                continue
            gone = Commencement(term.end.day + timedelta(days=1), term.end.provision)
            for unit in units:
                wordings = timeline.get(unit, [])
                if not wordings or not wordings[-1].stands or wordings[-1].since.day >= gone.day:
                    continue
                if term.new and next(wording for wording in wordings if wording.stands).number != number:
                    continue
                promulgated = date(*map(int, re.findall("[0-9]+", own[number])))
                wordings.append(Wording(GONE, gone, number, promulgated, len(versions)))


def on(wordings: list[Wording], day: date) -> Wording | None:
    """The wording in force on a day: of those in force by then, the last to be promulgated."""
    return next((wording for wording in reversed(wordings) if wording.since.day <= day), None)


def article_text(timeline: Timeline, article: ArticleNumber, day: date) -> str | None:
    """The text of an article on a day, its title in brackets first; None where it is not, or no more, in force."""
    units = {paragraph: found for (number, paragraph), found in timeline.items() if number == article}
    head = on(units.get(0, []), day)
    if head is None or not head.stands:
        return None
    standing = [on(units[paragraph], day) for paragraph in sorted(units)]
    return "\n".join(wording.text for wording in standing if wording and wording.text and wording.stands)


def act_on(versions: list[Version], day: date) -> Version | None:
    """The version that is the act's on a day, as its publisher counts: the last promulgated of those in force."""
    return next((version for version in reversed(versions) if version.effective <= day), None)
