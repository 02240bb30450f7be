"""Checks and times the project's own parts in one process: measure.py KIND [CASE...] [--small].

Runs in a copy of the project, with its params.yaml. Writes a line for each check or case (run.py says where).

check    `varlen`: attention without padding against each record alone in fp64, output and gradients; `loss`: the
         trainer's loss and gradients against the CPU's in fp32, on real rows; `generate`: greedy answers against the
         CPU's, with a CUDA graph and without; `optimizer`: paged 8-bit AdamW steps, saves, loads; `peak` can be reset
train    SHAPE.change.change: rows x tokens of SHAPES, with changes from what the GPU gets by itself (CHANGES); the
         rows of `uneven` are that long at most, so that they show what padding costs, and no rate. The
         finetune stage's trainer as benchmark measures it, with the kernels of one step and the losses beside it
decode   WAY:rows, and :uneven for prompts of different lengths. graph and plain are the project's own generation,
         static is transformers' static cache (compiled), continuous its generate_batch; `agree` counts the first tokens
         that are plain's, for in 16 bits near-equal ones flip
base     the base as files in 16 bits, drawn on the GPU
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import statistics
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, "stages")

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

import torch
from run import say
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from civilqa.base_model.hub import CONFIG, locate
from civilqa.base_model.profiles import read_profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.generation.decoding import Decoding, generate
from civilqa.model.hardware import (
    Hardware,
    HardwareParams,
    inspect_machine,
    reset_peak_memory,
    resolve_hardware,
    take_hold,
    versions,
)
from civilqa.model.loading import load_base
from civilqa.program.files import read_jsonl
from civilqa.program.parameters import read_choice, read_sections
from civilqa.speed import measurements
from civilqa.speed.measurements import BenchmarkParams, Limits, StepTimer, random_prompts, synchronize
from civilqa.training.adapter import Tuning, add_adapter
from civilqa.training.examples import make_examples
from civilqa.training.recipe import Preset, TrainParams, choose_hardware, make_recipe
from civilqa.training.trainer import make_trainer
from civilqa.training.varlen_attention import varlen_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MIB = 2**20
SHAPES = {"balanced": (2, 420), "uneven": (2, 420), "one": (1, 450), "long": (4, 4096), "small": (2, 64)}
CHANGES: dict[str, dict[str, Any]] = {
    "sdpa": {"attention": "sdpa"},
    "peft": {"fused_lora": False},
    "noliger": {"liger_kernel": False},
    "compile": {"compile": True},
    "checkpointing": {"gradient_checkpointing": True},
    "4bit": {"quantization": "4bit"},
    "8bit": {"quantization": "8bit"},
    "adamw": {"optimizer": "adamw"},
    "noneftune": {"neftune_noise_alpha": None},
    "drop0": {},  # of the tuning
    "fp16": {},  # of the hardware
}
PROFILED_STEP = 2  # within the warm-up
BUSIEST = 10  # kernels named
RATES = ("tokens_per_second", "model_flops_utilization")
SEED = 20260608


def peak_mib() -> dict[str, int]:
    """Return the peaks of this process's GPU memory since the last reset."""
    if DEVICE == "cpu":
        return {}
    return {
        "peak_allocated_mib": torch.cuda.max_memory_allocated() // MIB,
        "peak_reserved_mib": torch.cuda.max_memory_reserved() // MIB,
    }


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    return float((found - wanted).norm() / wanted.norm())


# --- check -----------------------------------------------------------------------------------------------------------


def check_varlen(small: bool) -> dict[str, Any]:
    found = {name: varlen_errors(lengths) for name, lengths in {"uneven": [420, 7, 300, 1], "even": [300] * 3}.items()}
    return {"errors": found, "ok": max(max(errors.values()) for errors in found.values()) < 2e-2}


