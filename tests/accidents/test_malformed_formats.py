"""Files of every format and shape with something wrong in them: for each the exact message, or what is left out.

What the stage keeps, filters, rejects and leaves out is what the files hold, in rows, tables and files.
"""

# ruff: noqa: E501  # messages stand as they are printed

import gzip
import io
import json
import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import prepare
from civilqa.program.errors import PipelineError
from civilqa.program.files import read_json, read_jsonl
from conftest import ROOT, edit_params
from source_files import PARAMS, ods_row, ods_table, write_ods, write_xlsx

Q, A = "전세금을 못 받았습니다", "임차권등기명령을 신청하십시오"
CSV = f"질문,답변\n{Q},{A}\n"
AGAIN = "; the file is damaged, export it again"
MEND = "\nEvery one of them is in data/rejected.jsonl; mend them, or set prepare.on_invalid to drop"
MAP = "; say in prepare.columns what yours are called, e.g. {question: 질문}"
TWO = "; a table needs one with the questions and one with the answers"
NAMES_ABOVE = "; put a line with the names above it, e.g. question,answer"
ARRAY = "; write an array of objects, or one JSON object a line"
TEXT = ", want text; say in prepare.columns what inside it is the text, e.g. "


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def turns(*texts):
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def zipped(**members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("_", "."), data)
    return content.getvalue()


def saved(write, *arguments, **sheets):
    """Return the bytes that a function writes to a file."""
    with TemporaryDirectory() as folder:
        return write(Path(folder) / "d", *arguments, **sheets).read_bytes()


def parquet(**columns):
    def write(path):
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return path

    return saved(write)


