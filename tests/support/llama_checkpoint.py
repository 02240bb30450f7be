"""A checkpoint shaped like Llama-3.2-1B, small enough to train in a test.

As there: rotary embeddings scaled by `llama3` in the keys of 2024, tied embeddings, weights in bf16, a byte-level BPE
whose 256 special tokens stand behind its vocabulary, and a post-processor that puts the begin token before any text.
Source: config.json and tokenizer_config.json of meta-llama/Llama-3.2-1B.
"""

import csv
import json
from pathlib import Path

import torch
from safetensors.torch import save
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

WORDS = 1024
SPECIAL = 256
# The order of Llama 3.2's special tokens; the rest is reserved, numbered on.
NAMED = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
]
SPECIAL_TOKENS = NAMED + [f"<|reserved_special_token_{i}|>" for i in range(3, SPECIAL - len(NAMED) + 3)]
IDS = {token: WORDS + i for i, token in enumerate(SPECIAL_TOKENS)}
CHAT_TOKENS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": IDS["<|begin_of_text|>"],
    "eos_token_id": IDS["<|end_of_text|>"],
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 128,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0",
    "use_cache": True,
    "vocab_size": WORDS + SPECIAL,
}


def make_tokenizer(dataset: Path) -> Tokenizer:
    with dataset.open(encoding="utf-8", newline="") as file:
        texts = [row[column] for row in csv.DictReader(file) for column in ("question", "answer")]
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    pieces = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=WORDS, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    begin = SPECIAL_TOKENS[0]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single=f"{begin} $A", pair=f"{begin} $A {begin}:1 $B:1", special_tokens=[(begin, IDS[begin])]
            ),
        ]
    )
    return tokenizer


def make_weights(trained: list[str]) -> dict[str, torch.Tensor]:
    """The weights, in which the rows of all special tokens but `trained` lie close together, as after pretraining."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).to(torch.bfloat16)
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    embeddings = torch.randn(WORDS + SPECIAL, CONFIG["hidden_size"])
    untrained = [IDS[token] for token in SPECIAL_TOKENS if token not in trained]
    common = 0.3 * torch.randn(CONFIG["hidden_size"])
    embeddings[untrained] = common + 0.01 * torch.randn(len(untrained), CONFIG["hidden_size"])
    weights["model.embed_tokens.weight"] = embeddings.to(torch.bfloat16)
    return weights


def make_checkpoint(dataset: Path, instruct: bool = False) -> dict[str, bytes]:
    """The files of the repository, by name."""
    trained = ["<|begin_of_text|>", "<|end_of_text|>", *(CHAT_TOKENS if instruct else [])]
    tokenizer_config = {
        "added_tokens_decoder": {
            str(i): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for token, i in IDS.items()
        },
        "bos_token": "<|begin_of_text|>",
        "clean_up_tokenization_spaces": True,
        "eos_token": "<|end_of_text|>",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    generation_config = {"bos_token_id": CONFIG["bos_token_id"], "eos_token_id": CONFIG["eos_token_id"]}
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "generation_config.json": json.dumps(generation_config).encode(),
        "model.safetensors": save(make_weights(trained), metadata={"format": "pt"}),
        "tokenizer.json": make_tokenizer(dataset).to_str().encode(),
        "tokenizer_config.json": json.dumps(tokenizer_config).encode(),
        "original/consolidated.00.pth": b"another layout of the same weights",
    }
