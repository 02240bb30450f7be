"""Runs phases of the measurements on one GPU, and writes a JSON line a result.

    bash tests/benchmarks/gpu/run.sh correctness resume parallel smoke
    bash tests/benchmarks/gpu/run.sh stages decode train peers variants
    GPU_PROFILE=tiny bash tests/benchmarks/gpu/run.sh correctness resume parallel smoke      without a GPU

    setup        copies the project, makes prepare's, split's and format's outputs unless the checkout has them, and the
                 base as files; done before any other phase
    correctness  CUDA against the CPU: attention, losses, gradients, answers, states of the 8-bit optimiser, peaks
    resume       a training that is killed and goes on ends as an undisturbed one
    parallel     accelerate's settings for several GPUs, on one
    smoke        every script of the phases below once, with small sizes: what crashes is seen at once
    stages       balanced, memory_efficient, benchmark as it is and on large sizes
    decode       answers by a CUDA graph and without, alone and in batches
    train        long and short rows, with each fast path and without
    peers        trl's own command line on the same tokens
    variants     other ways to do the same, which decide a default at most

Nothing is timed in correctness, resume, parallel and smoke, so their steps run at once. A step that would not end
within GPU_SECONDS (560) is left out and named; one that fails ends those alone that need its outputs.

Writes $OUT/results.jsonl and $OUT/log.txt; report.py makes tables of the first. GPU_PROFILE is the base
(llama-1b-random), GPU_WORK the folder of the copies (/tmp/civilqa-gpu), a few GB.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from projects import copy_data, copy_project, edit_params  # noqa: E402

OUT = Path(os.environ.get("OUT", "/tmp/civilqa-gpu-results"))  # noqa: S108 - on a machine of one's own
WORK = Path(os.environ.get("GPU_WORK", "/tmp/civilqa-gpu"))  # noqa: S108
PROFILE = os.environ.get("GPU_PROFILE", "llama-1b-random")
SECONDS = int(os.environ.get("GPU_SECONDS", "560"))
STARTED = time.monotonic()
PROJECT, BASE, READY = WORK / "project", WORK / "base", WORK / "ready"
MEASURE = str(HERE / "measure.py")
METRICS = {  # what a step may write into its folder
    "finetune": "metrics/finetune.json",
    "run": "metrics/runs/finetune.json",
    "benchmark": "metrics/benchmark.json",
    "peers": "training_peers.json",
}
SHOWN_LINES, SHOWN_WIDTH = 12, 400  # of what a step printed; the log has all

ENDED: dict[str, list[str]] = {"done": [], "failed": [], "left out": []}
WRITING = threading.Lock()


@dataclass(frozen=True)
class Step:
    """A command in a copy of the project. Those of one folder follow each other; one that fails ends them."""

    name: str
    command: tuple[str, ...]  # what Python gets
    seconds: int  # expected on a GPU; there it is ended after three times as many
    folder: str
    params: dict[str, Any] = field(default_factory=dict)
    small: bool = False  # its figures say nothing


def say(kind: str, **fields: Any) -> None:
    """Add a result to $OUT/results.jsonl."""
    line = json.dumps({"kind": kind, "card": os.environ.get("GPU_CARD"), **fields}, ensure_ascii=False, default=str)
    with (OUT / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def log(text: str, shown: str | None = None) -> None:
    """Write to $OUT/log.txt, and print it, or what is to be shown of it."""
    with WRITING:
        print(text if shown is None else shown, flush=True)
        with (OUT / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def elapsed() -> float:
    return time.monotonic() - STARTED


def on_gpu() -> bool:
    return os.environ["GPU_CARD"] != "cpu"


# --- what is run -----------------------------------------------------------------------------------------------------


def stage(folder: str, label: str, name: str, seconds: int, **params: Any) -> Step:
    return Step(f"{label}: {name}", (f"stages/{name}.py",), seconds, folder, params)


def correctness(small: bool) -> list[Step]:
    return [Step("checks", (MEASURE, "check"), 40, "tiny", {"model.profile": "tiny"})]


def stages(small: bool) -> list[Step]:
    epochs = {"train.epochs": 0.2 if small else None}
    large = {"train_batch_size": 4, "train_length": 4096, "new_tokens": 128, "generate_batch_size": 256}
    lean = {} if small else {"train.epochs": 1}  # its memory is wanted
    sizes: dict[str, Any] = {}
    if small:
        sizes = {"repeats": 1, "warmup": 1, "new_tokens": 8}
        large |= sizes
    sizes, large = ({f"benchmark.{key}": value for key, value in part.items()} for part in (sizes, large))
    steps = [
        stage("balanced", "balanced", "finetune", 30, **{"train.preset": "balanced"}, **epochs),
        stage("balanced", "large", "benchmark", 40, **large),
        stage("lean", "memory_efficient", "finetune", 30, **{"train.preset": "memory_efficient"}, **(epochs | lean)),
    ]
    return steps if on_gpu() else [steps[0], stage("balanced", "default", "benchmark", 40, **sizes), steps[2]]


def train(small: bool) -> list[Step]:
    cases = "long long.peft long.noliger long.checkpointing balanced balanced.sdpa.peft uneven uneven.sdpa one one.4bit"
    if small:
        cases = "small small.sdpa small.peft small.drop0 small.checkpointing small.noliger small.4bit small.8bit"
        cases += " uneven.sdpa small.fp16" if on_gpu() else ""
    return [measurement("train", cases, 60, small)]


def decode(small: bool) -> list[Step]:
    cases = "plain:2 graph:2 graph:2:uneven" if small else "graph:1 graph:64 graph:256 plain:1 plain:64 graph:64:uneven"
    return [measurement("decode", cases, 45, small)]


def variants(small: bool) -> list[Step]:
    if small:
        return [measurement("decode", f"static:2{' continuous:2' if on_gpu() else ''}", 40, small)]
    return [
        stage("balanced", "default", "benchmark", 40),
        measurement("train", "long.drop0 long.sdpa one.8bit one.4bit.adamw balanced.fp16 balanced.noneftune", 45),
        stage("8bit", "8bit", "finetune", 45, **{"train.quantization": "8bit"}),
        measurement("decode", "continuous:256", 60),
        measurement("decode", "static:1", 90),
        measurement("decode", "plain:256 plain:8", 40),
        measurement("train", "long.compile", 120),
    ]


def measurement(kind: str, cases: str, seconds: int, small: bool = False) -> Step:
    """Return the step that measures cases of one kind in one process."""
    options = ("--small",) if small else ()
    return Step(f"{kind} {cases}", (MEASURE, kind, *cases.split(), *options), seconds, f"{kind} {cases.split()[0]}")


def peers(small: bool) -> list[Step]:
    device, steps = ("cuda" if on_gpu() else "cpu"), ("4" if small else "60")
    command = (str(HERE.parent / "training_peers.py"), "--peers", "trl", "--setup", device, "--steps", steps)
    more = ("--repeats", "1", "--threads", str(threads()), "--base", str(BASE), "--output", METRICS["peers"])
    return [Step("peers", command + more, 60 if small else 100, "peers")]


def resume(small: bool) -> list[Step]:
    short = {} if on_gpu() else {"train.max_length": 192, "train.overlong": "truncate"}
    sizes = {"train.preset": "balanced", "train.epochs": 4 if on_gpu() else 1.5, **short}
    return [Step("resume", (str(HERE / "resume.py"),), 90, "resume", sizes)]


def parallel(small: bool) -> list[Step]:
    settings = ("ddp", "fsdp") if on_gpu() else ("ddp_cpu",)
    return [
        Step(
            f"launch {name}",
            (
                *("-m", "accelerate.commands.launch", "--config_file", f"stages/accelerate/{name}.yaml"),
                *("--num_processes", "1", "--main_process_port", str(29511 + port), "stages/finetune.py"),
            ),
            45,
            name,
            {"train.epochs": 0.3},
        )
        for port, name in enumerate(settings)
    ]


def smoke(small: bool) -> list[Step]:
    steps = [step for phase in (stages, decode, train, peers, variants) for step in phase(small=True)]
    return [replace(step, small=True) for step in steps]


UNTIMED = (correctness, resume, parallel, smoke)
PHASES = {phase.__name__: phase for phase in (*UNTIMED, stages, decode, train, peers, variants)}


# --- how it is run ---------------------------------------------------------------------------------------------------


def threads() -> int:
    return max(1, min(8, (os.cpu_count() or 2) // 2))


def setup() -> None:
    """Make the copy of the project that all others are copied from, and the base as files.

    Raises:
        SystemExit: that failed, and nothing else can run.
    """
    kept = READY.exists() and READY.read_text(encoding="utf-8") == PROFILE  # the base; the project may have changed
    for folder in WORK.iterdir() if WORK.exists() else ():
        if not kept or folder not in (BASE, READY):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    copy_project(PROJECT)
    shutil.rmtree(PROJECT / "metrics", ignore_errors=True)  # those of the commit are of another machine
    edit_params(PROJECT / "params.yaml", **{"model.profile": PROFILE, "hardware.threads": threads()})
    steps = [] if kept else [Step("base as files", (MEASURE, "base", str(BASE)), 60, "project")]
    if not copy_data(PROJECT):
        steps += [stage("project", "data", name, 20) for name in ("prepare", "split", "format")]
    if not all(map(run_step, steps)):
        raise SystemExit("setup failed: nothing else was tried")
    base = {"name": str(BASE), "weights": "pretrained", "tokenizer": None}
    edit_params(PROJECT / "params.yaml", **{f"profiles.{PROFILE}.{key}": value for key, value in base.items()})
    READY.write_text(PROFILE, encoding="utf-8")


def run_steps(steps: list[Step]) -> None:
    """Run the steps of one folder until one fails."""
    for number, step in enumerate(steps):
        if not run_step(step):
            ENDED["left out"] += [f"{later.name} (needs {step.name})" for later in steps[number + 1 :]]
            return


def run_step(step: Step) -> bool:
    """Run a step in what time is left, write what it printed and measured; returns whether it ended well."""
    left = SECONDS - elapsed()
    if left < step.seconds:
        log(f"== LEFT OUT {step.name}: {left:.0f} s left, {step.seconds} expected")
        ENDED["left out"].append(step.name)
        return False
    folder = WORK / step.folder.replace(":", "-").replace(" ", "-")
    if not folder.exists():
        shutil.copytree(PROJECT, folder)
    edit_params(folder / "params.yaml", **step.params)
    began, now = elapsed(), time.time()
    log(f"== {step.name} (at {began:.0f} s)")
    printed = folder / "printed.log"
    with printed.open("w", encoding="utf-8") as file:
        command = [sys.executable, *step.command]
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status: Any = process.wait(min(step.seconds * (3 if on_gpu() else 10), left))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            status = "too slow"
    seconds = round(elapsed() - began, 1)
    found = {name: folder / path for name, path in METRICS.items()}
    found = {name: path for name, path in found.items() if path.exists() and path.stat().st_mtime >= now}
    metrics = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items()}
    say("step", name=step.name, status=status, seconds=seconds, small=step.small, params=step.params, **metrics)
    lines = printed.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    lines = [line for line in lines if line.strip() and "%|" not in line]
    head = f"== {step.name} ended with {status} after {seconds} s"
    log("\n".join([head, *lines]), "\n".join([head, *(line[:SHOWN_WIDTH] for line in lines[-SHOWN_LINES:])]))
    ENDED["done" if status == 0 else "failed"].append(f"{step.name} ({status})" if status else step.name)
    return status == 0


def main() -> None:
    unknown = set(sys.argv[1:]) - {"setup", *PHASES}
    if unknown or not sys.argv[1:]:
        raise SystemExit(f"{__doc__}\nfound {', '.join(sorted(unknown)) or 'no phase'}")
    OUT.mkdir(parents=True, exist_ok=True)
    asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"]
    card = subprocess.run(asked, capture_output=True, text=True, check=True).stdout if shutil.which(asked[0]) else "cpu"
    os.environ["GPU_CARD"] = card.strip()
    setup()
    phases = [PHASES[name] for name in sys.argv[1:] if name != "setup"]
    for at_once, group in groupby(phases, key=lambda phase: phase in UNTIMED):
        steps = [step for phase in group for step in phase(small=False)]
        if not at_once:
            for step in steps:
                run_step(step)
            continue
        folders = {step.folder: [other for other in steps if other.folder == step.folder] for step in steps}
        with ThreadPoolExecutor(max_workers=16 if on_gpu() else 2) as pool:
            list(pool.map(run_steps, folders.values()))
    for how, names in ENDED.items():
        log(f"{how}: {'; '.join(names) or 'none'}")
    log(f"{elapsed():.0f} s")
    sys.exit(1 if ENDED["failed"] else 0)


if __name__ == "__main__":
    main()
