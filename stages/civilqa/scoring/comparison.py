"""Means of scores, and differences between two systems on the same questions with their intervals.

A line is one question of data/predictions: `line[system]["scores"][name]` is a number, or None where it does not apply.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from civilqa.scoring.predictions import Prediction
from civilqa.scoring.scores import SCORES

BETTER, WORSE, EQUAL, UNDECIDED = "better", "worse", "equal", "no significant difference at this n"


@dataclass(frozen=True)
class Resampling:
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


def group_scores(lines: list[Prediction], key: str, systems: Iterable[str]) -> dict[str, Any]:
    """Return the mean scores of each category, difficulty or fold."""
    systems = list(systems)
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
    interval = bootstrap(
        (data,),
        np.mean,
        n_resamples=resampling.resamples,
        method="percentile",
        rng=np.random.default_rng(resampling.seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def compare(
    lines: list[Prediction], system: str, other: str, name: str, resampling: Resampling
) -> dict[str, Any] | None:
    """Return the mean of `system` minus `other` on a score, its 95 % interval and a verdict.

    Paired: questions are resampled, and each keeps both answers, so that hard and easy questions cancel out. With a
    dozen questions the interval is wide, and one that holds 0 means that these questions do not decide the matter.
    None where no question has both scores, or where no way is better.
    """
    better = SCORES[name].better
    pairs = [(line[system]["scores"].get(name), line[other]["scores"].get(name)) for line in lines]
    differences = [left - right for left, right in pairs if left is not None and right is not None]
    if not differences or better is None:
        return None
    low, high = mean_interval(differences, resampling)
    mean = float(np.mean(differences))
    identical = not any(differences)
    return {
        "n": len(differences),
        "mean": mean,
        "low": low,
        "high": high,
        "verdict": EQUAL if identical else verdict(name, low, high),
    }


def compare_all(
    lines: list[Prediction], system: str, others: Iterable[str], resampling: Resampling
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the difference of `system` to each other system on each score that both have."""
    compared = {
        other: {name: compare(lines, system, other, name, resampling) for name in SCORES if name != "recalled"}
        for other in others
    }
    return {
        other: {name: difference for name, difference in differences.items() if difference is not None}
        for other, differences in compared.items()
    }


def verdict(name: str, low: float, high: float) -> str:
    """Return in one phrase what a 95 % interval of a difference says of the first system."""
    if low <= 0 <= high:
        return UNDECIDED
    return BETTER if (low > 0) == (SCORES[name].better == "higher") else WORSE
