"""The page on which people judge the answers of the last evaluation, and write right ones.

Each change is on the disk before the browser is told that it is saved; until then the browser keeps it, and sends it
again. Needs no model. It is served on this machine alone, since it writes here.
"""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from civilqa.chat.web.guard import read_body
from civilqa.chat.web.page import (
    UNREADABLE,
    LongText,
    answer_html,
    guard_site,
    keep_review,
    make_server,
    open_socket,
    until_ended,
)
from civilqa.law.verdicts import look_up_citations
from civilqa.program.errors import RecordError
from civilqa.program.lifecycle.safe_output import printable
from civilqa.review.evaluation import Evaluation, read_evaluation
from civilqa.review.gold_forms import LABELS, draft_form, find_problems
from civilqa.review.marks import (
    FAULTS,
    REVIEWS,
    SYSTEMS,
    VERDICTS,
    GoldForm,
    Mark,
    Name,
    Review,
    Strict,
    last_reviews,
    latest_corrections,
    read_reviews,
)
from civilqa.scoring.predictions import Prediction
from civilqa.scoring.report import LABELS as SYSTEM_LABELS

HOST = "127.0.0.1"
BLIND = ("답변 가", "답변 나")  # what the two answers are called where their systems are hidden
UNMARKED = {"verdict": None, "faults": []}
WORTH = {"good": "그대로 내보낼 수 있음", "usable": "고치면 쓸 수 있음", "wrong": "내보내면 안 됨"}


class Opened(Strict):
    """Who reviews, and how."""

    reviewer: Name
    blind: bool
    shuffled: bool


class Saved(Strict):
    """The state of one question's form; what stands left has place 0."""

    reviewer: Name
    blind: bool
    key: str
    marks: Annotated[list[Mark], Field(min_length=2, max_length=2)]
    better: Literal["0", "1", "same"] | None
    correction: LongText
    note: LongText
    gold: GoldForm | None


