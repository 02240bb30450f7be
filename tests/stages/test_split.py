import hashlib
import itertools
import json
import random
import re
import unicodedata
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civilqa.dataset.records import Record, record_id
from civilqa.program.errors import ParameterError, RecordError
from split import SPLITS, SplitParams, check_splits, group_records, main, split_records

PARAMS = SplitParams(seed=1, folds=5, fold=0, validation_fraction=0.1, near_duplicate_similarity=0.8)
LEAK_RUNS = 300  # raise it for a longer search by hand

CELLS = list(itertools.product(("전세사기", "부동산물권"), ("초급", "중급", "고급")))
SYLLABLES = [chr(0xAC00 + 28 * index) for index in range(399)]


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


def split(records, params):
    return split_records(group_records(records, params.near_duplicate_similarity), params)


def record(question, cell=CELLS[0]):
    return Record(id=record_id(question), question=question, answer="답", category=cell[0], difficulty=cell[1])


def edit(question, random_):
    """Return the question with one or two small changes, as a near-duplicate has them."""
    for _ in range(random_.randint(1, 2)):
        at = random_.randrange(len(question))
        question = random_.choice(
            [
                question[:at] + random_.choice("은는이가을를") + question[at + 1 :],
                question[:at] + random_.choice([" ", "?", ", "]) + question[at:],
                question[:at] + question[at + 1 :],
                unicodedata.normalize("NFC", question + random_.choice(["요", "까요?", "  ..."])),
            ]
        )
    return question


def plant(random_):
    """Return records of which many are near-duplicates of others, in any cell, in a random order."""
    questions = {"".join(random_.choices([*SYLLABLES, " "], k=random_.randint(30, 90))) for _ in range(30)}
    questions = sorted(questions)
    while len(questions) < 70:
        questions.append(edit(random_.choice(questions), random_))
    records = [record(question, random_.choice(CELLS)) for question in dict.fromkeys(questions)]
    random_.shuffle(records)
    return records


def near_pairs(records):
    """Return the pairs of records at 0.8 or more by comparing all, without the code under test."""
    texts = [re.sub(r"[^가-힣]", "", item.question) for item in records]
    sets = [{text[i : i + 3] for i in range(len(text) - 2)} for text in texts]
    shared = {(i, j): len(sets[i] & sets[j]) for i, j in itertools.combinations(range(len(records)), 2)}
    return [
        (records[i], records[j])
        for (i, j), count in shared.items()
        if count / (len(sets[i]) + len(sets[j]) - count) >= 0.8
    ]


def test_sixty_records_give_twelve_test_and_five_validation():
    parts = split(make(60), PARAMS)
    assert {name: len(part) for name, part in parts.items()} == {"train": 43, "validation": 5, "test": 12}


@given(n=st.integers(10, 200), folds=st.integers(2, 5), seed=st.integers(0, 9), fraction=st.floats(0, 0.5))
@settings(max_examples=100, deadline=None)
def test_every_record_is_in_exactly_one_split_and_tested_in_exactly_one_fold(n, folds, seed, fraction):
    records = make(n)
    tested = []
    for fold in range(folds):
        update = {"seed": seed, "folds": folds, "fold": fold, "validation_fraction": fraction}
        parts = split(records, PARAMS.model_copy(update=update))
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
                for record in split(records, PARAMS.model_copy(update={"fold": fold}))["test"]
            )
            for fold in range(5)
        ]
        assert max(counts) - min(counts) <= 1


def test_validation_holds_every_category():
    parts = split(make(60), PARAMS)
    assert {record.category for record in parts["validation"]} == {"전세사기", "부동산물권"}


def test_the_order_of_the_file_changes_nothing():
    records = make(60)
    expected = split(records, PARAMS)
    for seed in range(5):
        assert split(random.Random(seed).sample(records, len(records)), PARAMS) == expected


def test_another_seed_deals_otherwise():
    other = PARAMS.model_copy(update={"seed": 2})
    assert split(make(60), PARAMS)["test"] != split(make(60), other)["test"]


def test_a_cell_of_one_record_is_dealt_too():
    records = [*make(20, difficulties=("초급",)), *make(21, ("상속",), ("고급",))[20:]]
    parts = split(records, PARAMS)
    assert sum(record.category == "상속" for part in parts.values() for record in part) == 1


