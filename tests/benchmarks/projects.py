"""What the benchmarks share: a copy of the project to run stages in, and a clock around a command."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "stages"), str(ROOT / "tests"), str(ROOT / "tests/support")]

from civilqa.model.hardware import describe_machine, versions  # noqa: E402  (from the folders above)
from conftest import copy_project, edit_params  # noqa: E402

SAMPLE_SECONDS = 0.1
SAMPLE_SHARE = 0.02  # of the time at most goes into samples: the kernel walks the whole memory of a process for one
NVIDIA_SMI = shutil.which("nvidia-smi")


@dataclass(frozen=True)
class Finished:
    """A command that ended well: its seconds, the peak of the memory that it and its children held, what it printed.

    `peak_gpu_mib` is what was in use on the first GPU, by whatever program; None where there is none.
    """

    seconds: float
    peak_mib: float
    output: str
    peak_gpu_mib: float | None = None


def make_project(folder: Path, **params: Any) -> Path:
    """Copy the project into a folder with other parameters, written as in `-S`."""
    copy_project(folder)
    edit_params(folder / "params.yaml", **params)
    return folder


def run_stages(folder: Path, stages: Iterable[str], threads: int) -> dict[str, Finished]:
    """Run stages in a copy of the project, each in a process of its own."""
    return {stage: call([sys.executable, f"stages/{stage}.py"], folder, threads) for stage in stages}


def call(command: list[str], folder: Path, threads: int, *, sample_memory: bool = True, **environment: str) -> Finished:
    """Run a command with so many threads and without the network; end with what it printed if it fails.

    Memory is the sum of the processes' unique set sizes, sampled: what would be free if they were gone. Each sample
    holds the process up; without any, the peak is 0.
    """
    log = folder / ".command.log"
    variables = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "PYTHONIOENCODING": "utf-8",
        **environment,
    }
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=variables)
        peak, gpu = 0, None
        while sample_memory and process.poll() is None:
            began = time.perf_counter()
            peak = max(peak, held_bytes(process.pid))
            gpu = max(filter(None, (gpu, gpu_mib())), default=None)
            time.sleep(max(SAMPLE_SECONDS, (time.perf_counter() - began) / SAMPLE_SHARE))
        process.wait()
    seconds = time.perf_counter() - started
    output = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode} in {folder}:\n{output[-4000:]}")
    return Finished(round(seconds, 2), round(peak / 2**20, 1), output, gpu)


def gpu_mib() -> float | None:
    """Return the memory in use on the first GPU, None where there is none."""
    if NVIDIA_SMI is None:
        return None
    query = [NVIDIA_SMI, "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout)


def held_bytes(pid: int) -> int:
    """Return the memory of a process and its children that nothing else shares, 0 if it is gone."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_full_info().uss
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return total
    return total


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write a benchmark's JSON, with the command that made it, the machine and the versions."""
    command = " ".join(["python", *(argument.replace(f"{ROOT}{os.sep}", "") for argument in sys.argv)])
    report = {"command": command, "machine": describe_machine(), "versions": versions(), **report}
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"-> {path}")
