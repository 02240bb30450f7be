"""The folds of a cross-validation: DVC experiments of one commit that differ in split.fold alone."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from civilqa.experiments.revisions import git
from civilqa.program.errors import PipelineError
from civilqa.program.files import sha256_json
from civilqa.program.parameters import PARAMS_PATH

HOW = "run them with: dvc exp run --queue -S split.fold={folds} evaluate && dvc exp run --run-all"


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


def list_experiments() -> list[Experiment]:
    """Return the experiments made from the current commit, oldest first."""
    head = git("rev-parse", "HEAD").strip()
    prefix = f"refs/exps/{head[:2]}/{head[2:]}/"
    listed = git("for-each-ref", "--sort=committerdate", "--format=%(refname) %(objectname)", prefix)
    experiments = []
    for line in listed.splitlines():
        name, revision = line.removeprefix(prefix).split()
        try:
            params = parse_params(git("show", f"{revision}:./{PARAMS_PATH}"))
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
