"""Numbers with their units in Korean text: 3개월, 2억 4천만원, 연 5푼, 4분의 3."""

import re
from dataclasses import dataclass, field
from fractions import Fraction

from civilqa.law.citations import parse_citations
from civilqa.law.korean import normalize

_PLAIN_DIGITS = {0xFF10 + digit: str(digit) for digit in range(10)}
_MULTIPLIERS = {"십": 10, "백": 100, "천": 1000}
_MYRIADS = {"만": 10**4, "억": 10**8, "조": 10**12}

# Each unit as written, and (unit that it is compared in, how many of it one is).
_UNITS = {
    **dict.fromkeys(("년", "해"), ("개월", Fraction(12))),
    **dict.fromkeys(("개월", "달"), ("개월", Fraction(1))),
    "주일": ("일", Fraction(7)),
    "주": ("일", Fraction(7)),
    "일": ("일", Fraction(1)),
    "시간": ("시간", Fraction(1)),
    "시": ("시", Fraction(1)),
    "원": ("원", Fraction(1)),
    **dict.fromkeys(("퍼센트", "프로", "%", "％", "푼"), ("비율", Fraction(1, 100))),
    "할": ("비율", Fraction(1, 10)),
    **dict.fromkeys(("센티미터", "cm", "㎝"), ("미터", Fraction(1, 100))),
    **dict.fromkeys(("제곱미터", "㎡", "m²", "m2"), ("제곱미터", Fraction(1))),
    **dict.fromkeys(("미터", "m"), ("미터", Fraction(1))),
    "평": ("평", Fraction(1)),
    **dict.fromkeys(("명", "인"), ("명", Fraction(1))),
    **dict.fromkeys(("세", "살"), ("세", Fraction(1))),
    **dict.fromkeys(("회", "차례"), ("회", Fraction(1))),
    "기": ("기", Fraction(1)),
    "배": ("배", Fraction(1)),
}
_WORDS = {
    **{f"{word} 달": (number, "개월") for number, words in {
        1: ["한"], 2: ["두"], 3: ["세", "석"], 4: ["네", "넉"], 5: ["다섯"], 6: ["여섯"],
    }.items() for word in words},
    "열흘": (10, "일"),
    "보름": (15, "일"),
    "이틀": (2, "일"),
    "사흘": (3, "일"),
    "절반": (Fraction(1, 2), "비율"),
}  # fmt: skip

# Bounded: a model that repeats itself writes thousands of digits, which are no number (and which int() refuses).
# A comma parts groups of three: 3,4년 is three or four years.
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,8}(?![0-9])|[0-9]{1,31})(?:\.[0-9]{1,20})?"
# 5천 500만원, but not 보증금 5천 2년: behind a space, only what ends as an amount goes on.
_SPACE = r"(?:\s(?=[0-9십백\s]{1,9}[만억조원]))?"
# What follows the digits of a number below a myriad: 5천500, 3천5백20.
_SIGNS = "".join(
    rf"(?:\s?{sign}(?:{_SPACE}[0-9]{{1,{digits}}}(?![0-9.,]))?)?" for sign, digits in (("천", 3), ("백", 2), ("십", 1))
)
_AMOUNT = rf"(?:{_DIGITS}{_SIGNS}|(?<![가-힣])[천백십](?=\s?[만억]))(?:\s?[만억조](?:\s?{_DIGITS})?{_SIGNS}){{0,3}}"
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_DATE = re.compile(
    r"(?:19|20)[0-9]{2}\s?년(?:\s?[0-9]{1,2}\s?월)?(?:\s?[0-9]{1,2}\s?일)?|[0-9]{1,2}\s?월\s?[0-9]{1,2}\s?일"
    r"|(?<![0-9])(?:0[0-9]|[2-9][0-9])\s?년\s?[0-9]{1,2}\s?월"  # 23년 6월; 20년 6개월 and 징역 1년 6월 are periods
)
# One period: 1년 6개월, 징역 1년 6월.
_PERIOD = re.compile(r"(?<![0-9.,])(?P<years>[0-9]{1,2})\s?년\s?(?P<months>[0-9]{1,2})\s?개?월(?![0-9])")
_FRACTION = re.compile(rf"(?<![0-9])(?P<whole>{_DIGITS})\s?분의\s?(?P<part>{_DIGITS})")
# 지분 1/2, 2/3 이상; not a day (6/1) or a place in a list
_SLASHED = re.compile(
    r"(?<![0-9/.])(?P<part>[1-9][0-9]?)/(?P<whole>[1-9][0-9]?)(?![0-9/.])(?=\s?(?:지분|이상|이하|초과|미만|[의씩을를로만]|동의))"
)
# 보증금 5억 이하, 3억 5천: sums that go without their 원
_BARE = re.compile(
    rf"(?<![0-9.,])(?P<amount>{_DIGITS}\s?억(?:\s?[1-9]\s?천\s?만?|\s?{_DIGITS}\s?만)?|{_DIGITS}\s?[천백]\s?만)"
    r"(?=\s?(?:이하|이상|미만|초과|까지|정도|가량|짜리|으로|[을를이은는도에로](?![가-힣])|[,.)\n]|$))"
)
# 2인용 and 3기둥 are words; 3개월분 and 3개월 치 are as much as 3개월. 일 is no day in 1일반.
_QUANTITY = re.compile(
    rf"(?<![0-9.,])(?P<amount>{_AMOUNT})\s?(?P<unit>{_UNIT})"
    r"(?!(?<=[기인일시회주배명세])(?:용|둥|반|점|본|세대|설|행|의체|택|정|장|계|작))"
)
_WORD = re.compile("|".join(word.replace(" ", r"\s?") for word in sorted(_WORDS, key=len, reverse=True)))


