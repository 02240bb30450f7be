import itertools
import json
import zipfile
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from civilqa.program.errors import RecordError
from civilqa.reading.tables import READERS, BadRow, Row, TableInfo, find_files, open_table

COLUMNS = ["question", "answer", "분류"]
ROWS = [
    ["전세금을 돌려받지 못했습니다.", "민법 제312조, 주택임대차보호법; 제3조의2", "전세사기"],
    ['그는 "예"라고\n답했다', "가\t나", ""],
    ["똠방각하 펲시콜라", "①항 ㎡ 物權", "부동산물권"],
]
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp949")
LINE_ENDS = ("\n", "\r\n", "\r")
ADVICE = "save the file as 'CSV UTF-8'"
JSON_ADVICE = "write an array of objects, or one JSON object a line"
FIELDS_ADVICE = 'put a field that holds a comma or a line break between double quotes ("...")'
SUFFIXES = (
    ".csv, .tsv, .txt, .json, .jsonl, .jsonlines, .ndjson, .xlsx, .xlsm, .xls, .ods, .parquet, also inside .zip, or "
    ".gz (a.csv.gz)"
)
NOT_CLOSED = (
    'the row that starts here has a double quote (") that is never closed; close it, and write a double quote in a '
    'quoted field twice ("")'
)
BEHIND = (
    'the row that starts here has text behind the closing double quote (") of a field; write a double quote in a '
    'quoted field twice ("")'
)


def write(folder, name, content):
    path = Path(folder) / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path):
    info, rows = open_table(path)
    return info, list(rows)


def fields_of(path):
    return [row.fields for row in read(path)[1]]


def delimited(rows, delimiter):
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in rows]
    return "".join(delimiter.join(row) + "\n" for row in quoted)


def expected_rows():
    return [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]


