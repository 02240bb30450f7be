import pytest

from civilqa.base_model.prompts import read_formatted
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import write_jsonl
from civilqa.training.answer_loss import IGNORED_LABEL
from civilqa.training.examples import check_validation, make_examples, pack
from small_training import recipe_of, varied_rows


def formatted(tmp_path, *lengths):
    path = tmp_path / "train.jsonl"
    rows = [
        {"id": f"q-{index}", "prompt_ids": [5] * prompt, "completion_ids": [6] * completion}
        for index, (prompt, completion) in enumerate(lengths)
    ]
    write_jsonl(path, rows)
    return path


def examples_from(path, max_length, overlong):
    return make_examples(path, read_formatted(path), max_length, overlong)


def test_the_prompt_is_ignored_by_the_loss(tmp_path):
    (example,), over = examples_from(formatted(tmp_path, (2, 3)), None, "stop")
    assert example == {"input_ids": [5, 5, 6, 6, 6], "labels": [IGNORED_LABEL] * 2 + [6] * 3}
    assert over == []


def test_a_record_over_the_limit_stops_the_stage_and_is_named(tmp_path):
    with pytest.raises(ParameterError, match=r"1 records of .* longer than 4 tokens: q-1 \(5 tokens"):
        examples_from(formatted(tmp_path, (2, 2), (2, 3)), 4, "stop")


def test_truncation_is_listed_and_cuts_the_answers_end(tmp_path):
    examples, over = examples_from(formatted(tmp_path, (2, 2), (2, 3)), 4, "truncate")
    assert over == ["q-1"]
    assert [len(example["input_ids"]) for example in examples] == [4, 4]
    assert examples[1]["labels"] == [IGNORED_LABEL] * 2 + [6, 6]


def test_a_prompt_that_fills_the_limit_is_refused_even_when_truncating(tmp_path):
    with pytest.raises(ParameterError, match=r"longer than 4 tokens: .*their prompts alone leave no room"):
        examples_from(formatted(tmp_path, (4, 3)), 4, "truncate")


def test_a_line_without_tokens_names_the_stage_to_run(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"id": "q-1"}\n', encoding="utf-8")
    with pytest.raises(RecordError, match="run `dvc repro format`"):
        examples_from(path, None, "stop")


def test_a_cut_off_file_is_named_with_its_line(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"prompt_ids": [1], "completion_ids": [1], "id": "a"}\n{"prompt_ids": [1', encoding="utf-8")
    with pytest.raises(RecordError, match=r"train.jsonl:2: no JSON"):
        examples_from(path, None, "stop")


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"keep": "best"}, "keep"), ({"keep": "last", "early_stopping_patience": 3}, "early_stopping_patience")],
)
def test_judging_by_a_validation_split_that_is_empty_is_refused(changes, key):
    rows = [{"input_ids": [1], "labels": [1]}]
    with pytest.raises(ParameterError, match=rf"params.yaml: train.{key}: found .*no validation split"):
        check_validation({"train": rows, "validation": []}, recipe_of(1, **changes))
    check_validation({"train": rows, "validation": rows}, recipe_of(1, **changes))
    check_validation({"train": rows, "validation": []}, recipe_of(1, keep="last"))


def test_packing_cuts_no_record_and_loses_none():
    rows = varied_rows(30)
    packed = pack(rows, 50)
    assert all(len(row["input_ids"]) == sum(row["seq_lengths"]) <= 50 for row in packed)
    pieces = []
    for row in packed:
        start = 0
        for length in row["seq_lengths"]:
            pieces.append((row["input_ids"][start : start + length], row["labels"][start : start + length]))
            start += length
    assert sorted(pieces) == sorted((row["input_ids"], row["labels"]) for row in rows)


def test_packing_without_a_length_to_fill_is_refused():
    with pytest.raises(ParameterError, match=r"train.packing: found true, but train.max_length is null"):
        pack(varied_rows(), None)
