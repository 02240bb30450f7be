"""Shows where the time of `dvc repro` goes: the seconds of each stage, and what starting it imports.

    python tests/benchmarks/startup.py             imports alone, a minute
    python tests/benchmarks/startup.py --repro     and whole runs of the default in copies of the project

Writes startup.json beside this file. Imports are timed by Python itself (-X importtime) in a process of its own for
each stage, the second one counted: the first reads the files from the disk.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from projects import ROOT, call, copy_project, write_report

from civilqa.speed.measurements import measure_limits

RESULT = Path(__file__).with_suffix(".json")
STAGES = ("prepare", "split", "format", "finetune", "evaluate", "benchmark")
SHOWN = 8  # packages a stage, the slowest first
WHOLE_RUNS = 3  # from nothing: a shared machine differs by a fifth within minutes
REPEATS = 5  # of `dvc repro` with nothing to do; the median counts
IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)")  # microseconds: itself, with what it imports


def import_times(stage: str) -> dict[str, Any]:
    """Return the seconds that a stage's imports take in all, and by the package whose modules they are."""
    # As each script begins.
    begin = "from civilqa.program.lifecycle.stage import start; start()"
    code = f"import sys; sys.path.insert(0, 'stages'); {begin}; import {stage}"
    for _ in range(2):
        found = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
    own: dict[str, int] = {}
    for microseconds, _, _, module in IMPORT.findall(found.stderr):
        package = module.partition(".")[0]
        own[package] = own.get(package, 0) + int(microseconds)
    slowest = sorted(own, key=own.__getitem__, reverse=True)[:SHOWN]
    return {
        "seconds": round(sum(own.values()) / 1e6, 2),
        "modules": len(IMPORT.findall(found.stderr)),
        "packages": {package: round(own[package] / 1e6, 2) for package in slowest},
    }


def make_repository(folder: Path) -> None:
    """Put a copy of the project, in which nothing has run, into a repository of its own."""
    folder.mkdir()
    copy_project(folder)
    for command in (["git", "init", "--quiet"], ["git", "add", "--all"]):
        subprocess.run(command, cwd=folder, check=True)


def matmul_rate(threads: int) -> float:
    """Return how many 10^9 FLOP/s the machine does in matrix products now: shared ones differ by the minute."""
    torch.set_num_threads(threads)
    return round(measure_limits("cpu", torch.float32).matmul_flops_per_second / 1e9, 1)


def time_whole(folder: Path, dvc: str, threads: int, path: str) -> dict[str, float]:
    """Return the seconds of `dvc repro` from nothing, those of its training loop, and the machine's rate before it."""
    make_repository(folder)
    rate = matmul_rate(threads)
    finished = call([dvc, "repro"], folder, threads, sample_memory=False, PATH=path)
    training = json.loads((folder / "metrics/runs/finetune.json").read_text(encoding="utf-8"))
    loop = training["train_seconds"]
    print(f"dvc repro {finished.seconds:>8.1f} s, {loop:.1f} of it the training loop ({rate:.0f} GFLOP/s)", flush=True)
    return {"seconds": finished.seconds, "training_loop_seconds": loop, "matmul_gflops": rate}


def time_repro(folder: Path, threads: int) -> dict[str, Any]:
    """Run `dvc repro` from nothing, each time in another copy, then with nothing to do; and each stage by itself."""
    dvc = str(Path(sys.executable).with_name("dvc"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    runs = [time_whole(folder / f"whole-{number}", dvc, threads, path) for number in range(WHOLE_RUNS)]
    nothing = [
        call([dvc, "repro"], folder / "whole-0", threads, sample_memory=False, PATH=path) for _ in range(REPEATS)
    ]
    single = folder / "single"
    make_repository(single)
    stages = {}
    for stage in STAGES:
        finished = call([dvc, "repro", "--single-item", "--force", stage], single, threads, PATH=path)
        stages[stage] = {"seconds": finished.seconds, "peak_mib": finished.peak_mib}
        print(f"{stage:10}{finished.seconds:>8.1f} s", flush=True)
    return {
        "stages": stages,
        "runs": runs,
        "nothing_to_do_seconds": statistics.median(finished.seconds for finished in nothing),
        "nothing_to_do_ran": sum(finished.output.count("Running stage") for finished in nothing),
    }


def print_imports(imports: dict[str, dict[str, Any]]) -> None:
    print(f"{'imports':10}{'seconds':>8}{'modules':>9}   slowest packages")
    for stage, found in imports.items():
        packages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in found["packages"].items())
        print(f"{stage:10}{found['seconds']:>8.2f}{found['modules']:>9,}   {packages}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the imports of each stage, and a whole run.")
    parser.add_argument("--repro", action="store_true", help="run the whole default pipeline, too (minutes)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    imports = {stage: import_times(stage) for stage in STAGES}
    print_imports(imports)
    report: dict[str, Any] = {"imports": imports}
    if arguments.repro:
        with tempfile.TemporaryDirectory() as name:
            report["repro"] = time_repro(Path(name), arguments.threads)
        repro = report["repro"]
        print(f"dvc repro with nothing to do: {repro['nothing_to_do_seconds']:.1f} s")
    write_report(arguments.output, report)


if __name__ == "__main__":
    main()
