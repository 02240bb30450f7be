"""All tables of the source as records: each question once, and every row that makes none with its reason."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from civilqa.dataset.parallel import map_chunks
from civilqa.dataset.records import Record
from civilqa.law.acts import load_names
from civilqa.law.statutes import load_reference
from civilqa.program.errors import RecordError
from civilqa.program.lifecycle.languages import say
from civilqa.reading.checks import PLACES_KEPT, PrepareParams, Rejected, make_row_checker
from civilqa.reading.columns import COLUMNS, MissingColumns
from civilqa.reading.duplicates import settle_duplicates
from civilqa.reading.fields import field_rows
from civilqa.reading.names import shown_names
from civilqa.reading.rows import BadRow, LeftOut, Row, Table
from civilqa.reading.tables import find_files, unread, usable_tables

TABLES_SHOWN = 20


@dataclass
class Reading:
    """What was read of all files: every row is in `records` or in `rejected`, or counted in `left_out`."""

    read: int = 0
    records: list[Record] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)  # what each record was made from
    rejected: list[Rejected] = field(default_factory=list)
    tables: list[tuple[Path, Table]] = field(default_factory=list)  # with the file that each is in
    left_out: list[LeftOut] = field(default_factory=list)
    personal_data: Counter[str] = field(default_factory=Counter)
    citations_outside_table: int = 0
    in_doubt: int = 0
    doubtful_citations: list[tuple[str, int, str]] = field(default_factory=list)
    acts_outside_table: Counter[str] = field(default_factory=Counter)
    leftovers: int = 0
    leftover_places: list[str] = field(default_factory=list)
    possible_names: Counter[str] = field(default_factory=Counter)

    @property
    def rows_left_out(self) -> int:
        return sum(item.rows or 0 for item in self.left_out) + sum(t.left_out.total() for _, t in self.tables)


def read_source(source: str, params: PrepareParams) -> Reading:
    """Return every row of the source as a record or as a rejected row.

    Raises:
        RecordError: a file cannot be read as a table, or has not the columns.
    """
    reading = Reading()
    load_reference(), load_names()  # a fault in them is told here rather than by every process
    with tqdm(desc="prepare", unit=" rows", unit_scale=True) as progress:  # closed also where a file ends the stage
        for chunk, checked in map_chunks(make_row_checker, (params,), open_tables(source, params, reading)):
            progress.update(len(chunk))
            reading.read += len(chunk)
            reading.personal_data += checked.personal_data
            reading.citations_outside_table += checked.citations_outside_table
            reading.in_doubt += checked.in_doubt
            reading.doubtful_citations += checked.doubtful_citations[: PLACES_KEPT - len(reading.doubtful_citations)]
            reading.acts_outside_table.update(checked.acts_outside_table)
            reading.leftovers += checked.leftovers
            reading.leftover_places += checked.leftover_places[: PLACES_KEPT - len(reading.leftover_places)]
            reading.possible_names.update(checked.possible_names)
            for row, outcome in zip(chunk, checked.outcomes, strict=True):
                if isinstance(outcome, Rejected):
                    reading.rejected.append(outcome)
                else:
                    share_text(row, outcome)
                    reading.records.append(outcome)
                    reading.rows.append(row)
    if reading.read == 0:
        raise RecordError(f"{source}: has no rows below its header")
    reading.records, reading.rows, left_out = settle_duplicates(reading.records, reading.rows, params)
    reading.rejected += left_out
    return reading


def open_tables(source: str, params: PrepareParams, reading: Reading) -> Iterator[Row | BadRow]:
    """Yield every row of every table of the source; what the tables are, and what is left out, goes to `reading`.

    Of a folder, as of an archive or a workbook, the parts without the columns are left out.

    Raises:
        RecordError: a file cannot be read, or no table has the columns.
    """
    wanted = params.wanted()
    files, reading.left_out[:] = find_files(source)
    folder = Path(source).is_dir()
    problem: RecordError | None = None
    for path in files:
        before = len(reading.tables)
        try:
            for table in usable_tables(path, wanted, reading.left_out, folder):
                reading.tables.append((path, table))
                if len(reading.tables) <= TABLES_SHOWN:
                    say(f"prepare: {describe(table)}", tqdm.write)  # not into the progress bar
                yield from field_rows(table, wanted)
        except RecordError as error:
            if not folder or len(reading.tables) > before:
                raise
            if not isinstance(error, MissingColumns):
                reading.left_out.append(unread(error, str(path), path.suffix.lower()))
            problem = problem or error
    if problem is not None and not reading.tables:
        raise problem


def describe(table: Table) -> str:
    """Return how a table is read: its format, and which of the known kinds it is."""
    info = table.info
    text = f", encoding {info.encoding}" if info.encoding else ""
    text += f", delimiter {info.delimiter!r}" if info.delimiter else ""
    where = f", column names on line {table.header_line}" if table.left_out["above the column names"] else ""
    each = f"; a row for each of {shown_names(table.lists)}" if table.lists else ""
    return f"{info.file}: {info.format}{text}{where}; {table.shape.kind}{each}"


def share_text(row: Row, record: Record) -> None:
    """Let a row hold the record's own text where cleaning and masking changed none of it: half the memory."""
    for name in COLUMNS:
        text = getattr(record, name)
        if row.fields[name] == text:
            row.fields[name] = text
