import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from civilqa.errors import ModelError, ParameterError, RecordError
from civilqa.files import write_jsonl
from civilqa.models import base_identity, load_base, load_tuned, save_adapter
from civilqa.parameters import read_choice, read_sections
from civilqa.profiles import ModelParams, Profile
from civilqa.prompts import load_tokenizer
from civilqa.training import (
    IGNORED_LABEL,
    Preset,
    TrainingHardware,
    TrainParams,
    add_adapter,
    make_trainer,
    resolve_schedule,
)
from conftest import ROOT
from finetune import read_examples

HARDWARE = TrainingHardware("cpu", "fp32", 2)
MODEL = ModelParams(profile="tiny", seed=1)
PARAMS = ROOT / "params.yaml"


@pytest.fixture(scope="module")
def train():
    return read_sections(PARAMS, train=TrainParams)[0]


@pytest.fixture(scope="module")
def tiny():
    profile = read_choice("profiles", "tiny", Profile, "model.profile", PARAMS)
    return profile.model_copy(update={"name": str(ROOT / profile.name)})


def preset(name):
    return read_choice("presets", name, Preset, "train.preset", PARAMS)


@pytest.mark.parametrize(
    ("name", "overrides", "factors", "expected"),
    [
        # 43 records: batch 2 makes 22 steps an epoch, batch 4 makes 11, batch 1 makes 43
        ("balanced", {}, (1, 1), {"epochs": 4, "learning_rate": 1e-4, "steps": 88, "warmup_steps": 9}),
        ("fast", {}, (1, 1), {"epochs": 2, "learning_rate": 2e-4, "steps": 22, "batch_size": 4}),
        ("quality", {}, (1, 1), {"epochs": 6, "learning_rate": 5e-5, "steps": 258, "batch_size": 1}),
        ("memory_efficient", {}, (1, 1), {"quantization": "4bit", "gradient_checkpointing": True, "steps": 129}),
        ("balanced", {}, (5, 20), {"epochs": 20, "learning_rate": 2e-3, "steps": 440}),
        ("balanced", {"epochs": 8.0, "learning_rate": 1e-5}, (5, 20), {"learning_rate": 1e-5, "steps": 176}),
        ("balanced", {"batch_size": 43}, (1, 1), {"batch_size": 43, "steps": 4}),
        ("balanced", {"epochs": 0.5}, (5, 20), {"steps": 11}),
        ("balanced", {"gradient_accumulation_steps": 4}, (1, 1), {"steps": 24, "warmup_steps": 3}),
        ("balanced", {"keep": "best"}, (1, 1), {"keep": "best"}),
    ],
)
def test_overrides_stand_as_they_are_and_factors_scale_presets_only(train, tiny, name, overrides, factors, expected):
    profile = tiny.model_copy(update={"epochs_factor": float(factors[0]), "learning_rate_factor": float(factors[1])})
    schedule = resolve_schedule(train.model_copy(update=overrides), preset(name), profile, records=43)
    assert {key: getattr(schedule, key) for key in expected} == pytest.approx(expected)


def formatted(tmp_path, *lengths):
    path = tmp_path / "train.jsonl"
    rows = [
        {"id": f"q-{index}", "prompt_ids": [5] * prompt, "completion_ids": [6] * completion}
        for index, (prompt, completion) in enumerate(lengths)
    ]
    write_jsonl(path, rows)
    return path


def test_the_prompt_is_ignored_by_the_loss(tmp_path):
    (example,), over = read_examples(formatted(tmp_path, (2, 3)), None, "stop")
    assert example == {"input_ids": [5, 5, 6, 6, 6], "labels": [IGNORED_LABEL] * 2 + [6] * 3}
    assert over == []


def test_a_record_over_the_limit_stops_the_stage_and_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"1 records of .* longer than 4 tokens: q-1 \(5 tokens"):
        read_examples(formatted(tmp_path, (2, 2), (2, 3)), 4, "stop")


def test_truncation_is_listed_and_cuts_the_answers_end(tmp_path):
    examples, over = read_examples(formatted(tmp_path, (2, 2), (2, 3)), 4, "truncate")
    assert over == ["q-1"]
    assert [len(example["input_ids"]) for example in examples] == [4, 4]
    assert examples[1]["labels"] == [IGNORED_LABEL] * 2 + [6, 6]


def test_a_prompt_that_fills_the_limit_is_refused_even_when_truncating(tmp_path):
    with pytest.raises(ParameterError, match="longer than 4 tokens"):
        read_examples(formatted(tmp_path, (4, 3)), 4, "truncate")


