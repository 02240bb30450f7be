import json

import pytest

from conftest import edit_params


def stored(project):
    """The kept answers with the time of their writing: an answer generated again would be written again."""
    return {path.name: path.stat().st_mtime_ns for path in (project / ".generations").iterdir()}


@pytest.mark.slow
def test_answers_are_generated_once(project, run_stage):
    small = {"train.epochs": 0.1, "evaluate.max_new_tokens": 4, "evaluate.max_train_records": 2}
    edit_params(project / "params.yaml", **small, **{"evaluate.few_shot_examples": 1, "evaluate.retrieved_examples": 2})

    def run(*stages):
        for stage in stages:
            finished = run_stage(stage)
            assert finished.returncode == 0, finished.stderr
        metrics = json.loads((project / "metrics/evaluate.json").read_text(encoding="utf-8"))
        return stored(project), metrics, (project / "data/predictions/report.html").read_bytes()

    first, metrics, report = run("prepare", "split", "format", "finetune", "evaluate")
    assert metrics["annotated"] == {"test": 12, "train": 2}
    assert (metrics["few_shot_examples"], metrics["retrieved_examples"]) == (1, 2)
    assert metrics["test"]["nearest"]["copied_near_duplicate"] == 0, "split deals near-duplicates together"
    assert set(metrics["contrasts"]["unseen"]["interval"]) == {"base", "few_shot", "retrieved", "adapter"}
    assert "bits_per_character" in metrics["difference"]["retrieved"]
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

    # Another learning rate: the base's answers, shown examples or not, are those kept, only the adapter's are new.
    edit_params(project / "params.yaml", **{"train.learning_rate": 1e-4})
    retrained, _, _ = run("finetune", "evaluate")
    assert {name: retrained[name] for name in first} == first
    # One batch of answers a system; each question with pairs once as it is, and once without itself but for the two
    # that are shown examples.
    unseen, trained = (metrics["contrasts"][part]["n"] for part in ("unseen", "trained"))
    of_adapter = 1 + 2 * (unseen + trained)
    assert len(first) == 2 * of_adapter + 2 * (1 + unseen)
    assert len(retrained) - len(first) == of_adapter

    # Statutes that are not there are named before a question is asked.
    edit_params(project / "params.yaml", **{"reference.statutes": "nowhere", "evaluate.regenerate": True})
    finished = run_stage("evaluate")
    assert finished.returncode != 0
    assert "nowhere: reference.statutes is no git repository" in finished.stderr
    assert stored(project) == retrained
