import pytest
import torch
from transformers import DynamicCache, LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicSlidingWindowLayer

from civilqa.generation.decoding import GROWTH_TOKENS, PreallocatedLayer, make_cache

CONFIG = LlamaConfig(num_hidden_layers=2)


def states(rows, tokens, *, heads=3):
    return torch.randn(rows, heads, tokens, 4), torch.randn(rows, heads, tokens, 4)


def compare(ours, theirs):
    for left, right in zip(ours.layers, theirs.layers, strict=True):
        assert left.get_seq_length() == right.get_seq_length()
        assert torch.equal(left.keys, right.keys)
        assert torch.equal(left.values, right.values)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("rows", [1, 5])
def test_it_holds_what_transformers_own_holds(rows, heads):
    ours, theirs = make_cache(CONFIG), DynamicCache(config=CONFIG)
    for tokens in [7, *[1] * (GROWTH_TOKENS + 2), GROWTH_TOKENS + 3, 1]:
        for layer in range(2):
            new = states(rows, tokens, heads=heads)
            given = ours.update(*new, layer)
            expected = theirs.update(*new, layer)
            assert all(torch.equal(*pair) for pair in zip(given, expected, strict=True))
    compare(ours, theirs)


@pytest.mark.parametrize("chosen", [[0], [2, 0], [3, 2, 1, 0], [1, 1, 1, 1]], ids=str)
def test_rows_can_be_chosen_at_any_time(chosen):
    ours, theirs = make_cache(CONFIG), DynamicCache(config=CONFIG)
    rows = 4
    for step in range(6):
        for layer in range(2):
            new = states(rows, 1)
            ours.update(*new, layer)
            theirs.update(*new, layer)
        if step == 2:
            for cache in (ours, theirs):
                cache.batch_select_indices(torch.tensor(chosen))
            rows = len(chosen)
    compare(ours, theirs)


def test_tokens_can_be_taken_back():
    ours, theirs = make_cache(CONFIG), DynamicCache(config=CONFIG)
    for tokens, back in ((9, 4), (2, 1), (1, 0)):
        for layer in range(2):
            new = states(2, tokens)
            ours.update(*new, layer)
            theirs.update(*new, layer)
        for cache in (ours, theirs):
            cache.crop(-back)
    compare(ours, theirs)


def test_a_token_moves_none_of_the_earlier_ones():
    layer = PreallocatedLayer()
    layer.update(*states(2, 5))
    places = set()
    for _ in range(GROWTH_TOKENS):
        layer.update(*states(2, 1))
        places.add(layer.keys.data_ptr())
    assert len(places) == 1
    layer.update(*states(2, 1))
    assert layer.keys.data_ptr() not in places


def test_a_sliding_window_stays_one():
    config = MistralConfig(num_hidden_layers=2, sliding_window=8)
    assert [type(layer) for layer in make_cache(config).layers] == [DynamicSlidingWindowLayer] * 2
