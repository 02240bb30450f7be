"""The text of an article beside its citation."""

import pytest
from statute_texts import act_text, commit, supplement

from civilqa.law import article_texts
from civilqa.law.article_texts import cited_text, text_at_hand
from civilqa.law.statutes import load_reference
from civilqa.law.verdicts import look_up_citations
from civilqa.law.versions import open_statutes

ACT = "kr/신탁법/법률.md"  # an act of the table; the text is made up
FIRST = "##### 제2조 (한도)\n\n**①** 알린다.\n\n  1\\. 먼저\n\n**②** 한도는 5억원이다.\n"
LATER = (
    "제1조(시행일) 이 법은 공포한 날부터 시행한다. 다만, 제2조제2항 및 제3조의 개정규정은 2026년 12월 1일부터 시행한다."
)


@pytest.fixture
def statutes(tmp_path, monkeypatch):
    """Statutes with an act that was amended on 2026-06-01, in part from 2026-12-01 on; judged at 2026-06-08."""
    monkeypatch.chdir(tmp_path)
    for cached in (open_statutes, load_reference, article_texts._timelines):
        cached.cache_clear()
    commit(tmp_path / "statutes", "2024-01-10", {ACT: act_text(FIRST, law="신탁법")})
    second = FIRST.replace("5억원", "7억원").replace("알린다", "곧 알린다") + "\n##### 제3조 (신설)\n\n새 조문이다.\n"
    facts = {"law": "신탁법", "number": "200", "promulgated": "2026-06-01", "effective": "2026-06-01"}
    commit(
        tmp_path / "statutes", "2026-06-01", {ACT: act_text(second, supplement("200", "2026-06-01", LATER), **facts)}
    )
    (tmp_path / "params.yaml").write_text("reference:\n  as_of:\n  statutes: statutes\n", encoding="utf-8")
    yield tmp_path
    article_texts._timelines.cache_clear()


def test_the_text_is_that_in_force_on_the_day_that_citations_are_judged_at(statutes):
    assert text_at_hand("신탁법", "제2조") == "(한도)\n① 곧 알린다.\n1. 먼저\n② 한도는 5억원이다."


def test_a_text_to_come_says_from_when_on(statutes):
    assert text_at_hand("신탁법", "제3조") == "[2026-12-01 시행: 제200호 부칙 제1조 단서]\n(신설)\n새 조문이다."


@pytest.mark.parametrize(("law", "article"), [("신탁법", "제9조"), ("민법", "제1조"), ("신탁법 부칙", "제2조")])
def test_what_the_statutes_do_not_have_has_none(statutes, law, article):
    assert text_at_hand(law, article) is None


def test_without_statutes_there_is_none(statutes):
    (statutes / "params.yaml").write_text("reference: {as_of: , statutes: }\n", encoding="utf-8")
    assert text_at_hand("신탁법", "제2조") is None


@pytest.mark.parametrize(
    ("cited", "text"),
    [
        ("신탁법 제2조 제1항", "① 곧 알린다.\n1. 먼저"),
        ("신탁법 제2조 제2항", "② 한도는 5억원이다."),
        ("신탁법 제2조", "(한도)\n① 곧 알린다.\n1. 먼저\n② 한도는 5억원이다."),
    ],
)
def test_of_a_cited_paragraph_only_that_is_shown(statutes, cited, text):
    (citation,) = look_up_citations(cited)
    assert cited_text(citation) == text


def test_a_long_article_is_cut(statutes, monkeypatch):
    monkeypatch.setattr(article_texts, "CHARACTERS_SHOWN", 4)
    (citation,) = look_up_citations("신탁법 제2조")
    assert cited_text(citation) == "(한도)…"
