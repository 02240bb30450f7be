"""The readings of rows against the law, in data/raw/reviews.csv; its columns are described in data/README.md."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from civilqa.program.errors import RecordError

REVIEWS = Path("data/raw/reviews.csv")
COLUMNS = ("id", "read_on", "basis", "finding")
WANTED = "write days like 2026-06-08, and the basis like '2026-06-08: 민법, 형법'"


@dataclass(frozen=True)
class Reading:
    """One reading; `law_of` is the day of the law that it was read against."""

    id: str
    read_on: date
    law_of: date
    acts: tuple[str, ...]
    finding: str


def read_reviews(path: Path = REVIEWS) -> dict[str, Reading]:
    """Return the last reading of each row by its id; nothing where there is no such file.

    Raises:
        RecordError: with every line that is not as it must be, in one message.
    """
    if not path.is_file():
        return {}
    readings: dict[str, Reading] = {}
    problems = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise RecordError(f"{path}:1: found the columns {reader.fieldnames}, want {', '.join(COLUMNS)}")
        for row in reader:
            try:
                day, _, acts = row["basis"].partition(":")
                named = tuple(act.strip() for act in acts.split(",") if act.strip())
                reading = Reading(
                    row["id"], date.fromisoformat(row["read_on"]), date.fromisoformat(day), named, row["finding"]
                )
            except (TypeError, ValueError, AttributeError) as error:
                problems.append(f"{path}:{reader.line_num}: {error}; {WANTED}")
                continue
            if reading.id in readings and readings[reading.id].read_on > reading.read_on:
                problems.append(
                    f"{path}:{reader.line_num}: {reading.id} was read later in a line above; sort the lines"
                )
            readings[reading.id] = reading
    if problems:
        raise RecordError("\n".join(problems))
    return readings


def summarize(readings: Iterable[Reading]) -> str:
    """Return the table of the data card, in Markdown: how many rows were last read against the law of which day."""
    by_day: dict[date, list[Reading]] = defaultdict(list)
    for reading in readings:
        by_day[reading.law_of].append(reading)
    lines = ["| law of | rows and cases | last read | acts |", "| --- | --- | --- | --- |"]
    for day, read in sorted(by_day.items()):
        acts = {act for reading in read for act in reading.acts}
        lines.append(f"| {day} | {len(read)} | {max(reading.read_on for reading in read)} | {len(acts)} |")
    return "\n".join(lines)
