"""Statute citations in Korean text: find them, and judge them against the table in `data/reference/`.

The parser walks the text from left to right over the few places where something can begin (법, 「, 제N조, 같은 조,
계약서 and so on), resolves the act to the left of it and the article, 항, 호 and 목 to the right, and carries the act
over to bare articles that follow. Every repeat is bounded, so that the time is linear in the length of the text.
"""

import functools
import re
import unicodedata
from dataclasses import dataclass, replace

from civilqa.law.statutes import (
    NO_SUCH_ARTICLE,
    OUTSIDE_TABLE,
    ArticleNumber,
    Reference,
    article_name,
    load_reference,
    same_title,
)

# A longer range names a chapter rather than articles: only its two ends are returned. It also bounds the output.
RANGE_LIMIT = 100


@dataclass(frozen=True)
class Citation:
    """One article of one act, as a text cites it.

    `start` and `end` are offsets into `unicodedata.normalize("NFC", text)`. The citations of one range (제1조부터
    제3조까지) share the span of the whole range; all other spans are disjoint, in ascending order.

    Attributes:
        law: Official full name (`주택임대차보호법`, `주택임대차보호법 시행령`, `민법 부칙`); an act outside the table
            keeps the name that the text gives it, a foreign code its country (`독일 민법`).
        article: `제3조` or `제3조의2`.
        paragraph: 항.
        item: 호: `2` or `2의3`.
        subitem: 목: `가`.
        clause: 본문, 단서, 전단 or 후단.
        title: What the text gives in brackets as the article's title.
        former: Whether the text cites a former version (구 민법).
        former_date: ISO date of the amendment named with a former version, when it is.
        via: How the act was found: `name` beside the article, `same` (같은 법), `list` (민법 제1조, 제2조), `carried`
            from further back in the text, or `within` the act's own text.
    """

    law: str
    article: str
    paragraph: int | None
    item: str | None
    subitem: str | None
    clause: str | None
    title: str | None
    former: bool
    former_date: str | None
    via: str
    start: int
    end: int


def parse_citations(text: str, within: str | None = None) -> list[Citation]:
    """Find the statute citations of a text, in order of appearance.

    The text may be in any normalisation form; spans refer to its NFC form. 제3조의2 is read as the article,
    제3조의 2가지 as 제3조. Contracts, 약관, case numbers and amounts are not citations, nor is 이 법 where no act was
    named before.

    `within` is the official name of the act whose own text this is: there 이 법 and a bare article mean that act,
    and an act that the text names carries over to lists only.
    """
    text = unicodedata.normalize("NFC", text)
    if "조" not in text and "§" not in text:
        return []
    return _Reader(text, within).read()


def judge_citation(citation: Citation, reference: Reference) -> str:
    """What the table knows of a citation: one of the status constants of `civilqa.law.statutes`.

    `outside_table` is a real act, decree or supplementary provision that the table does not list, never an invented
    one. So is an article of a former version that the present one lacks: the table holds one version of each act.
    """
    status = reference.status(citation.law, citation.article)
    if status == NO_SUCH_ARTICLE and citation.former:
        return OUTSIDE_TABLE
    return status


def title_matches(citation: Citation, reference: Reference) -> bool | None:
    """Whether the bracketed title is the article's official one; None where the text or the table has none."""
    official = reference.title(citation.law, citation.article)
    if citation.title is None or official is None or citation.former:
        return None
    return same_title(citation.title, official)


# --- The text as it is matched: one character for one, so that offsets hold. -----------------------------------------

_SHADOW = {
    **{ord(wide): str(digit) for digit, wide in enumerate("０１２３４５６７８９")},
    **dict.fromkeys(map(ord, "ㆍ‧・･•∙"), "·"),
    **dict.fromkeys(map(ord, "～〜∼"), "~"),
    **dict.fromkeys(map(ord, "–—−―‐‑－"), "-"),
    **dict.fromkeys(map(ord, "\u00a0\u3000\u2002\u2003\u2009\u202f\u200b\ufeff"), " "),
    **str.maketrans("（），：；［］｢｣", "(),:;[]「」"),
}
_CIRCLED = {chr(code): int(unicodedata.numeric(chr(code))) for code in (*range(0x2460, 0x2474), *range(0x3251, 0x325A))}
_OFFICIAL_DOT = "ㆍ"  # as law.go.kr writes the middle dot in names of acts
_SUBITEMS = "가나다라마바사아자차카타파하"

# --- Articles, 항, 호, 목 --------------------------------------------------------------------------------------------

