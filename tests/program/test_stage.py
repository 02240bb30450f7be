"""How a program ends: one line and a status for what a person can act on, a traceback for a defect."""

import errno
import gc
import os
import signal
import subprocess
import sys

import pytest

from civilqa.program.errors import PipelineError
from civilqa.program.lifecycle.locks import who_holds
from civilqa.program.lifecycle.machine_errors import ENGLISH, KOREAN
from civilqa.program.lifecycle.stage import LOCKS, SIGNALS, run
from conftest import ROOT

BEGIN = "import sys; sys.path.insert(0, 'stages'); from civilqa.program.lifecycle.stage import run; "


class Panic(BaseException):
    """What pyo3 raises for a panic in Rust."""


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


def fail(error):
    raise error


@pytest.fixture(autouse=True)
def _own_handlers():
    """Gives pytest its own handlers of signals back."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ended(capsys):
    """Runs a main that does not end well; returns the status and what was said."""

    def call(main, **options):
        with pytest.raises(SystemExit) as exit_:
            run(main, **options)
        return exit_.value.code, capsys.readouterr().err

    return call


@pytest.mark.parametrize(
    ("main", "status", "said"),
    [
        (lambda: fail(PipelineError("a.csv:3: empty")), 1, "error: a.csv:3: empty\n"),
        (lambda: fail(KeyboardInterrupt), 130, "\nerror: interrupted (Ctrl-C); run it again: finished work is kept\n"),
        (lambda: send("SIGINT"), 130, "\nerror: interrupted (Ctrl-C); run it again: finished work is kept\n"),
        (lambda: send("SIGTERM"), 143, "\nerror: interrupted (SIGTERM); run it again: finished work is kept\n"),
        (lambda: send("SIGHUP"), 129, "\nerror: interrupted (SIGHUP); run it again: finished work is kept\n"),
        (lambda: fail(OSError(errno.ENOSPC, "No", "a")), 1, f"error: a: {ENGLISH[errno.ENOSPC]}\n"),
        (lambda: fail(MemoryError()), 1, f"error: {ENGLISH['memory']}\n"),
        (lambda: fail(Panic("ThreadPoolBuildError")), 1, f"error: ThreadPoolBuildError: {ENGLISH['memory']}\n"),
    ],
)
def test_what_a_person_can_act_on_is_one_line_and_a_status(ended, main, status, said):
    assert ended(main) == (status, said)


def test_it_is_told_in_the_language_that_was_asked_for(ended):
    assert ended(lambda: fail(MemoryError()), messages=KOREAN) == (1, f"error: {KOREAN['memory']}\n")


@pytest.mark.parametrize("error", [KeyError("a"), FileNotFoundError(errno.ENOENT, "No", "a"), Panic("index")])
def test_a_defect_keeps_its_traceback(ended, error):
    status, said = ended(lambda: fail(error))
    assert status == 1
    assert said.startswith("Traceback")
    assert "in fail" in said


def test_the_status_of_a_parser_of_arguments_is_kept(ended):
    assert ended(lambda: sys.exit(2)) == (2, "")


def test_what_was_begun_is_cleared_up_before_a_signal_ends_it(ended):
    cleared = []

    def main():
        try:
            send("SIGTERM")
        except Exception:
            cleared.append("taken for an error")
        finally:
            cleared.append("finally")

    assert ended(main)[0] == 143
    assert cleared == ["finally"]


def test_its_lock_is_held_while_it_runs_and_only_then(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    held = []
    run(lambda: held.append(who_holds(LOCKS / "split")), lock="split")
    assert held == [f"process {os.getpid()} (stages/split.py in this folder)"]
    assert list(LOCKS.iterdir()) == []


def test_garbage_is_collected_again_in_the_work():
    gc.disable()
    found = []
    run(lambda: found.append(gc.isenabled()))
    gc.unfreeze()
    assert found == [True]


@pytest.mark.parametrize(("work", "status"), [("pass", 0), ("raise MemoryError", 1)])
def test_a_signal_after_the_work_changes_neither_status_nor_output(work, status):
    """The interpreter takes a while to clear up, in which Ctrl-C would be a traceback."""
    code = f"{BEGIN}import os, signal\ndef main(): {work}\ntry: run(main)\nfinally: os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stderr == (f"error: {ENGLISH['memory']}\n" if status else "")


def test_a_reader_that_leaves_is_one_line():
    code = f"{BEGIN}run(lambda: (sys.stdin.read(), print('a')))"  # so little that it is still to be written at the end
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=buffered, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == f"error: standard output: {ENGLISH[errno.EPIPE]}\n"
    assert process.returncode == 1