# name of the file, content, parameters, message; of rows the message is that of data/rejected.jsonl
MALFORMED = [
    (
        "d.csv",
        f"{Q},{A}\n{Q} 둘,{A}\n",
        {},
        f"d.csv:1: found a row of 2 cells where the column names should be{NAMES_ABOVE}",
    ),
    (
        "d.csv",
        f"상담 사례\n김철수,010-1234-5678,{Q}\n",
        {},
        "d.csv:1: no column question, answer; found 상담 사례" + TWO,
    ),
    (
        "d.csv",
        f"홍길동,900101-1234567,{Q}\n",
        {},
        f"d.csv:1: found a row of 3 cells where the column names should be{NAMES_ABOVE}",
    ),
    ("d.csv", "문의하신 분\n홍길동\n", {}, f"d.csv:1: no column question, answer; found 문의하신 분{TWO}"),
    ("d.csv", "질문,내용\n가,나\n", {}, f"d.csv:1: no column answer; found 질문, 내용{MAP}"),
    ("d.csv", "제목,답변\n가,나\n", {}, f"d.csv:1: no column question; found 제목, 답변{MAP}"),
    ("d.csv", "질문\n가\n", {}, f"d.csv:1: no column answer; found 질문{TWO}"),
    ("d.csv", "질문,답변,답변\n가,나,다\n", {}, "d.csv:1: column 답변 is there more than once; rename or delete one"),
    (
        "d.csv",
        "질문(1),질문(2),답변\n가,나,다\n",
        {},
        "d.csv:1: columns 질문(1), 질문(2) could both be the question; say in prepare.columns which one is",
    ),
    (
        "d.csv",
        CSV,
        {"prepare.columns": {"question": "사연", "answer": "조언"}},
        "d.csv:1: no column 사연 (question), 조언 (answer), as prepare.columns says; found 질문, 답변; say there what it is "
        "called",
    ),
    (
        "d.csv",
        CSV,
        {"prepare.columns": {"category": "분야"}},
        "d.csv:1: no column 분야 (category), as prepare.columns says; found 질문, 답변; say there what it is called",
    ),
    (
        "d.csv",
        f",질문,답변,\n가,{Q},{A},나\n",
        {},
        "d.csv:2: found 4 fields, want 3 as in the header; put a field that holds a comma or a line break between double "
        f'quotes ("..."){MEND}',
    ),
    ("d.csv", "제목\n\n질문,답변\n", {}, "d.csv: has no rows below its header"),
    ("d.csv", f"제목,\n질문,답변\n{Q},nan\n", {}, f"d.csv:3: empty 'answer'; fill it in or delete the row{MEND}"),
    ("d.csv", f"제목,\n질문,답변\n#N/A,{A}\n", {}, f"d.csv:3: empty 'question'; fill it in or delete the row{MEND}"),
    (
        "d.csv",
        f"제목,,\n질문,답변\n{Q},{A},하나 더\n",
        {},
        "d.csv:3: found 3 fields, want 2 as in the header; put a field that holds a comma or a line break between double "
        f'quotes ("..."){MEND}',
    ),
    (
        "d.txt",
        f"질문|답변\n{Q}|{A}|더\n",
        {},
        'd.txt:2: found 3 fields, want 2 as in the header; put a field that holds a vertical bar or a line break between double quotes ("...")'
        + MEND,
    ),
    ("d.csv", "sep=;\n", {}, "d.csv:2: found no column names; put them on the first line"),
    (
        "d.txt",
        b"\x89PNG\r\n\x1a\n\x00\x00",
        {},
        "d.txt:2: not a text file (control character 0x1a); save the file as UTF-8",
    ),
    ("d.json", "", {}, "d.json:1: the file is empty; want rows; write an array of objects, or one JSON object a line"),
    ("d.json", "[]", {}, f"d.json:1: the file is empty; want rows{ARRAY}"),
    ("d.json", '[{"질문": "가"}', {}, f"d.json:1: no JSON: Expecting ',' or ']' at character 13{ARRAY}"),
    ("d.json", '[\n{"질문": "가",\n "답변": 나}]', {}, f"d.json:3: no JSON: Expecting value at character 8{ARRAY}"),
    ("d.json", "질문,답변\n", {}, f"d.json:1: no JSON: Expecting value at character 1{ARRAY}"),
    (
        "d.json",
        '{"질문": {"0": "가나다라마"}, "답변": {"1": "나"}}',
        {},
        f"d.json:2: empty 'answer'; fill it in or delete the row\nd.json:3: empty 'question'; fill it in or delete the "
        f"row{MEND}",
    ),
    (
        "d.json",
        lines({"a": [{"질문": Q, "답변": A}], "b": [{"질문": Q, "답변": ""}]}),
        {},
        f"d.json[b]:1: empty 'answer'; fill it in or delete the row{MEND}",
    ),
    (
        "d.json",
        json.dumps({"a": {"질문": Q, "답변": A}, "b": {"질문": Q, "답변": ""}}, indent=1),
        {},
        f"d.json:6: empty 'answer'; fill it in or delete the row{MEND}",
    ),
    (
        "d.json",
        lines({"data": [{"title": Q, "body": A}]}),
        {},
        f"d.json:1: no column question, answer; found title, body{MAP}",
    ),
    (
        "d.json",
        lines({"info": {"id": 1}, "label": {"text": A, "q": Q}}),
        {},
        f"d.json:1: no column question, answer; found info.id, label.text, label.q{MAP}",
    ),
    (
        "d.json",
        json.dumps([{"질문": Q, "답변": A}, 7], ensure_ascii=False),
        {},
        f"d.json:1: found a JSON number, want an object{ARRAY}{MEND}",
    ),
    ("d.jsonl", lines({"질문": Q, "답변": [A]}), {}, f"d.jsonl:1: 'answer' holds a list{TEXT}{{answer: 답변.0}}{MEND}"),
    (
        "d.jsonl",
        lines({"질문": Q, "답변": A}, {"질문": {"글": Q}, "답변": A}),
        {},
        f"d.jsonl:2: 'question' holds an object{TEXT}{{question: 질문.글}}{MEND}",
    ),
    (
        "d.jsonl",
        lines({"질문": Q, "답": {"text": A}}),
        {"prepare.columns": {"answer": "답"}},
        f"d.jsonl:1: 'answer' holds an object{TEXT}{{answer: 답.text}}{MEND}",
    ),
    (
        "d.jsonl",
        lines({"질문": Q, "답": {"text": A}}),
        {"prepare.columns": {"answer": "답.글"}},
        "d.jsonl:1: no column 답.글 (answer), as prepare.columns says; found 질문, 답.text; say there what it is called",
    ),
    (
        "d.jsonl",
        lines({"instruction": "", "input": "", "output": A}),
        {},
        f"d.jsonl:1: empty 'question'; fill it in or delete the row{MEND}",
    ),
    (
        "d.jsonl",
        lines({"instruction": Q, "input": [1], "output": A}),
        {},
        f"d.jsonl:1: 'question' holds a list{TEXT}{{question: input.0}}{MEND}",
    ),
    (
        "d.jsonl",
        lines({"messages": turns(Q, A, Q, A)}),
        {},
        "d.jsonl:1: 'messages' holds a conversation of several turns; cut it to one, or set prepare.multi_turn to first or last"
        + MEND,
    ),
    ("d.jsonl", lines({"messages": turns(Q)}), {}, "d.jsonl:1: 'messages' holds a question without an answer" + MEND),
    ("d.jsonl", lines({"messages": Q}), {}, "d.jsonl:1: 'messages' holds text, want a list of messages" + MEND),
    (
        "d.jsonl",
        lines({"conversations": [{"from": "human", "value": Q}, {"from": "gpt"}]}),
        {},
        "d.jsonl:1: 'conversations' has a message 2 without role and content (or from and value)" + MEND,
    ),
    (
        "d.jsonl",
        lines({"conversations": [{"from": "gpt", "value": A}]}),
        {},
        "d.jsonl:1: 'conversations' has the assistant's message 1 out of turn; want a question, then its answer" + MEND,
    ),
    ("d.parquet", parquet(title=[Q], body=[A]), {}, f"d.parquet:2: no column question, answer; found title, body{MAP}"),
    (
        "d.parquet",
        parquet(질문=[Q], 답변=[[A]]),
        {},
        f"d.parquet:2: 'answer' holds a list{TEXT}{{answer: 답변.0}}{MEND}",
    ),
    ("d.parquet", parquet(질문=[], 답변=[]), {}, "d.parquet: has no rows below its header"),
    (
        "d.xlsx",
        saved(write_xlsx, 가=[["이름", "값"], [1, 2]], 나=[]),
        {},
        f"d.xlsx[가]:1: no column question, answer; found 이름, 값{MAP}",
    ),
    (
        "d.xlsx",
        saved(write_xlsx, 가=[[Q, A], [Q, A]]),
        {},
        f"d.xlsx:1: found a row of 2 cells where the column names should be{NAMES_ABOVE}",
    ),
    (
        "d.xlsx",
        saved(write_xlsx, 가=[["제목"], ["질문", "답변"], [Q, "#REF!"]]),
        {},
        f"d.xlsx:3: empty 'answer'; fill it in or delete the row{MEND}",
    ),
    (
        "d.xlsx",
        saved(write_xlsx, 가=[["질문", "답변"], [Q, None, None, "메모"]]),
        {},
        f"d.xlsx:2: empty 'answer'; fill it in or delete the row{MEND}",
    ),
    (
        "d.xlsx",
        saved(write_xlsx, 가=[], 나=[]),
        {},
        "d.xlsx:1: the workbook has no cells; put the column names on the first row of a sheet",
    ),
    (
        "d.xlsx",
        saved(write_xlsx, 가__A2_A3=[["질문", "답변"], [Q, A], [None, "지급명령을 신청하십시오"]]),
        {},
        "d.xlsx:2: the same question has another answer in d.xlsx:3; delete the wrong one, or set prepare.same_question to keep_first or keep_variants\nd.xlsx:3: the same question has another answer in d.xlsx:2; delete the wrong one, or set prepare.same_question to keep_first or keep_variants"
        + MEND,
    ),
    ("d.xls", "<html><table>", {}, "d.xls: is a web page and not a workbook; open it in Excel and save it as .xlsx"),
    (
        "d.xls",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
        {},
        "d.xls: is protected by a password; save it without one",
    ),
    (
        "d.xls",
        "질문\t답변\n",
        {},
        "d.xls: has no rows below its header",
    ),
    (
        "d.ods",
        saved(write_ods, ods_table("가", ods_row("이름", "값"), ods_row("1", "2"))),
        {},
        f"d.ods:1: no column question, answer; found 이름, 값{MAP}",
    ),
    (
        "d.ods",
        saved(write_ods, ods_table("가", ods_row("질문", "답변"), ods_row(Q, ""))),
        {},
        f"d.ods:2: empty 'answer'; fill it in or delete the row{MEND}",
    ),
    (
        "d.ods",
        saved(write_ods, ods_table("가", "<table:table-cell/>")),
        {},
        "d.ods:1: the workbook has no cells; put the column names on the first row of a sheet",
    ),
    (
        "d.csv.gz",
        b"\x1f\x8b",
        {},
        f"d.csv.gz:1: cannot be read as a gz file from here on (Compressed file ended before the end-of-stream marker was reached){AGAIN}",
    ),
    (
        "d.csv.gz",
        CSV.encode(),
        {},
        f"d.csv.gz:1: cannot be read as a gz file from here on (Not a gzipped file (b'\\xec\\xa7')){AGAIN}",
    ),
    (
        "d.csv.gz",
        gzip.compress(f"제목,값\n{Q},{A}\n".encode()),
        {},
        f"d.csv.gz:1: no column question, answer; found 제목, 값{MAP}",
    ),
    (
        "d.gz",
        gzip.compress(CSV.encode()),
        {},
        "d.gz: unknown suffix '.gz'; save the file as one of .csv, .tsv, .txt, .json, .jsonl, .jsonlines, .ndjson, .xlsx, .xlsm, .xls, .ods, .parquet, also inside .zip, or .gz (a.csv.gz)",
    ),
    ("d.zip", b"PK\x03\x04", {}, f"d.zip:1: cannot be read as a zip file from here on (File is not a zip file){AGAIN}"),
    (
        "d.zip",
        zipped(a_png=b""),
        {},
        "d.zip: no table in it; put a file there that ends in .csv, .tsv, .txt, .json, .jsonl, .jsonlines, .ndjson, .xlsx, .xlsm, .xls, .ods, .parquet, also inside .zip, or .gz (a.csv.gz)",
    ),
    ("d.zip", zipped(a_csv="제목,값\n1,2\n"), {}, f"d.zip/a.csv:1: no column question, answer; found 제목, 값{MAP}"),
    (
        "d.zip",
        zipped(a_csv=CSV, b_csv='질문,답변\n"가,나\n'),
        {},
        'd.zip/b.csv:2: the row that starts here has a double quote (") that is never closed; close it, and write a double quote in a quoted field twice ("")',
    ),
    (
        "d.zip",
        zipped(a_csv=CSV, b_csv=CSV.replace(A, "")),
        {},
        f"d.zip/b.csv:2: empty 'answer'; fill it in or delete the row{MEND}",
    ),
    ("d.zip", zipped(a_json="[1]"), {}, f"d.zip/a.json:1: found a JSON number, want an object{ARRAY}"),
]


