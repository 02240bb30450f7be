"""What the page's requests do. It asks no other machine for anything, and writes to this one only when asked to.

One object serves all browsers: a tab has a session, whose conversation stays here, so that a reload shows it again.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import pydantic
from pydantic import Field
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from civilqa.chat.conversations import save_conversation
from civilqa.chat.engine import BASE, Engine, Turn
from civilqa.chat.web.content import EVERYONE, EXAMPLES, TEMPLATES, answer_html, example_questions
from civilqa.chat.web.guard import WaitingRoom
from civilqa.program.errors import ModelError, QuestionError
from civilqa.program.lifecycle.machine_errors import KOREAN, explain

MAX_EXCHANGES = 50  # of one conversation
MAX_CONVERSATIONS = 1000  # kept at a time; the longest unused is forgotten
SECONDS_BETWEEN_UPDATES = 0.1

Exchanges = list[list[dict[str, Any]]]  # for each question the results of the models that were asked it


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


Body = TypeVar("Body", bound=Tab)


class BaseOnDemand:
    """The base model, loaded when a comparison is first asked for."""

    def __init__(self, engine: Engine) -> None:
        self._tuned = engine
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    def get(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._tuned.load_base_beside()
            return self._engine


class Page:
    """The requests of the page of a loaded engine."""

    def __init__(self, engine: Engine, base: BaseOnDemand) -> None:
        self.engine, self.base, self.room = engine, base, WaitingRoom()
        self.conversations: OrderedDict[str, Exchanges] = OrderedDict()

    def conversation(self, session: str) -> Exchanges:
        """Return the exchanges of a tab; they may be added to."""
        exchanges = self.conversations.setdefault(session, [])
        self.conversations.move_to_end(session)
        while len(self.conversations) > MAX_CONVERSATIONS:
            self.conversations.popitem(last=False)
        return exchanges

    async def ask(self, request: Request, asked: Asked) -> Response:
        lines = (json.dumps(event, ensure_ascii=False) + "\n" async for event in self.answer(request, asked))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def answer(self, request: Request, asked: Asked) -> AsyncIterator[dict[str, Any]]:
        """Yield what the page is told while the answers grow: text, then HTML, of model 0 (tuned) and 1 (base)."""
        exchanges = self.conversation(asked.session)
        results: list[dict[str, Any]] = []
        try:
            if len(exchanges) >= MAX_EXCHANGES:
                raise QuestionError("대화가 길어졌습니다. '새 대화'를 눌러 주십시오.")
            for index in range(1 + asked.compare):
                if index:
                    yield {"status": "기반 모델을 불러옵니다…"}
                engine = await run_in_threadpool(self.base.get) if index else self.engine
                async for event in self.answer_of(index, engine, request, asked, results):
                    yield event
            exchanges.append(results)
            yield {"finished": True}
        except Exception as error:
            message = str(error) if isinstance(error, QuestionError | ModelError) else explain(error, KOREAN)
            if message is None:
                raise
            yield {"error": message}

    async def answer_of(
        self, index: int, engine: Engine, request: Request, asked: Asked, results: list[dict[str, Any]]
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield one model's answer as it grows, and add its result; it ends with the connection."""
        earlier = [turn[index] for turn in self.conversation(asked.session) if len(turn) > index] if asked.turns else []
        history = [Turn(result["question"], result["answer"]) for result in earlier if result["stopped"]]
        category = "" if asked.category == EVERYONE else asked.category
        stream = self.room.start(
            asked.session,
            request.client.host if request.client else "",
            lambda: engine.stream_answer(asked.question, category, history=history),
        )
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
        yield {"model": index, "html": answer_html(stream.result)}

    async def stop(self, request: Request, tab: Tab) -> Response:
        """End the answer of this tab; what there is of it stays."""
        self.room.stop(tab.session)
        return Response(status_code=204)

    async def clear(self, request: Request, tab: Tab) -> Response:
        self.conversations.pop(tab.session, None)
        return Response(status_code=204)

    async def restore(self, request: Request, tab: Tab) -> Response:
        """Return the conversation of a tab that was loaded again."""
        exchanges = self.conversations.get(tab.session, [])
        shown = [{"question": each[0]["question"], "answers": [*map(answer_html, each)]} for each in exchanges]
        return JSONResponse(shown)

    async def save(self, request: Request, tab: Tab) -> Response:
        """Write the conversation, and return what to tell."""
        exchanges = self.conversations.get(tab.session)
        if not exchanges:
            return PlainTextResponse("저장할 대화가 없습니다.")
        try:
            path = save_conversation(exchanges)
        except OSError as error:
            return PlainTextResponse(f"⚠️ 저장하지 못했습니다: {explain(error, KOREAN) or error}")
        return PlainTextResponse(f"이 페이지를 연 컴퓨터의 {path}에 저장했습니다.")


def read(kind: type[Body], act: Callable[[Request, Body], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    """Return the endpoint that reads a request's body, and refuses what the page does not send."""

    async def endpoint(request: Request) -> Response:
        try:
            body = kind.model_validate_json(await request.body())
        except pydantic.ValidationError:
            return PlainTextResponse("이 화면이 보내는 요청이 아닙니다.", status_code=400)
        return await act(request, body)

    return endpoint


def make_page(engine: Engine, base: BaseOnDemand, saves: bool = True) -> Starlette:
    """Return the page of a loaded engine, with nothing around it.

    Args:
        saves: whether conversations may be written to this machine: not by whoever else can open the page.
    """
    page = Page(engine, base)
    acts = {"ask": (Asked, page.ask), "stop": (Tab, page.stop), "clear": (Tab, page.clear)}
    acts |= {"conversation": (Tab, page.restore)} | ({"save": (Tab, page.save)} if saves else {})
    routes = [Route(f"/{name}", read(*act), methods=["POST"]) for name, act in acts.items()]
    examples = [(label, example_questions(split, engine.categories)) for split, label in EXAMPLES.items()]
    shown = {"saves": saves, "base_name": BASE, "categories": [EVERYONE, *engine.categories], "examples": examples}
    return make_site(routes, engine=engine, **shown)


def make_missing_page(error: ModelError) -> Starlette:
    """Return the page that says that there is no model yet, and how to get one."""
    return make_site([], engine=None, missing=str(error))


def make_site(routes: list[Route], **shown: Any) -> Starlette:
    """Return the site of a page with its style and script, and one short refusal for any other address."""

    def serve(content: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return HTMLResponse(content, media_type=media_type)

        return endpoint

    async def refuse(request: Request, error: Exception) -> Response:
        return PlainTextResponse("없는 주소입니다.", status_code=404)

    files = {f"/{name}": (Path(__file__).with_name(name), kind) for name, kind in ASSETS.items()}
    pages = [Route(path, serve(file.read_text(encoding="utf-8"), kind)) for path, (file, kind) in files.items()]
    index = Route("/", serve(TEMPLATES.get_template("page.html.jinja").render(shown), "text/html"))
    site = Starlette(routes=[index, *pages, *routes], exception_handlers={404: refuse, 405: refuse})
    site.router.redirect_slashes = False
    return site


ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}
