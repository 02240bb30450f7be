"""A training as it is planned: read, checked and resolved before any weight is loaded; and what is told of its end."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from civilqa.base_model.categories import Categories, read_categories
from civilqa.base_model.profiles import ModelParams, Profile, read_profile
from civilqa.base_model.prompts import Prompter, load_tokenizer, read_template
from civilqa.model.hardware import Choice, describe_machine, format_table, peak_memory_bytes, versions
from civilqa.model.provenance import Manifest, describe_making
from civilqa.training.checkpoints import fingerprint
from civilqa.training.examples import Examples, check_validation, pack, read_examples
from civilqa.training.memory import Estimate
from civilqa.training.recipe import Recipe, read_parameters, refuse_fsdp_with_quantization, resolve_recipe
from civilqa.training.trackers import Tracker, check_tracker
from civilqa.training.trainer import AdapterTrainer

History = list[dict[str, float]]  # the trainer's log: a row with `loss` a step, one with `eval_loss` an epoch


@dataclass(frozen=True)
class Plan:
    """All that decides a training, and what is told of it."""

    model: ModelParams
    profile: Profile
    recipe: Recipe
    prompter: Prompter
    examples: Examples
    made_from: Manifest
    categories: Categories
    choices: list[Choice]
    records: dict[str, int]  # by split
    truncated: int
    estimate_only: bool
    report_to: Tracker

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each training example, or of each pack of them."""
        return [len(example["input_ids"]) for example in self.examples["train"]]

    def fingerprint(self) -> str:
        """Return what a checkpoint must share with this training to be one of it."""
        machine = describe_machine()
        return fingerprint(
            {
                "recipe": self.recipe.as_json(),
                "machine": {name: machine[name] for name in ("processor", "gpus", "system")},
                "model": self.model.model_dump(),
                "profile": self.profile.model_dump(),
                "made_from": self.made_from.model_dump(),
                "examples": self.examples,
                "versions": versions(),
            }
        )


@dataclass(frozen=True)
class Trained:
    """What came out of a training, and what it took."""

    plan: Plan
    trainer: AdapterTrainer
    parameters: dict[str, Any]
    estimate: Estimate | None  # None beside FSDP, whose shares of the weights are there only once it trains
    load_peak_bytes: int
    memory: list[dict[str, Any]]  # of MemorySampler
    seconds: float
    resumed_from_step: int

    @property
    def history(self) -> History:
        return self.trainer.state.log_history

    @property
    def kept_epoch(self) -> dict[str, float] | None:
        """The epoch that was kept for how it answered: step, loss and share of failed answers; None: for no such."""
        ranked = [row for row in self.history if "eval_rank" in row]
        if not ranked or self.plan.recipe.keep != "best":
            return None
        best = min(ranked, key=lambda row: row["eval_rank"])
        return {
            "epoch": round(best["epoch"], 2),
            "step": best["step"],
            "validation_loss": best["eval_loss"],
            "failed_answers": best["eval_failed_answers"],
        }

    def card_facts(self) -> dict[str, dict[str, Any]]:
        """Return what the adapter's card says of its making, by section."""
        plan, recipe = self.plan, self.plan.recipe
        made_with = {"LoRA": recipe.lora.model_dump(), "precision": recipe.hardware.precision, "seed": recipe.seed}
        return {
            "data": {"records": plan.records, "sha256": plan.made_from.data},
            "training": {"preset": recipe.preset, **recipe.schedule, **made_with},
            "metrics": summarize_losses(self.history),
        }

    def metrics(self, adapter_sha256: str) -> dict[str, Any]:
        """Return the metrics that two runs of the same training agree in."""
        plan, recipe = self.plan, self.plan.recipe
        return {
            "notice": plan.profile.metrics_notice,
            "profile": plan.model.profile,
            "preset": recipe.preset,
            "adapter_sha256": adapter_sha256,
            "schedule": recipe.schedule,
            "steps_done": self.trainer.state.global_step,
            "records": plan.records,
            "truncated_records": plan.truncated,
            "tokens_an_epoch": sum(plan.lengths),
            "loss": summarize_losses(self.history),
            **({"kept": self.kept_epoch} if self.kept_epoch else {}),
            "parameters": self.parameters,
            "hardware": asdict(recipe.hardware),
            "resolved": {choice.key: asdict(choice) for choice in plan.choices},
            "versions": versions(),
        }

    def run_metrics(self, adapter_sha256: str) -> dict[str, Any]:
        """Return what differs from run to run: seconds, memory, and the machine."""
        recipe = self.plan.recipe
        epochs = recipe.epochs * (self.trainer.state.global_step - self.resumed_from_step) / recipe.steps
        return {
            "adapter_sha256": adapter_sha256,
            "machine": describe_machine(),
            "processes": recipe.processes,
            "resumed_from_step": self.resumed_from_step,
            "estimated_seconds": round(self.estimate.seconds, 2) if self.estimate else None,
            "estimated_peak_memory_bytes": self.estimate.peak_memory_bytes if self.estimate else None,
            "train_seconds": round(self.seconds, 2),
            "tokens_per_second": round(sum(self.plan.lengths) * epochs / self.seconds, 1),
            "load_peak_memory_bytes": self.load_peak_bytes,
            "peak_memory_bytes": peak_memory_bytes(recipe.hardware.device),
        }


