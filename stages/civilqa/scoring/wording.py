"""Whether the sentences of a text say a claim or deny it.

A claim is a short sentence (임차인은 2년을 채울 필요가 없다). It is said where the words that carry its meaning stand
together, in whatever order, endings and case particles aside, where the clause is as negative as the claim, and where
parties and numbers are the same.
"""

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from civilqa.scoring.clauses import Clause, Sentence, read_sentences
from civilqa.scoring.quantities import Quantity

_EXCHANGED = [
    {"임대인", "임차인"},
    {"채권자", "채무자"},
    {"소유자", "점유자"},
    {"위탁자", "수탁자"},
    {"피해자", "가해자"},
    {"은행", "임차인"},
    *({left, right} for left in ("매도", "매도인") for right in ("매수", "매수인")),
    *({left, right} for left in ("양도", "양도인") for right in ("양수", "양수인")),
]

# --- Claims ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Match:
    """How much of a claim a sentence holds, 0 to 1, and whether it says or denies it."""

    share: float
    says: bool
    denies: bool


NONE = Match(0.0, False, False)
ALIKE = 0.8  # of two sentences' words, so many are shared where one is made from the other
LONG = 5  # a sentence of fewer words is like others by chance
LEAST = 0.5  # of a claim; a smaller share is chance


@lru_cache(maxsize=4096)
def read_claim(claim: str) -> Sentence:
    """Return a claim as one sentence."""
    sentences = read_sentences(claim)
    return Sentence(
        tuple(clause for sentence in sentences for clause in sentence.clauses),
        frozenset().union(*(sentence.quantities for sentence in sentences)),
        frozenset().union(*(sentence.parties for sentence in sentences)),
        asserts=True,
    )


def match_claim(claim: Sentence, sentence: Sentence, weights: Mapping[str, float]) -> Match:
    """Compare a claim with the stretch of a sentence that is nearest to it, a clause longer than the claim.

    Args:
        weights: of a word; 1 for those not named.
    """
    if not sentence.asserts or claim.words.isdisjoint(sentence.words):
        return NONE
    total = _weigh(claim.words, weights) + len(claim.quantities)
    if _weigh(claim.words & sentence.words, weights) < total * LEAST - len(claim.quantities):
        return NONE
    room = len(claim.clauses) + 1
    starts = range(max(len(sentence.clauses) - room, 0) + 1)
    windows = [sentence.clauses[start : start + room] for start in starts]
    held = [
        _weigh(claim.words & frozenset().union(*(clause.words for clause in window)), weights) for window in windows
    ]
    shared = max(held)
    units = {quantity.unit for quantity in sentence.quantities - claim.quantities}
    other_numbers = [quantity for quantity in claim.quantities - sentence.quantities if quantity.unit in units]
    exchanged = _exchanged(claim, sentence)
    # What another number or party stands in the place of is there, and wrong.
    gone = _weigh(exchanged - sentence.words, weights)
    share = (shared + len(claim.quantities & sentence.quantities)) / max(1.0, total - len(other_numbers) - gone)
    opposed = _opposed(claim, windows[held.index(shared)])
    wrong = [opposed == "denied", bool(other_numbers), bool(exchanged)]
    return Match(share, not (opposed or other_numbers or exchanged), sum(wrong) == 1 and opposed != "other")


def _weigh(words: Set[str], weights: Mapping[str, float]) -> float:
    """What words weigh together: exactly, in whatever order a set holds them."""
    return math.fsum(weights.get(word, 1.0) for word in words)


def _opposed(claim: Sentence, clauses: tuple[Clause, ...]) -> Literal["", "denied", "other"]:
    """Whether clauses have other signs than the claim's: denied, if that makes them the opposite."""
    differs = []
    for clause in claim.clauses:
        holding = [other for other in clauses if clause.head in other.words] or clauses
        most = max((len(clause.words & other.words) for other in holding), default=0)
        found = [other for other in holding if most and len(clause.words & other.words) == most]
        differing = bool(found) and all(other.denied != clause.denied for other in found)
        right = frozenset().union(*(other.words for other in clauses if other.denied == clause.denied))
        lost = {word for other in clauses for word in clause.words & other.words} - right
        if not differing and 2 * len(lost) > len(clause.words):
            return "other"  # 다음 날부터가 아니라 당일부터 생긴다
        links = {clause.link, *(other.link for other in found)}
        differs.append((differing, bool(links & {"necessary", "in spite"})))
    if not any(differing for differing, _ in differs):
        return ""
    *conditions, (main, _) = differs
    turned = [bound for differing, bound in conditions if differing]
    return "denied" if main != bool(turned) and all(turned) else "other"


def _exchanged(claim: Sentence, sentence: Sentence) -> set[str]:
    """The parties of the claim that have changed places with their counterpart."""
    found = set()
    for party, role in claim.parties:
        held = {other for other, other_role in sentence.parties if other_role == role}
        if party in held:
            continue
        if any({party, other} in _EXCHANGED for other in held):
            found.add(party)
        roles = {other_role for other, other_role in sentence.parties if other == party}
        if roles and {role, *roles} == {"agent", "compared"}:
            found.add(party)
    return found


def copies(sentence: Sentence, other: Sentence) -> bool:
    """Whether a sentence has nearly all its words in common with another one."""
    if min(len(sentence.words), len(other.words)) < LONG:
        return sentence.words == other.words != frozenset()
    return 2 * len(sentence.words & other.words) >= ALIKE * (len(sentence.words) + len(other.words)) > 0


def contradicts(sentence: Sentence, other: Sentence, allowed: frozenset[Quantity]) -> bool:
    """Whether a sentence that copies another one has changed a sign, a number or the parties.

    Args:
        allowed: numbers that are right wherever they stand.
    """
    for clause in other.clauses:
        twins = [
            mine
            for mine in sentence.clauses
            if 2 * len(mine.words & clause.words) >= ALIKE * (len(mine.words) + len(clause.words))
        ]
        if twins and all(twin.denied != clause.denied for twin in twins):
            return True
    if other.quantities - sentence.quantities and sentence.quantities - allowed:
        return True
    return bool(_exchanged(other, sentence)) or any(
        {left, right} in _EXCHANGED for left in other.words - sentence.words for right in sentence.words - other.words
    )
