"""The table of acts and articles in `data/reference/`: what exists, since when, what was deleted, what it is called.

Source: 국가법령정보센터 (law.go.kr), as promulgated by `Reference.known_to`; see `data/reference/README.md`.
"""

import csv
import functools
import re
import unicodedata
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.parameters import PARAMS_PATH, Section, Text, check, read_params

REFERENCE_FOLDER = Path(__file__).resolve().parents[3] / "data" / "reference"

EXISTS = "exists"
DELETED = "deleted"
NOT_YET_IN_FORCE = "not_yet_in_force"
NO_SUCH_ARTICLE = "no_such_article"
NO_SUCH_PARAGRAPH = "no_such_paragraph"
OUTSIDE_TABLE = "outside_table"

ACT_COLUMNS = (
    *("law", "short_names", "promulgation_no", "promulgated", "effective", "as_of"),
    *("articles", "deleted", "not_yet_in_force"),
)
TITLE_COLUMNS = ("law", "article", "title")
PARAGRAPH_COLUMNS = ("law", "paragraphs", "articles")
PERIOD_COLUMNS = ("law", "article", "paragraph", "in_force_from", "begun_by", "in_force_to", "ended_by")
PARTS = ("시행령", "시행규칙")  # what a decree's and a rule's name adds to its act's
RESTORE = "take data/reference from git again: git checkout -- data/reference"

# The columns of acts.csv that list articles, and what a listed article is.
STATUS_COLUMNS = {"articles": EXISTS, "deleted": DELETED, "not_yet_in_force": NOT_YET_IN_FORCE}

ArticleNumber = tuple[int, int]  # 제3조의2 is (3, 2), 제3조 is (3, 0)

_ARTICLE = re.compile(r"제([0-9]+)조(?:의([0-9]+))?")
_COMPACT_NUMBER = re.compile(r"([0-9]+)(?:의([0-9]+))?")
_HANJA_IN_BRACKETS = re.compile(r"\([^()가-힣]*\)")
_TITLE_NOISE = re.compile(r"[\s·ㆍ‧・,\"'“”‘’「」『』]")


def article_name(number: ArticleNumber) -> str:
    """(3, 2) → `제3조의2`."""
    return f"제{number[0]}조" + (f"의{number[1]}" if number[1] else "")


@functools.lru_cache(4096)  # the same few are asked for again and again
def act_of(law: str) -> str:
    """민법 시행령 → 민법: the act that a decree or rule is of; an act itself as it is."""
    return next((law.removesuffix(f" {part}") for part in PARTS if law.endswith(f" {part}")), law)


def article_number(name: str) -> ArticleNumber:
    """`제3조의2` → (3, 2).

    Raises:
        ValueError: `name` is not an article's name.
    """
    match = _ARTICLE.fullmatch(name)
    if not match:
        raise ValueError(f"{name!r} is no article name; write it like 제3조 or 제3조의2")
    return int(match[1]), int(match[2] or 0)


def article_url(law: str, article: str) -> str:
    """Return where an article stands on 국가법령정보센터, in the version in force when it is opened.

    A supplementary provision (부칙) has no address of its own: its act's is given; a paragraph's is its article's.
    """
    article = article.partition(" ")[0]
    name = law.removesuffix(" 부칙")
    path = f"법령/{name.replace(' ', '')}" + (f"/{article}" if name == law else "")
    return f"https://www.law.go.kr/{urllib.parse.quote(path)}"


def pack_articles(numbers: Iterable[ArticleNumber]) -> str:
    """Write article numbers, in official order, as compact ranges: `1-3 3의2-3의7 4-31`.

    A range runs over plain numbers or over the 의-numbers of one article, never over both, so that it says exactly
    which articles it holds.
    """
    runs: list[list[ArticleNumber]] = []
    for number in sorted(set(numbers)):
        last = runs[-1][-1] if runs else None
        plain_follows = last and not last[1] and number == (last[0] + 1, 0)
        branch_follows = last and last[1] and number == (last[0], last[1] + 1)
        if plain_follows or branch_follows:
            runs[-1].append(number)
        else:
            runs.append([number])

    def written(number: ArticleNumber) -> str:
        return f"{number[0]}의{number[1]}" if number[1] else str(number[0])

    return " ".join(written(run[0]) + (f"-{written(run[-1])}" if len(run) > 1 else "") for run in runs)


