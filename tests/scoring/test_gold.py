import csv
import json
import unicodedata

import pytest

from civilqa.dataset.records import record_id
from civilqa.law.verdicts import judge_citations
from civilqa.program.errors import RecordError
from civilqa.scoring.gold import (
    Gold,
    judge_answer,
    overlap_scores,
    read_gold,
    read_test_cases,
    says,
    states,
)
from conftest import ROOT

QUESTION = "전입신고만 하면 오늘부터 보증금이 안전한가요?"
ENTRY = {
    "id": record_id(QUESTION),
    "question": QUESTION,
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


# --- key points ---


@pytest.mark.parametrize(
    ("text", "wording", "expected"),
    [
        ("임대인의 지위를 승계합니다", "임대인의 지위", True),
        ("임대인 지위를 승계합니다", "임대인의 지위", True),
        ("'임대인의  지위'가 넘어갑니다", "임대인의 지위", True),
        ("임대인과 그 지위", "임대인의 지위", False),
        ("이의를 제기하면", "이의 제기", True),
        ("순위가 뒤로 밀립니다", "순위가 뒤로 밀", True),
        ("언제든지 해지할 수 있습니다", "해지할 수 있", True),
        ("언제든지 해지할 수 없습니다", "해지할 수 있", False),
        ("송달 전에는 할 수 없습니다", "송달 전에도", False),
        ("다음 날부터가 아니라 당일부터입니다", "다음 날부터", False),
        ("임대인의 지위가 아니라 임차인의 지위", "임대인의 지위", False),
        ("전입신고뿐만 아니라 인도도 필요합니다", "전입신고", True),
        ("11년이 지나면", "1년", False),
        ("1년이 지나면", "1년", True),
        ("", "전입신고", False),
    ],
)
def test_key_point_wordings_by_hand(text, wording, expected):
    assert says(text, wording) is expected
    assert says(unicodedata.normalize("NFD", text), wording) is expected
    assert says(text, unicodedata.normalize("NFD", wording)) is expected


# --- forbidden statements ---


@pytest.mark.parametrize(
    ("text", "statement", "expected"),
    [
        ("전입신고 당일부터 대항력이 생긴다.", "전입신고 당일부터 대항력이 생긴다", True),
        ("네, 전입신고를 하면 당일부터 대항력이 생깁니다.", "전입신고를 하면 당일부터 대항력이 생긴다", True),
        ("전입신고 다음 날부터 대항력이 생깁니다.", "전입신고 당일부터 대항력이 생긴다", False),
        ("전입신고 당일부터 대항력이 생기는 것은 아닙니다.", "전입신고 당일부터 대항력이 생긴다", False),
        ("전입신고 당일부터 대항력이 생긴다는 말은 틀렸습니다.", "전입신고 당일부터 대항력이 생긴다", False),
        ("전입신고 당일부터 대항력이 생기지 않습니다.", "전입신고 당일부터 대항력이 생긴다", False),
        # 없으면 and 없어도, 있다 and 없다 make opposites of the same nouns.
        ("확정일자가 없어도 최우선변제를 받을 수 있다.", "확정일자가 없으면 최우선변제를 받을 수 없다", False),
        ("확정일자가 없으면 최우선변제를 받을 수 없습니다.", "확정일자가 없으면 최우선변제를 받을 수 없다", True),
        # In two sentences, or spread over a long one, it is not that statement.
        ("전입신고를 하십시오. 당일부터 대항력이 생긴다.", "전입신고 당일부터 대항력이 생긴다", False),
        ("유치권을 등기해야 효력이 있습니다.", "유치권을 등기해야 효력이 있다", True),
        ("유치권은 등기하지 않아도 효력이 있습니다.", "유치권을 등기해야 효력이 있다", False),
        ("보증금 5억원 이하여야 합니다.", "보증금 3억원 이하여야 한다", False),
    ],
)
def test_forbidden_statements_by_hand(text, statement, expected):
    assert states(text, statement) is expected
    assert states(unicodedata.normalize("NFD", text), statement) is expected


# --- citations and numbers ---


def test_citations_are_judged_apart():
    cited = judge_citations(
        "민법 제750조, 민법 제2000조, 민법 제436조, 주택임대차보호법 시행령 제10조, 민법 제750조(불법행위의 내용), "
        "민법 제103조(임의규정)"
    )
    assert cited.valid == {("민법", "제750조"), ("민법", "제103조")}
    assert cited.invented == {("민법", "제2000조")}
    assert cited.deleted == {("민법", "제436조")}
    assert cited.outside == {("주택임대차보호법 시행령", "제10조")}
    assert cited.mistitled == {("민법", "제103조")}


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


# --- whole answers ---


def test_a_right_answer_passes():
    judged = judge_answer(RIGHT, GOLD)
    assert judged.passed
    assert judged.reasons == ()
    assert judged.key_points_hit == (True, True, True, True)
    assert (judged.citation_precision, judged.citation_recall, judged.citation_f1) == (1, 1, 1)
    assert (judged.numbers_found, judged.numbers_missing, judged.numbers_wrong) == (("2년", "5푼"), (), ())
    assert judged.number_f1 == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            RIGHT.replace("주택임대차보호법 제3조 제1항", "민법 제103조"),
            "필수 조문을 인용하지 않음: 주택임대차보호법 제3조",
        ),
        (RIGHT + " 민법 제3000조도 있습니다.", "없는 조문을 인용함: 민법 제3000조"),
        (RIGHT + " 민법 제436조도 있습니다.", "삭제된 조문을 인용함: 민법 제436조"),
        (RIGHT + " 확정일자를 받아야 대항력이 생깁니다.", "틀린 설명이 들어 있음: 확정일자를 받아야 대항력이 생긴다"),
        (RIGHT.replace("다음 날부터", "그때부터").replace("임대인 지위", "자리"), "핵심 내용 4개 가운데 2개가 빠짐"),
        (RIGHT.replace("2년", "3년"), "숫자가 빠짐: 2년"),
    ],
)
def test_an_answer_that_does_not_pass_says_why(text, reason):
    judged = judge_answer(text, GOLD)
    assert not judged.passed
    (found,) = judged.reasons
    assert found.startswith(reason)


