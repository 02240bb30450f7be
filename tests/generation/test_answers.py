import copy
import math
from types import SimpleNamespace

import pytest
import torch
from tqdm import tqdm
from transformers import MistralConfig, MistralForCausalLM

from civilqa.generation import answers
from civilqa.generation.answers import (
    answer_bits,
    answer_questions,
    ask_systems,
    rate_statements,
    shared_beginnings,
    statement_bits,
)
from civilqa.generation.decoding import Decoding
from civilqa.model.hardware import Hardware
from civilqa.program.files import sha256_json

END = 1


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def rows(*lengths):
    return [
        {"id": f"q-{i}", "prompt_ids": [0, *range(20, 20 + n)], "completion_ids": [30 + i, 40, 50, END]}
        for i, n in enumerate(lengths)
    ]


def test_bits_are_those_of_the_models_loss(base):
    prompt, completion = [0, 20, 21], [30, 31, 32, END]
    ids = torch.tensor([prompt + completion[:-1]])
    labels = ids.clone()
    labels[0, : len(prompt)] = -100
    with torch.inference_mode():
        mean_nats = base(ids, labels=labels).loss.item()
    assert answer_bits(base, prompt, completion) == pytest.approx(mean_nats * 3 / math.log(2), rel=1e-5)


def test_a_uniform_model_pays_the_logarithm_of_the_vocabulary(base):
    flat = copy.deepcopy(base)
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
    [
        {"identity": "b"},
        {"max_new_tokens": 5},
        {"end_token_id": 2},
        {"temperature": 0.5},
        {"cuda_graphs": True},
        {"regenerate": True},
    ],
    ids=["other weights", "other limit", "other end token", "drawn", "by graphs", "asked to"],
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


def test_the_systems_that_look_articles_up_have_answers_of_their_own(base, tokenizer, monkeypatch, tmp_path):
    asked = {}

    def note(rows, load, identity, *rest, **named):
        asked[named["description"]] = {sha256_json([identity, row["prompt_ids"]]) for row in rows}
        return load()

    for name in ("answer_questions", "rate_statements"):
        monkeypatch.setattr(answers, name, note)
    monkeypatch.setattr(answers, "load_base", lambda *_: "base")
    monkeypatch.setattr(answers, "load_tuned", lambda *_: "tuned")
    manifest = SimpleNamespace(base={"sha256": "b"})
    adapter = SimpleNamespace(model=None, profile=None, manifest=manifest, identity={"sha256": "a"})
    plain, found = [{"prompt_ids": [0, 20]}], [{"prompt_ids": [0, 21, 20]}]
    rows = {"adapter": plain, "retrieval": found, "adapter_retrieval": found, "base": plain}
    hardware = Hardware("cpu", "fp32", 2)
    given, bits = ask_systems(rows, rows, adapter, hardware, tokenizer, None, regenerate=False)
    tuned = {"adapter": "tuned", "adapter_retrieval": "tuned", "base": "base", "retrieval": "base"}
    assert given == bits == tuned
    assert list(given)[:2] == ["retrieval", "base"], "merging the adapter changes the base in place"
    assert len(set.union(*asked.values())) == 4
    assert len(asked) == 8


def test_answers_come_back_in_the_order_of_the_questions(base, tokenizer):
    loader = CountingLoader(base)
    forward = ask(tokenizer, loader, rows(9, 3, 5), batch_size=1)
    by_id = {row["id"]: answer for row, answer in zip(rows(9, 3, 5), forward, strict=True)}
    backward = ask(tokenizer, loader, rows(9, 3, 5)[::-1], batch_size=1)
    assert backward == [by_id[row["id"]] for row in rows(9, 3, 5)[::-1]]


def test_statements_cost_what_answers_cost_whatever_stands_beside_them(base):
    prompt = [0, *range(20, 60)]
    statements = [[30, 31, 32], [33], [40, 41, 42, 43, 44], [30, 31]]
    alone = [answer_bits(base, prompt, [*ids, END]) for ids in statements]
    assert statement_bits(base, prompt, statements) == pytest.approx(alone, rel=1e-5)
    assert statement_bits(base, prompt, statements[:3]) == pytest.approx(alone[:3], rel=1e-5)


@pytest.mark.parametrize("window", [None, 8])
def test_the_beginnings_that_prompts_share_are_read_once(base, window, monkeypatch):
    config = MistralConfig(**base.config.to_dict() | {"model_type": "mistral", "sliding_window": window})
    model = MistralForCausalLM(config).eval()
    monkeypatch.setattr(answers, "LEAST_SHARED", 30)
    categories, own = ([0, *range(20, 60)], [0, *range(25, 65)]), ([], [70], [70, 71, 72])
    asked = [
        {"prompt_ids": [*examples, *ids], "statement_ids": [[30, 31], [32]]} for ids in own for examples in categories
    ]
    alone = [statement_bits(model, row["prompt_ids"], row["statement_ids"]) for row in asked]
    read = []
    hook = model.register_forward_pre_hook(
        lambda _, given, named: read.append((*given, named.get("input_ids"))[0].shape[1]), with_kwargs=True
    )
    found = rate_statements(asked, lambda: model, {}, regenerate=False, description="test")
    hook.remove()
    assert found == [pytest.approx(bits, rel=1e-5) for bits in alone]
    # Each beginning but for its last two tokens; of each prompt the rest but for its last token, and the statements.
    assert read == [39, 1, 2, 39, 1, 2, *(2, 2) * 2, *(4, 2) * 2]


def test_only_what_is_long_enough_is_shared():
    examples = list(range(300))
    prompts = [[*examples, 7], [9, *examples], [*examples, 8, 9]]
    shared = tuple(range(298))
    assert shared_beginnings(prompts) == [shared, (), shared]  # nobody begins as the second does
    assert shared_beginnings([prompt[100:] for prompt in prompts]) == [()] * 3
    assert shared_beginnings([[*examples], [*examples]]) == [shared] * 2
    assert shared_beginnings([[1, 2]]) == [()]
    assert shared_beginnings([]) == []


def test_kept_statements_need_no_model(base):
    loader = CountingLoader(base)
    asked = [
        {"prompt_ids": [0, 20], "statement_ids": [[30, 31], [32]]},
        {"prompt_ids": [0, 21], "statement_ids": [[30], [31]]},
    ]

    def rate(rows, identity="a", regenerate=False):
        return rate_statements(rows, loader, {"weights": identity}, regenerate=regenerate, description="test")

    first = rate(asked)
    assert rate(asked[::-1]) == first[::-1]
    assert loader.calls == 1
    assert rate(asked, regenerate=True) == first
    rate(asked, identity="b")
    rate([{**asked[0], "statement_ids": [[30, 31], [33]]}])
    assert loader.calls == 4


def test_the_bar_moves_with_every_token_of_a_batch_and_ends_full(base, tokenizer, monkeypatch):
    moved = []

    class Bar(tqdm):
        def update(self, n=1):
            moved.append(n)
            return super().update(n)

    monkeypatch.setattr(answers, "tqdm", Bar)
    for _ in range(2):  # the second time all are kept
        ask(tokenizer, lambda: base, rows(3, 9, 5), max_new_tokens=6, end_token_id=-1)
    assert moved == [1] * 6 + [0] + [1] * 6 + [0] + [6, 6]
