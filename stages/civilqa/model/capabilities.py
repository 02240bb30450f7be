"""What `auto` becomes on a machine, and what a machine cannot do: rules alone, without torch.

Every rule looks at a Machine, which a test can describe as well as hardware.py can find it. Whoever asks for something
that the machine cannot do gets an error with the reason: nothing falls back unless it was left to `auto`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from civilqa.program.errors import ParameterError


@dataclass(frozen=True)
class Machine:
    """What the rules need to know of a machine.

    `compute_capability` is that of the first NVIDIA GPU, (8, 0) for an A100. `packages` are the optional ones that can
    be imported: bitsandbytes, flash_attn, liger_kernel. `compiler` says whether torch.compile finds its own.
    """

    devices: tuple[str, ...] = ("cpu",)
    gpu: str | None = None
    compute_capability: tuple[int, int] | None = None
    gpu_memory_bytes: int | None = None
    packages: frozenset[str] = frozenset()
    compiler: bool = True


@dataclass(frozen=True)
class Choice:
    """What was asked for under a key of params.yaml, what it became, and why."""

    key: str
    asked: Any
    resolved: Any
    why: str


def resolve_device(asked: str, machine: Machine) -> Choice:
    """Resolve hardware.device: auto takes a CUDA GPU, then Apple's, then the CPU."""
    key = "hardware.device"
    if asked == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if name in machine.devices)
        return Choice(key, asked, device, _gpu(machine) if device == "cuda" else _no_gpu(device))
    if asked not in machine.devices:
        raise _refusal(
            key, asked, "which this machine does not have (or torch was installed without it)", "auto or cpu"
        )
    return Choice(key, asked, asked, "asked for")


def resolve_precision(asked: str, device: str, machine: Machine) -> Choice:
    """Resolve hardware.precision: auto is bf16 on a GPU that has it, fp16 on an older one, fp32 elsewhere."""
    key = "hardware.precision"
    has_bf16 = device == "cuda" and _capability(machine) >= (8, 0)
    if asked == "auto":
        if device != "cuda":
            return Choice(key, asked, "fp32", f"half precision gains nothing on {device}")
        return (
            Choice(key, asked, "bf16", "compute capability 8.0 or more")
            if has_bf16
            else Choice(key, asked, "fp16", f"{_gpu(machine)} has no bf16, which needs 8.0")
        )
    if asked == "bf16" and device == "cuda" and not has_bf16:
        raise _refusal(key, asked, f"{_gpu(machine)} has no bf16, which needs 8.0", "auto or fp16")
    if asked == "fp16" and device != "cuda":
        raise _refusal(key, asked, f"fp16 needs a CUDA GPU, found {device}", "auto")
    return Choice(key, asked, asked, "asked for")


def resolve_quantization(asked: str, key: str, device: str, machine: Machine) -> Choice:
    """Check the quantization that a preset or train.quantization asks for; nothing of it is left to `auto`."""
    # Source: bitsandbytes's installation guide. LLM.int8 needs Turing's int8 tensor cores, NF4 runs from Pascal on.
    least = {"8bit": (7, 5), "4bit": (6, 0)}.get(asked, (0, 0))
    if asked != "none":
        if "bitsandbytes" not in machine.packages:
            raise _refusal(key, asked, "bitsandbytes cannot be imported", "none, or install requirements.txt")
        if device == "mps":
            raise _refusal(key, asked, "quantised training runs on CUDA GPUs and the CPU, found mps", "none")
        if device == "cuda" and _capability(machine) < least:
            other = "4bit" if asked == "8bit" else "none"
            raise _refusal(key, asked, f"needs compute capability {_dotted(least)}, found {_gpu(machine)}", other)
    return Choice(key, asked, asked, "asked for" if key.startswith("train.") else "the preset's")


def resolve_attention(asked: str, device: str, precision: str, machine: Machine) -> Choice:
    """Resolve train.attention: FlashAttention 2 where it runs, else torch's own (sdpa)."""
    # Source: flash-attn's README: Ampere or newer, fp16 or bf16.
    if device != "cuda":
        obstacle = f"FlashAttention needs a CUDA GPU, found {device}"
    elif _capability(machine) < (8, 0):
        obstacle = f"FlashAttention 2 needs compute capability 8.0, found {_gpu(machine)}"
    elif precision == "fp32":
        obstacle = "FlashAttention has no fp32"
    elif "flash_attn" not in machine.packages:
        obstacle = "flash-attn is not installed (pip install flash-attn --no-build-isolation)"
    else:
        obstacle = None
    return _choose("train.attention", asked, "flash_attention_2", "sdpa", obstacle, "faster on long sequences")


