"""The systems whose answers are generated: the base alone, the base shown examples, and the tuned model."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from civilqa.base_model.prompts import read_formatted
from civilqa.generation.answers import Answer, answer_questions
from civilqa.generation.decoding import Decoding
from civilqa.model.hardware import Hardware, versions
from civilqa.model.loading import load_base, load_tuned
from civilqa.model.provenance import Adapter
from civilqa.program.errors import ParameterError

ROOM_FOR_ANSWERS = 1.25  # of the longest training answer's tokens


def answer_limit(asked: int | Literal["auto"], train: Path) -> int:
    """Return how many tokens an answer may have, of what `evaluate.max_new_tokens` asks for.

    auto: what the longest answer of the training split has, and a quarter more. A model that does not stop shows by
    then; every further token would take as long as those before and say nothing. The test split has no part in it.

    Args:
        train: the formatted training split.
    """
    if asked != "auto":
        return asked
    longest = max(len(row["completion_ids"]) for row in read_formatted(train))
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


def ask_systems(
    rows: dict[str, list[dict[str, Any]]],
    adapter: Adapter,
    hardware: Hardware,
    tokenizer: PreTrainedTokenizerFast,
    decoding: Decoding,
    *,
    regenerate: bool,
) -> dict[str, list[Answer]]:
    """Return each system's answers to its rows. The base is loaded once, and only if an answer has to be made.

    Base and few_shot are the same model with other prompts: nothing of the training is in their store's key.

    Args:
        rows: formatted rows of `base`, `few_shot` and `adapter`.
        regenerate: ask also what was answered before and kept.
    """
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
            tokenizer,
            decoding,
            regenerate=regenerate,
            description=f"answers: {system}",
        )
        for system in ("base", "few_shot", "adapter")
    }
