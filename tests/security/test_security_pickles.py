"""Nothing that can run code is opened: checkpoints, adapters, base models; and no code of ours opens the way for it."""

import ast
import contextlib
import os
import pickle
import shutil

import numpy
import pytest
import torch
from test_checkpoints import cut_off, profile, train  # noqa: F401 - profile is a fixture
from transformers import TrainerState

from civilqa.base_model.profiles import read_profile
from civilqa.model.hardware import Hardware
from civilqa.model.loading import load_adapter, load_base
from civilqa.model.provenance import open_adapter
from civilqa.program.errors import ModelError
from civilqa.training.checkpoints import STATE_FILE, find_resumable, seal
from conftest import ROOT

CHECKPOINT_FILES = [
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "rng_state_1.pth",
    "scaler.pt",
    "training_args.bin",
]


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def write_checkpoint(folder, step, **state):
    """Write what the trainer writes, as far as a resume reads it, and seal it."""
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), checkpoint / "optimizer.pt")
    torch.save({"last_epoch": step, "_step_count": step + 1}, checkpoint / "scheduler.pt")
    state_of_random = {"numpy": numpy.random.RandomState(1).get_state(), "cpu": torch.get_rng_state()}
    torch.save(state_of_random, checkpoint / "rng_state.pth")
    control = {"TrainerControl": {"args": {"should_training_stop": False}, "attributes": {}}}
    written = TrainerState(global_step=step, **state)
    written.stateful_callbacks = control
    written.save_to_json(str(checkpoint / STATE_FILE))
    seal(checkpoint)
    return checkpoint


def test_a_checkpoint_of_the_trainer_s_own_files_is_opened(tmp_path):
    newest = write_checkpoint(tmp_path, 8)
    assert find_resumable(tmp_path) == newest


@pytest.mark.parametrize("how", ["pickle", "torch"])
@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_pickle_with_code_in_a_forged_checkpoint_runs_nothing_and_the_one_before_is_taken(
    tmp_path, capsys, name, how
):
    older, newest = write_checkpoint(tmp_path, 4), write_checkpoint(tmp_path, 8)
    ran = tmp_path / "ran"
    if how == "pickle":
        (newest / name).write_bytes(pickle.dumps(Malice(ran)))
    else:
        torch.save({"state": Malice(ran)}, newest / name)
    seal(newest)  # whoever can write the file can do that, too
    assert find_resumable(tmp_path) == older
    assert not ran.exists()
    assert f"checkpoint-8: {name} is no file that the trainer wrote: passed over, unopened" in capsys.readouterr().out
    with contextlib.suppress(RuntimeError):
        torch.load(newest / name, weights_only=False)
    assert ran.exists(), "the malice itself does not work, so that nothing was shown"


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "[]", "no JSON", '{"stateful_callbacks": 3}'])
def test_a_forged_state_of_the_trainer_is_passed_over(tmp_path, capsys, text):
    older, newest = write_checkpoint(tmp_path, 4), write_checkpoint(tmp_path, 8)
    (newest / STATE_FILE).write_text(text)
    seal(newest)
    assert find_resumable(tmp_path) == older
    assert f"{STATE_FILE} is no file that the trainer wrote" in capsys.readouterr().out


def test_the_best_checkpoint_is_taken_from_this_training_alone(tmp_path, capsys):
    elsewhere = write_checkpoint(tmp_path / "elsewhere", 2)
    folder = tmp_path / "training"
    write_checkpoint(folder, 8, best_model_checkpoint=str(elsewhere))
    assert find_resumable(folder) is None
    assert "passed over" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_goes_on_before_a_forged_checkpoint_and_ends_with_the_same_bytes(profile, tmp_path):  # noqa: F811
    undisturbed = train(profile, tmp_path / "a")
    cut_off(profile, tmp_path / "b", 9)
    newest = tmp_path / "b/checkpoints/checkpoint-8"
    (newest / "optimizer.pt").write_bytes(pickle.dumps(Malice(tmp_path / "ran")))
    seal(newest)
    assert train(profile, tmp_path / "b") == undisturbed
    assert not (tmp_path / "ran").exists()


def test_a_pickled_adapter_is_never_opened(tmp_path, adapter_folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    model, tiny = read_profile()
    hardware = Hardware("cpu", "fp32", 2)
    folder = tmp_path / "adapter"
    shutil.copytree(adapter_folder, folder)
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Malice(tmp_path / "ran")))
    base = load_base(model, tiny, hardware)
    load_adapter(base, folder)  # beside the safetensors it is not looked at
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is missing"):
        open_adapter(folder, model, tiny)
    with pytest.raises(ModelError, match="does not fit the base model"):
        load_adapter(base, folder)
    assert not (tmp_path / "ran").exists()


# What opens the way for code in data, or hands data to a shell.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "pandas.read_pickle"}
FORBIDDEN_ARGUMENTS = {"shell", "allow_pickle", "trust_remote_code"}  # anything but False


def dangers(tree):
    """Yield what an abstract syntax tree does that no stage may do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (name for name in names if name.partition(".")[0] in FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {argument.arg: ast.unparse(argument.value) for argument in node.keywords}
            if name in FORBIDDEN_CALLS:
                yield name
            if name == "torch.load" and given.get("weights_only") != "True":
                yield name
            yield from (key for key in FORBIDDEN_ARGUMENTS & given.keys() if given[key] != "False")


@pytest.mark.parametrize("path", sorted((ROOT / "stages").rglob("*.py")), ids=lambda path: path.name)
def test_no_stage_unpickles_runs_foreign_code_or_hands_anything_to_a_shell(path):
    assert list(dangers(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval(text)",
        "torch.load(path)",
        "subprocess.run(command, shell=True)",
        "numpy.load(path, allow_pickle=flag)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_look_at_the_code_finds(code):
    assert list(dangers(ast.parse(code)))