# 제3조의2가지, 제3조의2항: the number after 의 counts something and is no part of the article's. Where a space stands
# before it (제3조의 2월), so do more words.
_COUNTED = (
    r"[.,][0-9]|\s?(?:가지|분의|개월|년|퍼센트|%|항(?!목)|호(?!실)|개(?![가-힣])|개[의를가는로]"
    r"|명(?![가-힣])|명[의을이은])"
)
_COUNTED_APART = (
    _COUNTED + r"|\s?(?:배(?![가-힣])|배[의를로]|월|일(?![가-힣])|시간|주[간일]|차례|번째|회(?![가-힣])|건(?![가-힣])"
    r"|인(?![가-힣])|인[의이은을]\s|단계|종류|[천백억원]|만\s?원|이상|이하|문장|단어|사람|요건|경우)"
)
_BRANCH = (
    rf"(?:\s{{0,2}}의(?P<branch>[0-9]{{1,2}})(?![0-9]|{_COUNTED})"
    rf"|\s{{0,2}}의\s{{1,2}}(?P<branch_apart>[0-9]{{1,2}})(?![0-9]|{_COUNTED_APART}))"
)
_NUMBER = r"[0-9]{1,4}(?:의[0-9]{1,2})?"
_ARTICLE = re.compile(
    # 제3조, 제186·187조, 제211~213조
    rf"(?:(?P<mark>제\s{{0,2}})?(?P<numbers>{_NUMBER}(?:(?:\s?(?:[·~-]|내지)\s?|,\s){_NUMBER}){{0,9}})\s{{0,2}}조"
    # 제3조합, 제2조약 are words; without 제, 3조 원 is an amount and 2조각 a word.
    r"(?(mark)(?!합|직|약[을이]|치[를가]|건[이을]|달러|억)"
    r"|(?!\s?(?:원|달러|엔|위안|유로|억|[0-9]{1,4}\s?(?:천|백|억|만|원))|[0-9]{1,4}(?!\s?[항호0-9])|[합직각정약건치사]|짜리))"
    rf"{_BRANCH}?"
    r"|§{1,2}\s{0,2}(?P<section>[0-9]{1,4})(?![0-9])(?:의(?P<section_branch>[0-9]{1,2})(?![0-9]))?)"
)
_NUMBER_SEPARATOR = re.compile(r"\s?(내지|[·~,-])\s?")
# ① and (1) on a new line begin a list of the text's own.
_PARAGRAPH = re.compile(
    r"\s{0,2}(?:의\s?)?(?:제\s{0,2})?(?P<number>[0-9]{1,3})\s{0,2}항(?!목[을를이은의])"
    r"|[ ]?(?:(?P<circled>[①-⑳㉑-㉙])|\((?P<bracketed>[0-9]{1,2})\))(?:[ ]?항)?"
)
_ITEM = re.compile(
    r"\s{0,2}(?:의\s?)?(?:제\s{0,2}(?P<number>[0-9]{1,3})|(?P<unmarked>[0-9]{1,2}))\s{0,2}호(?![실선봉])"
    rf"{_BRANCH}?|[ ]?\((?P<bracketed>[0-9]{{1,2}})\)"
)
_SUBITEM = re.compile(rf"\s{{0,2}}(?:의\s?)?(?:제\s?)?\(?([{_SUBITEMS}])\)?\s?목(?![적록표숨재걸격])")
_CLAUSE = re.compile(r"\s{0,2}(?:의\s?)?\(?(?:각\s?[호목]\s?외의\s?부분\s?)?(본문|단서|전단|후단|전문(?!가)|후문)\)?")
_CLAUSES = {"전문": "전단", "후문": "후단"}  # the courts' older words for the same halves
_TITLE = re.compile(
    r"\s?(?:\((?P<round>[^()\n]{1,60}(?:\([^()\n]{0,30}\)[^()\n]{0,60}){0,2})\)|\[(?P<square>[^\[\]\n]{1,60})\]"
    r"|【(?P<lenticular>[^【】\n]{1,60})】)"
)
# In brackets after an article, but not its title: amendment notes, cross-references, definitions, sentences.
_NO_TITLE = re.compile(
    r"\s?(?:[0-9]{1,2}$|[0-9]{4}\s?[.년]|제\s?[0-9]{1,4}\s?[조항호]|[①-⑳]|(?:대법원|헌법재판소|헌재|법률)\s?제?\s?[0-9]|이하\s"
    r"|같은\s?[법조항호]|동[법조항]|현행\s|구\s|구법|(?:전문|전부|일부)?(?:개정|신설|삭제)(?![가-힣])|본조|다만|단[,서]|즉[,\s]|예[:를컨]"
    r"|또는|및|본문|전단|후단|이른바|소위|참조)|.*(?:다|다\.|요\.|참조|함|됨)$"
)
_CITES = re.compile(r"(?<!전)[0-9]\s?조")

# A range stays on its line: a dash on the next one is a bullet.
_TO = re.compile(r"[ ]{0,2}(?:부터|에서|내지|~|-)[ ]{0,2}")
_UNTIL = re.compile(r"\s?까지")
_AND = re.compile(
    r"\s{0,2}(?:[,·/;]|및|와|과|또는|혹은|이나|나(?!\s?목)|그리고)\s{0,2}(?:(?:및|또는|그리고)\s{1,2})?(?:각\s)?"
    r"(?P<same>(?:같은|동|위)\s?조\s{0,2}(?=제?\s?[0-9①-⑳]))?"
)

# --- Acts ------------------------------------------------------------------------------------------------------------

