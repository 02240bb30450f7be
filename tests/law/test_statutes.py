"""The table of acts and articles in data/reference/."""

import csv
import re
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from civilqa.law.statutes import (
    DELETED,
    EXISTS,
    NO_SUCH_ARTICLE,
    NO_SUCH_PARAGRAPH,
    NOT_YET_IN_FORCE,
    OUTSIDE_TABLE,
    PARTS,
    REFERENCE_FOLDER,
    article_name,
    article_number,
    article_url,
    load_reference,
    pack_articles,
    same_title,
    unpack_articles,
)
from civilqa.program.errors import ParameterError, RecordError


def rows(name: str) -> list[dict[str, str]]:
    with (REFERENCE_FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@given(st.sets(st.tuples(st.integers(1, 40), st.integers(0, 6).map(lambda m: m + 1 if m else 0))))
def test_packed_articles_unpack_to_the_same_in_official_order(numbers):
    assert unpack_articles(pack_articles(numbers)) == sorted(numbers)


@pytest.mark.parametrize(
    ("packed", "articles"),
    [
        ("", []),
        ("1-3 3의2-3의4 4", ["제1조", "제2조", "제3조", "제3조의2", "제3조의3", "제3조의4", "제4조"]),
        ("7", ["제7조"]),
    ],
)
def test_packed_articles_read_as_written_by_hand(packed, articles):
    assert [article_name(number) for number in unpack_articles(packed)] == articles
    assert pack_articles(map(article_number, articles)) == packed


@pytest.mark.parametrize("packed", ["3-1", "3의2-4", "3의2-4의3", "1-2-3", "제3조", "3-"])
def test_malformed_range_is_refused(packed):
    with pytest.raises(ValueError, match="is no range of articles"):
        unpack_articles(packed)


@pytest.mark.parametrize("name", ["3조", "제3조의", "제3의2조", "제3조 "])
def test_malformed_article_name_is_refused(name):
    with pytest.raises(ValueError, match="is no article name"):
        article_number(name)


@pytest.mark.parametrize(
    ("law", "article", "status"),
    [
        ("민법", "제1조", EXISTS),
        ("민법", "제1118조", EXISTS),
        ("민법", "제1119조", NO_SUCH_ARTICLE),
        ("민법", "제915조", DELETED),
        ("주택임대차보호법", "제3조의7", EXISTS),
        ("주택임대차보호법", "제3조의8", NO_SUCH_ARTICLE),
        ("변호사법", "제26조의2", NOT_YET_IN_FORCE),
        ("난민법", "제1조", OUTSIDE_TABLE),
    ],
)
def test_status_of_known_articles(law, article, status):
    assert load_reference().status(law, article) == status


@pytest.mark.parametrize(
    ("law", "article", "title"),
    [
        ("민법", "제750조", "불법행위의 내용"),
        ("주택임대차보호법", "제3조의3", "임차권등기명령"),
        ("특정경제범죄 가중처벌 등에 관한 법률", "제3조", "특정재산범죄의 가중처벌"),
        ("민법", "제915조", None),
        ("난민법", "제1조", None),
    ],
)
def test_title_of_known_articles(law, article, title):
    assert load_reference().title(law, article) == title


def test_table_holds_at_least_40_acts_and_their_date():
    reference = load_reference()
    assert len(reference.acts) >= 40
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", reference.as_of)


def test_no_name_means_two_acts():
    names = [re.sub(r"\s", "", name) for act in load_reference().acts.values() for name in {act.law, *act.short_names}]
    assert len(names) == len(set(names))


def test_names_end_in_a_word_for_act():
    for act in load_reference().acts.values():
        assert all(name.endswith(("법", "법률", *PARTS)) for name in (act.law, *act.short_names))


def test_every_title_belongs_to_an_article_in_force_or_to_come():
    reference = load_reference()
    assert {reference.status(law, article) for law, article in reference.titles} == {EXISTS, NOT_YET_IN_FORCE}


def test_every_act_was_in_force_on_the_date_of_the_table():
    reference = load_reference()
    assert all(act.promulgated <= act.effective <= reference.as_of for act in reference.acts.values())


def test_article_in_two_columns_is_refused_with_its_line(tmp_path):
    (tmp_path / "titles.csv").write_text("law,article,title\n", encoding="utf-8")
    (tmp_path / "acts.csv").write_text(
        "law,short_names,promulgation_no,promulgated,effective,as_of,articles,deleted,not_yet_in_force\n"
        "민법,,1,2026-01-01,2026-01-01,2026-06-08,1-3,3,\n",
        encoding="utf-8",
    )
    with pytest.raises(RecordError, match=r"acts\.csv:2: 제3조 is listed in two columns"):
        load_reference(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("대항력 등", "대항력", True),
        ("소유권의 내용", "소유권의내용", True),
        ("열람ㆍ복사", "열람·복사", True),
        ("분사무소(分事務所) 설치의 등기", "분사무소 설치의 등기", True),
        ("등", "등", True),
        ("사기", "공갈", False),
        ("대항력", "대항력의 소멸", False),
    ],
)
def test_titles_are_compared_without_spaces_and_dots(first, second, same):
    assert same_title(first, second) is same


