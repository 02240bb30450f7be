"""Kills the finetune stage at random moments under DVC and looks whether the next `dvc repro` ends as if it had not.

    python tests/support/kill_finetune.py 20        20 moments: about 15 minutes on two quiet cores

Each time one of three is killed with SIGKILL: the training alone, DVC alone (the training lives on and meets the next
one), or both. The adapter must come out with the bytes of the run that nobody disturbed.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "stages"), str(ROOT / "tests"), str(ROOT / "tests/support")]

from civilqa.program.files import sha256_file  # noqa: E402  (from the folders above)
from conftest import copy_project, edit_params  # noqa: E402

LOG = "repro.log"
ADAPTER = "models/adapter/adapter_model.safetensors"
# 14 records: 7 steps an epoch, and thus at most 7 steps to repeat.
SMALL = {"prepare.difficulties": ["초급"], "train.epochs": 3, "hardware.threads": 1}
STEPS, STEPS_BETWEEN_CHECKPOINTS = 21, 7
TARGETS = ("training", "dvc", "both")


@dataclass(frozen=True)
class Kill:
    """What was killed when, and what the `dvc repro` after it did."""

    target: str
    after_seconds: float
    steps_done: int
    resumed_from_step: int
    same_bytes: bool

    @property
    def is_right(self) -> bool:
        """Whether the adapter is the undisturbed one's, and no more than one interval was done again."""
        return self.same_bytes and self.steps_done - self.resumed_from_step <= STEPS_BETWEEN_CHECKPOINTS


def start_project(folder: Path) -> None:
    """Make the project a repository in the folder, all stages before the training done."""
    copy_project(folder)
    (folder / "dvc.lock").unlink(missing_ok=True)
    edit_params(folder / "params.yaml", **SMALL)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run([*_dvc(), "repro", "--quiet", "format"], cwd=folder, check=True, env=_environment())


def kill_at_random_moments(folder: Path, moments: int, seed: int) -> list[Kill]:
    """Train once undisturbed, then be killed and begin again as often as asked."""
    draw = random.Random(seed)
    started = time.monotonic()
    output = _end(folder, _start(folder))
    duration = time.monotonic() - started
    undisturbed = sha256_file(folder / ADAPTER)
    print(f"undisturbed: {undisturbed[:12]} in {duration:.0f} s; {_last_step(output)} steps", flush=True)
    kills: list[Kill] = []
    while len(kills) < moments:
        target, delay = draw.choice(TARGETS), draw.uniform(0, duration)
        process = _start(folder)
        training = _wait_for_training(folder, process)
        _, alive = psutil.wait_procs([training], timeout=delay)
        if not alive:  # it was faster this time
            _end(folder, process)
            continue
        victims = {"training": [training], "dvc": [psutil.Process(process.pid)]}
        for victim in victims.get(target, [psutil.Process(process.pid), training]):
            victim.kill()
        cut_off = _end(folder, process, check=False)
        _end(folder, _start(folder))
        run = json.loads((folder / "metrics/runs/finetune.json").read_text(encoding="utf-8"))
        kills.append(
            Kill(
                target=target,
                after_seconds=round(delay, 1),
                steps_done=_last_step(cut_off),
                resumed_from_step=run["resumed_from_step"],
                same_bytes=sha256_file(folder / ADAPTER) == undisturbed,
            )
        )
        print(f"{len(kills):>3} {'right' if kills[-1].is_right else 'WRONG'} {kills[-1]}", flush=True)
        left = [path.name for path in (folder / ".checkpoints").iterdir()]
        if left:
            raise AssertionError(f"a finished run left {left} behind")
    return kills


def _dvc() -> list[str]:
    return [sys.executable, "-m", "dvc"]


def _environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _start(folder: Path) -> subprocess.Popen:
    # Without the run cache, which would bring the adapter back instead of training it.
    with (folder / LOG).open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [*_dvc(), "repro", "--force", "--single-item", "--no-run-cache", "finetune"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
        )


def _end(folder: Path, process: subprocess.Popen, check: bool = True) -> str:
    status = process.wait()
    output = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    if check and status != 0:
        raise AssertionError(f"dvc repro ended with {status}:\n{output[-3000:]}")
    return output


def _wait_for_training(folder: Path, process: subprocess.Popen) -> psutil.Process:
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if child.name().startswith("python") and "stages/finetune.py" in child.cmdline():
                    return child
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    raise AssertionError(f"dvc repro ended before it trained:\n{_end(folder, process, check=False)[-3000:]}")


def _last_step(output: str) -> int:
    """Return the last optimiser step that a progress bar showed."""
    return max((int(step) for step in re.findall(rf"\| (\d+)/{STEPS} \[", output)), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("moments", type=int, nargs="?", default=20, help="how often it is killed (default 20)")
    moments = parser.parse_args().moments
    with tempfile.TemporaryDirectory(prefix="kill-finetune-") as folder:
        start_project(Path(folder))
        kills = kill_at_random_moments(Path(folder), moments, seed=random.SystemRandom().randrange(10**6))
    right = sum(kill.is_right for kill in kills)
    print(f"{right} of {len(kills)} ended with the undisturbed adapter and at most one interval of work repeated")
    sys.exit(right != len(kills))


if __name__ == "__main__":
    main()
