"""Turns records into the exact tokens that the model is trained on and asked with.

Reads:  data/splits/*.jsonl, the profile's tokenizer and chat template
Writes: data/formatted/train.jsonl, data/formatted/validation.jsonl, data/formatted/test.jsonl,
        data/formatted/lengths.csv (tokens of every record), data/formatted/sample.txt (one record as the model sees it,
        with its loss mask), data/formatted/chat_template.jinja, data/formatted/categories.json (what is asked in each),
        metrics/format.json, metrics/plots/lengths.csv
Params: format, model, the selected profile

Each line holds the record's text as a person reads it (`messages`, or `prompt` and `completion`) and its tokens:
`prompt_ids`, on which there is no loss, and `completion_ids`, on which there is. Nothing is truncated here.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="format.style")

import csv
import hashlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from civilqa.base_model.categories import Category, add_questions, write_categories
from civilqa.base_model.hub import check_base
from civilqa.base_model.profiles import Profile, read_profile
from civilqa.base_model.prompts import TEMPLATE_FILE, FormatParams, Prompter, load_prompter
from civilqa.dataset.parallel import map_chunks
from civilqa.dataset.records import SPLITS, Record, iterate_records
from civilqa.program.errors import RecordError
from civilqa.program.files import count_lines, folder_aside, json_line, open_aside, write_csv, write_json, write_text
from civilqa.program.parameters import read_params, read_sections

SPLIT_FOLDER = Path("data/splits")
FOLDER = Path("data/formatted")
METRICS = Path("metrics/format.json")
PLOT = Path("metrics/plots/lengths.csv")

BIN_TOKENS = 32  # width of the plot's bars

Lengths = tuple[str, int, int]  # id, tokens of the prompt, tokens of the completion


def format_records(records: list[Record], params: FormatParams, prompter: Prompter) -> list[dict[str, Any]]:
    """Return the lines of the formatted data."""
    chats = [prompter.messages(record.question, params.system_prompt(record.category)) for record in records]
    texts = prompter.render_answered(chats, [record.answer for record in records])
    ids = prompter.encode([text for pair in texts for text in pair])
    lines = []
    for index, (record, chat, (prompt, completion)) in enumerate(zip(records, chats, texts, strict=True)):
        if params.style == "conversational":
            text = {"messages": [*chat, {"role": "assistant", "content": prompter.defuse(record.answer)}]}
        else:
            text = {"prompt": prompt, "completion": completion}
        told = {"id": record.id, "category": record.category, "difficulty": record.difficulty}
        lines.append({**told, **text, "prompt_ids": ids[2 * index], "completion_ids": ids[2 * index + 1]})
    return lines


Item = tuple[str, Record]  # the name of a split and a record of it


def make_formatter(profile: Profile, params: FormatParams) -> Callable[[list[Item]], list[tuple[str, Lengths]]]:
    """Return the function that turns records into lines of JSON and their lengths."""
    prompter = load_prompter(profile, params.style)

    def format_items(items: list[Item]) -> list[tuple[str, Lengths]]:
        rows = format_records([record for _, record in items], params, prompter)
        return [(json_line(row), (row["id"], len(row["prompt_ids"]), len(row["completion_ids"]))) for row in rows]

    return format_items


def format_splits(profile: Profile, params: FormatParams, folder: Path) -> dict[str, list[Lengths]]:
    """Write every split, and the categories of the first; return the lengths of each split's records."""
    paths = {name: SPLIT_FOLDER / f"{name}.jsonl" for name in SPLITS}
    items = ((name, record) for name, path in paths.items() for record in iterate_records(path))
    lengths: dict[str, list[Lengths]] = {name: [] for name in SPLITS}
    categories: dict[str, Category] = {}
    total = sum(map(count_lines, paths.values()))
    with ExitStack() as stack, tqdm(desc="format", total=total, unit=" records", unit_scale=True) as progress:
        files = {name: stack.enter_context(open_aside(folder / f"{name}.jsonl")) for name in SPLITS}
        for chunk, lines in map_chunks(make_formatter, (profile, params), items):
            for (name, _), (line, length) in zip(chunk, lines, strict=True):
                files[name].write(line)
                lengths[name].append(length)
            add_questions(categories, [(one.category, one.question) for name, one in chunk if name == "train"], params)
            progress.update(len(chunk))
    write_categories(folder, categories)
    return lengths


def count_tokens(lengths: list[Lengths]) -> dict[str, int]:
    """Return the number of records and tokens of a split, and its longest record in tokens."""
    return {
        "records": len(lengths),
        "prompt_tokens": sum(prompt for _, prompt, _ in lengths),
        "completion_tokens": sum(completion for _, _, completion in lengths),
        "longest_tokens": max((prompt + completion for _, prompt, completion in lengths), default=0),
    }


