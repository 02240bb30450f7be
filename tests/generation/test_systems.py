import json

import pytest
from transformers import LlamaConfig

from civilqa.base_model.profiles import Profile
from civilqa.generation.answers import answer_limit, check_room, choose_batch_size, largest_batch
from civilqa.model.hardware import Hardware
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


LLAMA_1B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    tie_word_embeddings=True,
)


@pytest.mark.parametrize(
    ("gib", "itemsize", "batch_size"),
    # 2.47 GB of weights, twice; a row of 500 tokens takes 500 * (4 * 32,768 + 98,304) + 1,282,560 bytes = 116 MB.
    [(141, 2, 256), (24, 2, 128), (12, 2, 32), (8, 2, 16), (4, 2, 1), (24, 4, 32)],
)
def test_as_many_questions_are_asked_at_a_time_as_a_card_has_memory_for(gib, itemsize, batch_size):
    assert largest_batch(gib * 2**30, LLAMA_1B, itemsize, 500) == batch_size


def test_the_cpu_asks_64_questions_at_a_time_unless_told_otherwise():
    chosen = [
        choose_batch_size(asked, [], 9, Profile(name="none"), Hardware("cpu", "fp32", 2)) for asked in ("auto", 7)
    ]
    assert chosen == [64, 7]
