"""From when on what a promulgation enacts is in force: supplementary provisions, read by hand."""

import json
from datetime import date
from pathlib import Path

import pytest

from civilqa.law.commencement import Unit, read_commencements, read_day
from civilqa.law.statutes import unpack_articles

# Source: the 부칙 of the promulgations named (law.go.kr); the days were worked out by hand.
CASES = json.loads((Path(__file__).parent / "commencement_cases.json").read_text(encoding="utf-8"))


def unit(written: str) -> Unit:
    article, _, paragraph = written.partition(" ")
    return unpack_articles(article)[0], int(paragraph or 0)


def commencements(case: dict, *, own: bool = True):
    days = (date.fromisoformat(case[name]) for name in ("promulgated", "effective"))
    return read_commencements(case["text"], case["number"], *days, unpack_articles(case["articles"]), own=own)


@pytest.mark.parametrize(
    ("number", "place", "day"), [(case["number"], *entry) for case in CASES for entry in case["days"].items()]
)
def test_each_article_is_in_force_from_the_day_of_its_provision(number, place, day):
    case = next(case for case in CASES if case["number"] == number)
    assert commencements(case).of(unit(place)).day == date.fromisoformat(day)


def test_at_least_fifteen_provisions_are_held():
    assert len({(case["act"], case["number"]) for case in CASES}) >= 15


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['act']} {case['number']}")
def test_days_left_to_others_are_named(case):
    assert len(commencements(case).undated) == case.get("undated", 0)


@pytest.mark.parametrize(
    ("number", "place", "provision"),
    [
        ("21634", "25의9", "제21634호 부칙 제1조 단서"),
        ("21634", "26", "제21634호 부칙 제1조"),
        ("21450", "123의2", "제21450호 부칙 단서"),
        ("20615", "177", "제20615호 부칙 제1조 제3호"),
    ],
)
def test_the_provision_is_named(number, place, provision):
    case = next(case for case in CASES if case["number"] == number)
    assert commencements(case).of(unit(place)).provision == provision


def test_provisions_of_another_act_name_its_own_articles_alone():
    case = CASES[0]
    assert commencements(case, own=False).of(unit("25의9")).day == date.fromisoformat(case["effective"])


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("공포 후 6개월이 경과한 날", "2025-03-01"),  # the last of February, and the day after
        ("공포 후 30일이 경과한 날", "2024-10-01"),
        ("공포 후 1년 6개월이 경과한 날", "2026-03-01"),
        ("공포한 날", "2024-08-31"),
        ("2025년 1월 2일", "2025-01-02"),
        ("공포한 날부터 2년의 범위에서 대법원규칙으로 정하는 날", None),
        ("그 밖의 날", None),
    ],
)
def test_a_day_is_counted_from_the_promulgation(text, day):
    assert read_day(f"이 법은 {text}부터 시행한다.", date(2024, 8, 31)) == (day and date.fromisoformat(day))


@pytest.mark.parametrize(
    ("promulgated", "period", "day"),
    [
        # 상표법 제14033호
        ("2016-02-29", "6개월", "2016-09-01"),
        # Begun on the first of a month, a period ends with the last of one.
        ("2019-04-30", "6개월", "2019-11-01"),
        ("2025-02-28", "6개월", "2025-09-01"),
        ("2025-06-30", "6개월", "2026-01-01"),
        ("2025-09-30", "3개월", "2026-01-01"),
        ("2023-02-28", "1년", "2024-03-01"),
        ("2020-07-31", "3개월", "2020-11-01"),
        # No 30 and 31 February, no 31 September: the month's last day ends it.
        ("2025-08-29", "6개월", "2026-03-01"),
        ("2025-08-30", "6개월", "2026-03-01"),
        ("2025-03-30", "6개월", "2025-10-01"),
        ("2024-02-28", "1년", "2025-03-01"),
        ("2025-08-28", "6개월", "2026-03-01"),
        ("2025-08-27", "6개월", "2026-02-28"),
    ],
)
def test_a_period_is_reckoned_by_the_civil_act(promulgated, period, day):
    """Source: 민법 제157조, 제160조."""
    read = read_day(f"이 법은 공포 후 {period}이 경과한 날부터 시행한다.", date.fromisoformat(promulgated))
    assert read == date.fromisoformat(day)
