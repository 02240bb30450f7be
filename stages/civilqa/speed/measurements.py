"""Measures training and generation: seconds, tokens a second, memory, and their share of the machine's limits.

What a machine can do at most, what a model's work needs at least, and which limit a measured time is near to.
Source: Williams, Waterman, Patterson 2009, Roofline (doi:10.1145/1498765.1498785).
"""

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

import torch
from pydantic import Field
from tqdm import tqdm
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.generation.decoding import Decoding, generate
from civilqa.model.hardware import Hardware, peak_memory_bytes, reset_peak_memory, synchronize
from civilqa.model.loading import load_base
from civilqa.program.parameters import BatchSize, Section, Seed, Tokens
from civilqa.training.adapter import add_adapter
from civilqa.training.recipe import Recipe
from civilqa.training.trainer import make_trainer

REPEATS = 5  # the best of so many: what the machine can do, not what it does beside other programs
# Large enough for the full rate and out of every cache, small enough for a fraction of a second.
MATMUL_SIZE = {"cpu": 1536, "cuda": 8192, "mps": 4096}
COPY_BYTES = {"cpu": 2**28, "cuda": 2**31, "mps": 2**29}
NEAR = 0.5  # of a limit, from which on it is what binds


class BenchmarkParams(Section):
    seed: Seed
    repeats: Annotated[int, Field(ge=1, le=1000)]
    warmup: Annotated[int, Field(ge=0, le=1000)]
    train_batch_size: BatchSize
    train_length: Annotated[Tokens, Field(ge=2)]
    prompt_length: Tokens
    new_tokens: Annotated[Tokens, Field(ge=2)]
    generate_batch_size: BatchSize


@dataclass(frozen=True)
class Limits:
    """The machine's own: products of large matrices in FLOP/s, copies of large arrays in bytes/s (read and written)."""

    matmul_flops_per_second: float
    copy_bytes_per_second: float


@dataclass(frozen=True)
class Work:
    """What has to be done at least: floating-point operations, and bytes to and from memory."""

    flops: float
    bytes: float


def measure_limits(device: str, dtype: torch.dtype) -> Limits:
    """Return the machine's limits, measured now."""
    n = MATMUL_SIZE[device]
    left, right = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(left)
    source = torch.zeros(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)  # written once: the first touch of a page is not a copy's time
    return Limits(
        matmul_flops_per_second=2 * n**3 / _best_seconds(lambda: torch.mm(left, right, out=product), device),
        copy_bytes_per_second=2 * source.numel() / _best_seconds(lambda: target.copy_(source), device),
    )


def training_work(model: torch.nn.Module, sequences: int, length: int) -> Work:
    """Return the work of one optimiser step on sequences of one length, whose every token is predicted.

    Each token costs a weight matrix of n numbers 2n FLOPs forward and 2n backward to its input; another 2n to its own
    gradient only if it is trained. So 4 a frozen weight, 6 a trained one, where full training has 6 for all. Attention
    (Q·K and its product with V) adds 12 · layers · heads · head size · length a token in PaLM's count; half of that
    here, since a token sees only those before it. What gradient checkpointing computes twice counts once.

    Bytes are those of the weights alone, read forward and backward, and of the optimiser (weight, gradient and AdamW's
    two moments in fp32, each read and written); activations come on top.

    Source: Chowdhery et al. 2022, PaLM (arXiv:2204.02311), appendix B; Hu et al. 2021, LoRA (arXiv:2106.09685).
    """
    frozen, trained = _count_matrices(model)
    tokens = sequences * length
    attention = 6 * _attention_width(model.config) * length
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    learned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Work(flops=tokens * (4 * frozen + 6 * trained + attention), bytes=2 * weights + learned * 4 * 4 * 2)


def prefill_work(model: torch.nn.Module, sequences: int, length: int) -> Work:
    """Return the work of reading prompts of one length and choosing the first token after each."""
    head = model.get_output_embeddings().weight.numel()
    layers = sum(_count_matrices(model)) - head
    attention = 2 * _attention_width(model.config) * length  # 4 forward, half of it masked
    flops = sequences * (length * (2 * layers + attention) + 2 * head)
    return Work(flops=flops, bytes=_matrix_bytes(model) + sequences * length * _cache_bytes(model))


def decode_work(model: torch.nn.Module, sequences: int, prompt: int, new_tokens: int) -> Work:
    """Return the work of generating the tokens after the first: `new_tokens - 1` passes of one token a sequence.

    Every pass reads each weight once, whatever the number of sequences, and the keys and values of all tokens before.
    """
    passes = new_tokens - 1
    seen = prompt + new_tokens / 2  # tokens that a pass looks back on, on average
    flops = passes * sequences * (2 * sum(_count_matrices(model)) + 4 * _attention_width(model.config) * seen)
    return Work(flops=flops, bytes=passes * (_matrix_bytes(model) + sequences * seen * _cache_bytes(model)))


def compare(work: Work, seconds: float, limits: Limits) -> dict[str, Any]:
    """Return the rates that were reached, their shares of the machine's limits, and what binds in plain words."""
    compute = work.flops / seconds / limits.matmul_flops_per_second
    memory = work.bytes / seconds / limits.copy_bytes_per_second
    return {
        "flops_per_second": rounded(work.flops / seconds),
        "bytes_per_second": rounded(work.bytes / seconds),
        "compute_share": rounded(compute),
        "memory_share": rounded(memory),
        "bound_by": describe_bound(compute, memory),
    }


