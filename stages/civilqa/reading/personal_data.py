"""Finds and masks personal data in Korean legal text: numbers and e-mail addresses that point to one person.

Names are not looked for: they need a model, not a pattern. Postal addresses are, on request: civilqa.reading.addresses.
"""

# Own patterns, because the libraries at hand are either young one-person packages or bring spaCy (Presidio), and none
# tells a statute, a case number or a lot number from a telephone number.

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from civilqa.reading.addresses import find_addresses
from civilqa.reading.cleaning import INVISIBLE
from civilqa.reading.contacts import MAYBE_EMAIL, find_emails, find_phones
from civilqa.reading.personal_numbers import (
    LETTERS,
    STARS,
    Span,
    find_accounts,
    find_cards,
    find_licences,
    find_passports,
    find_plates,
    find_residents,
)

MASKS = {
    "email": "[이메일]",
    "resident_registration_number": "[주민등록번호]",
    "passport_number": "[여권번호]",
    "driving_licence_number": "[운전면허번호]",
    "card_number": "[카드번호]",
    "phone": "[전화번호]",
    "vehicle_number": "[차량번호]",
    "account_number": "[계좌번호]",
    "address": "[주소]",
}
MASK = re.compile("|".join(map(re.escape, MASKS.values())))

# One character for one character, so that spans in the normalised text are spans in the text: the fullwidth forms of
# ASCII, hyphens and dashes as word processors put them, what a Korean keyboard has in their place (ㅡ, a middle dot),
# and spaces that are not U+0020. A line that ends at a hyphen goes on in the next one.
HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\ufe58\ufe63\u3161\u30fc"
SPACES = "\u00a0\u2007\u2009\u202f\u3000\t"
DOTS = "\u00b7\u318d\u2022\u30fb"
NORMAL = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
NORMAL |= str.maketrans(HYPHENS + SPACES + DOTS, "-" * len(HYPHENS) + " " * len(SPACES) + "." * len(DOTS))
VARIANT = re.compile(f"[\uff01-\uff5e{HYPHENS}{SPACES}{DOTS}](?:(?<![{DOTS}])|(?<=[0-9].)(?=[0-9]))|-\n")
BROKEN = re.compile(r"(?<=[0-9]-)\n(?=[0-9])")
# What stands between words, or digits, and is none of them: invisible characters, emphasis and backslashes of Markdown
# (**010-...**, 010-\*\*\*\*), tags, escapes written out.
NOISY = re.compile(rf"[*<&\\{INVISIBLE.pattern[1:-1]}](?:(?<!<)|(?=[/A-Za-z]))")
NOISE = re.compile(
    rf"(?=[*<&\\{INVISIBLE.pattern[1:-1]}])(?:(?P<nothing>{INVISIBLE.pattern}+|\\(?=[*~.-]))"
    r"|(?<![\w*\\])(?P<open>\*{1,3})(?=[^\s*])[^*\n]*(?<=[^\s\\])(?P=open)(?![\w*])"
    r"|(?P<space>(?:</?(?!at>|dot>)[A-Za-z]{1,10}[1-6]?(?:[ /][A-Za-z0-9 =\"'#:;/_.-]{0,80})?>"
    r"|&nbsp;?|\\[nrt](?![a-z_]))\s*))"
)