_CLOSERS = r"[\"'“”‘’」』*_>〉》]{0,4}"
_BRACKETS = r"\((?!\s?제?\s{0,2}[0-9]{1,4}\s{0,2}조)(?:[^()\n]|\([^()\n]{0,60}\)){1,200}\)"
_PARTS = ("시행령", "시행규칙", "부칙")
_ARTICLE_AHEAD = r"(?=제\s{0,2}[0-9]|§|[0-9])"
_PART = re.compile(r"\s?(시행령|시행규칙)")
_AFTER_ACT = re.compile(
    rf"\s{{0,2}}{_CLOSERS}\s{{0,2}}(?P<notes>(?:{_BRACKETS}\s{{0,2}}){{0,2}})"
    rf"(?:(?P<part>시행령|시행규칙)\s{{0,2}}{_CLOSERS}\s{{0,2}}(?P<part_notes>(?:{_BRACKETS}\s{{0,2}})?))?"
    rf"(?:(?P<supplement>부칙)\s{{0,2}}(?:{_BRACKETS}\s{{0,2}}|<[^<>\n]{{1,60}}>\s{{0,2}})?)?"
    # 민법은 제103조에서, 민법 제3편 제750조, 민법(제750조), 민법: 제750조
    r"(?P<loose>(?:상의?|의|중|도|은|는|이|가|에서는?|에는?|에도|에\s?(?:따르면|의하면|따라|따른|의한))?\s{0,2}"
    r"(?:(?:제\s?[0-9]{1,2}\s?[편장절관]\s{0,2}){1,4}|[,:(\[-]\s{0,2})?)" + _ARTICLE_AHEAD
)
# An act named as the topic, or as a heading, takes over the bare articles that follow.
_TOPIC = re.compile(
    rf"\s{{0,2}}{_CLOSERS}\s?(?:{_BRACKETS})?"
    r"(?:(?:은|는|에서는?|상|에\s?(?:따르면|의하면))(?![가-힣])|\s?[:*]{0,3}[ ]?(?:\n|$)|:)"
)
_MENTION = re.compile(rf"{_CLOSERS}(?:[^가-힣]|[의을를과와이가에로도상](?:[^가-힣]|$)|$)")
_NOTES = re.compile(rf"\s?{_CLOSERS}\s?(?P<notes>{_BRACKETS})")
_ALIAS = re.compile(r"이하\s?[\"'“‘「『]?\s?([가-힣·\s]{0,20}법률?)\s?[\"'”’」』]?\s?(?:이?라|$|\)|으로|로)")
_FORMER_NOTE = re.compile(r"(?:개정|폐지|전부개정|전문개정|시행|변경)(?:되|하)?기?\s?(?:이?전|되기\s?전|되기\s?이전)")
_DATE = re.compile(r"([0-9]{4})\s?[.년]\s?([0-9]{1,2})\s?[.월]\s?([0-9]{1,2})")
_FORMER_BEFORE = re.compile(r"(?:^|[^가-힣])(?P<mark>\(?구\)?|舊|종전의?|개정\s?전의?)\s?[\"'“‘「『*]{0,3}\s?$")
_COUNTRIES = (
    "독일|일본|프랑스|스위스|오스트리아|이탈리아|스페인|네덜란드|영국|미국|캐나다|호주|중국|대만|북한|만주국?|로마"
)
_COUNTRY_BEFORE = re.compile(rf"(?:^|[^가-힣])(?P<country>{_COUNTRIES})(?:의)?\s?[「『]?$")
_SAME_BEFORE = re.compile(r"(?:^|[^가-힣])(?P<same>같은|동|위|이|그|본|해당|당해|상기|현행)\s?$")
_ATTACHED = ("개정", "현행", "우리", "구", "위", "각")  # written before a name without a space: 구민법, 개정민법

# Words in 법 that name no act. Whole words: 등기법 is no 기법, 지하수법 no 수법, 소방법 no 방법.
_NO_ACT = re.compile(
    r"방법|입법|불법|적법|합법|편법|용법|해법|기법|수법|문법|요법|탈법|준법|공법|사법|실정법|관습법|판례법|강행법|외국법"
    r"|자연법|성문법|관련법|상위법|하위법|일반법|개별법|국내법|국제법|노동법"
    r"|.*(?:산정|계산|처리|평가|해결|시행|작성|지급|집행|신청)방법"
    r"|(?:같은|동|위|이|그|본|해당|당해|상기|현행)법률?"
)
# Words that stand for an act named before.
_BARE_ACTS = {"법", "법률", "특별법", "특례법", "현행법", "기본법", "특별조치법", "위법"}
# Last words of names that may need the words before them; 법률 does only after 관한 or 위한.
_NAME_TAIL = re.compile(
    r"(?:특별|특례|특별조치|임시조치|기본|보호|보장|관리|안전관리|정비|지원|촉진|진흥|육성|조치|저당|처벌|금지|운영|설립)법"
)
_HANGUL_WORD = re.compile(r"[가-힣·]+")
_SENTENCE_WORD = re.compile(
    r".*(?:[은는이가을를로도만게]|[하되이으][여고며면]|에서|[^등]에|[위의대관통인]해|따라|다|하[는던]|한|된|인|할|될|때)"
    r"|또한|따라서|다만|한편|그리고|그러나|즉|경우|것|이|그|위|시|후|중|또는|혹은|구|현행|개정|우리|각|같은|동|특히|아울러|먼저|다음|해당"
)
_LIST_MEMBER = re.compile(r".*(?:[조항호목]|조의[0-9]+|법|법률|시행령|[.,;:)\]」』\"'”’*])")
_COURT_RULES = re.compile(r".*(?:소송|집행|등기|공탁|비송사건|조정|심판|회생|파산|경매|가족관계등록)규칙")
_BRACKETED_ACT = re.compile(r".*(?:법|법률|령|규칙|규정|조례|협약|조약|특별조치법)")