def resolve_liger_kernel(asked: str | bool, device: str, machine: Machine) -> Choice:
    """Resolve train.liger_kernel: Liger's fused Llama layers, which Triton compiles for the GPU."""
    if device != "cuda":
        obstacle = f"Liger's kernels need a CUDA GPU, found {device}"
    elif _capability(machine) < (8, 0):
        obstacle = f"Triton's compiler needs compute capability 8.0, found {_gpu(machine)}"
    elif "liger_kernel" not in machine.packages:
        obstacle = "liger-kernel is not installed (it is for Linux only)"
    else:
        obstacle = None
    return _choose("train.liger_kernel", asked, True, False, obstacle, "fused layers: faster, less memory")


def resolve_optimizer(asked: str, device: str, quantization: str, machine: Machine) -> Choice:
    """Resolve train.optimizer: 8-bit paged AdamW beside a quantised base on a GPU, else torch's fused AdamW.

    A preset that quantises does so to save memory; elsewhere 8-bit states would cost accuracy for a few MB of LoRA.
    """
    key = "train.optimizer"
    if device != "cuda":
        obstacle = f"paging needs CUDA's unified memory, found {device}"
    elif "bitsandbytes" not in machine.packages:
        obstacle = "bitsandbytes cannot be imported"
    else:
        obstacle = None
    if asked == "auto" and obstacle is None and quantization == "none":
        return Choice(key, asked, "adamw", "the base is not quantised: 32-bit states are more exact")
    why = "the base is quantised to save memory"
    return _choose(key, asked, "paged_adamw_8bit", "adamw", obstacle, why)


def resolve_compile(asked: str | bool, device: str, machine: Machine) -> Choice:
    """Resolve train.compile: auto leaves it off, since compiling takes minutes that a few hundred steps do not earn."""
    key = "train.compile"
    if asked == "auto":
        return Choice(key, asked, False, "compiling costs more than it saves in a few hundred steps")
    if asked is True:
        if device == "mps":
            raise _refusal(key, asked, "torch.compile does not train on mps", "auto or false")
        if device == "cuda" and _capability(machine) < (7, 0):
            raise _refusal(key, asked, f"needs compute capability 7.0, found {_gpu(machine)}", "auto or false")
        if not machine.compiler:
            raise _refusal(key, asked, "torch.compile finds no C++ compiler (g++) or Triton", "auto or false")
    return Choice(key, asked, asked, "asked for")


def format_table(choices: Iterable[Choice]) -> str:
    """Return the choices as a table of what, asked, resolved, why."""
    rows = [("what", "asked", "resolved", "why")]
    rows += [(choice.key, _shown(choice.asked), _shown(choice.resolved), choice.why) for choice in choices]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    )


def _choose(key: str, asked: Any, wanted: Any, fallback: Any, obstacle: str | None, why: str) -> Choice:
    """Return `wanted` for auto unless there is an obstacle; refuse `wanted` if it was asked for in spite of one."""
    if asked == "auto":
        return Choice(key, asked, fallback, obstacle) if obstacle else Choice(key, asked, wanted, why)
    if asked == wanted and obstacle:
        raise _refusal(key, asked, obstacle, f"auto or {_shown(fallback)}")
    return Choice(key, asked, asked, "asked for")


def _refusal(key: str, asked: Any, obstacle: str, remedy: str) -> ParameterError:
    return ParameterError(f"params.yaml: {key}: found {_shown(asked)}, {obstacle}; set it to {remedy}")


def _capability(machine: Machine) -> tuple[int, int]:
    return machine.compute_capability or (0, 0)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _gpu(machine: Machine) -> str:
    return f"{machine.gpu or 'the GPU'} of compute capability {_dotted(_capability(machine))}"


def _no_gpu(device: str) -> str:
    return "Apple's GPU" if device == "mps" else "no GPU that torch can use"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
