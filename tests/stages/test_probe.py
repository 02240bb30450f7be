import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from ruamel.yaml import YAML

import probe
from civilqa.experiments.statute_quiz import (
    DECIDES,
    GENERAL,
    MEASURES,
    OPTIONS,
    STATUTES,
    make_items,
    read_items,
    task_yaml,
)
from civilqa.law.statutes import EXISTS, load_reference, same_title
from civilqa.program.errors import PipelineError, RecordError
from conftest import ROOT
from probe import add_verdicts, ask_harness, find_harness, print_sets, summarize

REFERENCE = load_reference()


def test_items_are_questions_about_one_act_with_one_right_option():
    items = make_items(REFERENCE, 200, seed=1)
    assert len(items) == 200
    for item in items:
        law, article = item.id.rsplit(" ", 1)
        right = item.choices[item.answer]
        assert len(set(item.choices)) == OPTIONS
        assert item.query.startswith(law)
        wrong = [choice for choice in item.choices if choice != right]
        if item.kind == "article_to_title":
            assert article in item.query
            assert right == REFERENCE.title(law, article)
            titles = {title for (act, _), title in REFERENCE.titles.items() if act == law}
            assert set(wrong) <= titles
            assert not any(same_title(right, other) for other in wrong)
        else:
            assert right == article
            assert REFERENCE.title(law, article) in item.query
            assert all(REFERENCE.status(law, other) == EXISTS for other in wrong)
            assert not any(same_title(REFERENCE.title(law, other), REFERENCE.title(law, article)) for other in wrong)


def test_items_are_the_same_every_time_and_balanced():
    items = make_items(REFERENCE, 200, seed=1)
    assert make_items(REFERENCE, 200, seed=1) == items
    assert make_items(REFERENCE, 50, seed=1) == items[:50]
    assert make_items(REFERENCE, 200, seed=2) != items
    assert Counter(item.kind for item in items) == {"article_to_title": 100, "title_to_article": 100}
    # No place is a guess that pays: of 200 each of four is right about 50 times (standard deviation 6).
    assert all(25 <= count <= 75 for count in Counter(item.answer for item in items).values())


def test_general_items_have_options_that_do_not_give_themselves_away():
    items = read_items(seed=1)
    assert len(items) >= 60
    assert len({item.query for item in items}) == len(items)
    assert read_items(seed=1) == items != read_items(seed=2)
    assert set(Counter(item.kind for item in items).values()) == {20}
    for item in items:
        lengths = [len(choice) for choice in item.choices]
        assert max(lengths) - min(lengths) <= 2, item
        assert not re.search("법|조문|계약|소송", item.query), item  # out of the domain
    # Neither the longest nor the shortest option is the right one more often than one in four, nor any place.
    of_right = [(len(item.choices[item.answer]), [len(choice) for choice in item.choices]) for item in items]
    for extreme in (max, min):
        chance = sum((length == extreme(others)) / others.count(extreme(others)) for length, others in of_right)
        assert 0.15 <= chance / len(items) <= 0.35, extreme
    assert all(10 <= count <= 32 for count in Counter(item.answer for item in items).values())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"kind": "k", "query": "q", "right": "a", "wrong": ["b", "c"]}', ":1: wrong: List should have at least 3"),
        ('{"kind": "k", "query": "q", "right": "a", "wrong": ["b", "c", "a"]}', ":1: q: .*want 4 different options"),
        ('{"kind": "k", "query": "q", "right": "a"}', ":1: wrong: Field required"),
    ],
)
def test_an_item_that_is_not_as_it_must_be_is_named(line, message, tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=re.escape(str(path)) + message):
        read_items(1, path)


def test_a_task_is_yaml_on_a_local_file_with_every_measure(tmp_path):
    task = YAML(typ="safe").load(task_yaml(GENERAL, tmp_path / "items.jsonl"))
    assert task["task"] == GENERAL
    assert task["dataset_kwargs"]["data_files"]["test"] == str(tmp_path / "items.jsonl")
    assert (task["doc_to_text"], task["doc_to_choice"], task["doc_to_target"]) == ("{{query}}", "{{choices}}", "answer")
    assert tuple(metric["metric"] for metric in task["metric_list"]) == MEASURES


def summary(base, adapter):
    """Return what is said of items that base and adapter have right (1) or not (0) by the measure that decides."""
    right = {
        system: {name: [float(hit) for hit in hits] if name == DECIDES else [0.0] * len(hits) for name in MEASURES}
        for system, hits in (("base", base), ("adapter", adapter))
    }
    return summarize(make_items(REFERENCE, len(base), seed=1), right)


