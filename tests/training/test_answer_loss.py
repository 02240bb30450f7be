"""The loss in chunks is the plain one, in value and gradients, and is taken only where it is the same."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GraniteConfig, LlamaConfig

from civilqa.training import answer_loss
from civilqa.training.answer_loss import IGNORED_LABEL, ChunkedLoss, ends_in_frozen_head, summed_answer_loss

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}


def model_of(kind=LlamaConfig, **traits):
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(kind(**SMALL, **traits)).requires_grad_(False)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("bias", [True, False])
def test_chunks_have_the_loss_and_gradient_of_whole_logits(monkeypatch, chunk, bias):
    monkeypatch.setattr(answer_loss, "CHUNK_LOGITS", 300 * chunk)
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 300, bias=bias).double().requires_grad_(False)
    plain, chunked = (
        (torch.arange(20 * 32).double().view(20, 32) / 90).sin().mul(40).requires_grad_() for _ in range(2)
    )
    labels = torch.arange(20) * 7
    wanted = torch.nn.functional.cross_entropy(head(plain).float(), labels, reduction="sum") / 3
    found = ChunkedLoss.apply(chunked, head.weight, head.bias, labels) / 3
    torch.testing.assert_close(found, wanted)
    wanted.backward()
    found.backward()
    torch.testing.assert_close(chunked.grad, plain.grad, rtol=1e-5, atol=1e-6)


def test_large_logits_do_not_overflow():
    head = torch.nn.Linear(1, 3, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[1e4], [2e4], [-1e4]]))
    loss = ChunkedLoss.apply(torch.ones(1, 1), head.weight, None, torch.tensor([0]))
    assert loss.item() == pytest.approx(1e4)


def test_a_model_has_the_same_gradients_with_its_head_in_chunks():
    model = model_of()
    row = {"input_ids": torch.arange(30)[None], "labels": torch.arange(30)[None].clone()}
    row["labels"][0, :9] = IGNORED_LABEL
    layer = model.model.layers[0].mlp.up_proj.weight.requires_grad_()
    gradients = []
    for head in (None, model.lm_head):
        loss, tokens = summed_answer_loss(model, row, head)
        layer.grad = None
        loss.backward()
        gradients.append((loss.detach(), layer.grad))
        assert tokens == 21
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    assert model(row["input_ids"]).logits.shape == (1, 30, 300), "the head is as it was"


@pytest.mark.parametrize(
    ("kind", "traits", "frozen", "expected"),
    [
        (LlamaConfig, {}, True, True),
        (LlamaConfig, {"tie_word_embeddings": True}, True, True),
        (LlamaConfig, {}, False, False),
        (Gemma3TextConfig, {}, True, True),
        (Gemma3TextConfig, {"final_logit_softcapping": 2.0}, True, False),
        (GraniteConfig, {"logits_scaling": 8.0}, True, False),
    ],
)
def test_the_head_is_in_chunks_only_where_it_is_frozen_and_the_models_last_step(kind, traits, frozen, expected):
    model = model_of(kind, **traits).train()
    model.lm_head.weight.requires_grad_(not frozen)
    assert ends_in_frozen_head(model) is expected
    assert model.training


def test_a_head_that_is_no_linear_layer_is_left_alone():
    assert not ends_in_frozen_head(SimpleNamespace(get_output_embeddings=lambda: None))
