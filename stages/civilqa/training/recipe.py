"""The recipe of a training: what params.yaml asks for, and what it becomes on this machine and this dataset."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.model.hardware import (
    Choice,
    Hardware,
    HardwareParams,
    Machine,
    are_in_16_bits,
    choose_device,
    inspect_machine,
    refusal,
)
from civilqa.model.processes import process_count, shards_weights
from civilqa.program.errors import ParameterError
from civilqa.program.parameters import BatchSize, Section, Seed, Text, Tokens, read_choice, read_sections
from civilqa.training.adapter import LoraParams, Tuning
from civilqa.training.trackers import Tracker

Epochs = Annotated[float, Field(gt=0, le=10_000)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(ge=1, le=10**9)]
Quantization = Literal["none", "8bit", "4bit"]
TRITON_CAPABILITY = (8, 0)  # the least compute capability that Triton compiles for
Obstacles = list[tuple[bool, str]]  # whether each is there, and how it is told


class StepParams(Section):
    """The keys of `train` that decide how fast a step is: all of them that the benchmark stage takes, see dvc.yaml."""

    preset: Text
    quantization: Quantization | None
    gradient_checkpointing: bool | None
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)]
    neftune_noise_alpha: Annotated[float, Field(gt=0, le=1000)] | None
    attention: Literal["auto", "flash_attention_2", "varlen", "sdpa"]
    optimizer: Literal["auto", "adamw", "paged_adamw_8bit"]
    liger_kernel: Literal["auto"] | bool
    fused_lora: Literal["auto"] | bool
    compile: Literal["auto"] | bool


class TrainParams(StepParams):
    """With the keys that decide how long and on what is trained."""

    epochs: Epochs | None
    learning_rate: LearningRate | None
    batch_size: BatchSize | None
    max_length: Tokens | None
    overlong: Literal["stop", "truncate"]
    packing: bool
    keep: Literal["last", "best"] | None
    early_stopping_patience: Steps | None
    checkpoint_steps: Steps | None
    seed: Seed
    gradient_accumulation_steps: BatchSize
    warmup_fraction: Annotated[float, Field(ge=0, le=1)]
    estimate_only: bool
    report_to: Tracker


class Preset(Section):
    epochs: Epochs
    learning_rate: LearningRate
    batch_size: BatchSize
    quantization: Quantization
    gradient_checkpointing: bool


@dataclass(frozen=True)
class TrainingHardware(Hardware):
    """What training computes on and with."""

    optimizer: str = "adamw"
    liger_kernel: bool = False
    fused_lora: bool = False
    compile: bool = False


@dataclass(frozen=True)
class Recipe:
    """All that decides a training besides base and data, resolved: nothing is left to a preset or to `auto`.

    `batch_size` is that of one process; a step takes `batch_size * gradient_accumulation_steps * processes` records, or
    rows of several records if they are packed.
    """

    preset: str
    epochs: float
    learning_rate: float
    batch_size: int
    quantization: str
    gradient_checkpointing: bool
    steps: int
    seed: int
    weight_decay: float
    max_grad_norm: float
    neftune_noise_alpha: float | None
    lora: LoraParams
    hardware: TrainingHardware
    gradient_accumulation_steps: int = 1
    processes: int = 1
    packing: bool = False
    keep: str = "last"
    warmup_steps: int = 0
    early_stopping_patience: int | None = None
    checkpoint_steps: int | None = None

    @property
    def schedule(self) -> dict[str, Any]:
        """What a reader of the metrics and of the adapter's card is shown."""
        names = ("epochs", "learning_rate", "batch_size", "gradient_accumulation_steps", "processes", "quantization")
        names += ("gradient_checkpointing", "packing", "keep", "steps", "warmup_steps")
        return {name: getattr(self, name) for name in names}

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"lora": self.lora.model_dump()}


