import pytest

from civilqa.program.errors import ParameterError
from civilqa.training.recipe import (
    Recipe,
    StepParams,
    TrainParams,
    make_recipe,
    refuse_fsdp_with_quantization,
    resolve_recipe,
)
from small_training import HARDWARE, read_preset, read_train, recipe_of, tiny_tuning


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
        ("balanced", {"batch_size": 43, "epochs": 1.0}, (1, 1), {"steps": 1, "warmup_steps": 0}),
    ],
)
def test_overrides_stand_as_they_are_and_factors_scale_presets_only(name, overrides, factors, expected):
    tuning = tiny_tuning(epochs_factor=float(factors[0]), learning_rate_factor=float(factors[1]))
    recipe = resolve_recipe(read_train(**overrides), read_preset(name), tuning, HARDWARE, records=43)
    assert {key: getattr(recipe, key) for key in expected} == pytest.approx(expected)


def test_a_recipe_holds_every_key_of_train_and_of_the_tuning():
    """What no recipe holds has done its work before: which records there are, and whether to train at all."""
    shown = {"warmup_fraction": "warmup_steps"}
    # `report_to` decides nothing of the result: another tracker goes on from the same checkpoint.
    done_before = {"max_length", "overlong", "estimate_only", "report_to"}
    in_hardware = {"attention", "optimizer", "liger_kernel", "fused_lora", "compile"}
    wanted = {shown.get(key, key) for key in TrainParams.model_fields} - done_before - in_hardware
    assert wanted <= set(Recipe.__dataclass_fields__)
    assert in_hardware <= set(HARDWARE.__dataclass_fields__)
    changed = recipe_of(8, tuning=tiny_tuning(rank=3, dropout=0.5), seed=7, weight_decay=0.5, max_grad_norm=2.0)
    assert (changed.lora.rank, changed.lora.dropout, changed.seed) == (3, 0.5, 7)
    assert (changed.weight_decay, changed.max_grad_norm) == (0.5, 2.0)
    assert changed.as_json()["lora"]["rank"] == 3


def test_the_benchmark_needs_no_key_of_train_but_those_of_a_step():
    train = StepParams(**read_train().model_dump(include=set(StepParams.model_fields)))
    recipe = make_recipe(train, read_preset("fast"), tiny_tuning(), HARDWARE, batch_size=4, steps=7, seed=1)
    assert (recipe.epochs, recipe.steps, recipe.batch_size, recipe.keep, recipe.packing) == (1.0, 7, 4, "last", False)


def test_a_quantised_base_is_not_spread_by_fsdp(monkeypatch):
    refuse_fsdp_with_quantization("4bit")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    refuse_fsdp_with_quantization("none")
    with pytest.raises(ParameterError, match=r"params.yaml: launch: found FSDP beside quantization 4bit"):
        refuse_fsdp_with_quantization("4bit")
