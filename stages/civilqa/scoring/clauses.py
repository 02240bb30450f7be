"""Clauses of a text, each with its words and its sign.

What stands in a frame that rejects it (…라는 말은 사실과 다릅니다; 흔히 …고 알고 있지만; 옛 법 이야기입니다), or under
a heading that does, has the opposite sign; a question asserts nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal

from civilqa.law.citations import parse_citations
from civilqa.law.korean import Morpheme, normalize, split_sentences
from civilqa.scoring.quantities import Quantity, parse_quantities

# --- Words -----------------------------------------------------------------------------------------------------------

# Different words for one thing, the first of which stands for all. Terms of the law and their everyday names only.
_SYNONYMS = {
    other: words[0]
    for words in (
        ("임대인", "집주인", "건물주", "주인"),
        ("임차인", "세입자"),
        ("매도인", "판매자"),
        ("매수인", "낙찰자", "구매자"),
        ("다음날", "내일", "이튿날", "익일"),
        ("바로", "즉시", "곧바로", "당장", "곧장"),
        ("모두", "전부", "다", "전액", "전체"),
        ("뒤", "후", "이후", "다음"),
        ("안", "내", "이내"),
        ("전", "이전"),
        ("이사", "퇴거"),
        ("돌려주", "반환", "돌려받", "환급"),
        ("넘겨받", "인도"),
        ("필요", "의무"),
        ("집", "주택"),
        ("땅", "토지"),
        ("돈", "금전", "금액"),
        ("갚", "변제", "지급"),
        ("혼자", "단독"),
        ("소송", "소", "재판"),
        ("증명", "입증"),
        ("이어받", "승계", "물려받"),
        ("마음대로", "임의"),
        ("먼저", "우선", "앞서"),
        ("뺏", "빼앗"),
        ("해지", "종료"),
        ("보상", "배상"),
    )
    for other in words[1:]
}
_NOUNS_ONLY = {"내", "안", "전", "후", "소", "다음", "다"}
# A word and its opposite are the same word with opposite signs.
_OPPOSITES = {
    "무효": "유효",
    "불가능": "가능",
    "불가": "가능",
    "불필요": "필요",
    "불법": "적법",
    "위법": "적법",
    "잃": "유지",
    "상실": "유지",
}
_NEGATIONS = {"없", "않", "못하", "말", "아니", "안", "못", "없이", "어렵", "힘들"}
_ONLY = {"밖에", "뿐"}
_LACKS = {"부족", "금지", "곤란"}  # …하다, …되다: 금지 by itself is a noun as any other
_POSSIBLE = {"있", "가능", "하", "되", "이", "수", "것"}
_LIGHT = _POSSIBLE | {
    "등",
    "때",
    "바",
    "점",
    "경우",
    "대하",
    "의하",
    "따르",
    "위하",
    "관하",
    "통하",
    "그",
    "이것",
    "그것",
    "주",
    "보",
    "시키",
    "지",
    "만약",
    "다만",
    "또",
    "및",
}
_MEANINGFUL = ("NN", "NP", "VV", "VA", "XR", "MAG", "SL")

# --- Clauses ---------------------------------------------------------------------------------------------------------

# Nouns that a relative clause fills without being a thing of their own: 채울 필요가 없다 is one clause.
_EMPTY_HEADS = {
    "필요",
    "의무",
    "이유",
    "근거",
    "권리",
    "책임",
    "방법",
    "길",
    "여지",
    "권한",
    "법",
    "규정",
    "조문",
    "제도",
    "뜻",
    "사실",
    "말",
    "자격",
    "대상",
    "리",
}
_JOINING = re.compile(r"[게지]|려고?|으려고?|기")
_SERIAL = re.compile(r"[어아여]")
QUOTING = re.compile(r"(?:[ᆫ느는]?다|[으이]?라|자|냐|으냐|느냐)(?:고|는|던|며|면서|는데|더라)|라는|다는")
_CONDITION = re.compile(r".*(?:면|거든)$|고서|고는")
_NECESSARY = re.compile(r".*[어아여]야$|여야")
_CONCEDING = re.compile(r".*(?:[어아여]도|더라도|라도|지라도)$")
_CONTRAST = re.compile(r".*(?:지만|는데|은데|ᆫ데|으나|나|어도|아도|더라도|라도)$")
_BELIEF = {"알", "생각", "믿", "여기", "말하", "말", "하", "듣", "소문", "이야기", "얘기", "들"}
_TRUE = {"맞", "옳", "사실", "진실", "정확", "타당", "그렇", "성립하"}
_FALSE = {
    "틀리",
    "잘못",
    "오해",
    "착각",
    "거짓",
    "오류",
    "낭설",
    "헛소문",
    "통념",
    "속설",
    "엉터리",
    "그릇되",
    "옛",
    "구법",
    "옛날",
    "폐지",
    "어긋나",
}
_JUDGING = {"보", "단정", "인정", "말하", "받아들이", "받아들여지"}
_PAST = {"예전", "과거", "종전", "옛날", "옛"}
_LAWS = {"법", "규정", "조문", "근거", "제도", "조항", "의무", "판례"}
_LONG_QUOTATION = re.compile(r"[“\"]([^“”\"]*[다요]\.\s[^“”\"]*)[”\"]")
_FOLLOWING = re.compile(r"^(?:다음|아래|이하)")
_PRECEDING = re.compile(
    r"^(?:이상|위|앞|지금까지|이는|이것은|그것은|이 말|그 말|이 설명|그 설명|그렇지|그건|이건|사실이 아|아닙니다)"
)
_WHOLE = {"설명", "내용", "말", "답변", "주장", "이야기", "글", "서술", "진술", "뜻", "의미", "취지"}


@dataclass(frozen=True)
class Clause:
    """The words of a clause that carry meaning, and whether it denies them.

    `head` is its last word, mostly the verb. `link` is how it stands to the next one: as a condition, a necessary one
    (…어야), or in spite of it (…어도).
    """

    words: frozenset[str]
    denied: bool
    head: str = ""
    link: Literal["condition", "necessary", "in spite", ""] = ""


@dataclass(frozen=True)
class Sentence:
    """The clauses of a sentence, its numbers with units, and its parties with the role that their particle gives."""

    clauses: tuple[Clause, ...]
    quantities: frozenset[Quantity]
    parties: frozenset[tuple[str, str]]
    opening: Literal["yes", "no", ""] = ""  # 네, …; 아닙니다.
    asserts: bool = True  # neither a question nor without a verb that ends it

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset().union(*(clause.words for clause in self.clauses))

    def opposite(self) -> "Sentence":
        """The sentence with its last clause turned round: what is true where the sentence is false."""
        *first, last = self.clauses or (Clause(frozenset(), False),)
        return replace(self, clauses=(*first, replace(last, denied=not last.denied)))


@lru_cache(maxsize=4096)
def read_sentences(text: str) -> tuple[Sentence, ...]:
    """Return the sentences of a text as it asserts them: those that a frame or a heading rejects are turned round."""
    sentences: list[Sentence] = []
    before: list[list[Morpheme]] = []
    rejecting = False  # a heading rejects all that follows
    for written, morphemes in split_sentences(_plain(normalize(text))):
        parts = split_clauses(morphemes)
        words = {form for part in parts for form, _ in part}
        false = _calls_false(parts)
        start = written.lstrip("\"'“‘( ")
        if morphemes and morphemes[0][1] == "MAJ":  # 그러나, 하지만
            start = start.removeprefix(morphemes[0][0]).lstrip(", ")
        if false and len(written) < 80 and words & _WHOLE and _FOLLOWING.match(start):
            rejecting = True
            continue
        if false and sentences and not rejecting and _PRECEDING.match(start):
            whole = start.startswith(("이상", "위", "앞", "지금까지")) and words & _WHOLE
            if whole:
                sentences = [sentence.opposite() for sentence in sentences]
            elif _is_hearsay(before):
                sentences[-1] = sentences[-1].opposite()
        sentence = _read(written, morphemes, parts)
        sentences.append(sentence.opposite() if rejecting else sentence)
        before = parts
    return tuple(sentences)


def _plain(text: str) -> str:
    """A text without its citations, and without quotation marks around several sentences."""
    text = _LONG_QUOTATION.sub(r"\1", text)
    kept, end = [], 0
    for citation in parse_citations(text):
        kept.append(text[end : citation.start])
        end = max(end, citation.end)
    return "".join([*kept, text[end:]])


def split_clauses(morphemes: Iterable[Morpheme]) -> list[list[Morpheme]]:
    """Split a sentence's morphemes after each ending that joins clauses."""
    morphemes = list(morphemes)
    parts: list[list[Morpheme]] = [[]]
    for index, (form, tag) in enumerate(morphemes):
        parts[-1].append((form, tag))
        following = [m for m in morphemes[index + 1 : index + 4] if m[1] not in ("JX", "SP")]
        after = following[0] if following else ("", "")
        beyond = following[1] if len(following) > 1 else ("", "")
        if tag == "EC":
            modal = re.search(r"(?:면|[어아여]야|[어아여]도|[어아여]서)$", form) and (
                after[0] in ("되", "하", "좋") or (after[0] in ("안", "아니") and beyond[0].startswith("되"))
            )
            serial = _SERIAL.fullmatch(form) and after[1].startswith("V")
            helped = after[1] == "VX" and not QUOTING.fullmatch(form)
            ends = not (_JOINING.fullmatch(form) or serial or modal or helped)
        elif tag == "ETM":
            ends = bool(QUOTING.fullmatch(form)) or not (after[1] == "NNB" or after[0] in _EMPTY_HEADS)
        elif tag in ("EF", "SSC"):
            ends = "EF" in [t for _, t in parts[-1]] and after[1] not in ("SSC", "JKQ", "SF", "")
        else:
            ends = (form, tag) == ("없이", "MAG") or tag == "JKQ"
        if ends:
            parts.append([])
    return [part for part in parts if part]


