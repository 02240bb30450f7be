"""Which articles are found for a question."""

import pytest
from statute_texts import act_text, commit, supplement

from civilqa.law import search
from civilqa.law.search import load_index
from civilqa.law.statutes import load_reference
from civilqa.law.versions import open_statutes
from civilqa.program.errors import ParameterError

# An act of the table and its decree; the texts are made up.
ACT, DECREE = "kr/신탁법/법률.md", "kr/신탁법/시행령.md"
ARTICLES = """##### 제1조 (목적)

이 법은 재산의 관리를 정한다.

##### 제2조 (보증금의 반환)

**①** 임대인은 보증금을 돌려준다.

**②** 이자를 더한다.

##### 제3조 (수목의 벌채)

소나무를 베려는 자는 신고한다.

##### 제4조

소나무와 잣나무를 심는다.
"""
LATER = "제1조(시행일) 이 법은 공포한 날부터 시행한다. 다만, 제5조의 개정규정은 2026년 12월 1일부터 시행한다."


@pytest.fixture
def statutes(tmp_path, monkeypatch):
    """Statutes of two versions, of which the second adds an article that is in force only after 2026-06-08."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for cached in (open_statutes, load_reference, load_index):
        cached.cache_clear()
    decree = act_text("##### 제1조 (소나무)\n\n소나무는 소나무로 본다.\n", law="신탁법 시행령")
    commit(tmp_path / "statutes", "2024-01-10", {ACT: act_text(ARTICLES, law="신탁법"), DECREE: decree})
    facts = {"law": "신탁법", "number": "200", "promulgated": "2026-06-01", "effective": "2026-06-01"}
    more = ARTICLES + "\n##### 제5조 (소나무)\n\n소나무는 소나무이다.\n"
    commit(tmp_path / "statutes", "2026-06-01", {ACT: act_text(more, supplement("200", "2026-06-01", LATER), **facts)})
    write_params(tmp_path)
    yield tmp_path
    load_index.cache_clear()


def write_params(folder, as_of="", statutes="statutes"):
    (folder / "params.yaml").write_text(f"reference:\n  as_of: {as_of}\n  statutes: {statutes}\n", encoding="utf-8")


def test_the_article_whose_words_the_question_has_comes_first(statutes):
    found = load_index().find("보증금을 언제 돌려주나요?", 3)
    assert next(iter(found)) == "신탁법 제2조"
    assert found["신탁법 제2조"] == "신탁법 제2조(보증금의 반환) ① 임대인은 보증금을 돌려준다.\n② 이자를 더한다."
    assert [*load_index().find("벌채하려면?", 1)] == ["신탁법 제3조"], "its title alone says so"
    assert load_index().articles["신탁법 제4조"] == "신탁법 제4조 소나무와 잣나무를 심는다.", "it has no title"


def test_only_articles_of_acts_are_found_and_only_those_in_force(statutes):
    assert {*load_index().find("소나무", 9)} == {"신탁법 제3조", "신탁법 제4조"}
    write_params(statutes, as_of="2026-12-01")
    for cached in (load_reference, load_index):
        cached.cache_clear()
    assert [*load_index().find("소나무", 1)] == ["신탁법 제5조"]
    assert load_index().source["as_of"] == "2026-12-01"


@pytest.mark.parametrize("question", ["", "?!", "은는이가", "비행기 정비"])
def test_nothing_is_found_where_no_article_has_a_word_of_the_question(statutes, question):
    assert load_index().find(question, 3) == {}


def test_a_training_question_is_shown_what_its_answer_cites_among_others(statutes):
    def shown(answer, count=3, seed=1, record="q-1"):
        texts = load_index().training_articles(record, "소나무와 보증금", answer, count, seed)
        return [text.split("(")[0].split(" 소")[0] for text in texts]

    gold = "신탁법 제1조, 민법 제750조, 신탁법 제900조"  # statutes here have the first alone; no word of the question
    assert sorted(shown(gold)) == ["신탁법 제1조", "신탁법 제2조", "신탁법 제4조"]
    assert shown(gold, count=1) == ["신탁법 제1조"]
    assert shown("신탁법 제3조와 제1조", count=1) == ["신탁법 제3조"], "the first that it cites"
    assert sorted(shown("조문이 없습니다")) == ["신탁법 제2조", "신탁법 제3조", "신탁법 제4조"]
    places = {shown(gold, seed=seed).index("신탁법 제1조") for seed in range(20)}
    assert places == {0, 1, 2}, "a place says nothing about which is right"
    assert {shown(gold, record=f"q-{n}").index("신탁법 제1조") for n in range(20)} == {0, 1, 2}
    assert shown(gold) == shown(gold)


def test_morphemes_are_read_once(statutes, monkeypatch):
    first = load_index().find("보증금", 3)
    (kept,) = (statutes / ".statute-index").iterdir()
    load_index.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(search, "_articles", lambda *_: pytest.fail("read again"))
        assert load_index().find("보증금", 3) == first
    for damage in (kept.read_bytes()[:-9], b'{"name": "x"}\n', b""):
        kept.write_bytes(damage)
        load_index.cache_clear()
        assert load_index().find("보증금", 3) == first


def test_without_statutes_it_is_said_how_to_get_them(statutes):
    write_params(statutes, statutes="")
    with pytest.raises(ParameterError, match=r"reference\.statutes: is empty, or names no folder.*git clone .*to 0"):
        load_index()
