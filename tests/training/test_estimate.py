from dataclasses import replace

import pytest
import torch
from test_memory import SCHEDULE

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.model.loading import load_base
from civilqa.program.errors import MemoryShortage
from civilqa.program.parameters import read_choice, read_sections
from civilqa.training.estimate import Estimate, check_that_it_fits, format_seconds, probe
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
PARAMS = ROOT / "params.yaml"
GIB = 2**30


@pytest.fixture
def make_job(tmp_path):
    """Makes (trainer, examples, schedule) of the tiny model, with dropout so that the random state matters."""

    def make():
        tiny = read_choice("profiles", "tiny", Profile, "model.profile", PARAMS)
        lora = tiny.lora.model_copy(update={"dropout": 0.1})
        tiny = tiny.model_copy(update={"name": str(ROOT / tiny.name), "lora": lora})
        (train,) = read_sections(PARAMS, train=TrainParams)
        rows = [
            {"input_ids": [9 + i] * (20 + 5 * i), "labels": [IGNORED_LABEL] * 8 + [9 + i] * (12 + 5 * i)}
            for i in range(6)
        ]
        preset = read_choice("presets", "balanced", Preset, "train.preset", PARAMS)
        schedule = replace(resolve_schedule(train, preset, tiny, len(rows)), epochs=2.0, steps=6)
        model = add_adapter(load_base(ModelParams(profile="tiny", seed=1), tiny, HARDWARE), tiny, schedule, train.seed)
        examples = {"train": rows, "validation": []}
        return make_trainer(model, load_tokenizer(tiny), examples, schedule, train, HARDWARE, tmp_path), rows, schedule

    return make


def losses_and_weights(trainer):
    trainer.train()
    weights = [p.detach().clone() for p in trainer.model.parameters() if p.requires_grad]
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], weights


def test_probing_changes_no_weight_and_no_random_state(make_job):
    trainer, rows, schedule = make_job()
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    random_state = torch.random.get_rng_state()
    estimate = probe(trainer, rows, schedule, HARDWARE)
    assert estimate.seconds > 0
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(torch.equal(p, q) for p, q in zip(trainer.model.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_a_probed_training_is_the_one_not_probed(make_job):
    trainer, _, _ = make_job()
    losses, weights = losses_and_weights(trainer)
    trainer, rows, schedule = make_job()
    probe(trainer, rows, schedule, HARDWARE)
    same_losses, same_weights = losses_and_weights(trainer)
    assert losses == same_losses
    assert all(torch.equal(weight, same) for weight, same in zip(weights, same_weights, strict=True))


def test_the_estimate_grows_with_the_steps(make_job):
    trainer, rows, schedule = make_job()
    short = probe(trainer, rows, schedule, HARDWARE)
    long = probe(trainer, rows, replace(schedule, steps=600), HARDWARE)
    assert long.seconds > 10 * short.seconds


def test_a_training_that_does_not_fit_is_stopped_with_what_to_change():
    with pytest.raises(MemoryShortage, match=r"20.0 GiB, and there are 16.0\nIn params.yaml.*\n  1. train.preset"):
        check_that_it_fits(Estimate(60.0, 20 * GIB, 16 * GIB), SCHEDULE, HARDWARE, 800)


def test_a_training_that_nearly_fills_the_memory_is_warned_of(capsys):
    check_that_it_fits(Estimate(60.0, 15 * GIB, 16 * GIB), SCHEDULE, HARDWARE, 800)
    assert "warning: 94% of the memory" in capsys.readouterr().out
    check_that_it_fits(Estimate(60.0, 8 * GIB, 16 * GIB), SCHEDULE, HARDWARE, 800)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.4, "3 s"), (119, "119 s"), (120, "2 min"), (3600, "60 min"), (12000, "3 h 20 min")]
)
def test_seconds_are_said_as_a_person_does(seconds, said):
    assert format_seconds(seconds) == said
