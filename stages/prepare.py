"""Reads the dataset, cleans and checks every row, and keeps the rows that were asked for.

Reads:  prepare.source: a .csv, .tsv, .jsonl, .parquet or .xlsx file, or a folder of them; data/reference
Writes: data/prepared/records.jsonl, data/prepared/extra.jsonl (columns that the pipeline does not use, by record id),
        data/rejected.jsonl, metrics/prepare.json, metrics/plots/dataset.csv
Params: prepare

Nothing is dropped in silence: kept + filtered + rejected = read, and every rejected row is in data/rejected.jsonl with
its file, line, reason and the whole row, whether the stage fails on it or goes on. Personal data is masked in all that
is written.
"""

if __name__ == "__main__":
    from civilqa.program.lifecycle.interruptions import end_while_importing

    end_while_importing()

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field
from tqdm import tqdm

from civilqa.dataset.parallel import map_chunks
from civilqa.dataset.records import Record, count_by, record_id, write_records
from civilqa.law.citations import judge_citation, parse_citations
from civilqa.law.statutes import DELETED, NO_SUCH_ARTICLE, OUTSIDE_TABLE, load_reference
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import sha256_file, write_csv, write_json, write_jsonl
from civilqa.program.lifecycle.safe_output import printable
from civilqa.program.lifecycle.stage import run
from civilqa.program.parameters import Section, Text, read_sections
from civilqa.reading.cleaning import clean
from civilqa.reading.personal_data import mask_personal_data
from civilqa.reading.tables import BadRow, Row, TableInfo, find_tables, open_table

RECORDS = Path("data/prepared/records.jsonl")
EXTRA = Path("data/prepared/extra.jsonl")
REJECTED = Path("data/rejected.jsonl")
METRICS = Path("metrics/prepare.json")
PLOT = Path("metrics/plots/dataset.csv")

COLUMNS = ("question", "answer", "category", "difficulty")
PROBLEMS_SHOWN = 20
PLACES_SHOWN = 5


class PrepareParams(Section):
    source: Text
    columns: dict[Literal["question", "answer", "category", "difficulty"], str]
    categories: list[str]
    difficulties: list[str]
    allowed_categories: list[str]
    allowed_difficulties: list[str]
    min_question_characters: Annotated[int, Field(ge=1)]
    min_answer_characters: Annotated[int, Field(ge=1)]
    mask_personal_data: bool
    on_invalid: Literal["fail", "drop"]


@dataclass(slots=True)
class Rejected:
    """A row that cannot be used. `reason` is a word to count by, `detail` what was found and what to do."""

    file: str
    line: int
    reason: str
    detail: str
    row: Any


@dataclass
class Checked:
    """What came of some rows: for each a record or why it is rejected, and what was found in the records."""

    outcomes: list[Record | Rejected] = field(default_factory=list)
    personal_data: Counter[str] = field(default_factory=Counter)
    citations_outside_table: int = 0


@dataclass
class Reading:
    """What was read of all files: every row is in `records` or in `rejected`."""

    read: int = 0
    records: list[Record] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)  # what each record was made from, as JSON of [file, line, fields]
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


def make_row_checker(params: PrepareParams) -> Callable[[list[Row | BadRow]], Checked]:
    """Return the function that turns rows into records or into rejected rows."""
    names = {name: params.columns.get(name, name) for name in COLUMNS}
    checker = make_checker(params)

    def check_rows(rows: list[Row | BadRow]) -> Checked:
        checked = Checked()
        for row in rows:
            checked.outcomes.append(check_row(row, names, checker, params, checked))
        return checked

    return check_rows


def check_row(
    row: Row | BadRow, names: dict[str, str], checker: type[pydantic.BaseModel], params: PrepareParams, checked: Checked
) -> Record | Rejected:
    """Return the record that a row makes, or why it makes none; count in `checked` what was found in a record."""
    if isinstance(row, BadRow):
        return reject(row, "unreadable", row.reason, params)
    fields = {name: clean(row.fields.get(column, "")) for name, column in names.items()}
    try:
        checker.model_validate(fields)
    except pydantic.ValidationError as error:
        return reject(row, *describe_problem(error.errors()[0], params), params)
    invented, outside = invented_citations(fields["answer"])
    if invented:
        detail = f"the answer cites {', '.join(invented)}, which does not exist; mend the citation"
        return reject(row, "no_such_article", detail, params)
    checked.citations_outside_table += outside
    for name in ("question", "answer"):
        masked, found = mask_personal_data(fields[name])
        checked.personal_data.update(found)
        if params.mask_personal_data:
            fields[name] = masked
    return Record(id=record_id(fields["question"]), **fields)


def reject(row: Row | BadRow, reason: str, detail: str, params: PrepareParams) -> Rejected:
    """Return a rejected row with the whole of what was read."""
    if isinstance(row, BadRow):
        return Rejected(row.file, row.line, reason, detail, mask(row.raw, params))
    fields = {column: mask(text, params) for column, text in row.fields.items()}
    return Rejected(row.file, row.line, reason, mask(detail, params), fields)


