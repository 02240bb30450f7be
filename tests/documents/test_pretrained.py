"""What the READMEs say of the pretrained base is what metrics/gemma-270m holds."""

import json
import re
import sys
from pathlib import Path

import pytest

import pool_folds
from civilqa.experiments.revisions import check_same_sources, open_run, read_metrics, read_rows
from civilqa.law.citations import parse_citations
from conftest import ROOT

FOLDER = Path("metrics/gemma-270m")
POOLED, SIX, DEFAULT = (
    json.loads((ROOT / FOLDER / f"{name}.json").read_text("utf-8")) for name in ("folds", "six_systems", "default")
)
FIRST = (ROOT / "README.md").read_text("utf-8").split("**What to expect.**")[1].split("\n## ")[0]
SECTION = (ROOT / "metrics/README.md").read_text("utf-8").split("## Pretrained weights\n")[1].split("\n## ")[0]
TOLD = " ".join(SECTION.split())
PRIMARY = ("ends_cleanly", "contrast_accuracy", "reference_citation_f1")


def read_table(text, heading):
    """Return the rows of the table whose first line begins with a heading, that line first."""
    lines = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if not line.startswith("| ---")]


OF_FOLDS, OF_RUNS, OF_SYSTEMS = (
    read_table(SECTION, heading) for heading in ("60 questions", "run", "12 questions, six epochs")
)


def shown(measured, score, system):
    """Return the mean of a score with its interval, as tables show them."""
    if score == "contrast_accuracy":
        part = measured["contrasts"]["unseen"]
        mean, bounds = part.get(system, {}).get(score), part["interval"].get(system)
    else:
        mean, bounds = measured["test"][system].get(score), measured["interval"][system].get(score)
    return "-" if mean is None else f"{mean:.3f} [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def difference(found):
    return f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


@pytest.mark.parametrize("row", OF_FOLDS[1:], ids=lambda row: row[0].strip("`"))
def test_each_score_of_the_folds_is_that_of_their_pool(row):
    score, *cells = row[0].strip("`"), *row[1:]
    systems = [name.strip("`") for name in OF_FOLDS[0][1:-1]]
    over_base = POOLED["difference"]["base"]
    assert cells == [
        *(shown(POOLED, score, system) for system in systems),
        difference(over_base[score]) if score in over_base else "-",
    ]


def test_the_first_readme_says_the_same_in_words():
    rows = [row[1:] for row in read_table(FIRST, "mean [95 % interval]")[1:]]
    systems = ("base", "few_shot", "adapter", "nearest")
    assert rows == [[shown(POOLED, score, system) for system in systems] for score in PRIMARY]
    assert POOLED["test"]["n"] == 60
    assert POOLED["seeds"] == [20260608]