def describe_bound(compute: float, memory: float) -> str:
    """Return in plain words what binds a run that reaches these shares of the machine's limits."""
    reached = f"{compute:.0%} of the matmul rate and at least {memory:.0%} of the copy bandwidth measured beside it"
    if max(compute, memory) < NEAR:
        return f"overhead: {reached}; most of the time goes into small operations and starting them, not into a limit"
    if compute >= memory:
        return f"compute: {reached}; only fewer operations or a faster processor would help"
    return f"memory bandwidth: {reached}; larger batches or smaller weights would help"


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
    """Return median, minimum and maximum."""
    return {"median": rounded(statistics.median(values)), "min": rounded(min(values)), "max": rounded(max(values))}


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
    reset_peak_memory(hardware.device)
    started = time.perf_counter()
    base = load_base(model_params, profile, hardware, recipe.quantization)
    synchronize(hardware.device)
    load_seconds = rounded(time.perf_counter() - started)
    load_peak = peak_memory_bytes(hardware.device)
    reset_peak_memory(hardware.device)
    model = add_adapter(base, profile, recipe.lora, recipe.gradient_checkpointing, recipe.seed)
    timer = StepTimer(hardware.device)
    splits = {"train": examples, "validation": []}
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as scratch:
        trainer = make_trainer(model, tokenizer, splits, recipe, Path(scratch), checkpoints=False)
        trainer.add_callback(timer)
        trainer.train()
    peak = peak_memory_bytes(hardware.device)
    seconds = timer.seconds[params.warmup :]
    tokens = recipe.batch_size * params.train_length
    work = training_work(trainer.model, recipe.batch_size, params.train_length)
    roofline = compare(work, statistics.median(seconds), limits)
    return {
        **{name: getattr(recipe, name) for name in ("preset", "quantization", "gradient_checkpointing", "batch_size")},
        **{
            name: getattr(hardware, name)
            for name in ("attention", "optimizer", "liger_kernel", "fused_lora", "compile")
        },
        "length_tokens": params.train_length,
        "load_seconds": load_seconds,
        "step_seconds": spread(seconds),
        "tokens_per_second": spread([tokens / second for second in seconds]),
        "load_peak_memory_bytes": load_peak,
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

    def measure(new_tokens: int, description: str) -> list[float]:
        decoding = Decoding(new_tokens, batch_size, never, cuda_graphs=hardware.cuda_graphs)
        seconds = []
        for _ in tqdm(range(params.warmup + params.repeats), desc=f"{description}, batch {batch_size}"):
            synchronize(hardware.device)
            started = time.perf_counter()
            generate(model, tokenizer, prompts, decoding)
            synchronize(hardware.device)
            seconds.append(time.perf_counter() - started)
        return seconds[params.warmup :]

    first, whole = measure(1, "first token"), measure(params.new_tokens, "generate")
    prefill, length = statistics.median(first), params.prompt_length
    decoded = batch_size * (params.new_tokens - 1)
    decode = [second - prefill for second in whole]
    decoding = decode_work(model, batch_size, length, params.new_tokens)
    return {
        "batch_size": batch_size,
        "prompt_tokens": length,
        "new_tokens": params.new_tokens,
        "first_token_seconds": spread(first),
        "prefill_tokens_per_second": spread([batch_size * length / second for second in first]),
        "decode_tokens_per_second": spread([decoded / second for second in decode]),
        "prefill_roofline": compare(prefill_work(model, batch_size, length), prefill, limits),
        "decode_roofline": compare(decoding, statistics.median(decode), limits),
    }


def _count_matrices(model: torch.nn.Module) -> tuple[int, int]:
    """Return the numbers in the weight matrices that every token is multiplied with: frozen, trained.

    Embeddings are looked up, not multiplied; a tied output layer counts. bitsandbytes packs two 4-bit weights into a
    byte, so that a layer's shape is what counts.
    """
    frozen = trained = 0
    for layer in _matrices(model):
        size = layer.in_features * layer.out_features
        trained, frozen = (trained + size, frozen) if layer.weight.requires_grad else (trained, frozen + size)
    return frozen, trained


def _matrix_bytes(model: torch.nn.Module) -> int:
    return sum(layer.weight.numel() * layer.weight.element_size() for layer in _matrices(model))


def _matrices(model: torch.nn.Module) -> list[torch.nn.Linear]:
    # peft keeps the frozen layer beside a copy that is trained whole (modules_to_save), and computes with the copy.
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "original_module" not in name
    ]


def _attention_width(config: PretrainedConfig) -> int:
    """Return layers · heads · head size.

    A token's scores against one other token cost 2 FLOPs for each, adding up that one's values another 2.
    """
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers * config.num_attention_heads * head


def _cache_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of one token's keys and values in all layers."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head * model.dtype.itemsize


def _best_seconds(work: Callable[[], Any], device: str) -> float:
    work()  # not measured: the first call chooses its kernel
    seconds = []
    for _ in range(REPEATS):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def rounded(value: float) -> float:
    """Return four significant digits: a timing has no more."""
    return float(f"{value:.4g}")
