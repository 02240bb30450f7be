"""Runs prepare, split and format on synthetic datasets of growing size, and measures their time and memory.

    python tests/benchmarks/data_stages.py

Writes data_stages.json beside this file. A size takes seconds to minutes; 10⁶ rows need 4 GiB of memory and disk.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from make_dataset import make_rows, write_dataset
from projects import ROOT, describe_machine, held_bytes
from ruamel.yaml import YAML

RESULT = Path(__file__).with_suffix(".json")
STAGES = ("prepare", "split", "format")
SAMPLE_SECONDS = 0.2


def make_project(folder: Path, rows: int) -> None:
    """Copy what the three stages need into a folder, with a dataset of so many rows."""
    for name in ("stages", "models/tiny", "models/templates", "data/reference"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    write_dataset(folder / "dataset.csv", make_rows(rows, seed=20260608), rows)
    yaml = YAML()
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["prepare"] |= {"source": "dataset.csv", "on_invalid": "drop"}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def measure(folder: Path, stage: str) -> dict[str, float]:
    """Run a stage; return its seconds and the peak of the memory that it and its workers hold at one time, in MiB.

    Memory is the sum of the processes' unique set sizes, sampled: what would be free if they were gone.
    """
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, f"stages/{stage}.py"], cwd=folder, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, held_bytes(process.pid))
        time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{stage} failed in {folder}")
    return {"seconds": round(seconds, 1), "peak_mib": round(peak / 2**20)}


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
    results = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_project(folder, rows)
            stages = {stage: measure(folder, stage) for stage in STAGES}
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
        "machine": describe_machine(),
        "sizes": results,
        "growth": growth(results),
    }
    arguments.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"-> {arguments.output}")


if __name__ == "__main__":
    main()
