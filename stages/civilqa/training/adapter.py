"""The LoRA adapter on a base model: how it is tuned, and how it is put there."""

import re
from functools import partial
from typing import Annotated, Literal

import civilqa.model.bitsandbytes_without_compiler  # noqa: F401

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Embedding, Linear, Linear4bit, Linear8bitLt, LoraLayer
from pydantic import Field
from transformers import PreTrainedModel, set_seed

from civilqa.base_model.profiles import Profile
from civilqa.program.errors import ParameterError
from civilqa.program.parameters import Section

Factor = Annotated[float, Field(gt=0, le=10_000)]


class LoraParams(Section):
    """Source: Hu et al. 2021, LoRA (arXiv:2106.09685). The update is scaled by alpha / rank."""

    rank: Annotated[int, Field(ge=1, le=8192)] = 16
    alpha: Annotated[int, Field(ge=1, le=65_536)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    target_modules: str | list[str] = "all-linear"
    modules_to_save: list[str] = Field(default_factory=list)
    trainable_token_indices: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)


class Tuning(LoraParams):
    """One entry of `tuning`: how a profile's base is trained. `{}` is one."""

    epochs_factor: Factor = 1.0
    learning_rate_factor: Factor = 1.0
    keep: Literal["last", "best"] = "best"


def make_lora_config(lora: LoraParams, revision: str | None) -> LoraConfig:
    """Return peft's configuration, which notes the base's revision."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=[*lora.modules_to_save] or None,  # a copy: peft appends to it
        trainable_token_indices=lora.trainable_token_indices or None,
        # The output layer is the embedding's transpose: trained apart they would drift from what a reload ties.
        ensure_weight_tying=bool(lora.modules_to_save),
        revision=revision,
    )


def add_adapter(
    base: PreTrainedModel, profile: Profile, lora: LoraParams, gradient_checkpointing: bool, seed: int
) -> PeftModel:
    """Return the base with a new LoRA adapter on it, its first weights drawn from the seed.

    Raises:
        ParameterError: the LoRA does not fit the base.
    """
    names = [name for name, _ in base.named_modules() if name]
    for key in ("target_modules", "modules_to_save"):
        listed = getattr(lora, key)
        wanted = listed if isinstance(listed, list) else []  # a string is a pattern, or all-linear
        # peft passes over those that are not there.
        absent = [name for name in wanted if not any(f".{there}".endswith(f".{name}") for there in names)]
        if absent:
            parts = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})
            raise ParameterError(
                f"params.yaml: tuning.*.{key}: found {', '.join(map(repr, absent))}, which the base '{profile.name}' "
                f"has not; there are: {', '.join(parts)}"
            )
    # Beside quantised layers the others stay in 16 bits, as they do where the adapter is used. (peft's preparation for
    # quantised training would turn them, and with them all that flows between the layers, into fp32.)
    if gradient_checkpointing:
        # Not reentrant: torch's own recommendation, and the form that works with frozen weights and with DDP.
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    base.config.use_cache = False
    set_seed(seed)  # here, since the trainer sets its own seed only after the adapter is made
    try:
        model = get_peft_model(base, make_lora_config(lora, profile.revision))
    except (ValueError, TypeError, IndexError, re.error) as error:  # a pattern, or rows, that do not fit the base
        raise ParameterError(f"params.yaml: tuning: the LoRA does not fit '{profile.name}': {error}") from None
    head = model.get_output_embeddings()
    embeddings = isinstance(model.get_input_embeddings(), Embedding) and base.config.tie_word_embeddings
    if embeddings or isinstance(head, LoraLayer):
        what, why = ("output layer", "trl's loss reads its weights past LoRA")
        if embeddings:
            what, why = (
                "embeddings",
                "the base's output layer is the same weights, which a merged adapter would change",
            )
        raise ParameterError(
            f"params.yaml: tuning.*.target_modules: found LoRA on the {what} of '{profile.name}', but {why}; take "
            "embed_tokens and lm_head out of it, or put embed_tokens into modules_to_save, which trains it whole"
        )
    if not hasattr(head, "bias"):
        # trl's loss reads it; peft's wrapper around an output layer with trained rows hides it.
        object.__setattr__(head, "bias", head.original_module.bias)
    return model


def fuse_lora(model: PeftModel) -> None:
    """Have each adapted linear layer compute Wx + sB(Ax) in three products, of which the last adds up.

    peft turns the layer's whole input into the adapter's fp32, which autocast turns back, and then scales and adds what
    the adapter makes of it: passes over all of its numbers, and more kernels than the base's own. Autocast by itself
    turns the two small matrices alone. The sums are rounded once where peft's are rounded three times.
    """
    for layer in model.modules():
        if isinstance(layer, Linear | Linear4bit | Linear8bitLt):
            layer.forward = partial(_add_adapter, layer)


def _add_adapter(layer: Linear, inputs: torch.Tensor) -> torch.Tensor:
    """Return the layer's output with its adapter's, of shape (..., outputs)."""
    outputs = layer.base_layer(inputs)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    low = torch.nn.functional.linear(layer.lora_dropout["default"](inputs), a)  # (..., rank)
    summed = torch.addmm(outputs.flatten(0, -2), low.flatten(0, -2), b.T, alpha=layer.scaling["default"])
    return summed.unflatten(0, outputs.shape[:-1])
