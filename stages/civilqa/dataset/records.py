"""A record: one question and answer of the dataset, as every stage passes it on."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from civilqa.program.errors import RecordError
from civilqa.program.files import read_jsonl, write_jsonl

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Record:
    """One question and answer.

    `id` is the record's name for good: it depends on the question alone. Of several answers to one question the first
    in the file has this id, and each further one variant_id. `category` and `difficulty` may be empty.
    """

    id: str
    question: str
    answer: str
    category: str
    difficulty: str

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        # To another process in half the time of a dataclass's own way.
        return Record, (self.id, self.question, self.answer, self.category, self.difficulty)


FIELDS = tuple(field.name for field in fields(Record))
_NAMES = set(FIELDS)


def record_id(question: str) -> str:
    """Return the id of a cleaned question: `q-` and 12 hex digits of the SHA-256 of its NFC text.

    12 digits are 48 bits: among a million questions two share an id with a probability of about 0.2 % (n²/2⁴⁹), which
    prepare checks for.
    """
    return "q-" + hashlib.sha256(unicodedata.normalize("NFC", question).encode()).hexdigest()[:12]


def variant_id(record: Record) -> str:
    """Return the id of a further answer to a question: the question's and 12 hex digits of the answer's SHA-256."""
    return f"{record.id}-{hashlib.sha256(record.answer.encode()).hexdigest()[:12]}"


def question_id(name: str) -> str:
    """Return the id that a record with this one, which may be a further answer, has for its question."""
    return "-".join(name.split("-")[:2])


def iterate_records(path: Path) -> Iterator[Record]:
    """Yield the records of a JSONL file that a stage wrote.

    Raises:
        RecordError: the file is missing or a line of it is no record; names the file and the line.
    """
    for number, row in enumerate(read_jsonl(path), start=1):
        if row.keys() != _NAMES or set(map(type, row.values())) != {str}:
            raise RecordError(f"{path}:{number}: is no record; run the stage that writes it, or `dvc repro`")
        yield Record(**row)


def read_records(path: Path) -> list[Record]:
    """Return the records of a JSONL file that a stage wrote; see iterate_records."""
    return list(iterate_records(path))


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records as JSONL."""
    write_jsonl(path, ({name: getattr(record, name) for name in FIELDS} for record in records))


def count_by(records: Iterable[Record]) -> dict[str, dict[str, int]]:
    """Return the number of records by category and difficulty, as {category: {difficulty: n}}."""
    counts: dict[str, dict[str, int]] = {}
    for record in records:
        by_difficulty = counts.setdefault(record.category or "(none)", {})
        key = record.difficulty or "(none)"
        by_difficulty[key] = by_difficulty.get(key, 0) + 1
    return counts


def difficulty_order(difficulty: str) -> tuple[int, str]:
    """Return a key that sorts 초급, 중급, 고급 as a reader expects, and any other name after them."""
    known = ("초급", "중급", "고급")
    return (known.index(difficulty) if difficulty in known else len(known), difficulty)
