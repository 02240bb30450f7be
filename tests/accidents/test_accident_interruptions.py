"""Ctrl-C, SIGTERM and kill -9 at every kind of moment: nothing half done is taken for whole, the next run is right."""

import asyncio
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from accidents import checked, copy_run, leftovers, outputs, run
from civilqa.chat.web.page import is_no_farewell
from conftest import edit_params
from faults import QUICK, TARGETS, moments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the signals are those of Unix"),
]

SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
OUTCOME = {
    "kill -9": "nothing half written under its name; the next run has the undisturbed bytes",
    "SIGTERM": "one line, status 143, nothing half written; the next run has the undisturbed bytes",
    "Ctrl-C": "one line, status 130, nothing half written; the next run has the undisturbed bytes",
}


def check_end(ended, accident):
    """A killed program is dead, an interrupted one has said so in one line."""
    sent = SIGNALS[accident]
    if sent == signal.SIGKILL:
        assert ended.status == -sent
        return
    assert not ended.hung
    assert ended.status == 128 + sent, ended.stderr[-2000:]
    assert "Traceback" not in ended.stderr, ended.stderr[-2000:]
    name = "Ctrl-C" if sent == signal.SIGINT else "SIGTERM"
    assert f"({name})" in ended.message
    assert ended.message.startswith("error: ")


@pytest.mark.parametrize("accident", SIGNALS)
@pytest.mark.parametrize("name", TARGETS)
def test_interrupted_before_any_write_it_leaves_nothing_half_done(site, outcomes, repeats, name, accident):
    place = site(name)
    count = len(place.calm.events)
    # Of those that take seconds the default form interrupts each in one way, at one write.
    if name in QUICK or repeats > 1:
        chosen = moments(count, repeats)
    elif list(SIGNALS)[list(TARGETS).index(name) % len(SIGNALS)] == accident:
        chosen = [random.randint(1, count)]
    else:
        pytest.skip("in the long form")
    for event in chosen:
        place.clear()
        with outcomes.trial(f"{accident} at a write", name, OUTCOME[accident]):
            ended = place.run({"signal": SIGNALS[accident], "event": event})
            assert len(ended.events) >= event, "the moment never came"
            check_end(ended, accident)
            place.check_whole()
            place.check_next_run()


@pytest.mark.parametrize("name", TARGETS)
def test_interrupted_at_random_moments_it_goes_on_and_ends_with_the_undisturbed_bytes(site, outcomes, repeats, name):
    place = site(name)
    place.clear()
    for _ in range(repeats):
        for accident in SIGNALS if name in QUICK or repeats > 1 else [random.choice(list(SIGNALS))]:
            seconds = random.uniform(0, place.calm.seconds)
            ended = place.run({"signal": SIGNALS[accident], "seconds": seconds})
            if ended.status == 0:  # it was faster this time
                place.clear()
                continue
            with outcomes.trial(f"{accident} at a random moment", name, OUTCOME[accident]):
                check_end(ended, accident)
                place.check_whole()
    place.check_next_run()


def wait_for_output(process, path, text, seconds=120):
    """Wait until a started program has printed something."""
    for _ in range(int(seconds / 0.02)):
        if text in path.read_text(encoding="utf-8", errors="replace"):
            return
        assert process.poll() is None, path.read_text(encoding="utf-8", errors="replace")
        time.sleep(0.02)
    raise AssertionError(f"{text} was not printed")


def start(folder, log, *command):
    with log.open("w", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )


def catches_sigterm(pid):
    """Return whether a program has installed its handlers: Python by itself has one for Ctrl-C alone."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = int(re.search(r"SigCgt:\s*([0-9a-f]+)", status)[1], 16)
    return caught >> (signal.SIGTERM - 1) & 1 == 1


@pytest.mark.parametrize("accident", ["SIGTERM", "Ctrl-C"])
@pytest.mark.parametrize("name", ["finetune", "chat"])
def test_while_it_imports_it_ends_at_once_in_one_line(run_copy, tmp_path, outcomes, repeats, name, accident):
    for _ in range(repeats):
        with outcomes.trial(f"{accident} during the imports", name, "one line, ends at once"):
            process = start(run_copy, tmp_path / "log", f"stages/{name}.py")
            while not catches_sigterm(process.pid):  # the program's first lines have run, no more
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.3))
            process.send_signal(SIGNALS[accident])
            started = time.monotonic()
            assert process.wait(timeout=60) == 128 + SIGNALS[accident]
            assert time.monotonic() - started < 10
            said = (tmp_path / "log").read_text(encoding="utf-8")
            assert re.fullmatch(r"\s*error: .*\n", said), said


@pytest.mark.parametrize("accident", SIGNALS)
def test_the_page_ends_at_once(run_copy, tmp_path, outcomes, accident):
    with outcomes.trial(accident, "web", "ends at once, no traceback"):
        process = start(run_copy, tmp_path / "log", "stages/chat.py", "web", "--port", "0")
        wait_for_output(process, tmp_path / "log", "http://127.0.0.1:")
        process.send_signal(SIGNALS[accident])
        status = process.wait(timeout=20)
        assert status == (-9 if accident == "kill -9" else 0)  # to end the page is no accident
        assert "Traceback" not in (tmp_path / "log").read_text(encoding="utf-8")


# --- Under DVC -------------------------------------------------------------------------------------------------------


def repro(folder, *arguments):
    """Start `dvc repro` as a terminal does: in a group of its own, to which Ctrl-C goes."""
    with (folder / ".repro.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", *arguments],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        )


def stage_of(process, script="stages/"):
    """Return the process of the stage that DVC runs at the moment, or None."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return next((child for child in children if any(script in part for part in child.cmdline())), None)
    except psutil.NoSuchProcess:
        return None


