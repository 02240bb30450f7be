"""What the README files say: their examples run, their figures are those measured, and what they name is there."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from civilqa.scoring.summary import print_summary, summarize
from conftest import ROOT, committed, edit_params

READMES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "data/README.md",
        "data/reference/README.md",
        "metrics/README.md",
        "models/README.md",
        "stages/README.ko.md",
        "stages/README.md",
        "tests/README.md",
        "tests/benchmarks/README.md",
    )
}
MAIN, STAGES, METRICS = (READMES[name] for name in ("README.md", "stages/README.md", "metrics/README.md"))
BENCHMARKS = READMES["tests/benchmarks/README.md"]
EXAMPLES = re.findall(r"^```python\n(.*?)^```", "\n".join(READMES.values()), re.DOTALL | re.MULTILINE)
INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt"
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


# --- what is named ---------------------------------------------------------------------------------------------------


def found(pattern):
    """Return what a pattern finds, as (README, words), each once."""
    return sorted({(name, words) for name, text in READMES.items() for words in re.findall(pattern, text)})


def defined(body):
    """Return the names that a module's or a class's statements define, each with its own statements."""
    names = {}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names[node.name] = node.body
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id: [] for target in targets if isinstance(target, ast.Name)}
    return names


def exists(name):
    """Say whether a dotted name is a module under stages/ or something that one defines; imports nothing."""
    here, parts = ROOT / "stages", name.split(".")
    while parts and (here / parts[0]).is_dir():
        here /= parts.pop(0)
    if not parts:
        return True
    script = here / f"{parts.pop(0)}.py"
    if not script.is_file():
        return False
    body = ast.parse(script.read_text(encoding="utf-8")).body
    for part in parts:
        names = defined(body)
        if part not in names:
            return False
        body = names[part]
    return True


def anchors(text):
    """Return the anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_is_short():
    assert len(MAIN.splitlines()) <= 250


def test_the_commands_that_a_newcomer_pastes_are_single_lines():
    # .ci/run takes the second one from here.
    lines = MAIN.splitlines()
    assert {line for line in lines if line.endswith("&& dvc repro")} == {f"{INSTALL} && dvc repro"}
    assert [line for line in lines if line.endswith("&& pytest")] == [f"{INSTALL} && pytest"]


