"""Trainings of a second or two: a base smaller than tiny, short rows, and what several test modules do with them."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.model.hardware import take_hold
from civilqa.model.loading import load_base, save_adapter
from civilqa.program.parameters import read_choice, read_sections
from civilqa.training.adapter import Tuning, add_adapter
from civilqa.training.answer_loss import IGNORED_LABEL
from civilqa.training.checkpoints import STATE_FILE, find_resumable, seal
from civilqa.training.recipe import Preset, Recipe, TrainingHardware, TrainParams, resolve_recipe
from civilqa.training.trainer import AdapterTrainer, make_trainer

ROOT = Path(__file__).resolve().parents[2]
PARAMS = ROOT / "params.yaml"
MODEL = ModelParams(profile="tiny", seed=1)
HARDWARE = TrainingHardware("cpu", "fp32", 1, "varlen")  # one thread: matrices this small lose time to more
EPOCHS, STEPS_AN_EPOCH = 3, 4  # of `train`

TINY = Profile(name=str(ROOT / "models/tiny"), weights="random")


def write_base(folder: Path) -> Profile:
    """Write a base of tiny's kind and tokenizer, a twentieth of its size."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(ROOT / "models/tiny" / name, folder / name)
    config = json.loads((ROOT / "models/tiny/config.json").read_text(encoding="utf-8"))
    small = {"hidden_size": 64, "head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    small |= {"intermediate_size": 128, "num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config | small), encoding="utf-8")
    return Profile(name=str(folder), weights="random")


def read_train(**changes: Any) -> TrainParams:
    """Return the section `train` of the project, changed."""
    return read_sections(PARAMS, train=TrainParams)[0].model_copy(update=changes)


def read_preset(name: str) -> Preset:
    return read_choice("presets", name, Preset, "train.preset", PARAMS)


def tiny_tuning(**changes: Any) -> Tuning:
    """Return tiny's entry of `tuning`, changed."""
    return read_choice("tuning", "tiny", Tuning, "model.profile", PARAMS).model_copy(update=changes)


def recipe_of(
    records: int,
    *,
    preset: str = "balanced",
    tuning: Tuning | None = None,
    hardware: TrainingHardware = HARDWARE,
    **changes: Any,
) -> Recipe:
    """Return the recipe of a training on so many records: tiny's, three epochs, keys of `train` changed."""
    train = read_train(**({"epochs": float(EPOCHS), "learning_rate": 2e-3} | changes))
    return resolve_recipe(train, read_preset(preset), tuning or tiny_tuning(), hardware, records)


def trainer_of(
    profile: Profile, recipe: Recipe, rows: list, folder: Path, validation: list = (), **options: Any
) -> AdapterTrainer:
    """Return the finetune stage's trainer for rows, a new adapter on the profile's base."""
    take_hold(recipe.hardware)
    base = load_base(MODEL, profile, recipe.hardware, recipe.quantization)
    model = add_adapter(base, profile, recipe.lora, recipe.gradient_checkpointing, recipe.seed)
    examples = {"train": rows, "validation": list(validation)}
    return make_trainer(model, load_tokenizer(profile), examples, recipe, folder, **options)


def losses_of(trainer: AdapterTrainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def varied_rows(n: int = 16) -> list[dict[str, list[int]]]:
    """Rows of many lengths and tokens, as packing and padding meet them."""
    rows = []
    for i in range(n):
        tokens = [(37 * i + 11 * j) % 3000 + 8 for j in range(12 + 5 * (i % 7))]
        rows.append({"input_ids": tokens, "labels": [IGNORED_LABEL] * 6 + tokens[6:]})
    return rows


# --- a training that is cut off --------------------------------------------------------------------------------------


class CutOffError(Exception):
    """Stands for kill -9, which leaves the files as they are, too."""


class CutOff(TrainerCallback):
    """Ends the process, as it were, after a step."""

    def __init__(self, after_step: int) -> None:
        self.after_step = after_step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.after_step:
            raise CutOffError


def rows_that_say(answers: Iterable[int]) -> list[dict[str, list[int]]]:
    """Rows that repeat a token of the question, and are to be answered with a token over and over."""
    return [
        {"input_ids": [token] * (16 + i), "labels": [IGNORED_LABEL] * 8 + [answer] * (8 + i)}
        for i, (token, answer) in enumerate(zip(range(9, 17), answers, strict=False))
    ]


def train(
    profile: Profile,
    folder: Path,
    *,
    cut_off_after: int | None = None,
    tracker: TrainerCallback | None = None,
    **changes: Any,
) -> tuple[list[dict[str, float]], bytes]:
    """Train on 8 records in batches of 2, or go on with it; returns the loss history and the adapter's bytes.

    There is dropout in the LoRA, so that the random state matters at every step.

    Args:
        changes: of the section `train`.
    """
    rows = rows_that_say(range(9, 17))
    unlike = rows_that_say([900, 901, 902])  # the better the rows above are learned, the worse is the loss on these
    recipe = recipe_of(len(rows), tuning=tiny_tuning(dropout=0.1), **changes)
    checkpoints = folder / "checkpoints"
    trainer = trainer_of(profile, recipe, rows, checkpoints, unlike)
    if tracker:
        trainer.add_callback(tracker)
    if cut_off_after is not None:
        trainer.add_callback(CutOff(cut_off_after))
    resumed = find_resumable(checkpoints)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    save_adapter(trainer.model, folder / "adapter")
    kept = ("step", "loss", "learning_rate", "grad_norm", "eval_loss")
    history = [{key: row[key] for key in kept if key in row} for row in trainer.state.log_history[:-1]]
    return history, (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def cut_off(profile: Profile, folder: Path, after_step: int, **changes: Any) -> None:
    with pytest.raises(CutOffError):
        train(profile, folder, cut_off_after=after_step, **changes)


def copy_training(source: Path, target: Path) -> None:
    """Copy the folder of a training that was cut off; a checkpoint names the best one by its path."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    for state in (target / "checkpoints").glob(f"checkpoint-*/{STATE_FILE}"):
        text = state.read_text(encoding="utf-8")
        state.write_text(text.replace(str(source), str(target)), encoding="utf-8")
        seal(state.parent)
