"""Means of scores, differences between two systems on the same questions with their intervals, and both as plots show
them and as one decides by them.

A line is one question of data/predictions: `line[system]["scores"][name]` is a number, or None where it does not apply.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap

from civilqa.scoring.predictions import SYSTEMS, Prediction
from civilqa.scoring.scores import SCORES

BETTER, WORSE, EQUAL, UNDECIDED = "better", "worse", "equal", "no significant difference at this n"


COLUMNS = ["group", "score", "series", "percent", "low", "high", "n"]
# Scores on one scale of 0 to 100 that a plot can show together.
PLOTTED = {
    "test": ("chrf", "rouge_l", "citation_f1", "citation_validity", "key_point_recall", "stop_rate"),
    "train": ("chrf", "recalled"),
}
GROUPS = {"test": "test", "train": "training recall"}


class Resampling(NamedTuple):
    """How intervals are drawn: number of resamples, and the seed."""

    resamples: int
    seed: int


def mean_scores(lines: list[Prediction], systems: Iterable[str]) -> dict[str, Any]:
    """Return `n` questions, each system's means, and under `n_scored` how many answers a mean is of, where not all.

    A score that applies to no answer of a system is left out.
    """
    means: dict[str, Any] = {"n": len(lines)}
    partial: dict[str, dict[str, int]] = {}
    for system in systems:
        means[system] = {}
        for name in SCORES:
            values = scores_of(lines, system, name)
            if len(values):
                means[system][name] = float(np.mean(values))
            if 0 < len(values) < len(lines):
                partial.setdefault(system, {})[name] = len(values)
    return means | ({"n_scored": partial} if partial else {})


def group_scores(lines: list[Prediction], key: str, systems: tuple[str, ...]) -> dict[str, Any]:
    """Return the mean scores of each category, difficulty or fold."""
    groups = sorted({str(line[key]) for line in lines})
    return {
        group or "(none)": mean_scores([line for line in lines if str(line[key]) == group], systems) for group in groups
    }


def scores_of(lines: list[Prediction], system: str, name: str) -> list[float]:
    """Return a system's scores of one name, those left out that do not apply."""
    values = (line[system]["scores"].get(name) for line in lines if system in line)
    return [value for value in values if value is not None]


def mean_interval(values: list[float], resampling: Resampling) -> tuple[float, float]:
    """Return the 95 % interval of a mean over questions: percentile bootstrap.

    Source: Efron and Tibshirani 1993, An introduction to the bootstrap, chapter 13.
    """
    data = np.asarray(values, float)
    # The bootstrap of a constant or of one value is that value; scipy warns and returns nan.
    if len(data) < 2 or np.ptp(data) == 0:
        return float(data.mean()), float(data.mean())
    rng = np.random.default_rng(resampling.seed)
    found = bootstrap((data,), np.mean, n_resamples=resampling.resamples, method="percentile", rng=rng)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def compare(
    lines: list[Prediction], system: str, other: str, name: str, resampling: Resampling
) -> dict[str, Any] | None:
    """Return the mean of `system` minus `other` on a score, its 95 % interval and a verdict.

    Paired: questions are resampled, and each keeps both answers, so that hard and easy questions cancel out. With a
    dozen questions the interval is wide, and one that holds 0 means that these questions do not decide the matter.
    None where no question has both scores, or where no way is better.
    """
    pairs = [(line[system]["scores"].get(name), line[other]["scores"].get(name)) for line in lines]
    differences = [left - right for left, right in pairs if left is not None and right is not None]
    if not differences or SCORES[name].better is None:
        return None
    low, high = mean_interval(differences, resampling)
    found = {"n": len(differences), "mean": float(np.mean(differences)), "low": low, "high": high}
    return {**found, "verdict": verdict(name, low, high) if any(differences) else EQUAL}


def compare_all(
    lines: list[Prediction], system: str, others: Iterable[str], resampling: Resampling
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the difference of `system` to each other system on each score that both have."""
    compared: dict[str, dict[str, dict[str, Any]]] = {}
    for other in others:
        found = {name: compare(lines, system, other, name, resampling) for name in SCORES if name != "recalled"}
        compared[other] = {name: difference for name, difference in found.items() if difference}
    return compared


def compare_systems(lines: dict[str, list[Prediction]], resampling: Resampling) -> dict[str, Any]:
    """Return what metrics hold of each part that there is: means, the adapter's differences, and means by group."""
    test, systems = lines["test"], SYSTEMS["test"]
    return {
        "test": mean_scores(test, systems),
        "difference": compare_all(test, "adapter", systems[:-1], resampling),
        "test_by_category": group_scores(test, "category", systems),
        "test_by_difficulty": group_scores(test, "difficulty", systems),
        **({"train_recall": mean_scores(lines["train"], SYSTEMS["train"])} if "train" in lines else {}),
    }


def verdict(name: str, low: float, high: float) -> str:
    """Return in one phrase what a 95 % interval of a difference says of the first system."""
    if low <= 0 <= high:
        return UNDECIDED
    return BETTER if (low > 0) == (SCORES[name].better == "higher") else WORSE


def plot_rows(lines: dict[str, list[Prediction]], resampling: Resampling, note: str) -> list[dict[str, Any]]:
    """Return one row a part, score and system: the mean in percent with its 95 % interval.

    Args:
        note: put behind the name of each system.
    """
    rows = []
    for part, names in PLOTTED.items():
        for name in names:
            for system in SYSTEMS[part]:
                values = [value * 100 / (SCORES[name].best or 1) for value in scores_of(lines[part], system, name)]
                if values:
                    figures = (sum(values) / len(values), *mean_interval(values, resampling))
                    row = (GROUPS[part], name, system + note, *(round(value, 2) for value in figures), len(values))
                    rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def group_rows(lines: list[Prediction], resampling: Resampling, note: str) -> list[dict[str, Any]]:
    """Return one row a group of test questions, score and system; a group is a category or a difficulty."""
    rows = []
    for key in ("category", "difficulty"):
        for group in sorted({line[key] for line in lines}):
            part = [line for line in lines if line[key] == group]
            named = {"group": f"{group or '(none)'} (n={len(part)})"}
            rows += [row | named for row in plot_rows({"test": part, "train": []}, resampling, note)]
    return rows


def summarize(metrics: dict[str, Any], trained: dict[str, Any]) -> dict[str, float | str | None]:
    """Return the figures of the adapter on the test split, beside its base, and of its training.

    Args:
        metrics: what metrics/evaluate.json holds.
        trained: what metrics/finetune.json holds; its losses (nats a token) count if they are of the same adapter.

    Returns:
        None for a figure that there is not: no reference cites an article, there was no validation split.
    """
    losses = trained["loss"] if trained.get("adapter_sha256") == metrics["adapter_sha256"] else {}
    adapter, difference = metrics["test"]["adapter"], metrics["difference"]["base"]
    figures = {
        "bits": adapter.get("bits_per_character"),
        "bits_vs_base": _in_words(difference.get("bits_per_character")),
        "chrf": adapter.get("chrf"),
        "chrf_vs_base": _in_words(difference.get("chrf")),
        "citation_f1": adapter.get("reference_citation_f1"),
        "recall": metrics["train_recall"]["adapter"].get("recalled"),
        "train_loss": losses.get("train_last"),
        "validation_loss": losses.get("validation_last"),
    }
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}


def _in_words(difference: dict[str, Any] | None) -> str | None:
    """Return a difference with its verdict in one cell of a table: `-0.585 better`."""
    if difference is None:
        return None
    return f"{difference['mean']:+.3f} {difference['verdict'].replace(UNDECIDED, 'undecided')}"
