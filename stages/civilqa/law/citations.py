"""Statute citations in Korean text: find them, and judge them against the table in `data/reference/`.

The reader walks the text from left to right over the few places where something can begin (법, 「, 제N조, 같은 조,
계약서 and so on), resolves the act to the left of it and the article, 항, 호 and 목 to the right, and carries the act
over to bare articles that follow.
"""

import functools
import re
import unicodedata
from dataclasses import dataclass, replace

from civilqa.law import grammar
from civilqa.law.act_names import (
    Act,
    Named,
    bracketed_act,
    compact,
    generic_act,
    known_act,
    with_notes,
    with_words_before,
    word_start,
    words_start,
)
from civilqa.law.places import Place, places_between, read_details, read_places
from civilqa.law.statutes import NO_SUCH_ARTICLE, OUTSIDE_TABLE, Reference, article_name, same_title

# Each score that looks at citations parses the text: an evaluation asks for 600 different texts 5,300 times.
REMEMBERED_TEXTS = 1024


@dataclass(frozen=True)
class Citation:
    """One article of one act, as a text cites it.

    `start` and `end` are offsets into `unicodedata.normalize("NFC", text)`. The citations of one range (제1조부터
    제3조까지) share the span of the whole range; all other spans are disjoint, in ascending order.

    Attributes:
        law: Official full name (`주택임대차보호법`, `주택임대차보호법 시행령`, `민법 부칙`); an act outside the table
            keeps the name that the text gives it, a foreign code its country (`독일 민법`).
        article: `제3조` or `제3조의2`.
        paragraph: 항.
        item: 호: `2` or `2의3`.
        subitem: 목: `가`.
        clause: 본문, 단서, 전단 or 후단.
        title: What the text gives in brackets as the article's title.
        former: Whether the text cites a former version (구 민법).
        former_date: ISO date of the amendment named with a former version, when it is.
        via: How the act was found: `name` beside the article, `same` (같은 법), `list` (민법 제1조, 제2조), `carried`
            from further back in the text, or `within` the act's own text.
    """

    law: str
    article: str
    paragraph: int | None
    item: str | None
    subitem: str | None
    clause: str | None
    title: str | None
    former: bool
    former_date: str | None
    via: str
    start: int
    end: int


@functools.lru_cache(REMEMBERED_TEXTS)
def parse_citations(text: str, within: str | None = None) -> tuple[Citation, ...]:
    """Find the statute citations of a text, in order of appearance.

    The text may be in any normalisation form; spans refer to its NFC form. 제3조의2 is read as the article,
    제3조의 2가지 as 제3조. Contracts, 약관, case numbers and amounts are not citations, nor is 이 법 where no act was
    named before.

    `within` is the official name of the act whose own text this is: there 이 법 and a bare article mean that act,
    and an act that the text names carries over to lists only.
    """
    text = unicodedata.normalize("NFC", text)
    if "조" not in text and "§" not in text:
        return ()
    return tuple(_Reader(text, within).read())


def judge_citation(citation: Citation, reference: Reference) -> str:
    """What the table knows of a citation: one of the status constants of `civilqa.law.statutes`.

    `outside_table` is a real act, decree or supplementary provision that the table does not list, never an invented
    one. So is an article of a former version that the present one lacks: the table holds one version of each act.
    """
    status = reference.status(citation.law, citation.article)
    if status == NO_SUCH_ARTICLE and citation.former:
        return OUTSIDE_TABLE
    return status


def title_matches(citation: Citation, reference: Reference) -> bool | None:
    """Whether the bracketed title is the article's official one; None where the text or the table has none."""
    official = reference.title(citation.law, citation.article)
    if citation.title is None or official is None or citation.former:
        return None
    return same_title(citation.title, official)


