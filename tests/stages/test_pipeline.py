"""The pipeline as a whole: what dvc.yaml says, and what a user sees who runs it."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from accidents import SMALL
from civilqa.program.errors import PipelineError
from civilqa.program.parameters import read_params
from conftest import HEADER, ROOT, committed, edit_params

STAGES = ("prepare", "split", "format", "finetune", "evaluate", "benchmark")


def dvc_yaml():
    return YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def test_the_stages_are_these_six_in_this_order_and_described():
    stages = dvc_yaml()["stages"]
    assert tuple(stages) == STAGES
    for name, stage in stages.items():
        assert stage["cmd"].endswith(f" stages/{name}.py")
        assert stage["desc"]


def test_the_stages_that_compute_depend_on_the_versions():
    for name in ("format", "finetune", "evaluate", "benchmark"):
        assert "requirements.txt" in dvc_yaml()["stages"][name]["deps"]


def test_the_length_limit_of_training_concerns_finetune_alone():
    """format tells how many records exceed it, and would write the same bytes for another limit."""
    for name, stage in dvc_yaml()["stages"].items():
        assert bool({"train", "train.max_length"} & set(stage["params"])) == (name == "finetune")


def test_a_page_about_the_data_makes_no_stage_run_again():
    """data/prepared holds data/prepared/report.html beside the records."""
    used = {dep for stage in dvc_yaml()["stages"].values() for dep in stage["deps"] if dep.startswith("data/prepared")}
    assert used == {"data/prepared/records.jsonl"}


@pytest.mark.parametrize("stage", ["prepare", "split", "format"])
def test_the_data_stages_import_no_torch(stage):
    script = f"import sys; sys.path.insert(0, 'stages'); import {stage}; print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.parametrize("script", ["finetune", "evaluate", "benchmark", "export"])
def test_what_compiles_nothing_imports_no_compiler(script):
    code = (
        f"import sys; sys.path.insert(0, 'stages'); import {script}; print('torch._inductor.compile_fx' in sys.modules)"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"


def refusal(stage: str) -> str:
    """Return the message with which a stage ends in the present folder, run in this process."""
    with pytest.raises(PipelineError) as refused:
        importlib.import_module(stage).main()
    return str(refused.value)


BROKEN = {
    "unknown section 'hardwear' (did you mean 'hardware'?)": ("\nhardware:\n", "\nhardwear:\n"),
    "not readable as YAML": ("\nhardware:\n", "\nhardware:\n  {\n"),
}


@pytest.fixture
def here(project, monkeypatch):
    """A copy of the project to run stages in, in this process."""
    monkeypatch.chdir(project)
    return project


def test_every_stage_refuses_a_broken_params_yaml_before_it_does_anything(here):
    path = here / "params.yaml"
    text = path.read_text(encoding="utf-8")
    for message, (old, new) in BROKEN.items():
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        for stage in STAGES:
            assert message in refusal(stage), stage


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_refusal_ends_the_program_with_status_1_a_message_and_no_traceback(project, run_stage, stage):
    edit_params(project / "params.yaml", **{"model.profil": "tiny", "prepare.sorce": 1, "split.fol": 1})
    finished = run_stage(stage)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("error: ") or "\nerror: " in f"\n{finished.stderr}"
    assert "unknown key" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("stage", "key", "value", "message"),
    [
        ("prepare", "prepare.categories", "전세사기", "prepare.categories: found '전세사기'"),
        ("prepare", "prepare.source", "none.csv", "none.csv: not found"),
        ("split", "split.validation_fraction", 0.9, "split.validation_fraction: found 0.9"),
        ("format", "format.style", "chat", "'conversational' or 'instruction'"),
        ("format", "model.profile", "tinny", "unknown profile 'tinny' (did you mean 'tiny'?)"),
        ("finetune", "train.preset", "best", "there are: fast, balanced, quality, memory_efficient"),
        ("finetune", "train.epochs", "many", "train.epochs: found 'many'"),
        ("evaluate", "evaluate.batch_size", 0, "evaluate.batch_size: found 0"),
        ("benchmark", "benchmark.repeats", -1, "benchmark.repeats: found -1"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(here, stage, key, value, message):
    edit_params(here / "params.yaml", **{key: value})
    assert message in refusal(stage)


@pytest.mark.usefixtures("here")
def test_a_stage_without_its_input_names_what_to_run():
    for stage in STAGES[1:]:
        assert "dvc repro" in refusal(stage), stage


# --- under DVC -------------------------------------------------------------------------------------------------------


def call(project: Path, *command: str, check: bool = True) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    finished = subprocess.run(
        command, cwd=project, capture_output=True, text=True, encoding="utf-8", env=environment, check=False
    )
    if check and finished.returncode != 0:
        raise AssertionError(f"{command} ended with {finished.returncode}:\n{finished.stdout}\n{finished.stderr}")
    return finished.stdout if check else finished.stdout + finished.stderr


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def lock_without_benchmark(project: Path) -> dict:
    lock = YAML(typ="safe").load((project / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    return {name: stage for name, stage in lock.items() if name != "benchmark"}


@pytest.fixture
def repository(project: Path) -> Path:
    """The project as a git repository of its own, with the small run's parameters committed."""
    (project / "dvc.lock").unlink(missing_ok=True)
    edit_params(project / "params.yaml", **SMALL)
    call(project, "git", "init", "--quiet")
    call(project, "git", "config", "user.email", "test@example.com")
    call(project, "git", "config", "user.name", "test")
    call(project, "git", "add", "--all")
    call(project, "git", "commit", "--quiet", "--message", "start")
    return project