def describe_lengths(lengths: dict[str, list[Lengths]], train: Any) -> str:
    """Return how long the records are, and how many of each split exceed the limit of training, with the way on.

    Args:
        train: the section of params.yaml, which finetune checks.
    """
    totals = sorted(prompt + completion for part in lengths.values() for _, prompt, completion in part)
    median, most = (totals[round(rank * (len(totals) - 1))] for rank in (0.5, 0.95))
    text = f"format: tokens of a record: median {median}, 95 % up to {most}, longest {totals[-1]}"
    limit = train.get("max_length") if isinstance(train, dict) else None
    if not isinstance(limit, int):
        return text
    over = {name: [row[0] for row in part if row[1] + row[2] > limit] for name, part in lengths.items()}
    if not any(over.values()):
        return f"{text}; none exceeds train.max_length ({limit})"
    text += "\nwarning: over train.max_length ({}): {}".format(
        limit, ", ".join(f"{name} {len(part)} of {len(lengths[name])}" for name, part in over.items())
    )
    if trained := over["train"] + over["validation"]:
        shown = ", ".join(trained[:5]) + (", ..." if len(trained) > 5 else "")
        if train.get("overlong") == "truncate":
            text += f"; finetune cuts their ends off: {shown}"
        else:
            text += (
                f"; finetune will stop at {shown}: raise train.max_length (up to {totals[-1]}), set train.overlong to "
                "truncate, or shorten the rows"
            )
    return text


def describe_sample(record: Record, params: FormatParams, prompter: Prompter) -> str:
    """Return one record as the model sees it: the rendered text, and every token with whether it is in the loss."""
    chat = prompter.messages(record.question, params.system_prompt(record.category))
    prompt, completion = prompter.render(chat, record.answer)
    prompt_ids, completion_ids = prompter.encode([prompt, completion])
    lines = [
        f"record {record.id}",
        f"\n--- prompt: {len(prompt_ids)} tokens, none in the loss ---\n{prompt}",
        f"\n--- completion: {len(completion_ids)} tokens, all in the loss ---\n{completion}",
        "\n--- tokens: place, id, loss, text ---",
    ]
    for place, token in enumerate(prompt_ids + completion_ids):
        loss = "loss" if place >= len(prompt_ids) else "-"
        lines.append(f"{place:>5} {token:>7} {loss:<4} {prompter.tokenizer.decode([token])!r}")
    return "\n".join(lines) + "\n"


def write_lengths(lengths: dict[str, list[Lengths]], folder: Path) -> None:
    """Write the length of every record, and their histogram by split for the plot."""
    with open_aside(folder / "lengths.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["split", "id", "prompt_tokens", "completion_tokens"])
        for name, part in lengths.items():
            writer.writerows((name, *row) for row in part)
    bars = []
    for name, part in lengths.items():
        counts = Counter((prompt + completion) // BIN_TOKENS for _, prompt, completion in part)
        bars += [
            {"tokens": f"{bin * BIN_TOKENS:05} to {(bin + 1) * BIN_TOKENS - 1:05}", "series": name, "records": n}
            for bin, n in counts.items()
        ]
    write_csv(PLOT, sorted(bars, key=lambda bar: (bar["tokens"], bar["series"])), ["tokens", "series", "records"])


def main() -> None:
    (params,) = read_sections(format=FormatParams)
    model, profile = read_profile()
    prompter = load_prompter(profile, params.style)
    print(f"format: {check_base(profile, prompter.tokenizer, prompter.template)}")
    end_token = prompter.tokenizer.convert_ids_to_tokens(prompter.end_token_id)

    sample = next(iterate_records(SPLIT_FOLDER / "train.jsonl"), None)
    if sample is None:
        raise RecordError(f"{SPLIT_FOLDER / 'train.jsonl'}: holds no records; run `dvc repro split`")
    # All or none: tokens of this run beside the template of another would train what nobody can ask.
    with folder_aside(FOLDER) as folder:
        lengths = format_splits(profile, params, folder)
        write_lengths(lengths, folder)
        write_text(folder / "sample.txt", describe_sample(sample, params, prompter))
        # The template travels with the data: whoever reads the tokens can see what made them.
        write_text(folder / TEMPLATE_FILE, prompter.template + "\n")
    tokens = {name: count_tokens(part) for name, part in lengths.items()}
    template_sha256 = hashlib.sha256(prompter.template.encode()).hexdigest()
    how = {"profile": model.profile, "style": params.style, "end_token": end_token, "template_sha256": template_sha256}
    write_json(METRICS, {**how, "tokens": tokens})
    # Only told, and so no parameter of this stage in dvc.yaml: it would run again and write the same bytes.
    print(describe_lengths(lengths, read_params().get("train")))
    print(f"format: {params.style}, answers end in {end_token} -> {FOLDER}")


if __name__ == "__main__":
    run(main, lock="format")
