"""How any text of a person is cleaned, the same in training as when the model is asked."""

import re
import unicodedata

# Zero-width characters and the byte-order mark that text copied from PDF files and web pages is full of. They are
# invisible, split words for the tokenizer, and make equal questions unequal.
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def clean(text: str) -> str:
    """Return text in NFC, without invisible and control characters, with single spaces and at most one blank line."""
    text = INVISIBLE.sub("", unicodedata.normalize("NFC", text)).replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(char if char == "\n" or unicodedata.category(char) != "Cc" else " " for char in text)
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
