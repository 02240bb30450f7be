"""What changed in an act between two days: each article, and each supplementary provision, by promulgation."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from difflib import SequenceMatcher

from civilqa.law.citations import parse_citations
from civilqa.law.commencement import Commencement
from civilqa.law.statutes import PARTS, ArticleNumber, article_name
from civilqa.law.timeline import Timeline, Wording, read_timeline
from civilqa.law.versions import GONE, Version

ADDED, CHANGED, REMOVED, IN_FORCE, ENDED = "added", "changed", "deleted", "in_force", "ended"

# What they say is in the days of the articles, or of other acts.
_OF_ITSELF = re.compile(
    r"제\s?[0-9]+\s?조(?:의[0-9]+)?\s?"
    r"\(\s?(?:시행일|다른\s?(?:법률|법령|대통령령|부령)의?\s?(?:개정|관계|과의\s?관계))"
)
_HEADING = re.compile(r"제\s?[0-9]+\s?조(?:의[0-9]+)?\s?(?=\()")
_ONLY_A_DAY = re.compile(r"이\s(?:법|영|규칙)은\s[^.]{1,60}부터\s시행한다\.")
_SAME_TEXT = 0.8  # of the words in order: an article that was given another number

Article = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """What a promulgation did to an article of an act.

    Attributes:
        article: `제3조의2`, or `제21634호 부칙 제5조`.
        kind: ADDED, CHANGED, REMOVED, or IN_FORCE: what had been promulgated before comes into force; ENDED: its term
            (유효기간) is over, `since` being the first day without it.
        since: the days from which what it did is in force, with their provisions.
        before, after: the article's text; nothing where there is none.
        paragraphs: the paragraphs (0: what stands before the first) that are not the same.
        moved: where paragraphs went whose text has another number now; of the article as a whole under 0.
        targets: the articles that this concerns, its own first: those that a decree names of its act, or a
            supplementary provision of the act that it is of; (act, "") is all of an act.
    """

    law: str
    article: str
    kind: str
    number: str
    promulgated: date
    since: tuple[Commencement, ...]
    before: str
    after: str
    paragraphs: frozenset[int] = frozenset()
    moved: dict[int, str] = field(default_factory=dict)
    targets: tuple[Article, ...] = ()

    @property
    def happened(self) -> date:
        """The day from which a reading of the law takes it in: of the promulgation, or of coming into force."""
        return max(since.day for since in self.since) if self.kind in (IN_FORCE, ENDED) else self.promulgated


def changes_between(versions: list[Version], known: Collection[str], old_day: date, new_day: date) -> list[Change]:
    """Return what changed in an act, in the order of promulgation and of the act.

    Args:
        versions: of the act, oldest first, up to the newer of two commits.
        known: the commits up to the older one.
        old_day, new_day: what was promulgated before and comes into force between these is a change as well.
    """
    timeline = read_timeline(versions)
    of_article: dict[ArticleNumber, Timeline] = defaultdict(dict)
    for (article, paragraph), wordings in timeline.items():
        of_article[article][article, paragraph] = wordings
    found = []
    for order, version in enumerate(versions):
        law, is_new = version.law, version.commit not in known
        changes = []
        for article, units in sorted(of_article.items()):
            made = {unit: wording for unit, wordings in units.items() for wording in wordings if wording.order == order}
            if not is_new:
                made = {unit: wording for unit, wording in made.items() if old_day < wording.since.day <= new_day}
            if made:
                changes.append(_change(law, article, units, made, version, is_new=is_new))
        found += _with_moves(changes)
        if is_new and order:
            found += _of_supplements(versions[order - 1], version)
    for (article, paragraph), wordings in sorted(timeline.items()):
        end, law, name = wordings[-1], versions[-1].law, article_name(article)
        if end.order == len(versions) and old_day < end.since.day <= new_day:
            texts = {of: _by(others, end.order - 1) for (_, of), others in of_article[article].items()}
            before = _text({of: wording.text for of, wording in texts.items() if wording})
            found.append(
                Change(
                    law=law,
                    article=name,
                    kind=ENDED,
                    number=end.number,
                    promulgated=end.promulgated,
                    since=(end.since,),
                    before=before,
                    after="",
                    paragraphs=frozenset({paragraph}),
                    targets=((law, name), *_named_of_the_act(law, before)),
                )
            )
    return found


def _change(law: str, article: ArticleNumber, units: Timeline, made: dict, version: Version, *, is_new: bool) -> Change:
    order = next(iter(made.values())).order
    texts = {
        when: {unit[1]: wording.text for unit, wordings in units.items() if (wording := _by(wordings, last))}
        for when, last in (("before", order - 1), ("after", order))
    }
    before, after = (_text(texts[when]) for when in ("before", "after"))
    kind = REMOVED if not after else ADDED if not before else CHANGED
    name = article_name(article)
    return Change(
        law=law,
        article=name,
        kind=kind if is_new else IN_FORCE,
        number=version.number,
        promulgated=version.promulgated,
        since=tuple(sorted({wording.since for wording in made.values()}, key=lambda since: since.day)),
        before=before,
        after=after,
        paragraphs=frozenset(paragraph for _, paragraph in made),
        moved=_moved_paragraphs(texts["before"], texts["after"], name),
        targets=((law, name), *_named_of_the_act(law, after or before)),
    )


def _by(wordings: list[Wording], order: int) -> Wording | None:
    """The last wording that the version of this order, or one before it, made."""
    return next((wording for wording in reversed(wordings) if wording.order <= order), None)


def _text(units: dict[int, str | None]) -> str:
    if units.get(0) in (None, GONE):
        return ""
    return "\n".join(f"제{n}항 {text}" if text == GONE else text for n, text in sorted(units.items()) if text)


def _moved_paragraphs(before: dict[int, str | None], after: dict[int, str | None], article: str) -> dict[int, str]:
    places = {text[1:]: number for number, text in after.items() if number and text and text != GONE}
    return {
        number: f"{article} 제{places[text[1:]]}항"
        for number, text in before.items()
        if number and text and text != GONE and after.get(number) != text and places.get(text[1:], number) != number
    }


def _named_of_the_act(law: str, text: str) -> Iterator[Article]:
    """The articles of its act that a decree or rule names: 법 제8조에 따라."""
    part = next((part for part in PARTS if law.endswith(f" {part}")), None)
    if part:
        act = law.removesuffix(f" {part}")
        yield from dict.fromkeys((act, c.article) for c in parse_citations(text, law) if c.law == act)


def _with_moves(changes: list[Change]) -> list[Change]:
    """The changes of one promulgation; those of articles that it gave another number say which."""
    added = [change for change in changes if change.kind == ADDED]
    found = []
    for change in changes:
        moved = dict(change.moved)
        if change.kind in (REMOVED, CHANGED):
            words = change.before.split()
            for other in added:
                if SequenceMatcher(None, words, other.after.split(), autojunk=False).ratio() >= _SAME_TEXT:
                    moved[0] = other.article
        found.append(replace(change, moved=moved))
    return found


def _of_supplements(old: Version, new: Version) -> Iterator[Change]:
    """What a promulgation adds to an act's own supplementary provisions, or changes in earlier ones."""
    before, after = old.provisions(), new.provisions()
    for name, text in after.items():
        number = name.partition("호")[0].removeprefix("제")
        if text == before.get(name) or new.supplements[number][0] is not None:
            continue
        if name not in before and (number != new.number or _OF_ITSELF.match(text) or _ONLY_A_DAY.fullmatch(text)):
            continue
        words = _HEADING.sub("", text)
        named = dict.fromkeys((c.law, c.article) for c in parse_citations(words, new.law) if c.law == new.law)
        yield Change(
            law=new.law,
            article=name,
            kind=CHANGED if name in before else ADDED,
            number=new.number,
            promulgated=new.promulgated,
            since=(new.commencements.main,),
            before=before.get(name, ""),
            after=text,
            targets=((f"{new.law} 부칙", name.rpartition(" ")[2]), *(named or [(new.law, "")])),
        )
