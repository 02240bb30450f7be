import re
import sys
from collections import Counter

import pytest
from ruamel.yaml import YAML

from civilqa.experiments.statute_quiz import OPTIONS, make_items, task_yaml
from civilqa.law.statutes import EXISTS, load_reference, same_title
from civilqa.program.errors import PipelineError
from conftest import ROOT
from probe import find_harness, summarize

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


def test_the_task_is_yaml_on_a_local_file(tmp_path):
    task = YAML(typ="safe").load(task_yaml(tmp_path / "items.jsonl"))
    assert task["dataset_kwargs"]["data_files"]["test"] == str(tmp_path / "items.jsonl")
    assert (task["doc_to_text"], task["doc_to_choice"], task["doc_to_target"]) == ("{{query}}", "{{choices}}", "answer")


@pytest.mark.parametrize(
    ("base", "adapter", "verdict"),
    [
        ([1, 1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1], "forgotten"),
        ([0, 0, 0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1], "learned"),
        ([1, 1, 1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1, 1, 1], "no difference seen"),
        ([1, 0, 1, 0, 1, 0, 1, 0], [0, 1, 1, 0, 0, 1, 1, 0], "cannot tell: the base answers at chance"),
        ([1, 0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0, 0], "cannot tell: the base answers at chance"),
    ],
)
def test_the_verdict_is_that_of_the_paired_interval(base, adapter, verdict):
    right = {"base": [float(hit) for hit in base], "adapter": [float(hit) for hit in adapter]}
    summary = summarize(make_items(REFERENCE, 8, seed=1), right)
    assert summary["difference"]["verdict"] == verdict
    assert summary["base"]["accuracy"] == sum(base) / 8
    assert summary["n"] == 8


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
