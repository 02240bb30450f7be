"""Text as it may be shown on a screen: nothing that a terminal obeys, and no secret."""

import os
import re
import unicodedata

# Where tokens and keys come from. What is shown may quote them: an error of a client library, a traceback.
SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "JUDGE_API_KEY", "ENGINE_API_KEY")
SHORTEST_SECRET = 6  # a shorter value protects nothing, and would be found in ordinary words
HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")
CREDENTIALS = re.compile(r"(?<=://)[^\s/@]+@")  # https://user:password@host
HIDDEN = "<hidden>"

# Changes of direction, and two ends of a line.
NEVER_SHOWN = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"


def printable(text: str) -> str:
    """Return text that a terminal shows and does not obey: without control characters and changes of direction."""
    return "".join(
        char for char in text if char in "\n\t" or not (unicodedata.category(char) == "Cc" or char in NEVER_SHOWN)
    )


def without_secrets(text: str) -> str:
    """Return text in which no token, key or password of an address can be read."""
    for name in SECRET_VARIABLES:
        value = os.environ.get(name, "").strip()
        if len(value) >= SHORTEST_SECRET:
            text = text.replace(value, HIDDEN)
    return CREDENTIALS.sub(f"{HIDDEN}@", HUB_TOKEN.sub(HIDDEN, text))
