"""Workbooks: every sheet, merged cells, and the formats besides .xlsx."""

import re
import shutil
import zipfile
from pathlib import Path

import openpyxl
import pytest
from openpyxl.chart import BarChart

from civilqa.program.errors import RecordError
from civilqa.reading.account import notes
from source_files import A, Q, ods_row, ods_table, pairs, read, write, write_ods, write_xlsx

XLS = Path(__file__).with_name("merged.xls")  # made with xlwt 1.3.0; nothing writes the format any more
Q2, A2 = "집주인이 바뀌면 어떻게 됩니까", "새 주인이 의무를 이어받습니다"
NAMES = ["질문", "답변", "분야"]


def left_out(reading, path):
    return [(item.file.removeprefix(str(path)), item.reason, item.rows) for item in reading.left_out]


def test_all_sheets_with_the_columns_are_read_and_the_others_left_out_by_name(tmp_path):
    path = write_xlsx(
        tmp_path / "d.xlsx",
        전세=[NAMES, [Q, A, "전세"]],
        코드=[["코드", "분야"], [1, "전세"], [2, "물권"]],
        빈=[],
        물권=[["2026년"], NAMES[:2], [Q2, A2]],
    )
    reading = read(path)
    assert pairs(reading) == [(Q, A, "전세"), (Q2, A2)]
    assert [(row.file.removeprefix(str(path)), row.line) for row in reading.rows] == [("[전세]", 2), ("[물권]", 3)]
    assert left_out(reading, path) == [
        ("[코드]", "no column question, answer; found 코드, 분야", 2),
        ("[빈]", "an empty sheet", 0),
    ]
    assert reading.rows_left_out == 3


def test_a_hidden_sheet_is_a_sheet(tmp_path):
    path = write_xlsx(tmp_path / "d.xlsx", 가=[NAMES[:2], [Q, A]], 나=[NAMES[:2], [Q2, A2]])
    book = openpyxl.load_workbook(path)
    book["나"].sheet_state = "hidden"
    book.save(path)
    assert pairs(read(path)) == [(Q, A), (Q2, A2)]


def test_a_sheet_of_a_chart_alone_is_no_reason_to_stop(tmp_path):
    path = write_xlsx(tmp_path / "d.xlsx", 가=[NAMES[:2], [Q, A]])
    book = openpyxl.load_workbook(path)
    book.create_chartsheet("그림").add_chart(BarChart())
    book.save(path)
    assert pairs(read(path)) == [(Q, A)]


def test_a_workbook_without_the_columns_on_any_sheet_is_refused_by_its_first(tmp_path):
    path = write_xlsx(tmp_path / "d.xlsx", 가=[["이름", "값"], [1, 2]], 나=[["코드"], [1]])
    with pytest.raises(RecordError, match=r"d.xlsx\[가\]:1: no column question, answer; found 이름, 값; say in"):
        read(path)


STRAY = {
    "no names": ([[None, None], [None, "\u3000"], [None, 7]], "found no column names", 1),
    "a name twice": (
        [["난이도", "명", "난이도"], ["상", 3, "하"]],
        "no column question, answer; found 난이도, 명, 난이도 (2)",
        1,
    ),
    "two answers": (
        [["번호", "회신(1차)", "회신(2차)"], [1, "가", "나"]],
        "no column question; found 번호, 회신(1차), 회신(2차)",
        1,
    ),
    "an answer twice": ([["답변", "답변"], ["가", "나"], ["다", "라"]], "no column question; found 답변, 답변 (2)", 2),
}


@pytest.mark.parametrize("stray", STRAY)
def test_a_sheet_that_is_no_table_of_questions_stops_nothing(tmp_path, stray):
    rows, reason, number = STRAY[stray]
    reading = read(path := write_xlsx(tmp_path / "d.xlsx", 잡=rows, 가=[NAMES[:2], [Q, A]]))
    assert pairs(reading) == [(Q, A)]
    assert left_out(reading, path) == [("[잡]", reason, number)]


def test_names_that_could_both_be_meant_stop_the_stage_where_both_fields_are(tmp_path):
    good = [NAMES[:2], [Q2, A2]]
    for names, message in (
        (
            ["질문", "회신(1차)", "회신(2차)"],
            r"d.xlsx\[나\]:1: columns 회신\(1차\), 회신\(2차\) could both be the answer",
        ),
        (["질문", "답변", "분야", "분야"], r"d.xlsx\[나\]:1: column 분야 is there more than once"),
    ):
        with pytest.raises(RecordError, match=message):
            read(write_xlsx(tmp_path / "d.xlsx", 가=good, 나=[names, [Q, A, A, A]]))


