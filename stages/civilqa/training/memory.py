"""The memory of a training: what it needs at least, what it takes, what it took, and what to change if it is too much.

Known in three steps: the least from the base's shape, before anything is downloaded; the peak (and the seconds) from a
trial pass over the longest batch, before the first step; then the samples along the run.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from civilqa.base_model.profiles import Profile
from civilqa.model.hardware import peak_memory_bytes, synchronize
from civilqa.model.loading import read_architecture
from civilqa.model.processes import shards_weights
from civilqa.program.errors import MemoryShortage, ParameterError
from civilqa.program.lifecycle.machine_errors import is_out_of_memory
from civilqa.training.recipe import Recipe
from civilqa.training.trainer import OPTIMIZERS, AdapterTrainer

GIB = 2**30
MIB = 2**20
SLOW_SECONDS = 5.0  # a pass this long is measured once: warming up would change it little, but for a GPU's kernels
# Of a batch on a GPU: below, a step's time is that of starting its kernels, whose number does not go with the tokens.
LAUNCH_BOUND_TOKENS = 2000
SAMPLES = 200  # of a run, at most: enough for a curve

# Bytes a weight of a quantised linear layer: NF4 is half a byte and, with double quantisation, 0.127 bits a weight for
# its scales (Dettmers et al. 2023, arXiv:2305.14314, section 3); int8 is one byte, its scales one number a row.
QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 0.127 / 8}

# Bytes of the optimiser's two moments for each trained weight.
STATE_BYTES = {"adamw": 8, "paged_adamw_8bit": 2}
assert STATE_BYTES.keys() == OPTIMIZERS.keys()  # noqa: S101 - a table that must not fall behind the other


def free_memory_bytes(device: str) -> int:
    """Return the memory that nothing uses: of the GPU on cuda, else of the machine, or of its part for a container."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return min([psutil.virtual_memory().available, *control_group_bytes()])


# Of the limit, and of what is used, by the controller's name in version 2 and in version 1.
GROUP_FILES = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}


