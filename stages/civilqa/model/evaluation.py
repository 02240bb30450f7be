"""What the last evaluation found of an adapter, for those who come after it: cards, and the end of the benchmark."""

from pathlib import Path
from typing import Any

from civilqa.model.provenance import WEIGHTS_FILE, Adapter
from civilqa.program.files import read_json

EVALUATION = Path("metrics/evaluate.json")
TRAINING = Path("metrics/finetune.json")
REPORT = Path("data/predictions/report.html")


def read_metrics(path: Path, adapter: Adapter) -> dict[str, Any] | None:
    """Return a metrics file if it is of this adapter, else None: those of another one would be a false claim."""
    if not path.is_file():
        return None
    metrics = read_json(path)
    return metrics if metrics.get("adapter_sha256") == adapter.manifest.files[WEIGHTS_FILE] else None


def describe_verdict(metrics: dict[str, Any]) -> str:
    """Return in two lines the verdicts on the scores named in advance, and where the report is."""
    differences = metrics["difference"].get("base", {})
    verdicts = [f"{name} {found['verdict']}" for name, found in sorted(differences.items()) if "verdict" in found]
    return f"verdict: {', '.join(verdicts) or 'none: nothing was compared'}\nreport: {REPORT}"
