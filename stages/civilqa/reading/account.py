"""The account of what the source holds: which files and tables were read and how, and what was left out of them."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from civilqa.program.files import sha256_file, sha256_json
from civilqa.reading.checks import PrepareParams
from civilqa.reading.duplicates import PLACES_SHOWN
from civilqa.reading.names import count, shown_names, shown_place
from civilqa.reading.personal_data import mask_personal_data
from civilqa.reading.rows import Table
from civilqa.reading.source import TABLES_SHOWN, Reading

SHOWN = 20


def count_files(reading: Reading) -> dict[str, Any]:
    """Return how many files, and tables in them, were read and left out, with what is left out by name."""
    places = {item.file for item in reading.left_out}
    whole = [item for item in reading.left_out if os.path.lexists(item.file)]
    return {
        "files": {"read": len({path for path, _ in reading.tables}), "left_out": len(whole)},
        "tables": {"read": len(reading.tables), "left_out": len(places) - len(whole)},
        "left_out": [asdict(item) | {"file": shown_place(item.file)} for item in reading.left_out],
        "unused_columns": dict(unused_columns(reading)),
        "several_turns": sum(table.several_turns for _, table in reading.tables),
    }


def unused_columns(reading: Reading) -> Counter[str]:
    """Return in how many rows each column that no record is made of holds something."""
    total: Counter[str] = Counter()
    for _, table in reading.tables:
        for column, rows in table.unused.items():
            total[mask_personal_data(column)[0]] += rows
    return total


def describe_sources(tables: Iterable[tuple[Path, Table]]) -> list[dict[str, Any]]:
    """Return how each table was read; files of one record each that are alike are one entry, with their number."""
    entries: list[dict[str, Any]] = []
    digests: list[list[str]] = []
    digest = cache(sha256_file)
    for path, table in tables:
        entry = {
            **asdict(table.info),
            "columns": [mask_personal_data(column)[0] for column in table.info.columns],
            "kind": table.shape.kind,
            "tables": 1,
            "rows": table.read,
            "rows_left_out": dict(table.left_out),
            "merged_cells_filled": table.filled,
            "formulas_without_value": table.uncomputed,
        }
        if entries and table.read == 1 and is_alike(entries[-1], entry):
            entries[-1]["tables"] += 1
            entries[-1]["rows"] += 1
            digests[-1].append(digest(path))
        else:
            entries.append(entry)
            digests.append([digest(path)])
    for entry, found in zip(entries, digests, strict=True):
        entry["sha256"] = found[0] if len(set(found)) == 1 else sha256_json(found)
    return entries


def is_alike(entry: dict[str, Any], other: dict[str, Any]) -> bool:
    apart = ("file", "tables", "rows")
    return entry["rows"] == entry["tables"] and all(entry[key] == other[key] for key in other if key not in apart)


def short_answers(reading: Reading, params: PrepareParams) -> list[str]:
    """Return where the answers are that are kept though shorter than prepare.min_answer_characters."""
    short = {record.id for record in reading.kept if len(record.answer) < params.min_answer_characters}
    pairs = zip(reading.records, reading.rows, strict=True)
    return [f"{row.file}:{row.line}" for record, row in pairs if record.id in short]


def notes(reading: Reading, params: PrepareParams) -> Iterator[str]:
    """Yield a line for everything that is in the files and not in the records, or not as it stands there."""
    if len(reading.tables) > TABLES_SHOWN:
        yield f"{len(reading.tables) - TABLES_SHOWN} more tables read, all in metrics/prepare.json"
    yield from some(of_tables(reading))
    yield from some(
        f"warning: left out: {shown_place(item.file)}: {item.reason}"
        + (f" ({count(item.rows, 'row')})" if item.rows else "")
        for item in reading.left_out
    )
    unused = unused_columns(reading)
    if unused:
        listed = ", ".join(f"{shown_names([name])} in {count(rows, 'row')}" for name, rows in unused.most_common(SHOWN))
        more = f" and {len(unused) - SHOWN} more" if len(unused) > SHOWN else ""
        yield f"columns not used, kept in data/prepared/extra.jsonl: {listed}{more}"
    if several := sum(table.several_turns for _, table in reading.tables):
        yield (
            f"warning: of {count(several, 'conversation')} of several turns the {params.multi_turn} one was taken "
            "(prepare.multi_turn)"
        )
    if short := short_answers(reading, params):
        least = f"{params.min_answer_characters} characters (prepare.min_answer_characters, prepare.short_answers)"
        more = ", ..." if len(short) > PLACES_SHOWN else ""
        yield f"warning: answers of fewer than {least} kept in {count(len(short), 'row')}: " + (
            ", ".join(short[:PLACES_SHOWN]) + more
        )
    if reading.leftovers:
        shown = "; ".join(reading.leftover_places[:PLACES_SHOWN]) + (
            "; ..." if reading.leftovers > PLACES_SHOWN else ""
        )
        yield (
            f"warning: leftovers of markup or escapes in {count(reading.leftovers, 'row')}, which the model would "
            f"learn to write (prepare.check_text): {shown}"
        )


def of_tables(reading: Reading) -> Iterator[str]:
    for _, table in reading.tables:
        where = table.info.file
        for what, rows in table.left_out.items():
            yield f"warning: {where}: {count(rows, 'row')} {what} left out"
        if table.filled:
            yield f"{where}: {count(table.filled, 'cell')} filled with the text of the merged cell that they belong to"
        if table.uncomputed:
            yield (
                f"warning: {where}: {count(table.uncomputed, 'formula')} without a saved value, which counts as empty; "
                "open the workbook in Excel and save it again"
            )


def some(lines: Iterable[str]) -> Iterator[str]:
    """Yield the first lines, and how many more there are."""
    more = 0
    for number, line in enumerate(lines):
        if number < SHOWN:
            yield line
        else:
            more += 1
    if more:
        yield f"... and {more} more such lines, all in metrics/prepare.json"
