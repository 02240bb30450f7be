"""A disk that is full, may only be read or not be written by this user: one line says which file and what to do."""

import errno
import os
import random
import subprocess
import sys

import pytest

from accidents import checked, outputs, run
from conftest import edit_params
from faults import QUICK, TARGETS, moments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="limits are those of Unix"),
]

FULL, READ_ONLY, FORBIDDEN = "full disk", "read-only file system", "no permission to write"
SAID = {
    errno.ENOSPC: ("the disk is full", "디스크가 가득"),
    errno.EDQUOT: ("the disk is full", "디스크가 가득"),
    errno.EFBIG: ("`ulimit -f`", "`ulimit -f`"),
    errno.EROFS: ("can only be read", "읽기 전용"),
    errno.EACCES: ("no permission", "권한이 없습니다"),
}
OUTCOME = "one line with the file and what to do; nothing half written; the next run has the undisturbed bytes"


def check_refusal(place, ended, *numbers):
    """A run that could not write has ended with one line that says so; a conversation only says so."""
    assert not ended.hung
    assert "Traceback" not in ended.stderr, ended.stderr[-3000:]
    said = ended.stdout if place.name == "chat" and ended.status == 0 else ended.message
    assert any(words in said for number in numbers for words in SAID[number]), said[-1000:]
    if said is ended.message:
        assert ended.status == 1
        assert ended.message.startswith("error: ")
        assert len(ended.message) < 500
    place.check_whole()


@pytest.mark.parametrize("name", TARGETS)
def test_a_disk_that_is_full_from_some_write_on_is_named(site, outcomes, repeats, name):
    place = site(name)
    # Renaming and removing need no space.
    count = sum(what not in ("rename", "remove", "rmdir") for what, _ in place.calm.events)
    quick = name in QUICK or repeats >= 20
    for event in moments(count, repeats) if quick else [random.randint(1, count)]:
        place.clear()
        number = random.choice([errno.ENOSPC, errno.EDQUOT])
        with outcomes.trial(FULL, name, OUTCOME):
            ended = place.run({"errno": number, "event": event})
            check_refusal(place, ended, number)
            if quick:
                place.check_next_run()


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_that_may_grow_no_further_is_named_whoever_writes_it(site, outcomes, repeats, name):
    """Hits what libraries in Rust and C++ write, too: weights, optimiser states."""
    place = site(name)
    largest = max(map(len, place.reference.values()))
    limits = [random.choice([0, 1]), *(random.randint(1, largest - 1) for _ in range(repeats))]
    for limit in limits if name in QUICK or repeats >= 20 else [random.randint(1, largest - 1)]:
        place.clear()
        with outcomes.trial("a write cut off halfway (EFBIG)", name, OUTCOME):
            ended = place.run({"file_bytes": limit})
            check_refusal(place, ended, errno.EFBIG, errno.ENOSPC)
            if name in QUICK or repeats > 1:
                place.check_next_run()


