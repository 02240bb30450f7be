"""Postal addresses and words that may be names, by the rules of the package maskingtape; both only on request.

Its detectors of numbers are not used: they take companies' lines and numbers without a label for persons' too.
"""

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskingtape.detectors import AddressDetector, NameDetector

# 서울 강남구 is a place and no address; what has a number of a lot, a house or a flat in it is one.
NUMBERED = re.compile(r"(?<![가-힣0-9])[0-9]")


@cache
def address_detector() -> "AddressDetector":
    from maskingtape.detectors import AddressDetector  # here, since only who asks for it should wait for the import

    return AddressDetector()


@cache
def name_detector() -> "NameDetector":
    from maskingtape.detectors import NameDetector  # here, as above

    return NameDetector()


def find_addresses(text: str) -> list[tuple[int, int]]:
    """Return start and end of postal addresses that a number belongs to."""
    return [(found.start, found.end) for found in address_detector().detect(text) if NUMBERED.search(found.text)]


def possible_names(text: str) -> list[str]:
    """Return the words of a text that may be names; about half of them are not."""
    return [found.text for found in name_detector().detect(text)]
