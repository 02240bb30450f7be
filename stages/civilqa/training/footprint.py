"""How much memory a training needs at least, known from the base model's shape before its weights are downloaded."""

from dataclasses import dataclass

import psutil
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from civilqa.base_model.hub import CONFIG, locate
from civilqa.base_model.profiles import Profile
from civilqa.model.hardware import Hardware
from civilqa.program.errors import ParameterError
from civilqa.training.adapter import LoraParams

# Bytes a weight of a quantised linear layer: NF4 is half a byte and, with double quantisation, 0.127 bits a weight for
# its scales (Dettmers et al. 2023, arXiv:2305.14314, section 3); int8 is one byte, its scales one number a row.
QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 0.127 / 8}

# What is trained has a gradient of its own type and two moments, of one byte each with an 8-bit optimiser. AdamW's take
# eight: this is the least that a training needs, which must not stop one that would have fitted.
OPTIMIZER_BYTES = 2


@dataclass(frozen=True)
class Footprint:
    """Bytes that a training holds all the time. Activations come on top, by batch size and length."""

    weights: int
    trained: int

    @property
    def total(self) -> int:
        return self.weights + self.trained


def estimate_footprint(profile: Profile, lora: LoraParams, hardware: Hardware, quantization: str) -> Footprint:
    """Return the memory of the base's weights and of what is trained, from the shape in its config.json."""
    config = AutoConfig.from_pretrained(str(locate(profile.name, profile.revision, [CONFIG])))
    with torch.device("meta"):  # shapes alone, no memory
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    linear = _linear_layers(model)
    quantized = sum(layer.weight.numel() for layer in linear.values()) if quantization in QUANTIZED_BYTES else 0
    plain = sum(parameter.numel() for parameter in model.parameters()) - quantized
    # peft keeps the layers that are not quantised in fp32 beside quantised ones (prepare_model_for_kbit_training).
    plain_bytes = 4 if quantized else hardware.dtype.itemsize
    weights = plain * plain_bytes + quantized * QUANTIZED_BYTES.get(quantization, 0)
    trained_bytes = 2 * hardware.dtype.itemsize + OPTIMIZER_BYTES
    return Footprint(int(weights), _count_trained(model, linear, lora) * trained_bytes)


def check_memory(profile: Profile, lora: LoraParams, hardware: Hardware, quantization: str) -> str:
    """Check that the training can fit into memory at all; returns what was estimated, for the user.

    Raises:
        ParameterError: it cannot, whatever the batch size; says what would.
    """
    footprint = estimate_footprint(profile, lora, hardware, quantization)
    available = available_memory_bytes(hardware.device)
    place = "on the GPU" if hardware.device == "cuda" else "of memory"
    if footprint.total <= available:
        return (
            f"at least {_gib(footprint.total)} {place} ({_parts(footprint)}; activations on top) of "
            f"{_gib(available)} free"
        )
    smaller = {
        name: estimate_footprint(profile, lora, hardware, name).total
        for name in QUANTIZED_BYTES
        if name != quantization
    }
    ways = [f"quantization {name} needs {_gib(size)}" for name, size in smaller.items() if size < footprint.total]
    if lora.modules_to_save:
        ways.append(f"tuning.*.modules_to_save trains {', '.join(lora.modules_to_save)} whole")
    raise ParameterError(
        f"params.yaml: presets.*.quantization: with {quantization}, training {profile.name} takes at least "
        f"{_gib(footprint.total)} {place} ({_parts(footprint)}) before any activations, and {_gib(available)} are "
        f"free; {'; '.join([*ways, 'or take a smaller base, or a larger machine'])} (4bit: "
        "-S train.preset=memory_efficient)"
    )


def available_memory_bytes(device: str) -> int:
    """Return the memory that is free for a training: of the GPU, else of the machine."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available


def _linear_layers(model: PreTrainedModel) -> dict[str, torch.nn.Linear]:
    """Return the layers that bitsandbytes quantises and `all-linear` adapts: every linear one but the output layer."""
    output = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    }


def _count_trained(model: PreTrainedModel, linear: dict[str, torch.nn.Linear], lora: LoraParams) -> int:
    """Return the number of trained parameters: two matrices of LoRA a layer, and modules that are trained whole."""
    targets = lora.target_modules
    adapted = [
        layer
        for name, layer in linear.items()
        if targets == "all-linear" or isinstance(targets, str) or name.rpartition(".")[2] in targets
    ]
    count = sum(lora.rank * (layer.in_features + layer.out_features) for layer in adapted)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in lora.modules_to_save:
            count += sum(parameter.numel() for parameter in module.parameters())
    return count + len(lora.trainable_token_indices) * model.get_input_embeddings().weight.shape[1]


def _parts(footprint: Footprint) -> str:
    trained = f"trained parameters with their gradients and optimiser {_gib(footprint.trained)}"
    return f"weights {_gib(footprint.weights)}, {trained}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
