"""Trains a LoRA adapter on the formatted training split.

Reads:  data/formatted/train.jsonl, data/formatted/validation.jsonl, the profile's base model
Writes: models/adapter/ (weights, configuration, tokenizer, template, model card), metrics/finetune.json,
        metrics/plots/loss_train.csv, metrics/plots/loss_validation.csv
        metrics/runs/finetune.json, metrics/runs/memory.csv: seconds, memory and machine; no outputs of the stage, since
        they differ every time
Params: seed, train, the selected preset, model, the selected profile and its tuning, hardware

A run that was killed goes on from its last checkpoint, if nothing that decides the result has changed since.
"""

from civilqa.program.lifecycle.start import start

if __name__ == "__main__":
    start(__doc__, example="train.learning_rate")

import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

import psutil
from peft import PeftModel

from civilqa.base_model.config import check_base
from civilqa.base_model.formatted import check_tokens, read_formatted
from civilqa.base_model.profiles import ModelParams, Profile, read_profile
from civilqa.base_model.prompts import Prompter, load_tokenizer, read_template
from civilqa.model.capabilities import Choice, format_table
from civilqa.model.hardware import (
    HardwareParams,
    describe_machine,
    inspect_machine,
    peak_memory_bytes,
    take_hold,
    versions,
)
from civilqa.model.loading import count_parameters, load_base, save_adapter
from civilqa.model.model_card import write_adapter_card
from civilqa.model.processes import find_dvc, is_gone, is_main_process, process_count, silence_other_processes
from civilqa.model.provenance import WEIGHTS_FILE, Manifest, describe_making, read_manifest, seal
from civilqa.model.training_lock import WORKSPACE_LOCK
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import folder_aside, write_csv, write_json
from civilqa.program.lifecycle.locks import hold
from civilqa.program.lifecycle.stage import run
from civilqa.program.parameters import read_choice, read_sections
from civilqa.training.adapter import LoraParams, Tuning, add_adapter, read_tuning
from civilqa.training.checkpoints import checkpoint_root, find_resumable, fingerprint, forget_old_trainings, step_of
from civilqa.training.estimate import Estimate, check_that_it_fits, probe
from civilqa.training.footprint import check_memory
from civilqa.training.memory import MemorySampler, explain_out_of_memory
from civilqa.training.special_tokens import check_special_tokens
from civilqa.training.trainer import (
    AdapterTrainer,
    Examples,
    Preset,
    Schedule,
    TrainingHardware,
    TrainParams,
    check_that_it_can_be_spread,
    check_weights,
    choose_hardware,
    make_trainer,
    pack,
    resolve_schedule,
)
from civilqa.training.varlen_attention import IGNORED_LABEL

DATA = Path("data/formatted")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics/finetune.json")
TRAIN_CURVE = Path("metrics/plots/loss_train.csv")
VALIDATION_CURVE = Path("metrics/plots/loss_validation.csv")
RUN = Path("metrics/runs/finetune.json")
MEMORY = Path("metrics/runs/memory.csv")


@dataclass(frozen=True)
class Plan:
    """All that decides a training, read and resolved before anything is loaded."""

    train: TrainParams
    model: ModelParams
    profile: Profile
    tuning: Tuning
    hardware: TrainingHardware
    choices: list[Choice]
    schedule: Schedule
    examples: Examples
    records: dict[str, int]
    truncated: int
    made_from: Manifest

    @property
    def longest_tokens(self) -> int:
        return max(len(example["input_ids"]) for example in self.examples["train"])

    @property
    def tokens_an_epoch(self) -> int:
        return sum(len(example["input_ids"]) for example in self.examples["train"])

    def fingerprint(self) -> str:
        """Return what a checkpoint must share with this training to be one of it."""
        machine = describe_machine()
        return fingerprint(
            {
                "train": self.train.model_dump(exclude={"estimate_only"}),
                "schedule": asdict(self.schedule),
                "hardware": asdict(self.hardware),
                "machine": {name: machine[name] for name in ("processor", "gpus", "system")},
                "model": self.model.model_dump(),
                "profile": self.profile.model_dump(),
                "tuning": self.tuning.model_dump(),
                "made_from": self.made_from.model_dump(),
                "examples": self.examples,
                "versions": versions(),
            }
        )