def test_one_key_point_in_four_is_forgiven():
    assert judge_answer(RIGHT.replace("다음 날부터", "그때부터"), GOLD).passed


def test_numbers_of_the_question_and_the_reference_answer_are_not_wrong():
    text = RIGHT + " 10일 안에 3개월분을 내십시오."
    assert judge_answer(text, GOLD).numbers_wrong == ("10일", "3개월")
    # 2 found and right, 4 found in all, 2 wanted: 2·2 / (4 + 2)
    assert judge_answer(text, GOLD).number_f1 == pytest.approx(4 / 6)
    assert judge_answer(text, GOLD, "10일 안에, 3개월 치").numbers_wrong == ()


def test_an_empty_answer_scores_zero_and_does_not_pass():
    judged = judge_answer("", GOLD)
    assert (judged.citation_recall, judged.citation_f1, judged.key_point_recall, judged.number_f1) == (0, 0, 0, 0)
    assert judged.citation_precision is None
    assert not judged.passed


# --- reading ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "q-000000000000"}, "the question was changed"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"required_citations": ["민법"]}, "'민법' is not one citation"),
        ({"required_citations": ["민법 제1조, 제2조"]}, "is not one citation"),
        ({"required_citations": ["주택임대차보호법 제3조의2"]}, "keep each in one list"),
        ({"required_citations": ["주임법 제3조", "주택임대차보호법 제3조 제1항"]}, "listed twice"),
        ({"numbers": ["많이"]}, "'많이' is not one number with a unit"),
        ({"key_points": [[]]}, "key_points.0"),
        ({"forbidden": [""]}, "forbidden.0"),
    ],
)
def test_a_wrong_entry_is_named_with_its_line(tmp_path, change, message):
    path = tmp_path / "gold.jsonl"
    path.write_text("\n".join(json.dumps(entry) for entry in (ENTRY, ENTRY | change)), encoding="utf-8")
    with pytest.raises(RecordError) as error:
        read_gold(path)
    assert f"{path}:2: " in str(error.value)
    assert message in str(error.value)


def test_a_test_case_needs_its_further_fields(tmp_path):
    path = tmp_path / "test_cases.jsonl"
    further = {"group": "전세사기 상담", "topic": "보증금 반환", "category": "전세사기", "difficulty": "초급"}
    further |= {"trap": None, "answer": RIGHT}
    path.write_text(json.dumps(ENTRY | further | {"id": "case-1"}), encoding="utf-8")
    (case,) = read_test_cases(path).values()
    assert judge_answer(case.answer, case).passed
    path.write_text(json.dumps(ENTRY), encoding="utf-8")
    with pytest.raises(RecordError, match="answer"):
        read_test_cases(path)


def dataset_answers() -> dict[str, str]:
    with (ROOT / "data/raw/civil_law_qa_dataset.csv").open(encoding="utf-8-sig", newline="") as file:
        return {record_id(row["question"]): row["answer"] for row in csv.DictReader(file)}


def test_the_dataset_s_own_answers_meet_their_gold():
    answers, gold = dataset_answers(), read_gold(ROOT / "data/raw/gold.jsonl")
    assert set(gold) == set(answers)
    for name, entry in gold.items():
        judged = judge_answer(answers[name], entry)
        assert judged.passed, (name, judged.reasons)
        assert all(judged.key_points_hit), name
        assert judged.wrong_citations == (), name


def test_no_answer_of_the_dataset_makes_a_forbidden_statement_of_any_question():
    answers, gold = dataset_answers(), read_gold(ROOT / "data/raw/gold.jsonl")
    statements = {statement for entry in gold.values() for statement in entry.forbidden}
    assert len(statements) > 100
    for statement in statements:
        assert states(f"그렇습니다. {statement}.", statement), statement
    for name, answer in answers.items():
        assert [statement for statement in statements if states(answer, statement)] == [], name
