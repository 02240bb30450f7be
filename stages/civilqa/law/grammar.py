"""What a citation is written with: the patterns of articles, of acts and of the places where either can begin.

They match the text with `SHADOW` applied, where each character stands for one, so that offsets hold. Every repeat is
bounded, so that the time is linear in the length of the text.
"""

import re
import unicodedata

SHADOW = {
    **{ord(wide): str(digit) for digit, wide in enumerate("０１２３４５６７８９")},
    **dict.fromkeys(map(ord, "ㆍ‧・･•∙"), "·"),
    **dict.fromkeys(map(ord, "～〜∼"), "~"),
    **dict.fromkeys(map(ord, "–—−―‐‑－"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u3000\u2002\u2003\u2009\u202f\u200b\ufeff"), " "),
    **str.maketrans("（），：；［］｢｣", "(),:;[]「」"),
}
CIRCLED = {chr(code): int(unicodedata.numeric(chr(code))) for code in (*range(0x2460, 0x2474), *range(0x3251, 0x325A))}
OFFICIAL_DOT = "ㆍ"  # as law.go.kr writes the middle dot in names of acts
SUBITEMS = "가나다라마바사아자차카타파하"

# --- Articles, 항, 호, 목 --------------------------------------------------------------------------------------------

# 제3조의2가지, 제3조의2항: the number after 의 counts something and is no part of the article's. Where a space stands
# before it (제3조의 2월), so do more words.
COUNTED = (
    r"[.,][0-9]|\s?(?:가지|분의|개월|년|퍼센트|%|항(?!목)|호(?!실)|개(?![가-힣])|개[의를가는로]"
    r"|명(?![가-힣])|명[의을이은])"
)
COUNTED_APART = (
    COUNTED + r"|\s?(?:배(?![가-힣])|배[의를로]|월|일(?![가-힣])|시간|주[간일]|차례|번째|회(?![가-힣])|건(?![가-힣])"
    r"|인(?![가-힣])|인[의이은을]\s|단계|종류|[천백억원]|만\s?원|이상|이하|문장|단어|사람|요건|경우)"
)
BRANCH = (
    rf"(?:\s{{0,2}}의(?P<branch>[0-9]{{1,2}})(?![0-9]|{COUNTED})"
    rf"|\s{{0,2}}의\s{{1,2}}(?P<branch_apart>[0-9]{{1,2}})(?![0-9]|{COUNTED_APART}))"
)
NUMBER = r"[0-9]{1,4}(?:의[0-9]{1,2})?"
ARTICLE = re.compile(
    # 제3조, 제186·187조, 제211~213조
    rf"(?:(?P<mark>제\s{{0,2}})?(?P<numbers>{NUMBER}(?:(?:\s?(?:[·~-]|내지)\s?|,\s){NUMBER}){{0,9}})\s{{0,2}}조"
    # 제3조합, 제2조약 are words; without 제, 3조 원 is an amount and 2조각 a word.
    r"(?(mark)(?!합|직|약[을이]|치[를가]|건[이을]|달러|억)"
    r"|(?!\s?(?:원|달러|엔|위안|유로|억|[0-9]{1,4}\s?(?:천|백|억|만|원))|[0-9]{1,4}(?!\s?[항호0-9])|[합직각정약건치사]|짜리))"
    rf"{BRANCH}?"
    r"|§{1,2}\s{0,2}(?P<section>[0-9]{1,4})(?![0-9])(?:의(?P<section_branch>[0-9]{1,2})(?![0-9]))?)"
)
NUMBER_SEPARATOR = re.compile(r"\s?(내지|[·~,-])\s?")
# ① and (1) on a new line begin a list of the text's own.
PARAGRAPH = re.compile(
    r"\s{0,2}(?:의\s?)?(?:제\s{0,2})?(?P<number>[0-9]{1,3})\s{0,2}항(?!목[을를이은의])"
    r"|[ ]?(?:(?P<circled>[①-⑳㉑-㉙])|\((?P<bracketed>[0-9]{1,2})\))(?:[ ]?항)?"
)
ITEM = re.compile(
    r"\s{0,2}(?:의\s?)?(?:제\s{0,2}(?P<number>[0-9]{1,3})|(?P<unmarked>[0-9]{1,2}))\s{0,2}호(?![실선봉])"
    rf"{BRANCH}?|[ ]?\((?P<bracketed>[0-9]{{1,2}})\)"
)
SUBITEM = re.compile(rf"\s{{0,2}}(?:의\s?)?(?:제\s?)?\(?([{SUBITEMS}])\)?\s?목(?![적록표숨재걸격])")
CLAUSE = re.compile(r"\s{0,2}(?:의\s?)?\(?(?:각\s?[호목]\s?외의\s?부분\s?)?(본문|단서|전단|후단|전문(?!가)|후문)\)?")
CLAUSES = {"전문": "전단", "후문": "후단"}  # the courts' older words for the same halves
TITLE = re.compile(
    r"\s?(?:\((?P<round>[^()\n]{1,60}(?:\([^()\n]{0,30}\)[^()\n]{0,60}){0,2})\)|\[(?P<square>[^\[\]\n]{1,60})\]"
    r"|【(?P<lenticular>[^【】\n]{1,60})】)"
)
# In brackets after an article, but not its title: amendment notes, cross-references, definitions, sentences.
NO_TITLE = re.compile(
    r"\s?(?:[0-9]{1,2}$|[0-9]{4}\s?[.년]|제\s?[0-9]{1,4}\s?[조항호]|[①-⑳]|(?:대법원|헌법재판소|헌재|법률)\s?제?\s?[0-9]|이하\s"
    r"|같은\s?[법조항호]|동[법조항]|현행\s|구\s|구법|(?:전문|전부|일부)?(?:개정|신설|삭제)(?![가-힣])|본조|다만|단[,서]|즉[,\s]|예[:를컨]"
    r"|또는|및|본문|전단|후단|이른바|소위|참조)|.*(?:다|다\.|요\.|참조|함|됨)$"
)
CITES = re.compile(r"(?<!전)[0-9]\s?조")

# A range stays on its line: a dash on the next one is a bullet.
TO = re.compile(r"[ ]{0,2}(?:부터|에서|내지|~|-)[ ]{0,2}")
UNTIL = re.compile(r"\s?까지")
AND = re.compile(
    r"\s{0,2}(?:[,·/;]|및|와|과|또는|혹은|이나|나(?!\s?목)|그리고)\s{0,2}(?:(?:및|또는|그리고)\s{1,2})?(?:각\s)?"
    r"(?P<same>(?:같은|동|위)\s?조\s{0,2}(?=제?\s?[0-9①-⑳]))?"
)

# --- Acts ------------------------------------------------------------------------------------------------------------

CLOSERS = r"[\"'“”‘’」』*_>〉》]{0,4}"
BRACKETS = r"\((?!\s?제?\s{0,2}[0-9]{1,4}\s{0,2}조)(?:[^()\n]|\([^()\n]{0,60}\)){1,200}\)"
PARTS = ("시행령", "시행규칙", "부칙")
ARTICLE_AHEAD = r"(?=제\s{0,2}[0-9]|§|[0-9])"
PART = re.compile(r"\s?(시행령|시행규칙)")
AFTER_ACT = re.compile(
    rf"\s{{0,2}}{CLOSERS}\s{{0,2}}(?P<notes>(?:{BRACKETS}\s{{0,2}}){{0,2}})"
    rf"(?:(?P<part>시행령|시행규칙)\s{{0,2}}{CLOSERS}\s{{0,2}}(?P<part_notes>(?:{BRACKETS}\s{{0,2}})?))?"
    rf"(?:(?P<supplement>부칙)\s{{0,2}}(?:{BRACKETS}\s{{0,2}}|<[^<>\n]{{1,60}}>\s{{0,2}})?)?"
    # 민법은 제103조에서, 민법 제3편 제750조, 민법(제750조), 민법: 제750조
    r"(?P<loose>(?:상의?|의|중|도|은|는|이|가|에서는?|에는?|에도|에\s?(?:따르면|의하면|따라|따른|의한))?\s{0,2}"
    r"(?:(?:제\s?[0-9]{1,2}\s?[편장절관]\s{0,2}){1,4}|[,:(\[-]\s{0,2})?)" + ARTICLE_AHEAD
)
# An act named as the topic, or as a heading, takes over the bare articles that follow.
TOPIC = re.compile(
    rf"\s{{0,2}}{CLOSERS}\s?(?:{BRACKETS})?"
    r"(?:(?:은|는|에서는?|상|에\s?(?:따르면|의하면))(?![가-힣])|\s?[:*]{0,3}[ ]?(?:\n|$)|:)"
)
MENTION = re.compile(rf"{CLOSERS}(?:[^가-힣]|[의을를과와이가에로도상](?:[^가-힣]|$)|$)")
NOTES = re.compile(rf"\s?{CLOSERS}\s?(?P<notes>{BRACKETS})")
ALIAS = re.compile(r"이하\s?[\"'“‘「『]?\s?([가-힣·\s]{0,20}법률?)\s?[\"'”’」』]?\s?(?:이?라|$|\)|으로|로)")
FORMER_NOTE = re.compile(r"(?:개정|폐지|전부개정|전문개정|시행|변경)(?:되|하)?기?\s?(?:이?전|되기\s?전|되기\s?이전)")
DATE = re.compile(r"([0-9]{4})\s?[.년]\s?([0-9]{1,2})\s?[.월]\s?([0-9]{1,2})")
FORMER_BEFORE = re.compile(r"(?:^|[^가-힣])(?P<mark>\(?구\)?|舊|종전의?|개정\s?전의?)\s?[\"'“‘「『*]{0,3}\s?$")
COUNTRIES = (
    "독일|일본|프랑스|스위스|오스트리아|이탈리아|스페인|네덜란드|영국|미국|캐나다|호주|중국|대만|북한|만주국?|로마"
)
COUNTRY_BEFORE = re.compile(rf"(?:^|[^가-힣])(?P<country>{COUNTRIES})(?:의)?\s?[「『]?$")
SAME_BEFORE = re.compile(r"(?:^|[^가-힣])(?P<same>같은|동|위|이|그|본|해당|당해|상기|현행)\s?$")
ATTACHED = ("개정", "현행", "우리", "구", "위", "각")  # written before a name without a space: 구민법, 개정민법

# Words in 법 that name no act. Whole words: 등기법 is no 기법, 지하수법 no 수법, 소방법 no 방법.
NO_ACT = re.compile(
    r"방법|입법|불법|적법|합법|편법|용법|해법|기법|수법|문법|요법|탈법|준법|공법|사법|실정법|관습법|판례법|강행법|외국법"
    r"|자연법|성문법|관련법|상위법|하위법|일반법|개별법|국내법|국제법|노동법"
    r"|.*(?:산정|계산|처리|평가|해결|시행|작성|지급|집행|신청)방법"
    r"|(?:같은|동|위|이|그|본|해당|당해|상기|현행)법률?"
)
# Words that stand for an act named before.
BARE_ACTS = {"법", "법률", "특별법", "특례법", "현행법", "기본법", "특별조치법", "위법"}
# Last words of names that may need the words before them; 법률 does only after 관한 or 위한.
NAME_TAIL = re.compile(
    r"(?:특별|특례|특별조치|임시조치|기본|보호|보장|관리|안전관리|정비|지원|촉진|진흥|육성|조치|저당|처벌|금지|운영|설립)법"
)
HANGUL_WORD = re.compile(r"[가-힣·]+")
SENTENCE_WORD = re.compile(
    r".*(?:[은는이가을를로도만게]|[하되이으][여고며면]|에서|[^등]에|[위의대관통인]해|따라|다|하[는던]|한|된|인|할|될|때)"
    r"|또한|따라서|다만|한편|그리고|그러나|즉|경우|것|이|그|위|시|후|중|또는|혹은|구|현행|개정|우리|각|같은|동|특히|아울러|먼저|다음|해당"
)
LIST_MEMBER = re.compile(r".*(?:[조항호목]|조의[0-9]+|법|법률|시행령|[.,;:)\]」』\"'”’*])")
COURT_RULES = re.compile(r".*(?:소송|집행|등기|공탁|비송사건|조정|심판|회생|파산|경매|가족관계등록)규칙")
BRACKETED_ACT = re.compile(r".*(?:법|법률|령|규칙|규정|조례|협약|조약|특별조치법)")

# --- Where something can begin ---------------------------------------------------------------------------------------

# A document of private parties or an authority, whose articles are no statute's: 계약서 제3조.
DOCUMENTS = (
    r"계약서|계약|약관|특약\s?사항|특약|정관|규약|내규|합의서|각서|협정서?|협약서?|조약|조례|규칙|규정|지침|고시|훈령|예규|약정서?|증서"
    r"|개정안|법률안|법안|초안|정부안|시안|사규"
)
DOCUMENT_END = re.compile(rf"(?:{DOCUMENTS})\s?$")
MARKED_ARTICLE_AHEAD = r"(?=제\s{0,2}[0-9]{1,4}(?:의[0-9]{1,2})?\s{0,2}조)"
TOKEN = re.compile(
    rf"(?P<document>{DOCUMENTS})\s?{CLOSERS}\s?(?:\([^()\n조]{{1,60}}\)\s?)?(?:상의?|의|중)?[\s:]{{0,2}}{MARKED_ARTICLE_AHEAD}"
    r"|(?P<law>법률?)"
    r"|(?P<bracket>[「『]\s?(?P<name>[^「」『』\n]{1,80})[」』])"
    # 시행령, 같은 법 having been read with 법; 같은 영, 같은 규칙
    r"|(?P<part>(?<![가-힣])(?:(?:(?:같은|동|위|그|이)\s?)?(?P<part_name>시행령|시행규칙|부칙)|(?:같은|동)\s?(?:영|규칙)))"
    rf"{CLOSERS}\s{{0,2}}(?:{BRACKETS}\s?)?(?:의\s)?{MARKED_ARTICLE_AHEAD}"
    r"|(?P<same>(?<![가-힣])(?:같은|동|위)\s?(?:조(?!의\s?[0-9]|합|정|직)|항(?!목)))"
    r"|(?P<article>(?<![문숙전규경억통체])제\s{0,2}(?=[0-9])|§)"
)
