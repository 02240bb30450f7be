"""llama.cpp's own server on a free port, with a merged model: python llama_cpp_server.py FOLDER FILE.gguf

Prints its address and serves until its input ends. The wheels of xllamacpp hold that server ready-made.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import xllamacpp
from safetensors.numpy import load_file


def write_gguf(folder: Path, path: Path) -> None:
    """Write a merged tiny model as GGUF in fp32.

    llama.cpp's own convert_hf_to_gguf.py knows the tokenizers that it takes by name, and tiny's is none of them. Its
    pre-tokenizer is Llama 3's but for signs next to letters; the prompts come as token ids anyway.
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
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([names.get(number, f"[unused {number}]") for number in ids])
    writer.add_token_types([kinds.get(number, gguf.TokenType.UNUSED) for number in ids])
    writer.add_token_merges(
        [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    )
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    tensor_names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        for part, number in (("q_proj", heads), ("k_proj", groups)):
            if part in name:  # llama.cpp rotates neighbours, transformers the halves of a head
                tensor = tensor.reshape(number, 2, -1, tensor.shape[1]).swapaxes(1, 2).reshape(tensor.shape)
        writer.add_tensor(tensor_names.get_name(name, (".weight",)), tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    folder, path = map(Path, sys.argv[1:])
    write_gguf(folder, path)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.port, params.n_parallel, params.n_ctx = 0, 2, 4096
    # As exact as torch on a CPU: by default keys and values are kept in fp16, and attention computes with it.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
