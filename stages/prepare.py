"""Reads the dataset, cleans and checks every row, and keeps the rows that were asked for.

Reads:  prepare.source, a CSV in UTF-8 with the columns question, answer, category, difficulty
Writes: data/prepared/records.jsonl, metrics/prepare.json, metrics/plots/dataset.csv
Params: prepare

A row is never dropped in silence: a row that cannot be used stops the stage with its file and line, and kept plus
filtered is always read.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from civilqa.errors import ParameterError, RecordError
from civilqa.files import sha256_file, write_csv, write_json
from civilqa.parameters import Section, read_sections
from civilqa.records import Record, count_by, record_id, write_records
from civilqa.stage import run

RECORDS = Path("data/prepared/records.jsonl")
METRICS = Path("metrics/prepare.json")
PLOT = Path("metrics/plots/dataset.csv")

COLUMNS = ("question", "answer", "category", "difficulty")
PROBLEMS_SHOWN = 20

# Zero-width characters and the byte-order mark that text copied from PDF files and web pages is full of. They are
# invisible, split words for the tokenizer, and make equal questions unequal.
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


class PrepareParams(Section):
    source: str
    categories: list[str]
    difficulties: list[str]


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) for each row of a CSV; `line` is where the row starts, counted from 1.

    Raises:
        RecordError: no such file, not UTF-8, no CSV, a missing or repeated column, or a row with more or fewer fields.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise RecordError(f"{path}: not found; put the dataset there or set prepare.source") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise RecordError(
            f"{path}:{line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as 'CSV UTF-8'"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise RecordError(f"{path}:1: no column {', '.join(missing)}; found {', '.join(header) or 'an empty file'}")
        repeated = sorted({name for name in COLUMNS if header.count(name) > 1})
        if repeated:
            raise RecordError(f"{path}:1: column {', '.join(repeated)} is there more than once")
        line = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise RecordError(
                    f"{path}:{line}: found {len(fields)} fields, want {len(header)} as in the header; "
                    'put a field that holds a comma or a line break between double quotes ("...")'
                )
            if fields:
                yield line, dict(zip(header, fields, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise RecordError(f"{path}:{reader.line_num}: no CSV: {error}") from None


def clean(text: str) -> str:
    """Return text in NFC, without invisible and control characters, with single spaces and at most one blank line."""
    text = INVISIBLE.sub("", unicodedata.normalize("NFC", text)).replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(char if char == "\n" or unicodedata.category(char) != "Cc" else " " for char in text)
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def make_records(rows: Iterator[tuple[int, dict[str, str]]], path: Path) -> list[Record]:
    """Return the records of cleaned rows, in the file's order.

    Raises:
        RecordError: with every row that has an empty question or answer, or a question that an earlier row has.
    """
    records: list[Record] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for line, row in rows:
        question, answer, category, difficulty = (clean(row[name]) for name in COLUMNS)
        problems += [
            f"{path}:{line}: empty '{name}'; fill it in or delete the row"
            for name, value in (("question", question), ("answer", answer))
            if not value
        ]
        if not question or not answer:
            continue
        record = Record(
            id=record_id(question), question=question, answer=answer, category=category, difficulty=difficulty
        )
        if record.id in first_line:
            problems.append(f"{path}:{line}: the question of line {first_line[record.id]} again; delete one of the two")
            continue
        first_line[record.id] = line
        records.append(record)
    if problems:
        more = [f"... and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
        raise RecordError("\n".join(problems[:PROBLEMS_SHOWN] + more))
    if not records:
        raise RecordError(f"{path}: has no rows below its header")
    return records


def select(records: list[Record], categories: list[str], difficulties: list[str]) -> list[Record]:
    """Return the records of the given categories and difficulties, in their order; an empty list selects all.

    Raises:
        ParameterError: a category or difficulty that no record has; lists those there are.
    """
    for key, wanted in (("category", categories), ("difficulty", difficulties)):
        found = sorted({getattr(record, key) for record in records})
        unknown = [value for value in wanted if value not in found]
        if unknown:
            plural = {"category": "categories", "difficulty": "difficulties"}[key]
            raise ParameterError(
                f"params.yaml: prepare.{plural}: no record has {', '.join(unknown)}; there are: {', '.join(found)}"
            )
    kept = [
        record
        for record in records
        if (not categories or record.category in categories) and (not difficulties or record.difficulty in difficulties)
    ]
    if not kept:
        raise ParameterError(
            f"params.yaml: prepare: no record is in both categories {categories} and difficulties {difficulties}"
        )
    return kept


def length_quantiles(lengths: list[int]) -> dict[str, int]:
    """Return minimum, quartiles and maximum of lengths in characters; quartiles by nearest rank."""
    ordered = sorted(lengths)
    ranks = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
    return {name: ordered[round(rank * (len(ordered) - 1))] for name, rank in ranks.items()}


def main() -> None:
    (params,) = read_sections(prepare=PrepareParams)
    source = Path(params.source)
    rows = tqdm(read_rows(source), desc="prepare", unit=" rows", mininterval=0.5)
    records = make_records(rows, source)
    kept = select(records, params.categories, params.difficulties)

    write_records(RECORDS, kept)
    counts = count_by(kept)
    write_json(
        METRICS,
        {
            "rows": {"read": len(records), "kept": len(kept), "filtered": len(records) - len(kept)},
            "records": counts,
            "question_characters": length_quantiles([len(record.question) for record in kept]),
            "answer_characters": length_quantiles([len(record.answer) for record in kept]),
            "source": {"path": params.source, "sha256": sha256_file(source)},
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
    print(f"prepare: {len(kept)} of {len(records)} records kept -> {RECORDS}")


def difficulty_order(item: tuple[str, int]) -> tuple[int, str]:
    """Sort key that puts 초급, 중급, 고급 in the order a reader expects, and any other name after them."""
    name = item[0]
    known = ("초급", "중급", "고급")
    return (known.index(name) if name in known else len(known), name)


if __name__ == "__main__":
    run(main)
