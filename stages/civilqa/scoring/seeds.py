"""Means over questions and training seeds, with intervals that hold both sources of variance.

A seed moves every question a little the same way, and each question a little its own way. More questions take out the
second, not the first: only more trainings do. Questions and seeds are crossed, as a seed is trained once in every fold
and a fold's questions are answered by the model of each seed.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats


class Spread(NamedTuple):
    """A mean over questions and seeds, and how sure it is.

    Attributes:
        n, seeds: how many questions and seeds it is over.
        by_question, by_seed: squared standard errors of the mean, with n - 1 and seeds - 1 degrees of freedom.
        most_by_seed: by_seed with the share of chance left in it, never 0 of several seeds: for p-values.
        variance: of the values, between `questions`, between `seeds`, and what is left of `both`; of several seeds.
    """

    mean: float
    n: int
    seeds: int
    by_question: float
    by_seed: float
    variance: dict[str, float]
    most_by_seed: float = 0.0

    def reach(self, *levels: float) -> float:
        """Return how far from the mean the quantiles of the levels reach together, both sources added in quadrature.

        Of one seed, or where seeds differ by no more than chance, it is Student's. Satterthwaite's degrees of freedom
        cover 92 to 94 % where three seeds differ as much as the questions do, this 94 to 97 % (tests/scoring).

        Source: Howe 1974, Approximate confidence limits on the mean of X + Y where X and Y are two tabled independent
        random variables.
        """
        squares = self.by_question * sum(stats.t.ppf(levels, self.n - 1)) ** 2
        if self.by_seed:
            squares += self.by_seed * sum(stats.t.ppf(levels, self.seeds - 1)) ** 2
        return float(np.sqrt(squares))

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval that a share of `level` misses; of equal values, and of one question, that value."""
        if self.n < 2:
            return self.mean, self.mean
        half = self.reach(1 - level / 2)
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """The level at which the interval by `most_by_seed` ends at 0, two-sided; 1 of one question.

        By `by_seed` three verdicts were false in 6 to 8 % of runs: three seeds that happen to agree say little.
        """
        if self.n < 2 or self.mean == 0:
            return 1.0
        most = self._replace(by_seed=self.most_by_seed)
        smallest = 1e-12
        if most.reach(1 - smallest / 2) <= abs(self.mean):
            return smallest
        return float(optimize.brentq(lambda p: most.reach(1 - p / 2) - abs(self.mean), smallest, 1.0))

    def describe(self) -> dict[str, Any]:
        """Return what metrics hold of several seeds; `seed_share` is their part of the squared standard error."""
        if self.seeds < 2:
            return {}
        total = self.by_question + self.by_seed
        share = self.by_seed / total if total else 0.0
        return {"seeds": self.seeds, "variance": self.variance, "seed_share": share}


def spread(values: np.ndarray) -> Spread:
    """Return the mean of values and what it varies with, by the analysis of variance of two crossed factors.

    Every question counts the same, however many of its values are there.

    Args:
        values: of shape (n questions, seeds); NaN where a question has no value of a seed, never a whole row or column.

    Source: Cornfield and Tukey 1956, Average values of mean squares in factorials.
    """
    n, seeds = values.shape
    means = np.nanmean(values, axis=1)
    between = float(np.var(means, ddof=1)) if n > 1 else 0.0
    mean = float(means.mean())
    if seeds < 2:
        return Spread(mean, n, seeds, between / n, 0.0, {})
    deviations = values - means[:, None]
    effects = np.nanmean(deviations, axis=0)
    freedom = np.count_nonzero(~np.isnan(values)) - n - seeds + 1
    both = float(np.nansum((deviations - effects) ** 2) / freedom) if freedom > 0 else 0.0
    between_seeds = float(np.var(effects, ddof=1))
    of_seeds = max(between_seeds - both / n, 0.0)
    variance = {"questions": max(between - both / seeds, 0.0), "seeds": of_seeds, "both": both}
    return Spread(mean, n, seeds, between / n, of_seeds / seeds, variance, between_seeds / seeds)


def tabulate(cells: dict[Any, dict[Any, list[Any]]]) -> np.ndarray:
    """Return the mean of each cell, by question and then by seed, of shape (questions, seeds, ...); NaN for no cell."""
    seeds = sorted({seed for row in cells.values() for seed in row}, key=str)
    known = {(name, seed): np.mean(found, axis=0) for name, row in cells.items() for seed, found in row.items()}
    nothing = np.full_like(next(iter(known.values())), np.nan, dtype=float)
    return np.array([[known.get((name, seed), nothing) for seed in seeds] for name in cells])


def average_seeds(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one line a question, with the scores of each system averaged over seeds; all else is of its first seed.

    Lines without a `seed` are returned as they are.
    """
    by_id: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if "seed" not in line:
            return lines
        by_id.setdefault(line["id"], []).append(line)
    return [_average(same) for same in by_id.values()]


def _average(lines: list[dict[str, Any]]) -> dict[str, Any]:
    merged = dict(lines[0])
    for system, entry in lines[0].items():
        if not (isinstance(entry, dict) and "scores" in entry):
            continue
        found = [line[system] for line in lines]
        merged[system] = entry | {
            "scores": {name: _mean([one["scores"][name] for one in found]) for name in entry["scores"]}
        }
        if "preferred" in entry:
            merged[system]["preferred"] = np.mean([one["preferred"] for one in found], axis=0).tolist()
    return merged


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
