"""Numbers that point to one person, and those of offices, companies and papers that look the same.

From top to bottom: what stands around a number, residents, passports, driving licences, number plates, cards, bank
accounts. Each finder takes a text as personal_data normalises it and yields spans.

Every pattern is linear in the text: its repeats are bounded or cannot give characters back to one another, and
lookbehinds allow one start per run of digits.

Masking a masked text must change nothing more. So what makes a number personal is a matter of its sentence or of what
touches it, never of a distance: a mask is shorter than what it hides. No pattern of what touches it crosses a mask.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache, lru_cache
from typing import NamedTuple


class Span(NamedTuple):
    """text[start:end]: personal data, or a number that was recognised and is not (`personal` is False)."""

    start: int
    end: int
    personal: bool = True


# What stands around a number.

# A number neither begins nor ends inside a longer one.
BEGIN = r"(?<![0-9])(?<![0-9]-)"
END = r"(?![0-9]|-[0-9])(?!호|원|번지)"
GAP = r" ?[-.] ?| ?"  # between two groups of digits
STARS = "*∗✱×xX●○■□◯◎△▲★☆ㅇ#"  # what people put in place of the digits that they hide
HIDDEN = re.compile(rf"[{STARS}]{{2}}")
YEAR = r"(?:19|20)[0-9]{2}"

# What numbers people, offices and shops give to papers, goods and companies. A particle or a colon may follow.
OTHER_LABEL = re.compile(
    r"(?:"
    r"(?:사업자|법인|등기용|고유|등기|등기우편|부동산|접수|사건|관리|문서|증서|허가|운송장|송장|승인|주문|우편|소포|택배|특허|출원|상표"
    r"|(?<!주민)(?<!국인)등록|(?<!거소)신고|신청|민원|발급|확인|인증|인가|고시|공고|입찰|일련|예약|영수증|거래|조회|제품|모델|결재|세션)"
    r"\s?(?:등록\s?)?(?:번호|[Nn][Oo]\.?|№)[^0-9\n호\]]{0,8}"
    # without a word for number, these only right before it
    r"|(?:승인|허가|인가|접수|등기|등기우편|우편|소포|택배|송장|운송장|법인|바코드)\s?[:(]?\s?"
    r")$"
)
# What is called an account or a card by nothing but its sentence is none behind any other word for a number.
NO_ACCOUNT_LABEL = re.compile(r"(?<=[가-힣]{2})(?<!계좌)(?<!통장)(?<!예금)(?<!카드)(?:번호|코드)[^0-9\n호\]]{0,8}$")

FORM = r"(?:(?:주식|유한|합자|합명|유한책임)회사|(?:재단|사단|학교|의료|농업회사|법무)법인|㈜|\(주\)|\(유\))"
COMPANY = (
    rf"(?:(?:{FORM}\s?){{1,2}}[가-힣A-Za-z0-9&·]{{1,16}}|[가-힣A-Za-z0-9&·]{{1,16}}\s?"
    rf"(?:{FORM}|법인|조합|은행|공사|공단|금고|보험|증권|신탁|재단|협회))"
)
COMPANY_BEFORE = re.compile(rf"{COMPANY}\s?[(\[:,]?\s?$")

# Not a bare full stop: dates, abbreviations and dotted numbers have those.
SENTENCE_END = re.compile(r"(?<=[가-힣])[.?!]\s|\n\s*\n")


def before(text: str, start: int) -> str:
    """Return the few characters before a number."""
    return text[max(0, start - 32) : start]


@lru_cache(maxsize=2)
def sentence_ends(text: str) -> list[int]:
    return [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text) + 1]


def sentence(text: str, place: int) -> tuple[int, int]:
    """Return start and end of the sentence around a place."""
    ends = sentence_ends(text)
    number = bisect_right(ends, place)
    return ends[number - 1], ends[number]


def found_in_sentence(text: str, word: str) -> Callable[[int], bool]:
    """Return the function that tells whether a word, a pattern, is in the sentence around a place."""
    pattern = re.compile(word)
    search = cache(lambda start, end: pattern.search(text, start, end) is not None)
    return lambda place: search(*sentence(text, place))


# Residents and foreigners.

# Sex digit: 1 to 4 citizens, 5 to 8 foreigners; 1, 2, 5, 6 were born in the 1900s, the others in the 2000s.
# 9 and 0 (the 1800s) belong to nobody alive.
# The check digit is no criterion: since 5 October 2020 six random digits follow the sex digit, so that newer numbers
# have none. Source: 주민등록법 시행규칙 as amended, in force 2020-10-05; https://www.asiae.co.kr/en/article/2020101519261172015
DAY = r"[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
RESIDENT = re.compile(
    rf"{BEGIN}(?:(?P<century>19|20)(?P<full_day>{DAY})(?: ?[-/] ?| )|(?P<day>{DAY})(?: ?[-/] ?| ?))"
    # the whole number, or one with digits hidden: the day of birth is left, and mostly the sex; 홍길동(900101-1)
    rf"(?:(?P<sex>[1-8])(?:[0-9]{{6}}{END}|(?=[),]))|(?:[1-8][0-9]{{0,5}}[{STARS}]{{1,6}}|[{STARS}]{{6,7}})(?![0-9{STARS}]))"
)
# With its name before it, a number counts also in part, and with a day that no calendar has.
RESIDENT_LABEL = r"(?:주민(?:\s?등록)?|민증|외국인\s?등록(?:증)?|거소\s?신고)\s?번호"
RESIDENT_LABELLED = re.compile(
    rf"(?:{RESIDENT_LABEL}(?:의|가|는|은|인|를)?\s?"
    r"(?:[앞뒷뒤]\s?(?:번호|[0-9여섯일곱]{0,2}\s?자리)(?:가|는|은|인)?)?[\s:：=(\[\"']{0,4}"
    r"|(?<!번호 )(?<!번호의 )뒷\s?자리(?:가|는|은)?\s?:?\s?(?=[1-8][0-9]{6}))"
    rf"(?P<number>[0-9{STARS}]{{6}}(?: ?[-./] ?[0-9{STARS}]{{1,7}}| ?[0-9{STARS}]{{7}}|[0-9])?)(?![{STARS}]){END}"
)
# A numeric cell of Excel loses the 0 of whoever was born from 2000 on: 103013123456, and 10301 of the day alone.
RESIDENT_SHORTENED = re.compile(
    rf"(?:(?:{RESIDENT_LABEL}|(?i:jumin|rrn|resident(?:[\s_]?registration)?)(?:[\s_]?(?i:no\.?|num(?:ber)?|id))?)"
    r"(?:의|가|는|은|인|를)?[\s:：=(\[\"']{0,4}(?P<number>[0-9]{3,5}(?: ?- ?)?[0-9]{7})"
    rf"|{RESIDENT_LABEL}(?:의)?[\s(_]{{0,2}}앞\s?(?:번호|[0-9여섯]{{0,2}}\s?자리)?(?:가|는|은|인)?[\s:：=()\[\"']{{0,4}}"
    rf"(?P<day>(?:[1-9]0[1-9]|[1-9]?1[0-2]|[1-9])(?:0[1-9]|[12][0-9]|3[01]))){END}"
)
SEOUL_COMPANIES = "110111"
# A register number of whomever, or residents' beside companies': (주민)등록번호, 주민등록번호(법인등록번호). None says
# that it is a company's.
ANYONES_LABEL = re.compile(
    r"(?:(?:주민|외국인)[^0-9\n]{0,16}|(?<![가-힣])(?<!인 )(?<!자 )(?<!용 ))등록\s?번호[^0-9\n호\]]{0,8}$"
)


def find_residents(text: str) -> Iterator[Span]:
    """Yield numbers of residents, whole or with digits hidden; those of companies, which look the same, as such."""
    spans = [Span(*match.span("number")) for match in RESIDENT_LABELLED.finditer(text)]
    spans += [Span(*match.span(match.lastgroup)) for match in RESIDENT_SHORTENED.finditer(text)]
    spans += filter(None, (_resident(text, match) for match in RESIDENT.finditer(text)))
    end = 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if span.start >= end and re.search("[0-9]", text[span.start : span.end]):
            yield span
            end = span.end


def _resident(text: str, match: re.Match[str]) -> Span | None:
    start, end = match.span()
    century, sex = match["century"], match["sex"]
    head = before(text, start)
    if sex and end == match.end("sex") and (century or not re.search(r"[가-힣A-Za-z]\s?\($", head)):
        return None
    hundreds = [century] if century else ["19" if sex in "1256" else "20"] if sex else ["19", "20"]
    if not any(_is_day(hundred + (match["full_day"] or match["day"])) for hundred in hundreds):
        return None
    if match[0].isdecimal() and touches_bank(text, start, end):
        return None  # an account has as many digits
    # A company's number has the same shape, and those of Seoul (110111-...) begin with a possible date.
    others = OTHER_LABEL.search(head) and not ANYONES_LABEL.search(head)
    return Span(start, end, not others and not is_company(text, start, end))


def _is_day(day: str) -> bool:
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def is_company(text: str, start: int, end: int) -> bool:
    """Tell whether a number of 6 and 7 digits is that of a company: right behind its name, or by its check digit.

    It is made of office (4), kind (2, from 11 on), serial (6) and check digit. Source: 법인 및 재외국민의
    부동산등기용등록번호 부여에 관한 규칙
    """
    if not re.fullmatch("[0-9]{4}[1-9][0-9] ?- ?[0-9]{7}", text[start:end]):
        return False
    digits = [int(char) for char in text[start:end] if char.isdecimal()]
    if COMPANY_BEFORE.search(before(text, start)):
        weighted = sum(digit * weight for digit, weight in zip(digits, [1, 2] * 6, strict=False))
        resident = sum(digit * weight for digit, weight in zip(digits, [*range(2, 10), *range(2, 6)], strict=False))
        return (10 - weighted % 10) % 10 == digits[12] or (11 - resident % 11) % 10 != digits[12]
    # As a day of birth this would be that of someone of 115 years.
    return text.startswith(SEOUL_COMPANIES, start) and digits[6] in (1, 2)


# Passports, driving licences and number plates.

PASSPORT = re.compile(
    rf"(?<![A-Za-z0-9])[A-Za-z]{{1,2}}[ -]?(?:[0-9]{{3}}[A-Za-z][0-9]{{4}}|[0-9]{{3,4}} ?[0-9]{{4}}"
    rf"|[0-9{STARS}]{{7,8}})(?![A-Za-z0-9{STARS}])"
)
NEW_PASSPORT = re.compile("[MSROD][0-9]{3}[A-Z][0-9]{4}")  # since December 2021. Source: 외교부, 차세대 전자여권


def find_passports(text: str) -> Iterator[Span]:
    """Yield passport numbers: in a sentence that speaks of a passport, or of a shape that nothing else has."""
    speaks = found_in_sentence(text, "여권|(?i:passport)")
    for match in PASSPORT.finditer(text):
        if NEW_PASSPORT.fullmatch(match[0]) or (len(re.findall("[0-9]", match[0])) >= 3 and speaks(match.start())):
            yield Span(*match.span())


REGION = "서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충북|충남|전북|전남|경북|경남|제주"
# Region (11 to 28, before June 2014 its name), year, serial number, check digits.
LICENCE = re.compile(
    rf"{BEGIN}(?:1[1-9]|2[0-8])(?P<gap>{GAP})[0-9{STARS}]{{2}}(?P=gap)[0-9{STARS}]{{6}}(?P=gap)[0-9{STARS}]{{2}}(?![{STARS}]){END}"
    rf"|(?<![가-힣])(?:{REGION})[\s-]?(?:[0-9]{{2}}-)?[0-9]{{2}}-[0-9]{{6}}-[0-9]{{2}}{END}"
)


def find_licences(text: str) -> Iterator[Span]:
    """Yield numbers of driving licences; one without hyphens in a sentence that speaks of a licence."""
    speaks = found_in_sentence(text, "면허")
    for match in LICENCE.finditer(text):
        if ("-" in match[0] or speaks(match.start())) and not OTHER_LABEL.search(before(text, match.start())):
            yield Span(*match.span())


# For own, commercial (바사아자), delivery (배) and hired (하허호) cars. Source: 자동차 등록번호판 등의 기준에 관한 고시
LETTERS = "가나다라마거너더러머버서어저고노도로모보소오조구누두루무부수우주바사아자배하허호"
PLATE = re.compile(
    rf"(?<![0-9A-Za-z제])(?<![0-9]-)(?<!제 )(?P<region>(?:{REGION})\s?)?(?P<kind>[0-9]{{1,3}})"
    rf"(?P<gap> ?)(?P<letter>[{LETTERS}]) ?(?P<number>[0-9{STARS}]{{4}})(?![0-9{STARS}])(?!-[0-9])"
    r"(?!\s?(?:원|년|억|만|천|개|명|건|조|세대|제곱|㎡|%))"
)
CAR = "차량|자동차|승용차|승합차|화물차|트럭|버스|택시|렌터카|렌트카|번호판"
CAR_BEFORE = re.compile(
    rf"(?:{CAR}|특수차|오토바이|이륜차|견인차|(?<![가-힣0-9])차|차(?= ?번호))"
    r"\s?\(?(?:등록)?\s?(?:번호(?:판)?)?(?:는|은|이|가|인|의)?[^0-9가-힣A-Za-z\n\]]{0,4}$"
)
CAR_AFTER = re.compile(
    rf"(?:호|번)?\s?[(,]?\s?(?:[가-힣A-Za-z0-9]{{1,10}}\s)?(?:{CAR}|(?:차|차주|차가|차를)(?![가-힣]))"
)
# 선고 91다1234 판결: until 1999 a case had the last two digits of its year, and looks like a number plate.
CASE_BEFORE = re.compile(r"(?:선고|법원|고법|지법|지원|판례|대판|헌재|사건|[0-9]{2,4}[가-힣]{1,3}[0-9]+,)\s?$")
CASE_AFTER = re.compile(
    r"(?:\s?\([^()\n\]]{1,12}\))?(?:,\s?[0-9]{2,4}[가-힣]{1,3}[0-9]+(?:\([^()\n\]]{1,12}\))?){0,8}\s?(?:전원합의체\s?)?"
    r"(?:판결|결정|사건|심판|명령|판례)"
)
# On a plate without a word for a car: with two digits, letters that no kind of case has (but the patent court's 98허
# and 99허, which no hired car has); with three, none that is counted so (제123조, 101호, 120도).
PLAIN_LETTERS = "거너더러어저허하배"
COUNTED = "조호주부도"


def find_plates(text: str) -> Iterator[Span]:
    """Yield number plates: beside a word for a car, with a region's name, or of a shape that no case number has."""
    for match in PLATE.finditer(text):
        head = before(text, match.start())
        if not re.search("[0-9]", match["number"]) or CASE_BEFORE.search(head) or CASE_AFTER.match(text, match.end()):
            continue
        beside = CAR_BEFORE.search(head) or CAR_AFTER.match(text, match.end())
        # 12거3456호 may be a flat; 서울12가3456호 and 123가4567호 are what courts write of a car.
        flat = ("호", "번지") if len(match["kind"]) < 3 and not match["region"] else "번지"
        if beside or (_is_plain_plate(match) and not text.startswith(flat, match.end())):
            yield Span(*match.span())


