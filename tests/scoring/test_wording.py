import unicodedata

import pytest

from civilqa.scoring.wording import asserts, contains_wording

# --- key points ---


@pytest.mark.parametrize(
    ("text", "wording", "expected"),
    [
        ("임대인의 지위를 승계합니다", "임대인의 지위", True),
        ("임대인 지위를 승계합니다", "임대인의 지위", True),
        ("'임대인의  지위'가 넘어갑니다", "임대인의 지위", True),
        ("임대인과 그 지위", "임대인의 지위", False),
        ("이의를 제기하면", "이의 제기", True),
        ("순위가 뒤로 밀립니다", "순위가 뒤로 밀", True),
        ("언제든지 해지할 수 있습니다", "해지할 수 있", True),
        ("언제든지 해지할 수 없습니다", "해지할 수 있", False),
        ("송달 전에는 할 수 없습니다", "송달 전에도", False),
        ("다음 날부터가 아니라 당일부터입니다", "다음 날부터", False),
        ("임대인의 지위가 아니라 임차인의 지위", "임대인의 지위", False),
        ("전입신고뿐만 아니라 인도도 필요합니다", "전입신고", True),
        ("11년이 지나면", "1년", False),
        ("1년이 지나면", "1년", True),
        ("", "전입신고", False),
    ],
)
def test_key_point_wordings_by_hand(text, wording, expected):
    assert contains_wording(text, wording) is expected
    assert contains_wording(unicodedata.normalize("NFD", text), wording) is expected
    assert contains_wording(text, unicodedata.normalize("NFD", wording)) is expected


# --- forbidden statements ---


@pytest.mark.parametrize(
    ("text", "statement", "expected"),
    [
        ("전입신고 당일부터 대항력이 생긴다.", "전입신고 당일부터 대항력이 생긴다", True),
        ("네, 전입신고를 하면 당일부터 대항력이 생깁니다.", "전입신고를 하면 당일부터 대항력이 생긴다", True),
        ("전입신고 다음 날부터 대항력이 생깁니다.", "전입신고 당일부터 대항력이 생긴다", False),
        ("전입신고 당일부터 대항력이 생기는 것은 아닙니다.", "전입신고 당일부터 대항력이 생긴다", False),
        ("전입신고 당일부터 대항력이 생긴다는 말은 틀렸습니다.", "전입신고 당일부터 대항력이 생긴다", False),
        ("전입신고 당일부터 대항력이 생기지 않습니다.", "전입신고 당일부터 대항력이 생긴다", False),
        # 없으면 and 없어도, 있다 and 없다 make opposites of the same nouns.
        ("확정일자가 없어도 최우선변제를 받을 수 있다.", "확정일자가 없으면 최우선변제를 받을 수 없다", False),
        ("확정일자가 없으면 최우선변제를 받을 수 없습니다.", "확정일자가 없으면 최우선변제를 받을 수 없다", True),
        # In two sentences, or spread over a long one, it is not that statement.
        ("전입신고를 하십시오. 당일부터 대항력이 생긴다.", "전입신고 당일부터 대항력이 생긴다", False),
        ("유치권을 등기해야 효력이 있습니다.", "유치권을 등기해야 효력이 있다", True),
        ("유치권은 등기하지 않아도 효력이 있습니다.", "유치권을 등기해야 효력이 있다", False),
        ("보증금 5억원 이하여야 합니다.", "보증금 3억원 이하여야 한다", False),
    ],
)
def test_forbidden_statements_by_hand(text, statement, expected):
    assert asserts(text, statement) is expected
    assert asserts(unicodedata.normalize("NFD", text), statement) is expected
