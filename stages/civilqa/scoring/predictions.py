"""A line of data/predictions: a question with every system's answer, and all that is known of each."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from tqdm import tqdm

from civilqa.dataset.records import Record
from civilqa.law.verdicts import CitationMark, cited_articles, mark_citations
from civilqa.scoring.gold import Gold
from civilqa.scoring.scores import score_answer

if TYPE_CHECKING:  # torch is for those who ask a model, and not for those who compare what it said
    from civilqa.generation.answers import Answer
    from civilqa.scoring.bert_score import BertScore
    from civilqa.scoring.llm_judge import Judge

# Who answers the questions of each part, in the order in which they are shown.
SYSTEMS = {"test": ("base", "few_shot", "nearest", "adapter"), "train": ("base", "adapter")}


class ScoredAnswer(TypedDict):
    """An answer with its scores by name (None: does not apply), its citations by place, and without gold no judgement.

    What a model generated has `tokens` and `stopped`, few-shot answers the number of `examples`, a copied one the id
    of the record that it was `copied_from` and the `similarity` of its question, in 0 to 1.
    """

    answer: str
    tokens: NotRequired[int]
    stopped: NotRequired[bool]
    examples: NotRequired[int]
    copied_from: NotRequired[str]
    similarity: NotRequired[float]
    scores: dict[str, float | None]
    citations: list[CitationMark]
    judgement: NotRequired[dict[str, Any]]


class Prediction(TypedDict):
    """One question, its reference answer and gold, and each system's answer; pooled lines say their `fold`."""

    id: str
    category: str
    difficulty: str
    notice: str
    question: str
    reference: str
    gold: dict[str, Any] | None
    base: NotRequired[ScoredAnswer]
    few_shot: NotRequired[ScoredAnswer]
    nearest: NotRequired[ScoredAnswer]
    adapter: NotRequired[ScoredAnswer]
    fold: NotRequired[int]


def make_predictions(
    records: list[Record],
    answers: dict[str, list["Answer"]],
    golds: dict[str, Gold],
    notice: str,
    examples: list[int] | None = None,
    nearest: list[tuple[Record, float]] | None = None,
) -> list[Prediction]:
    """Return one line a question with every system's answer.

    Args:
        examples: how many examples each few-shot prompt holds.
        nearest: for each question the record whose answer is copied, and how similar its question is; None: no such
            system.
    """
    lines = []
    for index, record in enumerate(records):
        gold = golds.get(record.id)
        line = describe_question(record, gold, notice)
        for system, given in answers.items():
            further = {"examples": examples[index]} if system == "few_shot" and examples else {}
            line[system] = describe_answer(given[index].text, record, gold, given[index], **further)
        if nearest:
            copied, similarity = nearest[index]
            line["nearest"] = describe_answer(copied.answer, record, gold, copied_from=copied.id, similarity=similarity)
        lines.append(line)
    return lines


def describe_question(record: Record, gold: Gold | None, notice: str) -> Prediction:
    """Return what a line says of the question."""
    return {
        "id": record.id,
        "category": record.category,
        "difficulty": record.difficulty,
        "notice": notice,
        "question": record.question,
        "reference": record.answer,
        "gold": gold.model_dump(exclude={"id", "question", "basis"}) if gold else None,
    }


def describe_answer(
    text: str, record: Record, gold: Gold | None, answer: "Answer | None" = None, **further: Any
) -> ScoredAnswer:
    """Return an answer with all that is known of it: scores, citations by place, key points, errors, numbers.

    Args:
        answer: what the model generated; None for a copied answer.
        further: what else to note beside the text.
    """
    scored = score_answer(
        text,
        record.question,
        record.answer,
        gold,
        stopped=answer.stopped if answer else None,
        reference_bits=answer.reference_bits if answer else None,
    )
    allowed = cited_articles(record.question)
    if gold:
        allowed |= gold.required | gold.acceptable | cited_articles(record.answer)
    described = {
        "answer": text,
        **({"tokens": answer.tokens, "stopped": answer.stopped} if answer else {}),
        **further,
        "scores": scored.scores,
        "citations": mark_citations(text, allowed),
    }
    if scored.judgement:
        judgement = asdict(scored.judgement)
        for name in ("cited", "citation_precision", "citation_recall", "citation_f1", "key_point_recall", "number_f1"):
            del judgement[name]  # in `scores` and `citations`
        described["judgement"] = judgement
    return described


def add_optional_scores(lines: list[Prediction], encoder: "BertScore | None", judge: "Judge | None") -> None:
    """Put the scores of an encoder and of a judge into predictions, where there is one."""
    for line in tqdm(lines, desc="encoder and judge", disable=not (encoder or judge)):
        for answer in (line[system] for system in SYSTEMS["test"] if system in line):
            if encoder:
                answer["scores"]["bert_score"] = encoder.score(answer["answer"], line["reference"])
            if judge and line["gold"]:
                key_points = line["gold"]["key_points"]
                answer["scores"] |= judge.score(line["question"], answer["answer"], key_points)
