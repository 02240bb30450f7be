from fractions import Fraction

import pytest

from civilqa.scoring.quantities import parse_quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2억 4천만원", [(240_000_000, "원")]),
        ("5천만원", [(50_000_000, "원")]),
        ("50,000,000원", [(50_000_000, "원")]),
        ("1억 2,000만 원", [(120_000_000, "원")]),
        ("연 5푼", [(Fraction(1, 20), "비율")]),
        ("연 5%", [(Fraction(1, 20), "비율")]),
        ("연 12퍼센트", [(Fraction(3, 25), "비율")]),
        ("4분의 3", [(Fraction(3, 4), "비율")]),
        ("절반을 넘는", [(Fraction(1, 2), "비율")]),
        ("1년", [(12, "개월")]),
        ("12개월", [(12, "개월")]),
        ("3개월분", [(3, "개월")]),
        ("석 달 치", [(3, "개월")]),
        ("2주일", [(14, "일")]),
        ("50cm", [(Fraction(1, 2), "미터")]),
        ("0.5미터", [(Fraction(1, 2), "미터")]),
        ("다음 날 오전 0시", [(0, "시")]),
        ("5년 이하의 징역 또는 2억원 이하의 벌금", [(60, "개월"), (200_000_000, "원")]),
        ("2기의 차임", [(2, "기")]),
        # No quantities: dates, articles and their parts, words that begin like units.
        ("2025년 12월 1일부터", []),
        ("6월 8일에", []),
        ("민법 제245조 제1항에 따라 20년간", [(240, "개월")]),
        ("주택임대차보호법 제3조의2 제2항", []),
        ("2인용 식탁과 3기둥", []),
        ("", []),
    ],
)
def test_quantities_by_hand(text, expected):
    assert [(quantity.value, quantity.unit) for quantity in parse_quantities(text)] == expected


def test_the_same_amount_is_equal_however_it_is_written():
    assert len({parse_quantities(text)[0] for text in ("3000만원", "3천만 원", "30,000,000원")}) == 1
    assert parse_quantities("3개월") != parse_quantities("3년")
    assert parse_quantities("5%") != parse_quantities("5개월")