# Acts outside the table whose names in running text end in a word that also ends other names.
_OTHER_ACTS = (
    "개인정보 보호법",
    "가족관계의 등록 등에 관한 법률",
    "감정평가 및 감정평가사에 관한 법률",
    "공간정보의 구축 및 관리 등에 관한 법률",
    "국가를 당사자로 하는 계약에 관한 법률",
    "국민기초생활 보장법",
    "근로자퇴직급여 보장법",
    "금융소비자 보호에 관한 법률",
    "대부업 등의 등록 및 금융이용자 보호에 관한 법률",
    "도시 및 주거환경정비법",
    "도시재생 활성화 및 지원에 관한 특별법",
    "동산ㆍ채권 등의 담보에 관한 법률",
    "독점규제 및 공정거래에 관한 법률",
    "보증인 보호를 위한 특별법",
    "부동산 가격공시에 관한 법률",
    "부정경쟁방지 및 영업비밀보호에 관한 법률",
    "빈집 및 소규모주택 정비에 관한 특례법",
    "상속세 및 증여세법",
    "성폭력범죄의 처벌 등에 관한 특례법",
    "신용정보의 이용 및 보호에 관한 법률",
    "약관의 규제에 관한 법률",
    "여객자동차 운수사업법",
    "자본시장과 금융투자업에 관한 법률",
    "자동차 등 특정동산 저당법",
    "재난 및 안전관리 기본법",
    "정보통신망 이용촉진 및 정보보호 등에 관한 법률",
    "주식회사 등의 외부감사에 관한 법률",
    "지방자치단체를 당사자로 하는 계약에 관한 법률",
    "채권의 공정한 추심에 관한 법률",
    "표시ㆍ광고의 공정화에 관한 법률",
    "한국자산관리공사 설립 등에 관한 법률",
)


def _compact(name: str) -> str:
    return re.sub(r"[\s·ㆍ‧・]", "", name)


@functools.cache
def _act_names() -> tuple[dict[str, str], tuple[int, ...]]:
    """Official and short names without spaces and middle dots → official name; and their lengths, longest first."""
    acts = load_reference().acts.values()
    names = {_compact(name): name for name in _OTHER_ACTS}
    names |= {_compact(name): act.law for act in acts for name in act.short_names}
    names |= {_compact(act.law): act.law for act in acts}
    return names, tuple(sorted({len(name) for name in names}, reverse=True))


# --- Where something can begin ---------------------------------------------------------------------------------------

# A document of private parties or an authority, whose articles are no statute's: 계약서 제3조.
_DOCUMENTS = (
    r"계약서|계약|약관|특약\s?사항|특약|정관|규약|내규|합의서|각서|협정서?|협약서?|조약|조례|규칙|규정|지침|고시|훈령|예규|약정서?|증서"
    r"|개정안|법률안|법안|초안|정부안|시안|사규"
)
_MARKED_ARTICLE_AHEAD = r"(?=제\s{0,2}[0-9]{1,4}(?:의[0-9]{1,2})?\s{0,2}조)"
_TOKEN = re.compile(
    rf"(?P<document>{_DOCUMENTS})\s?{_CLOSERS}\s?(?:\([^()\n조]{{1,60}}\)\s?)?(?:상의?|의|중)?[\s:]{{0,2}}{_MARKED_ARTICLE_AHEAD}"
    r"|(?P<law>법률?)"
    r"|(?P<bracket>[「『]\s?(?P<name>[^「」『』\n]{1,80})[」』])"
    # 시행령, 같은 법 having been read with 법; 같은 영, 같은 규칙
    r"|(?P<part>(?<![가-힣])(?:(?:(?:같은|동|위|그|이)\s?)?(?P<part_name>시행령|시행규칙|부칙)|(?:같은|동)\s?(?:영|규칙)))"
    rf"{_CLOSERS}\s{{0,2}}(?:{_BRACKETS}\s?)?(?:의\s)?{_MARKED_ARTICLE_AHEAD}"
    r"|(?P<same>(?<![가-힣])(?:같은|동|위)\s?(?:조(?!의\s?[0-9]|합|정|직)|항(?!목)))"
    r"|(?P<article>(?<![문숙전규경억통체])제\s{0,2}(?=[0-9])|§)"
)


