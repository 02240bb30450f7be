"""The citation parser against hand-worked cases, and what it promises about spans and odd input."""

import dataclasses
import itertools
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from civilqa.law.citations import Citation, judge_citation, parse_citations
from civilqa.law.statutes import (
    DELETED,
    EXISTS,
    NO_SUCH_ARTICLE,
    NO_SUCH_PARAGRAPH,
    NOT_YET_IN_FORCE,
    OUTSIDE_TABLE,
    article_name,
    load_reference,
)
from civilqa.law.verdicts import title_matches

CASES = json.loads((Path(__file__).parent / "citation_cases.json").read_text(encoding="utf-8"))

# What citations are made of, so that random text meets the parser's patterns often.
FRAGMENTS = (
    *(
        "민법",
        "주임법",
        "民法",
        "「",
        "」",
        "법",
        "법률",
        "등에 관한 ",
        "같은 법 ",
        "시행령",
        "부칙 ",
        "구 ",
        "(이하 '",
        "계약서 ",
    ),
    *("제", "1", "3", "조", "의", "2", "항", "호", "가목", "①", "(", ")", "[", "]", "§", " ", "\n", ",", "·", "~", "-"),
    *("부터 ", "까지", " 내지 ", " 및 ", "같은 조 ", "단서", "원", "가지", "개정되기 전", "．", "ᄆ", "ᅵ", "ᆫ"),
)


def only(text: str) -> Citation:
    (citation,) = parse_citations(text)
    return citation


def quoted(text: str) -> list[str]:
    normal = unicodedata.normalize("NFC", text)
    return [normal[citation.start : citation.end] for citation in parse_citations(text)]


@pytest.mark.parametrize("group", sorted({case["group"] for case in CASES}))
def test_texts_give_the_citations_worked_out_by_hand_decomposed_too(group):
    wrong = []
    for case in (case for case in CASES if case["group"] == group):
        found = parse_citations(case["text"])
        written = [[c.law, c.article, c.paragraph, c.item] for c in found]
        if written != case["expected"]:
            wrong.append(f"{case['text']}: found {written}, want {case['expected']}")
        if parse_citations(unicodedata.normalize("NFD", case["text"])) != found:
            wrong.append(f"{case['text']}: other citations where it is decomposed")
    assert not wrong, "\n".join(wrong)


def test_a_text_is_parsed_once_and_nobody_can_change_what_was_found():
    text = "민법 제750조, 제751조"
    assert parse_citations(text) is parse_citations(text)
    assert isinstance(parse_citations(text), tuple)
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse_citations(text)[0].law = "형법"


def test_there_are_at_least_150_different_cases():
    assert len({case["text"] for case in CASES}) >= 150


@pytest.mark.parametrize(
    ("text", "subitem"),
    [
        ("법인세법 제2조제12호가목", "가"),
        ("법인세법 제2조 제12호 나목", "나"),
        ("법인세법 제2조제12호(다)목", "다"),
        ("법인세법 제2조제12호", None),
        ("민법 제2조 가목적", None),
    ],
)
def test_subitem_is_read_after_an_item(text, subitem):
    assert only(text).subitem == subitem


def test_subitem_range_is_expanded():
    found = parse_citations("법인세법 제2조 제1호 나목부터 라목까지")
    assert [citation.subitem for citation in found] == ["나", "다", "라"]


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("민법 제109조 제1항 단서", "단서"),
        ("민법 제109조제1항본문", "본문"),
        ("민법 제390조 전단", "전단"),
        ("민법 제126조 후문", "후단"),
        ("집합건물법 제25조 제1항 각 호 외의 부분 단서", "단서"),
        ("민법 제390조 전문가", None),
        ("민법 제390조", None),
    ],
)
def test_clause_is_one_of_four_or_none(text, clause):
    assert only(text).clause == clause


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("민법 제750조(불법행위의 내용)", "불법행위의 내용"),
        ("민법 제750조 (불법행위의 내용) 제1항", "불법행위의 내용"),
        ("민법 제750조【불법행위의 내용】", "불법행위의 내용"),
        ("민법 제50조(분사무소(分事務所) 설치의 등기)", "분사무소(分事務所) 설치의 등기"),
        ("민사집행법 제48조(제3자이의의 소)", "제3자이의의 소"),
        ("민법 제750조", None),
        ("민법 제750조(1)", None),
        ("민법 제750조(2020. 1. 1. 개정)", None),
        ("민법 제750조(이하 같다)", None),
        ("민법 제750조(제1항은 제외한다)", None),
        ("민법 제750조(대법원 2019. 1. 1. 선고)", None),
        ("민법 제750조(임차인이 전입신고를 한다)", None),
    ],
)
def test_brackets_after_an_article_are_its_title_unless_they_are_a_note(text, title):
    assert only(text).title == title


