"""What is told of a training that has ended: losses, and what it took."""

from dataclasses import asdict, dataclass
from typing import Any

from civilqa.model.hardware import describe_machine, peak_memory_bytes, versions
from civilqa.training.memory import Estimate
from civilqa.training.plan import Plan
from civilqa.training.trainer import AdapterTrainer

History = list[dict[str, float]]  # the trainer's log: a row with `loss` a step, one with `eval_loss` an epoch


@dataclass(frozen=True)
class Trained:
    """What came out of a training, and what it took."""

    trainer: AdapterTrainer
    parameters: dict[str, Any]
    estimate: Estimate
    memory: list[dict[str, float]]
    seconds: float
    resumed_from_step: int

    @property
    def history(self) -> History:
        return self.trainer.state.log_history


def train_curve(history: History) -> list[dict[str, float]]:
    """Return the loss of each training batch, by optimiser step."""
    rows = [row for row in history if "loss" in row]
    return [{"step": row["step"], "train_loss": row["loss"], "learning_rate": row["learning_rate"]} for row in rows]


def validation_curve(history: History) -> list[dict[str, float]]:
    """Return the loss of the validation split at each epoch's end, by optimiser step."""
    return [{"step": row["step"], "validation_loss": row["eval_loss"]} for row in history if "eval_loss" in row]


def summarize_losses(history: History) -> dict[str, float]:
    """Return first and last training loss, and best and last validation loss where there was one."""
    train = [row["loss"] for row in history if "loss" in row]
    validation = [row["eval_loss"] for row in history if "eval_loss" in row]
    losses = {"train_first": train[0], "train_last": train[-1]}
    return losses | ({"validation_best": min(validation), "validation_last": validation[-1]} if validation else {})


def card_facts(plan: Plan, trained: Trained) -> dict[str, dict[str, Any]]:
    """Return what the adapter's card says of its making, by section."""
    recipe = plan.recipe
    made_with = {"LoRA": recipe.lora.model_dump(), "precision": recipe.hardware.precision, "seed": recipe.seed}
    return {
        "data": {"records": plan.records, "sha256": plan.made_from.data},
        "training": {"preset": recipe.preset, **recipe.schedule, **made_with},
        "metrics": summarize_losses(trained.history),
    }


def training_metrics(plan: Plan, trained: Trained, adapter_sha256: str) -> dict[str, Any]:
    """Return the metrics that two runs of the same training agree in."""
    return {
        "notice": plan.profile.metrics_notice,
        "profile": plan.model.profile,
        "preset": plan.recipe.preset,
        "adapter_sha256": adapter_sha256,
        "schedule": plan.recipe.schedule,
        "steps_done": trained.trainer.state.global_step,
        "records": plan.records,
        "truncated_records": plan.truncated,
        "tokens_an_epoch": sum(plan.lengths),
        "loss": summarize_losses(trained.history),
        "parameters": trained.parameters,
        "hardware": asdict(plan.recipe.hardware),
        "resolved": {choice.key: asdict(choice) for choice in plan.choices},
        "versions": versions(),
    }


def run_metrics(plan: Plan, trained: Trained, adapter_sha256: str) -> dict[str, Any]:
    """Return what differs from run to run: seconds, memory, and the machine."""
    recipe = plan.recipe
    epochs = recipe.epochs * (trained.trainer.state.global_step - trained.resumed_from_step) / recipe.steps
    return {
        "adapter_sha256": adapter_sha256,
        "machine": describe_machine(),
        "processes": recipe.processes,
        "resumed_from_step": trained.resumed_from_step,
        "estimated_seconds": round(trained.estimate.seconds, 2),
        "estimated_peak_memory_bytes": trained.estimate.peak_memory_bytes,
        "train_seconds": round(trained.seconds, 2),
        "tokens_per_second": round(sum(plan.lengths) * epochs / trained.seconds, 1),
        "peak_memory_bytes": peak_memory_bytes(recipe.hardware.device),
    }
