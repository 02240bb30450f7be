"""Asks base and tuned model the same questions and says how much better the tuned one is, and how sure that is.

Reads:  data/formatted, data/splits, data/raw (gold, contrasts, further cases, labelled answers), data/reference,
        models/adapter, the profile's base model, metrics/finetune.json (the losses), metrics/scorer.json (how far
        scores can be trusted), the statutes (retrieved_articles, and the texts in the report)
Writes: metrics/summary.json (what one decides by), metrics/evaluate.json, metrics/plots/{scores,scores_by_group,bits,
        differences}.csv, data/predictions/test.jsonl, data/predictions/train.jsonl, data/predictions/contrasts.jsonl,
        data/predictions/report.html
Params: seed, evaluate, format, model, the selected profile, hardware, reference

The test questions were never trained on: they say whether tuning helped. Four systems answer them: the base alone, the
base shown a few training examples, the answer of the nearest training question copied, and the adapter. Further ones
where they are asked for: the base shown the nearest training questions with their answers (`retrieved_examples`), and
base and adapter shown the articles of the statutes that are found for the question (`retrieved_articles`). The training
questions are asked again to see whether the model learned what it was taught; their scores are labelled recall and say
nothing about new questions.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="evaluate.batch_size")

from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from civilqa.base_model.hub import context_length
from civilqa.base_model.profiles import read_profile
from civilqa.base_model.prompts import (
    FormatParams,
    Prompter,
    check_tokens,
    load_tokenizer,
    read_formatted,
    read_template,
)
from civilqa.dataset.groups import describe_test, name_groups, near_duplicates_in
from civilqa.dataset.records import Record, question_id, read_records
from civilqa.generation.answers import answer_limit, answer_store, ask_systems, check_room, choose_batch_size
from civilqa.generation.baselines import fewest_examples, further_prompts, nearest_records
from civilqa.generation.decoding import Decoding
from civilqa.law.versions import find_statutes
from civilqa.model.evaluation import EVALUATION, REPORT, TRAINING, describe_verdict
from civilqa.model.hardware import HardwareParams, resolve_hardware, versions
from civilqa.model.processes import ADAPTER
from civilqa.model.provenance import WEIGHTS_FILE, open_adapter
from civilqa.program.errors import RecordError
from civilqa.program.files import read_json, read_jsonl, sha256_json, write_json, write_jsonl, write_text
from civilqa.program.parameters import ArticleCount, BatchSize, Resamples, Section, Seed, Text, Tokens, read_sections
from civilqa.scoring.article_recall import add_articles
from civilqa.scoring.bert_score import BertScore, add_bert_scores
from civilqa.scoring.comparison import Permutations, compare_systems
from civilqa.scoring.contrasts import compare_contrasts, find_pairs, read_contrasts
from civilqa.scoring.gold import read_gold
from civilqa.scoring.llm_judge import Judge, JudgeParams, add_judge_marks
from civilqa.scoring.plots import write_plots
from civilqa.scoring.predictions import SYSTEMS, make_predictions
from civilqa.scoring.report import render_report
from civilqa.scoring.similarity import chrf_signature
from civilqa.scoring.summary import print_summary, summarize

FORMATTED = Path("data/formatted")
SPLITS = Path("data/splits")
PREDICTIONS = Path("data/predictions")
SUMMARY_METRICS = Path("metrics/summary.json")


class EvaluateParams(Section):
    batch_size: BatchSize | Literal["auto"]
    max_new_tokens: Tokens | Literal["auto"]
    max_train_records: Annotated[int, Field(ge=0)] | None
    further_cases: bool
    few_shot_examples: Annotated[int, Field(ge=0, le=1000)]
    retrieved_examples: Annotated[int, Field(ge=0, le=1000)]
    retrieved_articles: ArticleCount
    regenerate: bool
    bert_score_model: Text | None
    judge: JudgeParams
    seed: Seed
    permutations: Resamples


def read_rows(path: Path, records: list[Record]) -> list[dict[str, Any]]:
    """Return the formatted rows of the records, which must be the first ones of the file, in the same order.

    Otherwise an answer would be held against the reference of another question.
    """
    rows = list(islice(read_formatted(path), len(records)))
    if [row["id"] for row in rows] != [record.id for record in records]:
        how = "run `dvc repro format` (or python stages/format.py)"
        raise RecordError(f"{path}: does not hold the records of {SPLITS / path.name} in their order; {how}")
    return rows


def check_that_no_test_question_was_trained_on(test: list[Record], train: list[Record]) -> None:
    """Stop if a question is in both splits: its score would measure memory."""
    asked, trained = ({question_id(record.id) for record in part} for part in (test, train))
    if both := sorted(asked & trained):
        raise RecordError(
            f"{SPLITS}: {len(both)} questions are in train and in test: {', '.join(both[:5])}"
            f"{' ...' if len(both) > 5 else ''}; run `dvc repro split` (or python stages/split.py)"
        )


def main() -> None:
    params, prompts, hardware_params = read_sections(
        evaluate=EvaluateParams, format=FormatParams, hardware=HardwareParams
    )
    model_params, profile = read_profile()
    hardware = resolve_hardware(hardware_params, profile)
    prompter = Prompter(load_tokenizer(profile), read_template(FORMATTED))
    adapter = open_adapter(ADAPTER, model_params, profile, formatted=FORMATTED)
    golds = read_gold()
    find_statutes()  # what is wrong with them is said now, rather than once every question is answered
    judge = Judge(params.judge, answer_store()) if params.judge.url else None
    permutations = Permutations(params.permutations, params.seed)

    train = read_records(SPLITS / "train.jsonl")
    records = {"test": read_records(SPLITS / "test.jsonl"), "train": train[: params.max_train_records]}
    rows = {name: read_rows(FORMATTED / f"{name}.jsonl", part) for name, part in records.items()}
    for name, part in rows.items():
        check_tokens(FORMATTED / f"{name}.jsonl", part, prompter)
    check_that_no_test_question_was_trained_on(records["test"], train)

    asked = [*rows["test"], *rows["train"]]
    context = context_length(profile)
    limit = answer_limit(params.max_new_tokens, FORMATTED / "train.jsonl")
    check_room(asked, limit, context)
    of_pairs = {"further_cases": params.further_cases, "max_train_records": params.max_train_records}
    pairs = find_pairs(read_contrasts(), records["test"], train, prompts, prompter, **of_pairs)
    alike = near_duplicates_in(train, [*records["test"], *pairs.unseen])
    room = {"params": prompts, "prompter": prompter, "max_new_tokens": limit, "context": context}
    parts = [(rows["test"], records["test"]), (pairs.rows[: len(pairs.unseen)], pairs.unseen)]
    counts = params.few_shot_examples, params.retrieved_examples, params.retrieved_articles
    shown, shown_pairs = further_prompts(parts, train, alike, params.seed, *counts, **room)
    longest = [*asked, *(row for part in shown.values() for row in part)]
    batch_size = choose_batch_size(params.batch_size, longest, limit, profile, hardware)
    decoding = Decoding(limit, batch_size, prompter.end_token_id, cuda_graphs=hardware.cuda_graphs)
    asked_of = {"base": asked, **shown, "adapter": asked}
    rated = [*pairs.rows, *pairs.unasked]
    rated_of = {"base": rated, **shown_pairs, "adapter": rated}
    answers, bits = ask_systems(
        asked_of, rated_of, adapter, hardware, prompter.tokenizer, decoding, regenerate=params.regenerate
    )

    of_test = {system: given[: len(records["test"])] for system, given in answers.items()}
    of_train = {system: answers[system][len(records["test"]) :] for system in SYSTEMS["train"]}
    told = {system: [row["shown"] for row in part] for system, part in shown.items()}
    found = [(record, *nearest_records(record.question, train)[0]) for record in records["test"]]
    nearest = [(other, similarity, other.id in alike[record.id]) for record, other, similarity in found]
    lines = {
        "test": make_predictions(records["test"], of_test, golds, profile.notice, told, nearest),
        "train": make_predictions(records["train"], of_train, golds, profile.notice),
    }
    contrasts = pairs.lines(bits)
    near_duplicates = list(read_jsonl(SPLITS / "near_duplicates.jsonl"))
    tested = describe_test(records["test"], train, near_duplicates)
    name_groups([*lines["test"], *contrasts], near_duplicates)
    if params.bert_score_model:
        add_bert_scores(lines["test"], BertScore(params.bert_score_model, hardware.device))
    looked_up = add_articles(lines["test"], records["test"], golds) if params.retrieved_articles else None
    agreement = add_judge_marks(lines["test"], golds, judge, params.seed) if judge else None
    for name, part in {**lines, "contrasts": contrasts}.items():
        write_jsonl(PREDICTIONS / f"{name}.jsonl", part)

    metrics = {
        "notice": profile.metrics_notice,
        "profile": model_params.profile,
        "adapter_sha256": adapter.manifest.files[WEIGHTS_FILE],
        "annotated": {name: sum(line["gold"] is not None for line in part) for name, part in lines.items()},
        "max_new_tokens": limit,
        **fewest_examples(told),
        "asked_with": {
            "tokenizer": sha256_json(adapter.manifest.tokenizer),
            "template": adapter.manifest.template_sha256,
        },
        "test_data": tested,
        **({"articles": looked_up} if looked_up else {}),
        **({"judge": agreement} if agreement else {}),
        **compare_systems(lines, compare_contrasts(contrasts, permutations), permutations),
        "chrf_signature": chrf_signature(),
        "versions": versions(),
    }
    write_json(EVALUATION, metrics)
    write_json(SUMMARY_METRICS, summarize(metrics, read_json(TRAINING) if TRAINING.is_file() else {}))
    write_plots(lines, " (무작위 가중치: 점검용)" if profile.weights == "random" else "")
    write_text(REPORT, render_report(lines, metrics, profile.notice))
    print_summary(metrics, profile.notice)
    print(describe_verdict(metrics))


if __name__ == "__main__":
    run(main, lock="evaluate")
