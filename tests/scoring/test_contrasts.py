import json
from pathlib import Path

import pytest

from civilqa.base_model.prompts import FormatParams, Prompter
from civilqa.dataset.records import Record, record_id
from civilqa.program.errors import RecordError
from civilqa.scoring.comparison import Permutations
from civilqa.scoring.contrasts import (
    Contrast,
    PairedQuestions,
    compare_contrasts,
    find_pairs,
    rate_pairs,
    read_contrasts,
)

KOREAN_PLAIN = Path("models/templates/korean_plain.jinja")
PAIR = {
    "id": "q-1",
    "kind": "number",
    "right": "해지를 알린 날부터 3개월이 지나면 끝납니다.",
    "wrong": "해지를 알린 날부터 6개월이 지나면 끝납니다.",
    "source": "주택임대차보호법 제6조의2 제2항",
    "quote": "그 통지를 받은 날부터 3개월이 지나면",
}
OTHER = {**PAIR, "kind": "parties", "right": "임차인이 알립니다.", "wrong": "임대인이 알립니다."}


def write(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_pairs_are_read_by_question_and_need_not_be_there(tmp_path):
    contrasts = read_contrasts(write(tmp_path / "contrasts.jsonl", PAIR, {**PAIR, "id": "q-2"}, OTHER))
    assert {name: [one.kind for one in found] for name, found in contrasts.items()} == {
        "q-1": ["number", "parties"],
        "q-2": ["number"],
    }
    assert read_contrasts(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "kind: Input should be 'conclusion'"),
        ({"right": ""}, "right: String should have at least 1 character"),
        ({"wrong": PAIR["right"] + " "}, "right and wrong are the same statement"),
        ({"note": "x"}, "note: Extra inputs are not permitted"),
        ({}, "the same pair again; keep one"),
    ],
)
def test_a_wrong_pair_is_named_with_its_line(tmp_path, change, message):
    path = write(tmp_path / "contrasts.jsonl", PAIR, {**PAIR, **change})
    with pytest.raises(RecordError) as error:
        read_contrasts(path)
    assert f"{path}:2: " in str(error.value)
    assert message in str(error.value)


def contrast(right, wrong):
    return Contrast(**{**PAIR, "right": right, "wrong": wrong})


def test_the_statement_counts_that_the_question_makes_likelier():
    pairs = [contrast("가" * 10, "나" * 10), contrast("가" * 10, "나" * 20)]
    # First pair: right 20 bits, wrong 30. Second: right 20 (2 a character), wrong 30 (1.5 a character).
    found = rate_pairs(pairs, [5, 5, 5, 5], prior=[20, 40, 60, 30], bits=[20, 30, 20, 30], alone=[40, 20, 60, 30])
    assert found["preferred"] == [0.0, 1.0]  # 0 against 10 bits gained, 40 against 0
    assert found["scores"] == {
        "contrast_accuracy": 0.5,
        "contrast_per_character": 0.5,
        "contrast_per_token": 1.0,
        "contrast_text_only": 0.0,
    }
    even = rate_pairs(pairs[:1], [5, 5], prior=[9, 9], bits=[20, 20], alone=None)
    assert even["scores"]["contrast_text_only"] is None
    assert {value for value in even["scores"].values() if value is not None} == {0.5}


def record(name, **fields):
    values = {"question": f"{name}?", "answer": "답", "category": "", "difficulty": ""}
    return Record(**{"id": name, **values, **fields})


def test_questions_count_the_same_however_many_pairs_they_have_and_parts_stand_apart():
    contrasts = {name: [contrast("가가", "나나")] * n for name, n in {"q-1": 1, "q-2": 3, "q-3": 1}.items()}
    rows = [{"statement_ids": [[1], [2]] * len(found)} for found in contrasts.values()]
    questions = PairedQuestions(contrasts, [record("q-1"), record("q-2")], [record("q-3")], rows, rows)
    right, wrong, even = [1.0, 2.0], [2.0, 1.0], [1.0, 1.0]
    unasked = [even, even * 3, even]
    base = [right, wrong * 3, wrong, *unasked]
    adapter = [right, right * 3, right, right, *unasked[1:]]
    lines = questions.lines({"base": base, "few_shot": base[:2], "adapter": adapter})
    assert [(line["part"], "few_shot" in line) for line in lines] == [
        ("unseen", True),
        ("unseen", True),
        ("trained", False),
    ]
    found = compare_contrasts(lines, Permutations(100, 1))
    assert (found["unseen"]["n"], found["unseen"]["pairs"]) == (2, 4)
    assert found["unseen"]["base"]["contrast_accuracy"] == 0.5  # of questions; of pairs it would be 0.25
    assert found["unseen"]["adapter"]["contrast_accuracy"] == 1.0
    assert found["unseen"]["adapter"]["contrast_text_only"] == 0.75
    assert "contrast_text_only" not in found["unseen"]["few_shot"]
    assert found["trained"]["base"]["contrast_accuracy"] == 0.0
    assert found["difference"]["base"]["contrast_accuracy"]["mean"] == 0.5
    assert found["by_kind"]["number"] == {"pairs": 4, "base": 0.25, "few_shot": 0.25, "adapter": 1.0}
    assert found["by_kind"]["article"] == {"pairs": 0}


def test_each_question_is_asked_as_in_training_and_without_itself(tokenizer, monkeypatch):
    case = record("case-1", question="전입신고만 하면 됩니까?")
    monkeypatch.setattr(
        "civilqa.scoring.contrasts.read_test_cases", lambda: {"case-1": case, "known": record("known", question="a?")}
    )
    prompter = Prompter(tokenizer, KOREAN_PLAIN.read_text(encoding="utf-8"))
    params = FormatParams(style="conversational", statutes_in_prompt=0, seed=1, system_prompts={"default": "상담"})
    contrasts = {name: [Contrast(**{**PAIR, "id": name})] for name in ("q-1", "case-1", "known", "q-3")}
    train = [record("q-3"), record(record_id("a?"))]
    found = find_pairs(contrasts, [record("q-1"), record("q-2")], train, params, prompter)
    assert [one.id for one in found.unseen] == ["q-1", "case-1"]  # q-2 has no pairs, the other case was trained on
    assert [one.id for one in found.trained] == ["q-3"]
    fewer = find_pairs(contrasts, [record("q-1")], train, params, prompter, further_cases=False, max_train_records=0)
    assert ([one.id for one in fewer.unseen], fewer.trained) == (["q-1"], [])
    records = [*found.unseen, *found.trained]
    for rows, asked in ((found.rows, True), (found.unasked, False)):
        for one, row in zip(records, rows, strict=True):
            messages = prompter.messages(one.question if asked else "", "상담")
            assert row["prompt_ids"] == prompter.encode([prompter.render(messages)[0]])[0]
            right, wrong = (tokenizer.decode(ids) for ids in row["statement_ids"])
            assert (right.strip(), wrong.strip()) == (PAIR["right"], PAIR["wrong"])
