"""A training that is cut off and goes on is the training that was not cut off."""

from dataclasses import replace

import pytest
from transformers import TrainerCallback

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.model.loading import load_base, save_adapter
from civilqa.program.lifecycle.locks import hold
from civilqa.program.parameters import read_choice, read_sections
from civilqa.training.checkpoints import (
    KEPT_TRAININGS,
    SEAL_FILE,
    checkpoint_root,
    find_resumable,
    fingerprint,
    forget_old_trainings,
    is_whole,
    seal,
)
from civilqa.training.trainer import (
    Preset,
    TrainingHardware,
    TrainParams,
    add_adapter,
    make_trainer,
    resolve_schedule,
)
from civilqa.training.varlen_attention import IGNORED_LABEL
from conftest import ROOT

HARDWARE = TrainingHardware("cpu", "fp32", 2)
MODEL = ModelParams(profile="tiny", seed=1)
PARAMS = ROOT / "params.yaml"
EPOCHS, STEPS_AN_EPOCH = 3, 4


class CutOffError(Exception):
    """Stands for kill -9, which leaves the files as they are, too."""


class CutOff(TrainerCallback):
    """Ends the process, as it were, after a step."""

    def __init__(self, after_step):
        self.after_step = after_step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.after_step:
            raise CutOffError


@pytest.fixture(scope="module")
def profile():
    """The tiny base with dropout in its LoRA, so that the random state matters at every step."""
    tiny = read_choice("profiles", "tiny", Profile, "model.profile", PARAMS)
    lora = tiny.lora.model_copy(update={"dropout": 0.1})
    return tiny.model_copy(update={"name": str(ROOT / tiny.name), "lora": lora})


def rows_that_say(answers, asked=range(9, 17)):
    """Rows that repeat a token of the question, and are to be answered with a token over and over."""
    return [
        {"input_ids": [token] * (16 + i), "labels": [IGNORED_LABEL] * 8 + [answer] * (8 + i)}
        for i, (token, answer) in enumerate(zip(asked, answers, strict=False))
    ]


