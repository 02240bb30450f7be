"""Scores the scores: python stages/score_the_scores.py [CASES.jsonl]

Reads:  labelled answers (id, text, label right or wrong, question_id, question; by default the project's own,
        tests/scoring/answer_cases.jsonl), data/raw
Writes: metrics/scorer.json with the project's own answers; with others prints only

Every score that an answer has is asked how often it takes a right answer for better than a wrong one, and how many of
each it accepts from a threshold on, which the development part of the own answers set. Then systems that answer by
program, right or wrong by their making, are judged. No stage: nothing in the pipeline depends on it.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__)

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from civilqa.dataset.records import record_id
from civilqa.program.errors import RecordError
from civilqa.program.files import write_json
from civilqa.scoring.adversaries import Item, answers
from civilqa.scoring.gold import read_gold, read_test_cases
from civilqa.scoring.judgement import ACCEPTED, judge_answer
from civilqa.scoring.scorer import SCORER, Case, best_threshold, measure, read_cases, scorer_version, share
from civilqa.scoring.scores import SCORES, score_answer

OWN = Path("tests/scoring/answer_cases.jsonl")
DATASET = Path("data/raw/civil_law_qa_dataset.csv")
COLUMN = 52  # of a name in the printed tables


def read_items() -> dict[str, Item]:
    """Return every question of the gold with its answer of reference, by id."""
    with DATASET.open(encoding="utf-8", newline="") as file:
        rows = {record_id(row["question"]): row for row in csv.DictReader(file)}
    items = {name: Item(gold, rows[name]["answer"], rows[name]["category"]) for name, gold in read_gold().items()}
    return items | {name: Item(case, case.answer, case.category) for name, case in read_test_cases().items()}


def read_labelled(path: Path, items: dict[str, Item]) -> list[Case]:
    """Return labelled answers.

    Raises:
        RecordError: a line is not as it must be, or its question has no gold.
    """
    try:
        cases = read_cases(path)
    except (OSError, ValidationError, ValueError) as error:
        raise RecordError(f"{path}: not lines of labelled answers: {error}; see the fields in --help") from error
    if unknown := sorted({case.question_id for case in cases} - set(items)):
        raise RecordError(f"{path}: no gold for question_id {', '.join(unknown[:5])}; it is in data/raw/gold.jsonl")
    return cases


def score_cases(cases: list[Case], items: dict[str, Item]) -> dict[str, np.ndarray]:
    """Return each score of the cases, higher is better, with the length as a control; NaN where it does not apply."""
    columns: dict[str, list[float]] = {}
    for case in cases:
        item = items[case.question_id]
        scores, _ = score_answer(case.text, case.question, item.reference, item.gold)
        values = {name: value for name, value in scores.items() if SCORES[name].better}
        for name, value in ({**values, "length": float(len(case.text))}).items():
            sign = -1.0 if name in SCORES and SCORES[name].better == "lower" else 1.0
            columns.setdefault(name, []).append(np.nan if value is None else sign * value)
    return {name: np.array(column) for name, column in columns.items()}


def measure_scores(
    cases: list[Case], columns: dict[str, np.ndarray], thresholds: dict[str, float], kind: str = ""
) -> dict[str, Any]:
    """Return how each score fares on cases, on those of one kind if named; scores that all cases share are left out."""
    chosen = np.array([kind in case.kind for case in cases])
    right = chosen & np.array([case.label == "right" for case in cases])
    wrong = chosen & ~right
    measured = {}
    for name, column in columns.items():
        sides = [np.flatnonzero(side & ~np.isnan(column)) for side in (right, wrong)]
        if name not in thresholds or not all(map(len, sides)) or len(np.unique(column[np.concatenate(sides)])) < 2:
            continue
        groups = [[cases[index].question_id for index in side] for side in sides]
        measured[name] = measure(column[sides[0]], column[sides[1]], *groups, threshold=thresholds[name])
    return {"right": int(right.sum()), "wrong": int(wrong.sum()), "scores": measured}


def choose_thresholds(cases: list[Case], columns: dict[str, np.ndarray]) -> dict[str, float]:
    """Return from where on each score accepts an answer; the content score has one of its own."""
    right = np.array([case.label == "right" for case in cases])
    known = {name: ~np.isnan(column) for name, column in columns.items()}
    both = {name: k for name, k in known.items() if (right & k).any() and (~right & k).any()}
    thresholds = {name: best_threshold(columns[name][right & k], columns[name][~right & k]) for name, k in both.items()}
    return thresholds | {"content_score": ACCEPTED, "content_accepted": 1.0}


def judge_systems(items: list[Item]) -> dict[str, Any]:
    """Return of each system by program how many of its answers are accepted."""
    judged = {}
    for name, right, made in answers(items):
        accepted = sum(judge_answer(text, item.gold, item.reference).accepted for item, text in made)
        judged[name] = {"should": "pass" if right else "fail", "accepted": share(accepted, len(made))}
        print(f"  {name:<{COLUMN}} {judged[name]['should']:<5} {accepted}/{len(made)}")
    return judged


def print_cases(title: str, measured: dict[str, Any]) -> None:
    print(f"{title}: {measured['right']} right, {measured['wrong']} wrong answers")
    print(f"  {'score':<28} AUC [95 %, by question]   right accepted   wrong accepted")
    for name, of in sorted(measured["scores"].items(), key=lambda pair: -pair[1]["auc"]):
        low, high = of["auc_interval"]
        right, wrong = (f"{of[side]['k']}/{of[side]['n']}" for side in ("right_accepted", "wrong_accepted"))
        print(f"  {name:<28} {of['auc']:.2f} [{low:.2f}, {high:.2f}]{'':<9} {right:<16} {wrong}")


def main() -> None:
    items = read_items()
    own = read_labelled(OWN, items)
    parts = {part: [case for case in own if case.part == part] for part in ("development", "held_out")}
    columns = {part: score_cases(cases, items) for part, cases in parts.items()}
    thresholds = choose_thresholds(parts["development"], columns["development"])
    if sys.argv[1:]:
        path = Path(sys.argv[1])
        cases = read_labelled(path, items)
        others = score_cases(cases, items)
        print_cases(str(path), measure_scores(cases, others, thresholds))
        print_cases(f"{path}, natural", measure_scores(cases, others, thresholds, "natural"))
        return
    measured = {part: measure_scores(cases, columns[part], thresholds) for part, cases in parts.items()}
    for part, of in measured.items():
        print_cases(part, of)
    print("systems by program: answers accepted")
    systems = judge_systems(list(items.values()))
    write_json(SCORER, {"version": scorer_version(), "cases": measured, "systems": systems})


if __name__ == "__main__":
    run(main)
