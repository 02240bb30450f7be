"""Files of questions and answers for the tests of what becomes of them."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import openpyxl

from civilqa.reading.checks import PrepareParams
from civilqa.reading.source import Reading, read_source

PARAMS = PrepareParams(
    source="data.csv",
    columns={},
    categories=[],
    difficulties=[],
    allowed_categories=[],
    allowed_difficulties=[],
    min_question_characters=2,
    min_answer_characters=2,
    mask_personal_data=True,
    mask_addresses=False,
    list_names=False,
    check_text="warn",
    same_question="reject",
    short_answers="reject",
    check_citations="reject",
    allowed_citations=[],
    on_invalid="drop",
    multi_turn="reject",
)
Q, A = "보증금은 언제 돌려받습니까", "계약이 끝나면 돌려받습니다"

OPENDOCUMENT = "application/vnd.oasis.opendocument.spreadsheet"
NAMESPACES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text")
)


def write(path: Path, content: Any) -> Path:
    """Write bytes, text, or anything else as JSON."""
    if not isinstance(content, bytes | str):
        content = json.dumps(content, ensure_ascii=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **changes: Any) -> Reading:
    """Read a file or a folder as prepare does."""
    return read_source(str(path), PARAMS.model_copy(update=changes))


def pairs(reading: Reading) -> list[tuple[str, ...]]:
    """Return question, answer, category and difficulty of each record, without the empty ones at their end."""
    rows = [[record.question, record.answer, record.category, record.difficulty] for record in reading.records]
    for row in rows:
        while row and not row[-1]:
            row.pop()
    return [tuple(row) for row in rows]


def kinds(reading: Reading) -> list[str]:
    return [table.shape.kind for _, table in reading.tables]


def write_xlsx(path: Path, **sheets: list[list[Any]]) -> Path:
    """Write a workbook of the given sheets; a key `상담__A2_A4` merges these cells besides."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        title, *merged = name.split("__")
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
        for cells in merged:
            sheet.merge_cells(cells.replace("_", ":"))
    book.save(path)
    return path


def write_ods(path: Path, *tables: str) -> Path:
    """Write an OpenDocument sheet from the XML of its tables."""
    body = f"<office:body><office:spreadsheet>{''.join(tables)}</office:spreadsheet></office:body>"
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("mimetype", OPENDOCUMENT)
        book.writestr("content.xml", f"<office:document-content {NAMESPACES}>{body}</office:document-content>")
    return path


def ods_table(name: str, *rows: str) -> str:
    inside = "".join(
        row if row.startswith("<table:table-row") else f"<table:table-row>{row}</table:table-row>" for row in rows
    )
    return f'<table:table table:name="{name}">{inside}</table:table>'


def ods_row(*texts: str) -> str:
    cells = [
        f'<table:table-cell office:value-type="string"><text:p>{text}</text:p></table:table-cell>'
        if text
        else "<table:table-cell/>"
        for text in texts
    ]
    return "".join(cells)


def zip_of(path: Path, members: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_gz(path: Path, content: bytes | str) -> Path:
    path.write_bytes(gzip.compress(content if isinstance(content, bytes) else content.encode(), mtime=0))
    return path
