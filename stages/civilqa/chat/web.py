"""A page to ask the tuned model in a browser, in Korean. It is served to this machine, and asks no other for anything.

Neither a share link nor analytics nor gradio's own run history; conversations are in memory until the page is closed,
and on disk only when asked for. What a model or a user wrote is escaped before it reaches the page, which sanitises it
once more; a Content-Security-Policy keeps the browser from loading anything from elsewhere.
"""

import asyncio
import contextlib
import html
import ipaddress
import logging
import os
import socket
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any

# Before gradio is imported: it reads them once.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr
import pydantic
import uvicorn
from fastapi import FastAPI
from pydantic import Field
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from civilqa.chat.conversations import save_conversation
from civilqa.chat.engine import BASE, AnswerStream, Engine, Turn
from civilqa.dataset.records import read_records
from civilqa.law.verdicts import CITATIONS_NOTE, citation_name, citation_verdict, distinct_citations
from civilqa.program.errors import ModelError, ParameterError, QuestionError
from civilqa.program.lifecycle.interruptions import Terminated
from civilqa.program.lifecycle.machine_errors import KOREAN, explain
from civilqa.program.lifecycle.safe_output import printable

TITLE = "민법 질의응답"
DISCLAIMER = (
    "**법률 자문이 아닙니다.** 언어 모델이 만든 답변이며 틀리거나 없는 조문을 댈 수 있습니다. 실제 사건은 변호사나 "
    "대한법률구조공단(국번 없이 132)과 상담하십시오. 이름, 주민등록번호, 주소 같은 개인정보는 적지 마십시오."
)
BUSY = "지금은 기다리는 질문이 많습니다. 잠시 뒤에 다시 물어 주십시오."
UNFINISHED = "앞선 질문에 아직 답하고 있습니다. 답변이 끝난 뒤에 물어 주십시오."
EVERYONE = "공통"

MAX_WAITING = 24  # questions at a time, those that wait for the model included
MAX_WAITING_A_CLIENT = 4  # of them from one address, unless it is this machine's
MAX_EXCHANGES = 50  # of one conversation: it is sent to the page with every piece of an answer
MAX_BODY_BYTES = 256 * 1024  # of a request: a question of 2,000 syllables takes 6 KB
MAX_BODY_SECONDS = 20  # for it to arrive
MAX_OPEN = 300  # requests at a time: an open tab holds one, and one more while its question is answered
MAX_OPEN_A_CLIENT = 30  # of them from one address, unless it is this machine's
MAX_CONNECTIONS = 500  # those that have not sent a whole request yet included; of 1,024 files that a process may open
REQUESTS_A_MINUTE = 120  # that change something, from one address, unless it is this machine's
SECONDS_BETWEEN_UPDATES = 0.1
EXAMPLES_A_SPLIT = 3

CLASSES = {"✓": "good", "✗": "bad", "△": "unsure", "?": "unsure"}

# What a browser may do with the page: nothing that leaves this server.
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
SECURITY_LINES = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
# What the page and gradio's own client ask for, by method. All else that gradio serves (uploads, files, a proxy, its
# API's description, monitoring, editing of the page) is closed.
OPEN_PATHS = {
    "GET": ("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/gradio_api/info", "/gradio_api/queue/data"),
    "POST": ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel"),
}
OPEN_FOLDERS = {"GET": ("/assets/", "/static/", "/gradio_api/heartbeat/")}

# gradio takes the language of its own words (clear, stop, error) from the browser. The page is Korean in any.
HEAD = """<script>
Object.defineProperty(navigator, "language", {get: () => "ko"});
Object.defineProperty(navigator, "languages", {get: () => ["ko"]});
document.documentElement.lang = "ko";
</script>"""