@pytest.mark.slow
def test_a_user_s_day_with_dvc(repository):
    """One long test, since every step starts from what the one before it left."""
    # A first run does everything, and a second one nothing.
    assert stages_run(call(repository, "dvc", "repro")) == list(STAGES)
    assert (repository / "models/adapter/adapter_model.safetensors").is_file()
    assert stages_run(call(repository, "dvc", "repro")) == []
    call(repository, "git", "add", "--all")
    call(repository, "git", "commit", "--quiet", "--message", "first run")

    # A preset that is not selected re-runs nothing, nor does one's own profile beside the selected.
    edit_params(repository / "params.yaml", **{"presets.quality.epochs": 9, "profiles.mine": {"name": "a/b"}})
    assert stages_run(call(repository, "dvc", "repro")) == []

    # Forced, everything runs again and gives the same bytes; the base's answers are not generated again.
    lock = lock_without_benchmark(repository)
    call(repository, "dvc", "repro", "--force")
    assert lock_without_benchmark(repository) == lock
    assert call(repository, "git", "status", "--short", "data", "metrics/evaluate.json") == ""
    call(repository, "git", "commit", "--quiet", "--all", "--message", "unselected entries")

    # Another preset re-runs training and what follows, and the metrics say what changed.
    answers = set((repository / ".generations").iterdir())
    output = call(repository, "dvc", "exp", "run", "--set-param", "train.preset=fast", "--name", "fast")
    assert stages_run(output) == ["finetune", "evaluate", "benchmark"]
    new = set((repository / ".generations").iterdir()) - answers
    kept = [json.loads(path.read_text(encoding="utf-8"))["answers"][0] for path in new]
    batches = [first for first in kept if isinstance(first, dict)]  # the others rate the statements of a question
    assert len(batches) == 1, "only the adapter's one batch of answers is new"
    assert 0 < len(kept) - 1 < len(answers) / 2, "only the adapter's ratings are new"
    differences = json.loads(call(repository, "dvc", "metrics", "diff", "--json"))
    assert list(differences) == ["metrics/summary.json"]
    assert {"bits", "train_loss"} <= set(differences["metrics/summary.json"])
    assert "fast" in call(repository, "dvc", "exp", "show", "--csv")

    # A mistyped key is refused by DVC itself, an unknown preset names what there is.
    assert "train.presett" in call(repository, "dvc", "exp", "run", "-S", "train.presett=fast", check=False)
    assert "presets.best" in call(repository, "dvc", "exp", "run", "-S", "train.preset=best", check=False)


@pytest.mark.slow
def test_the_four_presets_give_four_adapters(project, run_stage):
    edit_params(project / "params.yaml", **(SMALL | {"train.epochs": None}))
    params = read_params(project / "params.yaml")
    for preset in params["presets"]:
        edit_params(project / "params.yaml", **{f"presets.{preset}.epochs": 0.2})
    for stage in ("prepare", "split", "format"):
        assert run_stage(stage).returncode == 0
    adapters = set()
    for preset in params["presets"]:
        edit_params(project / "params.yaml", **{"train.preset": preset})
        finished = run_stage("finetune")
        assert finished.returncode == 0, finished.stderr
        adapters.add((project / "models/adapter/adapter_model.safetensors").read_bytes())
    assert len(adapters) == 4


@pytest.mark.slow
def test_anyones_csv_runs_through_every_stage(project, run_stage):
    words = [
        "유류분",
        "한정승인",
        "대습상속",
        "기여분",
        "특별수익",
        "유언집행",
        "상속회복",
        "분할협의",
        "포기",
        "제척기간",
        "유증",
        "사인증여",
    ]
    rows = [
        f"{word}이란 무엇인가요?,{word}에 관한 답변입니다.,{'상속' if i % 2 else ''}," for i, word in enumerate(words)
    ]
    (project / "mine.csv").write_text("\n".join([HEADER, *rows]), encoding="utf-8-sig")
    edit_params(
        project / "params.yaml",
        **(SMALL | {"prepare.source": "mine.csv", "prepare.difficulties": [], "format.style": "instruction"}),
    )
    for stage in STAGES:
        finished = run_stage(stage)
        assert finished.returncode == 0, finished.stderr
    metrics = json.loads((project / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert set(metrics["test_by_category"]) == {"(none)", "상속"}
    assert "citation_f1" not in metrics["test"]["base"]

    asked = subprocess.run(
        [sys.executable, "stages/chat.py"],
        cwd=project,
        input="/분야 전세사기\n/분야 상속\n상속 포기는 언제까지 하나요?\n\n/끝\n읽히지 않는 줄\n",
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    # The categories are those of this training, not those that have a prompt in params.yaml.
    assert "'전세사기' 분야는 학습하지 않았습니다. 분야: 자동, 상속 " in asked.stdout
    assert "이제 '상속' 분야로 답합니다." in asked.stdout
    assert "\n분야: 상속\n" in asked.stdout
    assert asked.stdout.count("토큰 · ") == 1


# --- what was committed ----------------------------------------------------------------------------------------------


def test_the_tuned_tiny_model_recalls_its_training_answers_and_its_base_none():
    recall = committed("evaluate")["train_recall"]
    assert recall["n"] == committed("split")["records"]["train"]["total"]
    assert recall["adapter"]["recalled"] >= 0.9
    assert recall["base"]["recalled"] == 0


@pytest.mark.parametrize("name", ["finetune", "evaluate", "benchmark"])
def test_results_of_the_tiny_model_say_that_it_knows_no_law(name):
    assert "knows no law" in committed(name)["notice"]


def test_the_committed_data_counts_every_row():
    rows = committed("prepare")["rows"]
    assert rows["kept"] + rows["filtered"] == rows["read"] == 60
