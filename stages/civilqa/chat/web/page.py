"""The page: what it shows, what its requests do, and how it is served. It writes to this machine only when asked to.

Nothing that a model or a user wrote does anything in its HTML. A tab has a session, whose conversation stays here, so
that a reload shows it again.
"""

import asyncio
import contextlib
import json
import logging
import socket
import unicodedata
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection
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

from civilqa.chat.conversations import save_conversation
from civilqa.chat.engine import BASE, Engine
from civilqa.chat.web.guard import MAX_CONNECTIONS, Guard, WaitingRoom, is_loopback, read_body
from civilqa.dataset.records import read_records
from civilqa.law.article_texts import text_at_hand
from civilqa.law.statutes import EXISTS, NOT_YET_IN_FORCE, article_url
from civilqa.law.verdicts import CITATIONS_NOTE, citation_name, citation_verdict, distinct_citations
from civilqa.program.errors import ModelError, ParameterError, QuestionError
from civilqa.program.lifecycle.machine_errors import KOREAN, explain
from civilqa.program.lifecycle.safe_output import printable
from civilqa.program.lifecycle.stage import Terminated

MAX_EXCHANGES = 50  # of one conversation
MAX_CONVERSATIONS = 1000  # kept at a time; the longest unused is forgotten
SECONDS_BETWEEN_UPDATES = 0.1

EVERYONE = "공통"
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

    A category that cannot be chosen on the page, having no system prompt of its own, is the general one there.
    """
    path = Path("data/splits") / f"{split}.jsonl"
    if not path.is_file():
        return []
    by_category: dict[str, list[tuple[str, str]]] = {}
    for record in sorted(read_records(path), key=lambda record: len(record.question)):
        category = record.category if record.category in choices else EVERYONE
        by_category.setdefault(record.category, []).append((printable(record.question), category))
    rounds = zip(*by_category.values(), strict=False)
    return [example for examples in rounds for example in examples][:EXAMPLES_A_SPLIT]


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


async def read_session(request: Request) -> str:
    return Tab.model_validate_json(await read_body(request)).session


class Page:
    """The requests of a loaded engine's page, whichever browser sends them."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.room = engine, WaitingRoom()
        self.base: Engine | None = None  # loaded when a comparison is first asked for
        self.loading = anyio.Lock()
        # By session, for each question the results of the models that were asked it.
        self.conversations: OrderedDict[str, list[list[dict[str, Any]]]] = OrderedDict()

    async def ask(self, request: Request) -> Response:
        asked = Asked.model_validate_json(await read_body(request))
        lines = (json.dumps(event, ensure_ascii=False) + "\n" async for event in self.answer(request, asked))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def answer(self, request: Request, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        """Yield what the page is told while the answers grow: text, then HTML, of model 0 (tuned) and 1 (base)."""
        exchanges = self.conversations.setdefault(asked.session, [])
        self.conversations.move_to_end(asked.session)
        if len(self.conversations) > MAX_CONVERSATIONS:
            self.conversations.popitem(last=False)
        results: list[dict[str, Any]] = []
        try:
            if len(exchanges) >= MAX_EXCHANGES:
                raise QuestionError("대화가 길어졌습니다. '새 대화'를 눌러 주십시오.")
            for index in range(1 + asked.compare):
                if index:
                    yield {"status": "기반 모델을 불러옵니다…"}
                    async with self.loading:
                        self.base = self.base or await run_in_threadpool(self.engine.load_base_beside)
                engine = self.base if index else self.engine
                earlier = [turn[index] for turn in exchanges if len(turn) > index] if asked.turns else []
                history = [(result["question"], result["answer"]) for result in earlier if result["stopped"]]
                category = "" if asked.category == EVERYONE else asked.category
                begin = partial(engine.stream_answer, asked.question, category, history=history)
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
                yield {"model": index, "html": await run_in_threadpool(answer_html, stream.result)}
            exchanges.append(results)
            yield {"finished": True}
        except Exception as error:
            message = str(error) if isinstance(error, QuestionError | ModelError) else explain(error, KOREAN)
            if message is None:
                raise
            yield {"error": message}

    async def stop(self, request: Request) -> Response:
        """End the answer of this tab; what there is of it stays."""
        self.room.stop(await read_session(request))
        return Response(status_code=204)

    async def clear(self, request: Request) -> Response:
        self.conversations.pop(await read_session(request), None)
        return Response(status_code=204)

    async def restore(self, request: Request) -> Response:
        """Return the conversation of a tab that was loaded again."""
        exchanges = self.conversations.get(await read_session(request), [])
        shown = [{"question": each[0]["question"], "answers": [*map(answer_html, each)]} for each in exchanges]
        return JSONResponse(shown)

    async def save(self, request: Request) -> Response:
        """Write the conversation, and return what to tell."""
        exchanges = self.conversations.get(await read_session(request))
        if not exchanges:
            return PlainTextResponse("저장할 대화가 없습니다.")
        try:
            path = save_conversation(exchanges)
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
        host: off the loopback, nobody may write conversations to this machine; on it, the page answers to the
            loopback's names alone.
        missing: why there is no model yet; the page then says that, and how to get one.
    """
    routes, shown = [], {"missing": missing, "saves": is_loopback(host)}
    if missing is None:
        page = Page(engine)
        acts = {"ask": page.ask, "stop": page.stop, "clear": page.clear, "conversation": page.restore}
        acts |= {"save": page.save} if shown["saves"] else {}
        routes = [Route(f"/{name}", act, methods=["POST"]) for name, act in acts.items()]
        examples = [(label, example_questions(split, engine.categories)) for split, label in EXAMPLES.items()]
        categories = [EVERYONE, *engine.categories]
        shown |= {"engine": engine, "base_name": BASE, "categories": categories, "examples": examples}
    return guard_site(routes, "page", shown, host)


def guard_site(routes: list[Route], name: str, shown: dict[str, Any], host: str) -> ASGIApp:
    """Return a site behind the guard: the template `name` at its root, its script, the style, and further routes.

    Args:
        shown: what the template needs.
        host: on the loopback, the site answers to the loopback's names alone.
    """
    page = HTMLResponse(TEMPLATES.get_template(f"{name}.html.jinja").render(shown))
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
    try:
        engine.load_finetuned_model(folder)
    except ModelError as error:
        if engine.has_model(folder):
            raise
        missing = error
    serve(make_app(engine, host, missing), listening, host)


def serve(app: ASGIApp, listening: socket.socket, host: str) -> None:
    """Serve a site until Ctrl-C, and say where."""
    address = f"http://{'[' + host + ']' if ':' in host else host}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=3, limit_concurrency=MAX_CONNECTIONS, server_header=False
    )
    logging.getLogger("uvicorn.error").addFilter(is_no_farewell)
    # uvicorn ends in order, and then sends itself the signal again that ended it: to end the page is no accident.
    with contextlib.suppress(KeyboardInterrupt, Terminated):
        print(f"브라우저에서 {address} 을 여십시오. 끝내려면 Ctrl-C를 누르십시오.")
        if not is_loopback(host):
            print("경고: 다른 컴퓨터에서도 열 수 있는 주소입니다. 누구나 질문할 수 있고 암호화되지 않습니다.")
        uvicorn.Server(config).run(sockets=[listening])


def is_no_farewell(record: logging.LogRecord) -> bool:
    """Whether a log record is anything but what is cut off at the end, each with a traceback: open tabs, the start."""
    cancelled = record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError)
    # What is cut off before the first question is told as text alone.
    message = record.getMessage().rstrip()
    return not cancelled and not message.endswith(("CancelledError", "timeout graceful shutdown exceeded"))
