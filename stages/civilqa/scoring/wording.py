"""Whether a text says something, judged by its words.

It is not misled by endings, case particles and white space, and misses what is said in other words: what is found is
there.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from civilqa.scoring.korean import Morpheme, normalize, split_sentences, tag_morphemes

# --- Key points ------------------------------------------------------------------------------------------------------

_NOISE = re.compile(r"[\s\"'“”‘’「」『』()\[\],·ㆍ:;*]+")
# 다음 날부터가 아니라 denies what it names; 뿐만 아니라 does not.
_DENIED = re.compile(r"(?:이|가|은|는|라는것은|라는것이|것은|것이)?(?:아니|아닙|아닌)")
# What a noun may take without a change of meaning. 도, 만, 까지 and 부터 change it.
_CASE_TAGS = ("JKS", "JKC", "JKO", "JKG")
_TOPIC_PARTICLES = {("은", "JX"), ("는", "JX")}


def contains_wording(text: str, wording: str) -> bool:
    """Return whether a text says something in a given wording.

    Either as it stands, white space, quotes and brackets aside; or with other case particles, as 임대인의 지위 is said
    by 임대인 지위를: the same morphemes next to each other within a sentence once 이, 가, 을, 를, 의, 은 and 는 are
    out. A wording may end within a word (`해지할 수 있`). It is not said where 이 아니라 follows, nor as the tail of a
    longer number (1년 is not said by 11년).
    """
    wanted = _compact(wording)
    found = _compact(text)
    start = found.find(wanted)
    while start >= 0:
        within_number = wanted[0].isdigit() and start > 0 and found[start - 1].isdigit()
        if not within_number and not _DENIED.match(found, start + len(wanted)):
            return True
        start = found.find(wanted, start + 1)
    run = _bare(tag_morphemes(wording))
    return any(_has_run(_bare(morphemes), run) for _, morphemes in split_sentences(text))


def _compact(text: str) -> str:
    return _NOISE.sub("", normalize(text))


@lru_cache(maxsize=4096)
def _bare(morphemes: tuple[Morpheme, ...]) -> tuple[Morpheme, ...]:
    out = (*_CASE_TAGS, "SP", "SF", "SSO", "SSC")
    return tuple(m for m in morphemes if m[1] not in out and m not in _TOPIC_PARTICLES)


def _has_run(morphemes: tuple[Morpheme, ...], run: tuple[Morpheme, ...]) -> bool:
    """Whether `run` stands in `morphemes` without a gap, and 아니 does not follow."""
    forms, wanted = [form for form, _ in morphemes], [form for form, _ in run]
    for start in range(len(forms) - len(wanted) + 1):
        end = start + len(wanted)
        if forms[start:end] == wanted and "아니" not in forms[end : end + 1]:
            return True
    return False


# --- Forbidden statements --------------------------------------------------------------------------------------------

_NEGATIONS = {"없", "않", "아니", "못", "안", "못하", "말"}
_CONDITION = {"으면": "면", "면": "면", "다면": "면", "라면": "면", "어야": "야", "아야": "야", "여야": "야"}
_CONCESSION = {"어도", "아도", "여도", "더라도", "라도", "으라도"}
_MEANINGFUL = ("NN", "NR", "SN", "SL", "VV", "VA", "VX", "VCN", "XR", "MAG")
_LIMITS = {("만", "JX"), ("도", "JX"), ("부터", "JX"), ("까지", "JX")}
_EMPTY_NOUNS = {("수", "NNB"), ("것", "NNB"), ("바", "NNB"), ("데", "NNB")}
_REJECTED = re.compile(
    r"틀린|틀렸|틀립|잘못|오해|사실이 아니|사실과 다르|옳지 않|맞지 않|보기 어렵|볼 수 없"
    r"|아닙니다|아니다|아니며|아니고|아니라"
)


def asserts(text: str, statement: str) -> bool:
    """Return whether a sentence of a text asserts a statement.

    It does if the statement's words that carry meaning (nouns, verbs, adjectives, adverbs, numbers, 만, 도, 부터, 까지,
    conditions and concessions) all stand in it in the same order, within about one and a half times the statement's
    length, with as many negations, and if the sentence does not go on to reject them (…는 것은 틀린 말입니다). Endings
    and case particles do not matter. A statement in other words is not found: what is found is there.
    """
    wanted = [form for form, _ in _meaning(tag_morphemes(statement))]
    negations = sum(form in _NEGATIONS for form in wanted)
    for sentence, morphemes in split_sentences(text):
        found = _meaning(morphemes)
        end = _ordered_match([form for form, _ in found], wanted, negations)
        if end is not None and not _REJECTED.search(_rest(sentence, found, end)):
            return True
    return False


def _meaning(morphemes: Iterable[Morpheme]) -> list[Morpheme]:
    """The morphemes that carry a text's meaning, in order."""
    kept = []
    for form, tag in morphemes:
        if tag == "EC" and (form in _CONDITION or form in _CONCESSION):
            kept.append((_CONDITION.get(form, "어도"), tag))
        elif (form, tag) in _LIMITS or (tag.startswith(_MEANINGFUL) and (form, tag) not in _EMPTY_NOUNS):
            kept.append((form, tag))
    return kept


def _ordered_match(forms: list[str], wanted: list[str], negations: int) -> int | None:
    """Where the first stretch of `forms` ends that holds `wanted` in order, closely, with so many negations."""
    room = len(wanted) * 3 // 2 + 1
    for start in (index for index, form in enumerate(forms) if form == wanted[0]):
        position, matched = start, 0
        while position < min(len(forms), start + room) and matched < len(wanted):
            matched += forms[position] == wanted[matched]
            position += 1
        if matched == len(wanted) and sum(form in _NEGATIONS for form in forms[start:position]) == negations:
            following = forms[position : position + 1]
            if not (following and following[0] in _NEGATIONS):
                return position
    return None


def _rest(sentence: str, found: list[Morpheme], end: int) -> str:
    """What of a sentence stands behind its `end`-th meaningful morpheme, roughly: from the next one's first place."""
    position = 0
    for form, _ in found[:end]:
        at = sentence.find(form, position)
        position = at + len(form) if at >= 0 else position
    return sentence[position:]
