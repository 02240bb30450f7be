"""Reads the dataset, cleans and checks every row, and keeps the rows that were asked for.

Reads:  prepare.source: a .csv, .tsv, .jsonl, .parquet or .xlsx file, or a folder of them; data/reference
Writes: data/prepared/records.jsonl, data/prepared/extra.jsonl (columns that the pipeline does not use, by record id),
        data/rejected.jsonl, metrics/prepare.json, metrics/plots/dataset.csv
Params: prepare

Nothing is dropped in silence: kept + filtered + rejected = read, and every rejected row is in data/rejected.jsonl with
its file, line, reason and the whole row, whether the stage fails on it or goes on.
"""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from tqdm import tqdm

from civilqa.citations import judge_citation, parse_citations
from civilqa.errors import ParameterError, RecordError
from civilqa.files import sha256_file, write_csv, write_json, write_jsonl
from civilqa.parameters import Section, read_sections
from civilqa.personal_data import mask_personal_data
from civilqa.records import Record, count_by, record_id, write_records
from civilqa.stage import run
from civilqa.statutes import DELETED, NO_SUCH_ARTICLE, OUTSIDE_TABLE, load_reference
from civilqa.tables import BadRow, Row, TableInfo, find_tables, open_table
from civilqa.text import clean

RECORDS = Path("data/prepared/records.jsonl")
EXTRA = Path("data/prepared/extra.jsonl")
REJECTED = Path("data/rejected.jsonl")
METRICS = Path("metrics/prepare.json")
PLOT = Path("metrics/plots/dataset.csv")

COLUMNS = ("question", "answer", "category", "difficulty")
PROBLEMS_SHOWN = 20


class PrepareParams(Section):
    source: str
    columns: dict[Literal["question", "answer", "category", "difficulty"], str]
    categories: list[str]
    difficulties: list[str]
    allowed_categories: list[str]
    allowed_difficulties: list[str]
    min_question_characters: Annotated[int, Field(ge=1)]
    min_answer_characters: Annotated[int, Field(ge=1)]
    mask_personal_data: bool
    on_invalid: Literal["fail", "drop"]


@dataclass
class Rejected:
    """A row that cannot be used. `reason` is a word to count by, `detail` what was found and what to do."""

    file: str
    line: int
    reason: str
    detail: str
    row: Any


@dataclass
class Reading:
    """What was read of all files: every row is in `records` or in `rejected`."""

    read: int = 0
    records: list[Record] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)  # what each record was made from
    rejected: list[Rejected] = field(default_factory=list)
    tables: list[TableInfo] = field(default_factory=list)
    personal_data: Counter[str] = field(default_factory=Counter)
    citations_outside_table: int = 0


def make_checker(params: PrepareParams) -> type[pydantic.BaseModel]:
    """Return the pydantic model that a cleaned row must fit."""

    def one_of(allowed: list[str]) -> Any:
        return Literal[tuple(allowed)] if allowed else str

    return pydantic.create_model(
        "CleanRow",
        question=Annotated[str, Field(min_length=params.min_question_characters)],
        answer=Annotated[str, Field(min_length=params.min_answer_characters)],
        category=one_of(params.allowed_categories),
        difficulty=one_of(params.allowed_difficulties),
    )


def describe_problem(problem: Any, params: PrepareParams) -> tuple[str, str]:
    """Return (reason, detail) for one of pydantic's errors about a row."""
    name, value = problem["loc"][0], problem["input"]
    if name in ("category", "difficulty"):
        plural = {"category": "categories", "difficulty": "difficulties"}[name]
        allowed = ", ".join(getattr(params, f"allowed_{plural}"))
        return f"unknown_{name}", f"{name} {value!r} is not among prepare.allowed_{plural}: {allowed}"
    if not value:
        return "empty", f"empty '{name}'; fill it in or delete the row"
    least = getattr(params, f"min_{name}_characters")
    return "too_short", f"'{name}' has {len(value)} characters, want {least} (prepare.min_{name}_characters)"


def invented_citations(answer: str) -> tuple[list[str], int]:
    """Return the articles cited that do not exist, and how many citations are of acts outside the table."""
    reference = load_reference()
    invented, outside = [], 0
    for citation in parse_citations(answer):
        status = judge_citation(citation, reference)
        if status in (NO_SUCH_ARTICLE, DELETED):
            invented.append(f"{citation.law} {citation.article}")
        outside += status == OUTSIDE_TABLE
    return invented, outside


