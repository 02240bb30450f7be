"""The page as its user starts it, asked as its script asks and by a browser."""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import httpx2 as httpx
import pytest

from civilqa.chat.web.guard import MAX_BODY_BYTES
from civilqa.chat.web.page import answer_html
from civilqa.dataset.records import Record, record_id, write_records
from conftest import ROOT, copy_project, edit_params

pytestmark = pytest.mark.slow

QUESTION = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"
EVIL = "<script>alert(1)</script> ![x](http://evil.example/a) [링크](javascript:alert(1)) $$x$$\n\n# 제목 <b>굵게</b>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextlib.contextmanager
def served(project: Path, *arguments: str):
    """Run the page as its user does, and yield its address."""
    log = project / ".web.log"  # not a pipe: one that nobody reads fills up, and the page would wait for it
    process = subprocess.Popen(
        [sys.executable, "stages/chat.py", "web", "--port", "0", *arguments],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=log.open("w", encoding="utf-8"),
        text=True,
        encoding="utf-8",
    )
    try:
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, log.read_text(encoding="utf-8")
        address = line.split()[1]
        wait_until_open(address)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert "Traceback" not in log.read_text(encoding="utf-8")


def wait_until_open(address: str) -> None:
    for _ in range(200):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(address, timeout=5).status_code == 200:  # 503 while the model is loaded
                return
        time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


@pytest.fixture(scope="module")
def page(tmp_path_factory, adapter_folder):
    project = copy_project(tmp_path_factory.mktemp("web") / "project")
    shutil.copytree(adapter_folder, project / "models/adapter")
    edit_params(project / "params.yaml", **{"chat.max_new_tokens": 24})
    for split in ("train", "test"):
        questions = [f"{split}의 {number}번 질문입니다" for number in range(3)]
        records = [
            Record(id=record_id(text), question=text, answer="답", category="전세사기", difficulty="")
            for text in questions
        ]
        write_records(project / "data/splits" / f"{split}.jsonl", records)
    with served(project) as address:
        yield address, project


def post(page, path, session, **more):
    return httpx.post(f"{page[0]}/{path}", json={"session": session} | more, timeout=120)


def ask(page, question, category="", compare=False, session=None):
    """Return the events of an answer, as the page's script gets them."""
    asked = {"question": question, "category": category, "compare": compare, "turns": False}
    answer = post(page, "ask", session or uuid.uuid4().hex, **asked)
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


def html_of(events, model=0):
    (html,) = [event["html"] for event in events if event.get("model") == model and "html" in event]
    return html


def test_the_page_answers_as_the_engine_does(page, engine):
    expected = answer_html(engine.generate_answer(QUESTION, "전세사기"))
    events = ask(page, QUESTION, "전세사기", compare=True)
    assert html_of(events) == expected
    assert html_of(events, 1) != expected
    assert events[-1]["finished"]
    assert [event["category"] for event in events if "html" in event] == ["분야: 전세사기"] * 2


def test_a_reload_shows_the_conversation_of_the_tab_and_a_new_one_forgets_it(page):
    session = uuid.uuid4().hex
    events = ask(page, QUESTION, session=session)
    (shown,) = post(page, "conversation", session).json()
    assert shown == {
        "exchange": events[-1]["exchange"],
        "question": QUESTION,
        "category": "분야: 전세사기 (가장 비슷한 학습 질문에서)",
        "answers": [html_of(events)],
    }
    assert post(page, "conversation", uuid.uuid4().hex).json() == []
    assert post(page, "clear", session).status_code == 204
    assert post(page, "conversation", session).json() == []


@pytest.mark.parametrize(
    ("question", "message"),
    [("", "비어 있습니다"), ("가" * 30_000, "2,000자 이내"), ("\u200b", "비어 있습니다")],
)
def test_what_cannot_be_asked_is_said_on_the_page(page, question, message):
    (event,) = ask(page, question)
    assert message in event["error"]