def write_xlsx(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def write_parquet(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


# The same rows, written otherwise


def test_rows_do_not_depend_on_encoding_delimiter_and_suffix(tmp_path):
    for encoding, delimiter, suffix in itertools.product(ENCODINGS, ",\t;", (".csv", ".tsv")):
        path = write(tmp_path, f"data{suffix}", delimited([COLUMNS, *ROWS], delimiter).encode(encoding))
        info, rows = read(path)
        assert info == TableInfo(str(path), suffix[1:], encoding, delimiter, tuple(COLUMNS))
        assert rows == [Row(str(path), line, fields) for line, fields in zip([2, 3, 5], expected_rows(), strict=True)]


def test_jsonl_gives_the_same_rows_in_every_encoding(tmp_path):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in expected_rows())
    for encoding in ENCODINGS:
        path = write(tmp_path, "data.jsonl", text.encode(encoding))
        info, rows = read(path)
        assert info == TableInfo(str(path), "jsonl", encoding, None, tuple(COLUMNS))
        assert rows == [Row(str(path), line, fields) for line, fields in enumerate(expected_rows(), start=1)]


def test_parquet_gives_the_same_rows(tmp_path):
    path = write_parquet(tmp_path / "data.parquet", dict(zip(COLUMNS, zip(*ROWS, strict=True), strict=True)))
    info, rows = read(path)
    assert info == TableInfo(str(path), "parquet", None, None, tuple(COLUMNS))
    assert rows == [Row(str(path), line, fields) for line, fields in enumerate(expected_rows(), start=2)]


def test_xlsx_gives_the_same_rows(tmp_path):
    path = write_xlsx(tmp_path / "data.xlsx", [COLUMNS, *ROWS])
    info, rows = read(path)
    assert info == TableInfo(str(path), "xlsx", None, None, tuple(COLUMNS))
    assert rows == [Row(str(path), line, fields) for line, fields in enumerate(expected_rows(), start=2)]


def test_rows_and_lines_do_not_depend_on_line_ends(tmp_path):
    for end in LINE_ENDS:
        path = write(tmp_path, "data.csv", end.join(["a,b", "1,2", "", '"x', 'y",4', "5,6"]))
        assert read(path)[1] == [
            Row(str(path), 2, {"a": "1", "b": "2"}),
            Row(str(path), 4, {"a": f"x{end}y", "b": "4"}),
            Row(str(path), 6, {"a": "5", "b": "6"}),
        ]


def test_encoding_does_not_depend_on_where_chunks_end(tmp_path, monkeypatch):
    for encoding, chunk in itertools.product(ENCODINGS, (1, 2, 3, 5)):
        monkeypatch.setattr("civilqa.reading.encoding.CHUNK_BYTES", chunk)
        path = write(tmp_path, "data.csv", delimited([COLUMNS, *ROWS], ",").encode(encoding))
        assert (read(path)[0].encoding, chunk) == (encoding, chunk)


def test_the_line_of_a_broken_byte_does_not_depend_on_chunks_and_line_ends(tmp_path, monkeypatch):
    for end, chunk in itertools.product(LINE_ENDS, (1, 2, 3, 1 << 20)):
        monkeypatch.setattr("civilqa.reading.encoding.CHUNK_BYTES", chunk)
        before = f"질문,답변{end}가,나{end}다".encode()
        path = write(tmp_path, "data.csv", before + b"\xff,x\n")
        with pytest.raises(RecordError, match=rf":3: broken UTF-8 \(0xff, byte {len(before) + 1} of the file\)"):
            open_table(path)


def test_quoted_delimiters_in_the_header_do_not_decide_the_delimiter(tmp_path):
    path = write(tmp_path, "data.csv", '"a,b,c,d";e;f\n1;2;3\n')
    assert read(path)[0].columns == ("a,b,c,d", "e", "f")


def test_a_header_may_hold_a_line_break(tmp_path):
    path = write(tmp_path, "data.csv", '"a\nb",c\n1,2\n')
    info, rows = read(path)
    assert info.columns == ("a\nb", "c")
    assert rows == [Row(str(path), 3, {"a\nb": "1", "c": "2"})]


def test_a_table_may_have_one_column(tmp_path):
    assert fields_of(write(tmp_path, "data.csv", "a\n1\n2\n")) == [{"a": "1"}, {"a": "2"}]


def test_a_header_alone_is_a_table_without_rows(tmp_path):
    info, rows = read(write(tmp_path, "data.csv", "a,b\n"))
    assert (info.columns, rows) == (("a", "b"), [])


def test_column_names_are_stripped_and_cells_are_not(tmp_path):
    assert fields_of(write(tmp_path, "data.csv", " a ,b\t\n 1 , 2\n")) == [{"a": " 1 ", "b": " 2"}]


def test_a_column_without_name_and_text_is_left_out(tmp_path):
    info, rows = read(write(tmp_path, "data.csv", "a,,b,\n1,,2, \n"))
    assert info.columns == ("a", "b")
    assert rows[0].fields == {"a": "1", "b": "2"}


def test_a_line_separator_inside_text_ends_no_row(tmp_path):
    path = write(tmp_path, "data.jsonl", '{"a": "1\u20282\u00853"}\n')
    assert fields_of(path) == [{"a": "1\u20282\u00853"}]


def test_a_long_field_is_read_whole(tmp_path):
    text = "가" * 500_000
    assert fields_of(write(tmp_path, "data.csv", f"a,b\n{text},x\n")) == [{"a": text, "b": "x"}]


def test_utf16_without_a_mark_is_seen_where_every_syllable_has_a_nul_byte_too(tmp_path):
    for codec in ("utf-16-le", "utf-16-be"):
        path = write(tmp_path, "data.csv", "가,개\n가가가가가가가가가가,가가가가가가\n".encode(codec))
        info, rows = read(path)
        assert info.encoding == codec
        assert rows == [Row(str(path), 2, {"가": "가가가가가가가가가가", "개": "가가가가가가"})]


# Cells


def test_parquet_values_become_text(tmp_path):
    path = write_parquet(
        tmp_path / "data.parquet",
        {
            "none": pyarrow.array([None], pyarrow.string()),
            "nan": [float("nan")],
            "integer": [3],
            "whole": [3.0],
            "fraction": [0.1],
            "boolean": [True],
            "date": [date(2024, 1, 2)],
            "midnight": [datetime(2024, 1, 2)],
            "time": [datetime(2024, 1, 2, 3, 4)],
            "list": [["가", None]],
            "bytes": ["나".encode()],
        },
    )
    assert fields_of(path) == [
        {
            "none": "",
            "nan": "",
            "integer": "3",
            "whole": "3",
            "fraction": "0.1",
            "boolean": "true",
            "date": "2024-01-02",
            "midnight": "2024-01-02",
            "time": "2024-01-02 03:04:00",
            "list": ["가", None],
            "bytes": "나",
        }
    ]


def test_json_values_become_text(tmp_path):
    path = write(tmp_path, "data.jsonl", '{"a": null, "b": NaN, "c": 3, "d": 3.0, "e": false, "f": {"가": [1]}}\n')
    assert fields_of(path) == [{"a": "", "b": "", "c": "3", "d": "3", "e": "false", "f.가": [1]}]


def test_a_key_that_a_json_object_lacks_is_empty_and_another_is_kept(tmp_path):
    path = write(tmp_path, "data.jsonl", '{"a": "1", "b": "2"}\n{"c": "3", "a": "4"}\n')
    info, rows = read(path)
    assert info.columns == ("a", "b", "c")
    assert [row.fields for row in rows] == [{"a": "1", "b": "2", "c": ""}, {"a": "4", "b": "", "c": "3"}]


def test_a_key_that_comes_late_is_in_its_row_alone(tmp_path):
    path = write(tmp_path, "data.jsonl", '{"a": "1"}\n' * 1000 + '{"b": "2"}\n')
    info, rows = read(path)
    assert info.columns == ("a",)
    assert rows[-1].fields == {"a": "", "b": "2"}


def test_the_first_json_object_names_the_columns_after_lines_that_are_none(tmp_path):
    info, rows = read(write(tmp_path, "data.jsonl", 'x\n\n{"a": "1"}\n'))
    assert info.columns == ("a",)
    assert [(type(row), row.line) for row in rows] == [(BadRow, 1), (Row, 3)]


def test_parquet_rows_are_numbered_across_batches(tmp_path):
    path = write_parquet(tmp_path / "data.parquet", {"a": list(range(2500))})
    assert [row.line - 2 for row in read(path)[1]] == list(range(2500))


def test_parquet_bytes_that_are_no_text_are_a_bad_row(tmp_path):
    path = write_parquet(tmp_path / "data.parquet", {"a": [b"ok", b"\xff"], "b": ["x", "가"]})
    reason = "found bytes that are not UTF-8 (0xff); write the column as text"
    assert read(path)[1][1] == BadRow(str(path), 3, reason, '["b\'\\\\xff\'", "가"]', columns=("a", "b"))


def test_blank_rows_of_a_sheet_are_no_rows_but_count_as_lines(tmp_path):
    path = write_xlsx(tmp_path / "data.xlsx", [["a", "b"], [1, 2.5], [], [None, "x"]])
    assert read(path)[1] == [
        Row(str(path), 2, {"a": "1", "b": "2.5"}),
        Row(str(path), 4, {"a": "", "b": "x"}),
    ]


def test_only_the_first_sheet_is_read(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["a"])
    book.create_sheet("second").append(["b"])
    book.save(tmp_path / "data.xlsx")
    assert read(tmp_path / "data.xlsx")[0].columns == ("a",)


def edit_sheet(path, old, new):
    """Replace XML in the first sheet, as another program would have written it."""
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert old in parts[sheet]
    parts[sheet] = parts[sheet].replace(old, new)
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content)