def read_source(source: str, params: PrepareParams) -> Reading:
    """Return every row of the source as a record or as a rejected row.

    Raises:
        RecordError: a file cannot be read as a table, or has not the columns.
    """
    names = {name: params.columns.get(name, name) for name in COLUMNS}
    checker = make_checker(params)
    reading = Reading()
    for path in find_tables(source):
        info, rows = open_table(path)
        missing = [name for name in names.values() if name not in info.columns]
        if missing:
            raise RecordError(
                f"{path}:1: no column {', '.join(missing)}; found {', '.join(info.columns)}; rename the columns, or "
                "say in prepare.columns what yours are called, e.g. {question: 질문}"
            )
        print(f"prepare: {path}: {info.format}, encoding {info.encoding}, delimiter {info.delimiter!r}")
        reading.tables.append(info)
        for row in tqdm(rows, desc=f"read {path.name}", unit=" rows", mininterval=0.5):
            reading.read += 1
            read_row(row, names, checker, params, reading)
    if reading.read == 0:
        raise RecordError(f"{source}: has no rows below its header")
    reject_duplicates(reading)
    return reading


def read_row(
    row: Row | BadRow, names: dict[str, str], checker: type[pydantic.BaseModel], params: PrepareParams, reading: Reading
) -> None:
    """Add one row to `reading`, as a record or as rejected."""
    if isinstance(row, BadRow):
        reading.rejected.append(Rejected(row.file, row.line, "unreadable", row.reason, row.raw))
        return

    def reject(reason: str, detail: str) -> None:
        reading.rejected.append(Rejected(row.file, row.line, reason, detail, row.fields))

    fields = {name: clean(row.fields.get(column, "")) for name, column in names.items()}
    try:
        checker.model_validate(fields)
    except pydantic.ValidationError as error:
        reject(*describe_problem(error.errors()[0], params))
        return
    invented, outside = invented_citations(fields["answer"])
    if invented:
        reject("no_such_article", f"the answer cites {', '.join(invented)}, which does not exist; mend the citation")
        return
    reading.citations_outside_table += outside
    for name in ("question", "answer"):
        masked, found = mask_personal_data(fields[name])
        reading.personal_data.update(found)
        if params.mask_personal_data:
            fields[name] = masked
    reading.records.append(Record(id=record_id(fields["question"]), **fields))
    reading.rows.append(row)


def reject_duplicates(reading: Reading) -> None:
    """Keep the first row of a question whose answers are equal, and none where they differ: which one is right?"""
    same_question: dict[str, list[int]] = {}
    for index, record in enumerate(reading.records):
        same_question.setdefault(record.id, []).append(index)
    dropped = set()
    for indices in same_question.values():
        if len(indices) == 1:
            continue
        places = [f"{reading.rows[index].file}:{reading.rows[index].line}" for index in indices]
        conflicting = len({reading.records[index].answer for index in indices}) > 1
        for index in indices if conflicting else indices[1:]:
            row = reading.rows[index]
            if conflicting:
                others = [place for place in places if place != f"{row.file}:{row.line}"]
                reason, detail = (
                    "conflicting_duplicate",
                    f"the same question has another answer in {', '.join(others)}; delete the wrong one",
                )
            else:
                reason, detail = "duplicate", f"the question and answer of {places[0]} again; delete one of the two"
            reading.rejected.append(Rejected(row.file, row.line, reason, detail, row.fields))
            dropped.add(index)
    kept = [index for index in range(len(reading.records)) if index not in dropped]
    reading.records = [reading.records[index] for index in kept]
    reading.rows = [reading.rows[index] for index in kept]


def unused_columns(reading: Reading, params: PrepareParams) -> list[dict[str, Any]]:
    """Return the columns that the pipeline does not use, by record id, for the records that have any."""
    used = {params.columns.get(name, name) for name in COLUMNS}
    lines = []
    for record, row in zip(reading.records, reading.rows, strict=True):
        aside = {column: value for column, value in row.fields.items() if column not in used}
        if aside:
            lines.append({"id": record.id, "file": row.file, "line": row.line, "fields": aside})
    return lines


