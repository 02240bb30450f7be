"""The dataset and its gold annotations, checked against each other and against the table of acts."""

import json

import pytest

from civilqa.law.citations import judge_citation, parse_citations
from civilqa.law.statutes import EXISTS, load_reference
from civilqa.program.parameters import read_sections
from conftest import ROOT
from prepare import PrepareParams, read_source

DATASET = ROOT / "data/raw/civil_law_qa_dataset.csv"
(PARAMS,) = read_sections(ROOT / "params.yaml", prepare=PrepareParams)
RECORDS = {record.id: record for record in read_source(str(DATASET), PARAMS).records}
GOLD = {
    row["id"]: row for row in map(json.loads, (ROOT / "data/raw/gold.jsonl").read_text(encoding="utf-8").splitlines())
}

EACH = pytest.mark.parametrize("name", RECORDS)


def articles(text):
    return {f"{citation.law} {citation.article}" for citation in parse_citations(text)}


def test_the_dataset_is_what_its_card_says():
    counts = {name: sum(r.category == name for r in RECORDS.values()) for name in ("전세사기", "부동산물권")}
    assert counts == {"전세사기": 32, "부동산물권": 28}
    levels = {name: sum(r.difficulty == name for r in RECORDS.values()) for name in ("초급", "중급", "고급")}
    assert levels == {"초급": 20, "중급": 22, "고급": 18}


def test_every_record_has_its_gold_and_there_is_no_other():
    assert set(GOLD) == set(RECORDS)


@EACH
def test_an_answer_is_one_paragraph_of_150_to_900_characters(name):
    answer = RECORDS[name].answer
    assert 150 <= len(answer) <= 900
    assert "\n" not in answer


@EACH
def test_every_article_that_an_answer_cites_exists(name):
    reference = load_reference()
    citations = parse_citations(RECORDS[name].answer)
    assert citations
    assert {judge_citation(citation, reference) for citation in citations} == {EXISTS}


@EACH
def test_the_gold_of_an_answer_is_met_by_the_answer_itself(name):
    gold, answer = GOLD[name], RECORDS[name].answer
    assert set(gold["required_citations"]) <= articles(answer)
    assert 2 <= len(gold["key_points"]) <= 5
    for wordings in gold["key_points"]:
        assert any(wording in answer for wording in wordings)
    assert gold["forbidden"]
    assert not [statement for statement in gold["forbidden"] if statement in answer]
    assert all(number in answer for number in gold["numbers"])


@EACH
def test_every_citation_of_the_gold_exists(name):
    reference = load_reference()
    for text in GOLD[name]["required_citations"] + GOLD[name]["acceptable_citations"]:
        (citation,) = parse_citations(text)
        assert judge_citation(citation, reference) == EXISTS


@EACH
def test_every_claim_names_the_article_or_case_law_that_carries_it(name):
    for claim in GOLD[name]["basis"]:
        assert claim["claim"]
        assert claim["quote"]
        assert "판례" in claim["source"] or parse_citations(claim["source"])