def test_a_formula_is_the_value_that_excel_saved(tmp_path):
    path = write_xlsx(tmp_path / "data.xlsx", [["a"], ["=1+2"]])
    edit_sheet(
        path, b"<f>1+2</f><v></v>" if b"<v></v>" in sheet_of(path) else b"<f>1+2</f><v />", b"<f>1+2</f><v>3</v>"
    )
    assert fields_of(path) == [{"a": "3"}]


def sheet_of(path):
    with zipfile.ZipFile(path) as book:
        return book.read("xl/worksheets/sheet1.xml")


def test_a_sheet_is_read_whole_where_its_stated_size_is_wrong(tmp_path):
    path = write_xlsx(tmp_path / "data.xlsx", [["a", "b"], [1, 2], [3, 4]])
    edit_sheet(path, b'<dimension ref="A1:B3"', b'<dimension ref="A1"')
    assert fields_of(path) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_carriage_return_that_excel_escaped_is_one_again(tmp_path):
    path = write_xlsx(tmp_path / "data.xlsx", [["a"], ["가_x000D_\n나"]])
    assert fields_of(path) == [{"a": "가\r\n나"}]


# Rows that cannot be read as fields


def test_a_bad_row_is_kept_as_it_stands_and_the_rows_after_it_are_read(tmp_path):
    path = write(tmp_path, "data.csv", 'a,b\n1,"2\n3",4\n5,6\n')
    bad, row = read(path)[1]
    reason = f"found 3 fields, want 2 as in the header; {FIELDS_ADVICE}"
    assert bad == BadRow(str(path), 2, reason, '1,"2\n3",4', columns=("a", "b"))
    assert row == Row(str(path), 4, {"a": "5", "b": "6"})


