"""The rows of data/formatted, as format writes them and as finetune, evaluate and export read them."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from civilqa.base_model.prompts import Prompter
from civilqa.program.errors import RecordError
from civilqa.program.files import read_jsonl

ROWS_CHECKED = 100  # all of them come from one run of format: the first ones say whether it was this tokenizer's

AGAIN = "run `dvc repro format` (or python stages/format.py)"


def read_formatted(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a formatted split; each has an `id`, and tokens in `prompt_ids` and `completion_ids`.

    Raises:
        RecordError: the file is missing or a line of it is not what format writes; names the file and the line.
    """
    for number, row in enumerate(read_jsonl(path), start=1):
        for name in ("prompt_ids", "completion_ids"):
            ids = row.get(name)
            if not isinstance(ids, list) or not ids or not all(type(token) is int and token >= 0 for token in ids):
                raise RecordError(f"{path}:{number}: '{name}' is no list of tokens; {AGAIN}")
        if not isinstance(row.get("id"), str):
            raise RecordError(f"{path}:{number}: has no 'id'; {AGAIN}")
        yield row


def check_tokens(path: Path, rows: Iterable[dict[str, Any]], prompter: Prompter) -> None:
    """Check that the first rows are what this tokenizer and template make of their text.

    Raises:
        RecordError: names the first that is not.
    """
    for row in islice(rows, ROWS_CHECKED):
        try:
            if "messages" in row:
                *asked, answer = row["messages"]
                texts = prompter.render(asked, answer["content"])
            else:
                texts = (row["prompt"], row["completion"])
            made = prompter.encode(list(texts))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordError(
                f"{path}: record {row['id']} has no text to check its tokens by ({error}); {AGAIN}"
            ) from None
        if made != [row["prompt_ids"], row["completion_ids"]]:
            raise RecordError(
                f"{path}: the tokens of record {row['id']} are not what the profile's tokenizer and the chat template "
                f"beside it make of its text: it was formatted with another profile, or is damaged; {AGAIN}"
            )