@dataclass(frozen=True)
class _Act:
    """An act as it is cited: `part` is 시행령, 시행규칙, 부칙 or empty."""

    name: str
    part: str = ""
    former: bool = False
    former_date: str | None = None

    @property
    def law(self) -> str:
        return f"{self.name} {self.part}" if self.part else self.name


@dataclass(frozen=True)
class _Place:
    """Where in an act; `level` is the deepest of 0 조, 1 항, 2 호, 3 목 that was written for it."""

    article: ArticleNumber
    title: str | None = None
    paragraph: int | None = None
    item: ArticleNumber | None = None  # 제2호의3 is (2, 3)
    subitem: str | None = None
    clause: str | None = None
    level: int = 0


_Named = tuple[_Act, int, str]  # an act, where its name starts, and `Citation.via`


class _Reader:
    """One pass over a text: `position` is how far it has looked, `floor` the end of what has been used."""

    def __init__(self, text: str, within: str | None):
        self.original = text
        self.text = text.translate(_SHADOW)
        self.position = 0
        self.floor = 0
        self.own_act = _Act(within) if within else None
        self.found: list[Citation] = []
        self.last_act: _Act | None = None  # what 같은 법 means, after a contract's article too
        self.carried: _Act | None = None  # what a bare 제3조 belongs to; None after a contract's article
        self.last_place: _Place | None = None  # what 같은 조 means
        self.aliases: dict[str, _Act] = {}  # (이하 '특별법'이라 한다)

    def read(self) -> list[Citation]:
        readers = {
            "document": self._read_document,
            "law": self._read_law,
            "bracket": self._read_bracket,
            "part": self._read_part,
            "same": self._read_same,
            "article": self._read_article,
        }
        while match := _TOKEN.search(self.text, self.position):
            self.position = match.end()
            next(read for kind, read in readers.items() if match[kind] is not None)(match)
        return self.found

    # --- What can begin ---

    def _read_law(self, match: re.Match) -> None:
        end = match.end()
        after = self._article_after(end)
        notes = _NOTES.match(self.text, end)
        named = None
        if after or notes or _MENTION.match(self.text, end) or _TOPIC.match(self.text, end):
            named = self._alias(end) or self._known_act(end)
        if not named and after:
            named = self._same_act(match.start(), end)
        if not named and (after or (notes and _ALIAS.search(notes["notes"]))):
            named = self._generic_act(end)
        if named:
            self._use_act(*named, end, after)

    def _read_bracket(self, match: re.Match) -> None:
        end = match.end()
        after = self._article_after(end)
        if act := self._bracketed_act(match["name"]):
            self._use_act(*self._with_words_before(act, match.start()), "name", end, after)
        elif after and re.search(rf"(?:{_DOCUMENTS})\s?$", match["name"]):
            self._leave_acts(after.end())
        else:
            self.position = match.start() + 1  # 「민법 제750조」: read on inside

    def _read_part(self, match: re.Match) -> None:
        """The 시행령, 부칙 or 같은 영 that stands alone; 같은 법 시행령 is read with 법."""
        part = match["part_name"] or ("시행규칙" if match["part"].endswith("규칙") else "시행령")
        read = self._places(match.end(), None, unmarked=False)
        act = self.own_act or self.carried
        if read and act:
            self._cite(*read, replace(act, part=part), match.start(), "same")
        else:
            self._leave_acts(match.end())

    def _read_document(self, match: re.Match) -> None:
        end = match.end("document")
        start = self._word_start(end)
        before = self.text[max(self.floor, start - 4) : start].rstrip()
        # 민사집행규칙 and 주택공급에 관한 규칙 are decrees; 취업규칙 is not.
        decree = match["document"] in ("규칙", "규정") and (
            before.endswith("관한") or _COURT_RULES.fullmatch(self.text, start, end)
        )
        after = self._article_after(end)
        if decree and after and (named := self._generic_act(end)):
            self._use_act(*named, end, after)
        else:
            self._leave_acts(match.end())

    def _read_same(self, match: re.Match) -> None:
        """같은 조 제2항, 같은 항 제1호."""
        if not self.carried or not self.last_place:
            return
        base = _Place(self.last_place.article)
        if match["same"].endswith("항"):
            base = replace(base, paragraph=self.last_place.paragraph, level=1)
        place, end = self._details(base, match.end())
        if place.level > base.level:
            self._cite([place], end, self.carried, match.start(), "same")

    def _read_article(self, match: re.Match) -> None:
        read = self._places(match.start(), None, unmarked=False)
        if read and self.own_act:
            self._cite(*read, self.own_act, match.start(), "within")
        elif read and self.carried:
            self._cite(*read, self.carried, match.start(), "carried")
        elif read:
            self._leave_acts(match.start())

    # --- Acts ---

    def _article_after(self, end: int) -> re.Match | None:
        """What stands between an act that ends at `end` and its article, if one follows."""
        after = _AFTER_ACT.match(self.text, end)
        article = after and _ARTICLE.match(self.text, after.end())
        if not article:
            return None
        # 민법은 3조 원을: where something stands between, only 제 makes an article of it.
        return after if article["mark"] or article["section"] or not after["loose"].strip() else None

    def _use_act(self, act: _Act, start: int, via: str, end: int, after: re.Match | None) -> None:
        """Cite the articles after an act that is written from `start` to `end`, or keep it for those to come."""
        notes = _NOTES.match(self.text, end)
        for alias in _ALIAS.finditer(notes["notes"] if notes else ""):
            self.aliases[_compact(alias[1])] = replace(act, part="")
        if after:
            act = _with_notes(act, after["notes"] + (after["part_notes"] or ""))
            act = replace(act, part=" ".join(part for part in (act.part, after["part"], after["supplement"]) if part))
            places, places_end = self._places(after.end(), None, unmarked=True)
            # 민법은 제103조에서: the act is apart from the article, and no part of the span.
            apart = "가" <= after["loose"][:1] <= "힣"
            self._cite(places, places_end, act, after.end() if apart else start, via)
            return
        act = _with_notes(act, notes["notes"] if notes else "")
        if part := _PART.match(self.text, end):
            act, end = replace(act, part=part[1]), part.end()
        if self.carried is None or _TOPIC.match(self.text, end):
            self.last_act = self.carried = act
            self.last_place = None
        elif self.text[start] in "「『":
            self.last_act = act  # in formal drafting 같은 법 is the one named last; in prose, the one last cited
        self.position = self.floor = end

    def _leave_acts(self, position: int) -> None:
        """Step over the articles at `position`, which belong to no act; the bare ones after them do not either."""
        self.carried = self.last_place = None
        read = self._places(position, None, unmarked=False)
        while read:
            self.position = self.floor = read[1]
            connector = _AND.match(self.text, read[1]) or _TO.match(self.text, read[1])
            read = connector and self._places(connector.end(), read[0][-1], unmarked=True)

    def _known_act(self, end: int) -> _Named | None:
        """The longest name of the table that ends at `end`, whatever the spaces in it, and starts a word."""
        names, lengths = _act_names()
        letters, offsets, spaces = [], [], 0
        for offset in range(end - 1, max(self.floor, end - 60) - 1, -1):
            letter = self.text[offset]
            if "가" <= letter <= "힣":
                letters.append(letter)
                offsets.append(offset)
                spaces = 0
                if len(letters) == lengths[0]:
                    break
            elif letter.isspace() and spaces < 2:
                spaces += 1
            elif letter != "·":
                break
        name = "".join(reversed(letters))
        for length in lengths:
            law = names.get(name[-length:]) if length <= len(name) else None
            if law is not None and (prefix := self._prefix(offsets[length - 1])) is not None:
                act = _Act(law, former=prefix == "구")
                return *self._with_words_before(act, offsets[length - 1] - len(prefix)), "name"
        return None

    def _prefix(self, start: int) -> str | None:
        """What is written onto the front of a name (구민법), mostly ""; None for the tail of another word (난민법)."""
        for prefix in ("", *_ATTACHED):
            begin = start - len(prefix)
            starts_word = begin == self.floor or not "가" <= self.text[begin - 1] <= "힣"
            if begin >= self.floor and self.text.startswith(prefix, begin) and starts_word:
                return prefix
        return None

    def _word_start(self, end: int) -> int:
        start = end
        while start > max(self.floor, end - 30) and (
            "가" <= self.text[start - 1] <= "힣" or self.text[start - 1] == "·"
        ):
            start -= 1
        return start

    def _alias(self, end: int) -> _Named | None:
        start = self._word_start(end)
        act = self.aliases.get(_compact(self.text[start:end])) if self.aliases else None
        return (act, start, "name") if act else None

    def _same_act(self, start: int, end: int) -> _Named | None:
        """같은 법, 동법, 위 법, and 법 or 특별법 alone: the act named last, without its 시행령."""
        before_start = max(self.floor, start - 5)
        same = _SAME_BEFORE.search(self.text[before_start:start])
        if same:
            start = before_start + same.start("same")
        else:
            start = self._word_start(end)
            word = self.text[start:end]
            if word not in _BARE_ACTS or self._words_start(start, end) is not None:
                return None
        own = self.own_act is not None and same is not None and same["same"] in ("이", "본")
        act = self.own_act if own else self.last_act
        return (replace(act, part=""), start, "same") if act else None

    def _generic_act(self, end: int) -> _Named | None:
        """An act outside the table, by the shape of its name."""
        start = self._word_start(end)
        word = self.text[start:end].lstrip("·")
        for prefix in ("개정", "현행"):
            if len(word) > 4:
                word = word.removeprefix(prefix)
        start = end - len(word)
        words_start = self._words_start(start, end)
        if words_start is not None:
            start = words_start
        elif _NO_ACT.fullmatch(word) or word in _BARE_ACTS:
            return None
        name = " ".join(self.text[start:end].split()).replace("·", _OFFICIAL_DOT)
        return *self._with_words_before(_Act(name), start), "name"

    def _words_start(self, start: int, end: int) -> int | None:
        """Where a name of several words begins whose last word is given; None if it is a name by itself.

        A heuristic for 교통사고처리에 관한 특례법 where it is neither in the table nor in brackets: it goes back over
        nouns, genitives, 및 and 등, and stops at a word that ends like a part of the sentence (피고인은).
        """
        floor = max(self.floor, start - 80)
        words = list(re.finditer(r"\S+", self.text[floor:start]))
        if not words or words[-1].end() == start - floor:
            return None
        texts = [word[0] for word in words]
        first = len(texts)
        if texts[-1] in ("관한", "위한"):
            if first < 2 or not texts[-2].endswith(("에", "을", "를")):
                return None
            first -= 2
        elif not _NAME_TAIL.fullmatch(self.text, start, end):
            return None
        nouns = 0
        while first > 0 and len(texts) - first < 10:
            word = texts[first - 1]
            following = texts[first] if first < len(texts) else ""
            if _LIST_MEMBER.fullmatch(word) or not _HANGUL_WORD.fullmatch(word):
                break
            if word in ("및", "등", "등의"):
                if first == 1 or _LIST_MEMBER.fullmatch(texts[first - 2]):
                    break
                nouns = 0
            elif following in ("및", "등", "등의", "등에") or (
                word.endswith(("의", "와", "과")) and not following.endswith("의")
            ):
                nouns = 0
            elif nouns == 2 or _SENTENCE_WORD.fullmatch(word):
                break
            else:
                nouns += 1
            first -= 1
        if first == len(texts):
            return None
        return floor + words[first].start()

    def _with_words_before(self, act: _Act, start: int) -> tuple[_Act, int]:
        """Take in 구 or 독일 before a name that starts at `start`."""
        begin = max(self.floor, start - 12)
        before = self.text[begin:start]
        if country := _COUNTRY_BEFORE.search(before):
            return replace(act, name=f"{country['country']} {act.name}"), begin + country.start("country")
        if former := _FORMER_BEFORE.search(before):
            return replace(act, former=True), begin + former.start("mark")
        return act, start

    def _bracketed_act(self, name: str) -> _Act | None:
        """The act of 「...」; None for a contract, a book, or a whole citation in brackets."""
        name = " ".join(name.split()).replace("·", _OFFICIAL_DOT)
        former = name.startswith("구 ")
        name = name.removeprefix("구 ")
        part = next((part for part in _PARTS if name.endswith(part)), "")
        base = name.removesuffix(part).strip()
        if known := _act_names()[0].get(_compact(base)):
            return _Act(known, part, former)
        if alias := self.aliases.get(_compact(base)):
            return replace(alias, part=part)
        if not _BRACKETED_ACT.fullmatch(name) or _CITES.search(name):
            return None
        return _Act(base or name, part if base else "", former)

    # --- Articles ---

    def _places(self, position: int, base: _Place | None, *, unmarked: bool) -> tuple[list[_Place], int] | None:
        """What article (or 항, 호, 목 in a list with `base`) is written at `position`, and where it ends.

        `unmarked` allows 750조 without 제. 제186·187조 is several places.
        """
        article = _ARTICLE.match(self.text, position)
        if article and (article["mark"] or article["section"] or unmarked):
            places = _article_places(article)
            last, end = self._details(places[-1], article.end())
            return [*places[:-1], last], end
        for level, pattern in ((1, _PARAGRAPH), (2, _ITEM), (3, _SUBITEM)):
            if base and level <= base.level and pattern.match(self.text, position):
                place = _Place(
                    article=base.article,
                    paragraph=base.paragraph if level > 1 else None,
                    item=base.item if level > 2 else None,
                    level=level - 1,
                )
                place, end = self._details(place, position)
                return [place], end
        return None

    def _details(self, place: _Place, position: int) -> tuple[_Place, int]:
        """Read title, 항, 호, 목 and 단서 at `position`, below what `place` already holds."""
        if place.level == 0 and not place.title and (match := _TITLE.match(self.text, position)):
            group = match.lastgroup
            title = self.original[match.start(group) : match.end(group)].strip()
            cites = _CITES.search(match[group]) and not title.startswith("「")
            if title and not cites and not _NO_TITLE.match(title):
                place, position = replace(place, title=title), match.end()
            elif not cites and not title.isdigit() and _PARAGRAPH.match(self.text, match.end()):
                position = match.end()  # an amendment note between 조 and 항
        if place.level < 1 and (match := _PARAGRAPH.match(self.text, position)):
            circled = match["circled"]
            number = _CIRCLED[circled] if circled else int(match["number"] or match["bracketed"])
            place, position = replace(place, paragraph=number, level=1), match.end()
        # (1) is a 항 after 조 and a 호 after 항.
        match = _ITEM.match(self.text, position) if place.level < 2 else None
        if match and (place.level == 1 or not match["bracketed"]):
            number = int(match["number"] or match["unmarked"] or match["bracketed"])
            item = (number, int(match["branch"] or match["branch_apart"] or 0))
            place, position = replace(place, item=item, level=2), match.end()
        if place.level == 2 and (match := _SUBITEM.match(self.text, position)):
            place, position = replace(place, subitem=match[1], level=3), match.end()
        if match := _CLAUSE.match(self.text, position):
            place, position = replace(place, clause=_CLAUSES.get(match[1], match[1])), match.end()
        return place, position

    def _cite(self, places: list[_Place], end: int, act: _Act, start: int, via: str) -> None:
        """Add places that end at `end` as citations, and the ranges and lists that go on from them."""
        self._add(places, act, start, end, via)
        while True:
            last = places[-1]
            if (to := _TO.match(self.text, end)) and (read := self._places(to.end(), last, unmarked=True)):
                until = _UNTIL.match(self.text, read[1])
                # 제1조에서 제2조를 준용한다 is no range.
                if until or "에서" not in to[0]:
                    end = until.end() if until else read[1]
                    first = self.found[-1]
                    for _ in places:
                        self.found.pop()
                    places = [*places, *_places_between(last, read[0][0]), *read[0]]
                    self._add(places, act, first.start, end, first.via)
                    continue
            if and_ := _AND.match(self.text, end):
                if and_["same"]:  # 제3조제1항 및 같은 조 제3항
                    place, place_end = self._details(_Place(last.article), and_.end())
                    read = ([place], place_end) if place.level else None
                else:
                    read = self._places(and_.end(), last, unmarked=True)
                if read:
                    start = and_.start("same") if and_["same"] else and_.end()
                    places, end = read
                    self._add(places, act, start, end, via if via in ("carried", "within") else "list")
                    continue
            break
        self.carried = act
        if via != "within":
            self.last_act = act
        self.last_place = places[-1]
        self.position = self.floor = end

    def _add(self, places: list[_Place], act: _Act, start: int, end: int, via: str) -> None:
        for place in places:
            item = place.item and str(place.item[0]) + (f"의{place.item[1]}" if place.item[1] else "")
            self.found.append(
                Citation(
                    law=act.law,
                    article=article_name(place.article),
                    paragraph=place.paragraph,
                    item=item,
                    subitem=place.subitem,
                    clause=place.clause,
                    title=place.title,
                    former=act.former,
                    former_date=act.former_date,
                    via=via,
                    start=start,
                    end=end,
                )
            )


