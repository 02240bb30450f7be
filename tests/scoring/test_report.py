import re
from html.parser import HTMLParser

import pytest

from civilqa.dataset.records import Record
from civilqa.generation.answers import Answer
from civilqa.scoring.comparison import Resampling, compare_systems
from civilqa.scoring.gold import Gold
from civilqa.scoring.predictions import SYSTEMS, make_predictions
from civilqa.scoring.report import figure, headline, render_report

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> \" ' & {{ 7 * 7 }}"
NOTICE = "무작위 가중치에서 시작한 모델입니다."


def record(number, **changes):
    fields = {
        "id": f"q-{number}",
        "question": f"{number}번 질문",
        "answer": "답은 민법 제750조입니다.",
        "category": "전세사기",
    }
    return Record(**fields | {"difficulty": "초급"} | changes)


def gold(number):
    return Gold(
        id=f"q-{number}", question=f"{number}번 질문", required_citations=["민법 제750조"], acceptable_citations=[],
        key_points=[["답은"], ["없는 말"]], forbidden=["답이 없다"], numbers=["3년"],
    )  # fmt: skip


def make(texts, golds=True, notice=NOTICE, **changes):
    records = [record(number, **changes) for number in range(len(texts))]
    entries = {r.id: gold(number) for number, r in enumerate(records)} if golds else {}
    given = {
        "base": [Answer("가", 5, False, 90.0) for _ in texts],
        "few_shot": [Answer("가", 5, False, 90.0) for _ in texts],
        "adapter": [Answer(text, 5, True, 50.0 + i) for i, text in enumerate(texts)],
    }
    nearest = [(record(99), 0.5)] * len(texts)
    lines = {"test": make_predictions(records, given, entries, notice, [1] * len(texts), nearest)}
    lines["train"] = make_predictions(records, {name: given[name] for name in SYSTEMS["train"]}, entries, notice)
    metrics = {
        "profile": "tiny",
        **compare_systems(lines, Resampling(200, 1)),
        "chrf_signature": "nc:6|nw:2",
        "versions": {"torch": "1"},
    }
    return lines, metrics


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_model_output_is_escaped():
    lines, metrics = make([ATTACK], notice=ATTACK, question=ATTACK, answer=ATTACK, category=ATTACK)
    page = Page(render_report(lines, metrics, ATTACK))
    assert len(page.of("script")) == 1
    assert page.of("img") == []
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(ATTACK) >= 4


def test_nothing_is_loaded_from_elsewhere():
    page = Page(render_report(*make(["답은 민법 제750조입니다."]), NOTICE))
    assert not {"link", "iframe", "img", "object", "base"} & {tag for tag, _ in page.tags}
    assert page.of("script") == [{}]
    elsewhere = [attributes["href"] for attributes in page.of("a") if not attributes["href"].startswith("#")]
    assert elsewhere
    assert all(href.startswith("https://www.law.go.kr/") for href in elsewhere)
    assert "url(" not in page.text
    (policy,) = [meta["content"] for meta in page.of("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';")
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", policy)


def test_citations_are_marked_and_linked():
    text = "민법 제750조와 민법 제3000조, 민법 제436조, 항공안전법 제1조, 민법 제103조(불공정한 법률행위)"
    page = Page(render_report(*make([text]), NOTICE))
    classes = {
        attributes["class"] for attributes in page.of("a") if "title" in attributes and "cite" in attributes["class"]
    }
    assert {"cite valid", "cite invented", "cite deleted", "cite outside", "cite valid mistitled"} <= classes
    assert any(attributes["href"].endswith("%EB%AF%BC%EB%B2%95/%EC%A0%9C750%EC%A1%B0") for attributes in page.of("a"))
    missing = Page(render_report(*make(["조문이 없는 답"]), NOTICE))
    assert "빠진 필수 조문: 민법 제750조" in missing.text


def test_the_worst_answer_is_first_and_one_click_away():
    texts = ["답은 민법 제750조, 없는 말은 3년입니다.", "답은 민법 제3000조입니다.", "답은 민법 제750조입니다."]
    page = Page(render_report(*make(texts), NOTICE))
    order = [attributes["id"] for attributes in page.of("article") if "id" in attributes]
    assert order == ["q-1", "q-2", "q-0"]
    (jump,) = [attributes["href"] for attributes in page.of("a") if attributes.get("class") == "jump"]
    assert jump == "#q-1"


def test_the_page_says_what_it_rests_on():
    page = Page(render_report(*make(["답"]), NOTICE))
    assert NOTICE in page.text
    assert "2026-06-08" in page.text
    assert "시험 성적이 아님" in page.text
    assert "split.fold=0,1,2,3,4" in page.text


def test_without_gold_the_page_says_so():
    text = Page(render_report(*make(["답"], golds=False), NOTICE)).text
    assert "정답 주석이 없어" in text
    assert "통과율" not in text


def test_the_same_results_give_the_same_bytes():
    lines, metrics = make(["답은 민법 제750조입니다.", ATTACK])
    assert render_report(lines, metrics, NOTICE) == render_report(lines, metrics, NOTICE)


def difference(verdict):
    return {"verdict": verdict, "n": 12, "mean": 0, "low": 0, "high": 0}


@pytest.mark.parametrize(
    ("bits", "substance", "phrase"),
    [
        ("better", {"key_point_recall": "better"}, "튜닝이 도움이 되었습니다"),
        ("better", {"key_point_recall": "equal"}, "예측은 나아졌고, 답변의 법률 내용은 아직 판정할 수 없습니다"),
        ("worse", {"key_point_recall": "equal"}, "튜닝한 뒤 나빠졌습니다"),
        ("better", {"invented_citation_rate": "worse"}, "나아진 점과 나빠진 점이 함께 있습니다"),
        ("no significant difference at this n", {"citation_f1": "equal"}, "튜닝이 도움이 되었는지 판정할 수 없습니다"),
    ],
)
def test_the_headline_claims_no_more_than_the_intervals(bits, substance, phrase):
    differences = {"bits_per_character": difference(bits)} | {name: difference(v) for name, v in substance.items()}
    assert headline({"difference": {"base": differences}, "test": {"n": 12}})["phrase"] == phrase


@pytest.mark.parametrize(
    ("value", "name", "signed", "expected"),
    [
        (0.256, "rouge_l", False, "26%"),
        (-0.001, "rouge_l", True, "0%p"),
        (-0.05, "rouge_l", True, "−5%p"),
        (12.345, "chrf", True, "+12.3"),
        (4.718, "bits_per_character", False, "4.72"),
        (None, "chrf", False, "–"),
    ],
)
def test_figures_are_written_as_a_reader_wants_them(value, name, signed, expected):
    assert figure(value, name, signed) == expected
