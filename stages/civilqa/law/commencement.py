"""When what a promulgation enacts takes effect, and ends: its supplementary provisions (부칙), read for dates.

As a rule 제1조(시행일) names one day for all, and after 다만 other days for some articles, in the same sentence
(제25조의8부터 제25조의12까지의 개정규정은 공포 후 6개월이 경과한 날부터 시행한다) or in a list of items (호).
"""

import re
from dataclasses import dataclass
from datetime import date, timedelta

from dateutil.relativedelta import relativedelta

from civilqa.law.statutes import ArticleNumber

# An article, and a paragraph (항) of it; 0: what stands before its first one, or all of an article without paragraphs.
Unit = tuple[ArticleNumber, int]


@dataclass(frozen=True)
class Commencement:
    """A day from which something is in force, and the provision that says so: `제21634호 부칙 제1조 단서`."""

    day: date
    provision: str


@dataclass(frozen=True)
class Commencements:
    """The days of one promulgation.

    `named` is what the provisions name apart, an article as a whole under `(article, None)`; `undated` are their words
    about days that they leave to others (대통령령으로 정하는 날, the day of another act).
    """

    main: Commencement
    named: dict[tuple[ArticleNumber, int | None], Commencement]
    undated: tuple[str, ...] = ()

    def of(self, unit: Unit) -> Commencement:
        """The day of a unit."""
        article, paragraph = unit
        return self.named.get((article, paragraph)) or self.named.get((article, None)) or self.main


_DAY = re.compile(
    # 공포한 날부터 2년의 범위에서 대법원규칙으로 정하는 날 is left to others.
    r"(?P<open>정하는\s?날|넘지\s?(?:아니|않)|(?:법률?|영)의\s시행일)"
    r"|(?P<year>[0-9]{4})년\s?(?P<month>[0-9]{1,2})월\s?(?P<day>[0-9]{1,2})일"
    r"|공포\s?후\s?(?:(?P<years>[0-9]+)년)?\s?(?:(?P<months>[0-9]+)개월)?\s?(?:(?P<days>[0-9]+)일)?[이가]?\s?(?:경과한|경과된|지난|된|되는)\s?날"
    r"|(?P<at_once>공포한\s?날|공포일)(?!부터\s?(?:[0-9]|[가-힣\s]*범위))"
)
_LATEST = re.compile(r"부터\s?시행(?:하고|하며|하되|한다|함)")
_FIRST_PROVISION = re.compile(r"제\s?1\s?조\s?\(\s?(?:시행일|시행시기|시행)[^)]*\)")
_NEXT_PROVISION = re.compile(r"\n\s*(?:제\s?2\s?조\s?(?:\(|부터)|②|2\.\s?\()")
_ITEM = re.compile(r"(?m)^\s*([0-9]+)(?:의[0-9]+)?\.\s*")
_BRACKETS = re.compile(r"\(([^()]*)\)")
_PARTLY = "§"  # no statute uses it
_PLACE = re.compile(
    r"(?:부칙|별표|별지)[^,]*?(?=,|및|$)"  # no articles of the act's own
    r"|제(?P<article>[0-9]+)조(?:의(?P<branch>[0-9]+))?(?:제(?P<first>[0-9]+)항)?"
    r"|제(?P<paragraph>[0-9]+)항|(?P<since>부터)|(?P<until>까지)|(?P<partly>§)"
)