def choose_hardware(
    params: HardwareParams, train: StepParams, preset: Preset, machine: Machine, in_16_bits: bool
) -> tuple[TrainingHardware, list[Choice]]:
    """Resolve everything that depends on the machine; returns it with a row of explanation for each choice.

    Raises:
        ParameterError: something was asked for that this machine cannot do.
    """
    chosen = choose_device(params, machine, in_16_bits)
    device, precision = (choice.resolved for choice in chosen)
    capability, packages = machine.compute_capability, machine.packages
    quantization = _first_given(train.quantization, preset.quantization)

    obstacles = [  # Source: flash-attn's README: Ampere or newer, fp16 or bf16.
        (device != "cuda", f"FlashAttention needs a CUDA GPU, found {device}"),
        (capability < (8, 0), f"FlashAttention 2 needs compute capability 8.0, found {machine}"),
        (precision == "fp32", "FlashAttention has no fp32"),
        ("flash_attn" not in packages, "flash-attn is not installed (pip install flash-attn --no-build-isolation)"),
    ]
    other = "sdpa" if device == "mps" else "varlen"
    attention = _choose(train, "attention", "flash_attention_2", other, "faster on long sequences", obstacles)
    obstacles = [  # Liger's fused Llama layers are compiled by Triton.
        (device != "cuda", f"Liger's kernels need a CUDA GPU, found {device}"),
        (capability < TRITON_CAPABILITY, f"Triton's compiler needs compute capability 8.0, found {machine}"),
        ("liger_kernel" not in packages, "liger-kernel is not installed (it is for Linux only)"),
    ]
    liger_kernel = _choose(train, "liger_kernel", True, False, "fused layers: faster, less memory", obstacles)
    obstacles = [
        (device != "cuda" and precision == "fp32", f"it spares casts and kernels; in fp32 on {device} are none")
    ]
    fused_lora = _choose(train, "fused_lora", True, False, "fewer operations: faster, less memory", obstacles)
    # A preset that quantises does so to save memory; elsewhere 8-bit states would cost accuracy for a few MB of LoRA.
    exact = train.optimizer == "auto" and quantization == "none"
    obstacles = [
        (device != "cuda", f"paging needs CUDA's unified memory, found {device}"),
        ("bitsandbytes" not in packages, "bitsandbytes cannot be imported"),
        (exact, "the base is not quantised: 32-bit states are more exact"),
    ]
    why = "the base is quantised to save memory"
    optimizer = _choose(train, "optimizer", "paged_adamw_8bit", "adamw", why, obstacles)
    obstacles = [
        (train.compile == "auto", "compiling costs more than it saves in a few hundred steps"),
        (device == "mps", "torch.compile does not train on mps"),
        (device == "cuda" and capability < (7, 0), f"needs compute capability 7.0, found {machine}"),
        (not machine.compiler, "torch.compile finds no C++ compiler (g++) or Triton"),
    ]
    rest = [optimizer, liger_kernel, fused_lora, _choose(train, "compile", True, False, "", obstacles)]

    is_own = train.quantization is not None
    key = "train.quantization" if is_own else f"presets.{train.preset}.quantization"
    # Source: bitsandbytes's installation guide. LLM.int8 needs Turing's int8 tensor cores, NF4 runs from Pascal on.
    least = {"8bit": (7, 5), "4bit": (6, 0)}.get(quantization, (0, 0))
    if quantization != "none" and "bitsandbytes" not in packages:
        raise refusal(key, quantization, "bitsandbytes cannot be imported", "none, or install requirements.txt")
    if quantization != "none" and device == "mps":
        raise refusal(key, quantization, "quantised training runs on CUDA GPUs and the CPU, found mps", "none")
    if device == "cuda" and capability < least:
        needs = f"needs compute capability {least[0]}.{least[1]}, found {machine}"
        raise refusal(key, quantization, needs, "4bit" if quantization == "8bit" else "none")

    checked = Choice(key, quantization, quantization, "asked for" if is_own else "the preset's")
    fields = {choice.key.partition(".")[2]: choice.resolved for choice in (*chosen, attention, *rest)}
    return TrainingHardware(threads=params.threads, **fields), [*chosen, checked, attention, *rest]


