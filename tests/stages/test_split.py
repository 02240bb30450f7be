import hashlib
import itertools
import json
import random
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civilqa.dataset.records import Record, read_records, record_id, variant_id, write_records
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import read_jsonl
from split import SPLITS, SplitParams, check_groups, check_parts, check_splits, group_records, main, split_records

PARAMS = SplitParams(
    seed=1,
    folds=5,
    fold=0,
    validation_fraction=0.1,
    near_duplicate_similarity=0.8,
    near_duplicate_answer_similarity=0.9,
    near_duplicate_answer_characters=15,
    too_few_groups="refuse",
)
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
    grouping = group_records(records, params.likeness)
    check_groups(records, grouping, params)
    return split_records(grouping.groups, params)


def groups_of(records, similarity):
    return group_records(records, PARAMS.model_copy(update={"near_duplicate_similarity": similarity}).likeness).groups


def record(question, cell=CELLS[0], answer="답"):
    return Record(id=record_id(question), question=question, answer=answer, category=cell[0], difficulty=cell[1])


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
@settings(max_examples=100)
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
    check_splits(parts, [[one], [other], [third]], PARAMS.likeness)
    with pytest.raises(RecordError, match=f"{other.id} in test is a near-duplicate of {one.id} in train"):
        check_splits(parts, [[one, other], [third]], PARAMS.likeness)
    for changed in ({"train": [one]}, {"validation": [one]}):
        with pytest.raises(RecordError, match="a record is in no split or in several"):
            check_splits(parts | changed, [[one], [other], [third]], PARAMS.likeness)


def test_a_question_in_two_splits_is_refused():
    item = make(1)[0]
    again = Record(id="q-000000000000", question=item.question, answer="답", category="", difficulty="")
    with pytest.raises(RecordError, match=r"question of q-000000000000 is in train and in test: 질문 0$"):
        check_splits({"train": [item], "validation": [], "test": [again]}, [[item], [again]], PARAMS.likeness)


def test_a_near_duplicate_in_two_splits_is_refused():
    left = record("임대인이 기간이 끝나도 보증금을 돌려주지 않으면 임차권등기명령을 신청하고 이사해도 되나요?")
    right = record("임대인은 기간이 끝나도 보증금을 돌려주지 않으면, 임차권등기명령을 신청하고 이사해도 되나요")
    groups = groups_of([*make(3), left, right], 0.8)
    for one, other in itertools.permutations(SPLITS, 2):
        parts = {"train": make(3), "validation": [], "test": []}
        parts = {**parts, one: [*parts[one], left], other: [*parts[other], right]}
        with pytest.raises(RecordError, match=r"q-\w+ in \w+ is a near-duplicate of q-\w+ in \w+$"):
            check_splits(parts, groups, PARAMS.likeness)


def test_the_check_finds_what_a_split_by_records_leaks():
    for run in range(50):
        records = plant(random.Random(run))
        parts = split_records([[item] for item in records], PARAMS)
        home = {item.id: name for name in SPLITS for item in parts[name]}
        assert any(home[one.id] != home[other.id] for one, other in near_pairs(records))
        with pytest.raises(RecordError, match="is a near-duplicate of"):
            check_splits(parts, groups_of(records, 0.8), PARAMS.likeness)


def test_questions_below_the_similarity_are_no_leak():
    records = [record("가나다라마바사아자차카타"), record("가나다라마바사아자차")]  # 8 of 10 trigrams
    parts = {"train": records[:1], "validation": [], "test": records[1:]}
    check_splits(parts, groups_of(records, 0.81), PARAMS.likeness)
    with pytest.raises(RecordError, match="is a near-duplicate of"):
        check_splits(parts, groups_of(records, 0.8), PARAMS.likeness)


@pytest.fixture
def run_split(tmp_path, monkeypatch):
    """Run the stage on records, with other parameters; return metrics/split.json and the lines of the three splits."""
    monkeypatch.chdir(tmp_path)

    def run(records, **changes):
        write_records(Path("data/prepared/records.jsonl"), records)
        params = PARAMS.model_dump() | changes
        Path("params.yaml").write_text(json.dumps({"split": params}), encoding="utf-8")
        main()
        parts = {name: read_records(Path(f"data/splits/{name}.jsonl")) for name in SPLITS}
        return json.loads(Path("metrics/split.json").read_text(encoding="utf-8")), parts

    return run


