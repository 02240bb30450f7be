import json
import shlex
import shutil
import sys
from itertools import pairwise
from zipfile import ZipFile

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import pool_folds
from civilqa.experiments import revisions
from civilqa.experiments.revisions import Experiment, check_same_sources, choose_runs, open_run, read_metrics, read_rows
from civilqa.program.errors import PipelineError
from civilqa.scoring.predictions import SYSTEMS
from civilqa.scoring.scores import SCORES
from conftest import ROOT
from pool_folds import check_records

CURRENT = {"seed": 7, "split": {"fold": 0, "folds": 3}, "train": {"epochs": 4, "seed": None}}


def experiments(*folds, epochs=4, prefix="e", seed=None, of=3):
    return [
        Experiment(
            f"{prefix}{i}",
            f"rev-{prefix}{i}",
            {"seed": 7, "split": {"fold": f, "folds": of}, "train": {"epochs": epochs, "seed": seed}},
        )
        for i, f in enumerate(folds)
    ]


def names(found, named=()):
    return [experiment.name for experiment in choose_runs(found, CURRENT, list(named))]


def test_the_folds_of_the_current_parameters_are_taken_in_order():
    assert names(experiments(2, 0, 1) + experiments(0, 1, 2, epochs=9, prefix="other")) == ["e1", "e2", "e0"]


def test_the_only_complete_set_is_taken():
    found = experiments(0, 1) + experiments(0, 1, 2, epochs=9, prefix="other")
    assert names(found) == ["other0", "other1", "other2"]


def test_of_two_runs_of_a_fold_the_later_is_taken():
    assert names(experiments(0, 1, 2, 1)) == ["e0", "e3", "e2"]
    # An empty train.seed is the seed, however it is written.
    assert names(experiments(0, 1, 2) + experiments(1, prefix="again", seed=7)) == ["e0", "again0", "e2"]


def test_folds_and_seeds_are_a_grid_in_order():
    found = experiments(0, 1, 2, prefix="b", seed=2) + experiments(2, 1, 0, prefix="a", seed=1)
    assert names(found) == ["a2", "b0", "a1", "b1", "a0", "b2"]


def test_seeds_of_one_fold_are_enough_and_one_run_is_not():
    found = experiments(1, prefix="a", seed=1) + experiments(1, prefix="b", seed=2)
    assert names(found) == ["a0", "b0"]
    with pytest.raises(PipelineError, match="lacks fold 0, 2 of seed 1"):
        names(found, ["a0"])


def test_a_missing_fold_is_named_with_the_command():
    with pytest.raises(PipelineError, match=r"lacks fold 1 of seed 7\n.*-S split\.fold=1 -S train\.seed=7 evaluate"):
        names(experiments(0, 2))
    with pytest.raises(PipelineError, match=r"lacks fold 0, 1, 2 of seed 7\n.*split\.fold=0,1,2"):
        names([])


@pytest.mark.parametrize("named", [False, True])
def test_the_folds_are_those_of_the_runs_whatever_the_workspace_has(named):
    two, four, part = experiments(1, 0, of=2), experiments(0, 1, 2, 3, of=4), experiments(0, 1, 2, of=4)
    assert names(two, ["e0", "e1"] if named else []) == ["e1", "e0"]
    assert names(four, ["e0", "e1", "e2", "e3"] if named else []) == ["e0", "e1", "e2", "e3"]
    wanted = r"lacks fold 3 of seed 7\n.* -S split\.folds=4 -S split\.fold=3 -S train\.seed=7 evaluate"
    with pytest.raises(PipelineError, match=wanted):
        names(part, ["e0", "e1", "e2"] if named else [])


