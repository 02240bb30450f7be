import json
import unicodedata

import pytest

from civilqa.errors import ParameterError, RecordError
from conftest import HEADER, edit_params
from prepare import clean, length_quantiles, make_records, read_rows, select

ROW = "질문입니다,답변입니다,전세사기,초급"


def records_of(tmp_path, content):
    path = tmp_path / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return make_records(read_rows(path), path)


def test_a_row_becomes_a_record(tmp_path):
    (record,) = records_of(tmp_path, f"{HEADER}\n{ROW}\n")
    assert (record.question, record.answer, record.category, record.difficulty) == (
        "질문입니다",
        "답변입니다",
        "전세사기",
        "초급",
    )


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\n{ROW}\n".encode("utf-8-sig"),
        f"{HEADER}\r\n{ROW}\r\n",
        f"{HEADER}\n{ROW}",
        f"{HEADER}\n\n{ROW}\n\n",
        f" question , answer,category,difficulty\n{ROW}\n",
        f"{HEADER}\n" + unicodedata.normalize("NFD", ROW) + "\n",
        f"{HEADER}\n  질문입니다 ,\u200b답변입니다\ufeff,전세사기\t,초급\n",
        "difficulty,category,answer,question\n초급,전세사기,답변입니다,질문입니다\n",
        f"note,{HEADER}\n비고,{ROW}\n",
    ],
    ids=["bom", "crlf", "no newline", "blank lines", "spaces", "nfd", "invisible", "order", "more columns"],
)
def test_the_same_row_written_otherwise_is_the_same_record(tmp_path, content):
    assert records_of(tmp_path, content) == records_of(tmp_path, f"{HEADER}\n{ROW}\n")


def test_quoted_commas_quotes_and_line_breaks_are_text(tmp_path):
    (record,) = records_of(tmp_path, f'{HEADER}\n"첫째, 둘째","그는 ""예""라고\n답했다",전세사기,초급\n')
    assert record.question == "첫째, 둘째"
    assert record.answer == '그는 "예"라고\n답했다'


def test_category_and_difficulty_may_be_empty(tmp_path):
    (record,) = records_of(tmp_path, f"{HEADER}\n질문,답변,,\n")
    assert (record.category, record.difficulty) == ("", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"data.csv:1: no column question, answer, category, difficulty; found an empty file"),
        ("question,answer,category\na,b,c\n", r"data.csv:1: no column difficulty; found question, answer, category"),
        (f"{HEADER},answer\na,b,c,d,e\n", r"data.csv:1: column answer is there more than once"),
        (f"{HEADER}\n", r"has no rows below its header"),
        (f"{HEADER}\n{ROW}\na,b,c\n", r"data.csv:3: found 3 fields, want 4"),
        (f"{HEADER}\n{ROW}\n질문, 쉼표,답변,전세사기,초급\n", r"data.csv:3: found 5 fields, want 4"),
        (f'{HEADER}\n"질문\n둘째 줄",답변,a,b\nc,d\n', r"data.csv:4: found 2 fields"),
        (f"{HEADER}\n,답변,전세사기,초급\n", r"data.csv:2: empty 'question'; fill it in or delete the row"),
        (f"{HEADER}\n질문, \u200b ,전세사기,초급\n", r"data.csv:2: empty 'answer'; fill it in or delete the row"),
        (f"{HEADER}\n{ROW}\n질문입니다,다른 답,전세사기,초급\n", r"data.csv:3: the question of line 2 again"),
        (f'{HEADER}\n"열린 따옴표,답변,전세사기,초급\n', r"data.csv:2: no CSV"),
        (f"{HEADER}\n{ROW}\n".encode("cp949"), r"data.csv:2: not UTF-8 \(byte 0x"),
        (f"{HEADER}\n{ROW}\n".encode("utf-16"), r"data.csv:1: not UTF-8 \(byte 0xff"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(RecordError, match=message):
        records_of(tmp_path, content)


def test_every_bad_row_is_reported_at_once(tmp_path):
    with pytest.raises(RecordError) as error:
        records_of(tmp_path, f"{HEADER}\n,답,a,b\n질문,,a,b\n{ROW}\n{ROW}\n")
    assert [line.split(":")[1] for line in str(error.value).splitlines()] == ["2", "3", "5"]


def test_a_missing_file_names_the_parameter(tmp_path):
    with pytest.raises(RecordError, match=r"none.csv: not found; put the dataset there or set prepare.source"):
        list(read_rows(tmp_path / "none.csv"))


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
    records = records_of(tmp_path, f"{HEADER}\nq1,a,전세사기,초급\nq2,a,부동산물권,초급\nq3,a,전세사기,고급\n")
    assert [record.question for record in select(records, ["전세사기"], ["초급"])] == ["q1"]
    assert select(records, [], []) == records


def test_selecting_what_no_record_has_lists_what_there_is(tmp_path):
    records = records_of(tmp_path, f"{HEADER}\n{ROW}\n")
    with pytest.raises(ParameterError, match=r"prepare.categories: no record has 전세; there are: 전세사기"):
        select(records, ["전세"], [])


def test_selecting_an_empty_intersection_is_an_error(tmp_path):
    records = records_of(tmp_path, f"{HEADER}\nq1,a,전세사기,초급\nq2,a,부동산물권,고급\n")
    with pytest.raises(ParameterError, match="no record is in both"):
        select(records, ["전세사기"], ["고급"])


def test_length_quantiles_are_lengths_of_the_data():
    assert length_quantiles([5, 1, 4, 2, 3]) == {"min": 1, "q25": 2, "median": 3, "q75": 4, "max": 5}
    assert length_quantiles([7]) == {"min": 7, "q25": 7, "median": 7, "q75": 7, "max": 7}


def test_the_stage_counts_every_row(project, run_stage):
    edit_params(project / "params.yaml", **{"prepare.categories": ["전세사기"], "prepare.difficulties": ["고급"]})
    assert run_stage("prepare").returncode == 0
    metrics = json.loads((project / "metrics/prepare.json").read_text(encoding="utf-8"))
    kept = (project / "data/prepared/records.jsonl").read_text(encoding="utf-8").splitlines()
    assert metrics["rows"]["read"] == 60
    assert metrics["rows"]["kept"] == len(kept) > 0
    assert metrics["rows"]["kept"] + metrics["rows"]["filtered"] == 60


def test_the_stage_ends_with_a_message_and_no_traceback(project, run_stage):
    (project / "data/raw/civil_law_qa_dataset.csv").write_text("a,b\n", encoding="utf-8")
    finished = run_stage("prepare")
    assert finished.returncode == 1
    assert "civil_law_qa_dataset.csv:1: no column question" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (project / "data/prepared").exists()
