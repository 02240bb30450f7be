"""Trains the same model on the same tokens through ours, `trl sft` and LLaMA-Factory, one after the other.

    python tests/benchmarks/training_peers.py                    the tiny model on the CPU, in fp32
    python tests/benchmarks/training_peers.py --setup gemma      gemma-270m on the CPU: fetched by its fetch.py
    python tests/benchmarks/training_peers.py --setup cuda       llama-1b-random on the first GPU, in bf16

Writes training_peers.json (or training_peers_gemma.json, ..._cuda.json) beside this file. All three get the same base
weights, the same training rows as tokens, LoRA on all linear layers, learning rate and its schedule, batch, steps and
threads; everything else is each program's default (trl's has gradient checkpointing on; another run shows it without,
and on CUDA a last one has trl's default precision, an fp32 base under autocast). The setup gemma also adds what makes
ours fast, one by one, to a run without; there the peers compute in fp32, and trl in bf16 as well. The rows are taken
again from the first until all steps are one epoch: each program then writes one checkpoint, at its end, and none
validates. Ours warms up before its loop, in its trial pass; the time of the whole process holds both. A peer counts
only if it reaches the same loss: the mean of the last tenth of the steps.

LLaMA-Factory gets an environment of its own, made at the first run in the user's cache (several minutes, PyPI);
`--peers trl` leaves it out, and needs neither network nor git where data/formatted is there.
"""

import argparse
import csv
import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from projects import ROOT, Finished, call, copy_data, edit_params, make_project, run_stages, write_report

RESULT = Path(__file__).with_suffix(".json")
REQUIREMENTS = Path(__file__).with_name("llamafactory_requirements.txt")
LLAMAFACTORY = "0.9.5"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "civilqa" / f"llamafactory-{LLAMAFACTORY}"
LORA = {"rank": 32, "alpha": 64, "dropout": 0.0}
SEED = 20260608
SAME_LOSS = 0.05  # relative: the programs draw the adapter's first weights and the rows' order each in its own way


@dataclass(frozen=True)
class Setup:
    """What is trained, and where. `precision` is that of the base's weights as files; `levers` are parameters, added up
    run by run, of what makes ours fast."""

    profile: str
    device: str
    precision: str
    batch_size: int
    learning_rate: float
    base: Path | None = None
    levers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """The precision as trl calls it."""
        return {"fp32": "float32", "bf16": "bfloat16"}[self.precision]


LEVERS = {
    "fp32, padded, peft's LoRA": {"hardware.precision": "fp32", "train.attention": "sdpa", "train.fused_lora": False},
    "+ no padding, loss in chunks": {"train.attention": "varlen"},
    "+ bf16": {"hardware.precision": "bf16"},
    "ours": {"train.fused_lora": True},
}
SETUPS = {
    "cpu": Setup("tiny", "cpu", "fp32", 4, 3e-3),
    "cuda": Setup("llama-1b-random", "cuda", "bf16", 4, 2e-4),
    "gemma": Setup("gemma-270m", "cpu", "fp32", 2, 1e-3, ROOT / "models/gemma-270m/base", LEVERS),
}


def prepare_project(folder: Path, setup: Setup, steps: int, threads: int, base: Path | None) -> int:
    """Make the project, its training tokens and the base's weights as files; returns the number of different rows.

    Args:
        base: the folder of the base's weights and tokenizer; None: they are drawn and saved.
    """
    profile, tuning = f"profiles.{setup.profile}", f"tuning.{setup.profile}"
    make_project(
        folder,
        **{
            "hardware.threads": threads,
            "hardware.device": setup.device,
            "model.profile": setup.profile,
            "train.batch_size": setup.batch_size,
            "train.learning_rate": setup.learning_rate,
            "train.neftune_noise_alpha": None,
            "train.keep": "last",
            f"{tuning}.rank": LORA["rank"],
            f"{tuning}.alpha": LORA["alpha"],
            f"{tuning}.dropout": LORA["dropout"],
            f"{tuning}.modules_to_save": [],
        },
    )
    if setup.base is not None:
        edit_params(folder / "params.yaml", **{f"{profile}.name": str(base)})
    if setup.base is not None or not copy_data(folder):  # a checkout's tokens are those of another tokenizer
        run_stages(folder, ("prepare", "split", "format"), threads)
    rows = repeat_rows(folder / "data/formatted", steps * setup.batch_size)
    if base is None:
        save_base(folder, setup, threads)
    else:
        (folder / "base").symlink_to(base, target_is_directory=True)
    write_tokens(folder)
    edit_params(
        folder / "params.yaml",
        **{
            f"{profile}.name": "base",
            f"{profile}.weights": "pretrained",
            f"{profile}.tokenizer": None,
            "train.epochs": 1,
        },
    )
    return rows


