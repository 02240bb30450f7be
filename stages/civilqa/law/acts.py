"""Which act a text means: the names of acts, and whose a bare 제N조 is.

The official names are those of `data/reference/act_names.txt`. Source: 국가법령정보센터 (law.go.kr); see
`data/reference/README.md`. The file is read when a text first needs it.

Every function that takes a text takes it with `grammar.SHADOW` applied, and `floor`, before which nothing is looked at.
"""

import bisect
import enum
import functools
import re
from dataclasses import dataclass, replace

from civilqa.law import grammar
from civilqa.law.statutes import PARTS, REFERENCE_FOLDER, load_reference, read_lines

# --- Official names --------------------------------------------------------------------------------------------------

_NOT_COMPARED = re.compile(r"[\s·ㆍ‧・,()「」]")


def compact(name: str) -> str:
    """A name without spaces, middle dots, commas and brackets."""
    return _NOT_COMPARED.sub("", name)


@functools.cache
def load_names() -> tuple[dict[str, str], list[str]]:
    """Compact name → official name, with the short names of the table's acts; the compact names, reversed, sorted."""
    # A decree's name is read with its act's.
    acts = [act for act in load_reference().acts.values() if not act.law.endswith(PARTS)]
    names = {compact(name): name for name in read_lines(REFERENCE_FOLDER / "act_names.txt")}
    names |= {compact(name): act.law for act in acts for name in act.short_names}
    names |= {compact(act.law): act.law for act in acts}
    return names, sorted(name[::-1] for name in names)


def official_name(name: str) -> str | None:
    """The official name of an act, decree or rule, whatever the spaces and dots in `name`; None if there is none."""
    return load_names()[0].get(compact(name))


@functools.lru_cache(4096)  # few acts are named, at the beginnings of sentences above all
def is_cut(reversed_letters: str) -> bool:
    """Whether these letters, from the last one back, are the end of a longer name."""
    backwards = load_names()[1]
    place = bisect.bisect_right(backwards, reversed_letters)
    return place < len(backwards) and backwards[place].startswith(reversed_letters)


@functools.lru_cache(4096)
def names_at_end(reversed_letters: str) -> tuple[tuple[str, int], ...]:
    """Return (official name, number of letters) of the names that a text ends in, the longest first.

    Args:
        reversed_letters: the letters of the text, without spaces and dots, from its last to its first.
    """
    names, backwards = load_names()
    ends = []
    key = reversed_letters
    while key and (place := bisect.bisect_right(backwards, key) - 1) >= 0:
        found = backwards[place]
        if key.startswith(found):
            ends.append((names[found[::-1]], len(found)))
            key = found[:-1]
        else:  # what else the text may end in is shorter than where it parts from its neighbour
            same = zip(key, found, strict=False)
            key = key[: next(place for place, (ours, theirs) in enumerate(same) if ours != theirs)]
    return tuple(ends)


# --- The name before a place in a text -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """An act as it is cited: `part` is 시행령, 시행규칙, 부칙 or empty; a `bill` is no law yet."""

    name: str
    part: str = ""
    former: bool = False
    former_date: str | None = None
    bill: bool = False

    @property
    def law(self) -> str:
        return f"{self.name} {self.part}" if self.part else self.name

    @property
    def parent(self) -> str:
        """The act that a 시행령 or 시행규칙 calls 법 in its own text; empty for an act."""
        part = next((part for part in grammar.PARTS[:2] if self.name.endswith(f" {part}")), "")
        return self.name.removesuffix(f" {part}") if part else ""


Named = tuple[Act, int, str]  # an act, where its name starts, and `Citation.via`


LETTERS_LOOKED_AT = (10, 120)  # more only where the first are the end of a longer name; none in use has over 120
_NAME_LETTERS = re.compile(r"(?:·*\s?·*\s?·*[^\W_])*")  # at most two spaces between letters
_SEPARATORS = re.compile(r"[\s·]")


def known_act(text: str, end: int, floor: int) -> Named | None:
    """The longest official or short name that ends at `end`, whatever the spaces in it, and starts a word."""
    letters = backwards = ""
    for count in LETTERS_LOOKED_AT:
        backwards = _NAME_LETTERS.match(text[max(floor, end - 2 * count) : end][::-1])[0]
        letters = _SEPARATORS.sub("", backwards)[:count]
        if len(letters) < count or not is_cut(letters):
            break
    for name, length in names_at_end(letters):
        start = end - len(_separated(backwards, length))
        if (prefix := _prefix(text, start, floor, length)) is not None:
            act = Act(name, former=prefix in ("구", "옛"))
            return *with_words_before(text, act, start - len(prefix), floor), "name"
    return None


