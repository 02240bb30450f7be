from civilqa.program.files import sha256_json
from civilqa.scoring.article_recall import article_recall
from civilqa.scoring.comparison import AT_FLOOR
from civilqa.scoring.summary import print_lookup, print_summary, summarize

COMPARED = {"mean": -0.58520912, "low": -0.67, "high": -0.5, "n": 12, "verdict": "better"}
METRICS = {
    "adapter_sha256": "a",
    "test": {
        "n": 12,
        "nearest": {"copied_near_duplicate": 0.25},
        "adapter": {
            "bits_per_character": 4.65317847,
            "ends_cleanly": 1.0,
            "abstention_rate": 0.25,
            "reference_citation_f1": 0.25,
        },
    },
    "asked_with": {"tokenizer": "t", "template": "k"},
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
        "bits_under": sha256_json({"template": "k", "tokenizer": "t"})[:8],
        "nearest_near_duplicates": 3,
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


def test_what_is_out_of_the_ordinary_is_printed_beside_the_scores(capsys):
    def printed(abstained, leaked, **recalled):
        test = METRICS["test"] | {
            "base": {"abstention_rate": 0.0},
            "adapter": METRICS["test"]["adapter"] | {"abstention_rate": abstained},
            "nearest": {"copied_near_duplicate": leaked},
        }
        recall = {"n": len(recalled), "base": recalled, "adapter": recalled}
        rests = {"groups": 12, "shared_answers": 0}
        print_summary(METRICS | {"test": test, "train_recall": recall, "test_data": rests}, "고지")
        return capsys.readouterr().out

    assert "abstained" not in printed(0.0, 0.0)
    assert "warning" not in printed(0.0, 0.0)
    assert "abstained, neither right nor wrong: adapter 3 of 12 questions" in printed(0.25, 0.0)
    assert "3 of its 12 answers are of near-duplicates of the question" in printed(0.0, 0.25)
    assert "recalled               base 0.500, adapter 0.500\n" in printed(0.0, 0.0, recalled=0.5)
    assert "recalled               -\n" in printed(0.0, 0.0), "no training question was asked again"


def test_what_was_looked_up_is_printed_beside_the_scores(capsys):
    print_lookup(METRICS, ["base", "retrieval"])
    assert capsys.readouterr().out == ""
    found = [{"found": ["민법 제1조"], "required": ["민법 제1조", "민법 제2조"], "cited": []}]
    intervals = {"base": {"reference_citation_f1": (0.0, 0.25)}, "retrieval": {"reference_citation_f1": (0.5, 1.0)}}
    contrasts = {"unseen": {"interval": {"base": (0.1, 0.2), "adapter": (0.3, 0.4)}}}
    metrics = {"articles": {"recall": article_recall(found)}, "interval": intervals, "contrasts": contrasts}
    print_lookup(metrics, ["base", "retrieval"])
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("articles found: required  @1 0.500  @3 0.500")
    assert "95 % intervals of contrast_accuracy: base [0.100, 0.200], adapter [0.300, 0.400]" in told
    assert "95 % intervals of reference_citation_f1: base [0.000, 0.250], retrieval [0.500, 1.000]" in told
    assert "95 % intervals of ends_cleanly: -" in told
