"""The recipe of a training: what params.yaml asks for, and what it becomes on this machine and this dataset."""

import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from civilqa.model.capabilities import (
    Choice,
    Machine,
    resolve_attention,
    resolve_compile,
    resolve_device,
    resolve_liger_kernel,
    resolve_optimizer,
    resolve_precision,
    resolve_quantization,
)
from civilqa.model.hardware import Hardware, HardwareParams
from civilqa.model.processes import process_count
from civilqa.program.errors import ParameterError
from civilqa.program.parameters import BatchSize, Section, Seed, Text, Tokens
from civilqa.training.adapter import LoraParams, Tuning

Epochs = Annotated[float, Field(gt=0, le=10_000)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(ge=1, le=10**9)]
Quantization = Literal["none", "8bit", "4bit"]


class StepParams(Section):
    """The keys of `train` that decide how fast a step is: all of them that the benchmark stage takes, see dvc.yaml."""

    preset: Text
    quantization: Quantization | None
    gradient_checkpointing: bool | None
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)]
    neftune_noise_alpha: Annotated[float, Field(gt=0, le=1000)] | None
    attention: Literal["auto", "flash_attention_2", "sdpa"]
    optimizer: Literal["auto", "adamw", "paged_adamw_8bit"]
    liger_kernel: Literal["auto"] | bool
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
    params: HardwareParams, train: StepParams, preset: Preset, machine: Machine
) -> tuple[TrainingHardware, list[Choice]]:
    """Resolve everything that depends on the machine; returns it with a row of explanation for each choice.

    Raises:
        ParameterError: something was asked for that this machine cannot do.
    """
    quantization, key = (
        (train.quantization, "train.quantization")
        if train.quantization is not None
        else (preset.quantization, f"presets.{train.preset}.quantization")
    )
    first = resolve_device(params.device, machine)
    device = first.resolved
    precision = resolve_precision(params.precision, device, machine)
    choices = {
        "device": first,
        "precision": precision,
        "quantization": resolve_quantization(quantization, key, device, machine),
        "attention": resolve_attention(train.attention, device, precision.resolved, machine),
        "optimizer": resolve_optimizer(train.optimizer, device, quantization, machine),
        "liger_kernel": resolve_liger_kernel(train.liger_kernel, device, machine),
        "compile": resolve_compile(train.compile, device, machine),
    }
    resolved = {name: choice.resolved for name, choice in choices.items() if name != "quantization"}
    return TrainingHardware(threads=params.threads, **resolved), list(choices.values())


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
        warmup_steps=math.ceil(train.warmup_fraction * steps),
        early_stopping_patience=train.early_stopping_patience,
        checkpoint_steps=train.checkpoint_steps,
    )


def refuse_fsdp_with_quantization(quantization: str) -> None:
    """Stop if a quantised base is to be spread over several GPUs.

    Raises:
        ParameterError: bitsandbytes packs its weights into bytes, which FSDP cannot cut into trained and frozen parts.
    """
    if quantization != "none" and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise ParameterError(
            f"params.yaml: launch: found FSDP beside quantization {quantization}; set launch to DDP "
            "(stages/accelerate/ddp.yaml), or train.quantization to none"
        )


def _first_given(override: Any, otherwise: Any) -> Any:
    return otherwise if override is None else override
