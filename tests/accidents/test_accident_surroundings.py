"""The same bytes wherever it runs: no locale, odd paths, no home, no passwd entry, no git, closed streams."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from accidents import checked, leftovers, outputs, run

pytestmark = pytest.mark.slow

STAGES = ("prepare", "split", "format", "finetune", "evaluate", "benchmark")
NO_LOCALE = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
BIN = str(Path(sys.executable).parent)
ODD_PATH = "서류 & 'copy' (1)"
QUESTION = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"
NOBODY = 12345  # a user id without an entry in passwd


def bare(**changes):
    """Return an environment with no locale, no home, and little else, as a container or a cron job has it."""
    return {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", **NO_LOCALE, **changes}


def call(folder, script, environment):
    """Run a line of shell in a folder; nothing of this process's environment is passed on."""
    return subprocess.run(
        ["/bin/sh", "-c", script], cwd=folder, env=environment, capture_output=True, text=True,
        encoding="utf-8", errors="replace", timeout=600, check=False,
    )  # fmt: skip


def test_a_shallow_clone_in_an_odd_path_without_locale_and_home(finished_run, tmp_path, outcomes):
    """One run of everything: none of these hides another, since each alone would have to change nothing."""
    folder = tmp_path / ODD_PATH / "저장소"
    folder.parent.mkdir()
    checked(tmp_path, "git", "clone", "--quiet", "--depth", "1", finished_run.as_uri(), str(folder))
    (folder / "dvc.lock").unlink()
    environment = bare(TERM="dumb", COLUMNS="1", PYTHONHASHSEED="7", TMPDIR="/nonexistent")
    what = "no locale, no HOME, odd path, shallow clone, umask 077, width 1, no TMPDIR, stdin closed"
    with outcomes.trial(what, "dvc repro", "the undisturbed bytes"):
        done = call(folder, "umask 077; exec dvc repro 0<&-", environment)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        assert outputs(folder) == outputs(finished_run)
        assert leftovers(folder) == []
    (folder / "질문 파일.csv").write_text(f"질문\n{QUESTION}\n", encoding="utf-8")
    for target, script in (
        ("chat", f"python stages/chat.py --question '{QUESTION}' --max-new-tokens 4 0<&-"),
        ("batch", "python stages/chat.py batch '질문 파일.csv' '답변 파일.jsonl' --max-new-tokens 4 0<&-"),
        ("export", "python stages/export.py --output '내보낸 것' 0<&-"),
    ):
        with outcomes.trial(what, target, "ends well"):
            done = call(folder, f"umask 077; exec {script}", environment)
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.fixture
def plain_copy(finished_run, tmp_path):
    """The project and its outputs in a folder that no git and no DVC knows."""
    folder = tmp_path / "plain"
    shutil.copytree(finished_run, folder, ignore=shutil.ignore_patterns(".git", ".dvc", "*.lock"), symlinks=True)
    return folder


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root becomes somebody else",
)
def test_a_user_without_name_and_home_and_a_folder_without_git(finished_run, plain_copy, outcomes, tmp_path):
    for path in [*tmp_path.parents][:2]:
        path.chmod(0o755)
    tmp_path.chmod(0o755)
    checked(tmp_path, "chown", "-R", str(NOBODY), str(plain_copy))
    become = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --"
    probe = call(plain_copy, f"{become} python -c 'import torch'", bare(HOME="/nonexistent"))
    if probe.returncode != 0:
        pytest.skip(f"another user cannot use this environment: {probe.stderr[-200:]}")
    shutil.rmtree(plain_copy / ".generations", ignore_errors=True)
    for stage in STAGES[:-1]:
        with outcomes.trial("no passwd entry, HOME=/nonexistent, no git, no DVC", stage, "the undisturbed bytes"):
            done = call(plain_copy, f"{become} python stages/{stage}.py", bare(HOME="/nonexistent"))
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert outputs(plain_copy) == outputs(finished_run)


@pytest.mark.parametrize("stage", ["prepare", "split", "format", "evaluate"])
def test_with_its_streams_closed_a_stage_writes_the_same(plain_copy, finished_run, outcomes, stage):
    with outcomes.trial("stdin, stdout and stderr closed", stage, "the undisturbed bytes"):
        done = call(plain_copy, f"exec python stages/{stage}.py 0<&- 1>&- 2>&-", bare())
        assert done.returncode == 0
        assert outputs(plain_copy) == outputs(finished_run)


@pytest.mark.parametrize("stage", ["prepare", "format", "evaluate"])
def test_a_reader_that_leaves_is_no_traceback(plain_copy, finished_run, outcomes, stage):
    with outcomes.trial("stdout into a pipe that nobody reads", stage, "one message, nothing half-written"):
        done = call(plain_copy, f"python stages/{stage}.py | true", bare())
        assert "Traceback" not in done.stderr
        assert "BrokenPipeError" not in done.stderr
        assert leftovers(plain_copy) == []
    with outcomes.trial("stdout into a pipe that nobody reads", f"{stage} again", "the undisturbed bytes"):
        checked(plain_copy, "python", f"stages/{stage}.py")
        assert outputs(plain_copy) == outputs(finished_run)


def test_a_repository_without_a_commit(plain_copy, finished_run, outcomes):
    checked(plain_copy, "git", "init", "--quiet")
    checked(plain_copy, "dvc", "init", "--quiet")
    with outcomes.trial("repository without a commit", "dvc repro prepare split format", "the undisturbed bytes"):
        finished = run(plain_copy, "dvc", "repro", "format")
        assert finished.returncode == 0, finished.stdout + finished.stderr
        assert outputs(plain_copy) == outputs(finished_run)


def test_dvc_outside_a_repository_says_so(plain_copy, outcomes):
    with outcomes.trial("no git repository", "dvc repro", "an error that says so"):
        finished = run(plain_copy, "dvc", "repro")
        assert finished.returncode != 0
        assert "not inside of a DVC repository" in finished.stderr
        assert "Traceback" not in finished.stderr