def test_the_metrics_tell_the_groups_of_several_records(run_split):
    question = "임대인이 보증금을 돌려주지 않으면 어떻게 해야 하나요"
    records = [*make(20), *(record(question + end) for end in ("", "?", "!")), record("유류분은 누가 얼마나 받나요")]
    records.append(record("유류분은, 누가 얼마나 받나요?"))
    metrics, _ = run_split(records)
    assert metrics["near_duplicates"] == {
        "similarity": 0.8,
        "answer_similarity": 0.9,
        "groups_of_several": 2,
        "groups_by_answers": 0,
        "largest_group": 3,
    }
    assert metrics["test_data"] == {
        "groups": metrics["groups"]["test"],
        "by_answers": 0,
        "shared_answers": metrics["records"]["test"]["total"],
        "untrained_categories": [],
    }
    assert sum(metrics["groups"].values()) == 22
    lines = list(read_jsonl(Path("data/splits/near_duplicates.jsonl")))
    assert sorted(len(line["records"]) for line in lines) == [2, 3]
    assert {line["alike"] for line in lines} == {"questions"}
    assert {item["question"] for line in lines for item in line["records"]} == {
        *(question + end for end in ("", "?", "!")),
        "유류분은 누가 얼마나 받나요",
        "유류분은, 누가 얼마나 받나요?",
    }
    assert sum(metrics["records"][name]["total"] for name in SPLITS) == 25


# --- answers ---------------------------------------------------------------------------------------------------------


def random_text(random_, length):
    return "".join(random_.choices([*SYLLABLES, " "], k=length))


def make_rewordings(answers=24, wordings=13, seed=0):
    """Return records of a few answers, each to many questions that have no words in common, in a random order.

    Some answers are there in other spaces, punctuation and Unicode form, or with a word changed.
    """
    random_ = random.Random(seed)
    records = []
    for _ in range(answers):
        answer = random_text(random_, random_.randint(60, 200))
        for wording in range(wordings):
            said = [answer, answer.replace(" ", "  "), unicodedata.normalize("NFD", f"{answer}!"), answer[:-1]][
                wording % 4
            ]
            records.append(record(random_text(random_, 40), random_.choice(CELLS), said))
    random_.shuffle(records)
    return records


def leaks(parts):
    """Return the long test answers that a training or validation record has, by comparing letters and digits."""
    letters = {
        name: [re.sub(r"[^가-힣]", "", unicodedata.normalize("NFC", item.answer)) for item in parts[name]]
        for name in SPLITS
    }
    trained = {answer[:50] for name in ("train", "validation") for answer in letters[name]}
    return [answer for answer in letters["test"] if len(answer) >= 20 and answer[:50] in trained]


@pytest.mark.parametrize("seed", range(5))
def test_no_answer_of_312_rewordings_of_24_is_in_train_and_in_test(seed):
    records = make_rewordings(seed=seed)
    for fold in range(5):
        parts = split(records, PARAMS.model_copy(update={"fold": fold}))
        assert len(parts["test"]) >= 4 * 13
        assert leaks(parts) == []
        old = split(records, PARAMS.model_copy(update={"fold": fold, "near_duplicate_answer_similarity": None}))
        assert len(leaks(old)) == len(old["test"])  # groups by questions alone: every test answer was trained on


def test_what_groups_by_questions_leak_is_found_by_the_check():
    records = make_rewordings()
    old = split(records, PARAMS.model_copy(update={"near_duplicate_answer_similarity": None}))
    with pytest.raises(RecordError, match="is a near-duplicate of"):
        check_splits(old, group_records(records, PARAMS.likeness).groups, PARAMS.likeness)
    with pytest.raises(RecordError, match=r"the answer of .* is in train and in"):
        check_splits(old, [[item] for item in records], PARAMS.likeness)


@given(seed=st.integers(0, 2**32), answers=st.integers(2, 12), fraction=st.floats(0, 0.5))
@settings(max_examples=40)
def test_groups_by_answers_never_cross_splits_whatever_the_order(seed, answers, fraction):
    random_ = random.Random(seed)
    records = [*make_rewordings(answers, random_.randint(1, 6), seed), *plant(random_)]
    params = PARAMS.model_copy(update={"seed": seed, "fold": seed % 5, "validation_fraction": fraction})
    grouping = group_records(records, params.likeness)
    parts = split_records(grouping.groups, params)
    assert sum(map(len, parts.values())) == sum(map(len, grouping.groups)) == len(records)
    home = {item.id: name for name in SPLITS for item in parts[name]}
    assert all(len({home[item.id] for item in group}) == 1 for group in grouping.groups)
    assert all(home[one.id] == home[other.id] for one, other in near_pairs(records))
    assert leaks(parts) == []
    shuffled = random_.sample(records, len(records))
    assert split_records(group_records(shuffled, params.likeness).groups, params) == parts