def mask(text: str, params: PrepareParams) -> str:
    """Return text as it may be written: what this stage puts aside is shared by `dvc push` like the records are."""
    return mask_personal_data(text)[0] if params.mask_personal_data else text


def open_tables(source: str, params: PrepareParams, reading: Reading) -> Iterator[Row | BadRow]:
    """Yield every row of every file of the source; what the files are goes to `reading`.

    Raises:
        RecordError: a file cannot be read as a table, or has not the columns.
    """
    names = [params.columns.get(name, name) for name in COLUMNS]
    for path in find_tables(source):
        info, rows = open_table(path)
        missing = [name for name in names if name not in info.columns]
        if missing:
            raise RecordError(
                f"{path}:1: no column {', '.join(missing)}; found {', '.join(info.columns)}; rename the columns, or "
                "say in prepare.columns what yours are called, e.g. {question: 질문}"
            )
        print(f"prepare: {printable(str(path))}: {info.format}, encoding {info.encoding}, delimiter {info.delimiter!r}")
        reading.tables.append(info)
        yield from rows


def read_source(source: str, params: PrepareParams) -> Reading:
    """Return every row of the source as a record or as a rejected row.

    Raises:
        RecordError: a file cannot be read as a table, or has not the columns.
    """
    reading = Reading()
    load_reference()  # a fault in it is told here rather than by every process
    progress = tqdm(desc="prepare", unit=" rows", unit_scale=True)
    for chunk, checked in map_chunks(make_row_checker, (params,), open_tables(source, params, reading)):
        progress.update(len(chunk))
        reading.read += len(chunk)
        reading.personal_data += checked.personal_data
        reading.citations_outside_table += checked.citations_outside_table
        for row, outcome in zip(chunk, checked.outcomes, strict=True):
            if isinstance(outcome, Rejected):
                reading.rejected.append(outcome)
            else:
                reading.records.append(outcome)
                reading.rows.append(json.dumps([row.file, row.line, row.fields], ensure_ascii=False))
    progress.close()
    if reading.read == 0:
        raise RecordError(f"{source}: has no rows below its header")
    reject_duplicates(reading, params)
    return reading


def reject_duplicates(reading: Reading, params: PrepareParams) -> None:
    """Keep the first row of a question whose answers are equal, and none where they differ: which one is right?"""
    first: dict[str, int] = {}
    same_question: dict[str, list[int]] = {}
    for index, record in enumerate(reading.records):
        if first.setdefault(record.id, index) != index:
            same_question.setdefault(record.id, [first[record.id]]).append(index)
    dropped = set()
    for indices in same_question.values():
        rows = {index: Row(*json.loads(reading.rows[index])) for index in indices}
        places = {index: f"{row.file}:{row.line}" for index, row in rows.items()}
        if len({reading.records[index].question for index in indices}) > 1:
            raise RecordError(f"{', '.join(places.values())}: two questions have the same id by chance; reword one")
        if len({reading.records[index].answer for index in indices}) == 1:
            detail = f"the question and answer of {places[indices[0]]} again; delete one of the two"
            rejected = {index: reject(rows[index], "duplicate", detail, params) for index in indices[1:]}
        else:
            rejected = {}
            for index, row in rows.items():
                others = [place for other, place in places.items() if other != index]
                shown = ", ".join(others[:PLACES_SHOWN]) + (" and more" if len(others) > PLACES_SHOWN else "")
                detail = f"the same question has another answer in {shown}; delete the wrong one"
                rejected[index] = reject(row, "conflicting_duplicate", detail, params)
        reading.rejected += rejected.values()
        dropped |= rejected.keys()
    kept = [index for index in range(len(reading.records)) if index not in dropped]
    reading.records = [reading.records[index] for index in kept]
    reading.rows = [reading.rows[index] for index in kept]


def unused_columns(reading: Reading, params: PrepareParams) -> Iterator[dict[str, Any]]:
    """Yield the columns that the pipeline does not use, by record id, for the records that have any."""
    used = {params.columns.get(name, name) for name in COLUMNS}
    for record, line in zip(reading.records, reading.rows, strict=True):
        row = Row(*json.loads(line))
        aside = {column: mask(text, params) for column, text in row.fields.items() if column not in used}
        if aside:
            yield {"id": record.id, "file": row.file, "line": row.line, "fields": aside}


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
    print(f"warning: {len(rejected)} rows rejected, all in {REJECTED}:\n" + printable("\n".join(shown)))


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


def prepare(params: PrepareParams) -> None:
    """Do the stage's work; see the top of this file.

    Raises:
        RecordError: the source cannot be read, a row is rejected and `on_invalid` is `fail`, or no row is left.
        ParameterError: nothing in the dataset is what the parameters select.
    """
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


def main() -> None:
    prepare(*read_sections(prepare=PrepareParams))


if __name__ == "__main__":
    run(main, alone="prepare")
