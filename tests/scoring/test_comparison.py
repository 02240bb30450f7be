import numpy as np
import pytest

from civilqa.scoring.comparison import (
    Resampling,
    compare,
    compare_all,
    group_scores,
    mean_interval,
    mean_scores,
    verdict,
)

RESAMPLING = Resampling(resamples=2000, seed=1)


def line(base, adapter, category="전세사기", **others):
    scores = {"base": base, "adapter": adapter} | others
    return {"category": category} | {
        system: {"scores": {"chrf": value, "citation_f1": None}} for system, value in scores.items()
    }


def test_means_leave_out_what_does_not_apply():
    assert mean_scores([line(10, 20), line(20, 40)], ["base", "adapter"]) == {
        "n": 2,
        "base": {"chrf": 15},
        "adapter": {"chrf": 30},
    }


def test_a_mean_of_some_answers_names_their_number():
    assert mean_scores([line(10, None), line(20, 40)], ["base", "adapter"]) == {
        "n": 2,
        "base": {"chrf": 15},
        "adapter": {"chrf": 40},
        "n_scored": {"adapter": {"chrf": 1}},
    }


def test_groups_name_their_number_of_questions():
    groups = group_scores(
        [line(1, 2, "가"), line(3, 4, "나"), line(5, 6, "나"), line(0, 0, "")], "category", ["adapter"]
    )
    assert {name: group["n"] for name, group in groups.items()} == {"(none)": 1, "가": 1, "나": 2}
    assert groups["나"]["adapter"]["chrf"] == 5


def test_the_difference_is_paired():
    """The same gain on easy and hard questions is certain, however far apart the questions are."""
    result = compare([line(value, value + 5) for value in (0, 20, 40, 60, 80)], "adapter", "base", "chrf", RESAMPLING)
    assert (result["mean"], result["low"], result["high"]) == (5, 5, 5)
    assert result["verdict"] == "better"


def test_the_interval_holds_the_mean_and_is_the_same_every_time():
    lines = [line(0, gain) for gain in (-3, 1, 2, 8, 5, -1)]
    first, second = (compare(lines, "adapter", "base", "chrf", RESAMPLING) for _ in range(2))
    assert first == second
    assert first["low"] < first["mean"] < first["high"]


def test_the_interval_covers_the_true_difference_about_95_times_in_100():
    draw = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        lines = [line(0, float(gain)) for gain in draw.normal(1, 3, 40)]
        result = compare(lines, "adapter", "base", "chrf", RESAMPLING)
        covered += result["low"] <= 1 <= result["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_only_questions_with_both_scores_count():
    result = compare([line(1, 2), line(None, 9), line(9, None)], "adapter", "base", "chrf", RESAMPLING)
    assert (result["n"], result["mean"]) == (1, 1)
    assert compare([line(1, 2)], "adapter", "base", "citation_f1", RESAMPLING) is None


def test_no_difference_at_all_is_said_as_such():
    assert compare([line(1, 1), line(2, 2)], "adapter", "base", "chrf", RESAMPLING)["verdict"] == "equal"


def test_every_other_system_is_compared():
    compared = compare_all([line(1, 5, nearest=9)], "adapter", ("base", "nearest"), RESAMPLING)
    assert {other: found["chrf"]["mean"] for other, found in compared.items()} == {"base": 4, "nearest": -4}


def test_a_constant_has_an_interval_without_width():
    assert mean_interval([1.0, 1.0, 1.0], RESAMPLING) == (1, 1)
    assert mean_interval([0.5], RESAMPLING) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "low", "high", "expected"),
    [
        ("chrf", 1, 2, "better"),
        ("chrf", -2, -1, "worse"),
        ("chrf", -1, 1, "no significant difference at this n"),
        ("chrf", 0, 1, "no significant difference at this n"),
        ("bits_per_character", -2, -1, "better"),
        ("bits_per_character", 1, 2, "worse"),
        ("invented_citation_rate", 0.1, 0.5, "worse"),
    ],
)
def test_the_verdict_knows_which_way_is_better(name, low, high, expected):
    assert verdict(name, low, high) == expected
