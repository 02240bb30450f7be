import json
import re

import numpy as np
import pytest

from civilqa.scoring import scorer
from civilqa.scoring.adversaries import RIGHT, WRONG, Item, answers, change_numbers, exchange, move_citations, negate
from civilqa.scoring.gold import read_gold
from civilqa.scoring.scorer import (
    auc,
    best_threshold,
    describe_scores,
    may_lead,
    measure,
    read_cases,
    read_scorer,
    share,
)
from conftest import ROOT


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [([2, 3], [0, 1], 1), ([0, 1], [2, 3], 0), ([1, 1], [1, 1], 0.5), ([1, 3], [2, 0], 3 / 4)],
)
def test_auc_by_hand(right, wrong, expected):
    assert auc(np.array(right), np.array(wrong)) == expected


def test_the_threshold_accepts_the_right_ones_and_fewest_wrong_ones():
    assert best_threshold(np.array([0.4, 0.6, 0.8]), np.array([0.1, 0.3, 0.7])) == 0.4


def test_a_measure_counts_and_its_interval_holds_the_value():
    generator = np.random.default_rng(0)
    right, wrong = generator.normal(1, 1, 60), generator.normal(0, 1, 60)
    groups = [str(index // 3) for index in range(60)]
    measured = measure(right, wrong, groups, groups, threshold=0.5)
    assert measured["auc_interval"][0] < measured["auc"] < measured["auc_interval"][1]
    assert measured["right_accepted"]["k"] == int((right >= 0.5).sum())


def test_an_exact_interval_by_the_table():
    # Clopper and Pearson: 0 of 10 at 95 % is [0, 0.3085]
    assert share(0, 10)["interval"] == [0, pytest.approx(0.3085, abs=1e-3)]


def test_the_own_cases_are_split_by_question():
    cases = read_cases(ROOT / "tests/scoring/answer_cases.jsonl")
    parts = {part: {case.question_id for case in cases if case.part == part} for part in ("development", "held_out")}
    assert not parts["development"] & parts["held_out"]
    assert len(cases) >= 200
    length = [np.array([len(case.text) for case in cases if case.label == label]) for label in ("right", "wrong")]
    assert 0.44 <= auc(*length) <= 0.56


def test_a_case_may_hold_what_unicode_takes_for_a_line_end(tmp_path):
    case = {"id": "a", "text": "둘\u0085셋\u2028넷\u2029", "label": "right", "question_id": "b", "question": "하나?"}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [read.text for read in read_cases(tmp_path / "cases.jsonl")] == [case["text"]]


def test_what_other_code_measured_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(scorer, "SCORER", tmp_path / "scorer.json")
    assert read_scorer() is None
    assert describe_scores(None) == {}
    measured = {"right_accepted": {"k": 3, "n": 4}, "wrong_accepted": {"k": 1, "n": 5}, "auc": 0.9}
    content = {"version": scorer.scorer_version(), "cases": {"held_out": {"scores": {"content_score": measured}}}}
    (tmp_path / "scorer.json").write_text(json.dumps(content))
    assert "옳게 쓴 답변 4개 가운데 3개를" in describe_scores(read_scorer())["content_score"]
    assert may_lead(read_scorer(), "content_score")
    assert not may_lead(read_scorer(), "chrf")
    assert not may_lead(None, "content_score")
    (tmp_path / "scorer.json").write_text(json.dumps(content | {"version": "another"}))
    assert read_scorer() is None


def test_the_measurement_that_is_committed_is_of_the_scores_as_they_are(monkeypatch):
    """Otherwise reports leave out, without a word, how far the content score can be trusted."""
    monkeypatch.chdir(ROOT)
    assert read_scorer(), "run python stages/score_the_scores.py, and commit metrics/scorer.json"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (negate("은행이 먼저입니다."), "은행이 먼저인 것은 아닙니다."),
        (negate("등기부를 확인하십시오."), "등기부를 확인하지 마십시오."),
        (exchange("임대인이 임차인에게", (("임대인", "임차인"),)), "임차인이 임대인에게"),
        (change_numbers("민법 제162조에 따라 10년"), "민법 제162조에 따라 11년"),
        (move_citations("민법 제162조에 따라 10년"), "민법 제163조에 따라 10년"),
    ],
)
def test_changes_by_hand(made, expected):
    assert made == expected


def test_every_system_answers_every_question_that_it_changes():
    golds = list(read_gold(ROOT / "data/raw/gold.jsonl").values())[:3]
    reference = "임대인은 임차인에게 3개월 안에 보증금을 돌려줄 수 있습니다(민법 제536조). 확인하십시오."
    made = list(answers([Item(gold, f"{reference} {gold.question[:10]}였습니다.", "전세사기") for gold in golds]))
    assert len(made) >= 32
    assert {name for name, right, _ in made if right} == set(RIGHT)
    assert set(WRONG) < {name for name, right, _ in made if not right}
    assert {len(pairs) for name, _, pairs in made if name in WRONG} == {3}


def test_the_nearest_question_is_one_that_rests_on_other_articles():
    """민법 제536조 and 제245조: the two questions on the same article may well have one answer."""
    golds = list(read_gold(ROOT / "data/raw/gold.jsonl").values())[:3]
    cited = ("민법 제536조", "민법 제536조", "민법 제245조")
    items = [
        Item(gold, f"{number}번 답변입니다({act}).", "전세사기")
        for number, (gold, act) in enumerate(zip(golds, cited, strict=False))
    ]
    (pairs,) = [pairs for name, _, pairs in answers(items) if "nearest" in name]
    given = {item.gold.id: text for item, text in pairs}
    assert given[golds[0].id] == given[golds[1].id] == items[2].reference
    assert given[golds[2].id] in (items[0].reference, items[1].reference)


def test_the_table_of_the_scores_says_what_was_measured():
    text = (ROOT / "metrics/README.md").read_text(encoding="utf-8")
    table = text[text.index("| score | AUC, development |") :].partition("\n\n")[0]
    parts = read_scorer()["cases"]
    rows = re.findall(r"^\| `(\w+)`[^|]*\| (.*) \|$", table, re.MULTILINE)
    assert len(rows) > 8
    for name, figures in rows:
        held = parts["held_out"]["scores"][name]
        low, high = held["auc_interval"]
        shares = [f"{held[key]['k']} of {held[key]['n']}" for key in ("right_accepted", "wrong_accepted")]
        measured = [f"{parts['development']['scores'][name]['auc']:.2f}", f"{held['auc']:.2f} [{low:.2f}, {high:.2f}]"]
        assert figures == " | ".join([*measured, *shares]), name
