"""Measures training and generation: seconds, tokens a second, memory, and their share of the machine's limits."""

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

import torch
from pydantic import Field
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.generation.decoding import Decoding, generate
from civilqa.model.hardware import Hardware, peak_memory_bytes
from civilqa.model.loading import load_base
from civilqa.program.parameters import BatchSize, Section, Seed, Tokens
from civilqa.speed.roofline import Limits, compare, decode_work, prefill_work, synchronize, training_work
from civilqa.training.adapter import add_adapter
from civilqa.training.recipe import Recipe
from civilqa.training.trainer import make_trainer


class BenchmarkParams(Section):
    seed: Seed
    repeats: Annotated[int, Field(ge=1, le=1000)]
    warmup: Annotated[int, Field(ge=0, le=1000)]
    train_batch_size: BatchSize
    train_length: Annotated[Tokens, Field(ge=2)]
    prompt_length: Tokens
    new_tokens: Annotated[Tokens, Field(ge=2)]
    generate_batch_size: BatchSize


class StepTimer(TrainerCallback):
    """Notes the seconds of each optimiser step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        synchronize(self.device)
        self._started = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        synchronize(self.device)
        self.seconds.append(time.perf_counter() - self._started)


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum, to four significant digits: a timing has no more."""
    summary = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: float(f"{value:.4g}") for name, value in summary.items()}


def random_prompts(n: int, length: int, tokenizer: PreTrainedTokenizerFast, seed: int) -> list[list[int]]:
    """Return n sequences of random ordinary tokens: speed does not depend on what they say."""
    special = set(tokenizer.added_tokens_decoder)
    ordinary = [token for token in range(len(tokenizer)) if token not in special]
    draw = random.Random(seed)  # noqa: S311 - no secret
    return [[draw.choice(ordinary) for _ in range(length)] for _ in range(n)]


def measure_training(
    model_params: ModelParams,
    profile: Profile,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    params: BenchmarkParams,
    limits: Limits,
) -> dict[str, Any]:
    """Return seconds a step and tokens a second of the finetune stage's trainer, and the seconds the base took to load.

    `model_flops_utilization` is the share of the matmul rate measured beside it.

    Args:
        recipe: of `warmup + repeats` steps.
    """
    hardware = recipe.hardware
    examples = [
        {"input_ids": ids, "labels": ids}
        for ids in random_prompts(recipe.steps * recipe.batch_size, params.train_length, tokenizer, recipe.seed)
    ]
    started = time.perf_counter()
    base = load_base(model_params, profile, hardware, recipe.quantization)
    synchronize(hardware.device)
    load_seconds = time.perf_counter() - started
    model = add_adapter(base, profile, recipe.lora, recipe.gradient_checkpointing, recipe.seed)
    timer = StepTimer(hardware.device)
    scratch = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        splits = {"train": examples, "validation": []}
        trainer = make_trainer(model, tokenizer, splits, recipe, scratch, checkpoints=False)
        trainer.add_callback(timer)
        trainer.train()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    peak = peak_memory_bytes(hardware.device)
    seconds = timer.seconds[params.warmup :]
    tokens = recipe.batch_size * params.train_length
    work = training_work(trainer.model, recipe.batch_size, params.train_length)
    roofline = compare(work, statistics.median(seconds), limits)
    return {
        "preset": recipe.preset,
        "attention": hardware.attention,
        "optimizer": hardware.optimizer,
        "liger_kernel": hardware.liger_kernel,
        "compile": hardware.compile,
        "quantization": recipe.quantization,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "batch_size": recipe.batch_size,
        "length_tokens": params.train_length,
        "load_seconds": float(f"{load_seconds:.4g}"),
        "step_seconds": spread(seconds),
        "tokens_per_second": spread([tokens / second for second in seconds]),
        "peak_memory_bytes": peak,
        "model_flops_utilization": roofline["compute_share"],
        "roofline": roofline,
    }


@torch.inference_mode()
def measure_generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    hardware: Hardware,
    params: BenchmarkParams,
    batch_size: int,
    limits: Limits,
) -> dict[str, Any]:
    """Return first-token latency, prefill and decode speed for a batch of prompts of one length, as evaluate asks.

    Prefill is the time to the first token. Decode is the rest of a longer run, divided by the tokens after the first.
    """
    prompts = random_prompts(batch_size, params.prompt_length, tokenizer, params.seed)
    never = model.config.vocab_size  # no token: an answer that ends itself early would be counted as fast

    def seconds(new_tokens: int) -> float:
        synchronize(hardware.device)
        started = time.perf_counter()
        generate(model, tokenizer, prompts, Decoding(new_tokens, batch_size, never))
        synchronize(hardware.device)
        return time.perf_counter() - started

    first = repeat(lambda: seconds(1), params, f"first token, batch {batch_size}")
    whole = repeat(lambda: seconds(params.new_tokens), params, f"generate, batch {batch_size}")
    prefill = statistics.median(first)
    decoded = batch_size * (params.new_tokens - 1)
    decode = [second - prefill for second in whole]
    return {
        "batch_size": batch_size,
        "prompt_tokens": params.prompt_length,
        "new_tokens": params.new_tokens,
        "first_token_seconds": spread(first),
        "prefill_tokens_per_second": spread([batch_size * params.prompt_length / second for second in first]),
        "decode_tokens_per_second": spread([decoded / second for second in decode]),
        "prefill_roofline": compare(prefill_work(model, batch_size, params.prompt_length), prefill, limits),
        "decode_roofline": compare(
            decode_work(model, batch_size, params.prompt_length, params.new_tokens), statistics.median(decode), limits
        ),
    }


def repeat(measure: Callable[[], float], params: BenchmarkParams, description: str) -> list[float]:
    """Return `repeats` measurements, after `warmup` that do not count."""
    values = [measure() for _ in tqdm(range(params.warmup + params.repeats), desc=description)]
    return values[params.warmup :]