def unpack_articles(packed: str) -> list[ArticleNumber]:
    """The inverse of `pack_articles`.

    Raises:
        ValueError: a range is malformed, runs backwards, or joins plain numbers with 의-numbers.
    """
    numbers = []
    for part in packed.split():
        ends = [_COMPACT_NUMBER.fullmatch(end) for end in part.split("-")]
        if len(ends) > 2 or not all(ends):
            raise ValueError(f"{part!r} is no range of articles; write it like 4-31 or 3의2-3의7")
        (n1, m1), (n2, m2) = [(int(end[1]), int(end[2] or 0)) for end in (ends[0], ends[-1])]
        if m1 and m2 and n1 == n2 and m1 <= m2:
            numbers += [(n1, m) for m in range(m1, m2 + 1)]
        elif not m1 and not m2 and n1 <= n2:
            numbers += [(n, 0) for n in range(n1, n2 + 1)]
        else:
            raise ValueError(f"{part!r} is no range of articles; both ends must be plain or of one article, in order")
    return numbers


def _written_day(value: object) -> object:
    """A day in quotes is one as well."""
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("want a day like 2026-06-08") from None


class ReferenceParams(Section):
    """params.yaml: reference."""

    as_of: Annotated[date | None, BeforeValidator(_written_day)]
    statutes: Text | None


def read_reference_params(path: Path = PARAMS_PATH) -> ReferenceParams:
    """Return the section `reference` of the params.yaml here; where there is none of either, all of it is empty.

    Raises:
        ParameterError: it holds what it must not, or lacks a key.
    """
    empty = {"as_of": None, "statutes": None}
    raw = read_params(path).get("reference", empty) if path.is_file() else empty
    params, problems = check(ReferenceParams, raw, "reference")
    if problems:
        raise ParameterError("\n".join(f"{path}: {problem}" for problem in problems))
    return params


@dataclass(frozen=True)
class Period:
    """When an article or paragraph is in force, where that is not throughout; ISO dates, empty for no known end.

    `last` is the last day; `begun_by` and `ended_by` are the provisions that say so.
    """

    since: str
    begun_by: str
    last: str
    ended_by: str


@dataclass(frozen=True)
class Act:
    """One act, decree or rule of the table, in the version in force on the table's own date.

    `statuses` maps an article's number on that day to EXISTS, DELETED or NOT_YET_IN_FORCE; dates are ISO. `paragraphs`
    maps it to the numbers of its paragraphs (항), where it has any that are numbered. `periods` are of the articles (0)
    and paragraphs that came or went.
    """

    law: str
    short_names: tuple[str, ...]
    promulgation_no: str
    promulgated: str
    effective: str
    statuses: dict[ArticleNumber, str]
    paragraphs: dict[ArticleNumber, frozenset[int]] = field(default_factory=dict)
    periods: dict[tuple[ArticleNumber, int], list[Period]] = field(default_factory=dict)

    def status(self, number: ArticleNumber, paragraph: int | None, day: str) -> str:
        """What is known of an article, or of a paragraph of it, on a day."""
        status = self._within_periods(number, 0, day, self.statuses.get(number, NO_SUCH_ARTICLE))
        if status != EXISTS or not paragraph:
            return status
        numbered = self.paragraphs.get(number, frozenset())
        # What is not divided, or not yet, is its own first paragraph.
        if paragraph == 1 and all(self._within_periods(number, each, day, EXISTS) != EXISTS for each in numbered):
            return status
        known = EXISTS if paragraph in numbered else NO_SUCH_PARAGRAPH
        status = self._within_periods(number, paragraph, day, known)
        return NO_SUCH_PARAGRAPH if status == DELETED else status

    def _within_periods(self, number: ArticleNumber, paragraph: int, day: str, otherwise: str) -> str:
        periods = self.periods.get((number, paragraph))
        if not periods:
            return otherwise
        if any(period.since <= day and (not period.last or day <= period.last) for period in periods):
            return EXISTS
        if day < periods[0].since:
            return NOT_YET_IN_FORCE
        return otherwise if otherwise in (DELETED, NO_SUCH_ARTICLE) else DELETED


@dataclass(frozen=True)
class Reference:
    """All acts of the table by official name, and the article titles that the project keeps.

    Attributes:
        as_of: the day that citations are judged at.
        known_from: from when on the table knows what came and went.
    """

    as_of: str
    acts: dict[str, Act]
    titles: dict[tuple[str, str], str]
    known_from: str = ""

    def status(self, law: str, article: str, paragraph: int | None = None, day: str | None = None) -> str:
        """What is known of `article` (`제3조의2`) of `law` (official name): one of the six status constants.

        Args:
            paragraph: 항; without one the article alone is looked up.
            day: ISO; another one than `as_of`, not before `known_from`.
        """
        act = self.acts.get(law)
        if act is None:
            return OUTSIDE_TABLE
        return act.status(article_number(article), paragraph, day or self.as_of)

    def title(self, law: str, article: str) -> str | None:
        """The official title, or None where the article has none or the table does not hold it."""
        return self.titles.get((law, article))


def same_title(first: str, second: str) -> bool:
    """Whether two article titles are the same but for spaces, middle dots, quotes, bracketed hanja and a final 등.

    A final 등 ("대항력 등") is left out as often as not by those who cite the article, and changes nothing.
    """
    return _bare_title(first) == _bare_title(second)


