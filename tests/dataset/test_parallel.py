import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from civilqa.dataset import parallel
from civilqa.dataset.parallel import beside, map_chunks
from civilqa.program.errors import PipelineError, RecordError
from conftest import ROOT


def make_adder(number):
    return lambda chunk: ([item + number for item in chunk], os.getpid())


def make_refuser(item):
    def refuse(chunk):
        if item in chunk:
            raise RecordError(f"data.csv:{item}: refused")
        return chunk

    return refuse


def make_killer():
    return lambda chunk: os.kill(os.getpid(), signal.SIGKILL)


def add_up(items):
    return sum(items), os.getpid()


def refuse(items):
    raise RecordError(f"data.csv:{len(items)}: refused")


def kill(items):
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(items):
    time.sleep(60)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(parallel, "CHUNK", 10)
    monkeypatch.setattr(parallel, "count_processes", lambda: 2)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 20, 95])
def test_results_come_in_order_whatever_the_processes(small_chunks, count):
    results = list(map_chunks(make_adder, (5,), iter(range(count))))
    assert [item for chunk, _ in results for item in chunk] == list(range(count))
    assert [item for _, (added, _) in results for item in added] == list(range(5, count + 5))
    processes = {pid for _, (_, pid) in results}
    assert (os.getpid() in processes) == (0 < count <= 10)


def test_items_are_taken_no_further_than_the_work_goes(small_chunks):
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    results = map_chunks(make_adder, (0,), items())
    next(results)
    assert len(taken) <= 10 * (2 * parallel.AHEAD + 2)
    results.close()


def test_what_the_function_raises_is_raised_here(small_chunks):
    with pytest.raises(RecordError, match=r"data.csv:57: refused"):
        list(map_chunks(make_refuser, (57,), range(100)))


def test_a_killed_worker_is_an_error_that_says_so(small_chunks):
    with pytest.raises(PipelineError, match="a worker process ended before its work was done"):
        list(map_chunks(make_killer, (), range(100)))


@pytest.mark.parametrize("count", [0, 10, 11])
def test_work_beside_gives_what_it_gives_here(small_chunks, count):
    with beside(add_up, list(range(count)), "sums") as result:
        total, process = result()
    assert total == sum(range(count))
    assert (process == os.getpid()) == (count <= 10)


@pytest.mark.parametrize("count", [10, 11])
def test_what_work_beside_raises_is_raised_here(small_chunks, count):
    with pytest.raises(RecordError, match=rf"data.csv:{count}: refused"), beside(refuse, [0] * count, "") as result:
        result()


def test_killed_work_beside_is_an_error_that_says_so(small_chunks):
    with pytest.raises(PipelineError, match="ended before its work was done"), beside(kill, [0] * 11, "") as result:
        result()


def test_nobody_waits_for_the_work_beside_once_the_block_fails(small_chunks):
    def fail():
        with beside(sleep, [0] * 11, ""):
            time.sleep(1)
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        fail()
    for process in multiprocessing.active_children():
        process.join(timeout=30)
    assert not multiprocessing.active_children()


SLOW = """
import sys, time
sys.path[:0] = ["stages"]
from civilqa.dataset import parallel
def make_sleeper():
    return lambda chunk: time.sleep(60)
if __name__ == "__main__":
    parallel.CHUNK = 1
    print("started", flush=True)
    list(parallel.map_chunks(make_sleeper, (), range(100)))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_do_not_outlive_the_stage(tmp_path, sent):
    script = tmp_path / "slow.py"
    script.write_text(SLOW, encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, stderr=subprocess.DEVNULL)
    workers = []
    for _ in range(600):
        workers = [
            child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        if len(workers) >= 2:
            break
        time.sleep(0.1)
    assert workers
    time.sleep(2)  # until they have begun to work
    process.send_signal(sent)
    try:
        process.wait(timeout=60)
    finally:
        process.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
