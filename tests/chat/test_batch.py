import csv
import json
import os
import random
import signal
import subprocess
import sys
import time

import openpyxl
import pytest
from filelock import FileLock
from question_files import QUESTIONS, answered, write_questions

from civilqa.chat.answer_files import write_answers
from civilqa.chat.batch import answer_file, check_files
from civilqa.chat.engine import ChatParams
from civilqa.law.verdicts import look_up_citations
from civilqa.program.errors import QuestionError, RecordError
from civilqa.reading.tables import open_table
from source_files import write, write_xlsx


class Echo:
    """Answers as an engine does, from the question and its neighbours alone; like padding, they matter a little."""

    def __init__(self, **settings):
        self.params = ChatParams(
            max_new_tokens=8,
            temperature=0,
            top_p=1,
            repetition_penalty=1,
            seed=0,
            batch_size=3,
            max_question_characters=30,
            multi_turn="never",
            engine_url=None,
            engine_model=None,
            engine_timeout_seconds=5.0,
        ).model_copy(update=settings)
        self.asked = []

    @property
    def group_size(self):
        return self.params.batch_size

    def identity(self):
        return self.params.model_dump()

    def check_question(self, question, category):
        if not question.strip():
            raise QuestionError("질문이 비어 있습니다.")

    def generate_answers(self, questions, categories):
        self.asked.append(list(questions))
        about = {"citations": [], "tokens": 1, "stopped": True, "model": "메아리", "notice": "시험", "seconds": 0.1}
        asked = zip(questions, categories, strict=True)
        return [
            {
                "answer": f"{question}/{category}/{len(questions)}",
                "category": category or "고른 분야",
                "category_chosen": not category,
                **about,
            }
            for question, category in asked
        ]


@pytest.fixture
def source(tmp_path):
    return write_questions(tmp_path / "in.csv")


def test_every_question_is_answered_in_its_order(source, tmp_path):
    assert answer_file(Echo(), source, tmp_path / "out.jsonl") == 0
    lines = answered(tmp_path / "out.jsonl")
    assert [line["question"] for line in lines] == QUESTIONS
    assert [line["line"] for line in lines] == list(range(2, 13))
    assert lines[0]["answer"] == "0번째 질문입니다./전세사기/3"
    assert "seconds" not in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.jsonl"]


def test_stopped_at_any_byte_it_ends_with_the_same_bytes(source, tmp_path, monkeypatch):
    """The part file is what a kill can leave at any length: a torn line, a torn group, all, nothing."""
    monkeypatch.setattr(os, "fsync", lambda file: None)  # hundreds of them; a kill takes nothing from the disk
    whole = tmp_path / "whole.jsonl"
    answer_file(Echo(), source, whole)
    target, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"

    class Killed(Exception):
        pass

    class Last(Echo):
        def generate_answers(self, questions, categories):
            if len(questions) < 3:
                raise Killed
            return super().generate_answers(questions, categories)

    with pytest.raises(Killed):
        answer_file(Last(), source, target)
    begun = part.read_bytes()
    for length in [*range(0, len(begun), 7), len(begun)]:
        part.write_bytes(begun[:length])
        engine = Echo()
        answer_file(engine, source, target)
        assert target.read_bytes() == whole.read_bytes(), length
        assert not part.exists()
        target.unlink()
    assert engine.asked == [QUESTIONS[9:]]  # what is there is not asked again


def test_a_kill_between_the_finished_file_and_the_end_repeats_nothing(source, tmp_path):
    target, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    begun = []

    class Watched(Echo):
        def generate_answers(self, questions, categories):
            begun.append(part.read_bytes())
            return super().generate_answers(questions, categories)

    answer_file(Watched(), source, target)
    header = begun[0]
    part.write_bytes(header + target.read_bytes())
    engine = Echo()
    before = target.read_bytes()
    answer_file(engine, source, target)
    assert engine.asked == []
    assert target.read_bytes() == before
    assert not part.exists()


def test_a_finished_file_is_not_overwritten(source, tmp_path):
    target = tmp_path / "out.jsonl"
    answer_file(Echo(), source, target)
    with pytest.raises(RecordError, match="이미 있습니다"):
        answer_file(Echo(), source, target)


