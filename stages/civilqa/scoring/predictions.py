"""A line of data/predictions: a question with every system's answer, and all that is known of each.

A Prediction has id, category, difficulty, notice, question, reference (answer), gold (or None) and one entry a system;
pooled lines also say their `fold`. An entry has its answer, scores by name (None: does not apply), citations by place,
and with gold its judgement. What a model generated has `tokens` and `stopped`, that of a base shown examples the number
of `examples`, that of a model shown articles the names of these `articles`, a copied one the id of the record that it
was `copied_from` and the `similarity` of its question, 0 to 1. Where articles were looked up, the line's own `articles`
are those found and those wanted (civilqa.scoring.article_recall).
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from civilqa.dataset.records import Record, question_id
from civilqa.law.verdicts import cited_articles, mark_citations
from civilqa.scoring.gold import Gold
from civilqa.scoring.scores import score_answer

if TYPE_CHECKING:  # torch is for those who ask a model, and not for those who compare what it said
    from civilqa.generation.answers import Answer

# Who answers the questions of each part, in the order in which they are shown.
# `retrieved`, and `retrieval` with `adapter_retrieval`, are there where they were asked for.
SYSTEMS = {
    "test": ("base", "few_shot", "retrieved", "nearest", "retrieval", "adapter", "adapter_retrieval"),
    "train": ("base", "adapter"),
}

Prediction = dict[str, Any]


def systems_of(lines: list[Prediction], part: str = "test") -> tuple[str, ...]:
    """Return which systems have answered some of the lines of a part, in the order in which they are shown."""
    return tuple(system for system in SYSTEMS[part] if any(system in line for line in lines))


def others_of(systems: tuple[str, ...]) -> tuple[str, ...]:
    """Return the systems that the adapter is compared with."""
    return tuple(system for system in systems if system != "adapter")


def make_predictions(
    records: list[Record],
    answers: dict[str, list["Answer"]],
    golds: dict[str, Gold],
    notice: str,
    shown: Mapping[str, list[dict[str, Any]]] | None = None,
    nearest: list[tuple[Record, float, bool]] | None = None,
) -> list[Prediction]:
    """Return one line a question with every system's answer.

    Args:
        shown: of each system that is shown something, `examples` or `articles` of each prompt.
        nearest: for each question the record whose answer is copied, how similar its question is, and whether the two
            are near-duplicates; None: no such system.
    """
    lines = []
    for index, record in enumerate(records):
        gold = golds.get(question_id(record.id))
        line: Prediction = {
            "id": record.id,
            "category": record.category,
            "difficulty": record.difficulty,
            "notice": notice,
            "question": record.question,
            "reference": record.answer,
            "gold": gold.model_dump(exclude={"id", "question", "basis"}) if gold else None,
        }
        for system, given in answers.items():
            further = shown[system][index] if shown and system in shown else {}
            line[system] = describe_answer(given[index].text, record, gold, given[index], **further)
        if nearest:
            copied, similarity, near_duplicate = nearest[index]
            line["nearest"] = describe_answer(copied.answer, record, gold, copied_from=copied.id, similarity=similarity)
            line["nearest"]["scores"]["copied_near_duplicate"] = float(near_duplicate)
        lines.append(line)
    return lines


def describe_answer(
    text: str, record: Record, gold: Gold | None, answer: "Answer | None" = None, **further: Any
) -> dict[str, Any]:
    """Return an answer with all that is known of it: scores, citations by place, key points, errors, numbers.

    Args:
        answer: what the model generated; None for a copied answer.
        further: what else to note beside the text.
    """
    of_model = {"stopped": answer.stopped, "reference_bits": answer.reference_bits} if answer else {}
    scores, judgement = score_answer(text, record.question, record.answer, gold, **of_model)
    allowed = cited_articles(record.question)
    if gold:
        allowed |= gold.required | gold.acceptable | cited_articles(record.answer)
    described = {
        "answer": text,
        **({"tokens": answer.tokens, "stopped": answer.stopped} if answer else {}),
        **further,
        "scores": scores,
        "citations": mark_citations(text, allowed),
    }
    if judgement:
        described["judgement"] = asdict(judgement)
        del described["judgement"]["cited"], described["judgement"]["scores"]  # in `citations` and `scores`
    return described
