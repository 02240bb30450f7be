"""Citations, and the articles, 항, 호 and 목 in them: what is written, and what lies between the ends of a range."""

import functools
import re
from dataclasses import dataclass, replace

from civilqa.law import grammar
from civilqa.law.statutes import ArticleNumber

# A longer range names a chapter rather than articles: only its two ends are returned. It also bounds the output.
RANGE_LIMIT = 100


@dataclass(frozen=True)
class Citation:
    """One article of one act, as a text cites it.

    `start` and `end` are offsets into `unicodedata.normalize("NFC", text)`. The citations of one range (제1조부터
    제3조까지) share the span of the whole range; all other spans are disjoint, in ascending order. A range cites what
    stands between its ends: numbers there that were deleted or never used are no citations.

    Attributes:
        law: Official full name (`주택임대차보호법`, `주택임대차보호법 시행령`, `민법 부칙`); an act outside the table
            keeps the name that the text gives it, a foreign code its country (`독일 민법`).
        article: `제3조` or `제3조의2`.
        paragraph: 항.
        item: 호: `2` or `2의3`.
        subitem: 목: `가`.
        clause: 본문, 단서, 전단 or 후단.
        title: What the text gives in brackets as the article's title.
        former: Whether the text cites a former version (구 민법, 당시의 민법, 제782조(현행 제779조 참조)).
        former_date: ISO date of the amendment named with a former version, when it is.
        via: How the act was found: `name` beside the article, `same` (같은 법), `list` (민법 제1조, 제2조), `carried`
            from further back in the text, or `within` the act's own text.
        denied: Whether the text says that the article was repealed or never was, and so it is.
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
    denied: bool = False


@dataclass(frozen=True)
class Place:
    """Where in an act; `level` is the deepest of 0 조, 1 항, 2 호, 3 목 that was written for it.

    `between` tells that the text names it only by the two ends of a range.
    """

    article: ArticleNumber
    title: str | None = None
    paragraph: int | None = None
    item: ArticleNumber | None = None  # 제2호의3 is (2, 3)
    subitem: str | None = None
    clause: str | None = None
    level: int = 0
    between: bool = False
    others: str = ""  # further 항 of the same number, as written: ", 2" of 제1, 2항


def read_places(
    text: str, original: str, position: int, base: Place | None = None, *, unmarked: bool = False
) -> tuple[list[Place], int] | None:
    """What article (or 항, 호, 목 in a list with `base`) is written at `position`, and where it ends.

    `text` has `grammar.SHADOW` applied to `original`, which titles are taken from. `unmarked` allows 750조 without 제.
    제186·187조 is several places.
    """
    article = grammar.ARTICLE.match(text, position)
    if article and (article["mark"] or article["section"] or article["sections"] or unmarked):
        places = _article_places(article)
        last, end = read_details(text, original, places[-1], article.end())
        return [*places[:-1], *with_others(last)], end
    for level, pattern in ((1, grammar.PARAGRAPH), (2, grammar.ITEM), (3, grammar.SUBITEM)):
        if base and level <= base.level and pattern.match(text, position):
            place = Place(
                article=base.article,
                paragraph=base.paragraph if level > 1 else None,
                item=base.item if level > 2 else None,
                level=level - 1,
            )
            place, end = read_details(text, original, place, position)
            return with_others(place), end
    return None


def with_others(place: Place) -> list[Place]:
    """Return a place, with those of 제1, 2항 and 제1 내지 3항; what is written below it is the last one's."""
    if not place.others:
        return [place]
    parts = grammar.NUMBER_SEPARATOR.split(f"{place.paragraph}{place.others}")
    numbers = [int(part) for part in parts[::2]]
    plain = replace(place, item=None, subitem=None, clause=None, level=1, others="")
    places = [replace(plain, paragraph=numbers[0])]
    for separator, before, number in zip(parts[1::2], numbers, numbers[1:], strict=False):
        if separator in ("~", "-", "내지"):
            places += [replace(plain, paragraph=each, between=True) for each in range(before + 1, number)]
        places.append(replace(plain, paragraph=number))
    return [*places[:-1], replace(place, paragraph=numbers[-1], others="")]


NO_DETAILS = frozenset("에는은를을과와도로,.")  # none of them begins a title, 항, 호, 목 or 단서


