"""Shows how the tuned model's answers differ between two experiments: python stages/compare_answers.py main fast

Reads:  data/predictions/test.jsonl of two revisions: experiments, branches, tags, commits, or `workspace`
Writes: nothing; prints in Korean, the answers that got worse first

With one name the workspace is compared with it. Only questions that both were tested on are compared, and bits per
character only where both were asked with one tokenizer and one chat template.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__)

import sys
from pathlib import Path

from civilqa.experiments.revisions import differing_text, read_metrics, read_rows
from civilqa.experiments.word_diff import merge_words
from civilqa.program.errors import PipelineError
from civilqa.program.files import read_jsonl
from civilqa.program.lifecycle.safe_output import printable
from civilqa.scoring.predictions import Prediction
from civilqa.scoring.report import badness, figure, problems
from civilqa.scoring.scores import OF_PAIRS, SCORES

PREDICTIONS = "data/predictions/test.jsonl"
SHOWN = ("bits_per_character", "key_point_recall", "citation_f1", "invented_citation_rate", "forbidden_rate", "chrf")


def read_lines(revision: str) -> dict[str, Prediction]:
    """Return the predictions of a revision by record id."""
    rows = read_jsonl(Path(PREDICTIONS)) if revision == "workspace" else read_rows(revision, PREDICTIONS)
    return check_lines(list(rows), revision)


def check_lines(lines: list[Prediction], revision: str) -> dict[str, Prediction]:
    """Return predictions by record id, unless a version of the evaluate stage that scored less wrote them."""
    for line in lines:
        adapter = line.get("adapter", {})
        scored = set(adapter.get("scores", ())) == {*SCORES} - {*OF_PAIRS}
        if "id" not in line or "citations" not in adapter or not scored:
            raise PipelineError(
                f"{revision}: its {PREDICTIONS} was written by another version of the evaluate stage; run `dvc repro "
                "evaluate` there (the answers are kept, only the scores are made again)"
            )
    return {line["id"]: line for line in lines}


def difference(before: Prediction, after: Prediction, shown: tuple[str, ...] = SHOWN) -> list[str]:
    """Return what changed between two answers of the tuned model to one question; nothing where they are the same."""
    old, new = before["adapter"], after["adapter"]
    changed = [
        f"  {SCORES[name].label}: {figure(old['scores'].get(name), name)} → {figure(new['scores'].get(name), name)}"
        for name in shown
        if old["scores"].get(name) != new["scores"].get(name)
    ]
    if old["answer"] == new["answer"]:
        return changed and ["  답변은 같음", *changed]
    return [f"  {problems(before)} → {problems(after)}", *changed, f"  {merge_words(old['answer'], new['answer'])}"]


def compare(
    before: dict[str, Prediction], after: dict[str, Prediction], shown: tuple[str, ...] = SHOWN
) -> tuple[list[tuple[Prediction, Prediction]], int]:
    """Return the pairs of lines whose answer or scores differ, the worsened first, and how many are the same."""
    shared = [(before[name], after[name]) for name in before if name in after]
    differing = [pair for pair in shared if difference(*pair, shown)]

    def gain(pair: tuple[Prediction, Prediction]) -> tuple:
        old, new = (badness(line)[:-1] for line in pair)
        return tuple(right - left for left, right in zip(old, new, strict=True))

    return sorted(differing, key=lambda pair: (gain(pair), pair[0]["id"])), len(shared) - len(differing)


def main() -> None:
    names = sys.argv[1:]
    if not 1 <= len(names) <= 2:
        raise PipelineError("name one or two experiments or revisions: python stages/compare_answers.py HEAD workspace")
    old, new = names if len(names) == 2 else (names[0], "workspace")
    before, after = read_lines(old), read_lines(new)
    refused = differing_text({old: read_metrics(old), new: read_metrics(new)})
    shown = tuple(name for name in SHOWN if name != "bits_per_character" or not refused)
    differing, same = compare(before, after, shown)
    for first, second in differing:
        print(printable(f"\n{first['id']} [{first['category']} {first['difficulty']}] {first['question']}"))
        print(printable("\n".join(difference(first, second, shown))))
    if refused:
        print(printable(f"\n글자당 비트는 비교하지 않았습니다: {refused}"))
    only = len(before) + len(after) - 2 * (same + len(differing))
    print(f"\n{old} → {new}: 다른 답변 {len(differing)}개, 같은 답변 {same}개, 한쪽에만 있는 질문 {only}개")


if __name__ == "__main__":
    run(main)