@dataclass(frozen=True)
class Trained:
    """What came out of a training, and what it took."""

    trainer: AdapterTrainer
    tokenizer: Any
    parameters: dict[str, int]
    estimate: Estimate
    memory: list[dict[str, float]]
    seconds: float
    resumed_from_step: int


def read_examples(path: Path, max_length: int | None, overlong: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the training examples of a formatted file, and the ids of those that were truncated.

    Each example has `input_ids` and `labels` of the same length, the labels of the prompt ignored by the loss.

    Raises:
        ParameterError: a record is longer than `max_length` and `overlong` is `stop`, or its prompt alone is.
        RecordError: the file is missing or not what format writes.
    """
    examples, truncated, refused = [], [], []
    for row in read_formatted(path):
        prompt, completion = row["prompt_ids"], row["completion_ids"]
        length = len(prompt) + len(completion)
        if max_length is not None and length > max_length:
            if overlong == "stop" or len(prompt) >= max_length:
                refused.append(f"{row['id']} ({length} tokens, {len(prompt)} of them prompt)")
                continue
            truncated.append(row["id"])
        examples.append(
            {
                "input_ids": (prompt + completion)[:max_length],
                "labels": ([IGNORED_LABEL] * len(prompt) + completion)[:max_length],
            }
        )
    if refused:
        raise ParameterError(
            f"params.yaml: train.max_length: {len(refused)} records of {path} are longer than {max_length} tokens: "
            f"{', '.join(refused[:10])}{' ...' if len(refused) > 10 else ''}; raise train.max_length, or set "
            "train.overlong to truncate (which cuts the end of these answers off)"
        )
    return examples, truncated


def read_splits(train: TrainParams) -> tuple[Examples, int]:
    """Return the examples of the training and the validation split, and the number of truncated records."""
    examples, truncated = {}, []
    for name in ("train", "validation"):
        examples[name], over = read_examples(DATA / f"{name}.jsonl", train.max_length, train.overlong)
        truncated += over
    if not examples["train"]:
        raise RecordError(
            f"{DATA / 'train.jsonl'}: holds no records; run `dvc repro format` (or python stages/format.py)"
        )
    if truncated:
        print(f"warning: {len(truncated)} answers cut at {train.max_length} tokens: {', '.join(truncated)}")
    return examples, len(truncated)


def write_curves(history: list[dict[str, float]]) -> None:
    """Write the loss by optimiser step: of each training batch, and of the validation split at each epoch's end."""
    train = [row for row in history if "loss" in row]
    validation = [row for row in history if "eval_loss" in row]
    write_csv(
        TRAIN_CURVE,
        [{"step": row["step"], "train_loss": row["loss"], "learning_rate": row["learning_rate"]} for row in train],
        ["step", "train_loss", "learning_rate"],
    )
    write_csv(
        VALIDATION_CURVE,
        [{"step": row["step"], "validation_loss": row["eval_loss"]} for row in validation],
        ["step", "validation_loss"],
    )


def check_that_validation_is_there(examples: Examples, keep: str, patience: int | None) -> None:
    """Stop if a checkpoint is to be chosen, or training to be ended, by a validation split that is empty.

    Raises:
        ParameterError: names the key that asks for it.
    """
    for key, asked, instead in (
        ("keep", keep if keep == "best" else None, "last"),
        *[("early_stopping_patience", patience, "null")],
    ):
        if asked is not None and not examples["validation"]:
            raise ParameterError(
                f"params.yaml: train.{key}: found {asked}, but there is no validation split to judge by; set "
                f"train.{key} to {instead}, or raise split.validation_fraction"
            )


def summarize_losses(history: list[dict[str, float]]) -> dict[str, float]:
    """Return first and last training loss, and best and last validation loss where there was one."""
    train = [row["loss"] for row in history if "loss" in row]
    validation = [row["eval_loss"] for row in history if "eval_loss" in row]
    losses = {"train_first": train[0], "train_last": train[-1]}
    return losses | ({"validation_best": min(validation), "validation_last": validation[-1]} if validation else {})


def read_plan() -> Plan:
    """Read parameters and data, resolve what is left to the machine, and print both."""
    train, hardware_params = read_sections(train=TrainParams, hardware=HardwareParams)
    preset = read_choice("presets", train.preset, Preset, "train.preset")
    model, profile = read_profile()
    tuning = read_tuning(model)
    hardware, choices = choose_hardware(hardware_params, train, preset, inspect_machine())
    print(format_table(choices))

    examples, truncated = read_splits(train)
    records = {name: len(part) for name, part in examples.items()}
    if train.packing:
        examples["train"] = pack(examples["train"], train.max_length)
    schedule = resolve_schedule(train, preset, tuning, len(examples["train"]))
    check_that_validation_is_there(examples, schedule.keep, train.early_stopping_patience)
    check_that_it_can_be_spread(schedule.quantization)
    made_from = describe_making(model, profile, schedule.quantization, read_template(DATA), DATA)
    print("finetune: " + ", ".join(f"{key} {value}" for key, value in asdict(schedule).items()))
    return Plan(
        train=train,
        model=model,
        profile=profile,
        tuning=tuning,
        hardware=hardware,
        choices=choices,
        schedule=schedule,
        examples=examples,
        records=records,
        truncated=truncated,
        made_from=made_from,
    )


def train_adapter(plan: Plan, checkpoints: Path) -> Trained | None:
    """Train from the beginning or a cut-off run's last checkpoint; None if asked for an estimate only.

    Raises:
        MemoryShortage: it does not fit; says what to change.
    """
    take_hold(plan.hardware)
    tokenizer = load_tokenizer(plan.profile)
    prompter = Prompter(tokenizer, read_template(DATA))
    print(f"finetune: {check_base(plan.profile, tokenizer)}")
    for name in plan.records:
        path = DATA / f"{name}.jsonl"
        check_tokens(path, read_formatted(path), prompter)
    print(f"finetune: {check_memory(plan.profile, plan.tuning, plan.hardware, plan.schedule.quantization)}")
    base = load_base(plan.model, plan.profile, plan.hardware, plan.schedule.quantization)
    print(f"finetune: {check_special_tokens(base, prompter, plan.profile, plan.tuning)}")
    model = add_adapter(base, plan.profile, plan.tuning, plan.schedule.gradient_checkpointing, plan.train.seed)
    parameters = count_parameters(model)
    share = parameters["trainable"] / parameters["total"]
    print(f"finetune: {parameters['trainable']:,} of {parameters['total']:,} parameters trained ({share:.2%})")

    trainer = make_trainer(model, tokenizer, plan.examples, plan.schedule, plan.train, plan.hardware, checkpoints)
    estimate = probe(trainer, plan.examples["train"], plan.schedule, plan.hardware)
    print(f"finetune: will take {estimate}")
    check_that_it_fits(estimate, plan.schedule, plan.hardware, plan.longest_tokens)
    if plan.train.estimate_only:
        print("finetune: ends here, nothing was trained: train.estimate_only is true (so DVC will miss the outputs)")
        return None

    memory = MemorySampler(plan.hardware.device)
    trainer.add_callback(memory)
    resumed = find_resumable(checkpoints)
    if resumed is not None:
        print(f"finetune: a run was cut off; goes on from its step {step_of(resumed)} of {plan.schedule.steps}")
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    check_weights(trainer.model)
    return Trained(
        trainer=trainer,
        tokenizer=tokenizer,
        parameters={**parameters, "trainable_share": share},
        estimate=estimate,
        memory=memory.rows,
        seconds=time.perf_counter() - started,
        resumed_from_step=step_of(resumed) if resumed else 0,
    )


def gather_adapter(trainer: AdapterTrainer) -> tuple[PeftModel, dict[str, Any] | None]:
    """Return the trained model, and its weights if they are spread over processes. Every process must call it."""
    sharded = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    return trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False), sharded


