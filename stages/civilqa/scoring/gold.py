"""Gold annotations of questions: what a right answer must say, and what would be wrong.

`data/raw/gold.jsonl` annotates the rows of the dataset, `data/raw/test_cases.jsonl` holds further cases. A line of
either says which articles a right answer must cite and may cite, its key points in alternative wordings, statements
that would be wrong, and numbers with their units.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from civilqa.dataset.records import record_id
from civilqa.law.citations import parse_citations
from civilqa.law.korean import normalize
from civilqa.law.verdicts import Article, cited_articles
from civilqa.program.errors import RecordError
from civilqa.program.files import read_jsonl
from civilqa.scoring.quantities import parse_quantities

GOLD = Path("data/raw/gold.jsonl")
TEST_CASES = Path("data/raw/test_cases.jsonl")

Text = Annotated[str, Field(min_length=1)]


class Basis(BaseModel, frozen=True, strict=True, extra="forbid"):
    """A claim of the reference answer, its source and the words of the source that carry it."""

    claim: Text
    source: Text
    quote: Text


class Conclusion(BaseModel, frozen=True, strict=True, extra="forbid"):
    """What the question is answered by.

    Attributes:
        line: the answer in one line, for readers.
        answer: whether that is a yes or a no to what was asked; None where it is neither.
        says, denies: claims (see `civilqa.scoring.wording`): each alone says the conclusion, or that it is otherwise.
    """

    line: Text
    answer: Literal["yes", "no"] | None
    says: Annotated[list[Text], Field(min_length=2)]
    denies: Annotated[list[Text], Field(min_length=2)]


class Gold(BaseModel, frozen=True, strict=True, extra="forbid"):
    """The annotations of one question. `id` is the record's id where it is a row of the dataset.

    Attributes:
        required_citations: those without which no right answer stands, as `act article`; may be none.
        acceptable_citations: what it may cite besides; neither missing nor wrong.
        key_points: what it must say, each a list of alternative wordings; a wording may end within a word.
        forbidden: wrong statements that are typical for the question, each a full sentence.
        numbers: numbers with units that it must state; none of the asker's.
    """

    id: Text
    question: Text
    conclusion: Conclusion
    required_citations: list[Text]
    acceptable_citations: list[Text]
    key_points: list[Annotated[list[Text], Field(min_length=1)]]
    forbidden: list[Text]
    numbers: list[Text]
    basis: list[Basis] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_notation(self) -> "Gold":
        for name in ("required_citations", "acceptable_citations"):
            written = getattr(self, name)
            for citation in written:
                found = parse_citations(citation)
                if len(found) != 1 or found[0].end != len(normalize(citation)):
                    raise ValueError(f"{name}: {citation!r} is not one citation; write it like '민법 제750조'")
            if len(_articles(written)) < len(written):
                raise ValueError(f"{name}: an article is listed twice")
        if both := self.required & _articles(self.acceptable_citations):
            raise ValueError(f"{sorted(both)} are required and acceptable; keep each in one list")
        for number in self.numbers:
            if len(parse_quantities(number)) != 1:
                raise ValueError(f"numbers: {number!r} is not one number with a unit, like '3개월' or '2억 4천만원'")
        return self

    @cached_property
    def required(self) -> frozenset[Article]:
        """The articles that a right answer must cite."""
        return _articles(self.required_citations)

    @cached_property
    def acceptable(self) -> frozenset[Article]:
        """The articles that it may cite: those listed, and those that the asker named."""
        return (_articles(self.acceptable_citations) | cited_articles(self.question)) - self.required


def _articles(citations: list[str]) -> frozenset[Article]:
    return frozenset().union(*map(cited_articles, citations))


class TestCase(Gold):
    """A case of its own, never trained on, with the answer of reference.

    `trap` says what is wrong with the question (a wrong premise, an article that does not exist), where something is.
    """

    __test__ = False  # pytest collects classes of this name

    group: Text
    topic: Text
    category: str
    difficulty: str
    trap: str | bool | None
    answer: Text


def read_test_cases(path: Path = TEST_CASES) -> dict[str, TestCase]:
    """Return the further cases by id, in the order of the file; see read_gold."""
    return read_gold(path, TestCase)


def read_gold(path: Path = GOLD, kind: type[Gold] = Gold) -> dict[str, Any]:
    """Return the annotations of the dataset's rows by record id.

    Raises:
        RecordError: with every line that is not as it must be, in one message.
    """
    entries: dict[str, Gold] = {}
    problems = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            entry = kind.model_validate(row)
        except ValidationError as error:
            problems += [
                f"{path}:{number}: {'.'.join(map(str, problem['loc'])) or row.get('id')}: {problem['msg']}"
                for problem in error.errors()
            ]
            continue
        if entry.id in entries:
            problems.append(f"{path}:{number}: id {entry.id!r} again; every id must be unique")
        if kind is Gold and entry.id != record_id(entry.question):
            problems.append(
                f"{path}:{number}: found id {entry.id!r}, but the question's id is {record_id(entry.question)!r}; "
                "the question was changed, or the line belongs to another one"
            )
        entries[entry.id] = entry
    if problems:
        raise RecordError("\n".join(problems))
    return entries
