"""trl's trainer as a recipe asks for it: its loss, its checkpoints, what it shows, and when it gives up."""

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

import torch
from datasets import Dataset
from peft import PeftModel
from tqdm import tqdm
from transformers import EarlyStoppingCallback, ProgressCallback, TrainerCallback
from transformers.integrations.liger import apply_liger_kernel
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from civilqa.model.processes import shards_weights
from civilqa.program.errors import ParameterError
from civilqa.program.lifecycle.machine_errors import writing
from civilqa.training.adapter import fuse_lora
from civilqa.training.answer_check import AnswerCheck
from civilqa.training.answer_loss import ends_in_frozen_head, summed_answer_loss
from civilqa.training.checkpoints import SaveEverySteps, SealCheckpoints
from civilqa.training.examples import Examples
from civilqa.training.recipe import TRITON_CAPABILITY, Recipe
from civilqa.training.varlen_attention import VARLEN_ATTENTION, keeps_records_apart, supports_varlen_attention

RANK_OF_FAILED = 1e6  # nats: far above any loss, of which a double still holds ten digits beside it
OPTIMIZERS = {"adamw": "adamw_torch_fused", "paged_adamw_8bit": "paged_adamw_8bit"}  # transformers' names


class StopAtNaN(TrainerCallback):
    """Ends a training whose loss is NaN or infinite: all weights would follow it."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        for name in ("loss", "eval_loss"):
            if not math.isfinite((logs or {}).get(name, 0.0)):
                raise divergence(f"{name} is {logs[name]} at step {state.global_step}")


def check_finite(model: PeftModel) -> None:
    """Check that the trained weights are finite: the last step has no loss after it that would show it.

    Raises:
        ParameterError: they are not.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise divergence(f"{name} holds NaN or infinite values")


def divergence(found: str) -> ParameterError:
    """Return the error for a training that diverged."""
    return ParameterError(
        f"params.yaml: train: the training ran away: {found}; lower train.learning_rate (or "
        "learning_rate_factor or alpha in `tuning`) or train.max_grad_norm, or raise train.warmup_fraction"
    )


class AdapterTrainer(SFTTrainer):
    """trl's trainer, whose checkpoints hold the adapter and the training's state, and nothing to unpickle besides.

    Where there is no Triton (CPU, GPUs before Ampere) it computes the loss itself; trl's scores prompts, too.
    """

    answer_check: AnswerCheck | None = None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Return the losses, and with a check of answers what the epoch is ranked by: the lowest is kept."""
        output = super().evaluation_loop(*args, **kwargs)
        if self.answer_check is not None:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).get_base_model()
            with self.accelerator.autocast():  # the forward pass below peft's wrapper is not the one that has it
                failed = self.answer_check.share_failed(model)
            # Fewer answers that cannot be used come before any loss, which is some nats a token.
            rank = failed * RANK_OF_FAILED + output.metrics["eval_loss"]
            output.metrics.update(eval_failed_answers=failed, eval_rank=rank)
        return output

    def batch_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        """Return the mean loss of the answer tokens of a batch, in nats, without counting it."""
        if not self.uses_own_loss:
            return model(**inputs, fused_lm_head=True, use_cache=False).loss
        loss, tokens = summed_answer_loss(model, inputs, self._frozen_head)
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
            self._embeddings.neftune_noise_alpha = self.neftune_noise_alpha * math.sqrt(records)
        if not self.uses_own_loss:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if num_items_in_batch is None:
            return self.batch_loss(model, inputs)
        loss, _ = summed_answer_loss(model, inputs, self._frozen_head)
        # The count is that of all processes and all passes of a step; DDP takes the mean of the processes' gradients.
        return loss / num_items_in_batch * self.accelerator.num_processes

    # What the trainer asks of the model at every step walks over its 1,300 modules each time: a third of the time of
    # the steps of a narrow one. Here it is asked once.

    @cached_property
    def _embeddings(self) -> torch.nn.Module:
        return self.accelerator.unwrap_model(self.model).get_input_embeddings()

    @cached_property
    def _frozen_head(self) -> torch.nn.Linear | None:
        base = self.accelerator.unwrap_model(self.model).get_base_model()
        with self.accelerator.autocast():  # as in a step: fused LoRA's fp32 is multiplied with 16 bits
            frozen = ends_in_frozen_head(base)
        return base.get_output_embeddings() if frozen else None

    @cached_property
    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        if self.is_fsdp_enabled:  # which knows its parameters by what the model says
            return super()._clip_grad_norm(model)
        return self.accelerator.clip_grad_norm_(self._trained, self.args.max_grad_norm)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: nobody reads them."""
        return 0

    @property
    def uses_own_loss(self) -> bool:
        if self.args.device.type == "cuda":
            return self.padding_free and torch.cuda.get_device_capability() < TRITON_CAPABILITY
        return self.padding_free

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            # False: modules_to_save decides about the embeddings; peft would ask the hub for the base's configuration.
            model.save_pretrained(output_dir, state_dict=state_dict, save_embedding_layers=False)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if not self.args.load_best_model_at_end:
            self.state.best_global_step = None  # else each names the best, and needs it to be resumed
        with writing(Path(self.args.output_dir)):
            super()._save_checkpoint(*args, **kwargs)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none: the adapter's own card is made once, at the end."""