# What every finding has in it; almost no text of the dataset has, so this is all the work most texts cost.
MAYBE = re.compile(
    rf"[@0-9A-Za-z{STARS}호리뱅앳공영처화폰앞](?:"  # one set first: most characters are passed over by it alone
    rf"{MAYBE_EMAIL}"
    rf"|(?<=[0-9])(?:(?:[-. /()]{{0,4}}[0-9]){{8}}"  # nine digits, at most four separators between two: 02-123-4567
    rf"|(?<![0-9]{{4}}) ?[{LETTERS}] ?[0-9{STARS}]{{4}}(?![0-9])"  # a number plate
    rf"|[-. )]{{0,3}}[{STARS}]{{2}}|[0-9]{{5}}-[1-8][),])"  # digits with some hidden, or left away
    rf"|(?<=[{STARS}])[{STARS}][-. ]{{0,3}}[0-9]"
    # a telephone written otherwise: 공일공, 01O, 010/1234/5678, 010-123*
    r"|(?<=[공영])[일1][공영0]|(?<=[Oo])1[0Oo]|(?<=0)1[Oo]"
    rf"|(?<![0-9]0)(?<=0)1[016-9](?:[/_~,][0-9]|[-. )]{{1,3}}[0-9{STARS}공영일이삼사오육륙칠팔구]{{3}})"
    r"|(?<=[A-Za-z])[ -]?[0-9]{3}(?: ?[0-9]{4}|[0-9] [0-9]{4}|[A-Za-z][0-9]{4})"  # a passport
    r"|(?<=번호|자리)[^0-9\n]{0,6}[0-9]{6}"  # part of a resident's number behind its label
    r"|(?<=앞)[^\n]{0,16}[0-9]{3}|(?<=[처화폰A-Za-z])[^0-9가-힣A-Za-z\n]{0,5}[0-9]{8})"  # what has lost a 0
)

# Of each kind one that is personal behind its label alone.
UNLABELLED = ("110234567890", "110-234-567890", "1098765432", "407154123456", "900101", "10301", "M12345678")
UNLABELLED += ("131234567890", "1234-5678-9012-3456", "12나1234")

ROUNDS = 10  # of numbers that touch one another; there are no more of them in any text of a person


class Finding(NamedTuple):
    """One piece of personal data, text[start:end]; kind is a key of MASKS."""

    kind: str
    start: int
    end: int


def find_personal_data(text: str) -> list[Finding]:
    """Return what looks like a personal number or e-mail address, in the order of the text, without overlaps."""
    if VARIANT.search(text):
        text = BROKEN.sub(" ", text.translate(NORMAL))
    if not NOISY.search(text):
        return _find_all(text)
    pieces, at, starts = [], [0], [0]  # of the text without noise: where each piece begins in it, and in the text
    for start, end, space in _noise(text):
        pieces += [text[starts[-1] : start], space]
        at.append(at[-1] + start - starts[-1] + len(space))
        starts.append(end)

    def place(position: int) -> int:
        number = bisect_right(at, position) - 1
        return starts[number] + position - at[number]

    found = _find_all("".join([*pieces, text[starts[-1] :]]))
    return [Finding(kind, place(start), place(end - 1) + 1) for kind, start, end in found]


