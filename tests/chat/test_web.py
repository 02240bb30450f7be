import contextlib
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from civilqa.chat.web import (
    MAX_BODY_BYTES,
    MAX_WAITING,
    MAX_WAITING_A_CLIENT,
    Page,
    answer_html,
    escaped,
    example_questions,
    is_loopback,
    marked,
    open_socket,
)
from civilqa.dataset.records import Record, record_id, write_records
from civilqa.inference import InferenceEngine
from civilqa.program.errors import ParameterError, QuestionError
from conftest import ROOT

QUESTION = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"
EVIL = "<script>alert(1)</script> ![x](http://evil.example/a) [링크](javascript:alert(1)) $$x$$\n\n# 제목 <b>굵게</b>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def result(answer, **more):
    from civilqa.law.verdicts import look_up_citations

    return {"answer": answer, "citations": look_up_citations(answer), "stopped": True, **more}


def test_each_citation_is_marked_with_what_is_known_of_it():
    page = answer_html(result("주택임대차보호법 제3조의3에 따라, 민법 제9999조와 자동차관리법 제3조"))
    assert '<mark class="good" title="있는 조문">주택임대차보호법 제3조의3</mark>에 따라' in page
    assert '<mark class="bad" title="없는 조문(지어낸 인용)">민법 제9999조</mark>' in page
    assert '<li class="good"><b>✓ 있는 조문</b> 주택임대차보호법 제3조의3(임차권등기명령)</li>' in page


def test_a_range_is_as_good_as_its_worst_article():
    answer = "민법 제1117조부터 제1119조까지"
    page = marked(answer, result(answer)["citations"])
    assert page.count("<mark") == 1
    assert 'class="bad"' in page


def test_what_was_written_is_escaped_and_stays_one_block():
    page = answer_html(result(f"{EVIL} 민법 제750조"))
    assert "<script" not in page
    assert "<b>굵게" not in page
    assert "\n" not in page  # Markdown would end the block there and read on
    assert escaped('"&<>') == "&quot;&amp;&lt;&gt;"


class Stream:
    finished = False


class StreamingEngine:
    """Begins answers that never end by themselves."""

    def stream_answer(self, *asked, **history):
        return Stream()


def test_the_waiting_room_is_bounded_and_forgets_who_has_left():
    page, engine = Page(engine=None, base=None), StreamingEngine()
    streams = [page.start(engine, f"session {number}", "127.0.0.1") for number in range(MAX_WAITING)]
    with pytest.raises(QuestionError, match="잠시 뒤에 다시 물어 주십시오"):
        page.start(engine, "one more", "127.0.0.1")
    streams[3].finished = True
    page.start(engine, "one more", "127.0.0.1")
    assert len(page.streams) == MAX_WAITING


def test_a_session_has_one_answer_at_a_time():
    page, engine = Page(engine=None, base=None), StreamingEngine()
    first = page.start(engine, "session", "127.0.0.1")
    with pytest.raises(QuestionError, match="아직 답하고 있습니다"):
        page.start(engine, "session", "127.0.0.1")
    first.finished = True
    page.start(engine, "session", "127.0.0.1")


def test_one_address_cannot_take_all_the_room():
    page, engine = Page(engine=None, base=None), StreamingEngine()
    for number in range(MAX_WAITING_A_CLIENT):
        page.start(engine, f"session {number}", "192.0.2.1")
    with pytest.raises(QuestionError, match="잠시 뒤에 다시 물어 주십시오"):
        page.start(engine, "one more", "192.0.2.1")
    page.start(engine, "another's", "192.0.2.2")


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("192.0.2.1", False)]
)
def test_what_is_the_loopback(host, local):
    assert is_loopback(host) is local


def test_an_address_that_cannot_be_had_is_refused():
    with open_socket("127.0.0.1", 0) as taken:
        for host, port in (("127.0.0.1", taken.getsockname()[1]), ("203.0.113.1", 0), ("127.0.0.1", 99999)):
            with pytest.raises(ParameterError, match="--port나 --host를"):
                open_socket(host, port)


def test_an_example_is_asked_in_a_category_that_the_page_offers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    categories = {"전세 질문입니다": "전세사기", "상속 질문입니다": "상속", "다른 질문입니다": ""}
    records = [
        Record(id=record_id(question), question=question, answer="답", category=category, difficulty="")
        for question, category in categories.items()
    ]
    write_records(tmp_path / "data/splits/test.jsonl", records)
    found = dict(example_questions("test", ["전세사기"]))
    assert found == {"전세 질문입니다": "전세사기", "상속 질문입니다": "공통", "다른 질문입니다": "공통"}


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
        env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "True"},  # what the environment says must not matter
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
    from conftest import copy_project, edit_params

    project = copy_project(tmp_path_factory.mktemp("web") / "project")
    shutil.copytree(adapter_folder, project / "models/adapter")
    edit_params(project / "params.yaml", **{"chat.max_new_tokens": 24})
    for stage in ("prepare", "split"):
        subprocess.run([sys.executable, f"stages/{stage}.py"], cwd=project, check=True, capture_output=True)
    with served(project) as address:
        yield address, project


def ask(client, question, category="공통", compare=False):
    return client.predict(question, category, compare, False, api_name="/ask")


def test_the_page_answers_as_the_engine_does(page, monkeypatch):
    address, project = page
    monkeypatch.chdir(project)
    engine = InferenceEngine().configure(max_new_tokens=24).load_finetuned_model()
    expected = answer_html(engine.generate_answer(QUESTION, "전세사기"))
    tuned, base, question, status = ask(Client(address, verbose=False), QUESTION, "전세사기", compare=True)
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
    tuned, _, kept, status = ask(Client(page[0], verbose=False), question)
    assert message in status
    assert tuned == []
    assert kept == question


def test_special_tokens_and_markup_in_a_question_are_text(page):
    tuned, *_ = ask(Client(page[0], verbose=False), f"<|eot_id|> {EVIL}")
    assert "<script" not in str(tuned)
    assert "&lt;|eot_id|&gt;" in text_of(tuned[0])


def test_several_at_once_are_answered_one_after_the_other(page):
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(Client(page[0], verbose=False), QUESTION)[0][-1]))
        for _ in range(4)
    ]
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


@pytest.mark.slow
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
    assert ROOT.name not in shown