def test_a_missing_run_of_a_grid_is_named_with_the_command():
    found = experiments(0, 1, 2, seed=1) + experiments(0, 2, prefix="b", seed=2) + experiments(1, prefix="c", seed=3)
    with pytest.raises(PipelineError, match="lacks fold 1 of seed 2; fold 0, 2 of seed 3") as raised:
        names(found)
    assert "split.fold=1 -S train.seed=2 evaluate && dvc exp run --queue -S split.fold=0,2 -S train.seed=3" in str(
        raised.value
    )
    assert names(found, ["e0", "e1", "e2"]) == ["e0", "e1", "e2"]  # naming a part of them is a choice


def test_what_is_missing_is_run_with_the_parameters_of_the_others():
    found = experiments(0, 1, epochs=9)
    for one in found:
        one.params["prepare"] = {"source": "내 파일.csv", "categories": ["전세사기"], "unknown_here": 1}
    current = CURRENT | {"prepare": {"source": "data/raw/a.csv", "categories": None}}
    with pytest.raises(PipelineError) as raised:
        choose_runs(found, current, [])
    command = str(raised.value).split("run them with: ")[1].split(" && ")[0]
    changes = [change for flag, change in pairwise(shlex.split(command)) if flag == "-S"]
    parsed = {one.key_or_group: one.value() for one in OverridesParser.create().parse_overrides(changes)}
    assert parsed == {
        "prepare.source": "내 파일.csv",
        "prepare.categories": ["전세사기"],
        "train.epochs": 9,
        "split.fold": 2,
        "train.seed": 7,
    }


def test_experiments_that_differ_in_more_than_fold_and_seed_are_refused():
    found = experiments(0, 1) + experiments(2, epochs=9, prefix="other")
    with pytest.raises(PipelineError, match="is complete"):
        names(found)
    with pytest.raises(PipelineError, match=r"other0 \(fold 2, seed 7\) from e0 .*: train\.epochs 9 in place of 4$"):
        names(found, ["e0", "e1", "other0"])


def test_a_seed_that_also_draws_splits_and_weights_is_told_from_that_of_the_training():
    found = experiments(0, 1, 2)
    found.append(Experiment("s", "rev-s", {**CURRENT, "seed": 8}))
    with pytest.raises(PipelineError, match=r"seed 8 in place of 7; .*vary train\.seed"):
        names(found, ["e0", "e1", "e2", "s"])


def test_several_complete_sets_ask_for_names():
    found = experiments(0, 1, 2, epochs=8, prefix="a") + experiments(0, 1, 2, epochs=9, prefix="b")
    with pytest.raises(PipelineError, match="several sets"):
        names(found)
    assert names(found, ["b0", "b1", "b2"]) == ["b0", "b1", "b2"]
    with pytest.raises(PipelineError, match="no experiment c0"):
        names(found, ["c0"])


def contents(run, **others):
    """Return what is kept of a run, by path."""
    return {
        "params.yaml": json.dumps(run.params),
        "dvc.lock": lock(),
        "metrics/evaluate.json": json.dumps({"profile": run.name}),
        "models/adapter/manifest.json": manifest().decode(),
        **dict.fromkeys(revisions.KEPT_FILES[4:], json.dumps({"id": f"민법 {run.name}"})),
        **others,
    }


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Keep experiments in a folder of the working directory, which is no git repository; returns the files' names."""
    monkeypatch.chdir(tmp_path)

    def keep(found, *named, folder="runs", **others):
        of = {run.revision: contents(run, **others) for run in found}
        monkeypatch.setattr(pool_folds, "list_experiments", lambda: found)
        monkeypatch.setattr(sys, "argv", ["pool_folds.py", "--keep", folder, *named])
        with monkeypatch.context() as outputs:
            outputs.setattr(revisions, "read_output", lambda revision, path, name: of[revision][path].encode())
            pool_folds.main()
        return sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / folder).iterdir())

    return keep


