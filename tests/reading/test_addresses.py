from hypothesis import given, settings
from hypothesis import strategies as st

from civilqa.reading.addresses import possible_names
from civilqa.reading.personal_data import mask_personal_data

MASKED = {
    "서울 서초구 서초대로 219, 101동 1203호에 삽니다": "[주소]에 삽니다",
    "경기도 성남시 분당구 정자동 45-6입니다": "[주소]입니다",
    "부산 해운대구 우동 1234번지": "[주소]",
    "수원시 영통구 광교로 107의 전셋집": "[주소]의 전셋집",
    "전남 해남군 해남읍 중앙1로 330": "[주소]",
    "주소: 강남구 테헤란로 123": "주소: [주소]",
    "행복빌라 302호에 세 들었습니다": "[주소]에 세 들었습니다",
    "주소는 서울 강남구 역삼동 123-4와 마포구 상암동 1601입니다": "주소는 [주소]와 [주소]입니다",
    "서울 강남구 역삼동 123-4 (010-1234-5678)": "[주소] ([전화번호])",
}
# What it finds of addresses besides, and what not: data/README.md says so.
FOUND = (
    *("서울 서초구 서초동 1701-1", "제주시 연동 123", "세종 한누리대로 2130", "경기 광주시 오포읍 신현리 12-3"),
    *("서울특별시 종로구 세종대로 209", "서울 마포구 월드컵로237길 49", "청주시 상당구 상당로 82 501호"),
)
MISSED = ("강남구 테헤란로 123에서", "래미안 101동 1203호", "은평구 불광동 산 12-3")
KEPT = (
    "서울 강남구 역삼동에 있는 집",
    "서울특별시의 조례",
    "서울 관악구 신림2동 주민",
    "서울중앙지방법원 2020가합512345",
    "주택임대차보호법 제3조의2 제2항",
    "101동 1203호",
    "인구 이동 1.2%",
    "전세권 설정등기 제1234호",
)


def test_addresses_with_a_number_are_masked_on_request():
    assert {text: mask_personal_data(text, addresses=True)[0] for text in MASKED} == MASKED
    for text, masked in MASKED.items():
        assert mask_personal_data(text, addresses=True)[1]["address"] == masked.count("[주소]")
        assert "[주소]" not in mask_personal_data(text)[0]


def test_what_it_finds_and_misses_is_as_documented():
    assert {text: mask_personal_data(text, addresses=True)[0] for text in FOUND} == dict.fromkeys(FOUND, "[주소]")
    assert [mask_personal_data(text, addresses=True)[0] for text in MISSED] == [*MISSED]


def test_addresses_alone_can_be_masked():
    text = "부산 해운대구 우동 1234번지, 010-1234-5678"
    assert mask_personal_data(text, numbers=False, addresses=True) == ("[주소], 010-1234-5678", {"address": 1})


def test_places_acts_and_cases_are_no_addresses():
    assert {text: mask_personal_data(text, addresses=True)[0] for text in KEPT} == {text: text for text in KEPT}


PIECES = st.sampled_from(
    [*MASKED, *KEPT, "서울 ", "강남구 ", "테헤란로 ", "123", "주소 ", "[주소]", ", ", "\n", "010-1234-5678"]
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=6).map("".join))
def test_masking_a_masked_address_again_changes_nothing(text):
    masked, _ = mask_personal_data(text, addresses=True)
    assert mask_personal_data(masked, addresses=True) == (masked, {})


def test_words_that_may_be_names_are_told_and_never_replaced():
    text = "임차인 김철수 씨가 집주인 박영희님께 보증금을 청구합니다"
    assert possible_names(text) == ["김철수", "박영희"]
    assert mask_personal_data(text, addresses=True) == (text, {})