def read_details(text: str, original: str, place: Place, position: int) -> tuple[Place, int]:
    """Read title, 항, 호, 목 and 단서 at `position`, below what `place` already holds."""
    if text[position : position + 1] in NO_DETAILS:
        return place, position
    level, below = place.level, {}
    if level == 0 and not place.title and (match := grammar.TITLE.match(text, position)):
        group = match.lastgroup
        title = original[match.start(group) : match.end(group)].strip()
        cites = grammar.CITES.search(match[group]) and not title.startswith("「")
        if title and not cites and not grammar.NO_TITLE.match(title):
            below["title"], position = title, match.end()
        elif not cites and not title.isdigit() and grammar.PARAGRAPH.match(text, match.end()):
            position = match.end()  # an amendment note between 조 and 항
    if level < 1 and (match := grammar.PARAGRAPH.match(text, position)):
        circled = match["circled"]
        below["paragraph"] = grammar.CIRCLED[circled] if circled else int(match["number"] or match["bracketed"])
        below["others"] = match["others"] or ""
        level, position = 1, match.end()
    # (1) is a 항 after 조 and a 호 after 항.
    match = grammar.ITEM.match(text, position) if level < 2 else None
    if match and (level == 1 or not match["bracketed"]):
        number = int(match["number"] or match["unmarked"] or match["bracketed"])
        below["item"] = (number, int(match["branch"] or match["branch_apart"] or 0))
        level, position = 2, match.end()
    if level == 2 and (match := grammar.SUBITEM.match(text, position)):
        below["subitem"] = match[1]
        level, position = 3, match.end()
    if match := grammar.CLAUSE.match(text, position):
        below["clause"], position = grammar.CLAUSES.get(match[1], match[1]), match.end()
    return (replace(place, level=level, **below) if below else place), position


def _article_places(match: re.Match) -> tuple[Place, ...]:
    """The articles of a match of `grammar.ARTICLE`, ranges such as 제211~213조 expanded."""
    if match["section"]:
        return _numbered_places(match["section"], match["section_branch"])
    return _numbered_places(match["numbers"] or match["sections"], match["branch"] or match["branch_apart"])


@functools.lru_cache(4096)  # the same few are cited again and again
def _numbered_places(written: str, branch: str | None) -> tuple[Place, ...]:
    """The articles of numbers as they are written, `branch` being of the last one."""
    parts = [written] if written.isdigit() else grammar.NUMBER_SEPARATOR.split(written)
    numbers = []
    for part in parts[::2]:
        number, _, own_branch = part.partition("의")
        numbers.append((int(number), int(own_branch or 0)))
    if branch:
        numbers[-1] = (numbers[-1][0], int(branch))
    places = [Place(numbers[0])]
    for separator, end in zip(parts[1::2], numbers[1:], strict=True):
        if separator in ("~", "-", "내지"):
            places += [Place(number, between=True) for number in _numbers_between(places[-1].article, end)]
        places.append(Place(end))
    return tuple(places)


def _numbers_between(first: ArticleNumber, last: ArticleNumber) -> list[ArticleNumber]:
    """The numbers strictly between two ends of a range, as far as the ends alone tell.

    Between plain numbers stand plain numbers, between 제3조의2 and 제3조의7 의-numbers, the first of which is 의2.
    """
    (n1, m1), (n2, m2) = first, last
    if max(n2 - n1, m2) > RANGE_LIMIT:
        return []
    if n1 == n2:
        return [(n1, m) for m in range(max(m1, 1) + 1, m2)]
    between = [(n, 0) for n in range(n1 + 1, n2)]
    if m2 and n1 < n2:
        between += [(n2, 0), *((n2, m) for m in range(2, m2))]
    return between


def places_between(first: Place, last: Place) -> list[Place]:
    """The places strictly between two ends of a range, on the level of its last end."""
    if first.article != last.article:
        return [Place(number, between=True) for number in _numbers_between(first.article, last.article)]
    plain = replace(first, title=None, clause=None, subitem=None, level=last.level, between=True)
    if last.level == 1 and first.paragraph and last.paragraph:
        numbers = _numbers_between((first.paragraph, 0), (last.paragraph, 0))
        return [replace(plain, paragraph=number, item=None) for number, _ in numbers]
    if first.paragraph == last.paragraph and last.level == 2 and first.item and last.item:
        return [replace(plain, item=number) for number in _numbers_between(first.item, last.item)]
    if first.paragraph == last.paragraph and first.item == last.item and first.subitem and last.subitem:
        letters = grammar.SUBITEMS[grammar.SUBITEMS.index(first.subitem) + 1 : grammar.SUBITEMS.index(last.subitem)]
        return [replace(plain, subitem=letter) for letter in letters]
    return []
