"""Small random bases with the traits that tell families of models apart: tokens, template, attention, embeddings.

The tokenizer is tiny's, with the family's special tokens in place of its own. The templates are no family's own text:
they are as short as what they are here for needs.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    Exaone4Config,
    Gemma3TextConfig,
    HyperCLOVAXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from civilqa.base_model.prompts import NO_THOUGHTS, NOTES, SYSTEM_IN_QUESTION

ROOT = Path(__file__).resolve().parents[2]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Whether a prompt to be answered ends in empty thoughts is asked for; an answer has them in any case.
NO_THOUGHT = "<think>\n\n</think>\n\n"
QWEN_3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    f"{{% if m.role == 'assistant' and loop.last %}}{NO_THOUGHT}{{% endif %}}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    f"{{% if enable_thinking is defined and not enable_thinking %}}{NO_THOUGHT}{{% endif %}}{{% endif %}}"
)
EXAONE = (
    "{% for m in messages %}[|{{ m.role }}|]\n"
    f"{{% if m.role == 'assistant' %}}{NO_THOUGHT}{{% endif %}}"
    "{{ m.content }}[|endofturn|]\n{% endfor %}{% if add_generation_prompt %}[|assistant|]\n"
    "{% if enable_thinking is defined and enable_thinking %}<think>\n"
    f"{{% else %}}{NO_THOUGHT}{{% endif %}}{{% endif %}}"
)
GEMMA_3 = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content + '\\n\\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first }}{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
LLAMA_3 = (ROOT / "models/templates/llama3_instruct.jinja").read_text(encoding="utf-8").removesuffix("\n")

SIZE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096, "initializer_range": 0.1}
BOTH_LAYERS = ["sliding_attention", "full_attention"]
LLAMA_ROPE = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA_ROPE |= {"original_max_position_embeddings": 64, "rope_theta": 5e5}
GEMMA_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "default", "rope_theta": 1e6},
}


@dataclass(frozen=True)
class Family:
    """What tells a family's bases from the others'."""

    config: type
    traits: dict[str, Any]
    template: str
    named: list[str]  # special tokens that have a use
    bos: str | None
    eos: str
    pad: str | None
    end: str  # what ends an answer
    begins: int  # how often the begin token stands in a prompt
    reserved: list[str] = field(default_factory=list)  # special tokens that no text has
    puts_bos: bool = False  # the tokenizer before any text
    words: list[str] = field(default_factory=list)  # added tokens that are not special
    pad_token: str | None = None  # what the profile has to set
    spare_rows: int = 0  # of the embeddings, beyond the tokenizer
    notes: list[str] = field(default_factory=list)  # what format says of the template


CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
THINK = ["<think>", "</think>"]
QWEN_2 = Family(
    Qwen2Config,
    {"tie_word_embeddings": True},
    CHATML,
    [*CHATML_TOKENS, "<|box_start|>", "<|box_end|>", "<|vision_pad|>"],
    None,
    "<|im_end|>",
    "<|endoftext|>",
    end="<|im_end|>",
    begins=0,
    spare_rows=40,
)
FAMILIES = {
    "llama-3": Family(
        LlamaConfig,
        {"rope_parameters": LLAMA_ROPE, "tie_word_embeddings": True},
        LLAMA_3,
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|begin_of_text|>",
        "<|eot_id|>",
        None,
        end="<|eot_id|>",
        begins=1,
        reserved=["<|finetune_right_pad_id|>", *(f"<|reserved_special_token_{i}|>" for i in range(8))],
        puts_bos=True,
        pad_token="<|finetune_right_pad_id|>",  # noqa: S106
    ),
    "gemma-3": Family(
        Gemma3TextConfig,
        {
            "num_key_value_heads": 1,
            "rope_parameters": GEMMA_ROPE,
            "layer_types": BOTH_LAYERS,
            "sliding_window": 64,
            "query_pre_attn_scalar": 16,
            "final_logit_softcapping": 30.0,
            "tie_word_embeddings": True,
        },
        GEMMA_3,
        ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
        "<bos>",
        "<eos>",
        "<pad>",
        end="<end_of_turn>",
        begins=1,
        reserved=[f"<unused{i}>" for i in range(8)],
        puts_bos=True,
    ),
    "qwen-2.5": QWEN_2,
    "qwen-3": replace(QWEN_2, config=Qwen3Config, template=QWEN_3, words=THINK, notes=[NOTES[NO_THOUGHTS]]),
    "smollm2": Family(
        LlamaConfig,
        {"tie_word_embeddings": True},
        CHATML,
        [*CHATML_TOKENS, "<reponame>", "<file_sep>", "<empty_output>"],
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
        end="<|im_end|>",
        begins=3,  # it begins every turn
        pad_token="<reponame>",  # noqa: S106
    ),
    "mistral": Family(
        MistralConfig,
        {"sliding_window": 64, "tie_word_embeddings": False},
        MISTRAL,
        ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
        "<s>",
        "</s>",
        None,
        end="</s>",
        begins=1,
        reserved=[f"[control_{i}]" for i in range(8)],
        puts_bos=True,
        pad_token="[control_7]",  # noqa: S106
        notes=[NOTES[SYSTEM_IN_QUESTION]],
    ),
    "exaone-4": Family(
        Exaone4Config,
        {"layer_types": BOTH_LAYERS, "sliding_window": 64, "tie_word_embeddings": True},
        EXAONE,
        ["[BOS]", "[PAD]", "[|endofturn|]", "[|system|]", "[|user|]", "[|assistant|]"],
        "[BOS]",
        "[|endofturn|]",
        "[PAD]",
        end="[|endofturn|]",
        begins=0,
        reserved=[f"[unused{i}]" for i in range(8)],
        words=THINK,
        notes=[NOTES[NO_THOUGHTS]],
    ),
    "hyperclova-x": Family(
        HyperCLOVAXConfig,
        {
            "logits_scaling": 0.5,
            "embedding_multiplier": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.1,
            "tie_word_embeddings": False,
        },
        CHATML,
        [*CHATML_TOKENS, "<|stop|>", "<|pad|>", "<|endofturn|>"],
        "<|endoftext|>",
        "<|im_end|>",
        "<|pad|>",
        end="<|im_end|>",
        begins=0,
        reserved=[f"<|dummy_{i}|>" for i in range(8)],
    ),
}


def make_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    fields = json.loads((ROOT / "models/tiny/tokenizer.json").read_text(encoding="utf-8"))
    special = [*family.named, *family.reserved]
    vocabulary = {
        text: number for text, number in fields["model"]["vocab"].items() if number >= len(fields["added_tokens"])
    }
    for token, name in zip(fields["added_tokens"], special, strict=False):
        vocabulary[name] = token["id"]
        token["content"] = name
    fields["model"]["vocab"] = vocabulary
    tokenizer = Tokenizer.from_str(json.dumps(fields))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.words])
    if family.config in (Qwen2Config, Qwen3Config):  # transformers cuts text this way whatever the file says
        tokenizer.normalizer = normalizers.NFC()
        whole_words = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
        in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([whole_words, in_bytes])
    if family.puts_bos:
        begin = (family.bos, tokenizer.token_to_id(family.bos))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token=family.pad,
        chat_template=family.template,
    )


def write_base(folder: Path, family: Family, untrained: tuple[str, ...] = ()) -> None:
    """Write a base of a family: rows of reserved tokens, and of untrained ones, lie close together."""
    tokenizer = make_tokenizer(family)
    rows = max(tokenizer.get_vocab().values()) + 1 + family.spare_rows
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(5)
    config = family.config(**SIZE | family.traits | ids, pad_token_id=tokenizer.pad_token_id, vocab_size=rows)
    model = AutoModelForCausalLM.from_config(config)
    kept_free = [*range(rows - family.spare_rows, rows), *tokenizer.convert_tokens_to_ids(family.reserved)]
    alike = [*kept_free, *tokenizer.convert_tokens_to_ids(list(untrained))]
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(std=SIZE["initializer_range"])  # also the padding token's row
        for module in (model.get_input_embeddings(), model.get_output_embeddings()):
            # Without reserved tokens the untrained ones are told by being zero.
            point = 0.05 * torch.randn(SIZE["hidden_size"]) if kept_free else torch.zeros(SIZE["hidden_size"])
            module.weight[alike] = point + 1e-4 * torch.randn(len(alike), SIZE["hidden_size"])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
