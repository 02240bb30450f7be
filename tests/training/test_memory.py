from dataclasses import replace

import pytest
import torch

from civilqa.program.errors import MemoryShortage
from civilqa.program.lifecycle.machine_errors import is_out_of_memory
from civilqa.training.memory import MemorySampler, explain_out_of_memory, memory_advice
from civilqa.training.trainer import Schedule, TrainingHardware

CPU = TrainingHardware("cpu", "fp32", 2)
GPU = TrainingHardware("cuda", "bf16", 2)
SCHEDULE = Schedule(
    epochs=4,
    learning_rate=1e-4,
    batch_size=4,
    gradient_accumulation_steps=2,
    processes=1,
    quantization="none",
    gradient_checkpointing=False,
    packing=False,
    keep="last",
    steps=44,
    warmup_steps=5,
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("not enough memory: you tried to allocate 12345 bytes."),
    ],
)
def test_every_way_in_which_memory_runs_out_ends_with_what_to_change(error):
    with pytest.raises(MemoryShortage) as shortage, explain_out_of_memory(SCHEDULE, GPU, 800):
        raise error
    text = str(shortage.value)
    assert text.startswith("training ran out of memory: ")
    assert "1. train.preset: memory_efficient" in text
    assert shortage.value.__cause__ is None, "a traceback would keep the tensors alive"


def test_the_cpu_s_real_allocator_is_recognised():
    with pytest.raises(MemoryShortage), explain_out_of_memory(SCHEDULE, CPU, 800):
        torch.empty(2**60, dtype=torch.uint8)


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(SCHEDULE, CPU, 800):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_block_that_ends_well_ends_well():
    with explain_out_of_memory(SCHEDULE, CPU, 800):
        pass


def test_advice_is_in_order_of_effect_and_names_nothing_that_is_so_already():
    first, *_ = memory_advice(replace(SCHEDULE), replace(GPU, precision="fp32"), 800)
    assert first.startswith("hardware.precision")
    keys = [advice.split(":")[0] for advice in memory_advice(SCHEDULE, GPU, 800)]
    assert keys[:4] == ["train.preset", "train.batch_size", "train.gradient_checkpointing", "train.quantization"]
    lean = replace(SCHEDULE, batch_size=1, gradient_checkpointing=True, quantization="4bit")
    assert not [advice for advice in memory_advice(lean, GPU, 200) if advice.startswith("train.")]


def test_advice_keeps_the_number_of_records_of_a_step():
    (advice,) = [line for line in memory_advice(SCHEDULE, GPU, 800) if line.startswith("train.batch_size")]
    assert "gradient_accumulation_steps: 8" in advice


class State:
    def __init__(self, global_step, max_steps):
        self.global_step, self.max_steps = global_step, max_steps


def test_memory_is_sampled_along_the_run_and_not_at_every_step_of_a_long_one():
    sampler = MemorySampler("cpu")
    for step in range(1, 1001):
        sampler.on_step_end(None, State(step, 1000), None)
    assert len(sampler.rows) == 200
    assert sampler.rows[-1]["step"] == 1000
    assert all(row["process_mib"] > 50 and row["gpu_mib"] == 0 for row in sampler.rows)
