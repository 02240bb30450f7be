"""Pools the test answers of folds and training seeds, with intervals that hold both: python stages/pool_folds.py

Reads:  the DVC experiments of the current commit that differ in split.fold and train.seed alone, or those named on the
        command line: by their names, or as files that --keep wrote
Writes: metrics/folds.json, data/folds/predictions.jsonl, data/folds/report.html; with --keep FOLDER nothing of these,
        but each run as a file in the folder, which can be pooled in any checkout: fold-0.seed-1.zip
Params: seed, train.seed, split, evaluate.permutations, the selected profile

No stage: its inputs are experiments. This runs them, one after the other; leave out either -S:
    dvc exp run --queue -S split.fold=0,1,2,3,4 -S train.seed=1,2,3 evaluate && dvc exp run --run-all
Each fold has a model of its own, trained without the records that it is tested on, and of each seed another. The pooled
mean is that of the recipe, not of one model. Runs of several machines are pooled as kept files:
    python stages/pool_folds.py --keep runs        and where all files are:  python stages/pool_folds.py runs/*.zip
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__)

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

from civilqa.dataset.groups import add_up
from civilqa.experiments.revisions import (
    KEPT,
    Experiment,
    check_params,
    check_same_sources,
    choose_runs,
    differing_text,
    keep_run,
    list_experiments,
    open_run,
    read_metrics,
    read_rows,
    sort_by_recipe,
)
from civilqa.program.errors import PipelineError
from civilqa.program.files import write_json, write_jsonl, write_text
from civilqa.program.parameters import read_params
from civilqa.scoring.article_recall import article_recall, found_articles
from civilqa.scoring.comparison import PRIMARY, Permutations, compare_systems, group_scores
from civilqa.scoring.contrasts import compare_contrasts
from civilqa.scoring.predictions import systems_of
from civilqa.scoring.report import render_report
from civilqa.scoring.seeds import average_seeds
from civilqa.scoring.summary import describe_seeds

METRICS = Path("metrics/folds.json")
FOLDER = Path("data/folds")


def read_runs(experiments: list[Experiment], path: str) -> list[dict[str, Any]]:
    """Return the rows of an output of all experiments, with their fold and seed, those of a question side by side."""
    rows = [
        {**row, "fold": one.fold, "seed": one.seed}
        for one in experiments
        for row in read_rows(one.revision, path, one.name)
    ]
    return sorted(rows, key=lambda row: (row["id"], row["seed"]))


def check_records(experiments: list[Experiment], lines: list[dict[str, Any]]) -> None:
    """Check that all experiments have the same records, and that each is tested in exactly one fold.

    Of one fold, the records are those that it tests.
    """
    first, *others = experiments
    records, *different = (
        {row["id"]: row for row in read_rows(one.revision, "data/prepared/records.jsonl", one.name)}
        for one in experiments
    )
    problems = [
        f"{other}: has {len(rows)} records, {sum(records.get(name) == row for name, row in rows.items())} of them as "
        f"they are among the {len(records)} of {first}"
        for other, rows in zip(others, different, strict=True)
        if rows != records
    ]
    if problems:
        raise PipelineError("\n".join([*problems, "run every fold and seed on the same data"]))
    folds, seeds = defaultdict(set), defaultdict(list)
    for line in lines:
        folds[line["id"]].add(line["fold"])
        seeds[line["id"]].append(line["seed"])
    trained = sorted({one.seed for one in experiments})
    for name in sorted({*folds, *records} if len({one.fold for one in experiments}) > 1 else folds):
        if name not in records:
            problems.append(f"{name} is tested, but is no record of {first}")
        elif name not in folds:
            problems.append(f"{name} is tested in no fold")
        elif len(folds[name]) > 1:
            problems.append(f"{name} is tested in {len(folds[name])} folds")
        elif sorted(seeds[name]) != trained:
            problems.append(f"{name} is tested of the seeds {sorted(seeds[name])}, want each of {trained} once")
    if problems:
        raise PipelineError("\n".join(problems))


def keep(found: list[Experiment], named: list[str], folder: Path) -> None:
    """Write the runs of one recipe as files."""
    recipes = sort_by_recipe(found, named)
    if len(recipes) != 1:
        names = [" ".join(one.name for one in runs.values()) for runs in recipes.values()]
        raise PipelineError("\n".join([f"experiments of {len(names)} recipes; name those of one to keep:", *names]))
    for one in next(iter(recipes.values())).values():
        print(f"{one}: {keep_run(one, folder)}")


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    found = [*list_experiments(), *(open_run(name) for name in asked.runs if name.endswith(KEPT))]
    if asked.keep:
        keep(found, asked.runs, asked.keep)
        return
    current = check_params(read_params())
    experiments = choose_runs(found, current, asked.runs)
    print("runs: " + ", ".join(map(str, experiments)))
    check_same_sources(experiments)
    lines = read_runs(experiments, "data/predictions/test.jsonl")
    check_records(experiments, lines)
    folds, seeds = (sorted({getattr(one, name) for one in experiments}) for name in ("fold", "seed"))

    rated = read_runs(experiments, "data/predictions/contrasts.jsonl")
    # Of several folds the further cases are left out: every fold's model was asked about them.
    tested = {line["id"] for line in lines}
    pairs = [row for row in rated if row["part"] == "unseen" and (len(folds) == 1 or row["id"] in tested)]
    first = experiments[0]
    permutations = Permutations(first.params["evaluate"]["permutations"], first.params["seed"])
    by_name = {one.name: read_metrics(one.revision) for one in experiments}
    if refused := differing_text(by_name):
        raise PipelineError(
            f"bits per character of the runs are no one score: {refused}; run all of them with the same"
        )
    evaluated = [*by_name.values()]
    described = evaluated[0]
    metrics = {
        **{key: described[key] for key in ("notice", "profile", "asked_with", "chrf_signature", "versions")},
        **({"judge": described["judge"]} if "judge" in described else {}),
        "experiments": [{"name": one.name, "fold": one.fold, "seed": one.seed} for one in experiments],
        "folds": folds,
        "seeds": seeds,
        **compare_systems({"test": lines}, compare_contrasts(pairs, permutations), permutations),
        **({"articles": {"recall": article_recall(found)}} if (found := found_articles(lines)) else {}),
        "test_data": add_up([found["test_data"] for found in evaluated[:: len(seeds)]]),  # one of each fold
        "test_by_fold": group_scores(average_seeds(lines), "fold", systems_of(lines)),
        "test_by_seed": group_scores(lines, "seed", systems_of(lines)),
    }
    notice = lines[0]["notice"]
    shown = [line for line in lines if line["seed"] == seeds[0]]
    title = f"민사법 질의응답 모델 평가 · {len(folds)}개 폴드, {len(seeds)}개 시드를 합친 {len(shown)}문항"
    write_json(METRICS, metrics)
    write_jsonl(FOLDER / "predictions.jsonl", lines)
    write_text(FOLDER / "report.html", render_report({"test": shown}, metrics, notice, title))
    print_table(metrics, notice)


def print_table(metrics: dict[str, Any], notice: str) -> None:
    """Print the pooled means of base and adapter with the verdict on each score, and how much is due to the seeds."""
    n, folds, seeds = metrics["test"]["n"], len(metrics["folds"]), len(metrics["seeds"])
    of_folds = f"{folds} folds" if folds > 1 else "one fold"
    print(f"\n{notice}\n\n{n} questions, each answered by models that were not trained on it; {of_folds}")
    print(f"  {'':<24} {'base':>9} {'adapter':>9}   adapter - base [95 % interval]")
    means = {
        system: metrics["contrasts"].get("unseen", {}).get(system, {}) | metrics["test"][system]
        for system in ("base", "adapter")
    }
    differences = metrics["difference"]["base"]
    for name, difference in differences.items():
        print(
            f"  {name:<24} {means['base'][name]:>9.3f} {means['adapter'][name]:>9.3f}   {difference['mean']:+.3f} "
            f"[{difference['low']:+.3f}, {difference['high']:+.3f}] n={difference['n']} {difference.get('verdict', '')}"
        )
    print(describe_seeds(seeds))
    if seeds > 1:
        print(
            f"  {'variance of a difference':<24} {'questions':>9} {'seeds':>9} {'both':>9}   seeds' share of the error"
        )
        for name in PRIMARY:
            if (found := differences.get(name)) and found["seeds"] > 1:
                columns = " ".join(f"{found['variance'][of]:>9.5f}" for of in ("questions", "seeds", "both"))
                print(f"  {name:<24} {columns}   {100 * found['seed_share']:.0f} %")
    print(f"report: {FOLDER / 'report.html'}")


if __name__ == "__main__":
    run(main)
