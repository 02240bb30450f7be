"""The readings of rows against the law, in data/raw/reviews.csv; its columns are described in data/README.md."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from civilqa.program.errors import RecordError
from civilqa.reading.rows import BadRow
from civilqa.reading.tables import open_table

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
    info, rows = open_table(path)  # as Excel saves it, too
    if info.columns != COLUMNS:
        raise RecordError(f"{path}:1: found the columns {', '.join(info.columns)}, want {', '.join(COLUMNS)}")
    for row in rows:
        if isinstance(row, BadRow):
            problems.append(str(row))
            continue
        place, fields = f"{path}:{row.line}", row.fields
        day, _, acts = fields["basis"].partition(":")
        named = tuple(act.strip() for act in acts.split(",") if act.strip())
        try:
            read_on, law_of = date.fromisoformat(fields["read_on"]), date.fromisoformat(day)
        except ValueError as error:
            problems.append(f"{place}: {error}; {WANTED}")
            continue
        reading = Reading(fields["id"], read_on, law_of, named, fields["finding"])
        if reading.id in readings and readings[reading.id].read_on > read_on:
            problems.append(f"{place}: {reading.id} was read later in a line above; sort the lines")
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
