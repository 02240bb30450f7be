"""The keys and values of the tokens so far, with room for those to come.

transformers' own cache copies all of them at every token, in every layer: for long answers in batches that is most of
the time. Its static cache copies nothing, but attention then also reads the places that are still empty.
"""

from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

GROWTH_TOKENS = 128  # what is there is copied once every so many


class PreallocatedLayer(DynamicLayer):
    """Keys and values, each of shape (rows, heads, tokens, head size), at the beginning of a larger tensor."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        self.keys = append(self.keys, key_states, length)
        self.values = append(self.values, value_states, length)
        return self.keys, self.values


def append(states: torch.Tensor, new: torch.Tensor, length: int) -> torch.Tensor:
    """Return `length` tokens' states with those of new tokens after them, in place where there is room."""
    rows, heads, tokens, size = new.shape
    end = length + tokens
    # From one head to the next there are as many places as the tensor below has tokens; where nothing is free behind
    # (at first, and after rows were chosen from it), those are `length`.
    if length and states.stride(1) >= end * size:
        whole = states.as_strided((rows, heads, end, size), states.stride(), states.storage_offset())
    else:
        whole = new.new_empty(rows, heads, end + GROWTH_TOKENS, size)[:, :, :end]
        if length:
            whole[:, :, :length] = states
    whole[:, :, length:] = new
    return whole


def make_cache(config: PreTrainedConfig) -> DynamicCache:
    """Return an empty cache for a model; layers with a sliding window keep transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
