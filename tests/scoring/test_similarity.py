import unicodedata

import pytest

from civilqa.scoring.similarity import (
    SIMILARITIES,
    chrf_cut_score,
    chrf_score,
    chrf_signature,
    eojeol_f1_score,
    eojeols,
    morphemes,
    rouge_1_score,
    rouge_2_score,
    rouge_l_score,
)

ANSWERS = {
    "deposit": "보증금을 받기 전에는 이사하지 말고 임차권등기명령을 신청하십시오(주택임대차보호법 제3조의3).",
    "lien": "유치권자는 채권을 모두 변제받을 때까지 유치물 전부를 점유할 수 있습니다(민법 제320조, 제321조).",
}
PARAPHRASES = {
    "deposit": [
        "임차권등기명령을 신청한 다음 등기가 된 것을 보고 이사하십시오(주택임대차보호법 제3조의3).",
        "보증금을 받지 못했다면 주임법 제3조의3에 따라 임차권등기명령을 신청하고, 그 전에는 이사하지 마십시오.",
    ],
    "lien": [
        "민법 제320조와 제321조에 따라 채권 전부를 변제받을 때까지 유치권자는 유치물을 점유할 수 있습니다.",
        "채권을 모두 변제받을 때까지는 유치물 전부에 유치권을 행사할 수 있습니다(민법 제321조).",
    ],
}
UNRELATED = [
    "오늘 점심에는 김치찌개와 계란말이를 먹었고 저녁에는 영화를 보러 갈 생각입니다.",
    "The quick brown fox jumps over the lazy dog.",
    "형법 제250조는 사람을 살해한 자를 처벌합니다.",
]
BEST = {"chrf": 100.0, "chrf_cut": 100.0, "rouge_1": 1.0, "rouge_2": 1.0, "rouge_l": 1.0, "eojeol_f1": 1.0}


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("text", [*ANSWERS.values(), "보증금", "민법 제750조", "가", UNRELATED[1]])
def test_identical_text_scores_the_maximum(name, text):
    assert SIMILARITIES[name](text, text) == pytest.approx(BEST[name])


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_unrelated_text_scores_below_every_paraphrase_and_under_04(name, answer):
    reference = ANSWERS[answer]
    unrelated = max(SIMILARITIES[name](text, reference) / BEST[name] for text in UNRELATED)
    paraphrases = [SIMILARITIES[name](text, reference) / BEST[name] for text in PARAPHRASES[answer]]
    assert unrelated < 0.4
    assert unrelated < min(paraphrases)
    assert max(paraphrases) < 1


@pytest.mark.parametrize("name", SIMILARITIES)
def test_decomposed_hangul_scores_as_composed(name):
    text, reference = PARAPHRASES["deposit"][0], ANSWERS["deposit"]
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    score = SIMILARITIES[name](text, reference)
    assert SIMILARITIES[name](decomposed, reference) == pytest.approx(score)
    assert SIMILARITIES[name](text, unicodedata.normalize("NFD", reference)) == pytest.approx(score)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_an_empty_answer_scores_zero(name):
    assert SIMILARITIES[name]("", ANSWERS["deposit"]) == 0
    assert SIMILARITIES[name](" \n", ANSWERS["deposit"]) == 0


@pytest.mark.parametrize("name", [name for name in SIMILARITIES if not name.startswith("chrf")])
def test_the_same_article_of_another_act_is_no_match(name):
    assert SIMILARITIES[name]("형법 제750조", "민법 제750조") == 0
    assert SIMILARITIES[name]("주택임대차보호법 제3조", "주택임대차보호법 제3조의2") == 0
    assert SIMILARITIES[name]("주임법 제3조 제1항", "주택임대차보호법 제3조") == 1


def test_tokens_by_hand():
    assert morphemes("보증금을 반환한다.") == ("보증금", "을", "반환", "하", "ᆫ다")
    assert morphemes("민법 제186조, 제187조에 따라")[:3] == ("민법 제186조", "민법 제187조", "에")
    assert eojeols("보증금을 (바로) 반환한다!") == ("보증금을", "바로", "반환한다")
    assert eojeols("주임법 제3조의2에 따라") == ("주택임대차보호법 제3조의2", "에", "따라")


# 보증금 을 바로 반환 (4 tokens), 보증금 을 늦 게 반환 (5 tokens)
@pytest.mark.parametrize(
    ("answer", "reference", "one", "two", "longest"),
    [
        # unigrams 보증금, 을, 반환; pair 보증금-을 of 3 and 4; 보증금 을 … 반환 in order
        ("보증금을 바로 반환", "보증금을 늦게 반환", 2 * 3 / 9, 2 * 1 / 7, 2 * 3 / 9),
        # both words, in the other order: no pair, a subsequence of one
        ("반환 보증금", "보증금 반환", 1, 0, 2 * 1 / 4),
        ("보증금", "보증금 반환", 2 / 3, 0, 2 / 3),
        # a word said twice counts once for a reference that has it once
        ("보증금 보증금", "보증금 반환", 2 * 1 / 4, 0, 2 * 1 / 4),
        # a set phrase is its words, however WikiData lists it
        ("무단 침입", "무단으로 침입", 2 * 2 / 5, 0, 2 * 2 / 5),
        ("민법 제186조 반환", "반환 형법 제186조", 2 * 1 / 4, 0, 2 * 1 / 4),
        ("", "", 0, 0, 0),
    ],
)
def test_rouge_by_hand(answer, reference, one, two, longest):
    assert rouge_1_score(answer, reference) == pytest.approx(one)
    assert rouge_2_score(answer, reference) == pytest.approx(two)
    assert rouge_l_score(answer, reference) == pytest.approx(longest)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("보증금을 바로 반환", "보증금을 늦게 반환", 2 * 2 / 6),
        ("보증금을, 반환!", "보증금을 반환", 1),
        ("보증금이 반환", "보증금을 반환", 2 * 1 / 4),
        ("반환 반환 반환", "반환", 2 * 1 / 4),
        ("", "반환", 0),
    ],
)
def test_eojeol_f1_by_hand(answer, reference, expected):
    assert eojeol_f1_score(answer, reference) == pytest.approx(expected)


def test_chrf_by_hand_is_chrf_plus_plus_and_says_so():
    assert "nw:2" in chrf_signature()
    assert "nc:6" in chrf_signature()
    # 가나 against 가다: character 1-grams 1 of 2 on both sides, 2-grams 0 of 1, words 0 of 1; higher orders are absent.
    # Mean of the three orders' precision, and of recall: (1/2 + 0 + 0) / 3 = 1/6, so F2 = 1/6.
    assert chrf_score("가나", "가다") == pytest.approx(100 / 6, abs=0.01)


def test_what_an_answer_has_for_its_length_alone_is_shown_by_cutting_it():
    reference = ANSWERS["deposit"]
    paraphrase = PARAPHRASES["deposit"][0]
    short, padded = reference[:20], f"{paraphrase} {ANSWERS['deposit']}"
    assert chrf_cut_score(short, reference) == chrf_score(short, reference), "a shorter one stays as it is"
    assert chrf_cut_score(f"{reference} {UNRELATED[0]}", reference) == pytest.approx(100)
    assert chrf_score(padded, reference) > chrf_score(paraphrase, reference) + 20
    assert chrf_cut_score(padded, reference) == pytest.approx(chrf_score(padded[: len(reference)], reference))
    assert chrf_cut_score(padded, reference) < chrf_score(padded, reference) - 20
