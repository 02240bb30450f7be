"""The rows of the plots of scores: means in percent with their 95 % intervals, of all questions and by group."""

from typing import Any

from civilqa.scoring.comparison import Resampling, mean_interval, scores_of
from civilqa.scoring.predictions import SYSTEMS, Prediction
from civilqa.scoring.scores import SCORES

COLUMNS = ["group", "score", "series", "percent", "low", "high", "n"]
# Scores on one scale of 0 to 100 that a plot can show together.
PLOTTED = {
    "test": ("chrf", "rouge_l", "citation_f1", "citation_validity", "key_point_recall", "stop_rate"),
    "train": ("chrf", "recalled"),
}
GROUPS = {"test": "test", "train": "training recall"}


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
                    low, high = mean_interval(values, resampling)
                    percent = sum(values) / len(values)
                    rounded = {"percent": round(percent, 2), "low": round(low, 2), "high": round(high, 2)}
                    row = {"group": GROUPS[part], "score": name, "series": system + note}
                    rows.append({**row, **rounded, "n": len(values)})
    return rows


def group_rows(lines: list[Prediction], resampling: Resampling, note: str) -> list[dict[str, Any]]:
    """Return one row a group of test questions, score and system; a group is a category or a difficulty."""
    rows = []
    for key in ("category", "difficulty"):
        for group in sorted({line[key] for line in lines}):
            part = [line for line in lines if line[key] == group]
            rows += [
                {**row, "group": f"{group or '(none)'} (n={len(part)})"}
                for row in plot_rows({"test": part, "train": []}, resampling, note)
            ]
    return rows
