"""The test cases, asked and judged: by group in the terminal, in Korean, and as the page that evaluate writes."""

from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm import tqdm

from civilqa.chat.engine import Engine
from civilqa.dataset.records import Record
from civilqa.generation.answers import Answer
from civilqa.model.hardware import versions
from civilqa.program.files import write_text
from civilqa.program.lifecycle.safe_output import printable
from civilqa.scoring.abstention import abstains
from civilqa.scoring.comparison import group_scores, mean_scores
from civilqa.scoring.gold import Gold, TestCase
from civilqa.scoring.judgement import judge_answer
from civilqa.scoring.predictions import make_predictions
from civilqa.scoring.report import render_report
from civilqa.scoring.similarity import chrf_signature

REPORT = Path("data/test_cases/report.html")


def report_cases(engine: Engine, cases: list[TestCase]) -> None:
    """Ask every case, print by group how many answers are accepted, then each and what it lacks; and write the page."""
    size = engine.params.batch_size
    answers = []
    known = {"", *engine.categories}  # a case of another category is asked as a question without one
    for start in tqdm(range(0, len(cases), size), desc="시험 사례", unit="묶음"):
        batch = cases[start : start + size]
        categories = [case.category if case.category in known else "" for case in batch]
        answers += engine.generate_answers([case.question for case in batch], categories)
    texts = [result["answer"] for result in answers]
    judged = [(case, text, abstains(text), judge_answer(text, case)) for case, text in zip(cases, texts, strict=True)]
    judged.sort(key=lambda pair: pair[0].group)

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(f"\n{engine.notice}\n", style="yellow")
    for group, pairs in groupby(judged, key=lambda pair: pair[0].group):
        members = list(pairs)
        accepted = sum(judgement.accepted for *_, judgement in members)
        console.print(f"{printable(group)}: {accepted}/{len(members)} 내용 맞음", style="bold")
        for case, text, abstained, judgement in members:
            mark, style = ("✓ 내용 맞음", "green") if judgement.accepted else ("✗ 내용 안 맞음", "red")
            mark, style = ("– 답하지 않음", "yellow") if abstained else (mark, style)
            question = case.question if len(case.question) <= 60 else f"{case.question[:59]}…"
            console.print(f"  {mark} [{printable(case.id)}] {printable(question)}", style=style)
            for line in (printable(text) or "(빈 답변)").splitlines():
                console.print(f"      {line}", style="dim")
            for reason in judgement.reasons:
                console.print(f"      - {printable(reason)}")
        console.print()
    accepted = sum(judgement.accepted for *_, judgement in judged)
    declined = sum(abstained for *_, abstained, _ in judged)
    besides = f", {declined}건 답하지 않음" if declined else ""
    console.print(f"모두 {len(judged)}건 가운데 {accepted}건 내용 맞음{besides}", style="bold")
    console.print("낱말로 판정하므로, 같은 뜻을 다른 말로 쓴 답을 틀렸다고 할 수 있습니다.", style="dim")
    write_text(REPORT, render_cases(cases, answers, engine.notice))
    console.print(f"보고서: {REPORT}")


def render_cases(cases: list[TestCase], answers: list[dict[str, Any]], notice: str) -> str:
    """Return the page of evaluate for the answers of one system to the cases; there is nothing to compare them with."""
    records = [Record(case.id, case.question, case.answer, case.category, case.difficulty) for case in cases]
    golds = {case.id: Gold(**case.model_dump(include=set(Gold.model_fields))) for case in cases}
    # What the reference costs the model is not asked here: None, as of a copied answer.
    given = [Answer(one["answer"], one["tokens"], one["stopped"], None) for one in answers]
    lines = make_predictions(records, {"adapter": given}, golds, notice)
    metrics = {
        "profile": "chat.py test",
        "test": mean_scores(lines, ("adapter",)),
        "test_data": {"groups": len(lines), "shared_answers": 0, "untrained_categories": []},
        "test_by_category": group_scores(lines, "category", ("adapter",)),
        "difference": {},
        "contrasts": {},
        "chrf_signature": chrf_signature(),
        "versions": versions(),
    }
    return render_report({"test": lines}, metrics, notice, title="시험 사례에 대한 답변")
