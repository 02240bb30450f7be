import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.model.loading import load_base, load_tuned, save_adapter
from civilqa.model.provenance import describe_making, open_adapter, seal
from civilqa.program.errors import ModelError, ParameterError, RecordError
from civilqa.program.files import write_jsonl
from civilqa.program.parameters import read_choice, read_sections
from civilqa.training.trainer import (
    Preset,
    TrainingHardware,
    TrainParams,
    add_adapter,
    make_trainer,
    pack,
    resolve_schedule,
)
from civilqa.training.varlen_attention import IGNORED_LABEL
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
    save_adapter(trainer.model, folder / "adapter")
    seal(folder / "adapter", describe_making(MODEL, profile, schedule.quantization, ""))
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
        after = load_tuned(open_adapter(folder, MODEL, tiny), HARDWARE)(ids, labels=ids).loss
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
        open_adapter(folder, MODEL.model_copy(update={"seed": 2}), tiny)


def test_adapter_config_lists_are_sorted_and_name_the_base(train, tiny, tmp_path):
    _, folder = train_once(train, tiny, tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == tiny.name
    assert config["inference_mode"] is True
    assert not (folder / "README.md").exists()


# --- the same training in other ways ---------------------------------------------------------------------------------


def varied_examples(n=16):
    """Rows of many lengths and tokens, as packing and padding meet them."""
    rows = []
    for i in range(n):
        tokens = [(37 * i + 11 * j) % 3000 + 8 for j in range(12 + 5 * (i % 7))]
        rows.append({"input_ids": tokens, "labels": [IGNORED_LABEL] * 6 + tokens[6:]})
    return rows


def trained_on(train, profile, folder, rows, batch_size, accumulation):
    """Train three epochs; returns the losses and the trained weights."""
    train = train.model_copy(
        update={
            "epochs": 3.0,
            "learning_rate": 1e-4,
            "batch_size": batch_size,
            "gradient_accumulation_steps": accumulation,
            "neftune_noise_alpha": None,  # its noise depends on the shape of a batch
        }
    )
    schedule = resolve_schedule(train, preset("balanced"), profile, len(rows))
    model = add_adapter(load_base(MODEL, profile, HARDWARE), profile, schedule, train.seed)
    trainer = make_trainer(
        model,
        load_tokenizer(profile),
        {"train": rows, "validation": []},
        schedule,
        train,
        HARDWARE,
        folder,
        checkpoints=False,
    )
    trainer.train()
    weights = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return [row["loss"] for row in trainer.state.log_history if "loss" in row], weights


def test_batch_1_accumulated_8_times_is_batch_8(train, tiny, tmp_path):
    accumulated, weights = trained_on(train, tiny, tmp_path / "a", varied_examples(), 1, 8)
    whole, same_weights = trained_on(train, tiny, tmp_path / "b", varied_examples(), 8, 1)
    assert len(whole) == 6
    assert accumulated == pytest.approx(whole, abs=1e-4)
    assert weights.keys() == same_weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, same_weights[name], atol=1e-4, rtol=0)


def token_log_probs(trainer, rows):
    """Return the log-probability of every answer token of the rows, in their order, as the trainer's loss has it."""
    batch = trainer.data_collator(rows)
    with torch.inference_mode():
        outputs = trainer.model.eval()(**batch, fused_lm_head=True, use_cache=False)
    return outputs.log_probs[outputs.label_mask if outputs.label_mask.dim() else batch["labels"][:, 1:] != -100]


@pytest.fixture
def packing_trainer(train, tiny, tmp_path):
    """Returns a trainer for rows, packed or not, on a model whose adapter is not zero."""

    def make(rows, packing):
        schedule = replace(resolve_schedule(train, preset("balanced"), tiny, len(rows)), packing=packing, keep="last")
        model = add_adapter(load_base(MODEL, tiny, HARDWARE), tiny, schedule, train.seed)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(1))
        examples = {"train": rows, "validation": []}
        return make_trainer(model, load_tokenizer(tiny), examples, schedule, train, HARDWARE, tmp_path, False)

    return make


def test_a_packed_record_has_the_loss_of_one_alone_token_by_token(packing_trainer):
    rows = varied_examples()
    packed = pack(rows, 96)
    assert 1 < len(packed) < len(rows)
    assert sum(len(row["seq_lengths"]) for row in packed) == len(rows)
    alone = packing_trainer(rows, False)
    by_tokens = {}
    for row in rows:
        by_tokens[tuple(row["input_ids"])] = token_log_probs(alone, [row])
    together = packing_trainer(packed, True)
    for batch in (packed[:1], packed[1:3], packed):  # a batch of packs is one row, too
        expected = []
        for row in batch:
            start = 0
            for length in row["seq_lengths"]:
                expected.append(by_tokens[tuple(row["input_ids"][start : start + length])])
                start += length
        torch.testing.assert_close(token_log_probs(together, batch), torch.cat(expected), atol=1e-4, rtol=0)


def test_without_the_records_borders_packing_would_be_seen(packing_trainer):
    """The test above can fail: position ids that run on let records see each other, and change their losses."""
    (row, *_) = pack(varied_examples(), 96)
    trainer = packing_trainer([row], True)
    apart = token_log_probs(trainer, [row])
    labels = list(row["labels"])
    start = 0
    for length in row["seq_lengths"]:
        labels[start] = IGNORED_LABEL
        start += length
    joined = token_log_probs(trainer, [{"input_ids": row["input_ids"], "labels": labels}])
    assert (apart - joined).abs().max() > 1e-2


def test_packing_cuts_no_record_and_loses_none():
    rows = varied_examples(30)
    packed = pack(rows, 50)
    assert all(len(row["input_ids"]) == sum(row["seq_lengths"]) <= 50 for row in packed)
    pieces = []
    for row in packed:
        start = 0
        for length in row["seq_lengths"]:
            pieces.append((row["input_ids"][start : start + length], row["labels"][start : start + length]))
            start += length
    assert sorted(pieces) == sorted((row["input_ids"], row["labels"]) for row in rows)


def test_packing_without_a_length_to_fill_is_refused():
    with pytest.raises(ParameterError, match=r"train.packing: found true, but train.max_length is null"):
        pack(varied_examples(), None)


def test_packed_training_learns(train, tiny, tmp_path):
    rows = pack(examples_of(8)["train"], 60)
    schedule = resolve_schedule(train, preset("balanced"), tiny, len(rows))
    schedule = replace(schedule, epochs=6.0, learning_rate=2e-3, packing=True)
    model = add_adapter(load_base(MODEL, tiny, HARDWARE), tiny, schedule, train.seed)
    examples = {"train": rows, "validation": examples_of()["validation"]}
    trainer = make_trainer(model, load_tokenizer(tiny), examples, schedule, train, HARDWARE, tmp_path / "scratch")
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_trained_is_kept_in_fp32(train, tiny, tmp_path, quantization, precision):
    """Small steps are lost in 16 bits, and fp16's gradient scaler refuses 16-bit gradients."""
    hardware = replace(HARDWARE, precision=precision)
    schedule = resolve_schedule(train.model_copy(update={"epochs": 3.0}), preset("balanced"), tiny, 4)
    schedule = replace(schedule, learning_rate=2e-3, quantization=quantization)
    model = add_adapter(load_base(MODEL, tiny, hardware, quantization), tiny, schedule, train.seed)
    trainer = make_trainer(model, load_tokenizer(tiny), examples_of(), schedule, train, hardware, tmp_path)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0]
