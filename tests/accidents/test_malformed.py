"""Tables as people have them when something is wrong: for each the exact message, with file and line.

`rejected` tells whether single rows are wrong, which are then kept in data/rejected.jsonl, or the file as a whole.
"""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import prepare
import source_files
from civilqa.dataset.records import read_records
from civilqa.program.errors import PipelineError
from civilqa.program.files import read_jsonl
from civilqa.reading.cited_articles import doubtful_citations
from civilqa.reading.cleaning import clean
from civilqa.reading.personal_data import mask_personal_data
from conftest import HEADER, ROOT, edit_params

ROW = "전세금을 못 받았습니다,임차권등기명령을 신청하십시오,전세사기,초급"
ADVICE = "\nEvery one of them is in data/rejected.jsonl; mend them, or set prepare.on_invalid to drop"


def json_row(**changes):
    row = dict(zip(HEADER.split(","), ROW.split(","), strict=True)) | changes
    return json.dumps(row, ensure_ascii=False)


# name of the file, content, parameters, rejected, message
MALFORMED = [
    (
        "d.csv",
        f"{HEADER}\n{ROW}\n질문만 있는 행\n",
        {},
        True,
        "d.csv:3: found 1 field, want 4 as in the header; put a field that holds a comma or a line break "
        'between double quotes ("...")',
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금, 못 받았습니다,임차권등기명령을 신청하십시오,전세사기,초급\n",
        {},
        True,
        "d.csv:2: found 5 fields, want 4 as in the header; put a field that holds a comma or a line break "
        'between double quotes ("...")',
    ),
    (
        "d.tsv",
        f"{HEADER}\n{ROW}\n".replace(",", "\t") + "칸이 모자란 행\t답\n",
        {},
        True,
        "d.tsv:3: found 2 fields, want 4 as in the header; put a field that holds a tab or a line break "
        'between double quotes ("...")',
    ),
    (
        "d.csv",
        f"{HEADER}\n{ROW}\n".replace(",", ";") + "a;b\n",
        {},
        True,
        "d.csv:3: found 2 fields, want 4 as in the header; put a field that holds a semicolon or a line "
        'break between double quotes ("...")',
    ),
    (
        "d.csv",
        f"{HEADER}\n,임차권등기명령을 신청하십시오,전세사기,초급\n",
        {},
        True,
        "d.csv:2: empty 'question'; fill it in or delete the row",
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금을 못 받았습니다,\u200b \ufeff,전세사기,초급\n",
        {},
        True,
        "d.csv:2: empty 'answer'; fill it in or delete the row",
    ),
    (
        "d.csv",
        f"{HEADER}\n뭐요,임차권등기명령을 신청하십시오,전세사기,초급\n",
        {},
        True,
        "d.csv:2: 'question' has 2 characters, want 5 (prepare.min_question_characters)",
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금을 못 받았습니다,예,전세사기,초급\n",
        {"prepare.short_answers": "reject"},
        True,
        "d.csv:2: 'answer' has 1 characters, want 10 (prepare.min_answer_characters)",
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금을 못 받았습니다,임차권등기명령을 신청하십시오,상속,초급\n",
        {"prepare.allowed_categories": ["전세사기", "부동산물권"]},
        True,
        "d.csv:2: category '상속' is not among prepare.allowed_categories: 전세사기, 부동산물권",
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금을 못 받았습니다,임차권등기명령을 신청하십시오,,초급\n",
        {"prepare.allowed_categories": ["전세사기", "부동산물권"]},
        True,
        "d.csv:2: category '' is not among prepare.allowed_categories: 전세사기, 부동산물권",
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금을 못 받았습니다,임차권등기명령을 신청하십시오,전세사기,최상급\n",
        {"prepare.allowed_difficulties": ["초급", "중급", "고급"]},
        True,
        "d.csv:2: difficulty '최상급' is not among prepare.allowed_difficulties: 초급, 중급, 고급",
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금을 못 받았습니다,민법 제1200조를 보십시오. 자세한 것은 상담을 받으십시오,전세사기,초급\n",
        {},
        True,
        "d.csv:2: the answer cites 민법 제1200조, which does not exist ('민법 제1200조를 보십시오. 자세한 것은 상담을 "
        "받…'); mend the citation, or list what is right in prepare.allowed_citations",
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금을 못 받았습니다,주택임대차보호법 제3조의9에 따라 신청하십시오,전세사기,초급\n",
        {},
        True,
        "d.csv:2: the answer cites 주택임대차보호법 제3조의9, which does not exist ('주택임대차보호법 제3조의9에 따라 "
        "신청하십시오'); mend the citation, or list what is right in prepare.allowed_citations",
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금을 못 받았습니다,민법 제186조와 민법 제1300조, 제1301조를 보십시오,전세사기,초급\n",
        {},
        True,
        "d.csv:2: found 5 fields, want 4 as in the header; put a field that holds a comma or a line break "
        'between double quotes ("...")',
    ),
    (
        "d.csv",
        f"{HEADER}\n{ROW}\n전세금을 못 받았습니다,지급명령을 신청하십시오,전세사기,초급\n",
        {},
        True,
        "d.csv:2: the same question has another answer in d.csv:3; delete the wrong one, or set "
        "prepare.same_question to keep_first or keep_variants\nd.csv:3: the same question has another answer in "
        "d.csv:2; delete the wrong one, or set prepare.same_question to keep_first or keep_variants",
    ),
    (
        "d.csv",
        f"{HEADER}\n전세금을 못 받았습니다,임차권등기명령을 신청하십시오,010-1234-5678,초급\n",
        {"prepare.allowed_categories": ["전세사기"]},
        True,
        "d.csv:2: category '[전화번호]' is not among prepare.allowed_categories: 전세사기",
    ),
    ("d.csv", f"{HEADER}\n", {}, False, "d.csv: has no rows below its header"),
    ("d.csv", "", {}, False, "d.csv:1: the file is empty; want the column names on the first line, then the rows"),
    (
        "d.csv",
        f"{ROW}\n{ROW}\n",
        {},
        False,
        "d.csv:1: found a row of 4 cells where the column names should be; put a line with the names above it, e.g. "
        "question,answer",
    ),
    (
        "d.csv",
        "question,category,difficulty\na,b,c\n",
        {},
        False,
        "d.csv:1: no column answer; found question, category, difficulty; say in prepare.columns what yours are "
        "called, e.g. {question: 질문}",
    ),
    (
        "d.csv",
        "사연,조언,분류,난이도\na,b,c,d\n",
        {},
        False,
        "d.csv:1: no column question, answer; found 사연, 조언, 분류, 난이도; say in prepare.columns what yours are "
        "called, e.g. {question: 질문}",
    ),
    (
        "d.csv",
        f"질문,answer,category,difficulty\n{ROW}\n",
        {"prepare.columns": {"question": "물음"}},
        False,
        "d.csv:1: no column 물음 (question), as prepare.columns says; found 질문, answer, category, difficulty; say "
        "there what it is called",
    ),
    (
        "d.csv",
        f"{HEADER},answer\n{ROW},x\n",
        {},
        False,
        "d.csv:1: column answer is there more than once; rename or delete one",
    ),
    (
        "d.csv",
        f"{HEADER},\n{ROW},이름 없는 칸\n",
        {},
        True,
        "d.csv:2: found 5 fields, want 4 as in the header; put a field that holds a comma or a line break between "
        'double quotes ("...")',
    ),
    (
        "d.csv",
        f'{HEADER}\n{ROW}\n"열린 따옴표,답,전세사기,초급\n{ROW}\n',
        {},
        False,
        'd.csv:3: the row that starts here has a double quote (") that is never closed; close it, and write a double '
        'quote in a quoted field twice ("")',
    ),
    (
        "d.csv",
        f'{HEADER}\n"그는 "예"라고 했다",임차권등기명령을 신청하십시오,,\n',
        {},
        False,
        'd.csv:2: the row that starts here has text behind the closing double quote (") of a field; write a double '
        'quote in a quoted field twice ("")',
    ),
    (
        "d.csv",
        (f"{HEADER}\n{ROW}\n").encode() + b"\xb0\xa1,\xb3\xaa,,\n",
        {},
        False,
        "d.csv:3: broken UTF-8 (0xb0, byte 134 of the file); save the file as 'CSV UTF-8'",
    ),
    (
        "d.csv",
        (f"{HEADER}\n{ROW}\n").encode("cp949") + b"\xff\xff,a,,\n",
        {},
        False,
        "d.csv:2: not UTF-8 (0xc0, byte 37 of the file) and not CP949 (0xff, byte 104, line 3); save the "
        "file as 'CSV UTF-8'",
    ),
    (
        "d.csv",
        (f"{HEADER}\n{ROW}\n").encode("utf-16")[:-1],
        {},
        False,
        "d.csv:2: broken UTF-16 (0x0a, byte 147 of the file); save the file as 'CSV UTF-8'",
    ),
    (
        "d.csv",
        (f"{HEADER}\n{ROW}\n").encode("utf-32"),
        {},
        False,
        "d.csv:1: not a text file (a NUL character); save the file as 'CSV UTF-8'",
    ),
    (
        "d.csv",
        (f"{HEADER}\n{ROW}\n").encode("euc_kr").replace(b",,", b",\x00,") + b"a\x00,b,,\n",
        {},
        False,
        "d.csv:3: not a text file (a NUL character); save the file as 'CSV UTF-8'",
    ),
    (
        "d.csv",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
        {},
        False,
        "d.csv:1: no column question, answer; found %PDF-1.7; a table needs one with the questions and one with the "
        "answers",
    ),
    (
        "d.csv",
        b"PK\x03\x04\x14\x00\x06\x00\x08\x00",
        {},
        False,
        "d.csv:1: cannot be read as an Excel workbook from here on (File is not a zip file); the file is damaged, "
        "export it again",
    ),
    (
        "d.jsonl",
        json_row() + '\n{"question": \n',
        {},
        True,
        "d.jsonl:2: no JSON: Expecting value at character 13; write an array of objects, or one JSON object a line",
    ),
    (
        "d.jsonl",
        json_row() + "\n[1, 2]\n",
        {},
        True,
        "d.jsonl:2: found a JSON array, want an object; write an array of objects, or one JSON object a line",
    ),
    (
        "d.jsonl",
        "[" + json_row() + ",\n" + json_row(question="두 번째 물음입니다") + "}]\n",
        {},
        False,
        "d.jsonl:2: no JSON: Expecting ',' or ']' at character 96; write an array of objects, or one JSON object a "
        "line",
    ),
    (
        "d.jsonl",
        json.dumps({"a": 1}) + "\n",
        {},
        False,
        "d.jsonl:1: no column question, answer; found a; a table needs one with the questions and one with the answers",
    ),
    (
        "d.jsonl",
        json_row() + "\n" + '{"question": "a", "question": "b"}\n',
        {},
        True,
        "d.jsonl:2: key 'question' is there more than once; write an array of objects, or one JSON object a line",
    ),
    (
        "d.jsonl",
        json_row() + "\n" + '{"question": "전세금 반환은 언제 합니까"}\n',
        {},
        True,
        "d.jsonl:2: empty 'answer'; fill it in or delete the row",
    ),
    ("d.jsonl", json_row(question=None) + "\n", {}, True, "d.jsonl:1: empty 'question'; fill it in or delete the row"),
    (
        "d.jsonl",
        json_row(answer=["가", "나"]) + "\n" + json_row(question="두 번째 물음입니다", answer=7) + "\n",
        {"prepare.short_answers": "reject"},
        True,
        "d.jsonl:1: 'answer' holds a list, want text; say in prepare.columns what inside it is the text, e.g. {answer: "
        "answer.0}\nd.jsonl:2: 'answer' has 1 characters, want 10 (prepare.min_answer_characters)",
    ),
    (
        "d.jsonl",
        b"\n\n",
        {},
        False,
        "d.jsonl:1: the file is empty; want rows; write an array of objects, or one JSON object a line",
    ),
    (
        "d.parquet",
        b"PAR1 broken",
        {},
        False,
        "d.parquet:1: cannot be read as a Parquet file from here on (Parquet magic bytes not found in "
        "footer. Either the file is corrupted or this is not a parquet file); the file is damaged, export it "
        "again",
    ),
    (
        "d.xlsx",
        b"not a zip",
        {},
        False,
        "d.xlsx:1: no column question, answer; found not a zip; a table needs one with the questions and one with the "
        "answers",
    ),
    (
        "d.xlsx",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 21 + b"damaged",
        {},
        False,
        'd.xlsx:1: cannot be read as an Excel workbook from here on (Expected "little-endian" marker, found '
        "b'\\x00d'); the file is damaged, export it again",
    ),
    (
        "d.xls",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 old",
        {},
        False,
        "d.xls:1: cannot be read as an Excel workbook from here on (Expected \"little-endian\" marker, found b''); the "
        "file is damaged, export it again",
    ),
    (
        "d.docx",
        b"PK",
        {},
        False,
        "d.docx: unknown suffix '.docx'; save the file as one of .csv, .tsv, .txt, .json, .jsonl, .jsonlines, .ndjson, "
        ".xlsx, .xlsm, .xls, .ods, .parquet, also inside .zip, or .gz (a.csv.gz)",
    ),
    (
        "d.csv",
        f"{HEADER}\n{ROW}\n",
        {"prepare.categories": ["상속"]},
        False,
        "params.yaml: prepare.categories: no record has 상속; there are: 전세사기",
    ),
    (
        "d.csv",
        f"{HEADER}\n{ROW}\n",
        {"prepare.source": "missing.csv"},
        False,
        "missing.csv: not found; put the dataset there or set prepare.source",
    ),
    (
        "d.csv",
        f"{HEADER}\n{ROW}\n",
        {"prepare.source": ""},
        False,
        "params.yaml: prepare.source: found ''; string should have at least 1 character",
    ),
]