def _choose(train: StepParams, name: str, wanted: Any, fallback: Any, why: str, obstacles: Obstacles) -> Choice:
    """Return `wanted` for auto unless there is an obstacle; refuse `wanted` if it was asked for in spite of one."""
    key, asked = f"train.{name}", getattr(train, name)
    obstacle = next((told for is_there, told in obstacles if is_there), None)
    if asked == "auto":
        return Choice(key, asked, fallback, obstacle) if obstacle else Choice(key, asked, wanted, why)
    if asked == wanted and obstacle:
        raise refusal(key, asked, obstacle, f"auto or {str(fallback).lower()}")
    return Choice(key, asked, asked)


def read_parameters(
    model: ModelParams, profile: Profile
) -> tuple[TrainParams, Preset, Tuning, TrainingHardware, list[Choice]]:
    """Return what params.yaml says of the training of the selected profile, and what this machine makes of it."""
    train, hardware_params = read_sections(train=TrainParams, hardware=HardwareParams)
    preset = read_choice("presets", train.preset, Preset, "train.preset")
    tuning = read_choice("tuning", model.profile, Tuning, "model.profile")
    machine = inspect_machine()
    in_16_bits = are_in_16_bits(profile, machine)
    return train, preset, tuning, *choose_hardware(hardware_params, train, preset, machine, in_16_bits)


def make_recipe(
    train: StepParams,
    preset: Preset,
    tuning: Tuning,
    hardware: TrainingHardware,
    *,
    batch_size: int,
    steps: int,
    seed: int,
) -> Recipe:
    """Return the recipe of so many steps of one batch each, in one epoch, of which nothing is kept."""
    return Recipe(
        epochs=1.0,
        learning_rate=preset.learning_rate * tuning.learning_rate_factor,
        batch_size=batch_size,
        quantization=_first_given(train.quantization, preset.quantization),
        gradient_checkpointing=_first_given(train.gradient_checkpointing, preset.gradient_checkpointing),
        steps=steps,
        seed=seed,
        **train.model_dump(include={"preset", "weight_decay", "max_grad_norm", "neftune_noise_alpha"}),
        lora=LoraParams(**tuning.model_dump(include=set(LoraParams.model_fields))),
        hardware=hardware,
    )


def resolve_recipe(
    train: TrainParams, preset: Preset, tuning: Tuning, hardware: TrainingHardware, records: int
) -> Recipe:
    """Put preset, tuning and overrides together.

    A preset is stated for a pretrained 1B model and scaled by the tuning's factors; an override in `train` is taken
    as it stands.

    Args:
        records: how many the trainer takes its batches from; of packed ones, how many packs.
    """
    epochs = _first_given(train.epochs, preset.epochs * tuning.epochs_factor)
    batch_size = _first_given(train.batch_size, preset.batch_size)
    batches = math.ceil(math.ceil(records / batch_size) / process_count())  # of each process, an epoch
    steps = math.ceil(math.ceil(batches / train.gradient_accumulation_steps) * epochs)
    one_epoch = make_recipe(train, preset, tuning, hardware, batch_size=batch_size, steps=steps, seed=train.seed)
    return replace(
        one_epoch,
        epochs=epochs,
        learning_rate=_first_given(train.learning_rate, one_epoch.learning_rate),
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        processes=process_count(),
        packing=train.packing,
        keep=_first_given(train.keep, tuning.keep),
        warmup_steps=min(math.ceil(train.warmup_fraction * steps), steps - 1),  # whose first is one at a rate of 0
        early_stopping_patience=train.early_stopping_patience,
        checkpoint_steps=train.checkpoint_steps,
    )


def refuse_fsdp_with_quantization(quantization: str) -> None:
    """Stop if a quantised base is to be spread over several GPUs.

    Raises:
        ParameterError: bitsandbytes packs its weights into bytes, which FSDP cannot cut into trained and frozen parts.
    """
    if quantization != "none" and shards_weights():
        raise ParameterError(
            f"params.yaml: launch: found FSDP beside quantization {quantization}; set launch to DDP "
            "(stages/accelerate/ddp.yaml), or train.quantization to none"
        )


def _first_given(override: Any, otherwise: Any) -> Any:
    return otherwise if override is None else override
