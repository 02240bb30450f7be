"""GGUF files of small models."""

import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

F32, Q8_0 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0


def write_gguf(
    folder: Path,
    path: Path,
    kind: gguf.GGMLQuantizationType = F32,
    pre: str = "llama-bpe",
    more: dict[str, np.ndarray] | None = None,
) -> None:
    """Write a model of Llama's layout as GGUF.

    llama.cpp's own convert_hf_to_gguf.py knows the tokenizers that it takes by name, and tiny's is none of them. Its
    pre-tokenizer is Llama 3's but for signs next to letters; the prompts come as token ids anyway.

    Args:
        folder: with weights in fp32, and the keys of transformers 5 in its config.json.
        kind: of the matrices; F32 or Q8_0.
        pre: what the file calls the rule by which text is cut before its tokens.
        more: tensors to be there besides the model's.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    names = {number: name for name, number in tokenizer["model"]["vocab"].items()} | special
    kinds = {number: gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for number in names}
    ids = range(config["vocab_size"])

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_file_type({F32: gguf.LlamaFileType.ALL_F32, Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0}[kind])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([names.get(number, f"[unused {number}]") for number in ids])
    writer.add_token_types([kinds.get(number, gguf.TokenType.UNUSED) for number in ids])
    writer.add_token_merges(
        [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    )
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    if tokenizer["post_processor"] is not None:
        writer.add_add_bos_token(True)
    tensor_names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        for part, number in (("q_proj", heads), ("k_proj", groups)):
            if part in name:  # llama.cpp rotates neighbours, transformers the halves of a head
                tensor = tensor.reshape(number, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        of_this = kind if tensor.ndim == 2 else F32
        data = gguf.quants.quantize(tensor.astype(np.float32), of_this)
        writer.add_tensor(tensor_names.get_name(name, (".weight",)), data, raw_dtype=of_this)
    for name, tensor in (more or {}).items():
        writer.add_tensor(name, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
