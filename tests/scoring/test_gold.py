import json

import pytest

from civilqa.dataset.records import record_id
from civilqa.program.errors import RecordError
from civilqa.scoring.gold import read_gold, read_test_cases

QUESTION = "전입신고만 하면 오늘부터 보증금이 안전한가요?"
ENTRY = {
    "id": record_id(QUESTION),
    "question": QUESTION,
    "conclusion": {"line": "다음 날부터", "answer": "no", "says": ["가능하다", "된다"], "denies": ["안 된다", "없다"]},
    "required_citations": ["주택임대차보호법 제3조"],
    "acceptable_citations": ["주택임대차보호법 제3조의2"],
    "key_points": [["다음 날부터", "다음 날 오전 0시"]],
    "forbidden": ["전입신고 당일부터 대항력이 생긴다"],
    "numbers": ["2년", "5푼"],
}


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
        ({"conclusion": ENTRY["conclusion"] | {"answer": "maybe"}}, "conclusion.answer"),
        ({"conclusion": ENTRY["conclusion"] | {"denies": ["없다"]}}, "conclusion.denies"),
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
    further |= {"trap": None, "answer": "답"}
    path.write_text(json.dumps(ENTRY | further | {"id": "case-1"}), encoding="utf-8")
    (case,) = read_test_cases(path).values()
    assert (case.id, case.answer, case.group) == ("case-1", "답", "전세사기 상담")
    path.write_text(json.dumps(ENTRY), encoding="utf-8")
    with pytest.raises(RecordError, match="answer"):
        read_test_cases(path)
