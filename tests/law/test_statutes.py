"""The table of acts and articles in data/reference/."""

import csv
import re
import subprocess
import sys
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from civilqa.law.statutes import (
    DELETED,
    EXISTS,
    NO_SUCH_ARTICLE,
    NOT_YET_IN_FORCE,
    OUTSIDE_TABLE,
    REFERENCE_FOLDER,
    article_name,
    article_number,
    article_url,
    load_reference,
    pack_articles,
    same_title,
    unpack_articles,
)
from civilqa.program.errors import RecordError


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
        assert all(name.endswith(("법", "법률")) for name in (act.law, *act.short_names))


def test_every_title_belongs_to_an_article_in_force():
    reference = load_reference()
    assert {reference.status(law, article) for law, article in reference.titles} == {EXISTS}


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


def test_table_is_rebuilt_byte_for_byte_from_lists_of_the_same_facts(tmp_path):
    """Unpacks the table into the two source files, builds it from them, and compares."""
    reference = load_reference()
    source_status = {EXISTS: "in_force", DELETED: "deleted", NOT_YET_IN_FORCE: "not_yet_in_force"}
    with (tmp_path / "statutes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["law", "article", "title", "status"])
        for act in reference.acts.values():
            for number, status in sorted(act.statuses.items()):
                name = article_name(number)
                writer.writerow([act.law, name, reference.title(act.law, name) or "", source_status[status]])
    with (tmp_path / "meta.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["law", "in_force_promulgation_no", "in_force_promulgated", "in_force_effective"])
        for act in reference.acts.values():
            writer.writerow([act.law, act.promulgation_no, act.promulgated, act.effective])
    cited = tmp_path / "cited.csv"
    with cited.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([f"{law} {article}"] for law, article in reference.titles)])
    built = tmp_path / "built"
    built.mkdir()
    command = [sys.executable, REFERENCE_FOLDER / "build.py", tmp_path / "statutes.csv", tmp_path / "meta.csv"]
    command += ["--as-of", reference.as_of, "--cited", cited, "--output", built]
    subprocess.run(command, check=True)
    for name in ("acts.csv", "titles.csv"):
        assert (built / name).read_bytes() == (REFERENCE_FOLDER / name).read_bytes()


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
