"""Asks base and tuned model for titles of statutes, by likelihood: has tuning made it forget? python stages/probe.py

Reads:  data/reference, models/adapter, the profile's base model
Writes: metrics/probe.json; data, task and the harness's own results in .probe/
Params: probe, model, the selected profile, hardware

No stage: it needs lm-evaluation-harness, which lives in an environment of its own:
    python3 -m venv .venv-probe && .venv-probe/bin/pip install -r stages/probe_requirements.txt
The harness runs as a process of its own, offline, on local files alone.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="probe.items")

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from transformers import PreTrainedModel

from civilqa.base_model.hub import locate_weights
from civilqa.base_model.profiles import Profile, read_profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.experiments.statute_quiz import OPTIONS, TASK, Item, make_items, task_yaml
from civilqa.law.statutes import load_reference
from civilqa.model.hardware import Hardware, HardwareParams, resolve_hardware
from civilqa.model.loading import load_base, load_tuned
from civilqa.model.processes import ADAPTER
from civilqa.model.provenance import WEIGHTS_FILE, Adapter, open_adapter
from civilqa.program.errors import ModelError, PipelineError
from civilqa.program.files import write_json, write_jsonl, write_text
from civilqa.program.parameters import BatchSize, Section, Seed, Text, read_sections
from civilqa.scoring.comparison import mean_interval

WORK = Path(".probe")
METRICS = Path("metrics/probe.json")
REQUIREMENTS = Path("stages/probe_requirements.txt")
SYSTEMS = ("base", "adapter")
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class ProbeParams(Section):
    python: Text
    items: Annotated[int, Field(ge=4, le=100_000)]
    batch_size: BatchSize
    seed: Seed


def find_harness(python: str) -> str:
    """Return the version of lm-evaluation-harness that a Python has; without, say how to make it."""
    how = f"make it: python3 -m venv .venv-probe && .venv-probe/bin/pip install -r {REQUIREMENTS}"
    if shutil.which(python) is None:
        raise PipelineError(f"params.yaml: probe.python: found {python!r}, which is no program here; {how}")
    asked = "from importlib.metadata import version; print(version('lm_eval'))"
    finished = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    if finished.returncode:
        raise PipelineError(f"params.yaml: probe.python: {python} has no lm_eval; {how}")
    return finished.stdout.strip()


def place_models(adapter: Adapter, hardware: Hardware) -> dict[str, Path]:
    """Return the folders of base and tuned model, written where they are not on the disk as such."""
    quantization = adapter.manifest.quantization
    if quantization != "none":  # which cannot be merged into one folder
        raise ModelError(
            f"{ADAPTER}: was trained on a base in {quantization}, which the probe cannot hand to the harness; train "
            "one with a preset whose quantization is none"
        )
    folders = {system: WORK / "models" / system for system in SYSTEMS}
    profile = adapter.profile
    base = load_base(adapter.model, profile, hardware)
    if profile.weights == "random":
        save(base, profile, folders["base"])
    else:
        folders["base"] = locate_weights(profile.name, profile.revision)
    save(load_tuned(adapter, hardware, base), profile, folders["adapter"])
    return folders


def save(model: PreTrainedModel, profile: Profile, folder: Path) -> None:
    """Write a model with its tokenizer."""
    model.save_pretrained(str(folder))
    load_tokenizer(profile).save_pretrained(str(folder))


def ask_harness(folder: Path, name: str, params: ProbeParams, hardware: Hardware, tokenizer: Path) -> list[float]:
    """Return for each item, in order, whether the model's most likely option is the right one (acc)."""
    results = WORK / "results" / name
    shutil.rmtree(results, ignore_errors=True)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str((WORK / "cache").resolve())}
    model = f"pretrained={folder.resolve()},tokenizer={tokenizer.resolve()},dtype={DTYPES[hardware.precision]}"
    # Not resolved: the Python of a virtual environment is a link to another, by which it would leave the environment.
    command = [str(Path(params.python).absolute()) if Path(params.python).exists() else params.python]
    command += ["-m", "lm_eval", "run", "--model", "hf", "--model_args", model, "--tasks", TASK]
    command += ["--include_path", ".", "--output_path", str(results.resolve()), "--log_samples"]
    command += ["--device", hardware.device, "--batch_size", str(params.batch_size)]
    environment = os.environ | offline | {"OMP_NUM_THREADS": str(hardware.threads), "PYTHONUTF8": "1"}
    finished = subprocess.run(command, cwd=WORK, env=environment, capture_output=True, encoding="utf-8", check=False)
    if finished.returncode:
        last = "\n".join(finished.stderr.strip().splitlines()[-15:])
        raise PipelineError(f"lm_eval ended with {finished.returncode} on the {name}:\n{last}")
    (samples,) = results.rglob(f"samples_{TASK}_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    return [float(row["acc"]) for row in sorted(rows, key=lambda row: row["doc_id"])]


def summarize(items: list[Item], right: dict[str, list[float]]) -> dict[str, Any]:
    """Return accuracies, their difference with its 95 % interval (paired over items), and a verdict.

    Nothing can be forgotten that a base never knew: where its accuracy cannot be told from chance, that is the verdict.
    """
    differences = [tuned - base for base, tuned in zip(right["base"], right["adapter"], strict=True)]
    low, high = mean_interval(differences)
    verdict = "forgotten" if high < 0 else "learned" if low > 0 else "no difference seen"
    if mean_interval(right["base"], best=1)[0] <= 1 / OPTIONS and verdict != "learned":
        verdict = "cannot tell: the base answers at chance"
    by_kind: dict[str, dict[str, float]] = {}
    for kind in sorted({item.kind for item in items}):
        asked = [item.kind == kind for item in items]
        by_kind[kind] = {system: float(np.mean(np.asarray(right[system])[asked])) for system in SYSTEMS}
    return {
        "n": len(items),
        "chance": 1 / OPTIONS,
        **{system: {"accuracy": float(np.mean(right[system]))} for system in SYSTEMS},
        "difference": {"mean": float(np.mean(differences)), "low": low, "high": high, "verdict": verdict},
        "by_kind": by_kind,
    }


def main() -> None:
    params, hardware_params = read_sections(probe=ProbeParams, hardware=HardwareParams)
    model_params, profile = read_profile()
    version = find_harness(params.python)
    hardware = resolve_hardware(hardware_params, profile)
    adapter = open_adapter(ADAPTER, model_params, profile)
    reference = load_reference()
    items = make_items(reference, params.items, params.seed)
    write_jsonl(WORK / "items.jsonl", (item._asdict() for item in items))
    write_text(WORK / f"{TASK}.yaml", task_yaml((WORK / "items.jsonl").resolve()))
    folders = place_models(adapter, hardware)
    right = {}
    for system in SYSTEMS:
        print(f"lm_eval {version}: {len(items)} questions to the {system}")
        right[system] = ask_harness(folders[system], system, params, hardware, folders["adapter"])
    summary = summarize(items, right)
    origin = {"adapter_sha256": adapter.manifest.files[WEIGHTS_FILE], "as_of": reference.as_of, "lm_eval": version}
    write_json(METRICS, {"notice": profile.metrics_notice, "profile": model_params.profile, **origin, **summary})
    difference = summary["difference"]
    print(
        f"\n{profile.notice}\n\nstatute titles, {summary['n']} questions with {OPTIONS} options (chance "
        f"{summary['chance']:.2f}): base {summary['base']['accuracy']:.3f}, adapter "
        f"{summary['adapter']['accuracy']:.3f}, difference {difference['mean']:+.3f} "
        f"[{difference['low']:+.3f}, {difference['high']:+.3f}]: {difference['verdict']} -> {METRICS}"
    )


if __name__ == "__main__":
    run(main, lock="probe")
