"""The epoch that is kept is one whose answers end, though the loss on validation answers was lower before."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from civilqa.base_model.prompts import load_tokenizer
from civilqa.generation.decoding import Decoding, generate
from civilqa.generation.loops import LOOPS, is_hopeless, repeated_share
from civilqa.model.loading import save_adapter
from civilqa.training import answer_check
from civilqa.training.answer_check import AnswerCheck, make_answer_check
from civilqa.training.answer_loss import IGNORED_LABEL
from civilqa.training.plan import Trained, describe_kept
from civilqa.training.trainer import RANK_OF_FAILED
from civilqa.training.varlen_attention import VARLEN_ATTENTION
from small_training import HARDWARE, losses_of, recipe_of, trainer_of

PROMPTS = [[token] * (6 + token % 4) for token in range(20, 28)]  # of several lengths, so that a batch is padded
LIMIT = 12


def rows_of(prompts, answer, end):
    return [
        {"input_ids": [*prompt, *answer, end], "labels": [IGNORED_LABEL] * len(prompt) + [*answer, end]}
        for prompt in prompts
    ]


@pytest.fixture(scope="module")
def tokenizer(small_base):
    return load_tokenizer(small_base)


@pytest.fixture(scope="module")
def examples(tokenizer):
    """The same questions in both splits, with references that nobody is taught in validation: its loss only rises."""
    end = tokenizer.eos_token_id
    return {"train": rows_of(PROMPTS, range(40, 46), end), "validation": rows_of(PROMPTS, range(900, 906), end)}


def trained_on(small_base, examples, folder, check, **changes):
    recipe = recipe_of(len(PROMPTS), **({"keep": "best", "epochs": 12.0, "learning_rate": 5e-3} | changes))
    trainer = trainer_of(
        small_base, recipe, examples["train"], folder / "checkpoints", examples["validation"], answer_check=check
    )
    trainer.train()
    save_adapter(trainer.model, folder / "adapter")
    return trainer


@pytest.fixture(scope="module")
def check(tokenizer, examples):
    return make_answer_check(examples, tokenizer, LIMIT, tokenizer.eos_token_id)


@pytest.fixture(scope="module")
def trained(small_base, examples, check, tmp_path_factory):
    return trained_on(small_base, examples, tmp_path_factory.mktemp("checked"), check)


def epochs_of(trainer):
    return [row for row in trainer.state.log_history if "eval_loss" in row]


def test_the_epoch_that_is_kept_ends_its_answers_though_an_earlier_one_had_less_loss(trained, check):
    epochs = epochs_of(trained)
    by_loss = min(epochs, key=lambda row: row["eval_loss"])
    kept = min(epochs, key=lambda row: (row["eval_failed_answers"], row["eval_loss"]))
    assert by_loss["eval_failed_answers"] > 0 == kept["eval_failed_answers"]
    assert (trained.state.best_global_step, trained.state.best_metric) == (kept["step"], kept["eval_loss"])
    assert check.share_failed(trained.model.get_base_model().eval()) == 0  # the weights that were loaded at the end


def test_without_the_check_it_would_be_the_one_that_loops(small_base, examples, trained, tmp_path):
    plain = trained_on(small_base, examples, tmp_path, None)
    assert losses_of(plain) == losses_of(trained), "asking in between must change no step"
    assert plain.state.best_global_step < trained.state.best_global_step


def test_answers_are_those_of_each_question_by_itself(trained, tokenizer, check):
    """Training's attention takes rows of records, without padding and cache: it is another while answers are made."""
    model = trained.model.get_base_model().eval()
    assert model.config._attn_implementation == VARLEN_ATTENTION
    alone = [replace(check, prompts=[prompt]).share_failed(model) for prompt in check.prompts]
    assert check.share_failed(model) == sum(alone) / len(alone)
    assert model.config._attn_implementation == VARLEN_ATTENTION
    model.set_attn_implementation("sdpa")
    try:
        together = generate(model, tokenizer, check.prompts, check.decoding)
    finally:
        model.set_attn_implementation(VARLEN_ATTENTION)
    checked = []
    spy = replace(check)
    object.__setattr__(spy, "_ends_cleanly", lambda tokens: checked.append(tokens) or True)
    spy.share_failed(model)
    assert checked == together


