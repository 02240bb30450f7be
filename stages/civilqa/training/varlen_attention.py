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
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

VARLEN_ATTENTION = "sdpa_varlen"
GROUPED_QUERIES = "enable_gqa" in inspect.signature(varlen_attn).parameters  # since torch 2.13


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within each record of a row; without borders, that of the row.

    Args:
        query: (1, heads, tokens, head size); key and value may have fewer heads.
        sliding_window: how many tokens each attends to, itself the last of them; None: all before it.
        cu_seq_lens_q: (records + 1,), where each record begins and the last one ends.
        max_length_q: tokens of the longest record.

    Returns:
        (1, tokens, heads, head size), and None in place of the attention's weights.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    groups, records = query.shape[1] // key.shape[1], len(cu_seq_lens_q) - 1
    if sliding_window is not None and sliding_window >= max_length_q:
        sliding_window = None  # no record is longer
    if query.is_cuda and supports_flash_attention(query):
        if records * max_length_q == query.shape[2] and sliding_window is None:
            return attend_equal_records(query, key, value, records, dropout, scaling), None
        query, key, value = in_16_bits(query, key, value)
        if not GROUPED_QUERIES:
            key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        attended = varlen_attn(
            *(states[0].transpose(0, 1).contiguous() for states in (query, key, value)),  # (tokens, heads, head size)
            *(cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q),
            scale=scaling,
            window_size=(-1 if sliding_window is None else sliding_window - 1, 0),  # how many before, how many after
            **({"enable_gqa": groups > 1} if GROUPED_QUERIES else {}),
        )
        return attended[None], None
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    records = []
    for start, end in pairwise(cu_seq_lens_q.tolist()):
        band = (
            causal_band(end - start, sliding_window, query) if sliding_window and end - start > sliding_window else None
        )
        record = (states[:, :, start:end] for states in (query, key, value))
        records.append(scaled_dot_product_attention(*record, band, dropout, is_causal=band is None, scale=scaling))
    return torch.cat(records, dim=2).transpose(1, 2).contiguous(), None


def causal_band(length: int, sliding_window: int, like: torch.Tensor) -> torch.Tensor:
    """Return which of the tokens before it, and itself, each token of a record attends to: (length, length)."""
    return torch.ones(length, length, dtype=torch.bool, device=like.device).tril().triu(1 - sliding_window)


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
    """Return whether every layer of a model is causal attention, sliding windows included, and nothing besides."""
    config = base.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    others = ("attn_logit_softcapping", "use_bidirectional_attention", "attention_chunk_size")
    return (
        base._supports_attention_backend
        and base._supports_sdpa  # no sinks
        and kinds <= {"full_attention", "sliding_attention"}
        and not any(getattr(config, name, None) for name in others)
    )


PROBED = (5, 7)  # tokens of the records of a row
# Of the logits, as a share of their size: of fp32, and of 16 bits or fewer. Where records see each other it is more.
ROUNDING, ROUNDING_16_BITS = 1e-3, 5e-2


def keeps_records_apart(base: PreTrainedModel) -> bool:
    """Return whether a model computes each record of a row without padding as it does the record alone.

    Some layers never see where a record begins, or need a mask that is not made. No property of theirs says so.
    """
    attention, was_training = base.config._attn_implementation, base.training
    device = base.get_input_embeddings().weight.device
    ids = torch.arange(sum(PROBED), device=device)
    position_ids = torch.cat([torch.arange(length, device=device) for length in PROBED])
    borders = torch.tensor([0, PROBED[0], sum(PROBED)], dtype=torch.int32, device=device)
    row = {"position_ids": position_ids[None], "cu_seq_lens_q": borders, "cu_seq_lens_k": borders}
    row |= {"max_length_q": max(PROBED), "max_length_k": max(PROBED)}
    half = base.dtype != torch.float32
    try:
        with torch.inference_mode(), torch.autocast(device.type, base.dtype if half else None, enabled=half):
            together = base.eval()(input_ids=ids[None], use_cache=False, **row).logits[0].float()
            if attention == VARLEN_ATTENTION:
                base.set_attn_implementation("sdpa")
            alone = [base(input_ids=part[None], use_cache=False).logits[0].float() for part in ids.split(PROBED)]
    finally:
        base.set_attn_implementation(attention)
        base.train(was_training)
    rounding = ROUNDING_16_BITS if half or getattr(base, "is_quantized", False) else ROUNDING
    return bool((together - torch.cat(alone)).norm() <= rounding * together.norm())