# Of 40 items, guessing gives 10: from 16 on a base is above chance (exact binomial, one-sided, 5 %).
@pytest.mark.parametrize(
    ("base", "adapter", "verdict"),
    [
        ([1] * 30 + [0] * 10, [1] * 20 + [0] * 20, "forgotten"),
        ([1] * 15 + [0] * 25, [0] * 40, "cannot tell: the base answers at chance"),
        ([1] * 16 + [0] * 24, [0] * 40, "forgotten"),
        ([1] * 10 + [0] * 30, [1] * 20 + [0] * 20, "learned"),
        ([1] * 30 + [0] * 10, [0] * 5 + [1] * 30 + [0] * 5, "no difference seen"),
        ([1] * 30 + [0] * 10, [1] * 25 + [0] * 15, "no difference seen"),  # five lost of five: p = 2 / 32
    ],
)
def test_the_verdict_is_that_of_exact_tests(base, adapter, verdict):
    found = summary(base, adapter)
    add_verdicts({STATUTES: found})
    assert found["difference"]["verdict"] == verdict
    assert found["base"][DECIDES] == sum(base) / 40
    assert found["difference"]["mean"] == pytest.approx((sum(adapter) - sum(base)) / 40)
    assert found["n"] == 40


def test_figures_are_those_worked_out_by_hand():
    found = summary([1] * 8 + [0] * 2, [0] * 6 + [1] * 3 + [0])
    difference = found["difference"]
    assert (difference["lost"], difference["gained"]) == (6, 1)
    assert difference["p"] == pytest.approx(2 * (1 + 7) / 2**7)
    at_least_eight = sum(math.comb(10, hits) * 3 ** (10 - hits) for hits in (8, 9, 10)) / 4**10
    assert found["above_chance_p"] == pytest.approx(at_least_eight)
    assert found["by_kind"]["article_to_title"] | {"above_chance_p": 0} == {
        "n": 5,
        "base": 4 / 5,
        "adapter": 2 / 5,
        "above_chance_p": 0,
    }
    assert summary([1, 0], [1, 0])["difference"]["p"] == 1


def test_two_sets_are_allowed_for(capsys):
    """Six lost of six, p = 0.031, is forgetting by itself and, beside another set, no more."""
    base, adapter = [1] * 30 + [0] * 10, [1] * 24 + [0] * 16
    alone, both = {STATUTES: summary(base, adapter)}, {name: summary(base, adapter) for name in (STATUTES, GENERAL)}
    add_verdicts(alone)
    add_verdicts(both)
    assert alone[STATUTES]["difference"]["verdict"] == "forgotten"
    assert {found["difference"]["verdict"] for found in both.values()} == {"no difference seen"}
    print_sets(both)
    printed = capsys.readouterr().out
    assert (
        "general_knowledge, 40 questions with 4 options (chance 0.25), acc_norm: base 0.750 (above chance: p" in printed
    )
    assert "6 lost and 0 gained, p = 0.062: no difference seen" in printed


def test_answers_are_read_by_task_and_measure_in_the_order_of_the_items(tmp_path, monkeypatch):
    """What lm_eval writes, as it came from version 0.4.13, in an order of its own."""

    def harness(command, **_):
        folder = Path(command[command.index("--output_path") + 1]) / "model"
        folder.mkdir(parents=True)
        assert command[command.index("--tasks") + 1] == "statute_titles,general_knowledge"
        for task, shift in ((STATUTES, 0), (GENERAL, 1)):
            rows = [
                {"doc_id": doc, "acc": 0.0, "acc_norm": float(doc == shift), "acc_mutual_info": 1.0} for doc in (1, 0)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"samples_{task}_2026.jsonl").write_text(lines, encoding="utf-8")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe.subprocess, "run", harness)
    params = probe.ProbeParams(python=sys.executable, items=4, batch_size=1, seed=1)
    hardware = SimpleNamespace(precision="fp32", device="cpu", threads=1)
    found = ask_harness(tmp_path, "base", params, hardware, tmp_path)
    assert found == {
        STATUTES: {"acc": [0, 0], "acc_norm": [1, 0], "acc_mutual_info": [1, 1]},
        GENERAL: {"acc": [0, 0], "acc_norm": [0, 1], "acc_mutual_info": [1, 1]},
    }


@pytest.mark.parametrize("python", ["/no/such/python", sys.executable])
def test_without_the_harness_the_command_that_makes_it_is_named(python):
    """The project's own environment has no lm_eval, and needs none."""
    with pytest.raises(PipelineError, match=r"pip install -r stages/probe_requirements\.txt"):
        find_harness(python)


def test_the_probe_s_environment_is_pinned_beside_the_project_s():
    lines = (ROOT / "stages/probe_requirements.txt").read_text(encoding="utf-8").splitlines()
    lines = [line.split(" #")[0] for line in lines if not line.startswith("#")]
    assert lines[0] == "-r ../requirements.txt"
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines[1:])
    project = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert not [line for line in lines[1:] if re.search(rf"^{line.partition('==')[0]}==", project, re.MULTILINE)]