def test_runs_are_kept_as_files_that_pool_as_the_experiments_do(keep, tmp_path, capsys):
    found = experiments(0, 1) + experiments(2, seed=9, prefix="s")
    files = keep(found)
    assert files == ["runs/fold-0.seed-7.zip", "runs/fold-1.seed-7.zip", "runs/fold-2.seed-9.zip"]
    assert "e1 (fold 1, seed 7): runs/fold-1.seed-7.zip" in capsys.readouterr().out
    opened = [open_run(file) for file in files]
    assert [(one.params, one.fold, one.seed) for one in opened] == [(one.params, one.fold, one.seed) for one in found]
    assert read_metrics(files[1]) == {"profile": "e1"}
    assert read_rows(files[2], "data/predictions/contrasts.jsonl") == [{"id": "민법 s0"}]
    check_same_sources(opened)
    kept = {file: (tmp_path / file).read_bytes() for file in files}
    assert keep(found, folder="again") == [file.replace("runs", "again") for file in files]
    assert {file: (tmp_path / file.replace("runs", "again")).read_bytes() for file in files} == kept


def test_an_answer_with_what_unicode_takes_for_a_line_end_is_one_row(keep):
    row = json.dumps({"id": "민법\u0085제\u2028750\u2029조"}, ensure_ascii=False)
    (file,) = keep(experiments(0), **{"data/predictions/test.jsonl": row})
    assert read_rows(file, "data/predictions/test.jsonl") == [json.loads(row)]


def test_kept_runs_of_other_code_are_refused(keep):
    first, second = keep(experiments(0))[0], keep(experiments(1), folder="other", **{"dvc.lock": lock(code="c")})[0]
    with pytest.raises(PipelineError, match=r"other/fold-1\.seed-7\.zip \(.*made from another stages/civilqa/training"):
        check_same_sources([open_run(first), open_run(second)])


def test_of_several_recipes_the_one_to_keep_is_to_be_named(keep):
    found = experiments(0, epochs=8, prefix="a") + experiments(0, epochs=9, prefix="b")
    with pytest.raises(PipelineError, match=r"of 2 recipes; name those of one to keep:\na0\nb0"):
        keep(found)
    assert keep(found, "b0") == ["runs/fold-0.seed-7.zip"]
    assert open_run("runs/fold-0.seed-7.zip").params["train"]["epochs"] == 9


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "another"])
def test_a_kept_run_that_is_not_whole_is_named(keep, tmp_path, damage):
    (name,) = keep(experiments(0))
    file = tmp_path / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        file.write_bytes(content[:60] + b"\0\0" + content[62:])
    else:
        with ZipFile(file, "w") as archive:
            archive.writestr("report.html", "")
    with pytest.raises(
        PipelineError, match=r"runs/fold-0\.seed-7\.zip: params\.yaml cannot be read: .*pool_folds\.py --keep"
    ):
        open_run(name)


def lock(code="a", data="b"):
    deps = {"data/raw/x.csv": data, "stages/civilqa/training": code, "data/prepared/records.jsonl": code + data}
    stage = {"deps": [{"path": path, "md5": md5} for path, md5 in deps.items()], "outs": [{"path": "data/prepared"}]}
    return json.dumps({"stages": {"prepare": stage, "benchmark": {"deps": [{"path": "stages/speed", "md5": code}]}}})


def manifest(weights="w"):
    return json.dumps({"base": weights, "tokenizer": "t", "template_sha256": "s", "quantization": "none"}).encode()


@pytest.mark.parametrize(
    ("locked", "made", "message"),
    [
        (
            lock(code="c"),
            manifest(),
            r"e1 \(fold 1, seed 7\): made from another stages/civilqa/training than e0 \(fold 0",
        ),
        (lock(data="c"), manifest(), r"made from another data/raw/x\.csv than e0"),
        (lock(), manifest("other"), r"made from another base model \(base\) than e0"),
    ],
)
def test_runs_on_other_data_code_or_base_are_refused(locked, made, message, monkeypatch):
    found = experiments(0, 1, 2)
    monkeypatch.setattr(revisions, "git", lambda _, which: locked if "e1" in which else lock())
    monkeypatch.setattr(revisions, "read_output", lambda revision, *_: made if "e1" in revision else manifest())
    with pytest.raises(PipelineError, match=message) as raised:
        check_same_sources(found)
    assert "e2" not in str(raised.value)
    check_same_sources([found[0], found[2]])