def test_a_bad_row_prints_as_file_line_and_reason(tmp_path):
    assert str(BadRow("data.csv", 17, "found 3 fields", "a,b,c")) == "data.csv:17: found 3 fields"


BAD_ROWS = [
    ("d.csv", "a,b\n1\n", f":2: found 1 field, want 2 as in the header; {FIELDS_ADVICE}"),
    ("d.csv", "a,b\n1,2,3\n", f":2: found 3 fields, want 2 as in the header; {FIELDS_ADVICE}"),
    ("d.csv", 'a,b\n1, "2,3"\n', f":2: found 3 fields, want 2 as in the header; {FIELDS_ADVICE}"),
    ("d.tsv", "a\tb\n1\n", f":2: found 1 field, want 2 as in the header; {FIELDS_ADVICE.replace('comma', 'tab')}"),
    (
        "d.csv",
        "a;b\n1,2\n",
        f":2: found 1 field, want 2 as in the header; {FIELDS_ADVICE.replace('comma', 'semicolon')}",
    ),
    ("d.jsonl", '{"a": 1\n', f":1: no JSON: Expecting ',' delimiter at character 8; {JSON_ADVICE}"),
    ("d.jsonl", "a,b\n", f":1: no JSON: Expecting value at character 1; {JSON_ADVICE}"),
    ("d.jsonl", "[1, 2]\n", f":1: found a JSON array, want an object; {JSON_ADVICE}"),
    ("d.jsonl", "null\n", f":1: found a JSON null, want an object; {JSON_ADVICE}"),
    ("d.jsonl", "3\n", f":1: found a JSON number, want an object; {JSON_ADVICE}"),
    ("d.jsonl", '"x"\n', f":1: found a JSON string, want an object; {JSON_ADVICE}"),
    ("d.jsonl", '{"a": 1, "a": 2}\n', f":1: key 'a' is there more than once; {JSON_ADVICE}"),
    ("d.jsonl", '{"a": 1, " a": 2}\n', f":1: key 'a' is there more than once; {JSON_ADVICE}"),
    (
        "d.jsonl",
        '{"a": "\\ud800"}\n',
        f":1: found half of a surrogate pair (\\ud800 to \\udfff), which is no character; {JSON_ADVICE}",
    ),
    ("d.jsonl", '{"a": ' + "[" * 100_000 + "\n", f":1: JSON nested too deeply; {JSON_ADVICE}"),
]