# Read in the supplementary provisions of each act (law.go.kr), at the dates given.
VICTIMS = "전세사기피해자 지원 및 주거안정에 관한 특별법"
IN_FORCE_ON = (
    (
        "전세사기피해자 지원 및 주거안정에 관한 특별법",
        "제25조의9",
        None,
        {"2026-11-12": NOT_YET_IN_FORCE, "2026-11-13": EXISTS},
    ),
    (
        "전세사기피해자 지원 및 주거안정에 관한 특별법",
        "제25조의13",
        None,
        {"2026-05-11": NOT_YET_IN_FORCE, "2026-05-12": EXISTS},
    ),
    (
        "전세사기피해자 지원 및 주거안정에 관한 특별법",
        "제29조의2",
        5,
        {"2026-06-08": NOT_YET_IN_FORCE, "2026-11-13": EXISTS},
    ),
    (
        "전세사기피해자 지원 및 주거안정에 관한 특별법",
        "제15조의2",
        None,
        {"2024-11-10": NOT_YET_IN_FORCE, "2024-11-11": EXISTS},
    ),
    (
        "전세사기피해자 지원 및 주거안정에 관한 특별법",
        "제10조",
        None,
        {"2023-07-01": NOT_YET_IN_FORCE, "2023-07-02": EXISTS},
    ),
    ("형법", "제123조의2", None, {"2026-03-11": NOT_YET_IN_FORCE, "2026-03-12": EXISTS}),
    ("형법", "제98조의2", None, {"2026-09-12": NOT_YET_IN_FORCE, "2026-09-13": EXISTS}),
    ("형법", "제251조", None, {"2024-02-08": EXISTS, "2024-02-09": DELETED}),
    ("민법", "제1004조의2", None, {"2025-12-31": NOT_YET_IN_FORCE, "2026-01-01": EXISTS}),
    ("부동산등기법", "제7조의2", None, {"2025-01-30": NOT_YET_IN_FORCE, "2025-01-31": EXISTS}),
    ("부동산등기법", "제81조", 4, {"2024-12-20": NOT_YET_IN_FORCE, "2024-12-21": EXISTS}),
    ("주택임대차보호법", "제3조의7", None, {"2023-04-17": NOT_YET_IN_FORCE, "2023-04-18": EXISTS}),
    ("주택임대차보호법", "제3조의3", 4, {"2026-06-08": EXISTS}),
    ("공인중개사법", "제41조의2", None, {"2026-08-27": NOT_YET_IN_FORCE, "2026-08-28": EXISTS}),
    ("상법", "제542조의14", None, {"2026-12-31": NOT_YET_IN_FORCE, "2027-01-01": EXISTS}),
    ("주민등록법", "제29조", 11, {"2024-06-26": NOT_YET_IN_FORCE, "2024-06-27": EXISTS}),
    ("민사소송법", "제163조의2", 3, {"2026-06-08": EXISTS}),
    ("변호사법", "제26조의2", None, {"2026-06-08": NOT_YET_IN_FORCE}),
)


@pytest.mark.parametrize(("law", "article", "paragraph", "days"), IN_FORCE_ON)
def test_an_article_is_in_force_from_the_day_of_its_provision(law, article, paragraph, days):
    reference = load_reference()
    assert {day: reference.status(law, article, paragraph, day) for day in days} == days


@pytest.mark.parametrize(
    ("article", "paragraph", "status"),
    [
        ("주택임대차보호법 제3조", 6, EXISTS),
        ("주택임대차보호법 제3조", 7, NO_SUCH_PARAGRAPH),
        ("주택임대차보호법 제5조", 1, DELETED),
        ("민법 제750조", 1, EXISTS),
        ("민법 제750조", 2, NO_SUCH_PARAGRAPH),
        ("난민법 제1조", 9, OUTSIDE_TABLE),
    ],
)
def test_paragraphs_are_looked_up(article, paragraph, status):
    assert load_reference().status(*article.split(), paragraph) == status


def test_the_day_to_judge_at_is_a_parameter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # As DVC writes it, and quoted.
    for written, status in {"2026-11-13": EXISTS, "'2026-11-12'": NOT_YET_IN_FORCE}.items():
        (tmp_path / "params.yaml").write_text(f"reference:\n  as_of: {written}\n  statutes:\n", encoding="utf-8")
        load_reference.cache_clear()
        assert load_reference().status(VICTIMS, "제25조의9") == status
    (tmp_path / "params.yaml").write_text("reference:\n  as_of: 2026-13-01\n  statutes:\n", encoding="utf-8")
    load_reference.cache_clear()
    with pytest.raises(ParameterError, match=r"month must be in 1\.\.12"):
        load_reference()
    (tmp_path / "params.yaml").write_text("reference:\n  as_of:\n", encoding="utf-8")
    with pytest.raises(ParameterError, match=r"reference\.statutes: missing"):
        load_reference()
    load_reference.cache_clear()


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("paragraphs.csv", "민법,1-2,제3조", "is no range of articles"),
        ("paragraphs.csv", "없는법,1-2,3", "없는법"),
        ("in_force.csv", "민법,제3조,,2026-13-01,,,", "month"),
        ("in_force.csv", "민법,3,,2026-01-01,,,", "is no article name"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, name, row, message):
    for file in ("acts.csv", "titles.csv", "paragraphs.csv", "in_force.csv"):
        content = (REFERENCE_FOLDER / file).read_text(encoding="utf-8")
        header = content.splitlines()[0]
        (tmp_path / file).write_text(f"{header}\n{row}\n" if file == name else content, encoding="utf-8")
    with pytest.raises(RecordError, match=rf"{name}:2: .*{message}"):
        load_reference(tmp_path)


@pytest.mark.parametrize(
    ("law", "article", "path"),
    [
        ("민법", "제750조", "법령/민법/제750조"),
        ("상가건물 임대차보호법", "제10조의4", "법령/상가건물임대차보호법/제10조의4"),
        ("주택임대차보호법 시행령", "제10조", "법령/주택임대차보호법시행령/제10조"),
        ("민법 부칙", "제2조", "법령/민법"),
    ],
)
def test_an_article_has_an_address_at_law_go_kr(law, article, path):
    url = article_url(law, article)
    assert url.isascii()
    assert urllib.parse.unquote(url) == f"https://www.law.go.kr/{path}"
