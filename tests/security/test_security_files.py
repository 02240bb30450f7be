"""What may be overwritten and what guards the repository: outputs, links, the workflow, hooks before a commit."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import export
from civilqa.base_model.profiles import Profile
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import folder_aside
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.y*ml"))
TOKENS = ["hf_" + "a1" * 17, "ghp_" + "a1" * 18, "github_pat_" + "a1" * 30, "sk-" + "a1" * 20, "AKIA" + "A1" * 8]


def read_yaml(path):
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


# --- outputs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data", ".", "models/adapter", "file.txt", "link"])
def test_an_export_overwrites_nothing_but_an_earlier_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("data", "models/adapter"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "manifest.json").write_text('{"base": {}}', encoding="utf-8")
    (tmp_path / "file.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with pytest.raises(ParameterError, match=r"--output .*name a new"):
        export.check_output(tmp_path / name)


def test_an_export_takes_the_place_of_an_earlier_one(tmp_path):
    for name, files in (("new", None), ("empty", {}), ("earlier", {"manifest.json": {"parity": {}}})):
        if files is not None:
            (tmp_path / name).mkdir()
            for file, content in files.items():
                (tmp_path / name / file).write_text(json.dumps(content), encoding="utf-8")
        export.check_output(tmp_path / name)


def test_a_linked_adapter_folder_is_replaced_and_what_it_points_to_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_text("mine", encoding="utf-8")
    (tmp_path / "models").mkdir()
    (tmp_path / "models/adapter").symlink_to(tmp_path / "elsewhere")
    with folder_aside(Path("models/adapter")) as folder:
        (folder / "weights").write_text("new", encoding="utf-8")
    assert (tmp_path / "models/adapter/weights").read_text(encoding="utf-8") == "new"
    assert not (tmp_path / "models/adapter").is_symlink()
    assert (tmp_path / "elsewhere/precious").read_text(encoding="utf-8") == "mine"


def test_answers_named_like_a_lock_file_touch_no_other_file(tmp_path, monkeypatch):
    from civilqa.chat.batch import answer_file

    class Engine:
        def identity(self):
            raise RecordError("as far as the lock")

    precious = tmp_path / "dvc.jsonl.lock"
    precious.write_text("mine", encoding="utf-8")
    (tmp_path / "q.csv").write_text("question\n전세금은 어떻게 받나요?\n", encoding="utf-8")
    with pytest.raises(RecordError, match="as far as the lock"):
        answer_file(Engine(), tmp_path / "q.csv", tmp_path / "dvc.jsonl")
    assert precious.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["../../etc", "/etc"])
def test_a_profile_s_name_makes_no_path(project, run_stage, name):
    from conftest import edit_params

    params = read_yaml(project / "params.yaml")
    profiles = params["profiles"] | {name: params["profiles"]["tiny"]}
    edit_params(project / "params.yaml", profiles=profiles, **{"model.profile": name})
    before = {path for path in project.parent.rglob("*") if project not in path.parents}
    for stage in ("prepare", "split", "format"):
        finished = run_stage(stage)
        assert finished.returncode == 0, finished.stderr
    assert {path for path in project.parent.rglob("*") if project not in path.parents} == before


def test_a_tokenizer_is_of_this_machine_or_the_pinned_model(monkeypatch):
    from civilqa.base_model.prompts import load_tokenizer
    from civilqa.program.errors import ModelError

    with pytest.raises(ModelError, match="would not be pinned"):
        load_tokenizer(Profile(name="models/tiny", tokenizer="someone/else"))


# --- the public workflow ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_way_round_a_failing_step_and_may_only_read(path):
    text = path.read_text(encoding="utf-8")
    for escape in ("continue-on-error", "||", "set +e", "exit 0", "--ignore-vuln", "if: always", "pull_request_target"):
        assert escape not in text, escape
    workflow = read_yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "permissions" not in job
        assert job["timeout-minutes"] > 0
        for step in job["steps"]:
            assert "if" not in step
            assert "secrets." not in json.dumps(step)
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@(v[0-9.]+|[0-9a-f]{40})", step["uses"])


def test_the_pinned_packages_are_audited_on_every_push_and_every_week():
    (workflow,) = [read_yaml(path) for path in WORKFLOWS]
    assert {"push", "schedule"} <= workflow["on"].keys()
    assert workflow["on"]["push"] is None, "a filter would leave commits out"
    commands = [step.get("run", "") for step in workflow["jobs"]["audit"]["steps"]]
    for file in ("requirements.txt", "stages/probe_requirements.txt"):
        (command,) = [command for command in commands if f"--requirement {file}" in command]
        assert command.startswith("pip-audit --strict ")
    assert [step.get("run") for step in workflow["jobs"]["tests"]["steps"]][-1] == ".ci/run"


# --- before a commit -------------------------------------------------------------------------------------------------


def hooks():
    config = read_yaml(ROOT / ".pre-commit-config.yaml")
    return {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_is_caught_in_any_file(token):
    hook = hooks()["no-tokens"]
    assert not {"exclude", "files"} & hook.keys()
    assert hook["language"] == "pygrep"
    for line in (token, f"export HF_TOKEN={token}", f'  key: "{token}" # mine', f"https://user:{token}@host"):
        assert re.search(hook["entry"], line)


def test_no_committed_file_holds_a_token():
    entry = re.compile(hooks()["no-tokens"]["entry"].encode())
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    assert [name for name in names if (ROOT / name).is_file() and entry.search((ROOT / name).read_bytes())] == []


def test_the_search_for_secrets_leaves_out_hashes_and_no_file_that_people_write():
    hook = hooks()["detect-secrets"]
    for name in (
        "params.yaml",
        "README.md",
        "data/raw/gold.jsonl",
        "tests/base_model/test_hub.py",
        "models/tiny/config.json",
    ):
        assert not re.search(hook["exclude"], name), name
    assert re.search(hook["exclude"], "dvc.lock")
    option, lines = hook["args"]
    assert option == "--exclude-lines"
    assert re.search(lines, f"    revision: {'0a' * 20}")
    for line in (f"api_key: {'0a' * 20}", f'password = "{"0a" * 20}"', f"revision: {'0a' * 20} {TOKENS[0]}"):
        assert not re.search(lines, line), line
