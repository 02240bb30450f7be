"""A step over a cache of fixed room, as it is captured on CUDA: here without the capture."""

import gc
import itertools
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from civilqa.generation import cuda_graphs
from civilqa.generation.cuda_graphs import LEAST_ROWS, ROOM_TOKENS, CapturedStep, kept, kept_of, take_step
from civilqa.generation.decoding import Decoding, decode, generate

END = 97  # no token: an answer goes on to its limit
SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
}


@pytest.fixture
def model():
    torch.manual_seed(5)
    return LlamaForCausalLM(LlamaConfig(**SMALL)).eval()


def prompts_of(count, seed=0):
    """Prompts of uneven lengths."""
    torch.manual_seed(seed)
    return [torch.randint(3, 97, (3 + 7 * row % 19,)).tolist() for row in range(count)]


def both(model, tokenizer, prompts, new, end=END, **settings):
    """Answers by the plain loop, and over a cache of fixed room."""
    return [
        generate(model, tokenizer, prompts, Decoding(new, len(prompts), end, **settings, cuda_graphs=fixed))
        for fixed in (False, True)
    ]


@pytest.fixture
def made(monkeypatch):
    """The rows and room of each step that is made."""
    sizes = []
    begin = CapturedStep.__init__

    def record(self, model, rows, room, like):
        sizes.append((rows, room))
        begin(self, model, rows, room, like)

    monkeypatch.setattr(CapturedStep, "__init__", record)
    return sizes


WAYS = {
    "greedy": {},
    "penalised": {"repetition_penalty": 1.3},
    "drawn": {"temperature": 0.9, "top_p": 0.9, "seed": 3},
    "drawn and penalised": {"temperature": 1.2, "repetition_penalty": 1.2},
}


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("count", [1, 3, 8, 21])
def test_answers_are_those_of_the_plain_loop(model, tokenizer, made, settings, count):
    """The end token is one that some answers reach early, some late and some never."""
    prompts = prompts_of(count)
    free, fixed = both(model, tokenizer, prompts, 40, **settings)
    assert fixed == free
    end = free[0][7]
    ended, fixed = both(model, tokenizer, prompts, 40, end, **settings)
    assert fixed == ended
    assert any(len(answer) < 40 and answer[-1] == end for answer in ended)
    assert made


def test_the_tiny_base_answers_as_in_the_plain_loop(base, tokenizer, made):
    prompts = [[0, *range(20, 20 + length)] for length in (3, 9, 5, 14)]
    free, fixed = both(base, tokenizer, prompts, 24, tokenizer.eos_token_id)
    assert fixed == free
    assert made == [(4, ROOM_TOKENS)]


@pytest.mark.parametrize("new", [1, 2, 3, 5, 16, 17, 18, 33])
@pytest.mark.parametrize("count", [1, 2])
def test_any_limit_is_kept_to_the_token(model, tokenizer, new, count):
    free, fixed = both(model, tokenizer, prompts_of(count), new)
    assert fixed == free
    assert [len(answer) for answer in fixed] == [new] * count


def test_one_token_needs_no_fixed_cache(model, tokenizer, made):
    both(model, tokenizer, prompts_of(3), 1)
    assert made == []


def test_a_room_is_filled_to_its_last_token(model, tokenizer, made):
    (prompt,) = prompts_of(1)
    free, fixed = both(model, tokenizer, [prompt], ROOM_TOKENS - len(prompt))
    assert fixed == free
    assert made == [(1, ROOM_TOKENS)]


def test_few_that_go_on_move_to_a_smaller_step(model, tokenizer, made, monkeypatch):
    """All but a few rows end within the first tokens: that is arranged by what they end with."""
    prompts = prompts_of(4 * LEAST_ROWS)
    free = generate(model, tokenizer, prompts, Decoding(60, len(prompts), END))
    firsts = [set(answer[:4]) for answer in free]
    by_end = {end: sum(end in first for first in firsts) for end in set().union(*firsts)}
    end = max(by_end, key=by_end.get)
    going = len(prompts) - by_end[end]
    monkeypatch.setattr(cuda_graphs, "SHRINK", len(prompts) / going)
    ended, fixed = both(model, tokenizer, prompts, 60, end)
    assert fixed == ended
    assert made[0] == (4 * LEAST_ROWS, ROOM_TOKENS)
    assert len(made) > 1
    assert made[1][0] < made[0][0]


def test_the_next_batch_of_a_size_takes_the_step_that_is_there(model, tokenizer, made):
    for seed, count in enumerate((3, 4, 3)):
        free, fixed = both(model, tokenizer, prompts_of(count, seed), 20)
        assert fixed == free
    assert made == [(4, ROOM_TOKENS)]


def test_a_step_whose_reader_stopped_early_is_there_again(model, tokenizer, made):
    steps = decode(model, tokenizer, prompts_of(3), Decoding(30, 3, END, cuda_graphs=True))
    for _ in range(5):
        next(steps)
    steps.close()
    free, fixed = both(model, tokenizer, prompts_of(3), 20)
    assert fixed == free
    assert len(made) == 1


def test_two_readers_at_a_time_have_a_step_each(model, tokenizer):
    decoding = Decoding(40, 3, END, cuda_graphs=True)
    asked = [prompts_of(3, seed) for seed in (1, 2)]
    read = zip(*(decode(model, tokenizer, prompts, decoding) for prompts in asked), strict=True)
    answers = [[[token for _, token in step] for step in steps] for steps in zip(*read, strict=True)]
    for prompts, answer in zip(asked, answers, strict=True):
        free = generate(model, tokenizer, prompts, Decoding(40, 3, END))
        assert [list(tokens) for tokens in zip(*answer, strict=True)] == free


