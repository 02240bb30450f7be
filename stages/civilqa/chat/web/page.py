"""The page: what it shows, what its requests do, and how it is served. It writes to this machine only when asked to.

Nothing that a model or a user wrote does anything in its HTML. A tab has a session, whose conversation stays here, so
that a reload shows it again.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import socket
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import pydantic
import uvicorn
from jinja2 import Environment, FileSystemLoader
from pydantic import Field
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from civilqa.chat.categories import AUTOMATIC, category_note
from civilqa.chat.conversations import save_conversation
from civilqa.chat.engine import BASE, Engine
from civilqa.chat.web.guard import MAX_CONNECTIONS, Guard, WaitingRoom, is_loopback, read_body
from civilqa.dataset.records import read_records, record_id
from civilqa.law.article_texts import text_at_hand
from civilqa.law.statutes import EXISTS, NOT_YET_IN_FORCE, article_url
from civilqa.law.verdicts import CITATIONS_NOTE, citation_name, citation_verdict, distinct_citations
from civilqa.program.errors import ModelError, ParameterError, QuestionError, RecordError
from civilqa.program.lifecycle.machine_errors import KOREAN, explain
from civilqa.program.lifecycle.safe_output import printable
from civilqa.program.lifecycle.stage import Terminated
from civilqa.reading.cleaning import clean
from civilqa.review.marks import (
    FAULTS,
    REVIEWS,
    VERDICTS,
    Mark,
    Name,
    Review,
    System,
    append_review,
    latest_corrections,
    read_reviews,
)

MAX_EXCHANGES = 50  # of one conversation
MAX_CONVERSATIONS = 1000  # kept at a time; the longest unused is forgotten
SECONDS_BETWEEN_UPDATES = 0.1

LOADING = "모델을 불러오는 중입니다."
UNREADABLE = "저장된 검토를 읽을 수 없습니다. 적힌 줄을 되돌리거나 지우십시오."
RELOAD_SECONDS = 2  # while it is loaded
SYSTEMS: list[System] = ["adapter", "base"]  # of the results to a question, in their order
EXAMPLES_A_SPLIT = 3
EXAMPLES = {"train": "예시: 모델이 학습한 질문", "test": "예시: 모델이 처음 보는 질문"}
CLASSES = {"✓": "good", "✗": "bad", "△": "unsure", "?": "unsure"}
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)


def answer_html(result: dict[str, Any]) -> str:
    """Return a finished answer: the text with its citations marked, the articles that it cites, how it ended."""
    cited = []
    for citation in distinct_citations(result):
        mark, words = citation_verdict(citation)
        law, article = citation["law"], citation["article"]
        there = citation["status"] in (EXISTS, NOT_YET_IN_FORCE)
        link, text = (article_url(law, article), text_at_hand(law, article)) if there else (None, None)
        cited.append((CLASSES[mark], mark, words, citation_name(citation), link, printable(text or "")))
    return TEMPLATES.get_template("answer.html.jinja").render(
        parts=parts(result["answer"], result["citations"]), cited=cited, note=CITATIONS_NOTE, stopped=result["stopped"]
    )


def parts(text: str, citations: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return an answer in pieces: text, and for a citation its class and what is known of the article."""
    text = unicodedata.normalize("NFC", text)
    pieces, position = [], 0
    for start, end in dict.fromkeys((citation["start"], citation["end"]) for citation in citations):
        # A range of articles is one place in the text: it is as good as the worst of them.
        verdicts = [citation_verdict(c) for c in citations if (c["start"], c["end"]) == (start, end)]
        mark, words = min(verdicts, key=lambda verdict: "✗△?✓".index(verdict[0]))
        pieces += [(text[position:start], "", ""), (text[start:end], CLASSES[mark], words)]
        position = end
    return [(printable(piece), *rest) for piece, *rest in [*pieces, (text[position:], "", "")] if piece]


def example_questions(split: str, choices: Collection[str]) -> list[tuple[str, str]]:
    """Return (question, category) of a few records, from different categories as far as there are.

    Of a category that the model was not trained on, '' takes the place: the page then asks without one.
    """
    path = Path("data/splits") / f"{split}.jsonl"
    if not path.is_file():
        return []
    by_category: dict[str, list[tuple[str, str]]] = {}
    for record in sorted(read_records(path), key=lambda record: len(record.question)):
        category = record.category if record.category in choices else ""
        by_category.setdefault(record.category, []).append((printable(record.question), category))
    rounds = zip(*by_category.values(), strict=False)
    return [example for examples in rounds for example in examples][:EXAMPLES_A_SPLIT]