def test_every_readme_is_checked_here():
    command = ["git", "ls-files", "*README*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert [name for name in listed.split() if name not in READMES] == []


def test_every_relative_link_leads_somewhere():
    broken = []
    links = [each for each in found(r"\]\(([^)\s]+)\)") if not each[1].startswith("https://")]
    for name, target in links:
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        if not page.exists() or (anchor and anchor not in anchors(page.read_text(encoding="utf-8"))):
            broken.append((name, target))
    assert len(links) > 30
    assert broken == []


def test_every_guide_is_named_in_the_readme():
    tree = MAIN.partition("## What is where")[2]
    shown = {*re.findall(r"[\w/]+/README\.md", tree), "README.md", "stages/README.ko.md"}
    # Named there by their folder: data/reference in the line of data, benchmarks in that of tests.
    assert set(READMES) - shown <= {"data/reference/README.md", "stages/README.md", "tests/benchmarks/README.md"}
    for name in ("stages/README.ko.md", "stages/README.md", "tests/README.md", "metrics/README.md", "data/README.md"):
        assert f"]({name}" in MAIN, name


def test_every_file_named_is_there():
    made = ("models/adapter/", "models/merged/", "metrics/folds.json", "metrics/summary.json")
    named = found(r"(?<![\w./-])(?:stages|tests|models|metrics)/[\w./-]+\.(?:py|yaml|jinja|txt|json|csv|md)\b")
    assert len(named) > 40
    assert [each for each in named if not each[1].startswith(made) and not (ROOT / each[1]).is_file()] == []


def test_every_script_that_is_run_is_there():
    named = found(r"python3? ([\w./]+\.py)\b")
    assert {path for _, path in named} >= {"stages/chat.py", "stages/pool_folds.py", "data/reference/build.py"}
    assert [each for each in named if not (ROOT / each[1]).is_file()] == []


def test_every_module_named_is_there():
    named = found(r"\bcivilqa(?:\.\w+)+")
    assert len(named) > 20
    assert [each for each in named if not exists(each[1])] == []


def test_the_tree_shows_every_package():
    tree = MAIN.partition("## What is where")[2].partition("## ")[0]
    packages = {path.parent.name for path in (ROOT / "stages/civilqa").glob("*/__init__.py")}
    assert packages - set(re.findall(r"(\w+)/", tree)) == set()


def test_every_parameter_named_is_in_params_yaml():
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    sections = "benchmark|chat|evaluate|format|hardware|prepare|probe|split|train"
    named = found(rf"(?<![\w./])(?:{sections})\.(?!py\b|jsonl?\b|main\b|format_)\w+")
    assert len({key for _, key in named}) > 40
    split = [(name, *dotted.split(".")) for name, dotted in named]
    assert [each for each in split if each[2] not in params[each[1]]] == []


def test_the_guide_to_the_metrics_explains_the_numbers_to_decide_by():
    keys = summarize(committed("evaluate"), committed("finetune"))
    table = METRICS.partition("key of `summary.json`")[2].partition("## ")[0]
    assert [key for key in keys if f"`{key}`" not in table] == []
    assert len(keys) <= 12


def test_every_class_and_method_that_was_replaced_is_in_the_table():
    table = STAGES.partition("What its classes did is done here by:")[2].partition("## ")[0]
    assert [name for name in REPLACED if f"{name}(" not in table] == []


def test_what_the_table_names_is_there():
    table = STAGES.partition("What its classes did is done here by:")[2].partition("## ")[0]
    names = re.findall(r"`(civilqa(?:\.\w+)+|format\.format_\w+)", table)
    assert len(names) > 10
    assert [name for name in names if not exists(name)] == []


# --- examples --------------------------------------------------------------------------------------------------------


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    print_summary(committed("evaluate"), "")
    assert capsys.readouterr().out.strip() in METRICS


def test_the_difference_shown_begins_with_the_committed_run():
    losses, schedule = (committed("finetune")[name] for name in ("loss", "schedule"))
    for name, value in {
        **{f"loss.{name}": f"{value:.6g}" for name, value in losses.items()},
        **{f"schedule.{name}": str(schedule[name]) for name in ("epochs", "learning_rate", "steps", "warmup_steps")},
    }.items():
        (row,) = re.findall(rf"^metrics/finetune\.json  {re.escape(name)} +(\S+)", METRICS, re.MULTILINE)
        assert float(row) == pytest.approx(float(value), rel=1e-4), name


@pytest.mark.parametrize("name", ["probe", "gemma-270m/probe"])
def test_the_probe_s_figures_are_those_measured(name):
    probe = committed(name)
    for task in ("statute_titles", "general_knowledge"):
        found = probe[task]
        difference = found["difference"]
        base, adapter = (found[system]["acc_norm"] for system in ("base", "adapter"))
        row = f"| {found['n']} | {base:.3f} | {found['above_chance_p']:.2f} | {adapter:.3f} | {difference['lost']} | "
        assert f"| `{task}` {row}{difference['gained']} | {difference['verdict']} |" in METRICS
    assert re.fullmatch(r"[0-9a-f]{64}", probe["adapter_sha256"])


def test_what_is_said_of_forgetting_is_what_was_measured():
    found = committed("gemma-270m/probe")["general_knowledge"]
    difference = found["difference"]
    base, adapter = (round(80 * found[system]["acc_norm"]) for system in ("base", "adapter"))
    said = (
        f"had {base} of 80 right and has {adapter}: {difference['lost']} lost, {difference['gained']} gained, "
        f"{difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]. After Holm's correction p "
        f"is {difference['p_holm']:.3f}"
    )
    assert said in " ".join(METRICS.split())
    assert all(kind["adapter"] < kind["base"] for kind in found["by_kind"].values())


@pytest.mark.parametrize("setup", ["training_peers", "training_peers_gemma"])
def test_the_training_beside_the_peers_is_that_measured(setup):
    report = measured(setup)
    for peer, run in report["runs"].items():
        cells = f"| {run['loop_seconds']:.1f} s | {run['whole_seconds']:.1f} s | {run['peak_mib']:,.0f} MiB |"
        ratio = report["ours_divided_by"].get(peer)
        assert cells + (f" {ratio['loop']:.2f} | {ratio['whole']:.2f} |" if ratio else " | |") in BENCHMARKS
        assert ratio is None or ratio["same_loss"]


def test_the_generation_beside_the_peers_is_that_measured():
    generation = measured("generation_peers")
    ours, plain = (generation[name]["tokens_per_second"] for name in ("ours", "one_by_one"))
    assert f"{ours:.0f} against {plain:.0f} tokens/s, {generation['times_as_fast']:.1f} times as fast" in BENCHMARKS
    assert f"{generation['same_answers']} of {generation['prompts']} answers the same" in BENCHMARKS


def test_the_figures_of_a_whole_run_are_those_measured():
    report = measured("startup")
    run = report["repro"]
    low, middle, high = sorted(run["runs"], key=lambda each: each["seconds"])
    assert (
        f"{middle['seconds']:.0f} s ({low['seconds']:.0f} to {high['seconds']:.0f} in three runs), "
        f"{middle['training_loop_seconds']:.0f} s of it the training loop; "
        f"{run['nothing_to_do_seconds']:.1f} s with nothing to do" in BENCHMARKS
    )
    assert f"about {middle['seconds'] / 60:.0f} minutes on two CPU cores" in MAIN
    for row in (
        ["seconds", *(f"{stage['seconds']:.1f}" for stage in run["stages"].values())],
        ["of them imports", *(f"{stage['seconds']:.1f}" for stage in report["imports"].values())],
        ["peak memory, MiB", *(f"{stage['peak_mib']:,.0f}" for stage in run["stages"].values())],
    ):
        assert f"| {' | '.join(row)} |" in BENCHMARKS


def test_the_figures_by_size_are_those_measured():
    results = measured("cost_by_size")["sizes"]
    for name, cells in (
        ("tokens", [f"{row['tokens']:,}" for row in results]),
        ("seconds", [f"{row['seconds']:.2f}" for row in results]),
        ("seconds a million tokens", [f"{row['seconds_per_million_tokens']:.0f}" for row in results]),
        ("peak memory, MiB", [f"{row['peak_mib']:,.0f}" for row in results]),
    ):
        assert f"| {name} | {' | '.join(cells)} |" in BENCHMARKS


def test_the_figures_of_the_data_stages_are_those_measured():
    for size in measured("data_stages")["sizes"]:
        seconds = [f"{size['stages'][stage]['seconds']:.1f} s" for stage in ("prepare", "split", "format")]
        cells = [f"{size['rows']:,}", f"{size['dataset_mb']:.0f}", *seconds, f"{size['total_seconds']:.1f} s"]
        assert f"| {' | '.join(cells)} | {size['peak_mib'] / 1024:.2f} GiB |" in READMES["data/README.md"]


def test_the_figures_of_the_page_under_load_are_those_measured():
    report = measured("web_load")
    latency, memory = report["latency_seconds"], report["growth"]
    text = " ".join(BENCHMARKS.split())
    assert f"{report['answers']:,} questions from {report['clients']} browsers" in text
    assert (report["errors"], report["refused_as_busy"]) == ([], 0)
    assert f"{report['answers_a_second']:.1f} answers a second, median {latency['p50']:.1f} s" in text
    assert f"99 % within {latency['p99']:.1f} s, the server's memory {100 * memory:.1f} % higher" in text
