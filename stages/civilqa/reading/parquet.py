"""Parquet files."""

import json
from collections.abc import Iterator
from typing import Any

from civilqa.reading.archives import refuse_bomb, told_damage
from civilqa.reading.columns import Wanted
from civilqa.reading.objects import object_table
from civilqa.reading.rows import BadRow, File, Row, Table, TableInfo, cell_value, check_columns, flatten, make_row

BATCH_ROWS = 1000


def read_parquet(file: File, wanted: Wanted) -> Iterator[Table]:
    """Yield the table of a Parquet file."""
    import pyarrow.parquet  # here, since only who has such a file should wait for the import

    with file.path.open("rb") as stream:
        with told_damage(file, "a Parquet file"):
            content = pyarrow.parquet.ParquetFile(stream)
            for group in range(content.metadata.num_row_groups):
                refuse_bomb(file, content.metadata.row_group(group).total_byte_size)
            names, twice = check_columns(str(file), 1, content.schema_arrow.names, wanted.columns.values())
        # Where there are rows, what is inside a column that holds objects is a column of its own.
        columns = () if content.metadata.num_rows else filter(None, names)
        rows = read_rows(file, content, names)
        yield object_table(TableInfo(str(file), "parquet", None, None, ()), rows, wanted, columns, twice)


def read_rows(file: File, content: Any, names: list[str]) -> Iterator[Row | BadRow]:
    """Yield the rows, numbered from 2 on."""
    with told_damage(file, "a Parquet file") as at:  # also what converting damaged values raises
        at[0] = 2
        # Not thread-bound: with BATCH_ROWS rows at a time threads cost more than they save.
        for batch in content.iter_batches(BATCH_ROWS, use_threads=False):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                yield parquet_row(str(file), at[0], names, values)
                at[0] += 1


def parquet_row(file: str, line: int, names: list[str], values: tuple[Any, ...]) -> Row | BadRow:
    """Return a row of values as text."""
    try:
        row = make_row(file, line, names, [cell_value(value) for value in values])
        if any(isinstance(cell, dict) for cell in row.fields.values()):
            return Row(file, line, dict(flatten(row.fields)))
        return row
    except UnicodeDecodeError as error:
        reason = f"found bytes that are not UTF-8 (0x{error.object[error.start]:02x}); write the column as text"
        raw = json.dumps(values, ensure_ascii=False, default=str)
        return BadRow(file, line, reason, raw, columns=tuple(filter(None, names)))
