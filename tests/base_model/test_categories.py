import json

import pytest

from civilqa.base_model import categories as module
from civilqa.base_model.categories import (
    CATEGORIES_FILE,
    add_questions,
    main_category,
    read_categories,
    write_categories,
)
from civilqa.base_model.prompts import FormatParams
from civilqa.program.errors import RecordError

PROMPTS = FormatParams(
    style="conversational",
    statutes_in_prompt=0,
    seed=1,
    system_prompts={"전세사기": "전세 전문가", "default": "상담가"},
)


def test_a_category_of_one_s_own_has_the_prompt_that_its_records_had(tmp_path):
    categories = {}
    add_questions(categories, [("임대차", "하나?"), ("전세사기", "둘?"), ("임대차", "셋?")], PROMPTS)
    write_categories(tmp_path, categories)
    found = read_categories(tmp_path)
    assert {name: category.system_prompt for name, category in found.items()} == {
        "임대차": "상담가",
        "전세사기": "전세 전문가",
    }
    assert (found["임대차"].records, found["임대차"].questions) == (2, ["하나?", "셋?"])
    assert main_category(found) == "임대차"


def test_how_many_articles_stood_before_a_question_goes_with_the_adapter(tmp_path):
    categories = {}
    add_questions(categories, [("임대차", "하나?")], PROMPTS.model_copy(update={"statutes_in_prompt": 3}))
    write_categories(tmp_path, categories)
    assert read_categories(tmp_path, PROMPTS)["임대차"].articles == 3
    add_questions(plain := {}, [("임대차", "하나?")], PROMPTS)
    write_categories(tmp_path, plain)
    assert "articles" not in (tmp_path / CATEGORIES_FILE).read_text(encoding="utf-8")


def test_of_many_records_some_questions_are_kept_and_all_counted(monkeypatch):
    monkeypatch.setattr(module, "QUESTIONS_A_CATEGORY", 2)
    categories = {}
    for number in range(5):
        add_questions(categories, [("", f"{number}번")], PROMPTS)
    assert (categories[""].records, categories[""].questions) == (5, ["0번", "1번"])


def test_a_model_that_does_not_say_how_it_was_trained_has_the_prompts_of_here(tmp_path):
    found = read_categories(tmp_path, PROMPTS)
    assert {name: category.system_prompt for name, category in found.items()} == {
        "": "상담가",
        "전세사기": "전세 전문가",
    }
    assert main_category(found) == ""
    with pytest.raises(RecordError, match="not found; run `dvc repro format`"):
        read_categories(tmp_path)


@pytest.mark.parametrize("broken", ["", "[]", '{"전세사기": {"records": 1}}', '{"": {"system_prompt": 1}}'])
def test_a_file_that_format_did_not_write_is_refused_by_name(tmp_path, broken):
    (tmp_path / CATEGORIES_FILE).write_text(broken, encoding="utf-8")
    for prompts in (None, PROMPTS):
        with pytest.raises(RecordError, match=r"categories\.json: .*; run `dvc repro format`"):
            read_categories(tmp_path, prompts)


def test_format_writes_the_categories_of_the_training_split_alone(project, run_stage):
    for stage in ("prepare", "split", "format"):
        assert run_stage(stage).returncode == 0
    found = read_categories(project / "data/formatted")
    lines = (project / "data/formatted/train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    prompts = {(row["category"], row["messages"][0]["content"]) for row in rows}
    assert {(name, category.system_prompt) for name, category in found.items()} == prompts
    asked = [row["messages"][1]["content"] for row in rows]
    assert sorted(question for category in found.values() for question in category.questions) == sorted(asked)
