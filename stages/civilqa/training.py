"""What a run trains with, and the trainer that does it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from datasets import Dataset
from peft import PeftModel, get_peft_model
from pydantic import Field
from transformers import PreTrainedModel, ProgressCallback, set_seed
from trl import SFTConfig, SFTTrainer

from civilqa.hardware import Hardware
from civilqa.models import make_lora_config, prepare_for_training
from civilqa.parameters import Section
from civilqa.profiles import Profile

IGNORED_LABEL = -100  # what the loss skips, in torch and transformers

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]


class TrainParams(Section):
    preset: str
    epochs: PositiveFloat | None
    learning_rate: PositiveFloat | None
    batch_size: PositiveInt | None
    max_length: PositiveInt | None
    overlong: Literal["stop", "truncate"]
    keep: Literal["last", "best"] | None
    seed: Annotated[int, Field(ge=0)]
    gradient_accumulation_steps: PositiveInt
    warmup_fraction: Annotated[float, Field(ge=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: PositiveFloat
    neftune_noise_alpha: PositiveFloat | None


class Preset(Section):
    epochs: PositiveFloat
    learning_rate: PositiveFloat
    batch_size: PositiveInt
    quantization: Literal["none", "8bit", "4bit"]
    gradient_checkpointing: bool


@dataclass(frozen=True)
class Schedule:
    """What a run trains with once preset, profile and overrides are put together."""

    epochs: float
    learning_rate: float
    batch_size: int
    gradient_accumulation_steps: int
    quantization: str
    gradient_checkpointing: bool
    keep: str
    steps: int
    warmup_steps: int


def resolve_schedule(train: TrainParams, preset: Preset, profile: Profile, records: int) -> Schedule:
    """Put preset, profile and overrides together.

    A preset is stated for a pretrained 1B model and scaled by the profile's factors; an override in `train` is taken
    as it stands.
    """
    epochs = train.epochs if train.epochs is not None else preset.epochs * profile.epochs_factor
    scaled_rate = preset.learning_rate * profile.learning_rate_factor
    batch_size = train.batch_size or preset.batch_size
    steps_an_epoch = math.ceil(records / (batch_size * train.gradient_accumulation_steps))
    steps = math.ceil(steps_an_epoch * epochs)
    return Schedule(
        epochs=epochs,
        learning_rate=train.learning_rate if train.learning_rate is not None else scaled_rate,
        batch_size=batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        quantization=preset.quantization,
        gradient_checkpointing=preset.gradient_checkpointing,
        keep=train.keep or profile.keep,
        steps=steps,
        warmup_steps=math.ceil(train.warmup_fraction * steps),
    )


def add_adapter(base: PreTrainedModel, profile: Profile, schedule: Schedule, seed: int) -> PeftModel:
    """Return the base with a new LoRA adapter on it, its first weights drawn from the seed."""
    base = prepare_for_training(base, schedule.gradient_checkpointing)
    base.config.use_cache = False
    set_seed(seed)  # here, since the trainer sets its own seed only after the adapter is made
    model = get_peft_model(base, make_lora_config(profile))
    head = model.get_output_embeddings()
    if not hasattr(head, "bias"):
        # trl's loss reads it; peft's wrapper around an output layer with trained rows hides it.
        object.__setattr__(head, "bias", head.original_module.bias)
    return model


class LossProgress(ProgressCallback):
    """The trainer's progress bar with the loss at its end, in place of a line of figures for each step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and logs:
            shown = {name: f"{logs[name]:.3f}" for name in ("loss", "eval_loss") if name in logs}
            if shown:
                self.training_bar.set_postfix(shown, refresh=False)


def make_trainer(
    model: PeftModel,
    tokenizer: Any,
    examples: dict[str, list[dict[str, Any]]],
    schedule: Schedule,
    train: TrainParams,
    hardware: Hardware,
    output_dir: Path,
) -> SFTTrainer:
    """Return trl's trainer on examples that are already tokens and labels, so that it prepares nothing itself."""
    validated = bool(examples["validation"])
    arguments = SFTConfig(
        output_dir=str(output_dir),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        num_train_epochs=schedule.epochs,
        per_device_train_batch_size=schedule.batch_size,
        per_device_eval_batch_size=schedule.batch_size,
        gradient_accumulation_steps=schedule.gradient_accumulation_steps,
        gradient_checkpointing=schedule.gradient_checkpointing,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=schedule.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        neftune_noise_alpha=train.neftune_noise_alpha,
        optim="adamw_torch_fused",
        bf16=hardware.precision == "bf16",
        fp16=hardware.precision == "fp16",
        use_cpu=hardware.device == "cpu",
        seed=train.seed,
        data_seed=train.seed,
        dataloader_pin_memory=hardware.device == "cuda",
        logging_steps=1,
        logging_first_step=True,
        eval_strategy="epoch" if validated else "no",
        save_strategy="epoch" if schedule.keep == "best" else "no",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=schedule.keep == "best",
        metric_for_best_model="eval_loss",
        report_to="none",
        disable_tqdm=False,
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(examples["train"]),
        eval_dataset=Dataset.from_list(examples["validation"]) if validated else None,
        processing_class=tokenizer,
    )
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(LossProgress)
    return trainer