def is_denied(part: list[Morpheme]) -> bool:
    """Whether an odd number of negations stands in a clause; 할 수밖에 없다 and 할 뿐만 아니라 deny nothing."""
    following = [*part[1:], ("", "")]
    return sum(
        (_is_negation(form, tag) and not {f for f, _ in part[max(0, at - 2) : at]} & _ONLY)
        or (form in _LACKS and after.startswith(("XS", "VCP")))
        for at, ((form, tag), (_, after)) in enumerate(zip(part, following, strict=True))
    ) % 2 == 1  # fmt: skip


def _is_negation(form: str, tag: str) -> bool:
    if form in ("말", "안", "못") and not tag.startswith(("VX", "MAG")):
        return False  # 말 (word), 안 (within)
    return form in _NEGATIONS or form in _OPPOSITES


def _calls_false(parts: list[list[Morpheme]]) -> bool:
    """Whether some clause of these calls something false, or the law of former times."""
    for part in parts:
        forms = {form for form, _ in part}
        denied = is_denied(part)
        if {"사실", "다르"} <= forms and not denied:
            return True
        if (denied and forms & _TRUE) or (not denied and forms & _FALSE) or (denied and forms & _LAWS):
            return True
        if denied and forms & _JUDGING:
            return True
        meaning = [form for form, tag in part if tag.startswith(_MEANINGFUL) and not _is_negation(form, tag)]
        if denied and "아니" in forms and not set(meaning) - _LIGHT - _WHOLE - {"절대", "전혀", "결코"}:
            return True
    return False


