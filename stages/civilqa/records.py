"""A record: one question and answer of the dataset, as every stage passes it on."""

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from civilqa.files import read_jsonl, write_jsonl

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One question and answer.

    `id` is the record's name for good: it depends on the question alone, so that mending an answer, reordering the
    file or adding rows moves no record to another split. `category` and `difficulty` may be empty.
    """

    id: str
    question: str
    answer: str
    category: str
    difficulty: str


def record_id(question: str) -> str:
    """Return the id of a cleaned question: `q-` and 12 hex digits of the SHA-256 of its NFC text.

    12 digits are 48 bits: among a million questions two share an id with a probability of about 0.2 % (n²/2⁴⁹), which
    prepare checks for.
    """
    return "q-" + hashlib.sha256(unicodedata.normalize("NFC", question).encode()).hexdigest()[:12]


def read_records(path: Path) -> list[Record]:
    """Return the records of a JSONL file that a stage wrote."""
    return [Record(**row) for row in read_jsonl(path)]


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSONL."""
    write_jsonl(path, (asdict(record) for record in records))


def count_by(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Return the number of records by category and difficulty, as {category: {difficulty: n}}."""
    counts: dict[str, dict[str, int]] = {}
    for record in records:
        by_difficulty = counts.setdefault(record.category or "(none)", {})
        key = record.difficulty or "(none)"
        by_difficulty[key] = by_difficulty.get(key, 0) + 1
    return counts