_TERM = re.compile(r"(?P<what>[^.]*?(?<!같)(?:은|는))\s(?P<until>[^.]*?)\s?(?:그\s)?효력을\s(?:가진다|갖는다)\.")
_LAST_DAY = re.compile(
    r"([0-9]{4})년\s?([0-9]{1,2})월\s?([0-9]{1,2})일?까지$"
    r"|시행(?:일부터|\s?후)\s?(?:([0-9]+)년)?\s?(?:([0-9]+)개월)?(?:간|[이가]?\s?(?:경과하는|지나는|되는)\s?날까지)$"
)
_GOES_ON = re.compile(
    r"(?P<what>[^.]*)(?<!사람)(?<!자)(?<!경우)에\s?(?:대하여는|대해서는|대하여|관하여는)\s이\s(?:법|영|규칙)의\s유효기간이\s"
    r"(?:만료된|지난|경과한)\s(?:이후|후)에도\s이\s(?:법|영|규칙)을\s적용한다"
)
_PART = re.compile(  # of an article or paragraph: 제71조제3항제3호가목
    r"(?:제[0-9]+조(?:의[0-9]+)?|같은\s(?:조|항))?\s?(?:제[0-9]+항)?\s?"
    r"(?:제[0-9]+호(?:의[0-9]+)?(?:[가-하]목)?|[가-하]목|단서|본문|전단|후단)|같은\s조\s?제[0-9]+항"
)
_TITLE = re.compile(r"^제[^(]*\([^)]*\)")
_CHAPTER = re.compile(r"제[0-9]+장(?:의[0-9]+)?\(([^()]*)\)")


@dataclass(frozen=True)
class Term:
    """The last day of what a provision gives a term (유효기간) to.

    Attributes:
        places: what it names; nothing where it is the act as a whole.
        new: those of them that end only if its promulgation made them: where it amended (개정규정) what was there
            before, it is the amendment alone that ends.
    """

    end: Commencement
    places: tuple[tuple[ArticleNumber, int | None], ...]
    new: bool


def read_term(text: str, provision: str, begun: date | None, articles: list[ArticleNumber]) -> list[Term]:
    """The terms that a provision sets, as amended: 제3조는 2026년 12월 31일까지 효력을 가진다.

    What it says of a licence, of another act, of a part of a paragraph (호, 단서) or of a table (별표) is none.

    Args:
        text: plain.
        provision: its name.
        begun: the day that its promulgation is in force from, where it is known: that is the first day of 시행 후 4년.
        articles: as of `read_commencements`.
    """
    terms = []
    for found in _TERM.finditer(_TITLE.sub("", text)):
        day = _LAST_DAY.search(found["until"])
        if not day or "「" in found["what"] or not (day[1] or begun):
            continue
        if day[1]:
            last = date(*map(int, day.groups()[:3]))
        else:
            last = _day_after(begun, int(day[4] or 0), int(day[5] or 0)) - timedelta(days=1)
        chapters = [(words, False) for words in _CHAPTER.findall(found["what"])]  # made as a whole
        end = Commencement(last, provision)
        whole = re.fullmatch(r"\s*이\s(?:법|영|규칙)은", found["what"])
        if whole:
            terms.append(Term(end, (), new=False))
            continue
        for words, new in [*chapters, (_CHAPTER.sub("", found["what"]), "개정규정" in found["what"])]:
            places = tuple(_places(_PART.sub("", _without_brackets(words)), articles))
            terms += [Term(end, places, new)] if places else []
    return terms


def read_going_on(text: str, articles: list[ArticleNumber]) -> set[ArticleNumber]:
    """The articles that a provision keeps in force after the act's term; rights that it keeps do not count."""
    return {place for found in _GOES_ON.finditer(_TITLE.sub("", text)) for place, _ in _places(found["what"], articles)}


def read_day(text: str, promulgated: date) -> date | None:
    """The first day that a text names; None where it names none, or leaves it to others.

    공포 후 6개월이 경과한 날 is the day after a period that begins on the day after the promulgation (of 2026-05-12:
    2026-11-13; of 2025-06-30: 2026-01-01). Source: 민법 제157조, 제160조; 법령 등 공포에 관한 법률 제13조.
    """
    found = _DAY.search(text)
    if not found or found["open"]:
        return None
    if found["year"]:
        return date(int(found["year"]), int(found["month"]), int(found["day"]))
    if found["at_once"]:
        return promulgated
    years, months, days = (int(found[part] or 0) for part in ("years", "months", "days"))
    return _day_after(promulgated + timedelta(days=1), years, months) + timedelta(days=days)


def _day_after(start: date, years: int, months: int) -> date:
    """The day after a period that begins on `start`; where the month has no such day, its last one ends the period."""
    day = start + relativedelta(years=years, months=months)  # that last one, where there is no such day
    return day + timedelta(days=day.day < start.day)


