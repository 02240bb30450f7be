"""How far reviewers agree with each other, and the automatic scores with them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import krippendorff
import numpy as np

from civilqa.review.marks import FAULTS, SYSTEMS, VERDICTS, Mark, Review
from civilqa.scoring.predictions import Prediction
from civilqa.scoring.scorer import auc
from civilqa.scoring.scores import OF_PAIRS, SCORES

RANKS = {verdict: rank for rank, verdict in enumerate(reversed(VERDICTS))}  # wrong 0, usable 1, good 2
RESAMPLES = 1000
LEAST_EACH = 2  # right and wrong answers, below which nothing is said of a score

Ratings = dict[tuple[str, str], dict[str, Review]]  # by question's key and system: by reviewer


def collect_ratings(reviews: Iterable[Review]) -> Ratings:
    """Return the reviews that judge each answer; take the last ones alone."""
    ratings: Ratings = defaultdict(dict)
    for review in reviews:
        for system in SYSTEMS:
            if system in review.marks and review.marks[system].verdict is not None:
                ratings[review.key, system][review.reviewer] = review
    return ratings


def measure_agreement(reviews: list[Review], seed: int = 0) -> dict[str, Any]:
    """Return Krippendorff's alpha between reviewers, each with a 95 % interval, bootstrapped by question.

    Of the verdicts it is ordinal, of what is wrong (`faults`) nominal. 1 is full agreement, 0 that of chance. None
    where fewer than two reviewers judged the same answers, or all verdicts are the same one.

    Source: Krippendorff 2019, Content Analysis, 4th edition, chapter 12.
    """
    ratings = collect_ratings(reviews)
    reviewers = sorted({review.reviewer for review in reviews})
    shared = {unit: by for unit, by in ratings.items() if len(by) > 1}
    faults = {fault: _table(shared, reviewers, lambda mark, fault=fault: fault in mark.faults) for fault in FAULTS}
    verdicts = _table(shared, reviewers, lambda mark: RANKS[mark.verdict])
    return {
        "reviewers": reviewers,
        "answers": len(ratings),
        "answers_of_several": len(shared),
        "not_blind": sum(not review.blind for review in reviews),
        "verdict": _alpha(verdicts, "ordinal", seed),
        "faults": {fault: _alpha(table, "nominal", seed) for fault, table in faults.items()},
    }


def _table(shared: Ratings, reviewers: list[str], rate: Callable[[Mark], float]) -> dict[str, list[list[float]]]:
    """Return by question a row an answer, of how each reviewer rates it; nan where he does not."""
    table: dict[str, list[list[float]]] = defaultdict(list)
    for (key, system), by in shared.items():
        table[key].append([rate(by[name].marks[system]) if name in by else np.nan for name in reviewers])
    return table


def _alpha(table: dict[str, list[list[float]]], level: str, seed: int) -> dict[str, Any] | None:
    """Return alpha of ratings by question, `[answers x reviewers]` each, and its interval."""
    questions = [np.array(rows, float) for rows in table.values()]
    value = _alpha_of(questions, level)
    if value is None:
        return None
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        sample = _alpha_of([questions[index] for index in generator.choice(len(questions), len(questions))], level)
        drawn += [] if sample is None else [sample]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"alpha": round(value, 3), "interval": [round(float(low), 3), round(float(high), 3)]}


def _alpha_of(questions: list[np.ndarray], level: str) -> float | None:
    ratings = np.concatenate(questions) if questions else np.empty((0, 0))
    if len(np.unique(ratings[~np.isnan(ratings)])) < 2:  # without any difference alpha is 0 / 0
        return None
    return float(krippendorff.alpha(reliability_data=ratings.T, level_of_measurement=level))


def human_verdicts(ratings: Ratings) -> dict[tuple[str, str], bool]:
    """Return for each answer whether more reviewers call it usable than wrong; those in dispute are left out."""
    found = {}
    for unit, by in ratings.items():
        counts = Counter(review.marks[unit[1]].verdict != "wrong" for review in by.values())
        if counts[True] != counts[False]:
            found[unit] = counts[True] > counts[False]
    return found


def compare_with_scores(ratings: Ratings, lines: dict[str, Prediction]) -> dict[str, Any]:
    """Return how well each automatic score tells the answers that people can use from those that they call wrong.

    Args:
        lines: the predictions by answers_key.

    Returns:
        `usable`, `wrong` and `disputed`, the numbers of answers; by score `auc` (how often a usable answer scores
        better than a wrong one, ties half; 0.5 is chance) and `n` answers, where at least LEAST_EACH are of each kind.
    """
    human = {unit: usable for unit, usable in human_verdicts(ratings).items() if unit[0] in lines}
    found: dict[str, Any] = {
        "usable": sum(human.values()),
        "wrong": len(human) - sum(human.values()),
        "disputed": sum(unit[0] in lines for unit in ratings) - len(human),
        "scores": {},
    }
    for name, score in SCORES.items():
        if name in OF_PAIRS or score.better is None:
            continue
        sign = 1 if score.better == "higher" else -1
        sides: dict[bool, list[float]] = {True: [], False: []}
        for (key, system), usable in human.items():
            if (value := lines[key][system]["scores"].get(name)) is not None:
                sides[usable].append(sign * value)
        if min(map(len, sides.values())) >= LEAST_EACH:
            measured = auc(np.array(sides[True]), np.array(sides[False]))
            found["scores"][name] = {"auc": round(measured, 3), "n": sum(map(len, sides.values()))}
    return found
