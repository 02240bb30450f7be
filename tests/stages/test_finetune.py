"""The finetune stage as its user starts it."""

import json
import subprocess
import sys

import pytest

from conftest import edit_params
from kill_finetune import SMALL, kill_at_random_moments, start_project


@pytest.mark.slow
def test_what_the_stage_prints_records_and_leaves(project, run_stage):
    """One run with everything that it shows; then asked for an estimate alone, then for what no CPU can do."""
    edit_params(project / "params.yaml", **(SMALL | {"train.epochs": 1}))
    for stage in ("prepare", "split", "format"):
        assert run_stage(stage).returncode == 0
    finished = run_stage("finetune")
    assert finished.returncode == 0, finished.stderr
    assert "hardware.precision             auto   fp32" in finished.stdout
    assert "% of" not in finished.stdout
    assert "parameters trained (25.20%)" in finished.stdout
    assert "finetune: will take about" in finished.stdout

    metrics = json.loads((project / "metrics/finetune.json").read_text(encoding="utf-8"))
    assert metrics["resolved"]["train.attention"]["resolved"] == "varlen"
    assert metrics["steps_done"] == metrics["schedule"]["steps"] == 7
    run = json.loads((project / "metrics/runs/finetune.json").read_text(encoding="utf-8"))
    assert run["estimated_seconds"] > 0
    assert run["resumed_from_step"] == 0
    memory = (project / "metrics/runs/memory.csv").read_text(encoding="utf-8").splitlines()
    assert memory[0] == "step,of,mib"
    assert len(memory) == 8
    names = {path.name for path in (project / "models/adapter").iterdir()}
    assert names == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "categories.json",
        "chat_template.jinja",
        "manifest.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert list((project / ".checkpoints").iterdir()) == []

    weights = project / "models/adapter/adapter_model.safetensors"
    written = weights.stat().st_mtime_ns
    edit_params(project / "params.yaml", **{"train.estimate_only": True})
    finished = run_stage("finetune")
    assert finished.returncode == 0
    assert "nothing was trained: train.estimate_only is true" in finished.stdout
    edit_params(project / "params.yaml", **{"train.estimate_only": False, "train.attention": "flash_attention_2"})
    finished = run_stage("finetune")
    assert finished.returncode == 1
    assert "error: params.yaml: train.attention: found flash_attention_2" in finished.stderr
    assert weights.stat().st_mtime_ns == written


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits a process's memory as Unix does")
def test_out_of_memory_ends_with_what_to_change_and_leaves_no_adapter(project, run_stage):
    edit_params(project / "params.yaml", **(SMALL | {"train.batch_size": 14}))
    for stage in ("prepare", "split", "format"):
        assert run_stage(stage).returncode == 0
    # The address space that torch, the libraries and the tiny model take is allowed, its activations are not.
    script = (
        "import resource, runpy, sys; sys.path.insert(0, 'stages'); import finetune, civilqa.training.memory as e; "
        "real = e._pass_seconds\n"
        "def tight(*args):\n"
        "    import psutil; size = psutil.Process().memory_info().vms + 64 * 2**20\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY)); return real(*args)\n"
        "e._pass_seconds = tight\n"
        "from civilqa.program.lifecycle.stage import run; run(finetune.main)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=project, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert finished.returncode == 1
    assert "error: training ran out of memory" in finished.stderr
    assert "1. train.preset: memory_efficient" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (project / "models/adapter").exists()
    assert list((project / ".checkpoints").iterdir()) == []


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_it_had_not_been(tmp_path):
    start_project(tmp_path / "project")
    kills = kill_at_random_moments(tmp_path / "project", moments=3, seed=20260608)
    assert [kill for kill in kills if not kill.is_right] == []