def varlen_errors(lengths: list[int]) -> dict[str, float]:
    """Return how far the attention of records of these lengths, and its gradients, are from fp64."""
    generator = torch.Generator().manual_seed(SEED)
    q, k, v, gradient = (torch.randn(1, heads, sum(lengths), 64, generator=generator) for heads in (32, 8, 8, 32))
    exact = [states.double().requires_grad_() for states in (q, k, v)]
    records = [
        torch.nn.functional.scaled_dot_product_attention(*record, is_causal=True, enable_gqa=True)
        for record in zip(*(states.split(lengths, dim=2) for states in exact), strict=True)
    ]
    wanted = torch.cat(records, dim=2)
    wanted.backward(gradient.double())
    kind = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    states = [tensor.to(DEVICE, kind).requires_grad_() for tensor in (q, k, v)]
    ends = torch.tensor(lengths).cumsum(0).tolist()
    borders = {
        "cu_seq_lens_q": torch.tensor([0, *ends], dtype=torch.int32, device=DEVICE),
        "max_length_q": max(lengths),
    }
    found, _ = varlen_attention(torch.nn.Module(), *states, None, 0.0, 0.125, **borders)
    found = found.transpose(1, 2)
    found.backward(gradient.to(DEVICE, kind))
    pairs = [(found, wanted), *((a.grad, b.grad) for a, b in zip(states, exact, strict=True))]
    return {name: relative_error(*pair) for name, pair in zip(("out", "dq", "dk", "dv"), pairs, strict=True)}


def check_loss(small: bool) -> dict[str, Any]:
    """Loss and gradients of a batch of real rows: in fp32 nearly the CPU's, in 16 bits (without padding) near them."""
    runs = {"cpu": loss_and_gradients("cpu", "fp32"), "fp32": loss_and_gradients(DEVICE, "fp32")}
    if DEVICE == "cuda":
        runs["bf16"] = loss_and_gradients(DEVICE, "bf16")
    wanted, limits = runs.pop("cpu"), {"fp32": (1e-3, 1e-2), "bf16": (1e-2, 2e-1)}
    facts, ok = {"cpu": {"loss": wanted[0]}}, True
    for name, (loss, gradients, padding_free) in runs.items():
        errors = {key: relative_error(gradients[key], wanted[1][key]) for key in wanted[1]}
        worst = max(errors, key=errors.get)
        facts[name] = {"loss": loss, "worst_gradient": [worst, errors[worst]], "padding_free": padding_free}
        ok &= abs(loss / wanted[0] - 1) < limits[name][0] and errors[worst] < limits[name][1]
    return {**facts, "ok": ok}


def loss_and_gradients(device: str, precision: str) -> tuple[float, dict[str, torch.Tensor], bool]:
    model_params, profile = read_profile()
    train, asked = read_sections(train=TrainParams, hardware=HardwareParams)
    preset = read_choice("presets", train.preset, Preset, "train.preset")
    tuning = read_choice("tuning", model_params.profile, Tuning, "model.profile").model_copy(update={"dropout": 0.0})
    train = train.model_copy(update={"neftune_noise_alpha": None})
    asked = asked.model_copy(update={"device": device, "precision": precision})
    hardware, _ = choose_hardware(asked, train, preset, inspect_machine(), False)
    hardware = dataclasses.replace(hardware, liger_kernel=False)
    recipe = make_recipe(train, preset, tuning, hardware, batch_size=4, steps=1, seed=SEED)
    path = Path("data/formatted/train.jsonl")
    examples, _ = make_examples(path, list(read_jsonl(path))[:4], None, "stop")
    base = load_base(model_params, profile, hardware)
    model = add_adapter(base, profile, recipe.lora, recipe.gradient_checkpointing, recipe.seed)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # it is 0 at first, and with it the gradient of A
            parameter.data.copy_(0.01 * torch.randn(parameter.shape, generator=generator))
    splits = {"train": examples, "validation": []}
    trainer = make_trainer(model, load_tokenizer(profile), splits, recipe, Path("unused"), checkpoints=False)
    inputs = trainer.data_collator(trainer.train_dataset.to_list())
    inputs = {name: part.to(device) if isinstance(part, torch.Tensor) else part for name, part in inputs.items()}
    with torch.autocast(device, hardware.dtype, enabled=precision != "fp32"):
        loss = trainer.batch_loss(trainer.model.train(), inputs)
    loss.backward()
    gradients = {name: part.grad.cpu() for name, part in trainer.model.named_parameters() if part.grad is not None}
    return loss.item(), gradients, trainer.padding_free


