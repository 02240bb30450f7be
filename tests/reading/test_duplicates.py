"""Rows with the same question: what is kept, what is left out, what is said."""

import random
import time
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civilqa.dataset.records import question_id, record_id
from civilqa.program.parameters import read_sections
from civilqa.reading.checks import PrepareParams
from civilqa.reading.duplicates import essence
from civilqa.reading.source import read_source
from conftest import HEADER, ROOT

(PARAMS,) = read_sections(ROOT / "params.yaml", prepare=PrepareParams)

ANSWER = (
    "임대인이 보증금을 돌려주지 않으면 2개월 안에 임차권등기명령을 신청하고, 등기가 된 것을 확인한 뒤에 이사하십시오."
)
OTHER = "지급명령을 신청하거나 보증금반환청구의 소를 제기하십시오. 이긴 뒤에는 집을 경매에 부칠 수 있습니다."


def read(tmp_path, pairs, **changes):
    """Read (question, answer) as rows from line 2 on."""
    path = tmp_path / "d.csv"
    quoted = "".join(f'"{question}","{answer}",,\n' for question, answer in pairs)
    path.write_text(f"{HEADER}\n{quoted}", encoding="utf-8")
    reading = read_source(str(path), PARAMS.model_copy(update=changes))
    assert len(reading.records) + len(reading.rejected) == reading.read == len(pairs)
    assert len(reading.rows) == len(reading.records) == len({record.id for record in reading.records})
    return reading


def lines(reading):
    """Return the lines of the rows that were kept, and reason and line of the others."""
    return [row.line for row in reading.rows], sorted((row.line, row.reason) for row in reading.rejected)


# The same answer in other manners.
COPIES = {
    "it": ANSWER,
    "equal": ANSWER,
    "spaces": ANSWER.replace(" ", "  ").replace("임차권등기", "임차권 등기"),
    "punctuation": ANSWER.replace(",", "").replace(".", " !"),
    "decomposed": unicodedata.normalize("NFD", ANSWER),
    "wide": ANSWER.replace("2", "２"),
    "a particle": ANSWER.replace("임대인이", "임대인은"),
    "an ending": ANSWER.replace("이사하십시오", "이사하세요"),
    "another level of speech": ANSWER.replace("이사하십시오", "이사한다"),
    "manners": f"안녕하세요? {ANSWER} 감사합니다.",
    "line breaks": ANSWER.replace(", ", ",\n"),
}
# A word turns it around, or it is another.
OTHERS = {
    "a number": ANSWER.replace("2개월", "3개월"),
    "negated": ANSWER.replace("확인한", "확인하지 않은"),
    "the other party": ANSWER.replace("임대인이", "임차인이"),
    "another term": ANSWER.replace("임차권등기명령", "가압류"),
    "a condition": ANSWER.replace("등기가", "임대인이 동의하고 등기가"),
    "another answer": OTHER,
    "short": "네, 그렇습니다.",
    "no and yes": ANSWER.replace("돌려주지 않으면", "돌려주면"),
}


def are_copies(one, other):
    return essence(one) == essence(other)


def test_the_same_answer_in_other_manners_is_a_copy_and_one_that_says_otherwise_is_none():
    assert [name for name, answer in COPIES.items() if not are_copies(ANSWER, answer)] == []
    assert [name for name, answer in OTHERS.items() if are_copies(ANSWER, answer)] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("네, 성립합니다.", "네, 성립한다"),
        ("통지가 있으면 됩니다.", "통지가 있으면 된다."),
        ("해지할 수 있습니다", "해지할 수 있어요."),
        ("보증금은 1,000만 원입니다.", "보증금은 1000만 원이다"),
        ("동산ㆍ부동산·채권", "동산·부동산ㆍ채권"),
        ("○", "○"),
        ("1. 통지\n2. 신청", "1) 통지 2) 신청!"),
    ],
)
def test_answers_that_say_the_same_are_copies(one, other):
    assert are_copies(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("네, 성립합니다.", "아니요, 성립하지 않습니다."),
        ("네, 가능합니다.", "네, 불가능합니다."),
        ("○", "×"),
        ("예", "아니오"),
        ("선의의 제3자에게 대항할 수 있습니다.", "악의의 제3자에게 대항할 수 있습니다."),
        ("상속인이 책임을 집니다.", "피상속인이 책임을 집니다."),
        ("동산에는 질권이 설정됩니다.", "부동산에는 질권이 설정됩니다."),
        ("해지할 수 있습니다.", "해지할 수 없습니다."),
        ("그 계약은 유효합니다. 다툴 것이 없습니다.", "그 계약은 무효합니다. 다툴 것이 없습니다."),
        ("이자는 연 3.5 퍼센트로 계산해 청구할 수 있습니다.", "이자는 연 35 퍼센트로 계산해 청구할 수 있습니다."),
        ("민법 제3조제1, 2항에 따릅니다.", "민법 제3조제12항에 따릅니다."),
        ("차임은\n1\n\n2회 밀렸습니다.", "차임은 12회 밀렸습니다."),
        ("민법 제3조의2에 따릅니다.", "민법 제3조에 따릅니다."),
        ("통지를 받은 날부터 두 달 안에 청구하셔야 합니다.", "통지를 받은 날부터 세 달 안에 청구하셔야 합니다."),
        ("보증금은 1,000만 원 이하여야 합니다.", "보증금은 1,000만 원 이상이어야 합니다."),
        ("임대인이 부담합니다.", "임대인과 임차인이 부담합니다."),
        ("임대인은 해지합니다.", "임대인을 해지합니다."),
    ],
)
def test_answers_that_contradict_each_other_are_no_copies(one, other):
    assert not are_copies(one, other)


