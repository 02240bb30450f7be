"""Measures what users decide by: training and generation speed, first-token latency, memory, on the machine at hand.

Reads:  models/adapter, the profile's base model, data/formatted (only to know that the adapter was trained on it)
Writes: metrics/benchmark.json, metrics/plots/speed.csv
Params: benchmark, the keys of train that decide its speed, the selected preset, model, the selected
        profile and its tuning, hardware, seed

The training speed is that of the finetune stage's trainer on sequences of one length. Generation runs the tuned model
with its adapter merged. Every figure is the median of `repeats` measurements after `warmup` unmeasured ones, with the
smallest and the largest beside it. Timings differ from run to run and from machine to machine: the machine is named,
and each rate stands beside what the machine can do at most, measured in the same run.
"""

from civilqa.program.lifecycle.start import start

if __name__ == "__main__":
    start(__doc__, example="benchmark.repeats")

import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

import torch
from pydantic import Field
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from civilqa.base_model.profiles import ModelParams, Profile, read_profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.generation.decoding import Decoding, generate
from civilqa.model.hardware import (
    Hardware,
    HardwareParams,
    describe_machine,
    inspect_machine,
    peak_memory_bytes,
    resolve_hardware,
    versions,
)
from civilqa.model.loading import load_base, load_tuned
from civilqa.model.provenance import WEIGHTS_FILE, open_adapter
from civilqa.program.files import write_csv, write_json
from civilqa.program.lifecycle.stage import run
from civilqa.program.parameters import BatchSize, Section, Seed, Tokens, read_choice, read_sections
from civilqa.speed.roofline import (
    Limits,
    compare,
    decode_work,
    measure_limits,
    prefill_work,
    synchronize,
    training_work,
)
from civilqa.training.adapter import add_adapter, read_tuning
from civilqa.training.trainer import (
    Preset,
    TrainParams,
    choose_hardware,
    make_trainer,
    resolve_schedule,
)

FORMATTED = Path("data/formatted")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics/benchmark.json")
PLOT = Path("metrics/plots/speed.csv")

