"""What metrics/README.md says of the pretrained base is what metrics/gemma-270m.json holds."""

import json

import pytest

from civilqa.experiments.revisions import check_same_sources, open_run, read_metrics
from conftest import ROOT

MEASURED = json.loads((ROOT / "metrics/gemma-270m.json").read_text(encoding="utf-8"))
SECTION = (ROOT / "metrics/README.md").read_text(encoding="utf-8").split("## Pretrained weights\n")[1].split("\n## ")[0]
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in SECTION.splitlines() if line.startswith("| ")]
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


def test_what_is_said_of_the_kept_run_is_what_it_holds():
    found = read_metrics(KEPT[0].revision)
    tuned, over = found["test"]["adapter"], found["difference"]["base"]
    text = " ".join(SECTION.split())
    assert (tuned["ends_cleanly"], found["test"]["n"]) == (1, 12)
    assert f"`repetition` {tuned['repetition']:.3f}" in text
    means = found["contrasts"]["unseen"]["adapter"] | tuned
    for name in ("reference_citation_f1", "contrast_accuracy"):
        low, high = (f"{over[name][end]:+.3f}" for end in ("low", "high"))
        assert f"`{name}` {means[name]:.3f}" in text
        assert f"({over[name]['mean']:+.3f} over the base, {low} to {high})" in text
