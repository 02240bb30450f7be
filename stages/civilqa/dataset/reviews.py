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
class Review:
    """One reading; `law_of` is the day of the law that it was read against."""

    id: str
    read_on: date
    law_of: date
    acts: tuple[str, ...]
    finding: str


def read_reviews(path: Path = REVIEWS) -> dict[str, Review]:
    """Return the last reading of each row by its id; nothing where there is no such file.

    Raises:
        RecordError: with every line that is not as it must be, in one message.
    """
    if not path.is_file():
        return {}
    reviews: dict[str, Review] = {}
    problems = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise RecordError(f"{path}:1: found the columns {reader.fieldnames}, want {', '.join(COLUMNS)}")
        for row in reader:
            try:
                day, _, acts = row["basis"].partition(":")
                named = tuple(act.strip() for act in acts.split(",") if act.strip())
                review = Review(
                    row["id"], date.fromisoformat(row["read_on"]), date.fromisoformat(day), named, row["finding"]
                )
            except (TypeError, ValueError, AttributeError) as error:
                problems.append(f"{path}:{reader.line_num}: {error}; {WANTED}")
                continue
            if review.id in reviews and reviews[review.id].read_on > review.read_on:
                problems.append(f"{path}:{reader.line_num}: {review.id} was read later in a line above; sort the lines")
            reviews[review.id] = review
    if problems:
        raise RecordError("\n".join(problems))
    return reviews


def summarize(reviews: Iterable[Review]) -> str:
    """Return the table of the data card, in Markdown: how many rows were last read against the law of which day."""
    by_day: dict[date, list[Review]] = defaultdict(list)
    for review in reviews:
        by_day[review.law_of].append(review)
    lines = ["| law of | rows and cases | last read | acts |", "| --- | --- | --- | --- |"]
    for day, read in sorted(by_day.items()):
        acts = {act for review in read for act in review.acts}
        lines.append(f"| {day} | {len(read)} | {max(review.read_on for review in read)} | {len(acts)} |")
    return "\n".join(lines)
