import math

import pytest
import torch
from transformers import GenerationConfig

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.generation.answers import Decoding, answer_bits, answer_questions, generate
from civilqa.model.hardware import Hardware
from civilqa.model.loading import load_base
from conftest import ROOT

HARDWARE = Hardware("cpu", "fp32", 2)
END = 1


@pytest.fixture(scope="module")
def tiny():
    return Profile(name=str(ROOT / "models/tiny"), weights="random")


@pytest.fixture(scope="module")
def base(tiny):
    return load_base(ModelParams(profile="tiny", seed=1), tiny, HARDWARE)


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return load_tokenizer(tiny)


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def rows(*lengths):
    return [
        {"id": f"q-{i}", "prompt_ids": [0, *range(20, 20 + n)], "completion_ids": [30 + i, 40, 50, END]}
        for i, n in enumerate(lengths)
    ]


def test_a_padded_batch_answers_as_one_by_one(base, tokenizer):
    decoding = Decoding(max_new_tokens=12, batch_size=4, end_token_id=END)
    prompts = [row["prompt_ids"] for row in rows(3, 9, 5, 14)]
    alone = [generate(base, tokenizer, [prompt], decoding)[0] for prompt in prompts]
    assert generate(base, tokenizer, prompts, decoding) == alone


def test_an_answer_ends_at_the_limit_or_at_the_end_token(base, tokenizer):
    free = generate(base, tokenizer, [[0, 20, 21]], Decoding(8, 1, END))[0]
    assert len(free) == 8
    # Whatever the random model says third becomes the end token: the answer must then end there.
    assert generate(base, tokenizer, [[0, 20, 21]], Decoding(8, 1, free[2]))[0] == free[: free.index(free[2]) + 1]


def test_answers_are_those_of_transformers_however_long_each_is(base, tokenizer):
    """The end token is one that some of the answers reach early, some late and some never."""
    prompts = [row["prompt_ids"] for row in rows(3, 9, 5, 14, 7, 11)]
    free = generate(base, tokenizer, prompts, Decoding(24, 6, END))
    end = free[0][5]
    config = GenerationConfig(max_new_tokens=24, eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = base.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        expected.append(output[0, len(prompt) :].tolist())
    assert generate(base, tokenizer, prompts, Decoding(24, 6, end)) == expected
    assert len({len(answer) for answer in expected}) > 1


def test_a_row_that_has_ended_is_computed_no_more(base, tokenizer, monkeypatch):
    prompts = [row["prompt_ids"] for row in rows(3, 9, 5)]
    free = generate(base, tokenizer, prompts, Decoding(12, 3, END))
    end = free[0][4]
    assert all(end not in answer for answer in free[1:])
    sizes = []
    forward = type(base).forward
    monkeypatch.setattr(
        type(base), "forward", lambda self, **inputs: sizes.append(len(inputs["input_ids"])) or forward(self, **inputs)
    )
    generate(base, tokenizer, prompts, Decoding(12, 3, end))
    ended = free[0].index(end) + 1
    assert sizes == [3] * ended + [2] * (12 - ended)


def test_sampling_settings_of_an_instruct_model_are_not_used(base, tokenizer):
    decoding = Decoding(8, 1, END)
    greedy = generate(base, tokenizer, [[0, 20, 21]], decoding)
    base.generation_config.update(do_sample=True, temperature=5.0, top_k=0)
    assert generate(base, tokenizer, [[0, 20, 21]], decoding) == greedy


def test_bits_are_those_of_the_models_loss(base):
    prompt, completion = [0, 20, 21], [30, 31, 32, END]
    ids = torch.tensor([prompt + completion[:-1]])
    labels = ids.clone()
    labels[0, : len(prompt)] = -100
    with torch.inference_mode():
        mean_nats = base(ids, labels=labels).loss.item()
    assert answer_bits(base, prompt, completion) == pytest.approx(mean_nats * 3 / math.log(2), rel=1e-5)


def test_a_uniform_model_pays_the_logarithm_of_the_vocabulary(base, tiny):
    flat = load_base(ModelParams(profile="tiny", seed=1), tiny, HARDWARE)
    with torch.no_grad():
        flat.model.norm.weight.zero_()
    assert answer_bits(flat, [0, 20], [30, 31, END]) == pytest.approx(2 * math.log2(base.config.vocab_size))


def ask(tokenizer, loader, questions, *, identity="a", regenerate=False, **decoding):
    settings = Decoding(**{"max_new_tokens": 4, "batch_size": 2, "end_token_id": END} | decoding)
    return answer_questions(
        questions, loader, {"weights": identity}, tokenizer, settings, regenerate=regenerate, description="test"
    )


class CountingLoader:
    def __init__(self, model):
        self.model, self.calls = model, 0

    def __call__(self):
        self.calls += 1
        return self.model


def test_kept_answers_need_no_model(base, tokenizer):
    loader = CountingLoader(base)
    first = ask(tokenizer, loader, rows(3, 9, 5))
    assert loader.calls == 1
    assert ask(tokenizer, loader, rows(3, 9, 5)) == first
    assert loader.calls == 1


@pytest.mark.parametrize(
    "change",
    [{"identity": "b"}, {"max_new_tokens": 5}, {"end_token_id": 2}, {"regenerate": True}],
    ids=["other weights", "other limit", "other end token", "asked to"],
)
def test_what_decides_an_answer_makes_it_again(base, tokenizer, change):
    loader = CountingLoader(base)
    ask(tokenizer, loader, rows(3, 9, 5))
    ask(tokenizer, loader, rows(3, 9, 5), **change)
    assert loader.calls == 2


def test_another_question_is_answered_anew(base, tokenizer):
    loader = CountingLoader(base)
    ask(tokenizer, loader, rows(3))
    ask(tokenizer, loader, rows(4))
    assert loader.calls == 2


def test_answers_come_back_in_the_order_of_the_questions(base, tokenizer):
    loader = CountingLoader(base)
    forward = ask(tokenizer, loader, rows(9, 3, 5), batch_size=1)
    by_id = {row["id"]: answer for row, answer in zip(rows(9, 3, 5), forward, strict=True)}
    backward = ask(tokenizer, loader, rows(9, 3, 5)[::-1], batch_size=1)
    assert backward == [by_id[row["id"]] for row in rows(9, 3, 5)[::-1]]