def test_what_the_text_says_of_the_folds_is_what_was_measured():
    """The words "no law" and "not what it should" stand only as long as these figures do."""
    found, means = POOLED["difference"]["base"], POOLED["test"]
    knows = found["contrast_accuracy"]
    assert (knows["verdict"], found["ends_cleanly"]["verdict"]) == ("no difference seen", "better")
    least = f"{knows['detectable']:.3f} could have been"
    assert f"({knows['mean']:+.3f}, {knows['low']:+.3f} to {knows['high']:+.3f}; {least})" in TOLD
    assert found["reference_citation_f1"]["verdict"] == "better"
    assert 2 * means["adapter"]["reference_citation_f1"] < means["nearest"]["reference_citation_f1"]
    cites, invents = (round(60 * means["adapter"][name]) for name in ("citation_rate", "invented_citation_rate"))
    assert f"{cites} of the 60 answers cite an article, of the base's none" in TOLD
    assert f"{invents} answers cite an article that never existed" in TOLD
    assert means["base"]["citation_rate"] == 0
    assert round(60 * means["adapter"]["content_accepted"]) == 1


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Pools runs of the folder that are named as files, in a checkout without experiments."""
    (tmp_path / FOLDER).parent.mkdir()
    (tmp_path / FOLDER).symlink_to(ROOT / FOLDER)
    (tmp_path / "params.yaml").symlink_to(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pool_folds, "list_experiments", list)

    def of(runs):
        monkeypatch.setattr(sys, "argv", ["pool_folds.py", *map(str, runs)])
        pool_folds.main()
        return json.loads(pool_folds.METRICS.read_text("utf-8"))

    return of


def test_the_pool_is_that_of_the_runs_that_are_kept(pool):
    runs = [one["name"] for one in POOLED["experiments"]]
    assert runs == [str(path) for path in sorted(FOLDER.glob("fold-*.seed-20260608.zip"))]
    assert rounded(pool(runs)) == rounded(POOLED)


def test_articles_of_no_act_are_counted_as_the_text_says():
    answers = [
        line["adapter"]["answer"]
        for path in sorted((ROOT / FOLDER).glob("fold-*.seed-20260608.zip"))
        for line in read_rows(open_run(str(path)).revision, "data/predictions/test.jsonl")
    ]
    nothing = [text for text in answers if not parse_citations(text)]
    assert (len(answers), len(nothing)) == (60, 9)
    assert sum(re.search(r"같은 법 제[0-9]+조", text) is not None for text in nothing) == 7


def test_the_seeds_of_a_fold_have_the_part_that_is_told(pool):
    of_folds = [sorted(FOLDER.glob(f"fold-{fold}.seed-*.zip")) for fold in range(5)]
    assert [len(runs) for runs in of_folds] == [3, 3, 1, 1, 1], "the text says how many there are"
    for runs in of_folds[:2]:
        found = pool(runs)["difference"]["base"]
        assert [found[name]["seed_share"] for name in PRIMARY] == [0, 0, 0]


def rounded(content):
    """Return figures with nine digits: another processor adds in another order."""
    if isinstance(content, dict):
        return {key: rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [rounded(value) for value in content]
    return round(content, 9) if isinstance(content, float) else content


KEPT = [open_run(str(path)) for path in sorted((ROOT / FOLDER).glob("*.zip"))]


def test_the_runs_that_are_kept_are_of_one_recipe():
    check_same_sources(KEPT)
    assert len({(run.fold, run.seed) for run in KEPT}) == len(KEPT)


def test_what_is_said_of_each_run_that_is_kept_is_what_it_holds():
    rows = []
    for run in KEPT:
        found = read_metrics(run.revision)
        assert (found["test"]["n"], found["test"]["base"]["ends_cleanly"]) == (12, 0)
        means, over = found["contrasts"]["unseen"]["adapter"] | found["test"]["adapter"], found["difference"]["base"]
        citations, contrasts = (
            f"{means[name]:.3f}, {difference(over[name])}" for name in ("reference_citation_f1", "contrast_accuracy")
        )
        of_nearest = f"{found['test']['nearest']['reference_citation_f1']:.3f}"
        form = [f"{means[name]:.3f}" for name in ("ends_cleanly", "repetition")]
        rows.append([f"`{Path(run.name).stem}`", *form, citations, of_nearest, contrasts])
    assert OF_RUNS[1:] == rows


@pytest.mark.parametrize("row", OF_SYSTEMS[1:], ids=lambda row: row[0].strip("`"))
def test_each_score_of_six_systems_is_that_of_the_run(row):
    systems = [name.strip("`") for name in OF_SYSTEMS[0][1:]]
    assert row[1:] == [shown(SIX, row[0].strip("`"), system) for system in systems]


@pytest.mark.parametrize("other", ["base", "adapter_retrieval"])
def test_the_differences_in_the_text_are_those_of_the_run(other):
    found = SIX["difference"][other]["contrast_accuracy"]
    sign = 1 if other == "base" else -1  # the file holds what the adapter has more
    low, high = sorted(sign * found[end] for end in ("low", "high"))
    assert f"{sign * found['mean']:+.3f}" in SECTION
    assert f"{low:+.3f} to {high:+.3f}" in TOLD


def test_what_is_said_of_training_is_what_was_measured():
    trained = SIX["contrasts"]["trained"]
    low, high = trained["interval"]["adapter"]
    said = f"{trained['adapter']['contrast_accuracy']:.3f} of the pairs [{low:.3f}, {high:.3f}], the base in "
    assert said + f"{trained['base']['contrast_accuracy']:.3f}" in SECTION
    recall = SIX["train_recall"]["adapter"]
    assert f"{recall['bits_per_character']:.2f} bits a character" in SECTION
    assert recall["recalled"] == 0
    assert f"{SIX['articles']['recall']['required']['at_5']['mean']:.2f} are among the five" in SECTION


def test_what_is_said_of_the_default_run_is_what_it_measured():
    recall, pairs = DEFAULT["train_recall"], DEFAULT["contrasts"]["unseen"]["pairs"]
    assert (DEFAULT["profile"], DEFAULT["test"]["n"]) == ("gemma-270m", 12)
    back, same = (round(recall["n"] * recall["adapter"][name]) for name in ("recalled", "recalled_with_articles"))
    assert f"{back} of the {recall['n']} come back almost word for word, but only {same} of them" in TOLD
    assert f"all {recall['n']} training questions asked again, {pairs} pairs of statements" in TOLD


def test_the_speed_told_is_that_of_the_benchmark():
    measured = json.loads((ROOT / FOLDER / "benchmark.json").read_text("utf-8"))
    single, batched = (measured["generation"][name] for name in ("single", "batched"))
    assert (single["prompt_tokens"], batched["batch_size"], measured["profile"]) == (128, 8, "gemma-270m")
    first, alone, together = (
        found["median"]
        for found in (
            single["first_token_seconds"],
            single["decode_tokens_per_second"],
            batched["decode_tokens_per_second"],
        )
    )
    assert f"128 tokens after {first:.2f} s, then {alone:.1f} tokens a second, or {together:.0f} with eight" in TOLD
    assert f"reaches {100 * measured['training']['model_flops_utilization']:.0f} % of the rate" in TOLD
