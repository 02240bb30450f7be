"""Asks the test cases and shows, by group, which answers pass and why the others do not."""

from itertools import groupby

from rich.console import Console
from tqdm import tqdm

from civilqa.chat.engine import Engine
from civilqa.program.lifecycle.safe_output import printable
from civilqa.scoring.gold import TestCase
from civilqa.scoring.judgement import Judgement, judge_answer


def report_cases(engine: Engine, cases: list[TestCase]) -> None:
    """Ask every case and print what became of it."""
    size = engine.params.batch_size
    answers = []
    for start in tqdm(range(0, len(cases), size), desc="시험 사례", unit="묶음"):
        group = cases[start : start + size]
        answers += engine.generate_answers([case.question for case in group], [case.category for case in group])
    judged = [(case, judge_answer(result["answer"], case)) for case, result in zip(cases, answers, strict=True)]

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(f"\n{engine.notice}\n", style="yellow")
    for group, members in groupby(sorted(judged, key=lambda pair: pair[0].group), key=lambda pair: pair[0].group):
        show_group(console, group, list(members))
    passed = sum(judgement.passed for _, judgement in judged)
    console.print(f"모두 {len(judged)}건 가운데 {passed}건 통과", style="bold")
    console.print("낱말로 판정하므로, 같은 뜻을 다른 말로 쓴 답을 틀렸다고 할 수 있습니다.", style="dim")


def show_group(console: Console, group: str, members: list[tuple[TestCase, Judgement]]) -> None:
    """Print one group: how many passed, then each case and what it lacks."""
    console.print(
        f"{printable(group)}: {sum(judgement.passed for _, judgement in members)}/{len(members)} 통과", style="bold"
    )
    for case, judgement in members:
        mark, style = ("✓ 통과", "green") if judgement.passed else ("✗ 실패", "red")
        question = case.question if len(case.question) <= 60 else f"{case.question[:59]}…"
        console.print(f"  {mark} [{printable(case.id)}] {printable(question)}", style=style)
        for reason in judgement.reasons:
            console.print(f"      - {printable(reason)}")
    console.print()
