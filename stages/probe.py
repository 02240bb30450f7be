"""Asks base and tuned model for titles of statutes and for general knowledge: has tuning made it forget?

Reads:  data/reference, data/raw/general_knowledge.jsonl, models/adapter, the profile's base model
Writes: metrics/probe.json; data, tasks and the harness's own results in .probe/
Params: probe, model, the selected profile, hardware

No stage: it needs lm-evaluation-harness, which lives in an environment of its own:
    python3 -m venv .venv-probe && .venv-probe/bin/pip install -r stages/probe_requirements.txt
The harness runs as a process of its own, offline, on local files alone.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="probe.items")

import os
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy import stats
from transformers import PreTrainedModel

from civilqa.base_model.hub import locate_weights
from civilqa.base_model.profiles import Profile, read_profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.experiments.statute_quiz import (
    DECIDES,
    GENERAL,
    MEASURES,
    OPTIONS,
    STATUTES,
    Item,
    make_items,
    read_items,
    task_yaml,
)
from civilqa.law.statutes import load_reference
from civilqa.model.hardware import Hardware, HardwareParams, resolve_hardware
from civilqa.model.loading import load_base, load_tuned
from civilqa.model.processes import ADAPTER
from civilqa.model.provenance import WEIGHTS_FILE, Adapter, open_adapter
from civilqa.program.errors import ModelError, PipelineError
from civilqa.program.files import read_jsonl, write_json, write_jsonl, write_text
from civilqa.program.parameters import BatchSize, Section, Seed, Text, read_sections
from civilqa.scoring.comparison import LEVEL, UNDECIDED, holm, mean_interval

WORK = Path(".probe")
METRICS = Path("metrics/probe.json")
REQUIREMENTS = Path("stages/probe_requirements.txt")
SYSTEMS = ("base", "adapter")
FORGOTTEN, LEARNED, AT_CHANCE = "forgotten", "learned", "cannot tell: the base answers at chance"
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


def ask_harness(
    folder: Path, name: str, params: ProbeParams, hardware: Hardware, tokenizer: Path
) -> dict[str, dict[str, list[float]]]:
    """Return by task and measure, of each item in order, 1 if the option that the model prefers is the right one."""
    results = WORK / "results" / name
    shutil.rmtree(results, ignore_errors=True)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str((WORK / "cache").resolve())}
    model = f"pretrained={folder.resolve()},tokenizer={tokenizer.resolve()},dtype={DTYPES[hardware.precision]}"
    # Not resolved: the Python of a virtual environment is a link to another, by which it would leave the environment.
    command = [str(Path(params.python).absolute()) if Path(params.python).exists() else params.python]
    command += ["-m", "lm_eval", "run", "--model", "hf", "--model_args", model, "--tasks", f"{STATUTES},{GENERAL}"]
    command += ["--include_path", ".", "--output_path", str(results.resolve()), "--log_samples"]
    command += ["--device", hardware.device, "--batch_size", str(params.batch_size)]
    environment = os.environ | offline | {"OMP_NUM_THREADS": str(hardware.threads), "PYTHONUTF8": "1"}
    finished = subprocess.run(command, cwd=WORK, env=environment, capture_output=True, encoding="utf-8", check=False)
    if finished.returncode:
        last = "\n".join(finished.stderr.strip().splitlines()[-15:])
        raise PipelineError(f"lm_eval ended with {finished.returncode} on the {name}:\n{last}")
    right = {}
    for task in (STATUTES, GENERAL):
        (samples,) = results.rglob(f"samples_{task}_*.jsonl")
        rows = sorted(read_jsonl(samples), key=lambda row: row["doc_id"])
        right[task] = {measure: [float(row[measure]) for row in rows] for measure in MEASURES}
    return right


def summarize(items: list[Item], right: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """Return what base and adapter know of a set of items, and how the adapter differs (paired by item).

    Nothing can be forgotten that a base never knew: `above_chance_p` is that of the exact binomial test against
    guessing, of the base in all items and in each kind. Forgotten or learned is judged by McNemar's exact test, on how
    many items were `lost` and `gained`.

    Args:
        right: by system and measure, of each item 1 or 0.

    Source: McNemar 1947, Note on the sampling error of the difference between correlated proportions.
    """
    base, tuned = (np.asarray(right[system][DECIDES]) for system in SYSTEMS)
    lost, gained = int(np.sum(base > tuned)), int(np.sum(tuned > base))
    low, high = mean_interval(list(tuned - base))
    kinds = np.array([item.kind for item in items])
    return {
        "n": len(items),
        "chance": 1 / OPTIONS,
        **{system: {name: float(np.mean(right[system][name])) for name in MEASURES} for system in SYSTEMS},
        "above_chance_p": above_chance(base),
        "difference": {
            "mean": float(np.mean(tuned - base)),
            "low": low,
            "high": high,
            "lost": lost,
            "gained": gained,
            "p": stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0,
        },
        "by_kind": {
            kind: {
                "n": int(np.sum(kinds == kind)),
                "base": float(np.mean(base[kinds == kind])),
                "adapter": float(np.mean(tuned[kinds == kind])),
                "above_chance_p": above_chance(base[kinds == kind]),
            }
            for kind in sorted(set(kinds.tolist()))
        },
    }


def above_chance(right: np.ndarray) -> float:
    """Return the exact p-value of so many right answers or more, had they been guessed."""
    return float(stats.binomtest(int(right.sum()), len(right), 1 / OPTIONS, alternative="greater").pvalue)


def add_verdicts(sets: dict[str, dict[str, Any]]) -> None:
    """Give the difference in each set of items a verdict, and a p-value (`p_holm`) that allows for their number."""
    adjusted = holm({name: found["difference"]["p"] for name, found in sets.items()})
    for name, found in sets.items():
        difference, p = found["difference"], adjusted[name]
        verdict = UNDECIDED if p >= LEVEL else FORGOTTEN if difference["mean"] < 0 else LEARNED
        if found["above_chance_p"] >= LEVEL and verdict != LEARNED:
            verdict = AT_CHANCE
        difference.update(p_holm=p, verdict=verdict)


def main() -> None:
    params, hardware_params = read_sections(probe=ProbeParams, hardware=HardwareParams)
    model_params, profile = read_profile()
    version = find_harness(params.python)
    hardware = resolve_hardware(hardware_params, profile)
    adapter = open_adapter(ADAPTER, model_params, profile)
    reference = load_reference()
    items = {STATUTES: make_items(reference, params.items, params.seed), GENERAL: read_items(params.seed)}
    for task, asked in items.items():
        write_jsonl(WORK / f"{task}.jsonl", (item._asdict() for item in asked))
        write_text(WORK / f"{task}.yaml", task_yaml(task, (WORK / f"{task}.jsonl").resolve()))
    folders = place_models(adapter, hardware)
    right = {}
    for system in SYSTEMS:
        print(f"lm_eval {version}: {', '.join(f'{len(items[task])} {task}' for task in items)} to the {system}")
        right[system] = ask_harness(folders[system], system, params, hardware, folders["adapter"])
    sets = {task: summarize(items[task], {system: right[system][task] for system in SYSTEMS}) for task in items}
    add_verdicts(sets)
    origin = {"adapter_sha256": adapter.manifest.files[WEIGHTS_FILE], "as_of": reference.as_of, "lm_eval": version}
    write_json(METRICS, {"notice": profile.metrics_notice, "profile": model_params.profile, **origin, **sets})
    print(f"\n{profile.notice}\n")
    print_sets(sets)
    print(f"-> {METRICS}")


def print_sets(sets: dict[str, dict[str, Any]]) -> None:
    """Print what base and adapter know of each set, by the measure that decides, and what can be said of the two."""
    for task, found in sets.items():
        difference, base, adapter = (found[name] for name in ("difference", "base", "adapter"))
        print(
            f"{task}, {found['n']} questions with {OPTIONS} options (chance {found['chance']:.2f}), {DECIDES}: "
            f"base {base[DECIDES]:.3f} (above chance: p = {found['above_chance_p']:.2g}), adapter "
            f"{adapter[DECIDES]:.3f}, difference {difference['mean']:+.3f} [{difference['low']:+.3f}, "
            f"{difference['high']:+.3f}], {difference['lost']} lost and {difference['gained']} gained, "
            f"p = {difference['p_holm']:.2g}: {difference['verdict']}"
        )
        others = (name for name in MEASURES if name != DECIDES)
        print("  " + "; ".join(f"{name}: base {base[name]:.3f}, adapter {adapter[name]:.3f}" for name in others))


if __name__ == "__main__":
    run(main, lock="probe")
