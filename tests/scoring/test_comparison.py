from itertools import product

import numpy as np
import pytest
from scipy import stats

from civilqa.scoring.comparison import (
    AT_FLOOR,
    Permutations,
    add_verdicts,
    compare,
    compare_all,
    group_scores,
    mean_interval,
    mean_scores,
    system_interval,
)

PERMUTATIONS = Permutations(number=2000, seed=1)


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


def test_near_duplicates_count_as_one_question_in_a_mean_as_in_its_interval():
    alike = [{**line(0, 1), "id": index, "group": 0} for index in range(12)]
    lines = [*alike, *({**line(0, 0), "id": index} for index in range(12, 32))]
    means = mean_scores(lines, ["adapter"])
    name = next(name for name, value in means["adapter"].items() if value)
    low, high = system_interval(lines, "adapter", name)
    assert means["adapter"][name] == pytest.approx(1 / 21)
    assert low <= means["adapter"][name] <= high


def test_groups_name_their_number_of_questions():
    groups = group_scores(
        [line(1, 2, "가"), line(3, 4, "나"), line(5, 6, "나"), line(0, 0, "")], "category", ["adapter"]
    )
    assert {name: group["n"] for name, group in groups.items()} == {"(none)": 1, "가": 1, "나": 2}
    assert groups["나"]["adapter"]["chrf"] == 5


def test_the_difference_is_paired():
    """The same gain on easy and hard questions is certain, however far apart the questions are."""
    result = compare([line(value, value + 5) for value in (0, 20, 40, 60, 80)], "adapter", "base", "chrf", PERMUTATIONS)
    assert (result["mean"], result["low"], result["high"]) == (5, 5, 5)
    assert result["p"] == 2 / 2**5  # all signs equal: two of the 32 ways to choose them


def test_p_values_are_those_of_all_signs_and_of_mcnemar():
    gains = (-3, 1, 2, 8, 5, -1, 0)
    result = compare([line(0, gain) for gain in gains], "adapter", "base", "chrf", PERMUTATIONS)
    sums = [abs(np.dot(signs, gains)) for signs in product((1, -1), repeat=7)]
    assert result["p"] == pytest.approx(sum(total >= 12 for total in sums) / len(sums))
    # Nine questions won, one lost, twenty the same: of ten that differ, as few as one or as many as nine.
    won = [(0, 1)] * 9 + [(1, 0)] + [(0, 0)] * 10 + [(1, 1)] * 10
    lines = [
        {each: {"scores": {"stop_rate": x}} for each, x in zip(("base", "adapter"), pair, strict=True)} for pair in won
    ]
    found = compare(lines, "adapter", "base", "stop_rate", PERMUTATIONS)
    assert found["p"] == pytest.approx(stats.binomtest(1, 10).pvalue)


def test_the_comparison_is_the_same_every_time():
    draw = np.random.default_rng(5)
    lines = [line(0, float(gain)) for gain in draw.normal(0.3, 1, 30)]  # more ways than are gone through
    first, second = (compare(lines, "adapter", "base", "chrf", PERMUTATIONS) for _ in range(2))
    assert first == second
    assert first["low"] < first["mean"] < first["high"]


