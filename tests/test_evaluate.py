import numpy as np
import pytest

from civilqa.answers import Answer
from evaluate import EvaluateParams, compare, group_scores, make_predictions, mean_scores, score_answer, verdict

PARAMS = EvaluateParams(
    batch_size=1, max_new_tokens=1, max_train_records=1, regenerate=False, seed=1, bootstrap_resamples=2000
)


def line(base, adapter, category="전세사기", difficulty="초급"):
    return {
        "category": category,
        "difficulty": difficulty,
        "base": {"scores": {"chrf": base, "citation_f1": None}},
        "adapter": {"scores": {"chrf": adapter, "citation_f1": None}},
    }


def test_scores_of_an_answer_by_hand():
    scores = score_answer(Answer("민법 제750조", 5, True, 80.0), "민법 제750조")
    assert scores == pytest.approx(
        {"chrf": 100, "rouge_l": 1, "citation_f1": 1, "bits_per_character": 80 / 8, "stop_rate": 1, "recalled": 1}
    )


def test_an_answer_that_is_not_the_training_answer_is_not_recalled():
    assert score_answer(Answer("다른 말", 5, False, 80.0), "민법 제750조")["recalled"] == 0


def test_means_leave_out_what_does_not_apply():
    assert mean_scores([line(10, 20), line(20, 40)], ["chrf", "citation_f1"]) == {
        "n": 2,
        "base": {"chrf": 15},
        "adapter": {"chrf": 30},
    }


def test_groups_name_their_number_of_questions():
    groups = group_scores([line(1, 2, "가"), line(3, 4, "나"), line(5, 6, "나")], "category", ["chrf"])
    assert {name: group["n"] for name, group in groups.items()} == {"가": 1, "나": 2}
    assert groups["나"]["adapter"]["chrf"] == 5


def test_the_difference_is_paired():
    """The same gain on easy and hard questions is certain, however far apart the questions are."""
    result = compare([line(value, value + 5) for value in (0, 20, 40, 60, 80)], "chrf", PARAMS)
    assert (result["mean"], result["low"], result["high"]) == (5, 5, 5)
    assert result["verdict"] == "adapter better"


def test_the_interval_holds_the_mean_and_is_the_same_every_time():
    lines = [line(0, gain) for gain in (-3, 1, 2, 8, 5, -1)]
    first, second = (compare(lines, "chrf", PARAMS) for _ in range(2))
    assert first == second
    assert first["low"] < first["mean"] < first["high"]


def test_the_interval_covers_the_true_difference_about_95_times_in_100():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        result = compare([line(0, float(gain)) for gain in draw.normal(1, 3, 40)], "chrf", PARAMS)
        covered += result["low"] <= 1 <= result["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_a_score_that_applies_to_no_question_has_no_difference():
    assert compare([line(1, 2)], "citation_f1", PARAMS) is None


@pytest.mark.parametrize(
    ("name", "low", "high", "expected"),
    [
        ("chrf", 1, 2, "adapter better"),
        ("chrf", -2, -1, "adapter worse"),
        ("chrf", -1, 1, "no significant difference at this n"),
        ("chrf", 0, 0, "no significant difference at this n"),
        ("bits_per_character", -2, -1, "adapter better"),
        ("bits_per_character", 1, 2, "adapter worse"),
    ],
)
def test_the_verdict_knows_which_way_is_better(name, low, high, expected):
    assert verdict(name, low, high) == expected


def test_predictions_hold_both_answers_and_the_reference():
    rows = [
        {
            "id": "q-1",
            "category": "전세사기",
            "difficulty": "초급",
            "messages": [{"role": "system", "content": "가"}, {"role": "user", "content": "질문"}],
        }
    ]
    answers = {"base": [Answer("가", 1, False, 9.0)], "adapter": [Answer("답", 1, True, 1.0)]}
    (prediction,) = make_predictions(rows, answers, ["답"], "법률 지식 없음")
    assert prediction["question"] == "질문"
    assert [prediction[system]["answer"] for system in ("base", "adapter")] == ["가", "답"]
    assert prediction["reference"] == "답"
    assert prediction["notice"] == "법률 지식 없음"