def _is_plain_plate(match: re.Match[str]) -> bool:
    """Tell whether a plate is one without any word around it."""
    digits, letter = len(match["kind"]), match["letter"]
    plain = letter in PLAIN_LETTERS and match["kind"] < "98" if digits == 2 else digits == 3 and letter not in COUNTED
    return match["number"].isdecimal() and bool(match["region"] or (plain and not match["gap"]))


# Cards.

# A capture in a lookahead, since in a list of groups (1111 1234 ...) a card may start inside a candidate that fails.
CARD = re.compile(
    rf"{BEGIN}(?=([0-9]{{4}}(?P<gap>{GAP})[0-9]{{4}}(?P=gap)[0-9]{{4}}(?P=gap)[0-9]{{4}}"
    rf"|3[0-9]{{3}}(?P<short_gap>{GAP})[0-9]{{6}}(?P=short_gap)[0-9]{{4,5}}){END})"
)
# 4111-****-****-1111
STARRED_CARD = re.compile(
    rf"(?<![0-9])(?<![0-9{STARS}]-)(?=[0-9]|[{STARS}]{{2}})([0-9{STARS}]{{4}}(?P<gap>[- ]?)[0-9{STARS}]{{4}}(?P=gap)"
    rf"[0-9{STARS}]{{4}}(?P=gap)[0-9{STARS}]{{4}})(?![0-9{STARS}]|-[0-9{STARS}])"
)
CARD_LABEL = re.compile(r"카드\s?(?:번호)?(?:는|은|가|이)?[^0-9가-힣\n\]]{0,4}$")


