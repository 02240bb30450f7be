"""Outputs of a stage as an experiment or commit left them, read from git and DVC's cache; folds among the experiments.

Folds are DVC experiments of one commit that differ in split.fold alone.
"""

import hashlib
import json
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from civilqa.program.errors import PipelineError
from civilqa.program.files import read_json, sha256_json
from civilqa.program.parameters import PARAMS_PATH, parse_params


def git(*arguments: str) -> str:
    """Return what git prints."""
    try:
        finished = subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        raise PipelineError("git: not found; experiments are git commits: install git") from None
    if finished.returncode:
        reason = [*finished.stderr.strip().splitlines(), f"ended with {finished.returncode}"][0]
        how = "run this in the checkout in which the experiments were made"
        raise PipelineError(f"git {' '.join(arguments)}: {reason}; {how}")
    return finished.stdout


def read_rows(revision: str, path: str, name: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of a JSONL output of a revision: an experiment, a branch, a tag or a commit.

    DVC hands out what its cache holds without a look at it; the bytes are compared with the hash in dvc.lock here.

    Args:
        name: what messages call the revision, if not by itself.
    """
    # Here, since they take a second: a wrong argument should not wait for it.
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    name = name or revision
    # The project may be a folder of a larger repository, as whose files DVC names its outputs.
    path_in_repository = git("rev-parse", "--show-prefix").strip() + path
    try:
        files = DVCFileSystem(rev=revision, subrepos=True)
        expected, content = files.info(path_in_repository).get("md5"), files.read_bytes(path_in_repository)
    except (DvcException, SCMError, OSError) as error:
        raise PipelineError(
            f"{path} of {name}: cannot be read: {error or type(error).__name__}; `dvc exp list` names the "
            "experiments, `dvc fetch` gets outputs from a remote, and running it again makes them again"
        ) from None
    damaged = PipelineError(
        f"{path} of {name}: damaged in DVC's cache; get it from a remote (`dvc fetch`), or run it again with "
        "`dvc exp run --force`"
    )
    if expected is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() != expected:
        raise damaged
    try:
        rows = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    except ValueError:
        raise damaged from None
    if not all(isinstance(row, dict) for row in rows):
        raise damaged
    return rows


def read_metrics(revision: str, path: str = "metrics/evaluate.json") -> dict[str, Any]:
    """Return a metrics file of a revision, or of the `workspace`."""
    return read_json(Path(path)) if revision == "workspace" else json.loads(git("show", f"{revision}:./{path}"))


def differing_text(runs: dict[str, dict[str, Any]]) -> str:
    """Return why bits per character of runs are not comparable, '' where they are.

    A tokenizer divides a text into other steps than another one, and a template asks for it in another way: how many
    bits it costs then says nothing about which model knows more.

    Args:
        runs: what metrics/evaluate.json holds, by the run's name.
    """
    asked_with = {name: metrics.get("asked_with") for name, metrics in runs.items()}
    if unknown := [name for name, found in asked_with.items() if not found]:
        return f"{', '.join(unknown)} does not say with which tokenizer and template; run `dvc repro evaluate` there"
    parts = [part for part in ("tokenizer", "template") if len({found[part] for found in asked_with.values()}) > 1]
    return f"another {' and '.join(parts)} in {', '.join(runs)}" if parts else ""


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


def recipe(params: dict[str, Any]) -> str:
    """Return what identifies parameters besides the fold."""
    return sha256_json({**params, "split": {**params["split"], "fold": None}})


def list_experiments() -> list[Experiment]:
    """Return the experiments made from the current commit, oldest first."""
    head = git("rev-parse", "HEAD").strip()
    prefix = f"refs/exps/{head[:2]}/{head[2:]}/"
    listed = git("for-each-ref", "--sort=committerdate", "--format=%(refname) %(objectname)", prefix)
    experiments = []
    for line in listed.splitlines():
        name, revision = line.removeprefix(prefix).split()
        try:
            params = check_params(parse_params(git("show", f"{revision}:./{PARAMS_PATH}")))
        except PipelineError as error:
            print(f"warning: experiment {name} is left out: {error}")
        else:
            experiments.append(Experiment(name, revision, params))
    return experiments


def check_params(params: dict[str, Any]) -> dict[str, Any]:
    """Return a params.yaml's content, of which it is certain that it says which fold was tested on."""
    split = params.get("split")
    if not isinstance(split, dict) or not {"fold", "folds"} <= set(split):
        raise PipelineError(f"{PARAMS_PATH}: has no split.fold and split.folds; write both into it")
    numbers = [split["fold"], split["folds"]]
    if not all(isinstance(number, int) for number in numbers):
        raise PipelineError(f"{PARAMS_PATH}: split.fold and split.folds: found {numbers}, want whole numbers")
    return params


def choose_folds(experiments: list[Experiment], current: dict[str, Any], named: list[str]) -> list[Experiment]:
    """Return one experiment a fold, in the order of the folds, alike in every other parameter.

    Without names, of all recipes that are complete the one of the current params.yaml, or the only one there is. Where
    a fold was run twice, the later run is taken.
    """
    if unknown := set(named) - {experiment.name for experiment in experiments}:
        known = ", ".join(experiment.name for experiment in experiments) or "none"
        raise PipelineError(f"no experiment {', '.join(sorted(unknown))} of this commit; there are: {known}")
    recipes: dict[str, dict[int, Experiment]] = defaultdict(dict)
    for experiment in experiments:
        if not named or experiment.name in named:
            recipes[recipe(experiment.params)][experiment.fold] = experiment
    if named and len(recipes) > 1:
        raise PipelineError(
            "the named experiments differ in more than split.fold: "
            + "; ".join(", ".join(e.name for e in folds.values()) for folds in recipes.values())
        )
    wanted = set(range(current["split"]["folds"]))
    complete = {key: folds for key, folds in recipes.items() if set(folds) == wanted}
    if recipe(current) in complete:
        folds = complete[recipe(current)]
    elif len(complete) == 1:
        (folds,) = complete.values()
    elif complete:
        raise PipelineError(
            "several sets of experiments are complete; name one of them on the command line: "
            + "; ".join(" ".join(e.name for e in folds.values()) for folds in complete.values())
        )
    else:
        missing = sorted(wanted - set(max(recipes.values(), key=len, default={})))
        raise PipelineError(
            f"no set of experiments of this commit covers every fold; missing of the fullest: "
            f"{', '.join(map(str, missing))}\nrun them with: dvc exp run --queue -S "
            f"split.fold={','.join(map(str, sorted(wanted)))} evaluate && dvc exp run --run-all"
        )
    return [folds[fold] for fold in sorted(folds)]
