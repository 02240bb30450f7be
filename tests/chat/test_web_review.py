"""The page of reviews by its requests, without a browser; with one: tests/stages/test_reviews.py."""

import contextlib
import errno
import json

import pytest
from review_files import ADAPTER, chat_review, gold_form, write_evaluation
from starlette.testclient import TestClient

from civilqa.chat.web import page as chat_page
from civilqa.chat.web.review import make_review_app, serve_review
from civilqa.program.errors import RecordError
from civilqa.review.evaluation import read_evaluation
from civilqa.review.marks import SYSTEMS, append_review, read_reviews

OPENED = {"reviewer": "김", "blind": True, "shuffled": True}
UNMARKED = {"verdict": None, "faults": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    write_evaluation(folder)
    return folder


@pytest.fixture
def evaluation(folder):
    with contextlib.chdir(folder):
        return read_evaluation()


@pytest.fixture
def page(evaluation, tmp_path):
    return TestClient(make_review_app(evaluation, tmp_path / "reviews"), base_url="http://127.0.0.1:7860")


def page_of_another_answer(evaluation, row, tmp_path):
    line = evaluation.lines[row["key"]]
    other = evaluation._replace(lines={"b" * 32: {**line, "adapter": {**line["adapter"], "answer": "다른 답"}}})
    return TestClient(make_review_app(other, tmp_path / "reviews"), base_url="http://127.0.0.1:7860")


def rows(page, **changes):
    return page.post("/rows", json=OPENED | changes).json()


def save(page, row, reviewer="김", blind=True, **changes):
    state = {"marks": [UNMARKED, UNMARKED], "better": None, "correction": "", "note": "", "gold": None}
    return page.post("/save", json={"reviewer": reviewer, "blind": blind, "key": row["key"]} | state | changes)


def test_the_page_has_a_row_for_each_question_with_its_reference_and_both_answers(page, evaluation):
    shown = rows(page, blind=False, shuffled=False)
    lines = [*evaluation.lines.values()]
    assert [row["question"] for row in shown] == [line["question"] for line in lines]
    assert shown[0]["names"] == ["베이스", "튜닝한 모델"]
    assert shown[1]["texts"] == [lines[1][system]["answer"] for system in SYSTEMS]
    assert "있는 조문" in shown[1]["reference_html"]
    assert "끝까지 나오지 않았습니다" in shown[0]["html"][0]


def test_blind_rows_do_not_tell_whose_answer_is_whose(page, evaluation):
    shown = rows(page)
    assert {tuple(row["names"]) for row in shown} == {("답변 가", "답변 나")}
    told = json.dumps([{**row, "html": "", "texts": ""} for row in shown], ensure_ascii=False)
    assert not any(word in told for word in (*SYSTEMS, "베이스", "튜닝"))
    left = {evaluation.lines[row["key"]]["base"]["answer"] == row["texts"][0] for row in shown}
    assert left == {True, False}  # the base stands now left, now right


def test_the_order_is_by_chance_and_for_a_reviewer_always_the_same(page):
    orders = {name: [row["key"] for row in rows(page, reviewer=name)] for name in ("김", "이")}
    sides = {name: [row["texts"] for row in rows(page, reviewer=name, shuffled=False)] for name in ("김", "이")}
    assert orders["김"] == [row["key"] for row in rows(page)] != orders["이"]
    assert sorted(orders["김"]) == sorted(orders["이"])
    assert sides["김"] != sides["이"]


def test_what_is_saved_is_on_the_disk_with_who_when_which_adapter_and_which_answer(page, evaluation, tmp_path):
    row = rows(page)[0]
    line = evaluation.lines[row["key"]]
    left = next(system for system in SYSTEMS if line[system]["answer"] == row["texts"][0])
    right = next(system for system in SYSTEMS if system != left)
    marks = [{"verdict": "good", "faults": []}, {"verdict": "wrong", "faults": ["law", "number"]}]
    answer = save(page, row, marks=marks, better="0", correction="민법 제9999조", note="메모")
    assert answer.json()["done"] is True
    assert "없는 조문(지어낸 인용)" in answer.json()["right_html"]
    (saved,) = read_reviews(tmp_path / "reviews")
    assert (saved.reviewer, saved.adapter_sha256, saved.id, saved.blind) == ("김", ADAPTER, line["id"], True)
    assert saved.time.startswith("20")
    assert saved.answers == {system: line[system]["answer"] for system in SYSTEMS}
    assert (saved.marks[left].verdict, saved.marks[right].faults) == ("good", ["law", "number"])
    assert saved.better == left
    assert saved.shown == [left, right]


def test_a_reload_shows_what_was_said_also_with_the_names(page):
    row = rows(page)[3]
    marks = [{"verdict": "usable", "faults": []}, {"verdict": "wrong", "faults": ["form"]}]
    save(page, row, marks=marks, better="1", note="메모")
    again = rows(page)[3]
    assert (again["marks"], again["better"], again["note"], again["done"]) == (marks, "1", "메모", True)
    named = next(each for each in rows(page, blind=False) if each["key"] == row["key"])
    turned = named["texts"] != row["texts"]
    assert named["marks"] == (marks[::-1] if turned else marks)
    assert named["better"] == ("0" if turned else "1")
    assert rows(page, reviewer="이")[3]["note"] == ""


def test_a_right_answer_is_kept_when_the_model_answers_otherwise(page, evaluation, tmp_path):
    row = rows(page)[0]
    save(page, row, correction="바른 답")
    (shown,) = rows(page_of_another_answer(evaluation, row, tmp_path))
    assert shown["correction"] == "바른 답"
    assert shown["marks"] == [UNMARKED, UNMARKED]


def test_what_is_shown_is_the_right_answer_that_counts(page, evaluation, tmp_path):
    row = rows(page)[0]
    save(page, row)
    line = evaluation.lines[row["key"]]
    elsewhere = {"time": "3", "id": line["id"], "question": line["question"], "correction": "바른 답"}
    append_review(chat_review(**elsewhere), tmp_path / "reviews")
    (saved,) = read_reviews(tmp_path / "reviews")[:1]
    append_review(saved.model_copy(update={"time": "4"}), tmp_path / "reviews")  # marked again, no text in its form
    (shown,) = rows(page_of_another_answer(evaluation, row, tmp_path))
    assert shown["correction"] == "바른 답"


def test_answers_of_another_evaluation_are_not_marked(page, tmp_path):
    answer = save(page, {"key": "0" * 32})
    assert answer.status_code == 409
    assert "지금 열린 평가에 없는 답변입니다" in answer.text
    assert not (tmp_path / "reviews").exists()


def test_gold_is_checked_as_it_is_filled_in(page):
    row = rows(page)[0]
    assert row["gold"]["required_citations"].startswith("민법 제2")
    assert row["problems"] is None
    told = save(page, row, gold=gold_form(line="").model_dump()).json()
    assert "결론 한 줄: 비어 있습니다" in told["problems"]
    again = rows(page)[0]
    assert again["gold_saved"] is True
    assert again["gold"]["key_points"] == gold_form().key_points
    assert again["problems"] == told["problems"]


def test_a_full_disk_is_told_and_the_page_goes_on(page, monkeypatch, tmp_path):
    def full(review, folder):
        raise OSError(errno.ENOSPC, "No space left on device", "data/reviews/x")

    row = rows(page)[0]
    with monkeypatch.context() as patch:
        patch.setattr(chat_page, "append_review", full)
        answer = save(page, row, note="메모")
    assert answer.status_code == 507
    assert answer.text.startswith("저장하지 못했습니다")
    assert save(page, row, note="메모").status_code == 200


def test_a_broken_file_of_reviews_is_told(page, tmp_path):
    save(page, rows(page)[0])
    path = tmp_path / "reviews/review-김.jsonl"
    path.write_bytes(b"{}\n" + path.read_bytes())
    answer = page.post("/rows", json=OPENED)
    assert answer.status_code == 500
    assert "review-김.jsonl:1" in answer.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"reviewer": "../x"}, {"reviewer": ""}, {"reviewer": 1}, {"blind": "yes"}, {"key": None}, {"path": "/etc"},
        {"marks": [UNMARKED]}, {"marks": [UNMARKED] * 3}, {"marks": [{"verdict": "best", "faults": []}, UNMARKED]},
        {"marks": [{"verdict": "good", "faults": ["law"]}, UNMARKED]}, {"better": "2"}, {"better": "base"},
        {"correction": None}, {"note": "가" * 20_001}, {"gold": {}}, {"gold": {"line": 1}},
    ],
    ids=lambda wrong: str(wrong)[:40],
)  # fmt: skip
def test_what_the_page_does_not_send_is_refused(page, wrong, tmp_path):
    answer = save(page, rows(page)[0], **wrong)
    assert (answer.status_code, answer.text) == (400, "이 화면이 보내는 요청이 아닙니다.")
    assert not (tmp_path / "reviews").exists()