@pytest.mark.parametrize(
    ("said", "fails"),
    [
        ("보증금은 계약이 끝나면 돌려받습니다.", False),
        ("보증금은 보증금은 보증금은 보증금은 보증금은 보증금은 보증금은", True),
        ("", True),
        ("  ", True),
    ],
)
def test_an_answer_fails_that_loops_or_is_empty_or_does_not_end(tokenizer, said, fails):
    check = AnswerCheck([[1]], tokenizer, Decoding(99, 1, tokenizer.eos_token_id))
    tokens = tokenizer.encode(said, add_special_tokens=False)
    assert check._ends_cleanly([*tokens, tokenizer.eos_token_id]) is not fails
    assert not tokens or not check._ends_cleanly(tokens)


@pytest.mark.parametrize(
    ("words", "left", "hopeless"),
    [
        (["네"] * 20, 0, True),
        (["네"] * 20, 80, True),  # 16 of 97 4-grams are repeated at best
        (["네"] * 20, 100, False),
        ([*map(str, range(20))], 0, False),
        ([], 5, False),
    ],
)
def test_an_answer_is_given_up_when_nothing_to_come_at_its_pace_could_mend_it(words, left, hopeless):
    tokens_of_a_word = 3
    assert is_hopeless(words, tokens_of_a_word * len(words) or 1, tokens_of_a_word * left) is hopeless
    best = repeated_share([*words, *map(str, range(1000, 1000 + left))])
    assert not hopeless or best > LOOPS


def test_looping_answers_are_not_written_to_their_end(small_base, tokenizer, monkeypatch):
    steps = []
    word = tokenizer.encode(" 보증금", add_special_tokens=False)[-1]

    def decode(*args):
        for _ in range(1000):
            steps.append([(0, word)])
            yield steps[-1]

    monkeypatch.setattr(answer_check, "decode", decode)
    monkeypatch.setattr(AnswerCheck, "_words", lambda self, tokens: ["네"] * len(tokens))
    check = AnswerCheck([[1]], tokenizer, Decoding(1000, 1, tokenizer.eos_token_id))
    model = SimpleNamespace(
        config=SimpleNamespace(_attn_implementation="sdpa"),
        set_attn_implementation=lambda _: None,
        get_output_embeddings=lambda: torch.nn.Linear(1, 1),
    )
    assert check.share_failed(model) == 1
    assert len(steps) < 200


def test_it_asks_in_the_precision_of_training(small_base, examples, check, tmp_path):
    """The adapter's weights are in fp32 beside a base in 16 bits: outside of autocast they would not multiply."""
    half = replace(HARDWARE, precision="bf16", fused_lora=True)
    trainer = trained_on(small_base, examples, tmp_path, check, hardware=half, epochs=1.0)
    assert 0 <= epochs_of(trainer)[0]["eval_failed_answers"] <= 1


def test_what_is_told_of_the_kept_epoch(trained):
    def kept_where(keep):
        plan = SimpleNamespace(recipe=SimpleNamespace(keep=keep))
        return Trained.kept_epoch.fget(SimpleNamespace(history=trained.state.log_history, plan=plan))

    assert kept_where("last") is None  # where answers only decide when to stop
    kept = kept_where("best")
    assert kept["step"] == trained.state.best_global_step
    assert kept["validation_loss"] < RANK_OF_FAILED
    assert json.loads(json.dumps(kept)) == kept
    assert "all of its validation answers end" in describe_kept(kept)
    failed = describe_kept(kept | {"failed_answers": 0.8})
    assert failed.startswith("warning: keeps epoch")
    assert "80% of its validation answers do not end or loop" in failed
    assert describe_kept(None) == ""
