import shutil
import subprocess
import sys

import pytest

import compare_answers
from accidents import checked, commit_all, run
from civilqa.experiments.word_diff import merge_words
from civilqa.program.errors import PipelineError
from civilqa.scoring.scores import SCORES
from compare_answers import check_lines, compare, difference

BITS = SCORES["bits_per_character"].label


def line(name, answer, passed, chrf):
    scores = {
        "content_accepted": passed,
        "abstention_rate": 0.0,
        "judged_harmful": None,
        "forbidden_rate": 0.0,
        "invented_citation_rate": 0.0,
        "deleted_citation_rate": 0.0,
    }
    scores |= {
        "key_point_recall": 0.0,
        "citation_f1": 0.0,
        "chrf": chrf,
        "bits_per_character": 1.0,
        "ends_cleanly": 1.0,
    }
    asked = {"id": name, "question": "질문", "reference": "답", "gold": None}
    return {**asked, "adapter": {"answer": answer, "scores": scores, "citations": []}}


def test_words_left_out_and_put_in_are_marked():
    assert merge_words("가 나 다 마", "가 라 마") == "가 [-나 다-] {+라+} 마"


def test_what_got_worse_comes_first_and_equal_answers_are_counted():
    before = {name: line(name, "같은 답", 1.0, 50.0) for name in ("a", "b", "c", "d")}
    after = {
        "a": line("a", "나은 답", 1.0, 60.0),
        "b": line("b", "나쁜 답", 0.0, 10.0),
        "c": line("c", "같은 답", 1.0, 50.0),
        "e": line("e", "새 답", 1.0, 50.0),
    }
    differing, same = compare(before, after)
    assert [first["id"] for first, _ in differing] == ["b", "a"]
    assert same == 1


def test_a_score_that_changed_alone_is_shown():
    changed = difference(line("a", "답", 1.0, 50.0), line("a", "답", 1.0, 60.0))
    assert changed == ["  답변은 같음", "  chrF++: 50.0 → 60.0"]
    assert difference(line("a", "답", 1.0, 50.0), line("a", "답", 1.0, 50.0)) == []


def run_with(asked_with, monkeypatch, capsys):
    """Return what is printed of two runs that differ in the bits alone, `asked_with` the tokenizer and template."""
    other = line("a", "답", 1.0, 50.0)
    other["adapter"]["scores"]["bits_per_character"] = 2.0
    runs = {"old": line("a", "답", 1.0, 50.0), "new": other}
    for each in runs.values():
        each |= {"category": "전세사기", "difficulty": "초급", "question": "질문"}
    monkeypatch.setattr(compare_answers, "read_lines", lambda name: {"a": runs[name]})
    monkeypatch.setattr(compare_answers, "read_metrics", lambda name: asked_with[name])
    monkeypatch.setattr(sys, "argv", ["compare_answers.py", "old", "new"])
    compare_answers.main()
    return capsys.readouterr().out


def test_bits_are_compared_under_one_tokenizer_and_template_alone(monkeypatch, capsys):
    one = {"asked_with": {"tokenizer": "t", "template": "k"}}
    assert BITS not in "글자당 비트는 비교하지 않았습니다"
    assert f"{BITS}: 1.00 → 2.00" in run_with({"old": one, "new": one}, monkeypatch, capsys)
    for part in ("tokenizer", "template"):
        other = {"asked_with": {**one["asked_with"], part: "x"}}
        said = run_with({"old": one, "new": other}, monkeypatch, capsys)
        assert BITS not in said
        assert f"글자당 비트는 비교하지 않았습니다: another {part} in old, new" in said
    said = run_with({"old": {}, "new": one}, monkeypatch, capsys)
    assert BITS not in said
    assert "old does not say with which tokenizer and template" in said


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"], ["no-such-revision"]])
def test_wrong_arguments_are_named(project, arguments):
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    finished = subprocess.run(
        [sys.executable, "stages/compare_answers.py", *arguments],
        cwd=project, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: ")
    assert "Traceback" not in finished.stderr


def test_in_a_fresh_clone_what_was_not_pulled_is_told_in_a_sentence(project):
    checked(project, "git", "init", "--quiet")
    commit_all(project, "start")
    finished = run(project, sys.executable, "stages/compare_answers.py", "HEAD", "workspace")
    assert finished.returncode == 1
    assert finished.stderr.startswith("error: data/predictions/test.jsonl of HEAD: cannot be read: ")
    assert "`dvc fetch` gets outputs from a remote" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_predictions_of_another_version_are_refused():
    with pytest.raises(PipelineError, match=r"fast: .*another version of the evaluate stage"):
        check_lines([line("a", "답", 1.0, 50.0)], "fast")


@pytest.mark.slow
def test_another_revision_is_read_where_the_project_is_a_folder_of_a_larger_repository(run_copy, tmp_path):
    folder = tmp_path / "office" / "law"
    shutil.copytree(run_copy, folder, symlinks=True, ignore=shutil.ignore_patterns(".git"))
    checked(folder.parent, "git", "init", "--quiet")
    commit_all(folder.parent, "start")
    told = checked(folder, "python", "stages/compare_answers.py", "HEAD", "workspace")
    assert "다른 답변 0개" in told
    assert "같은 답변 0개" not in told
