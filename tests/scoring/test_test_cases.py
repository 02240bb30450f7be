"""The test cases: like the gold of the dataset, kept apart from it, and held to their own annotations."""

import csv
import json
from collections import Counter

import pytest

from civilqa.dataset.near_duplicates import group_near_duplicates
from civilqa.dataset.records import record_id
from civilqa.law.citations import judge_citation, parse_citations
from civilqa.law.statutes import DELETED, EXISTS, NO_SUCH_ARTICLE, load_reference
from civilqa.reading.cleaning import clean
from conftest import ROOT

CASES = [
    json.loads(line) for line in (ROOT / "data/raw/test_cases.jsonl").read_text(encoding="utf-8").splitlines() if line
]
GOLD = [json.loads(line) for line in (ROOT / "data/raw/gold.jsonl").read_text(encoding="utf-8").splitlines() if line]
with (ROOT / "data/raw/civil_law_qa_dataset.csv").open(encoding="utf-8", newline="") as file:
    DATASET = list(csv.DictReader(file))

FIELDS = {"group", "topic", "category", "difficulty", "trap", "answer"}  # besides those of gold.jsonl
TOPICS = {  # topic: (group, what the system prompt is chosen by, cases)
    "보증금 반환": ("전세사기 상담", "전세사기", 6),
    "계약 검토": ("전세사기 상담", "전세사기", 5),
    "사기 예방": ("전세사기 상담", "전세사기", 5),
    "소유권": ("부동산물권", "부동산물권", 4),
    "담보권": ("부동산물권", "부동산물권", 5),
    "취득시효": ("부동산물권", "부동산물권", 5),
    "계약": ("일반 민법", "일반민사", 6),
    "불법행위": ("일반 민법", "일반민사", 6),
}
# The articles that questions name although nothing is, or is any longer, in force under that number.
TRAP_ARTICLES = {
    "주택임대차보호법 제3조의8": NO_SUCH_ARTICLE,
    "민법 제1200조": NO_SUCH_ARTICLE,
    "민법 제245조의2": NO_SUCH_ARTICLE,
    "민법 제750조의2": NO_SUCH_ARTICLE,
    "민법 제651조": DELETED,
}

EACH = pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])


def articles(text):
    return {f"{citation.law} {citation.article}" for citation in parse_citations(text)}


def missing_articles(text):
    """{article: status} of what a text cites and the table does not hold in force."""
    statuses = {f"{c.law} {c.article}": judge_citation(c, load_reference()) for c in parse_citations(text)}
    return {article: status for article, status in statuses.items() if status != EXISTS}


def test_the_cases_are_what_the_card_says():
    assert Counter(case["topic"] for case in CASES) == {topic: n for topic, (_, _, n) in TOPICS.items()}
    assert Counter(case["difficulty"] for case in CASES) == {"초급": 13, "중급": 19, "고급": 10}
    traps = Counter(case["group"] for case in CASES if case["trap"])
    assert traps == {"전세사기 상담": 5, "부동산물권": 3, "일반 민법": 4}


@EACH
def test_a_case_has_the_fields_of_the_gold_and_its_own(case):
    assert set(case) == set(GOLD[0]) | FIELDS
    assert (case["group"], case["category"]) == TOPICS[case["topic"]][:2]
    assert case["trap"] is None or case["trap"].endswith("다.")


@EACH
def test_the_id_is_that_of_the_cleaned_question(case):
    assert case["question"] == clean(case["question"])
    assert case["id"] == record_id(case["question"])


def test_no_question_is_like_another_or_like_one_of_the_dataset():
    # Half as alike as what split calls near-duplicates (0.8) is too alike here: the topics must differ, too.
    trained = [clean(row["question"]) for row in DATASET]
    groups = group_near_duplicates(trained + [case["question"] for case in CASES], similarity=0.4)
    assert groups[len(trained) :] == list(range(len(trained), len(groups)))


@EACH
def test_an_answer_is_one_paragraph_of_150_to_900_characters(case):
    assert case["answer"] == clean(case["answer"])
    assert 150 <= len(case["answer"]) <= 900
    assert "\n" not in case["answer"]


@EACH
def test_every_article_that_an_answer_cites_exists(case):
    assert parse_citations(case["answer"])
    assert missing_articles(case["answer"]) == {}


@EACH
def test_an_answer_cites_what_its_gold_requires_and_nothing_that_it_does_not_accept(case):
    required, acceptable = set(case["required_citations"]), set(case["acceptable_citations"])
    assert required
    assert not required & acceptable
    assert required <= articles(case["answer"]) <= required | acceptable


@EACH
def test_every_citation_of_the_gold_is_one_existing_article(case):
    for text in case["required_citations"] + case["acceptable_citations"]:
        assert articles(text) == {text}
        assert missing_articles(text) == {}


@EACH
def test_the_gold_of_an_answer_is_met_by_the_answer_itself(case):
    answer = case["answer"]
    assert 2 <= len(case["key_points"]) <= 5
    for wordings in case["key_points"]:
        assert len(wordings) >= 3
        assert any(wording in answer for wording in wordings)
    assert len(case["forbidden"]) >= 2
    assert not [statement for statement in case["forbidden"] if statement in answer]
    assert all(number in answer for number in case["numbers"])


@EACH
def test_repeating_the_question_makes_no_key_point(case):
    said = [wording for wordings in case["key_points"] for wording in wordings if wording in case["question"]]
    assert said == []


@EACH
def test_no_forbidden_statement_makes_most_of_the_key_points(case):
    for statement in case["forbidden"]:
        made = sum(any(wording in statement for wording in wordings) for wordings in case["key_points"])
        assert made <= 1


@EACH
def test_every_claim_names_the_article_or_case_law_that_carries_it(case):
    for claim in case["basis"]:
        assert claim["claim"]
        assert claim["quote"]
        assert "판례" in claim["source"] or parse_citations(claim["source"])


@EACH
def test_every_article_that_an_answer_cites_has_its_words_in_the_basis(case):
    assert articles(case["answer"]) <= {article for claim in case["basis"] for article in articles(claim["source"])}


def test_the_questions_name_the_trap_articles_and_no_other_that_does_not_exist():
    named = {}
    for case in CASES:
        named |= missing_articles(case["question"])
    assert named == TRAP_ARTICLES


@EACH
def test_a_question_that_names_a_missing_article_says_so_in_its_trap(case):
    assert set(missing_articles(case["question"])) <= articles(case["trap"] or "")


def test_the_table_holds_the_title_of_every_article_cited():
    texts = [row["answer"] for row in DATASET] + [case["answer"] for case in CASES]
    texts += [text for row in GOLD + CASES for text in row["required_citations"] + row["acceptable_citations"]]
    reference = load_reference()
    cited = {(c.law, c.article) for text in texts for c in parse_citations(text)}
    cited = {article for article in cited if reference.status(*article) == EXISTS}
    assert [article for article in sorted(cited) if reference.title(*article) is None] == []
