import pytest
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from civilqa.generation.decoding import Decoding, choose, decode, generate

END = 1
DRAWN = {"temperature": 0.9, "top_p": 0.95}


def prompts_of(*lengths):
    return [[0, *range(20, 20 + length)] for length in lengths]


def one_by_one(model, tokenizer, prompts, **settings):
    """The answers of transformers' own loop, each question by itself."""
    config = GenerationConfig(pad_token_id=tokenizer.pad_token_id, **settings)
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        answers.append(output[0, len(prompt) :].tolist())
    return answers


def test_a_padded_batch_answers_as_one_by_one(base, tokenizer):
    decoding = Decoding(12, 4, END)
    prompts = prompts_of(3, 9, 5, 14)
    alone = [generate(base, tokenizer, [prompt], decoding)[0] for prompt in prompts]
    assert generate(base, tokenizer, prompts, decoding) == alone


def test_an_answer_ends_at_the_limit_or_at_the_end_token(base, tokenizer):
    free = generate(base, tokenizer, [[0, 20, 21]], Decoding(8, 1, END))[0]
    assert len(free) == 8
    # Whatever the random model says third becomes the end token: the answer must then end there.
    assert generate(base, tokenizer, [[0, 20, 21]], Decoding(8, 1, free[2]))[0] == free[: free.index(free[2]) + 1]


def test_answers_are_those_of_transformers_however_long_each_is(base, tokenizer):
    """The end token is one that some of the answers reach early, some late and some never."""
    prompts = prompts_of(3, 9, 5, 14, 7, 11)
    free = generate(base, tokenizer, prompts, Decoding(24, 6, END))
    end = free[0][5]
    expected = one_by_one(base, tokenizer, prompts, max_new_tokens=24, eos_token_id=end)
    assert generate(base, tokenizer, prompts, Decoding(24, 6, end)) == expected
    assert len({len(answer) for answer in expected}) > 1


def test_a_row_that_has_ended_is_computed_no_more(base, tokenizer, monkeypatch):
    prompts = prompts_of(3, 9, 5)
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


def test_sampling_settings_of_an_instruct_model_are_not_used(base, tokenizer, monkeypatch):
    decoding = Decoding(8, 1, END)
    greedy = generate(base, tokenizer, [[0, 20, 21]], decoding)
    own = GenerationConfig(do_sample=True, temperature=5.0, top_k=0, repetition_penalty=2.0)
    monkeypatch.setattr(base, "generation_config", own)
    assert generate(base, tokenizer, [[0, 20, 21]], decoding) == greedy


def test_with_a_repetition_penalty_answers_are_those_of_transformers(base, tokenizer):
    """The prompt counts as said, the padding of a batch does not."""
    prompts = prompts_of(3, 9, 5, 14)
    penalised = generate(base, tokenizer, prompts, Decoding(24, 4, END, repetition_penalty=1.3))
    assert penalised != generate(base, tokenizer, prompts, Decoding(24, 4, END))
    end = penalised[0][5]  # rows leave the batch, and what they said with them
    expected = one_by_one(base, tokenizer, prompts, max_new_tokens=24, eos_token_id=end, repetition_penalty=1.3)
    assert generate(base, tokenizer, prompts, Decoding(24, 4, end, repetition_penalty=1.3)) == expected
    assert len({len(answer) for answer in expected}) > 1


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [1e-6, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_a_token_is_drawn_with_the_probabilities_of_transformers(monkeypatch, temperature, top_p, penalty):
    torch.manual_seed(3)
    logits, ids = torch.randn(4, 50) * 3, torch.randint(50, (4, 12))
    theirs = LogitsProcessorList(
        [RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)]
    )
    if top_p == 1:  # for which transformers leaves it out
        theirs.pop()
    drawn_with = []
    draw = torch.multinomial
    monkeypatch.setattr(torch, "multinomial", lambda odds, *args, **more: drawn_with.append(odds) or draw(odds, 1))
    said = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)
    decoding = Decoding(1, 4, END, temperature, top_p, penalty)
    choose(logits, said if penalty != 1 else None, decoding, torch.Generator())
    torch.testing.assert_close(drawn_with[0], theirs(ids, logits.clone()).softmax(dim=-1), rtol=1e-6, atol=0)


def test_only_the_likeliest_tokens_that_make_up_top_p_are_drawn_each_as_often_as_it_is_likely():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().repeat(10_000, 1)
    chosen = choose(logits, None, Decoding(1, 1, END, 1.0, 0.85), torch.Generator().manual_seed(0))
    assert chosen.shape == (10_000, 1)
    shares = chosen[:, 0].bincount(minlength=4) / 10_000
    assert shares.tolist() == pytest.approx([0.4 / 0.9, 0.3 / 0.9, 0.2 / 0.9, 0], abs=0.02)


def test_drawn_answers_depend_on_the_seed_alone(base, tokenizer):
    prompts = prompts_of(3, 9, 5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = generate(base, tokenizer, prompts, Decoding(12, 3, END, **DRAWN, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert generate(base, tokenizer, prompts, Decoding(12, 3, END, **DRAWN, seed=1)) == first
    assert generate(base, tokenizer, prompts, Decoding(12, 3, END, **DRAWN, seed=2)) != first


def test_who_reads_no_further_has_no_further_token_computed(base, tokenizer, monkeypatch):
    calls = []
    forward = type(base).forward
    monkeypatch.setattr(type(base), "forward", lambda self, **inputs: calls.append(1) or forward(self, **inputs))
    steps = decode(base, tokenizer, prompts_of(3, 9), Decoding(100, 2, END))
    first = [next(steps) for _ in range(3)]
    steps.close()
    assert len(calls) == 3
    assert [[index for index, _ in step] for step in first] == [[0, 1]] * 3
    whole = generate(base, tokenizer, prompts_of(3, 9), Decoding(3, 2, END))
    assert [list(tokens) for tokens in zip(*whole, strict=True)] == [[token for _, token in step] for step in first]
