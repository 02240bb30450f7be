"""Whoever gives a stage an argument is told which key of params.yaml it means, and nothing runs."""

import shutil
import sys

import pytest

from civilqa.program.lifecycle.stage import answer_arguments
from conftest import ROOT

DOCUMENTATION = """Trains.

Writes: model
Params: seed, train, the selected preset, model, the selected profile and its tuning, evaluate
"""
IN_GENERAL = (
    "error: stages/finetune.py takes no arguments: set e.g. train.epochs in params.yaml, or run: "
    "dvc exp run -S train.epochs=...\n"
)


@pytest.fixture
def answer(tmp_path, monkeypatch, capsys):
    """Answers arguments in a folder of its own; returns status, what was printed and what was said."""
    monkeypatch.chdir(tmp_path)

    def call(arguments, example="train.epochs"):
        monkeypatch.setattr(sys, "argv", ["/somewhere/stages/finetune.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            answer_arguments(DOCUMENTATION, example)
        return ended.value.code, *capsys.readouterr()

    return call


@pytest.fixture
def params(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path / "params.yaml"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--epochs", "2", "--help"]])
def test_help_says_what_the_stage_reads_and_that_it_takes_no_arguments(answer, arguments):
    status, printed, said = answer(arguments)
    assert (status, said) == (0, "")
    assert printed == f"{DOCUMENTATION}\n{IN_GENERAL.removeprefix('error: ')}"


def test_help_of_a_script_that_takes_arguments_does_not_say_that_it_takes_none(answer):
    assert answer(["--help"], example="") == (0, DOCUMENTATION, "")


@pytest.mark.parametrize(
    ("arguments", "keys", "settings"),
    [
        (["--learning_rate", "5e-5"], "train.learning_rate", "-S train.learning_rate=5e-5"),
        (["--learning-rate=5e-5"], "train.learning_rate", "-S train.learning_rate=5e-5"),
        (["train.learning_rate=5e-5"], "train.learning_rate", "-S train.learning_rate=5e-5"),
        (["-S", "train.epochs=2"], "train.epochs", "-S train.epochs=2"),
        # DVC's parser takes letters that are not English, and brackets, between quotes alone.
        (["--profile", "내모델"], "model.profile", "-S 'model.profile=\"내모델\"'"),
        (["--profile", "a(1)"], "model.profile", "-S 'model.profile=\"a(1)\"'"),
        (["--profile", '"내모델"'], "model.profile", "-S 'model.profile=\"내모델\"'"),
        (
            ["--epochs=2", "--batch_size", "1"],
            "train.epochs, train.batch_size",
            "-S train.epochs=2 -S train.batch_size=1",
        ),
        (["--packing", "--epochs", "2"], "train.packing, train.epochs", "-S train.packing=true -S train.epochs=2"),
        (["--packing"], "train.packing", "-S train.packing=true"),
        (["--weight_decay", "-1"], "train.weight_decay", "-S train.weight_decay=-1"),
        (["--seed", "7"], "seed", "-S seed=7"),
        (["--rank", "8"], "tuning.tiny.rank", "-S tuning.tiny.rank=8"),
        (["--url", "http://a b"], "evaluate.judge.url", "-S 'evaluate.judge.url=http://a b'"),
    ],
)
def test_the_key_that_is_meant_is_named_with_its_value(answer, params, arguments, keys, settings):
    said = f"error: stages/finetune.py takes no arguments: set {keys} in params.yaml, or run: dvc exp run {settings}\n"
    assert answer(arguments) == (2, "", said)


def test_of_what_is_chosen_by_profile_the_selected_one_is_named(answer, params):
    params.write_text(
        params.read_text(encoding="utf-8").replace("profile: tiny", "profile: llama-1b"), encoding="utf-8"
    )
    assert "-S tuning.llama-1b.rank=8\n" in answer(["--rank", "8"])[2]


@pytest.mark.parametrize("arguments", [["data.csv"], ["--temperature", "0.5"], ["5e-5", "--"], [""]])
def test_where_no_key_of_the_stage_is_meant_one_is_named_as_an_example(answer, params, arguments):
    assert answer(arguments) == (2, "", IN_GENERAL)


@pytest.mark.parametrize(
    "text", [None, "train: {epochs", "- 1", "sections: {}", "model: 3", "model: {profile: [1]}", "train: &a {a: *a}"]
)
def test_arguments_are_refused_whatever_params_yaml_holds(answer, tmp_path, text):
    if text is not None:
        (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert answer(["--epochs", "2"]) == (2, "", IN_GENERAL)


def test_what_was_typed_is_shown_and_not_obeyed(answer, params, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "a-secret-key")
    said = answer(["--optimizer", "\x1b[31m a-secret-key"])[2]
    assert "-S 'train.optimizer=[31m <hidden>'" in said


def test_a_script_that_takes_arguments_gets_them(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["stages/pool_folds.py", "first", "second"])
    answer_arguments(DOCUMENTATION, "")


def test_without_arguments_nothing_is_said(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["stages/finetune.py"])
    answer_arguments(DOCUMENTATION, "train.epochs")
    assert capsys.readouterr() == ("", "")
