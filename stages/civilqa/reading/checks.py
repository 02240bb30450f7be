"""What makes a row a record: enough text, values that are allowed, articles that exist; personal data masked."""

import functools
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from civilqa.dataset.records import Record, record_id
from civilqa.law.verdicts import Article
from civilqa.program.parameters import Section, Text
from civilqa.reading.addresses import possible_names
from civilqa.reading.cited_articles import describe_doubts, doubtful_citations, read_article
from civilqa.reading.cleaning import clean
from civilqa.reading.columns import COLUMNS, MultiTurn, Wanted
from civilqa.reading.personal_data import mask_cells, mask_line, mask_personal_data
from civilqa.reading.rows import BadRow, Row, is_empty
from civilqa.reading.text_quality import find_damage, find_leftover, quote

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
    mask_addresses: bool
    list_names: bool
    check_text: Literal["reject", "warn", "off"]
    check_citations: Literal["reject", "warn", "off"]
    allowed_citations: list[str]
    same_question: Literal["reject", "keep_first", "keep_variants"]
    short_answers: Literal["warn", "reject"]
    on_invalid: Literal["fail", "drop"]
    multi_turn: MultiTurn

    @field_validator("allowed_citations")
    @classmethod
    def _name_articles(cls, written: list[str]) -> list[str]:
        for text in written:
            read_article(text)
        return written

    @functools.cached_property
    def allowed_articles(self) -> frozenset[Article]:
        """The articles of `allowed_citations`."""
        return frozenset(map(read_article, self.allowed_citations))

    def wanted(self) -> Wanted:
        """Return what the tables of the source must have."""
        return Wanted(
            columns={name: clean(column) for name, column in self.columns.items()}, multi_turn=self.multi_turn
        )


@dataclass(slots=True)
class Rejected:
    """A row that cannot be used. `reason` is a word to count by, `detail` what was found and what to do."""

    file: str
    line: int
    reason: str
    detail: str
    row: Any


@dataclass(slots=True)
class Found:
    """What was found in a row, to be counted if it is kept."""

    personal_data: Counter[str] | None = None
    acts_outside_table: tuple[str, ...] = ()  # one for each citation
    leftover: str = ""  # where there is something that is no text, and what
    doubt: tuple[str, int, str] | None = None  # citations that do not hold: file, line, detail
    possible_names: tuple[str, ...] = ()


NOTHING = Found()


@dataclass
class Checked:
    """What came of some rows: for each a record or why it is rejected; by their places, what was found in records."""

    outcomes: list[Record | Rejected] = field(default_factory=list)
    found: dict[int, Found] = field(default_factory=dict)


def make_row_checker(params: PrepareParams) -> Callable[[list[Row | BadRow]], Checked]:
    """Return the function that turns rows into records or into rejected rows."""

    def check_rows(rows: list[Row | BadRow]) -> Checked:
        checked = Checked()
        for place, row in enumerate(rows):
            found = Found()
            checked.outcomes.append(check_row(row, params, found))
            if isinstance(checked.outcomes[-1], Record) and found != NOTHING:
                checked.found[place] = found
        return checked

    return check_rows


def check_row(row: Row | BadRow, params: PrepareParams, found: Found) -> Record | Rejected:
    """Return the record that a row makes, or why it makes none; what was found in it goes to `found`."""
    if isinstance(row, BadRow):
        return reject(row, row.kind, row.reason, params)
    fields = {name: row.fields[name] for name in COLUMNS}
    looked_at = [name for name in COLUMNS if name not in PLURALS or not is_plain(fields[name], params.mask_addresses)]
    for name in looked_at:
        fields[name] = "" if is_empty(fields[name]) else clean(fields[name])
    problem = find_problem(fields, params)
    if problem is not None:
        return reject(row, *problem, params)
    if params.check_text != "off" and (
        problem := find_flaw(row, {name: fields[name] for name in looked_at}, params.check_text, found)
    ):
        return reject(row, *problem, params)
    if params.check_citations != "off":
        doubts, outside = find_doubts(fields["answer"], params)
        if doubts and params.check_citations == "reject":
            return reject(row, *doubts, params)
        if doubts:
            found.doubt = row.file, row.line, doubts[1]
        found.acts_outside_table = tuple(outside)
    if params.list_names:
        found.possible_names = tuple(name for text in fields.values() for name in possible_names(text))
    for name in looked_at:
        masked, counts = mask_personal_data(fields[name], addresses=params.mask_addresses)
        if counts:
            found.personal_data = (found.personal_data or Counter()) + Counter(counts)
        fields[name] = masked if params.mask_personal_data else mask(fields[name], params)
    return Record(id=record_id(fields["question"]), **fields)


