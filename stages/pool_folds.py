"""Pools the test answers of all folds into one table, so that every record is tested once: python stages/pool_folds.py

Reads:  the DVC experiments of the current commit that differ in split.fold alone, or those named on the command line
Writes: metrics/folds.json, data/folds/predictions.jsonl, data/folds/report.html
Params: seed, evaluate.permutations, the selected profile

No stage: its inputs are experiments. This runs them, one after the other:
    dvc exp run --queue -S split.fold=0,1,2,3,4 evaluate && dvc exp run --run-all
Each fold has a model of its own, trained without the records that it is tested on. The pooled mean is that of the
recipe, not of one model.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__)

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from civilqa.dataset.groups import add_up
from civilqa.experiments.revisions import (
    check_params,
    choose_folds,
    differing_text,
    list_experiments,
    read_metrics,
    read_rows,
)
from civilqa.program.errors import PipelineError
from civilqa.program.files import write_json, write_jsonl, write_text
from civilqa.program.parameters import read_params
from civilqa.scoring.comparison import Permutations, compare_systems, group_scores
from civilqa.scoring.contrasts import compare_contrasts
from civilqa.scoring.predictions import systems_of
from civilqa.scoring.report import render_report

METRICS = Path("metrics/folds.json")
FOLDER = Path("data/folds")


def pool(folds: dict[int, list[dict[str, Any]]], records: set[str]) -> list[dict[str, Any]]:
    """Return the test lines of all folds with their fold, sorted by id.

    Args:
        records: the ids of all records, each of which must be tested in exactly one fold.
    """
    lines = [{**line, "fold": fold} for fold, part in folds.items() for line in part]
    counts = Counter(line["id"] for line in lines)
    problems = [f"{name} is tested in {count} folds" for name, count in sorted(counts.items()) if count > 1]
    problems += [f"{name} is tested in no fold" for name in sorted(records - set(counts))]
    strangers = sorted(set(counts) - records)
    problems += [f"{name} is tested, but is no record of the first fold's data" for name in strangers]
    if problems:
        raise PipelineError("\n".join(problems))
    return sorted(lines, key=lambda line: line["id"])


def main() -> None:
    current = check_params(read_params())
    experiments = choose_folds(list_experiments(), current, sys.argv[1:])
    print("folds: " + ", ".join(f"{experiment.fold} {experiment.name}" for experiment in experiments))
    records, *others = (
        {row["id"] for row in read_rows(one.revision, "data/prepared/records.jsonl", one.name)} for one in experiments
    )
    if any(other != records for other in others):
        raise PipelineError("the experiments have different records; run every fold on the same data")
    folds = {one.fold: read_rows(one.revision, "data/predictions/test.jsonl", one.name) for one in experiments}
    lines = pool(folds, records)

    first = experiments[0]
    rated = [
        row for one in experiments for row in read_rows(one.revision, "data/predictions/contrasts.jsonl", one.name)
    ]
    # The further cases are left out: every fold's model was asked about them.
    pairs = [row for row in rated if row["part"] == "unseen" and row["id"] in records]
    permutations = Permutations(first.params["evaluate"]["permutations"], first.params["seed"])
    by_name = {one.name: read_metrics(one.revision) for one in experiments}
    if refused := differing_text(by_name):
        raise PipelineError(f"bits per character of the folds are no one score: {refused}; run all folds with the same")
    evaluated, *further = by_name.values()
    metrics = {
        **{key: evaluated[key] for key in ("notice", "profile", "asked_with", "chrf_signature", "versions")},
        **({"judge": evaluated["judge"]} if "judge" in evaluated else {}),
        "experiments": {str(experiment.fold): experiment.name for experiment in experiments},
        **compare_systems({"test": lines}, compare_contrasts(pairs, permutations), permutations),
        "test_data": add_up([fold["test_data"] for fold in (evaluated, *further)]),
        "test_by_fold": group_scores(lines, "fold", systems_of(lines)),
    }
    notice = lines[0]["notice"]
    title = f"민사법 질의응답 모델 평가 · {len(folds)}개 폴드를 합친 {len(lines)}문항"
    write_json(METRICS, metrics)
    write_jsonl(FOLDER / "predictions.jsonl", lines)
    write_text(FOLDER / "report.html", render_report({"test": lines}, metrics, notice, title))
    print_table(metrics, notice)


def print_table(metrics: dict[str, Any], notice: str) -> None:
    """Print the pooled means of base and adapter with the verdict on each score."""
    print(f"\n{notice}\n\n{metrics['test']['n']} questions, each answered by the model that was not trained on it")
    print(f"  {'':<24} {'base':>9} {'adapter':>9}   adapter - base [95 % interval]")
    means = {
        system: metrics["contrasts"].get("unseen", {}).get(system, {}) | metrics["test"][system]
        for system in ("base", "adapter")
    }
    for name, difference in metrics["difference"]["base"].items():
        print(
            f"  {name:<24} {means['base'][name]:>9.3f} {means['adapter'][name]:>9.3f}   {difference['mean']:+.3f} "
            f"[{difference['low']:+.3f}, {difference['high']:+.3f}] n={difference['n']} {difference.get('verdict', '')}"
        )
    print(f"report: {FOLDER / 'report.html'}")


if __name__ == "__main__":
    run(main)
