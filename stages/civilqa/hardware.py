"""What the machine is and what was resolved on it: device, precision, threads, versions."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import torch
from pydantic import Field

from civilqa.errors import ParameterError
from civilqa.parameters import Section

# The packages that decide what the numbers are.
COMPUTING_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "peft", "trl", "bitsandbytes", "numpy")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class HardwareParams(Section):
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    threads: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Hardware:
    """What a run computes on. `device` is cpu, cuda or mps; `precision` is fp32, bf16 or fp16."""

    device: str
    precision: str
    threads: int

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of the weights and activations."""
        return DTYPES[self.precision]


def resolve_hardware(params: HardwareParams) -> Hardware:
    """Resolve `auto` from the machine, pin the number of threads, and say what was resolved.

    Raises:
        ParameterError: a device or precision was asked for that this machine does not have.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    device = params.device
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if available[name])
    if not available[device]:
        raise ParameterError(
            f"params.yaml: hardware.device: found {device}, which this machine does not have (or torch was installed "
            "without it); set it to auto or cpu"
        )
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    precision = params.precision
    if precision == "auto":
        precision = {"cpu": "fp32", "mps": "fp32"}.get(device, "bf16" if bf16 else "fp16")
    if precision == "bf16" and device == "cuda" and not bf16:
        raise ParameterError("params.yaml: hardware.precision: this GPU has no bf16; set it to auto or fp16")
    if precision == "fp16" and device != "cuda":
        raise ParameterError(f"params.yaml: hardware.precision: fp16 needs a CUDA GPU, found {device}; set it to auto")
    # Sums are split over the threads: with another number of them the last bits of the weights differ.
    torch.set_num_threads(params.threads)
    print(f"hardware: {device}, {precision}, {params.threads} threads (asked: {params.device}, {params.precision})")
    return Hardware(device, precision, params.threads)


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


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