def prepare_file(folder: Path, name: str, content: str | bytes, **changes) -> str | None:
    """Run the stage in a folder of its own; return its error message, or None if it had none."""
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    edit_params(folder / "params.yaml", **({"prepare.source": name} | changes))
    try:
        prepare.main()
    except PipelineError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("name", "content", "changes", "rejected", "message"), MALFORMED)
def test_a_malformed_table_gets_this_message(tmp_path, monkeypatch, name, content, changes, rejected, message):
    monkeypatch.chdir(tmp_path)
    assert prepare_file(tmp_path, name, content, **changes) == message + (ADVICE if rejected else "")
    assert not (tmp_path / "data/prepared").exists()
    lines = (tmp_path / "data/rejected.jsonl").read_text("utf-8").splitlines() if rejected else []
    shown = [f"{row['file']}:{row['line']}: {row['detail']}" for row in map(json.loads, lines)]
    assert not rejected or shown == message.split("\n")


def test_the_table_of_malformed_inputs_has_forty_at_least():
    assert len({(name, content) for name, content, *_ in MALFORMED}) >= 40


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp949"]


def test_the_dataset_in_any_encoding_and_delimiter_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (ROOT / "data/raw/civil_law_qa_dataset.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    prepared = set()
    for encoding in ENCODINGS:
        for delimiter in ",\t;":
            text = io.StringIO()
            csv.writer(text, delimiter=delimiter).writerows(rows)
            assert prepare_file(tmp_path, "dataset.csv", text.getvalue().encode(encoding)) is None
            prepared.add(Path("data/prepared/records.jsonl").read_bytes())
    assert len(prepared) == 1
    assert prepared.pop().count(b"\n") == 60


CELL = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "가",
                " ",
                "\u200b",
                "\x00",
                "\x85",
                '"',
                ",",
                "\t",
                ";",
                "줄\n바꿈",
                "\r",
                '열린 " 따옴표',
                "=1+1",
                "null",
                "NaN",
            ),
            *(
                "질문 하나입니다",
                "답변으로 쓸 만한 길이의 글입니다",
                "민법 제9999조를 보십시오 그러면 됩니다",
                "전세사기",
                "초급",
            ),
            *("010-1234-5678", "900101-1234567", "뷁쀍", "🏠", "\u1100\u1161", "1e999", "가" * 300),
        ]
    ),
    st.text(max_size=12),
)
PARAMS = source_files.PARAMS.model_copy(update={"source": "x.csv", "allowed_categories": ["", "전세사기"]})