LongText = Annotated[str, Field(max_length=20_000)]


class Tab(pydantic.BaseModel):
    """What every request says: whose conversation it is."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    session: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class Asked(Tab):
    """A question, and how it is to be answered."""

    question: str
    category: str
    compare: bool
    turns: bool


class Rated(Tab):
    """What a reader thinks of the answers of an exchange, as the form has it now."""

    exchange: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    reviewer: Name
    marks: list[Mark]
    correction: LongText
    note: LongText


async def keep_review(review: Review, folder: Path, writing: anyio.Lock) -> Response | None:
    """Write a review; return what to answer where that failed."""
    try:
        async with writing:
            await run_in_threadpool(append_review, review, folder)
    except OSError as error:
        return PlainTextResponse(f"저장하지 못했습니다: {explain(error, KOREAN) or error}", status_code=507)
    return None


async def read_session(request: Request) -> str:
    return Tab.model_validate_json(await read_body(request)).session


class Page:
    """The requests of a loaded engine's page, whichever browser sends them."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.room = engine, WaitingRoom()
        self.base: Engine | None = None  # loaded when a comparison is first asked for
        self.loading, self.writing = anyio.Lock(), anyio.Lock()
        # By session and exchange, the results of the models that were asked its question.
        self.conversations: OrderedDict[str, dict[str, list[dict[str, Any]]]] = OrderedDict()
        self.stopped: set[str] = set()  # sessions that want no further answer to what they asked last
        self.mended: set[tuple[str, str]] = set()  # exchanges and reviewers who wrote a right answer there

    async def ask(self, request: Request) -> Response:
        asked = Asked.model_validate_json(await read_body(request))
        lines = (json.dumps(event, ensure_ascii=False) + "\n" async for event in self.answer(request, asked))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def answer(self, request: Request, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        """Yield what the page is told while the answers grow: text, then HTML, of model 0 (tuned) and 1 (base)."""
        exchanges = self.conversations.setdefault(asked.session, {})
        self.conversations.move_to_end(asked.session)
        if len(self.conversations) > MAX_CONVERSATIONS:
            self.conversations.popitem(last=False)
        results: list[dict[str, Any]] = []
        try:
            if len(exchanges) >= MAX_EXCHANGES:
                raise QuestionError("대화가 길어졌습니다. '새 대화'를 눌러 주십시오.")
            self.stopped.discard(asked.session)
            for index in range(1 + asked.compare):
                if index:
                    yield {"status": "기반 모델을 불러옵니다…"}
                    async with self.loading:
                        self.base = self.base or await run_in_threadpool(self.engine.load_base_beside)
                    if asked.session in self.stopped:
                        break
                engine = self.base if index else self.engine
                earlier = [turn[index] for turn in exchanges.values() if len(turn) > index] if asked.turns else []
                history = [(result["question"], result["answer"]) for result in earlier if result["stopped"]]
                begin = partial(engine.stream_answer, asked.question, asked.category, history=history)
                stream = self.room.start(asked.session, request.client.host if request.client else "", begin)
                try:
                    shown = None
                    while not stream.finished and not await request.is_disconnected():
                        if stream.text != shown:
                            shown = stream.text
                            yield {"model": index, "text": shown}
                        await anyio.sleep(SECONDS_BETWEEN_UPDATES)
                finally:
                    stream.stop()
                stream.close()
                results.append(stream.result)
                # Not here: the first look at an act's text reads its history.
                html = await run_in_threadpool(answer_html, stream.result)
                yield {"model": index, "html": html, "category": category_note(stream.result)}
            yield self.keep(exchanges, results)
        except Exception as error:
            message = str(error) if isinstance(error, QuestionError | ModelError) else explain(error, KOREAN)
            if message is None:
                raise
            if results:  # the base could not be loaded, say: the answer that is there stays
                yield self.keep(exchanges, results)
            yield {"error": message}
        finally:
            self.stopped.discard(asked.session)

    def keep(self, exchanges: dict[str, list[dict[str, Any]]], results: list[dict[str, Any]]) -> dict[str, Any]:
        """Add answers to a conversation, and return what the page is told."""
        exchange = secrets.token_hex(8)
        exchanges[exchange] = results
        return {"finished": True, "exchange": exchange}

    async def stop(self, request: Request) -> Response:
        """End the answer of this tab, and begin none to compare it with; what there is of it stays."""
        session = await read_session(request)
        if session in self.room.streams:
            self.stopped.add(session)
        self.room.stop(session)
        return Response(status_code=204)

    async def clear(self, request: Request) -> Response:
        self.conversations.pop(await read_session(request), None)
        return Response(status_code=204)

    async def restore(self, request: Request) -> Response:
        """Return the conversation of a tab that was loaded again."""
        exchanges = self.conversations.get(await read_session(request), {})
        shown = [
            {
                "exchange": exchange,
                "question": each[0]["question"],
                "category": category_note(each[0]),
                "answers": [*map(answer_html, each)],
            }
            for exchange, each in exchanges.items()
        ]
        return JSONResponse(shown)

    async def rate(self, request: Request) -> Response:
        """Write what a reader thinks of answers, as `python stages/chat.py review` does of those of an evaluation.

        The form of each exchange begins empty, also where the question was asked before: while nothing was written in
        it, the right answer that the reviewer wrote earlier stands.
        """
        rated = Rated.model_validate_json(await read_body(request))
        results = self.conversations.get(rated.session, {}).get(rated.exchange)
        if not results or len(results) != len(rated.marks):
            gone = "서버에 남아 있지 않은 답변입니다(서버를 다시 켰거나 오래된 대화). 다시 물은 뒤 평가해 주십시오."
            return PlainTextResponse(gone, status_code=409)
        question = clean(results[0]["question"])
        name, earlier = record_id(question), ""
        if not rated.correction.strip() and (rated.exchange, rated.reviewer) not in self.mended:
            try:
                own = await run_in_threadpool(read_reviews, REVIEWS, rated.reviewer)
            except RecordError as error:
                return PlainTextResponse(f"{UNREADABLE} {error}", status_code=500)
            earlier = latest_corrections(own).get(name, {}).get(rated.reviewer, "")
        review = Review(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            reviewer=rated.reviewer,
            adapter_sha256=self.engine.adapter_sha256,
            id=name,
            category=results[0]["category"],
            question=question,
            reference="",
            answers={system: result["answer"] for system, result in zip(SYSTEMS, results, strict=False)},
            shown=SYSTEMS[: len(results)],
            blind=False,
            marks=dict(zip(SYSTEMS, rated.marks, strict=False)),
            better=None,
            correction=earlier or rated.correction,
            note=rated.note,
            gold=None,
        )
        if failed := await keep_review(review, REVIEWS, self.writing):
            return failed
        if rated.correction.strip():
            self.mended.add((rated.exchange, rated.reviewer))
        stands = " 전에 쓴 바른 답변은 그대로 둡니다." if earlier else ""
        return PlainTextResponse(f"{REVIEWS.as_posix()}에 저장했습니다.{stands}")

    async def save(self, request: Request) -> Response:
        """Write the conversation, and return what to tell."""
        exchanges = self.conversations.get(await read_session(request))
        if not exchanges:
            return PlainTextResponse("저장할 대화가 없습니다.")
        try:
            path = save_conversation([*exchanges.values()])
        except OSError as error:
            return PlainTextResponse(f"⚠️ 저장하지 못했습니다: {explain(error, KOREAN) or error}")
        return PlainTextResponse(f"이 페이지를 연 컴퓨터의 {path}에 저장했습니다.")


async def refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, pydantic.ValidationError):
        return PlainTextResponse("이 화면이 보내는 요청이 아닙니다.", status_code=400)
    return PlainTextResponse("없는 주소입니다.", status_code=404)


