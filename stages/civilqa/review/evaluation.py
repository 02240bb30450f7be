"""The last evaluation: the answers to judge, and which adapter gave them."""

from pathlib import Path
from typing import Any, NamedTuple

from civilqa.program.errors import RecordError
from civilqa.program.files import read_json, read_jsonl
from civilqa.review.marks import SYSTEMS, answers_key
from civilqa.scoring.comparison import mean_scores
from civilqa.scoring.predictions import Prediction

PREDICTIONS = Path("data/predictions")
METRICS = Path("metrics/evaluate.json")


class Evaluation(NamedTuple):
    """The predictions of the part `test` by answers_key, and what metrics/evaluate.json says of them."""

    lines: dict[str, Prediction]
    metrics: dict[str, Any]

    @property
    def adapter_sha256(self) -> str:
        return self.metrics["adapter_sha256"]

    @property
    def notice(self) -> str:
        return next(iter(self.lines.values()))["notice"]


def read_evaluation() -> Evaluation:
    """Return the last evaluation.

    Raises:
        RecordError: evaluate has not run, or data/predictions and metrics/evaluate.json are of two different runs, so
            that the answers would be held to be another adapter's.
    """
    metrics, path = read_json(METRICS), PREDICTIONS / "test.jsonl"
    lines = list(read_jsonl(path))
    means, measured = mean_scores(lines, SYSTEMS), metrics.get("test", {})
    if not lines or any(means[system] != measured.get(system) for system in SYSTEMS):
        raise RecordError(
            f"{path}: its scores are not those of {METRICS}: one of the two is of another run; run `dvc checkout`, or "
            "`dvc repro evaluate`"
        )
    keys = [answers_key(line["id"], {system: line[system]["answer"] for system in SYSTEMS}) for line in lines]
    return Evaluation(dict(zip(keys, lines, strict=True)), metrics)
