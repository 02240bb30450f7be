"""Outputs of a stage as an experiment or commit left them, read from git and DVC's cache; runs that belong together.

Runs of one recipe are DVC experiments of one commit that differ in split.fold and train.seed alone. A run can be kept
as a file, for pooling where its commit and DVC's cache are not; that file's path then stands for its revision.
"""

import hashlib
import json
import subprocess
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

from ruamel.yaml import YAML

from civilqa.program.errors import PipelineError
from civilqa.program.files import open_aside, read_json, sha256_json
from civilqa.program.parameters import PARAMS_PATH, parse_params

MANIFEST = "models/adapter/manifest.json"
EVALUATED = "metrics/evaluate.json"
KEPT = ".zip"
KEPT_FILES = (
    *(str(PARAMS_PATH), "dvc.lock", EVALUATED, MANIFEST, "data/prepared/records.jsonl"),
    *("data/predictions/test.jsonl", "data/predictions/contrasts.jsonl"),
)


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
    """Return the rows of a JSONL output of a revision; see read_output."""
    try:
        rows = [json.loads(line) for line in read_output(revision, path, name).splitlines()]
    except ValueError:
        raise damaged(path, name or revision) from None
    if not all(isinstance(row, dict) for row in rows):
        raise damaged(path, name or revision)
    return rows


def damaged(path: str, name: str) -> PipelineError:
    how = "get it from a remote (`dvc fetch`), or run it again with `dvc exp run --force`"
    return PipelineError(f"{path} of {name}: damaged in DVC's cache; {how}")


def read_output(revision: str, path: str, name: str | None = None) -> bytes:
    """Return a file of an output of a revision: an experiment, a branch, a tag or a commit.

    DVC hands out what its cache holds without a look at it; the bytes are compared with the hash in dvc.lock here.

    Args:
        name: what messages call the revision, if not by itself.
    """
    if revision.endswith(KEPT):
        return read_kept(revision, path)
    # Here, since they take a second: a wrong argument should not wait for it.
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError
    from scmrepo.exceptions import SCMError

    name = name or revision
    # The project may be a folder of a larger repository, as whose files DVC names its outputs.
    path_in_repository = git("rev-parse", "--show-prefix").strip() + path
    try:
        files = DVCFileSystem(rev=revision, subrepos=True)
        expected, content = files.info(path_in_repository).get("md5"), files.read_bytes(path_in_repository)
    except (DvcException, DataIndexDirError, SCMError, OSError) as error:  # the second: not in this clone's cache
        raise PipelineError(
            f"{path} of {name}: cannot be read: {error or type(error).__name__}; `dvc exp list` names the "
            "experiments, `dvc fetch` gets outputs from a remote, and running it again makes them again"
        ) from None
    if expected is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() != expected:
        raise damaged(path, name)
    return content


def read_kept(kept: str, path: str) -> bytes:
    """Return a file of a run that `keep_run` wrote."""
    try:
        with ZipFile(kept) as archive:
            return archive.read(path)
    except (OSError, KeyError, BadZipFile, zlib.error) as error:
        how = "write it again where the run was made: python stages/pool_folds.py --keep FOLDER"
        raise PipelineError(f"{kept}: {path} cannot be read: {error}; {how}") from None


def show(revision: str, path: str) -> str:
    """Return the text of a file that git holds in a revision, or a kept run in place of git."""
    return read_kept(revision, path).decode() if revision.endswith(KEPT) else git("show", f"{revision}:./{path}")


def read_metrics(revision: str, path: str = EVALUATED) -> dict[str, Any]:
    """Return a metrics file of a revision, or of the `workspace`."""
    return read_json(Path(path)) if revision == "workspace" else json.loads(show(revision, path))


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

    @property
    def seed(self) -> int:
        """The seed of its training."""
        own = self.params["train"]["seed"]
        return self.params["seed"] if own is None else own

    def __str__(self) -> str:
        return f"{self.name} (fold {self.fold}, seed {self.seed})"


