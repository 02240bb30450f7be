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
from source_files import write_xlsx

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
    assert metrics["rows"] == {"read": 4, "kept": 1, "filtered": 1, "rejected": 2, "left_out": 0}
    assert metrics["rejected_by_reason"] == {"empty": 1, "unreadable": 1}
    assert len(prepared()) == 1
    assert "비고 1" in prepare.EXTRA.read_text(encoding="utf-8")


def test_rows_kept_in_doubt_are_named_and_of_many_the_first(folder, capsys):
    rows = [f"질문입니다 {number},민법 제{1200 + number}조에 따라 청구합니다,," for number in range(22)]
    (folder / "mine.csv").write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    run(folder, "mine.csv", **{"prepare.check_citations": "warn"})
    assert read_json(prepare.METRICS)["rows"] == {"read": 22, "kept": 22, "filtered": 0, "rejected": 0, "left_out": 0}
    assert read_json(prepare.METRICS)["rows_with_citations_in_doubt"] == 22
    printed = capsys.readouterr().out
    assert (
        "warning: 22 rows kept whose citations do not hold:\nmine.csv:2: the answer cites 민법 제1200조, which"
        in printed
    )
    assert "mine.csv:21: " in printed
    assert "mine.csv:22: " not in printed
    assert "... and 2 more; prepare.check_citations: reject puts them all aside" in printed
    run(folder, "mine.csv", **{"prepare.check_citations": "off"})
    assert "do not hold" not in capsys.readouterr().out


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


def test_names_of_sheets_and_of_parts_of_files_hold_none_either(folder, capsys):
    import openpyxl

    (folder / "mine").mkdir()
    book = openpyxl.Workbook()
    book.active.title = "홍길동 010-1234-5678"
    for name in ("홍길동 010-1234-5678", "빈 010-1234-5678", "안내 010-1234-5678"):
        sheet = book[name] if name in book.sheetnames else book.create_sheet(name)
        for row in [["질문", "답변"], ["질문입니다 하나", "답변입니다 하나입니다"]] if name[0] == "홍" else [["안내"]]:
            sheet.append(row)
    book.save(folder / "mine/010-1234-5678.xlsx")
    key = json.dumps({"010-1234-5678": [{"question": "둘째 질문", "answer": ""}], "자료": [{"id": 1}]})
    (folder / "mine/b.json").write_text(key, encoding="utf-8")
    (folder / "mine/010-1234-5678.pdf").write_bytes(b"")
    run(folder, "mine", **{"prepare.on_invalid": "drop"})
    paths = (prepare.RECORDS, prepare.EXTRA, prepare.REJECTED, prepare.METRICS)
    written = "".join(path.read_text(encoding="utf-8") for path in paths)
    printed = capsys.readouterr().out
    assert "mine/[전화번호].xlsx[홍길동 [전화번호]]: xlsx;" in printed
    assert "010-1234-5678" not in written + printed


def test_numbers_that_a_workbook_cut_are_put_aside_masked(folder):
    names = ["질문", "답변", "연락처", "주민등록번호", "계좌번호"]
    secret = ["1098765432", "407154123456", "110234567890"]
    texts = [["질문입니다 하나", "답변입니다 하나"], ["질문입니다 둘", ""]]
    (folder / "mine").mkdir()
    write_xlsx(folder / "mine/a.xlsx", 가=[names, *([*pair, *map(int, secret)] for pair in texts)])
    line = ",".join(["질문입니다 셋", "답변입니다, 셋", *secret])
    (folder / "mine/b.csv").write_text(f"{','.join(names)}\n{line}\n질문입니다 넷,답변입니다 넷,,,\n", encoding="utf-8")
    run(folder, "mine", **{"prepare.on_invalid": "drop"})
    written = prepare.EXTRA.read_text(encoding="utf-8") + prepare.REJECTED.read_text(encoding="utf-8")
    assert [number for number in secret if number in written] == []
    assert [row["reason"] for row in rejected()] == ["empty", "unreadable"]