def save_base(folder: Path, setup: Setup, threads: int) -> None:
    """Draw the base's weights and save them with its tokenizer in the project's folder `base`."""
    save = (
        "import sys; sys.path.insert(0, 'stages')\n"
        "from civilqa.model.hardware import Hardware\n"
        "from civilqa.model.loading import load_base\n"
        "from civilqa.base_model.profiles import read_profile\n"
        "from civilqa.base_model.prompts import load_tokenizer\n"
        "model, profile = read_profile()\n"
        f"load_base(model, profile, Hardware('cpu', '{setup.precision}', {threads})).save_pretrained('base')\n"
        "load_tokenizer(profile).save_pretrained('base')\n"
    )
    call([sys.executable, "-c", save], folder, threads)


def repeat_rows(formatted: Path, number: int) -> int:
    """Make the training rows of a formatted dataset so many, taken again from the first; returns how many differ.

    Those of the validation split are among them, which is empty afterwards.
    """
    paths = [formatted / f"{name}.jsonl" for name in ("train", "validation")]
    rows = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    paths[0].write_text("".join(f"{row}\n" for row in islice(cycle(rows), number)), encoding="utf-8")
    paths[1].write_text("", encoding="utf-8")
    return len(rows)


def write_tokens(folder: Path) -> int:
    """Write the training rows as the tokens and labels that our trainer gets; returns how many."""
    (folder / "tokens").mkdir()
    lines = (folder / "data/formatted/train.jsonl").read_text(encoding="utf-8").splitlines()
    with (folder / "tokens/train.jsonl").open("w", encoding="utf-8") as file:
        for row in map(json.loads, lines):
            prompt, completion = row["prompt_ids"], row["completion_ids"]
            tokens = prompt + completion
            labels = [-100] * len(prompt) + completion
            row = {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels}
            file.write(json.dumps(row) + "\n")
    return len(lines)


def run_ours(folder: Path, steps: int, threads: int, params: dict[str, Any]) -> dict[str, Any]:
    """Run the finetune stage with these parameters besides."""
    edit_params(folder / "params.yaml", **params)
    finished = run_stages(folder, ["finetune"], threads)["finetune"]
    with (folder / "metrics/plots/loss_train.csv").open(encoding="utf-8") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    run = json.loads((folder / "metrics/runs/finetune.json").read_text(encoding="utf-8"))
    return summarize(finished, run["train_seconds"], losses, steps)


def run_trl(folder: Path, setup: Setup, steps: int, threads: int, *options: str) -> dict[str, Any]:
    """Run trl's command line."""
    output = folder / "trl"
    cpu = ("--use_cpu", "True") if setup.device == "cpu" else ()
    shutil.rmtree(output, ignore_errors=True)
    finished = call(
        [
            *(sys.executable, "-m", "trl.cli.main", "sft", "--model_name_or_path", "base"),
            *("--dataset_name", "tokens", "--output_dir", str(output), "--report_to", "none"),
            *("--use_peft", "--lora_r", str(LORA["rank"]), "--lora_alpha", str(LORA["alpha"])),
            *("--lora_dropout", str(LORA["dropout"]), "--lora_target_modules", "all-linear"),
            *("--learning_rate", str(setup.learning_rate), "--lr_scheduler_type", "linear"),
            *("--warmup_steps", str(warmup(steps)), "--weight_decay", "0.01", "--seed", str(SEED)),
            *(
                "--per_device_train_batch_size",
                str(setup.batch_size),
                "--max_steps",
                str(steps),
                "--logging_steps",
                "1",
            ),
            *cpu,
            *options,
        ],
        folder,
        threads,
        CUDA_VISIBLE_DEVICES=visible(setup.device),
    )
    losses = read_losses(output / f"checkpoint-{steps}/trainer_state.json")
    return summarize(finished, read_runtime(finished.output), losses, steps)


