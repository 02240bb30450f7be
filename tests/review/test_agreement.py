import pytest
from review_files import review

from civilqa.review.agreement import collect_ratings, compare_with_scores, human_verdicts, measure_agreement


def test_alpha_is_that_of_a_hand_made_table():
    # Nominal, two reviewers, binary: wrong for law or not. Krippendorff's own computation from the coincidences:
    # pairs (0,0) x 2, (1,1) x 1, (0,1) x 1 -> n = 8, n_0 = 5, n_1 = 3, o_01 = 1; alpha = 1 - 7 * 1 / (5 * 3).
    first = [review(0, "김", "good", "good"), review(1, "김", ["law"], ["law"])]
    second = [review(0, "이", "good", "good"), review(1, "이", ["law"], ["form"])]
    found = measure_agreement([*first, *second])
    assert found["faults"]["law"]["alpha"] == pytest.approx(1 - 7 / 15, abs=1e-3)
    assert found["answers"] == found["answers_of_several"] == 4
    assert found["reviewers"] == ["김", "이"]


def test_to_be_one_step_apart_is_less_than_to_be_two():
    def alpha(theirs):
        ours = [review(number, "김", verdict, verdict) for number, verdict in enumerate(["good", "usable", ["law"]])]
        other = [review(number, "이", verdict, verdict) for number, verdict in enumerate(theirs)]
        return measure_agreement([*ours, *other])["verdict"]["alpha"]

    assert alpha(["good", "usable", ["law"]]) == 1
    assert 1 > alpha(["usable", "usable", ["law"]]) > alpha([["law"], "usable", ["law"]])


def test_the_interval_holds_alpha_and_is_the_same_every_time():
    reviews = [
        review(number, name, "good" if (number * step) % 3 else ["law"], "usable" if number % step else ["number"])
        for name, step in (("김", 2), ("이", 4))
        for number in range(10)
    ]
    found = measure_agreement(reviews)
    low, high = found["verdict"]["interval"]
    assert low < found["verdict"]["alpha"] < high
    assert found == measure_agreement(reviews)


@pytest.mark.parametrize(
    "reviews",
    [
        [],
        [review(0, "김", "good", "usable")],
        [review(0, "김", "good", "usable"), review(1, "이", "good", "usable")],
        [review(0, "김", "good", "good"), review(0, "이", "good", "good")],
    ],
    ids=["none", "one reviewer", "nothing in common", "one verdict alone"],
)
def test_without_anything_to_agree_on_there_is_no_alpha(reviews):
    assert measure_agreement(reviews)["verdict"] is None


def test_people_decide_by_more_voices_and_equal_ones_are_in_dispute():
    reviews = [
        review(0, "김", "good", ["law"]), review(0, "이", "usable", "good"), review(0, "박", ["law"], None),
    ]  # fmt: skip
    key = reviews[0].key
    assert human_verdicts(collect_ratings(reviews)) == {(key, "base"): True}


def test_a_score_is_as_good_as_it_tells_usable_answers_from_wrong_ones():
    reviews = [
        review(number, "김", "good" if number < 2 else ["law"], "usable" if number < 2 else ["law"])
        for number in range(4)
    ]
    lines = {
        one.key: {
            system: {"scores": {"chrf": 90.0 - number, "repetition": number / 10, "citation_f1": None, "rouge_l": 0.5}}
            for system in ("base", "adapter")
        }
        for number, one in enumerate(reviews)
    }
    found = compare_with_scores(collect_ratings([*reviews, review(9, "김", "good", "good")]), lines)
    assert (found["usable"], found["wrong"], found["disputed"]) == (4, 4, 0)  # the tenth question is another run's
    assert found["scores"]["chrf"] == {"auc": 1.0, "n": 8}
    assert found["scores"]["repetition"]["auc"] == 1.0  # lower is better
    assert found["scores"]["rouge_l"]["auc"] == 0.5
    assert "citation_f1" not in found["scores"]
