import contextlib
import csv
import json
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from civilqa.training.recipe import StepParams
from conftest import ROOT, copy_project, edit_params, make_adapter

SMALL = {
    "hardware.threads": 1,
    "benchmark.repeats": 2,
    "benchmark.warmup": 1,
    "benchmark.train_batch_size": 2,
    "benchmark.train_length": 16,
    "benchmark.prompt_length": 8,
    "benchmark.new_tokens": 3,
    "benchmark.generate_batch_size": 2,
}


def test_dvc_watches_exactly_the_training_keys_that_decide_the_speed():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    watched = {key.removeprefix("train.") for key in stages["benchmark"]["params"] if key.startswith("train.")}
    assert watched == set(StepParams.model_fields)
    assert "train" not in stages["benchmark"]["params"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the stage prints and writes, and the project in which it ran."""
    project = copy_project(tmp_path_factory.mktemp("benchmark") / "project")
    # Keys that the benchmark does not use would stop or change a training.
    unused = {"train.max_length": 3, "train.packing": True, "train.epochs": 9, "train.keep": "best"}
    edit_params(project / "params.yaml", **SMALL)
    with contextlib.chdir(project):
        for stage in ("prepare", "split", "format"):
            call(stage)
        make_adapter(project / "models/adapter")
        edit_params(project / "params.yaml", **unused)
        printed = call("benchmark")
    text = (project / "metrics/benchmark.json").read_text(encoding="utf-8")
    assert text.isascii()
    return printed, json.loads(text), project


def call(stage):
    done = subprocess.run(
        [sys.executable, f"stages/{stage}.py"], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_rate_stands_beside_the_machine_s_limit(measured):
    out, metrics, project = measured
    training, single = metrics["training"], metrics["generation"]["single"]
    for part in (training["step_seconds"], single["first_token_seconds"], single["decode_tokens_per_second"]):
        assert 0 < part["min"] <= part["median"] <= part["max"]
    tokens = SMALL["benchmark.train_batch_size"] * SMALL["benchmark.train_length"]
    assert training["tokens_per_second"]["max"] == pytest.approx(tokens / training["step_seconds"]["min"], rel=1e-2)
    rate = training["roofline"]["flops_per_second"] / metrics["limits"]["matmul_flops_per_second"]
    assert training["model_flops_utilization"] == pytest.approx(rate, rel=1e-2)
    assert training["peak_memory_bytes"] > 2**20
    assert metrics["generation"]["load_seconds"] > 0
    assert metrics["adapter_bytes"] == (project / "models/adapter/adapter_model.safetensors").stat().st_size
    for work in ("training", "prefill, batch 1", "decode, batch 1", "prefill, batch 2", "decode, batch 2"):
        assert f"{work}: bound by " in out


@pytest.mark.slow
def test_the_plot_has_both_limits_for_each_kind_of_work(measured):
    _, metrics, project = measured
    with (project / "metrics/plots/speed.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 2
    assert rows[0] == {
        "work": "training",
        "series": "matmul rate",
        "percent": str(round(100 * metrics["training"]["model_flops_utilization"], 1)),
    }


@pytest.mark.slow
def test_the_last_lines_are_the_verdict_of_the_evaluation_of_this_adapter_and_no_other(measured):
    out, _, project = measured
    assert "verdict" not in out  # the committed evaluation is of another adapter
    path = project / "metrics/evaluate.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    manifest = json.loads((project / "models/adapter/manifest.json").read_text(encoding="utf-8"))
    metrics["adapter_sha256"] = manifest["files"]["adapter_model.safetensors"]
    path.write_text(json.dumps(metrics), encoding="utf-8")
    with contextlib.chdir(project):
        *_, verdict, report = call("benchmark").splitlines()
    assert verdict.startswith("verdict: contrast_accuracy ")
    assert report == "report: data/predictions/report.html"