def test_without_validation_the_rest_is_training():
    parts = split(make(60), PARAMS.model_copy(update={"validation_fraction": 0.0}))
    assert (len(parts["validation"]), len(parts["train"])) == (0, 48)


def test_a_fold_that_does_not_exist_is_refused():
    with pytest.raises(ParameterError, match=r"split.fold: found 5, want 0 to 4"):
        split(make(60), PARAMS.model_copy(update={"fold": 5}))


def test_too_few_records_for_the_folds_are_refused():
    with pytest.raises(ParameterError, match=r"split.folds: found 5 for 9 records"):
        split(make(9), PARAMS)


def test_too_few_groups_for_the_folds_are_refused():
    question = "임대인이 보증금을 돌려주지 않으면 어떻게 해야 하나요"
    records = [*make(8), *(record(question + end) for end in ("", "?", "!", "."))]
    with pytest.raises(ParameterError, match=r"split.folds: found 5 for 9 groups of 12 records, want at least two"):
        split(records, PARAMS)


def test_without_near_duplicates_the_groups_go_round_the_folds_one_by_one():
    def drawn(item):
        return item.category, item.difficulty, hashlib.sha256(f"1:{item.id}".encode()).hexdigest()

    for n, fold in itertools.product((60, 64, 137), range(5)):
        ordered = sorted(make(n), key=drawn)
        rest = [item for index, item in enumerate(ordered) if index % 5 != fold]
        size = round(0.1 * len(rest))
        middles = [rest[int((index + 0.5) * len(rest) / size)] for index in range(size)]
        parts = split(make(n), PARAMS.model_copy(update={"fold": fold}))
        assert {item.id for item in parts["test"]} == {item.id for item in ordered[fold::5]}
        assert {item.id for item in parts["validation"]} == {item.id for item in middles}


def test_no_near_duplicate_is_in_two_splits():
    pairs = 0
    for run in range(LEAK_RUNS):
        random_ = random.Random(run)
        records = plant(random_)
        params = PARAMS.model_copy(
            update={"seed": run, "fold": run % 5, "validation_fraction": random_.uniform(0, 0.5)}
        )
        parts = split(records, params)
        home = {item.id: name for name in SPLITS for item in parts[name]}
        for one, other in near_pairs(records):
            pairs += 1
            assert home[one.id] == home[other.id], (run, one.question, other.question)
    assert pairs > 20 * LEAK_RUNS  # the search would prove nothing if little was planted


def test_shuffling_records_with_near_duplicates_changes_no_split():
    for run in range(20):
        records = plant(random.Random(run))
        assert split(records, PARAMS) == split(sorted(records, key=lambda item: item.question), PARAMS)


def test_every_record_with_near_duplicates_is_tested_in_exactly_one_fold():
    for run in range(20):
        records = plant(random.Random(run))
        tested = [
            item.id for fold in range(5) for item in split(records, PARAMS.model_copy(update={"fold": fold}))["test"]
        ]
        assert sorted(tested) == sorted(item.id for item in records)


def test_folds_with_pairs_differ_by_one_pair_in_every_cell_and_in_all():
    questions = ["".join(random.Random(index).choices(SYLLABLES, k=40)) for index in range(60)]
    records = [record(q + end, CELLS[i % 6]) for i, q in enumerate(questions) for end in ("", "요")]
    tests = [split(records, PARAMS.model_copy(update={"fold": fold}))["test"] for fold in range(5)]
    for cell in CELLS:
        shares = [sum((item.category, item.difficulty) == cell for item in test) for test in tests]
        assert max(shares) - min(shares) <= 2
    assert [len(test) for test in tests] == [24] * 5


def test_validation_never_takes_more_than_its_fraction():
    for run in range(20):
        records = plant(random.Random(run))
        parts = split(records, PARAMS)
        assert 0 < len(parts["validation"]) <= round(0.1 * (len(records) - len(parts["test"])))


