import json
import os
import platform
from pathlib import Path

import pytest
from dvc.fs import localfs
from dvc_data.hashfile.istextfile import istextfile

from civilqa.program.errors import RecordError
from civilqa.program.files import (
    at_hand,
    folder_aside,
    open_aside,
    read_jsonl,
    sha256_json,
    write_csv,
    write_json,
    write_jsonl,
    write_text,
)


def test_dvc_takes_metrics_full_of_hangul_for_text(tmp_path):
    path = tmp_path / "metrics.json"
    value = {"부동산물권과 전세사기에 관한 아주 긴 분야의 이름 " * 20: 1}
    write_json(path, value)
    assert istextfile(str(path), fs=localfs)
    assert json.loads(path.read_text(encoding="utf-8")) == value


def test_the_order_in_which_keys_were_set_does_not_show(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": 2})
    write_json(tmp_path / "b.json", {"a": 2, "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert sha256_json({"b": 1, "a": 2}) == sha256_json({"a": 2, "b": 1})


def test_not_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "half \udc80")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [{"질문": '따옴표 " 와\n줄바꿈', "n": [1, 2]}, {}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert list(read_jsonl(tmp_path / "a.jsonl")) == rows


@pytest.mark.parametrize(("line", "message"), [('{"a": 1', "a.jsonl:2: no JSON"), ("[1]", "a.jsonl:2: found list")])
def test_a_bad_line_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text(f"{{}}\n{line}\n", encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        list(read_jsonl(tmp_path / "a.jsonl"))


def test_csv_lines_end_alike_on_every_system(tmp_path):
    write_csv(tmp_path / "a.csv", [{"x": "가,나", "y": 1}], ["x", "y"])
    assert (tmp_path / "a.csv").read_bytes() == 'x,y\n"가,나",1\n'.encode()


def test_a_folder_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(IsADirectoryError), folder_aside(target) as aside:
        aside.write_text("no file", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]
    with folder_aside(target) as aside:
        (aside / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


def test_a_kill_between_old_and_new_folder_loses_neither(tmp_path):
    target, old = tmp_path / "folder", tmp_path / ".folder.old.part"
    old.mkdir()
    (old / "old").touch()
    with pytest.raises(IsADirectoryError), folder_aside(target):
        target.write_text("no file", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "old"]


def test_what_a_dead_process_was_writing_is_removed_and_a_live_one_s_is_kept(tmp_path):
    dead, live = (tmp_path / f".a.txt.{platform.node()}.{pid}.part" for pid in (2**22 - 1, os.getppid()))
    dead.touch()
    live.touch()
    with open_aside(tmp_path / "a.txt") as file:
        file.write("a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [live.name, "a.txt"]


def test_what_git_does_not_hold_is_found_in_the_main_checkout(tmp_path, monkeypatch):
    """A queued experiment runs in a copy of what git has, and DVC_ROOT is where it was queued."""
    copy, checkout = tmp_path / "copy", tmp_path / "checkout"
    copy.mkdir()
    (checkout / "models/base").mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert at_hand("models/base") == Path("models/base")
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    assert at_hand("models/base") == checkout / "models/base"
    assert at_hand(tmp_path) == tmp_path
    assert at_hand("models/other") == Path("models/other")
    Path("models/base").mkdir(parents=True)
    assert at_hand("models/base") == Path("models/base")
