"""Groups of records that no split may part: what one of them teaches answers the others.

Records belong together whose questions are near-duplicates, or whose answers are: a test question whose answer was
trained on word for word measures memory, however differently it is put. Short answers join nothing. "네, 가능합니다."
is the answer to questions that have nothing else in common; only their questions say whether they are one.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from civilqa.dataset.near_duplicates import group_normalized, normalize
from civilqa.dataset.parallel import beside
from civilqa.dataset.records import Record
from civilqa.program.errors import RecordError

Group = list[Record]

SHORT_ANSWER = 60  # letters and digits; below, a changed word is more than a tenth of the trigrams


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """When records belong together.

    Attributes:
        question: questions at least this similar.
        answer: answers at least this similar, short ones its square (0.81 for 0.9); None: answers join nothing.
        answer_characters: letters and digits from which on an answer joins.
    """

    question: float
    answer: float | None
    answer_characters: int


# As params.yaml has it for the split. Whatever a split was made with, or by whom: what is so alike leaks.
USUAL = Likeness(question=0.8, answer=0.9, answer_characters=15)


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Records in groups, each sorted by id.

    Attributes:
        question_groups: how many groups the questions alone would make.
        by_answers: the first ids of the groups that are one for their answers: their questions alone make several.
        answers: a number for each record's id, the same where the answers are the same letters and digits.
    """

    groups: list[Group]
    question_groups: int
    by_answers: frozenset[str]
    answers: dict[str, int]


def group_records(records: list[Record], likeness: Likeness) -> Grouping:
    """Return the records in the smallest groups that no pair of near-duplicates is divided between."""
    answers = [record.answer for record in records]
    with beside(partial(group_answers, likeness=likeness), answers, "near-duplicates of answers") as grouped_answers:
        questions = [normalize(record.question) for record in records]
        by_question = group_normalized(questions, likeness.question, "questions")
        by_answer, same_answer = grouped_answers()
    labels = join_labels(by_question, by_answer)
    groups: dict[int, Group] = {}
    question_of: dict[int, int] = {}
    by_answers = set()
    for record, label, question in zip(records, labels, by_question, strict=True):
        groups.setdefault(label, []).append(record)
        if question_of.setdefault(label, question) != question:
            by_answers.add(label)
    for group in groups.values():
        if len(group) > 1:
            group.sort(key=lambda record: record.id)
    return Grouping(
        groups=list(groups.values()),
        question_groups=len(set(by_question)),
        by_answers=frozenset(groups[label][0].id for label in by_answers),
        answers={record.id: number for record, number in zip(records, same_answer, strict=True)},
    )


def near_duplicates_in(train: list[Record], records: list[Record]) -> dict[str, set[str]]:
    """Return for each record, by id, the ids of the training records in its group of near-duplicates; see USUAL.

    There are none where split has dealt the records by these similarities: a group is in one split as a whole.
    """
    trained = {record.id for record in train}
    found: dict[str, set[str]] = {record.id: set() for record in records}
    for group in group_records([*records, *train], USUAL).groups:
        ids = {record.id for record in group}
        found |= dict.fromkeys(ids & found.keys(), ids & trained)
    return found


def group_answers(answers: list[str], likeness: Likeness) -> tuple[list[int], list[int]]:
    """Return two labels for each answer: the smallest index of those that are grouped with it, and are the same.

    The list is emptied: of a million answers it holds as much memory as all that is made of them here.
    """
    texts = list(map(normalize, answers))
    first: dict[str, int] = {}
    same = [first.setdefault(text or answer, i) for i, (text, answer) in enumerate(zip(texts, answers, strict=True))]
    del first  # a tenth of a gigabyte for a million
    answers.clear()
    if likeness.answer is None:
        return list(range(len(texts))), same
    least = likeness.answer_characters
    alike = group_texts(texts, likeness.answer, least, sys.maxsize, "answers")
    return join_labels(alike, group_texts(texts, likeness.answer**2, least, SHORT_ANSWER, "short answers")), same


