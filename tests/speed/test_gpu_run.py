"""The measurements on a GPU, without one: what is concluded from results, and a dry run with the tiny profile."""

import json
import os
import subprocess
import sys
import time

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests/benchmarks"))
sys.path.insert(0, str(ROOT / "tests/benchmarks/gpu"))

import projects
import report
import run
import training_peers

STEP = {"kind": "step", "card": "NVIDIA H200", "status": 0, "small": False}
PEERS = {"trl sft, no checkpointing": {"loop": 0.5, "same_loss": True}, "trl sft, its defaults": {"loop": 0.25}}
SPEED = {"decode_tokens_per_second": {"median": 412.0}}
ROWS = [
    STEP | {"name": "balanced: finetune", "seconds": 70.0, "run": {"train_seconds": 7.0, "peak_memory_bytes": 2**32}},
    STEP | {"name": "memory_efficient: finetune", "run": {"peak_memory_bytes": 2**31}},
    STEP | {"name": "peers", "peers": {"ours_divided_by": PEERS | {"trl sft, its defaults": {"same_loss": False}}}},
    STEP | {"name": "large: benchmark", "benchmark": {"generation": {"single": SPEED, "batched": SPEED}}},
    STEP | {"name": "large: benchmark", "benchmark": {"generation": {}}, "small": True},
    {"kind": "check", "case": "loss", "ok": False},
    {"kind": "check", "case": "peak", "ok": None},
    {"kind": "check", "case": "varlen", "ok": True},
    {"kind": "check", "case": "generate", "ok": True},
    {"kind": "check", "case": "loss", "ok": True},
    {"kind": "train", "case": "long", "peak_memory_bytes": 3, "step_seconds": {"median": 0.4}},
    {"kind": "train", "case": "long.noliger", "peak_memory_bytes": 4, "step_seconds": {"median": 0.5}},
    {"kind": "train", "case": "long.checkpointing", "ok": False, "error": "OutOfMemoryError"},
    {"kind": "resume", "run": "killed", "resumed": True, "largest_difference": 0.2, "largest_loss": 10.0},
]


def test_each_goal_is_measured_and_judged_or_said_to_be_not_measured():
    judged = {row["goal"]: (row["shown"], row["met"]) for row in report.judge(ROWS)}
    assert judged == {
        "checks of CUDA against the CPU that fail": ("0", True),
        "balanced, 43 records: whole stage": ("70 s", False),
        "balanced: training": ("7 s", True),
        "balanced: peak memory": ("4 GiB", True),
        "memory_efficient: peak memory": ("2 GiB", True),
        "MFU at 4 x 4,096 tokens": ("not measured", None),
        "times as fast as `trl sft`, same settings": ("2", True),
        "times as fast as its defaults": ("not measured", None),
        "tokens a second, one answer": ("412", True),
        "tokens a second, 256 answers at once": ("412", False),
        "killed, resumed: loss differs by": ("2.0 %", False),
        "4-bit: memory saved": ("not measured", None),
        "checkpointing: memory saved": ("not measured", None),
        "Liger: steps a second more": ("25.0 %", True),
        "Liger: memory saved": ("25.0 %", False),
        "no padding: steps a second more": ("not measured", None),
        "LoRA fused: steps a second more": ("not measured", None),
        "LoRA: share of the parameters": ("not measured", None),
    }


def test_the_report_is_written_with_the_card_s_name_and_into_the_readme(tmp_path, monkeypatch, capsys):
    results, readme, output = tmp_path / "results.jsonl", tmp_path / "README.md", tmp_path / "gpu.json"
    card = {"card": "NVIDIA H200"}
    results.write_text("".join(json.dumps(row | card) + "\n" for row in ROWS), encoding="utf-8")
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    arguments = [str(results), "--readme", str(readme), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["report.py", *arguments])
    report.main()
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{report.BEGIN}\n| NVIDIA H200 | wanted |")
    assert "| balanced, 43 records: whole stage | at most 60 s | 25-40 s | 70 s | **no** |\n" in text
    assert text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["card"] == "NVIDIA H200"
    assert len(written["step"]) == 4, "what was measured on small sizes says nothing"


