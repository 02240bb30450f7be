"""Makes the files of the embedded base model: config.json, tokenizer.json and tokenizer_config.json.

Run from the root of the repository: python models/tiny/build.py

The tokenizer is a byte-level BPE trained on the questions and answers of data/raw/civil_law_qa_dataset.csv, those of
the test folds among them: it fixes how text is cut into tokens, the weights see the training split alone. There are no
weights here; they are drawn from model.seed when the model is loaded.
"""

import csv
import json
import unicodedata
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

FOLDER = Path("models/tiny")
DATASET = Path("data/raw/civil_law_qa_dataset.csv")

# A small vocabulary keeps the embeddings, which the random base must learn whole, at 0.8M of its parameters.
VOCABULARY_SIZE = 3072

# Named as in Llama 3, so that its chat template works here too.
BOS, EOS, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"
SPECIAL_TOKENS = [BOS, EOS, PAD, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]

# Words with the space before them, numbers of up to three digits, punctuation with the line breaks behind it, and runs
# of white space: a token never spans two of these, which keeps a prompt's tokens independent of the answer's.
PIECES = Regex(r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Return a byte-level BPE tokenizer of VOCABULARY_SIZE tokens, the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PIECES, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def model_config() -> dict[str, object]:
    """Return a Llama config of about 4.3M parameters: 0.8M tied embeddings and 4 layers of 0.9M."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY_SIZE,
        "hidden_size": 256,
        "intermediate_size": 896,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        # Not the usual 0.02: from there 440 steps did not bring the training answers back, from 0.06 they did, and from
        # 0.1 it takes 220. Weights this large leave LoRA something to build on.
        "initializer_range": 0.1,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": SPECIAL_TOKENS.index(BOS),
        "eos_token_id": SPECIAL_TOKENS.index(EOS),
        "pad_token_id": SPECIAL_TOKENS.index(PAD),
    }


def main() -> None:
    with DATASET.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [unicodedata.normalize("NFC", row[column]) for row in rows for column in ("question", "answer")]
    train_tokenizer(texts).save(str(FOLDER / "tokenizer.json"), pretty=True)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "additional_special_tokens": SPECIAL_TOKENS[3:],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    for name, value in (("config.json", model_config()), ("tokenizer_config.json", tokenizer_config)):
        text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        (FOLDER / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
