"""How long the formatted records are, in tokens."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

from civilqa.program.files import open_aside, write_csv

PLOT = Path("metrics/plots/lengths.csv")
BIN_TOKENS = 32  # width of the plot's bars

Lengths = tuple[str, int, int]  # id, tokens of the prompt, tokens of the completion


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
