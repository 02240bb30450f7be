"""Whether an answer abstains: it says that it cannot answer, or sends the asker to someone else, and says no law.

Read by its clauses. A clause asserts something unless it is a condition, an embedded question (…는지), or describes a
noun. Where every clause that asserts is about answering itself, a refusal, a referral, a hedge or a courtesy, nothing
is left that could be right or wrong. 임차인은 보호받지만 자세한 것은 변호사와 상담하십시오 says something: an answer.
"""

import re
from functools import lru_cache
from itertools import groupby

from civilqa.law.korean import Morpheme, split_sentences
from civilqa.scoring.clauses import QUOTING, is_denied, split_clauses

Part = list[Morpheme]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# What one does who answers, and cannot do in a refusal: 답변드릴 수 없습니다, 판단하기 어렵습니다.
_TELLING = _set(
    "알 알리 모르 답 답변 대답 응답 판단 판정 말 말씀 말씀드리 설명 안내 제공 조언 자문 상담 단정 단언 "
    "확답 장담 예측 확인 결론 도움 돕 의견 파악 가늠 해석 이해"
)
# What stands around that without a meaning of its own: 답변을 드릴 수 있는 입장이 아닙니다.
_LIGHT = _set(
    "드리 하 되 내리 있 없 어렵 힘들 곤란 불가 불가능 못하 못 않 주 보 같 수 것 상황 입장 형편 상태 모르 생성 작성 가능"
)
_SELF = _set("저 저희 나 본 서비스 AI 모델 챗봇")
_UNABLE = _set("어렵 힘들 곤란 불 불가 불가능 못하 못 모르 겠 없")
# Asking someone else: the first kind of words by themselves, the second with someone who is asked.
_CONSULTING = _set("상담 문의 자문 조언 질의 상의 의논 검색 참고 참조 알아보")
_TURNING_TO = _set("의뢰 선임 도움 검토 진단 묻 물 물어보 여쭙 여쭈 찾아가 찾 방문 확인 연락 전화 맡기 조력 판단")
_SOMEONE = re.compile(
    r".*(?:변호사|법무사|세무사|노무사|중개사|전문가|공단|센터|상담소|등기소|협회|위원회|기관|법원|관청|[구시군]청|"
    r"법인|담당자?|당국)$"
)
# What advice adds: 도움을 구하는 것이 좋습니다.
_ADVISED = _LIGHT | _set(
    "바라 권하 권장 추천 권고 좋 낫 필요 요망 안전 현명 바람직 부탁 받 구하 얻 통하 어떻 보이 생각 권 정확"
)
# What one does on the way to being advised: 계약서를 가지고 변호사와 상담하여 해결하십시오.
_ALONG_WITH_IT = _set("가지 갖추 지참 준비 챙기 모으 정리 해결 진행 대응 대처")
_PARTY = re.compile(
    r"(?:자|사람|.*(?:임[대차]인|주인|세입자|매[도수]인|양[도수]인|채[권무]자|소유자|점유자|당사자|삼자|상속인|보증인|"
    r"대리인|중개사|법원|은행|권자))$"
)
# What sentences about answering are made of. One of the first kind must be there: 가능합니다 alone is a conclusion.
_ABOUT_ANSWERS = _TELLING | _set(
    "질문 문의 질의 사정 사안 사실관계 상황 정보 자료 지식 데이터 AI 인공지능 모델 챗봇 죄송 감사 안녕 양해 유감 "
    "전문가 변호사 결과 다르 달라지 궁금 복잡 애매 모호 불분명 불명확 민감 조심 엇갈리 확실 분명 안타깝 아쉽"
)
_COURTESIES = _set("안녕 감사 궁금 양해")
_BESIDES = _LIGHT | _set(
    "범위 부족 한계 벗어나 밖 좌우 보류 거절 거부 사양 내용 사건 사항 경우 부분 점 구체 개별 정확 자세 상세 전문 "
    "법률 법 법령 판례 분야 영역 주제 능력 최종 관련 해당 추가 일반 언어 민사 시간 이해 부탁 필요 따르 바라 좋 크 "
    "많 적 들 받 구하 얻 찾 결정 검토 바뀌 생각 자세하 정확하 저 나 제 저희 본 여기 이것 그것 문제 여러 가지 요소 "
    "제시 주어지 충분 이상 통하 때문 정도 신중 주의 까다롭 쉽 주시 남기 이 그 법원 기관 대한 서비스 마디 이거 "
    "그거"
)
_KNOWN = _ABOUT_ANSWERS | _BESIDES
_MEANINGFUL = ("NNG", "NNP", "NP", "VV", "VA", "XR", "SL", "IC")
_REASON = re.compile(r"[어아여]서?|므로|으?니까?|라서?")
_BACKGROUND = re.compile(r".*(?:면|거든|[는은ᆫᆯ을]지|도록|고자|러|려고?|[어아여]도|더라도|라도|[ᆫ는은]가|게)$")