@pytest.mark.parametrize("change", ["settings", "questions"])
def test_answers_of_another_run_are_not_continued(source, tmp_path, change):
    target = tmp_path / "out.jsonl"

    class Killed(Echo):
        def generate_answers(self, questions, categories):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_file(Killed(), source, target)
    if change == "questions":
        source.write_text(source.read_text(encoding="utf-8") + "또 하나?,\n", encoding="utf-8")
    with pytest.raises(RecordError, match="다른 실행에서 쓰다 만 파일"):
        answer_file(Echo(**({"seed": 5} if change == "settings" else {})), source, target)


def test_a_second_process_at_the_same_file_is_refused(source, tmp_path):
    target = tmp_path / "out.jsonl"
    with FileLock(target.with_name(f".{target.name}.lock")), pytest.raises(RecordError, match="다른 프로세스"):
        answer_file(Echo(), source, target)


def test_a_row_that_cannot_be_asked_has_its_line_with_the_reason(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"question": "하나?"}\n{"question": " "}\nkein json\n{"question": "둘?"}\n', encoding="utf-8")
    assert answer_file(Echo(), source, tmp_path / "out.jsonl", "부동산물권") == 2
    lines = answered(tmp_path / "out.jsonl")
    assert [line["answer"] for line in lines] == ["하나?/부동산물권/1", None, None, "둘?/부동산물권/1"]
    assert [line["error"] and line["error"][:7] for line in lines] == [None, "질문이 비어 ", "읽을 수 없는", None]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "사연,답\n가,나\n", "질문 열이 없습니다.*있는 열: 사연, 답"),
        ("a.csv", "question\n", "한 줄도 없습니다"),
        ("a.doc", "question\n가\n", "unknown suffix"),
    ],
)
def test_a_file_without_questions_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        answer_file(Echo(), tmp_path / name, tmp_path / "out.jsonl")


# Other formats


FORMATS = [".jsonl", ".csv", ".xlsx"]


