import json
import runpy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.model import loading
from civilqa.model.hardware import Hardware, HardwareParams, resolve_hardware
from civilqa.model.loading import WideLinear, count_parameters, load_base
from civilqa.model.provenance import base_identity, open_adapter
from civilqa.program.errors import ModelError, ParameterError
from civilqa.program.parameters import read_choice
from civilqa.training.adapter import Tuning
from civilqa.training.answer_loss import ends_in_frozen_head
from conftest import ROOT
from small_training import TINY

HARDWARE = Hardware("cpu", "fp32", 2)
MODEL = ModelParams(profile="tiny", seed=1)


@pytest.fixture(scope="module")
def tiny():
    return Profile(name=str(ROOT / "models/tiny"), weights="random")


def weights(model):
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


def test_random_weights_are_decided_by_the_seed(tiny):
    first, again = (weights(load_base(MODEL, tiny, HARDWARE)) for _ in range(2))
    other = weights(load_base(MODEL.model_copy(update={"seed": 2}), tiny, HARDWARE))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_tiny_base_is_tied_and_of_the_stated_size(tiny):
    base = load_base(MODEL, tiny, HARDWARE)
    assert base.get_input_embeddings().weight is base.get_output_embeddings().weight
    assert 4.2e6 < count_parameters(base)["total"] < 4.8e6


def test_a_wide_output_layer_says_the_same_to_a_model_that_is_asked_and_to_one_that_is_trained(tiny, monkeypatch):
    plain = load_base(MODEL, tiny, HARDWARE)
    monkeypatch.setattr(loading, "WIDE_LAYER", plain.get_output_embeddings().weight.numel())
    wide = load_base(MODEL, tiny, HARDWARE)
    assert [type(base.get_output_embeddings()) for base in (plain, wide)] == [torch.nn.Linear, WideLinear]
    assert type(load_base(MODEL, tiny, Hardware("cpu", "bf16", 2)).get_output_embeddings()) is torch.nn.Linear
    ids = torch.arange(40).view(2, 20)
    with torch.inference_mode():
        torch.testing.assert_close(wide(ids).logits, plain(ids).logits)
    losses = [base(ids, labels=ids).loss for base in (plain, wide)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    assert torch.equal(*(base.get_output_embeddings().weight.grad for base in (plain, wide)))
    assert ends_in_frozen_head(wide.requires_grad_(False))


def test_the_embedded_files_are_what_their_script_makes(project, monkeypatch):
    made = {path.name: path.read_bytes() for path in (project / "models/tiny").iterdir()}
    monkeypatch.chdir(project)
    runpy.run_path("models/tiny/build.py", run_name="__main__")
    assert {path.name: path.read_bytes() for path in (project / "models/tiny").iterdir() if path.is_file()} == made


def test_llama_1b_random_has_the_shape_of_llama_3_2_1b():
    profile = read_choice("profiles", "llama-1b-random", Profile, "model.profile", ROOT / "params.yaml")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(ROOT / profile.name)))
    # Source: the model card of meta-llama/Llama-3.2-1B, "1.23B" parameters.
    assert count_parameters(model)["total"] == 1_235_814_400
    tuning = read_choice("tuning", "llama-1b-random", Tuning, "model.profile", ROOT / "params.yaml")
    assert tuning.modules_to_save == []


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_quantised_base_computes_nearly_the_same(tiny, quantization):
    ids = torch.arange(32)[None]
    with torch.inference_mode():
        plain = load_base(MODEL, tiny, HARDWARE)(ids).logits
        quantised = load_base(MODEL, tiny, HARDWARE, quantization)(ids).logits
    assert torch.nn.functional.cosine_similarity(plain.flatten(), quantised.flatten().float(), dim=0) > 0.7


def test_a_base_that_cannot_be_had_names_what_runs_offline():
    with pytest.raises(ModelError, match="tiny and llama-1b-random run"):
        load_base(MODEL, Profile(name="nobody/no-such-model"), HARDWARE)


def test_a_missing_adapter_names_the_stage_that_makes_it(tiny, tmp_path):
    with pytest.raises(ModelError, match="dvc repro finetune"):
        open_adapter(tmp_path, MODEL, tiny)


def test_the_identity_of_a_random_base_is_its_shape_and_seed(tiny):
    other = MODEL.model_copy(update={"seed": 2})
    assert base_identity(MODEL, tiny) == base_identity(MODEL, tiny)
    assert base_identity(MODEL, tiny) != base_identity(other, tiny)


def test_the_identity_of_a_folder_is_its_bytes(tmp_path):
    profile = Profile(name=str(tmp_path))
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"a")
    before = base_identity(MODEL, profile)
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert base_identity(MODEL, profile) != before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ParameterError, match=r"hardware.device: found cuda, which this machine does not have"):
        resolve_hardware(HardwareParams(device="cuda", precision="auto", threads=2, cuda_graphs="auto"), TINY)


def test_fp16_on_the_cpu_is_refused():
    with pytest.raises(ParameterError, match="fp16 needs a CUDA GPU"):
        resolve_hardware(HardwareParams(device="cpu", precision="fp16", threads=2, cuda_graphs="auto"), TINY)


def test_auto_is_fp32_on_the_cpu_and_the_threads_are_pinned():
    hardware = resolve_hardware(HardwareParams(device="cpu", precision="auto", threads=1, cuda_graphs="auto"), TINY)
    assert (hardware.precision, torch.get_num_threads()) == ("fp32", 1)
    torch.set_num_threads(2)


def test_the_tokenizer_reads_back_every_text():
    tokenizer = load_tokenizer(Profile(name=str(ROOT / "models/tiny")))
    for text in ("민법 제750조", "漢字 émoji 🏛️ 탭\t끝", "①②③ ㎡", "\n\n두 줄\n"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    vocabulary = json.loads((ROOT / "models/tiny/tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    assert len(vocabulary) == json.loads((ROOT / "models/tiny/config.json").read_text(encoding="utf-8"))["vocab_size"]
