import pytest

from civilqa.base_model.categories import Category
from civilqa.chat.categories import CategoryChoice, category_note
from civilqa.program.errors import QuestionError

CHOICE = CategoryChoice(
    {
        "": Category(system_prompt="상담가", records=1, questions=["상속을 포기하려면 어떻게 하나요?"]),
        "임대차": Category(system_prompt="상담가", records=1, questions=["월세 보증금을 언제 돌려받나요?"]),
        "전세사기": Category(
            system_prompt="전세 전문가", records=1, questions=["경매에 넘어간 전셋집은 어떻게 하나요?"]
        ),
    }
)


@pytest.mark.parametrize(
    ("question", "given", "chosen"),
    [
        ("월세 보증금을 돌려받으려면?", "", ("임대차", True)),
        ("전셋집이 경매에 넘어간다면?", " ", ("전세사기", True)),
        ("상속을 포기할 수 있나요?", "", ("", False)),
        ("월세 보증금을 돌려받으려면?", "전세사기", ("전세사기", False)),
        ("월세 보증금을 돌려받으려면?", " 임대차\n", ("임대차", False)),
    ],
)
def test_a_question_is_asked_in_its_own_category_or_the_nearest_question_s(question, given, chosen):
    assert CHOICE.choose(question, given) == chosen


def test_what_the_model_was_not_trained_on_is_refused_with_what_it_was():
    assert CHOICE.names == ["임대차", "전세사기"]
    with pytest.raises(QuestionError, match=r"'상속' 분야를 학습하지 않았습니다\. 있는 분야: 임대차, 전세사기\."):
        CHOICE.choose("상속은?", "상속")
    many = CategoryChoice({f"분야 {number}": Category(system_prompt="") for number in range(99)})
    with pytest.raises(QuestionError, match="분야 9 …"):
        many.check("상속")


def test_a_model_without_training_questions_is_asked_with_the_general_prompt():
    choice = CategoryChoice({"": Category(system_prompt="상담가"), "전세사기": Category(system_prompt="전세 전문가")})
    assert choice.choose("경매에 넘어간 전셋집은?") == ("", False)
    assert choice.system_prompt("") == "상담가"


def test_the_reader_is_told_the_category_and_whether_it_was_chosen():
    assert category_note({"category": "", "category_chosen": False}) == ""
    assert category_note({"category": "임대차", "category_chosen": False}) == "분야: 임대차"
    assert category_note({"category": "임대차", "category_chosen": True}) == "분야: 임대차 (가장 비슷한 학습 질문에서)"
