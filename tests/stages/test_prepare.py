import json
import unicodedata

import pytest

from civilqa.program.errors import ParameterError, RecordError
from conftest import HEADER, edit_params
from prepare import PrepareParams, Reading, clean, length_quantiles, read_source, select

ROW = "질문입니다,답변입니다,전세사기,초급"

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
    on_invalid="fail",
)


def read(tmp_path, content, name="data.csv", **changes) -> Reading:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source(str(path), PARAMS.model_copy(update=changes))


def fields(record):
    return record.question, record.answer, record.category, record.difficulty


def test_a_row_becomes_a_record(tmp_path):
    (record,) = read(tmp_path, f"{HEADER}\n{ROW}\n").records
    assert fields(record) == ("질문입니다", "답변입니다", "전세사기", "초급")


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\n{ROW}\n".encode("utf-8-sig"),
        f"{HEADER}\n{ROW}\n".encode("cp949"),
        f"{HEADER}\n{ROW}\n".encode("utf-16"),
        f"{HEADER}\r\n{ROW}\r\n",
        f"{HEADER}\n{ROW}",
        f"{HEADER}\n\n{ROW}\n\n",
        f" question , answer,category,difficulty\n{ROW}\n",
        f"{HEADER}\n" + unicodedata.normalize("NFD", ROW) + "\n",
        f"{HEADER}\n  질문입니다 ,\u200b답변입니다\ufeff,전세사기\t,초급\n",
        "difficulty,category,answer,question\n초급,전세사기,답변입니다,질문입니다\n",
        f"note,{HEADER}\n비고,{ROW}\n",
        f"{HEADER}\n{ROW}\n".replace(",", ";"),
        f"{HEADER}\n{ROW}\n".replace(",", "\t"),
    ],
    ids=[
        *("bom", "cp949", "utf-16", "crlf", "no newline", "blank lines", "spaces", "nfd", "invisible", "order"),
        *("more columns", "semicolon", "tab"),
    ],
)
def test_the_same_row_written_otherwise_is_the_same_record(tmp_path, content):
    assert read(tmp_path, content).records == read(tmp_path, f"{HEADER}\n{ROW}\n").records


def test_quoted_commas_quotes_and_line_breaks_are_text(tmp_path):
    (record,) = read(tmp_path, f'{HEADER}\n"첫째, 둘째","그는 ""예""라고\n답했다",전세사기,초급\n').records
    assert record.question == "첫째, 둘째"
    assert record.answer == '그는 "예"라고\n답했다'


def test_other_column_names_can_be_mapped(tmp_path):
    content = f"질문,답,category,difficulty\n{ROW}\n"
    (record,) = read(tmp_path, content, columns={"question": "질문", "answer": "답"}).records
    assert fields(record)[:2] == ("질문입니다", "답변입니다")