def read_commencements(
    supplement: str, number: str, promulgated: date, effective: date, articles: list[ArticleNumber], *, own: bool
) -> Commencements:
    """Read the supplementary provisions of a promulgation.

    Args:
        supplement: their text, without the line that names the promulgation.
        number: of the promulgation (공포번호).
        promulgated: 공포일.
        effective: 시행일 of this version of the act, as its publisher gives it.
        articles: those of the act in official order; a range (제3조부터 제5조까지) runs over them.
        own: False for provisions of another act that amended this one: the articles they name are not this act's,
            and the publisher's day is the only one.
    """
    label = f"제{number}호 부칙"
    if not own:
        return Commencements(Commencement(effective, label), {})
    first = _FIRST_PROVISION.search(supplement)
    text = supplement[first.end() :] if first else supplement.lstrip()
    label += " 제1조" if first else ""
    end = _NEXT_PROVISION.search(text)
    text = _without_brackets(text[: end.start()] if end else text)
    main, _, rest = text.partition("다만")
    main_day = read_day(main, promulgated) or effective
    named: dict[tuple[ArticleNumber, int | None], Commencement] = {}
    undated: list[str] = []
    for words, day_words, where in _clauses(rest):
        day = read_day(day_words, promulgated)
        places = _places(words, articles)
        if day is None:
            undated += [" ".join(f"{words} {day_words}".split())] if places else []
            continue
        for place in places:
            named.setdefault(place, Commencement(day, f"{label} {where}"))
    return Commencements(Commencement(main_day, label), named, tuple(undated))


def _without_brackets(text: str) -> str:
    """Take out what is bracketed, and leave a mark where it says that a part alone of the article is meant."""
    while _BRACKETS.search(text):
        text = _BRACKETS.sub(lambda found: _PARTLY if "한정" in found[1] or _PARTLY in found[1] else "", text)
    return text


def _clauses(rest: str) -> list[tuple[str, str, str]]:
    """What stands after 다만, in clauses: the words that name articles, those that name the day, and which it is."""
    items = list(_ITEM.finditer(rest))
    sentence = rest[: items[0].start()] if items else rest
    clauses = []
    if items and re.search(r"각\s?호", sentence):
        for item, following in zip(items, [*items[1:], None], strict=True):
            words = rest[item.end() : following.start() if following else len(rest)]
            named, colon, day = words.rpartition(":")
            clauses.append((named, day, f"제{item[1]}호") if colon else (words, sentence, f"제{item[1]}호"))
        return clauses
    begin = 0
    for end in _LATEST.finditer(sentence):
        clause = sentence[begin : end.start()]
        day = list(_DAY.finditer(clause))
        if day:
            clauses.append((clause[: day[-1].start()], clause[day[-1].start() :], "단서"))
        begin = end.end()
    return clauses


def _places(text: str, articles: list[ArticleNumber]) -> list[tuple[ArticleNumber, int | None]]:
    """The articles and paragraphs that a clause names, those between the ends of ranges too; not those partly meant."""
    found: list[tuple[ArticleNumber, int | None]] = []
    start: int | None = None  # where in `found` a range begins
    for match in _PLACE.finditer(text):
        if match["article"]:
            number = (int(match["article"]), int(match["branch"] or 0))
            found.append((number, int(match["first"]) if match["first"] else None))
        elif match["paragraph"] and found:
            found.append((found[-1][0], int(match["paragraph"])))
        elif match["since"]:
            start = len(found) - 1
        elif match["until"] and start is not None and 0 <= start == len(found) - 2:
            found[start:] = _between(found[start], found[-1], articles)
            start = None
        elif match["partly"] and found:
            found.pop()
    return found


def _between(
    first: tuple[ArticleNumber, int | None], last: tuple[ArticleNumber, int | None], articles: list[ArticleNumber]
) -> list[tuple[ArticleNumber, int | None]]:
    if first[0] == last[0] and first[1] and last[1]:
        return [(first[0], paragraph) for paragraph in range(first[1], last[1] + 1)]
    inner = [(number, None) for number in articles if first[0] < number < last[0]]
    return [first, *inner, last]
