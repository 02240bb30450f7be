"""How alike an answer and a reference answer are, by wording. Every text is compared in NFC.

Identical Korean text scores the maximum on each. None of them knows law: 받을 수 있습니다 and 받을 수 없습니다 are
alike. A citation is one token of act and article, however it is written: 주임법 제3조 is 주택임대차보호법 제3조, and
민법 제750조 shares nothing with 형법 제750조. chrF++ alone compares characters, and sees those two as nearly the same.
"""

import re
from collections import Counter
from functools import lru_cache

from rapidfuzz.distance import LCSseq
from sacrebleu.metrics import CHRF

from civilqa.law.citations import parse_citations
from civilqa.law.korean import normalize, tag_morphemes

_CHRF = CHRF(word_order=2)
_PUNCTUATION = re.compile(r"^\W+|\W+$")


def chrf_score(answer: str, reference: str) -> float:
    """Return chrF++ in 0 to 100, higher is better: F2 of character 1- to 6-grams and word 1- and 2-grams.

    It weighs recall four times as much as precision, and so favours long answers: see chrf_cut_score.

    Source: Popović 2017, chrF++: words helping character n-grams (W17-4770), as sacrebleu computes it.
    """
    return _CHRF.sentence_score(normalize(answer), [normalize(reference)]).score


def chrf_cut_score(answer: str, reference: str) -> float:
    """Return chrF++ of an answer cut to as many characters as the reference has; a shorter one stays as it is.

    What chrf_score is above this, the answer has for its length alone.
    """
    reference = normalize(reference)
    return chrf_score(normalize(answer)[: len(reference)], reference)


def chrf_signature() -> str:
    """Return sacrebleu's signature of the chrF++ in use, to name beside the number."""
    _CHRF.sentence_score("가", ["가"])  # without one it has none
    return str(_CHRF.get_signature())


def rouge_1_score(answer: str, reference: str) -> float:
    """Return ROUGE-1 in 0 to 1, higher is better: F1 of the morphemes that both have.

    Morphemes by Kiwi, since Korean particles and endings make nearly every written word unequal to its next form; the
    usual ROUGE tokenizers delete Hangul altogether. Punctuation is left out. Two empty texts score 0.

    Source: Lin 2004, ROUGE: a package for automatic evaluation of summaries (W04-1013).
    """
    return _overlap(_ngrams(morphemes(answer), 1), _ngrams(morphemes(reference), 1))


def rouge_2_score(answer: str, reference: str) -> float:
    """Return ROUGE-2 in 0 to 1, higher is better: F1 of pairs of neighbouring morphemes.

    A text of one morpheme has no pair and scores 0 against any but itself.

    Source: Lin 2004 (W04-1013).
    """
    left, right = morphemes(answer), morphemes(reference)
    if left == right and len(left) == 1:
        return 1.0
    return _overlap(_ngrams(left, 2), _ngrams(right, 2))


def rouge_l_score(answer: str, reference: str) -> float:
    """Return ROUGE-L in 0 to 1, higher is better: F1 of the longest common subsequence of morphemes.

    Source: Lin 2004 (W04-1013).
    """
    left, right = morphemes(answer), morphemes(reference)
    return 2 * LCSseq.similarity(left, right) / (len(left) + len(right)) if left and right else 0.0


def eojeol_f1_score(answer: str, reference: str) -> float:
    """Return the F1 of 어절, words between spaces, in 0 to 1, higher is better. Punctuation at their ends is left out.

    Source: the token F1 of SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250), on 어절 as KorQuAD 1.0 also reports it.
    """
    return _overlap(Counter(eojeols(answer)), Counter(eojeols(reference)))


SIMILARITIES = {
    "chrf": chrf_score,
    "chrf_cut": chrf_cut_score,
    "rouge_1": rouge_1_score,
    "rouge_2": rouge_2_score,
    "rouge_l": rouge_l_score,
    "eojeol_f1": eojeol_f1_score,
}


@lru_cache(maxsize=4096)
def morphemes(text: str) -> tuple[str, ...]:
    """Return the surface forms of a text's morphemes, each citation as one, without white space and punctuation."""
    tokens: list[str] = []
    for part, is_citation in _parts(text):
        # Letters, digits and Hanja are tagged SL, SN and SH; the other tags in S are punctuation.
        kept = [form for form, tag in tag_morphemes(part) if not tag.startswith("S") or tag in ("SL", "SN", "SH")]
        tokens += [part] if is_citation else kept
    return tuple(tokens)


@lru_cache(maxsize=4096)
def eojeols(text: str) -> tuple[str, ...]:
    """Return the words of a text, each citation as one, without punctuation at their ends."""
    tokens: list[str] = []
    for part, is_citation in _parts(text):
        tokens += [part] if is_citation else [_PUNCTUATION.sub("", word) for word in part.split()]
    return tuple(token for token in tokens if token)


def _parts(text: str) -> list[tuple[str, bool]]:
    """Return a text in parts: what stands between citations, and each citation as `act article`."""
    text = normalize(text)
    parts: list[tuple[str, bool]] = []
    position = 0
    for citation in parse_citations(text):
        if citation.start > position:
            parts.append((text[position : citation.start], False))
        parts.append((f"{citation.law} {citation.article}", True))
        position = max(position, citation.end)
    return [*parts, (text[position:], False)]


def _ngrams(tokens: tuple[str, ...], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def _overlap(left: Counter, right: Counter) -> float:
    """Return the F1 of two multisets; 0 where either is empty."""
    return 2 * (left & right).total() / (left.total() + right.total()) if left and right else 0.0
