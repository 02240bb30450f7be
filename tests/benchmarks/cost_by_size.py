"""Trains on datasets of growing size and on sequences of growing length, and measures time and memory.

    python tests/benchmarks/cost_by_size.py

Writes cost_by_size.json beside this file. 6,000 rows take several minutes. By rows: prepare to finetune on synthetic
rows, one epoch in batches of four. By length: the benchmark stage's training step on four sequences of one length. Time
that is linear in tokens has the same seconds for a million tokens everywhere; what a run costs before its first step,
and attention, which grows with the square of the length, show in it.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from make_dataset import make_rows, write_dataset
from projects import edit_params, make_project, run_stages, write_report

RESULT = Path(__file__).with_suffix(".json")
SEED = 20260608
BATCH = 4


def train_on_rows(folder: Path, rows: int, threads: int) -> dict[str, Any]:
    """Run the stages up to finetune on so many synthetic rows; returns what one epoch of training took."""
    make_project(
        folder,
        **{
            "hardware.threads": threads,
            "prepare.source": "dataset.csv",
            "prepare.on_invalid": "drop",
            "split.validation_fraction": 0.0,
            "train.batch_size": BATCH,
            "train.epochs": 1.0,
            "train.keep": "last",
        },
    )
    write_dataset(folder / "dataset.csv", make_rows(rows, seed=SEED), rows)
    finished = run_stages(folder, ("prepare", "split", "format", "finetune"), threads)
    metrics = json.loads((folder / "metrics/finetune.json").read_text(encoding="utf-8"))
    run = json.loads((folder / "metrics/runs/finetune.json").read_text(encoding="utf-8"))
    return {
        **cost("rows", rows, metrics["tokens_an_epoch"], run["train_seconds"], finished["finetune"].peak_mib),
        "training_rows": metrics["records"]["train"],
        "steps": metrics["steps_done"],
        "stage_seconds": {stage: result.seconds for stage, result in finished.items()},
    }


def train_on_length(folder: Path, length: int, threads: int) -> dict[str, Any]:
    """Run the benchmark stage in a project that has an adapter; returns what a training step of that length takes."""
    edit_params(
        folder / "params.yaml",
        **{
            "benchmark.train_length": length,
            "benchmark.train_batch_size": BATCH,
            "benchmark.repeats": 5,
            "benchmark.warmup": 2,
            "benchmark.prompt_length": 8,  # generation is not what is asked here
            "benchmark.new_tokens": 2,
        },
    )
    finished = run_stages(folder, ["benchmark"], threads)["benchmark"]
    training = json.loads((folder / "metrics/benchmark.json").read_text(encoding="utf-8"))["training"]
    step = training["step_seconds"]
    return {
        **cost("length", length, BATCH * length, step["median"], finished.peak_mib),
        "step_seconds": step,
        "model_flops_utilization": training["model_flops_utilization"],
    }


def cost(kind: str, size: int, tokens: int, seconds: float, peak_mib: float) -> dict[str, Any]:
    return {
        "kind": kind,
        "size": size,
        "tokens": tokens,
        "seconds": seconds,
        "seconds_per_million_tokens": round(seconds / tokens * 1e6, 1),
        "peak_mib": peak_mib,
    }


def print_table(results: list[dict[str, Any]]) -> None:
    print(f"{'':8}{'size':>8}{'tokens':>12}{'seconds':>10}{'s / million tokens':>20}{'peak MiB':>10}")
    for row in results:
        print(
            f"{row['kind']:8}{row['size']:>8,}{row['tokens']:>12,}{row['seconds']:>10.2f}"
            f"{row['seconds_per_million_tokens']:>20.1f}{row['peak_mib']:>10.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure training on growing datasets and growing lengths.")
    parser.add_argument("--rows", type=int, nargs="+", default=[60, 600, 6000])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        for rows in arguments.rows:
            results.append(train_on_rows(Path(name) / str(rows), rows, arguments.threads))
            print(json.dumps(results[-1]), flush=True)
        trained = Path(name) / str(arguments.rows[0])
        for length in arguments.lengths:
            results.append(train_on_length(trained, length, arguments.threads))
            print(json.dumps(results[-1]), flush=True)
    print_table(results)
    write_report(arguments.output, {"batch_size": BATCH, "threads": arguments.threads, "sizes": results})


if __name__ == "__main__":
    main()
