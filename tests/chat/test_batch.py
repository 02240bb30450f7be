import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from filelock import FileLock

from civilqa.chat.batch import answer_file
from civilqa.chat.engine import ChatParams
from civilqa.program.errors import QuestionError, RecordError

QUESTIONS = [f"{number}번째 질문입니다." for number in range(11)]


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
        ).model_copy(update=settings)
        self.asked = []

    def identity(self):
        return self.params.model_dump()

    def check_question(self, question, category):
        if not question.strip():
            raise QuestionError("질문이 비어 있습니다.")

    def generate_answers(self, questions, categories):
        self.asked.append(list(questions))
        about = {"citations": [], "tokens": 1, "stopped": True, "model": "메아리", "notice": "시험", "seconds": 0.1}
        asked = zip(questions, categories, strict=True)
        return [{"answer": f"{question}/{category}/{len(questions)}", **about} for question, category in asked]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("질문,분야\n" + "".join(f"{question},전세사기\n" for question in QUESTIONS), encoding="utf-8")
    return path


def answered(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
        ("a.csv", "물음,답\n가,나\n", "질문 열이 없습니다.*있는 열: 물음, 답"),
        ("a.csv", "question\n", "한 줄도 없습니다"),
        ("a.doc", "question\n가\n", "unknown suffix"),
    ],
)
def test_a_file_without_questions_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        answer_file(Echo(), tmp_path / name, tmp_path / "out.jsonl")


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