def test_near_duplicates_count_as_one_question():
    gains = [2.0, 4.0, 3.0, 3.0]
    apart = [line(0, gain) for gain in gains]
    joined = [{**one, "group": index if index > 1 else 0} for index, one in enumerate(apart)]
    assert compare(apart, "adapter", "base", "chrf", PERMUTATIONS)["n"] == 4
    found = compare(joined, "adapter", "base", "chrf", PERMUTATIONS)
    assert (found["n"], found["low"], found["high"]) == (3, 3, 3)
    three_of_each = [{**line(0, 1), "id": index, "group": index // 3} for index in range(12)]
    for one in three_of_each:
        one["adapter"]["scores"]["ends_cleanly"] = 1.0
    assert system_interval(three_of_each, "adapter", "ends_cleanly") == mean_interval([1.0] * 4, 1)


def test_what_so_many_questions_could_have_shown():
    """By simulation: with a true difference of `detectable` four of five tests find it."""
    draw = np.random.default_rng(2)
    lines = [line(0, float(gain)) for gain in draw.normal(0, 1, 24)]
    detectable = compare(lines, "adapter", "base", "chrf", PERMUTATIONS)["detectable"]
    spread = np.std([one["adapter"]["scores"]["chrf"] for one in lines], ddof=1)
    found = [stats.ttest_1samp(draw.normal(detectable, spread, 24), 0).pvalue < 0.05 for _ in range(2000)]
    assert 0.76 <= np.mean(found) <= 0.84
    for one in lines:
        for system in ("base", "adapter"):
            one[system]["scores"]["contrast_accuracy"] = one[system]["scores"]["chrf"]
    knows = compare(lines, "adapter", "base", "contrast_accuracy", PERMUTATIONS)
    found = [stats.ttest_1samp(draw.normal(knows["detectable"], spread, 24), 0).pvalue < 0.05 / 3 for _ in range(2000)]
    assert 0.76 <= np.mean(found) <= 0.84, "a primary score must get over the first of Holm's levels"


def test_only_questions_with_both_scores_count():
    result = compare([line(1, 2), line(None, 9), line(9, None)], "adapter", "base", "chrf", PERMUTATIONS)
    assert (result["n"], result["mean"], result["p"], result["detectable"]) == (1, 1, 1, None)
    assert compare([line(1, 2)], "adapter", "base", "citation_f1", PERMUTATIONS) is None


def test_an_interval_ends_where_a_difference_can():
    lines = [{"base": {"scores": {"stop_rate": 0}}, "adapter": {"scores": {"stop_rate": x}}} for x in (1, 1, 1, 0)]
    found = compare(lines, "adapter", "base", "stop_rate", PERMUTATIONS)
    assert (found["low"] < found["mean"], found["high"]) == (True, 1)


def shares(pairs):
    return [
        {each: {"scores": {"ends_cleanly": value}} for each, value in zip(("base", "adapter"), pair, strict=True)}
        for pair in pairs
    ]


@pytest.mark.parametrize(
    ("pairs", "low", "high"),
    [
        ([(0, 1)] * 36, 0.84, 1),  # all of one, none of the other: 36 questions do not make it certain
        ([(0, 1)] * 3, -0.51, 1),  # p is 0.25
        ([(0, 0)] * 12, -0.25, 0.25),
        ([(0, 1)] * 9 + [(1, 0)] + [(0, 0)] * 10 + [(1, 1)] * 10, 0.05, 0.45),
    ],
)
def test_a_difference_of_shares_is_never_certain(pairs, low, high):
    """Bonett and Price's interval, whose quantile is the normal one: with Student's it is a little wider."""
    found = compare(shares(pairs), "adapter", "base", "ends_cleanly", PERMUTATIONS)
    n = len(pairs) + 2
    won, lost = ((sum(pair == one for pair in pairs) + 1) / n for one in ((0, 1), (1, 0)))
    half = stats.norm.ppf(0.975) * np.sqrt((won + lost - (won - lost) ** 2) / n)
    assert found["low"] <= won - lost - half
    assert found["high"] >= min(won - lost + half, 1)
    assert (found["low"], found["high"]) == (pytest.approx(low, abs=0.08), pytest.approx(high, abs=0.08))
    assert found["low"] < found["high"]


def test_near_duplicates_with_other_answers_leave_shares_what_they_are():
    lines = [{**one, "group": min(index, 4)} for index, one in enumerate(shares([(0, 1)] * 5 + [(0, 0)]))]
    found = compare(lines, "adapter", "base", "ends_cleanly", PERMUTATIONS)
    apart = compare(shares([(0, 1)] * 5), "adapter", "base", "ends_cleanly", PERMUTATIONS)
    assert (found["n"], apart["n"]) == (5, 5)
    assert found["high"] - found["low"] > 0.5


def test_every_other_system_is_compared():
    compared = compare_all([line(1, 5, nearest=9)], "adapter", ("base", "nearest"), PERMUTATIONS)
    assert {other: found["chrf"]["mean"] for other, found in compared.items()} == {"base": 4, "nearest": -4}


def test_shares_have_exact_intervals_and_means_students():
    exact = stats.binomtest(1, 12).proportion_ci(method="exact")
    assert mean_interval([1.0] + [0.0] * 11, best=1.0) == (exact.low, exact.high)
    assert mean_interval([0.0] * 12, best=1.0)[1] == pytest.approx(0.265, abs=1e-3)  # none of twelve is not never
    found = stats.ttest_1samp([1, 2, 4, 8], 0).confidence_interval(0.95)
    assert mean_interval([1, 2, 4, 8]) == pytest.approx((found.low, found.high))
    assert mean_interval([1, 2, 4, 8], best=100.0)[0] == 0
    assert mean_interval([0.5], best=1.0) == (0.5, 0.5)


def differences(**found):
    return {name: {"mean": mean, "p": p, **more} for name, (mean, p, more) in found.items()}


def verdicts(found):
    add_verdicts(found)
    return {name: (difference.get("p_holm"), difference.get("verdict")) for name, difference in found.items()}


def test_verdicts_allow_for_the_number_of_primary_scores_and_are_given_to_no_other():
    found = differences(
        contrast_accuracy=(0.1, 0.01, {}),
        reference_citation_f1=(0.2, 0.03, {}),
        ends_cleanly=(-0.5, 0.02, {}),
        chrf=(9.0, 0.0001, {}),
    )
    assert verdicts(found) == {
        "contrast_accuracy": (0.03, "better"),
        "ends_cleanly": (0.04, "worse"),
        "reference_citation_f1": (0.04, "better"),  # no smaller than the one before it
        "chrf": (None, None),
    }


def test_no_difference_is_told_from_having_nothing_to_show_it():
    found = differences(contrast_accuracy=(0.1, 0.2, {}), reference_citation_f1=(0.0, 1.0, {"limit": AT_FLOOR}))
    assert verdicts(found) == {
        "contrast_accuracy": (0.4, "no difference seen"),
        "reference_citation_f1": (1.0, "cannot tell: both at the worst value"),
    }


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("citation_f1", 0.0, "cannot tell: both at the worst value"),
        ("citation_f1", 1.0, "cannot tell: both at the best value"),
        ("chrf", 100.0, "cannot tell: both at the best value"),
        ("forbidden_rate", 1.0, "cannot tell: both at the worst value"),
        ("forbidden_rate", 0.0, "cannot tell: both at the best value"),
        ("citation_f1", 0.5, None),
    ],
)
def test_both_at_the_end_of_the_scale_is_named(name, value, limit):
    lines = [{each: {"scores": {name: value}} for each in ("base", "adapter")}] * 5
    assert compare(lines, "adapter", "base", name, PERMUTATIONS).get("limit") == limit