@pytest.mark.parametrize(
    ("text", "former", "date"),
    [
        ("구 주택임대차보호법(2023. 4. 18. 법률 제19356호로 개정되기 전의 것) 제3조의3", True, "2023-04-18"),
        ("주택임대차보호법(2023. 4. 18. 법률 제19356호로 개정되기 전의 것) 제3조의3", True, "2023-04-18"),
        ("구민법 제984조", True, None),
        ("개정 전 민법 제766조", True, None),
        ("「구 민법」 제984조", True, None),
        ("현행 민법 제766조", False, None),
        ("대구 민법 제766조", False, None),
        ("주택임대차보호법(법률 제21065호) 제3조", False, None),
    ],
)
def test_former_version_and_its_date_are_told_apart(text, former, date):
    citation = only(text)
    assert (citation.former, citation.former_date) == (former, date)


def test_same_act_as_a_former_version_is_that_version():
    found = parse_citations("구 민법(1990. 1. 13. 법률 제4199호로 개정되기 전의 것) 제984조, 같은 법 제996조")
    assert [citation.former_date for citation in found] == ["1990-01-13", "1990-01-13"]


def test_via_tells_how_the_act_was_found():
    found = parse_citations("민법 제1조, 제2조 및 같은 법 제3조를 본다. 제4조도 같다.")
    assert [citation.via for citation in found] == ["name", "list", "same", "carried"]


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("손해는 민법 제750조에 따라", ["민법 제750조"]),
        ("구 「민법」 제750조 제1항 본문의", ["구 「민법」 제750조 제1항 본문"]),
        ("민법 제186조ㆍ제187조", ["민법 제186조", "제187조"]),
        ("민법 제1조부터 제3조까지는", ["민법 제1조부터 제3조까지"] * 3),
        ("주임법 제3조 제1항과 같은 조 제2항", ["주임법 제3조 제1항", "같은 조 제2항"]),
        ("민법은 제103조에서", ["제103조"]),
        ("그러나 民法 제103조에서", ["民法 제103조"]),
        ("민법 제640조의 2기 차임", ["민법 제640조"]),
        (unicodedata.normalize("NFD", "가나다 민법 제750조에"), ["민법 제750조"]),
    ],
)
def test_span_is_the_citation_in_the_composed_text(text, spans):
    assert quoted(text) == spans


@given(st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)))
def test_spans_of_any_text_lie_within_it_and_are_the_same_or_apart(text):
    length = len(unicodedata.normalize("NFC", text))
    spans = [(citation.start, citation.end) for citation in parse_citations(text)]
    assert all(0 <= start < end <= length for start, end in spans)
    assert all(a == b or a[1] <= b[0] for a, b in itertools.pairwise(spans))


def test_range_of_more_than_a_hundred_articles_gives_its_ends():
    assert [citation.article for citation in parse_citations("민법 제1조부터 제9999조까지")] == ["제1조", "제9999조"]


