"""Telephone numbers and e-mail addresses of persons; lines of offices and companies are recognised and left.

Not looked for at all: 080 (free of charge), 15xx, 16xx, 18xx and three-digit numbers. Those are lines of offices and
companies, which an answer should keep.
"""

import re
from collections.abc import Iterator

from civilqa.reading.personal_numbers import BEGIN, COMPANY, END, OTHER_LABEL, STARS, Span, before

SEPARATOR = r" ?[-.]? ?"
# Mobile 01x, Seoul 02, provinces 031 to 064, internet 070, personal 0502 to 0508; 01O with the letter for the digit.
AREA = r"(?:1[016-9]|2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50[2-8])"
HEAD = (
    rf"(?:(?:\(?\+ ?82\)?{SEPARATOR}|{BEGIN}(?:0082[-) ]{{1,2}}|82[-)]{{1,2}})(?=\(?0?\)?1))(?:\(0\) ?|0)?{AREA}"
    rf"|\(0{AREA}\)|{BEGIN}(?<!(?<![0-9])0\.)(?:0{AREA}|(?<![A-Za-z])[0Oo]1[0Oo])\)?)"
)
SPOKEN = "[-. 에]{0,3}[공영일이삼사오육륙칠팔구0-9]{4}"
PHONE = re.compile(
    rf"(?=[0+(8Oo공영])(?:{HEAD}{SEPARATOR}(?:[0-9]{{3,4}}{SEPARATOR}[0-9]{{4}}{END}"
    # with digits hidden, of which some are left
    rf"|(?P<starred>[0-9{STARS}]{{3,4}}{SEPARATOR}[0-9{STARS}]{{4}})(?![0-9{STARS}]|-[0-9]))"
    rf"|{BEGIN}01[016-9](?P<gap>[/_~,])[0-9]{{3,4}}(?P=gap)[0-9]{{4}}{END}"
    rf"|(?:[공영][일1][공영0]|{BEGIN}010(?=[-. 0-9]{{0,7}}[공영일이삼사오육륙칠팔구])){SPOKEN}{SPOKEN})"
)
# Behind its label also without the 0 that a numeric cell of Excel has lost: 1012345678, 212345678.
SHORTENED = re.compile(
    rf"{BEGIN}(?:82{SEPARATOR})?(?:1[016-9]{SEPARATOR}[1-9][0-9]{{2,3}}{SEPARATOR}[0-9]{{4}}|{AREA}[1-9][0-9]{{6,7}}){END}"
)
PHONE_LABEL = re.compile(
    r"(?:(?:연락처|전화|휴대폰|핸드폰|모바일|폰(?=\s?번호))(?:\s?번호)?|[☎☏📞]"
    r"|(?:(?i:phone|mobile|contact|(?<![a-z])(?:tel|cell|hp))|(?<=[a-z])(?:Tel|Cell|H[Pp]))(?:[\s_]?(?i:no|num(?:ber)?))?)"
    r"(?:\s?\([^()0-9\n\]]{1,10}\)|[_ ](?:[가-힣]{1,4}|[A-Za-z]{1,8})(?=[:：\"']))?"  # 연락처(본인), tel_home:
    r"(?:는|은|이|가|를|을|로|의)?[^0-9가-힣A-Za-z\n\]]{0,4}$"
)
MOBILE = re.compile(r"(?:82 ?)?(?:1|50)|(?:\(?\+ ?82\)?[-. (0)]{0,6}|(?:00)?82[-() 0]{1,5}|\(?0)(?:1|50)|[Oo공영]")
# No exchange begins with 15, 16 or 18: 02-1588-1234 is the nationwide line of a company.
NATIONWIDE = re.compile(rf"{HEAD}{SEPARATOR}1[568][0-9]{{2}}{SEPARATOR}[0-9]{{4}}")
# ☎ 02-2110-3000~5: a row of lines is an exchange.
RANGE = re.compile(r"\s?[~∼～〜]\s?[0-9]{1,4}(?![0-9])")
LINE = r"(?:☎|☏|📞|전화|대표|팩스|[Ff][Aa][Xx]|[Tt][Ee][Ll]\.?|[Tt]\.)?\s?[:：]?\s?"

