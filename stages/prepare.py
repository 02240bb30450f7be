"""Reads the dataset, cleans and checks every row, and keeps the rows that were asked for.

Reads:  prepare.source: a file or a folder of files, text, JSON, Parquet or a workbook; data/reference
Writes: data/prepared/records.jsonl, data/prepared/extra.jsonl (columns that the pipeline does not use, by record id),
        data/prepared/report.html (the data at a glance), data/rejected.jsonl, metrics/prepare.json,
        metrics/plots/dataset.csv
Params: prepare, reference

Nothing is dropped in silence: kept + filtered + rejected + left out is what the files hold. Every rejected row is in
data/rejected.jsonl with its file, line, reason and the whole row, whether the stage fails on it or goes on; files,
sheets and lines that are left out are named. Personal data is masked in all that is written.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="prepare.source")

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from civilqa.dataset.records import Record, count_by, difficulty_order, write_records
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import write_csv, write_json, write_jsonl, write_text
from civilqa.program.lifecycle.languages import say
from civilqa.program.parameters import read_sections
from civilqa.reading.account import count_files, describe_sources, notes, short_answers
from civilqa.reading.checks import PLURALS, PrepareParams, Rejected
from civilqa.reading.columns import COLUMNS
from civilqa.reading.data_report import render_data_report
from civilqa.reading.duplicates import LEFT_OUT
from civilqa.reading.newer_law import newer_law
from civilqa.reading.personal_data import mask_cells
from civilqa.reading.source import Reading, read_source
from civilqa.reading.tracking import untracked_note

RECORDS = Path("data/prepared/records.jsonl")
EXTRA = Path("data/prepared/extra.jsonl")
REPORT = Path("data/prepared/report.html")
REJECTED = Path("data/rejected.jsonl")
METRICS = Path("metrics/prepare.json")
PLOT = Path("metrics/plots/dataset.csv")

PROBLEMS_SHOWN = 20


def unused_fields(reading: Reading, params: PrepareParams) -> Iterator[dict[str, Any]]:
    """Yield the columns that the pipeline does not use, by record id, for the records that have any."""
    for record, row in zip(reading.records, reading.rows, strict=True):
        aside = {column: text for column, text in row.fields.items() if column not in COLUMNS}
        if aside:
            fields = mask_cells(aside, params.mask_personal_data, params.mask_addresses)
            yield {"id": record.id, "file": row.file, "line": row.line, "fields": fields}


def report_rejected(rejected: list[Rejected], on_invalid: str) -> None:
    """Write every rejected row, and stop the stage if that is what was asked for.

    Raises:
        RecordError: there are rejected rows and `on_invalid` is `fail`.
    """
    rejected.sort(key=lambda row: (row.file, row.line))
    write_jsonl(REJECTED, (asdict(row) for row in rejected))
    repeated = [row for row in rejected if row.reason in LEFT_OUT]
    wrong = [row for row in rejected if row.reason not in LEFT_OUT]
    if repeated:
        what = f"{len(repeated)} rows left out for one with the same question, all in {REJECTED}:"
        say(f"warning: {what}\n{listed(repeated)}")
    if wrong and on_invalid == "fail":
        raise RecordError(
            f"{listed(wrong)}\nEvery one of them is in {REJECTED}; mend them, or set prepare.on_invalid to drop"
        )
    if wrong:
        say(f"warning: {len(wrong)} rows rejected, all in {REJECTED}:\n{listed(wrong)}")


def listed(rejected: list[Rejected]) -> str:
    """Return where the first of the rows are and what of them, a line each, and how many more there are."""
    more = [f"... and {len(rejected) - PROBLEMS_SHOWN} more"] if len(rejected) > PROBLEMS_SHOWN else []
    return "\n".join([f"{row.file}:{row.line}: {row.detail}" for row in rejected[:PROBLEMS_SHOWN]] + more)


def select(records: list[Record], params: PrepareParams) -> list[Record]:
    """Return the records of the categories and difficulties asked for, in their order; an empty list selects all.

    Raises:
        ParameterError: a category or difficulty that no record has; lists those there are.
    """
    for key, plural in PLURALS.items():
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
    kept = reading.keep(select(reading.records, params))

    write_records(RECORDS, kept)
    write_jsonl(EXTRA, unused_fields(reading, params))
    write_text(REPORT, render_data_report(reading, kept, params))
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
                "left_out": reading.rows_left_out,
            },
            **count_files(reading),
            "rejected_by_reason": dict(Counter(row.reason for row in reading.rejected)),
            "short_answers": len(short_answers(reading, params)),
            "variants": len(kept) - len({record.question for record in kept}),
            "personal_data": dict(reading.personal_data),
            "leftovers": reading.leftovers,
            "rows_with_citations_in_doubt": reading.in_doubt,
            "citations_outside_table": reading.citations_outside_table,
            "records": counts,
            "question_characters": length_quantiles([len(record.question) for record in kept]),
            "answer_characters": length_quantiles([len(record.answer) for record in kept]),
            "sources": describe_sources(reading.tables),
        },
    )
    write_csv(
        PLOT,
        [
            {"difficulty": difficulty, "series": category, "records": n}
            for category, by_difficulty in sorted(counts.items())
            for difficulty, n in sorted(by_difficulty.items(), key=lambda item: difficulty_order(item[0]))
        ],
        ["difficulty", "series", "records"],
    )
    for note in notes(reading, params):
        say(f"prepare: {note}")
    if reading.personal_data:
        what = "masked" if params.mask_personal_data else "found and left as it is (prepare.mask_personal_data)"
        found = ", ".join(f"{kind} {n}" for kind, n in sorted(reading.personal_data.items()))
        say(f"warning: personal data {what}: {found}")
    if reading.in_doubt:
        shown = [f"{file}:{line}: {detail}" for file, line, detail in reading.doubtful_citations[:PROBLEMS_SHOWN]]
        say(f"warning: {reading.in_doubt} rows kept whose citations do not hold:\n" + "\n".join(shown))
        if reading.in_doubt > PROBLEMS_SHOWN:
            say(
                f"... and {reading.in_doubt - PROBLEMS_SHOWN} more; prepare.check_citations: reject puts them all aside"
            )
    if reading.citations_outside_table:
        say(f"warning: {reading.citations_outside_table} citations of acts outside data/reference were not checked")
    for warning in filter(None, (newer_law(kept), untracked_note(Path(params.source)))):
        say(f"warning: {warning}")
    left_out = f", {reading.rows_left_out} left out" if reading.rows_left_out else ""
    say(
        f"prepare: {reading.read} rows read: {len(kept)} kept, {filtered} filtered, {len(reading.rejected)} rejected"
        f"{left_out} -> {RECORDS}"
    )


def main() -> None:
    prepare(*read_sections(prepare=PrepareParams))


if __name__ == "__main__":
    run(main, lock="prepare")