def test_a_row_that_is_no_fields_is_a_bad_row_with_its_reason(tmp_path):
    wrong = []
    for name, content, problem in BAD_ROWS:
        path = write(tmp_path, name, content)
        (bad,) = read(path)[1]
        if (str(bad), bad.raw) != (f"{path}{problem}", content.splitlines()[bad.line - 1]):
            wrong.append((content[:100], problem, str(bad), bad.raw[:100]))
    assert wrong == []


def test_a_number_too_long_for_python_is_a_bad_row(tmp_path):
    (bad,) = read(write(tmp_path, "data.jsonl", '{"a": ' + "1" * 5000 + "}\n"))[1]
    assert bad.reason.startswith("Exceeds the limit (4300")


# Files that cannot be used


UNUSABLE = [
    ("d.csv", b"", ":1: the file is empty; want the column names on the first line, then the rows"),
    (
        "d.csv",
        b"\xef\xbb\xbf",
        ":1: the file is empty; want the column names on the first line, then the rows",
    ),
    ("d.csv", b" , ,\n", ":1: found no column names; put them on the first line"),
    ("d.csv", b"question,b, question\n", ":1: column question is there more than once; rename or delete one"),
    (
        "d.csv",
        b"question,answer,question,answer\n",
        ":1: column answer, question is there more than once; rename or delete one",
    ),
    (
        "d.csv",
        b'a,b\n1,2\n"3,4\n5,6\n',
        f":3: {NOT_CLOSED}",
    ),
    (
        "d.csv",
        b'a,b\n"1\n","2\n3\n',
        f":2: {NOT_CLOSED}",
    ),
    (
        "d.csv",
        b'a,b\r1,"2\r3\r',
        f":2: {NOT_CLOSED}",
    ),
    ("d.csv", b'"a,b\n1,2\n', f":1: {NOT_CLOSED}"),
    (
        "d.csv",
        b'a,b\n"1" x,2\n',
        f":2: {BEHIND}",
    ),
    (
        "d.csv",
        b'a,b\n"x","1\n""2,3\n4,"5"\n',
        f":2: {BEHIND}",
    ),
    (
        "d.csv",
        b"a,b\n1,2\xff\n",
        f":2: not UTF-8 (0xff, byte 8 of the file) and not CP949 (0xff, byte 8, line 2); {ADVICE}",
    ),
    ("d.csv", "가,b\n1,".encode() + b"\xb0\xa1\n", f":2: broken UTF-8 (0xb0, byte 9 of the file); {ADVICE}"),
    ("d.csv", "질문,답변\n가,".encode() + b"\xeb\x82", f":2: broken UTF-8 (0xeb, byte 19 of the file); {ADVICE}"),
    ("d.csv", b"\xef\xbb\xbfa,b\n\xb0\xa1,2\n", f":2: broken UTF-8 (0xb0, byte 8 of the file); {ADVICE}"),
    (
        "d.csv",
        "가,나\n다,라\n".encode("cp949")[:-2],
        f":1: not UTF-8 (0xb0, byte 1 of the file) and not CP949 (0xb6, byte 10, line 2); {ADVICE}",
    ),
    (
        "d.csv",
        b"a,b\nI don\x92t know,2\n",
        ":2: not UTF-8 (0x92, byte 10 of the file), and as CP949 it is not Korean "
        f"but rare syllables that no word has; {ADVICE}",
    ),
    ("d.csv", b"a,b\n1,\x002\n", f":2: not a text file (a NUL character); {ADVICE}"),
    ("d.csv", b"a,b\n1,\xb0\xa1\x002\n", f":2: not a text file (a NUL character); {ADVICE}"),
    ("d.csv", b"a,b\n1,\xb0\xa1\x02\n", f":2: not a text file (control character 0x02); {ADVICE}"),
    ("d.csv", "가,나\n".encode("utf-16") + b"\x00", f":2: broken UTF-16 (0x00, byte 11 of the file); {ADVICE}"),
    ("d.csv", b"\xff\xfea\x00\n\x00\x00\xd8b\x00", f":2: broken UTF-16 (0x00, byte 7 of the file); {ADVICE}"),
    ("d.csv", "a,b\n".encode("utf-32"), f":1: not a text file (a NUL character); {ADVICE}"),
    ("d.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", f":2: not a text file (control character 0x1a); {ADVICE}"),
    ("d.jsonl", b"", f":1: the file is empty; want rows; {JSON_ADVICE}"),
    ("d.jsonl", b"\n\n", f":1: the file is empty; want rows; {JSON_ADVICE}"),
    (
        "d.jsonl",
        b'{"a": "\xff"}\n',
        ":1: not UTF-8 (0xff, byte 8 of the file) and not CP949 (0xff, byte 8, line 1); save the file as UTF-8",
    ),
    (
        "d.jsonl",
        b'[\n{"a": 1},\n',
        ":3: no JSON: Expecting value at character 1; write an array of objects, or one JSON object a line",
    ),
    (
        "d.json",
        b'{"a": 1\n',
        ":2: no JSON: Expecting ',' or '}' at character 1; write an array of objects, or one JSON object a line",
    ),
    (
        "d.xlsx",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 and more",
        ":1: cannot be read as an Excel workbook from here on (Expected \"little-endian\" marker, found b''); "
        "the file is damaged, export it again",
    ),
    (
        "d.xlsx",
        b"PK\x03\x04 no zip",
        ":1: cannot be read as an Excel workbook from here on (File is not a zip file); "
        "the file is damaged, export it again",
    ),
    ("d.doc", b"a,b\n", f": unknown suffix '.doc'; save the file as one of {SUFFIXES}"),
    ("d", b"a,b\n", f": unknown suffix ''; save the file as one of {SUFFIXES}"),
]