def spare_walks(model: PeftModel) -> None:
    """Answer `train` and `zero_grad`, which the trainer calls at every step, without walking over all modules.

    `train` walks when the mode is another one; `zero_grad` has the trained parameters, the only ones with gradients.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    modes: list[bool] = []

    def train(mode: bool = True) -> PeftModel:
        if modes != [mode]:
            modes[:] = [mode]
            type(model).train(model, mode)
        return model

    def zero_grad(set_to_none: bool = True) -> None:
        for parameter in trained:
            parameter.grad = None

    model.train, model.zero_grad = train, zero_grad


class LossProgress(ProgressCallback):
    """The trainer's progress bar with the loss at its end, in place of a line of figures for each step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            # initial: steps of an earlier run must not count towards this one's speed, which the time left comes from.
            self.training_bar = tqdm(
                desc="training", total=state.max_steps, initial=state.global_step, unit=" step", dynamic_ncols=True
            )
        self.current_step = state.global_step

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and self.prediction_bar is None:
            options = {"total": len(eval_dataloader), "unit": " batch", "leave": False, "dynamic_ncols": True}
            self.prediction_bar = tqdm(desc="validation", **options)
        super().on_prediction_step(args, state, control, eval_dataloader, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and logs:
            shown = {name: f"{logs[name]:.3f}" for name in ("loss", "eval_loss") if name in logs}
            if shown:
                self.training_bar.set_postfix(shown, refresh=False)


def make_trainer(
    model: PeftModel,
    tokenizer: Any,
    examples: Examples,
    recipe: Recipe,
    output_dir: Path,
    checkpoints: bool = True,
    answer_check: AnswerCheck | None = None,
) -> AdapterTrainer:
    """Return trl's trainer on examples that are already tokens and labels, so that it prepares nothing itself.

    Args:
        checkpoints: keep one of each epoch in `output_dir`, to resume from.
        answer_check: how the best epoch is told from the others; None: by the validation loss alone.
    """
    hardware = recipe.hardware
    validated = bool(examples["validation"])
    base = model.get_base_model()
    padding_free = hardware.attention == "flash_attention_2"
    if hardware.attention == "varlen":
        padding_free = supports_varlen_attention(base)
        if padding_free:
            base.set_attn_implementation(VARLEN_ATTENTION)
        else:
            print("finetune: batches are padded: not every layer of the base is causal attention alone")
    if (padding_free or recipe.packing) and not shards_weights() and not keeps_records_apart(base):
        if recipe.packing:
            raise ParameterError(
                f"params.yaml: train.packing: found true, but in '{base.config.model_type}' models records of one row "
                "attend to each other; set it to false"
            )
        padding_free = False
        base.set_attn_implementation("sdpa")
        print("finetune: batches are padded: in one row, records of the base would attend to each other")
    if hardware.fused_lora:
        fuse_lora(model)
    arguments = SFTConfig(
        output_dir=str(output_dir),
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=recipe.packing,
        padding_free=padding_free,
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        # One record: the mean over batches is then the mean over records, whatever the batch.
        per_device_eval_batch_size=1,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        gradient_checkpointing=recipe.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if recipe.gradient_checkpointing else None,
        learning_rate=recipe.learning_rate,
        # Down to zero in a line. Source: Bergsma et al. 2025, Straight to Zero (arXiv:2502.15938).
        lr_scheduler_type="linear",
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        neftune_noise_alpha=recipe.neftune_noise_alpha,
        optim=OPTIMIZERS[hardware.optimizer],
        # Liger's layers only: trl's own loss never makes the whole logits.
        use_liger_kernel=hardware.liger_kernel,
        torch_compile=hardware.compile,
        bf16=hardware.precision == "bf16",
        fp16=hardware.precision == "fp16",
        use_cpu=hardware.device == "cpu",
        ddp_find_unused_parameters=False if recipe.processes > 1 else None,
        seed=recipe.seed,
        data_seed=recipe.seed,
        dataloader_pin_memory=hardware.device == "cuda",
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would show the mean of the losses before in place of NaN
        eval_strategy="epoch" if validated else "no",
        save_strategy="epoch" if checkpoints else "no",
        restore_callback_states_from_checkpoint=True,  # the patience of early stopping
        load_best_model_at_end=recipe.keep == "best",
        metric_for_best_model=("eval_rank" if answer_check else "eval_loss") if validated else None,
        greater_is_better=False,
        report_to="none",
        disable_tqdm=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # this process's own; of several torch would make a copy on each
    callbacks: list[TrainerCallback] = [StopAtNaN(), *([SealCheckpoints()] if checkpoints else [])]
    if checkpoints and recipe.checkpoint_steps is not None:
        callbacks.append(SaveEverySteps(recipe.checkpoint_steps))
    if recipe.early_stopping_patience is not None and validated:
        callbacks.append(EarlyStoppingCallback(recipe.early_stopping_patience))
    trainer = AdapterTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(examples["train"]),
        eval_dataset=Dataset.from_list(examples["validation"]) if validated else None,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.answer_check = answer_check
    # Weights that are trained are kept in fp32: small steps are lost in 16 bits, and fp16's gradient scaler refuses
    # them. (trl turns those on a quantised base into bf16.) What they are multiplied with stays as it was loaded.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if hardware.liger_kernel:
        # As the trainer does when it begins: a trial pass before it is then one over the layers that will train.
        # trl's configuration keeps Liger's own loss out.
        apply_liger_kernel(model, trainer.args.liger_kernel_config)
    if not trainer.is_fsdp_enabled:  # whose parameters are others once it trains
        spare_walks(model)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(LossProgress)
    return trainer