def test_merged_cells_are_filled_down_and_counted(tmp_path):
    rows = [NAMES, *([f"{number}번 {Q}", A, "전세" if number == 0 else None] for number in range(3))]
    rows += [[None, None, None], [f"3번 {Q}", A, "물권"], [f"4번 {Q}", A, None]]
    reading = read(write_xlsx(tmp_path / "d.xlsx", 상담__C2_C5=rows))
    assert [record.category for record in reading.records] == ["전세", "전세", "전세", "물권", ""]
    assert (reading.tables[0][1].filled, reading.read) == (2, 5)  # the row without cells of its own is none


def test_a_merged_answer_is_that_of_each_question_beside_it(tmp_path):
    reading = read(write_xlsx(tmp_path / "d.xlsx", 상담__B2_B3=[NAMES[:2], [Q, A], [Q2, None]]))
    assert pairs(reading) == [(Q, A), (Q2, A)]


def test_cells_merged_across_are_not_filled_to_the_right(tmp_path):
    reading = read(write_xlsx(tmp_path / "d.xlsx", 상담__A2_B3=[NAMES[:2], ["제1장 전세", None], [None, None], [Q, A]]))
    assert pairs(reading) == [(Q, A)]
    assert [(row.reason, row.line) for row in reading.rejected] == [("empty", 2)]


def test_names_over_two_rows_are_those_of_the_lower_one(tmp_path):
    rows = [["질문", "답변", "분류", None], [None, None, "분야", "난이도"], [Q, A, "전세", "초급"]]
    reading = read(write_xlsx(tmp_path / "d.xlsx", 상담__A1_A2__B1_B2__C1_D1=rows))
    assert pairs(reading) == [(Q, A, "전세", "초급")]
    assert reading.tables[0][1].header_line == 2


def test_a_cell_of_an_error_is_empty(tmp_path):
    reading = read(write_xlsx(tmp_path / "d.xlsx", 상담=[NAMES, [Q, A, "#N/A"], [Q2, "#REF!", ""]]))
    assert (pairs(reading), [row.reason for row in reading.rejected]) == ([(Q, A)], ["empty"])


def test_a_workbook_with_macros_is_a_workbook(tmp_path):
    shutil.copy(write_xlsx(tmp_path / "d.xlsx", 상담=[NAMES[:2], [Q, A]]), tmp_path / "d.xlsm")
    assert pairs(read(tmp_path / "d.xlsm")) == [(Q, A)]


def test_a_row_number_beyond_a_sheet_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("civilqa.reading.workbooks.MAX_ROWS", 1000)
    path = write_xlsx(tmp_path / "d.xlsx", 상담=[NAMES[:2], [Q, A]])
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b'<row r="2"', b'<row r="4000000000"')
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)
    with pytest.raises(RecordError, match=r"d.xlsx:1001: a sheet has at most 1000 rows and 16384 columns"):
        read(path)


# .xls


def test_an_old_workbook_is_read_with_its_sheets_merged_cells_and_values(tmp_path):
    path = tmp_path / "d.xls"
    shutil.copy(XLS, path)
    reading = read(path)
    assert pairs(reading) == [(Q, A, "전세", "초급"), (Q2, A2, "전세", "중급")]
    assert [row.line for row in reading.rows] == [4, 5]
    fields = [{name: row.fields[name] for name in ("번호", "날짜", "확인", "비고")} for row in reading.rows]
    assert fields == [
        {"번호": "1", "날짜": "2026-06-08", "확인": "true", "비고": "#N/A"},
        {"번호": "2.5", "날짜": "2026-06-08 09:30:00", "확인": "false", "비고": ""},
    ]
    assert reading.tables[0][1].filled == 1
    assert left_out(reading, path) == [
        ("[안내]", "no column question, answer; found 코드, 이름", 1),
        ("[빈]", "an empty sheet", 0),
    ]


