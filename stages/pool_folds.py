"""Pools the test answers of all folds into one table, so that every record is tested once: python stages/pool_folds.py

Reads:  the DVC experiments of the current commit that differ in split.fold alone, or those named on the command line
Writes: metrics/folds.json, data/folds/predictions.jsonl, data/folds/report.html
Params: seed, evaluate.bootstrap_resamples, the selected profile

No stage: its inputs are experiments. This runs them, one after the other:
    dvc exp run --queue -S split.fold=0,1,2,3,4 && dvc exp run --run-all
Each fold has a model of its own, trained without the records that it is tested on. The pooled mean is that of the
recipe, not of one model.
"""

if __name__ == "__main__":
    from civilqa.program.lifecycle.interruptions import end_while_importing

    end_while_importing()

import json
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from civilqa.experiments.revisions import read_rows
from civilqa.program.errors import PipelineError
from civilqa.program.files import sha256_json, write_json, write_jsonl, write_text
from civilqa.program.lifecycle.stage import run
from civilqa.program.parameters import PARAMS_PATH
from civilqa.scoring.comparison import Resampling, compare_all, group_scores, mean_scores
from civilqa.scoring.report import render_report

METRICS = Path("metrics/folds.json")
FOLDER = Path("data/folds")
SYSTEMS = ("base", "few_shot", "nearest", "adapter")
HOW = "run them with: dvc exp run --queue -S split.fold={folds} && dvc exp run --run-all"


@dataclass(frozen=True)
class Experiment:
    """A DVC experiment: its name, its commit, and its params.yaml."""

    name: str
    revision: str
    params: dict[str, Any]

    @property
    def fold(self) -> int:
        """The fold that it was tested on."""
        return self.params["split"]["fold"]

    @property
    def recipe(self) -> str:
        """What identifies its parameters besides the fold."""
        return sha256_json({**self.params, "split": {**self.params["split"], "fold": None}})


def git(*arguments: str) -> str:
    """Return what git prints.

    Raises:
        PipelineError: git failed.
    """
    try:
        finished = subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        raise PipelineError("git: not found; experiments are git commits: install git") from None
    if finished.returncode:
        reason = finished.stderr.strip().splitlines()
        raise PipelineError(
            f"git {' '.join(arguments)}: {reason[0] if reason else f'ended with {finished.returncode}'}; run this in "
            "the checkout in which the experiments were made"
        )
    return finished.stdout


def list_experiments() -> list[Experiment]:
    """Return the experiments made from the current commit, oldest first."""
    head = git("rev-parse", "HEAD").strip()
    prefix = f"refs/exps/{head[:2]}/{head[2:]}/"
    listed = git("for-each-ref", "--sort=committerdate", "--format=%(refname) %(objectname)", prefix)
    experiments = []
    for line in listed.splitlines():
        name, revision = line.removeprefix(prefix).split()
        try:
            params = parse_params(git("show", f"{revision}:{PARAMS_PATH}"))
        except PipelineError as error:
            print(f"warning: experiment {name} is left out: {error}")
        else:
            experiments.append(Experiment(name, revision, params))
    return experiments


def parse_params(text: str) -> dict[str, Any]:
    """Return a params.yaml's content, read as DVC reads it.

    Raises:
        PipelineError: it is no YAML, or does not say which fold was tested on.
    """
    try:
        params = YAML(typ="safe", pure=True).load(text)
        numbers = [params["split"][key] for key in ("fold", "folds")]
    except YAMLError as error:
        raise PipelineError(f"{PARAMS_PATH}: not readable as YAML: {error}") from None
    except (KeyError, TypeError):
        raise PipelineError(f"{PARAMS_PATH}: has no split.fold and split.folds; write both into it") from None
    if not all(isinstance(number, int) for number in numbers):
        raise PipelineError(f"{PARAMS_PATH}: split.fold and split.folds: found {numbers}, want whole numbers")
    return params


def read_current_params() -> dict[str, Any]:
    """Return the params.yaml of this folder.

    Raises:
        PipelineError: it is not there, or see parse_params.
    """
    try:
        text = PARAMS_PATH.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise PipelineError(f"{PARAMS_PATH}: not found in {Path.cwd()}; run this from the repository's root") from None
    except UnicodeDecodeError as error:
        raise PipelineError(f"{PARAMS_PATH}: not readable as YAML: {error}") from None
    return parse_params(text)


def choose_folds(experiments: list[Experiment], current: dict[str, Any], named: list[str]) -> list[Experiment]:
    """Return one experiment a fold, in the order of the folds, alike in every other parameter.

    Without names, of all recipes that are complete the one of the current params.yaml, or the only one there is. Where
    a fold was run twice, the later run is taken.

    Raises:
        PipelineError: a fold is missing, or it is not clear which experiments are meant.
    """
    if unknown := set(named) - {experiment.name for experiment in experiments}:
        raise PipelineError(
            f"no experiment {', '.join(sorted(unknown))} of this commit; there are: "
            f"{', '.join(experiment.name for experiment in experiments) or 'none'}"
        )
    chosen = [experiment for experiment in experiments if not named or experiment.name in named]
    recipes: dict[str, dict[int, Experiment]] = defaultdict(dict)
    for experiment in chosen:
        recipes[experiment.recipe][experiment.fold] = experiment
    if named and len(recipes) > 1:
        raise PipelineError(
            "the named experiments differ in more than split.fold: "
            + "; ".join(", ".join(e.name for e in folds.values()) for folds in recipes.values())
        )
    mine = Experiment("", "", current)
    wanted = set(range(current["split"]["folds"]))
    complete = {key: folds for key, folds in recipes.items() if set(folds) == wanted}
    if mine.recipe in complete:
        folds = complete[mine.recipe]
    elif len(complete) == 1:
        (folds,) = complete.values()
    elif complete:
        raise PipelineError(
            "several sets of experiments are complete; name one of them on the command line: "
            + "; ".join(" ".join(e.name for e in folds.values()) for folds in complete.values())
        )
    else:
        most = max(recipes.values(), key=len, default={})
        raise PipelineError(
            f"no set of experiments of this commit covers every fold; missing of the fullest: "
            f"{', '.join(map(str, sorted(wanted - set(most))))}\n"
            + HOW.format(folds=",".join(map(str, sorted(wanted))))
        )
    return [folds[fold] for fold in sorted(folds)]


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
    resampling = Resampling(params["evaluate"]["bootstrap_resamples"], params["evaluate"]["seed"])
    evaluated = [json.loads(git("show", f"{experiment.revision}:metrics/evaluate.json")) for experiment in experiments]
    metrics = {
        **{key: evaluated[0][key] for key in ("notice", "profile", "chrf_signature", "versions")},
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
