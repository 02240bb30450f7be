"""Trains a LoRA adapter on the formatted training split.

Reads:  data/formatted/train.jsonl, data/formatted/validation.jsonl, data/formatted/categories.json, the profile's base
        model
Writes: models/adapter/ (weights, configuration, tokenizer, template, categories, model card), metrics/finetune.json,
        metrics/plots/loss_train.csv, metrics/plots/loss_validation.csv
        metrics/runs/finetune.json, metrics/runs/memory.csv: seconds, memory and machine; no outputs of the stage, since
        they differ every time
Params: seed, train, the selected preset, model, the selected profile and its tuning, hardware

A run that was killed goes on from its last checkpoint, if nothing that decides the result has changed since.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="train.learning_rate")

import os
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from civilqa.base_model.categories import write_categories
from civilqa.base_model.hub import check_base
from civilqa.generation.answers import answer_limit
from civilqa.model.hardware import peak_memory_bytes, reset_peak_memory, take_hold
from civilqa.model.loading import count_parameters, load_base, save_adapter
from civilqa.model.model_card import write_adapter_card
from civilqa.model.processes import (
    ADAPTER,
    WORKSPACE_LOCK,
    find_dvc,
    is_gone,
    is_main_process,
    process_count,
    shards_weights,
)
from civilqa.model.provenance import WEIGHTS_FILE, seal
from civilqa.program.files import folder_aside, sha256_file, write_csv, write_json
from civilqa.program.lifecycle.locks import hold
from civilqa.training.adapter import add_adapter
from civilqa.training.answer_check import make_answer_check
from civilqa.training.checkpoints import checkpoint_root, find_resumable, forget_old_trainings, step_of
from civilqa.training.memory import MemorySampler, check_memory, check_that_it_fits, explain_out_of_memory, trial_pass
from civilqa.training.plan import (
    Plan,
    Trained,
    describe_end,
    read_plan,
    train_curve,
    validation_curve,
)
from civilqa.training.special_tokens import check_special_tokens
from civilqa.training.trackers import make_tracker
from civilqa.training.trainer import check_finite, make_trainer

DATA = Path("data/formatted")
METRICS = Path("metrics/finetune.json")
TRAIN_CURVE = Path("metrics/plots/loss_train.csv")
VALIDATION_CURVE = Path("metrics/plots/loss_validation.csv")
RUN = Path("metrics/runs/finetune.json")
MEMORY = Path("metrics/runs/memory.csv")


def train_adapter(plan: Plan, checkpoints: Path) -> Trained | None:
    """Train from the beginning or a cut-off run's last checkpoint; None if asked for an estimate only."""
    profile, recipe = plan.profile, plan.recipe
    take_hold(recipe.hardware)
    print(f"finetune: {check_base(profile, plan.prompter.tokenizer, plan.prompter.template)}")
    print(f"finetune: {check_memory(profile, recipe)}")
    # FSDP puts its part of each layer on the GPU when the training begins; the whole may not fit there.
    place = replace(recipe.hardware, device="cpu") if shards_weights() else recipe.hardware
    base = load_base(plan.model, profile, place, recipe.quantization)
    load_peak = peak_memory_bytes(recipe.hardware.device)
    reset_peak_memory(recipe.hardware.device)
    print(f"finetune: {check_special_tokens(base, plan.prompter, profile, recipe.lora)}")
    model = add_adapter(base, profile, recipe.lora, recipe.gradient_checkpointing, recipe.seed)
    parameters = count_parameters(model)
    share = parameters["trainable"] / parameters["total"]
    print(f"finetune: {parameters['trainable']:,} of {parameters['total']:,} parameters trained ({share:.2%})")

    check = None
    judged = recipe.keep == "best" or (recipe.early_stopping_patience is not None and plan.examples["validation"])
    if judged and shards_weights():  # spread weights cannot be asked by one process
        print("finetune: warning: epochs are judged by validation loss alone (FSDP), lowest before answers end")
    elif judged:
        limit = answer_limit("auto", DATA / "train.jsonl")
        check = make_answer_check(plan.examples, plan.prompter.tokenizer, limit, plan.prompter.end_token_id)
    trainer = make_trainer(model, plan.prompter.tokenizer, plan.examples, recipe, checkpoints, answer_check=check)
    estimate = None
    if not shards_weights():
        estimate = trial_pass(trainer, plan.examples["train"], recipe)
        print(f"finetune: will take {estimate}")
        check_that_it_fits(estimate, recipe, max(plan.lengths))
    if plan.estimate_only:
        print("finetune: ends here, nothing was trained: train.estimate_only is true (so DVC will miss the outputs)")
        return None

    memory = MemorySampler(recipe.hardware.device)
    trainer.add_callback(memory)
    if tracker := make_tracker(plan.report_to, f"{recipe.preset}-{checkpoints.name[:12]}"):
        trainer.add_callback(tracker)
    resumed = find_resumable(checkpoints)
    if resumed is not None:
        print(f"finetune: a run was cut off; goes on from its step {step_of(resumed)} of {recipe.steps}")
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    check_finite(trainer.model)
    return Trained(
        plan=plan,
        trainer=trainer,
        parameters={**parameters, "trainable_share": share},
        estimate=estimate,
        load_peak_bytes=load_peak,
        memory=memory.rows,
        seconds=time.perf_counter() - started,
        resumed_from_step=step_of(resumed) if resumed else 0,
    )


