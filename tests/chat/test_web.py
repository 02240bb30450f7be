"""The page as its user starts it, asked by gradio's own client and by a browser."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from civilqa.chat.web.content import answer_html
from civilqa.chat.web.guard import MAX_BODY_BYTES
from civilqa.dataset.records import Record, record_id, write_records
from conftest import ROOT, copy_project, edit_params

pytestmark = pytest.mark.slow

QUESTION = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"
EVIL = "<script>alert(1)</script> ![x](http://evil.example/a) [링크](javascript:alert(1)) $$x$$\n\n# 제목 <b>굵게</b>"
# What the environment says must not matter.
SWITCHES = ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "GRADIO_SSR_MODE", "GRADIO_MCP_SERVER")
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
        env={**os.environ, **dict.fromkeys(SWITCHES, "True")},
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
            httpx.get(address, timeout=5)
            return
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


def ask(page, question, category="공통", compare=False):
    from gradio_client import Client

    return Client(page[0], verbose=False).predict(question, category, compare, False, api_name="/ask")


def test_the_page_answers_as_the_engine_does(page, engine):
    expected = answer_html(engine.generate_answer(QUESTION, "전세사기"))
    tuned, base, question, status = ask(page, QUESTION, "전세사기", compare=True)
    assert (question, status) == ("", "")
    assert text_of(tuned[-1]) == expected
    assert [message["role"] for message in base] == ["user", "assistant"]
    assert text_of(base[-1]) != expected


def text_of(message):
    content = message["content"]
    return content if isinstance(content, str) else content[0]["text"]


@pytest.mark.parametrize(
    ("question", "message"),
    [("", "비어 있습니다"), ("가" * 30_000, "2,000자 이내"), ("\u200b", "비어 있습니다")],
)
def test_what_cannot_be_asked_is_said_on_the_page(page, question, message):
    tuned, _, kept, status = ask(page, question)
    assert message in status
    assert tuned == []
    assert kept == question


def test_special_tokens_and_markup_in_a_question_are_text(page):
    tuned, *_ = ask(page, f"<|eot_id|> {EVIL}")
    assert "<script" not in str(tuned)
    assert "&lt;|eot_id|&gt;" in text_of(tuned[0])


def test_several_at_once_are_answered_one_after_the_other(page):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(page, QUESTION)[0][-1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len({text_of(answer) for answer in answers}) == 1
    assert len(answers) == 4


def test_large_requests_foreign_names_and_unused_paths_are_refused(page):
    address, _ = page
    big = b"x" * (MAX_BODY_BYTES + 1)
    assert httpx.post(f"{address}/gradio_api/queue/join", content=big).status_code == 413
    assert httpx.post(f"{address}/gradio_api/queue/join", content=iter([big])).status_code == 413
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 400
    for path in ("gradio_api/upload", "gradio_api/file=/etc/passwd", "monitoring", "docs"):
        assert httpx.get(f"{address}/{path}").status_code in (404, 405), path
    policy = httpx.get(address).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_nothing_is_recorded_or_shared(page):
    config = httpx.get(f"{page[0]}/config").json()
    assert config["analytics_enabled"] is False
    assert config["run_history"] is False
    assert config["footer_links"] == []
    assert not (page[1] / "data/conversations").exists()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
def test_the_page_in_a_browser(page):
    """Desktop and phone: ask, compare, stop, save; nothing is asked of another server, nothing written runs."""
    from playwright.sync_api import expect, sync_playwright

    address, project = page
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width, height in ((1280, 900), (390, 844)):
            tab = browser.new_page(viewport={"width": width, "height": height}, locale="en-US")
            requests, dialogs = [], []
            tab.on("request", lambda request, seen=requests: seen.append(request.url))
            tab.on("dialog", lambda dialog, seen=dialogs: seen.append(dialog.message))
            tab.goto(address)
            tab.wait_for_selector("#question textarea")
            tab.get_by_text("전세사기", exact=True).first.click()
            tab.locator("#compare input").check()
            tab.locator("button.gallery-item").first.click()
            expect(tab.locator("#question textarea")).not_to_be_empty()
            tab.locator("#send").click()
            tab.wait_for_selector("#base .message.bot .answer small", timeout=60_000)
            assert tab.locator("#tuned .message.bot").count() == 1
            tab.fill("#question textarea", EVIL)
            tab.locator("#question textarea").press("Enter")
            expect(tab.locator("#base .message.bot")).to_have_count(2, timeout=60_000)
            assert tab.locator("#tuned script, #tuned img, #tuned a, #tuned h1").count() == 0
            assert "<script>alert(1)</script>" in tab.locator("#tuned .message.user").last.inner_text()
            expect(tab.locator("#question textarea")).to_be_empty(timeout=60_000)
            tab.locator("#save").click()
            expect(tab.locator("#status")).to_contain_text("저장했습니다")
            body = tab.locator("body").inner_text()
            for words in ("법률 자문이 아닙니다", "질문하기", "예시: 모델이 학습한 질문"):
                assert words in body
            for english in ("Submit", "Clear", "Built with", "Examples", "Settings", "Error"):
                assert english not in body
            assert tab.evaluate("document.documentElement.lang") == "ko"
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert dialogs == []
            assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
            tab.close()
        browser.close()
    assert len(list((project / "data/conversations").iterdir())) == 2


def test_without_an_adapter_the_page_says_how_to_get_one(project):
    with served(project) as address:
        components = httpx.get(f"{address}/config").json()["components"]
    shown = str([component["props"].get("value") for component in components])
    assert "아직 물어볼 모델이 없습니다" in shown
    assert "dvc repro finetune" in shown
    assert str(project) not in shown
    assert str(ROOT) not in shown
