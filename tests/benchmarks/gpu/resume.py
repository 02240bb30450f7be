"""Trains three times in copies of this folder, of which one is killed and goes on: do all end with the same losses?

Writes a line for each: the largest difference of a step's loss from the undisturbed run's, and whether the adapter's
bytes are the same. That of the second undisturbed run says how much of it is the GPU's own: kernels whose sums are
added up in another order every time.
"""

import csv
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from run import say

PATIENCE_SECONDS = 120


def train(folder: Path) -> subprocess.Popen:
    log = (folder / "train.log").open("a", encoding="utf-8")
    return subprocess.Popen([sys.executable, "stages/finetune.py"], cwd=folder, stdout=log, stderr=subprocess.STDOUT)


def kill_after_checkpoint(folder: Path, process: subprocess.Popen) -> bool:
    """Kill a training once its first checkpoint is whole; says whether it was still going."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if any(folder.glob(".checkpoints/*/checkpoint-*/seal.json")):
            break
        time.sleep(0.02)
    going = process.poll() is None
    process.kill()
    process.wait()
    return going


def run(name: str) -> tuple[dict[str, float], str, bool]:
    """Return the loss of each step, the adapter's hash, and whether the training was cut off and went on."""
    folder = Path.cwd().with_name(f"resume-{name}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path.cwd(), folder)
    process = train(folder)
    if name == "killed" and kill_after_checkpoint(folder, process):
        process = train(folder)
    if process.wait():
        raise SystemExit(f"{name}: ended with {process.returncode}\n{(folder / 'train.log').read_text()[-3000:]}")
    with (folder / "metrics/plots/loss_train.csv").open(encoding="utf-8") as file:
        losses = {row["step"]: float(row["train_loss"]) for row in csv.DictReader(file)}
    made = json.loads((folder / "metrics/runs/finetune.json").read_text(encoding="utf-8"))
    return losses, made["adapter_sha256"], made["resumed_from_step"] > 0


def main() -> None:
    names = ("undisturbed", "again", "killed")
    with ThreadPoolExecutor() as pool:
        runs = dict(zip(names, pool.map(run, names), strict=True))
    first, sha256, _ = runs["undisturbed"]
    for name, (losses, found, resumed) in runs.items():
        if losses.keys() != first.keys():
            raise SystemExit(f"{name}: has {len(losses)} steps, the undisturbed run {len(first)}")
        apart = max(abs(losses[step] - first[step]) for step in first)
        facts = {"run": name, "resumed": resumed, "steps": len(losses), "largest_difference": round(apart, 6)}
        say("resume", **facts, largest_loss=max(first.values()), same_bytes=found == sha256)
        print(facts)


if __name__ == "__main__":
    main()
