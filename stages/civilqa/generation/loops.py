"""Answers that nobody can use whatever they say: empty, not ended, or going round in circles."""

from collections import Counter
from collections.abc import Sequence

REPEATED_GRAM = 4
LOOPS = 0.15  # the share of repeated 4-grams from which on an answer goes round in circles


def repeated_share(words: Sequence[str]) -> float:
    """Return the share of 4-grams of words that stood in the answer before, in 0 to 1; 0 for fewer than four words.

    Source: seq-rep-4 of Welleck et al. 2020, Neural text generation with unlikelihood training (arXiv:1908.04319).
    """
    grams = Counter(zip(*(words[start:] for start in range(REPEATED_GRAM)), strict=False))
    return 1 - len(grams) / grams.total() if grams else 0.0


def is_hopeless(words: Sequence[str], tokens: int, tokens_left: int) -> bool:
    """Return whether an answer of so many tokens loops, and would still if all to come, at its pace, were new words."""
    repeated = repeated_share(words) * max(len(words) - REPEATED_GRAM + 1, 0)
    return repeated > LOOPS * len(words) * (1 + tokens_left / tokens)


def ends_cleanly(text: str, repetition: float, stopped: bool) -> bool:
    """Return whether an answer is not empty, was ended by the model itself, and does not loop."""
    return stopped and bool(text.strip()) and repetition <= LOOPS