def control_group_bytes(
    process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Yield what is left of each limit on this process's memory, as containers and batch systems set them on Linux."""
    for line in process.read_text("utf-8").splitlines() if process.exists() else ():
        _, controller, group = line.split(":", 2)
        if controller not in GROUP_FILES:
            continue
        limit, used = GROUP_FILES[controller]
        place = root / controller / group.lstrip("/")
        for folder in (place, *place.parents):  # in a container the group's own folder may be the root
            if not (folder / limit).is_file() or (most := (folder / limit).read_text("ascii").strip()) == "max":
                continue
            held = dict(each.split() for each in (folder / "memory.stat").read_text("ascii").splitlines())
            cached = held.get("total_inactive_file", held.get("inactive_file", "0"))  # given back before anything else
            yield int(most) - int((folder / used).read_text("ascii")) + int(cached)


def held_memory_bytes(device: str) -> int:
    """Return the memory that this process has: what torch has taken of the GPU on cuda, else its resident memory."""
    return torch.cuda.memory_reserved() if device == "cuda" else psutil.Process().memory_info().rss


# --- before the weights are there ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training holds all the time. Activations come on top, by batch size and length."""

    weights: int
    trained: int

    @property
    def total(self) -> int:
        return self.weights + self.trained

    def __str__(self) -> str:
        trained = f"trained parameters with their gradients and optimiser {_gib(self.trained)}"
        return f"weights {_gib(self.weights)}, {trained}"


def estimate_footprint(profile: Profile, recipe: Recipe) -> Footprint:
    """Return the memory of the base's weights and of what is trained, from the shape in its config.json.

    It is the least that a training needs, which must not stop one that would have fitted: gradients in the type of the
    weights, the states of the leanest optimiser.
    """
    config = read_architecture(profile)
    with torch.device("meta"):  # shapes alone, no memory
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # What bitsandbytes quantises and `all-linear` adapts: every linear layer but the output layer.
    output = model.get_output_embeddings()
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    linear = {name: layer for name, layer in layers if layer is not output}
    is_quantized = recipe.quantization in QUANTIZED_BYTES
    quantized = sum(layer.weight.numel() for layer in linear.values()) if is_quantized else 0
    plain = sum(parameter.numel() for parameter in model.parameters()) - quantized
    itemsize = recipe.hardware.dtype.itemsize
    weights = plain * itemsize + quantized * QUANTIZED_BYTES.get(recipe.quantization, 0)
    # Two matrices of LoRA a layer, modules that are trained whole, and rows of the embeddings.
    lora, targets = recipe.lora, recipe.lora.target_modules
    trained = len(lora.trainable_token_indices) * model.get_input_embeddings().weight.shape[1]
    for name, layer in linear.items():
        if isinstance(targets, str) or name.rpartition(".")[2] in targets:  # a string: all-linear, or a pattern
            trained += lora.rank * (layer.in_features + layer.out_features)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in lora.modules_to_save:
            trained += sum(parameter.numel() for parameter in module.parameters())
    return Footprint(int(weights), trained * (2 * itemsize + min(STATE_BYTES.values())))


def check_memory(profile: Profile, recipe: Recipe) -> str:
    """Check that the training can fit into memory at all; returns what was estimated, for the user.

    Raises:
        ParameterError: it cannot, whatever the batch size; says what would.
    """
    footprint = estimate_footprint(profile, recipe)
    if shards_weights():
        footprint = Footprint(footprint.weights // recipe.processes, footprint.trained // recipe.processes)
    free = free_memory_bytes(recipe.hardware.device)
    place = "on the GPU" if recipe.hardware.device == "cuda" else "of memory"
    if footprint.total <= free:
        return f"at least {_gib(footprint.total)} {place} ({footprint}; activations on top) of {_gib(free)} free"
    names = [name for name in QUANTIZED_BYTES if name != recipe.quantization and recipe.hardware.device != "mps"]
    others = [replace(recipe, quantization=name) for name in names]
    sizes = {other.quantization: estimate_footprint(profile, other).total for other in others}
    ways = [f"quantization {name} needs {_gib(size)}" for name, size in sizes.items() if size < footprint.total]
    if modules := ", ".join(recipe.lora.modules_to_save):
        ways.append(f"tuning.*.modules_to_save trains {modules} whole")
    raise ParameterError(
        f"params.yaml: presets.*.quantization: with {recipe.quantization}, training {profile.name} takes at least "
        f"{_gib(footprint.total)} {place} ({footprint}) before any activations, and {_gib(free)} are free; "
        f"{'; '.join([*ways, 'or take a smaller base, or a larger machine'])} (4bit: -S train.preset=memory_efficient)"
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


# --- before the first step -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What a training will take. Memory is the GPU's on cuda, else this process's; `available` is what it may take."""

    seconds: float
    peak_memory_bytes: int
    available_memory_bytes: int

    def __str__(self) -> str:
        return (
            f"about {format_seconds(self.seconds)}, peak memory about {self.peak_memory_bytes / GIB:.1f} of "
            f"{self.available_memory_bytes / GIB:.1f} GiB"
        )


def trial_pass(trainer: AdapterTrainer, examples: list[dict[str, Any]], recipe: Recipe) -> Estimate:
    """Return what the training will take, from a forward and backward pass over its longest batch.

    No weight, random state or count of the training changes: nothing is stepped, the gradients are thrown away, and
    the random generators go on as if this had not been. The optimiser's states are added by their size.

    Args:
        examples: of the training split, as the trainer has them.
    """
    device = recipe.hardware.device
    lengths = sorted((len(example["input_ids"]) for example in examples), reverse=True)
    longest = sorted(examples, key=lambda example: len(example["input_ids"]), reverse=True)[: recipe.batch_size]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seconds = _pass_seconds(trainer, longest, recipe)
        if seconds < SLOW_SECONDS or device == "cuda":
            seconds = min(seconds, _pass_seconds(trainer, longest, recipe))
    # The time of a batch goes with its tokens. Batches are drawn at random: a step takes what mean records do.
    tokens = sum(lengths[: len(longest)])
    mean = sum(lengths) / len(lengths)
    if not trainer.padding_free:  # a row is as long as the longest of its batch
        tokens = lengths[0] * len(longest)
        mean = sum(length * length for length in lengths) / sum(lengths)
    share = mean * recipe.batch_size / tokens
    if device == "cuda":
        share = max(share, LAUNCH_BOUND_TOKENS / tokens)
    passes = recipe.steps * recipe.gradient_accumulation_steps
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    return Estimate(
        seconds=passes * seconds * min(1.0, share),
        peak_memory_bytes=peak_memory_bytes(device) + trained * STATE_BYTES[recipe.hardware.optimizer],
        available_memory_bytes=held_memory_bytes(device) + free_memory_bytes(device),
    )


def _pass_seconds(trainer: AdapterTrainer, batch: list[dict[str, Any]], recipe: Recipe) -> float:
    """Return the seconds of a forward and backward pass, in the precision of the training."""
    hardware = recipe.hardware
    model = trainer.model.train()
    inputs = {
        name: value.to(hardware.device) if isinstance(value, torch.Tensor) else value
        for name, value in trainer.data_collator(batch).items()
    }
    started = time.perf_counter()
    with torch.autocast(hardware.device, hardware.dtype, enabled=hardware.precision != "fp32"):
        loss = trainer.batch_loss(model, inputs)
    loss.backward()
    synchronize(hardware.device)
    seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return seconds


def check_that_it_fits(estimate: Estimate, recipe: Recipe, longest_tokens: int) -> None:
    """Warn if the training will come near to the memory there is.

    Raises:
        MemoryShortage: it will take more; says what to change.
    """
    share = estimate.peak_memory_bytes / estimate.available_memory_bytes
    if share > 1:
        raise MemoryShortage(
            f"training would take about {estimate.peak_memory_bytes / GIB:.1f} GiB, and there are "
            f"{estimate.available_memory_bytes / GIB:.1f}\n{format_advice(recipe, longest_tokens)}"
        )
    if share > 0.9:
        print(f"warning: {share:.0%} of the memory\n{format_advice(recipe, longest_tokens)}")


def format_seconds(seconds: float) -> str:
    """Return seconds as a person says them: 42 s, 7 min, 3 h 20 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


# --- along the run, and when it runs out -----------------------------------------------------------------------------


class MemorySampler(TrainerCallback):
    """Notes the memory of the process, and of the GPU if there is one, along the run: `rows` of step, of and mib."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.rows: list[dict[str, Any]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % max(1, state.max_steps // SAMPLES) == 0:
            places = {"process": "cpu"} | ({"GPU": "cuda"} if self.device == "cuda" else {})
            for place, device in places.items():
                mib = round(held_memory_bytes(device) / MIB, 1)
                self.rows.append({"step": state.global_step, "of": place, "mib": mib})


@contextmanager
def explain_out_of_memory(recipe: Recipe, longest_tokens: int) -> Iterator[None]:
    """Turn any of the ways in which memory runs out in the block into what to change.

    Raises:
        MemoryShortage: in place of torch's OutOfMemoryError, Python's MemoryError, or the CPU allocator's RuntimeError.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        shortage = str(error).strip().splitlines()[0] if str(error) else "no memory left"
    else:
        return
    # Outside the handler: the traceback would keep the tensors alive that filled the memory.
    raise MemoryShortage(f"training ran out of memory: {shortage}\n{format_advice(recipe, longest_tokens)}")


def memory_advice(recipe: Recipe, longest_tokens: int) -> list[str]:
    """Return what lessens the memory of a training, the most effective first; nothing that is so already."""
    advice = []
    if recipe.hardware.device == "cuda" and recipe.hardware.precision == "fp32":
        advice.append("hardware.precision: auto (16 bits take half of fp32)")
    quantizes = recipe.hardware.device != "mps"
    if quantizes and recipe.quantization == "none" and not recipe.gradient_checkpointing and recipe.batch_size > 1:
        advice.append("train.preset: memory_efficient (all of the following but the length)")
    if recipe.batch_size > 1:
        steps = recipe.gradient_accumulation_steps * recipe.batch_size
        advice.append(
            f"train.batch_size: 1 with train.gradient_accumulation_steps: {steps} (the same steps, activations of one "
            f"record rather than {recipe.batch_size})"
        )
    if not recipe.gradient_checkpointing:
        advice.append("train.gradient_checkpointing: true (activations are computed again: slower by about a third)")
    if quantizes and recipe.quantization != "4bit":
        advice.append("train.quantization: 4bit (the base's linear layers at a quarter of 16 bits)")
    if longest_tokens > 256:
        advice.append(f"train.max_length below the longest record's {longest_tokens} tokens, train.overlong: truncate")
    advice.append("tuning.*.rank, or tuning.*.modules_to_save: [] (fewer trained weights, gradients and states)")
    advice.append("a smaller base model, or a machine with more memory")
    return advice


def format_advice(recipe: Recipe, longest_tokens: int) -> str:
    """Return the advice as lines to print below what went wrong."""
    lines = [f"  {number}. {advice}" for number, advice in enumerate(memory_advice(recipe, longest_tokens), 1)]
    return "\n".join(["In params.yaml, the most effective first:", *lines])
