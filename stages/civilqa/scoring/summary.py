"""The few figures that one decides by, flat: what `dvc exp show` and `dvc metrics diff` list."""

from pathlib import Path
from typing import Any

from civilqa.program.files import read_json
from civilqa.scoring.comparison import UNDECIDED

DIGITS = 4


def read_losses(path: Path, adapter_sha256: str) -> dict[str, float]:
    """Return the losses in nats a token that metrics/finetune.json holds; {} if it is of another adapter."""
    trained = read_json(path) if path.is_file() else {}
    return trained["loss"] if trained.get("adapter_sha256") == adapter_sha256 else {}


def summarize(metrics: dict[str, Any], losses: dict[str, float]) -> dict[str, float | str | None]:
    """Return the figures of the adapter on the test split, beside its base, and of its training.

    Args:
        metrics: what metrics/evaluate.json holds.
        losses: of metrics/finetune.json, in nats a token; empty where the adapter was trained elsewhere.

    Returns:
        None for a figure that there is not: no reference cites an article, there was no validation split.
    """
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
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in figures.items()}


def _in_words(difference: dict[str, Any] | None) -> str | None:
    """Return a difference with its verdict in one cell of a table: `-0.585 better`."""
    if difference is None:
        return None
    verdict = "undecided" if difference["verdict"] == UNDECIDED else difference["verdict"]
    return f"{difference['mean']:+.3f} {verdict}"
