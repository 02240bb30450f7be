"""Deals the records into train, validation and test.

Reads:  data/prepared/records.jsonl
Writes: data/splits/train.jsonl, data/splits/validation.jsonl, data/splits/test.jsonl, metrics/split.json
Params: split

Every record belongs to one of `folds` folds; fold `fold` is the test set, so that `-S split.fold=0,1,2,3,4` tests on
each record once. Which fold a record is in depends on the records and the seed, not on the order of the file.
"""

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field

from civilqa.errors import ParameterError, RecordError
from civilqa.files import write_json
from civilqa.parameters import Section, read_sections
from civilqa.records import SPLITS, Record, count_by, read_records, write_records
from civilqa.stage import run

RECORDS = Path("data/prepared/records.jsonl")
FOLDER = Path("data/splits")
METRICS = Path("metrics/split.json")


class SplitParams(Section):
    seed: int
    folds: Annotated[int, Field(ge=2)]
    fold: Annotated[int, Field(ge=0)]
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)]


def deal_order(records: list[Record], seed: int) -> list[Record]:
    """Return the records sorted by category and difficulty, and within these cells in an order drawn from the seed.

    The order is by SHA-256 of seed and id: it has nothing to do with the file's order, and no library's random
    generator can change it.
    """

    def key(record: Record) -> tuple[str, str, str]:
        return record.category, record.difficulty, hashlib.sha256(f"{seed}:{record.id}".encode()).hexdigest()

    return sorted(records, key=key)


def split_records(records: list[Record], params: SplitParams) -> dict[str, list[Record]]:
    """Return the records of each split, each list sorted by id.

    Stratified by dealing: the ordered records go round the folds one by one, so that both the folds and, in every
    category x difficulty cell, their shares differ by one record at most. A cell with fewer records than folds is in
    some folds and not in others. Validation is every k-th of the remaining records in the same order.

    Raises:
        ParameterError: the fold does not exist, or there are too few records for the folds.
    """
    if params.fold >= params.folds:
        raise ParameterError(
            f"params.yaml: split.fold: found {params.fold}, want 0 to {params.folds - 1}, since split.folds is "
            f"{params.folds}"
        )
    if len(records) < 2 * params.folds:
        raise ParameterError(
            f"params.yaml: split.folds: found {params.folds} for {len(records)} records, want at least two records a "
            "fold; lower split.folds or keep more records"
        )
    ordered = deal_order(records, params.seed)
    test = [record for index, record in enumerate(ordered) if index % params.folds == params.fold]
    rest = [record for index, record in enumerate(ordered) if index % params.folds != params.fold]
    size = round(params.validation_fraction * len(rest))
    # The middles of `size` equal stretches of the order: spread over the cells as evenly as `size` allows.
    chosen = {int((index + 0.5) * len(rest) / size) for index in range(size)}
    parts = {
        "train": [record for index, record in enumerate(rest) if index not in chosen],
        "validation": [record for index, record in enumerate(rest) if index in chosen],
        "test": test,
    }
    return {name: sorted(part, key=lambda record: record.id) for name, part in parts.items()}


def check_no_leak(parts: dict[str, list[Record]]) -> None:
    """Raise RecordError if a question is in more than one split: the evaluation would be worth nothing."""
    home: dict[str, str] = {}
    for name, part in parts.items():
        for record in part:
            other = home.setdefault(record.question, name)
            if other != name:
                raise RecordError(f"{FOLDER}: {record.id} is in {other} and in {name}: {record.question[:60]}")


def main() -> None:
    (params,) = read_sections(split=SplitParams)
    parts = split_records(read_records(RECORDS), params)
    check_no_leak(parts)
    for name in SPLITS:
        write_records(FOLDER / f"{name}.jsonl", parts[name])
    write_json(
        METRICS,
        {
            "fold": params.fold,
            "folds": params.folds,
            "records": {name: {"total": len(parts[name]), **count_by(parts[name])} for name in SPLITS},
        },
    )
    print("split: " + ", ".join(f"{name} {len(parts[name])}" for name in SPLITS) + f" -> {FOLDER}")


if __name__ == "__main__":
    run(main)
