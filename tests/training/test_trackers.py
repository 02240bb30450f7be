import importlib.util
import sys
import textwrap

import pytest

from civilqa.program.errors import ParameterError
from civilqa.training import trackers
from civilqa.training.trackers import check_tracker, make_tracker
from small_training import EPOCHS, STEPS_AN_EPOCH, cut_off, train

STEPS = [*range(1, EPOCHS * STEPS_AN_EPOCH + 1)]
VARIABLES = ("TENSORBOARD_LOGGING_DIR", "TRACKIO_DIR", "WANDB_MODE", "WANDB_DIR", "MLFLOW_TRACKING_URI")
# As much of trackio as transformers' callback uses.
TRACKIO = """
    import os, types
    logged, ended = [], []
    config = {}
    context_vars = types.SimpleNamespace(current_space_id=types.SimpleNamespace(get=lambda: None))
    class Config(dict):
        def update(self, values, allow_val_change=False):
            super().update(values)
    config = Config()
    def init(**settings):
        logged.append(settings | {"folder": os.environ["TRACKIO_DIR"]})
    def log(values):
        logged.append(values)
    def finish():
        ended.append(True)
"""


@pytest.fixture(autouse=True)
def _nothing_set(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for variable in VARIABLES:  # first set, so that what a tracker sets is undone after the test
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


@pytest.fixture(scope="module")
def undisturbed(small_base, tmp_path_factory):
    return train(small_base, tmp_path_factory.mktemp("undisturbed"))


def installed(name):
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")


def test_a_tracker_that_is_not_installed_is_refused_with_how_to_install_it(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    check_tracker("none")
    assert make_tracker("none", "fast-1") is None
    with pytest.raises(ParameterError, match=r"train.report_to: found mlflow, .* `pip install mlflow`"):
        check_tracker("mlflow")


def test_a_tracker_gets_every_loss_once_and_changes_no_byte(small_base, undisturbed, tmp_path, monkeypatch):
    (tmp_path / "trackio.py").write_text(textwrap.dedent(TRACKIO), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    check_tracker("trackio")
    found = train(small_base, tmp_path / "run", tracker=make_tracker("trackio", "fast-1"))
    assert found == undisturbed
    trackio = sys.modules.pop("trackio")
    assert trackio.logged[0]["folder"] == str(tmp_path / "logs/trackio")
    losses = [(row["train/global_step"], row["train/loss"]) for row in trackio.logged[1:] if "train/loss" in row]
    assert losses == [(row["step"], row["loss"]) for row in undisturbed[0] if "loss" in row]
    assert trackio.ended == [True]


@pytest.mark.parametrize(
    ("name", "variable"),
    [("wandb", "WANDB_MODE"), ("mlflow", "MLFLOW_TRACKING_URI"), ("tensorboard", "TENSORBOARD_LOGGING_DIR")],
)
def test_what_the_environment_says_stands_and_otherwise_nothing_leaves(name, variable, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "get_reporting_integration_callbacks", lambda name: [dict])
    make_tracker(name, "fast-1")
    here = {"wandb": "offline", "mlflow": f"sqlite:///{tmp_path}/logs/mlflow.db"}
    assert trackers.os.environ[variable] == here.get(name, str(tmp_path / "logs/tensorboard/fast-1"))
    monkeypatch.setenv(variable, "elsewhere")
    make_tracker(name, "fast-1")
    assert trackers.os.environ[variable] == "elsewhere"


@installed("tensorboard")
def test_tensorboard_shows_a_resumed_training_as_one_curve(small_base, undisturbed, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    cut_off(small_base, tmp_path / "run", 9, tracker=make_tracker("tensorboard", "fast-1"))
    assert train(small_base, tmp_path / "run", tracker=make_tracker("tensorboard", "fast-1")) == undisturbed
    events = EventAccumulator(str(tmp_path / "logs/tensorboard/fast-1")).Reload()
    curve = {event.step: event.value for event in events.Scalars("train/loss")}
    assert [*curve] == STEPS
    assert [*curve.values()] == pytest.approx([row["loss"] for row in undisturbed[0] if "loss" in row])


@installed("dvclive")
def test_dvclive_writes_its_curves_and_no_experiment(small_base, undisturbed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(small_base, tmp_path / "run", tracker=make_tracker("dvclive", "fast-1")) == undisturbed
    curves = (tmp_path / "logs/dvclive/fast-1/plots").rglob("loss.tsv")
    assert 1 + len(STEPS) in [len(path.read_text(encoding="utf-8").splitlines()) for path in curves]
    assert not (tmp_path / "dvclive").exists()
