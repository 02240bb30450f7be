import pytest

from civilqa.law.verdicts import cited_articles, judge_citations
from civilqa.scoring.gold import Conclusion, Gold
from civilqa.scoring.judgement import ACCEPTED
from civilqa.scoring.scores import (
    OF_PAIRS,
    OPTIONAL,
    SCORES,
    citation_scores,
    hangul_share,
    repetition_score,
    score_answer,
)

GOLD = Gold(
    id="case",
    question="전입신고를 하면 언제부터 안전한가요?",
    conclusion=Conclusion(
        line="다음 날",
        answer=None,
        says=["다음 날부터 대항력이 생긴다", "다음 날부터 효력이 있다"],
        denies=["당일부터 대항력이 생긴다", "바로 효력이 있다"],
    ),
    required_citations=["주택임대차보호법 제3조"],
    acceptable_citations=["민법 제621조"],
    key_points=[["다음 날부터"], ["전입신고"]],
    forbidden=["전입신고 당일부터 대항력이 생긴다"],
    numbers=["2년"],
)
REFERENCE = "전입신고를 마친 다음 날부터입니다(주택임대차보호법 제3조). 기간은 2년입니다."


def test_an_article_that_the_reference_says_is_repealed_is_none_to_cite():
    reference = "민법 제651조는 위헌 결정을 받아 삭제되었으므로 민법 제618조에 따라 20년을 넘는 기간도 유효합니다."
    wrong = "민법 제651조에 따라 20년을 넘지 못합니다."
    found = [score_answer(text, "묻습니다", reference, None)[0]["reference_citation_f1"] for text in (reference, wrong)]
    assert found == [1, 0]


@pytest.mark.parametrize(
    ("text", "rate", "validity", "invented", "deleted", "mistitled", "outside"),
    [
        ("조문이 없는 답", 0, None, 0, 0, 0, 0),
        ("민법 제750조", 1, 1, 0, 0, 0, 0),
        ("민법 제750조와 민법 제3000조", 1, 1 / 2, 1, 0, 0, 0),
        ("민법 제436조", 1, 0, 0, 1, 0, 0),
        ("민법 제750조, 제436조, 제3000조", 1, 1 / 3, 1, 1, 0, 0),
        ("민법 제750조와 다시 민법 제750조, 민법 제3000조", 1, 1 / 2, 1, 0, 0, 0),
        ("민법 제103조(반사회질서의 법률행위)", 1, 1, 0, 0, 0, 0),
        ("민법 제103조(불공정한 법률행위)", 1, 1, 0, 0, 1, 0),
        # What the table does not hold is neither valid nor invented.
        ("도로교통법 시행령 제10조", 1, None, 0, 0, 0, 1),
        ("주택임대차보호법 시행령 제10조, 제99조", 1, 1 / 2, 1, 0, 0, 0),
        ("항공안전법 제9999조, 민법 제750조", 1, 1, 0, 0, 0, 1),
    ],
)
def test_citation_scores_by_hand(text, rate, validity, invented, deleted, mistitled, outside):
    assert citation_scores(judge_citations(text)) == {
        "citation_rate": rate,
        "citation_validity": None if validity is None else pytest.approx(validity),
        "invented_citation_rate": invented,
        "deleted_citation_rate": deleted,
        "mistitled_citation_rate": mistitled,
        "outside_citations": outside,
    }


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("민법 제750조", "민법 제750조", 1.0),
        ("형법 제750조", "민법 제750조", 0.0),
        ("주택임대차보호법 제3조", "주택임대차보호법 제3조의2", 0.0),
        ("주임법 제3조", "주택임대차보호법 제3조 제1항", 1.0),
        ("민법 제186조, 제187조", "민법 제186조", 2 * 1 / 3),
        ("민법 제186조와 다시 민법 제186조", "민법 제186조", 1.0),
        ("조문이 없는 답", "민법 제186조", 0.0),
        ("민법 제186조", "조문이 없는 답", None),
    ],
)
def test_reference_citation_f1_by_hand(answer, reference, expected):
    scores, _ = score_answer(answer, "질문", reference, None)
    assert scores["reference_citation_f1"] == (None if expected is None else pytest.approx(expected))


