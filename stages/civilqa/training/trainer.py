"""What a run trains with, and the trainer that does it."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

import torch
from datasets import Dataset
from peft import PeftModel
from pydantic import Field
from tqdm import tqdm
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer, pack_dataset

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
from civilqa.program.lifecycle.machine_errors import writing
from civilqa.program.parameters import BatchSize, Section, Seed, Text, Tokens
from civilqa.training.adapter import Tuning
from civilqa.training.checkpoints import SaveEverySteps, SealCheckpoints
from civilqa.training.varlen_attention import can_lie_end_to_end, lay_end_to_end, summed_answer_loss

OPTIMIZERS = {"adamw": "adamw_torch_fused", "paged_adamw_8bit": "paged_adamw_8bit"}  # transformers' names

Epochs = Annotated[float, Field(gt=0, le=10_000)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(ge=1, le=10**9)]
Quantization = Literal["none", "8bit", "4bit"]

Examples = dict[str, list[dict[str, Any]]]  # by split; each with input_ids, labels, and seq_lengths once packed


class TrainParams(Section):
    preset: Text
    epochs: Epochs | None
    learning_rate: LearningRate | None
    batch_size: BatchSize | None
    quantization: Quantization | None
    gradient_checkpointing: bool | None
    max_length: Tokens | None
    overlong: Literal["stop", "truncate"]
    packing: bool
    keep: Literal["last", "best"] | None
    early_stopping_patience: Steps | None
    checkpoint_steps: Steps | None
    seed: Seed
    gradient_accumulation_steps: BatchSize
    warmup_fraction: Annotated[float, Field(ge=0, le=1)]
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    max_grad_norm: Annotated[float, Field(gt=0, le=1e6)]
    neftune_noise_alpha: Annotated[float, Field(gt=0, le=1000)] | None
    attention: Literal["auto", "flash_attention_2", "sdpa"]
    optimizer: Literal["auto", "adamw", "paged_adamw_8bit"]
    liger_kernel: Literal["auto"] | bool
    compile: Literal["auto"] | bool
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
class Schedule:
    """What a run trains with once preset, tuning and overrides are put together.

    `batch_size` is that of one process; a step takes `batch_size * gradient_accumulation_steps * processes` records, or
    rows of several records if they are packed.
    """

    epochs: float
    learning_rate: float
    batch_size: int
    gradient_accumulation_steps: int
    processes: int
    quantization: str
    gradient_checkpointing: bool
    packing: bool
    keep: str
    steps: int
    warmup_steps: int


def choose_hardware(
    params: HardwareParams, train: TrainParams, preset: Preset, machine: Machine
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
    device = resolve_device(params.device, machine)
    precision = resolve_precision(params.precision, device.resolved, machine)
    attention = resolve_attention(train.attention, device.resolved, precision.resolved, machine)
    liger_kernel = resolve_liger_kernel(train.liger_kernel, device.resolved, machine)
    optimizer = resolve_optimizer(train.optimizer, device.resolved, quantization, machine)
    compiled = resolve_compile(train.compile, device.resolved, machine)
    hardware = TrainingHardware(
        device=device.resolved,
        precision=precision.resolved,
        threads=params.threads,
        attention=attention.resolved,
        optimizer=optimizer.resolved,
        liger_kernel=liger_kernel.resolved,
        compile=compiled.resolved,
    )
    return hardware, [
        device,
        precision,
        resolve_quantization(quantization, key, device.resolved, machine),
        attention,
        optimizer,
        liger_kernel,
        compiled,
    ]


def check_that_it_can_be_spread(quantization: str) -> None:
    """Stop if a quantised base is to be spread over several GPUs.

    Raises:
        ParameterError: bitsandbytes packs its weights into bytes, which FSDP cannot cut into trained and frozen parts.
    """
    if quantization != "none" and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise ParameterError(
            f"params.yaml: launch: found FSDP beside quantization {quantization}; set launch to DDP "
            "(stages/accelerate/ddp.yaml), or train.quantization to none"
        )


def resolve_schedule(train: TrainParams, preset: Preset, tuning: Tuning, records: int) -> Schedule:
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
    return Schedule(
        epochs=epochs,
        learning_rate=_first_given(train.learning_rate, preset.learning_rate * tuning.learning_rate_factor),
        batch_size=batch_size,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        processes=process_count(),
        quantization=_first_given(train.quantization, preset.quantization),
        gradient_checkpointing=_first_given(train.gradient_checkpointing, preset.gradient_checkpointing),
        packing=train.packing,
        keep=_first_given(train.keep, tuning.keep),
        steps=steps,
        warmup_steps=math.ceil(train.warmup_fraction * steps),
    )


def _first_given(override: Any, otherwise: Any) -> Any:
    return otherwise if override is None else override


def pack(examples: list[dict[str, Any]], max_length: int | None) -> list[dict[str, Any]]:
    """Return the examples put together into rows of at most `max_length` tokens, none of them cut.

    Each row says the lengths of its examples in `seq_lengths`: trl starts the position ids of each at 0 again, and the
    model then masks every example's attention to itself, in sdpa as in FlashAttention. Best fit decreasing leaves few
    gaps. Source: Ding et al. 2024, Fewer Truncations Improve Language Modeling (arXiv:2404.10830).

    Raises:
        ParameterError: there is no limit to fill rows up to.
    """
    if max_length is None:
        raise ParameterError("params.yaml: train.packing: found true, but train.max_length is null; set it to a number")
    return pack_dataset(Dataset.from_list(examples), max_length, "bfd", {"keep_in_memory": True}).to_list()


class StopAtNoNumber(TrainerCallback):
    """Ends a training whose loss is no number any more: all weights would follow it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        for name in ("loss", "eval_loss"):
            if not math.isfinite((logs or {}).get(name, 0.0)):
                raise_no_number(f"{name} is {logs[name]} at step {state.global_step}")


