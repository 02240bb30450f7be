"""Systems that answer by program, to see what a score takes for an answer.

Each is made from the gold, for every question or for those whose reference it can change. They show that a score is
led by nothing but the law: by no vocabulary, no citation, no resemblance, and by no denial of an error.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from civilqa.law.citations import parse_citations
from civilqa.law.korean import join_morphemes, tag_morphemes
from civilqa.law.verdicts import cited_articles
from civilqa.scoring.clauses import normalized_words
from civilqa.scoring.gold import Gold
from civilqa.scoring.quantities import parse_quantities

_COUNTERPARTS = (
    ("임대인", "임차인"),
    ("집주인", "세입자"),
    ("매도인", "매수인"),
    ("채권자", "채무자"),
    ("양도인", "양수인"),
)
_SENTENCE = re.compile(r"(?<=[다오까]\.)\s+")


@dataclass(frozen=True)
class Item:
    """A question with its gold, its answer of reference, and the category that it is asked under."""

    gold: Gold
    reference: str
    category: str

    @property
    def citations(self) -> str:
        return ", ".join(self.gold.required_citations) + "입니다."

    @property
    def wordings(self) -> list[str]:
        return [wording for wordings in self.gold.key_points for wording in wordings]


def sentences_of(text: str) -> list[str]:
    return _SENTENCE.split(text)


def negate(sentence: str) -> str:
    """먼저입니다. → 먼저인 것은 아닙니다; 보십시오. → 보지 마십시오."""
    head, space, last = sentence.rstrip(". ").rpartition(" ")
    morphemes = [*tag_morphemes(last)]
    if not morphemes or morphemes[-1][1] != "EF":
        return sentence
    ending = morphemes.pop()[0]
    if "시오" in ending or "세요" in ending:
        while morphemes[-1][1] == "EP":
            morphemes.pop()
        added = [("지", "EC"), ("말", "VX"), ("시", "EP"), ("ᆸ시오", "EF")]
    else:
        past = morphemes[-1][0] in ("었", "았")
        active = morphemes[-1][1].startswith(("VV", "VX", "XSV")) or morphemes[-1][0] in ("있", "없", "겠")
        quality = any(tag.startswith(("VA", "XSA")) for _, tag in morphemes[-4:-1])
        adnominal = "는" if active and not past and not quality else "ᆫ"
        if past:
            morphemes.pop()
        added = [(adnominal, "ETM"), ("것", "NNB"), ("은", "JX"), ("아니", "VCN"), ("ᆸ니다", "EF")]
    return f"{head}{space}{join_morphemes([*morphemes, *added])}."


def exchange(text: str, pairs: tuple[tuple[str, str], ...]) -> str:
    """Exchange each word of a pair with the other one."""
    other = dict(pairs) | {right: left for left, right in pairs}
    return re.sub("|".join(map(re.escape, other)), lambda match: other[match[0]], text)


def change_numbers(text: str) -> str:
    """Every number with a unit one higher; articles stay."""
    for quantity in sorted({quantity.text for quantity in parse_quantities(text)}, key=len, reverse=True):
        text = text.replace(quantity, re.sub(r"\d+", lambda match: str(int(match[0]) + 1), quantity))
    return text


def move_citations(text: str) -> str:
    """Every article one higher."""
    parts, end = [], 0
    for citation in parse_citations(text):
        if citation.start < end:
            continue
        moved = re.sub(r"제(\d+)조", lambda match: f"제{int(match[1]) + 1}조", text[citation.start : citation.end])
        parts += [text[end : citation.start], moved]
        end = citation.end
    return "".join([*parts, text[end:]])


def shuffle_words(text: str) -> str:
    words = text.split()
    random.Random(0).shuffle(words)  # noqa: S311 - the same disorder every time
    return " ".join(words)


def _denied(item: Item, frame: str) -> str:
    return item.reference + " " + " ".join(frame.format(claim) for claim in item.gold.forbidden)


def _polite(claim: str) -> str:
    """A claim in 해라체 as a sentence of an answer."""
    *rest, (_, tag) = tag_morphemes(claim)
    return (join_morphemes([*rest, ("습니다", "EF")]) if tag == "EF" else claim) + "."


_KNOWN = "흔히 “{}”고 알고 계시지만 사실과 다릅니다."
_THOUGHT = "{}고 생각하기 쉽지만 그렇지 않습니다."
_OLD = "{}는 것은 예전 법 이야기이고 지금은 틀린 말입니다."

# Systems whose answers are right.
RIGHT: dict[str, Callable[[Item], str]] = {
    "reference": lambda item: item.reference,
    "reference + errors denied (흔히 …고 알고 계시지만)": lambda item: _denied(item, _KNOWN),
    "reference + errors denied (…고 생각하기 쉽지만)": lambda item: _denied(item, _THOUGHT),
    "reference + errors denied (예전 법 이야기)": lambda item: _denied(item, _OLD),
}
# Systems whose answers are wrong, or none.
WRONG: dict[str, Callable[[Item], str]] = {
    "silence": lambda item: "",
    "모릅니다.": lambda item: "모릅니다.",
    "변호사와 상담하십시오.": lambda item: "구체적인 사정에 따라 다르므로 모르겠습니다. 변호사와 상담하십시오.",
    "question repeated": lambda item: item.gold.question,
    "question + required citations": lambda item: f"{item.gold.question} {item.citations}",
    "all wordings glued": lambda item: " ".join(item.wordings),
    "all wordings glued + citations + numbers": lambda item: " ".join(
        [*item.wordings, *item.gold.numbers, item.citations]
    ),
    "all wordings as sentences + citations": lambda item: " ".join(
        [*(f"{wording}습니다." for wording in item.wordings), item.citations]
    ),
    "claims that deny the conclusion": lambda item: " ".join(map(_polite, item.gold.conclusion.denies)),
    "question + a claim that denies": lambda item: f"{item.gold.question} {_polite(item.gold.conclusion.denies[0])}",
    "reference, every number changed": lambda item: change_numbers(item.reference),
    "reference, 수 있/수 없 and 유효/무효 exchanged": lambda item: exchange(
        item.reference, (("수 있", "수 없"), ("유효", "무효"))
    ),
    "reference, first sentence negated": lambda item: " ".join(
        [negate(sentences_of(item.reference)[0]), *sentences_of(item.reference)[1:]]
    ),
    "reference, every sentence negated": lambda item: " ".join(map(negate, sentences_of(item.reference))),
    "reference, wholly denied (모두 틀린 설명)": lambda item: (
        f"다음 설명은 하나도 맞지 않습니다. “{item.reference}” 이상은 모두 틀린 설명입니다."
    ),
    "reference under a heading (모두 거짓)": lambda item: f"아래 내용은 모두 거짓입니다. {item.reference}",
    "reference, then called old law": lambda item: f"{item.reference} 이상의 내용은 모두 개정 전의 옛 법 이야기입니다.",
    "reference, then rejected": lambda item: f"{item.reference} 그러나 위 설명은 모두 잘못된 것입니다.",
    "reference, articles + 1": lambda item: move_citations(item.reference),
    "reference, parties exchanged": lambda item: exchange(item.reference, _COUNTERPARTS),
    "reference + a forbidden statement": lambda item: f"{item.reference} {_polite(item.gold.forbidden[0])}",
    "a forbidden statement + reference": lambda item: f"{_polite(item.gold.forbidden[0])} {item.reference}",
    "a forbidden statement + citations": lambda item: f"{_polite(item.gold.forbidden[0])} {item.citations}",
    "reference as questions": lambda item: re.sub(r"니다(?=[.(])\.?", "니까?", item.reference).replace(
        "십시오.", "십니까?"
    ),
    "reference, words shuffled": lambda item: shuffle_words(item.reference),
    "reference twice": lambda item: f"{item.reference} {item.reference}",
}


def answers(items: list[Item]) -> Iterator[tuple[str, bool, list[tuple[Item, str]]]]:
    """Yield each system: its name, whether its answers are right, and its answers to the questions that it changes."""
    for right, systems in ((True, RIGHT), (False, WRONG)):
        for name, system in systems.items():
            made = [(item, system(item)) for item in items]
            changed = [(item, text) for item, text in made if text != item.reference or name == "reference"]
            yield name, right, changed
    everything = " ".join(wording for item in items for wording in item.wordings)
    spam = ", ".join(dict.fromkeys(article for item in items for article in item.gold.required_citations)) + "입니다."
    yield "every wording of the gold, the same for all", False, [(item, everything) for item in items]
    yield "every required article of all", False, [(item, spam) for item in items]
    words = {item.gold.id: normalized_words(item.gold.question) for item in items}
    cited = {item.gold.id: cited_articles(item.reference) for item in items}
    following, nearest, category = [], [], []
    for index, item in enumerate(items):
        others = [*items[index + 1 :], *items[:index]]
        alike = [other for other in others if other.category == item.category]
        mine = words[item.gold.id]
        # Two that cite mostly the same articles are one question in other facts, and an answer may be right for both.
        apart = [
            other
            for other in others
            if 2 * len(cited[item.gold.id] & cited[other.gold.id]) < len(cited[item.gold.id] | cited[other.gold.id])
        ]
        following.append((item, alike[0].reference))
        if apart:
            near = max(apart, key=lambda other: len(mine & words[other.gold.id]) / len(mine | words[other.gold.id]))
            nearest.append((item, near.reference))
        category.append((item, " ".join(other.reference for other in alike)))
    yield "another question's answer (next of the category)", False, following
    yield "another question's answer (nearest question on other articles)", False, nearest
    yield "all other answers of the category", False, category