def _separated(letters: str, count: int) -> str:
    """The first `count` of these letters with the spaces and dots between them."""
    end = count
    while (found := end - len(_SEPARATORS.findall(letters, 0, end))) < count:
        end += count - found
    return letters[:end]


def _prefix(text: str, start: int, floor: int, length: int) -> str | None:
    """What is written onto the front of a name (구민법), mostly ""; None for the tail of another word (난민법)."""
    for prefix in ("", *grammar.ATTACHED):
        begin = start - len(prefix)
        starts_word = begin == floor or not "가" <= text[begin - 1] <= "힣"
        if begin >= floor and text.startswith(prefix, begin) and starts_word:
            return prefix
    # Without a space behind the word before: in the texts of courts, and where a line was broken.
    run_on = length >= grammar.LONG_NAME or grammar.RUN_ON.search(text[max(floor, start - 4) : start])
    return "" if run_on else None


def generic_act(text: str, end: int, floor: int) -> Named | None:
    """An act outside the table, by the shape of its name."""
    start = word_start(text, end, floor)
    word = text[start:end].lstrip("·")
    for prefix in ("개정", "현행"):
        if len(word) > 4:
            word = word.removeprefix(prefix)
    start = end - len(word)
    first_word = words_start(text, start, end, floor)
    if first_word is not None:
        start = first_word
    elif grammar.NO_ACT.fullmatch(word) or word in grammar.BARE_ACTS:
        return None
    name = " ".join(text[start:end].split()).replace("·", grammar.OFFICIAL_DOT)
    return *with_words_before(text, Act(name), start, floor), "name"


def words_start(text: str, start: int, end: int, floor: int) -> int | None:
    """Where a name of several words begins whose last word is given; None if it is a name by itself.

    A heuristic for 교통사고처리에 관한 특례법 where it is neither in the table nor in brackets: it goes back over
    nouns, genitives, 및 and 등, and stops at a word that ends like a part of the sentence (피고인은).
    """
    floor = max(floor, start - 80)
    words = list(re.finditer(r"\S+", text[floor:start]))
    if not words or words[-1].end() == start - floor:
        return None
    texts = [word[0] for word in words]
    first = len(texts)
    if texts[-1] in ("관한", "위한"):
        if first < 2 or not texts[-2].endswith(("에", "을", "를")):
            return None
        first -= 2
    elif not grammar.NAME_TAIL.fullmatch(text, start, end):
        return None
    nouns = 0
    while first > 0 and len(texts) - first < 10:
        word = texts[first - 1]
        following = texts[first] if first < len(texts) else ""
        if grammar.LIST_MEMBER.fullmatch(word) or not grammar.HANGUL_WORD.fullmatch(word):
            break
        if word in ("및", "등", "등의"):
            if first == 1 or grammar.LIST_MEMBER.fullmatch(texts[first - 2]):
                break
            nouns = 0
        elif following in ("및", "등", "등의", "등에") or (
            word.endswith(("의", "와", "과")) and not following.endswith("의")
        ):
            nouns = 0
        elif nouns == 2 or grammar.SENTENCE_WORD.fullmatch(word):
            break
        else:
            nouns += 1
        first -= 1
    if first == len(texts):
        return None
    return floor + words[first].start()


def word_start(text: str, end: int, floor: int) -> int:
    """Where the word that ends at `end` begins; what is joined by a middle dot is one word."""
    start = end
    while start > max(floor, end - 30) and ("가" <= text[start - 1] <= "힣" or text[start - 1] == "·"):
        start -= 1
    return start


WORDS_BEFORE = 40  # characters
_NOTHING_BEFORE = frozenset(
    ["", *".,:;·」』및와과을를며고"]
)  # the last letter of no such word: as a rule it is one of these


def with_words_before(text: str, act: Act, start: int, floor: int) -> tuple[Act, int]:
    """Take in 구, 독일 or 입법예고된 before a name that starts at `start`."""
    begin = max(floor, start - WORDS_BEFORE)
    before = text[begin:start]
    if before.rstrip(" \n\"'“‘「『*([<《〈")[-1:] in _NOTHING_BEFORE:
        return act, start
    if country := grammar.COUNTRY_BEFORE.search(before):
        name = " ".join(country["country"].replace("의 ", " ").split())
        return replace(act, name=f"{name} {act.name}"), begin + country.start("country")
    if grammar.BILL_BEFORE.search(before):
        return replace(act, bill=True), start
    if former := grammar.FORMER_BEFORE.search(before):
        return replace(act, former=True), begin + former.start("mark")
    return act, start


