"""From an experiment on one's own CSV to a commit and to a colleague, by the lines of README.md."""

import shutil

import pytest

from accidents import checked
from conftest import ROOT

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = {
    "in git": ["git add -N data/raw/mine.csv"],
    "out of git": ["dvc add data/raw/mine.csv && git add data/raw/mine.csv.dvc data/raw/.gitignore"],
}
RECIPE = [
    "git add params.yaml dvc.lock metrics data/raw .dvc/config",
    'git commit -m "Train with the fast preset" && dvc push && git push',
]


@pytest.mark.parametrize("kept", OWN)
def test_a_colleague_pulls_the_commit_of_an_experiment_on_one_s_own_csv(run_copy, tmp_path, kept):
    assert all(line in README for line in [*OWN[kept], *RECIPE])
    shutil.copy(run_copy / "data/raw/civil_law_qa_dataset.csv", run_copy / "data/raw/mine.csv")
    checked(run_copy, "sh", "-c", *OWN[kept])
    queue = "dvc exp run --queue -S prepare.source=data/raw/mine.csv --name mine evaluate && dvc exp run --run-all"
    checked(run_copy, "sh", "-c", queue)

    checked(run_copy, "git", "init", "--quiet", "--bare", str(tmp_path / "origin"))
    checked(run_copy, "git", "remote", "add", "origin", str(tmp_path / "origin"))
    for key, value in {"user.name": "test", "user.email": "test@example.com", "push.autoSetupRemote": "true"}.items():
        checked(run_copy, "git", "config", key, value)
    checked(run_copy, "sh", "-c", "dvc exp apply mine && dvc repro")
    checked(run_copy, "dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    for line in RECIPE:
        checked(run_copy, "sh", "-c", line)
    assert checked(run_copy, "git", "status", "--porcelain") == ""
    in_git = checked(run_copy, "git", "ls-files", "data/raw/mine.csv")
    assert bool(in_git) == (kept == "in git")

    checked(tmp_path, "git", "clone", "--quiet", str(tmp_path / "origin"), "colleague")
    colleague = tmp_path / "colleague"
    checked(colleague, "dvc", "pull")
    assert checked(colleague, "dvc", "status").strip() == "Data and pipelines are up to date."
    assert (colleague / "data/raw/mine.csv").read_bytes() == (run_copy / "data/raw/mine.csv").read_bytes()
