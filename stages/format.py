"""Turns records into the exact tokens that the model is trained on and asked with.

Reads:  data/splits/*.jsonl, the profile's tokenizer and chat template
Writes: data/formatted/train.jsonl, data/formatted/validation.jsonl, data/formatted/test.jsonl,
        data/formatted/chat_template.jinja, metrics/format.json
Params: format, model, the selected profile

Each line holds the record's text as a person reads it (`messages`, or `prompt` and `completion`) and its tokens:
`prompt_ids`, on which there is no loss, and `completion_ids`, on which there is. Nothing is truncated here.
"""

import hashlib
from pathlib import Path
from typing import Any

from tqdm import tqdm

from civilqa.base_models import check_base
from civilqa.files import write_json, write_jsonl, write_text
from civilqa.parameters import read_sections
from civilqa.profiles import read_profile
from civilqa.prompts import TEMPLATE_FILE, FormatParams, Prompter, load_prompter
from civilqa.records import SPLITS, Record, read_records
from civilqa.stage import run

SPLIT_FOLDER = Path("data/splits")
FOLDER = Path("data/formatted")
METRICS = Path("metrics/format.json")


def format_record(record: Record, params: FormatParams, prompter: Prompter) -> dict[str, Any]:
    """Return one line of the formatted data."""
    messages = prompter.messages(record.question, params.system_prompt(record.category))
    prompt, completion = prompter.render(messages, record.answer)
    prompt_ids, completion_ids = prompter.encode([prompt, completion])
    if params.style == "conversational":
        text = {"messages": [*messages, {"role": "assistant", "content": prompter.defuse(record.answer)}]}
    else:
        text = {"prompt": prompt, "completion": completion}
    return {
        "id": record.id,
        "category": record.category,
        "difficulty": record.difficulty,
        **text,
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
    }


def count_tokens(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Return the number of records and tokens of a split, and its longest record in tokens."""
    return {
        "records": len(rows),
        "prompt_tokens": sum(len(row["prompt_ids"]) for row in rows),
        "completion_tokens": sum(len(row["completion_ids"]) for row in rows),
        "longest_tokens": max((len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows), default=0),
    }


def main() -> None:
    (params,) = read_sections(format=FormatParams)
    model, profile = read_profile()
    prompter = load_prompter(profile, params.style)
    print(f"format: {check_base(profile, prompter.tokenizer)}")
    end_token = prompter.tokenizer.convert_ids_to_tokens(prompter.end_token_id)

    tokens = {}
    for name in SPLITS:
        records = read_records(SPLIT_FOLDER / f"{name}.jsonl")
        rows = [format_record(record, params, prompter) for record in tqdm(records, desc=f"format {name}")]
        write_jsonl(FOLDER / f"{name}.jsonl", rows)
        tokens[name] = count_tokens(rows)
    # The template travels with the data: whoever reads the tokens can see what made them.
    write_text(FOLDER / TEMPLATE_FILE, prompter.template + "\n")
    write_json(
        METRICS,
        {
            "profile": model.profile,
            "style": params.style,
            "end_token": end_token,
            "template_sha256": hashlib.sha256(prompter.template.encode()).hexdigest(),
            "tokens": tokens,
        },
    )
    longest = max(split["longest_tokens"] for split in tokens.values())
    print(f"format: {params.style}, longest record {longest} tokens, answers end in {end_token} -> {FOLDER}")


if __name__ == "__main__":
    run(main)
