"""Statute citations in Korean text: find them, and judge them against the table in `data/reference/`.

The reader walks the text from left to right over the few places where something can begin (법, 「, 제N조, 같은 조 and
so on), resolves the act to the left of it and the article, 항, 호 and 목 to the right, and carries the act over to bare
articles that follow, unless they are a document's. Where an act lacks a bare article that another act of the text has,
it is the other's.
"""

import bisect
import functools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta

from civilqa.law import grammar
from civilqa.law.acts import (
    Act,
    Claim,
    Named,
    bracketed_act,
    claim_on,
    compact,
    generic_act,
    known_act,
    with_notes,
    with_words_before,
    word_start,
    words_start,
)
from civilqa.law.places import Citation, Place, places_between, read_details, read_places, with_others
from civilqa.law.statements import with_what_is_said
from civilqa.law.statutes import (
    DELETED,
    EXISTS,
    NO_SUCH_ARTICLE,
    NO_SUCH_PARAGRAPH,
    OUTSIDE_TABLE,
    Reference,
    article_name,
    article_number,
    load_reference,
)

# Each score that looks at citations parses the text: an evaluation asks for 600 different texts 5,300 times.
REMEMBERED_TEXTS = 1024
REMEMBERED_ACTS = 12  # of one text: which of them a bare article may be of
REMEMBERED_ARTICLES = 12  # which of them 같은 조 may mean
FALLEN = (NO_SUCH_ARTICLE, DELETED)  # what the present version of an act has not


@functools.lru_cache(REMEMBERED_TEXTS)
def parse_citations(text: str, within: str | None = None) -> tuple[Citation, ...]:
    """Find the statute citations of a text, in order of appearance.

    The text may be in any normalisation form; spans refer to its NFC form. 제3조의2 is read as the article,
    제3조의 2가지 as 제3조. Contracts, 약관, bills, case numbers and amounts are not citations, nor is 이 법 where no
    act was named before.

    `within` is the official name of the act whose own text this is: there 이 법 and a bare article mean that act,
    and an act that the text names carries over to lists only.
    """
    text = unicodedata.normalize("NFC", text)
    if not grammar.CITING.search(text):
        return ()
    return tuple(_Reader(text, within).read())


def judge_citation(citation: Citation, reference: Reference) -> str:
    """What the table knows of a citation: one of the status constants of `civilqa.law.statutes`.

    It is judged at `reference.as_of`; where the text dates the amendment that a former version is from before (구 형법,
    2024. 2. 9. 개정되기 전의 것), on the day before. `outside_table` is a real act, decree or supplementary provision
    that the table does not list, never an invented one. So is what the present version lacks, cited of one of no date,
    or of one before `reference.known_from`. And so is an article of which the text itself says that it was repealed or
    never was: that is not citing it.
    """
    before = _day_before(citation.former_date) if citation.former and citation.former_date else ""
    if before > reference.known_from:
        status = reference.status(citation.law, citation.article, citation.paragraph, before)
        return OUTSIDE_TABLE if status in (NO_SUCH_ARTICLE, NO_SUCH_PARAGRAPH) or citation.denied else status
    status = reference.status(citation.law, citation.article, citation.paragraph)
    missing = status in (*FALLEN, NO_SUCH_PARAGRAPH)
    return OUTSIDE_TABLE if missing and (citation.former or citation.denied) else status


def _day_before(written: str) -> str:
    """The ISO date before another; nothing where no calendar has it."""
    try:
        return str(date.fromisoformat(written) - timedelta(days=1))
    except (ValueError, OverflowError):
        return ""