def test_split_says_how_many_groups_are_one_for_their_answers(run_split, capsys):
    metrics, parts = run_split(make_rewordings())
    assert (
        metrics["near_duplicates"] | {"groups_of_several": 24, "groups_by_answers": 24, "largest_group": 13}
        == (metrics["near_duplicates"])
    )
    assert sum(metrics["groups"].values()) == 24
    assert metrics["groups"]["test"] * 13 == len(parts["test"])
    out = capsys.readouterr().out
    assert "split: near-duplicates: 312 records, groups 24, for their answers 24 -> data/splits/near" in out
    lines = list(read_jsonl(Path("data/splits/near_duplicates.jsonl")))
    assert {line["alike"] for line in lines} == {"answers"}
    assert all(len({item["answer"][:20] for item in line["records"]}) <= 2 for line in lines)


SHORT = ["네.", "가능합니다.", "아니요, 그렇지 않습니다.", "네, 성립합니다.", "변호사와 상담하십시오."]


WAYS = {
    "spaces": lambda text: text.replace(" ", "\u3000 \n"),
    "punctuation": lambda text: text.replace(",", "·").replace(".", "…!"),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "wide digits": lambda text: text.translate({48 + digit: 0xFF10 + digit for digit in range(10)}),
    "a particle": lambda text: text.replace("임대인이", "임대인은"),
    "a typing error": lambda text: text.replace("등기명령을", "등기명량을"),
    "an ending": lambda text: text.replace("이사하십시오", "이사하세요"),
}


@pytest.mark.parametrize("way", WAYS)
def test_near_equal_answers_are_one_group_however_they_are_written(way):
    answer = "임대인이 보증금 3,000만 원을 2개월 안에 주지 않으면, 임차권등기명령을 신청하고 이사하십시오."
    records = [
        *make(20),
        record("첫째 물음입니다", answer=answer),
        record("다음 것은 어떻습니까", answer=WAYS[way](answer)),
    ]
    assert answer != WAYS[way](answer)
    assert sorted(map(len, groups_of(records, 0.8)))[-2:] == [1, 2]


def test_variants_of_an_answer_are_in_one_split():
    records = make(20)
    for number in range(4):
        answer = random_text(random.Random(number), 60)
        first = record("임대인이 보증금을 돌려주지 않으면 어떻게 해야 하나요", answer=answer)
        records.append(replace(first, id=variant_id(first)) if number else first)
    assert len({item.id for item in records}) == 24
    for fold in range(5):
        parts = split(records, PARAMS.model_copy(update={"fold": fold}))
        assert len({name for name in SPLITS for item in parts[name] if item.question.startswith("임대인")}) == 1


def test_one_group_that_is_more_than_a_fold_is_told_with_the_parameters(run_split, capsys):
    records = [template(number) for number in range(30)]
    records += [record(random_text(random.Random(number), 40), answer=f"답 {number}") for number in range(30)]
    alone = []
    for fold in range(5):
        run_split(records, fold=fold, too_few_groups="warn")
        out = capsys.readouterr().out
        assert "warning: one group holds 30 of 60 records, more than a fold" in out
        alone.append("the test split is one group of 30 near-duplicates" in out)
    assert sum(alone) == 1
    run_split(records, near_duplicate_similarity=1.0, near_duplicate_answer_similarity=1.0)
    assert "one group holds" not in capsys.readouterr().out


def test_an_empty_validation_split_is_told_where_one_was_asked_for(run_split, capsys):
    records = make_rewordings(answers=4)
    _, parts = run_split(records, folds=2, too_few_groups="warn")
    assert parts["validation"] == []
    told = "warning: none to validate on: split.validation_fraction 0.1 is less than any group"
    assert told in capsys.readouterr().out
    run_split(make(60), validation_fraction=0.0)
    assert "to validate on" not in capsys.readouterr().out
    run_split(make(8), folds=2, too_few_groups="warn")  # a tenth of four records is none
    assert told in capsys.readouterr().out


def test_short_answers_glue_nothing_together_and_are_told(run_split, capsys):
    random_ = random.Random(1)
    records = [record(random_text(random_, 40), random_.choice(CELLS), random_.choice(SHORT)) for _ in range(60)]
    metrics, parts = run_split(records)
    assert metrics["near_duplicates"]["largest_group"] == 1
    assert metrics["test_data"]["shared_answers"] == len(parts["test"]) == 12
    why = "shorter than split.near_duplicate_answer_characters (15)"
    assert f"warning: 12 of 12 test answers stand in train, {why}" in capsys.readouterr().out
    with pytest.raises(ParameterError, match="found 5 for 5 groups of 60 records"):
        run_split(records, near_duplicate_answer_characters=1)


def test_short_answers_to_like_questions_are_one_group_by_the_questions():
    question = "임대인이 보증금을 돌려주지 않으면 어떻게 해야 하나요"
    records = [*make(20), record(question, answer="네."), record(f"{question}?", answer="네.")]
    assert sorted(map(len, groups_of(records, 0.8)))[-2:] == [1, 2]


