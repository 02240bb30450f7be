import csv
import json

import pytest
from review_files import ANSWER, QUESTION, chat_review, gold_form, review

from civilqa.dataset.records import Record, record_id
from civilqa.review.exports import (
    better_answer,
    correct_records,
    make_gold,
    make_preferences,
    make_records,
    report_marks,
    write_dataset,
)
from civilqa.review.marks import latest_corrections
from civilqa.scoring.gold import Gold


def record(number, answer="기준"):
    question = f"{number}번 질문"
    return Record(id=record_id(question), question=question, answer=answer, category="전세사기", difficulty="초급")


def ask(question, category):
    return [{"role": "system", "content": category}, {"role": "user", "content": question}]


def test_a_right_answer_takes_the_place_of_the_record_s():
    found, changed, disputed = correct_records(
        [record(0), record(1)], latest_corrections([review(1, correction=" 바른 답 ")])
    )
    assert [one.answer for one in found] == ["기준", "바른 답"]
    assert [one.id for one in found] == [record(0).id, record(1).id]
    assert changed == [record(1).id]
    assert disputed == []


def test_where_reviewers_differ_the_record_stays_and_is_named():
    reviews = [review(0, "김", correction="가"), review(0, "이", correction="나"), review(1, "이", correction="다")]
    found, changed, disputed = correct_records([record(0), record(1)], latest_corrections(reviews))
    assert [one.answer for one in found] == ["기준", "다"]
    assert changed == [record(1).id]
    assert disputed == [record(0).id]


def test_a_question_of_the_chat_becomes_a_record_once_it_has_one_right_answer():
    reviews = [
        chat_review(1, correction=" 바른 답 "),
        chat_review(2, adapter=["law"]),  # nobody wrote the right one
        chat_review(3, "김", correction="가"),
        chat_review(3, "이", correction="나"),
        chat_review(0, correction="새 답"),  # in the data already, where it is mended
        review(4, correction="평가의 답"),  # of an evaluation, whose record is in the data no longer
    ]
    corrections = latest_corrections(reviews)
    (made,), disputed = make_records([record(0)], reviews, corrections)
    assert disputed == [record(3).id]
    assert (made.id, made.question, made.answer, made.category) == (record(1).id, "1번 질문", "바른 답", "전세사기")
    assert correct_records([record(0)], corrections)[1] == [record(0).id]


def test_one_answer_alone_has_no_better_one_and_loses_to_the_right_one():
    made, opposite = make_preferences([chat_review(0, adapter=["law"], correction="바른 답"), chat_review(1)], ask)
    assert [(one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in made] == [("바른 답", "0 튜닝")]
    assert opposite == 0
    assert better_answer(chat_review(0, adapter="good")) is None


def test_the_dataset_holds_every_text_as_it_is(tmp_path):
    answers = ["- 첫째\n- 둘째", '"따옴표", 쉼표', "=1+1", "민법 제750조"]
    write_dataset(tmp_path / "x.csv", [record(number, answer) for number, answer in enumerate(answers)])
    with (tmp_path / "x.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["answer"] for row in rows] == answers
    assert list(rows[0]) == ["question", "answer", "category", "difficulty"]


@pytest.mark.parametrize(
    ("base", "adapter", "better", "wanted"),
    [
        ("good", "usable", None, "base"),
        (["law"], "usable", None, "adapter"),
        (["law"], ["form"], None, None),
        (["law"], ["form"], "base", "base"),
        ("good", ["law"], "adapter", "adapter"),
        ("good", ["law"], "same", None),
        ("good", None, None, None),
    ],
)
def test_what_is_better_is_what_was_chosen_and_else_follows_from_the_verdicts(base, adapter, better, wanted):
    assert better_answer(review(0, "김", base, adapter, better=better)) == wanted


def test_preferences_are_pairs_of_answers_and_right_answers_over_those_that_are_not_good():
    reviews = [review(0, "김", "usable", ["law"], correction="바른 답"), review(0, "이", "usable", ["law"])]
    made, opposite = make_preferences(reviews, ask)
    pairs = [(one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in made]
    assert pairs == [("0 베이스", "0 튜닝"), ("바른 답", "0 베이스"), ("바른 답", "0 튜닝")]
    assert made[0]["prompt"] == ask("0번 질문", "전세사기")
    assert all(one["chosen"][0]["role"] == one["rejected"][0]["role"] == "assistant" for one in made)
    assert opposite == 0


def test_opposite_and_empty_preferences_are_left_out():
    reviews = [review(0, "김", "good", ["law"]), review(0, "이", ["law"], "good")]
    assert make_preferences(reviews, ask) == ([], 1)
    assert make_preferences([review(0, "김", "good", ["law"], answers={"base": "답", "adapter": " "})], ask) == ([], 0)
    assert make_preferences([review(0, "김", "good", ["law"], answers={"base": "답", "adapter": "답 "})], ask) == (
        [],
        0,
    )


def test_filled_in_forms_become_gold_and_the_rest_drafts():
    right = Record(id=record_id(QUESTION), question=QUESTION, answer=ANSWER, category="", difficulty="")
    annotated, plain = record(1), record(2, "민법 제750조에 따라 3개월 안에 하십시오.")
    filled = review(0, id=right.id, question=QUESTION, gold=gold_form())
    whole, drafts = make_gold([right, annotated, plain], [annotated.id], [filled])
    assert [Gold.model_validate(line).id for line in whole] == [right.id]
    (draft,) = drafts
    assert draft["id"] == plain.id
    assert draft["required_citations"] == ["민법 제750조"]
    assert draft["numbers"] == ["3개월"]
    assert "결론 한 줄: 비어 있습니다" in draft["todo"]
    assert Gold.model_validate(json.loads(json.dumps(whole[0]))).numbers == ["3년"]


def test_the_report_counts_answers_that_people_agree_on():
    reviews = [review(0, "김", "good", ["law", "number"], note="메모"), review(0, "이", ["law"], ["form"])]
    found = report_marks(reviews)
    assert found["usable"] == {"base": (0, 0), "adapter": (0, 1)}
    assert found["disputed"] == 1
    assert found["reviewers"] == 2
    shown = found["questions"][reviews[0].id]
    assert shown["verdicts"]["adapter"] == [("김", "wrong", "틀림", "법리, 숫자·기간"), ("이", "wrong", "틀림", "형식")]
    assert shown["texts"][0] == ("김", "", "메모")
    assert report_marks([review(0)]) is None
