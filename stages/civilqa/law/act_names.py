"""Which act a name in a text means: by the table of acts, by the shape of the name, and what stands before it.

Every function takes the text with `grammar.SHADOW` applied, and `floor`, before which nothing is looked at any more.
"""

import functools
import re
from dataclasses import dataclass, replace

from civilqa.law import grammar
from civilqa.law.statutes import load_reference

# Acts outside the table whose names in running text end in a word that also ends other names.
_OTHER_ACTS = (
    "개인정보 보호법",
    "가족관계의 등록 등에 관한 법률",
    "감정평가 및 감정평가사에 관한 법률",
    "공간정보의 구축 및 관리 등에 관한 법률",
    "국가를 당사자로 하는 계약에 관한 법률",
    "국민기초생활 보장법",
    "근로자퇴직급여 보장법",
    "금융소비자 보호에 관한 법률",
    "대부업 등의 등록 및 금융이용자 보호에 관한 법률",
    "도시 및 주거환경정비법",
    "도시재생 활성화 및 지원에 관한 특별법",
    "동산ㆍ채권 등의 담보에 관한 법률",
    "독점규제 및 공정거래에 관한 법률",
    "보증인 보호를 위한 특별법",
    "부동산 가격공시에 관한 법률",
    "부정경쟁방지 및 영업비밀보호에 관한 법률",
    "빈집 및 소규모주택 정비에 관한 특례법",
    "상속세 및 증여세법",
    "성폭력범죄의 처벌 등에 관한 특례법",
    "신용정보의 이용 및 보호에 관한 법률",
    "약관의 규제에 관한 법률",
    "여객자동차 운수사업법",
    "자본시장과 금융투자업에 관한 법률",
    "자동차 등 특정동산 저당법",
    "재난 및 안전관리 기본법",
    "정보통신망 이용촉진 및 정보보호 등에 관한 법률",
    "주식회사 등의 외부감사에 관한 법률",
    "지방자치단체를 당사자로 하는 계약에 관한 법률",
    "채권의 공정한 추심에 관한 법률",
    "표시ㆍ광고의 공정화에 관한 법률",
    "한국자산관리공사 설립 등에 관한 법률",
)


@dataclass(frozen=True)
class Act:
    """An act as it is cited: `part` is 시행령, 시행규칙, 부칙 or empty."""

    name: str
    part: str = ""
    former: bool = False
    former_date: str | None = None

    @property
    def law(self) -> str:
        return f"{self.name} {self.part}" if self.part else self.name


Named = tuple[Act, int, str]  # an act, where its name starts, and `Citation.via`


def compact(name: str) -> str:
    """A name without spaces and middle dots."""
    return re.sub(r"[\s·ㆍ‧・]", "", name)


@functools.cache
def _act_names() -> tuple[dict[str, str], tuple[int, ...]]:
    """Official and short names without spaces and middle dots → official name; and their lengths, longest first."""
    acts = load_reference().acts.values()
    names = {compact(name): name for name in _OTHER_ACTS}
    names |= {compact(name): act.law for act in acts for name in act.short_names}
    names |= {compact(act.law): act.law for act in acts}
    return names, tuple(sorted({len(name) for name in names}, reverse=True))


def known_act(text: str, end: int, floor: int) -> Named | None:
    """The longest name of the table that ends at `end`, whatever the spaces in it, and starts a word."""
    names, lengths = _act_names()
    letters, offsets, spaces = [], [], 0
    for offset in range(end - 1, max(floor, end - 60) - 1, -1):
        letter = text[offset]
        if "가" <= letter <= "힣":
            letters.append(letter)
            offsets.append(offset)
            spaces = 0
            if len(letters) == lengths[0]:
                break
        elif letter.isspace() and spaces < 2:
            spaces += 1
        elif letter != "·":
            break
    name = "".join(reversed(letters))
    for length in lengths:
        law = names.get(name[-length:]) if length <= len(name) else None
        if law is not None and (prefix := _prefix(text, offsets[length - 1], floor)) is not None:
            act = Act(law, former=prefix == "구")
            return *with_words_before(text, act, offsets[length - 1] - len(prefix), floor), "name"
    return None


def _prefix(text: str, start: int, floor: int) -> str | None:
    """What is written onto the front of a name (구민법), mostly ""; None for the tail of another word (난민법)."""
    for prefix in ("", *grammar.ATTACHED):
        begin = start - len(prefix)
        starts_word = begin == floor or not "가" <= text[begin - 1] <= "힣"
        if begin >= floor and text.startswith(prefix, begin) and starts_word:
            return prefix
    return None


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


def with_words_before(text: str, act: Act, start: int, floor: int) -> tuple[Act, int]:
    """Take in 구 or 독일 before a name that starts at `start`."""
    begin = max(floor, start - 12)
    before = text[begin:start]
    if country := grammar.COUNTRY_BEFORE.search(before):
        return replace(act, name=f"{country['country']} {act.name}"), begin + country.start("country")
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
    if known := _act_names()[0].get(compact(base)):
        return Act(known, part, former)
    if alias := aliases.get(compact(base)):
        return replace(alias, part=part)
    if not grammar.BRACKETED_ACT.fullmatch(name) or grammar.CITES.search(name):
        return None
    return Act(base or name, part if base else "", former)


def with_notes(act: Act, notes: str) -> Act:
    """Read (2023. 4. 18. 법률 제19356호로 개정되기 전의 것) beside an act."""
    if not act.former and not grammar.FORMER_NOTE.search(notes):
        return act
    date = grammar.DATE.search(notes)
    written = f"{date[1]}-{int(date[2]):02}-{int(date[3]):02}" if date else act.former_date
    return replace(act, former=True, former_date=written)
