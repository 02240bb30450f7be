"""Korean text as scores and the search of articles see it: NFC, and morphemes by Kiwi."""

import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kiwipiepy import Kiwi, Token

Morpheme = tuple[str, str]  # form and tag: ("보증금", "NNG")


def normalize(text: str) -> str:
    """Return text in NFC: the same Hangul typed on macOS (NFD) and elsewhere must be equal."""
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=4096)
def tag_morphemes(text: str) -> tuple[Morpheme, ...]:
    """Return the forms and tags of a text's morphemes, white space left out.

    Source: Kiwi (Lee 2024, doi:10.23287/KJDH.2024.1.1.6) in the pinned version with its pinned dictionary.
    """
    return _morphemes(_kiwi().tokenize(normalize(text)))


@lru_cache(maxsize=1024)
def split_sentences(text: str) -> tuple[tuple[str, tuple[Morpheme, ...]], ...]:
    """Return the sentences of a text in NFC, each with its morphemes as they are read among the sentences around it."""
    sentences = _kiwi().split_into_sents(normalize(text), return_tokens=True)
    return tuple((sentence.text, _morphemes(sentence.tokens)) for sentence in sentences)


def join_morphemes(morphemes: Iterable[Morpheme]) -> str:
    """Return the text that morphemes make together: 먼저 + 이 + ᆸ니다 is 먼저입니다."""
    return _kiwi().join([(form, tag) for form, tag in morphemes])


def _morphemes(tokens: "Iterable[Token]") -> tuple[Morpheme, ...]:
    return tuple((token.form, str(token.tag)) for token in tokens)


@cache
def _kiwi() -> "Kiwi":
    from kiwipiepy import Kiwi  # many who import this module read no morphemes

    # Without WikiData's names of several words: 무단 침입 would be one morpheme, with no part in common with 무단으로
    # 침입한. To read them would also take longer than everything else.
    return Kiwi(num_workers=1, load_multi_dict=False)