def _noise(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield start and end of what is none of a text's words, and what it leaves."""
    for match in NOISE.finditer(text):
        start, end = match.span()
        if match["open"]:
            yield *match.span("open"), ""
            yield end - len(match["open"]), end, ""
        else:
            yield start, end, " " if match["space"] and not text[start - 1 : start].isspace() else ""


def _find_all(text: str) -> list[Finding]:
    if not MAYBE.search(text):
        return []
    # The words in a mask say nothing of the numbers around it.
    text = _blank(text, (match.span() for match in MASK.finditer(text)))
    findings: list[Finding] = []
    # Digits that touch a number may hide it, and are gone once they are masked themselves.
    for _ in range(ROUNDS):
        if not (found := _find_once(text)):
            break
        findings += found
        text = _blank(text, sorted((finding.start, finding.end) for finding in found))
    return sorted(findings, key=lambda finding: finding.start)


def _find_once(text: str) -> list[Finding]:
    findings: list[Finding] = []
    for kind, find in FINDERS.items():
        spans = list(find(text))
        findings += [Finding(kind, span.start, span.end) for span in spans if span.personal]
        text = _blank(text, ((span.start, span.end) for span in spans))
    return findings


def mask_personal_data(text: str, numbers: bool = True, addresses: bool = False) -> tuple[str, dict[str, int]]:
    """Return text with a readable token in place of each finding, and the number of findings by kind.

    Kinds without a finding are left out. Masking the masked text changes nothing more.

    Args:
        numbers: whether to mask personal numbers and e-mail addresses.
        addresses: whether to mask postal addresses.
    """
    counts: dict[str, int] = {}
    plain = unicodedata.normalize("NFC", text)  # in which a bank's name is what it is
    if numbers and (findings := find_personal_data(plain)):
        text = _replace(plain, findings, counts)
    # What stands near an address tells the next one, and is nearer once the first is masked.
    for _ in range(ROUNDS if addresses else 0):
        blank = _blank(text, (match.span() for match in MASK.finditer(text)))
        if not (found := [Finding("address", *span) for span in find_addresses(blank)]):
            break
        text = _replace(text, found, counts)
    return text, counts


def mask_cells(cells: Mapping[str, str], numbers: bool = True, addresses: bool = False) -> dict[str, str]:
    """Return the columns of a row with their names and texts masked; a column's name tells what its numbers are."""
    masked = {}
    for column, text in cells.items():
        name = mask_personal_data(column, numbers, addresses)[0]
        masked[name if name not in masked else f"{name} {len(masked)}"] = _mask_cell(name, text, numbers, addresses)
    return masked


def mask_line(line: str, columns: Iterable[str], numbers: bool = True, addresses: bool = False) -> str:
    """Return a row that did not fall into its columns masked, each of its fields as under every one of their names.

    A number that two of them would mask has the mask of the first.
    """
    pieces = re.split(r"((?:[,;:|\t\r\n]|^)[\s\"'{]*)", mask_personal_data(line, numbers, addresses)[0])
    for column in filter(_tells, columns if numbers else ()):
        pieces = [_mask_cell(column, piece) if re.search(r"\d", piece) else piece for piece in pieces]
    return "".join(pieces)


@lru_cache(1024)
def _tells(column: str) -> bool:
    """Tell whether a column's name makes numbers personal that are not by themselves: most names do not."""
    return any(_mask_cell(column, number) != mask_personal_data(number)[0] for number in UNLABELLED)


def _mask_cell(name: str, text: str, numbers: bool = True, addresses: bool = False) -> str:
    """Return the text of a column masked; `전화번호 (2)` and 연락처(본인) are also seen as 전화번호 and 연락처."""
    bare = re.sub(r"[\W\d_]+$", "", re.sub(r"[(\[（].*?[)\]）]", "", name))
    for label in dict.fromkeys(filter(None, (name, bare))):
        named = mask_personal_data(f"{label}: {text}", numbers, addresses)[0]
        kept = named.startswith(f"{label}: ")
        text = named.removeprefix(f"{label}: ") if kept else mask_personal_data(text, numbers, addresses)[0]
    return text


def _replace(text: str, findings: list[Finding], counts: dict[str, int]) -> str:
    """Return text with masks, and count them by kind."""
    pieces: list[str] = []
    end = 0
    for finding in findings:
        pieces += [text[end : finding.start], MASKS[finding.kind]]
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
        end = finding.end
    return "".join([*pieces, text[end:]])


FINDERS: dict[str, Callable[[str], Iterable[Span]]] = {
    "email": find_emails,  # first: its local part may be a telephone number
    "resident_registration_number": find_residents,
    "passport_number": find_passports,
    "driving_licence_number": find_licences,
    "card_number": find_cards,
    "phone": find_phones,
    "vehicle_number": find_plates,
    "account_number": find_accounts,  # last: its patterns are the widest
}


def _blank(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return text of the same length in which later finders see at each span what they will see once it is masked."""
    pieces: list[str] = []
    last = 0
    for start, end in spans:
        pieces += [text[last:start], "]" * (end - start)]
        last = end
    return "".join([*pieces, text[last:]]) if last else text