class _Reader:
    """One pass over a text: `position` is how far it has looked, `floor` the end of what has been used."""

    def __init__(self, text: str, within: str | None):
        self.original = text
        self.text = grammar.SHADOWED.sub(lambda match: grammar.SHADOW[match[0]], text)
        self.reference = load_reference()
        self.position = 0
        self.floor = 0
        self.own_act = Act(within) if within else None
        amending = grammar.AMENDING.search(self.text)
        self.amended = [m.span() for m in grammar.AMENDED.finditer(self.text)] if amending else []
        self.found: list[Citation] = []
        self.named: dict[str, Act] = {}  # the acts of the text by their names, the last one last
        self.last_act: Act | None = None  # what 같은 법 means, after a contract's article too
        self.last_cited: Act | None = None
        self.carried: Act | None = None  # what a bare 제3조 belongs to; None after a contract's article
        self.bracketed = False  # whether the act named last is in 「」, and not as what the text is about
        self.last_place: Place | None = None  # what 같은 조 means
        self.aliases: dict[str, Act] = {}  # (이하 '특별법'이라 한다)

    def read(self) -> list[Citation]:
        readers = {
            "law": self._read_law,
            "bracket": self._read_bracket,
            "part": self._read_part,
            "same": self._read_same,
            "article": self._read_article,
        }
        while match := grammar.TOKEN.search(self.text, self.position):
            self.position = match.end()
            readers[match.lastgroup](match)
        return with_what_is_said(self.text, self.found, self.reference)

    # --- What can begin ---

    def _read_law(self, match: re.Match) -> None:
        name_end = match.end()
        end = name_end + (self.text.startswith("전", name_end) and bool(grammar.CODE.match(self.text, name_end)))
        after = self._article_after(end)
        notes = None if after else grammar.NOTES.match(self.text, end)
        named = None
        if after or notes or grammar.MENTION.match(self.text, end) or grammar.TOPIC.match(self.text, end):
            named = self._alias(name_end) or known_act(self.text, name_end, self.floor)
        if not named and after:
            named = self._same_act(match.start(), name_end)
        if not named and (
            after or (notes and grammar.ALIAS.search(notes["notes"])) or grammar.AMENDED_ACT.match(self.text, end)
        ):
            named = generic_act(self.text, name_end, self.floor)
        if named:
            self._use_act(*named, end, after)

    def _read_bracket(self, match: re.Match) -> None:
        end = match.end()
        after = self._article_after(end)
        if act := bracketed_act(match["name"], self.aliases):
            self._use_act(*with_words_before(self.text, act, match.start(), self.floor), "name", end, after)
        elif after and not grammar.CITES.search(match["name"]):
            self._leave_acts(after.end())
        else:
            self.position = match.start() + 1  # 「민법 제750조」: read on inside

    def _read_part(self, match: re.Match) -> None:
        """The 시행령, 부칙 or 같은 영 that stands alone; 같은 법 시행령 is read with 법."""
        part = match["part_name"] or ("시행규칙" if match["part"].endswith("규칙") else "시행령")
        read = self._places(match.end())
        act = self.own_act or self.carried
        if read and act:
            act = Act(act.parent, part) if act.parent else replace(act, part=part)
            self._cite(*read, act, match.start(), "within" if self.own_act else "same")
        else:
            self._leave_acts(match.end())

    def _read_same(self, match: re.Match) -> None:
        """같은 조 제2항, 같은 항 제1호."""
        if not self.carried or not self.last_place:
            return
        base = Place(self.last_place.article)
        if match["same"].endswith("항"):
            base = replace(base, paragraph=self.last_place.paragraph, level=1)
        place, end = read_details(self.text, self.original, base, match.end())
        if place.level > base.level:
            place, act = self._meant(place)
            self._cite(with_others(place), end, act, match.start(), "same")

    def _meant(self, place: Place) -> tuple[Place, Act]:
        """What 같은 조 제5항 means: the article cited last that has such a paragraph, else the one cited last."""
        meant = place, self.carried
        cited = [
            (self.carried.law, article_name(place.article)),
            *((c.law, c.article) for c in self.found[:-REMEMBERED_ARTICLES:-1]),
        ]
        for law, article in cited if place.paragraph else ():
            if self.reference.status(law, article, place.paragraph) in (EXISTS, OUTSIDE_TABLE):
                break
        else:
            return meant
        return meant if (law, article) == cited[0] else (replace(place, article=article_number(article)), Act(law))

    def _read_article(self, match: re.Match) -> None:
        start = match.start()
        read = self._places(start)
        if not read:
            return
        code = grammar.CODE_AFTER.match(self.text, read[1]) if self.text[start] == "§" else None
        if code:
            self._use(read[0], code.end(), Act(code["code"]), start, "name")
            return
        claim, whose = claim_on(self.text, start, read[1], self.floor)
        act = self.own_act or self.carried
        if claim == Claim.ACT:
            self._use(*read, *whose)
        elif act is None or claim == Claim.DOCUMENT or (claim == Claim.NOUN and not self._has(act, read[0], whose)):
            self._leave_acts(start)
        else:
            before = self.text[max(self.floor, start - 20) : start]
            if grammar.FORMER_BEFORE.search(before):
                act = replace(act, former=True)
            elif act.former and grammar.PRESENT_BEFORE.search(before):
                act = replace(act, former=False, former_date=None)
            via = "within" if self.own_act else "carried"
            in_doubt = not self.own_act and (claim in (Claim.IN_DOUBT, Claim.NOUN) or self._is_drafting(read[1]))
            self._cite_first(*read, [act, *self._others(act)], start, via, in_doubt=in_doubt)

    def _has(self, act: Act, places: list[Place], noun: str) -> bool:
        """Whether an article is the act's although a noun stands before it: one of its title (대항력 제3조)."""
        if self.own_act:
            return True
        title = self.reference.title(act.law, article_name(places[0].article))
        return title is not None and noun in compact(title)

    def _is_drafting(self, position: int) -> bool:
        """Whether this is a statute's own text: it brackets the acts that it cites, and a bare article is its own."""
        if not self.bracketed:
            return False
        return not self.text.endswith(grammar.POLITE, position, grammar.sentence_end(self.text, position))

    # --- Acts ---

    def _article_after(self, end: int) -> re.Match | None:
        """What stands between an act that ends at `end` and its article, if one follows."""
        after = grammar.AFTER_ACT.match(self.text, end)
        article = after and grammar.ARTICLE.match(self.text, after.end())
        if not article:
            return None
        # 민법은 3조 원을: where something stands between, only 제 makes an article of it.
        loose = after["loose"]
        marked = article["mark"] or article["section"] or article["sections"]
        return after if marked or not loose.strip() or grammar.OF_ACT.fullmatch(loose) else None

    def _use_act(self, act: Act, start: int, via: str, end: int, after: re.Match | None) -> None:
        """Cite the articles after an act that is written from `start` to `end`, or keep it for those to come."""
        notes = grammar.NOTES.match(self.text, end)
        in_brackets = self.text[end - 1] in "」』"
        topic = grammar.TOPIC.match(self.text, end) if in_brackets or not after else None
        self.bracketed = in_brackets and not topic
        if notes:
            for alias in grammar.ALIAS.finditer(notes["notes"]):
                self.aliases[compact(alias[1])] = replace(act, part="")
        if after:
            act = with_notes(act, after["notes"] + (after["part_notes"] or ""))
            if after["part"] or after["supplement"]:
                parts = (act.part, after["part"], after["supplement"])
                act = replace(act, part=" ".join(part for part in parts if part))
            # 민법은 제103조에서: the act is apart from the article, and no part of the span.
            apart = "가" <= after["loose"][:1] <= "힣"
            if grammar.CITES.search(after["notes"]):
                apart = True
                self._read_inside(act, *after.span("notes"))
            read = self._places(after.end(), unmarked=True)
            self._use(*read, act, after.end() if apart else start, via)
            return
        if act.bill:
            self.position = self.floor = end
            return
        act = with_notes(act, notes["notes"] if notes else "")
        if part := grammar.PART.match(self.text, end):
            act, end = replace(act, part=part[1]), part.end()
        self._name(act)
        if self.carried is None or topic:
            self.last_act = self.carried = act
            self.last_place = None
        elif self.text[start] in "「『":
            self.last_act = act  # in formal drafting 같은 법 is the one named last; in prose, the one last cited
        self.position = self.floor = end

    def _use(self, places: list[Place], end: int, act: Act, start: int, via: str) -> None:
        """Cite places of an act that stands beside them, or is meant by 같은 법; a bill's are no law's."""
        if act.bill:
            self._leave_acts(end)
        elif via != "same":
            self._name(act)
            self._cite(places, end, act, start, via)
        elif self.text.startswith(tuple(grammar.BARE_ACTS), start):
            # 법 제3조 may mean the act of the page that the text was taken from, which it does not name.
            self._cite_first(places, end, [act, *self._others(act)], start, via, in_doubt=not self.own_act)
        else:
            others = [replace(self.last_cited, part=act.part)] if self.last_cited else []
            own = self.text.startswith(("이", "본"), start) and self._is_drafting(end)
            self._cite_first(places, end, [act, *others], start, via, in_doubt=own)

    def _name(self, act: Act) -> None:
        self.named.pop(act.law, None)
        self.named[act.law] = act
        if len(self.named) > REMEMBERED_ACTS:
            del self.named[next(iter(self.named))]

    def _others(self, act: Act) -> list[Act]:
        """The other acts that the text has named, the last one first."""
        return [other for other in reversed(self.named.values()) if other.law != act.law]

    def _read_inside(self, act: Act, start: int, end: int) -> None:
        """Read what brackets between an act and its article cite: 형법(... 법률 제2조로 가중되는 경우) 제129조."""
        inner = _Reader(self.original[start:end], None)
        inner.carried = inner.last_act = act
        self.found += [replace(c, start=c.start + start, end=c.end + start) for c in inner.read()]

    def _leave_acts(self, position: int) -> None:
        """Step over the articles at `position`, which belong to no act; the bare ones after them do not either."""
        self.carried = self.last_place = None
        self.position = self.floor = max(self.floor, position)
        read = self._places(position, unmarked=True)
        while read:
            self.position = self.floor = read[1]
            connector = grammar.AND.match(self.text, read[1]) or grammar.TO.match(self.text, read[1])
            read = connector and self._places(connector.end(), read[0][-1], unmarked=True)

    def _alias(self, end: int) -> Named | None:
        if not self.aliases:
            return None
        start = word_start(self.text, end, self.floor)
        act = self.aliases.get(compact(self.text[start:end]))
        # 같은 법, where 법 is an alias
        same = grammar.SAME_BEFORE.search(self.text[max(self.floor, start - 5) : start])
        return (act, start, "name") if act and not same else None

    def _same_act(self, start: int, end: int) -> Named | None:
        """같은 법, 동법, 위 법, and 법 or 특별법 alone: the act named last, without its 시행령."""
        before_start = max(self.floor, start - 5)
        same = grammar.SAME_BEFORE.search(self.text[before_start:start])
        if same:
            start = before_start + same.start("same")
        else:
            start = word_start(self.text, end, self.floor)
            word = self.text[start:end]
            if word not in grammar.BARE_ACTS or words_start(self.text, start, end, self.floor) is not None:
                return None
        own = self.own_act is not None and (same["same"] in ("이", "본") if same else bool(self.own_act.parent))
        act = self.own_act if own else self.last_act
        if act is None:
            return None
        named = Act(act.parent) if own and act.parent and not same else replace(act, part="") if act.part else act
        return *with_words_before(self.text, named, start, self.floor), "same"

    # --- Articles ---

    def _places(
        self, position: int, base: Place | None = None, *, unmarked: bool = False
    ) -> tuple[list[Place], int] | None:
        return read_places(self.text, self.original, position, base, unmarked=unmarked)

    def _cite_first(
        self, places: list[Place], end: int, acts: Iterable[Act], start: int, via: str, *, in_doubt: bool = False
    ) -> None:
        """Cite for the first of `acts` that has all that is written, else for the first, or for none where in doubt."""
        acts, count = list(acts), len(self.found)
        kept = self.carried, self.last_act, self.last_cited, self.last_place
        for act in acts:
            self._cite(places, end, act, start, via if act is acts[0] or via != "within" else "carried")
            if not any(judge_citation(citation, self.reference) in FALLEN for citation in self.found[count:]):
                self._name(act)
                return
            # 제107조의 개정규정: of the act that these supplementary provisions are from
            in_doubt |= via == "carried" and bool(grammar.AMENDED_BY_IT.match(self.text, self.position))
            del self.found[count:]
            self.carried, self.last_act, self.last_cited, self.last_place = kept
        if not in_doubt:
            self._cite(places, end, acts[0], start, via)

    def _cite(self, places: list[Place], end: int, act: Act, start: int, via: str) -> None:
        """Add places that end at `end` as citations, and the ranges and lists that go on from them."""
        added = self._add(places, act, start, end, via)
        while True:
            last = places[-1]
            if (to := grammar.TO.match(self.text, end)) and (read := self._places(to.end(), last, unmarked=True)):
                until = grammar.UNTIL.match(self.text, read[1])
                # 제1조에서 제2조를 준용한다 is no range.
                if until or "에서" not in to[0]:
                    end = until.end() if until else read[1]
                    first = self.found[-1]
                    del self.found[-added:]
                    places = [*places, *places_between(last, read[0][0]), *read[0]]
                    added = self._add(places, act, first.start, end, first.via)
                    continue
            if and_ := grammar.AND.match(self.text, end):
                if and_["same"]:  # 제3조제1항 및 같은 조 제3항
                    place, place_end = read_details(self.text, self.original, Place(last.article), and_.end())
                    read = (with_others(place), place_end) if place.level else None
                else:
                    read = self._places(and_.end(), last, unmarked=True)
                if read:
                    start = and_.start("same") if and_["same"] else and_.end()
                    places, end = read
                    added = self._add(places, act, start, end, via if via in ("carried", "within") else "list")
                    continue
            break
        self.carried = act
        if via != "within":
            self.last_act = self.last_cited = act
        self.last_place = places[-1]
        self.position = self.floor = end

    def _add(self, places: list[Place], act: Act, start: int, end: int, via: str) -> int:
        """Add places as citations of one span; return how many they are."""
        quoted = bisect.bisect_right(self.amended, start, key=lambda span: span[0]) - 1
        former = (
            act.former
            or bool(grammar.FORMER_AFTER.match(self.text, end))
            or bool(grammar.FORMER_NOTE.search(self.text, start, end))
            or (quoted >= 0 and start < self.amended[quoted][1])
        )
        added = 0
        for place in places:
            article = article_name(place.article)
            if place.between and self.reference.status(act.law, article) in FALLEN:
                continue
            item = place.item and str(place.item[0]) + (f"의{place.item[1]}" if place.item[1] else "")
            self.found.append(
                Citation(
                    law=act.law,
                    article=article,
                    paragraph=place.paragraph,
                    item=item,
                    subitem=place.subitem,
                    clause=place.clause,
                    title=place.title,
                    former=former,
                    former_date=act.former_date,
                    via=via,
                    start=start,
                    end=end,
                )
            )
            added += 1
        return added
