"""One answer as it is generated: pieces to show while it grows, then all that is known of it."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor
from typing import Any


class AnswerStream:
    """The pieces of one answer as they are generated, whole characters only; joined they are `result["answer"]`.

    `result` is None until the last piece is out. `close` stops the generation: `result` then holds what there is, with
    `stopped` False.
    """

    def __init__(
        self,
        worker: Executor,
        tokens: Generator[int],
        text: Callable[[list[int]], str],
        describe: Callable[[list[int]], dict[str, Any]],
    ) -> None:
        """Begin, as soon as the worker is free.

        Args:
            tokens: the answer's token ids; the model computes each when it is asked for.
            text: of tokens, as far as its characters are whole.
            describe: what is known of an answer of these tokens but how long it took.
        """
        self.result: dict[str, Any] | None = None
        self._tokens, self._decode, self._describe = tokens, text, describe
        self._ids: list[int] = []
        self.text = ""  # so far
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._done = False
        self._started = self._first = self._ended = 0.0
        self._future = worker.submit(self._run)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._done:
            # With a timeout, since Windows delivers Ctrl-C only between waits.
            with contextlib.suppress(queue.Empty):
                piece = self._pieces.get(timeout=0.2)
                if piece is not None:
                    return piece
                self._done = True
                if not self._future.cancelled():
                    self._future.result()  # raises what went wrong
                timing = {"first_token_seconds": self._first - self._started, "seconds": self._ended - self._started}
                self.result = self._describe(self._ids) | timing
        raise StopIteration

    @property
    def finished(self) -> bool:
        """Whether nothing more is generated, read or not."""
        return self._future.done()

    def stop(self) -> None:
        """Stop generating, from any thread and without waiting; who iterates gets what there is."""
        self._stop.set()
        if self._future.cancel():  # others were before it: it need not begin
            self._pieces.put(None)

    def close(self) -> None:
        """Stop generating, and wait until it has stopped; at most the tokens of one look are computed more."""
        self.stop()
        for _ in self:
            pass

    def _run(self) -> None:
        self._started = self._first = time.perf_counter()  # not while it waited for others
        try:
            while not self._stop.is_set() and (token := next(self._tokens, None)) is not None:
                if not self._ids:
                    self._first = time.perf_counter()
                self._ids.append(token)
                text = self._decode(self._ids)
                if len(text) > len(self.text):
                    self._pieces.put(text[len(self.text) :])
                    self.text = text
        finally:
            self._ended = time.perf_counter()
            self._tokens.close()  # where it was stopped: the keys and values of the tokens so far are given back
            self._pieces.put(None)


def without_torn_end(text: str) -> str:
    """Return an answer without spaces around it and without the bytes of a last syllable that is not whole."""
    text = text.lstrip()
    while text and (text[-1].isspace() or text[-1] == "\ufffd"):
        text = text.rstrip().rstrip("\ufffd")
    return text
