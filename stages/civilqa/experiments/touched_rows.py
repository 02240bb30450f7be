"""Which rows, gold lines and further cases a change of the law touches: they cite an article of it, or quote it."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from civilqa.dataset.records import read_records
from civilqa.law.changes import Article, Change
from civilqa.law.citations import Citation, parse_citations
from civilqa.law.statutes import act_of
from civilqa.program.errors import RecordError
from civilqa.program.files import read_jsonl
from civilqa.reading.law_readings import Reading
from civilqa.scoring.quantities import parse_quantities

RECORDS = Path("data/prepared/records.jsonl")
LINES = {  # what holds lines of JSON, and what one is called
    Path("data/raw/gold.jsonl"): "정답 기준",
    Path("data/raw/test_cases.jsonl"): "시험 문항",
    Path("data/raw/contrasts.jsonl"): "옳고 그른 쌍",
}
ROW = "행"
# From the worst: what must be read again first.
RANKS = ("인용한 말이 없어짐", "숫자가 바뀜", "조문 번호가 바뀜", "조문이 바뀜")
QUOTE_GONE, NUMBER_CHANGED, RENUMBERED, TOUCHED = range(len(RANKS))

_NO_LETTER = re.compile(r"[\W_]|\([^()가-힣]*\)")


@dataclass(frozen=True)
class Entry:
    """A row, a gold line, a further case or a pair: where it is, what it cites, and what it quotes of which article.

    `texts` are its strings, `quotes` the words that it takes from an article, with that article.
    """

    kind: str
    id: str
    place: str
    texts: tuple[str, ...]
    citations: tuple[Citation, ...]
    quotes: tuple[tuple[Article, str], ...]


@dataclass(frozen=True)
class Touch:
    """An entry and a change that touches it; `rank` is a place in RANKS, `read` whether it was read since."""

    entry: Entry
    change: Change
    rank: int
    reason: str
    read: bool


def read_entries() -> list[Entry]:
    """Return what may be touched: the rows as prepare wrote them, and the files beside the dataset that are there.

    Raises:
        RecordError: the dataset was not prepared, or a file is damaged.
    """
    if not RECORDS.is_file():
        raise RecordError(f"{RECORDS}: not found; run `dvc repro prepare`, which reads the dataset, first")
    records = enumerate(read_records(RECORDS), start=1)
    entries = [_entry(ROW, record.id, f"{RECORDS}:{number}", asdict(record)) for number, record in records]
    for path, kind in LINES.items():
        lines = read_jsonl(path) if path.is_file() else ()
        entries += [_entry(kind, line["id"], f"{path}:{number}", line) for number, line in enumerate(lines, start=1)]
    # A row stands on the words that its gold line quotes.
    quotes = {entry.id: entry.quotes for entry in reversed(entries) if entry.quotes}
    return [replace(entry, quotes=quotes.get(entry.id, ())) if entry.kind == ROW else entry for entry in entries]


def _entry(kind: str, name: str, place: str, content: dict[str, Any]) -> Entry:
    texts = tuple(_strings(content))
    quoted = [content, *(content.get("basis") or ())]
    return Entry(
        kind=kind,
        id=name,
        place=place,
        texts=texts,
        citations=tuple(citation for text in texts for citation in parse_citations(text)),
        quotes=tuple(
            ((citation.law, citation.article), basis["quote"])
            for basis in quoted
            if "quote" in basis and "source" in basis
            for citation in parse_citations(basis["source"])
        ),
    )


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def cited_acts(entries: list[Entry]) -> set[str]:
    """Return the acts that anything is cited of, of a decree its act."""
    return {act_of(citation.law.removesuffix(" 부칙")) for entry in entries for citation in entry.citations}


def find_touches(changes: list[Change], entries: list[Entry], reviews: dict[str, Reading]) -> list[Touch]:
    """Return what the changes touch, the worst first."""
    touches = []
    for change in changes:
        own, *others = change.targets
        gone = {*parse_quantities(change.before)} - {*parse_quantities(change.after)}
        for entry in entries:
            found = _judge(change, entry, own, gone) or _judge_others(entry, others, change)
            if found:
                review = reviews.get(entry.id)
                read = review is not None and review.law_of >= change.happened
                touches.append(Touch(entry, change, *found, read))
    return sorted(touches, key=lambda touch: (touch.rank, touch.entry.kind != ROW, touch.entry.place))


def _judge(change: Change, entry: Entry, own: Article, gone: set) -> tuple[int, str] | None:
    """The rank and the reason of an entry that cites the changed article itself; None of one that does not."""
    cited = [citation for citation in entry.citations if (citation.law, citation.article) == own]
    quotes = [quote for article, quote in entry.quotes if article == own]
    if not cited and not quotes:
        return None
    before, after = _letters(change.before), _letters(change.after)
    lost = [quote for quote in quotes if _letters(quote) in before and _letters(quote) not in after]
    if lost:
        return QUOTE_GONE, f"“{lost[0]}”"
    said = {quantity for text in entry.texts for quantity in parse_quantities(text)} & gone
    if said:
        return NUMBER_CHANGED, ", ".join(sorted(quantity.text for quantity in said))
    paragraphs = {citation.paragraph for citation in cited}
    if moved := [place for number, place in change.moved.items() if not number or number in paragraphs]:
        return RENUMBERED, f"→ {', '.join(sorted(moved))}"
    if change.before and not change.after:
        return RENUMBERED, "삭제"
    named = [number for number in sorted(paragraphs - {None}) if number in change.paragraphs]
    return TOUCHED, ", ".join(f"제{number}항" for number in named)


def _judge_others(entry: Entry, others: list[Article], change: Change) -> tuple[int, str] | None:
    """The same of an entry that cites what a decree or a supplementary provision is about."""
    cited = {(citation.law, citation.article) for citation in entry.citations}
    laws = {law for law, _ in cited}
    for law, article in others:
        if (law, article) in cited or (not article and law in laws):
            return TOUCHED, f"{law} {article}".strip() + ("의 부칙" if "부칙" in change.article else "의 하위 법령")
    return None


def _letters(text: str) -> str:
    return _NO_LETTER.sub("", unicodedata.normalize("NFC", text))