FONTS = ["Pretendard", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", "Noto Sans CJK KR", "NanumGothic"]

CSS = """
.gradio-container { max-width: 1100px !important; margin: 0 auto; word-break: keep-all; overflow-wrap: anywhere; }
.answer { white-space: normal; line-height: 1.7; }
.answer mark { padding: 0 .15em; border-radius: .2em; color: inherit; }
.answer mark.good { background: #d3f0dc; }
.answer mark.bad { background: #ffd6d6; text-decoration: line-through; }
.answer mark.unsure { background: #fdf0c2; }
.dark .answer mark.good { background: #14532d; }
.dark .answer mark.bad { background: #7f1d1d; }
.dark .answer mark.unsure { background: #713f12; }
.answer ul { margin: .6em 0 0; padding-left: 0; list-style: none; font-size: .92em; }
.answer li { margin: .15em 0; }
.answer .good b { color: #15803d; }
.answer .bad b { color: #dc2626; }
.answer .unsure b { color: #b45309; }
.answer small { display: block; margin-top: .5em; opacity: .75; }
#notice { border-left: 4px solid #d97706; padding: .2em .9em; }
/* The window's own bin would clear what is shown, and not what is remembered: that is the button below. */
#tuned .icon-button-wrapper, #base .icon-button-wrapper { display: none; }
#status { min-height: 1.6em; }
footer { display: none !important; }
"""


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


def escaped(text: str) -> str:
    """Return text as HTML that says the same and does nothing.

    Line ends become tags: Markdown ends an HTML block at an empty line, and would read what follows as Markdown.
    """
    return html.escape(printable(text)).replace("\n", "<br>")


def marked(text: str, citations: list[dict[str, Any]]) -> str:
    """Return an answer as HTML with each citation marked by what is known of the article."""
    text = unicodedata.normalize("NFC", text)
    parts, position = [], 0
    for start, end in dict.fromkeys((citation["start"], citation["end"]) for citation in citations):
        # A range of articles is one place in the text: it is as good as the worst of them.
        verdicts = [citation_verdict(c) for c in citations if (c["start"], c["end"]) == (start, end)]
        mark, words = min(verdicts, key=lambda verdict: "✗△?✓".index(verdict[0]))
        parts.append(escaped(text[position:start]))
        parts.append(f'<mark class="{CLASSES[mark]}" title="{escaped(words)}">{escaped(text[start:end])}</mark>')
        position = end
    return "".join([*parts, escaped(text[position:])])


def answer_html(result: dict[str, Any]) -> str:
    """Return a finished answer as one HTML block: the text, the articles it cites, how it ended."""
    lines = [marked(result["answer"], result["citations"]) or "(답변 없음)"]
    cited = distinct_citations(result)
    if cited:
        lines.append("<ul>")
        for citation in cited:
            mark, words = citation_verdict(citation)
            name = escaped(citation_name(citation))
            lines.append(f'<li class="{CLASSES[mark]}"><b>{mark} {escaped(words)}</b> {name}</li>')
        lines.append(f"</ul><small>{CITATIONS_NOTE}</small>")
    if not result["stopped"]:
        lines.append("<small>답변이 끝까지 나오지 않았습니다(멈추었거나 길이 제한).</small>")
    return block("".join(lines))


def block(content: str) -> str:
    return f'<div class="answer">{content}</div>'


def messages(exchanges: list[list[dict[str, Any]]], index: int) -> list[dict[str, str]]:
    """Return the conversation with one of the models as the chat window takes it."""
    shown = []
    for results in exchanges:
        if len(results) > index:
            shown.append({"role": "user", "content": block(escaped(results[index]["question"]))})
            shown.append({"role": "assistant", "content": answer_html(results[index])})
    return shown


def asking(question: str, answer: str) -> list[dict[str, str]]:
    """Return an exchange that is going on."""
    return [
        {"role": "user", "content": block(escaped(question))},
        {"role": "assistant", "content": block(escaped(answer) or "…")},
    ]


class Page:
    """The events of the page. One object serves all browsers; what belongs to one is in `exchanges`, which gradio keeps
    for each open page."""

    def __init__(self, engine: Engine, base: BaseOnDemand) -> None:
        self.engine, self.base = engine, base
        self.streams: dict[str, tuple[str, AnswerStream]] = {}  # by session: the client's address, its running answer
        self.lock = threading.Lock()

    def start(self, engine: Engine, session: str, address: str, *asked: Any, **history: Any) -> AnswerStream:
        """Begin an answer, if there is room for it. One session has one at a time, one address a few.

        Those that are finished are forgotten here, and not where they are read: a browser that is closed reads no end.

        Raises:
            QuestionError: there is no room, or the question cannot be asked.
        """
        with self.lock:  # until it is counted: of many at once no more may come in than there is room for
            self.streams = {name: running for name, running in self.streams.items() if not running[1].finished}
            from_here = sum(running[0] == address for running in self.streams.values())
            if session in self.streams:
                raise QuestionError(UNFINISHED)
            if len(self.streams) >= MAX_WAITING or (from_here >= MAX_WAITING_A_CLIENT and not is_loopback(address)):
                raise QuestionError(BUSY)
            stream = engine.stream_answer(*asked, **history)
            self.streams[session] = address, stream
        return stream

    def ask(
        self,
        question: str,
        category: str,
        compare: bool,
        passes_turns_on: bool,
        exchanges: list[list[dict[str, Any]]],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield (tuned window, base window, exchanges, question field, status) as the answers grow."""
        windows = [messages(exchanges, 0), messages(exchanges, 1)]
        if len(exchanges) >= MAX_EXCHANGES:
            yield *windows, exchanges, question, "대화가 길어졌습니다. '새 대화'를 눌러 주십시오."
            return
        try:
            yield from self._answer(question, category, compare, passes_turns_on, exchanges, windows, request)
        except Exception as error:
            message = str(error) if isinstance(error, QuestionError | ModelError) else explain(error, KOREAN)
            if message is None:
                raise
            yield messages(exchanges, 0), messages(exchanges, 1), exchanges, question, f"⚠️ {message}"

    def _answer(
        self,
        question: str,
        category: str,
        compare: bool,
        passes_turns_on: bool,
        exchanges: list[list[dict[str, Any]]],
        windows: list[Any],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        category = "" if category == EVERYONE else category
        results: list[dict[str, Any]] = []
        for index in range(2 if compare else 1):
            if index:
                yield *self._with(windows, index, question, "기반 모델을 불러옵니다…"), exchanges, question, ""
            engine = self.base.get() if index else self.engine
            asked = [turn[index] for turn in exchanges if len(turn) > index] if passes_turns_on else []
            history = [Turn(result["question"], result["answer"]) for result in asked if result["stopped"]]
            address = request.client.host if request.client else ""
            stream = self.start(engine, request.session_hash, address, question or "", category or "", history=history)
            try:
                yield *self._with(windows, index, question, ""), exchanges, question, ""
                for text in grown(stream):
                    yield *self._with(windows, index, question, text), exchanges, question, ""
            finally:
                stream.stop()  # where the browser is gone, gradio drops this generator, and must not wait for it
            results.append(stream.result)
            windows[index] = messages([*exchanges, results], index)
        yield *windows, [*exchanges, results], "", ""

    def _with(self, windows: list[Any], index: int, question: str, text: str) -> list[Any]:
        return [window + asking(question, text) if i == index else window for i, window in enumerate(windows)]

    def stop(self, request: gr.Request) -> None:
        """End the answer of this browser; what there is of it stays."""
        with self.lock:
            running = self.streams.get(request.session_hash)
        if running is not None:
            running[1].stop()

    def save(self, exchanges: list[list[dict[str, Any]]]) -> str:
        """Write the conversation, and return what to tell."""
        if not exchanges:
            return "저장할 대화가 없습니다."
        try:
            path = save_conversation(exchanges)
        except OSError as error:
            return f"⚠️ 저장하지 못했습니다: {explain(error, KOREAN) or error}"
        return f"이 페이지를 연 컴퓨터의 `{path}`에 저장했습니다."


def grown(stream: AnswerStream) -> Iterator[str]:
    """Yield the text so far, a few times a second."""
    text, shown = "", 0.0
    for piece in stream:
        text += piece
        if time.monotonic() - shown >= SECONDS_BETWEEN_UPDATES:
            yield text
            shown = time.monotonic()


def example_questions(split: str, choices: Collection[str]) -> list[list[str]]:
    """Return [question, category] of a few records, from different categories as far as there are.

    A category that cannot be chosen on the page, having no system prompt of its own, is the general one there.
    """
    path = Path("data/splits") / f"{split}.jsonl"
    if not path.is_file():
        return []
    by_category: dict[str, list[list[str]]] = {}
    for record in sorted(read_records(path), key=lambda record: len(record.question)):
        by_category.setdefault(record.category, []).append(
            [record.question, record.category if record.category in choices else EVERYONE]
        )
    rounds = zip(*by_category.values(), strict=False)
    return [example for examples in rounds for example in examples][:EXAMPLES_A_SPLIT]


def make_page(engine: Engine, base: BaseOnDemand, saves: bool = True) -> gr.Blocks:
    """Return the page of a loaded engine.

    Args:
        saves: whether conversations may be written to this machine: not by whoever else can open the page.
    """
    page = Page(engine, base)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {TITLE}")
        gr.Markdown(f"{DISCLAIMER}\n\n{engine.notice}", elem_id="notice")
        exchanges = gr.State([], time_to_live=4 * 3600)
        category = gr.Radio([EVERYONE, *engine.categories], value=EVERYONE, label="분야", elem_id="category")
        with gr.Row():
            compare = gr.Checkbox(False, label=f"{BASE}(미세조정 전)의 답변도 나란히 보기", elem_id="compare")
            turns = gr.Checkbox(
                engine.passes_turns_on(),
                label="앞선 질문과 답변을 이어서 묻기",
                visible=engine.passes_turns_on("always"),
            )
        with gr.Row(equal_height=True):
            tuned_window = chat_window(engine.name, "tuned", visible=True)
            base_window = chat_window(BASE, "base", visible=False)
        with gr.Group():
            question = gr.Textbox(
                label="질문",
                placeholder="예: 전세 계약이 끝났는데 집주인이 보증금을 주지 않습니다. 어떻게 해야 하나요?",
                lines=1,
                max_lines=8,
                max_length=engine.params.max_question_characters,
                autofocus=True,
                elem_id="question",
            )
        with gr.Row():
            send = gr.Button("질문하기", variant="primary", min_width=140, elem_id="send")
            stop = gr.Button("멈추기", variant="stop", min_width=140, elem_id="stop")
            clear = gr.Button("새 대화", min_width=140, elem_id="clear")
            save = gr.Button("대화 저장", min_width=140, elem_id="save", visible=saves)
        status = gr.Markdown(elem_id="status")
        for split, label in (("train", "예시: 모델이 학습한 질문"), ("test", "예시: 모델이 처음 보는 질문")):
            examples = example_questions(split, engine.categories)
            if examples:
                gr.Examples(examples, [question, category], label=label, visible_columns=[0], cache_examples=False)

        gr.on(
            [send.click, question.submit],
            page.ask,
            [question, category, compare, turns, exchanges],
            [tuned_window, base_window, exchanges, question, status],
            trigger_mode="once",
            concurrency_limit=None,  # Page.start decides, and says why; gradio's own queue would do so in English
            show_progress="hidden",
            api_name="ask",
        )
        stop.click(page.stop, queue=False, api_visibility="private")
        clear.click(
            lambda: ([], [], [], ""), None, [tuned_window, base_window, exchanges, status], api_visibility="private"
        )
        if saves:
            save.click(page.save, exchanges, status, api_visibility="private")
        compare.change(lambda on: gr.update(visible=on), compare, base_window, api_visibility="private")
        blocks.unload(page.stop)
    return blocks


def chat_window(name: str, elem_id: str, visible: bool) -> gr.Chatbot:
    return gr.Chatbot(
        label=name,
        elem_id=elem_id,
        visible=visible,
        height="min(52vh, 520px)",
        min_width=300,
        buttons=[],
        latex_delimiters=[],
        sanitize_html=True,
        placeholder="아래에 질문을 적거나 예시를 누르십시오.",
    )


def make_missing_page(error: ModelError) -> gr.Blocks:
    """Return the page that says that there is no model yet, and how to get one."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        gr.Markdown(f"# {TITLE}")
        gr.Markdown(
            "## 아직 물어볼 모델이 없습니다\n\n학습된 어댑터가 있어야 답할 수 있습니다. 저장소 폴더에서 "
            "`dvc repro finetune`으로 학습하거나 `dvc pull`로 받은 다음, 이 화면을 연 명령"
            "(`python stages/chat.py web`)을 다시 실행하십시오.",
            elem_id="missing",
        )
        gr.Textbox(str(error), label="자세한 내용", interactive=False)
    return blocks


class Event(pydantic.BaseModel):
    """What the bodies of all requests that are open to POST have in common.

    `data` holds what is typed and chosen. An object in it could be `{"path": ...}`, at which gradio copies a file of
    this machine, or fetches an address, into its cache.
    """

    session_hash: Annotated[str, Field(max_length=64)]
    fn_index: int
    data: list[str | bool | int | float | None] = []


class Guard:
    """ASGI middleware: refuses what is too much, too often, unused or from elsewhere; tells browsers to stay here."""

    def __init__(self, app: ASGIApp, functions: Collection[int]) -> None:
        self.app, self.functions = app, functions  # the numbers of the page's events
        self.open: Counter[str] = Counter()  # by address
        self.allowances: dict[str, tuple[float, float]] = {}  # by address: requests left, and when that was

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":  # the page opens none
            await send({"type": "websocket.close"})
            return
        address = scope["client"][0] if scope.get("client") else ""
        refusal = self.refusal(scope, address)
        if refusal is not None:
            await refuse(send, *refusal)
            return
        self.open[address] += 1
        try:
            body = await read_body(receive)
            if isinstance(body, bytes) and scope["method"] == "POST" and not self.is_event(body):
                body = 400, "이 화면이 보내는 요청이 아닙니다."
            if isinstance(body, bytes):
                await self.app(scope, *guarded(body, receive, send))
            elif body is not None:
                await refuse(send, *body)
        finally:
            self.open -= Counter([address])  # which forgets addresses that have none left

    def refusal(self, scope: Scope, address: str) -> tuple[int, str] | None:
        """Return status and reason for a request that is not to be answered."""
        if not is_open(scope["method"], scope["path"]):
            return 404, "없는 주소입니다."
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        # A page elsewhere can send a request here, though it cannot read the answer.
        if headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/":
            return 403, "다른 사이트에서 보낸 요청입니다."
        if origin is not None and origin.partition("://")[2] != headers.get("host"):
            return 403, "다른 사이트에서 보낸 요청입니다."
        local = is_loopback(address)
        if self.open.total() >= MAX_OPEN or (self.open[address] >= MAX_OPEN_A_CLIENT and not local):
            return 503, BUSY
        if scope["method"] == "POST" and not local and not self.take(address, time.monotonic()):
            return 429, BUSY
        return None

    def is_event(self, body: bytes) -> bool:
        """Return whether a body is what the page's own events look like; gradio fails on others with a traceback."""
        try:
            return Event.model_validate_json(body).fn_index in self.functions
        except pydantic.ValidationError:
            return False

    def take(self, address: str, now: float) -> bool:
        """Return whether an address may send one more request now: REQUESTS_A_MINUTE at once, and as many a minute."""
        if len(self.allowances) >= 10_000:
            self.allowances = {key: value for key, value in self.allowances.items() if now - value[1] < 60}
            if len(self.allowances) >= 10_000 and address not in self.allowances:
                return False
        left, since = self.allowances.get(address, (REQUESTS_A_MINUTE, now))
        left = min(REQUESTS_A_MINUTE, left + (now - since) * REQUESTS_A_MINUTE / 60)
        self.allowances[address] = max(left - 1, 0), now
        return left >= 1


def is_open(method: str, path: str) -> bool:
    """Return whether the page needs a path."""
    method = "GET" if method == "HEAD" else method
    if path in OPEN_PATHS.get(method, ()):
        return True
    return path.startswith(OPEN_FOLDERS.get(method, ())) and not {"..", "."} & set(path.replace("\\", "/").split("/"))


async def read_body(receive: Receive) -> bytes | tuple[int, str] | None:
    """Return a request's body, or status and reason to refuse it, or None where the client is gone."""
    body = bytearray()
    try:
        async with asyncio.timeout(MAX_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    return 413, "요청이 너무 큽니다."
                if not message.get("more_body"):
                    return bytes(body)
    except TimeoutError:
        return 408, "요청이 끝까지 오지 않았습니다."


def guarded(body: bytes, receive: Receive, send: Send) -> tuple[Receive, Send]:
    """Return receive, which gives the body that was read already, and send, which adds the security headers."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    async def send_guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *SECURITY_LINES]}
        await send(message)

    return replay, send_guarded


async def refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *SECURITY_LINES]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


def make_app(blocks: gr.Blocks, host: str) -> FastAPI:
    """Return the web application: the page behind the guard; on the loopback it answers to its names alone."""
    blocks.queue(max_size=MAX_OPEN, api_open=False)
    app = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=is_loopback(host),
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=1,
        theme=gr.themes.Default(font=[*FONTS, "system-ui", "sans-serif"], font_mono=["D2Coding", "monospace"]),
        css=CSS,
        head=HEAD,
    )
    app.add_middleware(Guard, functions=frozenset(blocks.fns))
    if is_loopback(host):
        # A page elsewhere could otherwise reach this one through a name of its own that points here (DNS rebinding).
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host])
    return app


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
    try:
        engine.load_finetuned_model(folder)
        blocks = make_page(engine, BaseOnDemand(engine), saves=is_loopback(host))
    except ModelError as error:
        if engine.has_model(folder):
            raise
        blocks = make_missing_page(error)
    address = f"http://{'[' + host + ']' if ':' in host else host}:{listening.getsockname()[1]}"
    config = uvicorn.Config(
        make_app(blocks, host),
        log_level="warning",
        timeout_graceful_shutdown=3,
        limit_concurrency=MAX_CONNECTIONS,
        server_header=False,
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
