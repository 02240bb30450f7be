import subprocess

import pytest

from civilqa.reading.tracking import untracked_note


@pytest.fixture
def repository(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    return tmp_path


def test_a_file_that_queued_experiments_would_miss_is_named_with_the_line_that_works(repository):
    source = repository / "data/raw/내 파일.csv"
    source.write_text("질문,답변\n", encoding="utf-8")
    relative = source.relative_to(repository)
    assert "`git add -N 'data/raw/내 파일.csv'`" in untracked_note(relative)
    assert "`dvc add 'data/raw/내 파일.csv'`" in untracked_note(relative)
    subprocess.run(["git", "add", "-N", source], check=True)
    assert untracked_note(relative) is None


@pytest.mark.parametrize("tracked", ["data/raw/mine.csv.dvc", "data/raw.dvc"])
def test_a_file_that_dvc_keeps_is_known_also_by_its_folder(repository, tracked):
    source = repository / "data/raw/mine.csv"
    source.touch()
    (repository / tracked).touch()
    assert untracked_note(source.relative_to(repository)) is None


def test_of_a_file_that_git_ignores_a_copy_is_proposed(repository):
    (repository / ".gitignore").write_text("/data/reviewed/\n", encoding="utf-8")
    (repository / "data/reviewed").mkdir()
    source = repository / "data/reviewed/corrected.csv"
    source.touch()
    assert "`cp data/reviewed/corrected.csv data/raw/`" in untracked_note(source.relative_to(repository))


def test_outside_a_repository_there_is_nothing_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "mine.csv").touch()
    assert untracked_note((tmp_path / "mine.csv").relative_to(tmp_path)) is None
