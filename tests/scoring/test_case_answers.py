"""The test cases against answers in other words: a right one passes, a wrong one does not.

`case_answers.jsonl` holds a short right and a short wrong answer a case. They tell whether the wordings of the key
points are too narrow or too broad; the wrong ones to the traps agree with the asker.
"""

import json
from pathlib import Path

import pytest

from civilqa.scoring.gold import judge_answer, read_test_cases
from conftest import ROOT

CASES = read_test_cases(ROOT / "data/raw/test_cases.jsonl")
LINES = (Path(__file__).parent / "case_answers.jsonl").read_text(encoding="utf-8").splitlines()
ANSWERS = {answers["id"]: answers for answers in map(json.loads, LINES)}

EACH = pytest.mark.parametrize("name", CASES)


def test_every_case_has_its_answers():
    assert set(ANSWERS) == set(CASES)


@EACH
def test_the_answer_of_reference_passes_with_every_key_point(name):
    judgement = judge_answer(CASES[name].answer, CASES[name])
    assert judgement.reasons == ()
    assert all(judgement.key_points_hit)


@EACH
def test_a_right_answer_in_other_words_passes(name):
    assert judge_answer(ANSWERS[name]["right"], CASES[name]).reasons == ()


@EACH
def test_a_wrong_answer_makes_a_forbidden_statement_and_at_most_one_key_point(name):
    judgement = judge_answer(ANSWERS[name]["wrong"], CASES[name])
    assert judgement.forbidden_found
    assert sum(judgement.key_points_hit) <= 1


@EACH
def test_a_repeated_question_passes_nowhere(name):
    judgement = judge_answer(CASES[name].question, CASES[name])
    assert not any(judgement.key_points_hit)
    assert not judgement.forbidden_found
