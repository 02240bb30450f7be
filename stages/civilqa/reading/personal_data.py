"""Finds and masks personal data in Korean legal text: numbers and addresses that point to one person.

Names and postal addresses are not looked for; they need a model, not a pattern.
"""

# Own patterns, because the libraries at hand are either young one-person packages or bring spaCy (Presidio), and none
# tells a statute, a case number or a lot number from a telephone number. Every pattern here is linear in the text: its
# repeats are bounded or cannot give characters back to one another, and lookbehinds allow one start per run of digits.

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

MASKS = {
    "email": "[이메일]",
    "resident_registration_number": "[주민등록번호]",
    "card_number": "[카드번호]",
    "phone": "[전화번호]",
    "account_number": "[계좌번호]",
}

# One character for one character, so that spans in the normalised text are spans in the text: the fullwidth forms of
# ASCII, hyphens and dashes as word processors put them, and spaces that are not U+0020.
HYPHENS = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\ufe58\ufe63"
SPACES = "\u00a0\u2007\u2009\u202f\u3000\t"
NORMAL = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
NORMAL |= str.maketrans(HYPHENS + SPACES, "-" * len(HYPHENS) + " " * len(SPACES))
VARIANT = re.compile(f"[\uff01-\uff5e{HYPHENS}{SPACES}]")

# The shortest number looked for is 02-123-4567, nine digits, with at most four separators between two of them. Almost
# no text of the dataset has that many in a row, so this is all the work most texts cost.
MAYBE = re.compile(
    rf"[@\uff20]|[0-9\uff10-\uff19](?:[-. ()\uff08\uff09\uff0d\uff0e{HYPHENS}{SPACES}]{{0,4}}[0-9\uff10-\uff19]){{8}}"
)

# A number neither begins nor ends inside a longer one.
BEGIN = r"(?<![0-9])(?<![0-9]-)"
END = r"(?![0-9]|-[0-9])(?!호|원|번지)"
SEPARATOR = r" ?[-.]? ?"

# Takes every run of local-part characters, address or not: each is read once, and the next starts where the last ended.
EMAIL = re.compile(r"[A-Za-z0-9._%+-]++(@(?:[A-Za-z0-9][A-Za-z0-9-]*\.)+[A-Za-z]{2,}(?![A-Za-z]))?")

# Sex digit: 1 to 4 citizens, 5 to 8 foreigners; 1, 2, 5, 6 were born in the 1900s, the others in the 2000s.
# 9 and 0 (the 1800s) belong to nobody alive. Numbers with digits starred out do not match.
# The check digit is no criterion: since 5 October 2020 six random digits follow the sex digit, so that newer numbers
# have none. Source: 주민등록법 시행규칙 as amended, in force 2020-10-05; https://www.asiae.co.kr/en/article/2020101519261172015
RESIDENT = re.compile(rf"{BEGIN}([0-9]{{2}})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])(?: ?- ?| ?)([1-8])[0-9]{{6}}{END}")

# A capture in a lookahead, since in a list of groups (1111 1234 ...) a card may start inside a candidate that fails.
CARD = re.compile(rf"{BEGIN}(?=([2-69][0-9]{{3}}(?P<gap> ?- ?| ?)[0-9]{{4}}(?P=gap)[0-9]{{4}}(?P=gap)[0-9]{{4}}){END})")

# Mobile 01x, Seoul 02, provinces 031 to 064, internet 070, personal 0502 to 0508. Not 080 (free of charge), 15xx, 16xx,
# 18xx and three-digit numbers: those are lines of offices and companies, which an answer should keep.
AREA = r"(?:1[016-9]|2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50[2-8])"
PHONE = re.compile(
    rf"(?:\+ ?82{SEPARATOR}(?:\(0\) ?|0)?{AREA}|\(0{AREA}\)|{BEGIN}(?<!(?<![0-9])0\.)0{AREA}\)?)"
    rf"{SEPARATOR}[0-9]{{3,4}}{SEPARATOR}[0-9]{{4}}{END}"
)

ACCOUNT = re.compile(rf"{BEGIN}(?<!제)(?<!제 )[0-9]{{2,8}}+(?:-[0-9]{{1,8}}+){{1,4}}+{END}")
ACCOUNT_DIGITS = range(10, 17)
# 080-123-4567, 2026-06-08-12, and 1146-1996-012345: the unique number (office, year, serial) of a real estate register.
NO_ACCOUNT = re.compile(
    r"080-|(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])-[0-9]{2}(?:-|$)|[0-9]{4}-(?:19|20)[0-9]{2}-[0-9]{6}$"
)
BANKING = re.compile(
    r"계좌|은행(?!나무|잎|알|열매)|뱅크|농협|축협|수협|신협|새마을금고|우체국|예금주|입금|송금|이체|통장"
)
# The rest of the banks go by everyday words (국민, 우리, 하나, 기업): they count only right before the number.
BANK_BEFORE = re.compile(
    r"(?:국민|신한|우리|하나|기업|산업|제일|씨티|대구|부산|광주|전북|경남|제주|카카오|토스|KB|IBK|NH)\s?[:(]?\s?$"
)
OTHER_LABEL = re.compile(
    r"(?:사업자|법인|고유|등기|부동산|접수|사건|관리|문서|증서|허가|면허|여권|운송장|송장)\s?(?:등록\s?)?번호[^0-9\n호]{0,8}$"
)
LABEL_CHARACTERS = 24
# Not a bare full stop: dates, abbreviations and dotted numbers have those.
SENTENCE_END = re.compile(r"(?<=[가-힣])[.?!]\s|\n\s*\n")