def test_what_a_row_left_behind_is_hidden_from_the_next(model, tokenizer):
    """Even what is not a number: a bias of minus infinity does not hide that."""
    both(model, tokenizer, prompts_of(3), 60)
    (step,) = kept[model].steps
    with torch.inference_mode():
        for layer in step.layers:
            layer.keys.fill_(torch.nan)
            layer.values.fill_(torch.inf)
    free, fixed = both(model, tokenizer, prompts_of(3, 1), 10)
    assert fixed == free


def test_no_step_is_used_again_after_a_weight_has_moved(model, tokenizer, made):
    both(model, tokenizer, prompts_of(3), 8)
    weight = model.model.layers[1].mlp.up_proj.weight
    weight.data = weight.data * 1.5
    free, fixed = both(model, tokenizer, prompts_of(3), 8)
    assert fixed == free
    assert len(made) == 2
    weight.data.mul_(0.5)  # in place: its address is what it was
    free, fixed = both(model, tokenizer, prompts_of(3), 8)
    assert fixed == free
    assert len(made) == 2


def test_a_step_goes_with_its_model(tokenizer):
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    both(model, tokenizer, prompts_of(3), 8)
    step = weakref.ref(kept[model].steps[0])
    del model
    gc.collect()
    assert step() is None


def test_what_is_kept_besides_has_no_more_room_than_the_newest(model):
    own = kept_of(model)
    like = [(torch.zeros(1, 2, 1, 8),) * 2] * 2
    for rows, tokens in ((8, 100), (8, 300), (1, 100), (1, 300), (2, 100), (32, 900)):
        own.steps.append(take_step(model, own, rows, tokens, like))
        *others, newest = own.steps
        assert sum(step.rows * step.room for step in others) <= newest.rows * newest.room
    assert len(own.steps) > 1


def test_layers_that_see_a_window_of_tokens_are_asked_in_the_plain_loop(tokenizer, made):
    torch.manual_seed(5)
    model = MistralForCausalLM(MistralConfig(**SMALL, sliding_window=8)).eval()
    free, fixed = both(model, tokenizer, prompts_of(3), 20)
    assert fixed == free
    assert made == []


def test_tokens_of_one_row_come_in_small_bursts(model, tokenizer, monkeypatch):
    calls = []
    forward = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, **inputs: calls.append(1) or forward(self, **inputs))
    steps = decode(model, tokenizer, prompts_of(1), Decoding(30, 1, END, cuda_graphs=True))
    computed = [len(calls) for _ in steps]
    assert computed[0] == 1  # the first one at once
    assert max(after - before for before, after in itertools.pairwise(computed)) <= 4


def test_what_cannot_be_captured_is_asked_in_the_plain_loop_and_said_once(model, tokenizer, monkeypatch, capsys):
    def refuse(self, *args):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(CapturedStep, "__init__", refuse)
    for _ in range(2):
        free, fixed = both(model, tokenizer, prompts_of(3), 10)
        assert fixed == free
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("cannot be captured: operation not permitted when stream is capturing")


class OnOneDevice(TorchDispatchMode):
    """Refuses operations that touch a tensor of another device."""

    def __init__(self, device):
        super().__init__()
        self.device, self.count = device, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for part in tree_leaves((args, kwargs, result)):
            assert not isinstance(part, torch.Tensor) or part.device.type == self.device, operation
        self.count += 1
        return result


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rope", [{"rope_type": "default"}, LLAMA_3_ROPE], ids=["default", "llama3"])
def test_a_step_neither_copies_from_the_cpu_nor_waits_for_the_gpu(dtype, rope):
    """Neither can be captured. On the meta device there are no numbers that could be waited for."""
    rope = {"rope_theta": 500_000.0, **rope}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SMALL, rope_parameters=rope)).eval().to(dtype)
        like = [(torch.zeros(3, 2, 5, 8, dtype=dtype),) * 2] * 2
    with torch.inference_mode():
        step = CapturedStep(model, 4, 256, like)
        with OnOneDevice("meta") as watched:
            assert step.run(model).shape == (4, 97)
    assert watched.count > 100


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
def test_captured_steps_answer_as_the_plain_loop(base, tokenizer, settings, capsys):
    """In fp32, where in some 50,000 tokens one may be as likely as another up to the last bit."""
    model = LlamaForCausalLM(base.config).eval().to("cuda")
    model.load_state_dict(base.state_dict())
    never = base.config.vocab_size
    # A drawn answer depends on how many rows there are: one that ends otherwise changes all.
    for count, new in ((1, 300), (5, 100), (4 * LEAST_ROWS, 80))[: 2 if "temperature" in settings else 3]:
        free, fixed = both(model, tokenizer, prompts_of(count), new, never, **settings)
        assert sum(map(list.__ne__, free, fixed)) <= count // 16
        ended, fixed = both(model, tokenizer, prompts_of(count), new, free[0][9], **settings)
        assert sum(map(list.__ne__, ended, fixed)) <= count // 16
    with torch.no_grad():  # as an adapter is merged
        for part in model.parameters():
            part.mul_(1.1)
    changed, fixed = both(model, tokenizer, prompts_of(5), 100, never, **settings)
    assert fixed == changed
    assert all(step.graph for step in kept[model].steps)
    assert "without CUDA graphs" not in capsys.readouterr().err
