"""What an answer is worth against the gold annotations of its question.

It is exact on citations and numbers, and misses a key point or an error that is put in words of its own. It counts what
is there, and never guesses.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from civilqa.law.verdicts import CitedArticles, cited_articles, judge_citations, write_article
from civilqa.scoring.gold import Gold, TestCase
from civilqa.scoring.quantities import Quantity, parse_quantities
from civilqa.scoring.wording import asserts, contains_wording

# Of the key points, and of the numbers, so many must be there for an answer to pass: matching by wording misses a
# paraphrase now and then, so that one in four is forgiven.
PASSING_SHARE = 0.75


@dataclass(frozen=True)
class Judgement:
    """What an answer is worth against its gold annotations.

    Every score is in 0 to 1, higher is better, None where it does not apply. `passed` asks for every required article,
    PASSING_SHARE of the key points and of the numbers, no forbidden statement and no invented or deleted article;
    `reasons` says in Korean what of this is missing.

    Attributes:
        citation_precision: of the articles cited, acceptable ones aside, the share that is required; None where there
            are none.
        citation_recall: of the required articles, the share that is cited.
        citation_f1: their harmonic mean; 0 where a required article is there to cite and none is cited.
        missing_citations: required, not cited.
        wrong_citations: cited, neither required nor acceptable.
        key_points_hit: for each key point, whether it is said.
        forbidden_found: the forbidden statements that are made.
        numbers_found, numbers_missing: of the gold's numbers.
        numbers_wrong: other numbers in the answer, but for those of the question and the reference answer.
    """

    cited: CitedArticles
    citation_precision: float | None
    citation_recall: float | None
    citation_f1: float | None
    missing_citations: tuple[str, ...]
    wrong_citations: tuple[str, ...]
    key_points_hit: tuple[bool, ...]
    key_point_recall: float | None
    forbidden_found: tuple[str, ...]
    numbers_found: tuple[str, ...]
    numbers_missing: tuple[str, ...]
    numbers_wrong: tuple[str, ...]
    number_f1: float | None
    passed: bool
    reasons: tuple[str, ...]


def judge_answer(text: str, gold: Gold, reference_answer: str | None = None) -> Judgement:
    """Return what an answer is worth against gold annotations.

    Args:
        reference_answer: whose articles and numbers count as acceptable, too; of a TestCase its own `answer`.
    """
    if reference_answer is None:
        reference_answer = gold.answer if isinstance(gold, TestCase) else ""
    acceptable = (gold.acceptable | cited_articles(reference_answer)) - gold.required
    cited = judge_citations(text, allowed=acceptable | gold.required)
    precision, recall, f1 = overlap_scores(cited.all, gold.required, acceptable)
    hit = tuple(any(contains_wording(text, wording) for wording in wordings) for wordings in gold.key_points)
    forbidden = tuple(statement for statement in gold.forbidden if asserts(text, statement))
    numbers = judge_numbers(text, gold, reference_answer)
    judgement = {
        "cited": cited,
        "citation_precision": precision,
        "citation_recall": recall,
        "citation_f1": f1,
        "missing_citations": tuple(map(write_article, sorted(gold.required - cited.all))),
        "wrong_citations": tuple(map(write_article, sorted(cited.all - gold.required - acceptable))),
        "key_points_hit": hit,
        "key_point_recall": sum(hit) / len(hit) if hit else None,
        "forbidden_found": forbidden,
        **numbers,
    }
    reasons = _reasons(judgement, gold)
    return Judgement(**judgement, passed=not reasons, reasons=tuple(reasons))


def judge_numbers(text: str, gold: Gold, reference_answer: str) -> dict[str, Any]:
    """Return number_f1 and the numbers found, missing and wrong. Where the gold has none, number_f1 is None."""
    wanted = {parse_quantities(number)[0]: number for number in gold.numbers}
    found = {quantity: quantity.text for quantity in parse_quantities(text)}
    allowed = {*parse_quantities(gold.question), *parse_quantities(reference_answer)} - set(wanted)
    wrong: set[Quantity] = set(found) - set(wanted) - allowed
    _, _, f1 = overlap_scores(set(found), set(wanted), allowed)
    return {
        "numbers_found": tuple(number for quantity, number in wanted.items() if quantity in found),
        "numbers_missing": tuple(number for quantity, number in wanted.items() if quantity not in found),
        "numbers_wrong": tuple(text for quantity, text in found.items() if quantity in wrong),
        "number_f1": f1,
    }


def overlap_scores(
    found: Iterable[Any], required: Iterable[Any], acceptable: Iterable[Any]
) -> tuple[float | None, float | None, float | None]:
    """Return precision, recall and F1 of a set against a required one; acceptable members count nowhere.

    Precision is None where nothing is left to be right or wrong, recall and F1 where nothing is required.
    """
    required = set(required)
    counted = set(found) - (set(acceptable) - required)
    right = counted & required
    precision = len(right) / len(counted) if counted else None
    if not required:
        return precision, None, None
    return precision, len(right) / len(required), 2 * len(right) / (len(counted) + len(required))


def _reasons(judgement: dict[str, Any], gold: Gold) -> list[str]:
    """Return in Korean what keeps an answer from passing."""
    cited: CitedArticles = judgement["cited"]
    reasons = []
    if judgement["missing_citations"]:
        reasons.append("필수 조문을 인용하지 않음: " + ", ".join(judgement["missing_citations"]))
    if cited.invented:
        reasons.append("없는 조문을 인용함: " + ", ".join(map(write_article, sorted(cited.invented))))
    if cited.deleted:
        reasons.append("삭제된 조문을 인용함: " + ", ".join(map(write_article, sorted(cited.deleted))))
    if judgement["forbidden_found"]:
        reasons.append("틀린 설명이 들어 있음: " + " / ".join(judgement["forbidden_found"]))
    missed = [
        wordings[0] for wordings, hit in zip(gold.key_points, judgement["key_points_hit"], strict=True) if not hit
    ]
    if not _enough(len(gold.key_points) - len(missed), len(gold.key_points)):
        reasons.append(f"핵심 내용 {len(gold.key_points)}개 가운데 {len(missed)}개가 빠짐: " + " / ".join(missed))
    if not _enough(len(judgement["numbers_found"]), len(gold.numbers)):
        reasons.append("숫자가 빠짐: " + ", ".join(judgement["numbers_missing"]))
    return reasons


def _enough(hits: int, wanted: int) -> bool:
    return Fraction(hits) >= Fraction(str(PASSING_SHARE)) * wanted
