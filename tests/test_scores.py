import unicodedata

import pytest

from civilqa.scores import (
    TEXT_SCORES,
    chrf_score,
    chrf_signature,
    citation_f1_score,
    cited_articles,
    morphemes,
    rouge_l_score,
)

ANSWER = "보증금을 받기 전에는 이사하지 말고 임차권등기명령을 신청하십시오(주택임대차보호법 제3조의3)."
PARAPHRASE = "임차권등기명령을 신청한 다음 등기가 된 것을 보고 이사하십시오(주택임대차보호법 제3조의3)."
UNRELATED = "오늘 점심에는 김치찌개와 계란말이를 먹었고 저녁에는 영화를 보러 갈 생각입니다."


@pytest.mark.parametrize(("name", "best"), [("chrf", 100.0), ("rouge_l", 1.0), ("citation_f1", 1.0)])
def test_identical_text_scores_the_maximum(name, best):
    assert TEXT_SCORES[name](ANSWER, ANSWER) == pytest.approx(best)


@pytest.mark.parametrize(("name", "scale"), [("chrf", 100.0), ("rouge_l", 1.0)])
def test_unrelated_text_scores_below_a_paraphrase(name, scale):
    unrelated = TEXT_SCORES[name](UNRELATED, ANSWER) / scale
    assert unrelated < 0.4
    assert unrelated < TEXT_SCORES[name](PARAPHRASE, ANSWER) / scale < 1


@pytest.mark.parametrize("name", TEXT_SCORES)
def test_decomposed_hangul_scores_as_composed(name):
    decomposed = unicodedata.normalize("NFD", PARAPHRASE)
    assert decomposed != PARAPHRASE
    assert TEXT_SCORES[name](decomposed, ANSWER) == pytest.approx(TEXT_SCORES[name](PARAPHRASE, ANSWER))


@pytest.mark.parametrize("name", TEXT_SCORES)
def test_an_empty_answer_scores_zero(name):
    assert TEXT_SCORES[name]("", ANSWER) == 0


def test_morphemes_separate_particles_from_nouns():
    assert morphemes("보증금을 반환한다")[:2] == ["보증금", "을"]


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        # 보증금 을 바로 반환 / 보증금 을 늦 게 반환: 3 of 4 and 5 are in order in both
        ("보증금을 바로 반환", "보증금을 늦게 반환", 2 * 3 / (4 + 5)),
        # 반환 / 보증금 을: no more than one of them in the same order
        ("반환 보증금", "보증금 반환", 2 * 1 / 4),
        ("보증금", "보증금 반환", 2 * 1 / 3),
        ("", "", 0.0),
    ],
)
def test_rouge_l_by_hand(answer, reference, expected):
    assert rouge_l_score(answer, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("민법 제750조", "민법 제750조", 1.0),
        ("형법 제750조", "민법 제750조", 0.0),
        ("주택임대차보호법 제3조", "주택임대차보호법 제3조의2", 0.0),
        ("주임법 제3조", "주택임대차보호법 제3조 제1항", 1.0),
        ("민법 제186조, 제187조", "민법 제186조", 2 * 1 / 3),
        ("민법 제186조", "민법 제186조 및 제187조", 2 * 1 / 3),
        ("민법 제186조와 다시 민법 제186조", "민법 제186조", 1.0),
        ("조문이 없는 답", "민법 제186조", 0.0),
        ("민법 제186조", "조문이 없는 답", None),
    ],
)
def test_citation_f1_by_hand(answer, reference, expected):
    assert citation_f1_score(answer, reference) == (None if expected is None else pytest.approx(expected))


def test_cited_articles_are_a_set_of_act_and_article():
    assert cited_articles("주임법 제3조 제1항, 제3조의2와 같은 법 제3조") == {
        ("주택임대차보호법", "제3조"),
        ("주택임대차보호법", "제3조의2"),
    }


def test_chrf_is_chrf_plus_plus_and_says_so():
    assert "nw:2" in chrf_signature()
    assert chrf_score("가나다라 마바사", "가나다라 마바사") == pytest.approx(100)
