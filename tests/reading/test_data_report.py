import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from civilqa.dataset.records import Record, record_id
from civilqa.reading import data_report
from civilqa.reading.data_report import REASONS, histogram, longest_and_shortest, near_duplicates, render_data_report
from civilqa.reading.source import read_source
from conftest import ROOT
from source_files import PARAMS

QUESTION, ANSWER = "전세금을 돌려받지 못했습니다", "임차권등기명령을 신청하십시오"


class Page(HTMLParser):
    """What a browser makes of a page: its tags and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.pieces = [], [], []
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.pieces.append(data)


@pytest.fixture
def show(tmp_path, monkeypatch):
    """Render the page for rows, each a dict of its cells; what a row lacks is what most rows have."""
    monkeypatch.chdir(tmp_path)

    def show(rows, keep=lambda record: True, **changes):
        lines = [
            json.dumps({"question": f"{QUESTION} {n}", "answer": f"{ANSWER} {n}"} | row) for n, row in enumerate(rows)
        ]
        (tmp_path / "d.jsonl").write_text("\n".join(lines), encoding="utf-8")
        params = PARAMS.model_copy(update={"source": "d.jsonl", "on_invalid": "drop"} | changes)
        reading = read_source("d.jsonl", params)
        return render_data_report(reading, [record for record in reading.records if keep(record)], params)

    return show


def record(question, answer="답변입니다", category=""):
    return Record(id=record_id(question), question=question, answer=answer, category=category, difficulty="")


def test_of_our_own_data_it_says_that_there_is_nothing_to_see():
    params = PARAMS.model_copy(update={"source": str(ROOT / "data/raw/civil_law_qa_dataset.csv")})
    reading = read_source(params.source, params)
    page = Page(render_data_report(reading, reading.records, params)).text
    assert "읽은 60행 가운데 60행을 씁니다" in page
    assert "눈에 띄는 문제가 없습니다" in page
    assert "거의 같은(유사도 0.8 이상) 질문이나 답변이 없습니다" in page


ATTACKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</style><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "<a href='javascript:alert(1)'>",
)


def test_markup_in_the_data_stays_text(show):
    rows = [
        {"question": f"{a} 질문입니다", "answer": f"{a} 답변입니다", "category": a, "difficulty": a, a: a}
        for a in ATTACKS
    ]
    rows += [{"question": f"{a} 질문입니다", "answer": ""} for a in ATTACKS]
    plain = Page(show([{"category": "전세"}]))
    attacked = show(rows, list_names=True)
    page = Page(attacked)
    assert set(page.tags) <= set(plain.tags) | {
        "details",
        "summary",
        "h3",
        "span",
        "br",
        "em",
        "ul",
        "li",
        "a",
        "thead",
    }
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert "49" not in re.findall(r"[0-9]+", "".join(piece for piece in page.pieces if "raw" in piece))
    assert "{{ 7 * 7 }}{% raw %}" in page.text


def test_the_page_loads_nothing_and_runs_nothing(show):
    page = show([{}])
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert "script" not in Page(page).tags
    assert not re.search(r"(?:src|srcset|data|action)=|url\(|@import|https?:", page)


def test_its_bytes_depend_on_the_data_alone(show):
    rows = [{"category": "전세", "비고": str(n)} for n in range(3)] + [
        {"answer": ""},
        {"answer": "같은 답변입니다만 길게"},
    ]
    assert show(rows) == show(rows)
    assert show(rows) != show([*rows, {}])


def test_every_row_is_counted(show):
    rows = [
        {"category": "전세"},
        {"category": "상속"},
        {"answer": ""},
        {"question": f"{QUESTION} 0"},
        {"answer": "\ufffd" * 9},
    ]
    page = Page(show(rows, keep=lambda record: record.category == "상속")).text
    assert "읽은 5행 가운데 1행을 씁니다" in page
    assert "씀 1 " in page
    assert "고르지 않음 1 " in page
    assert "뺌 3 " in page
    for label, number in (("빈 칸", 1), ("같은 질문에 다른 답변", 1), ("깨진 글자", 1)):
        assert f"{label} {number}행" in page
    assert "d.jsonl:3 빈 칸 empty 'answer'; fill it in or delete the row" in page


def test_every_reason_has_a_name_in_korean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = {"question": QUESTION, "answer": ANSWER, "category": "전세", "difficulty": "초급"}
    turns = [{"role": role, "content": QUESTION} for role in ("user", "assistant") * 2]
    bad = [
        *(
            {"answer": ""},
            {"answer": "예"},
            {"answer": f"{ANSWER}\ufffd"},
            {"answer": f"{ANSWER}<br>"},
            {"answer": [ANSWER]},
        ),
        *({"answer": "민법 제1200조를 보십시오"}, {"answer": "민법 제651조를 보십시오"}),
        *({"answer": "민법 제750조 제9항을 보십시오"}, {"category": "상속"}),
        *(
            {"difficulty": "최상급"},
            {},
            {},
            {"question": "질문입니다"},
            {"question": "질문입니다", "answer": "지급명령을 신청하십시오"},
        ),
    ]
    lines = [*(json.dumps(good | row) for row in bad), "{"]
    (tmp_path / "d.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": turns}), encoding="utf-8")
    strict = {
        "allowed_categories": ["전세"],
        "allowed_difficulties": ["초급"],
        "check_text": "reject",
        "on_invalid": "drop",
    }
    params = PARAMS.model_copy(update=strict | {"min_answer_characters": 5})
    first = params.model_copy(update={"same_question": "keep_first"})
    read = [read_source("d.jsonl", params), read_source("d.jsonl", first), read_source("chat.jsonl", params)]
    rejected = [row for reading in read for row in reading.rejected]
    assert {row.reason for row in rejected} == REASONS.keys()


@pytest.mark.parametrize("masking", [True, False])
def test_no_number_of_a_person_is_shown(show, masking):
    secrets = "900101-1234567, 010-1234-5678, h@a.kr, 계좌 110123456789"
    rows = [
        {"question": f"{QUESTION} {secrets}", "answer": f"{secrets} {ANSWER}<br>", "category": "010-9876-5432"},
        {"answer": f"{secrets} 민법 제1200조를 보십시오"},
        {"answer": "", "010-2222-3333": "열"},
    ]
    page = show(rows, mask_personal_data=masking, check_citations="warn")
    assert not re.search(r"900101|010-[0-9]|h@a|110123", page)
    assert ("그대로 있습니다" in page) is not masking
    assert "[전화번호]" in page


def test_what_was_masked_is_counted_and_names_are_said_not_to_be(show):
    page = Page(
        show([{"answer": "010-1234-5678, 010-1234-5679로 전화하십시오"}, {"answer": "a@b.kr로 문의하십시오"}])
    ).text
    assert "전화번호 2건 이메일 1건" in page
    assert "이름과 생년월일, 주소는 가리지 않습니다." in page


def test_words_that_may_be_names_are_listed_on_request(show):
    rows = [{"answer": f"임차인 김철수 씨가 신청합니다 {n}"} for n in range(2)]
    assert "김철수 2" in Page(show(rows, list_names=True)).text
    assert "이름일 수 있는 말" not in show(rows)


def test_what_is_no_text_is_shown_with_its_place(show):
    page = Page(show([{}, {"answer": f"{ANSWER}<br/>그리고"}])).text
    assert "태그나 기호가 남은 행 1개" in page
    assert 'd.jsonl:2: 답변 "…등기명령을 신청하십시오<br/>그리고"' in page


def test_citations_that_do_not_hold_or_could_not_be_checked(show):
    rows = [{"answer": "민법 제1200조를 보십시오"}, {"answer": "관세법 제30조와 관세법 제31조를 보십시오"}]
    page = Page(show(rows, check_citations="warn")).text
    assert "d.jsonl:1: 민법 제1200조 없는 조문 ('민법 제1200조를 보십시오')" in page
    assert "allowed_citations에 적으십시오" in page
    assert "관세법 2" in page
    assert "없는 조문 인용 1행" in Page(show(rows)).text


def test_thin_categories_are_marked(show):
    rows = [{"category": "전세", "difficulty": "초급"} for _ in range(5)] + [
        {"category": "상속", "difficulty": "초급"}
    ] * 4
    rows = [row | {"question": f"{n}{QUESTION * (n + 1)}"} for n, row in enumerate(rows)]
    page = Page(show(rows)).text
    assert "상속 적음 4 4" in page
    assert "전세 5 5" in page
    assert "행이 5개가 안 되는 분야나 난이도 1개" in page


def test_columns_that_are_not_used_are_named_with_how_many_rows_fill_them(show):
    assert "비고 2행에 값이 있음" in Page(show([{"비고": "가"}, {"비고": ""}, {"비고": "나"}])).text


def test_nearly_equal_questions_and_answers_are_grouped(show):
    long = "보증금을 돌려받으려면 먼저 임차권등기명령을 신청하고 그 등기를 확인한 뒤 이사하십시오"
    rows = [
        {"question": "가나다라마바사 아자차카타파하 질문", "answer": long},
        {"question": "전혀 다른 이야기입니다", "answer": long + " 꼭"},
    ]
    page = Page(show(rows)).text
    assert "거의 같은 질문 0묶음, 거의 같은 답변 1묶음" in page
    assert "기준" in page
    assert "d.jsonl:1" in page
    assert "d.jsonl:2" in page


def test_each_reason_shows_its_first_rows(show):
    rows = [{"answer": ""}] * 30 + [{"answer": "\ufffd" * 9}]
    page = Page(show([{}, *rows])).text
    assert page.count("empty 'answer'; fill it in") == 8
    assert "d.jsonl:32 깨진 글자" in page
    assert "나머지 22건" in page


def test_similarity_is_that_to_the_first_of_the_group():
    texts = [
        "임차권등기명령을 신청하려면 어떻게 하나요",
        "임차권등기명령을 신청하려면 어떻게 하나요요",
        "상속을 포기하려면",
    ]
    ((first, second),) = near_duplicates([record(text) for text in texts], "question")
    assert first[1] == 1.0
    assert second[1] == pytest.approx(17 / 18)


def test_many_rows_are_left_to_split(show, monkeypatch):
    monkeypatch.setattr(data_report, "COMPARED", 2)
    monkeypatch.setattr(data_report, "group_near_duplicates", None)
    page = show([{}, {}, {}])
    assert "data/splits/near_duplicates.jsonl" in page


def test_the_longest_and_the_shortest_come_first():
    kept = [record("가" * n) for n in (7, 3, 9, 1, 5, 8, 2)]
    longest, shortest = longest_and_shortest(kept, "question")
    assert [len(r.question) for r in longest] == [9, 8, 7, 5, 3]
    assert [len(r.question) for r in shortest] == [1, 2, 3, 5, 7]


def test_a_long_text_is_cut_with_its_length(show):
    page = show([{"answer": "가나다라 " * 2000 + "끝"}])
    assert "(모두 10,001자)" in page
    assert len(page) < 60_000


def test_the_page_does_not_grow_with_the_rows(show):
    rows = [
        {"question": f"{n}번 {QUESTION}", "answer": f"{n}번 <br> {ANSWER}", "category": f"분야 {n}" * 500}
        for n in range(3000)
    ]
    assert len(show(rows)) < 150_000


def test_lengths_worked_out_by_hand():
    found = histogram(Counter([10, 10, 20, 30, 40]))
    assert {name: found[name] for name in ("min", "q25", "median", "q75", "max")} == {
        "min": 10, "q25": 10, "median": 20, "q75": 30, "max": 40,
    }  # fmt: skip
    assert found["bars"][0] == ("10~14자", 2, 100)
    assert found["bars"][2] == ("20~24자", 1, 50)
    assert histogram(Counter([7]))["bars"] == [("7~7자", 1, 100)]


@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=300))
def test_every_length_is_in_one_bar(lengths):
    found = histogram(Counter(lengths))
    assert sum(number for _, number, _ in found["bars"]) == len(lengths)
    assert len(found["bars"]) <= data_report.BINS
    assert max(share for _, _, share in found["bars"]) == 100
    ordered = sorted(lengths)
    assert (found["min"], found["max"]) == (ordered[0], ordered[-1])
    assert found["q25"] <= found["median"] <= found["q75"]
    assert found["median"] == ordered[(len(ordered) - 1) // 2]
