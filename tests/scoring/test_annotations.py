"""The annotated data: the dataset with its gold and the test cases, held to their annotations and to the table of acts.

Each test looks at one property of all entries and lists those that lack it.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from civilqa.dataset.near_duplicates import group_near_duplicates
from civilqa.dataset.records import record_id
from civilqa.law.citations import judge_citation, parse_citations
from civilqa.law.statutes import DELETED, EXISTS, NO_SUCH_ARTICLE, NOT_YET_IN_FORCE, OUTSIDE_TABLE, load_reference
from civilqa.reading.cleaning import clean
from civilqa.reading.personal_data import mask_personal_data
from civilqa.scoring.clauses import read_sentences
from civilqa.scoring.gold import TestCase, read_gold, read_test_cases
from civilqa.scoring.judgement import Judgement, judge_answer
from civilqa.scoring.quantities import parse_quantities
from civilqa.scoring.wording import match_claim, read_claim
from conftest import ROOT

Entry = dict[str, Any]


def read(name: str) -> list[Entry]:
    lines = (ROOT / "data/raw" / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line]


with (ROOT / "data/raw/civil_law_qa_dataset.csv").open(encoding="utf-8", newline="") as file:
    ROWS = {record_id(row["question"]): row for row in csv.DictReader(file)}
GOLD, CASES = read("gold.jsonl"), read("test_cases.jsonl")
# What is said of a question of either kind, with the answer of reference.
ENTRIES = [{**ROWS[gold["id"]], **gold} for gold in GOLD if gold["id"] in ROWS] + CASES

FIELDS = {"group", "topic", "category", "difficulty", "trap", "answer"}  # of a case, besides those of gold.jsonl
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


def articles(text: str) -> set[str]:
    return {f"{citation.law} {citation.article}" for citation in parse_citations(text)}


def missing_articles(text: str) -> dict[str, str]:
    """{article: status} of what a text cites and the table does not hold.

    Decrees, rules and addenda need not be in the table, and an article that comes into force later is held.
    """
    statuses = {f"{c.law} {c.article}": judge_citation(c, load_reference()) for c in parse_citations(text)}

    def holds(article: str, status: str) -> bool:
        part = re.search("(시행령|시행규칙|부칙) 제", article)
        return status in (EXISTS, NOT_YET_IN_FORCE) or (status == OUTSIDE_TABLE and part is not None)

    return {article: status for article, status in statuses.items() if not holds(article, status)}


def citations_of_gold(entry: Entry) -> list[str]:
    return entry["required_citations"] + entry["acceptable_citations"]


def assert_none(offenders: list | dict) -> None:
    """Fail with every offender, each on a line of its own."""
    listed = offenders.items() if isinstance(offenders, dict) else offenders
    assert not offenders, "\n" + "\n".join(map(str, listed))


# --- What holds for the rows of the dataset and for the cases --------------------------------------------------------


def test_the_dataset_is_what_its_card_says():
    assert Counter(row["category"] for row in ROWS.values()) == {"전세사기": 32, "부동산물권": 28}
    assert Counter(row["difficulty"] for row in ROWS.values()) == {"초급": 20, "중급": 22, "고급": 18}


def test_the_cases_are_what_the_card_says():
    assert Counter(case["topic"] for case in CASES) == {topic: n for topic, (_, _, n) in TOPICS.items()}
    assert Counter(case["difficulty"] for case in CASES) == {"초급": 13, "중급": 19, "고급": 10}
    traps = Counter(case["group"] for case in CASES if case["trap"])
    assert traps == {"전세사기 상담": 5, "부동산물권": 3, "일반 민법": 4}


def test_every_row_has_its_gold_and_there_is_no_other():
    assert {gold["id"] for gold in GOLD} == set(ROWS)


def test_every_text_is_as_clean_leaves_it_and_holds_no_personal_data():
    def prepared(text: str) -> str:
        return mask_personal_data(clean(text))[0]

    changed = [(e["id"], name) for e in ENTRIES for name in ("question", "answer") if e[name] != prepared(e[name])]
    assert_none(changed)


def test_every_id_is_that_of_the_question():
    assert_none([e["id"] for e in ENTRIES if e["id"] != record_id(e["question"])])


def test_every_answer_is_one_paragraph_of_150_to_900_characters():
    assert_none({e["id"]: len(e["answer"]) for e in ENTRIES if not 150 <= len(e["answer"]) <= 900})
    assert_none([e["id"] for e in ENTRIES if "\n" in e["answer"]])


def test_every_answer_cites_articles_and_all_of_them_exist():
    assert_none([e["id"] for e in ENTRIES if not articles(e["answer"])])
    assert_none({e["id"]: missing for e in ENTRIES if (missing := missing_articles(e["answer"]))})


def test_every_citation_of_the_gold_is_one_existing_article():
    found = {
        (e["id"], text): (articles(text), missing_articles(text)) for e in ENTRIES for text in citations_of_gold(e)
    }
    assert_none({key: value for key, value in found.items() if value != ({key[1]}, {})})


def test_the_gold_of_every_answer_is_met_by_the_answer_itself():
    def unmet(entry: Entry) -> Iterator[str]:
        answer = entry["answer"]
        yield from (f"not cited: {text}" for text in entry["required_citations"] if text not in articles(answer))
        if not 2 <= len(entry["key_points"]) <= 5:
            yield f"{len(entry['key_points'])} key points"
        if not entry["forbidden"]:
            yield "nothing is forbidden"
        yield from (f"forbidden: {statement}" for statement in entry["forbidden"] if statement in answer)
        yield from (f"no number: {number}" for number in entry["numbers"] if number not in answer)

    assert_none({e["id"]: problems for e in ENTRIES if (problems := list(unmet(e)))})


def test_every_claim_names_the_article_or_case_law_that_carries_it():
    def carried(claim: dict[str, str]) -> bool:
        source = claim["source"]  # an addendum of one sentence has no article
        named = "판례" in source or "부칙(제" in source or parse_citations(source)
        return bool(claim["claim"] and claim["quote"] and named)

    assert_none([(e["id"], claim) for e in ENTRIES for claim in e["basis"] if not carried(claim)])


def test_the_table_holds_the_title_of_every_article_cited():
    reference = load_reference()
    texts = [text for e in ENTRIES for text in [e["answer"], *citations_of_gold(e)]]
    cited = {(c.law, c.article) for text in texts for c in parse_citations(text)}
    cited = {article for article in cited if reference.status(*article) == EXISTS}
    assert_none([article for article in sorted(cited) if reference.title(*article) is None])


def test_every_answer_of_the_dataset_is_accepted_by_its_gold():
    judged = {
        name: judge_answer(ROWS[name]["answer"], gold, ROWS[name]["answer"])
        for name, gold in read_gold(ROOT / "data/raw/gold.jsonl").items()
    }
    assert_none({name: j.reasons for name, j in judged.items() if not j.accepted})
    assert_none({name: j.wrong_citations for name, j in judged.items() if j.wrong_citations})


def test_no_number_of_the_asker_is_required():
    def asked(entry: Entry) -> set:
        return {*parse_quantities(entry["question"])} & {q for n in entry["numbers"] for q in parse_quantities(n)}

    assert_none({e["id"]: found for e in ENTRIES if (found := asked(e))})


def test_every_claim_has_words_and_no_conclusion_is_said_and_denied_by_the_same_claim():
    claims = [claim for e in ENTRIES for side in ("says", "denies") for claim in e["conclusion"][side]]
    assert_none([claim for claim in claims if not read_claim(claim).words])

    def same(left: str, right: str) -> bool:
        match = match_claim(read_claim(left), read_sentences(right + ".")[0], {})
        return match.says and match.share == 1 and read_claim(left).words == read_claim(right).words

    both = [
        (e["id"], said, denied)
        for e in ENTRIES
        for said in e["conclusion"]["says"]
        for denied in e["conclusion"]["denies"]
        if same(said, denied)
    ]
    assert_none(both)


def test_every_forbidden_statement_is_found_where_it_is_made_and_in_no_reference_of_its_question():
    def made(text: str, statement: str) -> bool:
        matches = [match_claim(read_claim(statement), sentence, {}) for sentence in read_sentences(text)]
        return any(match.says and match.share >= 0.9 for match in matches)

    statements = [(e["id"], s) for e in ENTRIES for s in e["forbidden"]]
    assert len(statements) > 250
    assert_none([key for key in statements if not made(f"그렇습니다. {key[1]}.", key[1])])


def test_every_row_and_every_case_was_read_against_the_law_once_more():
    with (ROOT / "data/raw/reviews.csv").open(encoding="utf-8", newline="") as file:
        reviews = list(csv.DictReader(file))
    assert Counter(review["id"] for review in reviews) == Counter(e["id"] for e in ENTRIES)
    assert_none([review for review in reviews if not all(review.values())])
    day = r"\d{4}-\d\d-\d\d"
    assert_none([r for r in reviews if not (re.fullmatch(day, r["read_on"]) and re.match(f"{day}: .", r["basis"]))])


# --- What holds for the cases alone ----------------------------------------------------------------------------------


def test_every_case_has_the_fields_of_the_gold_and_its_own():
    assert_none({c["id"]: set(c) ^ (set(GOLD[0]) | FIELDS) for c in CASES if set(c) != set(GOLD[0]) | FIELDS})
    assert_none([c["id"] for c in CASES if (c["group"], c["category"]) != TOPICS[c["topic"]][:2]])
    assert_none([c["id"] for c in CASES if c["trap"] is not None and not c["trap"].endswith("다.")])


def test_no_question_of_a_case_is_like_another_or_like_one_of_the_dataset():
    # Half as alike as what split calls near-duplicates (0.8) is too alike here: the topics must differ, too.
    trained = [clean(row["question"]) for row in ROWS.values()]
    groups = group_near_duplicates(trained + [case["question"] for case in CASES], similarity=0.4)
    assert groups[len(trained) :] == list(range(len(trained), len(groups)))


def test_every_case_cites_what_its_gold_requires_and_nothing_that_it_does_not_accept():
    def fits(case: Entry) -> bool:
        required, acceptable = set(case["required_citations"]), set(case["acceptable_citations"])
        fitting = required <= articles(case["answer"]) <= required | acceptable
        return not required & acceptable and fitting

    assert_none([case["id"] for case in CASES if not fits(case)])


def test_every_key_point_of_a_case_has_three_wordings_and_every_case_two_forbidden_statements():
    assert_none([(c["id"], wordings) for c in CASES for wordings in c["key_points"] if len(wordings) < 3])
    assert_none([c["id"] for c in CASES if len(c["forbidden"]) < 2])


def test_repeating_the_question_makes_no_key_point():
    said = [(c["id"], w) for c in CASES for wordings in c["key_points"] for w in wordings if w in c["question"]]
    assert_none(said)


def test_no_forbidden_statement_makes_more_than_one_key_point():
    def made(case: Entry, statement: str) -> int:
        return sum(any(wording in statement for wording in wordings) for wordings in case["key_points"])

    assert_none([(c["id"], statement) for c in CASES for statement in c["forbidden"] if made(c, statement) > 1])


def test_every_article_that_a_case_cites_has_its_words_in_the_basis():
    sources = {c["id"]: {article for claim in c["basis"] for article in articles(claim["source"])} for c in CASES}
    without = {c["id"]: articles(c["answer"]) - sources[c["id"]] for c in CASES}
    assert_none({name: cited for name, cited in without.items() if cited})


def test_the_questions_name_the_trap_articles_and_no_other_that_does_not_exist():
    named = {}
    for case in CASES:
        named |= missing_articles(case["question"])
    assert named == TRAP_ARTICLES


def test_every_question_that_names_a_missing_article_says_so_in_its_trap():
    unsaid = {c["id"]: set(missing_articles(c["question"])) - articles(c["trap"] or "") for c in CASES}
    assert_none({name: named for name, named in unsaid.items() if named})


# --- The cases against answers in other words -----------------------------------------------------------------------

# A short right and a short wrong answer a case: they tell whether the wordings of the key points are too narrow or too
# broad. The wrong ones to the traps agree with the asker.
ANSWERS = {
    answers["id"]: answers
    for answers in map(json.loads, Path(__file__).with_name("case_answers.jsonl").read_text("utf-8").splitlines())
}


@pytest.fixture(scope="module")
def cases() -> dict[str, TestCase]:
    return read_test_cases(ROOT / "data/raw/test_cases.jsonl")


def judge_all(answers: dict[str, str], cases: dict[str, TestCase]) -> dict[str, Judgement]:
    return {name: judge_answer(answers[name], case) for name, case in cases.items()}


def test_every_case_has_its_answers(cases):
    assert set(ANSWERS) == set(cases)


def test_every_answer_of_reference_is_accepted(cases):
    judged = judge_all({name: case.answer for name, case in cases.items()}, cases)
    assert_none({name: j.reasons for name, j in judged.items() if not j.accepted})


def test_of_right_answers_in_other_words_most_are_accepted_and_of_wrong_ones_none(cases):
    # They are short, and written beside the gold: metrics/scorer.json holds what is measured with other people's.
    right = judge_all({name: answers["right"] for name, answers in ANSWERS.items()}, cases)
    wrong = judge_all({name: answers["wrong"] for name, answers in ANSWERS.items()}, cases)
    assert_none({name: j.scores["content_score"] for name, j in wrong.items() if j.accepted})
    assert sum(j.accepted for j in right.values()) >= 0.85 * len(right)


def test_no_repeated_question_makes_a_key_point_or_a_forbidden_statement(cases):
    judged = judge_all({name: case.question for name, case in cases.items()}, cases)
    assert_none({name: j.key_points_hit for name, j in judged.items() if any(j.key_points_hit)})
    assert_none({name: j.forbidden_found for name, j in judged.items() if j.forbidden_found})