def title_words(title: str) -> str:
    """Return a title without spaces, signs and the 의 between its nouns: 동시이행의 항변권 is 동시이행항변권."""
    return _bare_title(title).replace("의", "")


def _bare_title(title: str) -> str:
    bare = _TITLE_NOISE.sub("", _HANJA_IN_BRACKETS.sub("", unicodedata.normalize("NFC", title)))
    return bare.removesuffix("등") or bare


def read_lines(path: Path) -> list[str]:
    """Read a file of the table, line by line.

    Raises:
        RecordError: it is missing, cut off, or no UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: cannot be read: {error}; {RESTORE}") from None
    if not text.endswith("\n"):
        raise RecordError(f"{path}: is cut off: its last line has no end; {RESTORE}")
    return text.splitlines()


def _read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line and the fields of each row of a table that the project wrote itself.

    Raises:
        RecordError: it cannot be read, or a row has not exactly the columns.
    """
    reader = csv.DictReader(read_lines(path))
    if tuple(reader.fieldnames or ()) != columns:
        raise RecordError(f"{path}:1: found the columns {reader.fieldnames}, want {', '.join(columns)}; {RESTORE}")
    for row in reader:
        if None in row or None in row.values():
            raise RecordError(f"{path}:{reader.line_num}: has not {len(columns)} fields; {RESTORE}")
        yield reader.line_num, row


@functools.cache
def load_reference(folder: Path = REFERENCE_FOLDER, as_of: str | None = None) -> Reference:
    """Read the tables of `folder`, once.

    Args:
        as_of: the day to judge citations at; without one that of `reference.as_of` in the params.yaml here, and where
            that is empty the table's own.

    Raises:
        RecordError: a file is missing, cut off or damaged, or a row contradicts itself, with the file and line.
        ParameterError: `reference.as_of` is no date.
    """
    acts_path, titles_path = Path(folder) / "acts.csv", Path(folder) / "titles.csv"
    acts: dict[str, Act] = {}
    dates = set()
    for line, row in _read_table(acts_path, ACT_COLUMNS):
        statuses: dict[ArticleNumber, str] = {}
        try:
            for column, status in STATUS_COLUMNS.items():
                for number in unpack_articles(row[column]):
                    if statuses.setdefault(number, status) != status:
                        raise ValueError(f"{article_name(number)} is listed in two columns; leave it in one")
        except ValueError as error:
            raise RecordError(f"{acts_path}:{line}: {error}") from None
        acts[row["law"]] = Act(
            law=row["law"],
            short_names=tuple(row["short_names"].split("|")) if row["short_names"] else (),
            promulgation_no=row["promulgation_no"],
            promulgated=row["promulgated"],
            effective=row["effective"],
            statuses=statuses,
        )
        dates.add(row["as_of"])
    if len(dates) != 1:
        raise RecordError(f"{acts_path}: as_of must be the same in every row, found {sorted(dates)}; rebuild the table")
    titles = {(row["law"], row["article"]): row["title"] for _, row in _read_table(titles_path, TITLE_COLUMNS)}
    if unknown := sorted({law for law, _ in titles} - acts.keys()):
        raise RecordError(f"{acts_path}: has no {', '.join(unknown)}, whose titles are in {titles_path}; {RESTORE}")
    begun = _read_paragraphs_and_periods(Path(folder), acts)
    chosen = as_of or (str(day) if (day := read_reference_params().as_of) else dates.pop())
    return Reference(as_of=chosen, acts=acts, titles=titles, known_from=begun)


def _read_paragraphs_and_periods(folder: Path, acts: dict[str, Act]) -> str:
    """Add to the acts what `paragraphs.csv` and `in_force.csv` hold; return the first day on which anything changed."""
    path = folder / "paragraphs.csv"
    for line, row in _read_table(path, PARAGRAPH_COLUMNS):
        try:
            paragraphs = frozenset(number for number, _ in unpack_articles(row["paragraphs"]))
            acts[row["law"]].paragraphs.update(dict.fromkeys(unpack_articles(row["articles"]), paragraphs))
        except (KeyError, ValueError) as error:
            raise RecordError(f"{path}:{line}: {error}; {RESTORE}") from None
    path, begun = folder / "in_force.csv", ""
    for line, row in _read_table(path, PERIOD_COLUMNS):
        try:
            for day in filter(None, (row["in_force_from"], row["in_force_to"])):
                date.fromisoformat(day)
            place = article_number(row["article"]), int(row["paragraph"] or 0)
            period = Period(row["in_force_from"], row["begun_by"], row["in_force_to"], row["ended_by"])
            acts[row["law"]].periods.setdefault(place, []).append(period)
        except (KeyError, ValueError) as error:
            raise RecordError(f"{path}:{line}: {error}; {RESTORE}") from None
        begun = min(filter(None, (begun, period.since, period.last)))
    return begun
