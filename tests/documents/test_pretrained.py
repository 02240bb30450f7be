"""What metrics/README.md says of the pretrained base is what metrics/gemma-270m.json holds."""

import json
from pathlib import Path

import pytest

from civilqa.experiments.revisions import check_same_sources, open_run, read_metrics
from conftest import ROOT

MEASURED = json.loads((ROOT / "metrics/gemma-270m.json").read_text(encoding="utf-8"))
SECTION = (ROOT / "metrics/README.md").read_text(encoding="utf-8").split("## Pretrained weights\n")[1].split("\n## ")[0]
TABLES = [
    [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line.startswith("| ")]
    for part in SECTION.split("**Today's recipe**")
]
ROWS = TABLES[0]
SYSTEMS = [name.strip("`") for name in ROWS[0][1:]]


def shown(score, system):
    if score == "contrast_accuracy":
        part = MEASURED["contrasts"]["unseen"]
        mean, bounds = part.get(system, {}).get(score), part["interval"].get(system)
    else:
        mean, bounds = MEASURED["test"][system].get(score), MEASURED["interval"][system].get(score)
    return "-" if mean is None else f"{mean:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


@pytest.mark.parametrize("row", ROWS[2:], ids=lambda row: row[0].strip("`"))
def test_each_score_of_each_system_is_that_of_the_run(row):
    assert row[1:] == [shown(row[0].strip("`"), system) for system in SYSTEMS]


@pytest.mark.parametrize("other", ["base", "adapter_retrieval"])
def test_the_differences_in_the_text_are_those_of_the_run(other):
    found = MEASURED["difference"][other]["contrast_accuracy"]
    sign = 1 if other == "base" else -1  # the file holds what the adapter has more
    low, high = sorted(sign * found[end] for end in ("low", "high"))
    assert f"{sign * found['mean']:+.3f}" in SECTION
    assert f"{low:+.3f} to {high:+.3f}" in " ".join(SECTION.split())


def test_what_is_said_of_training_is_what_was_measured():
    trained = MEASURED["contrasts"]["trained"]
    low, high = trained["interval"]["adapter"]
    said = f"{trained['adapter']['contrast_accuracy']:.3f} of the pairs [{low:.3f}, {high:.3f}], the base in "
    assert said + f"{trained['base']['contrast_accuracy']:.3f}" in SECTION
    recall = MEASURED["train_recall"]["adapter"]
    assert f"{recall['bits_per_character']:.2f} bits a character" in SECTION
    assert recall["recalled"] == 0
    assert f"{MEASURED['articles']['recall']['required']['at_5']['mean']:.2f} are among the five" in SECTION


def test_the_first_readme_says_the_same():
    """Three scores, in words; each of its cells is one of the long table's."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("**What to expect.**")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    systems = ("base", "adapter", "adapter_retrieval", "nearest")
    scores = ("ends_cleanly", "contrast_accuracy", "reference_citation_f1")
    for line, score in zip(lines, scores, strict=True):
        assert [cell.strip() for cell in line.split("|")[2:-1]] == [shown(score, system) for system in systems]


KEPT = [open_run(str(path)) for path in sorted((ROOT / "metrics/gemma-270m").glob("*.zip"))]


def test_the_runs_that_are_kept_can_be_pooled():
    check_same_sources(KEPT)
    assert len({(run.fold, run.seed) for run in KEPT}) == len(KEPT)


def test_what_is_said_of_each_run_that_is_kept_is_what_it_holds():
    rows = []
    for run in KEPT:
        found = read_metrics(run.revision)
        assert (found["test"]["n"], found["test"]["base"]["ends_cleanly"]) == (12, 0)
        means, over = found["contrasts"]["unseen"]["adapter"] | found["test"]["adapter"], found["difference"]["base"]
        citations, contrasts = (
            f"{means[name]:.3f}, {over[name]['mean']:+.3f} [{over[name]['low']:+.3f}, {over[name]['high']:+.3f}]"
            for name in ("reference_citation_f1", "contrast_accuracy")
        )
        of_nearest = f"{found['test']['nearest']['reference_citation_f1']:.3f}"
        form = [f"{means[name]:.3f}" for name in ("ends_cleanly", "repetition")]
        rows.append([f"`{Path(run.name).stem}`", *form, citations, of_nearest, contrasts])
    assert TABLES[1][2:] == rows
