"""Deals groups of records over folds, stratified by category and difficulty, and checks what came of it."""

import hashlib
from itertools import groupby
from pathlib import Path

from civilqa.dataset.groups import Group, Likeness
from civilqa.dataset.near_duplicates import normalize
from civilqa.dataset.records import SPLITS, Record
from civilqa.program.errors import RecordError

FOLDER = Path("data/splits")


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
            fold_of[index] = fold = min(zip(of_cell, totals, range(folds), strict=True))[2]
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


def joins(answer: str, likeness: Likeness) -> bool:
    """Return whether records with this answer are one group."""
    return likeness.answer is not None and len(normalize(answer)) >= likeness.answer_characters


def check_splits(parts: dict[str, list[Record]], groups: list[Group], likeness: Likeness) -> None:
    """Raise RecordError unless every record is in one split with its whole group, and no question or answer in two."""
    home = {record.id: name for name in SPLITS for record in parts[name]}
    if len(home) != sum(map(len, parts.values())) or len(home) != sum(map(len, groups)):
        raise RecordError(f"{FOLDER}: a record is in no split or in several")
    for first, *others in groups:
        for record in others:
            one, other = home[first.id], home[record.id]
            if one != other:
                raise RecordError(f"{FOLDER}: {record.id} in {other} is a near-duplicate of {first.id} in {one}")
    for kind in ("question", "answer"):
        split_of: dict[str, str] = {}
        for name in SPLITS:
            for record in parts[name]:
                text = getattr(record, kind)
                other = split_of.setdefault(text, name)
                if other != name and (kind == "question" or joins(text, likeness)):
                    raise RecordError(f"{FOLDER}: the {kind} of {record.id} is in {other} and in {name}: {text[:60]}")
