"""Asks base and tuned model the same questions and says how much better the tuned one is, and how sure that is.

Reads:  data/formatted, data/splits, data/raw/gold.jsonl, data/reference, models/adapter, the profile's base model,
        metrics/finetune.json (the losses, for the summary)
Writes: metrics/summary.json (what one decides by), metrics/evaluate.json, metrics/plots/scores.csv,
        metrics/plots/scores_by_group.csv, data/predictions/test.jsonl, data/predictions/train.jsonl,
        data/predictions/report.html
Params: seed, evaluate, format, model, the selected profile, hardware

The test questions were never trained on: they say whether tuning helped. Four systems answer them: the base alone, the
base shown a few training examples, the answer of the nearest training question copied, and the adapter. The training
questions are asked again to see whether the model learned what it was taught; their scores are labelled recall and say
nothing about new questions.
"""

if __name__ == "__main__":
    from civilqa.program.lifecycle.interruptions import end_while_importing

    end_while_importing()

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from tqdm import tqdm
from transformers import PreTrainedModel

from civilqa.base_model.formatted import check_tokens, read_formatted
from civilqa.base_model.profiles import read_profile
from civilqa.base_model.prompts import FormatParams, Prompter, load_tokenizer, read_template
from civilqa.dataset.records import Record, read_records
from civilqa.generation.answers import Answer, answer_questions, answer_store
from civilqa.generation.baselines import few_shot_rows, nearest_record
from civilqa.generation.decoding import Decoding
from civilqa.law.verdicts import cited_articles, mark_citations
from civilqa.model.hardware import Hardware, HardwareParams, resolve_hardware, versions
from civilqa.model.loading import context_length, load_base, load_tuned
from civilqa.model.provenance import WEIGHTS_FILE, Adapter, open_adapter
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import write_csv, write_json, write_jsonl, write_text
from civilqa.program.lifecycle.stage import run
from civilqa.program.parameters import BatchSize, Resamples, Section, Seed, Text, Tokens, read_sections
from civilqa.scoring.bert_score import BertScore
from civilqa.scoring.comparison import Resampling, compare_all, group_scores, mean_interval, mean_scores, scores_of
from civilqa.scoring.gold import Gold, read_gold
from civilqa.scoring.llm_judge import Judge, JudgeParams
from civilqa.scoring.report import render_report
from civilqa.scoring.scores import SCORES, score_answer
from civilqa.scoring.similarity import chrf_signature
from civilqa.scoring.summary import read_losses, summarize

FORMATTED = Path("data/formatted")
SPLITS = Path("data/splits")
ADAPTER = Path("models/adapter")
PREDICTIONS = Path("data/predictions")
TRAINING = Path("metrics/finetune.json")
METRICS = Path("metrics/evaluate.json")
SUMMARY_METRICS = Path("metrics/summary.json")
PLOT = Path("metrics/plots/scores.csv")
GROUP_PLOT = Path("metrics/plots/scores_by_group.csv")

ROOM_FOR_ANSWERS = 1.25  # of the longest training answer's tokens
SYSTEMS = {"test": ("base", "few_shot", "nearest", "adapter"), "train": ("base", "adapter")}
# Scores on one scale of 0 to 100 that a plot can show together.
PLOTTED = ("chrf", "rouge_l", "citation_f1", "citation_validity", "key_point_recall", "stop_rate")
GROUPS = {"test": "test", "train": "training recall"}
SUMMARY = ("bits_per_character", "chrf", "rouge_l", "citation_f1", "key_point_recall", "stop_rate", "passed")


class EvaluateParams(Section):
    batch_size: BatchSize
    max_new_tokens: Tokens | Literal["auto"]
    max_train_records: Annotated[int, Field(ge=0)] | None
    few_shot_examples: Annotated[int, Field(ge=0, le=1000)]
    regenerate: bool
    bert_score_model: Text | None
    judge: JudgeParams
    seed: Seed
    bootstrap_resamples: Resamples


# --- Answers ---------------------------------------------------------------------------------------------------------