@dataclass(frozen=True)
class Quantity:
    """A number with a unit; equal if both are, however they are written (1년 = 12개월, 5푼 = 5%)."""

    value: Fraction
    unit: str
    text: str = field(compare=False)


def parse_quantities(text: str) -> list[Quantity]:
    """Return the numbers with units of a text, in order of their kind and place.

    Dates, the numbers of articles, 항, 호 and 목, and numbers without a known unit are left out. 이하, 이상, 분 and 치
    behind a unit are not part of it: 5년 이하 and 5년 are the same number.
    """
    text = normalize(text).translate(_PLAIN_DIGITS)
    kept, end = [], 0
    for citation in parse_citations(text):
        # Articles of one range share its span.
        kept += [text[end : citation.start], "\n" * (citation.end - max(citation.start, end))]
        end = citation.end
    text = "".join([*kept, text[end:]])
    text = _DATE.sub(lambda match: "\n" * len(match[0]), text)
    found = []
    for pattern in (_FRACTION, _SLASHED):
        for match in pattern.finditer(text):
            whole, part = _number(match["whole"]), _number(match["part"])
            if whole and (part < whole or pattern is _FRACTION):
                found.append(Quantity(part / whole, "비율", match[0]))
        text = pattern.sub(lambda match: "\n" * len(match[0]), text)
    for match in _PERIOD.finditer(text):
        found.append(Quantity(Fraction(12 * int(match["years"]) + int(match["months"])), "개월", match[0]))
    text = _PERIOD.sub(lambda match: "\n" * len(match[0]), text)
    for match in _QUANTITY.finditer(text):
        unit, size = _UNITS[match["unit"]]
        found.append(Quantity(_amount(match["amount"]) * size, unit, match[0]))
    for match in _BARE.finditer(text):
        amount = match["amount"]
        found.append(Quantity(_amount(amount + "만" * amount.endswith("천")), "원", match[0]))
    for match in _WORD.finditer(text):
        value, unit = next(_WORDS[word] for word in _WORDS if word.replace(" ", "") == re.sub(r"\s", "", match[0]))
        found.append(Quantity(Fraction(value), unit, match[0]))
    return found


def _amount(written: str) -> Fraction:
    """2억 4천500만 → 245000000."""
    total = below_myriad = Fraction(0)
    for number, multiplier, myriad in re.findall(rf"({_DIGITS})?\s?([십백천])?\s?([만억조])?", written):
        if number or multiplier or myriad:
            below_myriad += (_number(number) if number else 1) * _MULTIPLIERS.get(multiplier, 1)
        if myriad:
            total, below_myriad = total + below_myriad * _MYRIADS[myriad], Fraction(0)
    return total + below_myriad


def _number(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").rstrip("."))