def find_cards(text: str) -> Iterator[Span]:
    """Yield card numbers: by their check digit, behind the word for a card, and those with digits hidden."""
    last = 0
    for match in sorted([*CARD.finditer(text), *STARRED_CARD.finditer(text)], key=lambda match: match.start()):
        start, end = match.span(1)
        if match.re is CARD:
            wanted = CARD_LABEL.search(before(text, start)) or (match[1][0] in "234569" and passes_luhn(match[1]))
        else:
            # ○○○○ ○○○○ ... are words that a court has hidden.
            digits = sum(char.isdecimal() for char in match[0])
            wanted = 4 <= digits <= 12 and (match["gap"] != " " or match[0][:4].isdecimal())
        if wanted and start >= last:
            last = end
            yield Span(start, end)


def passes_luhn(number: str) -> bool:
    """Source: ISO/IEC 7812-1, annex B."""
    digits = [int(char) for char in reversed(number) if char.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


# Bank accounts: a number in groups with hyphens counts in a sentence that speaks of banking. One that is a run of
# digits, or in groups with spaces or dots, counts only where it touches what makes it an account: an amount, a tracking
# number or a serial number has as many digits.

STRONG_BANKS = r"은행(?!나무|잎|알|열매)|뱅크|농협|축협|수협|신협|새마을금고|산림조합|우체국|카뱅|케뱅"
STRONG_BANKS += r"|(?<!보험)(?<!유가)증권(?!\s?번호)"
# The rest of the banks go by everyday words (국민, 우리, 하나, 기업): they count only right before the number.
WEAK_BANKS = r"국민|신한|우리|하나|기업|산업|제일|씨티|카카오|토스|KB|IBK|NH|SC|MG|KDB"
ACCOUNT_WORD = r"(?:계좌|통장|[Aa]cc(?:oun)?t)(?:[\s_]?(?:번호|[Nn]o\.?|[Nn]umber))?"
# Whose account it is, or the branch; not what an amount is called.
AMOUNT = "대출|잔액|잔고|금액|원금|이자|채권|담보|예금|채무|보증|연체|합계|번호|매출"
HOLDER = rf"(?:(?!{AMOUNT})[가-힣]{{2,4}}|예금주\s?:?\s?[가-힣]{{2,4}})"
BANK_BEFORE = re.compile(
    rf"(?:(?:{STRONG_BANKS}|{ACCOUNT_WORD})(?:는|은|이|가|를|을)?(?:[^\w.!?)\]\n]|\n(?!\s*\n)){{0,4}}"
    rf"(?:\(?{HOLDER}\)?\s?[:：/,)]?\s)?|(?:{WEAK_BANKS})\s?[:：(\[/]?\s?|(?:계좌|통장)\s?번호[^0-9\n\]]{{0,16}})$"
)
ACCOUNT_BEFORE = re.compile(r"(?:계좌|통장)[^\]]*$")
BANK_AFTER = re.compile(
    rf"\s?[(\[/]?\s?(?:[가-힣A-Z]{{0,6}}(?:{STRONG_BANKS})|예금주|계좌)|\s?[(\[]\s?(?:{WEAK_BANKS})(?![가-힣])"
    rf"| (?:{WEAK_BANKS})(?: [가-힣]{{3}})?\s*(?:$|[\n,.)])"
    r"|\s?(?:번\s?)?(?:으?로|에)\s?(?:입금|송금|이체|보내|넣|부쳐)"
)
BANKING = r"계좌|은행(?!나무|잎|알|열매)|뱅크|농협|축협|수협|신협|새마을금고|우체국|예금주|입금|송금|이체|통장"
GROUPED = re.compile(
    # A single star before it is the mark of a list.
    rf"(?<![0-9])(?<![0-9{STARS}]-)(?<!제)(?<!제 )(?=[0-9]|[{STARS}]{{2}})"
    rf"[0-9{STARS}]{{2,8}}+(?:-[0-9{STARS}]{{1,8}}+){{1,4}}+(?![{STARS}]){END}"
)
RUN = re.compile(
    rf"{BEGIN}(?<![.,])"
    rf"(?:[0-9]{{10,16}}|[0-9]{{2,8}}(?:(?: ?[-.] ?| )[0-9]{{1,7}}){{1,4}}|[0-9]{{2,8}}[{STARS}]{{2,10}}[0-9]{{0,6}})"
    rf"(?![0-9{STARS}]|[-.,][0-9])(?!\s?(?:원|만|억|천|호|번지|달러|엔|유로|위안|개|건|명|좌|주(?![세시])|㎡|%))"
)
NO_ACCOUNT = re.compile(
    r"080-"
    rf"|{YEAR}-(?:0?[1-9]|1[0-2])-(?:0?[1-9]|[12][0-9]|3[01])(?:-|$)"  # 2026-06-08-12
    rf"|{YEAR}(?:-{YEAR})+$"  # 2019-2020-2021
    rf"|{YEAR}-[0-9]{{1,2}}-{YEAR}-[0-9]{{1,2}}$"
    rf"|[0-9]{{4}}-{YEAR}-[0-9]{{6}}$"  # of a real estate register: office, year, serial
    rf"|[1-4]0-{YEAR}-[0-9]{{7}}$"  # of a patent or trade mark: right, year, serial
    r"|97[89]-"  # ISBN
    r"|[0-9]+0{6}$"  # an amount
)
YEAR_FIRST = re.compile(f"{YEAR}-")
TIME = re.compile(rf"{YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9])?")


def find_accounts(text: str) -> Iterator[Span]:
    """Yield account numbers: in groups with hyphens where the sentence speaks of banking, others beside a bank."""
    grouped = {match.span() for match in GROUPED.finditer(text) if _may_be_account(text, *match.span())}
    spans = grouped | {match.span() for match in RUN.finditer(text) if _may_be_account(text, *match.span())}
    touching = {span for span in spans if touches_bank(text, *span)}
    banking = found_in_sentence(text, BANKING)
    beside = {sentence(text, start) for start, _ in touching}
    last = 0
    for start, end in sorted(spans):
        in_sentence = (start, end) in grouped and (sentence(text, start) in beside or banking(start))
        if start >= last and (in_sentence or (start, end) in touching):
            last = end
            yield Span(start, end)


def touches_bank(text: str, start: int, end: int) -> bool:
    """Tell whether a bank, the word for an account, or a payment to it stands right before or behind a number."""
    head = before(text, start)
    if TIME.fullmatch(text, start, end) and not ACCOUNT_BEFORE.search(head):
        return False
    return bool(BANK_BEFORE.search(head) or BANK_AFTER.match(text, end))


def _may_be_account(text: str, start: int, end: int) -> bool:
    """Tell whether digits in groups could be an account, by their number and by what they are if they are none."""
    number = re.sub(r" ?[-.] ?| ", "-", text[start:end])
    length, digits = len(number.replace("-", "")), sum(char.isdecimal() for char in number)
    head = before(text, start)
    if not 10 <= length <= 16 or NO_ACCOUNT.match(number) or OTHER_LABEL.search(head) or NO_ACCOUNT_LABEL.search(head):
        return False
    if YEAR_FIRST.match(number) and not ACCOUNT_BEFORE.search(head):
        return False  # a paper's
    if is_company(text, start, end) or _is_business(number):
        return False
    return digits == length or (digits >= 3 and HIDDEN.search(number) is not None)


def _is_business(number: str) -> bool:
    """Tell whether a number is that of a company for its taxes, by its shape and check digit.

    Source: 국세청, 사업자등록번호 검증: weights 1 3 7 1 3 7 1 3 5, and the tens of the last product.
    """
    if not re.fullmatch(r"[0-9]{3}-[0-9]{2}-[0-9]{5}", number):
        return False
    digits = [int(char) for char in number if char.isdecimal()]
    total = sum(digit * weight for digit, weight in zip(digits, [1, 3, 7, 1, 3, 7, 1, 3, 5], strict=False))
    return (10 - (total + digits[8] * 5 // 10) % 10) % 10 == digits[9]
