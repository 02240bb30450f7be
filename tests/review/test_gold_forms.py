import pytest
from review_files import ANSWER, QUESTION, gold_form

from civilqa.dataset.records import record_id
from civilqa.review.gold_forms import draft_form, find_problems, gold_fields
from civilqa.scoring.gold import Gold

NAME = record_id(QUESTION)


def problems(answer=ANSWER, **changes):
    return "\n".join(find_problems(NAME, QUESTION, answer, gold_form(**changes)))


def test_a_draft_has_the_articles_and_numbers_that_the_asker_did_not_name():
    draft = draft_form(
        "민법 제618조의 기간은 2년인가요?", f"{ANSWER} 민법 제618조의 2년이 아니라 민법 제750조의2를 보십시오."
    )
    assert draft.required_citations == "민법 제750조\n민법 제750조의2"
    assert draft.numbers == "3년"
    assert draft.line == draft.key_points == ""


def test_what_is_filled_in_is_gold_that_the_right_answer_meets():
    assert problems() == ""
    gold = Gold.model_validate(gold_fields(NAME, QUESTION, gold_form()))
    assert gold.conclusion.says == ["가해자가 손해를 배상한다", "손해배상을 청구할 수 있다"]
    assert gold.key_points == [["고의 또는 과실", "고의나 과실"], ["3년 안에 청구"]]
    assert gold.required == {("민법", "제750조")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"line": " "}, "결론 한 줄: 비어 있습니다"),
        ({"says": "하나뿐"}, "결론을 말하는 문장: 2개 이상 적으십시오(지금 1개)"),
        ({"denies": "\n\n"}, "결론과 반대되는 문장: 2개 이상"),
        ({"key_points": " / \n"}, "핵심 내용: 1개 이상"),
        ({"forbidden": ""}, "틀린 설명: 1개 이상"),
        ({"required_citations": "민법 제9999조"}, "민법 제9999조: 없는 조문"),
        ({"required_citations": "제750조 참조"}, "'민법 제750조'처럼 조문 하나로"),
        ({"acceptable_citations": "민법 제750조"}, "조문이 두 번 있습니다: 민법 제750조"),
        ({"numbers": "삼 년쯤"}, "단위가 있는 숫자 하나로"),
        ({"numbers": "10년"}, "바른 답변이 이 기준에 맞지 않습니다: 숫자가 빠짐: 10년"),
        ({"forbidden": "고의 또는 과실이 있는 가해자가 손해를 배상합니다"}, "틀린 설명이 들어 있음"),
        ({"key_points": "고의 또는 과실\n전입신고를 마친"}, "바른 답변이 이 기준에 맞지 않습니다: 핵심 내용"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_a_form_lacks_is_said_in_korean(changes, message):
    assert message in problems(**changes)


def test_a_right_answer_that_says_otherwise_does_not_pass():
    wrong = "손해배상을 청구할 수 없고 가해자는 배상하지 않습니다. "
    wrong += "민법 제750조는 고의 또는 과실을 말하며 3년 안에 청구하라고 합니다."
    assert problems(wrong) == "바른 답변이 이 기준에 맞지 않습니다: 결론이 다름: 가해자가 손해를 배상한다"