@functools.lru_cache(1024)  # of the few categories and difficulties there are, rather than of every row's
def is_plain(text: str, addresses: bool) -> bool:
    """Tell whether a text is clean, with nothing in it that is no text or is to be masked."""
    if is_empty(text) or clean(text) != text or find_damage(text) or find_leftover(text):
        return False
    return not mask_personal_data(text, addresses=addresses)[1]


def find_problem(fields: dict[str, str], params: PrepareParams) -> tuple[str, str] | None:
    """Return (reason, detail) for the first field that cannot be used, None where all can."""
    for name in ("question", "answer"):
        found, least = len(fields[name]), getattr(params, f"min_{name}_characters")
        if not found:
            return "empty", f"empty '{name}'; fill it in or delete the row"
        words = any(unicodedata.category(character)[0] in "LNS" for character in fields[name])
        if not words and "??" not in fields[name]:  # those are characters that were lost: told as damage
            return "empty", f"'{name}' is punctuation alone; fill it in or delete the row"
        if found < least and (name == "question" or params.short_answers == "reject"):
            return "too_short", f"'{name}' has {found} characters, want {least} (prepare.min_{name}_characters)"
    for name, plural in PLURALS.items():
        allowed = getattr(params, f"allowed_{plural}")
        if allowed and fields[name] not in allowed:
            detail = f"{name} {fields[name]!r} is not among prepare.allowed_{plural}: {', '.join(allowed)}"
            return f"unknown_{name}", detail
    return None


def find_flaw(row: Row, fields: dict[str, str], check_text: str, found: Found) -> tuple[str, str] | None:
    """Return (reason, detail) if a row holds what is no text; where a leftover is let pass, it goes to `found`.

    Lost characters are never let pass: what stood there is in no later stage to be seen, and a model learns to write
    them.
    """
    for name in fields:
        if find_damage(row.fields[name]):
            quoted = quote(row.fields[name], find_damage)
            detail = (
                f"'{name}' holds characters that were lost, or read in a wrong encoding: \"{quoted}\"; take the row "
                "from where it came from again, or set prepare.check_text to off"
            )
            return "damaged_text", detail
    for name, text in fields.items():
        if find_leftover(text):
            quoted = quote(text, find_leftover)
            if check_text == "reject":
                detail = f"'{name}' holds what is no text: \"{quoted}\"; take it out, or set prepare.check_text to warn"
                return "leftover", detail
            found.leftover = f"{row.file}:{row.line}: '{name}' holds \"{quoted}\""
            return None
    return None


def find_doubts(answer: str, params: PrepareParams) -> tuple[tuple[str, str] | None, list[str]]:
    """Return (reason, detail) for the citations that do not hold, None where all do; and the acts outside the table."""
    doubtful, outside = doubtful_citations(answer, params.allowed_articles)
    if not doubtful:
        return None, outside
    shown = mask(answer, params)
    # What is quoted around them is masked before it is cut: half a telephone number would not be found.
    return describe_doubts(shown, doubtful_citations(shown, params.allowed_articles)[0] or doubtful), outside


def reject(row: Row | BadRow, reason: str, detail: str, params: PrepareParams) -> Rejected:
    """Return a rejected row with the whole of what was read."""
    if isinstance(row, BadRow):
        raw = mask_line(row.raw, row.columns, params.mask_personal_data, params.mask_addresses)
        return Rejected(row.file, row.line, reason, detail, raw)
    fields = mask_cells(row.fields, params.mask_personal_data, params.mask_addresses)
    return Rejected(row.file, row.line, reason, mask(detail, params), fields)


def mask(text: str, params: PrepareParams) -> str:
    """Return text as it may be written: what this stage puts aside is shared by `dvc push` like the records are."""
    return mask_personal_data(text, params.mask_personal_data, params.mask_addresses)[0]
