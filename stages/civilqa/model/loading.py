"""Base models and adapters: loading and saving."""

from pathlib import Path
from typing import Any

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

import torch
import transformers
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    set_seed,
)

from civilqa.base_model.hub import CONFIG, locate, locate_weights, read_config
from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.model.hardware import Hardware
from civilqa.model.provenance import CONFIG_FILE, Adapter
from civilqa.program.errors import ModelError
from civilqa.program.files import write_json
from civilqa.program.lifecycle.machine_errors import is_out_of_memory

WIDE_LAYER = 1 << 24  # weights
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}  # the kinds of layers that are asked here


class WideLinear(torch.nn.Linear):
    """A wide output layer, in fp32 on a CPU, for a model that is asked.

    torch multiplies by MKL in fp32. For the few rows of a step of generation oneDNN, which it takes in 16 bits, was 1.1
    to 1.6 times as fast in the whole step (AMD EPYC, a vocabulary of 262,144). It has no gradient: training has MKL.
    """

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if not torch.is_inference_mode_enabled():
            return super().forward(states)
        return torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")


def read_architecture(profile: Profile) -> PreTrainedConfig:
    """Return the configuration as its class reads it, by whatever names the file calls things.

    Raises:
        ModelError: see read_config; its class takes no such configuration, or has layers that are no attention.
    """
    read_config(profile)
    folder = locate(profile.name, profile.revision, [CONFIG])
    try:
        config = AutoConfig.from_pretrained(str(folder))
    except Exception as error:  # each class checks in a way of its own
        raise ModelError(
            f"{folder / CONFIG}: transformers {transformers.__version__} does not read it: {error}; take the file from "
            "where the model came from"
        ) from None
    if others := {*(getattr(config, "layer_types", None) or ())} - ATTENTION:
        raise ModelError(
            f"{profile.name}: has layers of the kind {', '.join(sorted(others))}, which remember what they read as no "
            "attention does: several questions at a time, or several statements after one question, cannot be asked of "
            "it here; take a model whose layers are attention alone"
        )
    return config


def load_base(model: ModelParams, profile: Profile, hardware: Hardware, quantization: str = "none") -> PreTrainedModel:
    """Return the profile's base model on the device, in evaluation mode.

    Random weights are drawn on the CPU in fp32 whatever the device, so that the same seed is the same model everywhere.

    Args:
        quantization: none, 8bit, or 4bit (NF4 with double quantisation; Dettmers et al. 2023, arXiv:2305.14314).

    Raises:
        ModelError: the model cannot be had, is no causal language model, or its files do not hold all of its weights.
    """
    read_config(profile)
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": hardware.dtype}
    options = {
        "none": {},
        "8bit": {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)},
        "4bit": {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **nf4)},
    }[quantization]
    # By its number: transformers copies in threads of its own, whose "cuda" is the first GPU.
    place = torch.cuda.current_device() if hardware.device == "cuda" else hardware.device
    # Otherwise transformers takes sdpa, or eager where the architecture has none; the trainer puts varlen in its place.
    attention = hardware.attention if hardware.attention == "flash_attention_2" else None
    options |= {"dtype": hardware.dtype, "attn_implementation": attention, "device_map": {"": place}}
    try:
        base = _draw(model, profile, options) if profile.weights == "random" else _read(profile, options)
    except ModelError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise  # it has nothing to do with the files
        # config.json may hold anything, and whatever part of transformers meets it fails in a way of its own.
        raise ModelError(f"the base model '{profile.name}' cannot be loaded: {type(error).__name__}: {error}") from None
    # On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights in the first forward pass in evaluation mode, for a
    # faster kernel that has no backward pass. A validation at the end of an epoch would thus cut the gradients of all
    # later training steps, with no more than a warning.
    for module in base.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    head = base.get_output_embeddings()
    if (
        type(head) is torch.nn.Linear
        and head.weight.numel() >= WIDE_LAYER
        and head.weight.dtype == torch.float32
        and head.weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
    ):
        head.__class__ = WideLinear
    return base.eval()


def _read(profile: Profile, options: dict[str, Any]) -> PreTrainedModel:
    folder = str(locate_weights(profile.name, profile.revision))
    base, report = AutoModelForCausalLM.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
    )
    # transformers draws what it does not find from the random numbers at hand, and warns.
    absent = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if absent:
        raise ModelError(
            f"the base model '{profile.name}': its files hold no weights that fit {', '.join(absent[:3])}"
            f"{' and others' if len(absent) > 3 else ''}: they do not belong to its config.json; take both from one "
            "place"
        )
    base.name_or_path = profile.name  # what the adapter will say that it belongs to
    return base


def _draw(model: ModelParams, profile: Profile, options: dict[str, Any]) -> PreTrainedModel:
    config = read_architecture(profile)
    set_seed(model.seed)
    attention = options["attn_implementation"]
    base = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    base.name_or_path = profile.name
    if "quantization_config" not in options:
        return base.to(options["device_map"][""], options["dtype"])
    # bitsandbytes quantises while it loads; the drawn weights are handed over as a state dict.
    return type(base).from_pretrained(None, config=config, state_dict=base.state_dict(), **options)


def load_adapter(base: PreTrainedModel, folder: Path) -> PeftModel:
    """Return the base with the adapter of a folder on it, in evaluation mode.

    Raises:
        ModelError: it does not fit the base.
    """
    try:
        return PeftModel.from_pretrained(base, str(folder)).eval()
    except Exception as error:  # as for a base's config.json
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{folder}: does not fit the base model '{base.name_or_path}': {error}\nTrain it again: dvc repro finetune"
        ) from None


def load_tuned(adapter: Adapter, hardware: Hardware, base: PreTrainedModel | None = None) -> torch.nn.Module:
    """Return the tuned model of an adapter, on the base that it was trained on, in evaluation mode.

    An adapter trained on a quantised base is run on one: on full-precision weights, which it never saw, it is another
    model. Otherwise it is merged into the base, since two extra matrix products a layer slow down every token.

    Args:
        base: the profile's base in full precision, if it is loaded already; it may be changed by this.
    """
    quantization = adapter.manifest.quantization
    if quantization != "none":
        return load_adapter(load_base(adapter.model, adapter.profile, hardware, quantization), adapter.folder)
    return load_adapter(base or load_base(adapter.model, adapter.profile, hardware), adapter.folder).merge_and_unload()


def save_adapter(model: PeftModel, folder: Path, state_dict: dict[str, torch.Tensor] | None = None) -> None:
    """Write adapter_model.safetensors and adapter_config.json; their bytes depend on the adapter alone.

    peft writes the configuration's sets in hash order, which changes from process to process, and a model card whose
    text depends on its version: the first is sorted, the second left out.

    Args:
        state_dict: the weights, where the model itself holds only a part of them (FSDP).
    """
    # False: whether the embeddings are in is decided by modules_to_save, not by asking the hub for the base's config.
    model.save_pretrained(str(folder), state_dict=state_dict, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    fields = model.peft_config["default"].to_dict()
    fields = {key: sorted(value) if isinstance(value, set) else value for key, value in fields.items()}
    write_json(folder / CONFIG_FILE, {**fields, "inference_mode": True})


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Return the number of parameters in all and of those that are trained. Quantised ones count unpacked."""
    total = trainable = 0
    for parameter in model.parameters():
        # bitsandbytes packs two 4-bit weights into each byte of its storage.
        n = parameter.numel() * (2 if type(parameter).__name__ == "Params4bit" else 1)
        total += n
        trainable += n if parameter.requires_grad else 0
    return {"total": total, "trainable": trainable}