def check_generate(small: bool) -> dict[str, Any]:
    model_params, profile = read_profile()
    tokenizer = load_tokenizer(profile)
    prompts = [row["prompt_ids"] for row in read_jsonl(Path("data/formatted/test.jsonl"))][:8]
    threads = torch.get_num_threads()
    answers = {}
    for device, graph in (("cpu", False), (DEVICE, False), (DEVICE, True)):
        model = load_base(model_params, profile, Hardware(device, "fp32", threads))
        answers[device, graph] = generate(model, tokenizer, prompts, decoding(48, 8, -1, graph))
    wanted = answers.pop(("cpu", False)) if DEVICE == "cuda" else answers["cpu", False]
    same = {
        f"{device}, graph {graph}": sum(a == b for a, b in zip(found, wanted, strict=True))
        for (device, graph), found in answers.items()
    }
    return {"same": same, "of": len(prompts), "ok": min(same.values()) >= len(prompts) - 1}


def check_optimizer(small: bool) -> dict[str, Any]:
    if DEVICE == "cpu":
        return {"ok": None, "why": "paging needs CUDA's managed memory"}
    from bitsandbytes.optim import PagedAdamW8bit

    weights = [torch.nn.Parameter(torch.randn(size, device=DEVICE)) for size in (1000, 32768, 131072)]

    def step(optimizer: PagedAdamW8bit) -> PagedAdamW8bit:
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.step()
        return optimizer

    first = step(step(PagedAdamW8bit(weights, lr=1e-3)))
    torch.save(first.state_dict(), "optimizer.pt")
    again = PagedAdamW8bit(weights, lr=1e-3)
    again.load_state_dict(torch.load("optimizer.pt", weights_only=True))
    states = [[optimizer.state[weight]["state1"].cpu() for weight in weights] for optimizer in (first, again)]
    same = all(map(torch.equal, *states))
    step(again)
    kinds = [str(first.state[weight]["state1"].dtype) for weight in weights]
    return {"states": kinds, "loaded_alike": same, "ok": same and all(w.isfinite().all() for w in weights)}


def check_peak(small: bool) -> dict[str, Any]:
    if DEVICE == "cpu":
        return {"ok": None, "why": "no GPU"}
    reset_peak_memory(DEVICE)
    torch.empty(2**30, dtype=torch.uint8, device=DEVICE)
    before = peak_mib()
    reset_peak_memory(DEVICE)
    after = peak_mib()
    return {"before": before, "after": after, "ok": after["peak_allocated_mib"] < before["peak_allocated_mib"]}


CHECKS = {
    "varlen": check_varlen,
    "loss": check_loss,
    "generate": check_generate,
    "optimizer": check_optimizer,
    "peak": check_peak,
}


# --- train -----------------------------------------------------------------------------------------------------------