FOLDERS = {
    "prepare": ["data/", "metrics/", ".checkpoints/"],
    "split": ["data/", "metrics/", ".checkpoints/"],
    "format": ["data/", "metrics/", ".checkpoints/"],
    "finetune": ["models/", "metrics/", ".checkpoints/"],
    "evaluate": ["data/", "metrics/", ".generations/"],
    "benchmark": ["metrics/", ".checkpoints/"],
    "export": ["models/"],
    "batch": ["answers.jsonl"],
    "chat": ["data/"],
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_cannot_be_written_is_named(site, outcomes, repeats, name):
    place = site(name)
    quick = name in QUICK or repeats >= 20
    for folder in FOLDERS[name] if quick else [random.choice(FOLDERS[name])]:
        accident, number = random.choice([(READ_ONLY, errno.EROFS), (FORBIDDEN, errno.EACCES)])
        place.clear()
        with outcomes.trial(accident, name, OUTCOME):
            under = folder if folder.endswith("/") else ""
            ended = place.run({"errno": number, "event": 1, "under": under})
            check_refusal(place, ended, number)
    place.check_next_run()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_permissions_taken_away_are_named(site, outcomes):
    place = site("split")
    place.clear()
    (place.folder / "metrics").chmod(0o500)
    try:
        with outcomes.trial(FORBIDDEN, "split", OUTCOME):
            check_refusal(place, place.run(), errno.EACCES)
    finally:
        (place.folder / "metrics").chmod(0o700)
    place.check_next_run()


def small_disk(folder, size, *command):
    """Run a command in a namespace of its own in which `folder` is a disk of so many KiB; None where that cannot be."""
    script = f'mount -t tmpfs -o size={size}k tmpfs "$1" && cp -a "$1.kept/." "$1" && shift && cd "$1" && shift && "$@"'
    wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    probe = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    try:
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            return None
    except FileNotFoundError:
        return None
    return run(folder.parent, *wrapper, str(folder), str(folder), *command)


# In a process of DVC's own: what it copies to its cache ends in a full disk, what the stage itself writes does not.
FULL_CACHE = """
import os, sys
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and f"{os.sep}.dvc{os.sep}cache{os.sep}files" in arguments[0]:
        mode, flags = arguments[1:]
        if (mode and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR):
            raise OSError(28, os.strerror(28), arguments[0])
    if event in ("os.rename", "os.link", "shutil.move") and f".dvc{os.sep}cache{os.sep}files" in str(arguments[1]):
        raise OSError(28, os.strerror(28), str(arguments[1]))
sys.addaudithook(hook)
from dvc.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_what_dvc_could_not_put_into_its_full_cache_is_not_lost(run_copy, outcomes):
    """DVC may say that all is well. The outputs stay where they are, and the next `dvc repro` or commit stores them."""
    with outcomes.trial("DVC's cache on a full disk", "dvc repro", "the outputs stay; the next dvc repro stores them"):
        edit_params(run_copy / "params.yaml", **{"split.fold": 1})
        ended = run(run_copy, sys.executable, "-c", FULL_CACHE, "repro", "split")
        said = ended.stdout + ended.stderr
        assert "Running stage 'split'" in said
        assert "Traceback" not in said, said[-3000:]
        kept = {path.name: path.read_bytes() for path in (run_copy / "data/splits").glob("*.jsonl")}
        assert ended.returncode != 0 or len(kept) == 4, said
        checked(run_copy, "dvc", "repro", "split")
        checked(run_copy, "dvc", "commit", "--force", "split")
        after = {name: data for name, data in outputs(run_copy).items() if name.startswith("data/splits/")}
        assert len(after) == 4
        assert all(after[f"data/splits/{name}"] == data for name, data in kept.items())
        for path in (run_copy / "data/splits").glob("*"):
            path.unlink()
        checked(run_copy, "dvc", "checkout", "--force", "split")
        assert {name: data for name, data in outputs(run_copy).items() if name.startswith("data/splits/")} == after


def test_a_disk_that_is_really_full_is_named(site, tmp_path, outcomes):
    """The same as above on a small file system of its own, where this machine lets one be mounted."""
    place = site("format")
    place.clear()
    kept = tmp_path / "disk.kept"
    kept.mkdir()
    (tmp_path / "disk").mkdir()
    for name in (
        "stages",
        "data",
        "models/tiny",
        "models/templates",
        "models/llama-1b-random",
        "metrics",
        "params.yaml",
    ):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", str(place.folder / name), str(kept / name)], check=True)
    used = sum(-(-path.stat().st_size // 4096) * 4 for path in kept.rglob("*") if path.is_file())
    ended = small_disk(tmp_path / "disk", used + 16, sys.executable, "-B", "stages/format.py")
    if ended is None:
        pytest.skip("no file system can be mounted here; the injected errors above stand for it")
    with outcomes.trial("full disk (a small tmpfs)", "format", OUTCOME):
        assert ended.returncode == 1, ended.stderr
        assert "the disk is full" in ended.stderr.splitlines()[-1]
        assert "Traceback" not in ended.stderr
