"""All tables of the source as records: each question once, and every row that makes none with its reason."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from tqdm import tqdm

from civilqa.dataset.parallel import map_chunks
from civilqa.dataset.records import Record
from civilqa.law.statutes import load_reference
from civilqa.program.errors import RecordError
from civilqa.program.lifecycle.safe_output import printable
from civilqa.reading.checks import COLUMNS, PrepareParams, Rejected, make_row_checker, reject
from civilqa.reading.rows import BadRow, Row, TableInfo
from civilqa.reading.tables import find_tables, open_table

PLACES_SHOWN = 5


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


def read_source(source: str, params: PrepareParams) -> Reading:
    """Return every row of the source as a record or as a rejected row.

    Raises:
        RecordError: a file cannot be read as a table, or has not the columns.
    """
    reading = Reading()
    load_reference()  # a fault in it is told here rather than by every process
    progress = tqdm(desc="prepare", unit=" rows", unit_scale=True)
    for chunk, checked in map_chunks(make_row_checker, (params,), open_tables(source, params, reading.tables)):
        progress.update(len(chunk))
        reading.read += len(chunk)
        reading.personal_data += checked.personal_data
        reading.citations_outside_table += checked.citations_outside_table
        for row, outcome in zip(chunk, checked.outcomes, strict=True):
            if isinstance(outcome, Rejected):
                reading.rejected.append(outcome)
            else:
                share_text(row, outcome, params)
                reading.records.append(outcome)
                reading.rows.append(row)
    progress.close()
    if reading.read == 0:
        raise RecordError(f"{source}: has no rows below its header")
    reject_duplicates(reading, params)
    return reading


def open_tables(source: str, params: PrepareParams, tables: list[TableInfo]) -> Iterator[Row | BadRow]:
    """Yield every row of every file of the source; what the files are goes to `tables`."""
    names = [params.column(name) for name in COLUMNS]
    for path in find_tables(source):
        info, rows = open_table(path)
        missing = [name for name in names if name not in info.columns]
        if missing:
            raise RecordError(
                f"{path}:1: no column {', '.join(missing)}; found {', '.join(info.columns)}; rename the columns, or "
                "say in prepare.columns what yours are called, e.g. {question: 질문}"
            )
        print(f"prepare: {printable(str(path))}: {info.format}, encoding {info.encoding}, delimiter {info.delimiter!r}")
        tables.append(info)
        yield from rows


def share_text(row: Row, record: Record, params: PrepareParams) -> None:
    """Let a row hold the record's own text where cleaning and masking changed none of it: half the memory."""
    for name in COLUMNS:
        column, text = params.column(name), getattr(record, name)
        if row.fields.get(column) == text:
            row.fields[column] = text


def reject_duplicates(reading: Reading, params: PrepareParams) -> None:
    """Keep the first row of a question whose answers are equal, and none where they differ: which one is right?"""
    first: dict[str, int] = {}
    same_question: dict[str, list[int]] = {}
    for index, record in enumerate(reading.records):
        if first.setdefault(record.id, index) != index:
            same_question.setdefault(record.id, [first[record.id]]).append(index)
    dropped = set()
    for indices in same_question.values():
        rows = {index: reading.rows[index] for index in indices}
        places = {index: f"{row.file}:{row.line}" for index, row in rows.items()}
        if len({reading.records[index].question for index in indices}) > 1:
            raise RecordError(f"{', '.join(places.values())}: two questions have the same id by chance; reword one")
        if len({reading.records[index].answer for index in indices}) == 1:
            detail = f"the question and answer of {places[indices[0]]} again; delete one of the two"
            rejected = {index: reject(rows[index], "duplicate", detail, params) for index in indices[1:]}
        else:
            rejected = {}
            for index, row in rows.items():
                others = (place for other, place in places.items() if other != index)
                shown = ", ".join(islice(others, PLACES_SHOWN)) + (" and more" if next(others, None) else "")
                detail = f"the same question has another answer in {shown}; delete the wrong one"
                rejected[index] = reject(row, "conflicting_duplicate", detail, params)
        reading.rejected += rejected.values()
        dropped |= rejected.keys()
    kept = [index for index in range(len(reading.records)) if index not in dropped]
    reading.records = [reading.records[index] for index in kept]
    reading.rows = [reading.rows[index] for index in kept]