def _is_hearsay(parts: list[list[Morpheme]]) -> bool:
    """Whether a sentence tells what people say: 당일부터라고들 합니다."""
    quoted = any(tag == "JKQ" or (tag == "EC" and QUOTING.fullmatch(form)) for p in parts for form, tag in p)
    return quoted and bool({form for form, _ in parts[-1]} & _BELIEF)


def _read(written: str, morphemes: tuple[Morpheme, ...], parts: list[list[Morpheme]]) -> Sentence:
    clauses = []
    for part, following in zip(parts, [*parts[1:], []], strict=True):
        form, tag = next(((f, t) for f, t in reversed(part) if t not in ("SP", "SF", "JX", "SSC", "SSO")), ("", ""))
        link = ""
        if tag == "EC":
            link = (
                "necessary" if _NECESSARY.match(form)
                else "condition" if _CONDITION.match(form)
                else "in spite" if _CONCEDING.match(form)
                else ""
            )  # fmt: skip
        elif form == "없이":
            link = "in spite" if ("도", "JX") in following[:1] else "condition"
        forms = [form for form, _ in part]
        former = bool(set(forms[:4]) & _PAST and ("었" in forms or "았" in forms))
        words = [*_words(part)] or [form for form, tag in part if tag.startswith("VV")]
        clauses.append(Clause(frozenset(words), is_denied(part) != former, words[-1] if words else "", link))
    clauses = _frames(clauses, parts)
    # …지 않으면 …지 못한다 is …어야 …다.
    for index in range(len(clauses) - 1):
        first, second = clauses[index : index + 2]
        if first.link == "condition" and first.denied and second.denied:
            clauses[index] = replace(first, denied=False, link="necessary")
            clauses[index + 1] = replace(second, denied=False)
    return Sentence(
        clauses=tuple(clause for clause in clauses if clause.words),
        quantities=frozenset(parse_quantities(written)),
        parties=frozenset(_parties(morphemes)),
        opening=_opening(morphemes, clauses),
        asserts="EF" in [tag for _, tag in morphemes] and ("?", "SF") not in morphemes[-4:],
    )


