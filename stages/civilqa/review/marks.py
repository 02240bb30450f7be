"""A review: what one reviewer thinks of the answers to one question, as the pages save it.

Of an evaluation's questions there are two answers and a reference; of a question that was asked in the chat there is no
reference, and the base's answer only where the base was asked, too.

Each reviewer has a file, `data/reviews/review-NAME.jsonl`. A line is the whole state of one question at one moment: of
equal reviewer and answers the last one counts, and the earlier ones stay. A line without its end was being written when
the machine stopped: nobody was told that it is saved, and the next one takes its place.
"""

import errno
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from civilqa.program.errors import RecordError
from civilqa.program.files import json_line, sha256_json
from civilqa.program.lifecycle.locks import hold
from civilqa.program.lifecycle.machine_errors import writing

REVIEWS = Path("data/reviews")
SYSTEMS = ("base", "adapter")  # whose answers are reviewed
TAIL_BYTES = 16 * 1024 * 1024  # more than a line can have: the page takes no larger request

# What is said of an answer, the best first, and what may be wrong with it.
VERDICTS = {"good": "좋음", "usable": "쓸 만함", "wrong": "틀림"}
FAULTS = {"law": "법리", "citation": "조문 인용", "number": "숫자·기간", "form": "형식"}

Verdict = Literal["good", "usable", "wrong"]
Fault = Literal["law", "citation", "number", "form"]
System = Literal["base", "adapter"]
Name = Annotated[
    str,
    BeforeValidator(lambda name: unicodedata.normalize("NFC", name).strip() if isinstance(name, str) else name),
    Field(pattern=r"^\w[\w -]{0,39}$"),
]


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Mark(Strict):
    """What is said of one answer; `verdict` is None as long as nothing is."""

    verdict: Verdict | None
    faults: list[Fault]

    @model_validator(mode="after")
    def _only_what_is_wrong_has_faults(self) -> "Mark":
        if self.faults and self.verdict != "wrong":
            raise ValueError("faults: only of an answer that is wrong")
        return self

    @property
    def is_whole(self) -> bool:
        return self.verdict is not None and (self.verdict != "wrong" or bool(self.faults))


class GoldForm(Strict):
    """Gold annotations as a person types them: of lists a line each; / is between the wordings of a key point."""

    line: str
    answer: Literal["yes", "no", ""]
    says: str
    denies: str
    required_citations: str
    acceptable_citations: str
    key_points: str
    forbidden: str
    numbers: str


class Review(Strict):
    """What a reviewer thinks of the answers to one question.

    Attributes:
        time: when it was saved, ISO 8601 in UTC.
        adapter_sha256: of the adapter that gave the tuned model's answer.
        reference: the dataset's answer; empty where the question was asked in the chat.
        answers: the texts that were judged, by system; `marks` has the same systems.
        shown: the systems in the order in which they stood side by side; `blind`, whether without their names.
        better: the system with the better answer, `same`, or None where nothing was chosen.
        correction: the right answer; empty where none was written.
        gold: what was filled in of the question's annotations.
    """

    time: str
    reviewer: Name
    adapter_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    id: str
    category: str
    question: str
    reference: str
    answers: dict[System, str]
    shown: list[System]
    blind: bool
    marks: dict[System, Mark]
    better: System | Literal["same"] | None
    correction: str
    note: str
    gold: GoldForm | None

    @property
    def key(self) -> str:
        return answers_key(self.id, self.answers)

    @property
    def is_whole(self) -> bool:
        """Whether every answer has its verdict, and every wrong one what is wrong with it."""
        return all(self.marks[system].is_whole for system in self.answers)


def answers_key(name: str, answers: dict[Any, str]) -> str:
    """Return what a question and the answers to it are known by; another answer is another key."""
    return sha256_json([name, *(answers.get(system) for system in SYSTEMS)])[:32]


def review_path(reviewer: str, folder: Path = REVIEWS) -> Path:
    # A name that Windows keeps for a device (con, nul) is none behind `review-`.
    return folder / f"review-{reviewer}.jsonl"


def append_review(review: Review, folder: Path = REVIEWS) -> None:
    """Write a review behind the others of its reviewer; on return the disk has it.

    Raises:
        OSError: it is not written, and the file is as it was.
    """
    path = review_path(review.reviewer, folder)
    line = json_line(review.model_dump()).encode()
    with hold(path, "saving a review"), writing(path), _open_private(path) as file:
        end = _end_of_last_line(file)
        file.truncate(end)
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise
        if end == 0 and os.name == "posix":
            folder_number = os.open(folder, os.O_RDONLY)
            os.fsync(folder_number)  # that the file is there is written in its folder
            os.close(folder_number)


def _open_private(path: Path) -> Any:
    # A client's case is for nobody else on this machine.
    return os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "ab+", buffering=0)


def _end_of_last_line(file: Any) -> int:
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - TAIL_BYTES))
    return start + file.read(TAIL_BYTES).rfind(b"\n") + 1


def read_reviews(folder: Path = REVIEWS, reviewer: str | None = None) -> list[Review]:
    """Return the reviews of all reviewers, or of one, in the order in which each saved them.

    Raises:
        RecordError: names every line that is no review.
    """
    paths = sorted(folder.glob("review-*.jsonl")) if reviewer is None else [review_path(reviewer, folder)]
    reviews, problems = [], []
    for path in paths:
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                reviews.append(Review.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                what = ".".join(map(str, first["loc"])) or "the line"
                problems.append(f"{path}:{number}: {what}: {first['msg']}; restore the line, or delete it")
    if problems:
        raise RecordError("\n".join(problems))
    # Where capitals make no difference to file names, Kim and kim share a file.
    return [review for review in reviews if reviewer in (None, review.reviewer)]


def last_reviews(reviews: Iterable[Review]) -> list[Review]:
    """Return of each reviewer and pair of answers what was said last."""
    return list({(review.reviewer, review.key): review for review in reviews}.values())


def latest_corrections(reviews: Iterable[Review]) -> dict[str, dict[str, str]]:
    """Return by record id and reviewer the right answer that was written last, whichever answers stood beside it.

    An empty text takes it back where the form held it: where the reviewer had written it beside the same answers, or on
    the page of reviews, which brings it along to other ones. The chat's form of other answers begins empty.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    held: dict[tuple[str, str], str] = {}  # by reviewer and answers
    for review in sorted(reviews, key=lambda review: review.time):
        form, text = (review.reviewer, review.key), review.correction.strip()
        standing = found[review.id].get(review.reviewer)
        if text:
            found[review.id][review.reviewer] = text
        elif standing and held.get(form, standing if review.reference else "") == standing:
            del found[review.id][review.reviewer]
        held[form] = text
    return {name: by for name, by in found.items() if by}