def answer_rows(
    rows: dict[str, list[dict[str, Any]]],
    prompter: Prompter,
    params: EvaluateParams,
    adapter: Adapter,
    hardware: Hardware,
) -> dict[str, list[Answer]]:
    """Return each system's answers to its rows. The base is loaded once, and only if an answer has to be made.

    Base and few_shot are the same model with other prompts: nothing of the training is in their store's key.
    """
    decoding = Decoding(params.max_new_tokens, params.batch_size, prompter.end_token_id)
    loaded: list[PreTrainedModel] = []

    def base() -> PreTrainedModel:
        if not loaded:
            loaded.append(load_base(adapter.model, adapter.profile, hardware))
        return loaded[0]

    loaders: dict[str, Callable[[], PreTrainedModel]] = {
        "base": base,
        "few_shot": base,
        "adapter": lambda: load_tuned(adapter, hardware, base()),
    }
    identity = {
        "base": adapter.manifest.base,
        "device": hardware.device,
        "precision": hardware.precision,
        "threads": hardware.threads,
        "versions": versions(),
    }
    adapters = {"base": None, "few_shot": None, "adapter": adapter.identity}
    # The adapter comes last: merging it changes the base in place.
    return {
        system: answer_questions(
            rows[system],
            loaders[system],
            {**identity, "adapter": adapters[system]},
            prompter.tokenizer,
            decoding,
            regenerate=params.regenerate,
            description=f"answers: {system}",
        )
        for system in ("base", "few_shot", "adapter")
    }


def read_rows(path: Path, records: list[Record]) -> list[dict[str, Any]]:
    """Return the formatted rows of the records, which must be the first ones of the file, in the same order.

    Raises:
        RecordError: they are not: an answer would be held against the reference of another question.
    """
    rows = list(itertools.islice(read_formatted(path), len(records)))
    if [row["id"] for row in rows] != [record.id for record in records]:
        raise RecordError(
            f"{path}: does not hold the records of {SPLITS / path.name} in their order; run `dvc repro format` (or "
            "python stages/format.py)"
        )
    return rows


def check_that_no_test_question_was_trained_on(test: list[Record], train: list[Record]) -> None:
    """Stop if a question is in both splits: its score would measure memory.

    Raises:
        RecordError: names them.
    """
    if both := sorted({record.id for record in test} & {record.id for record in train}):
        raise RecordError(
            f"{SPLITS}: {len(both)} questions are in train and in test: {', '.join(both[:5])}"
            f"{' ...' if len(both) > 5 else ''}; run `dvc repro split` (or python stages/split.py)"
        )


def answer_limit(asked: int | Literal["auto"]) -> int:
    """Return how many tokens an answer may have, of what `evaluate.max_new_tokens` asks for.

    auto: what the longest answer of the training split has, and a quarter more. A model that does not stop shows by
    then; every further token would take as long as those before and say nothing. The test split has no part in it.
    """
    if asked != "auto":
        return asked
    longest = max(len(row["completion_ids"]) for row in read_formatted(FORMATTED / "train.jsonl"))
    return math.ceil(longest * ROOM_FOR_ANSWERS)


def check_room(rows: list[dict[str, Any]], max_new_tokens: int, context: int) -> None:
    """Stop if an answer could go on beyond what the base was made to read.

    Raises:
        ParameterError: says how many tokens there is room for.
    """
    longest = max((len(row["prompt_ids"]) for row in rows), default=0)
    if longest + max_new_tokens > context:
        raise ParameterError(
            f"params.yaml: evaluate.max_new_tokens: {max_new_tokens} tokens an answer, want at most "
            f"{context - longest}: the base reads {context} tokens, and the longest question has {longest}"
        )


def fit_examples(
    rows: list[dict[str, Any]],
    records: list[Record],
    train: list[Record],
    params: EvaluateParams,
    prompts: FormatParams,
    prompter: Prompter,
    context: int,
) -> list[dict[str, Any]]:
    """Return the test rows with few-shot prompts that leave room for the answer in the model's context."""
    longest_reference = max((len(row["completion_ids"]) for row in rows), default=0)
    return few_shot_rows(
        rows,
        records,
        train,
        prompts,
        prompter,
        count=params.few_shot_examples,
        seed=params.seed,
        room=context - max(params.max_new_tokens, longest_reference),
    )


# --- Predictions -----------------------------------------------------------------------------------------------------


def describe_question(record: Record, gold: Gold | None, notice: str) -> dict[str, Any]:
    """Return what a line of predictions says of the question."""
    return {
        "id": record.id,
        "category": record.category,
        "difficulty": record.difficulty,
        "notice": notice,
        "question": record.question,
        "reference": record.answer,
        "gold": gold.model_dump(exclude={"id", "question", "basis"}) if gold else None,
    }