def test_what_the_stage_counts_is_in_the_rows_that_it_keeps(folder, capsys):
    rows = [
        "질문입니다 하나,첫째 답변은 민법 제1200조입니다,전세,",
        "질문입니다 둘,둘째 답변은 민법 제1201조<br>010-9876-5432입니다,물권,",
        "질문입니다 셋,네,물권,",
    ]
    (folder / "mine.csv").write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    run(folder, "mine.csv", **{"prepare.check_citations": "warn", "prepare.categories": ["전세"]})
    metrics = read_json(prepare.METRICS)
    counted = ("leftovers", "rows_with_citations_in_doubt", "short_answers")
    assert {key: metrics[key] for key in counted} == dict(zip(counted, (0, 1, 0), strict=True))
    assert metrics["personal_data"] == {}
    said = capsys.readouterr().out
    assert "warning: 1 rows kept whose citations do not hold:\nmine.csv:2: " in said
    assert not [word for word in ("leftovers", "personal data", "answers of fewer") if word in said]
    page = prepare.REPORT.read_text(encoding="utf-8")
    assert "쓰는 행에 태그나 기호가 남은 것이 없습니다." in page
    assert "형식으로 찾을 수 있는 개인정보가 없습니다." in page


def test_addresses_are_masked_on_request_in_all_that_is_written(folder):
    address = "서울 강남구 역삼동 123-4"
    rows = [f"{address}의 집입니다,{address}로 보내십시오,{address},,{address}", f"질문입니다 둘,,,,{address}"]
    (folder / "mine.csv").write_text("\n".join([f"{HEADER},비고", *rows]), encoding="utf-8")
    written = (prepare.RECORDS, prepare.EXTRA, prepare.REJECTED, prepare.REPORT)
    run(folder, "mine.csv", **{"prepare.on_invalid": "drop"})
    assert all(
        address in path.read_text(encoding="utf-8") for path in (prepare.RECORDS, prepare.EXTRA, prepare.REJECTED)
    )
    run(folder, "mine.csv", **{"prepare.mask_addresses": True, "prepare.mask_personal_data": False})
    assert not any(address in path.read_text(encoding="utf-8") for path in written)
    assert prepared()[0]["category"] == "[주소]"
    assert read_json(prepare.METRICS)["personal_data"] == {"address": 3}


def test_the_page_says_what_the_stage_did(folder):
    (folder / "mine.csv").write_text(BROKEN, encoding="utf-8")
    run(folder, "mine.csv", **{"prepare.on_invalid": "drop", "prepare.categories": ["전세사기"]})
    page = prepare.REPORT.read_text(encoding="utf-8")
    assert "읽은 4행 가운데 2행을 씁니다" in page
    run(folder, "mine.csv", **{"prepare.on_invalid": "drop", "prepare.categories": ["전세사기"]})
    assert prepare.REPORT.read_text(encoding="utf-8") == page


def test_text_is_checked_as_params_yaml_says(folder):
    (folder / "mine.csv").write_text(
        f"{HEADER}\n첫째 질문,첫째<br>답변입니다,,\n둘째 질문,둘째 \ufffd 답변입니다,,\n", encoding="utf-8"
    )
    kept = {}
    for check_text in ("reject", "warn", "off"):
        changes = {"prepare.check_text": check_text, "prepare.on_invalid": "drop"}
        try:
            run(folder, "mine.csv", **changes)
        except RecordError:
            kept[check_text] = 0
        else:
            kept[check_text] = len(prepared())
    assert kept == {"reject": 0, "warn": 1, "off": 2}


ONE, OTHER = "임차권등기명령을 신청하고 이사하십시오", "지급명령을 신청하거나 소를 제기하십시오"
SAME_QUESTION = (
    f"{HEADER}\n보증금을 못 받았습니다,{ONE},,\n보증금을 못 받았습니다,{OTHER},,\n보증금을 못 받았습니다,{ONE}.,,\n"
)