def _with_notes(act: _Act, notes: str) -> _Act:
    """Read (2023. 4. 18. 법률 제19356호로 개정되기 전의 것) beside an act."""
    if not act.former and not _FORMER_NOTE.search(notes):
        return act
    date = _DATE.search(notes)
    written = f"{date[1]}-{int(date[2]):02}-{int(date[3]):02}" if date else act.former_date
    return replace(act, former=True, former_date=written)


def _article_places(match: re.Match) -> list[_Place]:
    """The articles of an `_ARTICLE` match, ranges such as 제211~213조 expanded."""
    if match["section"]:
        return [_Place((int(match["section"]), int(match["section_branch"] or 0)))]
    parts = _NUMBER_SEPARATOR.split(match["numbers"])
    numbers = []
    for part in parts[::2]:
        number, _, branch = part.partition("의")
        numbers.append((int(number), int(branch or 0)))
    if branch := match["branch"] or match["branch_apart"]:
        numbers[-1] = (numbers[-1][0], int(branch))
    places = [_Place(numbers[0])]
    for separator, number in zip(parts[1::2], numbers[1:], strict=True):
        if separator in ("~", "-", "내지"):
            places += [_Place(between) for between in _numbers_between(places[-1].article, number)]
        places.append(_Place(number))
    return places


