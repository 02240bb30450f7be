import json
import shutil

import pytest

import prepare
from civilqa.dataset.records import Record, record_id
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import read_json, read_jsonl
from civilqa.program.parameters import read_sections
from conftest import HEADER, ROOT, edit_params
from prepare import PrepareParams, length_quantiles, select

(PARAMS,) = read_sections(ROOT / "params.yaml", prepare=PrepareParams)


def record(question, category, difficulty):
    return Record(id=record_id(question), question=question, answer="답", category=category, difficulty=difficulty)


RECORDS = [record("q1", "전세사기", "초급"), record("q2", "부동산물권", "초급"), record("q3", "전세사기", "고급")]


def choose(records, categories, difficulties):
    return select(records, PARAMS.model_copy(update={"categories": categories, "difficulties": difficulties}))


def test_selection_keeps_only_what_was_asked_for():
    assert choose(RECORDS, ["전세사기"], ["초급"]) == RECORDS[:1]
    assert choose(RECORDS, [], []) == RECORDS


def test_selecting_what_no_record_has_lists_what_there_is():
    with pytest.raises(ParameterError, match=r"prepare.categories: no record has 전세; there are: 전세사기"):
        choose(RECORDS[:1], ["전세"], [])


def test_selecting_an_empty_intersection_is_an_error():
    with pytest.raises(ParameterError, match="no record is in both"):
        choose(RECORDS[1:], ["부동산물권"], ["고급"])


def test_length_quantiles_are_lengths_of_the_data():
    assert length_quantiles([5, 1, 4, 2, 3]) == {"min": 1, "q25": 2, "median": 3, "q75": 4, "max": 5}
    assert length_quantiles([7]) == {"min": 7, "q25": 7, "median": 7, "q75": 7, "max": 7}


BROKEN = f"""{HEADER},note
첫째 질문,첫째 질문의 답변입니다,전세사기,초급,비고 1
,둘째 질문의 답변입니다,,,비고 2
셋째 질문,셋째 질문의 답변입니다,,
넷째 질문,넷째 질문의 답변입니다,전세사기,고급,비고 4
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the project's params.yaml, for the stage to run in."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder, source, **changes):
    """Run the stage on a source with other parameters."""
    edit_params(folder / "params.yaml", **{"prepare.source": source, **changes})
    prepare.main()


def prepared():
    return list(read_jsonl(prepare.RECORDS))


def rejected():
    return list(read_jsonl(prepare.REJECTED))


def test_the_stage_stops_on_bad_rows_and_keeps_them_all(folder):
    (folder / "mine.csv").write_text(BROKEN, encoding="utf-8")
    with pytest.raises(RecordError) as error:
        run(folder, "mine.csv")
    assert "mine.csv:3: empty 'question'" in str(error.value)
    assert "mine.csv:4: found 4 fields, want 5" in str(error.value)
    assert [row["line"] for row in rejected()] == [3, 4]
    assert rejected()[0]["row"]["note"] == "비고 2"
    assert not prepare.RECORDS.exists()


def test_the_stage_goes_on_without_bad_rows_when_told_to(folder):
    (folder / "mine.csv").write_text(BROKEN, encoding="utf-8")
    changes = {"on_invalid": "drop", "categories": ["전세사기"], "difficulties": ["초급"]}
    run(folder, "mine.csv", **{f"prepare.{key}": value for key, value in changes.items()})
    metrics = read_json(prepare.METRICS)
    assert metrics["rows"] == {"read": 4, "kept": 1, "filtered": 1, "rejected": 2}
    assert metrics["rejected_by_reason"] == {"empty": 1, "unreadable": 1}
    assert len(prepared()) == 1
    assert "비고 1" in prepare.EXTRA.read_text(encoding="utf-8")


def test_a_folder_of_files_is_one_dataset(folder):
    (folder / "mine").mkdir()
    (folder / "mine/a.csv").write_bytes(f"{HEADER}\n첫째 질문,첫째 질문의 답변입니다,,\n".encode("cp949"))
    line = {"question": "둘째 질문", "answer": "둘째 질문의 답변입니다", "category": "", "difficulty": ""}
    (folder / "mine/b.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    run(folder, "mine")
    assert [row["question"] for row in prepared()] == ["첫째 질문", "둘째 질문"]


def test_the_stage_counts_every_row_of_the_dataset(folder):
    changes = {"prepare.categories": ["전세사기"], "prepare.difficulties": ["고급"]}
    run(folder, str(ROOT / "data/raw/civil_law_qa_dataset.csv"), **changes)
    rows = read_json(prepare.METRICS)["rows"]
    assert rows["read"] == 60
    assert rows["kept"] == len(prepared()) > 0
    assert rows["kept"] + rows["filtered"] + rows["rejected"] == 60


def test_what_is_put_aside_holds_no_personal_data_either(folder):
    rows = [
        "질문입니다 하나,010-1234-5678로 연락하십시오,,,남은 칸 a@b.kr",
        "질문입니다 둘,,,,900101-1234567",
        "질문입니다 셋,010-1234-5678",
    ]
    (folder / "mine.csv").write_text("\n".join([f"{HEADER},비고", *rows]), encoding="utf-8")
    run(folder, "mine.csv", **{"prepare.on_invalid": "drop"})
    written = "".join(path.read_text(encoding="utf-8") for path in (prepare.RECORDS, prepare.EXTRA, prepare.REJECTED))
    for secret in ("010-1234-5678", "a@b.kr", "900101-1234567"):
        assert secret not in written
    assert written.count("[전화번호]") == 2
    assert written.count("[이메일]") == written.count("[주민등록번호]") == 1


def test_the_program_ends_with_a_message_and_no_traceback(project, run_stage):
    (project / "data/raw/civil_law_qa_dataset.csv").write_text(f"{HEADER}\n,a,,\n", encoding="utf-8")
    finished = run_stage("prepare")
    assert finished.returncode == 1
    assert "civil_law_qa_dataset.csv:2: empty 'question'" in finished.stderr
    assert "Traceback" not in finished.stderr
    (project / "data/raw/civil_law_qa_dataset.csv").write_text("a,b\n", encoding="utf-8")
    finished = run_stage("prepare")
    assert finished.returncode == 1
    assert "civil_law_qa_dataset.csv:1: no column question" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (project / "data/prepared").exists()
