"""A padding-free batch computes what each of its records computes alone."""

from dataclasses import replace

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DogeConfig,
    Exaone4Config,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    NemotronConfig,
    Qwen2Config,
    Qwen3Config,
)
from transformers.integrations.neftune import activate_neftune

from civilqa.model.loading import load_base
from civilqa.program.errors import ParameterError
from civilqa.training.answer_loss import IGNORED_LABEL, summed_answer_loss
from civilqa.training.varlen_attention import (
    VARLEN_ATTENTION,
    attend_equal_records,
    keeps_records_apart,
    supports_varlen_attention,
    varlen_attention,
)
from small_training import HARDWARE, MODEL, recipe_of, trainer_of


def rows_of(*lengths):
    rows = []
    for i, length in enumerate(lengths):
        tokens = [(37 * i + 11 * j) % 3000 + 8 for j in range(length)]
        rows.append({"input_ids": tokens, "labels": [IGNORED_LABEL] * 4 + tokens[4:]})
    return rows


@pytest.fixture
def make(small_base, tmp_path):
    """Returns a trainer for rows, and for a validation split of others."""

    def make(rows, validation=(), **changes):
        return trainer_of(small_base, recipe_of(len(rows), **changes), rows, tmp_path, validation, checkpoints=False)

    return make


def padded_losses(model, rows):
    """Return each row's summed loss from plain logits of a padded batch, through torch's attention with a mask."""
    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [2] * (width - len(row["input_ids"])) for row in rows])
    labels = torch.tensor([row["labels"] + [IGNORED_LABEL] * (width - len(row["labels"])) for row in rows])
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").sum(1)


def test_a_row_of_records_has_the_losses_and_gradients_of_a_padded_batch(make, small_base):
    rows = rows_of(30, 7, 19, 30)
    trainer = make(rows)
    plain = load_base(MODEL, small_base, HARDWARE)  # a new adapter changes nothing
    loss, tokens = summed_answer_loss(trainer.model.eval(), trainer.data_collator(rows), None)
    assert tokens == sum(len(row["input_ids"]) - 4 for row in rows)
    expected = padded_losses(plain, rows).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-3)
    loss.backward()
    plain.model.embed_tokens.weight.grad = None
    expected.backward()
    trained = trainer.model.get_input_embeddings().weight.grad
    torch.testing.assert_close(trained, plain.model.embed_tokens.weight.grad, rtol=1e-3, atol=1e-3)


def test_no_record_sees_another(make):
    """Changing the first record leaves the losses of the others as they were."""
    trainer = make(rows_of(12, 9))
    model = trainer.model.eval()
    first, other, second = *rows_of(12, 12), rows_of(12, 12, 9)[2]
    with torch.inference_mode():
        alone = summed_answer_loss(model, trainer.data_collator([second]), None)[0]
        for before in (first, other):
            both = summed_answer_loss(model, trainer.data_collator([before, second]), None)[0]
            rest = summed_answer_loss(model, trainer.data_collator([before]), None)[0]
            torch.testing.assert_close(both - rest, alone, rtol=1e-5, atol=1e-3)


def test_a_batch_holds_no_padding(make):
    trainer = make(rows_of(30, 7, 19, 30))
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape[0] == 1
    assert batch["input_ids"].shape[1] == int(batch["cu_seq_lens_q"][-1]) == int(batch["cu_seq_lens_q"].diff().sum())
    assert "attention_mask" not in batch


def test_the_validation_loss_is_the_mean_over_records_of_the_mean_loss_a_token(make, small_base):
    rows = rows_of(40, 8, 11)
    trainer = make(rows_of(30, 7), validation=rows)
    with torch.inference_mode():
        losses = padded_losses(load_base(MODEL, small_base, HARDWARE), rows)
    means = [loss.item() / (len(row["input_ids"]) - 4) for loss, row in zip(losses, rows, strict=True)]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(means) / 3, abs=1e-4)


@pytest.mark.parametrize("lengths", [(100,), (100, 100, 100, 100)])
def test_the_noise_of_neftune_goes_with_the_length_of_a_record_not_of_the_row(make, lengths):
    """NEFTune: uniform in +-alpha / sqrt(length x dimensions). Source: Jain et al. 2023 (arXiv:2310.05914)."""
    trainer = make(rows_of(*lengths), neftune_noise_alpha=5.0, batch_size=len(lengths))
    embeddings = trainer.model.get_input_embeddings()
    seen = []
    activate_neftune(trainer.model, 5.0, trainer.accelerator)  # as the trainer does when it begins
    embeddings.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output.detach())))
    trainer.compute_loss(trainer.model.train(), trainer.data_collator(rows_of(*lengths)))
    ids, noisy = seen[0]
    noise = noisy - torch.nn.functional.embedding(ids, embeddings.weight)
    assert noise.abs().max().item() == pytest.approx(5.0 / (100 * 64) ** 0.5, rel=1e-2)


def test_records_of_one_length_are_a_batch():
    query, key, value = (torch.randn(1, heads, 24, 8) for heads in (4, 2, 2))
    borders = torch.tensor([0, 8, 16, 24], dtype=torch.int32)
    wanted, _ = varlen_attention(None, query, key, value, None, cu_seq_lens_q=borders, max_length_q=8)
    torch.testing.assert_close(attend_equal_records(query, key, value, 3, 0.0, None), wanted)


