"""Turns records into the exact tokens that the model is trained on and asked with.

Reads:  data/splits/*.jsonl, the profile's tokenizer and chat template, the statutes (statutes_in_prompt)
Writes: data/formatted/train.jsonl, data/formatted/validation.jsonl, data/formatted/test.jsonl,
        data/formatted/lengths.csv (tokens of every record), data/formatted/sample.txt (one record as the model sees it,
        with its loss mask), data/formatted/chat_template.jinja, data/formatted/categories.json (what is asked in each),
        metrics/format.json, metrics/plots/lengths.csv
Params: format, model, the selected profile, reference, seed

Each line holds the record's text as a person reads it (`messages`, or `prompt` and `completion`) and its tokens:
`prompt_ids`, on which there is no loss, and `completion_ids`, on which there is. Nothing is truncated here.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="format.style")

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from civilqa.base_model.categories import Category, add_questions, write_categories
from civilqa.base_model.hub import check_base, context_length
from civilqa.base_model.profiles import Profile, read_profile
from civilqa.base_model.prompts import TEMPLATE_FILE, FormatParams, Prompter, load_prompter
from civilqa.dataset.lengths import Lengths, count_tokens, describe_lengths, write_lengths
from civilqa.dataset.parallel import map_chunks
from civilqa.dataset.records import SPLITS, Record, iterate_records
from civilqa.law.search import load_index
from civilqa.program.errors import RecordError
from civilqa.program.files import count_lines, folder_aside, json_line, open_aside, read_jsonl, write_json, write_text
from civilqa.program.lifecycle.languages import say
from civilqa.program.parameters import read_params, read_sections

SPLIT_FOLDER = Path("data/splits")
FOLDER = Path("data/formatted")
METRICS = Path("metrics/format.json")

Item = tuple[str, Record, list[str]]  # the name of a split, a record of it, and the articles to show before it


def format_records(
    records: list[Record],
    params: FormatParams,
    prompter: Prompter,
    articles: list[list[str]] | None = None,
    room: int = 0,
) -> list[dict[str, Any]]:
    """Return the lines of the formatted data.

    Args:
        articles: to show before each question; its line then says how many fit a prompt of `room` tokens.
    """
    chats, counts = [], []
    for record, shown in zip(records, articles or [[]] * len(records), strict=True):
        system = params.system_prompt(record.category)
        chat, count = prompter.fit_articles(record.question, system, shown, room)
        chats.append(chat)
        counts.append({"articles": count} if shown else {})
    texts = prompter.render_answered(chats, [record.answer for record in records])
    ids = prompter.encode([text for pair in texts for text in pair])
    lines = []
    for index, (record, chat, (prompt, completion)) in enumerate(zip(records, chats, texts, strict=True)):
        if params.style == "conversational":
            text = {"messages": [*chat, {"role": "assistant", "content": prompter.defuse(record.answer)}]}
        else:
            text = {"prompt": prompt, "completion": completion}
        told = {"id": record.id, "category": record.category, "difficulty": record.difficulty}
        told |= counts[index]
        lines.append({**told, **text, "prompt_ids": ids[2 * index], "completion_ids": ids[2 * index + 1]})
    return lines


def make_formatter(profile: Profile, params: FormatParams) -> Callable[[list[Item]], list[tuple[str, Lengths, int]]]:
    """Return the function that turns records into lines of JSON, their lengths, and how many articles did not fit."""
    prompter = load_prompter(profile, params.style)
    room = context_length(profile) // 2 if params.statutes_in_prompt else 0

    def format_items(items: list[Item]) -> list[tuple[str, Lengths, int]]:
        _, records, articles = zip(*items, strict=True)
        rows = format_records([*records], params, prompter, [*articles], room)
        lengths = ((row["id"], len(row["prompt_ids"]), len(row["completion_ids"])) for row in rows)
        left_out = (len(shown) - row.get("articles", 0) for row, shown in zip(rows, articles, strict=True))
        return list(zip(map(json_line, rows), lengths, left_out, strict=True))

    return format_items


def articles_before(split: str, record: Record, params: FormatParams) -> list[str]:
    """Return the articles to show before a record: none in the test split, whose answers must not choose them."""
    if not params.statutes_in_prompt or split == "test":
        return []
    asked = (record.id, record.question, record.answer)
    return load_index().training_articles(*asked, params.statutes_in_prompt, params.seed)


def format_splits(profile: Profile, params: FormatParams, folder: Path) -> tuple[dict[str, list[Lengths]], int]:
    """Write every split, and the categories of the first; return the lengths of each split's records, and how many
    articles did not fit the prompts.
    """
    paths = {name: SPLIT_FOLDER / f"{name}.jsonl" for name in SPLITS}
    items = (
        (name, record, articles_before(name, record, params))
        for name, path in paths.items()
        for record in iterate_records(path)
    )
    left_out = 0
    lengths: dict[str, list[Lengths]] = {name: [] for name in SPLITS}
    categories: dict[str, Category] = {}
    total = sum(map(count_lines, paths.values()))
    with ExitStack() as stack, tqdm(desc="format", total=total, unit=" records", unit_scale=True) as progress:
        files = {name: stack.enter_context(open_aside(folder / f"{name}.jsonl")) for name in SPLITS}
        for chunk, lines in map_chunks(make_formatter, (profile, params), items):
            for (name, _, _), (line, length, missing) in zip(chunk, lines, strict=True):
                files[name].write(line)
                lengths[name].append(length)
                left_out += missing
            trained = [(record.category, record.question) for name, record, _ in chunk if name == "train"]
            add_questions(categories, trained, params)
            progress.update(len(chunk))
    write_categories(folder, categories)
    return lengths, left_out


def describe_sample(row: dict[str, Any], prompter: Prompter) -> str:
    """Return one record as the model sees it: the rendered text, and every token with whether it is in the loss."""
    if "messages" in row:
        *asked, answer = row["messages"]
        prompt, completion = prompter.render(asked, answer["content"])
    else:
        prompt, completion = row["prompt"], row["completion"]
    prompt_ids, completion_ids = row["prompt_ids"], row["completion_ids"]
    lines = [
        f"record {row['id']}",
        f"\n--- prompt: {len(prompt_ids)} tokens, none in the loss ---\n{prompt}",
        f"\n--- completion: {len(completion_ids)} tokens, all in the loss ---\n{completion}",
        "\n--- tokens: place, id, loss, text ---",
    ]
    for place, token in enumerate(prompt_ids + completion_ids):
        loss = "loss" if place >= len(prompt_ids) else "-"
        lines.append(f"{place:>5} {token:>7} {loss:<4} {prompter.tokenizer.decode([token])!r}")
    return "\n".join(lines) + "\n"


def main() -> None:
    (params,) = read_sections(format=FormatParams)
    model, profile = read_profile()
    prompter = load_prompter(profile, params.style)
    say(f"format: {check_base(profile, prompter.tokenizer, prompter.template)}")
    for note in prompter.notes:
        say(f"format: {note}")
    end_token = prompter.tokenizer.convert_ids_to_tokens(prompter.end_token_id)

    if next(iterate_records(SPLIT_FOLDER / "train.jsonl"), None) is None:
        raise RecordError(f"{SPLIT_FOLDER / 'train.jsonl'}: holds no records; run `dvc repro split`")
    # All or none: tokens of this run beside the template of another would train what nobody can ask.
    with folder_aside(FOLDER) as folder:
        lengths, left_out = format_splits(profile, params, folder)
        write_lengths(lengths, folder)
        sample = next(read_jsonl(folder / "train.jsonl"))
        write_text(folder / "sample.txt", describe_sample(sample, prompter))
        # The template travels with the data: whoever reads the tokens can see what made them.
        write_text(folder / TEMPLATE_FILE, prompter.template + "\n")
    tokens = {name: count_tokens(part) for name, part in lengths.items()}
    template_sha256 = hashlib.sha256(prompter.template.encode()).hexdigest()
    how = {"profile": model.profile, "style": params.style, "end_token": end_token, "template_sha256": template_sha256}
    if count := params.statutes_in_prompt:
        how["articles"] = {"asked": count, "left_out": left_out, **load_index().source}
        say(f"format: {count} articles before a question; {left_out} in all did not fit half of the base's context")
    write_json(METRICS, {**how, "tokens": tokens})
    # Only told, and so no parameter of this stage in dvc.yaml: it would run again and write the same bytes.
    say(describe_lengths(lengths, read_params().get("train")))
    say(f"format: {params.style}, answers end in {end_token} -> {FOLDER}")


if __name__ == "__main__":
    run(main, lock="format")
