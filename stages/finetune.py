"""Trains a LoRA adapter on the formatted training split.

Reads:  data/formatted/train.jsonl, data/formatted/validation.jsonl, the profile's base model
Writes: models/adapter/ (weights, configuration, tokenizer, template), metrics/finetune.json,
        metrics/plots/loss_train.csv, metrics/plots/loss_validation.csv
        metrics/runs/finetune.json: seconds, memory and machine; no output of the stage, since they differ every time
Params: train, the selected preset, model, the selected profile, hardware
"""

import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from civilqa.base_models import check_base
from civilqa.errors import ParameterError, RecordError
from civilqa.files import read_jsonl, sha256_json, write_csv, write_json
from civilqa.footprint import check_memory
from civilqa.hardware import (
    HardwareParams,
    describe_machine,
    peak_memory_bytes,
    resolve_hardware,
    versions,
)
from civilqa.models import (
    adapter_identity,
    base_identity,
    count_parameters,
    load_base,
    save_adapter,
)
from civilqa.parameters import read_choice, read_sections
from civilqa.profiles import read_profile
from civilqa.prompts import Prompter, load_tokenizer, read_template
from civilqa.special_tokens import check_special_tokens
from civilqa.stage import run
from civilqa.training import IGNORED_LABEL, Preset, TrainParams, add_adapter, make_trainer, resolve_schedule

DATA = Path("data/formatted")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics/finetune.json")
TRAIN_CURVE = Path("metrics/plots/loss_train.csv")
VALIDATION_CURVE = Path("metrics/plots/loss_validation.csv")
RUN = Path("metrics/runs/finetune.json")


def read_examples(path: Path, max_length: int | None, overlong: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the training examples of a formatted file, and the ids of those that were truncated.

    Each example has `input_ids` and `labels` of the same length, the labels of the prompt ignored by the loss.

    Raises:
        ParameterError: a record is longer than `max_length` and `overlong` is `stop`, or its prompt alone is.
        RecordError: the file is missing or not what format writes.
    """
    examples, truncated, refused = [], [], []
    for row in read_jsonl(path):
        try:
            prompt, completion = row["prompt_ids"], row["completion_ids"]
        except KeyError as error:
            raise RecordError(f"{path}: a line has no {error}; run `dvc repro format`") from None
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


def main() -> None:
    train, hardware_params = read_sections(train=TrainParams, hardware=HardwareParams)
    preset = read_choice("presets", train.preset, Preset, "train.preset")
    model_params, profile = read_profile()
    hardware = resolve_hardware(hardware_params)

    examples, truncated = {}, []
    for name in ("train", "validation"):
        examples[name], over = read_examples(DATA / f"{name}.jsonl", train.max_length, train.overlong)
        truncated += over
    if truncated:
        print(f"warning: {len(truncated)} answers cut at {train.max_length} tokens: {', '.join(truncated)}")
    schedule = resolve_schedule(train, preset, profile, len(examples["train"]))
    if schedule.keep == "best" and not examples["validation"]:
        raise ParameterError(
            "params.yaml: train.keep: found best, but there is no validation split to choose by; set train.keep to "
            "last, or raise split.validation_fraction"
        )
    print("finetune: " + ", ".join(f"{key} {value}" for key, value in asdict(schedule).items()))

    tokenizer = load_tokenizer(profile)
    print(f"finetune: {check_base(profile, tokenizer)}")
    print(f"finetune: {check_memory(profile, hardware, schedule.quantization)}")
    base = load_base(model_params, profile, hardware, schedule.quantization)
    print(f"finetune: {check_special_tokens(base, Prompter(tokenizer, read_template(DATA)), profile)}")
    model = add_adapter(base, profile, schedule, train.seed)
    parameters = count_parameters(model)
    share = parameters["trainable"] / parameters["total"]
    print(f"finetune: {parameters['trainable']:,} of {parameters['total']:,} parameters trained ({share:.2%})")

    identity = base_identity(model_params, profile)  # once: of a base in a folder it reads every byte
    # Not an output of the stage: DVC deletes those before it runs, and these must survive a killed run.
    scratch = (
        Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints" / sha256_json([asdict(schedule), examples, identity])
    )
    shutil.rmtree(scratch, ignore_errors=True)
    trainer = make_trainer(model, tokenizer, examples, schedule, train, hardware, scratch)
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    history = trainer.state.log_history

    shutil.rmtree(ADAPTER, ignore_errors=True)
    save_adapter(trainer.model, ADAPTER, {"base": identity, "quantization": schedule.quantization})
    tokenizer.chat_template = read_template(DATA)
    tokenizer.save_pretrained(str(ADAPTER))
    shutil.rmtree(scratch, ignore_errors=True)

    write_curves(history)
    tokens_an_epoch = sum(len(example["input_ids"]) for example in examples["train"])
    losses = {
        "train_first": next(row["loss"] for row in history if "loss" in row),
        "train_last": next(row["loss"] for row in reversed(history) if "loss" in row),
    }
    validation = [row["eval_loss"] for row in history if "eval_loss" in row]
    if validation:
        losses |= {"validation_best": min(validation), "validation_last": validation[-1]}
    write_json(
        METRICS,
        {
            "notice": profile.metrics_notice,
            "profile": model_params.profile,
            "preset": train.preset,
            "schedule": asdict(schedule),
            "records": {name: len(part) for name, part in examples.items()},
            "truncated_records": len(truncated),
            "tokens_an_epoch": tokens_an_epoch,
            "loss": losses,
            "parameters": {**parameters, "trainable_share": share},
            "hardware": asdict(hardware),
            "versions": versions(),
        },
    )
    write_json(
        RUN,
        {
            "adapter_sha256": adapter_identity(ADAPTER)["adapter_model.safetensors"],
            "machine": describe_machine(),
            "train_seconds": round(seconds, 2),
            "tokens_per_second": round(tokens_an_epoch * schedule.epochs / seconds, 1),
            "peak_memory_bytes": peak_memory_bytes(hardware.device),
        },
    )
    print(f"finetune: loss {losses['train_first']:.3f} -> {losses['train_last']:.3f} in {seconds:.0f} s -> {ADAPTER}")
    print(profile.notice)


if __name__ == "__main__":
    run(main)
