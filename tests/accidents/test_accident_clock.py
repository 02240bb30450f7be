"""A clock that jumps, and files from the future or from 1970: the same bytes, and nothing waits for the clock."""

import os
import random
import shutil
import sys
import time

import pytest

from accidents import checked, leftovers, outputs
from faults import TARGETS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs fork")]

YEAR = 365 * 24 * 3600


@pytest.mark.parametrize("name", TARGETS)
def test_a_clock_that_jumps_changes_no_byte(site, outcomes, repeats, name):
    place = site(name)
    for _ in range(repeats):
        place.clear()
        years = random.choice([-60, -1, 1])  # 60: a machine whose clock has no battery begins before 1970
        with outcomes.trial("the clock jumps by years", name, "the same bytes, as fast as ever"):
            ended = place.run({"clock_seconds": years * YEAR, "call": random.randint(1, 50)})
            assert ended.status == 0, ended.stderr
            assert ended.seconds < 10 * place.calm.seconds + 10
            if not place.target.varies:
                assert place.written() == place.reference


def test_checkpoints_from_the_future_and_the_past_are_gone_on_from(site, outcomes):
    """The current training is known by its fingerprint, its newest checkpoint by its step; neither by a date."""
    place = site("finetune")
    place.clear()
    renames = [index for index, (_, path) in enumerate(place.calm.events, 1) if "/checkpoint-" in path]
    with outcomes.trial("checkpoints dated by a wrong clock", "finetune", "goes on from the newest step; same bytes"):
        ended = place.run({"signal": 9, "event": renames[-1] + 1})
        assert ended.status == -9
        folders = [path for path in (place.folder / ".checkpoints").rglob("*") if path.is_dir()]
        for path in folders:
            when = random.choice([0, time.time() + YEAR])
            os.utime(path, (when, when))
        for number in range(5):  # unfinished trainings of other fingerprints, all newer
            other = place.folder / ".checkpoints" / (f"{number}" * 64)
            other.mkdir()
            os.utime(other, (time.time() + 2 * YEAR,) * 2)
        ended = place.run()
        assert ended.status == 0, ended.stderr
        assert "goes on from its step" in ended.stdout
        assert place.written() == place.reference


def test_inputs_from_the_future_or_1970_run_nothing_again(run_copy, outcomes):
    """DVC looks at dates only to save itself a hash."""
    with outcomes.trial("inputs dated 1970 or next year", "dvc repro", "nothing runs again; same bytes"):
        before = outputs(run_copy)
        for path in run_copy.rglob("*"):
            if path.is_file() and ".dvc" not in path.parts and ".git" not in path.parts:
                when = random.choice([0, time.time() + YEAR])
                os.utime(path, (when, when))
        said = checked(run_copy, "dvc", "repro")
        assert "Running stage" not in said
        assert outputs(run_copy) == before
        assert leftovers(run_copy) == []


def test_an_edit_that_bears_an_old_date_is_noticed(run_copy, outcomes):
    with outcomes.trial("an edited input dated 1970", "dvc repro", "its stage runs again"):
        source = run_copy / "data/raw/civil_law_qa_dataset.csv"
        shutil.copy(source, source.with_suffix(".bak"))
        text = source.read_text(encoding="utf-8")
        source.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        lines = text.splitlines()
        source.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
        os.utime(source, (0, 0))
        assert "Running stage 'prepare'" in checked(run_copy, "dvc", "repro", "--single-item", "prepare")