class ReviewPage:
    """The requests of the page, whichever reviewer's browser sends them."""

    def __init__(self, evaluation: Evaluation, folder: Path = REVIEWS) -> None:
        self.evaluation, self.folder = evaluation, folder
        self.writing = anyio.Lock()

    def sides(self, reviewer: str, key: str, blind: bool) -> list[Any]:
        """Return the systems from left to right: by chance, but for a reviewer and his question always the same."""
        sides = [*SYSTEMS]
        if blind:
            random.Random(f"{reviewer} {key}").shuffle(sides)  # noqa: S311 - no secret
        return sides

    async def rows(self, request: Request) -> Response:
        """Return every question with its answers and what the reviewer has said of them, in his order."""
        opened = Opened.model_validate_json(await read_body(request))
        try:
            return JSONResponse(await run_in_threadpool(self.make_rows, opened))
        except RecordError as error:
            return PlainTextResponse(f"{UNREADABLE} {error}", status_code=500)

    def make_rows(self, opened: Opened) -> list[dict[str, Any]]:
        own = read_reviews(self.folder, opened.reviewer)
        states = {review.key: review for review in last_reviews(own)}
        written = {name: by[opened.reviewer] for name, by in latest_corrections(own).items()}
        keys = [*self.evaluation.lines]
        if opened.shuffled:
            random.Random(f"{opened.reviewer} {self.evaluation.adapter_sha256}").shuffle(keys)  # noqa: S311
        return [self.row(key, opened, states.get(key), written) for key in keys]

    def row(self, key: str, opened: Opened, state: Review | None, written: dict[str, str]) -> dict[str, Any]:
        line = self.evaluation.lines[key]
        sides = self.sides(opened.reviewer, key, opened.blind)
        right = state.correction if state else written.get(line["id"], "")
        draft = draft_form(line["question"], right or line["reference"]) if line["gold"] is None else None
        gold = state.gold if state and state.gold else draft
        return {
            "key": key,
            "about": " · ".join(filter(None, (line["category"], line["difficulty"]))),
            "question": printable(line["question"]),
            "reference": printable(line["reference"]),
            "reference_html": _html(line["reference"]),
            "names": BLIND if opened.blind else [SYSTEM_LABELS[system] for system in sides],
            "texts": [printable(line[system]["answer"]) for system in sides],
            "html": [_html(line[system]["answer"], line[system]["stopped"]) for system in sides],
            "marks": [
                (state.marks[system] if state else Mark(verdict=None, faults=[])).model_dump() for system in sides
            ],
            "better": _place(state.better, sides) if state else None,
            "correction": right,
            "note": state.note if state else "",
            "gold": gold.model_dump() if gold else None,
            "gold_saved": bool(state and state.gold),
            **self.told(line, right, state.gold if state else None),
            "done": bool(state and state.is_whole),
        }

    def told(self, line: Prediction, right: str, gold: GoldForm | None) -> dict[str, Any]:
        """Return what is known of what was written: the articles of the right answer, and what the gold lacks."""
        problems = None
        if gold and line["gold"] is None:
            problems = find_problems(line["id"], line["question"], right or line["reference"], gold)
        return {"right_html": _html(right) if right.strip() else "", "problems": problems}

    async def save(self, request: Request) -> Response:
        """Write what was said of a question; return what is told of it once it is on the disk."""
        saved = Saved.model_validate_json(await read_body(request))
        line = self.evaluation.lines.get(saved.key)
        if line is None:
            words = "지금 열린 평가에 없는 답변입니다. 다른 평가의 화면이 열려 있는지 확인하고 화면을 다시 여십시오."
            return PlainTextResponse(words, status_code=409)
        sides = self.sides(saved.reviewer, saved.key, saved.blind)
        review = Review(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            reviewer=saved.reviewer,
            adapter_sha256=self.evaluation.adapter_sha256,
            **{name: line[name] for name in ("id", "category", "question", "reference")},
            answers={system: line[system]["answer"] for system in SYSTEMS},
            shown=sides,
            blind=saved.blind,
            marks=dict(zip(sides, saved.marks, strict=True)),
            better=sides[int(saved.better)] if saved.better in ("0", "1") else saved.better,
            correction=saved.correction,
            note=saved.note,
            gold=saved.gold,
        )
        if failed := await keep_review(review, self.folder, self.writing):
            return failed
        told = await run_in_threadpool(self.told, line, review.correction, review.gold)
        return JSONResponse({**told, "done": review.is_whole})


def _html(text: str, stopped: bool = True) -> str:
    return answer_html({"answer": text, "citations": look_up_citations(text), "stopped": stopped})


def _place(better: str | None, sides: list[str]) -> str | None:
    return str(sides.index(better)) if better in sides else better


def make_review_app(evaluation: Evaluation, folder: Path = REVIEWS) -> ASGIApp:
    """Return the page on an evaluation's answers, behind the guard of the other page."""
    page = ReviewPage(evaluation, folder)
    routes = [Route(f"/{name}", act, methods=["POST"]) for name, act in (("rows", page.rows), ("save", page.save))]
    shown = {
        "evaluation": evaluation,
        "verdicts": [(verdict, words, WORTH[verdict]) for verdict, words in VERDICTS.items()],
        "faults": FAULTS,
        "labels": LABELS,
        "folder": folder.as_posix(),
    }
    return guard_site(routes, "review", shown, HOST)


def serve_review(port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        ParameterError: the port cannot be had.
        RecordError: there is no evaluation, or a file of reviews cannot be read.
    """
    listening = open_socket(HOST, port)
    try:
        evaluation = read_evaluation()
    except RecordError as error:
        how = "`dvc repro evaluate`로 평가하거나 `dvc pull`로 받은 다음 다시 실행하십시오."
        raise RecordError(f"검토할 답변이 없습니다. {how} ({error})") from None
    try:
        read_reviews()  # what is wrong with them is said before anyone begins
    except RecordError as error:
        raise RecordError(f"{UNREADABLE} {error}") from None
    with until_ended(listening, HOST):
        make_server(make_review_app(evaluation)).run(sockets=[listening])
