import pytest

from civilqa.dataset.records import record_id
from civilqa.scoring.gold import Gold, TestCase
from civilqa.scoring.judgement import judge_answer, overlap_scores

QUESTION = "전입신고만 하면 오늘부터 보증금이 안전한가요?"
ENTRY = {
    "id": record_id(QUESTION),
    "question": QUESTION,
    "conclusion": {
        "line": "다음 날부터 대항력이 생긴다",
        "answer": "no",
        "says": [
            "다음 날부터 대항력이 생긴다",
            "주택의 인도와 전입신고를 마쳐야 한다",
            "새 소유자가 임대인 지위를 승계한다",
        ],
        "denies": ["당일부터 대항력이 생긴다", "전입신고만 하면 안전하다"],
    },
    "required_citations": ["주택임대차보호법 제3조"],
    "acceptable_citations": ["주택임대차보호법 제3조의2"],
    "key_points": [["다음 날부터", "다음 날 오전 0시"], ["전입신고", "주민등록"], ["주택의 인도"], ["임대인의 지위"]],
    "forbidden": ["전입신고 당일부터 대항력이 생긴다", "확정일자를 받아야 대항력이 생긴다"],
    "numbers": ["2년", "5푼"],
}
GOLD = Gold(**ENTRY)
RIGHT = (
    "주택의 인도와 전입신고를 마친 다음 날부터 대항력이 생깁니다(주택임대차보호법 제3조 제1항). 새 소유자는 임대인 "
    "지위를 이어받고, 기간은 2년, 이율은 연 5%입니다."
)


def test_a_right_answer_is_accepted():
    judged = judge_answer(RIGHT, GOLD)
    assert judged.accepted
    assert judged.reasons == ()
    assert judged.key_points_hit == (True, True, True, True)
    assert [judged.scores[f"citation_{name}"] for name in ("precision", "recall", "f1")] == [1, 1, 1]
    assert (judged.numbers_found, judged.numbers_missing, judged.numbers_wrong) == (("2년", "5푼"), (), ())
    assert judged.scores["number_f1"] == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (RIGHT + " 민법 제3000조도 있습니다.", "없는 조문을 인용함: 민법 제3000조"),
        (RIGHT + " 민법 제436조도 있습니다.", "삭제된 조문을 인용함: 민법 제436조"),
        (RIGHT + " 확정일자를 받아야 대항력이 생깁니다.", "틀린 설명이 들어 있음: 확정일자를 받아야 대항력이 생긴다"),
        (RIGHT.replace("생깁니다", "생기지 않습니다"), "기준 답변의 내용을 뒤집음"),
        (RIGHT.replace("2년", "3년"), "기준 답변의 내용을 뒤집음"),
        (f"다음 설명은 모두 틀렸습니다. {RIGHT}", "기준 답변의 내용을 뒤집음"),
        (f"{RIGHT} 그러나 위 설명은 모두 옛 법 이야기입니다.", "기준 답변의 내용을 뒤집음"),
        (f"{RIGHT} {RIGHT}", "같은 말을 되풀이함"),
        (f"{RIGHT} {'그 밖에 알아 둘 것이 많습니다. ' * 20}", "기준 답변의 세 배를 넘게 늘어놓음"),
        (", ".join(word for words in ENTRY["key_points"] for word in words), "끝맺은 문장이 아닌 말이 절반을 넘음"),
    ],
)
def test_what_is_no_answer_says_why(text, reason):
    judged = judge_answer(text, GOLD, RIGHT)
    assert not judged.accepted
    assert judged.scores["content_score"] == 0
    assert reason in judged.faults
    assert judged.reasons[: len(judged.faults)] == judged.faults


def test_words_without_sentences_say_no_key_point():
    salad = (
        "대항력이 임대인의 이율은 마친 다음 날부터 2년 주택의 인도와 전입신고를 지위를 새 연 기간은 소유자는 생깁니다."
    )
    for text in (salad, f"{salad} 세무 정하지 부정한테 열쇠를 밝 전원 판례입니다으십시오 맡 소멸 기각 담 인감증명서."):
        judged = judge_answer(text, GOLD, RIGHT)
        assert judged.faults
        assert judged.key_points_hit == (False,) * 4
        assert judged.scores["key_point_recall"] == judged.scores["conclusion_score"] == 0
    wrong = judge_answer(f"{RIGHT} 민법 제3000조도 있습니다.", GOLD, RIGHT)
    assert wrong.scores["key_point_recall"] == 1, "a sentence of wrong law leaves the others what they are"