def write_adapter(plan: Plan, trained: Trained, model: PeftModel, weights: dict[str, Any] | None) -> None:
    """Write the adapter's folder aside and put it in place whole: no killed run leaves half of one."""
    with folder_aside(ADAPTER) as folder:
        save_adapter(model, folder, weights)
        trained.tokenizer.chat_template = read_template(DATA)
        trained.tokenizer.save_pretrained(str(folder))
        write_adapter_card(
            folder,
            {
                "data": {"records": plan.records, "sha256": plan.made_from.data},
                "training": {
                    "preset": plan.train.preset,
                    **asdict(plan.schedule),
                    "LoRA": plan.tuning.model_dump(include=set(LoraParams.model_fields)),
                    "precision": plan.hardware.precision,
                    "seed": plan.train.seed,
                },
                "metrics": summarize_losses(trained.trainer.state.log_history),
            },
            plan.made_from.base,
            plan.profile.notice,
        )
        seal(folder, plan.made_from)


def write_metrics(plan: Plan, trained: Trained) -> None:
    """Write the metrics that two runs agree in, then those in which they differ."""
    state = trained.trainer.state
    write_json(
        METRICS,
        {
            "notice": plan.profile.metrics_notice,
            "profile": plan.model.profile,
            "preset": plan.train.preset,
            "adapter_sha256": read_manifest(ADAPTER, Manifest).files[WEIGHTS_FILE],
            "schedule": asdict(plan.schedule),
            "steps_done": state.global_step,
            "records": plan.records,
            "truncated_records": plan.truncated,
            "tokens_an_epoch": plan.tokens_an_epoch,
            "loss": summarize_losses(state.log_history),
            "parameters": trained.parameters,
            "hardware": asdict(plan.hardware),
            "resolved": {choice.key: asdict(choice) for choice in plan.choices},
            "versions": versions(),
        },
    )
    steps = state.global_step - trained.resumed_from_step
    tokens = plan.tokens_an_epoch * plan.schedule.epochs * steps / plan.schedule.steps
    write_csv(MEMORY, trained.memory, ["step", "process_mib", "gpu_mib"])
    write_json(
        RUN,
        {
            "adapter_sha256": read_manifest(ADAPTER, Manifest).files[WEIGHTS_FILE],
            "machine": describe_machine(),
            "processes": plan.schedule.processes,
            "resumed_from_step": trained.resumed_from_step,
            "estimated_seconds": round(trained.estimate.seconds, 2),
            "estimated_peak_memory_bytes": trained.estimate.peak_memory_bytes,
            "train_seconds": round(trained.seconds, 2),
            "tokens_per_second": round(tokens / trained.seconds, 1),
            "peak_memory_bytes": peak_memory_bytes(plan.hardware.device),
        },
    )


