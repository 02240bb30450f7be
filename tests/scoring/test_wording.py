import unicodedata

import pytest

from civilqa.scoring.clauses import read_sentences, repeated_words
from civilqa.scoring.wording import contradicts, copies, match_claim, read_claim


def judge(text, claim):
    """How much of a claim is said by a text, and denied, in whichever sentence has most."""
    matches = [match_claim(read_claim(claim), sentence, {}) for sentence in read_sentences(text)]
    said = max((match.share for match in matches if match.says), default=0)
    denied = max((match.share for match in matches if match.denies), default=0)
    return "says" if said > denied and said >= 0.75 else "denies" if denied >= 0.75 else "neither"


@pytest.mark.parametrize(
    ("text", "claim", "expected"),
    [
        # endings, particles and order
        ("임차인은 언제든지 해지를 통지할 수 있습니다.", "언제든지 해지를 통지할 수 있다", "says"),
        ("해지의 통지는 임차인이 언제든지 할 수 있습니다.", "언제든지 해지를 통지할 수 있다", "says"),
        # negation, in each of its forms
        ("언제든지 해지를 통지할 수 없습니다.", "언제든지 해지를 통지할 수 있다", "denies"),
        ("2년을 채우실 필요가 없습니다.", "2년을 채울 필요가 없다", "says"),
        ("2년을 채워야 합니다.", "2년을 채우지 않아도 된다", "denies"),
        ("연체료는 승계되지 않습니다.", "연체료가 승계된다", "denies"),
        ("다음 날부터가 아니라 당일부터 생깁니다.", "다음 날부터 생긴다", "neither"),
        ("이 약정은 무효가 아닙니다.", "이 약정은 유효하다", "says"),
        ("효력이 없다고 볼 수 없습니다.", "효력이 있다", "says"),
        ("보증금을 돌려줄 수밖에 없습니다.", "보증금을 돌려주어야 한다", "says"),
        ("보증금을 돌려주어야 할 뿐만 아니라 이자도 붙습니다.", "보증금을 돌려주어야 한다", "says"),
        # conditions: …어야, …지 않으면 …지 못한다, 없이도
        ("등기하지 않으면 소유권을 취득하지 못합니다.", "등기해야 소유권을 취득한다", "says"),
        ("등기 없이도 소유권을 취득합니다.", "등기해야 소유권을 취득한다", "denies"),
        ("등기하지 않아도 소유권을 취득합니다.", "등기해야 소유권을 취득한다", "denies"),
        # numbers and parties
        ("3개월이 지나면 끝납니다.", "6개월이 지나면 끝난다", "denies"),
        ("석 달이 지나면 끝납니다.", "3개월이 지나면 끝난다", "says"),
        ("임차인이 증명하여야 합니다.", "임대인이 증명하여야 한다", "denies"),
        ("집주인이 입증해야 합니다.", "임대인이 증명하여야 한다", "says"),
        ("임차인이 은행보다 먼저 배당받습니다.", "은행이 임차인보다 먼저 배당받는다", "denies"),
        # frames
        ("당일부터 대항력이 생긴다는 것은 사실과 다릅니다.", "당일부터 대항력이 생긴다", "denies"),
        ("흔히 “당일부터 대항력이 생긴다”고 알고 계시지만 그렇지 않습니다.", "당일부터 대항력이 생긴다", "denies"),
        ("당일부터 대항력이 생긴다고 오해하는 분이 많습니다.", "당일부터 대항력이 생긴다", "denies"),
        ("당일부터 대항력이 생긴다는 말은 옛 법 이야기입니다.", "당일부터 대항력이 생긴다", "denies"),
        ("하루 안에 취소할 수 있다는 법은 없습니다.", "하루 안에 취소할 수 있다", "denies"),
        ("다음 설명은 모두 거짓입니다. 당일부터 대항력이 생깁니다.", "당일부터 대항력이 생긴다", "denies"),
        ("당일부터 대항력이 생깁니다. 그러나 위 설명은 틀린 말입니다.", "당일부터 대항력이 생긴다", "denies"),
        ("판례는 당일부터 대항력이 생긴다고 합니다.", "당일부터 대항력이 생긴다", "says"),
        ("당일부터 대항력이 생긴다고 할 수 없습니다.", "당일부터 대항력이 생긴다", "denies"),
        ("효력이 없다고 할 수 없습니다.", "효력이 있다", "says"),
        ("당일부터 대항력이 생긴다는 뜻은 아닙니다.", "당일부터 대항력이 생긴다", "denies"),
        ("당일부터 대항력이 생긴다는 주장은 받아들여지지 않습니다.", "당일부터 대항력이 생긴다", "denies"),
        ("당일부터 대항력이 생긴다는 설명은 판례에 어긋납니다.", "당일부터 대항력이 생긴다", "denies"),
        # a question, and a fragment, say nothing
        ("당일부터 대항력이 생깁니까?", "당일부터 대항력이 생긴다", "neither"),
        ("당일부터, 대항력", "당일부터 대항력이 생긴다", "neither"),
        ("", "당일부터 대항력이 생긴다", "neither"),
    ],
)
def test_claims_by_hand(text, claim, expected):
    assert judge(text, claim) == expected
    assert judge(unicodedata.normalize("NFD", text), unicodedata.normalize("NFD", claim)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("임차인이 통지를 하고 3개월이 지나면 계약이 끝나 보증금을 받습니다.", False),
        ("임차인이 통지를 하고 4개월이 지나면 계약이 끝나 보증금을 받습니다.", True),
        ("임차인이 통지를 하고 3개월이 지나면 계약이 끝나 보증금을 받지 못합니다.", True),
        ("임대인이 통지를 하고 3개월이 지나면 계약이 끝나 보증금을 받습니다.", True),
    ],
)
def test_a_sentence_made_from_another_one_by_a_change_contradicts_it(text, expected):
    reference = "임차인이 통지를 하고 3개월이 지나면 계약이 끝나 보증금을 받습니다."
    (mine,), (other,) = read_sentences(text), read_sentences(reference)
    assert copies(mine, other)
    assert contradicts(mine, other, other.quantities) is expected


def test_words_that_stood_before_are_counted():
    assert repeated_words("임차인은 임대인에게 보증금의 반환을 청구합니다.") == 0
    assert repeated_words("보증금 반환, 보증금 반환, 보증금 반환, 보증금 반환") > 0.5
