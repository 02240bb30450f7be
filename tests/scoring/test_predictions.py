import pytest

from civilqa.dataset.records import Record
from civilqa.generation.answers import Answer
from civilqa.scoring.gold import Conclusion, Gold
from civilqa.scoring.plots import BITS, difference_rows, group_rows, plot_rows
from civilqa.scoring.predictions import SYSTEMS, describe_answer, make_predictions

RECORD = Record(
    id="q-1", question="질문입니다", answer="답은 민법 제750조입니다.", category="전세사기", difficulty="초급"
)
GOLD = Gold(
    id="q-1", question="질문입니다",
    conclusion=Conclusion(
        line="답", answer=None, says=["답은 민법입니다", "답은 법이다"], denies=["답이 아니다", "답은 없다"]
    ),
    required_citations=["민법 제750조"], acceptable_citations=[],
    key_points=[["답은"]], forbidden=["답이 없다"], numbers=[],
)  # fmt: skip


def answers(text, stopped=True):
    return [Answer(text, 5, stopped, 32.0)]


def predictions(golds=None, **texts):
    given = {system: answers(text) for system, text in texts.items()}
    return make_predictions(
        [RECORD], given, golds or {}, "법률 지식 없음", {"few_shot": [{"examples": 2}]}, [(RECORD, 1.0, True)]
    )


def test_predictions_hold_everything_of_every_answer():
    (line,) = predictions({"q-1": GOLD}, base="가", few_shot="나", adapter=RECORD.answer)
    assert line["question"] == "질문입니다"
    assert line["reference"] == RECORD.answer
    assert line["notice"] == "법률 지식 없음"
    assert line["gold"]["required_citations"] == ["민법 제750조"]
    assert [line[system]["answer"] for system in ("base", "few_shot", "adapter")] == ["가", "나", RECORD.answer]
    assert line["few_shot"]["examples"] == 2
    assert line["adapter"]["judgement"]["accepted"] is True
    assert line["adapter"]["scores"]["bits_per_character"] == 32 / len(RECORD.answer)
    (citation,) = line["adapter"]["citations"]
    assert RECORD.answer[citation["start"] : citation["end"]] == "민법 제750조"
    assert citation["kind"] == "valid"
    assert line["base"]["judgement"]["missing_citations"] == ("민법 제750조",)


def test_a_copied_answer_has_no_score_of_a_model():
    (line,) = predictions(base="가", adapter="나")
    assert line["nearest"]["copied_from"] == "q-1"
    assert line["nearest"]["similarity"] == 1
    assert line["nearest"]["scores"]["copied_near_duplicate"] == 1
    assert line["adapter"]["scores"]["copied_near_duplicate"] is None
    assert line["nearest"]["scores"]["bits_per_character"] is None
    assert line["nearest"]["scores"]["stop_rate"] is None
    assert line["nearest"]["scores"]["chrf"] == pytest.approx(100)


def test_without_gold_there_is_no_judgement():
    assert "judgement" not in describe_answer("답", RECORD, None, answers("답")[0])
    assert predictions(base="가", adapter="나")[0]["gold"] is None


# --- plots of them ---


def test_plots_give_every_mean_with_its_interval_and_number():
    lines = predictions({"q-1": GOLD}, base="가", few_shot="나", adapter=RECORD.answer)
    rows = plot_rows({"test": lines, "train": lines}, " (점검용)")
    systems = {*SYSTEMS["test"]} - {"retrieved", "retrieval", "adapter_retrieval"}
    assert {row["series"] for row in rows} == {f"{system} (점검용)" for system in systems}
    best = [
        row for row in rows if row["series"].startswith("adapter") and (row["group"], row["score"]) == ("test", "chrf")
    ]
    assert [(row["percent"], row["low"], row["high"], row["n"]) for row in best] == [(100, 100, 100, 1)]
    groups = group_rows(lines, "")
    assert {row["group"] for row in groups} == {"전세사기 (n=1)", "초급 (n=1)"}


def test_the_plot_of_bits_has_every_system_that_read_the_reference():
    lines = predictions(base="가", adapter="나")
    for line, bits in zip(lines, (4.0,), strict=True):
        line["base"]["scores"]["bits_per_character"], line["adapter"]["scores"]["bits_per_character"] = 5.125, bits
    rows = plot_rows({"test": lines, "train": []}, "", BITS)
    assert [(row["series"], row["percent"]) for row in rows] == [("base", 5.12), ("adapter", 4)]


def test_a_question_s_gain_is_above_0_where_the_adapter_is_better_and_holds_none_of_its_words():
    first, second = (predictions(base="가", adapter=answer)[0] for answer in ("나", RECORD.answer))
    second["id"] = "q-2"
    for line, bits in ((first, 5.5), (second, 4.5)):
        line["base"]["scores"]["bits_per_character"], line["adapter"]["scores"]["bits_per_character"] = 5.0, bits
    rows = difference_rows([first, second])
    bits = [row for row in rows if row["score"] == "bits a character"]
    assert bits == [
        {"question": "q-2", "score": "bits a character", "gain": 0.5},
        {"question": first["id"], "score": "bits a character", "gain": -0.5},
    ]
    (chrf,) = [row["gain"] for row in rows if row["question"] == "q-2" and row["score"] == "chrF++"]
    assert chrf > 50
    assert RECORD.question[:8] not in str(rows)