@pytest.mark.parametrize(
    "frame",
    [
        "흔히 “{}”고 알고 계시지만 사실과 다릅니다.",
        "{}고 생각하기 쉽지만 그렇지 않습니다.",
        "{}는 말은 옛 법 이야기입니다.",
    ],
)
def test_an_answer_that_warns_of_an_error_is_not_held_to_make_it(frame):
    judged = judge_answer(f"{RIGHT} {frame.format('전입신고 당일부터 대항력이 생긴다')}", GOLD, RIGHT)
    assert judged.forbidden_found == ()
    assert judged.forbidden_denied == ("전입신고 당일부터 대항력이 생긴다",)
    assert judged.accepted


def test_the_opposite_conclusion_is_told_from_the_right_one():
    judged = judge_answer("네, 당일부터 대항력이 생기므로 전입신고만 하면 안전합니다.", GOLD)
    assert not judged.accepted
    assert judged.scores["conclusion_score"] == 0
    assert judged.reasons[1] == "결론이 다름: 다음 날부터 대항력이 생긴다"


def test_numbers_of_the_question_and_the_reference_answer_are_not_wrong():
    text = RIGHT + " 10일 안에 3개월분을 내십시오."
    assert judge_answer(text, GOLD).numbers_wrong == ("10일", "3개월")
    # 2 found and right, 4 found in all, 2 wanted: 2·2 / (4 + 2)
    assert judge_answer(text, GOLD).scores["number_f1"] == pytest.approx(4 / 6)
    assert judge_answer(text, GOLD, "10일 안에, 3개월 치").numbers_wrong == ()


def test_an_empty_answer_scores_zero_and_is_not_accepted():
    judged = judge_answer("", GOLD)
    zero = ("citation_recall", "citation_f1", "key_point_recall", "number_f1")
    assert [judged.scores[name] for name in zero] == [0, 0, 0, 0]
    assert judged.scores["citation_precision"] is None
    assert not judged.accepted


def test_a_case_is_judged_against_its_own_answer():
    case = TestCase(
        **ENTRY, group="전세사기 상담", topic="보증금 반환", category="전세사기", difficulty="초급", trap=None,
        answer=RIGHT + " 10일 안에 하십시오.",
    )  # fmt: skip
    assert judge_answer(case.answer, case).accepted
    assert judge_answer(case.answer, case).numbers_wrong == ()
    assert judge_answer(case.answer, GOLD).numbers_wrong == ("10일",)


def test_an_article_that_the_asker_named_is_not_invented_by_the_answer():
    entry = Gold(**ENTRY | {"question": "민법 제2000조가 무엇인가요?", "numbers": []})
    judged = judge_answer("민법 제2000조는 없습니다. 주택임대차보호법 제3조를 보십시오.", entry)
    assert judged.cited.invented == set()
    assert judged.wrong_citations == ()
    assert judge_answer("민법 제2001조", entry).cited.invented == {("민법", "제2001조")}


@pytest.mark.parametrize(
    ("found", "required", "acceptable", "expected"),
    [
        ("ab", "ab", "", (1, 1, 1)),
        ("a", "ab", "", (1, 1 / 2, 2 / 3)),
        ("abc", "ab", "c", (1, 1, 1)),
        ("abd", "ab", "c", (2 / 3, 1, 4 / 5)),
        ("c", "ab", "c", (None, 0, 0)),
        ("", "ab", "c", (None, 0, 0)),
        ("d", "", "c", (0, None, None)),
        ("c", "", "c", (None, None, None)),
    ],
)
def test_precision_recall_and_f1_by_hand(found, required, acceptable, expected):
    assert overlap_scores(found, required, acceptable) == pytest.approx(expected)


def test_gold_without_key_points_is_judged_by_its_conclusion():
    judged = judge_answer(RIGHT, Gold(**ENTRY | {"key_points": [], "forbidden": []}))
    assert judged.scores["key_point_recall"] is None
    assert judged.scores["content_score"] > 0
