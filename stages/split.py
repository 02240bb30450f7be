"""Deals the records into train, validation and test.

Reads:  data/prepared/records.jsonl
Writes: data/splits/train.jsonl, data/splits/validation.jsonl, data/splits/test.jsonl,
        data/splits/near_duplicates.jsonl (the groups of several records), metrics/split.json
Params: split

Every record belongs to one of `folds` folds; fold `fold` is the test set, so that `-S split.fold=0,1,2,3,4` tests on
each record once. Which fold a record is in depends on the records and the seed, not on the order of the file.

Records whose questions are near-duplicates of each other form a group, and so do those whose answers are. A group is
dealt as one: it never crosses splits.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="split.fold")

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from civilqa.dataset.dealing import FOLDER, check_splits, choose_validation, deal_folds, deal_order
from civilqa.dataset.groups import Group, Grouping, Likeness, describe_test, group_records, list_groups, suggest
from civilqa.dataset.records import SPLITS, Record, count_by, read_records, write_records
from civilqa.program.errors import ParameterError
from civilqa.program.files import folder_aside, write_json, write_jsonl
from civilqa.program.lifecycle.languages import say
from civilqa.program.parameters import Section, read_sections

RECORDS = Path("data/prepared/records.jsonl")
NEAR_DUPLICATES = "near_duplicates.jsonl"
METRICS = Path("metrics/split.json")


class SplitParams(Section):
    seed: int
    folds: Annotated[int, Field(ge=2)]
    fold: Annotated[int, Field(ge=0)]
    validation_fraction: Annotated[float, Field(ge=0, le=0.5)]
    near_duplicate_similarity: Annotated[float, Field(gt=0, le=1)]
    near_duplicate_answer_similarity: Annotated[float, Field(gt=0, le=1)] | None
    near_duplicate_answer_characters: Annotated[int, Field(ge=1)]
    too_few_groups: Literal["refuse", "warn"]

    @property
    def likeness(self) -> Likeness:
        """When records belong together."""
        return Likeness(
            question=self.near_duplicate_similarity,
            answer=self.near_duplicate_answer_similarity,
            answer_characters=self.near_duplicate_answer_characters,
        )


def split_records(groups: list[Group], params: SplitParams) -> dict[str, list[Record]]:
    """Return the records of each split, each list sorted by id; a group is in one split as a whole.

    Stratified by dealing: see deal_folds. A cell with fewer groups than folds is in some folds and not in others.
    """
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


def check_groups(records: list[Record], grouping: Grouping, params: SplitParams) -> None:
    """Refuse a fold that does not exist, and groups too few for the folds; or say so of these.

    Raises:
        ParameterError: see there; two groups at least there must be.
    """
    if params.fold >= params.folds:
        wanted = f"want 0 to {params.folds - 1}, since split.folds is {params.folds}"
        raise ParameterError(f"params.yaml: split.fold: found {params.fold}, {wanted}")
    groups, least = len(grouping.groups), 2 * params.folds
    if groups >= least:
        return
    joined = groups < len(records)
    found = f"{groups} group{'s' * (groups > 1)} of {len(records)} records" if joined else f"{groups} records"
    message = (
        f"params.yaml: split.folds: found {params.folds} for {found}, want at least two groups of near-duplicates "
        "a fold (a record without any is a group); lower split.folds or keep more records"
    )
    if joined:
        way = suggest(records, params.likeness, least) or "no higher similarity is enough here"
        largest = max(grouping.groups, key=len)
        message += (
            f"\nThe largest group holds {len(largest)} records, such as '{largest[0].question[:60]}' and "
            f"'{largest[1].question[:60]}'; by their questions alone all records are in {grouping.question_groups}. "
            f"Where they differ in a name or a sum and may stand apart, raise what joins them: {way}"
        )
    warn_or_refuse(message, params, possible=groups > 1)


def check_parts(parts: dict[str, list[Record]], grouping: Grouping, params: SplitParams) -> dict[str, int]:
    """Return the number of groups in each split, and refuse, or say, that there are too few for a verdict.

    Raises:
        ParameterError: see there; the test and the training split must hold something.
    """
    home = {record.id: name for name in SPLITS for record in parts[name]}
    groups = Counter(home[first.id] for first, *_ in grouping.groups)
    for name in ("test", "train"):
        if groups[name] < 2:
            holds = f"is one group of {len(parts[name])} near-duplicates" if parts[name] else "is empty"
            message = (
                f"params.yaml: split.fold: with {params.fold} the {name} split {holds}: no verdict can rest on it; "
                "take another fold, lower split.folds, or raise split.near_duplicate_similarity or "
                "split.near_duplicate_answer_similarity, which join the records"
            )
            warn_or_refuse(message, params, possible=groups[name] > 0)
    return {name: groups[name] for name in SPLITS}


def warn_or_refuse(message: str, params: SplitParams, possible: bool) -> None:
    """Print a message where `too_few_groups` is `warn` and there is a way on; raise it elsewhere."""
    if params.too_few_groups == "refuse" or not possible:
        raise ParameterError(message + ("; or set split.too_few_groups to warn" if possible else ""))
    say(f"warning: {message}")


def doubts(
    parts: dict[str, list[Record]], largest: Group, tested: dict[str, Any], params: SplitParams
) -> Iterator[str]:
    """Yield what a reader should know before a verdict is taken from the test split."""
    total = sum(map(len, parts.values()))
    if len(largest) * params.folds > total:
        yield (
            f"one group holds {len(largest)} of {total} records, more than a fold; where they differ in a name or a "
            "sum and may stand apart, raise split.near_duplicate_similarity or split.near_duplicate_answer_similarity"
        )
    if params.validation_fraction and not parts["validation"]:
        yield f"none to validate on: split.validation_fraction {params.validation_fraction} is less than any group"
    if shared := tested["shared_answers"]:
        why = f"shorter than split.near_duplicate_answer_characters ({params.near_duplicate_answer_characters})"
        if params.near_duplicate_answer_similarity is None:
            why = "and split.near_duplicate_answer_similarity is empty"
        yield f"{shared} of {len(parts['test'])} test answers stand in train, {why}: they join no records"
    if alone := tested["untrained_categories"]:
        names = ", ".join(name or "(none)" for name in alone)
        yield f"categories in test alone, of which nothing is trained on: {names}"


def main() -> None:
    (params,) = read_sections(split=SplitParams)
    records = read_records(RECORDS)
    grouping = group_records(records, params.likeness)
    check_groups(records, grouping, params)
    parts = split_records(grouping.groups, params)
    groups = check_parts(parts, grouping, params)
    check_splits(parts, grouping.groups, params.likeness)
    near_duplicates = list_groups(grouping)
    # All or none: a test split of this run beside a training split of another would leak.
    with folder_aside(FOLDER) as folder:
        for name in SPLITS:
            write_records(folder / f"{name}.jsonl", parts[name])
        write_jsonl(folder / NEAR_DUPLICATES, near_duplicates)
    largest = max(grouping.groups, key=len)
    tested = describe_test(parts["test"], parts["train"], near_duplicates, grouping.answers)
    write_json(
        METRICS,
        {
            "fold": params.fold,
            "folds": params.folds,
            "near_duplicates": {
                "similarity": params.near_duplicate_similarity,
                "answer_similarity": params.near_duplicate_answer_similarity,
                "groups_of_several": len(near_duplicates),
                "groups_by_answers": len(grouping.by_answers),
                "largest_group": len(largest),
            },
            "groups": groups,
            "test_data": tested,
            "records": {name: {"total": len(parts[name]), **count_by(parts[name])} for name in SPLITS},
        },
    )
    if near_duplicates:
        joined = sum(len(line["records"]) for line in near_duplicates)
        found = f"{joined} records, groups {len(near_duplicates)}, for their answers {len(grouping.by_answers)}"
        say(f"split: near-duplicates: {found} -> {FOLDER / NEAR_DUPLICATES}")
    for doubt in doubts(parts, largest, tested, params):
        say(f"warning: {doubt}")
    print("split: " + ", ".join(f"{name} {len(parts[name])}" for name in SPLITS) + f" -> {FOLDER}")


if __name__ == "__main__":
    run(main, lock="split")
