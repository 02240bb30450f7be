"""What a file of answers is written as: JSON Lines, a CSV for Excel, or an Excel workbook.

The bytes of each depend on the lines alone, so that a file resumed after a kill is the one of an undisturbed run.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from civilqa.law.verdicts import citation_name, citation_verdict, distinct_citations
from civilqa.program.errors import RecordError
from civilqa.program.files import open_aside, without_formula, write_text

# Source: Microsoft, Excel specifications and limits.
CELL_CHARACTERS = 32_767
SHEET_ROWS = 1_048_576

NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # Source: XML 1.0, 2.2 Char
EPOCH = datetime(1980, 1, 1)  # the first day that a zip file can name


def check_target(target: Path) -> None:
    """Check what an answer file is called.

    Raises:
        RecordError: its suffix is none that can be written.
    """
    if target.suffix.lower() not in WRITERS:
        raise RecordError(f"{target}: 답변 파일의 이름은 {', '.join(WRITERS)} 가운데 하나로 끝나야 합니다.")


def write_answers(target: Path, lines: Sequence[str]) -> None:
    """Write an answer file whole, or not at all.

    Args:
        lines: JSON objects of equal keys, each with its line end.

    Raises:
        RecordError: the format cannot hold them.
    """
    WRITERS[target.suffix.lower()](target, lines)


def write_jsonl(target: Path, lines: Sequence[str]) -> None:
    write_text(target, "".join(lines))


def write_csv(target: Path, lines: Sequence[str]) -> None:
    """Write a CSV that Excel opens with Hangul: UTF-8 with a mark, and no cell a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in table_rows(lines):
        writer.writerow([without_formula(cell) for cell in row])
    write_text(target, "\ufeff" + text.getvalue())


def write_xlsx(target: Path, lines: Sequence[str]) -> None:
    import openpyxl  # here, since only who wants such a file should wait for the import
    from openpyxl.cell import WriteOnlyCell

    rows = [[xlsx_value(target, value) for value in row] for row in table_rows(lines)]
    if len(rows) > SHEET_ROWS:
        raise RecordError(f"{target}: 엑셀의 시트에는 {SHEET_ROWS}행까지만 들어갑니다. {elsewhere(target)}")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("답변")
    for row in rows:
        cells = [WriteOnlyCell(sheet, value) for value in row]
        for cell in cells:
            if isinstance(cell.value, str):
                cell.data_type = "s"  # also what begins with "=": text, and no formula
        sheet.append(cells)
    packed = io.BytesIO()
    book.save(packed)
    with open_aside(target, binary=True) as file:
        file.write(without_dates(packed.getvalue()))


def xlsx_value(target: Path, value: Any) -> Any:
    """Return a value as a cell of a workbook can hold it.

    Raises:
        RecordError: a text that is too long for one.
    """
    if not isinstance(value, str):
        return value
    characters = len(value.encode("utf-16-le", "surrogatepass")) // 2  # as Excel counts them
    if characters > CELL_CHARACTERS:
        raise RecordError(
            f"{target}: 엑셀의 한 칸에는 {CELL_CHARACTERS}자까지만 들어가는데 {characters}자인 칸이 있습니다. "
            f"{elsewhere(target)}"
        )
    return NO_XML.sub(" ", value)


def elsewhere(target: Path) -> str:
    other = target.with_suffix(".jsonl")
    return (
        f"{target.name}.part를 {other.name}.part로 바꾸고 {other.name}을 답변 파일로 하여 다시 실행하면, 이미 만든 "
        "답변을 그대로 씁니다."
    )


def without_dates(content: bytes) -> bytes:
    """Return a workbook in which nothing says when it was written."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            data = old.read(part)
            if part.filename == "docProps/core.xml":
                data = re.sub(rb">[\d-]+T[\d:]+Z<", f">{EPOCH.isoformat()}Z<".encode(), data)
            new.writestr(zipfile.ZipInfo(part.filename, EPOCH.timetuple()[:6]), data, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def table_rows(lines: Sequence[str]) -> list[list[Any]]:
    """Return the column names and the rows of a table; what an answer cites is text in it."""
    answers = [json.loads(line) for line in lines]
    names = list(answers[0])
    return [names, *([table_value(answer, name) for name in names] for answer in answers)]


def table_value(answer: dict[str, Any], name: str) -> str | int | None:
    value = answer[name]
    if name == "citations":
        if not value:
            return None
        named = ((citation_name(found), *citation_verdict(found)) for found in distinct_citations(answer))
        return "\n".join(f"{mark} {article}: {words}" for article, mark, words in named)
    if isinstance(value, bool):
        return "예" if value else "아니요"
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value


WRITERS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    ".jsonl": write_jsonl,
    ".csv": write_csv,
    ".xlsx": write_xlsx,
}
