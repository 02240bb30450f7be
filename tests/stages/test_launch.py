"""Training in several processes, and sharing what came of it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from ruamel.yaml import YAML

from civilqa.model.processes import find_dvc, is_gone, is_main_process, local_index, process_count
from conftest import ROOT, edit_params

CONFIGS = sorted((ROOT / "stages" / "accelerate").glob("*.yaml"))
# Noise and dropout are drawn anew in each process; without them two processes compute what one does.
SMALL = {
    "prepare.difficulties": ["초급"],
    "train.epochs": 2,
    "train.neftune_noise_alpha": None,
    "hardware.threads": 1,
    "hardware.device": "cpu",
}


def environment():
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
    }


def call(folder, *command):
    finished = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, encoding="utf-8", env=environment(), check=False
    )
    assert finished.returncode == 0, f"{command}:\n{finished.stdout[-3000:]}\n{finished.stderr[-3000:]}"
    return finished.stdout


def prepared(project):
    edit_params(project / "params.yaml", **SMALL)
    for stage in ("prepare", "split", "format"):
        call(project, sys.executable, f"stages/{stage}.py")
    return project


def losses(project):
    with (project / "metrics/plots/loss_train.csv").open(encoding="utf-8") as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_launch_setting_is_one_that_accelerate_takes(config):
    """Every key is one of accelerate's, and its own check of the command passes."""
    args = launch_command_parser().parse_args(["--config_file", str(config), "stages/finetune.py"])
    args, defaults, _ = _validate_launch_command(args)
    assert defaults.num_processes == args.num_processes >= 2
    assert args.mixed_precision == "no", "hardware.precision decides, not the launcher"
    assert args.multi_gpu or args.use_fsdp


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_launch_setting_says_how_to_use_it(config):
    assert f"launch: accelerate launch --config_file stages/accelerate/{config.name}" in config.read_text(
        encoding="utf-8"
    )


def test_what_starts_the_processes_is_read_from_the_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (process_count(), local_index(), is_main_process()) == (1, 0, True)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert (process_count(), local_index(), is_main_process()) == (8, 1, False)


CHILD = """
import sys, time
sys.path.insert(0, "stages")
from civilqa.model.processes import find_dvc, is_gone
dvc = find_dvc()
print(dvc.pid, is_gone(dvc), flush=True)
while not is_gone(dvc):
    time.sleep(0.05)
print("gone", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="starts a shell as Unix does")
def test_a_parent_that_is_killed_is_missed_past_a_shell_that_lives_on(tmp_path):
    """Whoever has `dvc` among its words is DVC; the shell between the two, which dash does not replace, has not."""
    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    shell = f"{sys.executable} {tmp_path / 'child.py'}; true"
    dvc = subprocess.Popen(
        [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[2:])", "dvc", "sh", "-c", shell],
        cwd=ROOT,
        env=environment() | {"DVC_STAGE": "finetune"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert dvc.stdout.readline() == f"{dvc.pid} False\n"
    dvc.kill()
    dvc.wait()
    assert dvc.stdout.readline() == "gone\n"
    dvc.stdout.close()


def test_a_process_that_dvc_did_not_start_has_no_dvc(monkeypatch):
    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert find_dvc() is None
    assert not is_gone(None)


@pytest.mark.slow
def test_two_processes_train_as_one_does_with_the_same_global_batch(project):
    prepared(project)
    edit_params(project / "params.yaml", **{"train.batch_size": 2})
    call(project, sys.executable, "stages/finetune.py")
    one = losses(project)
    edit_params(project / "params.yaml", **{"train.batch_size": 1})
    output = call(
        project,
        *("accelerate", "launch", "--config_file", "stages/accelerate/ddp_cpu.yaml", "stages/finetune.py"),
    )
    assert losses(project) == pytest.approx(one, abs=1e-4)
    assert len(one) == 14
    run = json.loads((project / "metrics/runs/finetune.json").read_text(encoding="utf-8"))
    assert run["processes"] == 2
    assert output.count("parameters trained") == 1, "only the main process says what it does"
    assert list((project / ".checkpoints").iterdir()) == []


@pytest.mark.slow
def test_a_fresh_clone_pulls_what_another_pushed_and_runs_nothing(project, tmp_path):
    (project / "dvc.lock").unlink(missing_ok=True)
    edit_params(project / "params.yaml", **(SMALL | {"train.epochs": 1}))
    git = ("git", "-c", "user.email=test@example.com", "-c", "user.name=test")
    call(project, "git", "init", "--quiet")
    call(project, "dvc", "repro", "finetune")
    call(project, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    call(project, "git", "add", "--all")
    call(project, *git, "commit", "--quiet", "--message", "trained")
    call(project, "dvc", "push", "finetune", "--with-deps")

    clone = tmp_path / "clone"
    call(tmp_path, "git", "clone", "--quiet", str(project), str(clone))
    assert not (clone / "models/adapter").exists()
    call(clone, "dvc", "pull", "finetune", "--with-deps")
    weights = "models/adapter/adapter_model.safetensors"
    assert (clone / weights).read_bytes() == (project / weights).read_bytes()
    assert "Running stage" not in call(clone, "dvc", "repro", "finetune")


@pytest.mark.slow
def test_the_launcher_of_params_yaml_is_what_dvc_runs(project):
    edit_params(project / "params.yaml", launch="accelerate launch --config_file stages/accelerate/ddp_cpu.yaml")
    stage = YAML(typ="safe").load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["finetune"]
    assert stage["cmd"] == "${launch} stages/finetune.py"
    (project / "dvc.lock").unlink(missing_ok=True)
    call(project, "git", "init", "--quiet")
    call(project, "dvc", "repro", "--quiet", "format")
    shown = call(project, "dvc", "repro", "--dry", "--single-item", "finetune")
    assert "> accelerate launch --config_file stages/accelerate/ddp_cpu.yaml stages/finetune.py" in shown