def test_a_group_in_two_splits_or_a_lost_record_is_refused():
    one, other, third = make(3)
    parts = {"train": [one, third], "validation": [], "test": [other]}
    check_splits(parts, [[one], [other], [third]])
    with pytest.raises(RecordError, match=f"{other.id} in test is a near-duplicate of {one.id} in train"):
        check_splits(parts, [[one, other], [third]])
    for changed in ({"train": [one]}, {"validation": [one]}):
        with pytest.raises(RecordError, match="a record is in no split or in several"):
            check_splits(parts | changed, [[one], [other], [third]])


def test_a_question_in_two_splits_is_refused():
    item = make(1)[0]
    again = Record(id="q-000000000000", question=item.question, answer="답", category="", difficulty="")
    with pytest.raises(RecordError, match=r"q-000000000000 is in train and in test: 질문 0$"):
        check_splits({"train": [item], "validation": [], "test": [again]}, [[item], [again]])


def test_a_near_duplicate_in_two_splits_is_refused():
    left = record("임대인이 기간이 끝나도 보증금을 돌려주지 않으면 임차권등기명령을 신청하고 이사해도 되나요?")
    right = record("임대인은 기간이 끝나도 보증금을 돌려주지 않으면, 임차권등기명령을 신청하고 이사해도 되나요")
    groups = group_records([*make(3), left, right], 0.8)
    for one, other in itertools.permutations(SPLITS, 2):
        parts = {"train": make(3), "validation": [], "test": []}
        parts = {**parts, one: [*parts[one], left], other: [*parts[other], right]}
        with pytest.raises(RecordError, match=r"q-\w+ in \w+ is a near-duplicate of q-\w+ in \w+$"):
            check_splits(parts, groups)


def test_the_check_finds_what_a_split_by_records_leaks():
    for run in range(50):
        records = plant(random.Random(run))
        parts = split_records([[item] for item in records], PARAMS)
        home = {item.id: name for name in SPLITS for item in parts[name]}
        assert any(home[one.id] != home[other.id] for one, other in near_pairs(records))
        with pytest.raises(RecordError, match="is a near-duplicate of"):
            check_splits(parts, group_records(records, 0.8))


def test_questions_below_the_similarity_are_no_leak():
    records = [record("가나다라마바사아자차카타"), record("가나다라마바사아자차")]  # 8 of 10 trigrams
    parts = {"train": records[:1], "validation": [], "test": records[1:]}
    check_splits(parts, group_records(records, 0.81))
    with pytest.raises(RecordError, match="is a near-duplicate of"):
        check_splits(parts, group_records(records, 0.8))


def test_the_metrics_tell_the_groups_of_several_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    question = "임대인이 보증금을 돌려주지 않으면 어떻게 해야 하나요"
    records = [*make(20), *(record(question + end) for end in ("", "?", "!")), record("유류분은 누가 얼마나 받나요")]
    records.append(record("유류분은, 누가 얼마나 받나요?"))
    (tmp_path / "data/prepared").mkdir(parents=True)
    rows = (json.dumps(asdict(item), ensure_ascii=False) for item in records)
    (tmp_path / "data/prepared/records.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_text(
        "split: {seed: 1, folds: 5, fold: 0, validation_fraction: 0.1, near_duplicate_similarity: 0.8}\n"
    )
    main()
    metrics = json.loads((tmp_path / "metrics/split.json").read_text(encoding="utf-8"))
    assert metrics["near_duplicates"] == {
        "similarity": 0.8,
        "groups_of_several": 2,
        "largest_group": 3,
    }
    lines = (tmp_path / "data/splits/near_duplicates.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(len(json.loads(line)) for line in lines) == [2, 3]
    assert {item["question"] for item in json.loads(lines[0]) + json.loads(lines[1])} == {
        *(question + end for end in ("", "?", "!")),
        "유류분은 누가 얼마나 받나요",
        "유류분은, 누가 얼마나 받나요?",
    }
    assert sum(metrics["records"][name]["total"] for name in SPLITS) == 25


def test_a_similarity_outside_its_range_is_refused():
    for value in (0, -0.1, 1.1):
        with pytest.raises(ValueError, match="near_duplicate_similarity"):
            SplitParams(seed=1, folds=5, fold=0, validation_fraction=0.1, near_duplicate_similarity=value)