def check_weights(model: PeftModel) -> None:
    """Check that the trained weights are numbers: the last step has no loss after it that would show it.

    Raises:
        ParameterError: they are not.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise_no_number(f"{name} holds values that are no numbers")


def raise_no_number(found: str) -> NoReturn:
    """Raise for a training that ran away.

    Raises:
        ParameterError: always.
    """
    raise ParameterError(
        f"params.yaml: train: the training ran away: {found}; lower train.learning_rate (or "
        "learning_rate_factor or alpha in `tuning`) or train.max_grad_norm, or raise train.warmup_fraction"
    )


class AdapterTrainer(SFTTrainer):
    """trl's trainer, whose checkpoints hold the adapter and the training's state, and nothing to unpickle besides.

    On the CPU it computes the loss itself: trl's scores the prompts' tokens, too, wherever there is no Triton.
    """

    def batch_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the mean loss of the answer tokens of a batch, in nats, without counting it."""
        if not self.uses_own_loss:
            return model(**inputs, fused_lm_head=True, use_cache=False).loss
        loss, tokens = summed_answer_loss(model, inputs)
        return loss / max(tokens, 1)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if self.neftune_noise_alpha is not None and model.training and self.padding_free:
            # The noise is made for a sequence as long as the row; what NEFTune divides by is the length of a record.
            records = len(inputs["cu_seq_lens_q"]) - 1
            embeddings = self.accelerator.unwrap_model(self.model).get_input_embeddings()
            embeddings.neftune_noise_alpha = self.neftune_noise_alpha * math.sqrt(records)
        if not self.uses_own_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if num_items_in_batch is None:
            return self.batch_loss(model, inputs)
        loss, _ = summed_answer_loss(model, inputs)
        # The count is that of all processes and all passes of a step; DDP takes the mean of the processes' gradients.
        return loss / num_items_in_batch * self.accelerator.num_processes

    @property
    def uses_own_loss(self) -> bool:
        return self.padding_free and self.args.device.type == "cpu"

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            # False: modules_to_save decides about the embeddings; peft would ask the hub for the base's configuration.
            model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=False)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with writing(Path(self.args.output_dir)):
            super()._save_checkpoint(*args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: the adapter's own card is made once, at the end."""


class LossProgress(ProgressCallback):
    """The trainer's progress bar with the loss at its end, in place of a line of figures for each step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            # initial: steps of an earlier run must not count towards this one's speed, which the time left comes from.
            self.training_bar = tqdm(total=state.max_steps, initial=state.global_step, dynamic_ncols=True)
        self.current_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and logs:
            shown = {name: f"{logs[name]:.3f}" for name in ("loss", "eval_loss") if name in logs}
            if shown:
                self.training_bar.set_postfix(shown, refresh=False)


def make_trainer(
    model: PeftModel,
    tokenizer: Any,
    examples: Examples,
    schedule: Schedule,
    train: TrainParams,
    hardware: TrainingHardware,
    output_dir: Path,
    checkpoints: bool = True,
) -> AdapterTrainer:
    """Return trl's trainer on examples that are already tokens and labels, so that it prepares nothing itself.

    Args:
        checkpoints: keep one of each epoch in `output_dir`, to resume from.
    """
    validated = bool(examples["validation"])
    padding_free = hardware.attention == "flash_attention_2"
    if hardware.device == "cpu" and can_lie_end_to_end(model.get_base_model()):
        lay_end_to_end(model.get_base_model())
        padding_free = True
    arguments = SFTConfig(
        output_dir=str(output_dir),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=schedule.packing,
        padding_free=padding_free,
        num_train_epochs=schedule.epochs,
        per_device_train_batch_size=schedule.batch_size,
        # One record: the mean over batches is then the mean over records, whatever the batch.
        per_device_eval_batch_size=1 if padding_free else schedule.batch_size,
        gradient_accumulation_steps=schedule.gradient_accumulation_steps,
        gradient_checkpointing=schedule.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if schedule.gradient_checkpointing else None,
        learning_rate=schedule.learning_rate,
        # Down to zero in a line. Source: Bergsma et al. 2025, Straight to Zero (arXiv:2502.15938).
        lr_scheduler_type="linear",
        warmup_steps=schedule.warmup_steps,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        neftune_noise_alpha=train.neftune_noise_alpha,
        optim=OPTIMIZERS[hardware.optimizer],
        # trl's loss needs no logits, so that of Liger's kernels the layers are used and not the loss.
        use_liger_kernel=hardware.liger_kernel,
        torch_compile=hardware.compile,
        bf16=hardware.precision == "bf16",
        fp16=hardware.precision == "fp16",
        use_cpu=hardware.device == "cpu",
        ddp_find_unused_parameters=False if schedule.processes > 1 else None,
        seed=train.seed,
        data_seed=train.seed,
        dataloader_pin_memory=hardware.device == "cuda",
        logging_steps=1,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would show the mean of the losses before in place of what is no number
        eval_strategy="epoch" if validated else "no",
        save_strategy="epoch" if checkpoints else "no",
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping
        load_best_model_at_end=schedule.keep == "best",
        metric_for_best_model="eval_loss" if validated else None,
        report_to="none",
        disable_tqdm=False,
    )
    callbacks: list[TrainerCallback] = [StopAtNoNumber()]
    if checkpoints:
        callbacks.append(SealCheckpoints())
    if checkpoints and train.checkpoint_steps is not None:
        callbacks.append(SaveEverySteps(train.checkpoint_steps))
    if train.early_stopping_patience is not None and validated:
        callbacks.append(EarlyStoppingCallback(train.early_stopping_patience))
    trainer = AdapterTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(examples["train"]),
        eval_dataset=Dataset.from_list(examples["validation"]) if validated else None,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    # Weights that are trained are kept in fp32: small steps are lost in 16 bits, and fp16's gradient scaler refuses
    # them. (trl turns those on a quantised base into bf16.) What they are multiplied with stays as it was loaded.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(LossProgress)
    return trainer
