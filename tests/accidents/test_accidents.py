"""The count of accidents itself: what is tried and does not hold must show."""

import json

import pytest

from accidents import Outcomes, format_table


def test_a_try_that_fails_counts_as_tried_and_not_as_held():
    outcomes = Outcomes()
    with outcomes.trial("kill -9", "finetune", "same bytes"):
        pass
    with pytest.raises(AssertionError), outcomes.trial("kill -9", "finetune", "same bytes"):
        raise AssertionError
    assert outcomes.rows == {("kill -9", "finetune"): {"outcome": "same bytes", "tried": 2, "held": 1}}


def test_a_report_keeps_the_rows_that_were_not_tried_again(tmp_path):
    path = tmp_path / "accidents.json"
    for target, fails in (("split", True), ("format", False), ("split", False)):
        outcomes = Outcomes()
        try:
            with outcomes.trial("full disk", target, "a message"):
                assert not fails
        except AssertionError:
            pass
        outcomes.write(path)
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert [(row["target"], row["tried"], row["held"]) for row in rows] == [("format", 1, 1), ("split", 1, 1)]
    assert "| **all** | | | **2** | **2** |" in format_table(rows)


def test_what_several_processes_counted_is_added_up():
    first, second = Outcomes(), Outcomes()
    for outcomes, target in ((first, "split"), (second, "split"), (second, "format")):
        with outcomes.trial("full disk", target, "a message"):
            pass
    with pytest.raises(AssertionError), second.trial("full disk", "split", "a message"):
        raise AssertionError
    both = Outcomes()
    for outcomes in (first, second):
        both.add(outcomes.listed())
    assert [(row["target"], row["tried"], row["held"]) for row in both.listed()] == [("split", 3, 2), ("format", 1, 1)]
