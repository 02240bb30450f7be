"""How many of the wanted articles are among those found."""

import pytest

from civilqa.dataset.records import Record
from civilqa.scoring import article_recall as module
from civilqa.scoring.article_recall import add_articles, article_recall, describe_recall, find_articles, found_articles
from civilqa.scoring.comparison import mean_interval
from civilqa.scoring.gold import Conclusion, Gold

FOUND = [f"민법 제{n}조" for n in range(1, 11)]


def line(required, cited=()):
    return {"found": FOUND, "required": list(required), "cited": list(cited)}


def test_recall_is_the_mean_share_of_the_wanted_among_the_first_found():
    # By hand: of two questions with required articles one has 제1조 and 제4조, one has 제10조 and one not found.
    lines = [line(["민법 제1조", "민법 제4조"]), line(["민법 제10조", "민법 제99조"]), line([])]
    recall = article_recall(lines)
    assert recall["required"]["n"] == 2
    means = {depth: recall["required"][f"at_{depth}"]["mean"] for depth in (1, 3, 5, 10)}
    assert means == {1: 0.25, 3: 0.25, 5: 0.5, 10: 0.75}
    five = recall["required"]["at_5"]
    assert (five["low"], five["high"]) == mean_interval([1.0, 0.0], 1.0)
    assert recall["cited"] == {"n": 0}
    (told,) = describe_recall(recall)
    assert told.startswith("required  @1 0.250  @3 0.250  @5 0.500  @10 0.750  [@5: ")
    assert told.endswith("], 2 questions")


class Index:
    def __init__(self):
        self.source = {"commit": "c" * 40, "as_of": "2026-06-08"}

    def find(self, question, count):
        return dict.fromkeys(FOUND[:count], "글") if question == "질문" else {}


@pytest.fixture
def records():
    answer = "민법 제2조와 제77조에 따릅니다."
    return [Record(f"q-{n}", question, answer, "전세사기", "") for n, question in enumerate(("질문", "다른 질문"))]


def gold(name):
    says = ["가나다라", "마바사아"]
    return Gold(
        id=name, question="질문", conclusion=Conclusion(line="답", answer=None, says=says, denies=says),
        required_citations=["민법 제3조"], acceptable_citations=[], key_points=[], forbidden=[], numbers=[],
    )  # fmt: skip


def test_wanted_are_the_required_articles_of_the_gold_and_those_that_the_reference_cites(records):
    first, second = find_articles(records, {"q-0": gold("q-0")}, Index())
    assert first == {"found": FOUND, "required": ["민법 제3조"], "cited": ["민법 제2조", "민법 제77조"]}
    assert second == {"found": [], "required": [], "cited": ["민법 제2조", "민법 제77조"]}
    variant = [Record("q-0-abc", "질문", "답", "", "")]
    assert find_articles(variant, {"q-0": gold("q-0")}, Index())[0]["required"] == ["민법 제3조"]


def test_metrics_say_of_which_statutes_the_articles_are_and_lines_what_was_found(records, monkeypatch):
    monkeypatch.setattr(module, "load_index", Index)
    lines = [
        {"id": one.id, "retrieval": {"articles": FOUND[:shown]}} for one, shown in zip(records, (3, 1), strict=True)
    ]
    metrics = add_articles(lines, records, {"q-0": gold("q-0")})
    assert (metrics["fewest_shown"], metrics["commit"], metrics["as_of"]) == (1, "c" * 40, "2026-06-08")
    assert metrics["recall"]["required"]["at_3"]["mean"] == 1
    assert metrics["recall"]["cited"]["at_10"] | {"low": 0, "high": 0} == {"mean": 0.25, "low": 0, "high": 0}
    assert found_articles([*lines, *lines, {"id": "q-9"}]) == [line["articles"] for line in lines]
