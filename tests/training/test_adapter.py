"""LoRA in fewer operations computes what peft computes."""

from dataclasses import replace

import pytest
import torch

from civilqa.program.errors import ParameterError
from civilqa.training.adapter import fuse_lora
from small_training import HARDWARE, recipe_of, tiny_tuning, trainer_of, varied_rows


def loss_and_gradients(trainer):
    """Return the loss of a batch and its gradients, B drawn, since at zero it leaves A none."""
    generator = torch.Generator().manual_seed(3)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    torch.manual_seed(5)  # of the dropout
    precision = trainer.model.get_base_model().dtype
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = trainer.batch_loss(trainer.model.train(), trainer.data_collator(varied_rows(4)))
    loss.backward()
    return loss.item(), {name: p.grad for name, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("quantization", ["none", pytest.param("4bit", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.1)])
def test_the_loss_and_the_gradients_are_those_of_peft(small_base, tmp_path, quantization, precision, tolerance):
    recipe = recipe_of(
        4,
        hardware=replace(HARDWARE, precision=precision),
        tuning=tiny_tuning(dropout=0.1, modules_to_save=[]),
        quantization=quantization,
    )
    plain, fused = (trainer_of(small_base, recipe, varied_rows(4), tmp_path, checkpoints=False) for _ in range(2))
    fuse_lora(fused.model)
    wanted, found = loss_and_gradients(plain), loss_and_gradients(fused)
    assert found[0] == pytest.approx(wanted[0], rel=tolerance / 10)
    assert len(found[1]) > 20
    for name, gradient in wanted[1].items():
        assert gradient.norm() > 0
        assert (found[1][name] - gradient).norm() < tolerance * gradient.norm(), name
        assert found[1][name].dtype == torch.float32


def test_a_frozen_output_layer_is_found_where_no_step_was_tried_before(small_base, tmp_path):
    """The benchmark trains at once; outside of autocast fp32 beside 16 bits would not multiply."""
    half = replace(HARDWARE, precision="bf16", fused_lora=True)
    recipe = recipe_of(4, tuning=tiny_tuning(modules_to_save=[]), hardware=half, epochs=1.0)
    trainer = trainer_of(small_base, recipe, varied_rows(4), tmp_path, checkpoints=False)
    trainer.train()
    assert trainer._frozen_head is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_modules": ["q_proj", "embed_tokens"], "modules_to_save": []}, "LoRA on the embeddings of"),
        ({"target_modules": ".*(q_proj|embed_tokens)", "modules_to_save": []}, "LoRA on the embeddings of"),
        ({"target_modules": ["q_proj", "lm_head"], "modules_to_save": []}, "LoRA on the output layer of"),
        ({"target_modules": ".*(q_proj|lm_head)", "modules_to_save": []}, "LoRA on the output layer of"),
    ],
)
def test_lora_on_what_is_read_past_it_is_refused(small_base, tmp_path, changes, message):
    with pytest.raises(ParameterError, match=message):
        trainer_of(small_base, recipe_of(4, tuning=tiny_tuning(**changes)), varied_rows(4), tmp_path)


def test_what_is_saved_is_the_same(small_base, tmp_path):
    trainer = trainer_of(small_base, recipe_of(4), varied_rows(4), tmp_path, checkpoints=False)
    before = set(trainer.model.state_dict())
    fuse_lora(trainer.model)
    assert set(trainer.model.state_dict()) == before


def test_dropout_is_on_after_an_evaluation(small_base, tmp_path):
    """`train` is answered without a walk only where the mode is that already."""
    recipe = recipe_of(4, tuning=tiny_tuning(dropout=0.5))
    trainer = trainer_of(small_base, recipe, varied_rows(4), tmp_path, varied_rows(4)[:1], checkpoints=False)
    model = trainer.model
    layers = [module for name, module in model.named_modules() if "lora_dropout.default" in name]
    for mode in (True, False, True, True, False):
        model.train(mode)
        assert {layer.training for layer in layers} == {mode}
    trainer.train()
    assert {layer.training for layer in layers} == {False}  # the evaluation at the end
    model.train()
    assert {layer.training for layer in layers} == {True}


def test_no_gradient_is_left_after_a_step(small_base, tmp_path):
    trainer = trainer_of(small_base, recipe_of(4), varied_rows(4), tmp_path, checkpoints=False)
    trainer.train()
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
