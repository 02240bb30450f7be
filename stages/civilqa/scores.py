"""What an answer is worth beside the reference answer. Every text is compared in NFC.

Every score is of one answer, so that a mean over questions, a difference between two systems on the same questions and
its interval are all made from the same numbers.
"""

import unicodedata
from collections.abc import Callable
from functools import cache

from kiwipiepy import Kiwi
from rapidfuzz.distance import LCSseq
from sacrebleu.metrics import CHRF

from civilqa.citations import parse_citations


def normalize(text: str) -> str:
    """Return text in NFC: the same Hangul typed on macOS (NFD) and elsewhere must be equal."""
    return unicodedata.normalize("NFC", text)


def chrf_score(answer: str, reference: str) -> float:
    """Return chrF++ in 0 to 100, higher is better: F2 of character 1- to 6-grams and word 1- and 2-grams.

    Source: Popović 2017, chrF++: words helping character n-grams (W17-4770), as sacrebleu computes it.
    """
    return _chrf().sentence_score(normalize(answer), [normalize(reference)]).score


def chrf_signature() -> str:
    """Return sacrebleu's signature of the chrF++ in use, to name beside the number."""
    metric = _chrf()
    metric.sentence_score("가", ["가"])
    return str(metric.get_signature())


def rouge_l_score(answer: str, reference: str) -> float:
    """Return ROUGE-L in 0 to 1, higher is better: F1 of the longest common subsequence of morphemes.

    Morphemes by Kiwi, since Korean particles and endings make nearly every written word unequal to its next form; the
    usual ROUGE tokenizers delete Hangul altogether. Two empty texts score 0.

    Source: Lin 2004, ROUGE: a package for automatic evaluation of summaries (W04-1013).
    """
    left, right = morphemes(answer), morphemes(reference)
    if not left or not right:
        return 0.0
    return 2 * LCSseq.similarity(left, right) / (len(left) + len(right))


def citation_f1_score(answer: str, reference: str) -> float | None:
    """Return F1 of the articles cited, in 0 to 1, higher is better; None where the reference cites none.

    An article is the act's full name and its number with 의: 민법 제750조 is not 형법 제750조, and 주택임대차보호법
    제3조 is not 제3조의2. Paragraphs are not compared.
    """
    wanted = cited_articles(reference)
    if not wanted:
        return None
    found = cited_articles(answer)
    return 2 * len(found & wanted) / (len(found) + len(wanted))


def cited_articles(text: str) -> set[tuple[str, str]]:
    """Return the (act, article) pairs that a text cites."""
    return {(citation.law, citation.article) for citation in parse_citations(text)}


def morphemes(text: str) -> list[str]:
    """Return the surface forms of a text's morphemes, white space left out."""
    return [token.form for token in _kiwi().tokenize(normalize(text))]


# Of an answer's text against the reference; those of the model's own behaviour are in evaluate.
TEXT_SCORES: dict[str, Callable[[str, str], float | None]] = {
    "chrf": chrf_score,
    "rouge_l": rouge_l_score,
    "citation_f1": citation_f1_score,
}


@cache
def _kiwi() -> Kiwi:
    return Kiwi(num_workers=1)


@cache
def _chrf() -> CHRF:
    return CHRF(word_order=2)