def describe_answer(
    text: str, record: Record, gold: Gold | None, answer: Answer | None = None, **further: Any
) -> dict[str, Any]:
    """Return an answer with all that is known of it: scores, citations by place, key points, errors, numbers.

    Args:
        answer: what the model generated; None for a copied answer.
        further: what else to note beside the text.
    """
    scored = score_answer(
        text,
        record.question,
        record.answer,
        gold,
        stopped=answer.stopped if answer else None,
        reference_bits=answer.reference_bits if answer else None,
    )
    allowed = cited_articles(record.question)
    if gold:
        allowed |= gold.required | gold.acceptable | cited_articles(record.answer)
    described = {
        "answer": text,
        **({"tokens": answer.tokens, "stopped": answer.stopped} if answer else {}),
        **further,
        "scores": scored.scores,
        "citations": mark_citations(text, allowed),
    }
    if scored.judgement:
        judgement = asdict(scored.judgement)
        for name in ("cited", "citation_precision", "citation_recall", "citation_f1", "key_point_recall", "number_f1"):
            del judgement[name]  # in `scores` and `citations`
        described["judgement"] = judgement
    return described


def make_predictions(
    records: list[Record],
    answers: dict[str, list[Answer]],
    golds: dict[str, Gold],
    notice: str,
    examples: list[int] | None = None,
    train: list[Record] | None = None,
) -> list[dict[str, Any]]:
    """Return one line a question with every system's answer.

    Args:
        examples: how many examples each few-shot prompt holds.
        train: the records to copy the nearest answer from; None: no such system.
    """
    lines = []
    for index, record in enumerate(records):
        gold = golds.get(record.id)
        line = describe_question(record, gold, notice)
        for system, given in answers.items():
            further = {"examples": examples[index]} if system == "few_shot" and examples else {}
            line[system] = describe_answer(given[index].text, record, gold, given[index], **further)
        if train:
            copied, similarity = nearest_record(record.question, train)
            line["nearest"] = describe_answer(copied.answer, record, gold, copied_from=copied.id, similarity=similarity)
        lines.append(line)
    return lines


def add_optional_scores(lines: list[dict[str, Any]], params: EvaluateParams, device: str) -> None:
    """Put the scores of an encoder and of a judge into predictions, where params.yaml asks for them."""
    encoder = BertScore(params.bert_score_model, device) if params.bert_score_model else None
    judge = Judge(params.judge, answer_store()) if params.judge.url else None
    for line in tqdm(lines, desc="encoder and judge", disable=not (encoder or judge)):
        for answer in (line[system] for system in SYSTEMS["test"] if system in line):
            if encoder:
                answer["scores"]["bert_score"] = encoder.score(answer["answer"], line["reference"])
            if judge and line["gold"]:
                key_points = line["gold"]["key_points"]
                answer["scores"] |= judge.score(line["question"], answer["answer"], key_points)


# --- What is written -------------------------------------------------------------------------------------------------


def plot_rows(lines: dict[str, list[dict[str, Any]]], resampling: Resampling, note: str) -> list[dict[str, Any]]:
    """Return one row a part, score and system: the mean in percent with its 95 % interval."""
    rows = []
    for part, names in {"test": PLOTTED, "train": ("chrf", "recalled")}.items():
        for name in names:
            for system in SYSTEMS[part]:
                values = [value * 100 / (SCORES[name].best or 1) for value in scores_of(lines[part], system, name)]
                if values:
                    low, high = mean_interval(values, resampling)
                    percent = sum(values) / len(values)
                    rows.append(
                        {
                            "group": GROUPS[part],
                            "score": name,
                            "series": system + note,
                            "percent": round(percent, 2),
                            "low": round(low, 2),
                            "high": round(high, 2),
                            "n": len(values),
                        }
                    )
    return rows


def group_rows(lines: list[dict[str, Any]], resampling: Resampling, note: str) -> list[dict[str, Any]]:
    """Return one row a group of test questions, score and system; a group is a category or a difficulty."""
    rows = []
    for key in ("category", "difficulty"):
        for group in sorted({line[key] for line in lines}):
            part = [line for line in lines if line[key] == group]
            rows += [
                {**row, "group": f"{group or '(none)'} (n={len(part)})"}
                for row in plot_rows({"test": part, "train": []}, resampling, note)
            ]
    return rows


