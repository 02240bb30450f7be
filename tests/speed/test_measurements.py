"""The benchmark's measurements on a base that takes no time: what is measured, not how fast it is."""

import pytest

from civilqa.base_model.prompts import load_tokenizer
from civilqa.model.loading import load_base
from civilqa.speed.measurements import (
    BenchmarkParams,
    Limits,
    measure_generation,
    measure_training,
    random_prompts,
    spread,
)
from civilqa.training.recipe import make_recipe
from small_training import HARDWARE, MODEL, read_preset, read_train, tiny_tuning

PARAMS = BenchmarkParams(
    seed=1,
    repeats=2,
    warmup=1,
    train_batch_size=2,
    train_length=16,
    prompt_length=8,
    new_tokens=3,
    generate_batch_size=2,
)
LIMITS = Limits(matmul_flops_per_second=1e9, copy_bytes_per_second=1e9)


def assert_ordered(*spreads):
    for part in spreads:
        assert 0 < part["min"] <= part["median"] <= part["max"]


def test_a_training_is_measured_step_by_step(small_base):
    steps = PARAMS.warmup + PARAMS.repeats
    recipe = make_recipe(
        read_train(), read_preset("balanced"), tiny_tuning(), HARDWARE, batch_size=2, steps=steps, seed=1
    )
    measured = measure_training(MODEL, small_base, load_tokenizer(small_base), recipe, PARAMS, LIMITS)
    assert_ordered(measured["step_seconds"], measured["tokens_per_second"])
    assert measured["tokens_per_second"]["max"] == pytest.approx(2 * 16 / measured["step_seconds"]["min"], rel=1e-2)
    rate = measured["roofline"]["flops_per_second"] / LIMITS.matmul_flops_per_second
    assert measured["model_flops_utilization"] == pytest.approx(rate, rel=1e-2)
    assert measured["peak_memory_bytes"] > 2**20
    assert (measured["preset"], measured["batch_size"], measured["length_tokens"]) == ("balanced", 2, 16)


def test_generation_is_measured_in_first_tokens_and_in_those_after(small_base):
    tokenizer = load_tokenizer(small_base)
    measured = measure_generation(load_base(MODEL, small_base, HARDWARE), tokenizer, HARDWARE, PARAMS, 2, LIMITS)
    assert_ordered(measured["first_token_seconds"], measured["prefill_tokens_per_second"])
    assert measured["prefill_tokens_per_second"]["max"] == pytest.approx(
        2 * 8 / measured["first_token_seconds"]["min"], rel=1e-2
    )
    assert {"prefill_roofline", "decode_roofline", "decode_tokens_per_second"} <= measured.keys()


def test_prompts_are_ordinary_tokens_and_the_same_every_time(small_base):
    tokenizer = load_tokenizer(small_base)
    prompts = random_prompts(3, 5, tokenizer, seed=1)
    assert [len(prompt) for prompt in prompts] == [5, 5, 5]
    assert prompts == random_prompts(3, 5, tokenizer, seed=1) != random_prompts(3, 5, tokenizer, seed=2)
    assert not set(tokenizer.all_special_ids) & {token for prompt in prompts for token in prompt}


def test_a_spread_has_four_digits():
    assert spread([1.23456, 2.0, 4.0]) == {"median": 2.0, "min": 1.235, "max": 4.0}