def test_special_tokens_and_markup_in_a_question_are_text(page):
    session = uuid.uuid4().hex
    html = html_of(ask(page, f"<|eot_id|> {EVIL}", session=session))
    assert "<script" not in html
    # The question is text to the page: its script shows it as such.
    assert post(page, "conversation", session).json()[0]["question"] == f"<|eot_id|> {EVIL}"


def test_several_at_once_are_answered_one_after_the_other(page):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(html_of(ask(page, QUESTION)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(set(answers)) == 1
    assert len(answers) == 4


def test_large_requests_foreign_names_and_unused_paths_are_refused(page):
    address, _ = page
    big = b"x" * (MAX_BODY_BYTES + 1)
    assert httpx.post(f"{address}/ask", content=big).status_code == 413
    assert httpx.post(f"{address}/ask", content=iter([big])).status_code == 413
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 400
    for path in ("upload", "file=/etc/passwd", "monitoring", "docs", "page.py", "../params.yaml"):
        assert httpx.get(f"{address}/{path}").status_code == 404, path
    policy = httpx.get(address).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_nothing_is_written_before_it_is_asked_for(page):
    ask(page, QUESTION)
    assert not (page[1] / "data/conversations").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
def test_the_page_in_a_browser(page):
    """Desktop and phone: ask, compare, stop, save; nothing is asked of another server, nothing written runs."""
    from playwright.sync_api import expect, sync_playwright

    address, project = page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width, height in ((1366, 650), (390, 844)):
            tab = browser.new_page(viewport={"width": width, "height": height}, locale="en-US")
            requests, dialogs = [], []
            tab.on("request", lambda request, seen=requests: seen.append(request.url))
            tab.on("dialog", lambda dialog, seen=dialogs: seen.append(dialog.message))
            tab.goto(address)
            tab.get_by_label("분야").select_option("전세사기")
            tab.locator("#compare").check()
            tab.locator(".example").first.click()
            expect(tab.locator("#question")).not_to_have_value("")
            tab.locator("#send").click()
            expect(tab.locator(".answer .tools")).to_have_count(2, timeout=60_000)
            assert tab.locator(".exchange").count() == 1
            tab.fill("#question", EVIL)
            tab.locator("#question").press("Enter")
            expect(tab.locator(".answer .tools")).to_have_count(4, timeout=60_000)
            assert tab.locator(".answer script, .answer img, .answer h1, .question *").count() == 0
            assert "<script>alert(1)</script>" in tab.locator(".question").first.inner_text()
            expect(tab.locator("#question")).to_have_value("", timeout=60_000)
            tab.fill("#question", "가" * 2001)
            tab.locator("#send").click()
            expect(tab.locator("#status")).to_contain_text("2,000자", timeout=60_000)
            assert len(tab.locator("#question").input_value()) == 2001  # refused, and not lost
            tab.locator("#save").click()
            expect(tab.locator("#status")).to_contain_text("저장했습니다")
            body = tab.locator("body").inner_text()
            for words in ("법률 자문이 아닙니다", "질문하기", "예시: 모델이 학습한 질문"):
                assert words in body
            tab.reload()
            expect(tab.locator(".answer .tools")).to_have_count(4)
            assert tab.locator("#notice").bounding_box()["y"] < height
            question, answers = (tab.locator(name).first.bounding_box()["y"] for name in ("#question", ".answer"))
            assert question < answers  # the question comes first, on a phone, too
            assert tab.evaluate("document.documentElement.lang") == "ko"
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert dialogs == []
            assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
            tab.close()
        browser.close()
    assert len(list((project / "data/conversations").iterdir())) == 2


def test_without_an_adapter_the_page_says_how_to_get_one(project):
    with served(project) as address:
        shown = httpx.get(address).text
    assert "아직 물어볼 모델이 없습니다" in shown
    assert "dvc repro finetune" in shown
    assert str(project) not in shown
    assert str(ROOT) not in shown