def recipe(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters by their dotted names, besides the fold and the training's seed."""
    named = dict(flatten(params))
    return {key: value for key, value in named.items() if key not in ("split.fold", "train.seed")}


def flatten(params: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every parameter with its dotted name."""
    for key, value in params.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), value


def list_experiments() -> list[Experiment]:
    """Return the experiments made from the current commit, oldest first."""
    head = git("rev-parse", "HEAD").strip()
    prefix = f"refs/exps/{head[:2]}/{head[2:]}/"
    listed = git("for-each-ref", "--sort=committerdate", "--format=%(refname) %(objectname)", prefix)
    experiments = []
    for line in listed.splitlines():
        name, revision = line.removeprefix(prefix).split()
        try:
            params = check_params(parse_params(show(revision, str(PARAMS_PATH))))
        except PipelineError as error:
            print(f"warning: experiment {name} is left out: {error}")
        else:
            experiments.append(Experiment(name, revision, params))
    return experiments


def open_run(kept: str) -> Experiment:
    """Return a run that was kept as a file."""
    return Experiment(kept, kept, check_params(parse_params(show(kept, str(PARAMS_PATH)))))


def keep_run(run: Experiment, folder: Path) -> Path:
    """Write what is pooled of a run into one file, named by its fold and seed; the same run has the same bytes."""
    path = folder / f"fold-{run.fold}.seed-{run.seed}{KEPT}"
    with open_aside(path, binary=True) as file, ZipFile(file, "w") as archive:
        for name in KEPT_FILES:
            archive.writestr(ZipInfo(name), read_output(run.revision, name, run.name), ZIP_DEFLATED)
    return path


def check_params(params: dict[str, Any]) -> dict[str, Any]:
    """Return a params.yaml's content, of which it is certain that it says which fold was tested on, of which seed."""
    split, train = params.get("split"), params.get("train")
    if not isinstance(split, dict) or not {"fold", "folds"} <= set(split):
        raise PipelineError(f"{PARAMS_PATH}: has no split.fold and split.folds; write both into it")
    if not isinstance(train, dict) or "seed" not in train or "seed" not in params:
        raise PipelineError(f"{PARAMS_PATH}: has no seed and train.seed; write both into it")
    numbers = [split["fold"], split["folds"]]
    if not all(isinstance(number, int) for number in numbers):
        raise PipelineError(f"{PARAMS_PATH}: split.fold and split.folds: found {numbers}, want whole numbers")
    return params


def sort_by_recipe(experiments: list[Experiment], named: list[str]) -> dict[str, dict[tuple[int, int], Experiment]]:
    """Return the experiments of each recipe, all of them or the named ones, by fold and seed; of two the later one.

    Raises:
        PipelineError: one of that name is not there, or the named ones are of several recipes.
    """
    if unknown := set(named) - {experiment.name for experiment in experiments}:
        known = ", ".join(experiment.name for experiment in experiments) or "none"
        raise PipelineError(f"no experiment {', '.join(sorted(unknown))} of this commit; there are: {known}")
    recipes: dict[str, dict[tuple[int, int], Experiment]] = defaultdict(dict)
    for experiment in experiments:
        if not named or experiment.name in named:
            recipes[sha256_json(recipe(experiment.params))][experiment.fold, experiment.seed] = experiment
    if named and len(recipes) > 1:
        first, *others = (next(iter(runs.values())) for runs in recipes.values())
        raise PipelineError(
            "the named experiments differ in more than split.fold and train.seed:\n"
            + "\n".join(f"{other} from {first}: {describe_differences(first, other)}" for other in others)
        )
    return recipes


def choose_runs(experiments: list[Experiment], current: dict[str, Any], named: list[str]) -> list[Experiment]:
    """Return one experiment a fold and seed, in the order of folds and seeds, alike in every other parameter.

    They cover every fold, or are several seeds of one. Without names, of all recipes that are complete the one of the
    current params.yaml, or the only one there is. Where a fold and seed was run twice, the later run is taken.

    Raises:
        PipelineError: runs are missing, or the named ones differ in more; which ones and how is in the message.
    """
    recipes = sort_by_recipe(experiments, named)
    complete = {key: runs for key, runs in recipes.items() if not missing_runs(runs, current)}
    if (own := sha256_json(recipe(current))) in complete:
        runs = complete[own]
    elif len(complete) == 1:
        (runs,) = complete.values()
    elif complete:
        raise PipelineError(
            "several sets of experiments are complete; name those of one of them on the command line:\n"
            + "\n".join(" ".join(e.name for e in runs.values()) for runs in complete.values())
        )
    else:
        raise PipelineError(describe_missing(max(recipes.values(), key=len, default={}), current))
    return [runs[key] for key in sorted(runs)]


def missing_runs(runs: dict[tuple[int, int], Experiment], current: dict[str, Any]) -> list[tuple[int, int]]:
    """Return which (fold, seed) a set of runs lacks: of every fold, or of the only one that has several seeds.

    How many folds there are is said by the runs; by the current parameters where there is none.
    """
    first = next(iter(runs.values()), Experiment("", "", current))
    folds = {fold for fold, _ in runs}
    seeds = {seed for _, seed in runs} or {first.seed}
    if len(folds) != 1 or len(seeds) == 1:
        folds = set(range(first.params["split"]["folds"]))
    return [(fold, seed) for seed in sorted(seeds) for fold in sorted(folds) if (fold, seed) not in runs]


def describe_missing(runs: dict[tuple[int, int], Experiment], current: dict[str, Any]) -> str:
    """Return which runs the fullest set lacks, with the commands that make them from the current parameters."""
    by_seed: dict[int, list[str]] = defaultdict(list)
    for fold, seed in missing_runs(runs, current):
        by_seed[seed].append(str(fold))
    lacks = "; ".join(f"fold {', '.join(folds)} of seed {seed}" for seed, folds in by_seed.items())
    here = recipe(current)
    theirs = recipe(next(iter(runs.values())).params) if runs else here
    differing = {key: value for key, value in theirs.items() if key in here and here[key] != value}
    # Quoted for Hydra, whose grammar -S has, and then for the shell.
    values = "".join(
        f" -S {quote(f'{key}={json.dumps(value, ensure_ascii=False)}')}" for key, value in differing.items()
    )
    queue = " && ".join(
        f"dvc exp run --queue{values} -S split.fold={','.join(folds)} -S train.seed={seed} evaluate"
        for seed, folds in by_seed.items()
    )
    return (
        "no set of experiments of this commit is complete: every fold of each seed, or several seeds of one fold; "
        f"the fullest lacks {lacks}\nrun them with: {queue} && dvc exp run --run-all\n"
        "or name the experiments to pool on the command line"
    )


def describe_differences(first: Experiment, other: Experiment) -> str:
    """Return in which parameters two experiments differ, besides fold and seed."""
    one, two = recipe(first.params), recipe(other.params)
    keys = [key for key in {**one, **two} if one.get(key, "absent") != two.get(key, "absent")]
    found = ", ".join(f"{key} {two.get(key, 'absent')} in place of {one.get(key, 'absent')}" for key in keys)
    hint = "; `seed` also draws the splits and random base weights: vary train.seed" if "seed" in keys else ""
    return found + hint


def check_same_sources(experiments: list[Experiment]) -> None:
    """Check that experiments were made from the same files, code and base, whatever the workspace held at the time.

    Raises:
        PipelineError: naming each experiment that was not, and what is another.
    """
    first, *others = experiments
    sources = find_sources(first)
    problems = []
    for other in others:
        found = find_sources(other)
        names = sorted(name for name in {*sources, *found} if sources.get(name) != found.get(name))
        if names:
            problems.append(f"{other}: made from another {', '.join(names)} than {first}")
    if problems:
        how = "run them again on one state of data, code and base: `dvc exp run --queue -S ... evaluate`"
        raise PipelineError("\n".join([*problems, how]))


def find_sources(experiment: Experiment) -> dict[str, Any]:
    """Return the hash of each file and folder that a run was made from, and what its base is."""
    stages = YAML(typ="safe").load(show(experiment.revision, "dvc.lock"))["stages"]
    made = {out["path"] for stage in stages.values() for out in stage.get("outs", ())}
    manifest = json.loads(read_output(experiment.revision, MANIFEST, experiment.name))
    return {
        dep["path"]: dep.get("md5")
        for name, stage in stages.items()
        if name != "benchmark"  # which is no part of it
        for dep in stage.get("deps", ())
        if not any(dep["path"] == out or dep["path"].startswith(f"{out}/") for out in made)
    } | {f"base model ({key})": manifest[key] for key in ("base", "tokenizer", "template_sha256", "quantization")}
