import pytest
import torch
from transformers import DynamicCache, LlamaConfig, MistralConfig

from civilqa.generation.decoding import GROWTH_TOKENS, PreallocatedLayer, PreallocatedSlidingLayer, make_cache

CONFIG = LlamaConfig(num_hidden_layers=2)
WINDOWS = [MistralConfig(num_hidden_layers=2, sliding_window=size) for size in (8, GROWTH_TOKENS - 1, 10_000)]
every_kind = pytest.mark.parametrize("config", [CONFIG, *WINDOWS], ids=["all", "8", "127", "10000"])


def states(rows, tokens, *, heads=3):
    return torch.randn(rows, heads, tokens, 4), torch.randn(rows, heads, tokens, 4)


def compare(ours, theirs):
    for left, right in zip(ours.layers, theirs.layers, strict=True):
        assert left.get_seq_length() == right.get_seq_length()
        assert torch.equal(left.keys, right.keys)
        assert torch.equal(left.values, right.values)


@every_kind
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("rows", [1, 5])
def test_it_holds_what_transformers_own_holds(config, rows, heads):
    ours, theirs = make_cache(config), DynamicCache(config=config)
    for tokens in [7, *[1] * (GROWTH_TOKENS + 2), GROWTH_TOKENS + 3, 1]:
        for layer in range(2):
            new = states(rows, tokens, heads=heads)
            given = ours.update(*new, layer)
            expected = theirs.update(*new, layer)
            assert all(torch.equal(*pair) for pair in zip(given, expected, strict=True))
    compare(ours, theirs)


@pytest.mark.parametrize("chosen", [[0], [2, 0], [3, 2, 1, 0], [1, 1, 1, 1]], ids=str)
@every_kind
def test_rows_can_be_chosen_at_any_time(config, chosen):
    ours, theirs = make_cache(config), DynamicCache(config=config)
    rows = 4
    for step in range(GROWTH_TOKENS + 20):
        for layer in range(2):
            new = states(rows, 1)
            given, expected = ours.update(*new, layer), theirs.update(*new, layer)
            assert all(torch.equal(*pair) for pair in zip(given, expected, strict=True))
        if step in (2, 11):
            for cache in (ours, theirs):
                cache.batch_select_indices(torch.tensor(chosen))
            rows, chosen = len(chosen), range(len(chosen))[::-1]
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


@pytest.mark.parametrize("layer", [PreallocatedLayer(), PreallocatedSlidingLayer(8)], ids=["all", "8"])
def test_a_token_moves_none_of_the_earlier_ones(layer):
    layer.update(*states(2, 5))
    places = set()
    for _ in range(GROWTH_TOKENS):
        layer.update(*states(2, 1))
        places.add(layer.keys.untyped_storage().data_ptr())
    assert len(places) == 1
    layer.update(*states(2, 1))
    assert layer.keys.untyped_storage().data_ptr() not in places
