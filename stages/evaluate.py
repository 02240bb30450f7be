"""Asks base and adapter the same questions and says how much better the adapter is, and how sure that is.

Reads:  data/formatted/test.jsonl, data/formatted/train.jsonl, models/adapter, the profile's base model
Writes: metrics/evaluate.json, metrics/plots/scores.csv,
        data/predictions/test.jsonl, data/predictions/train.jsonl
Params: evaluate, model, the selected profile, hardware

The test questions were never trained on: they say whether tuning helped. The training questions are asked again to see
whether the model learned what it was taught; their scores are labelled recall and say nothing about new questions.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from scipy.stats import bootstrap
from transformers import PreTrainedModel

from civilqa.answers import Answer, Decoding, answer_questions
from civilqa.files import read_jsonl, write_csv, write_json, write_jsonl
from civilqa.hardware import Hardware, HardwareParams, resolve_hardware, versions
from civilqa.models import adapter_identity, base_identity, load_base, load_tuned
from civilqa.parameters import Section, read_sections
from civilqa.profiles import ModelParams, Profile, read_profile
from civilqa.prompts import Prompter, load_tokenizer, read_template
from civilqa.scores import TEXT_SCORES, chrf_signature
from civilqa.stage import run

DATA = Path("data/formatted")
ADAPTER = Path("models/adapter")
PREDICTIONS = Path("data/predictions")
METRICS = Path("metrics/evaluate.json")
PLOT = Path("metrics/plots/scores.csv")

SYSTEMS = ("base", "adapter")
RECALLED_CHRF = 90.0  # from here on an answer is the training answer almost word for word

# Which way is better, for the verdict on a difference.
HIGHER_IS_BETTER = {
    "bits_per_character": False,
    "chrf": True,
    "rouge_l": True,
    "citation_f1": True,
    "stop_rate": True,
    "recalled": True,
}


class EvaluateParams(Section):
    batch_size: Annotated[int, Field(ge=1)]
    max_new_tokens: Annotated[int, Field(ge=1)]
    max_train_records: Annotated[int, Field(ge=0)] | None
    regenerate: bool
    seed: Annotated[int, Field(ge=0)]
    bootstrap_resamples: Annotated[int, Field(ge=100)]


def reference_text(row: dict[str, Any], prompter: Prompter) -> str:
    """Return the dataset's answer of a formatted row, as the model is trained to write it."""
    return prompter.tokenizer.decode(row["completion_ids"], skip_special_tokens=True).strip()


def score_answer(answer: Answer, reference: str) -> dict[str, float | None]:
    """Return every score of one answer; None where a score does not apply."""
    scores: dict[str, float | None] = {name: score(answer.text, reference) for name, score in TEXT_SCORES.items()}
    return {
        **scores,
        "bits_per_character": answer.reference_bits / len(reference),
        "stop_rate": float(answer.stopped),
        "recalled": float(scores["chrf"] >= RECALLED_CHRF),
    }


def make_predictions(
    rows: list[dict[str, Any]], answers: dict[str, list[Answer]], references: list[str], notice: str
) -> list[dict[str, Any]]:
    """Return one line a question: what kind of model answered, the reference, each system's answer and its scores."""
    lines = []
    for index, (row, reference) in enumerate(zip(rows, references, strict=True)):
        line = {
            "id": row["id"],
            "category": row["category"],
            "difficulty": row["difficulty"],
            "notice": notice,
            "question": question_text(row),
            "reference": reference,
        }
        for system in SYSTEMS:
            answer = answers[system][index]
            line[system] = {
                "answer": answer.text,
                "tokens": answer.tokens,
                "stopped": answer.stopped,
                "scores": score_answer(answer, reference),
            }
        lines.append(line)
    return lines


def question_text(row: dict[str, Any]) -> str:
    """Return the question of a formatted row; of the instruction style, the whole prompt."""
    if "messages" in row:
        return next(message["content"] for message in row["messages"] if message["role"] == "user")
    return row["prompt"]