# The keys of `train` that say how long and on what is trained, not how fast a step is: the benchmark has its own, so
# that a change of them does not measure again. dvc.yaml lists all others.
UNUSED = {
    "epochs": 1.0,
    "learning_rate": None,
    "batch_size": None,
    "max_length": None,
    "overlong": "stop",
    "packing": False,
    "keep": "last",
    "early_stopping_patience": None,
    "checkpoint_steps": None,
    "seed": 0,
    "gradient_accumulation_steps": 1,
    "warmup_fraction": 0.0,
    "estimate_only": False,
}


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
    params: BenchmarkParams,
    limits: Limits,
) -> dict[str, Any]:
    """Return seconds a step and tokens a second of the finetune stage's trainer, and the seconds the base took to load.

    `model_flops_utilization` is the share of the matmul rate measured beside it. The preset decides quantization and
    gradient checkpointing; batch and length are the benchmark's own, so that figures of different presets can be
    compared.
    """
    train, hardware_params = read_sections(train=TrainParams, hardware=HardwareParams)
    preset = read_choice("presets", train.preset, Preset, "train.preset")
    train = train.model_copy(update=UNUSED | {"batch_size": params.train_batch_size})
    tuning = read_tuning(model_params)
    batches = params.warmup + params.repeats
    examples = [
        {"input_ids": ids, "labels": ids}
        for ids in random_prompts(batches * params.train_batch_size, params.train_length, tokenizer, params.seed)
    ]
    schedule = resolve_schedule(train, preset, tuning, len(examples))
    hardware, _ = choose_hardware(hardware_params, train, preset, inspect_machine())
    started = time.perf_counter()
    base = load_base(model_params, profile, hardware, schedule.quantization)
    synchronize(hardware.device)
    load_seconds = time.perf_counter() - started
    scratch = Path(tempfile.mkdtemp(prefix="benchmark-"))
    try:
        timer = StepTimer(hardware.device)
        trainer = make_trainer(
            add_adapter(base, profile, tuning, schedule.gradient_checkpointing, params.seed),
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
        peak = peak_memory_bytes(hardware.device)
        work = training_work(trainer.model, params.train_batch_size, params.train_length)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = timer.seconds[params.warmup :]
    tokens = params.train_batch_size * params.train_length
    roofline = compare(work, statistics.median(seconds), limits)
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


def list_rooflines(training: dict[str, Any], generation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how near each measured kind of work came to the machine's limits, by its name."""
    rooflines = {"training": training["roofline"]}
    for name in ("single", "batched"):
        for work in ("prefill", "decode"):
            rooflines[f"{work}, batch {generation[name]['batch_size']}"] = generation[name][f"{work}_roofline"]
    return rooflines


def plot_rows(rooflines: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the shares of the machine's limits in percent, a row for each kind of work and limit."""
    return [
        {"work": name, "series": limit, "percent": round(100 * roofline[key], 1)}
        for name, roofline in rooflines.items()
        for limit, key in (("matmul rate", "compute_share"), ("copy bandwidth", "memory_share"))
    ]


def print_summary(notice: str, limits: Limits, training: dict[str, Any], generation: dict[str, Any]) -> None:
    """Print the medians that users decide by, below the machine's own limits."""
    single, batched = generation["single"], generation["batched"]
    print(f"\n{notice}")
    print(f"machine    {limits.matmul_flops_per_second / 1e9:>10,.0f} GFLOP/s in matrix products")
    print(f"machine    {limits.copy_bytes_per_second / 1e9:>10,.1f} GB/s copied")
    print(f"training   {training['tokens_per_second']['median']:>10,.0f} tokens/s")
    print(f"training   {100 * training['model_flops_utilization']:>10,.1f} % of the matmul rate")
    print(f"first token{single['first_token_seconds']['median'] * 1000:>10,.1f} ms")
    print(f"decode     {single['decode_tokens_per_second']['median']:>10,.0f} tokens/s, one question at a time")
    print(
        f"decode     {batched['decode_tokens_per_second']['median']:>10,.0f} tokens/s, {batched['batch_size']} at once"
    )


def main() -> None:
    params, hardware_params = read_sections(benchmark=BenchmarkParams, hardware=HardwareParams)
    model_params, profile = read_profile()
    hardware = resolve_hardware(hardware_params)
    # An adapter that cannot be used is said now, not after minutes of measuring.
    adapter = open_adapter(ADAPTER, model_params, profile, formatted=FORMATTED)
    tokenizer = load_tokenizer(profile)

    limits = measure_limits(hardware.device, hardware.dtype)
    training = measure_training(model_params, profile, tokenizer, params, limits)
    started = time.perf_counter()
    model = load_tuned(adapter, hardware)
    synchronize(hardware.device)
    load_seconds = time.perf_counter() - started
    generation = {
        name: measure_generation(model, tokenizer, hardware, params, batch_size, limits)
        for name, batch_size in (("single", 1), ("batched", params.generate_batch_size))
    }
    generation["load_seconds"] = float(f"{load_seconds:.4g}")
    write_json(
        METRICS,
        {
            "notice": profile.metrics_notice,
            "profile": model_params.profile,
            "machine": describe_machine(),
            "limits": {name: float(f"{value:.4g}") for name, value in asdict(limits).items()},
            "hardware": asdict(hardware),
            "versions": versions(),
            "repeats": params.repeats,
            "training": training,
            "generation": generation,
            "adapter_bytes": (ADAPTER / WEIGHTS_FILE).stat().st_size,
        },
    )
    rooflines = list_rooflines(training, generation)
    write_csv(PLOT, plot_rows(rooflines), ["work", "series", "percent"])
    print_summary(profile.notice, limits, training, generation)
    for name, roofline in rooflines.items():
        print(f"{name}: bound by {roofline['bound_by']}")


if __name__ == "__main__":
    run(main, lock="benchmark")
