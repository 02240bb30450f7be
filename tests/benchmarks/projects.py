"""What the benchmarks share: a copy of the project to run stages in, and a clock around a command."""

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "stages"), str(ROOT / "tests"), str(ROOT / "tests/support")]

import conftest  # noqa: E402  (from the folders above)
from conftest import edit_params  # noqa: E402

SAMPLE_SECONDS = 0.1
SAMPLE_SHARE = 0.02  # of the time at most goes into samples: the kernel walks the whole memory of a process for one
GPU_SAMPLE_SECONDS = 0.02  # a peak of activations lasts no longer than a step
DATA = ("data/prepared", "data/splits", "data/formatted")  # what the stages before the training write
NOT_OF_A_CLONE = (".git", ".whl", ".venv*", "__pycache__", ".checkpoints", ".generations", "*_cache")
OUTPUTS = (*DATA, "data/predictions", "models/adapter", "models/merged")


@dataclass(frozen=True)
class Finished:
    """A command that ended well: its seconds, the peak of the memory that it and its children held, what it printed.

    `peak_gpu_mib` is what was in use on the first GPU, by whatever program; None where there is none.
    """

    seconds: float
    peak_mib: float
    output: str
    peak_gpu_mib: float | None = None


def copy_project(folder: Path) -> Path:
    """Copy what a clone of the project holds, without outputs of stages; also where there is no git."""
    listing = ["git", "-C", str(ROOT), "ls-files", "--error-unmatch", "params.yaml"]
    if shutil.which("git") and subprocess.run(listing, capture_output=True, check=False).returncode == 0:
        return conftest.copy_project(folder)

    def ignored(where: str, names: list[str]) -> set[str]:
        paths = {name: (Path(where) / name).relative_to(ROOT) for name in names}
        return {name for name, path in paths.items() if any(map(path.match, (*NOT_OF_A_CLONE, *OUTPUTS)))}

    return shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)


def copy_data(folder: Path) -> bool:
    """Copy the outputs of prepare, split and format into a copy of the project; says whether they are there."""
    if not all((ROOT / name).is_dir() for name in DATA):
        return False
    for name in DATA:
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    return True


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
    meter = gpu_meter() if sample_memory else None
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=variables)
        peak, gpu = 0, meter and GpuPeak(process, meter)
        if gpu:
            gpu.start()
        while sample_memory and process.poll() is None:
            began = time.perf_counter()
            peak = max(peak, held_bytes(process.pid))
            time.sleep(max(SAMPLE_SECONDS, (time.perf_counter() - began) / SAMPLE_SHARE))
        process.wait()
    seconds = time.perf_counter() - started
    output = log.read_text(encoding="utf-8", errors="replace")
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode} in {folder}:\n{output[-4000:]}")
    return Finished(round(seconds, 2), round(peak / 2**20, 1), output, gpu and gpu.mib)


class GpuPeak(threading.Thread):
    """The most memory in use on the first GPU while a process runs, by whatever program: `mib`."""

    def __init__(self, process: subprocess.Popen, used_bytes: Callable[[], int]) -> None:
        super().__init__(daemon=True)
        self.process, self.used_bytes, self.mib = process, used_bytes, 0.0

    def run(self) -> None:
        while self.process.poll() is None:
            self.mib = max(self.mib, round(self.used_bytes() / 2**20, 1))
            time.sleep(GPU_SAMPLE_SECONDS)


@functools.cache
def gpu_meter() -> Callable[[], int] | None:
    """Return what reads the bytes in use on the first NVIDIA GPU (it needs nvidia-ml-py); None where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    import torch

    torch.cuda.device_memory_used(0)  # what is missing for it is said now, not in a thread
    return functools.partial(torch.cuda.device_memory_used, 0)


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
    from civilqa.model.hardware import describe_machine, versions  # torch: seconds that not every script needs

    command = " ".join(["python", *(argument.replace(f"{ROOT}{os.sep}", "") for argument in sys.argv)])
    report = {"command": command, "machine": describe_machine(), "versions": versions(), **report}
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"-> {path}")