def _opening(morphemes: tuple[Morpheme, ...], clauses: list[Clause]) -> Literal["yes", "no", ""]:
    form, tag = morphemes[0] if morphemes else ("", "")
    if tag == "IC":
        return "no" if form.startswith("아니") else "yes" if form in ("네", "예") else ""
    if clauses and not frozenset().union(*(clause.words for clause in clauses)) - _TRUE:
        denies = any(_is_negation(form, tag) for form, tag in morphemes)
        return "no" if clauses[-1].denied else "yes" if denies or clauses[-1].words & _TRUE else ""
    return ""


def _frames(clauses: list[Clause], parts: list[list[Morpheme]]) -> list[Clause]:
    """Turn round the clause that a quotation ends with where the rest of the sentence rejects the quotation."""
    for index, part in enumerate(parts[:-1]):
        form, tag = next(((f, t) for f, t in reversed(part) if t not in ("SP", "JX", "SSC")), ("", ""))
        following = parts[index + 1 :]
        quoted = tag == "JKQ" or (tag in ("EC", "ETM") and QUOTING.fullmatch(form))
        quoted = quoted or (tag == "EF" and part[-1][1] == "SSC")
        if not quoted:
            continue
        matrix = following[0]
        believed = next((f for f, t in matrix if t.startswith(("V", "NN", "MAG", "XSN"))), "") in _BELIEF
        contrast = any(t == "EC" and _CONTRAST.match(f) for f, t in matrix)
        # …고 할 수 없습니다; not …고 하지 않으면
        said = [form for form, tag in matrix if tag.startswith(_MEANINGFUL) and not _is_negation(form, tag)]
        goes_on = any(tag == "EC" and _CONDITION.match(form) for form, tag in matrix)
        unsaid = is_denied(matrix) and not {*said} - _LIGHT and not goes_on
        if _calls_false(following[:2]) or (believed and contrast) or unsaid:
            target = next((i for i in range(index, -1, -1) if clauses[i].words), index)
            clauses[target] = replace(clauses[target], denied=not clauses[target].denied)
    return clauses


def _words(part: list[Morpheme]) -> Iterable[str]:
    """The words of a clause that carry meaning, in order; a compound noun by its parts, in whatever way it was cut."""
    previous = ""
    for form, tag in part:
        if (previous, form) == ("다음", "날"):
            yield "다음날"
        noun = tag.startswith(("NN", "NP", "XR", "SL"))
        known = noun or tag == "MAG" or form not in _NOUNS_ONLY
        stem = _SYNONYMS.get(form, _OPPOSITES.get(form, form)) if known else form
        negation = _is_negation(form, tag) and form not in _OPPOSITES
        if tag.startswith(_MEANINGFUL) and tag != "NNB" and stem not in _LIGHT and not negation:
            if noun and len(stem) >= 3:
                stem = stem.removesuffix("권")
            yield from (
                (_SYNONYMS.get(half, half) for half in (stem[:2], stem[2:])) if noun and len(stem) == 4 else (stem,)
            )
        previous = form


def _parties(morphemes: tuple[Morpheme, ...]) -> Iterable[tuple[str, str]]:
    for (form, kind), (particle, tag) in zip(morphemes, (*morphemes[1:], ("", "")), strict=True):
        noun = _SYNONYMS.get(form, form)
        if not kind.startswith(("NN", "NP", "XSN")):
            continue
        if particle == "보다":
            yield noun, "compared"
        elif tag == "JKS" or particle in ("은", "는"):
            yield noun, "agent"
        elif tag == "JKB" and particle.startswith(("에게", "한테", "께")):
            yield noun, "recipient"


def repeated_words(text: str) -> float:
    """Return the share of an answer's words that stood among the thirty before; 0 for fewer than five words."""
    words = [
        word
        for _, morphemes in split_sentences(_plain(normalize(text)))
        for part in split_clauses(morphemes)
        for word in _words(part)
    ]
    if len(words) < 5:
        return 0.0
    windows = [words[start : start + 30] for start in range(0, max(1, len(words) - 29), 10)]
    return sum(1 - len(set(window)) / len(window) for window in windows) / len(windows)


def normalized_words(text: str) -> frozenset[str]:
    """Return the words of a text that carry meaning."""
    return frozenset().union(*(sentence.words for sentence in read_sentences(normalize(text))))
