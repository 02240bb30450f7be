from civilqa.scoring.comparison import AT_FLOOR
from civilqa.scoring.summary import summarize

COMPARED = {"mean": -0.58520912, "low": -0.67, "high": -0.5, "n": 12, "verdict": "better"}
METRICS = {
    "adapter_sha256": "a",
    "test": {
        "adapter": {
            "bits_per_character": 4.65317847,
            "ends_cleanly": 1.0,
            "abstention_rate": 0.25,
            "reference_citation_f1": 0.25,
        }
    },
    "contrasts": {"unseen": {"adapter": {"contrast_accuracy": 0.612345}}},
    "difference": {
        "base": {
            "contrast_accuracy": COMPARED | {"mean": 0.0852},
            "reference_citation_f1": COMPARED | {"mean": 0.0, "verdict": AT_FLOOR},
        }
    },
    "train_recall": {"adapter": {"recalled": 0.976744}},
}


def test_the_summary_is_flat_and_rounded():
    losses = {"train_first": 9.3, "train_last": 0.133018, "validation_best": 7.8, "validation_last": 8.465011}
    assert summarize(METRICS, {"adapter_sha256": "a", "loss": losses}) == {
        "contrast": 0.6123,
        "contrast_vs_base": "+0.085 better",
        "citation_f1": 0.25,
        "citation_f1_vs_base": "+0.000 undecided",
        "ends": 1.0,
        "abstains": 0.25,
        "bits": 4.6532,
        "recall": 0.9767,
        "train_loss": 0.133,
        "validation_loss": 8.465,
    }


def test_a_figure_that_there_is_not_is_none():
    bare = {
        "adapter_sha256": "a",
        "contrasts": {},
        "test": {"adapter": {}},
        "difference": {"base": {}},
        "train_recall": {"adapter": {}},
    }
    summary = summarize(bare, {})
    assert set(summary.values()) == {None}
    assert len(summary) <= 12


def test_losses_of_another_adapter_are_none_of_this_one():
    for sha256, loss in (("a", 0.1), ("b", None)):
        assert summarize(METRICS, {"adapter_sha256": sha256, "loss": {"train_last": 0.1}})["train_loss"] == loss
    assert summarize(METRICS, {})["train_loss"] is None