def make_app(engine: Engine, host: str, missing: ModelError | None = None) -> ASGIApp:
    """Return the page of a loaded engine behind its guard.

    Args:
        host: off the loopback, nobody may write conversations or reviews to this machine; on it, the page answers to
            the loopback's names alone.
        missing: why there is no model yet; the page then says that, and how to get one.
    """
    routes, shown = [], {"missing": missing, "saves": is_loopback(host), "rates": False}
    if missing is None:
        page = Page(engine)
        acts = {"ask": page.ask, "stop": page.stop, "clear": page.clear, "conversation": page.restore}
        shown["rates"] = shown["saves"] and engine.adapter_sha256 is not None  # a review names the adapter
        acts |= {"save": page.save} if shown["saves"] else {}
        acts |= {"rate": page.rate} if shown["rates"] else {}
        routes = [Route(f"/{name}", act, methods=["POST"]) for name, act in acts.items()]
        examples = [(label, example_questions(split, engine.categories)) for split, label in EXAMPLES.items()]
        shown |= {"engine": engine, "base_name": BASE, "automatic": AUTOMATIC, "examples": examples}
        shown |= {"verdicts": VERDICTS, "faults": FAULTS}
    return guard_site(routes, "page", shown, host)


def guard_site(routes: list[Route], name: str, shown: dict[str, Any], host: str, status: int = 200) -> ASGIApp:
    """Return a site behind the guard: the template `name` at its root, its script, the style, and further routes.

    Args:
        shown: what the template needs.
        host: on the loopback, the site answers to the loopback's names alone.
        status: what its root is answered with.
    """
    page = HTMLResponse(TEMPLATES.get_template(f"{name}.html.jinja").render(shown), status)
    files = [Route("/", page, methods=["GET"])]
    for path, kind in (("page.css", "text/css"), (f"{name}.js", "text/javascript")):
        response = Response(Path(__file__).with_name(path).read_bytes(), media_type=kind)
        files.append(Route(f"/{path}", response, methods=["GET"]))
    refusals = dict.fromkeys((404, 405, pydantic.ValidationError), refuse)
    site = Starlette(routes=[*routes, *files], exception_handlers=refusals)
    site.router.redirect_slashes = False
    if not is_loopback(host):
        return Guard(site)
    # A page elsewhere could otherwise reach this one through a name of its own that points here (DNS rebinding).
    return TrustedHostMiddleware(Guard(site), allowed_hosts=["localhost", "127.0.0.1", "[::1]", host])


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket, so that an address that cannot be had is said before the model is loaded.

    Raises:
        ParameterError: the port is taken, or the address is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise ParameterError(f"{host}:{port}: 열 수 없습니다({error}). --port나 --host를 바꾸어 주십시오.") from None


