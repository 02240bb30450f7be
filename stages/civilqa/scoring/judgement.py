"""What an answer is worth against the gold annotations of its question.

Exact on citations and numbers. On what is said it is a measuring instrument with a known error: `metrics/scorer.json`
holds how many right answers it accepts and how many wrong ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from civilqa.law.verdicts import CitedArticles, cited_articles, judge_citations, write_article
from civilqa.scoring.clauses import Sentence, normalized_words, read_sentences, repeated_words
from civilqa.scoring.gold import Gold, TestCase
from civilqa.scoring.quantities import Quantity, parse_quantities
from civilqa.scoring.wording import Match, contradicts, copies, match_claim, read_claim

# Chosen on the development part of tests/scoring/answer_cases.jsonl, where right and wrong are told apart best.
ACCEPTED = 0.25
SAID = 0.75  # of a claim's words, so many must stand together for it to be said
MADE = 0.9  # likewise for a wrong statement, which is held against the answer
ASKED_WEIGHT = 0.4  # of a word of the question, which right and wrong answers repeat alike, against 1 of another
SHORT = 6  # words of a first sentence that answers with yes or no
CLAIMS = 3  # how many claims the conclusion is judged by: those nearest to the answer
LENGTHS = 3  # an answer of more than three references is a heap of statements that the asker must choose from
REPEATED = 0.4  # of an answer's sentences; beyond, it goes round in circles
REDUNDANT = 0.3  # of thirty words, so many stood there before: a list of wordings


@dataclass(frozen=True)
class Judgement:
    """What an answer is worth against its gold annotations.

    `accepted` is content_score >= ACCEPTED; `reasons` says in Korean what is wrong or missing.

    Attributes:
        scores: each in 0 to 1, None where it does not apply; of the forbidden rate alone lower is better.
            - content_score: 5/8 conclusion_score and 3/8 the mean share of the key points, less 1/16 for each number
              and article that is neither required nor acceptable. 0 for what is no answer at all (`faults`).
            - conclusion_score: how much of the claims that say the conclusion stands in the answer, less how much of
              those that deny it and of the typical errors: the mean of the nearest CLAIMS of each. A yes or no in
              front counts a fifth.
            - key_point_recall: of the key points, the share that is said. It and the conclusion are 0 for what is no
              answer by its form: words without sentences say nothing, whatever they happen to hold.
            - forbidden_rate: 1 if a typical wrong statement is made.
            - citation_precision: of the articles cited, acceptable ones aside, the share that is required.
            - citation_recall: of the required articles, the share that is cited.
            - citation_f1: their harmonic mean; 0 where a required article is there to cite and none is cited.
            - number_f1: of the numbers that must be stated, likewise.
        missing_citations: required, not cited.
        wrong_citations: cited, neither required nor acceptable.
        key_points_hit: for each key point, whether it is said.
        forbidden_found: the typical wrong statements that are made.
        forbidden_denied: those that the answer warns of.
        numbers_found, numbers_missing: of the gold's numbers.
        numbers_wrong: other numbers in the answer, but for those of the question and the reference answer.
        faults: what makes the text no answer, in Korean: it turns a sentence of the reference round, say.
    """

    cited: CitedArticles
    scores: dict[str, float | None]
    missing_citations: tuple[str, ...]
    wrong_citations: tuple[str, ...]
    key_points_hit: tuple[bool, ...]
    forbidden_found: tuple[str, ...]
    forbidden_denied: tuple[str, ...]
    numbers_found: tuple[str, ...]
    numbers_missing: tuple[str, ...]
    numbers_wrong: tuple[str, ...]
    faults: tuple[str, ...] = ()
    accepted: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Reading:
    """An answer's sentences beside the claims of its question."""

    sentences: tuple[Sentence, ...]
    weights: dict[str, float] = field(hash=False)

    def nearest(self, claims: Iterable[str]) -> list[tuple[float, float]]:
        """For each claim, how much of it is said and how much is denied, at most, by a sentence."""
        found = []
        for claim in map(read_claim, claims):
            matches: list[Match] = [match_claim(claim, sentence, self.weights) for sentence in self.sentences]
            said = max((match.share for match in matches if match.says), default=0.0)
            found.append((said, max((match.share for match in matches if match.denies), default=0.0)))
        return found


