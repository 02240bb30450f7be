"""The memory that training takes: sampled while it runs, and what to change when there is too little."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from civilqa.model.hardware import Hardware
from civilqa.program.errors import MemoryShortage
from civilqa.program.lifecycle.machine_errors import is_out_of_memory
from civilqa.training.trainer import Schedule

MIB = 2**20
SAMPLES = 200  # of a run, at most: enough for a curve


class MemorySampler(TrainerCallback):
    """Notes the memory of process and GPU along the run: `rows` of step, process_mib and gpu_mib (0 without a GPU)."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.rows: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % max(1, state.max_steps // SAMPLES) == 0:
            self.rows.append(
                {
                    "step": state.global_step,
                    "process_mib": round(psutil.Process().memory_info().rss / MIB, 1),
                    # reserved: what torch has taken from the GPU, as nvidia-smi shows it
                    "gpu_mib": round(torch.cuda.memory_reserved() / MIB, 1) if self.device == "cuda" else 0,
                }
            )


def memory_advice(schedule: Schedule, hardware: Hardware, longest_tokens: int) -> list[str]:
    """Return what lessens the memory of a training, the most effective first; nothing that is so already."""
    advice = []
    if hardware.device == "cuda" and hardware.precision == "fp32":
        advice.append("hardware.precision: auto (16 bits take half of fp32)")
    if schedule.quantization == "none" and not schedule.gradient_checkpointing and schedule.batch_size > 1:
        advice.append("train.preset: memory_efficient (all of the following but the length)")
    if schedule.batch_size > 1:
        steps = schedule.gradient_accumulation_steps * schedule.batch_size
        advice.append(
            f"train.batch_size: 1 with train.gradient_accumulation_steps: {steps} (the same steps, activations of one "
            f"record rather than {schedule.batch_size})"
        )
    if not schedule.gradient_checkpointing:
        advice.append("train.gradient_checkpointing: true (activations are computed again: slower by about a third)")
    if schedule.quantization != "4bit" and hardware.device != "mps":
        advice.append("train.quantization: 4bit (the base's linear layers at a quarter of 16 bits)")
    if longest_tokens > 256:
        advice.append(f"train.max_length below the longest record's {longest_tokens} tokens, train.overlong: truncate")
    advice.append("tuning.*.rank, or tuning.*.modules_to_save: [] (fewer trained weights, gradients and states)")
    advice.append("a smaller base model, or a machine with more memory")
    return advice


@contextmanager
def explain_out_of_memory(schedule: Schedule, hardware: Hardware, longest_tokens: int) -> Iterator[None]:
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
    raise MemoryShortage(f"training ran out of memory: {shortage}\n{format_advice(schedule, hardware, longest_tokens)}")


def format_advice(schedule: Schedule, hardware: Hardware, longest_tokens: int) -> str:
    """Return the advice as lines to print below what went wrong."""
    lines = [
        f"  {number}. {advice}" for number, advice in enumerate(memory_advice(schedule, hardware, longest_tokens), 1)
    ]
    return "\n".join(["In params.yaml, the most effective first:", *lines])
