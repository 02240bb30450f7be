"""Trackers that a user follows trainings with, by transformers' own callbacks: what they write goes to logs/.

Nothing of it is an output of the stage, nor decides the training. Nothing leaves this machine unless the environment
says so: what the user has set there stands.
"""

import importlib.util
import os
from pathlib import Path
from typing import Literal

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

from civilqa.program.errors import ParameterError
from civilqa.training.checkpoints import checkpoint_root

Tracker = Literal["none", "tensorboard", "mlflow", "wandb", "trackio", "dvclive"]


def check_tracker(name: Tracker) -> None:
    """Check that a tracker can be imported, before the base is loaded.

    Raises:
        ParameterError: it is not installed.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise ParameterError(
            f"params.yaml: train.report_to: found {name}, which is not installed; run `pip install {name}`, or set none"
        )


def log_folder() -> Path:
    """Return the folder of all trackers: in the main checkout, as that of the checkpoints is."""
    return checkpoint_root().with_name("logs")


def make_tracker(name: Tracker, training: str) -> TrainerCallback | None:
    """Return the callback that reports to a tracker, or None for none.

    Args:
        training: what the training is called there; a resumed one has the name that it began with, and goes on there.
    """
    if name == "none":
        return None
    folder = log_folder()
    own = folder / name / training
    settings = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": str(own)},
        "mlflow": {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_EXPERIMENT_NAME": "civil-law",
        },
        "wandb": {
            "WANDB_MODE": "offline",
            "WANDB_DIR": str(folder),
            "WANDB_PROJECT": "civil-law",
            "WANDB_RUN_ID": training,
            "WANDB_RESUME": "allow",
        },
        "trackio": {"TRACKIO_DIR": str(folder / "trackio")},
        "dvclive": {},
    }
    folder.mkdir(exist_ok=True)
    for variable, value in settings[name].items():
        os.environ.setdefault(variable, value)
    (kind,) = get_reporting_integration_callbacks(name)
    if name == "dvclive":  # by itself it would make experiments of its own, beside those of `dvc exp run`
        from dvclive import Live

        return kind(live=Live(dir=str(own), resume=True, report=None, save_dvc_exp=False, dvcyaml=None))
    return kind()
