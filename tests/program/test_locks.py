import json
import os
import subprocess
import sys
import threading
import time

import pytest

from civilqa.program.errors import PipelineError
from civilqa.program.lifecycle import locks
from civilqa.program.lifecycle.locks import hold, who_holds
from conftest import ROOT

HOLDER = """
import sys, time
sys.path.insert(0, {stages!r})
from pathlib import Path
from civilqa.program.lifecycle.locks import hold
with hold(Path({path!r}), "a test"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock, started by a shell that is gone."""
    script = HOLDER.format(stages=str(ROOT / "stages"), path=str(tmp_path / "lock"))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_lock_that_is_given_back_leaves_nothing_behind(tmp_path):
    with hold(tmp_path / "lock", "a test") as waited:
        assert not waited
        assert who_holds(tmp_path / "lock") == f"process {os.getpid()} (a test)"
        assert json.loads((tmp_path / "lock.holder").read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_fails_gives_its_lock_back(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(tmp_path / "lock", "a test"):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
    assert who_holds(tmp_path / "lock") is None


def test_a_lock_held_elsewhere_is_refused_with_the_process_that_holds_it(tmp_path, other):
    assert who_holds(tmp_path / "lock") == f"process {other.pid} (a test)"
    with (
        pytest.raises(PipelineError, match=rf"process {other.pid} \(a test\) holds it"),
        hold(tmp_path / "lock", "another", wait=False),
    ):
        pytest.fail("two processes hold one lock")


def test_a_killed_process_gives_its_lock_back_and_whoever_waits_gets_it(tmp_path, other, monkeypatch, capsys):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    threading.Timer(0.3, other.kill).start()
    started = time.monotonic()
    with hold(tmp_path / "lock", "another") as waited:
        assert waited
        assert time.monotonic() - started > 0.2
    assert f"process {other.pid} (a test) holds it: waiting for it to end" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_dead_holder_stops_nobody(tmp_path):
    (tmp_path / "lock.lock").touch()
    (tmp_path / "lock.holder").write_text('{"pid": 1, "purpose": "long dead"}', encoding="utf-8")
    assert who_holds(tmp_path / "lock") is None
    with hold(tmp_path / "lock", "a test", wait=False) as waited:
        assert not waited
