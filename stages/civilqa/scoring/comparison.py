"""Means of scores, and differences between two systems on the same questions with their intervals.

A line is one question of data/predictions: `line[system]["scores"][name]` is a number, or None where it does not apply.
Lines of several trainings say their `seed`, and a question has one of each: means are over its seeds first, and
intervals and p-values allow for both questions and seeds.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from civilqa.scoring.predictions import SYSTEMS, Prediction, others_of, systems_of
from civilqa.scoring.scores import SCORES
from civilqa.scoring.seeds import Spread, average_seeds, spread, tabulate

# What decides whether tuning helped, named before anything is measured: knowledge, the articles cited, and form. All
# other scores are described with their intervals: of some twenty, one or the other differs by chance.
PRIMARY = ("contrast_accuracy", "reference_citation_f1", "ends_cleanly")
LEVEL = (
    0.05  # of the verdicts together: under no difference a run has one that is not UNDECIDED in 5 % of cases at most
)
POWER = 0.8

BETTER, WORSE = "better", "worse"
UNDECIDED = "no difference seen"
AT_FLOOR, AT_CEILING = "cannot tell: both at the worst value", "cannot tell: both at the best value"


class Permutations(NamedTuple):
    """How p-values are drawn where there are too many cases to go through: how many, and the seed."""

    number: int
    seed: int


def mean_scores(lines: list[Prediction], systems: Iterable[str]) -> dict[str, Any]:
    """Return `n` questions, each system's means, and under `n_scored` how many answers a mean is of, where not all.

    A score that applies to no answer of a system is left out. Near-duplicates count as one question, as in intervals.
    """
    means: dict[str, Any] = {"n": len(lines)}
    partial: dict[str, dict[str, int]] = {}
    for system in systems:
        means[system] = {}
        for name in SCORES:
            values = scores_of(lines, system, name)
            if len(values):
                means[system][name] = float(np.mean(question_scores(lines, system, name)))
            if 0 < len(values) < len(lines):
                partial.setdefault(system, {})[name] = len(values)
    return means | ({"n_scored": partial} if partial else {})


def recall_scores(lines: list[Prediction]) -> dict[str, Any]:
    """Return the means of training questions asked again, with `recalled_with_articles` of each system.

    Of all answers that is the share that came back almost word for word and cites the articles of the training answer
    and no others (where that cites any). The numbers of articles hardly weigh in chrF++; in law they are the answer.
    """
    means = mean_scores(lines, SYSTEMS["train"])
    for system in SYSTEMS["train"] if lines else ():
        scores = [line[system]["scores"] for line in lines]
        same = [one["recalled"] == 1 and one["reference_citation_f1"] in (1, None) for one in scores]
        means[system]["recalled_with_articles"] = float(np.mean(same))
    return means


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


def question_of(line: Prediction, index: int) -> Any:
    """Return what question a line is of, `index` where it does not say; near-duplicates (equal `group`) are one."""
    return line.get("group", line.get("id", index))


def question_scores(lines: list[Prediction], system: str, name: str) -> list[float]:
    """Return a system's scores of one name by question, near-duplicates with their mean."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for index, line in enumerate(lines):
        if system in line and (value := line[system]["scores"].get(name)) is not None:
            groups[question_of(line, index)].append(value)
    return [float(np.mean(values)) for values in groups.values()]


def mean_interval(values: list[float], best: float | None = None) -> tuple[float, float]:
    """Return the 95 % interval of a mean over questions; of one value that value.

    Of shares (every value is 0 or 1) the exact one; otherwise Student's, cut to 0 and `best`. On data like these, few
    and with many ties, Student's covers 93 to 97 %, the percentile bootstrap 85 to 93 % of a dozen questions.

    Sources: Clopper and Pearson 1934, The use of confidence or fiducial limits illustrated in the case of the binomial;
    Student 1908, The probable error of a mean.
    """
    data = np.asarray(values, float)
    if best == 1 and are_shares(data):
        exact = stats.binomtest(int(data.sum()), len(data)).proportion_ci(method="exact")
        return float(exact.low), float(exact.high)
    low, high = spread(data[:, None]).interval(LEVEL)
    return (low, high) if best is None else (max(low, 0.0), min(high, best))