def judge_answer(text: str, gold: Gold, reference_answer: str | None = None) -> Judgement:
    """Return what an answer is worth against gold annotations.

    Args:
        reference_answer: whose articles and numbers count as acceptable, too, and whose sentences must not be turned
            round; of a TestCase its own `answer`.
    """
    if reference_answer is None:
        reference_answer = gold.answer if isinstance(gold, TestCase) else ""
    acceptable = (gold.acceptable | cited_articles(reference_answer)) - gold.required
    cited = judge_citations(text, allowed=acceptable | gold.required)
    citations = overlap_scores(cited.all, gold.required, acceptable)
    sentences = read_sentences(text)
    reference = read_sentences(reference_answer)
    asked = read_sentences(gold.question)
    stated = tuple(sentence for sentence in sentences if sentence not in asked)
    reading = _Reading(stated, _question_weights(gold.question))
    # What the reference says is no error, whatever claim it resembles.
    copied = {sentence for sentence in sentences if sentence in reference}
    foreign = replace(reading, sentences=tuple(sentence for sentence in stated if sentence not in copied))
    says, denies = reading.nearest(gold.conclusion.says), foreign.nearest(gold.conclusion.denies)
    errors, turned = foreign.nearest(gold.forbidden), foreign.nearest(gold.conclusion.says)
    points = [max(said for said, _ in reading.nearest(wordings)) for wordings in gold.key_points]
    hit = tuple(point >= SAID for point in points)
    found = {quantity: quantity.text for quantity in parse_quantities(text)}
    wanted = {parse_quantities(number)[0]: number for number in gold.numbers}
    allowed = {*parse_quantities(gold.question), *parse_quantities(reference_answer)} - set(wanted)
    judgement = Judgement(
        cited=cited,
        scores={},
        missing_citations=tuple(map(write_article, sorted(gold.required - cited.all))),
        wrong_citations=tuple(map(write_article, sorted(cited.all - gold.required - acceptable))),
        key_points_hit=hit,
        forbidden_found=tuple(
            claim for claim, (made, _) in zip(gold.forbidden, errors, strict=True) if made >= MADE
        ),
        forbidden_denied=tuple(
            claim for claim, (_, denied) in zip(gold.forbidden, errors, strict=True) if denied >= MADE
        ),
        numbers_found=tuple(number for quantity, number in wanted.items() if quantity in found),
        numbers_missing=tuple(number for quantity, number in wanted.items() if quantity not in found),
        numbers_wrong=tuple(text for quantity, text in found.items() if quantity not in {*wanted, *allowed}),
    )  # fmt: skip
    for_it = [said for said, _ in says] + [denied for _, denied in reading.nearest(gold.conclusion.denies)]
    against = [said for said, _ in denies + errors] + [denied for _, denied in turned]
    conclusion = _mean_of_nearest(for_it) - _mean_of_nearest(against) + _lead(sentences, gold) / 5
    form, law = _faults(text, sentences, reference, reference_answer, judgement, acceptable | gold.required, gold)
    faults = form + law
    hit = tuple(said and not form for said in hit)
    off = len(judgement.numbers_wrong) + len(judgement.wrong_citations)
    content = max(0.0, min(1.0, (10 * conclusion + 6 * sum(points) / max(1, len(points)) - off) / 16))
    judgement = replace(
        judgement,
        faults=faults,
        key_points_hit=hit,
        scores={
            "content_score": 0.0 if faults else content,
            "conclusion_score": 0.0 if form else max(0.0, min(1.0, conclusion)),
            "key_point_recall": sum(hit) / len(hit) if hit else None,
            "forbidden_rate": float(bool(judgement.forbidden_found)) if gold.forbidden else None,
            "number_f1": overlap_scores(found, wanted, allowed)[2],
            **dict(zip(("citation_precision", "citation_recall", "citation_f1"), citations, strict=True)),
        },
    )
    accepted = judgement.scores["content_score"] >= ACCEPTED
    return replace(judgement, accepted=accepted, reasons=_reasons(judgement, gold, conclusion))


@lru_cache(maxsize=1024)
def _words_of(*texts: str) -> frozenset[str]:
    return frozenset().union(*map(normalized_words, texts))


def _topic(gold: Gold) -> frozenset[str]:
    """The words of a question and of what can be said to it, right or wrong."""
    claims = (*gold.conclusion.says, *gold.conclusion.denies, *gold.forbidden)
    return _words_of(gold.question, *claims, *(wording for wordings in gold.key_points for wording in wordings))


@lru_cache(maxsize=1024)
def _question_weights(question: str) -> dict[str, float]:
    return dict.fromkeys(normalized_words(question), ASKED_WEIGHT)


def _mean_of_nearest(shares: list[float]) -> float:
    return sum(sorted(shares, reverse=True)[:CLAIMS]) / CLAIMS


