import json

import pytest

from civilqa.dataset.records import Record
from civilqa.generation.answers import Answer
from civilqa.program.errors import ParameterError
from civilqa.scoring.comparison import Resampling
from civilqa.scoring.gold import Gold
from conftest import edit_params
from evaluate import SYSTEMS, answer_limit, check_room, describe_answer, group_rows, make_predictions, plot_rows

RESAMPLING = Resampling(resamples=200, seed=1)
RECORD = Record(
    id="q-1", question="질문입니다", answer="답은 민법 제750조입니다.", category="전세사기", difficulty="초급"
)
GOLD = Gold(
    id="q-1", question="질문입니다", required_citations=["민법 제750조"], acceptable_citations=[],
    key_points=[["답은"]], forbidden=["답이 없다"], numbers=[],
)  # fmt: skip


def answers(text, stopped=True):
    return [Answer(text, 5, stopped, 32.0)]


def predictions(golds=None, **texts):
    given = {system: answers(text) for system, text in texts.items()}
    return make_predictions([RECORD], given, golds or {}, "법률 지식 없음", [2], [RECORD])


def test_predictions_hold_everything_of_every_answer():
    (line,) = predictions({"q-1": GOLD}, base="가", few_shot="나", adapter=RECORD.answer)
    assert line["question"] == "질문입니다"
    assert line["reference"] == RECORD.answer
    assert line["notice"] == "법률 지식 없음"
    assert line["gold"]["required_citations"] == ["민법 제750조"]
    assert [line[system]["answer"] for system in ("base", "few_shot", "adapter")] == ["가", "나", RECORD.answer]
    assert line["few_shot"]["examples"] == 2
    assert line["adapter"]["judgement"]["passed"] is True
    assert line["adapter"]["scores"]["bits_per_character"] == 32 / len(RECORD.answer)
    (citation,) = line["adapter"]["citations"]
    assert RECORD.answer[citation["start"] : citation["end"]] == "민법 제750조"
    assert citation["kind"] == "valid"
    assert line["base"]["judgement"]["missing_citations"] == ("민법 제750조",)


def test_a_copied_answer_has_no_score_of_a_model():
    (line,) = predictions(base="가", adapter="나")
    assert line["nearest"]["copied_from"] == "q-1"
    assert line["nearest"]["similarity"] == 1
    assert line["nearest"]["scores"]["bits_per_character"] is None
    assert line["nearest"]["scores"]["stop_rate"] is None
    assert line["nearest"]["scores"]["chrf"] == pytest.approx(100)


def test_without_gold_there_is_no_judgement():
    assert "judgement" not in describe_answer("답", RECORD, None, answers("답")[0])
    assert predictions(base="가", adapter="나")[0]["gold"] is None


def test_plots_give_every_mean_with_its_interval_and_number():
    lines = predictions({"q-1": GOLD}, base="가", few_shot="나", adapter=RECORD.answer)
    rows = plot_rows({"test": lines, "train": lines}, RESAMPLING, " (점검용)")
    assert {row["series"] for row in rows} == {f"{system} (점검용)" for system in SYSTEMS["test"]}
    best = [
        row for row in rows if row["series"].startswith("adapter") and (row["group"], row["score"]) == ("test", "chrf")
    ]
    assert [(row["percent"], row["low"], row["high"], row["n"]) for row in best] == [(100, 100, 100, 1)]
    groups = group_rows(lines, RESAMPLING, "")
    assert {row["group"] for row in groups} == {"전세사기 (n=1)", "초급 (n=1)"}


# --- how long an answer may be ---------------------------------------------------------------------------------------


def test_an_answer_may_be_a_quarter_longer_than_the_longest_of_the_training_split(tmp_path, monkeypatch):
    folder = tmp_path / "data/formatted"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name, lengths in {"train": (3, 9, 5), "test": (40,)}.items():
        rows = [{"id": f"{name}-{n}", "prompt_ids": [7], "completion_ids": [8] * n} for n in lengths]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert answer_limit("auto") == 12  # 11.25, rounded up; the test split's 40 have no part in it
    assert answer_limit(7) == 7


def test_an_answer_needs_room_in_what_the_base_reads():
    rows = [{"prompt_ids": [7] * n} for n in (2, 6)]
    check_room(rows, 10, 16)
    with pytest.raises(ParameterError, match=r"max_new_tokens: 11 tokens an answer, want at most 10: .* reads 16 tok"):
        check_room(rows, 11, 16)


# --- the store of answers, through real runs -------------------------------------------------------------------------


def stored(project):
    """The kept answers with the time of their writing: an answer generated again would be written again."""
    return {path.name: path.stat().st_mtime_ns for path in (project / ".generations").iterdir()}


@pytest.mark.slow
def test_answers_are_generated_once(project, run_stage):
    small = {"train.epochs": 0.1, "evaluate.max_new_tokens": 4, "evaluate.max_train_records": 2}
    edit_params(project / "params.yaml", **small, **{"evaluate.few_shot_examples": 1})

    def run(*stages):
        for stage in stages:
            finished = run_stage(stage)
            assert finished.returncode == 0, finished.stderr
        metrics = json.loads((project / "metrics/evaluate.json").read_text(encoding="utf-8"))
        return stored(project), metrics, (project / "data/predictions/report.html").read_bytes()

    first, metrics, report = run("prepare", "split", "format", "finetune", "evaluate")
    assert metrics["annotated"] == {"test": 12, "train": 2}
    assert metrics["few_shot_examples"] == 1
    assert metrics["max_new_tokens"] == 4

    # Nothing changed: the same bytes, nothing generated.
    assert run("evaluate") == (first, metrics, report)

    # Another definition of a metric: scored again, nothing generated.
    module = project / "stages/civilqa/scoring/similarity.py"
    text = module.read_text(encoding="utf-8")
    assert "CHRF(word_order=2)" in text
    module.write_text(text.replace("CHRF(word_order=2)", "CHRF(word_order=0)"), encoding="utf-8")
    again, rescored, _ = run("evaluate")
    assert again == first
    assert rescored["chrf_signature"] != metrics["chrf_signature"]
    assert rescored["test"]["base"]["chrf"] != metrics["test"]["base"]["chrf"]

    # Another learning rate: the base and its few-shot answers are those kept, only the adapter's are new.
    edit_params(project / "params.yaml", **{"train.learning_rate": 1e-4})
    retrained, _, _ = run("finetune", "evaluate")
    assert {name: retrained[name] for name in first} == first
    of_adapter = len(first) // 3
    assert len(first) == 3 * of_adapter
    assert len(retrained) - len(first) == of_adapter