def are_shares(values: np.ndarray) -> bool:
    """Return whether every value is 0 or 1, or NaN: their mean is a share."""
    return bool(np.isin(values[~np.isnan(values)], (0, 1)).all())


def add_questions(values: np.ndarray, *added: float) -> np.ndarray:
    """Return values of shape (questions, seeds) with questions more, whose values are the same of every seed."""
    return np.vstack([values, *(np.full((1, values.shape[1]), value) for value in added)])


def system_interval(lines: list[Prediction], system: str, name: str) -> tuple[float, float]:
    """Return the 95 % interval of a system's mean score: mean_interval, or over questions and seeds.

    Near-duplicates count as one question, as in `compare`. To shares of several seeds two questions either way are
    added: without, seeds that agree on all would be certain.

    Source: Agresti and Coull 1998, Approximate is better than "exact" for interval estimation of binomial proportions.
    """
    cells: dict[Any, dict[Any, list[float]]] = defaultdict(lambda: defaultdict(list))
    for index, line in enumerate(lines):
        if (value := line[system]["scores"].get(name)) is not None:
            cells[question_of(line, index)][line.get("seed")].append(value)
    values, best = tabulate(cells), SCORES[name].best
    if values.shape[1] < 2:
        return mean_interval(values[:, 0].tolist(), best)
    if best == 1 and are_shares(values):
        values = add_questions(values, 0, 0, 1, 1)
    low, high = spread(values).interval(LEVEL)
    return (low, high) if best is None else (max(low, 0.0), min(high, best))