def forget_checkpoints(checkpoints: Path, dvc: psutil.Process | None) -> None:
    """Delete the checkpoints of a finished training, unless the DVC that started it was killed meanwhile.

    Then nobody records what it made: the next `dvc repro` begins by deleting it, and goes on from these.
    """
    if is_gone(dvc):
        print(f"finetune: DVC, which started this, is gone: {checkpoints} stays for the next `dvc repro`")
    else:
        shutil.rmtree(checkpoints)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that the trainer made and nothing was put into."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def leave_at_once() -> None:
    """End the process without the second that the interpreter takes to clear up.

    A kill in that second would find the checkpoints deleted and the training not recorded by DVC.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main() -> None:
    silence_other_processes()
    dvc, alone = find_dvc(), process_count() == 1
    with ExitStack() as locks:
        if is_main_process():
            # Before anything else: a training that outlived a killed DVC still writes to this folder.
            locks.enter_context(hold(WORKSPACE_LOCK, "training in this folder", wait=alone))
        plan = read_plan()
        checkpoints = checkpoint_root() / plan.fingerprint()
        if is_main_process():
            locks.enter_context(hold(checkpoints, "the same training in another folder", wait=alone))
            locks.callback(remove_if_empty, checkpoints)
            forget_old_trainings(checkpoints)
        with explain_out_of_memory(plan.schedule, plan.hardware, plan.longest_tokens):
            trained = train_adapter(plan, checkpoints)
        if trained is None:
            return
        model, weights = gather_adapter(trained.trainer)
        if is_main_process():
            write_adapter(plan, trained, model, weights)
            write_curves(trained.trainer.state.log_history)
            write_metrics(plan, trained)
            losses = summarize_losses(trained.trainer.state.log_history)
            print(
                f"finetune: loss {losses['train_first']:.3f} -> {losses['train_last']:.3f} in {trained.seconds:.0f} s "
                f"-> {ADAPTER}"
            )
            print(plan.profile.notice)
        trained.trainer.accelerator.end_training()  # leaves the group of processes in order
        if is_main_process():
            forget_checkpoints(checkpoints, dvc)


if __name__ == "__main__":
    run(main)
    leave_at_once()
