import unicodedata

import pytest

from civilqa.law.statutes import DELETED, EXISTS, NO_SUCH_ARTICLE, NO_SUCH_PARAGRAPH, NOT_YET_IN_FORCE, OUTSIDE_TABLE
from civilqa.law.verdicts import (
    KINDS,
    VERDICTS,
    citation_name,
    citation_verdict,
    cited_articles,
    distinct_citations,
    judge_citations,
    look_up_citations,
    mark_citations,
)


@pytest.mark.parametrize(
    ("text", "status", "title_matches", "mark", "name"),
    [
        ("민법 제750조(불법행위의 내용)", EXISTS, True, "✓", "민법 제750조(불법행위의 내용)"),
        ("민법 제750조", EXISTS, None, "✓", "민법 제750조(불법행위의 내용)"),
        ("민법 제186조(소유권의 내용)", EXISTS, False, "△", "민법 제186조(부동산물권변동의 효력)"),
        ("민법 제9999조", NO_SUCH_ARTICLE, None, "✗", "민법 제9999조"),
        ("민법 제436조", DELETED, None, "✗", "민법 제436조"),
        ("형법 제98조의2", NOT_YET_IN_FORCE, None, "△", "형법 제98조의2(외국 등을 위한 간첩)"),
        ("민법 제750조 제2항", NO_SUCH_PARAGRAPH, None, "✗", "민법 제750조(불법행위의 내용) 제2항"),
        ("난민법 제3조", OUTSIDE_TABLE, None, "?", "난민법 제3조"),
    ],
)
def test_a_citation_is_looked_up_named_and_marked(text, status, title_matches, mark, name):
    (citation,) = look_up_citations(f"손해는 {text}에 따라 물어냅니다.")
    assert (citation["text"], citation["start"], citation["end"]) == (text, 4, 4 + len(text))
    assert (citation["status"], citation["title_matches"]) == (status, title_matches)
    assert citation_verdict(citation)[0] == mark
    assert citation_name(citation) == name


def test_each_article_of_an_answer_is_looked_up_by_itself():
    answer = (
        "주택임대차보호법 제3조의3(임차권등기명령)에 따르고 민법 제9999조와 민법 제186조(소유권의 내용), "
        "상속세 및 증여세법 제3조도 봅니다."
    )
    found = {f"{c['law']} {c['article']}": (c["status"], citation_verdict(c)[0]) for c in look_up_citations(answer)}
    assert found == {
        "주택임대차보호법 제3조의3": (EXISTS, "✓"),
        "민법 제9999조": (NO_SUCH_ARTICLE, "✗"),
        "민법 제186조": (EXISTS, "△"),
        "상속세 및 증여세법 제3조": (OUTSIDE_TABLE, "?"),
    }
    first = look_up_citations(answer)[0]
    assert first["title"] == "임차권등기명령"
    assert answer[first["start"] : first["end"]].startswith("주택임대차보호법 제3조의3")


def test_an_invented_paragraph_is_no_citation_of_its_article():
    cited = judge_citations("주택임대차보호법 제3조 제15항과 민법 제750조에 따릅니다.")
    assert cited.invented == {("주택임대차보호법", "제3조 제15항")}
    assert cited.valid == {("민법", "제750조")}


def test_places_are_those_of_the_composed_text():
    text = "가나다 민법 제750조와 민법 제751조부터 제753조까지"
    assert look_up_citations(unicodedata.normalize("NFD", text)) == look_up_citations(text)
    assert [text[c["start"] : c["end"]] for c in look_up_citations(text)] == [
        c["text"] for c in look_up_citations(text)
    ]


def test_a_wrong_title_is_said_whatever_is_known_of_the_article():
    (citation,) = look_up_citations("민법 제186조(소유권의 내용)")
    assert citation_verdict(citation) == ("△", "있는 조문, 답변에 적힌 제목은 다름")


def test_an_article_is_listed_once_at_its_last_mention_unless_more_is_said_of_it():
    answer = "민법 제750조와 민법 제9999조, 다시 민법 제750조, 민법 제750조(사기)"
    listed = distinct_citations({"citations": look_up_citations(answer)})
    assert [(c["article"], citation_verdict(c)[0]) for c in listed] == [
        ("제9999조", "✗"),
        ("제750조", "✓"),
        ("제750조", "△"),
    ]


def test_every_status_has_a_verdict_of_a_kind_that_has_a_name():
    assert set(VERDICTS) == {EXISTS, DELETED, NOT_YET_IN_FORCE, NO_SUCH_ARTICLE, NO_SUCH_PARAGRAPH, OUTSIDE_TABLE}
    assert {verdict.kind for verdict in VERDICTS.values()} == set(KINDS)


def test_an_allowed_article_is_valid_though_the_table_has_none():
    text = "민법 제2000조와 민법 제436조, 민법 제2001조, 난민법 제3조"
    allowed = cited_articles("민법 제2000조, 민법 제436조, 난민법 제3조")
    assert [mark["kind"] for mark in mark_citations(text, allowed)] == ["valid", "valid", "invented", "outside"]
    assert [mark["kind"] for mark in mark_citations(text)] == ["invented", "deleted", "invented", "outside"]


def test_an_article_cited_now_and_in_a_former_version_counts_once_by_the_better():
    cited = judge_citations("구 민법 제1119조와 민법 제1119조, 구 민법 제750조와 민법 제750조")
    assert cited.valid == {("민법", "제750조")}
    assert (cited.invented, cited.outside) == (frozenset(), {("민법", "제1119조")})
    cited = judge_citations("구 민법 제1119조와 민법 제1119조", allowed={("민법", "제1119조")})
    assert (cited.valid, cited.outside) == ({("민법", "제1119조")}, frozenset())


def test_citations_are_judged_apart():
    cited = judge_citations(
        "민법 제750조, 민법 제2000조, 민법 제436조, 주택임대차보호법 부칙 제10조, 민법 제750조(불법행위의 내용), "
        "민법 제103조(임의규정)"
    )
    assert cited.valid == {("민법", "제750조"), ("민법", "제103조")}
    assert cited.invented == {("민법", "제2000조")}
    assert cited.deleted == {("민법", "제436조")}
    assert cited.outside == {("주택임대차보호법 부칙", "제10조")}
    assert cited.mistitled == {("민법", "제103조")}