def bracketed_act(name: str, aliases: dict[str, Act]) -> Act | None:
    """The act of 「...」; None for a contract, a book, or a whole citation in brackets."""
    name = " ".join(name.split()).replace("·", grammar.OFFICIAL_DOT)
    former = name.startswith("구 ")
    name = name.removeprefix("구 ")
    part = next((part for part in grammar.PARTS if name.endswith(part)), "")
    base = name.removesuffix(part).strip()
    if known := official_name(base) or official_name(name):
        return Act(known, part if official_name(base) else "", former)
    if alias := aliases.get(compact(base)):
        return replace(alias, part=part)
    if not grammar.BRACKETED_ACT.fullmatch(name) or grammar.CITES.search(name):
        return None
    return Act(base or name, part if base else "", former)


def with_notes(act: Act, notes: str) -> Act:
    """Read (2023. 4. 18. 법률 제19356호로 개정되기 전의 것) or (개정안) beside an act."""
    if not notes:
        return act
    if grammar.BILL_NOTE.search(notes):
        return replace(act, bill=True)
    if not act.former and not grammar.FORMER_NOTE.search(notes):
        return act
    date = grammar.DATE.search(notes)
    written = f"{date[1]}-{int(date[2]):02}-{int(date[3]):02}" if date else act.former_date
    return replace(act, former=True, former_date=written)


# --- Whose a bare article may be -------------------------------------------------------------------------------------

LOOKED_BACK = 100  # characters


class Claim(enum.Enum):
    """What stands before a bare article, from the strongest claim on it to none."""

    ACT = "a decree or a foreign code"
    DOCUMENT = "a contract, an authority's criteria and so on: it is no statute's"
    NOUN = "a noun without a link: a document's, if the noun is not of the article's title"
    IN_DOUBT = "it may be a document's: it is an act's only if that act has it"
    NONE = "nothing"


def claim_on(text: str, start: int, end: int, floor: int) -> tuple[Claim, Named | str | None]:
    """What claims the bare article from `start` to `end`, with the act or the noun that does."""
    begin = max(floor, start - LOOKED_BACK)
    before = text[begin:start]
    owner = grammar.OWNER.search(before)
    if owner:
        noun, noun_start, noun_end = owner["noun"], begin + owner.start("noun"), begin + owner.end("noun")
        loose = owner["opener"] == "(" or grammar.LOOSE_LINK.fullmatch(owner["link"] or "")
        if noun[0].isascii():
            foreign = grammar.FOREIGN_CODE.fullmatch(noun) and not owner["opener"]
            return (Claim.ACT, (Act(noun), noun_start, "name")) if foreign else (Claim.NONE, None)
        decree = None if loose else _decree(text, noun_end, floor)
        if decree:
            act, named_at, via = decree
            return Claim.ACT, (with_notes(act, owner["notes"]), named_at, via)
        document = grammar.DOCUMENTS.fullmatch(noun) or set(owner["closers"]) & set("」』》〉")
        if document and (not loose or grammar.FOUND_IN.match(text, end)):
            return Claim.DOCUMENT, noun
        if not owner["link"] and not owner["opener"] and not owner["notes"] and not grammar.NO_OWNER.fullmatch(noun):
            return Claim.NOUN, noun
    sentence = before[max((end.end() for end in grammar.SENTENCE_END.finditer(before)), default=0) :]
    mentions = [
        mention
        for mention in grammar.DOCUMENT_MENTION.finditer(sentence)
        if grammar.DOCUMENTS.fullmatch(noun := mention["noun"])
        and (mention["says"] or not noun.endswith("계약") or grammar.THIS.search(sentence[: mention.start()]))
    ]
    if any(mention["says"] for mention in mentions):
        return Claim.DOCUMENT, mentions[-1]["noun"]
    in_doubt = mentions or (owner and owner["notes"]) or "」" in sentence or "』" in sentence
    return (Claim.IN_DOUBT if in_doubt else Claim.NONE), None


def _decree(text: str, end: int, floor: int) -> Named | None:
    """The decree or court rules whose name ends at `end`: 민사집행규칙, 주택공급에 관한 규칙, 조선민사령."""
    if text[end - 1] not in "령칙정":
        return None
    if named := known_act(text, end, floor):
        return named
    start = word_start(text, end, floor)
    if text[start:end] in ("규칙", "규정") and text[max(floor, start - 4) : start].rstrip().endswith("관한"):
        start = words_start(text, start, end, floor) or start
    elif not grammar.COURT_RULES.fullmatch(text, start, end) and not grammar.DECREE.fullmatch(text, start, end):
        return None
    name = " ".join(text[start:end].split()).replace("·", grammar.OFFICIAL_DOT)
    return *with_words_before(text, Act(name), start, floor), "name"
