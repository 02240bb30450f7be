from urllib.parse import unquote

from civilqa.chat.web.page import answer_html, example_questions
from civilqa.dataset.records import Record, record_id, write_records
from civilqa.law.verdicts import look_up_citations

EVIL = "<script>alert(1)</script> ![x](http://evil.example/a) [링크](javascript:alert(1)) $$x$$\n\n# 제목 <b>굵게</b>"


def result(answer, **more):
    return {"answer": answer, "citations": look_up_citations(answer), "stopped": True, **more}


def test_each_citation_is_marked_with_what_is_known_of_it():
    page = answer_html(result("주택임대차보호법 제3조의3에 따라, 민법 제9999조와 자동차관리법 제3조"))
    assert '<mark class="good" title="있는 조문">주택임대차보호법 제3조의3</mark>에 따라' in page
    assert '<mark class="bad" title="없는 조문(지어낸 인용)">민법 제9999조</mark>' in page
    assert '<li class="good"><b>✓ 있는 조문</b> <a href="https://www.law.go.kr/' in page
    assert ">주택임대차보호법 제3조의3(임차권등기명령)</a></li>" in page


def test_an_article_that_exists_is_linked_and_no_other():
    page = answer_html(result("민법 제750조, 민법 제9999조, 자동차관리법 제3조"))
    assert page.count("<a ") == 1
    assert 'href="https://www.law.go.kr/법령/민법/제750조" target="_blank" rel="noopener noreferrer"' in unquote(page)


def test_the_text_of_a_cited_article_is_beside_it_where_it_is_at_hand(monkeypatch):
    texts = {("민법", "제750조"): "(불법행위의 내용)\n<b>고의</b> 또는 과실"}
    monkeypatch.setattr("civilqa.chat.web.page.text_at_hand", lambda law, article: texts.get((law, article)))
    page = answer_html(result("민법 제750조와 민법 제751조에 따라"))
    assert page.count("<details>") == 1
    assert '<div class="article">(불법행위의 내용)\n&lt;b&gt;고의&lt;/b&gt; 또는 과실</div>' in page


def test_a_range_is_as_good_as_its_worst_article():
    page = answer_html(result("민법 제1117조부터 제1119조까지"))
    assert page.count("<mark") == 1
    assert '<mark class="bad"' in page


def test_what_was_written_is_escaped():
    page = answer_html(result(f'{EVIL} 민법 제750조 "&<>'))
    assert "<script" not in page
    assert "<b>굵게" not in page
    assert "&#34;&amp;&lt;&gt;" in page


def test_an_answer_without_text_or_end_says_so():
    page = answer_html(result("", stopped=False))
    assert "(답변 없음)" in page
    assert "끝까지 나오지 않았습니다" in page


def test_an_example_is_asked_in_a_category_that_the_page_offers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    categories = {"전세 질문입니다": "전세사기", "상속 질문입니다": "상속", "다른 질문입니다": ""}
    records = [
        Record(id=record_id(question), question=question, answer="답", category=category, difficulty="")
        for question, category in categories.items()
    ]
    write_records(tmp_path / "data/splits/test.jsonl", records)
    found = dict(example_questions("test", ["전세사기"]))
    assert found == {"전세 질문입니다": "전세사기", "상속 질문입니다": "", "다른 질문입니다": ""}