@st.composite
def rows_of(draw, names):
    """A row that could stand in a dataset, with up to two cells, and now and then their number, changed."""
    number = draw(st.integers(0, 9))
    good = {
        "question": f"{number}번째 질문입니다",
        "answer": f"{number}번째 답변입니다. 민법 제186조를 보십시오",
        "category": draw(st.sampled_from(["", "전세사기"])),
    }
    row = [good.get(name, "") for name in names]
    for _ in range(draw(st.integers(0, 2))):
        row[draw(st.integers(0, len(row) - 1))] = draw(CELL)
    return row + draw(st.sampled_from([[], [], [], [], ["하나 더"]]))


@st.composite
def tables(draw):
    """A file name and bytes: mostly a table, with whatever can be wrong in its names, cells, quotes, bytes and end."""
    suffix = draw(st.sampled_from([".csv", ".tsv", ".jsonl"]))
    names = draw(st.permutations(HEADER.split(","))) + draw(st.sampled_from([[], [], ["비고"], ["", "answer"]]))
    rows = draw(st.lists(rows_of(names), max_size=6))
    if suffix == ".jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=False)), ensure_ascii=draw(st.booleans())) for row in rows]
    else:
        delimiter = draw(st.sampled_from(",\t;"))
        quoted = draw(st.sampled_from([True, True, True, False]))
        cells = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' if quoted else cell for cell in row] for row in rows]
        lines = [delimiter.join(row) for row in [names, *cells]]
    text = draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines)
    data = text.encode(draw(st.sampled_from(ENCODINGS)), "ignore")
    if draw(st.integers(0, 5)) == 0:
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(st.binary(max_size=3)) + data[place + draw(st.integers(0, 3)) :]
        data = data[: len(data) - draw(st.sampled_from([0, 0, 1, 2, 7]))]
    return f"table{suffix}", data