def test_a_line_without_tokens_names_the_stage_to_run(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"id": "q-1"}\n', encoding="utf-8")
    with pytest.raises(RecordError, match="run `dvc repro format`"):
        read_examples(path, None, "stop")


def test_a_cut_off_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt_ids": [1], "completion_ids": [1], "id": "a"}\n{"prompt_ids": [1', encoding="utf-8")
    with pytest.raises(RecordError, match=r"train.jsonl:2: no JSON"):
        read_examples(path, None, "stop")


def examples_of(n=4, length=24):
    rows = [{"input_ids": [10 + i] * length, "labels": [IGNORED_LABEL] * 8 + [10 + i] * (length - 8)} for i in range(n)]
    return {"train": rows, "validation": rows[:1]}


def train_once(train, profile, folder, validate=True, **changes):
    schedule = resolve_schedule(train, preset("balanced"), profile, records=4)
    schedule = replace(schedule, epochs=3.0, steps=6, warmup_steps=1, learning_rate=2e-3, **changes)
    base = load_base(MODEL, profile, HARDWARE, schedule.quantization)
    model = add_adapter(base, profile, schedule, train.seed)
    examples = examples_of() if validate else {**examples_of(), "validation": []}
    trainer = make_trainer(model, load_tokenizer(profile), examples, schedule, train, HARDWARE, folder / "scratch")
    trainer.train()
    manifest = {"base": base_identity(MODEL, profile), "quantization": schedule.quantization}
    save_adapter(trainer.model, folder / "adapter", manifest)
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], folder / "adapter"


def adapter_bytes(folder: Path):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_run_gives_the_same_bytes(train, tiny, tmp_path):
    first, second = (train_once(train, tiny, tmp_path / name)[1] for name in "ab")
    assert adapter_bytes(first) == adapter_bytes(second)


def test_another_seed_gives_other_bytes(train, tiny, tmp_path):
    first = train_once(train, tiny, tmp_path / "a")[1]
    second = train_once(train.model_copy(update={"seed": 7}), tiny, tmp_path / "b")[1]
    assert adapter_bytes(first) != adapter_bytes(second)


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_the_loss_falls_and_the_adapter_loads(train, tiny, tmp_path, quantization):
    losses, folder = train_once(train, tiny, tmp_path, quantization=quantization)
    assert losses[-1] < losses[0] - 0.5
    ids = torch.tensor([[10] * 24])
    with torch.inference_mode():
        before = load_base(MODEL, tiny, HARDWARE, quantization)(ids, labels=ids).loss
        after = load_tuned(MODEL, tiny, HARDWARE, folder)(ids, labels=ids).loss
    assert after < before - 0.5


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_validating_in_between_changes_no_training_step(train, tiny, tmp_path, quantization):
    """bitsandbytes repacks 4-bit weights in evaluation mode on some CPUs, for a kernel without gradients."""
    train = train.model_copy(update={"neftune_noise_alpha": None})  # its noise depends on what else was drawn
    validated, _ = train_once(train, tiny, tmp_path / "a", quantization=quantization)
    plain, _ = train_once(train, tiny, tmp_path / "b", validate=False, quantization=quantization)
    assert validated == plain


def test_gradient_checkpointing_changes_no_loss(train, tiny, tmp_path):
    plain, _ = train_once(train, tiny, tmp_path / "a")
    checkpointed, _ = train_once(train, tiny, tmp_path / "b", gradient_checkpointing=True)
    assert checkpointed == pytest.approx(plain, abs=1e-4)


def test_keeping_the_best_needs_the_checkpoint_of_each_epoch(train, tiny, tmp_path):
    losses, folder = train_once(train, tiny, tmp_path, keep="best")
    assert losses[-1] < losses[0]
    assert (folder / "adapter_model.safetensors").is_file()


def test_an_adapter_of_another_base_is_refused(train, tiny, tmp_path):
    _, folder = train_once(train, tiny, tmp_path)
    with pytest.raises(ModelError, match="was trained on another base model"):
        load_tuned(MODEL.model_copy(update={"seed": 2}), tiny, HARDWARE, folder)


def test_adapter_config_lists_are_sorted_and_name_the_base(train, tiny, tmp_path):
    _, folder = train_once(train, tiny, tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == tiny.name
    assert config["inference_mode"] is True
    assert not (folder / "README.md").exists()
