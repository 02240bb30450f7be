"""What an answer is worth against the gold annotations of its question.

It is exact on citations and numbers, and misses a key point or an error that is put in words of its own. It counts what
is there, and never guesses.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from civilqa.law.verdicts import CitedArticles, cited_articles, judge_citations, write_article
from civilqa.scoring.gold import Gold, TestCase
from civilqa.scoring.quantities import parse_quantities
from civilqa.scoring.wording import asserts, contains_wording

# Of the key points, and of the numbers, so many must be there for an answer to pass: matching by wording misses a
# paraphrase now and then, so that one in four is forgiven.
PASSING_SHARE = 0.75


@dataclass(frozen=True)
class Judgement:
    """What an answer is worth against its gold annotations.

    `passed` asks for every required article, PASSING_SHARE of the key points and of the numbers, no forbidden statement
    and no invented or deleted article; `reasons` says in Korean what of this is missing.

    Attributes:
        scores: each in 0 to 1, None where it does not apply; of the forbidden rate alone lower is better.
            - citation_precision: of the articles cited, acceptable ones aside, the share that is required.
            - citation_recall: of the required articles, the share that is cited.
            - citation_f1: their harmonic mean; 0 where a required article is there to cite and none is cited.
            - key_point_recall: of the key points, the share that is said. number_f1: likewise of the numbers.
            - forbidden_rate: 1 if a wrong statement is made. By wording (see `civilqa.scoring.wording`): it misses an
              error in words of its own, so that the true rate is higher.
        missing_citations: required, not cited.
        wrong_citations: cited, neither required nor acceptable.
        key_points_hit: for each key point, whether it is said.
        forbidden_found: the forbidden statements that are made.
        numbers_found, numbers_missing: of the gold's numbers.
        numbers_wrong: other numbers in the answer, but for those of the question and the reference answer.
    """

    cited: CitedArticles
    scores: dict[str, float | None]
    missing_citations: tuple[str, ...]
    wrong_citations: tuple[str, ...]
    key_points_hit: tuple[bool, ...]
    forbidden_found: tuple[str, ...]
    numbers_found: tuple[str, ...]
    numbers_missing: tuple[str, ...]
    numbers_wrong: tuple[str, ...]
    passed: bool = False
    reasons: tuple[str, ...] = ()


def judge_answer(text: str, gold: Gold, reference_answer: str | None = None) -> Judgement:
    """Return what an answer is worth against gold annotations.

    Args:
        reference_answer: whose articles and numbers count as acceptable, too; of a TestCase its own `answer`.
    """
    if reference_answer is None:
        reference_answer = gold.answer if isinstance(gold, TestCase) else ""
    acceptable = (gold.acceptable | cited_articles(reference_answer)) - gold.required
    cited = judge_citations(text, allowed=acceptable | gold.required)
    citations = overlap_scores(cited.all, gold.required, acceptable)
    hit = tuple(any(contains_wording(text, wording) for wording in wordings) for wordings in gold.key_points)
    forbidden = tuple(statement for statement in gold.forbidden if asserts(text, statement))
    wanted = {parse_quantities(number)[0]: number for number in gold.numbers}
    found = {quantity: quantity.text for quantity in parse_quantities(text)}
    allowed = {*parse_quantities(gold.question), *parse_quantities(reference_answer)} - set(wanted)
    judgement = Judgement(
        cited=cited,
        scores={
            **dict(zip(("citation_precision", "citation_recall", "citation_f1"), citations, strict=True)),
            "key_point_recall": sum(hit) / len(hit) if hit else None,
            "forbidden_rate": float(bool(forbidden)) if gold.forbidden else None,
            "number_f1": overlap_scores(found, wanted, allowed)[2],
        },
        missing_citations=tuple(map(write_article, sorted(gold.required - cited.all))),
        wrong_citations=tuple(map(write_article, sorted(cited.all - gold.required - acceptable))),
        key_points_hit=hit,
        forbidden_found=forbidden,
        numbers_found=tuple(number for quantity, number in wanted.items() if quantity in found),
        numbers_missing=tuple(number for quantity, number in wanted.items() if quantity not in found),
        numbers_wrong=tuple(text for quantity, text in found.items() if quantity not in {*wanted, *allowed}),
    )
    reasons = _reasons(judgement, gold)
    return replace(judgement, reasons=reasons, passed=not reasons)


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


def _reasons(judgement: Judgement, gold: Gold) -> tuple[str, ...]:
    """Return in Korean what keeps an answer from passing."""
    points = list(zip(gold.key_points, judgement.key_points_hit, strict=True))
    missed = [wordings[0] for wordings, hit in points if not hit]
    both = (judgement.cited.invented, judgement.cited.deleted)
    invented, deleted = (", ".join(map(write_article, sorted(articles))) for articles in both)
    found = (
        (judgement.missing_citations, "필수 조문을 인용하지 않음: " + ", ".join(judgement.missing_citations)),
        (invented, "없는 조문을 인용함: " + invented),
        (deleted, "삭제된 조문을 인용함: " + deleted),
        (judgement.forbidden_found, "틀린 설명이 들어 있음: " + " / ".join(judgement.forbidden_found)),
        (
            len(points) - len(missed) < PASSING_SHARE * len(points),
            f"핵심 내용 {len(points)}개 가운데 {len(missed)}개가 빠짐: " + " / ".join(missed),
        ),
        (
            len(judgement.numbers_found) < PASSING_SHARE * len(gold.numbers),
            "숫자가 빠짐: " + ", ".join(judgement.numbers_missing),
        ),
    )
    return tuple(reason for lacking, reason in found if lacking)
