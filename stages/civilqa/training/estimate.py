"""What a training will take, measured on its longest batch before it starts: seconds and memory."""

import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from civilqa.model.hardware import Hardware, peak_memory_bytes
from civilqa.program.errors import MemoryShortage
from civilqa.training.memory import format_advice
from civilqa.training.trainer import OPTIMIZERS, AdapterTrainer, Schedule, TrainingHardware

GIB = 2**30
SLOW_SECONDS = 5.0  # a pass this long is measured once: warming up would change it little
# Bytes of the optimiser's two moments for each trained weight.
STATE_BYTES = {"adamw": 8, "paged_adamw_8bit": 2}
assert STATE_BYTES.keys() == OPTIMIZERS.keys()  # noqa: S101 - a table that must not fall behind the other


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


def probe(
    trainer: AdapterTrainer, examples: list[dict[str, Any]], schedule: Schedule, hardware: TrainingHardware
) -> Estimate:
    """Return what the training will take, from a forward and backward pass over its longest batch.

    No weight, random state or count of the training changes: nothing is stepped, the gradients are thrown away, and
    the random generators go on as if this had not been. The optimiser's states are added by their size.

    Args:
        examples: of the training split, as the trainer has them.
    """
    lengths = sorted((len(example["input_ids"]) for example in examples), reverse=True)
    longest = sorted(examples, key=lambda example: len(example["input_ids"]), reverse=True)[: schedule.batch_size]
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seconds = _pass_seconds(trainer, longest, hardware)
        if seconds < SLOW_SECONDS:
            seconds = min(seconds, _pass_seconds(trainer, longest, hardware))
    # The time of a batch goes with its tokens. Batches are drawn at random: a step takes what mean records do.
    tokens = sum(lengths[: len(longest)])
    mean = sum(lengths) / len(lengths)
    if not trainer.padding_free:  # a row is as long as the longest of its batch
        tokens = lengths[0] * len(longest)
        mean = sum(length * length for length in lengths) / sum(lengths)
    passes = schedule.steps * schedule.gradient_accumulation_steps
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    return Estimate(
        seconds=passes * seconds * min(1.0, mean * schedule.batch_size / tokens),
        peak_memory_bytes=peak_memory_bytes(hardware.device) + trained * STATE_BYTES[hardware.optimizer],
        available_memory_bytes=_available_bytes(hardware.device),
    )


def check_that_it_fits(estimate: Estimate, schedule: Schedule, hardware: Hardware, longest_tokens: int) -> None:
    """Warn if the training will come near to the memory there is.

    Raises:
        MemoryShortage: it will take more; says what to change.
    """
    share = estimate.peak_memory_bytes / estimate.available_memory_bytes
    if share > 1:
        raise MemoryShortage(
            f"training would take about {estimate.peak_memory_bytes / GIB:.1f} GiB, and there are "
            f"{estimate.available_memory_bytes / GIB:.1f}\n{format_advice(schedule, hardware, longest_tokens)}"
        )
    if share > 0.9:
        print(f"warning: {share:.0%} of the memory\n{format_advice(schedule, hardware, longest_tokens)}")


def format_seconds(seconds: float) -> str:
    """Return seconds as a person says them: 42 s, 7 min, 3 h 20 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _pass_seconds(trainer: AdapterTrainer, batch: list[dict[str, Any]], hardware: Hardware) -> float:
    """Return the seconds of a forward and backward pass, in the precision of the training."""
    model = trainer.model.train()
    inputs = {
        name: value.to(hardware.device) if isinstance(value, torch.Tensor) else value
        for name, value in trainer.data_collator(batch).items()
    }
    started = time.perf_counter()
    with torch.autocast(hardware.device, hardware.dtype, enabled=hardware.precision != "fp32"):
        loss = trainer.batch_loss(model, inputs)
    loss.backward()
    if hardware.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return seconds


def _available_bytes(device: str) -> int:
    """Return the memory that this process may take: all of the GPU's, or its own and what the machine has left."""
    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved()
    return psutil.Process().memory_info().rss + psutil.virtual_memory().available