def test_bare_article_within_an_acts_own_text_is_that_acts():
    found = parse_citations(
        "「민법」 제621조, 제622조에 따른 등기는 제3조와 이 법 제4조를 준용한다.", within="주택임대차보호법"
    )
    assert [(citation.law, citation.article) for citation in found] == [
        ("민법", "제621조"),
        ("민법", "제622조"),
        ("주택임대차보호법", "제3조"),
        ("주택임대차보호법", "제4조"),
    ]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("민법 제750조", EXISTS),
        ("주임법 제3조의7", EXISTS),
        ("주택임대차보호법 제5조", DELETED),
        ("주택임대차보호법 제3조의8", NO_SUCH_ARTICLE),
        ("민법 제1119조", NO_SUCH_ARTICLE),
        ("민법 제0조", NO_SUCH_ARTICLE),
        ("민법 제750조의1", NO_SUCH_ARTICLE),
        ("형법 제98조의2", NOT_YET_IN_FORCE),
        ("형법 제123조의2", EXISTS),
        ("주택임대차보호법 제3조 제6항", EXISTS),
        ("주택임대차보호법 제3조 제15항", NO_SUCH_PARAGRAPH),
        ("민법 제750조 제1항", EXISTS),  # not divided: its own first paragraph
        ("민법 제750조 제2항", NO_SUCH_PARAGRAPH),
        ("구 주택임대차보호법 제3조 제15항", OUTSIDE_TABLE),
        # in force since 2024-11-11 and 2026-05-12
        ("구 전세사기피해자법(2024. 9. 10. 법률 제20429호로 개정되기 전의 것) 제25조의2", NOT_YET_IN_FORCE),
        ("구 전세사기피해자법(2026. 5. 12. 법률 제21634호로 개정되기 전의 것) 제25조의2", EXISTS),
        ("구 전세사기피해자법(2026. 5. 12. 법률 제21634호로 개정되기 전의 것) 제25조 제14항", NOT_YET_IN_FORCE),
        # deleted on 2024-02-09
        ("구 형법(2024. 2. 9. 개정되기 전의 것) 제251조", EXISTS),
        ("구 형법(2025. 3. 18. 개정되기 전의 것) 제251조", DELETED),
        ("구 형법(2025. 13. 45. 개정되기 전의 것) 제251조", OUTSIDE_TABLE),
        ("구 민법(2002. 1. 14. 개정되기 전의 것) 제651조", OUTSIDE_TABLE),
        ("주택임대차보호법 시행령 제10조", EXISTS),
        ("난민법 제3조", OUTSIDE_TABLE),
        ("독일 민법 제9999조", OUTSIDE_TABLE),
        ("주택임대차보호법 시행령 제99조", NO_SUCH_ARTICLE),
        ("주택임대차보호법 부칙 제99조", OUTSIDE_TABLE),
        ("구 민법 제1119조", OUTSIDE_TABLE),
        ("구 민법 제750조", EXISTS),
    ],
)
def test_citation_is_judged_against_the_table(text, status):
    assert judge_citation(only(text), load_reference()) == status


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("민법 제750조(불법행위의 내용)", True),
        ("민법 제750조(불법행위의내용)", True),
        ("민법 제750조(사기)", False),
        ("주택임대차보호법 제3조(대항력)", True),
        ("주택임대차보호법 제3조의3(임차권등기 명령)", True),
        ("민법 제50조(분사무소 설치의 등기)", True),
        ("민법 제750조", None),
        ("난민법 제3조(강제송환의 금지)", None),
        ("구 민법 제750조(손해의 배상)", None),
        ("민법 제750조(불법행위)", None),
        ("민법 제536조(동시이행항변권)", None),
        ("민법 제390조(채무불이행)", None),
        ("민법 제618조(임대차)", None),
        ("형법 제347조(사기죄)", None),
        ("민법 제162조(10년)", None),
        ("민법 제766조(안 날부터 3년)", None),
        ("민법 제621조(임대차의 갱신)", False),
    ],
)
def test_title_is_compared_with_the_official_one(text, matches):
    """A gloss that is a part of the title, or a number, is neither it nor another."""
    assert title_matches(only(text), load_reference()) is matches


def test_an_article_that_will_be_divided_is_its_first_paragraph_until_then():
    reference = load_reference()
    later = [
        (law, article_name(number))
        for law, act in reference.acts.items()
        for number, paragraphs in act.paragraphs.items()
        if act.statuses.get(number) == EXISTS
        and all(act.status(number, each, reference.as_of) == NOT_YET_IN_FORCE for each in paragraphs if each > 1)
        and max(paragraphs) > 1
    ]
    assert later
    for law, article in later:
        assert reference.status(law, article, 1) == EXISTS, (law, article)


def test_what_a_text_says_of_now_is_of_the_present_version():
    former, present = parse_citations("구 민법 제651조는 20년 제한을 두었습니다. 지금은 제1200조에 따릅니다.")
    assert (former.former, present.former) == (True, False)
    assert judge_citation(present, load_reference()) == NO_SUCH_ARTICLE