@pytest.mark.parametrize(
    ("changes", "kept", "reasons"),
    [
        ({"on_invalid": "drop"}, [ONE], {"conflicting_duplicate": 1, "duplicate": 1}),
        ({"same_question": "keep_first"}, [ONE], {"another_answer": 1, "duplicate": 1}),
        ({"same_question": "keep_variants"}, [ONE, OTHER], {"duplicate": 1}),
    ],
)
def test_a_question_with_two_answers_is_kept_and_what_is_left_out_is_told(folder, capsys, changes, kept, reasons):
    (folder / "mine.csv").write_text(SAME_QUESTION, encoding="utf-8")
    run(folder, "mine.csv", **{f"prepare.{key}": value for key, value in changes.items()})
    assert [row["answer"] for row in prepared()] == kept
    metrics = read_json(prepare.METRICS)
    assert metrics["rows"] == {"read": 3, "kept": len(kept), "filtered": 0, "rejected": 3 - len(kept), "left_out": 0}
    assert metrics["rejected_by_reason"] == reasons
    assert metrics["variants"] == len(kept) - 1
    assert len(rejected()) == 3 - len(kept)
    out = capsys.readouterr().out
    left_out = sum(number for reason, number in reasons.items() if reason != "conflicting_duplicate")
    assert f"warning: {left_out} rows left out for one with the same question, all in data/rejected.jsonl:" in out
    assert "mine.csv:4: the question of mine.csv:2 again with nearly the same answer" in out


def test_two_answers_stop_the_stage_unless_told_otherwise(folder):
    (folder / "mine.csv").write_text(SAME_QUESTION, encoding="utf-8")
    with pytest.raises(RecordError, match=r"the same question has another answer in mine\.csv:3"):
        run(folder, "mine.csv")
    assert [row["reason"] for row in rejected()] == ["conflicting_duplicate", "conflicting_duplicate", "duplicate"]


def test_a_repeated_row_alone_stops_nothing(folder):
    (folder / "mine.csv").write_text(f"{HEADER}\n보증금을 못 받았습니다,{ONE},,\n보증금을 못 받았습니다,{ONE},,\n")
    run(folder, "mine.csv")
    assert read_json(prepare.METRICS)["rows"] == {"read": 2, "kept": 1, "filtered": 0, "rejected": 1, "left_out": 0}


def test_short_answers_are_kept_with_a_warning_or_rejected(folder, capsys):
    answers = ["네, 성립합니다.", "예", "불가", "30일", "가능합니다", "○"]
    rows = [f'{number}번째 물음입니다,"{answer}",,' for number, answer in enumerate(answers)]
    (folder / "mine.csv").write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    run(folder, "mine.csv")
    assert [row["answer"] for row in prepared()] == answers
    assert read_json(prepare.METRICS)["short_answers"] == 6
    places = ", ".join(f"mine.csv:{line}" for line in range(2, 7))
    names = "(prepare.min_answer_characters, prepare.short_answers)"
    told = f"warning: answers of fewer than 10 characters {names} kept in 6 rows: {places}, ..."
    assert told in capsys.readouterr().out
    with pytest.raises(RecordError, match=r"mine.csv:3: 'answer' has 1 characters, want 10"):
        run(folder, "mine.csv", **{"prepare.short_answers": "reject"})
    assert len(rejected()) == 6


@pytest.mark.parametrize("answer", ["-", "...", "?!", "( )"])
def test_punctuation_is_no_answer(folder, answer):
    (folder / "mine.csv").write_text(f'{HEADER}\n보증금을 못 받았습니다,"{answer}",,\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"mine.csv:2: 'answer' is punctuation alone; fill it in or delete the row"):
        run(folder, "mine.csv")


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