# What says that an office or company answers, right before its number or behind it ...
OFFICE_LINE = re.compile(
    r"(?:대표\s?(?:전화|번호)|고객\s?센터|콜\s?센터|상담\s?(?:센터|전화|실)|신고\s?(?:센터|전화)|민원\s?(?:실|전화|안내|센터)|안내\s?전화"
    rf"|교환\s?(?:실|전화)|지원\s?센터|당직실|종합\s?상황실|문의\s?전화)(?:\s?번호)?(?:는|은)?\s?[:：(\[]?\s?{LINE}$"
)
# ... and its name. A name of a person may end in 국, 원, 실 or 지원 too: these are not enough.
DEPARTMENT = (
    r"(?:[가-힣]{1,8}(?:과|팀|센터|담당관|지사|지점|지부)|(?:정책|지원|관리|민원|행정|주택|기금|조사|심사|총무|운영|복지|건축|토지|세무"
    r"|법무|상담|피해)(?:실|국|본부|단)|(?:법률|민원)?\s?(?:상담|안내))"
)
OFFICE = (
    rf"(?:{COMPANY}|[가-힣]{{0,12}}(?:법원|검찰청|지청|경찰서|경찰청|국세청|관세청|구청|시청|군청|도청|세무서|등기소|등기국|법제처|주민센터|재판소"
    r"|사무소|교통부|법무부|노동부|안전부|복지부|환경부|재정부)"
    r"|[가-힣]{1,12}(?:센터|위원회|연합회|변호사회|법무사회|중앙회|공제회|진흥원|감독원|감사원|조정원|소비자원|보호원|부동산원|개발원|상담소"
    r"|상담실|민원실|카드|캐피탈|농협|수협|신협|중재원|대학교|학교|병원|회사"
    rf"|{DEPARTMENT}))(?:\s?[가-힣]{{2,4}}지원)?(?:\s?[가-힣]{{0,8}}{DEPARTMENT})?"
)
OFFICE_BEFORE = re.compile(rf"(?<![가-힣]){OFFICE}(?:\s?[(\[]\s?|\s|\s?[:：]\s?)?{LINE}$")
OFFICE_AFTER = re.compile(rf"\s?\(\s?(?:대표|교환|고객\s?센터|콜\s?센터|민원|상담|안내|{OFFICE}\s?\))")
# In a list every number after the first one of an office is its line as well.
ANOTHER = re.compile(r"\s?[,/·]\s?")


def find_phones(text: str) -> Iterator[Span]:
    """Yield telephone numbers; those of offices and companies as not personal."""
    until = public_until = -1
    for match in sorted([*PHONE.finditer(text), *SHORTENED.finditer(text)], key=lambda match: match.start()):
        start, end = match.span()
        if match.re is SHORTENED:
            listed = until >= 0 and MOBILE.match(match[0]) and ANOTHER.fullmatch(text, until, start)
            head = before(text, start)
            if start < until or not (listed or (PHONE_LABEL.search(head) and not OTHER_LABEL.search(head))):
                continue
        elif (starred := match["starred"]) is not None and not (1 <= sum(map(str.isdecimal, starred)) <= 7):
            continue
        until = end
        follows = public_until >= 0 and ANOTHER.fullmatch(text, public_until, start)
        public = not MOBILE.match(match[0]) and bool(follows or is_office_line(text, start, end))
        row = RANGE.match(text, end)
        public_until = (row or match).end() if public else -1
        yield Span(start, end, not public)


def is_office_line(text: str, start: int, end: int) -> bool:
    """Tell whether a number of a fixed line is that of an office or company."""
    nationwide = NATIONWIDE.fullmatch(text, start, end) or NATIONWIDE.fullmatch(f"0{text[start:end]}")
    if nationwide or RANGE.match(text, end) or OFFICE_AFTER.match(text, end):
        return True
    head = before(text, start)
    return bool(OFFICE_LINE.search(head) or OFFICE_BEFORE.search(head))


# What every e-mail address has in it, which is quicker to find.
MAYBE_EMAIL = r"(?<=@)|(?<=골뱅)이|(?<=[([{< ][aA])[tT][])}> ]|(?<=[([{<]앳)"
# Takes every run of local-part characters, address or not: each is read once, and the next starts where the last ended.
# hong@a.kr, with some of it hidden or spelled out: h***@a.kr, hong [at] a [dot] kr, hong골뱅이a.kr, hong at a dot kr
AT = r"(?: ?@ ?| ?[([{<] ?(?:@|[aA][tT]|골뱅이|앳) ?[])}>] ?| ?골뱅이 ?)"
DOT = r"(?:\.| ?[([{<] ?(?:\.|[dD][oO][tT]|점|닷) ?[])}>] ?)"
LABEL = "[A-Za-z0-9가-힣*][A-Za-z0-9가-힣*-]{0,62}"
EMAIL = re.compile(
    rf"(?:[A-Za-z0-9._%+*-]++|[가-힣]{{1,10}}(?=@))"
    rf"({AT}(?:{LABEL}{DOT}){{1,5}}(?:[A-Za-z]{{2,20}}(?![A-Za-z])|한국)"
    rf"| (?:at|AT) [A-Za-z0-9-]{{1,63}}(?: (?:dot|DOT) [A-Za-z]{{2,20}}){{1,3}}(?![A-Za-z]))?"
)


def find_emails(text: str) -> Iterator[Span]:
    """Yield e-mail addresses, also spelled out or with some of them hidden."""
    if not re.search(f"[@뱅앳aA](?:{MAYBE_EMAIL})", text):
        return
    for match in EMAIL.finditer(text):
        if match[1] and re.search("[A-Za-z0-9가-힣]", match[0][: match.start(1) - match.start()]):
            yield Span(*match.span())