def test_the_essence_takes_time_in_proportion_to_the_text():
    for text in (
        "." * 200_000,
        "1." * 100_000,
        "이" * 200_000,
        " 이" * 100_000,
        "1" + "," * 200_000 + "1",
        "안녕하" * 99_999,
    ):
        start = time.process_time()
        essence(text)
        assert time.process_time() - start < 2


@pytest.mark.parametrize("changes", [{}, {"on_invalid": "drop"}, {"same_question": "keep_variants"}])
def test_of_copies_the_first_is_kept_and_the_others_are_told(tmp_path, changes):
    reading = read(tmp_path, [("질문 하나입니다", answer) for answer in COPIES.values()], **changes)
    assert lines(reading) == ([2], [(line, "duplicate") for line in range(3, len(COPIES) + 2)])
    assert reading.records[0].answer == ANSWER
    place = f"{tmp_path / 'd.csv'}:2"
    details = [row.detail for row in reading.rejected]
    assert details[0] == f"the question of {place} again with the same answer; left out"  # spaces are cleaned
    assert details[-2] == f"the question of {place} again with nearly the same answer; left out"


def test_of_other_answers_none_is_kept_where_the_stage_stops(tmp_path):
    reading = read(tmp_path, [("질문 하나입니다", ANSWER), ("질문 둘입니다", ANSWER), ("질문 하나입니다", OTHER)])
    assert lines(reading) == ([3], [(2, "conflicting_duplicate"), (4, "conflicting_duplicate")])


def test_dropping_never_loses_both(tmp_path):
    rows = [("질문 하나입니다", answer) for answer in (ANSWER, OTHER, f"{ANSWER}!", f"{OTHER}!")]
    reading = read(tmp_path, rows, on_invalid="drop")
    assert lines(reading) == ([2], [(3, "conflicting_duplicate"), (4, "duplicate"), (5, "duplicate")])
    assert reading.rejected[-1].detail == (
        f"the same question has another answer in {tmp_path / 'd.csv'}:2, which is kept (prepare.same_question)"
    )


@pytest.mark.parametrize("on_invalid", ["fail", "drop"])
def test_the_first_answer_is_kept_where_that_is_asked_for(tmp_path, on_invalid):
    rows = [("질문 하나입니다", ANSWER), ("질문 하나입니다", OTHER), ("질문 하나입니다", ANSWER)]
    reading = read(tmp_path, rows, same_question="keep_first", on_invalid=on_invalid)
    assert lines(reading) == ([2], [(3, "another_answer"), (4, "duplicate")])


def test_variants_are_kept_each_with_an_id_of_its_own(tmp_path):
    rows = [
        ("질문 하나입니다", ANSWER),
        ("질문 둘입니다", OTHER),
        ("질문 하나입니다", OTHER),
        ("질문 하나입니다", f"{ANSWER}!"),
    ]
    reading = read(tmp_path, rows, same_question="keep_variants")
    assert lines(reading) == ([2, 3, 4], [(5, "duplicate")])
    first, _, variant = (record.id for record in reading.records)
    assert first == record_id("질문 하나입니다")
    assert variant.startswith(f"{first}-")
    assert [question_id(name) for name in (first, variant)] == [first, first]
    turned = read(tmp_path, [*rows[2:], *rows[:2]], same_question="keep_variants")
    assert turned.records[0].id == first  # the first in the file has the question's id


def test_what_is_told_of_a_copy_holds_no_personal_data(tmp_path):
    answers = [f"{ANSWER} 010-1234-5678", f"{ANSWER} 010-1234-5678!", f"{ANSWER} a@b.kr"]
    reading = read(tmp_path, [("질문 하나입니다", answer) for answer in answers], on_invalid="drop")
    assert len(reading.rejected) == 2
    assert "1234" not in str(reading.rejected)
    assert "a@b" not in str(reading.rejected)


def test_a_constant_question_is_settled_in_time_and_told(tmp_path):
    """As where the wrong column was taken for the question."""
    answers = [f"{number * 7919}번 답변은 이러합니다" for number in range(3000)]
    reading = read(tmp_path, [("다음 물음에 답하라", answer) for answer in answers])
    assert Counter(row.reason for row in reading.rejected) == {"conflicting_duplicate": 3000}


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["질문 하나입니다", "질문 둘입니다", "질문 셋입니다"]),
        st.sampled_from([*COPIES.values(), *OTHERS.values()]),
    ),
    min_size=1,
    max_size=12,
)


@given(rows=ROWS, same=st.sampled_from(["reject", "keep_first", "keep_variants"]), seed=st.integers(0, 99))
@settings(max_examples=100)
def test_every_question_is_kept_and_every_row_accounted_for_in_any_order(tmp_path_factory, rows, same, seed):
    folder = tmp_path_factory.mktemp("rows")
    kept = read(folder, rows, same_question=same, on_invalid="drop").records
    assert {record.question for record in kept} == {question for question, _ in rows}
    if same != "keep_variants":
        assert len(kept) == len({question for question, _ in rows})
    shuffled = random.Random(seed).sample(rows, len(rows))
    again = read(folder, shuffled, same_question=same, on_invalid="drop").records
    assert {record.question for record in again} == {record.question for record in kept}
    if all(count == 1 for count in Counter(question for question, _ in rows).values()):
        assert {record.id for record in again} == {record.id for record in kept}