@dataclass(frozen=True)
class Finding:
    """One piece of personal data, text[start:end]; kind is a key of MASKS."""

    kind: str
    start: int
    end: int


def find_personal_data(text: str) -> list[Finding]:
    """Return what looks like personal data, in the order of the text, without overlaps.

    An account number counts only in a sentence that speaks of banking.
    """
    if not MAYBE.search(text):
        return []
    if VARIANT.search(text):
        text = text.translate(NORMAL)
    findings: list[Finding] = []
    for kind, find in FINDERS.items():
        spans = list(find(text))
        findings += [Finding(kind, start, end) for start, end in spans]
        if spans:
            text = _blank(text, spans)
    return sorted(findings, key=lambda finding: finding.start)


def mask_personal_data(text: str) -> tuple[str, dict[str, int]]:
    """Return text with a readable token in place of each finding, and the number of findings by kind.

    Kinds without a finding are left out. Masking the masked text changes nothing more.
    """
    pieces: list[str] = []
    counts: dict[str, int] = {}
    end = 0
    for finding in find_personal_data(text):
        pieces += [text[end : finding.start], MASKS[finding.kind]]
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
        end = finding.end
    return "".join([*pieces, text[end:]]), counts


def _emails(text: str) -> Iterator[tuple[int, int]]:
    if "@" not in text:
        return
    for match in EMAIL.finditer(text):
        if match[1]:
            yield match.span()


def _resident_registration_numbers(text: str) -> Iterator[tuple[int, int]]:
    for match in RESIDENT.finditer(text):
        year, month, day, sex = map(int, match.groups())
        try:
            date((1900 if sex in (1, 2, 5, 6) else 2000) + year, month, day)
        except ValueError:
            continue
        # A company's number has the same shape, and those of Seoul (110111-...) begin with a possible date.
        if not _is_labelled_otherwise(text, match.start()):
            yield match.span()


def _card_numbers(text: str) -> Iterator[tuple[int, int]]:
    last = 0
    for match in CARD.finditer(text):
        if match.start() >= last and _passes_luhn(match[1]):
            last = match.end(1)
            yield match.span(1)


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in PHONE.finditer(text):
        yield match.span()


def _account_numbers(text: str) -> Iterator[tuple[int, int]]:
    begin = 0
    candidates: deque[tuple[int, int]] = deque()
    for match in ACCOUNT.finditer(text):
        digits = len(match[0]) - match[0].count("-")
        if digits in ACCOUNT_DIGITS and not NO_ACCOUNT.match(match[0]):
            candidates.append(match.span())
    if not candidates:
        return
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    for end in [*ends, len(text)]:
        inside = []
        while candidates and candidates[0][0] < end:
            start, stop = candidates.popleft()
            if not _is_labelled_otherwise(text, start):
                inside.append((start, stop))
        # Context is a matter of the sentence, never of a distance: a mask is shorter than what it hides, so with a
        # distance a second masking could find more.
        if inside and (BANKING.search(text, begin, end) or any(_follows_bank(text, start) for start, _ in inside)):
            yield from inside
        begin = end


FINDERS = {
    "email": _emails,  # first: its local part may be a telephone number
    "resident_registration_number": _resident_registration_numbers,
    "card_number": _card_numbers,
    "phone": _phones,
    "account_number": _account_numbers,  # last: its pattern is the widest
}


def _blank(text: str, spans: list[tuple[int, int]]) -> str:
    """Return text of the same length in which later finders see at each span what they will see once it is masked."""
    pieces: list[str] = []
    last = 0
    for start, end in spans:
        pieces += [text[last:start], "]" * (end - start)]
        last = end
    return "".join([*pieces, text[last:]])


def _passes_luhn(number: str) -> bool:
    """Source: ISO/IEC 7812-1, annex B."""
    digits = [int(char) for char in reversed(number) if char.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def _is_labelled_otherwise(text: str, start: int) -> bool:
    return OTHER_LABEL.search(text[max(0, start - LABEL_CHARACTERS) : start]) is not None


def _follows_bank(text: str, start: int) -> bool:
    return BANK_BEFORE.search(text[max(0, start - LABEL_CHARACTERS) : start]) is not None
