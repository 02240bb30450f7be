"""What makes a row a record: enough text, values that are allowed, articles that exist; personal data masked."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from civilqa.dataset.records import Record, record_id
from civilqa.law.citations import judge_citation, parse_citations
from civilqa.law.statutes import DELETED, NO_SUCH_ARTICLE, OUTSIDE_TABLE, load_reference
from civilqa.program.parameters import Section, Text
from civilqa.reading.cleaning import clean
from civilqa.reading.personal_data import mask_personal_data
from civilqa.reading.rows import BadRow, Row

COLUMNS = ("question", "answer", "category", "difficulty")
PLURALS = {"category": "categories", "difficulty": "difficulties"}


class PrepareParams(Section):
    source: Text
    columns: dict[Literal["question", "answer", "category", "difficulty"], str]
    categories: list[str]
    difficulties: list[str]
    allowed_categories: list[str]
    allowed_difficulties: list[str]
    min_question_characters: Annotated[int, Field(ge=1)]
    min_answer_characters: Annotated[int, Field(ge=1)]
    mask_personal_data: bool
    on_invalid: Literal["fail", "drop"]

    def column(self, name: str) -> str:
        """Return what the column of COLUMNS is called in the source."""
        return self.columns.get(name, name)


@dataclass(slots=True)
class Rejected:
    """A row that cannot be used. `reason` is a word to count by, `detail` what was found and what to do."""

    file: str
    line: int
    reason: str
    detail: str
    row: Any


@dataclass
class Checked:
    """What came of some rows: for each a record or why it is rejected, and what was found in the records."""

    outcomes: list[Record | Rejected] = field(default_factory=list)
    personal_data: Counter[str] = field(default_factory=Counter)
    citations_outside_table: int = 0


def make_row_checker(params: PrepareParams) -> Callable[[list[Row | BadRow]], Checked]:
    """Return the function that turns rows into records or into rejected rows."""

    def check_rows(rows: list[Row | BadRow]) -> Checked:
        checked = Checked()
        for row in rows:
            checked.outcomes.append(check_row(row, params, checked))
        return checked

    return check_rows


def check_row(row: Row | BadRow, params: PrepareParams, checked: Checked) -> Record | Rejected:
    """Return the record that a row makes, or why it makes none; count in `checked` what was found in a record."""
    if isinstance(row, BadRow):
        return reject(row, "unreadable", row.reason, params)
    fields = {name: clean(row.fields.get(params.column(name), "")) for name in COLUMNS}
    problem = find_problem(fields, params)
    if problem is not None:
        return reject(row, *problem, params)
    invented, outside = invented_citations(fields["answer"])
    if invented:
        detail = f"the answer cites {', '.join(invented)}, which does not exist; mend the citation"
        return reject(row, "no_such_article", detail, params)
    checked.citations_outside_table += outside
    for name in ("question", "answer"):
        masked, found = mask_personal_data(fields[name])
        checked.personal_data.update(found)
        if params.mask_personal_data:
            fields[name] = masked
    return Record(id=record_id(fields["question"]), **fields)


def find_problem(fields: dict[str, str], params: PrepareParams) -> tuple[str, str] | None:
    """Return (reason, detail) for the first field that cannot be used, None where all can."""
    for name in ("question", "answer"):
        found, least = len(fields[name]), getattr(params, f"min_{name}_characters")
        if not found:
            return "empty", f"empty '{name}'; fill it in or delete the row"
        if found < least:
            return "too_short", f"'{name}' has {found} characters, want {least} (prepare.min_{name}_characters)"
    for name, plural in PLURALS.items():
        allowed = getattr(params, f"allowed_{plural}")
        if allowed and fields[name] not in allowed:
            detail = f"{name} {fields[name]!r} is not among prepare.allowed_{plural}: {', '.join(allowed)}"
            return f"unknown_{name}", detail
    return None


def invented_citations(answer: str) -> tuple[list[str], int]:
    """Return the articles cited that do not exist, and how many citations are of acts outside the table."""
    reference = load_reference()
    invented, outside = [], 0
    for citation in parse_citations(answer):
        status = judge_citation(citation, reference)
        if status in (NO_SUCH_ARTICLE, DELETED):
            invented.append(f"{citation.law} {citation.article}")
        outside += status == OUTSIDE_TABLE
    return invented, outside


def reject(row: Row | BadRow, reason: str, detail: str, params: PrepareParams) -> Rejected:
    """Return a rejected row with the whole of what was read."""
    if isinstance(row, BadRow):
        return Rejected(row.file, row.line, reason, detail, mask(row.raw, params))
    fields = {column: mask(text, params) for column, text in row.fields.items()}
    return Rejected(row.file, row.line, reason, mask(detail, params), fields)


def mask(text: str, params: PrepareParams) -> str:
    """Return text as it may be written: what this stage puts aside is shared by `dvc push` like the records are."""
    return mask_personal_data(text)[0] if params.mask_personal_data else text