def train(profile, folder, *, cut_off_after=None, quantization="none", epochs=float(EPOCHS), **changes):
    """Train on 8 records in batches of 2; returns the loss history and the adapter's bytes."""
    (params,) = read_sections(PARAMS, train=TrainParams)
    params = params.model_copy(update=changes)
    preset = read_choice("presets", "balanced", Preset, "train.preset", PARAMS)
    rows = rows_that_say(range(9, 17))
    unlike = rows_that_say([900, 901, 902])  # the better the rows above are learned, the worse is the loss on these
    schedule = resolve_schedule(params.model_copy(update={"epochs": epochs}), preset, profile, len(rows))
    schedule = replace(schedule, learning_rate=2e-3, quantization=quantization)
    model = add_adapter(load_base(MODEL, profile, HARDWARE, quantization), profile, schedule, params.seed)
    checkpoints = folder / "checkpoints"
    trainer = make_trainer(
        model,
        load_tokenizer(profile),
        {"train": rows, "validation": unlike},
        schedule,
        params,
        HARDWARE,
        checkpoints,
    )
    if cut_off_after is not None:
        trainer.add_callback(CutOff(cut_off_after))
    resumed = find_resumable(checkpoints)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    save_adapter(trainer.model, folder / "adapter")
    kept = ("step", "loss", "learning_rate", "grad_norm", "eval_loss")
    history = [{key: row[key] for key in kept if key in row} for row in trainer.state.log_history[:-1]]
    return history, (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def cut_off(profile, folder, after_step, **how):
    with pytest.raises(CutOffError):
        train(profile, folder, cut_off_after=after_step, **how)


def checkpoint_steps(folder):
    return sorted(int(path.name.rpartition("-")[2]) for path in (folder / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("cut_off_after", "how", "resumed_from"),
    [
        (5, {}, 4),
        (8, {}, 8),
        (7, {"checkpoint_steps": 3}, 6),
        (9, {"checkpoint_steps": 4}, 8),
        (6, {"keep": "best"}, 4),
        (6, {"quantization": "4bit"}, 4),
        (6, {"gradient_accumulation_steps": 2, "epochs": 6.0}, 6),
        (6, {"epochs": 2.25}, 4),
        (2, {}, None),
    ],
)
def test_a_resumed_training_is_the_undisturbed_one_to_the_byte(profile, tmp_path, cut_off_after, how, resumed_from):
    undisturbed = train(profile, tmp_path / "a", **how)
    cut_off(profile, tmp_path / "b", cut_off_after, **how)
    found = find_resumable(tmp_path / "b" / "checkpoints")
    assert (found and int(found.name.rpartition("-")[2])) == resumed_from
    assert train(profile, tmp_path / "b", **how) == undisturbed


def test_cut_off_twice_it_still_is(profile, tmp_path):
    undisturbed = train(profile, tmp_path / "a")
    cut_off(profile, tmp_path / "b", 6)
    cut_off(profile, tmp_path / "b", 10)
    assert train(profile, tmp_path / "b") == undisturbed


def test_early_stopping_counts_on_after_a_resume(profile, tmp_path):
    how = {"early_stopping_patience": 2, "keep": "best", "epochs": 12.0}
    undisturbed, weights = train(profile, tmp_path / "a", **how)
    validated = [row["eval_loss"] for row in undisturbed if "eval_loss" in row]
    assert len(validated) < 12, "it was to stop early"
    assert validated.index(min(validated)) == len(validated) - 3
    cut_off(profile, tmp_path / "b", (len(validated) - 1) * STEPS_AN_EPOCH + 1, **how)
    assert train(profile, tmp_path / "b", **how) == (undisturbed, weights)


def test_a_training_killed_after_its_last_step_trains_no_step_more(profile, tmp_path):
    """The trainer itself would go on behind the end of a schedule that ends within an epoch."""
    undisturbed = train(profile, tmp_path / "a", epochs=1.5)
    assert checkpoint_steps(tmp_path / "a") == [4, 6]
    assert find_resumable(tmp_path / "a" / "checkpoints").name == "checkpoint-4"
    assert train(profile, tmp_path / "a", epochs=1.5) == undisturbed


@pytest.mark.parametrize(
    "damage",
    [
        lambda checkpoint: (checkpoint / SEAL_FILE).unlink(),
        lambda checkpoint: (checkpoint / SEAL_FILE).write_text('{"adapter', encoding="utf-8"),
        lambda checkpoint: (checkpoint / "optimizer.pt").unlink(),
        lambda checkpoint: (checkpoint / "optimizer.pt").write_bytes(b""),
        lambda checkpoint: (checkpoint / "adapter_model.safetensors").write_bytes(b"half of it"),
        lambda checkpoint: (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state.part"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_passed_over_for_the_one_before(profile, tmp_path, damage, capsys):
    undisturbed = train(profile, tmp_path / "a")
    cut_off(profile, tmp_path / "b", 9)
    assert checkpoint_steps(tmp_path / "b") == [4, 8]
    damage(tmp_path / "b" / "checkpoints" / "checkpoint-8")
    assert train(profile, tmp_path / "b") == undisturbed
    assert "checkpoint-8 was not written to its end, or was changed since: passed over" in capsys.readouterr().out


def test_one_whose_best_checkpoint_is_damaged_is_passed_over(profile, tmp_path):
    how = {"keep": "best", "epochs": 6.0}
    cut_off(profile, tmp_path, 4 * STEPS_AN_EPOCH + 1, **how)
    best, *others = checkpoint_steps(tmp_path)
    assert len(others) == 2, "the best was to be older than the two newest"
    (tmp_path / f"checkpoints/checkpoint-{best}" / "adapter_model.safetensors").write_bytes(b"")
    assert find_resumable(tmp_path / "checkpoints") is None


def test_checkpoints_hold_nothing_that_must_be_unpickled_freely(profile, tmp_path):
    cut_off(profile, tmp_path, 5)
    names = {path.name for path in (tmp_path / "checkpoints/checkpoint-4").iterdir()}
    # optimizer, scheduler and random state are read with weights_only
    assert names == {
        SEAL_FILE,
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    }


def test_a_seal_is_for_every_file(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    assert not is_whole(tmp_path)
    seal(tmp_path)
    assert is_whole(tmp_path)
    (tmp_path / "b").write_bytes(b"")
    assert not is_whole(tmp_path)


def test_the_fingerprint_is_that_of_the_facts():
    assert fingerprint({"a": 1}) == fingerprint({"a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_the_fingerprint_changes_with_the_code(tmp_path, monkeypatch):
    import civilqa.training.trainer

    before = fingerprint({})
    other = tmp_path / "training.py"
    other.write_text("# another version\n", encoding="utf-8")
    monkeypatch.setattr(civilqa.training.trainer, "__file__", str(other))
    assert fingerprint({}) != before


def test_checkpoints_lie_in_the_main_checkout_when_dvc_runs_a_copy_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert checkpoint_root() == tmp_path / ".checkpoints"
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.chdir(tmp_path)
    assert checkpoint_root() == tmp_path / ".checkpoints"


def test_only_the_newest_unfinished_trainings_are_kept_and_one_that_runs(tmp_path, capsys):
    import os

    names = [f"{number:064x}" for number in range(KEPT_TRAININGS + 4)]
    for age, name in enumerate(names):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    current, running = names[-1], names[-2]
    with hold(tmp_path / running, "a test"):
        forget_old_trainings(tmp_path / current)
        left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {*names[:KEPT_TRAININGS], running, current}
    assert f"deleted 2 unfinished trainings, older than the last {KEPT_TRAININGS}" in capsys.readouterr().out