def run_llamafactory(folder: Path, setup: Setup, steps: int, threads: int) -> dict[str, Any]:
    """Run LLaMA-Factory's command line on the tokens, saved as its cache of a tokenised dataset."""
    output, tokens = folder / "llamafactory", folder / "llamafactory-tokens"
    shutil.rmtree(output, ignore_errors=True)
    if not tokens.exists():
        save = (
            "from datasets import Dataset, DatasetDict\n"
            "rows = Dataset.from_json('tokens/train.jsonl')\n"
            f"DatasetDict({{'train': rows}}).save_to_disk({str(tokens)!r})\n"
        )
        call([str(python_of(CACHE)), "-c", save], folder, threads)
    arguments = {
        **{"stage": "sft", "do_train": True, "model_name_or_path": "base", "template": "empty"},
        **{"dataset": "tokens", "tokenized_path": str(tokens), "output_dir": str(output), "report_to": "none"},
        **{"finetuning_type": "lora", "lora_target": "all", "lora_rank": LORA["rank"], "lora_alpha": LORA["alpha"]},
        **{"lora_dropout": LORA["dropout"], "learning_rate": setup.learning_rate, "lr_scheduler_type": "linear"},
        **{"warmup_steps": warmup(steps), "weight_decay": 0.01, "seed": SEED, "max_steps": steps},
        **{"per_device_train_batch_size": setup.batch_size, "logging_steps": 1},
        **({"use_cpu": True} if setup.device == "cpu" else {"bf16": True}),
    }
    path = folder / "llamafactory.yaml"
    path.write_text(json.dumps(arguments), encoding="utf-8")  # JSON is YAML; 0.9.5 cannot open its own .json
    command = python_of(CACHE).with_name("llamafactory-cli")
    finished = call([str(command), "train", str(path)], folder, threads, CUDA_VISIBLE_DEVICES=visible(setup.device))
    loop = json.loads((output / "train_results.json").read_text(encoding="utf-8"))["train_runtime"]
    losses = read_losses(output / "trainer_state.json")
    return summarize(finished, loop, losses, steps)