@lru_cache(maxsize=1024)
def abstains(text: str) -> bool:
    """Return whether an answer declines to answer, and says nothing else. A text without words does not."""
    declines = False
    for _, morphemes in split_sentences(text):
        kinds = [kind for kind in _kinds(split_clauses(morphemes)) if kind]
        form, tag = morphemes[0] if morphemes else ("", "")
        concludes = tag == "IC" and form.startswith(("네", "예", "아니")) and not {"refusal", "courtesy"} & {*kinds}
        if {"content", "reason"} & {*kinds} or concludes:
            return False
        declines |= bool({"refusal", "referral", "hedge"} & {*kinds})
    return declines


def _kinds(parts: list[Part]) -> list[str]:
    """Return of each clause what it does, '' where it asserts nothing."""
    kinds, described = [], []
    for part, following in zip(parts, [*parts[1:], []], strict=True):
        form, tag = next(((f, t) for f, t in reversed(part) if not t.startswith(("S", "JX"))), ("", ""))
        if not (words := _words(part)):
            kinds.append("content" if tag == "EF" else "")  # 아닙니다
        elif tag == "ETM" and not QUOTING.fullmatch(form):
            # 제가 답할 수 있는 | 범위를 벗어납니다 is about answering by both of its halves.
            described += words if {*words} <= _KNOWN else []
            kinds.append("")
            continue
        elif tag == "EC" and (
            _BACKGROUND.match(form)
            or following[:1] in ([("는", "JX")], [("은", "JX")])  # …고는, …에 대하여는
            or words[-1] in ("대하", "관하", "위하", "관련")
            or {*words} <= {"무엇", "뭐", "어떻"}  # 뭐라고 말씀드리기 어렵습니다
        ):
            kinds.append("")
        else:
            kinds.append(_kind(part, words, described, form))
        described = []
    if {"refusal", "referral", "hedge"} & {*kinds}:  # 판례가 없어 확답을 드리기 어렵습니다
        kinds = ["" if kind == "reason" else kind for kind in kinds]
    if "referral" in kinds:
        kinds = ["" if _ALONG_WITH_IT & {*_words(part)} else kind for kind, part in zip(kinds, parts, strict=True)]
    return kinds


def _kind(part: Part, words: list[str], described: list[str], form: str) -> str:
    """Return what a clause that asserts something does: refusal, referral, hedge, courtesy, or content."""
    forms, marked = {form for form, _ in part}, [*zip(part, [*part[1:], ("", "")], strict=True)]
    of_others = any(  # 임차인은 알 수 없습니다; 집주인과 상의하십시오
        _PARTY.match(form) and (tag == "JKS" or particle in ("은", "는") or (tag == "JKB" and not _SOMEONE.match(form)))
        for (form, _), (particle, tag) in marked
    )
    # 등기부에서 확인할 수 없습니다 says what a register shows.
    means = [
        form
        for (form, kind), (particle, _) in marked
        if kind.startswith("NN") and kind != "NNB" and particle in ("에서", "으로", "로") and form not in _KNOWN
    ]
    if of_others or part[-1][1].startswith("V"):
        return "content"
    denied = is_denied(part) or bool({"모르", "불"} & forms)
    told = next((word for word in reversed(words) if word not in _LIGHT or word == "모르"), "")
    unable = forms & _UNABLE or ("않" in forms and forms & _SELF)
    if denied and told in _TELLING and unable and not means:
        return "refusal"
    done = next((word for word in reversed(words) if word not in _ADVISED), "")
    someone = any(map(_SOMEONE.match, words)) and not means
    turns = someone and (
        done in _TURNING_TO or (_SOMEONE.match(done) and {*words} & (_CONSULTING | _TURNING_TO | {"필요"}))
    )
    if not denied and (done in _CONSULTING or turns):
        return "referral"
    said = {*words, *described}
    if not said <= _KNOWN:
        return "content"
    if not said & _ABOUT_ANSWERS:
        return "reason" if _REASON.match(form) else "content"
    return "hedge" if said & _ABOUT_ANSWERS - _COURTESIES else "courtesy"


def _words(part: Part) -> list[str]:
    """Return the words that carry meaning, in order; neighbouring nouns as one where that is a word of answering."""
    words: list[str] = []
    for noun, run in groupby(part, key=lambda morpheme: morpheme[1] in ("NNG", "NNP", "XPN", "XSN")):
        forms = [form for form, tag in run if noun or tag.startswith(_MEANINGFUL) or form == "잘못"]
        while noun and forms:
            ends = range(len(forms), 0, -1)
            end = next((end for end in ends if "".join(forms[:end]) in _KNOWN), 1)
            words.append("".join(forms[:end]))
            forms = forms[end:]
        words += forms
    return [word for word in words if word not in ("적", "성", "불")]