def test_cited_articles_are_a_set_of_act_and_article():
    assert cited_articles("주임법 제3조 제1항, 제3조의2와 같은 법 제3조") == {
        ("주택임대차보호법", "제3조"),
        ("주택임대차보호법", "제3조의2"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("가 나 다", 0),
        ("가 나 다 라", 0),
        # 가나다라, 나다라가, 다라가나, 라가나다, 가나다라: one of five stood there before
        ("가 나 다 라 가 나 다 라", 1 / 5),
        ("네 네 네 네 네 네 네", 3 / 4),
    ],
)
def test_repetition_by_hand(text, expected):
    assert repetition_score(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("보증금", 1), ("보증금 abc", 1 / 2), ("abc 123", 0), ("123 !?", 0), ("", 0), ("保證금", 1 / 3)],
)
def test_hangul_share_by_hand(text, expected):
    assert hangul_share(text) == pytest.approx(expected)


def test_bits_per_character_by_hand():
    scores, _ = score_answer("답", "질문", "민법 제750조", None, reference_bits=80.0)
    assert scores["bits_per_character"] == 10


def test_the_reference_answer_scores_the_best_on_every_score():
    scores, _ = score_answer(REFERENCE, GOLD.question, REFERENCE, GOLD, stopped=True, reference_bits=0.0)
    assert not {*OF_PAIRS} & {*scores}
    for name, score in SCORES.items():
        if name in OF_PAIRS:
            continue
        if name in OPTIONAL:
            assert scores[name] is None
        elif name in ("content_score", "conclusion_score"):
            assert ACCEPTED < scores[name] <= 1  # of the claims of a conclusion no answer says each
        elif score.better == "higher":
            assert scores[name] == pytest.approx(score.best), name
        elif score.better == "lower":
            assert scores[name] == 0, name
    assert scores["length_ratio"] == 1
    assert scores["outside_citations"] == 0


def test_a_wrong_answer_by_hand():
    text = "전입신고 당일부터 대항력이 생깁니다(민법 제3000조, 민법 제621조, 민법 제750조). 기간은 3년입니다."
    scores, _ = score_answer(text, GOLD.question, REFERENCE, GOLD, stopped=False, reference_bits=100.0)
    assert scores["content_accepted"] == 0
    assert scores["key_point_recall"] == 1 / 2
    assert scores["forbidden_rate"] == 1
    assert scores["number_f1"] == 0
    # 제621조 is acceptable: of 제3000조 and 제750조 none is required
    assert (scores["citation_precision"], scores["citation_recall"], scores["citation_f1"]) == (0, 0, 0)
    assert scores["citation_validity"] == pytest.approx(2 / 3)
    assert scores["invented_citation_rate"] == 1
    assert scores["stop_rate"] == 0
    assert scores["recalled"] == 0


def test_without_gold_what_needs_gold_does_not_apply():
    scores, _ = score_answer(REFERENCE, "질문", REFERENCE, None)
    assert {name for name, value in scores.items() if value is None} == {
        "bits_per_character",
        "ends_cleanly",
        "content_accepted",
        "content_score",
        "conclusion_score",
        "citation_precision",
        "citation_recall",
        "citation_f1",
        "key_point_recall",
        "forbidden_rate",
        "number_f1",
        "stop_rate",
        *OPTIONAL,
    }
    assert scores["reference_citation_f1"] == 1


def test_an_empty_answer_is_counted_and_misleads_no_one():
    scores, _ = score_answer("", GOLD.question, REFERENCE, GOLD, stopped=True, reference_bits=1.0)
    assert scores["empty_rate"] == 1
    assert scores["citation_validity"] is None
    assert scores["invented_citation_rate"] == 0
    assert scores["chrf"] == scores["rouge_l"] == scores["length_ratio"] == scores["repetition"] == 0


def test_every_score_has_a_korean_name_of_its_own():
    assert len({score.label for score in SCORES.values()}) == len(SCORES)