def test_without_a_similarity_of_answers_the_shared_ones_are_told(run_split, capsys):
    metrics, parts = run_split(make_rewordings(), near_duplicate_answer_similarity=None)
    assert metrics["near_duplicates"]["groups_by_answers"] == 0
    # Some are there in other letters: those with a word changed.
    assert metrics["test_data"]["shared_answers"] >= 0.9 * len(parts["test"])
    assert "and split.near_duplicate_answer_similarity is empty" in capsys.readouterr().out


def template(number):
    sums = f"{1000 + 100 * number:,}만 원"
    question = (
        f"전세보증금이 {sums}인 빌라에 살고 있는데 계약이 끝나도 집주인이 보증금을 돌려주지 않으면 어떻게 해야 하나요?"
    )
    answer = f"보증금 {sums} 전부를 돌려받을 때까지 임차권등기명령을 신청하고 지급명령이나 소송을 준비하십시오."
    return record(question, CELLS[number % 6], answer)


def test_of_thirty_questions_that_differ_in_a_sum_the_message_names_what_helps():
    with pytest.raises(ParameterError) as error:
        split([template(number) for number in range(30)], PARAMS)
    message = str(error.value)
    assert message.startswith("params.yaml: split.folds: found 5 for 1 group of 30 records, want at least two groups")
    settings_named = dict(re.findall(r"(split\.near_duplicate_\w+): ([\d.]+)", message))
    (left,) = re.findall(r"leaves (\d+) groups", message)
    update = {name.removeprefix("split."): float(value) for name, value in settings_named.items()}
    grouping = group_records([template(number) for number in range(30)], PARAMS.model_copy(update=update).likeness)
    assert len(grouping.groups) == int(left) >= 10
    assert "near_duplicate_similarity" in update


def test_where_no_similarity_helps_none_is_named():
    with pytest.raises(
        ParameterError,
        match=r"(?s)2 groups of 30 records.*such as '.*by their questions alone all records are in 30\..*no higher",
    ):
        split(make_rewordings(answers=2, wordings=15)[:30], PARAMS)


def test_too_few_groups_are_taken_where_that_is_asked_for(run_split, capsys):
    records = make_rewordings(answers=4)
    with pytest.raises(ParameterError, match="found 5 for 4 groups of 52 records"):
        run_split(records)
    warn = {"too_few_groups": "warn"}
    metrics, parts = run_split(records, folds=2, **warn)
    assert metrics["groups"] == {"train": 2, "validation": 0, "test": 2}
    assert leaks(parts) == []
    capsys.readouterr()
    metrics, _ = run_split(records, folds=4, **warn)
    assert metrics["groups"]["test"] == 1
    assert "the test split is one group of 13 near-duplicates: no verdict can rest on it" in capsys.readouterr().out
    with pytest.raises(ParameterError, match="with 4 the test split is empty"):
        run_split(records, fold=4, **warn)
    with pytest.raises(ParameterError, match="found 2 for 1 group of 13 records"):
        run_split(make_rewordings(answers=1), folds=2, **warn)


def test_a_test_or_training_split_of_one_group_is_refused():
    many, one = make(9), [record(random_text(random.Random(i), 40), CELLS[0], "가나다라마바사" * 5) for i in range(30)]
    grouping = group_records([*many, *one], PARAMS.likeness)
    assert len(grouping.groups) == 10
    check_parts({"train": many[:5], "validation": one, "test": many[5:]}, grouping, PARAMS)
    for name, other in (("test", "train"), ("train", "test")):
        with pytest.raises(ParameterError, match=f"the {name} split is one group of 30 near-duplicates"):
            check_parts({"validation": [], name: one, other: many}, grouping, PARAMS)


def test_categories_that_stand_in_test_alone_are_named(run_split, capsys):
    records = [*make(20), record("상속 포기는 언제까지 할 수 있습니까", ("상속", ""))]
    told = []
    for fold in range(5):
        metrics, parts = run_split(records, fold=fold)
        alone = {r.category for r in parts["test"]} - {r.category for r in parts["train"]}
        assert metrics["test_data"]["untrained_categories"] == sorted(alone)
        told.append("categories in test alone, of which nothing is trained on: 상속" in capsys.readouterr().out)
        assert told[-1] == bool(alone)
    assert sum(told) == 1


def test_a_similarity_outside_its_range_is_refused():
    for value in (0, -0.1, 1.1):
        with pytest.raises(ValueError, match="near_duplicate_similarity"):
            SplitParams(**PARAMS.model_dump() | {"near_duplicate_similarity": value})
        with pytest.raises(ValueError, match="near_duplicate_answer_similarity"):
            SplitParams(**PARAMS.model_dump() | {"near_duplicate_answer_similarity": value})
