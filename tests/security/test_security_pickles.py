"""Nothing that can run code is opened: checkpoints, adapters, base models; and no code of ours opens the way for it."""

import ast
import contextlib
import os
import pickle
import shutil

import pytest
import torch
from transformers import TrainerState

from civilqa.base_model.profiles import read_profile
from civilqa.model.hardware import Hardware
from civilqa.model.loading import load_adapter, load_base
from civilqa.model.provenance import open_adapter
from civilqa.program.errors import ModelError
from civilqa.training.checkpoints import STATE_FILE, find_resumable, seal
from conftest import ROOT
from small_training import CutOffError, copy_training, cut_off, train

CHECKPOINT_FILES = [
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "rng_state_1.pth",
    "scaler.pt",
    "training_args.bin",
]
# What a training on the CPU ends with that meets one of them; the others are not looked at.
REFUSALS = dict.fromkeys(("optimizer.pt", "scheduler.pt", "rng_state.pth"), pickle.UnpicklingError)
REFUSALS["scaler.pt"] = AttributeError  # before it is opened: in fp32 nothing is scaled


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture(scope="module")
def cut_off_training(small_base, tmp_path_factory):
    """The folder of a training that was cut off after its first checkpoint."""
    folder = tmp_path_factory.mktemp("cut-off")
    cut_off(small_base, folder, 5)
    return folder


@pytest.mark.parametrize("how", ["pickle", "torch"])
@pytest.mark.parametrize("name", CHECKPOINT_FILES)
def test_a_pickle_with_code_in_a_forged_checkpoint_runs_nothing(cut_off_training, small_base, tmp_path, name, how):
    """Either nothing opens it, and the training goes on, or it is opened as plain tensors, and the stage ends."""
    copy_training(cut_off_training, tmp_path)
    checkpoint, ran = tmp_path / "checkpoints/checkpoint-4", tmp_path / "ran"
    if how == "pickle":
        (checkpoint / name).write_bytes(pickle.dumps(Malice(ran)))
    else:
        torch.save({"state": Malice(ran)}, checkpoint / name)
    seal(checkpoint)  # whoever can write the file can do that, too
    with pytest.raises(REFUSALS.get(name, CutOffError)):
        train(small_base, tmp_path, cut_off_after=5)
    assert not ran.exists()
    with contextlib.suppress(RuntimeError):
        torch.load(checkpoint / name, weights_only=False)
    assert ran.exists(), "the malice itself does not work, so that nothing was shown"


def test_the_best_checkpoint_is_taken_from_this_training_alone(tmp_path, capsys):
    checkpoint = tmp_path / "training/checkpoint-8"
    checkpoint.mkdir(parents=True)
    state = TrainerState(global_step=8, best_model_checkpoint=str(tmp_path / "elsewhere/checkpoint-2"))
    state.stateful_callbacks = {"TrainerControl": {"args": {"should_training_stop": False}, "attributes": {}}}
    for path in (checkpoint, tmp_path / "elsewhere/checkpoint-2"):
        path.mkdir(parents=True, exist_ok=True)
        state.save_to_json(str(path / STATE_FILE))
        seal(path)
    assert find_resumable(checkpoint.parent) is None
    assert "passed over" in capsys.readouterr().out
    state.best_model_checkpoint = None
    state.save_to_json(str(checkpoint / STATE_FILE))
    seal(checkpoint)
    assert find_resumable(checkpoint.parent) == checkpoint


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
