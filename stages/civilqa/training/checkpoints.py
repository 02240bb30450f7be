"""Checkpoints of a training that was killed: where they are, whether they are whole, which one to go on from.

They lie outside the stage's outputs, which DVC deletes before it runs a stage, in a folder named by the fingerprint of
everything that decides the training. Another parameter, row, package version or line of code is another fingerprint, so
that a training is never continued with anything but what it was begun with.
"""

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from civilqa.program.errors import PipelineError
from civilqa.program.files import sha256_file, sha256_json, write_json
from civilqa.program.lifecycle.locks import hold

SEAL_FILE = "seal.json"
STATE_FILE = "trainer_state.json"
KEPT_CHECKPOINTS = 2  # a checkpoint that turns out damaged has one before it
KEPT_TRAININGS = 3  # unfinished ones of other fingerprints: switching between two experiments loses neither


def checkpoint_root() -> Path:
    """Return the folder of all checkpoints: in the main checkout, also when DVC runs an experiment in a copy of it."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve() / ".checkpoints"


def fingerprint(facts: dict[str, Any]) -> str:
    """Return 64 hex digits for the facts that decide a training and for the code that carries it out."""
    modules = {name: module for name, module in sys.modules.items() if name.startswith("civilqa.")}
    modules["__main__"] = sys.modules["__main__"]
    code = {
        name: sha256_file(Path(module.__file__))
        for name, module in modules.items()
        if getattr(module, "__file__", None)
    }
    return sha256_json([facts, code])


def seal(checkpoint: Path) -> None:
    """Note the hash of every file of a checkpoint, last of all: one without this note, or unlike it, is not whole."""
    write_json(checkpoint / SEAL_FILE, _hashes(checkpoint))


def is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint was sealed, and every file is there as it was sealed."""
    try:
        sealed = json.loads((checkpoint / SEAL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return bool(sealed) and sealed == _hashes(checkpoint)


def find_resumable(folder: Path) -> Path | None:
    """Return the newest checkpoint to go on from, or None to start at the beginning; says what it passes over.

    A training that had ended is no training to go on with: the trainer would take one more step. From the checkpoint
    before it the end is reached again.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if not is_whole(checkpoint):
            print(f"checkpoints: {checkpoint.name} was not written to its end, or was changed since: passed over")
            continue
        state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))
        if state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
            continue
        best = state.best_model_checkpoint
        if best is not None and (Path(best).parent.resolve() != folder.resolve() or not is_whole(Path(best))):
            print(f"checkpoints: {checkpoint.name} needs {best}, which is not whole: passed over")
            continue
        return checkpoint
    return None


def step_of(checkpoint: Path) -> int:
    """Return the optimiser step at which a checkpoint was made."""
    return int(checkpoint.name.rpartition("-")[2])


def forget_old_trainings(current: Path) -> None:
    """Delete unfinished trainings other than the current but for the newest few, and say so. One that runs is kept.

    One process at a time does it: a folder that another is deleting looks newer than it is, and would be kept in place
    of one to go on from. A folder is held while it is deleted, so that nobody goes on from half of it.
    """
    root, deleted = current.parent, 0
    # Another process is at it, or has just ended a training: the next one will do.
    with suppress(PipelineError, FileNotFoundError), hold(root / "forget", "deleting old checkpoints", wait=False):
        others = [folder for folder in root.glob("[0-9a-f]" * 64) if folder != current]
        for folder in sorted(others, key=lambda folder: folder.stat().st_mtime, reverse=True)[KEPT_TRAININGS:]:
            with suppress(PipelineError), hold(folder, "deleting its checkpoints", wait=False):
                shutil.rmtree(folder)
                deleted += 1
    if deleted:
        print(f"checkpoints: deleted {deleted} unfinished trainings, older than the last {KEPT_TRAININGS}, from {root}")


class SealCheckpoints(TrainerCallback):
    """Seals each checkpoint that the trainer has written, then deletes those that are no longer needed.

    The one before is needed, and the best that it names: without it nobody can go on from there once a training has
    ended, or the newest is damaged.
    """

    best_before: str | None = None  # that the checkpoint before the newest names

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.best_before = state.best_model_checkpoint

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the other processes' files belong to the checkpoint
        if not state.is_world_process_zero:
            return
        newest = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        seal(newest)
        others = [path for path in newest.parent.glob("checkpoint-*") if path != newest]
        # Later ones are of a run whose steps are done over.
        older = [path for path in others if step_of(path) < state.global_step and (path / SEAL_FILE).exists()]
        best = {Path(path) for path in (self.best_before, state.best_model_checkpoint) if path}
        kept = best.union(sorted(older, key=step_of, reverse=True)[: KEPT_CHECKPOINTS - 1])
        self.best_before = state.best_model_checkpoint
        for path in others:
            if path not in kept:
                shutil.rmtree(path)


class SaveEverySteps(TrainerCallback):
    """Asks for a checkpoint every so many steps, besides the one at each epoch's end.

    Not at the last step of an epoch: that epoch's validation is yet to come, and would be missing after a resume.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.steps == 0 and state.epoch != int(state.epoch):
            control.should_save = True


def _hashes(checkpoint: Path) -> dict[str, str]:
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != SEAL_FILE]
    return {path.relative_to(checkpoint).as_posix(): sha256_file(path) for path in sorted(files)}