def test_category_and_difficulty_may_be_empty(tmp_path):
    (record,) = read(tmp_path, f"{HEADER}\n질문입니다,답변입니다,,\n").records
    assert (record.category, record.difficulty) == ("", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,answer,category\na,b,c\n", r"data.csv:1: no column difficulty; found question, answer, category"),
        (f"{HEADER}\n", r"has no rows below its header"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, content, message):
    with pytest.raises(RecordError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("rows", "line", "reason", "detail"),
    [
        (f"{ROW}\na,b,c\n", 3, "unreadable", "found 3 fields, want 4"),
        (f"{ROW}\n질문, 쉼표,답변,전세사기,초급\n", 3, "unreadable", "found 5 fields, want 4"),
        (",답변입니다,전세사기,초급\n", 2, "empty", "empty 'question'; fill it in or delete the row"),
        ("질문입니다, \u200b ,전세사기,초급\n", 2, "empty", "empty 'answer'; fill it in or delete the row"),
        ("가,답변입니다,전세사기,초급\n", 2, "too_short", "'question' has 1 characters, want 2"),
        ("질문입니다,답변입니다,상속,초급\n", 2, "unknown_category", "category '상속' is not among"),
        ("질문입니다,답변입니다,전세사기,최상\n", 2, "unknown_difficulty", "allowed_difficulties: 초급, 중급, 고급"),
        ("질문입니다,민법 제9999조에 따릅니다,전세사기,초급\n", 2, "no_such_article", "cites 민법 제9999조, which"),
        (f"{ROW}\n{ROW}\n", 3, "duplicate", "data.csv:2 again; delete one of the two"),
        ("질문입니다,가나,전세사기,초급\n질문입니다 ,다라,,\n", 2, "conflicting_duplicate", "another answer in"),
    ],
)
def test_a_row_that_cannot_be_used_is_rejected_with_its_line_and_reason(tmp_path, rows, line, reason, detail):
    reading = read(
        tmp_path,
        f"{HEADER}\n{rows}",
        allowed_categories=["전세사기", ""],
        allowed_difficulties=["초급", "중급", "고급"] if "최상" in rows else [],
    )
    rejected = reading.rejected[0]
    assert (rejected.line, rejected.reason) == (line, reason)
    assert detail in rejected.detail
    assert rejected.row
    assert len(reading.records) + len(reading.rejected) == reading.read


def test_of_contradicting_answers_none_is_kept(tmp_path):
    reading = read(tmp_path, f"{HEADER}\n질문입니다,가나,,\n다른 질문,다라,,\n질문입니다,마바,,\n")
    assert [record.question for record in reading.records] == ["다른 질문"]
    assert [row.line for row in reading.rejected] == [2, 4]


def test_citations_of_acts_outside_the_table_are_counted_and_kept(tmp_path):
    reading = read(tmp_path, f"{HEADER}\n질문입니다,공직선거법 제18조를 보십시오,,\n")
    assert (len(reading.records), reading.citations_outside_table) == (1, 1)


def test_personal_data_is_masked_and_counted(tmp_path):
    content = f"{HEADER}\n질문입니다,010-1234-5678로 연락하십시오,,\n"
    reading = read(tmp_path, content)
    assert reading.records[0].answer == "[전화번호]로 연락하십시오"
    assert reading.personal_data == {"phone": 1}
    assert "010-1234-5678" in read(tmp_path, content, mask_personal_data=False).records[0].answer


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  두   칸  ", "두 칸"),
        ("한\u00a0칸\u3000넓은 칸", "한 칸 넓은 칸"),
        ("가\u200b나\ufeff다", "가나다"),
        ("가\x00나\x07다", "가 나 다"),
        ("첫째\r\n둘째\r셋째", "첫째\n둘째\n셋째"),
        ("가\n\n\n\n나", "가\n\n나"),
        ("가 \n 나", "가\n나"),
        (unicodedata.normalize("NFD", "민법"), "민법"),
        ("①항 ㎡ Ⅳ", "①항 ㎡ Ⅳ"),
    ],
)
def test_clean(text, cleaned):
    assert clean(text) == cleaned
    assert clean(cleaned) == cleaned


def test_selection_keeps_only_what_was_asked_for(tmp_path):
    records = read(tmp_path, f"{HEADER}\nq1,aa,전세사기,초급\nq2,aa,부동산물권,초급\nq3,aa,전세사기,고급\n").records
    chosen = PARAMS.model_copy(update={"categories": ["전세사기"], "difficulties": ["초급"]})
    assert [record.question for record in select(records, chosen)] == ["q1"]
    assert select(records, PARAMS) == records


def test_selecting_what_no_record_has_lists_what_there_is(tmp_path):
    records = read(tmp_path, f"{HEADER}\n{ROW}\n").records
    with pytest.raises(ParameterError, match=r"prepare.categories: no record has 전세; there are: 전세사기"):
        select(records, PARAMS.model_copy(update={"categories": ["전세"]}))


def test_selecting_an_empty_intersection_is_an_error(tmp_path):
    records = read(tmp_path, f"{HEADER}\nq1,aa,전세사기,초급\nq2,aa,부동산물권,고급\n").records
    with pytest.raises(ParameterError, match="no record is in both"):
        select(records, PARAMS.model_copy(update={"categories": ["전세사기"], "difficulties": ["고급"]}))


def test_length_quantiles_are_lengths_of_the_data():
    assert length_quantiles([5, 1, 4, 2, 3]) == {"min": 1, "q25": 2, "median": 3, "q75": 4, "max": 5}
    assert length_quantiles([7]) == {"min": 7, "q25": 7, "median": 7, "q75": 7, "max": 7}


BROKEN = f"""{HEADER},note
첫째 질문,첫째 질문의 답변입니다,전세사기,초급,비고 1
,둘째 질문의 답변입니다,,,비고 2
셋째 질문,셋째 질문의 답변입니다,,
넷째 질문,넷째 질문의 답변입니다,전세사기,고급,비고 4
"""


def prepared(project):
    return (project / "data/prepared/records.jsonl").read_text(encoding="utf-8").splitlines()


def rejected(project):
    return list(map(json.loads, (project / "data/rejected.jsonl").read_text(encoding="utf-8").splitlines()))


