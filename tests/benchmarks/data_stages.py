"""Runs prepare, split and format on synthetic datasets of growing size, and measures their time and memory.

    python tests/benchmarks/data_stages.py

Writes data_stages.json beside this file. A size takes seconds to minutes; 10⁶ rows need 4 GiB of memory and disk.
"""

import argparse
import json
import math
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from make_dataset import make_rows, write_dataset
from projects import make_project, run_stages

from civilqa.model.hardware import describe_machine

RESULT = Path(__file__).with_suffix(".json")
STAGES = ("prepare", "split", "format")


def growth(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return by which factor rows, n log n and seconds grow from each size to the next."""
    steps = []
    for before, after in pairwise(results):
        n, m = before["rows"], after["rows"]
        steps.append(
            {
                "from_rows": n,
                "to_rows": m,
                "n_log_n": round(m * math.log(m) / (n * math.log(n)), 2),
                "seconds": round(after["total_seconds"] / before["total_seconds"], 2),
            }
        )
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure prepare, split and format on growing datasets.")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    machine = describe_machine()
    results = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = make_project(Path(name), **{"prepare.source": "dataset.csv", "prepare.on_invalid": "drop"})
            write_dataset(folder / "dataset.csv", make_rows(rows, seed=20260608), rows)
            stages = {
                stage: {"seconds": round(finished.seconds, 1), "peak_mib": round(finished.peak_mib)}
                for stage, finished in run_stages(folder, STAGES, threads=machine["cores"]).items()
            }
            counts = json.loads((folder / "metrics/prepare.json").read_text(encoding="utf-8"))["rows"]
            results.append(
                {
                    "rows": rows,
                    "dataset_mb": round((folder / "dataset.csv").stat().st_size / 1e6, 1),
                    "counts": counts,
                    "stages": stages,
                    "total_seconds": round(sum(stage["seconds"] for stage in stages.values()), 1),
                    "peak_mib": max(stage["peak_mib"] for stage in stages.values()),
                }
            )
        print(json.dumps(results[-1], ensure_ascii=False), flush=True)
    report = {
        "command": "python tests/benchmarks/data_stages.py",
        "machine": machine,
        "sizes": results,
        "growth": growth(results),
    }
    arguments.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"-> {arguments.output}")


if __name__ == "__main__":
    main()