class Watcher(StepTimer):
    """Notes the loss of each step, too, and the kernels of one of the warm-up."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.losses: list[float] = []
        self.kernels: dict[str, Any] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.device == "cuda" and state.global_step == PROFILED_STEP - 1:
            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profiler.start()
        super().on_step_begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_step_end()
        if self.device == "cuda" and state.global_step == PROFILED_STEP:
            self.profiler.stop()
            spent: Counter[str] = Counter()
            events = [e for e in self.profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA]
            for event in events:
                spent[event.name[:60]] += event.self_device_time_total / 1000
            busiest = {name: round(ms, 2) for name, ms in spent.most_common(BUSIEST)}
            self.kernels = {"kernels": len(events), "kernel_ms": round(spent.total(), 2), "busiest_ms": busiest}


def measure_train(case: str, small: bool) -> dict[str, Any]:
    shape, *changes = case.split(".")
    rows, length = SHAPES[shape]
    train, asked, sizes = read_sections(train=TrainParams, hardware=HardwareParams, benchmark=BenchmarkParams)
    train = train.model_copy(update={key: value for change in changes for key, value in CHANGES[change].items()})
    asked = asked.model_copy(update={"precision": "fp16"} if "fp16" in changes else {})
    model_params, profile = read_profile()
    preset = read_choice("presets", train.preset, Preset, "train.preset")
    tuning = read_choice("tuning", model_params.profile, Tuning, "model.profile")
    tuning = tuning.model_copy(update={"dropout": 0.0} if "drop0" in changes else {})
    hardware, _ = choose_hardware(asked, train, preset, inspect_machine(), False)
    take_hold(hardware)
    counts = {"warmup": PROFILED_STEP, "repeats": 2} if small else {"warmup": PROFILED_STEP + 1, "repeats": 6}
    sizes = sizes.model_copy(update={"train_batch_size": rows, "train_length": length, **counts})
    steps = sizes.warmup + sizes.repeats
    recipe = make_recipe(train, preset, tuning, hardware, batch_size=rows, steps=steps, seed=SEED)
    watcher = Watcher(hardware.device)
    measurements.StepTimer = lambda device: watcher
    measurements.random_prompts = uneven_prompts if shape == "uneven" else random_prompts
    limits = machine_limits(hardware.device, hardware.dtype)
    tokenizer = load_tokenizer(profile)
    found = measurements.measure_training(model_params, profile, tokenizer, recipe, sizes, limits)
    for figure in ("roofline", *(RATES if shape == "uneven" else ())):
        del found[figure]
    losses = {"first_loss": watcher.losses[0], "last_loss": watcher.losses[-1]}
    return {"first_step_seconds": round(watcher.seconds[0], 2), **found, **losses, **watcher.kernels}


def uneven_prompts(n: int, length: int, tokenizer: Any, seed: int) -> list[list[int]]:
    """Return sequences of random tokens, of half the length to all of it."""
    prompts = random_prompts(n, length, tokenizer, seed)
    return [prompt[: length - (index * 61) % (length // 2)] for index, prompt in enumerate(prompts)]


@functools.cache
def machine_limits(device: str, dtype: torch.dtype) -> Limits:
    """Return the machine's limits, measured once; the memory that it took is free again."""
    limits = measurements.measure_limits(device, dtype)
    reset_peak_memory(DEVICE)
    return limits


# --- decode ----------------------------------------------------------------------------------------------------------


def decoding(new: int, rows: int, end: int, graph: bool) -> Decoding:
    return Decoding(new, rows, end, cuda_graphs=graph)


def measure_decode(case: str, small: bool) -> dict[str, Any]:
    way, rows, *uneven = case.split(":")
    length, new, repeats, rows = *((16, 8, 1) if small else (128, 256, 3)), int(rows)
    (asked,) = read_sections(hardware=HardwareParams)
    hardware = resolve_hardware(asked, read_profile()[1])
    model, tokenizer = the_model(hardware)
    never = model.config.vocab_size
    prompts = (uneven_prompts if uneven else random_prompts)(rows, length, tokenizer, 7)
    run = {
        "plain": lambda count: generate(model, tokenizer, prompts, decoding(count, rows, never, False)),
        "graph": lambda count: generate(model, tokenizer, prompts, decoding(count, rows, never, True)),
        "static": lambda count: by_static_cache(model, tokenizer.pad_token_id, prompts, count, never),
        "continuous": lambda count: by_continuous_batching(
            model, tokenizer.pad_token_id, prompts, count, 0.1 if small else 0.5
        ),
    }
    timed: dict[int, list[float]] = {1: [], new: []}
    first_seconds = seconds_of(lambda: run[way](new))  # captures, compiles, loads kernels
    reset_peak_memory(DEVICE)
    for count, seconds in timed.items():
        for _ in range(repeats):
            seconds.append(seconds_of(lambda count=count: run[way](count)))
    peak = peak_mib()
    prefill, whole = (statistics.median(seconds) for seconds in timed.values())
    pairs = list(zip(run[way](new), run["plain"](new), strict=True))
    agree = [next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), new) for pair in pairs]
    return {
        **{"way": way, "rows": rows, "uneven": bool(uneven), "precision": hardware.precision},
        **{"prompt_tokens": length, "new_tokens": new, "first_call_seconds": round(first_seconds, 2)},
        "first_token_seconds": round(prefill, 4),
        "decode_tokens_per_second": round(rows * (new - 1) / (whole - prefill), 1),
        "ms_a_token": round(1000 * (whole - prefill) / (new - 1), 3),
        "agree": {"median": statistics.median(agree), "min": min(agree)},
        **peak,
    }