def read_plan(formatted: Path) -> Plan:
    """Read parameters and data, resolve what is left to the machine, and print what came of it."""
    model, profile = read_profile()
    train, preset, tuning, hardware, choices = read_parameters(model, profile)
    check_tracker(train.report_to)
    print(format_table(choices))

    prompter = Prompter(load_tokenizer(profile), read_template(formatted))
    categories = read_categories(formatted)
    examples, truncated = read_examples(formatted, train, prompter)
    records = {name: len(part) for name, part in examples.items()}
    if train.packing:
        examples["train"] = pack(examples["train"], train.max_length)
    recipe = resolve_recipe(train, preset, tuning, hardware, len(examples["train"]))
    check_validation(examples, recipe)
    refuse_fsdp_with_quantization(recipe.quantization)
    print("finetune: " + ", ".join(f"{key} {value}" for key, value in recipe.schedule.items()))
    return Plan(
        model=model,
        profile=profile,
        recipe=recipe,
        prompter=prompter,
        examples=examples,
        made_from=describe_making(model, profile, recipe.quantization, prompter.template, formatted),
        categories=categories,
        choices=choices,
        records=records,
        truncated=truncated,
        estimate_only=train.estimate_only,
        report_to=train.report_to,
    )


def describe_kept(kept: dict[str, float] | None) -> str:
    """Return why the kept epoch is that one, with a warning where not even its answers can be used."""
    if kept is None:
        return ""
    told = f"keeps epoch {kept['epoch']:g}, validation loss {kept['validation_loss']:.3f}"
    if not kept["failed_answers"]:
        return f"finetune: {told}: all of its validation answers end and do not loop"
    return (
        f"warning: {told}: {kept['failed_answers']:.0%} of its validation answers do not end or loop, and no epoch's "
        "do less; raise train.epochs or train.learning_rate"
    )


def describe_end(trained: Trained) -> str:
    """Return how the losses fell, after what there is to tell of the epoch that was kept."""
    losses, kept = summarize_losses(trained.history), describe_kept(trained.kept_epoch)
    fell = f"{losses['train_first']:.3f} -> {losses['train_last']:.3f}"
    return "\n".join([*([kept] if kept else []), f"finetune: loss {fell} in {trained.seconds:.0f} s"])


def train_curve(history: History) -> list[dict[str, float]]:
    """Return the loss of each training batch, by optimiser step."""
    rows = [row for row in history if "loss" in row]
    return [{"step": row["step"], "train_loss": row["loss"], "learning_rate": row["learning_rate"]} for row in rows]


def validation_curve(history: History) -> list[dict[str, float]]:
    """Return the loss of the validation split at each epoch's end, by optimiser step; the answers' where asked for."""
    shown = {"step": "step", "eval_loss": "validation_loss", "eval_failed_answers": "failed_answers"}
    rows = [row for row in history if "eval_loss" in row]
    return [{name: row[key] for key, name in shown.items() if key in row} for row in rows]


def summarize_losses(history: History) -> dict[str, float]:
    """Return first and last training loss, and best and last validation loss where there was one."""
    train = [row["loss"] for row in history if "loss" in row]
    validation = [row["eval_loss"] for row in history if "eval_loss" in row]
    losses = {"train_first": train[0], "train_last": train[-1]}
    return losses | ({"validation_best": min(validation), "validation_last": validation[-1]} if validation else {})
