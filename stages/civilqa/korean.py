"""Korean text as scores see it: NFC, and morphemes by Kiwi."""

import unicodedata
from functools import cache, lru_cache

from kiwipiepy import Kiwi

Morpheme = tuple[str, str]  # form and tag: ("보증금", "NNG")


def normalize(text: str) -> str:
    """Return text in NFC: the same Hangul typed on macOS (NFD) and elsewhere must be equal."""
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=4096)
def tag_morphemes(text: str) -> tuple[Morpheme, ...]:
    """Return the forms and tags of a text's morphemes, white space left out.

    Source: Kiwi (Lee 2024, doi:10.23287/KJDH.2024.1.1.6) in the pinned version with its pinned dictionary.
    """
    return tuple((token.form, str(token.tag)) for token in _kiwi().tokenize(normalize(text)))


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text in NFC, in order."""
    return [sentence.text for sentence in _kiwi().split_into_sents(normalize(text))]


@cache
def _kiwi() -> Kiwi:
    return Kiwi(num_workers=1)