def test_the_page_is_as_closed_as_the_other_one(page):
    home = page.get("/")
    assert "민법 답변 검토" in home.text
    assert "default-src 'none'" in home.headers["content-security-policy"]
    for path in ("ask", "conversation", "page.js", "docs", "review.py", "review.html.jinja", "../params.yaml"):
        assert page.get(f"/{path}").status_code == 404, path
    assert page.post("/rows", json=OPENED, headers={"origin": "http://evil.example"}).status_code == 403
    assert page.get("/", headers={"host": "evil.example"}).status_code == 400


def test_metrics_of_another_run_are_not_taken_for_those_of_the_answers(tmp_path):
    write_evaluation(tmp_path, 3)
    path = tmp_path / "data/predictions/test.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[1:]), encoding="utf-8")
    with contextlib.chdir(tmp_path), pytest.raises(RecordError, match="is of another run; run `dvc checkout`"):
        read_evaluation()


def test_without_an_evaluation_or_with_a_broken_file_the_program_says_what_to_do(tmp_path):
    with contextlib.chdir(tmp_path):
        with pytest.raises(RecordError, match=r"검토할 답변이 없습니다\. `dvc repro evaluate`로"):
            serve_review(0)
        write_evaluation(tmp_path, 2)
        (tmp_path / "data/reviews").mkdir()
        (tmp_path / "data/reviews/review-x.jsonl").write_text("{}\n", encoding="utf-8")
        with pytest.raises(RecordError, match="저장된 검토를 읽을 수 없습니다") as caught:
            serve_review(0)
    assert "review-x.jsonl:1" in str(caught.value)
