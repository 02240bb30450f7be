import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.model.hardware import Hardware
from civilqa.model.loading import load_base, save_adapter
from civilqa.training.adapter import LoraParams, add_adapter
from civilqa.training.model_card import write_model_card
from conftest import ROOT

REVISION = "0123456789abcdef0123456789abcdef01234567"
HUB = {"weights": "hub", "name": "someone/base-model", "revision": REVISION}
RANDOM = {"weights": "random", "seed": 1, "config_sha256": "0" * 64}
FACTS = {
    "data": {"records": {"train": 43, "validation": 5}},
    "training": {"learning_rate": 1e-4},
    "metrics": {"train_last": 0.5},
}


def test_the_card_of_a_hub_base_names_it_with_its_revision(tmp_path):
    write_model_card(tmp_path, FACTS, HUB, "고지")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "someone/base-model"
    assert card.data.library_name == "peft"
    assert card.data.language == "ko"
    assert REVISION in card.text
    assert "AutoPeftModelForCausalLM" in card.text
    for said in ("| records: train | 43 |", "| learning_rate | 0.0001 |", "| train_last | 0.5 |", "> 고지"):
        assert said in card.text


def test_the_card_says_that_it_is_no_legal_advice(tmp_path):
    write_model_card(tmp_path, FACTS, RANDOM, "고지")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "법률 자문이 아닙니다" in text
    assert "no legal advice" in text


def test_the_card_of_a_base_that_is_not_on_the_hub_promises_no_download(tmp_path):
    write_model_card(tmp_path, FACTS, RANDOM, "고지")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model is None
    assert "AutoPeftModelForCausalLM" not in card.text


def test_the_card_s_bytes_depend_on_what_it_says_alone(tmp_path):
    for name in "ab":
        write_model_card(tmp_path / name, FACTS, HUB, "고지")
    assert (tmp_path / "a/README.md").read_bytes() == (tmp_path / "b/README.md").read_bytes()


@pytest.fixture
def hub_cache(tmp_path):
    """A hub cache as a download leaves it, with the tiny shape and drawn weights as someone/base-model."""
    snapshot = tmp_path / "hub" / "models--someone--base-model" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    tiny = Profile(name=str(ROOT / "models/tiny"), weights="random")
    load_base(ModelParams(profile="tiny", seed=5), tiny, Hardware("cpu", "fp32", 2)).save_pretrained(snapshot)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(ROOT / "models/tiny" / name, snapshot / name)
    refs = tmp_path / "hub" / "models--someone--base-model" / "refs"
    refs.mkdir()
    (refs / "main").write_text(REVISION, encoding="utf-8")
    return tmp_path / "hub"


LOAD = """
import sys, torch
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    print(model(torch.arange(20)[None]).logits.double().sum().item())
"""


def test_an_adapter_of_a_hub_base_loads_from_anywhere_at_its_revision(hub_cache, tmp_path):
    profile = Profile(name="someone/base-model", revision=REVISION)
    (snapshot,) = (hub_cache / "models--someone--base-model" / "snapshots").iterdir()
    base = AutoModelForCausalLM.from_pretrained(str(snapshot))
    base.name_or_path = profile.name
    model = add_adapter(base, profile, LoraParams(), gradient_checkpointing=False, seed=3).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(torch.arange(20)[None]).logits.double().sum().item()
    adapter = tmp_path / "elsewhere" / "adapter"
    save_adapter(model, adapter)
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, str(adapter)],
        cwd=tmp_path,
        env={"HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1", "PATH": "", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert float(loaded.stdout) == pytest.approx(expected, rel=1e-6)
