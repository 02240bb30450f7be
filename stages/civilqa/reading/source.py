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
from civilqa.reading.checks import Found, PrepareParams, Rejected, make_row_checker
from civilqa.reading.columns import COLUMNS, MissingColumns
from civilqa.reading.duplicates import settle_duplicates
from civilqa.reading.fields import field_rows
from civilqa.reading.names import shown_names
from civilqa.reading.rows import BadRow, LeftOut, Row, Table
from civilqa.reading.tables import find_files, unread, usable_tables

TABLES_SHOWN = 20
PLACES_KEPT = 100  # of leftovers and of citations in doubt, of which all are counted


@dataclass
class Reading:
    """What was read of all files: every row is in `records` or in `rejected`, or counted in `left_out`.

    What `kept` and the lines below it say is of the records that were asked for: all, until `keep` says which.
    """

    read: int = 0
    records: list[Record] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)  # what each record was made from
    rejected: list[Rejected] = field(default_factory=list)
    tables: list[tuple[Path, Table]] = field(default_factory=list)  # with the file that each is in
    left_out: list[LeftOut] = field(default_factory=list)
    found: dict[str, Found] = field(default_factory=dict)  # by the id of the record
    kept: list[Record] = field(default_factory=list)
    personal_data: Counter[str] = field(default_factory=Counter)
    acts_outside_table: Counter[str] = field(default_factory=Counter)  # citations of each
    in_doubt: int = 0  # records that cite what does not hold
    doubtful_citations: list[tuple[str, int, str]] = field(default_factory=list)  # file, line, detail of the first
    leftovers: int = 0  # records with something in them that is no text
    leftover_places: list[str] = field(default_factory=list)  # where, and what, of the first of them
    possible_names: Counter[str] = field(default_factory=Counter)

    @property
    def rows_left_out(self) -> int:
        return sum(item.rows or 0 for item in self.left_out) + sum(t.left_out.total() for _, t in self.tables)

    @property
    def citations_outside_table(self) -> int:
        return self.acts_outside_table.total()

    def keep(self, records: list[Record]) -> list[Record]:
        """Count what was found in these records, and return them."""
        self.kept = records
        found = [self.found[record.id] for record in records if record.id in self.found]
        self.personal_data = Counter()
        for counts in filter(None, (each.personal_data for each in found)):
            self.personal_data.update(counts)
        self.acts_outside_table = Counter(act for each in found for act in each.acts_outside_table)
        self.possible_names = Counter(name for each in found for name in each.possible_names)
        doubts = [each.doubt for each in found if each.doubt]
        places = [each.leftover for each in found if each.leftover]
        self.in_doubt, self.doubtful_citations = len(doubts), doubts[:PLACES_KEPT]
        self.leftovers, self.leftover_places = len(places), places[:PLACES_KEPT]
        return records


def read_source(source: str, params: PrepareParams) -> Reading:
    """Return every row of the source as a record or as a rejected row.

    Raises:
        RecordError: a file cannot be read as a table, or has not the columns.
    """
    reading = Reading()
    found: dict[int, Found] = {}  # by the id() of the row, which `reading` holds meanwhile
    load_reference(), load_names()  # a fault in them is told here rather than by every process
    with tqdm(desc="prepare", unit=" rows", unit_scale=True) as progress:  # closed also where a file ends the stage
        for chunk, checked in map_chunks(make_row_checker, (params,), open_tables(source, params, reading)):
            progress.update(len(chunk))
            reading.read += len(chunk)
            found |= {id(chunk[place]): each for place, each in checked.found.items()}
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
    places = zip(reading.records, reading.rows, strict=True)
    reading.found = {record.id: found[id(row)] for record, row in places if id(row) in found}
    reading.keep(reading.records)
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
