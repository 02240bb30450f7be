import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civilqa.errors import ParameterError, RecordError
from civilqa.records import Record, record_id
from split import SplitParams, check_no_leak, split_records

PARAMS = SplitParams(seed=1, folds=5, fold=0, validation_fraction=0.1)


def make(n, categories=("전세사기", "부동산물권"), difficulties=("초급", "중급", "고급")):
    cells = list(itertools.product(categories, difficulties))
    return [
        Record(
            id=record_id(f"질문 {index}"),
            question=f"질문 {index}",
            answer="답",
            category=cells[index % len(cells)][0],
            difficulty=cells[index % len(cells)][1],
        )
        for index in range(n)
    ]


def test_sixty_records_give_twelve_test_and_five_validation():
    parts = split_records(make(60), PARAMS)
    assert {name: len(part) for name, part in parts.items()} == {"train": 43, "validation": 5, "test": 12}


@given(n=st.integers(10, 200), folds=st.integers(2, 5), seed=st.integers(0, 9), fraction=st.floats(0, 0.5))
@settings(max_examples=100, deadline=None)
def test_every_record_is_in_exactly_one_split_and_tested_in_exactly_one_fold(n, folds, seed, fraction):
    records = make(n)
    tested = []
    for fold in range(folds):
        parts = split_records(records, SplitParams(seed=seed, folds=folds, fold=fold, validation_fraction=fraction))
        assert sorted(r.id for part in parts.values() for r in part) == sorted(r.id for r in records)
        assert parts["train"]
        tested += [record.id for record in parts["test"]]
    assert sorted(tested) == sorted(record.id for record in records)


def test_each_cell_has_the_same_share_of_every_fold_give_or_take_one():
    records = make(64)
    for category, difficulty in itertools.product(("전세사기", "부동산물권"), ("초급", "중급", "고급")):
        counts = [
            sum(
                (record.category, record.difficulty) == (category, difficulty)
                for record in split_records(records, PARAMS.model_copy(update={"fold": fold}))["test"]
            )
            for fold in range(5)
        ]
        assert max(counts) - min(counts) <= 1


def test_validation_holds_every_category():
    parts = split_records(make(60), PARAMS)
    assert {record.category for record in parts["validation"]} == {"전세사기", "부동산물권"}


@pytest.mark.parametrize("shuffle", range(5))
def test_the_order_of_the_file_changes_nothing(shuffle):
    records = make(60)
    shuffled = records[:]
    random.Random(shuffle).shuffle(shuffled)
    assert split_records(shuffled, PARAMS) == split_records(records, PARAMS)


def test_another_seed_deals_otherwise():
    other = PARAMS.model_copy(update={"seed": 2})
    assert split_records(make(60), PARAMS)["test"] != split_records(make(60), other)["test"]


def test_a_cell_of_one_record_is_dealt_too():
    records = [*make(20, difficulties=("초급",)), *make(21, ("상속",), ("고급",))[20:]]
    parts = split_records(records, PARAMS)
    assert sum(record.category == "상속" for part in parts.values() for record in part) == 1


def test_without_validation_the_rest_is_training():
    parts = split_records(make(60), PARAMS.model_copy(update={"validation_fraction": 0.0}))
    assert (len(parts["validation"]), len(parts["train"])) == (0, 48)


def test_a_fold_that_does_not_exist_is_refused():
    with pytest.raises(ParameterError, match=r"split.fold: found 5, want 0 to 4"):
        split_records(make(60), PARAMS.model_copy(update={"fold": 5}))


def test_too_few_records_for_the_folds_are_refused():
    with pytest.raises(ParameterError, match=r"split.folds: found 5 for 9 records"):
        split_records(make(9), PARAMS)


def test_a_question_in_two_splits_is_refused():
    record = make(1)[0]
    with pytest.raises(RecordError, match="is in train and in test"):
        check_no_leak({"train": [record], "validation": [], "test": [record]})