def make_environment() -> None:
    """Make LLaMA-Factory's environment if it is not there whole."""
    done = CACHE / "installed"
    if done.exists() and done.read_text(encoding="utf-8") == REQUIREMENTS.read_text(encoding="utf-8"):
        return
    print(f"installing LLaMA-Factory {LLAMAFACTORY} into {CACHE}", flush=True)
    shutil.rmtree(CACHE, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(CACHE)], check=True)
    install = [str(python_of(CACHE)), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--requirement", str(REQUIREMENTS)], check=True)
    subprocess.run([*install, "--no-deps", f"llamafactory=={LLAMAFACTORY}"], check=True)
    # torchaudio's compiled part is made for CUDA and stops the import where there is none; without it the import works.
    for library in CACHE.glob("lib*/python*/site-packages/torchaudio/lib"):
        shutil.rmtree(library)
    done.write_text(REQUIREMENTS.read_text(encoding="utf-8"), encoding="utf-8")


def python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def visible(device: str) -> str:
    """Return the GPUs that a program may see: none, or the first alone."""
    return "" if device == "cpu" else "0"


def warmup(steps: int) -> int:
    return -(-steps // 10)  # as our train.warmup_fraction: 0.1, rounded up


def read_runtime(output: str) -> float:
    """Return the seconds of the training loop, which transformers' trainer prints at its end."""
    found = re.findall(r"'?train_runtime'?\s*[:=]\s*'?([\d.]+)", output)
    if not found:
        raise SystemExit(f"no train_runtime in what was printed:\n{output[-4000:]}")
    return float(found[-1])


def read_losses(path: Path) -> list[float]:
    history = json.loads(path.read_text(encoding="utf-8"))["log_history"]
    return [row["loss"] for row in history if "loss" in row]


def summarize(finished: Finished, loop: float, losses: list[float], steps: int) -> dict[str, Any]:
    """Return a run's figures.

    Raises:
        SystemExit: it did not train as many steps as the others.
    """
    if len(losses) != steps:
        raise SystemExit(f"trained {len(losses)} steps, want {steps}")
    last = losses[-max(1, steps // 10) :]
    return {
        "whole_seconds": finished.seconds,
        "loop_seconds": round(loop, 2),
        "peak_mib": finished.peak_mib if finished.peak_gpu_mib is None else finished.peak_gpu_mib,
        "first_loss": round(losses[0], 4),
        "final_loss": round(statistics.mean(last), 4),
    }


def median_run(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure over the repeats, and each repeat's seconds."""
    middle = {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}
    return middle | {"loops": [run["loop_seconds"] for run in runs], "wholes": [run["whole_seconds"] for run in runs]}


def compare(ours: dict[str, Any], peer: dict[str, Any]) -> dict[str, Any]:
    """Return our seconds divided by a peer's, and whether both reached the same loss."""
    return {
        "loop": round(ours["loop_seconds"] / peer["loop_seconds"], 3),
        "whole": round(ours["whole_seconds"] / peer["whole_seconds"], 3),
        "memory": round(ours["peak_mib"] / peer["peak_mib"], 3),
        "same_loss": abs(ours["final_loss"] - peer["final_loss"]) <= SAME_LOSS * peer["final_loss"],
    }


def print_table(medians: dict[str, dict[str, Any]], ratios: dict[str, dict[str, Any]]) -> None:
    print(f"{'':34}{'loop':>9}{'whole':>9}{'peak':>10}{'loss':>8}   ours/peer: loop  whole")
    for name, run in medians.items():
        ratio = ratios.get(name)
        note = "" if ratio is None else f"{ratio['loop']:>15.2f}{ratio['whole']:>7.2f}"
        note += "" if ratio is None or ratio["same_loss"] else "  does not count: another loss"
        print(
            f"{name:34}{run['loop_seconds']:>7.1f} s{run['whole_seconds']:>7.1f} s{run['peak_mib']:>6.0f} MiB"
            f"{run['final_loss']:>8.3f}   {note}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the same through ours, trl sft and LLaMA-Factory.")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3, help="of each program, in turns; the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--setup", choices=SETUPS, default="cpu")
    parser.add_argument("--peers", choices=("all", "trl", "none"), default="all")
    parser.add_argument("--base", type=Path, help="folder of the base's weights; default: drawn and saved, or fetched")
    parser.add_argument("--output", type=Path, help="default: beside this file")
    arguments = parser.parse_args()
    setup, steps, threads = SETUPS[arguments.setup], arguments.steps, arguments.threads
    output = arguments.output or (
        RESULT if arguments.setup == "cpu" else RESULT.with_stem(f"{RESULT.stem}_{arguments.setup}")
    )
    base = arguments.base.resolve() if arguments.base else setup.base
    with_factory = arguments.peers == "all"
    if with_factory:
        make_environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        rows = prepare_project(folder, setup, steps, threads, base)
        programs = {
            lever: functools.partial(run_ours, folder, steps, threads, params)
            for lever, params in (setup.levers or {"ours": {}}).items()
        }
        if arguments.peers != "none":
            trl = functools.partial(run_trl, folder, setup, steps, threads)
            dtype = ("--dtype", setup.dtype, *(("--bf16", "False") if setup.device == "cpu" else ()))
            programs["trl sft, no checkpointing"] = functools.partial(trl, *dtype, "--gradient_checkpointing", "False")
            if setup.levers:
                half = ("--dtype", "bfloat16", "--bf16", "True", "--gradient_checkpointing", "False")
                programs["trl sft, no checkpointing, bf16"] = functools.partial(trl, *half)
            programs["trl sft, its defaults"] = trl if setup.device == "cuda" else functools.partial(trl, *dtype)
        if with_factory:
            factory = functools.partial(run_llamafactory, folder, setup, steps, threads)
            programs[f"LLaMA-Factory {LLAMAFACTORY}"] = factory
        runs: dict[str, list[dict[str, Any]]] = {program: [] for program in programs}
        for repeat in range(arguments.repeats):
            for program, run in programs.items():
                runs[program].append(run())
                print(f"{repeat + 1}/{arguments.repeats} {program}: {runs[program][-1]}", flush=True)
                # After each: whoever has to stop here keeps what was measured.
                medians = {name: median_run(found) for name, found in runs.items() if found}
                ratios = {
                    name: compare(medians["ours"], run)
                    for name, run in medians.items()
                    if name != "ours" and "ours" in medians
                }
                write_report(
                    output,
                    {
                        **{"device": setup.device, "profile": setup.profile, "steps": steps},
                        **{"batch_size": setup.batch_size, "learning_rate": setup.learning_rate},
                        **{"rows": rows, "threads": threads},
                        **{"lora": LORA, "repeats": arguments.repeats},
                        **({"peers_versions": peers_versions()} if with_factory else {}),
                        **{"runs": medians, "ours_divided_by": ratios},
                    },
                )
    print_table(medians, ratios)


def peers_versions() -> dict[str, str]:
    """Return what LLaMA-Factory computes with; trl's command line has the project's own versions."""
    names = ("llamafactory", "torch", "transformers", "trl", "peft", "accelerate")
    code = f"from importlib.metadata import version; import json; print(json.dumps({{n: version(n) for n in {names}}}))"
    found = subprocess.run([str(python_of(CACHE)), "-c", code], check=True, capture_output=True, text=True)
    return json.loads(found.stdout)


if __name__ == "__main__":
    main()
