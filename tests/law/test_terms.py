"""What is in force for a term (유효기간) ends with it."""

from datetime import date

import pytest
from statute_texts import ACT, act_text, commit, supplement

from civilqa.law.changes import ENDED, changes_between
from civilqa.law.commencement import read_going_on, read_term
from civilqa.law.timeline import article_text, read_timeline
from civilqa.law.versions import open_statutes

ARTICLES = [(number, 0) for number in range(1, 10)] + [(4, 2)]
TERM = "제2조(유효기간) 이 법은 시행 후 2년이 경과하는 날까지 효력을 가진다."
TEXT = "##### 제1조 (목적)\n\n목적이다.\n\n##### 제2조 (센터)\n\n센터이다.\n"
START = "제1조(시행일) 이 법은 공포한 날부터 시행한다."


@pytest.mark.parametrize(
    ("text", "last", "places"),
    [
        (TERM, "2025-05-31", ()),
        ("제2조(유효기간) 제3조의 개정규정은 이 법 시행일부터 2026년 12월 31일까지 효력을 가진다.", "2026-12-31", (3,)),
        ("제2조 (유효기간) 제3조ㆍ제5조 및 제6조는 2024년 12월 31일까지 그 효력을 가진다.", "2024-12-31", (3, 5, 6)),
        ("제2조(유효기간) 제7조의 개정규정은 이 영 시행일부터 4년간 효력을 가진다.", "2027-05-31", (7,)),
        ("제2조(기한) 제3조, 제2장(제4조부터 제6조까지) 및 같은 조 제2호는 2026년 1월 1일까지 효력을 가진다.",
         "2026-01-01", (3, 4, 5, 6)),
    ],
)  # fmt: skip
def test_the_last_day_of_a_term_is_read(text, last, places):
    terms = read_term(text, "부칙 제2조", date(2023, 6, 1), sorted(ARTICLES))
    assert {term.end.day for term in terms} == {date.fromisoformat(last)}
    assert {number for term in terms for (number, branch), _ in term.places if not branch} == set(places)


def test_a_month_without_the_day_ends_a_term_with_its_last():
    text = "제2조(유효기간) 이 법은 시행일부터 6개월간 효력을 가진다."
    (term,) = read_term(text, "부칙 제2조", date(2025, 8, 31), ARTICLES)
    assert term.end.day == date(2026, 2, 28)


@pytest.mark.parametrize(
    "text",
    [
        "① 공증인가의 유효기간은 5년으로 하되, 재인가할 수 있다.",
        "제2조(유효기간) 제3조제1항제3호가목 및 나목의 개정규정은 2026년 12월 31일까지 효력을 가진다.",
        "제2조(유효기간) 「농지법 시행령」 제3조의 개정규정은 2011년 6월 30일까지 효력을 가진다.",
        "제2조(유효기간) 별표 3 제2호가목의 개정규정은 2029년 3월 31일까지 효력을 가진다.",
        "② 제1항의 결정은 확정되어야 효력을 가진다.",
    ],
)
def test_other_terms_end_no_article(text):
    assert read_term(text, "부칙 제2조", date(2023, 6, 1), ARTICLES) == []


def test_articles_that_go_on_are_named_but_not_people_whose_rights_do():
    after = "에 대하여는 이 법의 유효기간이 만료된 이후에도 이 법을 적용한다."
    assert read_going_on(f"제4조(경과조치) 제4조의2에 따른 조사 및 제5조에 따른 센터{after}", ARTICLES) == {
        (4, 2),
        (5, 0),
    }
    assert read_going_on(f"제4조(경과조치) 제3조에 따른 신청을 한 사람{after}", ARTICLES) == set()


def test_an_act_ends_with_its_term_as_last_extended(tmp_path):
    open_statutes.cache_clear()
    for number, day, years in (("100", "2024-01-10", "2년"), ("200", "2024-06-01", "4년")):
        own = supplement("100", "2024-01-10", f"{START}\n\n{TERM.replace('2년', years)}")
        if number == "200":
            own += supplement("200", day, START)
        commit(tmp_path, day, {ACT: act_text(TEXT, own, number=number, promulgated=day, effective=day)})
    versions = open_statutes(tmp_path).histories(["임대법"])["임대법"]
    timeline = read_timeline(versions)
    assert article_text(timeline, (1, 0), date(2028, 1, 9))
    assert article_text(timeline, (1, 0), date(2028, 1, 10)) is None
    known = {version.commit for version in versions}
    assert changes_between(versions, known, date(2026, 1, 1), date(2028, 1, 9)) == []
    ended = changes_between(versions, known, date(2026, 1, 1), date(2028, 1, 10))
    assert [(change.article, change.kind, change.after) for change in ended] == [
        ("제1조", ENDED, ""),
        ("제2조", ENDED, ""),
    ]
    assert {change.promulgated for change in ended} == {date(2024, 1, 10)}
