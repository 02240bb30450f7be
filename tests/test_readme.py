import os
import re
import subprocess
import sys

import pytest

from conftest import ROOT, edit_params

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
    # Of an adapter of a hub model alone: test_model_card and test_llama_profile load one so.
    elsewhere = [code for code in EXAMPLES if "AutoPeftModelForCausalLM" in code]
    assert len(elsewhere) == 1
    assert len(EXAMPLES) - len(elsewhere) == 3