def group_texts(texts: list[str], similarity: float, least: int, below: int, of: str) -> list[int]:
    """Return a label for each normalized text; one of a length outside `least` to `below` is a group by itself."""
    chosen = [i for i, text in enumerate(texts) if least <= len(text) < below]
    labels = list(range(len(texts)))
    for index, label in zip(chosen, group_normalized([texts[i] for i in chosen], similarity, of), strict=True):
        labels[index] = chosen[label]
    return labels


def join_labels(first: list[int], second: list[int]) -> list[int]:
    """Return the labels of the smallest groups that hold the groups of both.

    A label is the smallest index of its group, in the arguments as in what is returned.
    """
    parent = list(range(len(first)))

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for labels in (first, second):
        for index, label in enumerate(labels):
            if index == label:
                continue
            one, other = find(index), find(label)
            parent[max(one, other)] = min(one, other)
    return [find(index) for index in range(len(first))]


def suggest(records: list[Record], likeness: Likeness, groups: int) -> str:
    """Return which parameter leaves at least so many groups, '' where none does.

    Each of the two similarities is raised alone before both are: a higher one joins less.
    """
    raised = (0.9, 0.95, 0.98, 1.0)
    keys = {"question": "split.near_duplicate_similarity", "answer": "split.near_duplicate_answer_similarity"}
    now = {name: getattr(likeness, name) for name in keys}
    for names in (["question"], ["answer"], ["question", "answer"]):
        for value in raised:
            if any(now[name] is None or now[name] >= value for name in names):
                continue
            found = len(group_records(records, replace(likeness, **dict.fromkeys(names, value))).groups)
            if found >= groups:
                return f"{' with '.join(f'{keys[name]}: {value}' for name in names)} leaves {found} groups"
    return ""


def list_groups(grouping: Grouping) -> list[dict[str, Any]]:
    """Return the groups of several records by the id of their first record: what is `alike` in them, and `records`."""
    lines = []
    for group in sorted((group for group in grouping.groups if len(group) > 1), key=lambda group: group[0].id):
        by_answers = group[0].id in grouping.by_answers
        shown = ("id", "question", "answer") if by_answers else ("id", "question")
        rows = [{name: getattr(record, name) for name in shown} for record in group]
        lines.append({"alike": "answers" if by_answers else "questions", "records": rows})
    return lines


def name_groups(lines: list[dict[str, Any]], near_duplicates: Iterable[dict[str, Any]]) -> None:
    """Give each line whose `id` is in a group of several records the name of the group, as `group`."""
    group_of = {record["id"]: line["records"][0]["id"] for line in near_duplicates for record in line["records"]}
    for line in lines:
        if line["id"] in group_of:
            line["group"] = group_of[line["id"]]


def describe_test(
    test: list[Record],
    train: list[Record],
    near_duplicates: Iterable[dict[str, Any]],
    answers: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Return what a verdict on the test records rests on.

    Args:
        near_duplicates: as list_groups returns them, of these records and others.
        answers: as a grouping of these records and others has them; None: they are compared here.

    Returns:
        `groups` of near-duplicates that the test records are in, and `by_answers` how many of them are one for their
        answers; `shared_answers`, those of test records that stand in train too; `untrained_categories`.

    Raises:
        RecordError: a line is no group.
    """
    ids = {record.id for record in test}
    groups, by_answers = len(ids), 0
    for line in near_duplicates:
        try:
            names, alike = {record["id"] for record in line["records"]}, line["alike"]
        except (KeyError, TypeError):
            raise RecordError("data/splits/near_duplicates.jsonl: a line is no group; run `dvc repro split`") from None
        if mine := len(names & ids):
            groups -= mine - 1
            by_answers += alike == "answers"

    def answer_of(record: Record) -> int | str:
        return answers[record.id] if answers is not None else normalize(record.answer) or record.answer

    trained = set(map(answer_of, train))
    return {
        "groups": groups,
        "by_answers": by_answers,
        "shared_answers": sum(answer_of(record) in trained for record in test),
        "untrained_categories": sorted({record.category for record in test} - {record.category for record in train}),
    }


def add_up(tests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the same of the test records of all folds: none of their groups is in two."""
    total = {key: sum(test[key] for test in tests) for key in ("groups", "by_answers", "shared_answers")}
    return total | {"untrained_categories": sorted({name for test in tests for name in test["untrained_categories"]})}
