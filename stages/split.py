"""Deals the records into train, validation and test.

Reads:  data/prepared/records.jsonl
Writes: data/splits/train.jsonl, data/splits/validation.jsonl, data/splits/test.jsonl,
        data/splits/near_duplicates.jsonl (the groups of several, for people to look at), metrics/split.json
Params: split

Every record belongs to one of `folds` folds; fold `fold` is the test set, so that `-S split.fold=0,1,2,3,4` tests on
each record once. Which fold a record is in depends on the records and the seed, not on the order of the file.

Questions that are near-duplicates of each other form a group, and a group is dealt as one: it never crosses splits.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="split.fold")

import hashlib
from itertools import groupby
from pathlib import Path
from typing import Annotated

from pydantic import Field

from civilqa.dataset.near_duplicates import group_near_duplicates
from civilqa.dataset.records import SPLITS, Record, count_by, read_records, write_records
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import folder_aside, write_json, write_jsonl
from civilqa.program.parameters import Section, read_sections

RECORDS = Path("data/prepared/records.jsonl")
FOLDER = Path("data/splits")
NEAR_DUPLICATES = "near_duplicates.jsonl"
METRICS = Path("metrics/split.json")

Group = list[Record]


class SplitParams(Section):
    seed: int
    folds: Annotated[int, Field(ge=2)]
    fold: Annotated[int, Field(ge=0)]
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)]
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)]


def group_records(records: list[Record], similarity: float) -> list[Group]:
    """Return the records in groups of near-duplicate questions, each group sorted by id."""
    groups: dict[int, Group] = {}
    for record, label in zip(records, group_near_duplicates([r.question for r in records], similarity), strict=True):
        groups.setdefault(label, []).append(record)
    return [sorted(group, key=lambda record: record.id) for group in groups.values()]


def cell(group: Group) -> tuple[str, str]:
    """Return the category and difficulty of a group, which are those of its first record."""
    return group[0].category, group[0].difficulty


def deal_order(groups: list[Group], seed: int) -> list[Group]:
    """Return the groups sorted by category and difficulty, and within these cells in an order drawn from the seed.

    The order is by SHA-256 of seed and first id: neither the file's order nor a random generator can change it.
    """
    return sorted(groups, key=lambda group: (cell(group), hashlib.sha256(f"{seed}:{group[0].id}".encode()).hexdigest()))


def deal_folds(ordered: list[Group], folds: int) -> list[int]:
    """Return the fold of each group, given the groups in the order in which they were drawn.

    Cell by cell, larger groups first: each goes to the fold with the fewest records of its cell so far, then the fewest
    of all, then the lowest number. Where no question has a near-duplicate this is dealing round the folds one by one:
    both the folds and their shares of every cell differ by one record at most. A larger group can unbalance a cell's
    shares by its size at most.
    """
    fold_of = [0] * len(ordered)
    totals = [0] * folds
    for _, indices in groupby(range(len(ordered)), key=lambda index: cell(ordered[index])):
        of_cell = [0] * folds
        for index in sorted(indices, key=lambda index: -len(ordered[index])):  # stable: ties in the drawn order
            fold_of[index] = fold = min(range(folds), key=lambda fold: (of_cell[fold], totals[fold]))
            of_cell[fold] += len(ordered[index])
            totals[fold] += len(ordered[index])
    return fold_of


def choose_validation(ordered: list[Group], size: int) -> set[int]:
    """Return the indices of whole groups that hold `size` records, or somewhat fewer where no group fits the rest.

    They are at the middles of `size` equal stretches of the order, counted in records: spread over the cells as evenly
    as `size` allows. A group that is taken already or too large for the rest passes its turn to the next one.
    """
    home = [index for index, group in enumerate(ordered) for _ in group]
    chosen: set[int] = set()
    taken = 0
    for turn in range(size):
        if taken > turn:  # a larger group has used this turn
            continue
        start = home[int((turn + 0.5) * len(home) / size)]
        around = (index % len(ordered) for index in range(start, start + len(ordered)))
        index = next((i for i in around if i not in chosen and len(ordered[i]) <= size - taken), None)
        if index is None:
            break
        chosen.add(index)
        taken += len(ordered[index])
    return chosen


def split_records(groups: list[Group], params: SplitParams) -> dict[str, list[Record]]:
    """Return the records of each split, each list sorted by id; a group is in one split as a whole.

    Stratified by dealing: see deal_folds. A cell with fewer groups than folds is in some folds and not in others.

    Raises:
        ParameterError: the fold does not exist, or there are too few groups for the folds.
    """
    if params.fold >= params.folds:
        wanted = f"want 0 to {params.folds - 1}, since split.folds is {params.folds}"
        raise ParameterError(f"params.yaml: split.fold: found {params.fold}, {wanted}")
    if len(groups) < 2 * params.folds:
        records = sum(map(len, groups))
        found = f"{records} records" if records == len(groups) else f"{len(groups)} groups of {records} records"
        raise ParameterError(
            f"params.yaml: split.folds: found {params.folds} for {found}, want at least two groups of near-duplicates "
            "a fold (a record without any is a group); lower split.folds or keep more records"
        )
    ordered = deal_order(groups, params.seed)
    parts: dict[str, list[Record]] = {name: [] for name in SPLITS}
    rest = []
    for group, fold in zip(ordered, deal_folds(ordered, params.folds), strict=True):
        if fold == params.fold:
            parts["test"] += group
        else:
            rest.append(group)
    chosen = choose_validation(rest, round(params.validation_fraction * sum(map(len, rest))))
    for index, group in enumerate(rest):
        parts["validation" if index in chosen else "train"] += group
    return {name: sorted(part, key=lambda record: record.id) for name, part in parts.items()}


def check_splits(parts: dict[str, list[Record]], groups: list[Group]) -> None:
    """Raise RecordError unless every record is in one split, with its whole group, and no question is in two."""
    home = {record.id: name for name in SPLITS for record in parts[name]}
    if len(home) != sum(map(len, parts.values())) or len(home) != sum(map(len, groups)):
        raise RecordError(f"{FOLDER}: a record is in no split or in several")
    for first, *others in groups:
        for record in others:
            one, other = home[first.id], home[record.id]
            if one != other:
                raise RecordError(f"{FOLDER}: {record.id} in {other} is a near-duplicate of {first.id} in {one}")
    split_of: dict[str, str] = {}
    for name in SPLITS:
        for record in parts[name]:
            other = split_of.setdefault(record.question, name)
            if other != name:
                raise RecordError(f"{FOLDER}: {record.id} is in {other} and in {name}: {record.question[:60]}")


def write_near_duplicates(groups: list[Group], path: Path) -> None:
    """Write the groups of several records, one a line, by the id of their first record."""
    several = sorted((group for group in groups if len(group) > 1), key=lambda group: group[0].id)
    write_jsonl(path, ([{"id": record.id, "question": record.question} for record in group] for group in several))
    if several:
        found = f"{sum(map(len, several))} records are near-duplicates in {len(several)} groups"
        print(f"split: {found}, all in {FOLDER / NEAR_DUPLICATES}")


def main() -> None:
    (params,) = read_sections(split=SplitParams)
    groups = group_records(read_records(RECORDS), params.near_duplicate_similarity)
    parts = split_records(groups, params)
    check_splits(parts, groups)
    # All or none: a test split of this run beside a training split of another would leak.
    with folder_aside(FOLDER) as folder:
        for name in SPLITS:
            write_records(folder / f"{name}.jsonl", parts[name])
        write_near_duplicates(groups, folder / NEAR_DUPLICATES)
    write_json(
        METRICS,
        {
            "fold": params.fold,
            "folds": params.folds,
            "near_duplicates": {
                "similarity": params.near_duplicate_similarity,
                "groups_of_several": sum(len(group) > 1 for group in groups),
                "largest_group": max(map(len, groups)),
            },
            "records": {name: {"total": len(parts[name]), **count_by(parts[name])} for name in SPLITS},
        },
    )
    print("split: " + ", ".join(f"{name} {len(parts[name])}" for name in SPLITS) + f" -> {FOLDER}")


if __name__ == "__main__":
    run(main, lock="split")
