import errno
import os
import stat
import sys
import threading

import pytest
from pydantic import ValidationError
from review_files import chat_review, review

from civilqa.program.errors import RecordError
from civilqa.review import marks
from civilqa.review.marks import Mark, append_review, last_reviews, latest_corrections, read_reviews, review_path
from conftest import ROOT


def test_what_is_saved_is_read_again_in_its_order(tmp_path):
    saved = [review(0, base="good"), review(0, base=["law"]), review(1, note="메모\n둘째 줄 \u2028 끝")]
    for one in saved:
        append_review(one, tmp_path)
    assert read_reviews(tmp_path) == saved
    assert last_reviews(saved) == saved[1:]


def test_each_reviewer_has_a_file_of_his_own_that_nobody_else_may_read(tmp_path):
    for name in ("김 변호사", "이", "con"):
        append_review(review(reviewer=name), tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["review-con.jsonl", "review-김 변호사.jsonl", "review-이.jsonl"]
    if os.name == "posix":
        assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert [one.reviewer for one in read_reviews(tmp_path, "이")] == ["이"]
    assert read_reviews(tmp_path, "박") == []


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "", " ", "가" * 41, ".x", "a\nb", "a.b"])
def test_a_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(ValidationError):
        review(reviewer=name)


def test_the_same_name_typed_on_a_mac_is_the_same_reviewer():
    assert review(reviewer=" \u1100\u1175\u11b7 ").reviewer == "김"


def test_where_two_names_share_a_file_each_has_his_own_reviews(tmp_path):
    for name in ("Kim", "kim"):
        append_review(review(reviewer=name), tmp_path)
    if not review_path("kim", tmp_path).samefile(review_path("Kim", tmp_path)):  # as on Windows and macOS
        both = review_path("kim", tmp_path).read_bytes() + review_path("Kim", tmp_path).read_bytes()
        review_path("kim", tmp_path).write_bytes(both)
    assert [one.reviewer for one in read_reviews(tmp_path, "kim")] == ["kim"]


def test_a_line_that_was_being_written_when_the_machine_stopped_gives_way_to_the_next(tmp_path):
    append_review(review(0), tmp_path)
    path = review_path("김", tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert read_reviews(tmp_path) == [review(0)]
    append_review(review(1), tmp_path)
    assert read_reviews(tmp_path) == [review(0), review(1)]


def test_on_a_full_disk_the_file_stays_as_it_was_and_the_error_names_it(tmp_path, monkeypatch):
    append_review(review(0), tmp_path)
    before = review_path("김", tmp_path).read_bytes()

    def full(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(marks.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        append_review(review(1), tmp_path)
    assert str(review_path("김", tmp_path)) in str(caught.value)
    assert review_path("김", tmp_path).read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="several threads wait a second each there")
def test_lines_of_several_pages_do_not_run_into_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("civilqa.program.lifecycle.locks.POLL_SECONDS", 0.01)
    threads = [threading.Thread(target=append_review, args=(review(number), tmp_path)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.question for one in read_reviews(tmp_path)) == [f"{number}번 질문" for number in range(8)]


def test_every_line_that_is_no_review_is_named(tmp_path):
    append_review(review(0), tmp_path)
    path = review_path("김", tmp_path)
    path.write_bytes(
        b"{}\n" + path.read_bytes() + b"nonsense\n" + path.read_bytes().replace(b'"blind": true', b'"blind": 1')
    )
    with pytest.raises(RecordError) as caught:
        read_reviews(tmp_path)
    named = [line.partition(" ")[0] for line in str(caught.value).splitlines()]
    assert named == [f"{path}:{number}:" for number in (1, 3, 4)]
    assert "blind" in str(caught.value)


def test_a_review_is_whole_once_every_answer_has_a_verdict_and_every_wrong_one_a_fault():
    assert review(base="good", adapter=["law"]).is_whole
    assert not review(base="good").is_whole
    assert not review(base="good", adapter=[]).is_whole
    assert chat_review(adapter="good").is_whole
    assert not chat_review().is_whole
    with pytest.raises(ValidationError, match="only of an answer that is wrong"):
        Mark(verdict="good", faults=["law"])


def test_another_answer_is_another_thing_to_judge():
    other = {"base": "0 베이스", "adapter": "다른 답"}
    assert review(0).key != review(0, answers=other).key
    assert chat_review(0).key != review(0).key
    assert len(last_reviews([review(0), review(0, answers=other), review(0, reviewer="이")])) == 3


OTHER = {"base": "가", "adapter": "나"}  # of a later adapter


def test_the_answer_written_last_counts_whichever_answers_stood_beside_it():
    first, later = review(0, correction="처음", time="1"), review(0, correction="나중", time="2", answers=OTHER)
    assert latest_corrections([later, first]) == {review(0).id: {"김": "나중"}}


ALONE, NEW = {"adapter": "0 튜닝"}, {"adapter": "새 답변"}  # answers in the chat


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ([(review, None, "가"), (review, None, "")], None),
        ([(review, None, "가"), (review, None, ""), (review, None, "나")], "나"),
        ([(chat_review, ALONE, "가"), (chat_review, ALONE, "")], None),
        # other answers, in a form that began empty
        ([(chat_review, ALONE, "가"), (chat_review, NEW, "")], "가"),
        ([(review, None, "가"), (chat_review, ALONE, "")], "가"),
        ([(chat_review, ALONE, "가"), (chat_review, NEW, ""), (chat_review, ALONE, "")], None),
        ([(chat_review, ALONE, "가"), (chat_review, NEW, "나"), (chat_review, NEW, "")], None),
        # the form still held what is replaced
        ([(chat_review, ALONE, "가"), (chat_review, NEW, "나"), (chat_review, ALONE, "")], "나"),
        # the same text in both forms
        ([(chat_review, ALONE, "가"), (chat_review, NEW, " 가"), (chat_review, ALONE, "")], None),
        # the page of reviews brings a text along to other answers that nothing was said of
        ([(review, None, "가"), (review, OTHER, "")], None),
        ([(review, OTHER, ""), (review, None, "가"), (review, OTHER, "")], "가"),
    ],
)
def test_an_empty_text_takes_back_what_its_form_held(said, left):
    reviews = [
        make(0, correction=text, time=str(time), **({"answers": answers} if answers else {}))
        for time, (make, answers, text) in enumerate(said)
    ]
    assert latest_corrections(reviews) == ({review(0).id: {"김": left}} if left else {})


def test_git_leaves_reviews_alone():
    # Of a file that git knows, `dvc exp apply` takes back what was not committed.
    assert "/data/reviews/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