def test_what_a_workbook_is_decides_and_not_its_suffix(tmp_path):
    shutil.copy(XLS, tmp_path / "d.xlsx")
    assert len(read(tmp_path / "d.xlsx").records) == 2
    shutil.copy(write_xlsx(tmp_path / "e.xlsx", 상담=[NAMES[:2], [Q, A]]), tmp_path / "e.xls")
    assert pairs(read(tmp_path / "e.xls")) == [(Q, A)]
    shutil.copy(tmp_path / "e.xlsx", tmp_path / "e.csv")
    assert pairs(read(tmp_path / "e.csv")) == [(Q, A)]
    for text in (f"질문\t답변\n{Q}\t{A}\n".encode(codec) for codec in ("utf-8", "cp949", "utf-16")):
        assert pairs(read(write(tmp_path / "f.xls", text))) == [(Q, A)]
    assert pairs(read(write(tmp_path / "g.txt", [{"질문": Q, "답변": A}]))) == [(Q, A)]


def test_what_only_points_to_a_file_of_git_lfs_is_said(tmp_path):
    for name in ("d.parquet", "d.csv", "d.xlsx"):
        path = write(tmp_path / name, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        with pytest.raises(RecordError, match=rf"{name}: only points to the file, .* run `git lfs pull` there"):
            read(path)


def test_formulas_whose_value_was_never_saved_are_counted_and_those_that_yield_nothing_are_not(tmp_path):
    rows = [[*NAMES, "수"], [Q, A, "=A1", "=1+1"], ["=A2", A2, "=1", "전"]]
    path = write_xlsx(tmp_path / "d.xlsx", 상담=rows)
    for empty, number in ((b'<c r="D2"><f>1+1</f><v>2</v></c>', 3), (b'<c r="D2" t="str"><f>1+1</f><v></v></c>', 3)):
        with zipfile.ZipFile(path) as book:
            parts = {name: book.read(name) for name in book.namelist()}
        sheet = "xl/worksheets/sheet1.xml"
        parts[sheet] = re.sub(rb'<c r="D2".*?</c>', empty, parts[sheet])
        with zipfile.ZipFile(path, "w") as book:
            for name, content in parts.items():
                book.writestr(name, content)
        reading = read(path)
        assert reading.tables[0][1].uncomputed == number
        assert (pairs(reading), [row.reason for row in reading.rejected]) == ([(Q, A)], ["empty"])
    shared = re.sub(rb'<c r="D2".*?</c>', b'<c r="D2"><f t="shared" si="0"/></c>', parts[sheet])
    with zipfile.ZipFile(path, "w") as book:
        for name, content in (parts | {sheet: shared}).items():
            book.writestr(name, content)
    assert read(path).tables[0][1].uncomputed == 4
    assert any("4 formulas without a saved value" in note for note in notes(read(path), "reject"))


NO_WORKBOOKS = [
    (b"<html><table><tr><td>", ": is a web page and not a workbook; open it in Excel and save it as .xlsx"),
    (b"\xef\xbb\xbf\r\n<!DOCTYPE html>", ": is a web page and not a workbook; open it in Excel and save it as .xlsx"),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600 + "EncryptedPackage".encode("utf-16-le"),
        ": is protected by a password; save it without one",
    ),
    (
        b"\x03\x04" + "질문\t답변\n".encode("cp949"),
        ":1: cannot be read as an Excel workbook from here on (File is not a zip file); the file is damaged, export it "
        "again",
    ),
]


@pytest.mark.parametrize(("content", "message"), NO_WORKBOOKS)
def test_what_is_no_workbook_is_refused_with_what_to_do(tmp_path, content, message):
    path = write(tmp_path / "d.xls", content)
    with pytest.raises(RecordError) as error:
        read(path)
    assert str(error.value) == f"{path}{message}"


@pytest.mark.parametrize("size", [0, 8, 100, 600, 3000])
def test_a_truncated_old_workbook_is_refused(tmp_path, size):
    with pytest.raises(RecordError, match=r"d.xls(\[.*\])?:\d+: cannot be read as an Excel workbook from here on"):
        read(write(tmp_path / "d.xls", XLS.read_bytes()[:size]))


# .ods