def _numbers_between(first: ArticleNumber, last: ArticleNumber) -> list[ArticleNumber]:
    """The numbers strictly between two ends of a range, as far as the ends alone tell.

    Between plain numbers stand plain numbers, between 제3조의2 and 제3조의7 의-numbers, the first of which is 의2.
    """
    (n1, m1), (n2, m2) = first, last
    if max(n2 - n1, m2) > RANGE_LIMIT:
        return []
    if n1 == n2:
        return [(n1, m) for m in range(max(m1, 1) + 1, m2)]
    between = [(n, 0) for n in range(n1 + 1, n2)]
    if m2 and n1 < n2:
        between += [(n2, 0), *((n2, m) for m in range(2, m2))]
    return between


def _places_between(first: _Place, last: _Place) -> list[_Place]:
    """The places strictly between two ends of a range, on the level of its last end."""
    if first.article != last.article:
        return [_Place(number) for number in _numbers_between(first.article, last.article)]
    plain = replace(first, title=None, clause=None, subitem=None, level=last.level)
    if last.level == 1 and first.paragraph and last.paragraph:
        numbers = _numbers_between((first.paragraph, 0), (last.paragraph, 0))
        return [replace(plain, paragraph=number, item=None) for number, _ in numbers]
    if first.paragraph == last.paragraph and last.level == 2 and first.item and last.item:
        return [replace(plain, item=number) for number in _numbers_between(first.item, last.item)]
    if first.paragraph == last.paragraph and first.item == last.item and first.subitem and last.subitem:
        letters = _SUBITEMS[_SUBITEMS.index(first.subitem) + 1 : _SUBITEMS.index(last.subitem)]
        return [replace(plain, subitem=letter) for letter in letters]
    return []