class _Reader:
    """One pass over a text: `position` is how far it has looked, `floor` the end of what has been used."""

    def __init__(self, text: str, within: str | None):
        self.original = text
        self.text = text.translate(grammar.SHADOW)
        self.position = 0
        self.floor = 0
        self.own_act = Act(within) if within else None
        self.found: list[Citation] = []
        self.last_act: Act | None = None  # what 같은 법 means, after a contract's article too
        self.carried: Act | None = None  # what a bare 제3조 belongs to; None after a contract's article
        self.last_place: Place | None = None  # what 같은 조 means
        self.aliases: dict[str, Act] = {}  # (이하 '특별법'이라 한다)

    def read(self) -> list[Citation]:
        readers = {
            "document": self._read_document,
            "law": self._read_law,
            "bracket": self._read_bracket,
            "part": self._read_part,
            "same": self._read_same,
            "article": self._read_article,
        }
        while match := grammar.TOKEN.search(self.text, self.position):
            self.position = match.end()
            next(read for kind, read in readers.items() if match[kind] is not None)(match)
        return self.found

    # --- What can begin ---

    def _read_law(self, match: re.Match) -> None:
        end = match.end()
        after = self._article_after(end)
        notes = grammar.NOTES.match(self.text, end)
        named = None
        if after or notes or grammar.MENTION.match(self.text, end) or grammar.TOPIC.match(self.text, end):
            named = self._alias(end) or known_act(self.text, end, self.floor)
        if not named and after:
            named = self._same_act(match.start(), end)
        if not named and (after or (notes and grammar.ALIAS.search(notes["notes"]))):
            named = generic_act(self.text, end, self.floor)
        if named:
            self._use_act(*named, end, after)

    def _read_bracket(self, match: re.Match) -> None:
        end = match.end()
        after = self._article_after(end)
        if act := bracketed_act(match["name"], self.aliases):
            self._use_act(*with_words_before(self.text, act, match.start(), self.floor), "name", end, after)
        elif after and grammar.DOCUMENT_END.search(match["name"]):
            self._leave_acts(after.end())
        else:
            self.position = match.start() + 1  # 「민법 제750조」: read on inside

    def _read_part(self, match: re.Match) -> None:
        """The 시행령, 부칙 or 같은 영 that stands alone; 같은 법 시행령 is read with 법."""
        part = match["part_name"] or ("시행규칙" if match["part"].endswith("규칙") else "시행령")
        read = self._places(match.end())
        act = self.own_act or self.carried
        if read and act:
            self._cite(*read, replace(act, part=part), match.start(), "same")
        else:
            self._leave_acts(match.end())

    def _read_document(self, match: re.Match) -> None:
        end = match.end("document")
        start = word_start(self.text, end, self.floor)
        before = self.text[max(self.floor, start - 4) : start].rstrip()
        # 민사집행규칙 and 주택공급에 관한 규칙 are decrees; 취업규칙 is not.
        decree = match["document"] in ("규칙", "규정") and (
            before.endswith("관한") or grammar.COURT_RULES.fullmatch(self.text, start, end)
        )
        after = self._article_after(end)
        if decree and after and (named := generic_act(self.text, end, self.floor)):
            self._use_act(*named, end, after)
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
            self._cite([place], end, self.carried, match.start(), "same")

    def _read_article(self, match: re.Match) -> None:
        read = self._places(match.start())
        if read and self.own_act:
            self._cite(*read, self.own_act, match.start(), "within")
        elif read and self.carried:
            self._cite(*read, self.carried, match.start(), "carried")
        elif read:
            self._leave_acts(match.start())

    # --- Acts ---

    def _article_after(self, end: int) -> re.Match | None:
        """What stands between an act that ends at `end` and its article, if one follows."""
        after = grammar.AFTER_ACT.match(self.text, end)
        article = after and grammar.ARTICLE.match(self.text, after.end())
        if not article:
            return None
        # 민법은 3조 원을: where something stands between, only 제 makes an article of it.
        return after if article["mark"] or article["section"] or not after["loose"].strip() else None

    def _use_act(self, act: Act, start: int, via: str, end: int, after: re.Match | None) -> None:
        """Cite the articles after an act that is written from `start` to `end`, or keep it for those to come."""
        notes = grammar.NOTES.match(self.text, end)
        for alias in grammar.ALIAS.finditer(notes["notes"] if notes else ""):
            self.aliases[compact(alias[1])] = replace(act, part="")
        if after:
            act = with_notes(act, after["notes"] + (after["part_notes"] or ""))
            act = replace(act, part=" ".join(part for part in (act.part, after["part"], after["supplement"]) if part))
            places, places_end = self._places(after.end(), unmarked=True)
            # 민법은 제103조에서: the act is apart from the article, and no part of the span.
            apart = "가" <= after["loose"][:1] <= "힣"
            self._cite(places, places_end, act, after.end() if apart else start, via)
            return
        act = with_notes(act, notes["notes"] if notes else "")
        if part := grammar.PART.match(self.text, end):
            act, end = replace(act, part=part[1]), part.end()
        if self.carried is None or grammar.TOPIC.match(self.text, end):
            self.last_act = self.carried = act
            self.last_place = None
        elif self.text[start] in "「『":
            self.last_act = act  # in formal drafting 같은 법 is the one named last; in prose, the one last cited
        self.position = self.floor = end

    def _leave_acts(self, position: int) -> None:
        """Step over the articles at `position`, which belong to no act; the bare ones after them do not either."""
        self.carried = self.last_place = None
        read = self._places(position)
        while read:
            self.position = self.floor = read[1]
            connector = grammar.AND.match(self.text, read[1]) or grammar.TO.match(self.text, read[1])
            read = connector and self._places(connector.end(), read[0][-1], unmarked=True)

    def _alias(self, end: int) -> Named | None:
        start = word_start(self.text, end, self.floor)
        act = self.aliases.get(compact(self.text[start:end])) if self.aliases else None
        return (act, start, "name") if act else None

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
        own = self.own_act is not None and same is not None and same["same"] in ("이", "본")
        act = self.own_act if own else self.last_act
        return (replace(act, part=""), start, "same") if act else None

    # --- Articles ---

    def _places(
        self, position: int, base: Place | None = None, *, unmarked: bool = False
    ) -> tuple[list[Place], int] | None:
        return read_places(self.text, self.original, position, base, unmarked=unmarked)

    def _cite(self, places: list[Place], end: int, act: Act, start: int, via: str) -> None:
        """Add places that end at `end` as citations, and the ranges and lists that go on from them."""
        self._add(places, act, start, end, via)
        while True:
            last = places[-1]
            if (to := grammar.TO.match(self.text, end)) and (read := self._places(to.end(), last, unmarked=True)):
                until = grammar.UNTIL.match(self.text, read[1])
                # 제1조에서 제2조를 준용한다 is no range.
                if until or "에서" not in to[0]:
                    end = until.end() if until else read[1]
                    first = self.found[-1]
                    for _ in places:
                        self.found.pop()
                    places = [*places, *places_between(last, read[0][0]), *read[0]]
                    self._add(places, act, first.start, end, first.via)
                    continue
            if and_ := grammar.AND.match(self.text, end):
                if and_["same"]:  # 제3조제1항 및 같은 조 제3항
                    place, place_end = read_details(self.text, self.original, Place(last.article), and_.end())
                    read = ([place], place_end) if place.level else None
                else:
                    read = self._places(and_.end(), last, unmarked=True)
                if read:
                    start = and_.start("same") if and_["same"] else and_.end()
                    places, end = read
                    self._add(places, act, start, end, via if via in ("carried", "within") else "list")
                    continue
            break
        self.carried = act
        if via != "within":
            self.last_act = act
        self.last_place = places[-1]
        self.position = self.floor = end

    def _add(self, places: list[Place], act: Act, start: int, end: int, via: str) -> None:
        for place in places:
            item = place.item and str(place.item[0]) + (f"의{place.item[1]}" if place.item[1] else "")
            self.found.append(
                Citation(
                    law=act.law,
                    article=article_name(place.article),
                    paragraph=place.paragraph,
                    item=item,
                    subitem=place.subitem,
                    clause=place.clause,
                    title=place.title,
                    former=act.former,
                    former_date=act.former_date,
                    via=via,
                    start=start,
                    end=end,
                )
            )
