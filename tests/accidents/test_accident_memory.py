"""No memory left, at levels from nothing up to enough: one line, a status, nothing half written, no hang."""

import random
import sys

import pytest

from accidents import run
from faults import QUICK, TARGETS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory as Linux does"),
]

OUTCOME = (
    "one line with what to lessen (or the native library's own abort); nothing half written; the next run is right"
)
# What is below Python may end the process itself before Python can say anything: a library in C++ or Rust by abort or
# fault, libgomp by an exit, the dynamic loader with 127 where a thread's own data do not fit.
ABORTS = (-6, -11, -4, -5)
LAST_WORDS = ("libgomp", "cannot allocate memory for thread-local data: ABORT")
SAID = ("not enough memory", "메모리가 모자랍니다", "training ran out of memory")


def check_shortage(place, ended):
    assert not ended.hung
    place.check_whole()
    if ended.status in ABORTS or any(words in ended.stderr for words in LAST_WORDS):
        return
    said = ended.stderr + ended.stdout
    assert "Traceback" not in said, said[-4000:]
    assert ended.status == 1, said[-2000:]
    assert any(words in said for words in SAID), said[-2000:]


def is_enough(place, outcomes, mib):
    """Run it with so much memory; returns whether that was enough. If not, it has said so."""
    place.clear()
    ended = place.run({"memory_mib": mib})
    if ended.status == 0:
        place.check_whole()
        return True
    with outcomes.trial("out of memory", place.name, OUTCOME):
        check_shortage(place, ended)
    return False


def find_level(enough):
    """Return a number of MiB between nothing and `enough`; smaller ones are likelier, where things are begun."""
    return int(enough * random.random() ** 2)


@pytest.mark.parametrize("name", TARGETS)
def test_without_memory_it_says_so_and_leaves_nothing_half_written(site, outcomes, repeats, name):
    place = site(name)
    enough = 1 if name in QUICK else 64
    while not is_enough(place, outcomes, enough):  # the ladder: each step on the way up is a trial, too
        enough *= 4 if name in QUICK else 8
        assert enough < 2**16, "it fails with any memory"
    for _ in range(2 * repeats if name in QUICK else repeats):
        is_enough(place, outcomes, find_level(enough))
    place.check_next_run()


@pytest.mark.parametrize("name", ["prepare", "finetune", "chat"])
def test_without_memory_for_its_imports_it_says_so(run_copy, outcomes, repeats, name):
    for _ in range(repeats):
        mib = random.randint(80, 400)
        with outcomes.trial("out of memory during the imports", name, OUTCOME):
            command = f"ulimit -v {mib * 1024}; exec python stages/{name}.py"
            ended = run(run_copy, "bash", "-c", command, timeout=120)
            if ended.returncode in ABORTS or ended.returncode == 0:
                continue
            said = (*SAID, *LAST_WORDS, "OpenBLAS", "memory")
            assert any(words in ended.stderr for words in said), ended.stderr[-3000:]
