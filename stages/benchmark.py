"""Measures what users decide by: training and generation speed, first-token latency, memory, on the machine at hand.

Reads:  models/adapter, the profile's base model
Writes: metrics/benchmark.json
Params: benchmark, train, the selected preset, model, the selected profile, hardware

The training speed is that of the finetune stage's trainer on sequences of one length. Generation runs the tuned model
with its adapter merged. Every figure is the median of `repeats` measurements after `warmup` unmeasured ones, with the
smallest and the largest beside it. Timings differ from run to run and from machine to machine: the machine is named.
"""

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from civilqa.files import write_json
from civilqa.hardware import (
    Hardware,
    HardwareParams,
    describe_machine,
    inspect_machine,
    peak_memory_bytes,
    resolve_hardware,
    versions,
)
from civilqa.models import WEIGHTS_FILE, load_base, load_tuned, read_manifest
from civilqa.parameters import Section, read_choice, read_sections
from civilqa.profiles import ModelParams, Profile, read_profile
from civilqa.prompts import load_tokenizer
from civilqa.stage import run
from civilqa.training import (
    Preset,
    TrainParams,
    add_adapter,
    choose_hardware,
    make_trainer,
    resolve_schedule,
)

ADAPTER = Path("models/adapter")
METRICS = Path("metrics/benchmark.json")

PositiveInt = Annotated[int, Field(ge=1)]


class BenchmarkParams(Section):
    seed: Annotated[int, Field(ge=0)]
    repeats: PositiveInt
    warmup: Annotated[int, Field(ge=0)]
    train_batch_size: PositiveInt
    train_length: Annotated[int, Field(ge=2)]
    prompt_length: PositiveInt
    new_tokens: Annotated[int, Field(ge=2)]
    generate_batch_size: PositiveInt


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


def synchronize(device: str) -> None:
    """Wait until the GPU has done what it was given, so that a clock read next to it is right."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


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
    params: BenchmarkParams,
) -> dict[str, Any]:
    """Return seconds a step and tokens a second of the finetune stage's trainer, and the seconds the base took to load.

    The preset decides quantization and gradient checkpointing; batch and length are the benchmark's own, so that
    figures of different presets can be compared.
    """
    train, hardware_params = read_sections(train=TrainParams, hardware=HardwareParams)
    preset = read_choice("presets", train.preset, Preset, "train.preset")
    batches = params.warmup + params.repeats
    examples = [
        {"input_ids": ids, "labels": ids}
        for ids in random_prompts(batches * params.train_batch_size, params.train_length, tokenizer, params.seed)
    ]
    schedule = replace(
        resolve_schedule(train, preset, profile, len(examples)),
        epochs=1,
        batch_size=params.train_batch_size,
        gradient_accumulation_steps=1,
        keep="last",
        packing=False,
        steps=batches,
        warmup_steps=0,
    )
    hardware, _ = choose_hardware(hardware_params, train, preset, inspect_machine())
    started = time.perf_counter()
    base = load_base(model_params, profile, hardware, schedule.quantization)
    synchronize(hardware.device)
    load_seconds = time.perf_counter() - started
    scratch = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        timer = StepTimer(hardware.device)
        trainer = make_trainer(
            add_adapter(base, profile, schedule, train.seed),
            tokenizer,
            {"train": examples, "validation": []},
            schedule,
            train,
            hardware,
            scratch,
            checkpoints=False,
        )
        trainer.add_callback(timer)
        trainer.train()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = timer.seconds[params.warmup :]
    tokens = params.train_batch_size * params.train_length
    return {
        "preset": train.preset,
        "attention": hardware.attention,
        "optimizer": hardware.optimizer,
        "liger_kernel": hardware.liger_kernel,
        "compile": hardware.compile,
        "quantization": schedule.quantization,
        "gradient_checkpointing": schedule.gradient_checkpointing,
        "batch_size": params.train_batch_size,
        "length_tokens": params.train_length,
        "load_seconds": float(f"{load_seconds:.4g}"),
        "step_seconds": spread(seconds),
        "tokens_per_second": spread([tokens / second for second in seconds]),
    }


@torch.inference_mode()
def measure_generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    hardware: Hardware,
    params: BenchmarkParams,
    batch_size: int,
) -> dict[str, Any]:
    """Return first-token latency, prefill and decode speed for a batch of prompts of one length.

    Prefill is the time to the first token. Decode is the rest of a longer run, divided by the tokens after the first.
    """
    input_ids = torch.tensor(
        random_prompts(batch_size, params.prompt_length, tokenizer, params.seed), device=hardware.device
    )

    def seconds(new_tokens: int) -> float:
        # min_new_tokens: an answer that ends itself early would be counted as fast.
        model.generation_config = GenerationConfig(
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        synchronize(hardware.device)
        started = time.perf_counter()
        model.generate(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
        synchronize(hardware.device)
        return time.perf_counter() - started

    first = repeat(lambda: seconds(1), params, f"first token, batch {batch_size}")
    whole = repeat(lambda: seconds(params.new_tokens), params, f"generate, batch {batch_size}")
    prefill = statistics.median(first)
    decoded = batch_size * (params.new_tokens - 1)
    return {
        "batch_size": batch_size,
        "prompt_tokens": params.prompt_length,
        "new_tokens": params.new_tokens,
        "first_token_seconds": spread(first),
        "prefill_tokens_per_second": spread([batch_size * params.prompt_length / second for second in first]),
        "decode_tokens_per_second": spread([decoded / (second - prefill) for second in whole]),
    }


def repeat(measure: Callable[[], float], params: BenchmarkParams, description: str) -> list[float]:
    """Return `repeats` measurements, after `warmup` that do not count."""
    values = [measure() for _ in tqdm(range(params.warmup + params.repeats), desc=description)]
    return values[params.warmup :]


def main() -> None:
    params, hardware_params = read_sections(benchmark=BenchmarkParams, hardware=HardwareParams)
    model_params, profile = read_profile()
    hardware = resolve_hardware(hardware_params)
    read_manifest(ADAPTER)  # a missing adapter is said now, not after minutes of measuring
    tokenizer = load_tokenizer(profile)

    training = measure_training(model_params, profile, tokenizer, params)
    training["peak_memory_bytes"] = peak_memory_bytes(hardware.device)
    model = load_tuned(model_params, profile, hardware, ADAPTER)
    generation = {
        name: measure_generation(model, tokenizer, hardware, params, batch_size)
        for name, batch_size in (("single", 1), ("batched", params.generate_batch_size))
    }
    write_json(
        METRICS,
        {
            "notice": profile.metrics_notice,
            "profile": model_params.profile,
            "machine": describe_machine(),
            "hardware": asdict(hardware),
            "versions": versions(),
            "repeats": params.repeats,
            "training": training,
            "generation": generation,
            "adapter_bytes": (ADAPTER / WEIGHTS_FILE).stat().st_size,
        },
    )
    single, batched = generation["single"], generation["batched"]
    print(f"\n{profile.notice}")
    print(f"training   {training['tokens_per_second']['median']:>10,.0f} tokens/s")
    print(f"first token{single['first_token_seconds']['median'] * 1000:>10,.1f} ms")
    print(f"decode     {single['decode_tokens_per_second']['median']:>10,.0f} tokens/s, one question at a time")
    print(
        f"decode     {batched['decode_tokens_per_second']['median']:>10,.0f} tokens/s, {batched['batch_size']} at once"
    )


if __name__ == "__main__":
    run(main)
