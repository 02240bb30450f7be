"""The scores, scored: how well each tells right answers from wrong ones, and what it takes systems by program for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel
from scipy.stats import binomtest, rankdata

from civilqa.program.files import read_json, sha256_file, sha256_json
from civilqa.scoring.gold import GOLD, TEST_CASES

SCORER = Path("metrics/scorer.json")
_CODE = (
    "generation/loops",
    "law/korean",
    *(f"scoring/{name}" for name in ("abstention", "clauses", "gold", "judgement", "quantities")),
    *(f"scoring/{name}" for name in ("scores", "similarity", "wording")),
)
RESAMPLES = 2000
# On answers written to measure it; below, a score does not tell them apart well enough to stand in a headline.
HEADLINE_AUC = 0.8


class Case(BaseModel, frozen=True, strict=True):
    """An answer that was written as right or as wrong, to a question of the gold."""

    id: str
    kind: str = ""
    text: str
    label: Literal["right", "wrong"]
    question_id: str
    question: str
    part: Literal["development", "held_out"] = "held_out"


def scorer_version() -> str:
    """Return what the scores of an answer depend on, hashed: their code and the annotations."""
    files = [*(Path(__file__).parents[1] / f"{name}.py" for name in _CODE), GOLD, TEST_CASES]
    return sha256_json({path.name: sha256_file(path) for path in files})


def read_scorer() -> dict[str, Any] | None:
    """Return what `stages/score_the_scores.py` last measured, unless it measured other scores than these."""
    if not SCORER.is_file():
        return None
    measured = read_json(SCORER)
    return measured if measured["version"] == scorer_version() else None


def describe_scores(scorer: Mapping[str, Any] | None) -> dict[str, str]:
    """Return a line in Korean for each score that was measured on the part of the cases that nothing was chosen by."""
    if scorer is None:
        return {}
    lines = {}
    for name, measured in scorer["cases"]["held_out"]["scores"].items():
        accepted, answers = measured["right_accepted"]["k"], measured["right_accepted"]["n"]
        wrong, others = measured["wrong_accepted"]["k"], measured["wrong_accepted"]["n"]
        lines[name] = (
            f"옳게 쓴 답변 {answers}개 가운데 {accepted}개를, 틀리게 쓴 답변 {others}개 가운데 {wrong}개를 "
            f"받아들였습니다 (AUC {measured['auc']:.2f})."
        )
    return lines


def may_lead(scorer: Mapping[str, Any] | None, name: str) -> bool:
    """Return whether a score tells right answers from wrong ones well enough to stand in a headline."""
    measured = scorer["cases"]["held_out"]["scores"].get(name) if scorer else None
    return measured is not None and measured["auc"] >= HEADLINE_AUC


def auc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Return how often a right answer scores higher than a wrong one, ties half.

    Source: Mann and Whitney 1947, doi:10.1214/aoms/1177730491.
    """
    ranks = rankdata(np.concatenate([right, wrong]))
    return float((ranks[: len(right)].sum() - len(right) * (len(right) + 1) / 2) / (len(right) * len(wrong)))


def best_threshold(right: np.ndarray, wrong: np.ndarray) -> float:
    """Return the score from which on most right answers and fewest wrong ones are accepted.

    Source: Youden 1950, doi:10.1002/1097-0142(1950)3:1<32::aid-cncr2820030106>3.0.co;2-3.
    """
    levels = np.unique(np.concatenate([right, wrong]))
    return float(max(levels, key=lambda level: np.mean(right >= level) - np.mean(wrong >= level)))


def measure(
    right: np.ndarray,
    wrong: np.ndarray,
    right_groups: list[str],
    wrong_groups: list[str],
    threshold: float,
    seed: int = 0,
) -> dict[str, Any]:
    """Return how a score fares: AUC with a 95 % interval, bootstrapped by question, and exact shares accepted."""
    questions = sorted({*right_groups, *wrong_groups})
    by_right = {q: right[[g == q for g in right_groups]] for q in questions}
    by_wrong = {q: wrong[[g == q for g in wrong_groups]] for q in questions}
    generator, drawn = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        sample = generator.choice(len(questions), len(questions))
        rights, wrongs = (np.concatenate([by[questions[index]] for index in sample]) for by in (by_right, by_wrong))
        if len(rights) and len(wrongs):
            drawn.append(auc(rights, wrongs))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "auc": round(auc(right, wrong), 3),
        "auc_interval": [round(float(low), 3), round(float(high), 3)],
        "threshold": round(threshold, 4),
        "right_accepted": share(int(np.sum(right >= threshold)), len(right)),
        "wrong_accepted": share(int(np.sum(wrong >= threshold)), len(wrong)),
    }


def share(k: int, n: int) -> dict[str, Any]:
    """Return a share with its exact 95 % interval (Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404)."""
    interval = binomtest(k, n).proportion_ci(method="exact")
    return {"k": k, "n": n, "interval": [round(interval.low, 3), round(interval.high, 3)]}


def read_cases(path: Path) -> list[Case]:
    return [Case.model_validate_json(line) for line in path.read_bytes().splitlines() if json.loads(line)]
