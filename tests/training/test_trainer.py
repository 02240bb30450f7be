import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from civilqa.model.loading import load_base, load_tuned, save_adapter
from civilqa.model.provenance import describe_making, open_adapter, seal
from civilqa.program.errors import ModelError
from civilqa.training import trainer as trainer_module
from civilqa.training.answer_loss import IGNORED_LABEL
from civilqa.training.examples import pack
from small_training import HARDWARE, MODEL, losses_of, recipe_of, trainer_of, varied_rows

with_quantization = pytest.mark.parametrize(
    "quantization", ["none", *(pytest.param(name, marks=pytest.mark.slow) for name in ("8bit", "4bit"))]
)


def short_rows(n=4, length=24):
    return [{"input_ids": [10 + i] * length, "labels": [IGNORED_LABEL] * 8 + [10 + i] * (length - 8)} for i in range(n)]


def train_once(profile, folder, validate=True, **changes):
    """Train six steps on four rows; returns the losses and the adapter's folder."""
    recipe = recipe_of(4, **changes)
    validation = short_rows()[:1] if validate else []
    trainer = trainer_of(profile, recipe, short_rows(), folder / "scratch", validation)
    trainer.train()
    save_adapter(trainer.model, folder / "adapter")
    seal(folder / "adapter", describe_making(MODEL, profile, recipe.quantization, ""))
    return losses_of(trainer), folder / "adapter"


@pytest.fixture(scope="module")
def trained(small_base, tmp_path_factory):
    """The losses and the adapter's folder of one training, not to be changed."""
    return train_once(small_base, tmp_path_factory.mktemp("trained"))


def adapter_bytes(folder: Path):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_one_process_trains_on_one_gpu_of_several(small_base, tmp_path, monkeypatch):
    """torch would make a copy of the model on each, which trl refuses."""
    made = trainer_module.SFTConfig

    def on_two(**fields):
        arguments = made(**fields)
        arguments._n_gpu = 2
        return arguments

    monkeypatch.setattr(trainer_module, "SFTConfig", on_two)
    trainer = trainer_of(small_base, recipe_of(4), short_rows(), tmp_path, [])
    assert trainer.args.n_gpu == 1


def test_every_bar_says_what_it_is_of(small_base, tmp_path, capsys):
    train_once(small_base, tmp_path)
    bars = [bar.strip() for bar in capsys.readouterr().err.replace("\n", "\r").split("\r") if "|" in bar]
    assert any(bar.startswith("validation: ") for bar in bars)
    assert [bar for bar in bars if not bar.startswith(("training: ", "validation: ", "Loading weights: "))] == []


def test_the_same_run_gives_the_same_bytes(trained, small_base, tmp_path):
    assert adapter_bytes(train_once(small_base, tmp_path)[1]) == adapter_bytes(trained[1])


def test_another_seed_gives_other_bytes(trained, small_base, tmp_path):
    assert adapter_bytes(train_once(small_base, tmp_path, seed=7)[1]) != adapter_bytes(trained[1])


@with_quantization
def test_the_loss_falls_and_the_adapter_loads(small_base, tmp_path, quantization):
    losses, folder = train_once(small_base, tmp_path, quantization=quantization)
    assert losses[-1] < losses[0] - 0.5
    ids = torch.tensor([[10] * 24])
    with torch.inference_mode():
        before = load_base(MODEL, small_base, HARDWARE, quantization)(ids, labels=ids).loss
        after = load_tuned(open_adapter(folder, MODEL, small_base), HARDWARE)(ids, labels=ids).loss
    assert after < before - 0.5


@with_quantization
def test_validating_in_between_changes_no_training_step(small_base, tmp_path, quantization):
    """bitsandbytes repacks 4-bit weights in evaluation mode on some CPUs, for a kernel without gradients."""
    how = {"quantization": quantization, "neftune_noise_alpha": None}  # its noise depends on what else was drawn
    validated, _ = train_once(small_base, tmp_path / "a", **how)
    plain, _ = train_once(small_base, tmp_path / "b", validate=False, **how)
    assert validated == plain


def test_gradient_checkpointing_changes_no_loss(trained, small_base, tmp_path):
    checkpointed, _ = train_once(small_base, tmp_path, gradient_checkpointing=True)
    assert checkpointed == pytest.approx(trained[0], abs=1e-4)


def test_the_validation_loss_is_the_mean_over_records_whatever_the_batch(small_base, tmp_path):
    """Also where batches are padded: one of a long and a short answer is no mean over their tokens."""
    rows = [*short_rows(1, 80), *short_rows(1, 12)]
    losses = []
    for batch_size in (1, 2):
        recipe = recipe_of(4, batch_size=batch_size, hardware=replace(HARDWARE, attention="sdpa"))
        losses.append(trainer_of(small_base, recipe, short_rows(), tmp_path, rows).evaluate()["eval_loss"])
    assert losses[0] == losses[1]