def serve_page(engine: Engine, folder: Path, host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        ParameterError: the address cannot be had.
        ModelError: there is a model, but it cannot be loaded. Where there is none, the page says so.
    """
    listening = open_socket(host, port)
    missing: ModelError | None = None
    with until_ended(listening, host):
        with waiting_page(listening, host):
            try:
                engine.load_finetuned_model(folder)
            except ModelError as error:
                if engine.has_model(folder):
                    raise
                missing = error
            app = make_app(engine, host, missing)
        make_server(app).run(sockets=[listening])


@contextlib.contextmanager
def waiting_page(listening: socket.socket, host: str) -> Iterator[None]:
    """Tell who opens the page that the model is being loaded; it opens itself again until that is done."""

    async def wait(request: Request) -> Response:
        return PlainTextResponse(f"{LOADING} 잠시 뒤에 다시 해 주십시오.", status_code=503)

    shown = {"loading": LOADING, "reload_seconds": RELOAD_SECONDS}
    server = make_server(guard_site([Route("/{act}", wait, methods=["POST"])], "page", shown, host, status=503))
    # A copy of the socket, since a server closes its own: the other one goes on listening.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening.dup()]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def until_ended(listening: socket.socket, host: str) -> Iterator[None]:
    """Say where a site is, and let Ctrl-C and SIGTERM end it without an error."""
    address = f"http://{'[' + host + ']' if ':' in host else host}:{listening.getsockname()[1]}"
    # uvicorn ends in order, and then sends itself the signal again that ended it: to end the page is no accident.
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        print(f"브라우저에서 {address} 을 여십시오. 끝내려면 Ctrl-C를 누르십시오.")
        if not is_loopback(host):
            print("경고: 다른 컴퓨터에서도 열 수 있는 주소입니다. 누구나 질문할 수 있고 암호화되지 않습니다.")
        yield


def make_server(app: ASGIApp) -> uvicorn.Server:
    logging.getLogger("uvicorn.error").addFilter(is_no_farewell)
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=3, limit_concurrency=MAX_CONNECTIONS, server_header=False
    )
    return uvicorn.Server(config)


def is_no_farewell(record: logging.LogRecord) -> bool:
    """Whether a log record is anything but what is cut off at the end, each with a traceback: open tabs, the start."""
    cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    # What is cut off before the first question is told as text alone.
    message = record.getMessage().rstrip()
    return not cancelled and not message.endswith(("CancelledError", "timeout graceful shutdown exceeded"))
