from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import format as format_stage
from civilqa.base_model.prompts import FormatParams
from civilqa.dataset.lengths import describe_lengths
from civilqa.dataset.records import Record
from conftest import edit_params

# 20 records to train on of 10 to 200 tokens, two to validate on, one to test on that is longer than all.
LENGTHS = {
    "train": [(f"q-{n}", n, 9 * n) for n in range(1, 21)],
    "validation": [("q-21", 100, 101), ("q-22", 1, 2)],
    "test": [("q-23", 400, 600)],
}


def test_the_records_over_the_limit_of_training_are_told_by_split_with_the_way_on():
    first, second = describe_lengths(LENGTHS, {"max_length": 140, "overlong": "stop"}).split("\n")
    assert first == "format: tokens of a record: median 110, 95 % up to 201, longest 1000"
    assert second == (
        "warning: over train.max_length (140): train 6 of 20, validation 1 of 2, test 1 of 1; finetune will stop at "
        "q-15, q-16, q-17, q-18, q-19, ...: raise train.max_length (up to 1000), set train.overlong to truncate, or "
        "shorten the rows"
    )
    cut = describe_lengths(LENGTHS, {"max_length": 199, "overlong": "truncate"})
    assert cut.endswith("train 1 of 20, validation 1 of 2, test 1 of 1; finetune cuts their ends off: q-20, q-21")


def test_a_test_record_over_the_limit_stops_no_training():
    told = describe_lengths(LENGTHS, {"max_length": 201, "overlong": "stop"})
    assert told.endswith("\nwarning: over train.max_length (201): train 0 of 20, validation 0 of 2, test 1 of 1")


def test_a_record_of_exactly_the_limit_does_not_exceed_it():
    assert describe_lengths(LENGTHS, {"max_length": 1000}).endswith("; none exceeds train.max_length (1000)")
    assert "test 1 of 1" in describe_lengths(LENGTHS, {"max_length": 999})


@pytest.mark.parametrize("train", [None, [], "none", {}, {"max_length": None}, {"max_length": "long"}])
def test_without_a_limit_only_the_lengths_are_told(train):
    assert describe_lengths(LENGTHS, train) == "format: tokens of a record: median 110, 95 % up to 201, longest 1000"


@given(st.lists(st.integers(0, 5000), min_size=1), st.integers(1, 6000))
def test_the_number_told_is_that_of_the_records_that_finetune_refuses(sizes, limit):
    lengths = {"train": [("q", size, 0) for size in sizes], "validation": [], "test": [("q", 9999, 0)]}
    over = sum(size > limit for size in sizes)
    told = describe_lengths(lengths, {"max_length": limit})
    assert f": train {over} of {len(sizes)}, validation 0 of 0, test 1 of 1" in told
    assert ("finetune will stop" in told) == bool(over)


def test_format_tells_the_limit_and_writes_the_same_for_another(project, run_stage):
    for stage in ("prepare", "split", "format"):
        assert run_stage(stage).returncode == 0
    kept = {path.name: path.read_bytes() for path in (project / "data/formatted").iterdir()}
    edit_params(project / "params.yaml", **{"train.max_length": 100})
    finished = run_stage("format")
    assert finished.returncode == 0
    assert "over train.max_length (100): train 43 of 43, validation 5 of 5, test 12 of 12; finetune" in finished.stdout
    assert {path.name: path.read_bytes() for path in (project / "data/formatted").iterdir()} == kept


def test_questions_that_are_trained_on_are_shown_articles_and_test_questions_never(monkeypatch):
    record = Record("q-1", "질문", "민법 제618조", "전세사기", "")
    params = FormatParams(style="conversational", statutes_in_prompt=2, seed=7, system_prompts={"default": "가"})
    index = SimpleNamespace(training_articles=lambda *asked: [*map(str, asked)])
    monkeypatch.setattr(format_stage, "load_index", lambda: index)
    shown = {split: format_stage.articles_before(split, record, params) for split in ("train", "validation", "test")}
    asked = ["q-1", "질문", "민법 제618조", "2", "7"]
    assert shown == {"train": asked, "validation": asked, "test": []}
    monkeypatch.setattr(format_stage, "load_index", lambda: pytest.fail("read"))
    assert format_stage.articles_before("train", record, params.model_copy(update={"statutes_in_prompt": 0})) == []