def report_rejected(rejected: list[Rejected], on_invalid: str) -> None:
    """Write every rejected row, and stop the stage if that is what was asked for.

    Raises:
        RecordError: there are rejected rows and `on_invalid` is `fail`.
    """
    rejected.sort(key=lambda row: (row.file, row.line))
    write_jsonl(REJECTED, (asdict(row) for row in rejected))
    if not rejected:
        return
    shown = [f"{row.file}:{row.line}: {row.detail}" for row in rejected[:PROBLEMS_SHOWN]]
    if len(rejected) > PROBLEMS_SHOWN:
        shown.append(f"... and {len(rejected) - PROBLEMS_SHOWN} more")
    if on_invalid == "fail":
        raise RecordError(
            "\n".join(shown) + f"\nEvery one of them is in {REJECTED}; mend them, or set prepare.on_invalid to drop"
        )
    print(f"warning: {len(rejected)} rows rejected, all in {REJECTED}:\n" + "\n".join(shown))


def select(records: list[Record], params: PrepareParams) -> list[Record]:
    """Return the records of the categories and difficulties asked for, in their order; an empty list selects all.

    Raises:
        ParameterError: a category or difficulty that no record has; lists those there are.
    """
    for key, plural in (("category", "categories"), ("difficulty", "difficulties")):
        found = sorted({getattr(record, key) for record in records})
        unknown = [value for value in getattr(params, plural) if value not in found]
        if unknown:
            raise ParameterError(
                f"params.yaml: prepare.{plural}: no record has {', '.join(unknown)}; there are: {', '.join(found)}"
            )
    kept = [
        record
        for record in records
        if (not params.categories or record.category in params.categories)
        and (not params.difficulties or record.difficulty in params.difficulties)
    ]
    if not kept:
        raise ParameterError(
            f"params.yaml: prepare: no record is in both categories {params.categories} and difficulties "
            f"{params.difficulties}"
        )
    return kept


def length_quantiles(lengths: list[int]) -> dict[str, int]:
    """Return minimum, quartiles and maximum of lengths in characters; quartiles by nearest rank."""
    ordered = sorted(lengths)
    ranks = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
    return {name: ordered[round(rank * (len(ordered) - 1))] for name, rank in ranks.items()}


def difficulty_order(item: tuple[str, int]) -> tuple[int, str]:
    """Sort key that puts 초급, 중급, 고급 in the order a reader expects, and any other name after them."""
    known = ("초급", "중급", "고급")
    return (known.index(item[0]) if item[0] in known else len(known), item[0])


def main() -> None:
    (params,) = read_sections(prepare=PrepareParams)
    reading = read_source(params.source, params)
    report_rejected(reading.rejected, params.on_invalid)
    if not reading.records:
        raise RecordError(f"{params.source}: every row was rejected; {REJECTED} says why")
    kept = select(reading.records, params)

    write_records(RECORDS, kept)
    write_jsonl(EXTRA, unused_columns(reading, params))
    counts = count_by(kept)
    filtered = len(reading.records) - len(kept)
    write_json(
        METRICS,
        {
            "rows": {
                "read": reading.read,
                "kept": len(kept),
                "filtered": filtered,
                "rejected": len(reading.rejected),
            },
            "rejected_by_reason": dict(Counter(row.reason for row in reading.rejected)),
            "personal_data": dict(reading.personal_data),
            "citations_outside_table": reading.citations_outside_table,
            "records": counts,
            "question_characters": length_quantiles([len(record.question) for record in kept]),
            "answer_characters": length_quantiles([len(record.answer) for record in kept]),
            "sources": [{**asdict(info), "sha256": sha256_file(Path(info.file))} for info in reading.tables],
        },
    )
    write_csv(
        PLOT,
        [
            {"difficulty": difficulty, "series": category, "records": n}
            for category, by_difficulty in sorted(counts.items())
            for difficulty, n in sorted(by_difficulty.items(), key=difficulty_order)
        ],
        ["difficulty", "series", "records"],
    )
    if reading.personal_data:
        what = "masked" if params.mask_personal_data else "found and left as it is (prepare.mask_personal_data)"
        found = ", ".join(f"{kind} {n}" for kind, n in sorted(reading.personal_data.items()))
        print(f"warning: personal data {what}: {found}")
    if reading.citations_outside_table:
        print(f"warning: {reading.citations_outside_table} citations of acts outside data/reference were not checked")
    print(
        f"prepare: {reading.read} rows read: {len(kept)} kept, {filtered} filtered, {len(reading.rejected)} rejected "
        f"-> {RECORDS}"
    )


if __name__ == "__main__":
    run(main)
