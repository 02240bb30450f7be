"""A training that is cut off and goes on is the training that was not cut off."""

import functools
import os
from itertools import permutations
from types import SimpleNamespace

import pytest
from transformers import TrainerState

from civilqa.program.lifecycle.locks import hold
from civilqa.training.checkpoints import (
    KEPT_TRAININGS,
    SEAL_FILE,
    STATE_FILE,
    SealCheckpoints,
    checkpoint_root,
    find_resumable,
    fingerprint,
    forget_old_trainings,
    is_whole,
    seal,
)
from small_training import STEPS_AN_EPOCH, copy_training, cut_off, train

slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def undisturbed(small_base, tmp_path_factory):
    """Returns what a training comes to that nobody cuts off; each is trained once."""

    @functools.cache
    def train_once(**how):
        return train(small_base, tmp_path_factory.mktemp("undisturbed"), **how)

    return train_once


@pytest.fixture(scope="module")
def cut_off_after_9_steps(small_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut-off")
    cut_off(small_base, folder, 9)
    assert checkpoint_steps(folder) == [4, 8]
    return folder


def checkpoint_steps(folder):
    return sorted(int(path.name.rpartition("-")[2]) for path in (folder / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("cut_off_after", "how", "resumed_from"),
    [
        slow(5, {}, 4),
        slow(8, {}, 8),
        (7, {"checkpoint_steps": 3}, 6),
        slow(9, {"checkpoint_steps": 4}, 8),
        (6, {"keep": "best"}, 4),
        slow(6, {"quantization": "4bit"}, 4),
        slow(6, {"gradient_accumulation_steps": 2, "epochs": 6.0}, 6),
        slow(6, {"epochs": 2.25}, 4),
        slow(2, {}, None),
    ],
)
def test_a_resumed_training_is_the_undisturbed_one_to_the_byte(
    small_base, undisturbed, tmp_path, cut_off_after, how, resumed_from
):
    cut_off(small_base, tmp_path, cut_off_after, **how)
    found = find_resumable(tmp_path / "checkpoints")
    assert (found and int(found.name.rpartition("-")[2])) == resumed_from
    assert train(small_base, tmp_path, **how) == undisturbed(**how)


@pytest.mark.slow
def test_cut_off_twice_it_still_is(small_base, undisturbed, tmp_path):
    cut_off(small_base, tmp_path, 6)
    cut_off(small_base, tmp_path, 10)
    assert train(small_base, tmp_path) == undisturbed()


@pytest.mark.slow
def test_early_stopping_counts_on_after_a_resume(small_base, undisturbed, tmp_path):
    how = {"early_stopping_patience": 2, "keep": "best", "epochs": 12.0}
    history, weights = undisturbed(**how)
    validated = [row["eval_loss"] for row in history if "eval_loss" in row]
    assert len(validated) < 12, "it was to stop early"
    assert validated.index(min(validated)) == len(validated) - 3
    cut_off(small_base, tmp_path, (len(validated) - 1) * STEPS_AN_EPOCH + 1, **how)
    assert train(small_base, tmp_path, **how) == (history, weights)


def test_a_training_killed_after_its_last_step_trains_no_step_more(small_base, tmp_path):
    """The trainer itself would go on behind the end of a schedule that ends within an epoch."""
    undisturbed = train(small_base, tmp_path, epochs=1.5)
    assert checkpoint_steps(tmp_path) == [4, 6]
    assert find_resumable(tmp_path / "checkpoints").name == "checkpoint-4"
    assert train(small_base, tmp_path, epochs=1.5) == undisturbed


@pytest.mark.parametrize(
    "damage",
    [
        lambda checkpoint: (checkpoint / SEAL_FILE).unlink(),
        slow(lambda checkpoint: (checkpoint / SEAL_FILE).write_text('{"adapter', encoding="utf-8")),
        slow(lambda checkpoint: (checkpoint / "optimizer.pt").unlink()),
        slow(lambda checkpoint: (checkpoint / "optimizer.pt").write_bytes(b"")),
        slow(lambda checkpoint: (checkpoint / "adapter_model.safetensors").write_bytes(b"half of it")),
        slow(lambda checkpoint: (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state.part")),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_passed_over_for_the_one_before(
    small_base, undisturbed, cut_off_after_9_steps, tmp_path, damage, capsys
):
    copy_training(cut_off_after_9_steps, tmp_path)
    assert find_resumable(tmp_path / "checkpoints").name == "checkpoint-8"
    damage(tmp_path / "checkpoints" / "checkpoint-8")
    assert find_resumable(tmp_path / "checkpoints").name == "checkpoint-4"
    assert train(small_base, tmp_path) == undisturbed()
    assert "checkpoint-8 was not written to its end, or was changed since: passed over" in capsys.readouterr().out


def test_one_whose_best_checkpoint_is_damaged_is_passed_over(small_base, tmp_path):
    how = {"keep": "best", "epochs": 6.0}
    cut_off(small_base, tmp_path, 4 * STEPS_AN_EPOCH + 1, **how)
    best, *others = checkpoint_steps(tmp_path)
    assert len(others) == 2, "the best was to be older than the two newest"
    (tmp_path / f"checkpoints/checkpoint-{best}" / "adapter_model.safetensors").write_bytes(b"")
    assert find_resumable(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "killed-after-each"])
@pytest.mark.parametrize("ranks", [*permutations(range(4))], ids=str)
def test_whichever_epoch_is_the_best_there_is_one_to_resume_from(tmp_path, ranks, killed):
    """The lowest rank is the best; the checkpoints are what the trainer and its callback would leave."""
    args = SimpleNamespace(output_dir=str(tmp_path))
    state, sealing = TrainerState(), SealCheckpoints()
    sealing.on_train_begin(args, state, None)
    for step in (1, 2, 3, 4, 4):
        if killed or step == state.global_step:  # after the last, before DVC had recorded it: the last step once more
            resumed = find_resumable(tmp_path)
            state = TrainerState.load_from_json(str(resumed / STATE_FILE)) if resumed else TrainerState()
            sealing = SealCheckpoints()
            sealing.on_train_begin(args, state, None)
        state.global_step = step
        state.best_model_checkpoint = str(tmp_path / f"checkpoint-{ranks.index(min(ranks[:step])) + 1}")
        state.stateful_callbacks["TrainerControl"] = {"args": {"should_training_stop": step == len(ranks)}}
        newest = tmp_path / f"checkpoint-{step}"
        newest.mkdir(exist_ok=True)
        state.save_to_json(str(newest / STATE_FILE))
        sealing.on_save(args, state, None)
        assert find_resumable(tmp_path).name == f"checkpoint-{min(step, len(ranks) - 1)}"
        assert len([*tmp_path.iterdir()]) <= 3


def test_checkpoints_of_steps_that_are_done_over_are_no_predecessors(tmp_path):
    """A finished training goes on from step 8; what it left behind at step 12 stands for none that can be resumed."""
    for step in (4, 8, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (4, 8, 12):
        seal(tmp_path / f"checkpoint-{step}")
    SealCheckpoints().on_save(SimpleNamespace(output_dir=str(tmp_path)), TrainerState(global_step=10), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-8"]


def test_where_the_last_epoch_is_kept_no_best_is_needed_nor_kept(small_base, tmp_path):
    cut_off(small_base, tmp_path, 3 * STEPS_AN_EPOCH + 1, keep="last", epochs=4.0)
    assert checkpoint_steps(tmp_path) == [8, 12], "the best is the first"
    assert find_resumable(tmp_path / "checkpoints").name == "checkpoint-12"


def test_checkpoints_hold_nothing_that_must_be_unpickled_freely(cut_off_after_9_steps):
    names = {path.name for path in (cut_off_after_9_steps / "checkpoints/checkpoint-4").iterdir()}
    # optimizer, scheduler and random state are read with weights_only
    assert names == {
        SEAL_FILE,
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    }


def test_a_seal_is_for_every_file(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    assert not is_whole(tmp_path)
    seal(tmp_path)
    assert is_whole(tmp_path)
    (tmp_path / "b").write_bytes(b"")
    assert not is_whole(tmp_path)


def test_the_fingerprint_is_that_of_the_facts():
    assert fingerprint({"a": 1}) == fingerprint({"a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_the_fingerprint_changes_with_the_code(tmp_path, monkeypatch):
    import civilqa.training.trainer

    before = fingerprint({})
    other = tmp_path / "trainer.py"
    other.write_text("# another version\n", encoding="utf-8")
    monkeypatch.setattr(civilqa.training.trainer, "__file__", str(other))
    assert fingerprint({}) != before


def test_checkpoints_lie_in_the_main_checkout_when_dvc_runs_a_copy_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert checkpoint_root() == tmp_path / ".checkpoints"
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.chdir(tmp_path)
    assert checkpoint_root() == tmp_path / ".checkpoints"


def test_only_the_newest_unfinished_trainings_are_kept_and_one_that_runs(tmp_path, capsys):
    names = [f"{number:064x}" for number in range(KEPT_TRAININGS + 4)]
    for age, name in enumerate(names):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
    current, running = names[-1], names[-2]
    with hold(tmp_path / running, "a test"):
        forget_old_trainings(tmp_path / current)
        left = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {*names[:KEPT_TRAININGS], running, current}
    assert f"deleted 2 unfinished trainings, older than the last {KEPT_TRAININGS}" in capsys.readouterr().out