def interrupt(process, victim, sent):
    """Send a signal to DVC, to its stage, or as Ctrl-C to both; returns whether there was anybody to get it."""
    if process.poll() is not None:
        return False
    stage = stage_of(process)
    if victim == "stage" and stage is None:
        return False
    if victim == "both" and sent == signal.SIGINT:
        os.killpg(process.pid, sent)
        return True
    for one in {"dvc": [process], "stage": [stage], "both": [process, stage]}[victim]:
        if one is not None:
            one.send_signal(sent)
    return True


VICTIMS = [("both", "Ctrl-C"), ("both", "kill -9"), ("dvc", "kill -9"), ("stage", "kill -9"), ("dvc", "SIGTERM")]


def change_and_reproduce(folder):
    """Change what every stage depends on, and return the seconds that `dvc repro` then takes."""
    edit_params(folder / "params.yaml", **{"prepare.min_question_characters": 6, "train.seed": 7})
    started = time.monotonic()
    checked(folder, "dvc", "repro")
    return time.monotonic() - started


@pytest.fixture(scope="session")
def reproduced(finished_run, tmp_path_factory):
    """The finished run with changed parameters, reproduced undisturbed: its bytes, and how long it took."""
    folder = copy_run(finished_run, tmp_path_factory.mktemp("reproduced") / "run")
    seconds = change_and_reproduce(folder)
    return outputs(folder), seconds


def test_dvc_repro_interrupted_at_random_moments_ends_with_the_undisturbed_bytes(
    run_copy, reproduced, outcomes, repeats
):
    undisturbed, seconds = reproduced
    edit_params(run_copy / "params.yaml", **{"prepare.min_question_characters": 6, "train.seed": 7})
    for _ in range(repeats):
        for victim, accident in VICTIMS:
            process = repro(run_copy)
            orphan = None
            time.sleep(random.uniform(0.5, max(1.0, seconds / len(VICTIMS))))
            orphan = stage_of(process)
            if not interrupt(process, victim, SIGNALS[accident]):
                process.wait(timeout=600)
                continue
            with outcomes.trial(f"{accident} of {victim}", "dvc repro", "the next dvc repro has the undisturbed bytes"):
                assert process.wait(timeout=600) != 0
                said = (run_copy / ".repro.log").read_text(encoding="utf-8", errors="replace")
                assert "Traceback" not in said, said[-3000:]
                if victim == "both" and orphan is not None:
                    psutil.wait_procs([orphan], timeout=30)
                    assert not orphan.is_running()
                assert run(run_copy, "git", "status", "--porcelain").returncode == 0
    with outcomes.trial(
        "all of these one after the other", "dvc repro", "the last dvc repro has the undisturbed bytes"
    ):
        checked(run_copy, "dvc", "repro")
        assert outputs(run_copy) == undisturbed
        assert leftovers(run_copy) == []
        assert run(run_copy, "dvc", "status", "--json").stdout.strip() == "{}"


def test_of_two_dvc_repro_at_once_one_is_right_and_the_other_says_why_not(run_copy, outcomes):
    with outcomes.trial("two dvc repro at once", "dvc repro", "one ends well, the other says who holds what"):
        edit_params(run_copy / "params.yaml", **{"split.fold": 1})
        first, second = repro(run_copy, "format"), repro(run_copy, "format")
        ended = sorted([first.wait(timeout=600), second.wait(timeout=600)])
        assert ended[0] == 0
        checked(run_copy, "dvc", "repro", "format")
        assert run(run_copy, "dvc", "status", "--json", "format").stdout.strip() == "{}"
        assert leftovers(run_copy) == []


@pytest.mark.parametrize("name", ["prepare", "split", "format", "evaluate", "benchmark", "export"])
def test_of_two_of_one_program_one_waits_or_refuses(site, tmp_path, outcomes, name):
    """The other process holds the lock as one does whose DVC was killed."""
    place = site(name)
    place.clear()
    lock = "models/.merged" if name == "export" else f".checkpoints/{name}"
    code = (
        "import sys, time; sys.path.insert(0, 'stages')\n"
        "from pathlib import Path\nfrom civilqa.program.lifecycle.locks import hold\n"
        f"with hold(Path({lock!r}), 'the first of two'):\n"
        "    print('held', flush=True); time.sleep(2)"
    )
    with outcomes.trial("two at once", name, "one waits for the other, or says who is at work"):
        other = subprocess.Popen(
            [sys.executable, "-c", code], cwd=place.folder, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        assert other.stdout.readline() == "held\n"
        ended = place.run()
        other.wait(timeout=60)
        if name == "export":
            assert ended.status == 1
            assert "(the first of two) holds it" in ended.message
        else:
            assert ended.status == 0, ended.stderr
            assert "waiting for it to end" in ended.stdout
        place.check_next_run()


def test_what_is_cut_off_while_the_page_opens_is_no_traceback(caplog):
    """As uvicorn and starlette log it when a signal comes between the start of the loop and that of the server."""
    log = logging.getLogger("page")
    log.addFilter(is_no_farewell)
    log.error("Traceback (most recent call last):\n  ...\nasyncio.exceptions.CancelledError\n")
    log.error("Cancel %s running task(s), timeout graceful shutdown exceeded", 3)
    try:
        raise asyncio.CancelledError
    except asyncio.CancelledError:
        log.exception("Exception in ASGI application")
    log.error("Exception in ASGI application")
    assert caplog.messages == ["Exception in ASGI application"]