def test_an_opendocument_sheet_is_read_with_its_merged_cells_and_values(tmp_path):
    cell = '<table:table-cell office:value-type="{}" {}><text:p>보이는 글</text:p></table:table-cell>'
    merged = cell.format("string", 'table:number-rows-spanned="2"').replace("보이는 글", "전세")
    blank = '<table:table-row table:number-rows-repeated="{}"><table:table-cell table:number-columns-repeated="16384"/>'
    path = write_ods(
        tmp_path / "d.ods",
        ods_table(
            "상담",
            ods_row("상담 사례집"),
            blank.format(3) + "</table:table-row>",
            ods_row("분야", "질문", "답변", "수", "날짜", "확인", "비율"),
            merged
            + ods_row(Q, A)
            + cell.format("float", 'office:value="3"')
            + cell.format("date", 'office:date-value="2026-06-08T00:00:00"')
            + cell.format("boolean", 'office:boolean-value="true"')
            + cell.format("percentage", 'office:value="0.5"'),
            "<table:covered-table-cell/>" + ods_row(Q2, A2),
            blank.format(1048560) + "</table:table-row>",
        ),
        ods_table("코드", ods_row("코드", "이름"), ods_row("1", "전세")),
        ods_table("빈", "<table:table-cell/>"),
    )
    reading = read(path)
    assert pairs(reading) == [(Q, A, "전세"), (Q2, A2, "전세")]
    assert [row.line for row in reading.rows] == [6, 7]
    fields = reading.rows[0].fields
    assert (fields["수"], fields["날짜"], fields["확인"], fields["비율"]) == ("3", "2026-06-08", "true", "0.5")
    assert dict(reading.tables[0][1].left_out) == {"above the column names": 1}
    assert reading.tables[0][1].filled == 1
    assert left_out(reading, path) == [
        ("[코드]", "no column question, answer; found 코드, 이름", 1),
        ("[빈]", "an empty sheet", 0),
    ]


def test_a_cell_keeps_its_lines_spaces_and_tabs_and_no_comment(tmp_path):
    inside = (
        '<table:table-cell office:value-type="string"><office:annotation><text:p>메모</text:p></office:annotation>'
        '<text:p>첫째<text:line-break/>둘째<text:tab/>셋째 <text:s text:c="2"/><text:span>넷째</text:span> 끝</text:p>'
        "<text:p>다섯째</text:p></table:table-cell>"
    )
    path = write_ods(tmp_path / "d.ods", ods_table("상담", ods_row("질문", "답변"), ods_row(Q) + inside))
    assert read(path).rows[0].fields["answer"] == "첫째\n둘째\t셋째   넷째 끝\n다섯째"


def test_a_row_that_stands_for_several_is_several(tmp_path):
    repeated = f'<table:table-row table:number-rows-repeated="3">{ods_row(Q, A)}</table:table-row>'
    reading = read(write_ods(tmp_path / "d.ods", ods_table("상담", ods_row("질문", "답변"), repeated, ods_row(Q2, A2))))
    assert (reading.read, [row.line for row in reading.rejected], reading.rows[-1].line) == (5 - 1, [3, 4], 5)


MANY = "1000000000000"
BOMBS = {
    "rows": f'<table:table-row table:number-rows-repeated="{MANY}">{ods_row(Q, A)}</table:table-row>',
    "a row far down": f'<table:table-row table:number-rows-repeated="{MANY}"/>'
    f"<table:table-row>{ods_row(Q)}</table:table-row>",
    "columns": ods_row(Q)
    + ods_row(A).replace("<table:table-cell", f'<table:table-cell table:number-columns-repeated="{MANY}"'),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_few_bytes_that_stand_for_a_sheet_without_end_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("civilqa.reading.workbooks.MAX_ROWS", 1000)
    path = write_ods(tmp_path / "d.ods", ods_table("상담", ods_row("질문", "답변"), BOMBS[kind]))
    refusal = r"d.ods:\d+: (a sheet has at most|cannot be read as .* \(a row of more than 16384 columns)"
    with pytest.raises(RecordError, match=refusal):
        read(path)


def test_entities_without_end_in_an_opendocument_sheet_are_refused(tmp_path):
    path = write_ods(tmp_path / "d.ods", ods_table("상담", ods_row("질문", "답변"), ods_row("&i;", A)))
    with zipfile.ZipFile(path) as book:
        content = book.read("content.xml").decode()
    entities = "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 20}">' for n in range(8))
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        book.writestr("content.xml", f'<!DOCTYPE x [<!ENTITY a "{"가" * 20}">{entities}]>' + content)
    with pytest.raises(RecordError, match=r"d.ods:1: cannot be read as an Excel workbook from here on"):
        read(path)