# --- On data shaped like ours: how often a verdict is given where nothing differs, and what the intervals cover ---

SHAPES = ("contrast_accuracy", "reference_citation_f1", "ends_cleanly")


def draw_scores(draw, name, n, rise):
    """Return n scores of two systems: shares of five pairs, many zeros, or 0 and 1; questions differ in difficulty."""
    if name == "contrast_accuracy":
        chance = draw.beta(1.2, 1.2, n)
        return draw.binomial(5, chance) / 5, draw.binomial(5, np.clip(chance + rise, 0, 1)) / 5
    if name == "reference_citation_f1":
        values = np.array([0.25, 0.4, 0.5, 2 / 3, 0.8, 1.0])
        cites = [(draw.random(n) < share) * draw.choice(values, n) for share in (0.3, 0.3 + rise)]
        return cites[0], cites[1]
    # Near none of one and near all of the other is what tuning does.
    chance = draw.beta(1, 1, n) if rise < 0.5 else np.full(n, 0.02)
    return (draw.random(n) < chance) * 1.0, (draw.random(n) < np.clip(chance + rise, 0, 1)) * 1.0


def draw_lines(draw, name, n, rise):
    pairs = zip(*draw_scores(draw, name, n, rise), strict=True)
    return [{"base": {"scores": {name: one}}, "adapter": {"scores": {name: other}}} for one, other in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 60])
def test_where_nothing_differs_at_most_one_run_in_twenty_says_otherwise(n):
    draw = np.random.default_rng(n)
    wrong = 0
    for _ in range(1000):
        found = {
            name: compare(draw_lines(draw, name, n, 0), "adapter", "base", name, Permutations(4096, 1))
            for name in SHAPES
        }
        add_verdicts(found)
        wrong += any(difference["verdict"] in ("better", "worse") for difference in found.values())
    assert wrong <= 50 + 14  # 5 % of 1,000, and two standard deviations of that


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 60])
@pytest.mark.parametrize(("name", "rise"), [*product(SHAPES, (0, 0.2)), ("ends_cleanly", 0.88), ("ends_cleanly", 0.95)])
def test_intervals_cover_the_true_difference(n, name, rise):
    draw = np.random.default_rng(7)
    many = draw_scores(draw, name, 1_000_000, rise)
    truth = float(np.mean(many[1] - many[0]))
    covered, by_student = 0, 0
    for _ in range(1000):
        lines = draw_lines(draw, name, n, rise)
        found = compare(lines, "adapter", "base", name, Permutations(1, 1))
        covered += found["low"] <= truth <= found["high"]
        low, high = mean_interval([one["adapter"]["scores"][name] - one["base"]["scores"][name] for one in lines])
        by_student += low <= truth <= high
    print(f"{name}, {n} questions, {rise:+}: {covered / 10} %, Student's {by_student / 10} %")
    assert covered >= 930 - 14
    assert covered <= 970 + 14 or name == "ends_cleanly"  # of shares it may be wider than it must
    assert by_student >= 930 - 14 or rise > 0.5
