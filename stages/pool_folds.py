"""Pools the test answers of all folds into one table, so that every record is tested once: python stages/pool_folds.py

Reads:  the DVC experiments of the current commit that differ in split.fold alone, or those named on the command line
Writes: metrics/folds.json, data/folds/predictions.jsonl, data/folds/report.html
Params: seed, evaluate.bootstrap_resamples, the selected profile

No stage: its inputs are experiments. This runs them, one after the other:
    dvc exp run --queue -S split.fold=0,1,2,3,4 evaluate && dvc exp run --run-all
Each fold has a model of its own, trained without the records that it is tested on. The pooled mean is that of the
recipe, not of one model.
"""

from civilqa.program.lifecycle.start import start

if __name__ == "__main__":
    start(__doc__)

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from civilqa.experiments.folds import Experiment, choose_folds, list_experiments, read_current_params
from civilqa.experiments.revisions import git, read_rows
from civilqa.program.errors import PipelineError
from civilqa.program.files import write_json, write_jsonl, write_text
from civilqa.program.lifecycle.stage import run
from civilqa.scoring.comparison import Resampling, compare_all, group_scores, mean_scores
from civilqa.scoring.report import render_report

METRICS = Path("metrics/folds.json")
FOLDER = Path("data/folds")
SYSTEMS = ("base", "few_shot", "nearest", "adapter")


def read_output(experiment: Experiment, path: str) -> list[dict[str, Any]]:
    """Return the rows of a JSONL output as an experiment left it."""
    return read_rows(experiment.revision, path, experiment.name)


def pool(folds: dict[int, list[dict[str, Any]]], records: set[str]) -> list[dict[str, Any]]:
    """Return the test lines of all folds with their fold, sorted by id.

    Args:
        records: the ids of all records, each of which must be tested in exactly one fold.

    Raises:
        PipelineError: one is tested twice, or never, or is none of the records.
    """
    lines = [{**line, "fold": fold} for fold, part in folds.items() for line in part]
    counts = Counter(line["id"] for line in lines)
    problems = [f"{name} is tested in {count} folds" for name, count in sorted(counts.items()) if count > 1]
    problems += [f"{name} is tested in no fold" for name in sorted(records - set(counts))]
    problems += [
        f"{name} is tested, but is no record of the first fold's data" for name in sorted(set(counts) - records)
    ]
    if problems:
        raise PipelineError("\n".join(problems))
    return sorted(lines, key=lambda line: line["id"])


def main() -> None:
    current = read_current_params()
    experiments = choose_folds(list_experiments(), current, sys.argv[1:])
    print("folds: " + ", ".join(f"{experiment.fold} {experiment.name}" for experiment in experiments))
    prepared = [{row["id"] for row in read_output(one, "data/prepared/records.jsonl")} for one in experiments]
    if any(records != prepared[0] for records in prepared):
        raise PipelineError("the experiments have different records; run every fold on the same data")
    folds = {one.fold: read_output(one, "data/predictions/test.jsonl") for one in experiments}
    lines = pool(folds, prepared[0])

    params = experiments[0].params
    resampling = Resampling(params["evaluate"]["bootstrap_resamples"], params["seed"])
    evaluated = [
        json.loads(git("show", f"{experiment.revision}:./metrics/evaluate.json")) for experiment in experiments
    ]
    metrics = {
        **{key: evaluated[key] for key in ("notice", "profile", "chrf_signature", "versions")},
        "experiments": {str(experiment.fold): experiment.name for experiment in experiments},
        "test": mean_scores(lines, SYSTEMS),
        "difference": compare_all(lines, "adapter", ("base", "few_shot", "nearest"), resampling),
        "test_by_category": group_scores(lines, "category", SYSTEMS),
        "test_by_difficulty": group_scores(lines, "difficulty", SYSTEMS),
        "test_by_fold": group_scores(lines, "fold", SYSTEMS),
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
    for name, difference in metrics["difference"]["base"].items():
        base, adapter = (metrics["test"][system][name] for system in ("base", "adapter"))
        print(
            f"  {name:<24} {base:>9.3f} {adapter:>9.3f}   {difference['mean']:+.3f} [{difference['low']:+.3f}, "
            f"{difference['high']:+.3f}] n={difference['n']} {difference['verdict']}"
        )
    print(f"report: {FOLDER / 'report.html'}")


if __name__ == "__main__":
    run(main)
