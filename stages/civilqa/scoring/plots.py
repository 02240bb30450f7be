"""What `dvc plots show` draws of an evaluation: rows of the files in metrics/plots."""

from pathlib import Path
from typing import Any

from civilqa.program.files import write_csv
from civilqa.scoring.comparison import mean_interval, question_scores, scores_of
from civilqa.scoring.predictions import SYSTEMS, Prediction
from civilqa.scoring.scores import SCORES

FOLDER = Path("metrics/plots")
COLUMNS = ["group", "score", "series", "percent", "low", "high", "n"]
# Scores on one scale of 0 to 100 that a plot can show together.
PERCENT = {
    "test": ("chrf", "rouge_l", "citation_f1", "citation_validity", "key_point_recall", "stop_rate"),
    "train": ("chrf", "recalled"),
}
BITS = {"test": ("bits_per_character",), "train": ("bits_per_character",)}
GROUPS = {"test": "test", "train": "training recall"}
# Of each question by itself, in the unit of the score.
OF_QUESTIONS = {"bits_per_character": "bits a character", "chrf": "chrF++", "reference_citation_f1": "citation F1"}


def write_plots(lines: dict[str, list[Prediction]], note: str) -> None:
    """Write scores.csv, scores_by_group.csv, bits.csv and differences.csv.

    Args:
        note: put behind the name of each system.
    """
    write_csv(FOLDER / "scores.csv", plot_rows(lines, note), COLUMNS)
    write_csv(FOLDER / "scores_by_group.csv", group_rows(lines["test"], note), COLUMNS)
    bits = [{"bits": row.pop("percent"), **row} for row in plot_rows(lines, note, BITS)]
    write_csv(FOLDER / "bits.csv", bits, [name.replace("percent", "bits") for name in COLUMNS])
    write_csv(FOLDER / "differences.csv", difference_rows(lines["test"]), ["question", "score", "gain"])


def plot_rows(
    lines: dict[str, list[Prediction]], note: str, plotted: dict[str, tuple[str, ...]] = PERCENT
) -> list[dict[str, Any]]:
    """Return one row a part, score and system: the mean with its 95 % interval, in percent where the score has a best.

    Args:
        note: put behind the name of each system.
        plotted: which scores of each part.
    """
    rows = []
    for part, names in plotted.items():
        for name in names:
            best = SCORES[name].best
            percent = 100 / best if best else 1
            for system in SYSTEMS[part]:
                values = question_scores(lines[part], system, name)
                if values:
                    figures = (sum(values) / len(values), *mean_interval(values, best))
                    scaled = (round(value * percent, 2) for value in figures)
                    answers = len(scores_of(lines[part], system, name))
                    row = (GROUPS[part], name, system + note, *scaled, answers)
                    rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def group_rows(lines: list[Prediction], note: str) -> list[dict[str, Any]]:
    """Return one row a group of test questions, score and system; a group is a category or a difficulty."""
    rows = []
    for key in ("category", "difficulty"):
        for group in sorted({line[key] for line in lines}):
            part = [line for line in lines if line[key] == group]
            named = {"group": f"{group or '(none)'} (n={len(part)})"}
            rows += [row | named for row in plot_rows({"test": part, "train": []}, note)]
    return rows


def difference_rows(lines: list[Prediction]) -> list[dict[str, Any]]:
    """Return one row a question and score: by how much the adapter is better than the base, below 0 where it is worse.

    Questions are in the order of their gain in bits, so that where tuning helped least stands at the end, and by their
    ids, which the report shows too: these rows go into git, where a client's words must not.
    """
    rows = []
    for line in lines:
        for name, unit in OF_QUESTIONS.items():
            adapter, base = (line[system]["scores"].get(name) for system in ("adapter", "base"))
            if adapter is not None and base is not None:
                gain = adapter - base if SCORES[name].better == "higher" else base - adapter
                rows.append({"question": line["id"], "score": unit, "gain": round(gain, 4)})
    first = next(iter(OF_QUESTIONS.values()))
    order = {row["question"]: -row["gain"] for row in rows if row["score"] == first}
    return sorted(rows, key=lambda row: order.get(row["question"], 0.0))
