"""The decoding step as a CUDA graph: every token is one replay instead of some 700 kernels launched one by one.

A graph reads and writes fixed places in memory. The cache has a fixed room, of which attention reads all and a bias
hides what is empty; rows that have ended stay until few enough are left to move to a smaller graph. What is captured is
the forward pass alone, so that any way to choose a token works with it.
"""

import sys
import threading
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import StaticLayer

ROOM_TOKENS = 256  # rooms are multiples of it, so that prompts of about the same length share a graph
LEAST_ROWS = 16  # reading the weights is most of a step up to here: a smaller graph would gain nothing
SHRINK = 4  # a graph is left for one of fewer rows when this many times fewer go on; to capture takes time as well
WARM_UPS = 2  # steps before a capture, in which libraries load kernels and take their workspaces

# Which kernel torch prefers differs between its versions and cards; these take a bias, and are captured everywhere.
BIASED_ATTENTION = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
capturing = threading.Lock()

States = list[tuple[torch.Tensor, torch.Tensor]]  # each layer's keys and values, (rows, heads, tokens, head size)


class FixedLayer(StaticLayer):
    """A static layer whose place to write at is known once for all layers, rather than counted in each."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, slot: torch.Tensor) -> None:
        super().__init__(keys.shape[2])
        self.keys, self.values, self.cumulative_length = keys, values, slot
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        place = self.cumulative_length.view(1)
        self.keys.index_copy_(2, place, key_states)
        self.values.index_copy_(2, place, value_states)
        return self.keys, self.values


class CapturedStep:
    """The forward pass of one token of so many rows, over a cache of so much room: captured on CUDA, else as it is.

    It holds nothing of the model but addresses: see Kept.
    """

    def __init__(self, model: PreTrainedModel, rows: int, room: int, like: States) -> None:
        """Capture.

        Args:
            rows: of the batch; those that no answer is in are computed along.
            room: tokens of prompt and answer together.
            like: what the cache must hold, of any number of rows and tokens.
        """
        device, dtype = like[0][0].device, like[0][0].dtype
        self.rows, self.room = rows, room
        self.tokens = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.slot = torch.zeros((), dtype=torch.long, device=device)
        self.bias = torch.full((rows, 1, 1, room), -torch.inf, dtype=dtype, device=device)
        places = [[part.new_zeros(rows, part.shape[1], room, part.shape[3]) for part in layer] for layer in like]
        self.layers = [FixedLayer(*layer, self.slot) for layer in places]
        self.cache = Cache(layers=self.layers)
        self.graph = None
        if device.type == "cuda":
            with torch.cuda.device(device):  # a thread has its own current one
                self._capture(model)

    def _capture(self, model: PreTrainedModel) -> None:
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        # The kernels of attention are chosen for all threads: one at a time. The stream is put back by the outer
        # context also where the capture fails.
        with capturing, sdpa_kernel(BIASED_ATTENTION), torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                self._forward(model)
            # thread_local: another thread may compute with another model meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.logits = self._forward(model)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = graph

    def _forward(self, model: PreTrainedModel) -> torch.Tensor:
        self.bias.index_fill_(3, self.slot.view(1), 0)
        logits = model(
            input_ids=self.tokens,
            attention_mask=self.bias,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self.positions.add_(1)
        self.slot.add_(1)
        return logits

    def load(self, states: States, seen: torch.Tensor, positions: torch.Tensor) -> None:
        """Begin with what some rows have read.

        Args:
            seen: of shape (rows, tokens), whether a token counts rather than being padding.
            positions: of shape (rows, 1), of the token that comes next.
        """
        rows, length = seen.shape
        for layer, (keys, values) in zip(self.layers, states, strict=True):
            for places, part in ((layer.keys, keys), (layer.values, values)):
                places.zero_()  # a bias hides no nan
                places[:rows, :, :length] = part
        self.bias.fill_(-torch.inf)
        self.bias[:rows, 0, 0, :length].masked_fill_(seen, 0)
        self.positions.zero_()
        self.positions[:rows] = positions
        self.slot.fill_(length)

    def run(self, model: PreTrainedModel) -> torch.Tensor:
        """Return the logits after `tokens`, of shape (rows, vocabulary); they are overwritten by the next call."""
        if self.graph is None:
            return self._forward(model)
        with torch.cuda.device(self.tokens.device):
            self.graph.replay()
        return self.logits


@dataclass
class Kept:
    """The steps of one model that wait for its next batch, and the tensors that they were captured with.

    A graph holds addresses. Merging an adapter, quantising or moving a model may put its weights elsewhere: then
    nothing of it may be replayed. Who switches a module otherwise (peft's disable_adapter) must forget them here.
    """

    tensors: tuple[Any, ...]
    steps: list[CapturedStep] = field(default_factory=list)
    refused: bool = False


kept: WeakKeyDictionary[PreTrainedModel, Kept] = WeakKeyDictionary()


def kept_of(model: PreTrainedModel) -> Kept:
    """Return what is kept of a model as it is now."""
    parts = (*model.parameters(), *model.buffers())
    tensors = tuple((part.data_ptr(), part.shape, part.dtype) for part in parts)
    if model not in kept or kept[model].tensors != tensors:
        kept[model] = Kept(tensors)
    return kept[model]


def take_step(model: PreTrainedModel, own: Kept, rows: int, tokens: int, like: States) -> CapturedStep | None:
    """Return a step for at least so many rows and tokens, for its taker alone until it is given back.

    None if it cannot be captured, which is said once.
    """
    if own.refused:
        return None
    rows = 1 << (rows - 1).bit_length()  # a few sizes, so that batches of about the same size share a graph
    room = -(-tokens // ROOM_TOKENS) * ROOM_TOKENS
    # No larger one is taken: attention may add up in another order there, and an answer would depend on those before.
    for step in own.steps:
        if (step.rows, step.room) == (rows, room):
            own.steps.remove(step)
            return step
    while sum(step.rows * step.room for step in own.steps) > rows * room:  # the memory is for the new one
        own.steps.pop(0)
    try:
        return CapturedStep(model, rows, room, like)
    except RuntimeError as error:  # torch's for what CUDA refuses, out of memory included
        own.refused = True
        # Where the capture fails, its end does as well, and says less.
        reason = str(error.__context__ or error).strip().partition("\n")[0]
        print(f"generation: without CUDA graphs, since they cannot be captured: {reason}", file=sys.stderr)
        return None


class FixedBatch:
    """Rows that go on, each at a place of a step; see GrowingBatch, of which it has the methods."""

    def __init__(self, model: PreTrainedModel, own: Kept, step: CapturedStep, rows: int, tokens: int) -> None:
        """Take over a step that holds what so many rows have read, of `tokens` tokens at most in the end."""
        self.model, self.own, self.step, self.tokens = model, own, step, tokens
        self.places = torch.arange(rows, device=step.tokens.device)

    def read(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits, of shape (rows, vocabulary), after each row's next token, of shape (rows, 1)."""
        self.step.tokens.index_copy_(0, self.places, tokens)
        return self.step.run(self.model)[self.places]

    def keep(self, going: torch.Tensor) -> None:
        """Go on with the rows of these indices alone."""
        self.places = self.places[going]
        rows, step = len(going), self.step
        if step.rows <= LEAST_ROWS or rows * SHRINK > step.rows:
            return
        length = int(step.slot)
        states = [tuple(part[self.places, :, :length] for part in (layer.keys, layer.values)) for layer in step.layers]
        smaller = take_step(self.model, self.own, rows, self.tokens, states)
        if smaller is not None:
            smaller.load(states, step.bias[self.places, 0, 0, :length] == 0, step.positions[self.places])
            self.close()
            self.step, self.places = smaller, torch.arange(rows, device=going.device)

    def close(self) -> None:
        """Leave the step to the next batch."""
        size = (self.step.rows, self.step.room)
        self.own.steps = [step for step in self.own.steps if (step.rows, step.room) != size] + [self.step]