def print_summary(metrics: dict[str, Any], notice: str) -> None:
    """Print what kind of model the scores are of, the scores side by side, and the verdicts."""
    test, recall = metrics["test"], metrics["train_recall"]
    print(f"\n{notice}\n")
    print(f"test: {test['n']} questions never trained on")
    print(f"  {'':<20} {'base':>9} {'few_shot':>9} {'nearest':>9} {'adapter':>9}   adapter - base [95 % interval]")
    for name in SUMMARY:
        if (difference := metrics["difference"]["base"].get(name)) is None:
            continue
        means = [test[system].get(name) for system in SYSTEMS["test"]]
        columns = " ".join(f"{'-':>9}" if mean is None else f"{mean:>9.3f}" for mean in means)
        interval = f"{difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
        print(f"  {name:<20} {columns}   {interval} {difference['verdict']}")
    print(f"training recall: {recall['n']} training questions asked again")
    for name in ("chrf", "recalled"):
        means = [f"{recall[system].get(name, 0):.3f}" for system in ("base", "adapter")]
        print(f"  {name:<20} base {means[0]}, adapter {means[1]}")
    print(f"report: {PREDICTIONS / 'report.html'}")


def main() -> None:
    params, prompts, hardware_params = read_sections(
        evaluate=EvaluateParams, format=FormatParams, hardware=HardwareParams
    )
    model_params, profile = read_profile()
    hardware = resolve_hardware(hardware_params)
    prompter = Prompter(load_tokenizer(profile), read_template(FORMATTED))
    adapter = open_adapter(ADAPTER, model_params, profile, formatted=FORMATTED)
    golds = read_gold()
    resampling = Resampling(params.bootstrap_resamples, params.seed)

    train = read_records(SPLITS / "train.jsonl")
    records = {"test": read_records(SPLITS / "test.jsonl"), "train": train[: params.max_train_records]}
    rows = {name: read_rows(FORMATTED / f"{name}.jsonl", part) for name, part in records.items()}
    for name, part in rows.items():
        check_tokens(FORMATTED / f"{name}.jsonl", part, prompter)
    check_that_no_test_question_was_trained_on(records["test"], train)
    asked = [*rows["test"], *rows["train"]]
    context = context_length(profile)
    params = params.model_copy(update={"max_new_tokens": answer_limit(params.max_new_tokens)})
    check_room(asked, params.max_new_tokens, context)
    shown = fit_examples(rows["test"], records["test"], train, params, prompts, prompter, context)
    answers = answer_rows({"base": asked, "few_shot": shown, "adapter": asked}, prompter, params, adapter, hardware)
    of_test = {system: given[: len(records["test"])] for system, given in answers.items()}
    of_train = {system: answers[system][len(records["test"]) :] for system in SYSTEMS["train"]}
    lines = {
        "test": make_predictions(
            records["test"], of_test, golds, profile.notice, [row["examples"] for row in shown], train
        ),
        "train": make_predictions(records["train"], of_train, golds, profile.notice),
    }
    add_optional_scores(lines["test"], params, hardware.device)
    for name, part in lines.items():
        write_jsonl(PREDICTIONS / f"{name}.jsonl", part)

    metrics = {
        "notice": profile.metrics_notice,
        "profile": model_params.profile,
        "adapter_sha256": adapter.manifest.files[WEIGHTS_FILE],
        "annotated": {name: sum(line["gold"] is not None for line in part) for name, part in lines.items()},
        "max_new_tokens": params.max_new_tokens,
        "few_shot_examples": min((row["examples"] for row in shown), default=0),
        "test": mean_scores(lines["test"], SYSTEMS["test"]),
        "difference": compare_all(lines["test"], "adapter", ("base", "few_shot", "nearest"), resampling),
        "test_by_category": group_scores(lines["test"], "category", SYSTEMS["test"]),
        "test_by_difficulty": group_scores(lines["test"], "difficulty", SYSTEMS["test"]),
        "train_recall": mean_scores(lines["train"], SYSTEMS["train"]),
        "chrf_signature": chrf_signature(),
        "versions": versions(),
    }
    write_json(METRICS, metrics)
    write_json(SUMMARY_METRICS, summarize(metrics, read_losses(TRAINING, metrics["adapter_sha256"])))
    note = " (무작위 가중치: 점검용)" if profile.weights == "random" else ""
    plot = plot_rows(lines, resampling, note)
    columns = ["group", "score", "series", "percent", "low", "high", "n"]
    write_csv(PLOT, plot, columns)
    by_group = group_rows(lines["test"], resampling, note)
    write_csv(GROUP_PLOT, by_group, columns)
    write_text(PREDICTIONS / "report.html", render_report(lines, metrics, profile.notice))
    print_summary(metrics, profile.notice)


if __name__ == "__main__":
    run(main, alone="evaluate")
