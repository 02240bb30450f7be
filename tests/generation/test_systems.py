import json

import pytest

from civilqa.generation.answers import answer_limit, check_room
from civilqa.program.errors import ParameterError


def test_an_answer_may_be_a_quarter_longer_than_the_longest_of_the_training_split(tmp_path):
    for name, lengths in {"train": (3, 9, 5), "test": (40,)}.items():
        rows = [{"id": f"{name}-{n}", "prompt_ids": [7], "completion_ids": [8] * n} for n in lengths]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    train = tmp_path / "train.jsonl"
    assert answer_limit("auto", train) == 12  # 11.25, rounded up; the test split's 40 have no part in it
    assert answer_limit(7, train) == 7


def test_an_answer_needs_room_in_what_the_base_reads():
    rows = [{"prompt_ids": [7] * n} for n in (2, 6)]
    check_room(rows, 10, 16)
    with pytest.raises(ParameterError, match=r"max_new_tokens: 11 tokens an answer, want at most 10: .* reads 16 tok"):
        check_room(rows, 11, 16)
