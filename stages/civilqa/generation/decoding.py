"""The one loop that asks a model, whoever asks: evaluate and the benchmark in batches, the chat token by token."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from civilqa.generation.cuda_graphs import FixedBatch, kept_of, take_step

Step = list[tuple[int, int]]  # of each answer that goes on: the index of its prompt, its next token
GROWTH_TOKENS = 128  # the keys and values that are there are copied once every so many


@dataclass(frozen=True)
class Decoding:
    """How answers are generated. temperature 0 is greedy: the same question gets the same answer.

    The settings mean what transformers' of the same names mean: a repetition_penalty above 1 makes what the prompt and
    the answer hold already less likely; above temperature 0 a token is drawn with `seed` among the likeliest ones that
    together have the probability `top_p`. A model's own sampling settings are not used.
    """

    max_new_tokens: int
    batch_size: int
    end_token_id: int
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    cuda_graphs: bool = False


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    decoding: Decoding,
    stopped: Callable[[], bool] = lambda: False,
) -> list[list[int]]:
    """Return the new tokens for each prompt of one batch, up to and with the end token, or until `stopped`."""
    answers: list[list[int]] = [[] for _ in prompts]
    for step in takewhile(lambda _: not stopped(), decode(model, tokenizer, prompts, decoding)):
        for index, token in step:
            answers[index].append(token)
    return answers


@torch.inference_mode()
def decode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]], decoding: Decoding
) -> Iterator[Step]:
    """Yield the next token of each answer that goes on, up to and with its end token.

    Who stops iterating stops the generation. A row that has ended leaves the batch: nothing is computed for it any
    more. (transformers' generate goes on with it until the last row ends.) With CUDA graphs tokens come in bursts,
    and a row leaves when most others have; the answers are the same but for the last bits of a sum.

    Args:
        prompts: token ids; they are padded on the left to one batch of shape (len(prompts), longest prompt).
    """
    batch: GrowingBatch | FixedBatch = GrowingBatch(model, tokenizer.pad_token_id, prompts)
    tokens = batch.tokens
    generator = torch.Generator(model.device).manual_seed(decoding.seed)  # the caller's draws stay as they were
    said: torch.Tensor | None = None  # (rows, vocabulary): whether a row holds a token; no penalty needs none
    rows = list(range(len(prompts)))  # whose answer each row of the batch is
    unseen: list[torch.Tensor] = []  # tokens of each row, (rows, 1), that nobody has looked at yet
    interval = 1
    try:
        for count in range(1, decoding.max_new_tokens + 1):
            logits = batch.read(tokens)
            if decoding.repetition_penalty != 1:
                if said is None:  # padding has been said by nobody
                    said = torch.zeros_like(logits, dtype=torch.bool)
                    for row, prompt in zip(said, prompts, strict=True):
                        row[prompt] = True
                else:
                    said.scatter_(1, tokens, True)
            tokens = choose(logits.float(), said, decoding, generator)
            unseen.append(tokens)
            # Looking waits for the GPU, which then has nothing to do until it is told what comes next.
            if (count - 1) % interval and count < decoding.max_new_tokens:
                continue
            going = list(range(len(rows)))
            for chosen in torch.cat(unseen, dim=1).T.tolist():
                yield [(rows[row], chosen[row]) for row in going]
                going = [row for row in going if chosen[row] != decoding.end_token_id]
                if not going:
                    return
            unseen.clear()
            if len(going) < len(rows):
                rows = [rows[row] for row in going]
                kept = torch.tensor(going, device=model.device)
                batch.keep(kept)
                tokens = tokens[kept]
                said = None if said is None else said[kept]
            if count == 1 < decoding.max_new_tokens and decoding.cuda_graphs:
                batch = fix(batch, decoding.max_new_tokens)
                if isinstance(batch, FixedBatch):
                    interval = look_interval(len(rows), decoding)
    finally:
        if isinstance(batch, FixedBatch):
            batch.close()


class GrowingBatch:
    """Rows of prompts and of the tokens after them, over a cache that grows with them."""

    def __init__(self, model: PreTrainedModel, pad: int, prompts: list[list[int]]) -> None:
        width = max(map(len, prompts))
        filled = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        self.model, self.cache = model, make_cache(model.config)
        self.tokens = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
        self.mask = torch.tensor(filled, device=model.device)
        self.positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits, of shape (rows, vocabulary), after each row's next tokens, of shape (rows, tokens)."""
        logits = self.model(
            input_ids=tokens,
            attention_mask=self.mask,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self.positions = self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        return logits

    def keep(self, going: torch.Tensor) -> None:
        """Go on with the rows of these indices alone."""
        self.cache.batch_select_indices(going)
        self.positions, self.mask = self.positions[going], self.mask[going]


def fix(batch: GrowingBatch, max_new_tokens: int) -> GrowingBatch | FixedBatch:
    """Return the rows of a batch over a cache of fixed room, where its model allows that, else as they are."""
    model, layers = batch.model, batch.cache.layers
    # Every layer must see all tokens, attention take a bias, and transformers hold the model fit for fixed shapes.
    # LLM.int8 looks for outliers, which waits for the GPU: that cannot be captured.
    if not (
        getattr(model, "_can_compile_fullgraph", False)
        and model.config._attn_implementation in ("sdpa", "eager")
        and all(type(layer) is PreallocatedLayer for layer in layers)
        and not getattr(model, "is_loaded_in_8bit", False)
    ):
        return batch
    seen = batch.mask[:, :-1].bool()
    rows, tokens = len(seen), seen.shape[1] + max_new_tokens
    states = [(layer.keys, layer.values) for layer in layers]
    own = kept_of(model)
    step = take_step(model, own, rows, tokens, states)
    if step is None:
        return batch
    step.load(states, seen, batch.positions)
    return FixedBatch(model, own, step, rows, tokens)


def look_interval(rows: int, decoding: Decoding) -> int:
    """Return how many tokens are computed between two looks at them; who has ended is known then.

    A reader sees four of one row's come at once, in some milliseconds. Drawing waits for the GPU by itself.
    """
    return 1 if decoding.temperature else 4 if rows == 1 else 16


def choose(
    logits: torch.Tensor, said: torch.Tensor | None, decoding: Decoding, generator: torch.Generator
) -> torch.Tensor:
    """Return the next token of each row, of shape (rows, 1).

    Args:
        logits: of shape (rows, vocabulary), in fp32.
        said: of the same shape, whether the penalty is on a token; None: on none.
    """
    if said is not None:
        penalty = decoding.repetition_penalty
        logits = torch.where(said, torch.where(logits < 0, logits * penalty, logits / penalty), logits)
    if decoding.temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits / decoding.temperature
    if decoding.top_p < 1:
        ascending, order = logits.sort(dim=-1)
        dropped = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - decoding.top_p
        dropped[:, -1] = False  # the likeliest stays, however likely it is
        logits = logits.masked_fill(dropped.scatter(1, order, dropped), -torch.inf)
    return torch.multinomial(logits.softmax(dim=-1), num_samples=1, generator=generator)


class PreallocatedLayer(DynamicLayer):
    """Keys and values, each of shape (rows, heads, tokens, head size), at the beginning of a larger tensor.

    transformers' own cache copies all of them at every token, in every layer: for long answers in batches that is most
    of the time. Its static cache copies nothing, but attention then also reads the places that are still empty.
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        self.keys = append(self.keys, key_states, length)
        self.values = append(self.values, value_states, length)
        return self.keys, self.values


class PreallocatedSlidingLayer(DynamicSlidingWindowLayer):
    """The same for attention within a window: what has left it stays before the beginning until the tensor is full."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        kept = self.sliding_window - 1
        length = min(self.cumulative_length, kept)
        self.cumulative_length += key_states.shape[-2]
        keys, values = append(self.keys, key_states, length), append(self.values, value_states, length)
        self.keys, self.values = keys[:, :, -kept:], values[:, :, -kept:]
        return keys, values


def append(states: torch.Tensor, new: torch.Tensor, length: int) -> torch.Tensor:
    """Return `length` tokens' states with those of new tokens after them, in place where there is room."""
    rows, heads, tokens, size = new.shape
    end = length + tokens
    # From one head to the next there are as many places as the tensor below has tokens; where nothing is free behind
    # (at first, and after rows were chosen from it), those are `length`.
    if length and states.storage_offset() + end * size <= states.stride(1):
        whole = states.as_strided((rows, heads, end, size), states.stride(), states.storage_offset())
    else:
        whole = new.new_empty(rows, heads, end + GROWTH_TOKENS, size)[:, :, :end]
        if length:
            whole[:, :, :length] = states
    whole[:, :, length:] = new
    return whole


def make_cache(config: PreTrainedConfig) -> DynamicCache:
    """Return an empty cache for a model; layers of other kinds than these two keep transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [
        PreallocatedLayer()
        if type(layer) is DynamicLayer
        else PreallocatedSlidingLayer(layer.sliding_window)
        if type(layer) is DynamicSlidingWindowLayer
        else layer
        for layer in cache.layers
    ]
    return cache