def test_a_file_that_cannot_be_used_is_refused_with_what_to_do(tmp_path):
    wrong = []
    for name, content, problem in UNUSABLE:
        path = write(tmp_path, name, content)
        with pytest.raises(RecordError) as error:
            read(path)
        if str(error.value) != f"{path}{problem}":
            wrong.append((content, problem, str(error.value)))
    assert wrong == []


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"none.csv: not found; put the dataset there or set prepare.source"):
        open_table(tmp_path / "none.csv")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "data.csv").mkdir()
    with pytest.raises(RecordError, match=r"data.csv: cannot be opened \(Is a directory\)"):
        open_table(tmp_path / "data.csv")


def test_a_quote_that_is_never_closed_does_not_take_the_whole_file_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("civilqa.reading.delimited.FIELD_CHARACTERS", 1000)
    path = write(tmp_path, "data.csv", 'a,b\n1,"2\n' + "3,4\n" * 10_000)
    with pytest.raises(RecordError, match=r":2: the row .* a double quote .* is not closed within 1000 characters"):
        read(path)


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("civilqa.reading.encoding.FIELD_CHARACTERS", 1000)
    path = write(tmp_path, "data.jsonl", '{"a": 1}\n{"a": "' + "x" * 2000 + '"}\n')
    with pytest.raises(RecordError, match=r":2: found a line of more than 1000 characters; put one row on a line"):
        read(path)


def test_a_truncated_binary_file_is_refused(tmp_path):
    for path in (
        write_xlsx(tmp_path / "data.xlsx", [["a"], *([str(i)] for i in range(100))]),
        write_parquet(tmp_path / "data.parquet", {"a": [str(i) for i in range(100)]}),
    ):
        content = path.read_bytes()
        for size in (0, 3, 100, len(content) // 2, len(content) * 99 // 100):
            path.write_bytes(content[:size])
            with pytest.raises(RecordError, match=r":1: cannot be read as .*; the file is damaged, export it again"):
                read(path)


def test_damage_inside_a_sheet_is_refused_with_the_row_before_it(tmp_path):
    path = write_xlsx(tmp_path / "data.xlsx", [["a"], [1], [2]])
    edit_sheet(path, b"</row></sheetData>", b"</sheetData>")
    with pytest.raises(RecordError, match=r":2: cannot be read as an Excel workbook from here on"):
        read(path)


def test_an_empty_sheet_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r":1: the workbook has no cells; put the column names on the first row"):
        open_table(write_xlsx(tmp_path / "data.xlsx", []))