@functools.cache
def the_model(hardware: Hardware) -> tuple[Any, Any]:
    """Return the base and its tokenizer, loaded once."""
    model_params, profile = read_profile()
    return load_base(model_params, profile, hardware), load_tokenizer(profile)


def seconds_of(work: Callable[[], Any]) -> float:
    synchronize(DEVICE)
    started = time.perf_counter()
    work()
    synchronize(DEVICE)
    return time.perf_counter() - started


@torch.inference_mode()
def by_static_cache(model: Any, pad: int, prompts: list[list[int]], new: int, end: int) -> list[list[int]]:
    width = max(map(len, prompts))
    tokens = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=end, pad_token_id=pad)
    made = model.generate(tokens, attention_mask=mask, max_new_tokens=new, cache_implementation="static")
    return made[:, width:].tolist()


def by_continuous_batching(model: Any, pad: int, prompts: list[list[int]], new: int, share: float) -> list[list[int]]:
    """Return what transformers' continuous batching generates in a share of the free memory."""
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    config = GenerationConfig(do_sample=False, max_new_tokens=new, eos_token_id=-1, pad_token_id=pad)
    made = model.generate_batch(
        inputs=prompts,
        generation_config=config,
        continuous_batching_config=ContinuousBatchingConfig(max_memory_percent=share),
        persistent_manager=True,
    )
    return [list(answer.generated_tokens) for answer in made.values()]


# --- base ------------------------------------------------------------------------------------------------------------


def save_base(folder: str, small: bool) -> dict[str, Any]:
    """Draw the selected profile's base on the GPU and save it with its tokenizer."""
    _, profile = read_profile()
    config = AutoConfig.from_pretrained(str(locate(profile.name, profile.revision, [CONFIG])))
    torch.manual_seed(SEED)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if DEVICE == "cuda" else torch.float32)
    model.save_pretrained(folder)
    load_tokenizer(profile).save_pretrained(folder)
    return {"versions": versions(), "cuda": torch.version.cuda}


KINDS: dict[str, Callable[[str, bool], dict[str, Any]]] = {
    "check": lambda case, small: CHECKS[case](small),
    "train": measure_train,
    "decode": measure_decode,
    "base": save_base,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("cases", nargs="*", default=list(CHECKS))
    parser.add_argument("--small", action="store_true", help="few steps, few tokens: only whether it runs")
    arguments = parser.parse_args()
    kind, small, failed = arguments.kind, arguments.small, []
    # Liger's kernels replace the classes of transformers for good: what goes without them goes first.
    cases = sorted(arguments.cases, key=lambda case: "noliger" not in case)
    for number, case in enumerate(cases):
        reset_peak_memory(DEVICE)
        started = time.perf_counter()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                facts = KINDS[kind](case, small)
        except Exception as error:  # each stands alone: the others are still to be measured
            traceback.print_exc()
            say(kind, case=case, small=small, ok=False, error=f"{type(error).__name__}: {error}"[-2000:])
            failed.append(case)
            if "CUDA error" in str(error):  # nothing works in this process any more
                options = ["--small"] if small else []
                rest = cases[number + 1 :]
                if rest:
                    os.execv(sys.executable, [sys.executable, __file__, kind, *rest, *options])  # noqa: S606
            continue
        say(kind, case=case, small=small, took_seconds=round(time.perf_counter() - started, 1), **facts)
        print(f"{kind} {case}: {facts}", flush=True)
        failed += [case] if facts.get("ok") is False else []
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
