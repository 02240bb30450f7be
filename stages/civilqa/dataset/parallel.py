"""Runs a function over chunks of many items in several processes; over few items in this one.

The results come in the order of the items, and are the same however many processes there are.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import Any

from tqdm import tqdm

from civilqa.program.errors import PipelineError

CHUNK = 2000  # items that a process takes at a time
AHEAD = 2  # chunks that wait for each process, so that none idles and the memory stays bounded

Function = Callable[[list[Any]], Any]


def map_chunks(make: Callable[..., Function], arguments: tuple[Any, ...], items: Iterable[Any]) -> Iterator[tuple]:
    """Yield (chunk, `make(*arguments)(chunk)`) for chunks of up to CHUNK items, in order.

    `make` builds the function once in every process, which is where it loads what it needs; it, its arguments, the
    items and the results must be picklable. Up to CHUNK items are dealt with in this process: starting others would
    take longer.

    Raises:
        PipelineError: what the function raises, or that one of the processes was killed.
    """
    iterator = iter(items)
    chunks = iter(lambda: list(islice(iterator, CHUNK)), [])
    first = next(chunks, [])
    second = next(chunks, [])
    if not second:
        if first:
            yield first, make(*arguments)(first)
        return
    chunks = chain([first, second], chunks)
    processes = count_processes()
    waiting: deque[tuple[list[Any], Future]] = deque()
    with _start_processes(processes, make, arguments) as pool:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(_apply, chunk)))
            if len(waiting) > AHEAD * processes:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()


@contextmanager
def beside(function: Function, items: list[Any], description: str) -> Iterator[Callable[[], Any]]:
    """Run `function(items)` in another process during the block, which gets a function that waits for the result.

    Both must be picklable. Up to CHUNK items are dealt with in this process, when the result is asked for.

    Args:
        description: what it is, shown with the seconds that it has to be waited for.

    Raises:
        PipelineError: what the function raises, or that the process was killed.
    """
    if len(items) <= CHUNK:
        yield lambda: function(items)
        return
    with _start_processes(1, partial, (function,)) as pool:
        yield partial(_wait, pool.submit(_apply, items), description)


def _wait(future: Future, description: str) -> Any:
    with tqdm(desc=description, bar_format="{desc}: {elapsed}") as shown:
        while not future.done():
            shown.refresh()
            wait([future], timeout=1)
    return future.result()


@contextmanager
def _start_processes(count: int, make: Callable[..., Function], arguments: tuple[Any, ...]) -> Iterator[Executor]:
    """Yield a pool of processes that apply what `make` makes; they end with the block."""
    # Started afresh rather than forked: the same on every system, and safe beside threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, initializer=_start, initargs=(make, arguments))
    try:
        yield pool
    except BaseException as error:  # stopped halfway: nobody waits for what is being worked on
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise PipelineError(
                "a worker process ended before its work was done, most often because the system had no memory left; "
                "close other programs and run the stage again"
            ) from None
        raise
    pool.shutdown(wait=False)


def count_processes() -> int:
    """Return the number of cores that this process may use, 8 at most: from there on reading the rows is the limit."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        cores = os.cpu_count() or 1
    return min(cores, 8)


_function: Function


def _start(make: Callable[..., Function], arguments: tuple[Any, ...]) -> None:
    """Prepare a worker process."""
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the stage, and the stage ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _function = make(*arguments)


def _end_with_parent() -> None:
    """End this worker when the stage is gone, also where that was killed and could not tell."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _apply(chunk: list[Any]) -> Any:
    return _function(chunk)