def intervals(lines: list[Prediction], systems: Iterable[str]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the 95 % interval of each system's mean of each score that it has."""
    return {
        system: {name: system_interval(lines, system, name) for name in SCORES if len(scores_of(lines, system, name))}
        for system in systems
    }


def compare(
    lines: list[Prediction], system: str, other: str, name: str, permutations: Permutations
) -> dict[str, Any] | None:
    """Return the mean of `system` minus `other` on a score, with its 95 % interval and its two-sided p-value.

    Paired by question, so that hard and easy questions cancel out. Questions that are near-duplicates of each other
    (equal `group`) count as one, with their mean. The p-value is that of the sign-flip test: had the two systems the
    same answers to give, each difference would as soon be positive as negative. It is exact where there are at most as
    many ways to choose the signs as `permutations`; of scores that are 0 or 1 it is McNemar's exact test. Of several
    seeds it is of each question's mean over them, and at least the p-value of the interval, which holds their variance.
    `detectable` is the smallest difference that so many questions and seeds show with 80 % power, of a primary score
    whatever the others show: at Holm's first level.

    The interval is Student's, or of several seeds Howe's. Of shares it is over two questions more, one won and one
    lost: of 12 questions, from a share of 2 to one of 97 %, Student's covers 45 %, this 95 % and more (tests/scoring).

    None where no question has both scores, or where no way is better.

    Sources: Fisher 1935, The design of experiments, chapter 3; Bonett and Price 2012, Adjusted Wald confidence interval
    for a difference of binomial proportions based on paired data.
    """
    if SCORES[name].better is None:
        return None
    measured: list[tuple[float, float]] = []
    cells: dict[Any, dict[Any, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for index, line in enumerate(lines):
        left, right = (line[each]["scores"].get(name) for each in (system, other))
        if left is not None and right is not None:
            measured.append((left, right))
            cells[question_of(line, index)][line.get("seed")].append((left, right))
    if not measured:
        return None
    pairs = tabulate(cells)  # (groups, seeds, 2)
    differences = pairs[..., 0] - pairs[..., 1]
    found = spread(differences)
    shares = SCORES[name].best == 1 and are_shares(np.array(measured))
    reached = spread(add_questions(differences, -1, 1)) if shares else found
    low, high = reached.interval(LEVEL)
    if best := SCORES[name].best:
        low, high = max(low, -best), min(high, best)
    p = sign_flip_p(np.nanmean(differences, axis=1), permutations)
    if found.seeds > 1:
        p = max(p, found.p)
    described = {"n": found.n, "mean": found.mean, "low": low, "high": high, "p": p, **found.describe()}
    return {**described, **_reach(name, pairs, reached)}


def sign_flip_p(differences: np.ndarray, permutations: Permutations) -> float:
    """Return the two-sided p-value of a mean of paired differences; 1 where at most one is not 0."""
    moved = differences[differences != 0]  # a difference of 0 stays one whatever its sign
    if len(moved) < 2:
        return 1.0
    test = stats.permutation_test(
        (moved,),
        np.sum,
        permutation_type="samples",
        n_resamples=permutations.number,
        vectorized=True,
        rng=np.random.default_rng(permutations.seed),
    )
    return float(test.pvalue)


def _reach(name: str, pairs: np.ndarray, found: Spread) -> dict[str, Any]:
    """Return what the questions could have shown, or that all values of both systems are the worst or the best."""
    score = SCORES[name]
    ends = [0.0, score.best] if score.better == "higher" else [score.best, 0.0]
    for end, word in zip(ends, (AT_FLOOR, AT_CEILING), strict=True):
        if end is not None and np.all((pairs == end) | np.isnan(pairs)):
            return {"detectable": None, "limit": word}
    level = LEVEL / len(PRIMARY) if name in PRIMARY else LEVEL
    most = found._replace(by_seed=found.most_by_seed)  # as the p-value takes it
    return {"detectable": None if found.n < 2 else most.reach(1 - level / 2, POWER)}


def compare_all(
    lines: list[Prediction], system: str, others: Iterable[str], permutations: Permutations
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the difference of `system` to each other system on each score that both have."""
    compared: dict[str, dict[str, dict[str, Any]]] = {}
    for other in others:
        found = {name: compare(lines, system, other, name, permutations) for name in SCORES if name != "recalled"}
        compared[other] = {name: difference for name, difference in found.items() if difference}
    return compared


def add_verdicts(differences: dict[str, dict[str, Any]]) -> None:
    """Give each primary difference a verdict, and a p-value (`p_holm`) that allows for their number."""
    adjusted = holm({name: differences[name]["p"] for name in PRIMARY if name in differences})
    for name, p in adjusted.items():
        found = differences[name]
        better = (found["mean"] > 0) == (SCORES[name].better == "higher")
        seen = BETTER if better else WORSE
        found["p_holm"] = p
        found["verdict"] = seen if p < LEVEL else found.pop("limit", UNDECIDED)


def holm(values: dict[str, float]) -> dict[str, float]:
    """Return p-values that allow for their number.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(values, key=values.__getitem__)):
        largest = max(largest, min(1.0, values[name] * (len(values) - rank)))
        adjusted[name] = largest
    return adjusted


def compare_systems(
    lines: dict[str, list[Prediction]], pairs: dict[str, Any], permutations: Permutations
) -> dict[str, Any]:
    """Return what metrics hold of each part that there is: means, the adapter's differences, and means by group.

    Args:
        pairs: of contrasts.compare_contrasts; their differences are among the others'.
    """
    test = average_seeds(lines["test"])
    systems = systems_of(test)
    compared = compare_all(lines["test"], "adapter", others_of(systems), permutations)
    for other, found in pairs.get("difference", {}).items():
        compared[other] = found | compared[other]
    add_verdicts(compared["base"])
    return {
        "test": mean_scores(test, systems),
        "interval": intervals(lines["test"], systems),
        "contrasts": {key: value for key, value in pairs.items() if key != "difference"},
        "difference": compared,
        "test_by_category": group_scores(test, "category", systems),
        "test_by_difficulty": group_scores(test, "difficulty", systems),
        **({"train_recall": recall_scores(lines["train"])} if "train" in lines else {}),
    }