@given(table=tables(), keep=st.sampled_from([[], ["전세사기"]]))
@settings(
    max_examples=10_000,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_the_file_every_row_is_kept_filtered_or_rejected(tmp_path, monkeypatch, table, keep):
    monkeypatch.chdir(tmp_path)
    name, content = table
    Path(name).write_bytes(content)
    shutil.rmtree("data", ignore_errors=True)
    Path("metrics/prepare.json").unlink(missing_ok=True)
    try:
        prepare.prepare(PARAMS.model_copy(update={"source": name, "categories": keep}))
        refusal = None
    except PipelineError as error:
        refusal = str(error)
    event("table read" if refusal is None else "table refused")
    if refusal is not None:
        assert refusal.startswith((f"{name}:", "params.yaml: prepare"))
        assert not Path("metrics/prepare.json").exists()
        return
    counts = json.loads(Path("metrics/prepare.json").read_text("utf-8"))
    records = read_records(Path("data/prepared/records.jsonl"))
    rejected = list(read_jsonl(Path("data/rejected.jsonl")))
    rows = counts["rows"]
    assert rows["kept"] + rows["filtered"] + rows["rejected"] == rows["read"]
    assert (rows["kept"], rows["rejected"]) == (len(records), len(rejected))
    assert sum(counts["rejected_by_reason"].values()) == len(rejected)
    assert all(row["file"] == name and row["line"] > 0 and row["reason"] and row["detail"] for row in rejected)
    assert len({record.id for record in records}) == len(records)
    for record in records:
        for text, least in ((record.question, 2), (record.answer, 2), (record.category, 0)):
            assert clean(text) == text
            assert len(text) >= least
            assert mask_personal_data(text)[0] == text
        assert record.category in (keep or PARAMS.allowed_categories)
        assert not doubtful_citations(record.answer, allowed=())[0]