@pytest.mark.parametrize(("name", "content", "changes", "message"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_file_gets_this_message(tmp_path, monkeypatch, name, content, changes, message):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    edit_params(Path("params.yaml"), **({"prepare.source": name} | changes))
    with pytest.raises(PipelineError) as error:
        prepare.main()
    assert str(error.value) == message
    assert not Path("data/prepared").exists()
    if message.endswith(MEND):
        rejected = [f"{row['file']}:{row['line']}: {row['detail']}" for row in read_jsonl(prepare.REJECTED)]
        assert "\n".join(rejected) == message.removesuffix(MEND)


def test_the_table_of_malformed_files_has_sixty_at_least():
    assert len({(name, content) for name, content, *_ in MALFORMED}) >= 60


# Conservation


FORMATS = ("csv", "txt", "jsonl", "json", "wrapped", "xlsx", "ods", "parquet")


@st.composite
def tables(draw):
    """A format and the rows of a table: good, without an answer, with a list in it; or of other columns."""
    form = draw(st.sampled_from(FORMATS))
    usable = draw(st.sampled_from([True, True, True, False]))
    names = ["질문", "답변", "비고"] if usable else ["코드", "이름"]
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.integers(0, 5))
        row = [
            f"{number}번 {Q}",
            draw(st.sampled_from([A, A, A, "", "nan", "짧은 답"])),
            draw(st.sampled_from(["", "비고"])),
        ]
        rows.append(row if usable else [str(number), f"이름 {number}"])
    return form, names, rows, draw(st.integers(0, 2)) if form in ("csv", "txt", "xlsx", "ods") and usable else 0


def table_bytes(form, names, rows, titles):
    """Return suffix and bytes of a table; `titles` lines stand above the names."""
    grid = [[f"{number + 1}. 제목"] for number in range(titles)] + [names, *rows]
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    if form in ("csv", "txt"):
        return form, "".join(",".join(row) + "\n" for row in grid).encode()
    if form == "jsonl":
        return form, lines(*objects).encode()
    if form in ("json", "wrapped"):
        return "json", json.dumps(
            objects if form == "json" else {"version": 1, "info": {"of": "가"}, "data": objects}
        ).encode()
    if form == "xlsx":
        return form, saved(write_xlsx, 표=grid)
    if form == "ods":
        return form, saved(write_ods, ods_table("표", *(ods_row(*row) for row in grid)))
    return form, parquet(**{name: [row[index] for row in rows] for index, name in enumerate(names)})


def book_of(found):
    """Return a workbook of all tables as its sheets, and how many rows they hold."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, (_, names, rows, titles) in enumerate(found):
        sheet = book.create_sheet(f"표 {number}")
        for row in [*([f"{title + 1}. 제목"] for title in range(titles)), names, *rows]:
            sheet.append(row)
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


@given(
    found=st.lists(tables(), min_size=1, max_size=4),
    container=st.sampled_from(["folder", "zip", "xlsx", "gz"]),
    notes=st.integers(0, 2),
)
@settings(
    max_examples=400,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_the_files_every_row_table_and_file_is_accounted_for(tmp_path, monkeypatch, found, container, notes):
    monkeypatch.chdir(tmp_path)
    for left in ("in", "data", "metrics"):
        shutil.rmtree(left, ignore_errors=True)
    Path("in").mkdir()
    if container == "xlsx":
        Path("in.xlsx").write_bytes(book_of(found))
        source, files, others = "in.xlsx", 1, 0
    else:
        written = {
            f"표 {number}.{form}": data for number, table in enumerate(found) for form, data in [table_bytes(*table)]
        }
        pictures = {f"그림 {number}.png": b"\x89PNG" for number in range(notes)}
        if container == "zip":
            Path("in.zip").write_bytes(zipped(**written | pictures))
            source, files, others = "in.zip", 1, notes
        else:
            for name, data in (written | pictures).items():
                packed = container == "gz" and not name.endswith("png")
                (Path("in") / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)
            source, files, others = "in", len(written), notes
    refusal = None
    try:
        prepare.prepare(PARAMS.model_copy(update={"source": source, "min_answer_characters": 5}))
    except PipelineError as error:
        refusal = str(error)
    if refusal is not None:
        event("refused")
        assert refusal.startswith(("in", "params.yaml"))
        assert "every row was rejected" in refusal or not any(names[0] == "질문" for _, names, *_ in found)
        return
    event("read")
    counts = read_json(prepare.METRICS)
    rows = counts["rows"]
    held = sum(len(rows) + titles for _, _, rows, titles in found)
    assert rows["kept"] + rows["filtered"] + rows["rejected"] + rows["left_out"] == held
    assert rows["read"] == rows["kept"] + rows["filtered"] + rows["rejected"]
    usable = [table for table in found if table[1][0] == "질문"]
    assert counts["tables"]["read"] == len(usable) == sum(source["tables"] for source in counts["sources"])
    assert sum(source["rows"] for source in counts["sources"]) == rows["read"]
    assert rows["rejected"] == len(list(read_jsonl(prepare.REJECTED))) == sum(counts["rejected_by_reason"].values())
    inside = sum(form == "wrapped" for form, names, *_ in (found if container != "xlsx" else []))
    unread = len(found) - len(usable) + others + inside
    assert len(counts["left_out"]) == unread
    whole = counts["files"]["read"] + counts["files"]["left_out"]
    assert whole == (files + others if source == "in" else 1)
    assert counts["files"]["left_out"] + counts["tables"]["left_out"] == unread