def test_the_table_of_the_readme_is_that_of_the_last_report():
    kept = ROOT / "metrics/gpu.json"
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"goals": report.judge([]), "card": None}
    readme = (ROOT / "tests/benchmarks/README.md").read_text(encoding="utf-8")
    assert f"{report.BEGIN}\n{report.table(found['goals'], found['card'])}\n{report.END}" in readme


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("OUT", "WORK", "PROJECT"):
        monkeypatch.setattr(run, name, tmp_path / name)
        (tmp_path / name).mkdir()
    (tmp_path / "PROJECT/params.yaml").write_text("train: {epochs: 1}\n", encoding="utf-8")
    monkeypatch.setattr(run, "ENDED", {"done": [], "failed": [], "left out": []})
    monkeypatch.setattr(run, "STARTED", time.monotonic())
    monkeypatch.setenv("GPU_CARD", "none")
    return tmp_path


def test_a_failed_step_ends_those_alone_that_need_it(place):
    bad, good = ("-c", "print('why'); raise SystemExit(3)"), ("-c", "import pathlib; pathlib.Path('x').touch()")
    run.run_steps([run.Step("bad", bad, 5, "a"), run.Step("needs it", good, 5, "a")])
    run.run_steps([run.Step("good", good, 5, "b", {"train.epochs": 7})])
    assert run.ENDED == {"done": ["good"], "failed": ["bad (3)"], "left out": ["needs it (needs bad)"]}
    assert (place / "WORK/b/params.yaml").read_text(encoding="utf-8") == "train: {epochs: 7}\n"
    rows = [json.loads(line) for line in (place / "OUT/results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["name"], row["status"]) for row in rows] == [("bad", 3), ("good", 0)]
    assert "why" in (place / "OUT/log.txt").read_text(encoding="utf-8")


def test_a_step_that_would_not_end_in_time_is_left_out_and_one_that_hangs_is_ended(place, monkeypatch):
    monkeypatch.setattr(run, "SECONDS", 3)
    run.run_steps([run.Step("long", ("-c", ""), 60, "a")])
    run.run_steps([run.Step("hangs", ("-c", "import time; time.sleep(60)"), 1, "b")])
    assert run.ENDED == {"done": [], "failed": ["hangs (too slow)"], "left out": ["long"]}


def test_a_copy_of_the_project_without_git_leaves_out_what_a_clone_does_not_hold(tmp_path, monkeypatch):
    for name in ("stages/finetune.py", "data/raw/a.csv", "data/formatted/train.jsonl", ".git/HEAD", ".whl/a.whl"):
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr(projects, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(projects.shutil, "which", lambda name: None)
    copy = projects.copy_project(tmp_path / "copy")
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()) == [
        "data/raw/a.csv",
        "stages/finetune.py",
    ]


def test_rows_of_training_and_validation_are_repeated_for_the_peers(tmp_path):
    for name, rows in (("train", "a\nb\n"), ("validation", "c\n")):
        (tmp_path / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    assert training_peers.repeat_rows(tmp_path, 5) == 3
    assert (tmp_path / "train.jsonl").read_text(encoding="utf-8") == "a\nb\nc\na\nb\n"
    assert (tmp_path / "validation.jsonl").read_text(encoding="utf-8") == ""


@pytest.mark.slow
def test_a_dry_run_goes_through_every_phase(tmp_path):
    """As on a GPU, with the tiny profile and small sizes."""
    environment = os.environ | {
        **{"GPU_PROFILE": "tiny", "OUT": str(tmp_path / "out"), "GPU_WORK": str(tmp_path / "work")},
        **{"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "GPU_SECONDS": "1800"},
    }
    command = ["bash", "tests/benchmarks/gpu/run.sh", "correctness", "resume", "parallel", "smoke"]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-6000:] + finished.stderr[-2000:]
    assert "\nfailed: none\nleft out: none\n" in finished.stdout
    rows = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["kind"] for row in rows} == {"base", "check", "step", "train", "decode", "resume"}
    assert all(row["status"] == 0 for row in rows if row["kind"] == "step")
    resumed = next(row for row in rows if row.get("run") == "killed")
    assert (resumed["resumed"], resumed["largest_difference"]) == (True, 0)
    agree = {row["case"]: row["agree"]["min"] for row in rows if row["kind"] == "decode"}
    assert set(agree.values()) == {8}, "in fp32 every way gives the same tokens"
