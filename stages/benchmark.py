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

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="benchmark.repeats")

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from civilqa.base_model.profiles import read_profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.model.evaluation import EVALUATION, describe_verdict, read_metrics
from civilqa.model.hardware import HardwareParams, describe_machine, resolve_hardware, synchronize, versions
from civilqa.model.loading import load_tuned
from civilqa.model.processes import ADAPTER
from civilqa.model.provenance import WEIGHTS_FILE, open_adapter
from civilqa.program.files import write_csv, write_json
from civilqa.program.parameters import read_sections
from civilqa.speed.measurements import (
    BenchmarkParams,
    Limits,
    measure_generation,
    measure_limits,
    measure_training,
    rounded,
)
from civilqa.training.recipe import make_recipe, read_parameters

FORMATTED = Path("data/formatted")
METRICS = Path("metrics/benchmark.json")
PLOT = Path("metrics/plots/speed.csv")


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
    tokens_per_second = batched["decode_tokens_per_second"]["median"]
    print(f"decode     {tokens_per_second:>10,.0f} tokens/s, {batched['batch_size']} at once")


def main() -> None:
    params, hardware_params = read_sections(benchmark=BenchmarkParams, hardware=HardwareParams)
    model_params, profile = read_profile()
    hardware = resolve_hardware(hardware_params, profile)
    # An adapter that cannot be used is said now, not after minutes of measuring.
    adapter = open_adapter(ADAPTER, model_params, profile, formatted=FORMATTED)
    tokenizer = load_tokenizer(profile)

    limits = measure_limits(hardware.device, hardware.dtype)
    # Generation comes first: Liger's layers, which training puts into transformers' classes, would stay in them.
    started = time.perf_counter()
    model = load_tuned(adapter, hardware)
    synchronize(hardware.device)
    load_seconds = rounded(time.perf_counter() - started)
    generation = {
        name: measure_generation(model, tokenizer, hardware, params, batch_size, limits)
        for name, batch_size in (("single", 1), ("batched", params.generate_batch_size))
    }
    generation["load_seconds"] = load_seconds
    del model  # its memory is none of training's
    # Batch, length and number of steps are the benchmark's own, so that figures of different presets can be compared.
    train, preset, tuning, step_hardware, _ = read_parameters(model_params, profile)
    batch_size, steps = params.train_batch_size, params.warmup + params.repeats
    recipe = make_recipe(train, preset, tuning, step_hardware, batch_size=batch_size, steps=steps, seed=params.seed)
    training = measure_training(model_params, profile, tokenizer, recipe, params, limits)
    write_json(
        METRICS,
        {
            "notice": profile.metrics_notice,
            "profile": model_params.profile,
            "machine": describe_machine(),
            "limits": {name: rounded(value) for name, value in asdict(limits).items()},
            "hardware": asdict(hardware),
            "versions": versions(),
            "repeats": params.repeats,
            "training": training,
            "generation": generation,
            "adapter_bytes": (ADAPTER / WEIGHTS_FILE).stat().st_size,
        },
    )
    rooflines = {"training": training["roofline"]}
    for part in (generation["single"], generation["batched"]):
        for work in ("prefill", "decode"):
            rooflines[f"{work}, batch {part['batch_size']}"] = part[f"{work}_roofline"]
    write_csv(PLOT, plot_rows(rooflines), ["work", "series", "percent"])
    print_summary(profile.notice, limits, training, generation)
    for name, roofline in rooflines.items():
        print(f"{name}: bound by {roofline['bound_by']}")
    if evaluation := read_metrics(EVALUATION, adapter):  # what `dvc repro` was run for, and this stage is its last
        print(describe_verdict(evaluation))


if __name__ == "__main__":
    run(main, lock="benchmark")
