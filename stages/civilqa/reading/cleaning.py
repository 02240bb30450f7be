"""How any text of a person is cleaned, the same in training as when the model is asked."""

import re
import unicodedata

# Zero-width characters and the byte-order mark that text copied from PDF files and web pages is full of. They are
# invisible, split words for the tokenizer, and make equal questions unequal.
INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")  # Unicode's category Cc but the line feed


def clean(text: str) -> str:
    """Return text in NFC, without invisible and control characters, with single spaces and at most one blank line."""
    text = unicodedata.normalize("NFC", text)
    if text.isprintable():  # no character of the kinds below, and no white space but the space
        return " ".join(text.split()) if "  " in text else text.strip()
    text = INVISIBLE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    lines = [" ".join(line.split()) for line in CONTROL.sub(" ", text).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
