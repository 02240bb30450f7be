import pytest
from peft import get_peft_model

from civilqa.base_model.profiles import LoraParams, ModelParams, Profile
from civilqa.model.hardware import Hardware
from civilqa.model.loading import count_parameters, load_base, make_lora_config, prepare_for_training
from civilqa.program.errors import ParameterError
from civilqa.program.parameters import read_choice
from civilqa.training import footprint
from civilqa.training.footprint import OPTIMIZER_BYTES, check_memory, estimate_footprint
from conftest import ROOT

CPU = Hardware("cpu", "fp32", 2)
MODEL = ModelParams(profile="tiny", seed=1)


def tiny(**lora):
    return Profile(name=str(ROOT / "models/tiny"), weights="random", lora=LoraParams(**lora))


def held(model):
    """Bytes of a model's parameters as they are stored, quantised ones with their scales."""
    size = 0
    for parameter in model.parameters():
        size += parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            size += state.absmax.numel() * state.absmax.element_size()
    return size


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_the_estimate_is_what_the_loaded_base_holds(quantization):
    base = prepare_for_training(load_base(MODEL, tiny(), CPU, quantization), gradient_checkpointing=False)
    assert estimate_footprint(tiny(), CPU, quantization).weights == pytest.approx(held(base), rel=0.02)


@pytest.mark.parametrize(
    "lora",
    [
        {"rank": 4},
        {"rank": 8, "target_modules": ["q_proj", "v_proj"]},
        {"rank": 4, "modules_to_save": ["embed_tokens"]},
        {"rank": 4, "trainable_token_indices": [3, 5]},
    ],
)
def test_the_trained_parameters_are_those_that_peft_trains(lora):
    profile = tiny(**lora)
    model = get_peft_model(load_base(MODEL, profile, CPU), make_lora_config(profile))
    assert estimate_footprint(profile, CPU, "none").trained == count_parameters(model)["trainable"] * (
        4 + 4 + OPTIMIZER_BYTES
    )


def test_a_training_that_cannot_fit_says_what_would(monkeypatch):
    profile = read_choice("profiles", "llama-1b-random", Profile, "model.profile", ROOT / "params.yaml")
    profile = profile.model_copy(update={"name": str(ROOT / profile.name)})
    gpu = Hardware("cuda", "bf16", 2)
    monkeypatch.setattr(footprint, "available_memory_bytes", lambda device: 2 * 2**30)
    with pytest.raises(
        ParameterError, match=r"takes at least 2.36 GiB on the GPU .*2.00 GiB are free.*4bit needs 1.51 GiB"
    ):
        check_memory(profile, gpu, "none")
    assert "at least 1.51 GiB on the GPU" in check_memory(profile, gpu, "4bit")