def test_a_cell_right_of_the_names_of_a_sheet_is_kept_beside_them(tmp_path):
    path = write_xlsx(tmp_path / "data.xlsx", [["a", "b"], [1, 2], [1, 2, None, "note"]])
    assert fields_of(path) == [{"a": "1", "b": "2"}, {"a": "1", "b": "2", "column 4 (no name)": "note"}]


def test_a_parquet_column_that_is_there_twice_is_refused(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["a", "a "])
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    with pytest.raises(RecordError, match=r":1: column a is there more than once"):
        open_table(tmp_path / "data.parquet")


# Which files


def test_a_folder_is_the_tables_in_it_by_name_and_every_other_file_is_left_out(tmp_path):
    for name in ["b.csv", "a.JSONL", "c.doc", ".d.csv", "~$e.xlsx", "f.xlsx", "h.csv.gz", "i.tar.gz"]:
        write(tmp_path, name, "")
    for folder in ("g.csv", ".hidden"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "inside.csv", "")
    (tmp_path / "loop").symlink_to(tmp_path)
    tables, left_out = find_files(str(tmp_path))
    expected = ["a.JSONL", "b.csv", "f.xlsx", "g.csv/inside.csv", "h.csv.gz"]
    assert [str(path.relative_to(tmp_path)) for path in tables] == expected
    assert [(item.file.removeprefix(f"{tmp_path}/"), item.reason, item.rows) for item in left_out] == [
        (".d.csv", "a hidden file", None),
        (".hidden", "a hidden folder", None),
        ("c.doc", "no table", None),
        ("i.tar.gz", "no table", None),
        ("loop", "a link to a folder", None),
        ("~$e.xlsx", "a hidden file", None),
    ]


def test_a_file_is_itself(tmp_path):
    path = write(tmp_path, "b.csv", "")
    assert find_files(str(path)) == ([path], [])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.csv", r"none.csv: not found; put the dataset there or set prepare.source"),
        ("empty", r"empty: no table in this folder; put a file there that ends in .csv, .tsv, .txt, .json, .jsonl"),
        ("a.doc", r"a.doc: unknown suffix '.doc'; save the file as one of .csv"),
    ],
)
def test_a_source_without_tables_is_refused(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path, "a.doc", "")
    with pytest.raises(RecordError, match=message):
        find_files(source)


# Anything at all

near_csv = st.lists(
    st.sampled_from(
        [",", ";", "\t", '"', '""', "\n", "\r", "\r\n", " ", "가", "a", "1", "{", "}", "[", ":", "\\u", "\0"]
    ),
    max_size=60,
).map("".join)
contents = st.one_of(
    st.binary(max_size=80),
    st.builds(lambda text, codec: text.encode(codec), near_csv, st.sampled_from(list(ENCODINGS))),
    st.builds(lambda text, tail: b"a,b\n" + text.encode() + tail, near_csv, st.binary(max_size=3)),
    st.builds(lambda tail: b"PK\x03\x04" + tail, st.binary(max_size=80)),
    st.builds(lambda tail: b"PAR1" + tail + b"PAR1", st.binary(max_size=80)),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(content=contents, suffix=st.sampled_from([*READERS, ".gz", ".zip", ".csv.gz", ".xls"]))
def test_whatever_a_file_holds_it_is_rows_or_a_record_error(content, suffix):
    with TemporaryDirectory() as folder:
        path = write(folder, f"data{suffix}", content)
        try:
            info, rows = read(path)
        except RecordError:
            return
        last = 0
        for row in rows:
            assert row.line >= last  # JSON may have several rows on a line
            last = row.line
            if isinstance(row, Row):
                assert set(info.columns) <= set(row.fields)
                assert "\ufffd" not in "".join(map(str, row.fields.values()))