@pytest.mark.parametrize(
    ("lines", "records", "message"),
    [
        ([("a", 0, 1), ("a", 1, 1)], "a", "a is tested in 2 folds"),
        ([("a", 0, 1), ("c", 1, 1)], "abc", "b is tested in no fold"),
        ([("a", 0, 1), ("b", 1, 1)], "a", "b is tested, but is no record of e0"),
        ([("a", 0, 1), ("a", 0, 2), ("b", 1, 1)], "ab", r"b is tested of the seeds \[1\], want each of \[1, 2\] once"),
        (
            [("a", 0, 1), ("a", 0, 1), ("a", 0, 2), ("b", 1, 1), ("b", 1, 2)],
            "ab",
            r"a is tested of the seeds \[1, 1, 2\]",
        ),
    ],
)
def test_every_record_is_tested_once_by_each_seed(lines, records, message, monkeypatch):
    monkeypatch.setattr(pool_folds, "read_rows", lambda *_: [{"id": name} for name in records])
    runs = [one for seed in {seed for *_, seed in lines} for one in experiments(0, 1, seed=seed)]
    with pytest.raises(PipelineError, match=message):
        check_records(runs, [dict(zip(("id", "fold", "seed"), line, strict=True)) for line in lines])


def test_of_seeds_of_one_fold_other_records_need_no_test(monkeypatch):
    monkeypatch.setattr(pool_folds, "read_rows", lambda *_: [{"id": "a"}, {"id": "b"}])
    runs = experiments(0, seed=1) + experiments(0, seed=2)
    check_records(runs, [{"id": "a", "fold": 0, "seed": seed} for seed in (1, 2)])