def mean_scores(lines: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return the number of questions and each system's mean of each score; scores that apply to none are left out."""
    means: dict[str, Any] = {"n": len(lines)}
    for system in SYSTEMS:
        means[system] = {}
        for name in names:
            values = [line[system]["scores"][name] for line in lines if line[system]["scores"][name] is not None]
            if values:
                means[system][name] = float(np.mean(values))
    return means


def group_scores(lines: list[dict[str, Any]], key: str, names: list[str]) -> dict[str, Any]:
    """Return the mean scores of each category or difficulty."""
    groups = sorted({line[key] for line in lines})
    return {group or "(none)": mean_scores([line for line in lines if line[key] == group], names) for group in groups}


def compare(lines: list[dict[str, Any]], name: str, params: EvaluateParams) -> dict[str, Any] | None:
    """Return the mean of adapter minus base on a score, its 95 % interval and a verdict; None without questions.

    A paired bootstrap over questions, percentile interval. With a dozen questions it is wide, and an interval that
    holds 0 means that these questions do not decide the matter.

    Source: Efron and Tibshirani 1993, An introduction to the bootstrap, chapter 13.
    """
    pairs = [(line["adapter"]["scores"][name], line["base"]["scores"][name]) for line in lines]
    differences = np.array([adapter - base for adapter, base in pairs if adapter is not None and base is not None])
    if len(differences) == 0:
        return None
    mean = float(differences.mean())
    low = high = mean
    # The bootstrap of a constant or of one value is that value; scipy warns and returns nan.
    if len(differences) > 1 and np.ptp(differences) > 0:
        interval = bootstrap(
            (differences,),
            np.mean,
            n_resamples=params.bootstrap_resamples,
            method="percentile",
            rng=np.random.default_rng(params.seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return {"n": len(differences), "mean": mean, "low": low, "high": high, "verdict": verdict(name, low, high)}


def verdict(name: str, low: float, high: float) -> str:
    """Return in one phrase what a 95 % interval of adapter minus base says."""
    if low <= 0 <= high:
        return "no significant difference at this n"
    return "adapter better" if (low > 0) == HIGHER_IS_BETTER[name] else "adapter worse"


def answer_rows(
    rows: list[dict[str, Any]],
    prompter: Prompter,
    params: EvaluateParams,
    model_params: ModelParams,
    profile: Profile,
    hardware: Hardware,
) -> dict[str, list[Answer]]:
    """Return each system's answers to the rows. The base is loaded once, and only if an answer has to be made."""
    decoding = Decoding(params.max_new_tokens, params.batch_size, prompter.end_token_id)
    loaded: list[PreTrainedModel] = []

    def base() -> PreTrainedModel:
        if not loaded:
            loaded.append(load_base(model_params, profile, hardware))
        return loaded[0]

    loaders: dict[str, Callable[[], PreTrainedModel]] = {
        "base": base,
        "adapter": lambda: load_tuned(model_params, profile, hardware, ADAPTER, base()),
    }
    identity = {
        "base": base_identity(model_params, profile),
        "device": hardware.device,
        "precision": hardware.precision,
        "threads": hardware.threads,
        "versions": versions(),
    }
    adapters = {"base": None, "adapter": adapter_identity(ADAPTER)}
    return {
        system: answer_questions(
            rows,
            loaders[system],
            {**identity, "adapter": adapters[system]},
            prompter.tokenizer,
            decoding,
            regenerate=params.regenerate,
            description=f"answers of the {system}",
        )
        for system in SYSTEMS
    }


def write_plot(test: dict[str, Any], recall: dict[str, Any], random_base: bool) -> None:
    """Write the scores that share a scale of 0 to 100, one row a score and system."""
    note = " (무작위 가중치: 점검용)" if random_base else ""
    shown = [("test", test, name) for name in ("chrf", "rouge_l", "citation_f1", "stop_rate")]
    shown += [("train", recall, name) for name in ("chrf", "recalled")]
    rows = []
    for label, part, name in shown:
        for system in SYSTEMS:
            if name in part[system]:
                percent = part[system][name] * (1 if name == "chrf" else 100)
                rows.append({"score": f"{label} {name}", "series": system + note, "percent": round(percent, 2)})
    write_csv(PLOT, rows, ["score", "series", "percent"])


def print_summary(metrics: dict[str, Any], notice: str) -> None:
    """Print what kind of model the scores are of, the scores side by side, and the verdicts."""
    test, recall = metrics["test"], metrics["train_recall"]
    print(f"\n{notice}\n")
    print(f"test: {test['n']} questions never trained on{'':14}base    adapter   difference [95 % interval]")
    for name, difference in metrics["difference"].items():
        base, adapter = (test[system][name] for system in SYSTEMS)
        print(
            f"  {name:<38} {base:>8.3f} {adapter:>10.3f} {difference['mean']:>+12.3f} "
            f"[{difference['low']:+.3f}, {difference['high']:+.3f}] {difference['verdict']}"
        )
    print(f"training recall: {recall['n']} training questions asked again")
    for name in ("chrf", "recalled"):
        print(f"  {name:<38} {recall['base'].get(name, 0):>8.3f} {recall['adapter'].get(name, 0):>10.3f}")


def main() -> None:
    params, hardware_params = read_sections(evaluate=EvaluateParams, hardware=HardwareParams)
    model_params, profile = read_profile()
    hardware = resolve_hardware(hardware_params)
    prompter = Prompter(load_tokenizer(profile), read_template(DATA))

    parts = {
        "test": list(read_jsonl(DATA / "test.jsonl")),
        "train": list(read_jsonl(DATA / "train.jsonl"))[: params.max_train_records],
    }
    rows = [row for part in parts.values() for row in part]
    answers = answer_rows(rows, prompter, params, model_params, profile, hardware)
    lines = make_predictions(rows, answers, [reference_text(row, prompter) for row in rows], profile.notice)
    predictions = {"test": lines[: len(parts["test"])], "train": lines[len(parts["test"]) :]}
    for name, part in predictions.items():
        write_jsonl(PREDICTIONS / f"{name}.jsonl", part)

    names = ["bits_per_character", "chrf", "rouge_l", "citation_f1", "stop_rate"]
    test = mean_scores(predictions["test"], names)
    recall = mean_scores(predictions["train"], [*names, "recalled"])
    compared = {name: compare(predictions["test"], name, params) for name in names}
    metrics = {
        "notice": profile.metrics_notice,
        "profile": model_params.profile,
        "test": test,
        "difference": {name: difference for name, difference in compared.items() if difference is not None},
        "test_by_category": group_scores(predictions["test"], "category", names),
        "test_by_difficulty": group_scores(predictions["test"], "difficulty", names),
        "train_recall": recall,
        "chrf_signature": chrf_signature(),
        "versions": versions(),
    }
    write_json(METRICS, metrics)
    write_plot(test, recall, profile.weights == "random")
    print_summary(metrics, profile.notice)


if __name__ == "__main__":
    run(main)
