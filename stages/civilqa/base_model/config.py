"""What a base model must be before anything is downloaded whole or trained: read from its files, without torch."""

import json
from functools import cache
from typing import Any

import transformers
from transformers import PreTrainedTokenizerFast

from civilqa.base_model.hub import CONFIG, GENERATION_CONFIG, check_weights, locate
from civilqa.base_model.profiles import Profile
from civilqa.program.errors import ModelError

# How transformers names its causal language models; the second is what GPT-2 and its like are called.
CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel")


def read_config(profile: Profile) -> dict[str, Any]:
    """Return the base model's config.json, having checked that this pipeline can train such a model.

    Raises:
        ModelError: it needs code of its own, is no causal language model of transformers, or is quantised already.
    """
    path = locate(profile.name, profile.revision, [CONFIG], [GENERATION_CONFIG]) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architectures = list(config.get("architectures") or [])
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{path}: no model configuration: {error}; take another model") from None
    known = [name for name in architectures if name in _names_of_transformers()]
    if config.get("auto_map"):
        way_out = "take a model whose architecture transformers has"
        if known:
            way_out = (
                f"transformers has {known[0]} itself: copy the model to a folder, delete auto_map from its {CONFIG} "
                "and set the profile's name to the folder"
            )
        raise ModelError(
            f"{profile.name}: its {CONFIG} asks to run code from its own repository (auto_map), which this pipeline "
            f"never does (no trust_remote_code); {way_out}"
        )
    if not any(name.endswith(CAUSAL_SUFFIXES) for name in known):
        raise ModelError(
            f"{profile.name}: its architecture is {', '.join(architectures) or 'not named'}, which is no causal "
            f"language model of transformers {transformers.__version__}; take a text model named ...ForCausalLM"
        )
    heads, groups = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(groups, int) and (groups < 1 or heads % groups):
        raise ModelError(
            f"{profile.name}: its {CONFIG} shares {groups} num_key_value_heads among {heads} num_attention_heads, "
            "which cannot be done evenly: the file is damaged; take it from where the model came from"
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unnamed method")
        raise ModelError(
            f"{profile.name}: its weights are quantised already ({method}); take the model in full precision, and let "
            "the preset quantise it: `-S train.preset=memory_efficient`"
        )
    return config


@cache
def _names_of_transformers() -> frozenset[str]:
    """Names only: asking transformers for the class itself would import torch. Listing them takes half a second."""
    return frozenset(dir(transformers))


def check_base(profile: Profile, tokenizer: PreTrainedTokenizerFast) -> str:
    """Check all that can be known of the base model before it is downloaded; returns what was found, for the user.

    Raises:
        ModelError: it cannot be had, does not fit on the disk, cannot be trained here, or has another tokenizer.
    """
    config = read_config(profile)
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.get("vocab_size", 0):
        raise ModelError(
            f"{profile.name}: has embeddings for {config.get('vocab_size', 0)} tokens, and the tokenizer in "
            f"{profile.tokenizer_source} has ids up to {largest}; set the profile's tokenizer to the one made for it"
        )
    if profile.weights == "random":
        return f"base {profile.name}, random weights"
    to_download = check_weights(profile.name, profile.revision)
    if to_download:
        return f"base {profile.name}, {to_download / 1e9:.2f} GB to download before training"
    return f"base {profile.name}, weights on this disk"
