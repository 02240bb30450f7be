"""Variable-length (varlen) attention for padding-free batches: all records of a batch in one row.

A padded batch computes on padding in every layer and needs a mask, which keeps torch's attention from its causal
kernel. In one row, `cu_seq_lens` says where each record begins; each attends to itself alone. The flash-attn package
reads the same borders; this is what torch has itself: its variable-length FlashAttention on a GPU in 16 bits, and its
attention of each record by itself on the CPU, in fp32, and on GPUs before Ampere.

Source: Dao 2023, FlashAttention-2 (arXiv:2307.08691); Kundu et al. 2024, Enhancing Training Efficiency Using Packing
with Flash Attention (arXiv:2407.09105).
"""

import inspect
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

VARLEN_ATTENTION = "sdpa_varlen"
GROUPED_QUERIES = "enable_gqa" in inspect.signature(varlen_attn).parameters  # since torch 2.13
IGNORED_LABEL = -100  # what the loss skips, in torch and transformers


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within each record of a row; without borders, that of the row.

    Args:
        query: (1, heads, tokens, head size); key and value may have fewer heads.
        cu_seq_lens_q: (records + 1,), where each record begins and the last one ends.
        max_length_q: tokens of the longest record.

    Returns:
        (1, tokens, heads, head size), and None in place of the attention's weights.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    groups, records = query.shape[1] // key.shape[1], len(cu_seq_lens_q) - 1
    if query.is_cuda and supports_flash_attention(query):
        if records * max_length_q == query.shape[2]:
            return attend_equal_records(query, key, value, records, dropout, scaling), None
        query, key, value = in_16_bits(query, key, value)
        if not GROUPED_QUERIES:
            key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        attended = varlen_attn(
            *(states[0].transpose(0, 1).contiguous() for states in (query, key, value)),  # (tokens, heads, head size)
            *(cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q),
            scale=scaling,
            window_size=(-1, 0),  # causal
            **({"enable_gqa": groups > 1} if GROUPED_QUERIES else {}),
        )
        return attended[None], None
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    records = [
        scaled_dot_product_attention(
            *(states[:, :, start:end] for states in (query, key, value)),
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
        )
        for start, end in pairwise(cu_seq_lens_q.tolist())
    ]
    return torch.cat(records, dim=2).transpose(1, 2).contiguous(), None


def attend_equal_records(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, records: int, dropout: float, scaling: float | None
) -> torch.Tensor:
    """Return the attention of records of one length, one record alone above all, as a batch.

    It needs no borders, and torch then takes the fastest kernel that the GPU has.
    """
    batch = (states[0].unflatten(1, (records, -1)).transpose(0, 1) for states in (query, key, value))
    attended = scaled_dot_product_attention(
        *batch, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return attended.transpose(1, 2).flatten(0, 1)[None]  # (1, tokens, heads, head size)


def supports_flash_attention(query: torch.Tensor) -> bool:
    """Return whether torch's FlashAttention takes these states: 16 bits, or cast to them, from Ampere on."""
    is_half = query.dtype != torch.float32 or torch.is_autocast_enabled("cuda")
    return is_half and torch.cuda.get_device_capability(query.device) >= (8, 0)


def in_16_bits(*states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return states in autocast's type where they are in fp32: the rotary embedding of a half model may leave it so."""
    return tuple(s.to(torch.get_autocast_dtype("cuda")) if s.dtype == torch.float32 else s for s in states)


AttentionInterface.register(VARLEN_ATTENTION, varlen_attention)  # without a mask function: none is made


def supports_varlen_attention(base: PreTrainedModel) -> bool:
    """Return whether every layer of a model is plain causal attention, so that varlen attention computes the same."""
    config = base.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return base._supports_attention_backend and kinds == {"full_attention"} and not getattr(config, "sliding_window", 0)


def summed_answer_loss(model: torch.nn.Module, row: dict[str, Any]) -> tuple[torch.Tensor, int]:
    """Return the summed loss in nats of the answer tokens of a row, and their number.

    The output layer, with a vocabulary a good part of a small model's work, runs on the tokens before them alone.

    Args:
        row: what trl's collator makes without padding; `labels` of shape (1, tokens), those of the prompts and of each
            record's first token ignored.
    """
    inputs = {name: value for name, value in row.items() if name != "labels"}
    labels = row["labels"][0]
    before = (labels[1:] != IGNORED_LABEL).nonzero()[:, 0]
    logits = model(**inputs, logits_to_keep=before, use_cache=False).logits[0]  # (answer tokens, vocabulary)
    return cross_entropy(logits.float(), labels[before + 1], reduction="sum"), len(before)