def write_adapter(trained: Trained) -> None:
    """Write the adapter's folder aside and put it in place whole: no killed run leaves half of one.

    Every process must call it, since weights may be spread over them; the main one writes.
    """
    plan, trainer, tokenizer = trained.plan, trained.trainer, trained.plan.prompter.tokenizer
    weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if not is_main_process():
        return
    with folder_aside(ADAPTER) as folder:
        save_adapter(model, folder, weights)
        tokenizer.chat_template = plan.prompter.template
        tokenizer.save_pretrained(str(folder))
        write_adapter_card(folder, trained.card_facts(), plan.made_from.base, plan.categories, plan.profile.notice)
        write_categories(folder, plan.categories)
        seal(folder, plan.made_from)


def write_metrics(trained: Trained) -> None:
    """Write curves and metrics: those that two runs agree in, and in files of their own those in which they differ."""
    adapter = sha256_file(ADAPTER / WEIGHTS_FILE)
    write_csv(TRAIN_CURVE, train_curve(trained.history), ["step", "train_loss", "learning_rate"])
    curve = validation_curve(trained.history)
    write_csv(VALIDATION_CURVE, curve, list(curve[0]) if curve else ["step", "validation_loss"])
    write_json(METRICS, trained.metrics(adapter))
    write_csv(MEMORY, trained.memory, ["step", "of", "mib"])
    write_json(RUN, trained.run_metrics(adapter))


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that the trainer made and nothing was put into."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def main() -> None:
    if not is_main_process():  # its errors are still shown
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    dvc, alone = find_dvc(), process_count() == 1
    with ExitStack() as locks:
        if is_main_process():
            # Before anything else: a training that outlived a killed DVC still writes to this folder.
            locks.enter_context(hold(WORKSPACE_LOCK, "training in this folder", wait=alone))
        plan = read_plan(DATA)
        checkpoints = checkpoint_root() / plan.fingerprint()
        if is_main_process():
            locks.enter_context(hold(checkpoints, "the same training in another folder", wait=alone))
            locks.callback(remove_if_empty, checkpoints)
            forget_old_trainings(checkpoints)
        with explain_out_of_memory(plan.recipe, max(plan.lengths)):
            trained = train_adapter(plan, checkpoints)
        if trained is None:
            return
        write_adapter(trained)
        if is_main_process():
            write_metrics(trained)
            print(f"{describe_end(trained)} -> {ADAPTER}")
            print(plan.profile.notice)
        trained.trainer.accelerator.end_training()  # leaves the group of processes in order
        if not is_main_process():
            return
        if is_gone(dvc):  # nobody records what was made: the next `dvc repro` begins by deleting it
            print(f"finetune: DVC, which started this, is gone: {checkpoints} stays for the next `dvc repro`")
        else:
            shutil.rmtree(checkpoints)


if __name__ == "__main__":
    run(main)
    # Without the second that the interpreter takes to clear up: a kill in it would find the checkpoints deleted and the
    # training not recorded by DVC.
    os._exit(0)
