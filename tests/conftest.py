"""What several test modules need."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
HEADER = "question,answer,category,difficulty"

# The tests are offline by design: a test that reaches for the model hub must fail, not download.
os.environ["HF_HUB_OFFLINE"] = "1"


def edit_params(path: Path, **changes: Any) -> None:
    """Set keys of a params.yaml, written as in `-S`: edit_params(path, **{"train.epochs": 1})."""
    yaml = YAML()
    params = yaml.load(path.read_text(encoding="utf-8"))
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[key] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def copy_project(copy: Path) -> None:
    """Copy what a clone of the project holds besides its history, without outputs of stages."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    ).stdout.splitlines()
    for name in listed:
        source = ROOT / name
        if source.is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what a clone of the project holds besides its history, without outputs of stages."""
    copy = tmp_path / "project"
    copy_project(copy)
    return copy


@pytest.fixture
def run_stage(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python stages/NAME.py` in the copied project, as a user without DVC does."""

    def run(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, f"stages/{name}.py"],
            cwd=project,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )

    return run
