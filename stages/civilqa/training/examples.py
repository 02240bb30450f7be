"""The records of data/formatted as what a trainer computes on: tokens, and labels that leave out the prompts."""

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

from datasets import Dataset
from trl import pack_dataset

from civilqa.base_model.prompts import ROWS_CHECKED, Prompter, check_tokens, read_formatted
from civilqa.program.errors import ParameterError, RecordError
from civilqa.training.answer_loss import IGNORED_LABEL
from civilqa.training.recipe import Recipe, TrainParams

Examples = dict[str, list[dict[str, Any]]]  # by split; each with input_ids, labels, and seq_lengths once packed


def read_examples(folder: Path, train: TrainParams, prompter: Prompter) -> tuple[Examples, int]:
    """Return the examples of the training and the validation split, and the number of truncated records.

    Raises:
        ParameterError: a record is longer than `train.max_length`, and is not to be truncated.
        RecordError: a file is missing, not what format writes, or formatted for another base; or nothing is to be
            trained on.
    """
    examples, truncated = {}, []
    for name in ("train", "validation"):
        path = folder / f"{name}.jsonl"
        rows = read_formatted(path)
        first = list(islice(rows, ROWS_CHECKED))
        check_tokens(path, first, prompter)
        examples[name], over = make_examples(path, chain(first, rows), train.max_length, train.overlong)
        truncated += over
    if not examples["train"]:
        raise RecordError(
            f"{folder / 'train.jsonl'}: holds no records; run `dvc repro format` (or python stages/format.py)"
        )
    if truncated:
        print(f"warning: {len(truncated)} answers cut at {train.max_length} tokens: {', '.join(truncated)}")
    return examples, len(truncated)


def make_examples(
    path: Path, rows: Iterable[dict[str, Any]], max_length: int | None, overlong: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the training examples of a formatted file's rows, and the ids of those that were truncated.

    Each example has `input_ids` and `labels` of the same length, the labels of the prompt ignored by the loss.

    Raises:
        ParameterError: a record is longer than `max_length` and `overlong` is `stop`, or its prompt alone is.
    """
    examples, truncated, refused = [], [], []
    for row in rows:
        prompt, completion = row["prompt_ids"], row["completion_ids"]
        length = len(prompt) + len(completion)
        if max_length is not None and length > max_length:
            if overlong == "stop" or len(prompt) >= max_length:
                refused.append(f"{row['id']} ({length} tokens, {len(prompt)} of them prompt)")
                continue
            truncated.append(row["id"])
        examples.append(
            {
                "input_ids": (prompt + completion)[:max_length],
                "labels": ([IGNORED_LABEL] * len(prompt) + completion)[:max_length],
            }
        )
    if refused:
        way = ", or set train.overlong to truncate (which cuts the end of these answers off)"
        if overlong == "truncate":
            way = ": their prompts alone leave no room for an answer"
        raise ParameterError(
            f"params.yaml: train.max_length: {len(refused)} records of {path} are longer than {max_length} tokens: "
            f"{', '.join(refused[:10])}{' ...' if len(refused) > 10 else ''}; raise train.max_length{way}"
        )
    return examples, truncated


def pack(examples: list[dict[str, Any]], max_length: int | None) -> list[dict[str, Any]]:
    """Return the examples put together into rows of at most `max_length` tokens, none of them cut.

    Each row says the lengths of its examples in `seq_lengths`: trl starts the position ids of each at 0 again, and the
    model then masks every example's attention to itself, in sdpa as in FlashAttention. Best fit decreasing leaves few
    gaps. Source: Ding et al. 2024, Fewer Truncations Improve Language Modeling (arXiv:2404.10830).

    Raises:
        ParameterError: there is no limit to fill rows up to.
    """
    if max_length is None:
        raise ParameterError("params.yaml: train.packing: found true, but train.max_length is null; set it to a number")
    return pack_dataset(Dataset.from_list(examples), max_length, "bfd", {"keep_in_memory": True}).to_list()


def check_validation(examples: Examples, recipe: Recipe) -> None:
    """Stop if a checkpoint is to be chosen, or training to be ended, by a validation split that is empty.

    Raises:
        ParameterError: names the key that asks for it.
    """
    for key, asked, instead in (
        ("keep", recipe.keep if recipe.keep == "best" else None, "last"),
        ("early_stopping_patience", recipe.early_stopping_patience, "null"),
    ):
        if asked is not None and not examples["validation"]:
            raise ParameterError(
                f"params.yaml: train.{key}: found {asked}, but there is no validation split to judge by; set "
                f"train.{key} to {instead}, or raise split.validation_fraction"
            )
