"""What the machine is, and what a stage computes on: device, precision, threads, versions."""

import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import torch
from pydantic import Field

from civilqa.model.capabilities import Machine, resolve_device, resolve_precision
from civilqa.model.processes import local_index
from civilqa.program.parameters import Section

# The packages that decide what the numbers are.
COMPUTING_PACKAGES = (
    *("torch", "transformers", "tokenizers", "accelerate", "peft", "trl", "bitsandbytes", "numpy"),
    *("liger-kernel", "flash-attn"),
)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class HardwareParams(Section):
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    threads: Annotated[int, Field(ge=1, le=1024)]


@dataclass(frozen=True)
class Hardware:
    """What a run computes on: cpu, cuda or mps; in fp32, bf16 or fp16; with transformers' name of the attention."""

    device: str
    precision: str
    threads: int
    attention: str = "sdpa"

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of the weights and activations."""
        return DTYPES[self.precision]


def inspect_machine() -> Machine:
    """Return what the rules of capabilities.py need to know of this machine."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    gpu = torch.cuda.get_device_properties(local_index()) if found["cuda"] else None
    optional = ("bitsandbytes", "flash_attn", "liger_kernel")
    return Machine(
        devices=tuple(name for name, available in found.items() if available),
        gpu=gpu.name if gpu else None,
        compute_capability=(gpu.major, gpu.minor) if gpu else None,
        gpu_memory_bytes=gpu.total_memory if gpu else None,
        packages=frozenset(name for name in optional if importlib.util.find_spec(name)),
        compiler=_finds_a_compiler(on_gpu=gpu is not None),
    )


def resolve_hardware(params: HardwareParams) -> Hardware:
    """Resolve `auto` from the machine, pin the number of threads, and say what was resolved.

    Raises:
        ParameterError: a device or precision was asked for that this machine does not have.
    """
    machine = inspect_machine()
    device = resolve_device(params.device, machine).resolved
    precision = resolve_precision(params.precision, device, machine).resolved
    print(f"hardware: {device}, {precision}, {params.threads} threads (asked: {params.device}, {params.precision})")
    hardware = Hardware(device, precision, params.threads)
    take_hold(hardware)
    return hardware


def take_hold(hardware: Hardware) -> None:
    """Pin what torch computes with in this process: the number of CPU threads, and its own GPU of several."""
    # Sums are split over the threads: with another number of them the last bits of the weights differ.
    torch.set_num_threads(hardware.threads)
    if hardware.device == "cuda":
        torch.cuda.set_device(local_index())


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute; 'not installed' where that is so."""
    found = {"python": platform.python_version()}
    for package in COMPUTING_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def describe_machine() -> dict[str, Any]:
    """Return what timings must be read with: processor, cores, memory, GPUs, operating system."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
    }


def peak_memory_bytes(device: str) -> int:
    """Return the peak of the GPU's allocated memory on cuda, else the peak resident memory of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return memory.peak_wset
    import resource  # Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024  # bytes on macOS, KiB on Linux


def _finds_a_compiler(on_gpu: bool) -> bool:
    if on_gpu:
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++", "cl"))


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
