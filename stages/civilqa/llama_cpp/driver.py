"""Runs llama.cpp's converter, and answers what it cannot know of a tokenizer: python driver.py JOB.json

It knows byte-level tokenizers by a list of hashes, one for each that was published, and reads SentencePiece's from
tokenizer.model alone, which an export does not have. Both stand in tokenizer.json. A process of its own, since the
converter brings a `gguf` of its own and has its modules at the top level.
"""

import json
import sys
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

# llama.cpp's names of the rules by which it cuts text before its tokens; transformers has their expressions.
RULES = ("llama-bpe", "qwen2", "gpt-4o", "tekken")


def find_rule(tokenizer: Tokenizer, texts: list[str]) -> str:
    """Return llama.cpp's rule for a byte-level tokenizer: its own, or one that makes the same tokens of all texts.

    Another rule cuts elsewhere, but the tokens stay the same where no merge spans the difference.
    """
    expected = tokenizer.encode_batch(texts, add_special_tokens=False)
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rules = {
        name: pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), "isolated"), bytes_alone]
        )
        for name in RULES
    }
    for name, rule in {**rules, "gpt-2": whole}.items():
        other = Tokenizer.from_str(tokenizer.to_str())
        other.pre_tokenizer = rule
        found = other.encode_batch(texts, add_special_tokens=False)
        if all(one.ids == two.ids for one, two in zip(expected, found, strict=True)):
            return name
    sys.exit(
        f"llama.cpp has no rule that cuts text as this tokenizer does (tried: {', '.join(rules)}, gpt-2): "
        f"{json.loads(tokenizer.to_str())['pre_tokenizer']}"
    )


def read_pieces(fields: dict[str, Any], size: int) -> tuple[list[bytes], list[float], list[int]]:
    """Return text, score and type of each token of a SentencePiece tokenizer, from its tokenizer.json.

    SentencePiece merges what has the highest score first, tokenizers what comes first in the list of merges.

    Args:
        size: the number of tokens that the model has.
    """
    from gguf import TokenType

    model, added = fields["model"], {token["id"]: token for token in fields["added_tokens"]}
    pieces = {number: piece for piece, number in model["vocab"].items()}
    pieces |= {number: token["content"] for number, token in added.items()}
    scores: dict[str, float] = {}
    for rank, pair in enumerate(model["merges"]):
        scores.setdefault("".join(pair.split(" ") if isinstance(pair, str) else pair), -float(rank))

    def kind(number: int, piece: str) -> int:
        if piece == model["unk_token"]:
            return TokenType.UNKNOWN
        if number in added:
            return TokenType.CONTROL if added[number]["special"] else TokenType.USER_DEFINED
        return TokenType.BYTE if len(piece) == 6 and piece.startswith("<0x") else TokenType.NORMAL

    unused = (f"[PAD{number}]" for number in range(size))
    texts = [pieces.get(number, name) for number, name in enumerate(unused)]
    kinds = [kind(number, text) if number in pieces else TokenType.UNUSED for number, text in enumerate(texts)]
    return [text.encode() for text in texts], [scores.get(text, 0.0) for text in texts], kinds


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    converter, folder = Path(job["converter"]), Path(job["folder"])
    sys.path[:0] = [str(converter), str(converter / "gguf-py")]
    import convert_hf_to_gguf
    import gguf
    from conversion.base import TextModel
    from conversion.phi import Phi3MiniModel

    fields = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    is_sentencepiece = bool(fields["model"].get("byte_fallback"))
    known_rule, byte_level = TextModel.get_vocab_base_pre, TextModel._set_vocab_gpt2
    add_special, add_bos = gguf.SpecialVocab.add_to_gguf, gguf.GGUFWriter.add_add_bos_token

    def get_rule(self: Any, tokenizer: Any) -> str:
        try:
            return known_rule(self, tokenizer)
        except NotImplementedError:
            return find_rule(tokenizer.backend_tokenizer, job["texts"])

    def create_pieces(self: Any) -> tuple[list[bytes], list[float], list[int]]:
        if not is_sentencepiece:
            raise FileNotFoundError("tokenizer.model")  # what the converter takes for a byte-level tokenizer
        return read_pieces(fields, self.hparams["vocab_size"])

    def set_byte_level(self: Any) -> None:
        if not is_sentencepiece:
            return byte_level(self)
        self._set_vocab_sentencepiece()
        self.gguf_writer.add_add_space_prefix("Prepend" in json.dumps(fields["normalizer"]))

    def add_special_tokens(self: Any, *arguments: Any, **options: Any) -> None:
        self.add_special_token |= {"bos": job["starts_with_bos"], "eos": False}
        add_special(self, *arguments, **options)

    def add_start(self: Any, value: bool) -> None:
        add_bos(self, job["starts_with_bos"])  # whatever an architecture's own code says afterwards, as of SmolLM2

    TextModel.get_vocab_base_pre = get_rule
    TextModel._create_vocab_sentencepiece = create_pieces
    TextModel._set_vocab_gpt2 = set_byte_level
    gguf.SpecialVocab.add_to_gguf = add_special_tokens
    gguf.GGUFWriter.add_add_bos_token = add_start
    Phi3MiniModel.set_vocab = set_byte_level  # its own reads tokenizer.model alone
    sys.argv = ["convert_hf_to_gguf.py", str(folder), "--outfile", job["file"], "--outtype", job["kind"]]
    convert_hf_to_gguf.main()


if __name__ == "__main__":
    main()
