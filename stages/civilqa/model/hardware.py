"""What the machine is, what `auto` becomes on it, and what a stage computes on: device, precision, threads, versions.

Every rule looks at a Machine, which a test can describe as well as `inspect_machine` can find it. Whoever asks for
something that the machine cannot do gets an error with the reason: nothing falls back unless it was left to `auto`.
"""

import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import torch
from pydantic import Field

from civilqa.model.processes import local_index
from civilqa.program.errors import ParameterError
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


@dataclass(frozen=True)
class Machine:
    """What the rules need to know of a machine.

    `compute_capability` is that of the first NVIDIA GPU, (8, 0) for an A100. `packages` are the optional ones that can
    be imported: bitsandbytes, flash_attn, liger_kernel. `compiler` says whether torch.compile finds its own.
    """

    devices: tuple[str, ...] = ("cpu",)
    gpu: str | None = None
    compute_capability: tuple[int, int] = (0, 0)
    packages: frozenset[str] = frozenset()
    compiler: bool = True

    def __str__(self) -> str:
        return f"{self.gpu or 'the GPU'} of compute capability {'.'.join(map(str, self.compute_capability))}"


@dataclass(frozen=True)
class Choice:
    """What was asked for under a key of params.yaml, what it became, and why."""

    key: str
    asked: Any
    resolved: Any
    why: str = "asked for"


def inspect_machine() -> Machine:
    """Return what the rules need to know of this machine."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    gpu = torch.cuda.get_device_properties(local_index()) if found["cuda"] else None
    optional = ("bitsandbytes", "flash_attn", "liger_kernel")
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++", "cl")
    return Machine(
        devices=tuple(name for name, available in found.items() if available),
        gpu=gpu.name if gpu else None,
        compute_capability=(gpu.major, gpu.minor) if gpu else (0, 0),
        packages=frozenset(filter(importlib.util.find_spec, optional)),
        compiler=bool(importlib.util.find_spec("triton") if gpu else any(map(shutil.which, compilers))),
    )


def choose_device(params: HardwareParams, machine: Machine) -> tuple[Choice, Choice]:
    """Resolve device and precision. Auto takes a CUDA GPU, then Apple's, then the CPU; bf16 on a GPU that has it, fp16
    on an older one, fp32 elsewhere.

    Raises:
        ParameterError: one was asked for that the machine does not have.
    """
    key, device, why = "hardware.device", params.device, "asked for"
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if name in machine.devices)
        why = {"cuda": str(machine), "mps": "Apple's GPU", "cpu": "no GPU that torch can use"}[device]
    if device not in machine.devices:
        obstacle = "which this machine does not have (or torch was installed without it)"
        raise refusal(key, device, obstacle, "auto or cpu")
    chosen = Choice(key, params.device, device, why)

    key, precision, why = "hardware.precision", params.precision, "asked for"
    no_bf16 = f"{machine} has no bf16, which needs 8.0" if machine.compute_capability < (8, 0) else None
    if device != "cuda":
        if precision == "fp16":
            raise refusal(key, precision, f"fp16 needs a CUDA GPU, found {device}", "auto")
        if precision == "auto":
            precision, why = "fp32", f"half precision gains nothing on {device}"
    elif precision == "auto":
        precision, why = ("fp16", no_bf16) if no_bf16 else ("bf16", "compute capability 8.0 or more")
    elif precision == "bf16" and no_bf16:
        raise refusal(key, precision, no_bf16, "auto or fp16")
    return chosen, Choice(key, params.precision, precision, why)


def refusal(key: str, asked: Any, obstacle: str, remedy: str) -> ParameterError:
    """Return the error for something that was asked for and that the machine cannot do."""
    return ParameterError(f"params.yaml: {key}: found {_shown(asked)}, {obstacle}; set it to {remedy}")


def format_table(choices: Iterable[Choice]) -> str:
    """Return the choices as a table of what, asked, resolved, why."""
    rows = [("what", "asked", "resolved", "why")]
    rows += [(choice.key, _shown(choice.asked), _shown(choice.resolved), choice.why) for choice in choices]
    widths = [*(max(map(len, column)) for column in [*zip(*rows, strict=True)][:3]), 0]
    return "\n".join("  ".join(map(str.ljust, row, widths)) for row in rows)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def resolve_hardware(params: HardwareParams) -> Hardware:
    """Resolve `auto` from the machine, pin the number of threads, and say what was resolved."""
    device, precision = (choice.resolved for choice in choose_device(params, inspect_machine()))
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
    cpuinfo = Path("/proc/cpuinfo")
    described = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    name = re.search("^model name.*?:(.*)", described, re.MULTILINE)
    return {
        "processor": name[1].strip() if name else platform.processor() or platform.machine(),
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