def test_the_stage_stops_on_bad_rows_and_keeps_them_all(project, run_stage):
    (project / "mine.csv").write_text(BROKEN, encoding="utf-8")
    edit_params(project / "params.yaml", **{"prepare.source": "mine.csv"})
    finished = run_stage("prepare")
    assert finished.returncode == 1
    assert "mine.csv:3: empty 'question'" in finished.stderr
    assert "mine.csv:4: found 4 fields, want 5" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert [row["line"] for row in rejected(project)] == [3, 4]
    assert rejected(project)[0]["row"]["note"] == "비고 2"
    assert not (project / "data/prepared/records.jsonl").exists()


def test_the_stage_goes_on_without_bad_rows_when_told_to(project, run_stage):
    (project / "mine.csv").write_text(BROKEN, encoding="utf-8")
    changes = {"prepare.source": "mine.csv", "prepare.on_invalid": "drop", "prepare.categories": ["전세사기"]}
    edit_params(project / "params.yaml", **changes, **{"prepare.difficulties": ["초급"]})
    finished = run_stage("prepare")
    assert finished.returncode == 0, finished.stderr
    metrics = json.loads((project / "metrics/prepare.json").read_text(encoding="utf-8"))
    assert metrics["rows"] == {"read": 4, "kept": 1, "filtered": 1, "rejected": 2}
    assert metrics["rejected_by_reason"] == {"empty": 1, "unreadable": 1}
    assert len(prepared(project)) == 1
    extra = (project / "data/prepared/extra.jsonl").read_text(encoding="utf-8")
    assert "비고 1" in extra


def test_a_folder_of_files_is_one_dataset(project, run_stage):
    folder = project / "mine"
    folder.mkdir()
    (folder / "a.csv").write_bytes(f"{HEADER}\n첫째 질문,첫째 질문의 답변입니다,,\n".encode("cp949"))
    line = {"question": "둘째 질문", "answer": "둘째 질문의 답변입니다", "category": "", "difficulty": ""}
    (folder / "b.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    edit_params(project / "params.yaml", **{"prepare.source": "mine"})
    finished = run_stage("prepare")
    assert finished.returncode == 0, finished.stderr
    assert [json.loads(row)["question"] for row in prepared(project)] == ["첫째 질문", "둘째 질문"]


def test_the_stage_counts_every_row_of_the_dataset(project, run_stage):
    edit_params(project / "params.yaml", **{"prepare.categories": ["전세사기"], "prepare.difficulties": ["고급"]})
    assert run_stage("prepare").returncode == 0
    rows = json.loads((project / "metrics/prepare.json").read_text(encoding="utf-8"))["rows"]
    assert rows["read"] == 60
    assert rows["kept"] == len(prepared(project)) > 0
    assert rows["kept"] + rows["filtered"] + rows["rejected"] == 60


def test_the_stage_ends_with_a_message_and_no_traceback(project, run_stage):
    (project / "data/raw/civil_law_qa_dataset.csv").write_text("a,b\n", encoding="utf-8")
    finished = run_stage("prepare")
    assert finished.returncode == 1
    assert "civil_law_qa_dataset.csv:1: no column question" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (project / "data/prepared").exists()


def test_what_is_put_aside_holds_no_personal_data_either(project, run_stage):
    rows = [
        "질문입니다 하나,010-1234-5678로 연락하십시오,,,남은 칸 a@b.kr",
        "질문입니다 둘,,,,900101-1234567",
        "질문입니다 셋,010-1234-5678",
    ]
    (project / "mine.csv").write_text("\n".join([f"{HEADER},비고", *rows]), encoding="utf-8")
    edit_params(project / "params.yaml", **{"prepare.source": "mine.csv", "prepare.on_invalid": "drop"})
    assert run_stage("prepare").returncode == 0
    written = "".join(
        (project / name).read_text(encoding="utf-8")
        for name in ("data/prepared/records.jsonl", "data/prepared/extra.jsonl", "data/rejected.jsonl")
    )
    for secret in ("010-1234-5678", "a@b.kr", "900101-1234567"):
        assert secret not in written
    assert written.count("[전화번호]") == 2
    assert written.count("[이메일]") == written.count("[주민등록번호]") == 1


def test_many_rows_are_prepared_by_several_processes_as_by_one(tmp_path, monkeypatch):
    rows = [f"질문입니다 {number},{number}번 답변은 민법 제{number % 1300 + 1}조입니다,," for number in range(300)]
    whole = read(tmp_path, "\n".join([HEADER, *rows]))
    monkeypatch.setattr("civilqa.dataset.parallel.CHUNK", 40)
    assert read(tmp_path, "\n".join([HEADER, *rows])) == whole
