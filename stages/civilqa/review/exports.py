"""What becomes of reviews in the data: mended answers, preferences, gold, and the marks that the report shows."""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from civilqa.dataset.records import Record, question_id
from civilqa.program.files import write_text
from civilqa.review.agreement import RANKS, collect_ratings, human_verdicts
from civilqa.review.gold_forms import draft_form, find_problems, gold_fields
from civilqa.review.marks import FAULTS, SYSTEMS, VERDICTS, Review

COLUMNS = ["question", "answer", "category", "difficulty"]
Message = dict[str, str]


def correct_records(
    records: list[Record], corrections: dict[str, dict[str, str]]
) -> tuple[list[Record], list[str], list[str]]:
    """Return all records with their right answers, the ids of those that changed, and of those in dispute.

    Where reviewers wrote different right answers, the record stays as it is.
    """
    mended, changed, disputed = [], [], []
    for record in records:
        texts = set(corrections.get(record.id, {}).values())
        if len(texts) > 1:
            disputed.append(record.id)
        answer = texts.pop() if len(texts) == 1 else record.answer
        if answer != record.answer:
            changed.append(record.id)
        fields = {name: getattr(record, name) for name in COLUMNS} | {"id": record.id, "answer": answer}
        mended.append(Record(**fields))
    return mended, changed, disputed


def make_records(
    records: list[Record], reviews: Iterable[Review], corrections: dict[str, dict[str, str]]
) -> tuple[list[Record], list[str]]:
    """Return the questions of the chat that are in no record as records, and the ids of those in dispute.

    A question has one right answer, or is none of the records.
    """
    known = {question_id(record.id) for record in records}
    asked = {review.id: review for review in reviews if not review.reference and review.id not in known}
    texts = {name: sorted(set(corrections.get(name, {}).values())) for name in asked}
    made = [
        Record(id=name, question=review.question, answer=texts[name][0], category=review.category, difficulty="")
        for name, review in asked.items()
        if len(texts[name]) == 1
    ]
    return made, [name for name in asked if len(texts[name]) > 1]


def write_dataset(path: Path, records: list[Record]) -> None:
    """Write records as a CSV for prepare: UTF-8 with a mark, so that Excel shows Hangul, and every text as it is."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(record, name) for name in COLUMNS] for record in records)
    write_text(path, "\ufeff" + text.getvalue())


def make_preferences(
    reviews: Iterable[Review], ask: Callable[[str, str], list[Message]]
) -> tuple[list[dict[str, list[Message]]], int]:
    """Return preferences as trl's DPOTrainer reads them, conversations of `prompt`, `chosen` and `rejected`.

    A pair is the better and the worse answer to a question (what the reviewer chose, else by the verdicts), or the
    right answer that was written and an answer that is not good. Each once, whoever said so; where reviewers prefer
    opposite ones, neither is taken.

    Args:
        ask: what the model is asked, by question and category.

    Returns:
        The pairs, and how many were left out for dispute.
    """
    wanted: dict[tuple[str, str, str, str], None] = {}
    for review in reviews:
        asked = review.question, review.category
        texts = {system: text.strip() for system, text in review.answers.items()}
        if better := better_answer(review):
            worse = next(system for system in SYSTEMS if system != better)
            wanted[*asked, texts[better], texts[worse]] = None
        if right := review.correction.strip():
            for system in texts:
                if review.marks[system].verdict in ("usable", "wrong"):
                    wanted[*asked, right, texts[system]] = None
    found = [pair for pair in wanted if pair[2] != pair[3] and all(pair[2:])]
    opposite = [pair for pair in found if (*pair[:2], pair[3], pair[2]) in wanted]
    made = [
        {
            "prompt": ask(question, category),
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for question, category, chosen, rejected in found
        if (question, category, chosen, rejected) not in opposite
    ]
    return made, len(opposite) // 2


def better_answer(review: Review) -> str | None:
    """Return the system whose answer a reviewer prefers; None where both are as good, or nothing was said of both."""
    if len(review.answers) < len(SYSTEMS):
        return None
    if review.better is not None:
        return None if review.better == "same" else review.better
    verdicts = [review.marks[system].verdict for system in SYSTEMS]
    if None in verdicts or verdicts[0] == verdicts[1]:
        return None
    return max(SYSTEMS, key=lambda system: RANKS[review.marks[system].verdict])


def make_gold(
    records: list[Record], annotated: Iterable[str], reviews: Iterable[Review]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return gold that people have filled in, and drafts of the rest with what each still lacks (`todo`).

    Args:
        records: with their right answers.
        annotated: the ids of questions that have gold.
    """
    forms = {review.id: review for review in sorted(reviews, key=lambda review: review.time) if review.gold}
    whole, drafts, done = [], [], set(annotated)
    for record in records:
        if (name := question_id(record.id)) in done:
            continue
        done.add(name)
        review = forms.get(record.id)
        form = review.gold if review and review.gold else draft_form(record.question, record.answer)
        problems = find_problems(record.id, record.question, record.answer, form)
        fields = gold_fields(record.id, record.question, form)
        if problems:
            drafts.append(fields | {"todo": problems})
        else:
            whole.append(fields)
    return whole, drafts


def report_marks(reviews: list[Review]) -> dict[str, Any] | None:
    """Return what the report shows of the reviews of its answers, or None where there are none.

    `usable` holds by system how many answers people can use and how many they agree on; `disputed` the number of the
    others; `questions` by record id what each reviewer said of each system's answer, and wrote.
    """
    ratings = collect_ratings(reviews)
    if not ratings:
        return None
    verdicts = human_verdicts(ratings)
    by_system = {system: [usable for unit, usable in verdicts.items() if unit[1] == system] for system in SYSTEMS}
    questions: dict[str, dict[str, Any]] = {}
    for review in reviews:
        shown = questions.setdefault(review.id, {"verdicts": {system: [] for system in SYSTEMS}, "texts": []})
        for system in SYSTEMS:
            if verdict := review.marks[system].verdict:
                faults = ", ".join(FAULTS[fault] for fault in review.marks[system].faults)
                shown["verdicts"][system].append((review.reviewer, verdict, VERDICTS[verdict], faults))
        shown["texts"].append((review.reviewer, review.correction.strip(), review.note.strip()))
    return {
        "reviewers": len({review.reviewer for by in ratings.values() for review in by.values()}),
        "usable": {system: (sum(found), len(found)) for system, found in by_system.items()},
        "disputed": len(ratings) - len(verdicts),
        "questions": questions,
    }