def test_other_records_are_named(monkeypatch):
    of = {"rev-e0": [{"id": "a", "answer": "x"}, {"id": "b", "answer": "y"}], "rev-e1": [{"id": "a", "answer": "z"}]}
    monkeypatch.setattr(pool_folds, "read_rows", lambda revision, *_: of[revision])
    with pytest.raises(PipelineError, match=r"e1 \(fold 1, seed 7\): has 1 records, 0 of them as they are among the 2"):
        check_records(experiments(0, 1), [])


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_the_pooled_metrics_say_of_what_models_they_are(tmp_path, monkeypatch, capsys, seeds):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pool_folds.py"])
    params = {"seed": 1, "evaluate": {"permutations": 100}}
    runs = [
        Experiment(
            f"e{fold}s{seed}",
            f"rev-{fold}-{seed}",
            params | {"split": {"fold": fold, "folds": 5}, "train": {"seed": seed}},
        )
        for fold in range(5)
        for seed in seeds
    ]
    scores = dict.fromkeys(SCORES) | {"chrf": 50.0, "recalled": 0.0}
    answer = {"answer": "답", "scores": scores, "citations": [], "similarity": 0.5, "examples": 1}
    question = {"category": "전세사기", "difficulty": "초급", "notice": "고지", "question": "질문", "reference": "답"}
    answers = dict.fromkeys(SYSTEMS["test"], answer)

    def rows(revision, path, name):
        if path == "data/prepared/records.jsonl":
            return [{"id": f"q-{fold}"} for fold in range(5)]
        _, fold, seed = revision.split("-")
        if path == "data/predictions/contrasts.jsonl":
            names = ("contrast_accuracy", "contrast_per_character", "contrast_per_token", "contrast_text_only")
            of_pair = {"scores": dict.fromkeys(names, 1.0), "preferred": [1.0]}
            pair = {"kind": "number", "right": "가", "wrong": "나"}
            rated = {"pairs": [pair], **dict.fromkeys(("base", "few_shot", "adapter"), of_pair)}
            ids = {"unseen": (f"q-{fold}", "case-1"), "trained": ("q-9",)}
            return [{"id": name, "part": part, **rated} for part, found in ids.items() for name in found]
        of_seed = answer | {"answer": f"답 {seed}", "scores": scores | {"chrf": 50.0 + 10 * int(seed) + int(fold)}}
        return [{"id": f"q-{fold}", "gold": None, **question, **answers, "adapter": of_seed}]

    asked_with = {"tokenizer": "t", "template": "k"}
    origin = {"notice": "note", "profile": "tiny", "chrf_signature": "nw:2", "versions": {"torch": "1"}}
    origin["asked_with"] = asked_with
    rests = {"groups": 1, "by_answers": 0, "shared_answers": 1, "untrained_categories": ["상속"]}
    monkeypatch.setattr(pool_folds, "list_experiments", lambda: runs)
    monkeypatch.setattr(pool_folds, "check_same_sources", lambda _: None)
    monkeypatch.setattr(pool_folds, "read_rows", rows)
    monkeypatch.setattr(pool_folds, "read_metrics", lambda revision: {**origin, "test_data": rests})
    pool_folds.main()
    metrics = json.loads((tmp_path / "metrics/folds.json").read_text(encoding="utf-8"))
    assert {name: metrics[name] for name in origin} == origin
    assert metrics["experiments"] == [
        {"name": f"e{fold}s{seed}", "fold": fold, "seed": seed} for fold in range(5) for seed in seeds
    ]
    mean = 52 + 10 * sum(seeds) / len(seeds)
    assert (metrics["test"]["n"], metrics["test"]["adapter"]["chrf"]) == (5, mean)
    found = metrics["difference"]["base"]["chrf"]
    assert (found["n"], found["mean"], found.get("seeds", 1)) == (5, mean - 50, len(seeds))
    if len(seeds) > 1:  # of the differences 10 to 34: the folds' squares are 2.5, the seeds' 100
        assert found["variance"] == pytest.approx({"questions": 2.5, "seeds": 100, "both": 0})
        assert found["seed_share"] == pytest.approx((100 / 3) / (100 / 3 + 2.5 / 5))
    assert metrics["test_data"] == rests | {"groups": 5, "shared_answers": 5}
    pairs = metrics["contrasts"]["unseen"]
    assert (pairs["n"], pairs["pairs"], "trained" in metrics["contrasts"]) == (5, 5, False)  # no case, which all know
    assert metrics["difference"]["base"]["contrast_accuracy"]["verdict"] == "cannot tell: both at the best value"
    assert {fold: part["n"] for fold, part in metrics["test_by_fold"].items()} == dict.fromkeys("01234", 1)
    by_seed = {int(seed): part["adapter"]["chrf"] for seed, part in metrics["test_by_seed"].items()}
    assert by_seed == {seed: 52 + 10 * seed for seed in seeds}
    page = (tmp_path / "data/folds/report.html").read_text(encoding="utf-8")
    assert f"5개 폴드, {len(seeds)}개 시드를 합친 5문항" in page
    assert "<b>5문항</b>은 답변이 학습 자료에도 글자 그대로 있습니다" in page
    assert ("시드에 따른 차이는 구간에 들어 있지 않습니다" in page) == (len(seeds) == 1)
    assert "답 1" in page
    assert "답 2" not in page
    out = capsys.readouterr().out
    assert "5 questions, each answered by models that were not trained on it; 5 folds" in out
    assert ("one seed: the difference between seeds is not in these intervals" in out) == (len(seeds) == 1)
    fold_3 = {**origin, "asked_with": asked_with | {"template": "x"}}
    monkeypatch.setattr(pool_folds, "read_metrics", lambda revision: fold_3 if revision.startswith("rev-3") else origin)
    with pytest.raises(PipelineError, match=r"bits per character .* another template in "):
        pool_folds.main()