def test_keeping_the_best_needs_the_checkpoint_of_each_epoch(small_base, tmp_path):
    losses, folder = train_once(small_base, tmp_path, keep="best")
    assert losses[-1] < losses[0]
    assert (folder / "adapter_model.safetensors").is_file()


def test_an_adapter_of_another_base_is_refused(trained, small_base):
    with pytest.raises(ModelError, match="was trained on another base model"):
        open_adapter(trained[1], MODEL.model_copy(update={"seed": 2}), small_base)


def test_adapter_config_lists_are_sorted_and_name_the_base(trained, small_base):
    config = json.loads((trained[1] / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == small_base.name
    assert config["inference_mode"] is True
    assert not (trained[1] / "README.md").exists()


# --- the same training in other ways ---------------------------------------------------------------------------------


def trained_on(profile, folder, rows, batch_size, accumulation):
    """Train three epochs; returns the losses and the trained weights."""
    recipe = recipe_of(
        len(rows),
        learning_rate=1e-4,
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        neftune_noise_alpha=None,  # its noise depends on the shape of a batch
    )
    trainer = trainer_of(profile, recipe, rows, folder, checkpoints=False)
    trainer.train()
    parameters = trainer.model.named_parameters()
    return losses_of(trainer), {name: weight.detach() for name, weight in parameters if weight.requires_grad}


def test_batch_1_accumulated_8_times_is_batch_8(small_base, tmp_path):
    accumulated, weights = trained_on(small_base, tmp_path / "a", varied_rows(), 1, 8)
    whole, same_weights = trained_on(small_base, tmp_path / "b", varied_rows(), 8, 1)
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
def packing_trainer(small_base, tmp_path):
    """Returns a trainer for rows, packed or not, on a model whose adapter is not zero."""

    def make(rows, packing):
        trainer = trainer_of(small_base, recipe_of(len(rows), packing=packing), rows, tmp_path, checkpoints=False)
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(1))
        return trainer

    return make


def test_a_packed_record_has_the_loss_of_one_alone_token_by_token(packing_trainer):
    rows = varied_rows()
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
    (row, *_) = pack(varied_rows(), 96)
    trainer = packing_trainer([row], True)
    apart = token_log_probs(trainer, [row])
    labels = list(row["labels"])
    start = 0
    for length in row["seq_lengths"]:
        labels[start] = IGNORED_LABEL
        start += length
    joined = token_log_probs(trainer, [{"input_ids": row["input_ids"], "labels": labels}])
    assert (apart - joined).abs().max() > 1e-2


def test_packed_training_learns(small_base, tmp_path):
    rows = pack(short_rows(8), 60)
    recipe = recipe_of(len(rows), epochs=6.0, packing=True)
    trainer = trainer_of(small_base, recipe, rows, tmp_path, short_rows()[:1])
    trainer.train()
    losses = losses_of(trainer)
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize(
    ("device", "capability", "own"), [("cpu", None, True), ("cuda", (7, 5), True), ("cuda", (8, 0), False)]
)
def test_without_triton_the_loss_is_our_own(monkeypatch, device, capability, own):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    trainer = SimpleNamespace(args=SimpleNamespace(device=torch.device(device)), padding_free=True)
    assert trainer_module.AdapterTrainer.uses_own_loss.fget(trainer) is own


def test_liger_is_there_before_the_trial_pass_and_without_its_own_loss(small_base, tmp_path, monkeypatch):
    """A loss of Liger's would take the place of trl's, which every other part of the training rests on."""
    applied = []
    monkeypatch.setattr(trainer_module, "apply_liger_kernel", lambda model, config: applied.append(config))
    trainer_of(small_base, recipe_of(4, hardware=replace(HARDWARE, liger_kernel=True)), short_rows(), tmp_path)
    assert applied == [{"fused_linear_cross_entropy": False}]


@with_quantization
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_what_is_trained_is_kept_in_fp32(small_base, tmp_path, quantization, precision):
    """Small steps are lost in 16 bits, and fp16's gradient scaler refuses 16-bit gradients."""
    recipe = recipe_of(4, hardware=replace(HARDWARE, precision=precision), quantization=quantization)
    trainer = trainer_of(small_base, recipe, short_rows(), tmp_path, short_rows()[:1])
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    trainer.train()
    losses = losses_of(trainer)
    assert losses[-1] < losses[0]