def rows_of(path):
    """Return an answer file's rows as text by column."""
    if path.suffix == ".jsonl":
        return answered(path)
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    names, *rows = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_answers_are_written_as_the_suffix_says(source, tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    assert answer_file(Echo(), source, target) == 0
    rows = rows_of(target)
    assert [row["question"] for row in rows] == QUESTIONS
    assert rows[0]["answer"] == "0번째 질문입니다./전세사기/3"
    assert [str(row["line"]) for row in rows] == [str(line) for line in range(2, 13)]
    if suffix == ".csv":
        assert target.read_bytes().startswith(b"\xef\xbb\xbfline,question,category,category_chosen,answer,")


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_resumed_has_the_bytes_of_an_undisturbed_run_in_every_format(source, tmp_path, suffix):
    whole, target = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    answer_file(Echo(), source, whole)
    time.sleep(2.1)  # the time in a zip file is in steps of two seconds

    class Killed(Echo):
        def generate_answers(self, questions, categories):
            if questions[0] == QUESTIONS[6]:
                raise KeyboardInterrupt
            return super().generate_answers(questions, categories)

    with pytest.raises(KeyboardInterrupt):
        answer_file(Killed(), source, target)
    assert not target.exists()
    engine = Echo()
    answer_file(engine, source, target)
    assert engine.asked == [QUESTIONS[6:9], QUESTIONS[9:]]
    assert target.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("mark", ["\u0085", "\u2028", "\u2029"], ids=ascii)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", ["in.jsonl", "in.csv"])
def test_what_unicode_takes_for_a_line_end_stands_within_a_question(tmp_path, name, suffix, mark):
    questions = [f"집주인이{mark}바뀌었나요?", "둘?"]
    rows = "".join(json.dumps({"question": text}, ensure_ascii=False) + "\n" for text in questions)
    source = write(tmp_path / name, rows if name == "in.jsonl" else "\n".join(["질문", *questions, ""]))
    assert answer_file(Echo(), source, tmp_path / f"out{suffix}") == 0
    assert [row["question"] for row in rows_of(tmp_path / f"out{suffix}")] == questions
    assert not (tmp_path / f"out{suffix}.part").exists()


def test_a_part_file_goes_on_under_another_format(source, tmp_path):
    class Killed(Echo):
        def generate_answers(self, questions, categories):
            if questions[0] == QUESTIONS[6]:
                raise KeyboardInterrupt
            return super().generate_answers(questions, categories)

    with pytest.raises(KeyboardInterrupt):
        answer_file(Killed(), source, tmp_path / "out.xlsx")
    (tmp_path / "out.xlsx.part").rename(tmp_path / "out.jsonl.part")
    engine = Echo()
    answer_file(engine, source, tmp_path / "out.jsonl")
    assert (len(answered(tmp_path / "out.jsonl")), len(engine.asked)) == (11, 2)


@pytest.mark.parametrize("name", ["answers", "answers.json", "answers.xls", "answers.txt", "answers.csv.gz"])
def test_an_answer_file_of_another_kind_is_refused_before_anything_is_asked(source, tmp_path, name):
    engine = Echo()
    with pytest.raises(RecordError, match=r"답변 파일의 이름은 .jsonl, .csv, .xlsx 가운데 하나로 끝나야 합니다."):
        answer_file(engine, source, tmp_path / name)
    assert engine.asked == []
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


FORMULA = '=HYPERLINK("http://evil.example")'


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_other_columns_of_the_file_are_carried_through(tmp_path, suffix):
    source = tmp_path / "in.csv"
    text = f'id,질문,answer,비고,분야\n007,하나?,정답,"{FORMULA.replace(chr(34), chr(34) * 2)}",전세\n008, ,,\x0b둘,\n'
    source.write_text(text, encoding="utf-8")
    target = tmp_path / f"out{suffix}"
    assert answer_file(Echo(), source, target) == 1
    first, second = rows_of(target)
    assert (first["id"], first["question"], first["answer"], first["category"]) == (
        "007",
        "하나?",
        "하나?/전세/1",
        "전세",
    )
    assert (first["answer (질문 파일)"], second["answer (질문 파일)"] or "") == ("정답", "")
    assert first["비고"] == {".jsonl": FORMULA, ".csv": f"'{FORMULA}", ".xlsx": FORMULA}[suffix]
    assert second["비고"] == {".jsonl": "\x0b둘", ".csv": "\x0b둘", ".xlsx": " 둘"}[suffix]
    assert second["error"].startswith("질문이 비어")
    if suffix == ".xlsx":
        cells = [cell for row in openpyxl.load_workbook(target).active.iter_rows() for cell in row]
        assert not any(cell.data_type == "f" for cell in cells)


@pytest.mark.parametrize("suffix", FORMATS)
def test_citations_are_words_in_a_table_and_objects_in_json(tmp_path, suffix):
    citations = look_up_citations("민법 제750조와 민법 제750조, 민법 제9999조에 따릅니다")

    class Citing(Echo):
        def generate_answers(self, questions, categories):
            return [{**answer, "citations": citations} for answer in super().generate_answers(questions, categories)]

    source = tmp_path / "in.csv"
    source.write_text("질문\n하나?\n", encoding="utf-8")
    answer_file(Citing(), source, tmp_path / f"out{suffix}")
    (row,) = rows_of(tmp_path / f"out{suffix}")
    words = "✓ 민법 제750조(불법행위의 내용): 있는 조문\n✗ 민법 제9999조: 없는 조문(지어낸 인용)"
    assert row["citations"] == (citations if suffix == ".jsonl" else words)
    assert row["stopped"] == (True if suffix == ".jsonl" else "예")


def test_an_answer_that_no_cell_of_excel_holds_is_kept_for_another_format(tmp_path):
    class Long(Echo):
        def generate_answers(self, questions, categories):
            return [{**answer, "answer": "가" * 32_768} for answer in super().generate_answers(questions, categories)]

    source = tmp_path / "in.csv"
    source.write_text("질문\n하나?\n", encoding="utf-8")
    with pytest.raises(RecordError) as error:
        answer_file(Long(), source, tmp_path / "out.xlsx")
    assert str(error.value) == (
        f"{tmp_path}/out.xlsx: 엑셀의 한 칸에는 32767자까지만 들어가는데 32768자인 칸이 있습니다. out.xlsx.part를 "
        "out.jsonl.part로 바꾸고 out.jsonl을 답변 파일로 하여 다시 실행하면, 이미 만든 답변을 그대로 씁니다."
    )
    (tmp_path / "out.xlsx.part").rename(tmp_path / "out.jsonl.part")
    engine = Echo()
    answer_file(engine, source, tmp_path / "out.jsonl")
    assert (engine.asked, len(rows_of(tmp_path / "out.jsonl")[0]["answer"])) == ([], 32_768)


NASTY = [
    *("=1+1", "+82-10-0000", "-목록", "@여기", "\t탭", '="가"', "'따옴표", "0012", "1e5", "TRUE", "#N/A", " 앞뒤 "),
    *("한 줄\n둘째 줄", '쉼표, "따옴표"; 탭\t', "줄\u2028바꿈", "😀", "가" * 32_767),
]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_no_cell_is_a_formula_and_each_is_read_as_it_was(tmp_path, suffix):
    lines = [json.dumps({"answer": text, "비고": text, "error": None}) + "\n" for text in NASTY]
    write_answers(tmp_path / f"out{suffix}", lines)
    _, rows = open_table(tmp_path / f"out{suffix}")
    # Excel shows no apostrophe at the start of a cell; in a CSV it is the only way to write text that begins so.
    expected = [f"'{text}" if suffix == ".csv" and text[0] in "=+-@\t" else text for text in NASTY]
    assert [(row.fields["answer"], row.fields["비고"]) for row in rows] == [(text, text) for text in expected]


def test_characters_that_no_workbook_can_hold_are_spaces_in_it_and_excel_counts_those_beyond_65535_twice(tmp_path):
    target = tmp_path / "out.xlsx"
    write_answers(target, [json.dumps({"answer": "가\ufffe나\uffff다\x0b라\r\n마"}) + "\n"])
    assert [row.fields["answer"] for row in open_table(target)[1]] == ["가 나 다 라\n마"]
    with pytest.raises(RecordError, match=r"32768자인 칸이 있습니다"):
        write_answers(target, [json.dumps({"answer": "😀" * 16_384}) + "\n"])


def test_more_rows_than_a_sheet_has_are_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr("civilqa.chat.answer_files.SHEET_ROWS", 11)
    with pytest.raises(RecordError, match=r"out.xlsx: 엑셀의 시트에는 11행까지만 들어갑니다"):
        answer_file(Echo(), source, tmp_path / "out.xlsx")


# Other question files


def test_questions_are_read_from_whatever_prepare_reads(tmp_path, capsys):
    book = write_xlsx(
        tmp_path / "q.xlsx",
        하나=[["번호", "문의", "분야"], [1, "하나?", "전세"]],
        둘=[["질문"], ["둘?"]],
        셋=[["코드"], [1]],
    )
    assert answer_file(Echo(), book, tmp_path / "a.jsonl") == 0
    lines = answered(tmp_path / "a.jsonl")
    assert [(line["file"], line["line"], line["번호"], line["question"]) for line in lines] == [
        (f"{book}[하나]", 2, "1", "하나?"),
        (f"{book}[둘]", 2, "", "둘?"),
    ]
    assert f"읽지 않은 부분: {book}[셋] (열 질문: 없습니다. 있는 열: 코드, 1행)" in capsys.readouterr().err
    contents = {
        "q.json": json.dumps([{"instruction": "답하시오.", "input": "하나?", "output": "예"}]),
        "q.ndjson": json.dumps({"messages": [{"role": "user", "content": "답하시오.\n\n하나?"}]}),
        "q.txt": '제목\n질문\n"답하시오.\n\n하나?"\n',
    }
    for name, content in contents.items():
        answer_file(Echo(), write(tmp_path / name, content), tmp_path / f"{name}.jsonl")
        assert [line["question"] for line in answered(tmp_path / f"{name}.jsonl")] == ["답하시오.\n\n하나?"]


def test_a_conversation_of_several_turns_and_an_empty_word_are_no_questions(tmp_path):
    turns = [{"role": role, "content": "하나?"} for role in ("user", "assistant", "user")]
    source = write(tmp_path / "q.json", [{"messages": turns}, {"messages": turns[:2]}])
    assert answer_file(Echo(), source, tmp_path / "a.jsonl") == 1
    assert [line["error"] for line in answered(tmp_path / "a.jsonl")] == [
        "여러 차례 주고받은 대화입니다. 질문 하나만 남기십시오.",
        None,
    ]
    assert answer_file(Echo(), write(tmp_path / "n.csv", "질문,비고\nnan,가\n"), tmp_path / "b.jsonl") == 1


@pytest.mark.parametrize("nothing", ["nan", "#N/A", "null", " "])
def test_an_empty_word_is_no_category(tmp_path, nothing):
    source = write(tmp_path / "q.csv", f"질문,분야\n하나?,{nothing}\n둘?,전세사기\n")
    answer_file(Echo(), source, tmp_path / "a.jsonl", "부동산물권")
    assert [line["category"] for line in answered(tmp_path / "a.jsonl")] == ["부동산물권", "전세사기"]


def test_a_list_in_place_of_a_question_is_told_without_params_yaml(tmp_path):
    source = write(tmp_path / "q.json", [{"question": "하나?"}, {"question": ["둘?"]}])
    assert answer_file(Echo(), source, tmp_path / "a.jsonl") == 1
    assert answered(tmp_path / "a.jsonl")[1]["error"] == (
        "질문 칸에 글이 아니라 목록이나 객체가 들어 있습니다. 질문을 글로 적으십시오."
    )


def test_columns_called_as_the_answer_file_s_own_keep_their_cells(tmp_path):
    source = write(tmp_path / "q.csv", "answer (질문 파일),질문,answer\n가,하나?,나\n")
    answer_file(Echo(), source, tmp_path / "a.jsonl")
    (line,) = answered(tmp_path / "a.jsonl")
    assert (line["answer (질문 파일)"], line["answer (질문 파일) (질문 파일)"]) == ("가", "나")


def test_what_stands_in_the_way_of_the_answers_is_said_before_any_model_is_loaded(tmp_path):
    source = write(tmp_path / "q.csv", "질문\n하나?\n")
    for target, message in ((source, "질문 파일입니다"), (write(tmp_path / "a.csv", "가"), "이미 있습니다")):
        with pytest.raises(RecordError, match=message):
            check_files(source, target)
    with pytest.raises(RecordError, match="없는 파일입니다"):
        check_files(tmp_path / "none.csv", tmp_path / "b.csv")


def test_a_row_in_place_of_the_names_is_not_shown(tmp_path):
    source = write(tmp_path / "q.csv", "홍길동,전세금을 못 받았습니다\n김철수,집주인이 바뀌었습니다\n")
    with pytest.raises(RecordError) as error:
        answer_file(Echo(), source, tmp_path / "a.jsonl")
    assert str(error.value) == (
        f"{source}: 질문 열이 없습니다. 열 이름을 question 또는 질문(으)로 하십시오. 있는 열: 없음"
    )


def start_batch(project, target):
    command = [sys.executable, "stages/chat.py", "batch", "in.csv", target, "--batch-size", "2"]
    return subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a Unix signal")
def test_killed_at_random_moments_it_ends_with_the_answers_of_an_undisturbed_run(chat_project):
    """The same by hand with 1,000 questions and 10 kills is in the README."""
    draw = random.Random(os.getpid())
    (chat_project / "in.csv").write_text("question\n" + "\n".join(QUESTIONS * 4) + "\n", encoding="utf-8")
    assert start_batch(chat_project, "calm.jsonl").wait(timeout=300) == 0
    part = chat_project / "killed.jsonl.part"
    for _ in range(3):
        process = start_batch(chat_project, "killed.jsonl")
        before = part.stat().st_size if part.exists() else 0
        while process.poll() is None and not (part.exists() and part.stat().st_size > before):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = start_batch(chat_project, "killed.jsonl")
    if not (chat_project / "killed.jsonl").exists() or part.exists():
        assert last.wait(timeout=300) == 0, last.stderr.read().decode()
    last.wait(timeout=300)
    assert (chat_project / "killed.jsonl").read_bytes() == (chat_project / "calm.jsonl").read_bytes()
    assert len(answered(chat_project / "killed.jsonl")) == 44
