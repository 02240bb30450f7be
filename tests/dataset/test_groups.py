from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from civilqa.dataset import parallel
from civilqa.dataset.groups import (
    USUAL,
    Likeness,
    add_up,
    describe_test,
    group_records,
    join_labels,
    list_groups,
    suggest,
)
from civilqa.dataset.records import Record, record_id
from civilqa.program.errors import RecordError
from civilqa.program.parameters import read_sections
from conftest import ROOT
from split import SplitParams

LIKENESS = Likeness(question=0.8, answer=0.9, answer_characters=20)
ANSWERS = [
    "임차권등기명령을 신청해 등기가 된 것을 확인한 뒤에 이사하십시오",
    "상속을 안 날부터 석 달 안에 가정법원에 한정승인을 신고하십시오",
]
QUESTIONS = [
    "집주인이 보증금을 안 줘요",
    "이사를 먼저 가도 되나요",
    "빚이 더 많은 것 같습니다",
    "아버지가 돌아가셨습니다",
    "경매에서 배당을 받나요",
]


def test_the_bars_of_questions_and_answers_never_write_over_each_other(monkeypatch, capfd):
    monkeypatch.setattr(parallel, "CHUNK", 2)
    group_records(make(*[(question, f"{ANSWERS[0]} {question}") for question in QUESTIONS]), LIKENESS)
    shown = capfd.readouterr().err
    assert "near-duplicates of questions: 100%" in shown
    assert "near-duplicates of answers: 00:0" in shown
    assert "answers: 100%" not in shown  # from the other process


def make(*pairs):
    return [
        Record(id=record_id(question), question=question, answer=answer, category="", difficulty="")
        for question, answer in pairs
    ]


def questions(grouping):
    return sorted(sorted(record.question for record in group) for group in grouping.groups)


def test_records_with_one_answer_are_one_group():
    one, other = ANSWERS
    records = make(*zip(QUESTIONS, (one, f"{one}!", other, other.replace(" ", ""), "네."), strict=True))
    grouping = group_records(records, LIKENESS)
    assert questions(grouping) == sorted(map(sorted, (QUESTIONS[:2], QUESTIONS[2:4], QUESTIONS[4:])))
    assert grouping.question_groups == 5
    assert grouping.by_answers == {min(record_id(q) for q in pair) for pair in (QUESTIONS[:2], QUESTIONS[2:4])}


def test_questions_and_answers_join_in_one_chain():
    one, other = ANSWERS
    records = make((QUESTIONS[0], one), (QUESTIONS[1], one), (f"{QUESTIONS[1]}?", other), (QUESTIONS[2], other))
    (group,) = group_records(records, LIKENESS).groups
    assert len(group) == 4


def test_groups_are_the_same_with_another_process(monkeypatch):
    pairs = zip(QUESTIONS, (ANSWERS[0], f"{ANSWERS[0]}!", ANSWERS[1], ANSWERS[1].replace(" ", ""), "네."), strict=True)
    records = make(*pairs, (f"{QUESTIONS[0]}?", "다른 답변입니다."))
    here = group_records(records, LIKENESS)
    monkeypatch.setattr(parallel, "CHUNK", 2)
    assert group_records(records, LIKENESS) == here
    assert len(here.groups) == 3


def test_without_a_similarity_no_answer_joins():
    records = make(*((question, ANSWERS[0]) for question in QUESTIONS))
    off = Likeness(question=0.8, answer=None, answer_characters=20)
    grouping = group_records(records, off)
    assert len(grouping.groups) == 5
    assert grouping.by_answers == frozenset()


@pytest.mark.parametrize(("characters", "groups"), [(19, 1), (20, 1), (21, 5)])
def test_an_answer_joins_from_so_many_letters_and_digits_on(characters, groups):
    answer = "가나다라마 바사아자차, 카타파하거 너더러머버!"  # 20 letters
    likeness = Likeness(question=0.8, answer=0.9, answer_characters=characters)
    assert len(group_records(make(*((question, answer) for question in QUESTIONS)), likeness).groups) == groups


LABELS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 5), min_size=n, max_size=n) for _ in range(2)])
)


@given(LABELS)
def test_joined_labels_are_the_connected_components(pair):
    first, second = ([labels.index(label) for label in labels] for labels in pair)
    joined = join_labels(first, second)
    groups = [{index} for index in range(len(first))]
    for labels in (first, second):
        for index, label in enumerate(labels):
            one, other = (next(group for group in groups if i in group) for i in (index, label))
            if one is not other:
                groups.remove(other)
                one |= other
    assert joined == [min(next(group for group in groups if index in group)) for index in range(len(first))]


def test_the_similarity_that_joins_is_the_one_suggested():
    sums = [f"{1000 + 7 * number}만원" for number in range(12)]
    by_question = make(*((f"전세보증금 {s} 돌려받는 방법을 자세히 알려 주십시오", f"네 {s}") for s in sums))
    assert suggest(by_question, LIKENESS, 12).startswith("split.near_duplicate_similarity: ")
    long = f"{ANSWERS[0]} {ANSWERS[1]} {ANSWERS[0][::-1]} {ANSWERS[1][::-1]}"
    by_answer = make(*((chr(0xAC00 + 40 * i) * 9, f"{long} {s}") for i, s in enumerate(sums)))
    assert len(group_records(by_answer, LIKENESS).groups) == 1
    assert suggest(by_answer, LIKENESS, 12).startswith("split.near_duplicate_answer_similarity: ")
    assert suggest(make(*((question, ANSWERS[0]) for question in QUESTIONS)), LIKENESS, 5) == ""


def test_a_verdict_rests_on_groups_and_on_answers_that_were_not_trained_on():
    answers = [*ANSWERS[:1] * 2, "네", "아니요", "글쎄요"]
    test = make(*zip(QUESTIONS, answers, strict=True), (f"{QUESTIONS[4]}?", "예"))
    test[0] = replace(test[0], category="상속")
    train = make(("또 다른 물음입니다", "네!"), ("하나 더 묻습니다", "아니요, 그렇지 않습니다"))
    grouping = group_records([*test, *train], LIKENESS)
    lines = list_groups(grouping)
    assert [line["alike"] for line in lines] != ["answers"] * 2
    rests = {"groups": 4, "by_answers": 1, "shared_answers": 1, "untrained_categories": ["상속"]}
    assert describe_test(test, train, lines) == rests
    assert describe_test(test, train, lines, grouping.answers) == rests
    alone = {"groups": 2, "by_answers": 0, "shared_answers": 0, "untrained_categories": [""]}
    assert describe_test(test[2:4], [], lines) == alone
    assert add_up([rests, alone]) == {
        "groups": 6,
        "by_answers": 1,
        "shared_answers": 1,
        "untrained_categories": ["", "상속"],
    }
    for line in ({}, {"records": 1, "alike": ""}, {"records": [{}], "alike": ""}):
        with pytest.raises(RecordError, match="a line is no group; run `dvc repro split`"):
            describe_test(test, train, [line])


def test_what_is_usual_is_what_params_yaml_ships():
    (split,) = read_sections(ROOT / "params.yaml", split=SplitParams)
    assert split.likeness == USUAL