def test_padding_can_be_asked_for_and_has_the_same_loss(make):
    rows = rows_of(30, 7, 19, 30)
    padded = make(rows, hardware=replace(HARDWARE, attention="sdpa"))
    batch = padded.data_collator(rows)
    assert batch["input_ids"].shape == (4, 30)
    with torch.inference_mode():
        plain = make(rows)
        unpadded = plain.batch_loss(plain.model.eval(), plain.data_collator(rows))
        torch.testing.assert_close(padded.batch_loss(padded.model.eval(), batch), unpadded, rtol=1e-5, atol=1e-4)


WINDOW = 8
SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}
HALF = ["sliding_attention", "full_attention"] * 2
SLIDING = {
    "Mistral": (MistralConfig, {"sliding_window": WINDOW}),
    "Gemma 3": (Gemma3TextConfig, {"sliding_window": WINDOW, "layer_types": HALF, "query_pre_attn_scalar": 8}),
    "Qwen 2": (Qwen2Config, {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": HALF}),
    "Qwen 3": (Qwen3Config, {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": HALF}),
    "EXAONE 4": (Exaone4Config, {"sliding_window": WINDOW, "layer_types": HALF}),
}


@pytest.mark.parametrize("name", SLIDING)
def test_records_longer_than_a_sliding_window_are_attended_to_as_alone(name):
    kind, traits = SLIDING[name]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(kind(**SMALL, **traits), attn_implementation="sdpa").eval()
    assert supports_varlen_attention(model)
    lengths = (5, 30, WINDOW, 17)
    ids = [torch.arange(length)[None] * 7 % 290 + 3 for length in lengths]
    with torch.inference_mode():
        alone = torch.cat([model(row, use_cache=False).logits for row in ids], dim=1)
        model.set_attn_implementation(VARLEN_ATTENTION)
        borders = torch.tensor([0, *lengths]).cumsum(0).int()
        places = torch.cat([torch.arange(length) for length in lengths])[None]
        row = {"input_ids": torch.cat(ids, dim=1), "position_ids": places, "use_cache": False}
        together = model(**row, cu_seq_lens_q=borders, cu_seq_lens_k=borders, max_length_q=30, max_length_k=30).logits
        model.config.sliding_window = None
        for module in model.modules():
            module.sliding_window = None
        wide = model(**row, cu_seq_lens_q=borders, cu_seq_lens_k=borders, max_length_q=30, max_length_k=30).logits
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert (wide - alone).abs().max() > 1e-2, "the windows make a difference"


@pytest.mark.parametrize(
    ("kind", "traits"),
    [
        (Gemma2Config, {}),  # caps the products that attention weighs by
        (Gemma3TextConfig, {"attn_logit_softcapping": 50.0}),
        (Gemma3TextConfig, {"use_bidirectional_attention": True}),
        (Llama4TextConfig, {"attention_chunk_size": 16, "intermediate_size_mlp": 64, "num_local_experts": 2}),
    ],
)
def test_models_with_another_attention_are_padded(kind, traits):
    assert not supports_varlen_attention(AutoModelForCausalLM.from_config(kind(**SMALL | traits)))


@pytest.mark.parametrize(
    ("kind", "attention", "apart"),
    [
        (LlamaConfig, VARLEN_ATTENTION, True),
        (LlamaConfig, "sdpa", True),  # as packed
        (Gemma3TextConfig, VARLEN_ATTENTION, True),
        (NemotronConfig, VARLEN_ATTENTION, False),  # its layers are not told where a record begins
        (DogeConfig, VARLEN_ATTENTION, False),  # has a mask of its own
        (FalconConfig, "sdpa", False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whether_records_of_a_row_see_each_other_is_tried(kind, attention, apart, dtype):
    torch.manual_seed(1)
    config = kind(**{key: SMALL[key] for key in SMALL if key != "head_dim"}, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=dtype).train()
    for name, parameter in model.named_parameters():
        if name.endswith("self_attn.A"):  # zero at first, as if there were no mask
            parameter.data.normal_()
    model.set_attn_implementation(attention)
    assert keeps_records_apart(model) == apart
    assert (model.training, model.config._attn_implementation) == (True, attention)


@pytest.mark.parametrize("packing", [False, True])
def test_where_they_do_batches_are_padded_and_never_packed(small_base, tmp_path, monkeypatch, capsys, packing):
    monkeypatch.setattr("civilqa.training.trainer.keeps_records_apart", lambda base: False)
    recipe = replace(recipe_of(2), packing=packing)
    if packing:
        with pytest.raises(ParameterError, match=r"train\.packing: found true, but in 'llama' models records"):
            trainer_of(small_base, recipe, rows_of(30, 7), tmp_path, checkpoints=False)
        return
    trainer = trainer_of(small_base, recipe, rows_of(30, 7), tmp_path, checkpoints=False)
    assert not trainer.padding_free
    assert "batches are padded: in one row, records" in capsys.readouterr().out
