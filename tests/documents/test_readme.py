import json
import os
import re
import subprocess
import sys

import pytest

import evaluate
from conftest import ROOT, committed, edit_params

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
# Classes and methods of the project that this one replaces, as its description lists them.
REPLACED = [
    "CivilLawDataLoader",
    "load_dataset",
    "preprocess_data",
    "get_stats",
    "DataFormatter",
    "stratified_split_by_category",
    "to_conversational_format",
    "ModelManager",
    "load_model_and_tokenizer",
    "apply_lora",
    "get_memory_usage",
    "TrainerManager",
    "create_training_config_from_preset",
    "create_trainer",
    "train",
    "save_model",
    "InferenceEngine",
    "load_finetuned_model",
    "generate_answer",
    "interactive_chat",
    "benchmark_generation_speed",
]


def example(words):
    (code,) = [code for code in EXAMPLES if words in code]
    return code


def run_example(project, code):
    """Run an example as its reader does: from the root, with stages on the path; /끝 is what is typed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env={**os.environ, "PYTHONPATH": "stages", "PYTHONIOENCODING": "utf-8"},
        input="/끝\n",
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_class_and_method_that_was_replaced_is_in_the_table():
    table = README.partition("What its classes did is done here by:")[2].partition("## ")[0]
    assert [name for name in REPLACED if f"{name}(" not in table] == []


def test_what_the_table_names_is_there():
    table = README.partition("What its classes did is done here by:")[2].partition("## ")[0]
    names = re.findall(r"`(civilqa\.\w+\.\w+|format\.format_\w+)", table)
    assert len(names) > 10
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(__import__(module, fromlist=[attribute]), attribute), name


def test_the_inference_example_runs(chat_project):
    out = run_example(chat_project, example("generate_answer"))
    assert "첫 토큰까지" in out
    assert "법률 지식은 없습니다" in out


@pytest.mark.slow
def test_the_training_example_runs(project):
    edit_params(project / "params.yaml", **{"prepare.difficulties": ["초급"], "train.epochs": 1})
    out = run_example(project, example("stage.main()"))
    assert "'초급'" in out
    assert "train_last" in out
    assert (project / "models/adapter/adapter_model.safetensors").is_file()


def test_the_debugging_example_runs(project):
    out = run_example(project, example("peak_memory_bytes"))
    assert "60 rows, 0 unreadable" in out
    assert "### 질문\n유치권이란?" in out
    assert "MiB" in out


def test_every_example_is_run():
    # Of an adapter of a hub model alone: test_export and test_llama_profile load one so.
    elsewhere = [code for code in EXAMPLES if "AutoPeftModelForCausalLM" in code]
    assert len(elsewhere) == 1
    assert len(EXAMPLES) - len(elsewhere) == 3


# --- figures ---------------------------------------------------------------------------------------------------------


def measured(name):
    return json.loads((ROOT / "tests/benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_dry_run_shown_is_the_committed_one(capsys):
    evaluate.print_summary(committed("evaluate"), "")
    assert capsys.readouterr().out.strip() in README


def test_the_difference_shown_begins_with_the_committed_run():
    losses, schedule = (committed("finetune")[name] for name in ("loss", "schedule"))
    for name, value in {
        **{f"loss.{name}": f"{value:.6g}" for name, value in losses.items()},
        **{f"schedule.{name}": str(schedule[name]) for name in ("epochs", "learning_rate", "steps", "warmup_steps")},
    }.items():
        (row,) = re.findall(rf"^metrics/finetune\.json  {re.escape(name)} +(\S+)", README, re.MULTILINE)
        assert float(row) == pytest.approx(float(value), rel=1e-4), name


def test_the_probe_s_figures_are_those_measured():
    probe = committed("probe")
    assert f"base {probe['base']['accuracy']:.3f}, adapter {probe['adapter']['accuracy']:.3f} of {probe['n']}" in README
    assert re.fullmatch(r"[0-9a-f]{64}", probe["adapter_sha256"])


def test_the_figures_beside_the_peers_are_those_measured():
    report = measured("training_peers")
    for peer, run in report["runs"].items():
        cells = f"| {run['loop_seconds']:.1f} s | {run['whole_seconds']:.1f} s | {run['peak_mib']:,.0f} MiB |"
        ratio = report["ours_divided_by"].get(peer)
        assert cells + (f" {ratio['loop']:.2f} | {ratio['whole']:.2f} |" if ratio else " | |") in README
        assert ratio is None or ratio["same_loss"]
    generation = measured("generation_peers")
    ours, plain = (generation[name]["tokens_per_second"] for name in ("ours", "one_by_one"))
    assert f"{ours:.0f} against {plain:.0f} tokens/s, {generation['times_as_fast']:.1f} times as fast" in README
    assert f"{generation['same_answers']} of {generation['prompts']} answers the same" in README


def test_the_figures_of_a_whole_run_are_those_measured():
    report = measured("startup")
    run = report["repro"]
    low, middle, high = sorted(run["runs"], key=lambda each: each["seconds"])
    assert (
        f"{middle['seconds']:.0f} s ({low['seconds']:.0f} to {high['seconds']:.0f} in three runs), "
        f"{middle['training_loop_seconds']:.0f} s of it the training loop; "
        f"{run['nothing_to_do_seconds']:.1f} s with nothing to do" in README
    )
    for row in (
        ["seconds", *(f"{stage['seconds']:.1f}" for stage in run["stages"].values())],
        ["of them imports", *(f"{stage['seconds']:.1f}" for stage in report["imports"].values())],
        ["peak memory, MiB", *(f"{stage['peak_mib']:,.0f}" for stage in run["stages"].values())],
    ):
        assert f"| {' | '.join(row)} |" in README


def test_the_figures_by_size_are_those_measured():
    results = measured("cost_by_size")["sizes"]
    for name, cells in (
        ("tokens", [f"{row['tokens']:,}" for row in results]),
        ("seconds", [f"{row['seconds']:.2f}" for row in results]),
        ("seconds a million tokens", [f"{row['seconds_per_million_tokens']:.0f}" for row in results]),
        ("peak memory, MiB", [f"{row['peak_mib']:,.0f}" for row in results]),
    ):
        assert f"| {name} | {' | '.join(cells)} |" in README


def test_the_figures_of_the_page_under_load_are_those_measured():
    report = measured("web_load")
    latency, memory = report["latency_seconds"], report["growth"]
    text = " ".join(README.split())
    assert f"{report['answers']:,} questions from {report['clients']} browsers" in text
    assert (report["errors"], report["refused_as_busy"]) == ([], 0)
    assert f"{report['answers_a_second']:.1f} answers a second, median {latency['p50']:.1f} s" in text
    assert f"99 % within {latency['p99']:.1f} s, the server's memory {100 * memory:.1f} % higher" in text
