import json
import shutil
import sys

import pytest

import pool_folds
from civilqa.experiments.revisions import Experiment, choose_folds
from civilqa.program.errors import PipelineError
from civilqa.scoring.predictions import SYSTEMS
from civilqa.scoring.scores import SCORES
from conftest import ROOT
from pool_folds import pool

CURRENT = {"split": {"fold": 0, "folds": 3}, "train": {"epochs": 4}}


def experiments(*folds, epochs=4, prefix="e"):
    return [
        Experiment(f"{prefix}{i}", f"rev-{prefix}{i}", {"split": {"fold": f, "folds": 3}, "train": {"epochs": epochs}})
        for i, f in enumerate(folds)
    ]


def test_the_folds_of_the_current_parameters_are_taken_in_order():
    found = experiments(2, 0, 1) + experiments(0, 1, 2, epochs=9, prefix="other")
    assert [experiment.name for experiment in choose_folds(found, CURRENT, [])] == ["e1", "e2", "e0"]


def test_the_only_complete_set_is_taken():
    found = experiments(0, 1) + experiments(0, 1, 2, epochs=9, prefix="other")
    assert [experiment.name for experiment in choose_folds(found, CURRENT, [])] == ["other0", "other1", "other2"]


def test_of_two_runs_of_a_fold_the_later_is_taken():
    assert [e.name for e in choose_folds(experiments(0, 1, 2, 1), CURRENT, [])] == ["e0", "e3", "e2"]


def test_a_missing_fold_is_named_with_the_command():
    with pytest.raises(PipelineError, match=r"missing of the fullest: 1\n.*split\.fold=0,1,2"):
        choose_folds(experiments(0, 2), CURRENT, [])
    with pytest.raises(PipelineError, match="0, 1, 2"):
        choose_folds([], CURRENT, [])


def test_experiments_that_differ_in_more_than_the_fold_are_refused():
    found = experiments(0, 1) + experiments(2, epochs=9, prefix="other")
    with pytest.raises(PipelineError, match="covers every fold"):
        choose_folds(found, CURRENT, [])
    with pytest.raises(PipelineError, match=r"differ in more than split\.fold"):
        choose_folds(found, CURRENT, ["e0", "e1", "other0"])


def test_several_complete_sets_ask_for_names():
    found = experiments(0, 1, 2, epochs=8, prefix="a") + experiments(0, 1, 2, epochs=9, prefix="b")
    with pytest.raises(PipelineError, match="several sets"):
        choose_folds(found, CURRENT, [])
    assert [e.name for e in choose_folds(found, CURRENT, ["b0", "b1", "b2"])] == ["b0", "b1", "b2"]
    with pytest.raises(PipelineError, match="no experiment c0"):
        choose_folds(found, CURRENT, ["c0"])


def test_pooled_lines_name_their_fold():
    lines = pool({0: [{"id": "q-2"}], 1: [{"id": "q-1"}]}, {"q-1", "q-2"})
    assert lines == [{"id": "q-1", "fold": 1}, {"id": "q-2", "fold": 0}]


@pytest.mark.parametrize(
    ("folds", "records", "message"),
    [
        ({0: [{"id": "a"}], 1: [{"id": "a"}]}, {"a"}, "a is tested in 2 folds"),
        ({0: [{"id": "a"}]}, {"a", "b"}, "b is tested in no fold"),
        ({0: [{"id": "a"}, {"id": "b"}]}, {"a"}, "b is tested, but is no record"),
    ],
)
def test_every_record_is_tested_exactly_once(folds, records, message):
    with pytest.raises(PipelineError, match=message):
        pool(folds, records)


def test_the_pooled_metrics_say_of_what_model_they_are(tmp_path, monkeypatch, capsys):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pool_folds.py"])
    params = {"split": {"folds": 5}, "seed": 1, "evaluate": {"permutations": 100}}
    runs = [Experiment(f"e{fold}", f"rev-{fold}", params | {"split": {"fold": fold, "folds": 5}}) for fold in range(5)]
    scores = dict.fromkeys(SCORES) | {"chrf": 50.0, "recalled": 0.0}
    answer = {"answer": "답", "scores": scores, "citations": [], "similarity": 0.5, "examples": 1}
    question = {"category": "전세사기", "difficulty": "초급", "notice": "고지", "question": "질문", "reference": "답"}
    answers = dict.fromkeys(SYSTEMS["test"], answer)

    def rows(revision, path, name):
        if path == "data/prepared/records.jsonl":
            return [{"id": f"q-{fold}"} for fold in range(5)]
        if path == "data/predictions/contrasts.jsonl":
            names = ("contrast_accuracy", "contrast_per_character", "contrast_per_token", "contrast_text_only")
            of_pair = {"scores": dict.fromkeys(names, 1.0), "preferred": [1.0]}
            pair = {"kind": "number", "right": "가", "wrong": "나"}
            rated = {"pairs": [pair], **dict.fromkeys(("base", "few_shot", "adapter"), of_pair)}
            ids = {"unseen": (revision.replace("rev", "q"), "case-1"), "trained": ("q-9",)}
            return [{"id": name, "part": part, **rated} for part, found in ids.items() for name in found]
        return [{"id": revision.replace("rev", "q"), "gold": None, **question, **answers}]

    asked_with = {"tokenizer": "t", "template": "k"}
    origin = {"notice": "note", "profile": "tiny", "chrf_signature": "nw:2", "versions": {"torch": "1"}}
    origin["asked_with"] = asked_with
    rests = {"groups": 1, "by_answers": 0, "shared_answers": 1, "untrained_categories": ["상속"]}
    monkeypatch.setattr(pool_folds, "list_experiments", lambda: runs)
    monkeypatch.setattr(pool_folds, "read_rows", rows)
    monkeypatch.setattr(pool_folds, "read_metrics", lambda revision: {**origin, "test_data": rests})
    pool_folds.main()
    metrics = json.loads((tmp_path / "metrics/folds.json").read_text(encoding="utf-8"))
    assert {name: metrics[name] for name in origin} == origin
    assert metrics["experiments"] == {str(fold): f"e{fold}" for fold in range(5)}
    assert (metrics["test"]["n"], metrics["test"]["adapter"]["chrf"]) == (5, 50)
    assert metrics["test_data"] == rests | {"groups": 5, "shared_answers": 5}
    pairs = metrics["contrasts"]["unseen"]
    assert (pairs["n"], pairs["pairs"], "trained" in metrics["contrasts"]) == (5, 5, False)  # no case, which all know
    assert metrics["difference"]["base"]["contrast_accuracy"]["verdict"] == "cannot tell: both at the best value"
    assert {fold: part["n"] for fold, part in metrics["test_by_fold"].items()} == dict.fromkeys("01234", 1)
    page = (tmp_path / "data/folds/report.html").read_text(encoding="utf-8")
    assert "5개 폴드를 합친 5문항" in page
    assert "<b>5문항</b>은 답변이 학습 자료에도 글자 그대로 있습니다" in page
    assert "5 questions, each answered by the model that was not trained on it" in capsys.readouterr().out
    fold_3 = {**origin, "asked_with": asked_with | {"template": "x"}}
    monkeypatch.setattr(pool_folds, "read_metrics", lambda revision: fold_3 if revision == "rev-3" else origin)
    with pytest.raises(PipelineError, match=r"bits per character .* another template in e0, e1, e2, e3, e4"):
        pool_folds.main()