def _lead(sentences: tuple[Sentence, ...], gold: Gold) -> int:
    """Whether the answer begins with the right yes or no (1), the wrong one (-1), or neither (0)."""
    if gold.conclusion.answer is None or not sentences:
        return 0
    said = {"yes": 1, "no": -1, "": 0}[sentences[0].opening]
    if not said and sentences[0].clauses and len(sentences[0].words) <= SHORT:
        # 2년을 채우지 않아도 됩니다 repeats the words of the question with a sign.
        last = sentences[0].clauses[-1]
        said = (-1 if last.denied else 1) if last.head in normalized_words(gold.question) else 0
    return said if gold.conclusion.answer == "yes" else -said


def _faults(
    text: str,
    sentences: tuple[Sentence, ...],
    reference: tuple[Sentence, ...],
    reference_answer: str,
    judgement: Judgement,
    acceptable: frozenset[Any],
    gold: Gold,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return in Korean why a text cannot be taken for an answer, whatever it holds: by its form, and by its law."""
    if reference_answer and len(text) > LENGTHS * len(reference_answer):
        return ("기준 답변의 세 배를 넘게 늘어놓음",), ()
    allowed: frozenset[Quantity] = frozenset().union(*(sentence.quantities for sentence in reference))
    pairs = [(mine, other) for mine in sentences for other in reference if copies(mine, other)]
    copied = len({mine for mine, _ in pairs})
    turned = any(contradicts(mine, other, allowed) for mine, other in pairs)
    openings = {sentence.opening for sentence in (*sentences[:1], *reference[:1])} - {""}
    cited = judgement.cited
    off = [article for article in cited.all if article not in acceptable]
    known = cited_articles(reference_answer, denied=False)
    left_out, added = known - cited.all, cited.all - known
    words, wanted = (frozenset().union(*(each.words for each in some)) for some in (sentences, reference))
    related = wanted | _topic(gold)
    listed = sum(len(wordings) > 1 and all(wording in text for wording in wordings) for wordings in gold.key_points)
    repeated = sum(
        bool(sentence.words) and any(len(sentence.words & other.words) >= 0.8 * len(sentence.words) for other in before)
        for sentence, before in ((sentence, sentences[:index]) for index, sentence in enumerate(sentences))
    )
    form = (
        (
            len(words & wanted) > SAID * len(wanted) > 0 and 2 * copied < len(reference),
            "기준 답변의 낱말을 문장 없이 늘어놓음",
        ),
        (
            2 * sum(sentence.asserts for sentence in sentences) < len(sentences),
            "끝맺은 문장이 아닌 말이 절반을 넘음",
        ),
        (2 * listed > len(gold.key_points), "핵심 내용을 여러 말로 늘어놓기만 함"),
        (2 * len(words & related) < len(words), "질문과 상관없는 말이 절반을 넘음"),
        (repeated > REPEATED * len(sentences) or repeated_words(text) > REDUNDANT, "같은 말을 되풀이함"),
    )
    law = (
        (turned or (2 * copied > len(reference) and len(openings) == 2), "기준 답변의 내용을 뒤집음"),
        (2 * copied > len(reference) and added and left_out, "기준 답변과 다른 조문을 인용함"),
        (judgement.forbidden_found, "틀린 설명이 들어 있음: " + " / ".join(judgement.forbidden_found)),
        (cited.invented, "없는 조문을 인용함: " + ", ".join(map(write_article, sorted(cited.invented)))),
        (cited.deleted, "삭제된 조문을 인용함: " + ", ".join(map(write_article, sorted(cited.deleted)))),
        (2 * len(off) > len(cited.all), "인용한 조문의 절반 넘게 다른 조문임"),
    )
    by_form, by_law = (tuple(fault for wrong, fault in found if wrong) for found in (form, law))
    return by_form, by_law


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


def _reasons(judgement: Judgement, gold: Gold, conclusion: float) -> tuple[str, ...]:
    """Return in Korean what is wrong with an answer or missing in it."""
    missed = [wordings[0] for wordings, hit in zip(gold.key_points, judgement.key_points_hit, strict=True) if not hit]
    found = (
        (conclusion < 0, "결론이 다름: " + gold.conclusion.line),
        (0 <= conclusion < ACCEPTED, "결론이 뚜렷하지 않음: " + gold.conclusion.line),
        (missed, f"핵심 내용 {len(gold.key_points)}개 가운데 {len(missed)}개가 빠짐: " + " / ".join(missed)),
        (judgement.missing_citations, "필수 조문을 인용하지 않음: " + ", ".join(judgement.missing_citations)),
        (judgement.numbers_missing, "숫자가 빠짐: " + ", ".join(judgement.numbers_missing)),
        (judgement.numbers_wrong, "기준에 없는 숫자: " + ", ".join(judgement.numbers_wrong)),
    )
    return judgement.faults + tuple(reason for lacking, reason in found if lacking)
