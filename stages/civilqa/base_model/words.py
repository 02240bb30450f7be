"""Finds the tokens of many texts word by word, each word once: nearly every word of a text was in one before it.

That is right only for a tokenizer that parts a text at spaces before it looks for tokens; any other is given the whole
texts.
"""

import json
import re
from itertools import chain

from tokenizers import Tokenizer

# How tokenizers part a text before they look for tokens: the embedded one, and Llama 3's. In neither of these patterns
# does a piece go on with a space behind what is no white space, and nothing looks back. So a text may be cut before any
# space that follows no other white space, and the pieces on either side stay what they are.
PARTED_AT_SPACES = (
    r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
CUT = re.compile(r"(?<=\S)(?= )")
SPACE_BEHIND_SPACE = re.compile(r" (?<=\s )")
REMEMBERED = 1 << 19  # characters of words, of about 64 bytes with their tokens


class WordEncoder:
    """A tokenizer that remembers the tokens of words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.by_word = is_parted_at_spaces(tokenizer)
        self.known: dict[str, list[int]] = {}
        self.characters = 0

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of each text as a whole, without any that the tokenizer itself puts around one."""
        if not self.by_word:
            return self._encode(texts)
        if self.characters > REMEMBERED:
            self.known, self.characters = {}, 0
        known = self.known  # by a name of its own: another thread may begin anew meanwhile
        words = [split_words(text) for text in texts]
        new = list(set().union(*words).difference(known))
        known.update(zip(new, self._encode(new), strict=True))
        self.characters += sum(map(len, new))
        return [list(chain.from_iterable(map(known.__getitem__, of_text))) for of_text in words]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        # The tokenizer under transformers' own, which spends as much time on wrapping the ids as on finding them.
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def split_words(text: str) -> list[str]:
    """Return a text cut before each such space."""
    if SPACE_BEHIND_SPACE.search(text):
        return CUT.split(text)
    first, *others = text.split(" ")  # as CUT does it, in half the time
    return [first, *map(" ".__add__, others)]


def is_parted_at_spaces(tokenizer: Tokenizer) -> bool:
    """Tell whether the tokens of a text are those of its words one after another."""
    if tokenizer.normalizer is not None or tokenizer.pre_tokenizer is None:
        return False
    parts = json.loads(tokenizer.pre_tokenizer.__getstate__()).get("pretokenizers", [])
    by_pattern = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in PARTED_AT_SPACES
    ]
    bytes_of_each = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    if len(parts) != 2 or parts[0] not in by_pattern or not bytes_of_each.items() <= parts[1].items():
        return False
    # A special token is found before all that, and may take the space behind it, or hold one.
    added = tokenizer.get_added_tokens_decoder().values()
    random = getattr(tokenizer.model, "dropout", None)
    return not random and not any(token.rstrip or " " in token.content for token in added)
