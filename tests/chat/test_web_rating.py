"""Answers are rated and mended on the page of the chat, as on the page of reviews."""

import errno
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx2 as httpx
import pytest
from chat_pages import Engine, served
from starlette.testclient import TestClient

from civilqa.chat.web import page as chat_page
from civilqa.chat.web.page import make_app
from civilqa.dataset.records import record_id
from civilqa.program.errors import ModelError
from civilqa.review.exports import make_records
from civilqa.review.marks import last_reviews, latest_corrections, read_reviews

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
SESSION = "a" * 32
WRONG = {"verdict": "wrong", "faults": ["law"]}
GOOD = {"verdict": "good", "faults": []}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_page(answer="답변입니다."):
    return TestClient(make_app(Engine(answer), "127.0.0.1"), base_url="http://127.0.0.1:7860")


@pytest.fixture
def page():
    return make_page()


def ask(page, question="  보증금을\t돌려받으려면?", compare=False):
    """Return the id of the exchange."""
    asked = {"session": SESSION, "question": question, "category": "전세사기", "compare": compare, "turns": False}
    return json.loads(page.post("/ask", json=asked).text.splitlines()[-1])["exchange"]


def rate(page, exchange, /, **changes):
    state = {
        "session": SESSION,
        "exchange": exchange,
        "reviewer": "김",
        "marks": [WRONG],
        "correction": "바른 답",
        "note": "메모",
    }
    return page.post("/rate", json=state | changes)


def test_a_rating_is_a_review_that_becomes_a_record(page):
    answer = rate(page, ask(page))
    assert (answer.status_code, answer.text) == (200, "data/reviews에 저장했습니다.")
    (saved,) = read_reviews()
    question = "보증금을 돌려받으려면?"
    assert (saved.id, saved.question, saved.category, saved.reference) == (
        record_id(question),
        question,
        "전세사기",
        "",
    )
    assert (saved.answers, saved.adapter_sha256) == ({"adapter": "답변입니다."}, Engine().adapter_sha256)
    assert (saved.marks["adapter"].model_dump(), saved.correction, saved.note) == (WRONG, "바른 답", "메모")
    (record,), _ = make_records([], [saved], latest_corrections([saved]))
    assert (record.question, record.answer, record.category) == (question, "바른 답", "전세사기")


def test_of_two_answers_each_has_its_mark_and_the_tuned_model_s_is_the_first(page):
    assert rate(page, ask(page, compare=True), marks=[GOOD, WRONG]).status_code == 200
    (saved,) = read_reviews()
    assert {system: mark.verdict for system, mark in saved.marks.items()} == {"adapter": "good", "base": "wrong"}
    assert saved.is_whole


def test_an_answer_that_the_server_has_no_longer_is_not_marked(page):
    assert rate(page, "0" * 16, marks=[]).status_code == 409
    exchange = ask(page)
    for wrong in ({"exchange": "0" * 16}, {"marks": [GOOD, WRONG]}, {"marks": []}, {"session": "b" * 32}):
        answer = rate(page, exchange, **wrong)
        assert (answer.status_code, "다시 물은 뒤 평가해 주십시오" in answer.text) == (409, True)
    assert read_reviews() == []


def test_a_mark_is_of_the_question_that_it_was_given_to_or_of_none(page):
    first, second = ask(page), ask(page, "월세는?")
    shown = page.post("/conversation", json={"session": SESSION}).json()
    assert [each["exchange"] for each in shown] == [first, second]
    started_again = make_page()
    ask(started_again, "전세는?")
    assert rate(started_again, first).status_code == 409
    assert read_reviews() == []
    assert rate(page, second).status_code == 200
    assert [review.question for review in read_reviews()] == ["월세는?"]


def corrections():
    return [*latest_corrections(read_reviews()).values()]


@pytest.mark.parametrize("answer", ["답변입니다.", "재학습한 답변입니다."])
def test_a_right_answer_stays_when_its_question_is_asked_again_and_only_marked(page, answer):
    rate(page, ask(page))
    later = make_page(answer)
    exchange = ask(later)
    for _ in range(2):
        told = rate(later, exchange, correction="", note="").text
        assert told == "data/reviews에 저장했습니다. 전에 쓴 바른 답변은 그대로 둡니다."
    assert corrections() == [{"김": "바른 답"}]
    assert last_reviews(read_reviews())[-1].correction == "바른 답"  # which the marked answer loses to


def test_a_right_answer_is_taken_back_where_it_was_written(page):
    first, second = ask(page), ask(page)
    rate(page, first)
    rate(page, second, correction="")
    assert rate(page, first, correction=" ").text == "data/reviews에 저장했습니다."
    assert corrections() == []
    rate(page, second, correction="")
    assert corrections() == []


def test_another_right_answer_replaces_it_and_can_be_taken_back_and_others_keep_theirs(page):
    rate(page, ask(page))
    second = ask(page)
    rate(page, second, correction="더 바른 답")
    assert corrections() == [{"김": "더 바른 답"}]
    rate(page, second, reviewer="이")
    rate(page, second, correction="")
    assert corrections() == [{"이": "바른 답"}]


def test_a_broken_file_of_reviews_is_told(page, tmp_path):
    exchange = ask(page)
    rate(page, exchange)
    path = tmp_path / "data/reviews/review-김.jsonl"
    path.write_bytes(b"{}\n")
    answer = rate(page, ask(page), correction="")
    assert (answer.status_code, "review-김.jsonl:1" in answer.text) == (500, True)
    assert path.read_bytes() == b"{}\n"


@pytest.mark.parametrize(
    "wrong",
    [
        {"reviewer": "../x"}, {"reviewer": ""}, {"exchange": "../x"}, {"exchange": 0}, {"marks": [{"verdict": "best"}]},
        {"marks": [{"verdict": "good", "faults": ["law"]}]}, {"note": "가" * 20_001}, {"correction": None},
        {"path": "/x"},
    ],
    ids=lambda wrong: str(wrong)[:40],
)  # fmt: skip
def test_what_the_page_does_not_send_is_refused(page, wrong):
    assert rate(page, ask(page), **wrong).status_code == 400
    assert read_reviews() == []


def test_a_full_disk_is_told(page, monkeypatch):
    def full(review, folder):
        raise OSError(errno.ENOSPC, "No space left on device", "data/reviews/x")

    monkeypatch.setattr(chat_page, "append_review", full)
    answer = rate(page, ask(page))
    assert (answer.status_code, answer.text.startswith("저장하지 못했습니다")) == (507, True)


def test_who_is_elsewhere_and_a_model_of_no_adapter_are_not_rated(page):
    unknown = Engine()
    unknown.adapter_sha256 = None
    for app in (make_app(Engine(), "0.0.0.0"), make_app(unknown, "127.0.0.1")):  # noqa: S104 - nothing listens
        other = TestClient(app, base_url="http://127.0.0.1:7860")
        assert rate(other, ask(other)).status_code == 404
        assert "평가하는 사람" not in other.get("/").text
    assert "평가하는 사람" in page.get("/").text


def test_an_answer_stays_where_there_is_none_to_compare_it_with(monkeypatch):
    def load_base_beside(self):
        raise ModelError("메모리가 모자랍니다.")

    monkeypatch.setattr(Engine, "load_base_beside", load_base_beside)
    page = make_page()
    asked = {"session": SESSION, "question": "질문", "category": "전세사기", "compare": True, "turns": False}
    *_, kept, failed = (json.loads(line) for line in page.post("/ask", json=asked).text.splitlines())
    assert (kept["finished"], failed) == (True, {"error": "메모리가 모자랍니다."})
    (shown,) = page.post("/conversation", json={"session": SESSION}).json()
    assert (shown["exchange"], len(shown["answers"])) == (kept["exchange"], 1)
    assert rate(page, kept["exchange"]).status_code == 200


def test_to_stop_begins_no_answer_to_compare_with():
    engine = Engine()
    asked = {"session": SESSION, "question": "기다려 주세요", "category": "", "compare": True, "turns": False}
    with served(engine) as address, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, f"{address}/ask", json=asked, timeout=60)
        while not engine.streams:
            time.sleep(0.05)
        httpx.post(f"{address}/stop", json={"session": SESSION})
        events = [json.loads(line) for line in answer.result().text.splitlines()]
        (shown,) = httpx.post(f"{address}/conversation", json={"session": SESSION}).json()
    assert events[-1]["finished"]
    assert (len(engine.streams), len(shown["answers"])) == (1, 1)


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("width", "height"), [(1366, 650), (390, 844)])
def test_keys_alone_ask_rate_and_mend_and_a_reload_shows_it(width, height, tmp_path):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect, sync_playwright

    with served(Engine("민법 제750조에 따라 배상합니다.")) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": height})
        tab.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        tab.goto(address)
        found = [Axe().run(tab)]

        def tab_to(selector):
            for _ in range(60):
                if tab.evaluate("selector => document.activeElement.matches(selector)", selector):
                    return
                tab.keyboard.press("Tab")
            raise AssertionError(f"{selector} is not reached by Tab")

        expect(tab.locator("#question")).to_be_focused()
        tab.keyboard.type("question?")
        tab_to("#compare")
        tab.keyboard.press("Space")
        tab_to("#send")
        tab.keyboard.press("Enter")
        expect(tab.locator(".saved")).to_have_count(1)
        tab_to(".verdict input")
        tab.keyboard.press("Space")
        tab.keyboard.press("ArrowRight")
        tab.keyboard.press("ArrowRight")
        tab_to(".faults input")
        tab.keyboard.press("Space")
        tab_to(".mend summary")
        tab.keyboard.press("Enter")
        tab_to(".correction")
        tab.keyboard.type("right answer")
        expect(tab.locator(".saved")).to_have_text("data/reviews에 저장했습니다.")
        found.append(Axe().run(tab))
        saved = read_reviews()[-1]
        assert (saved.marks["adapter"].model_dump(), saved.marks["base"].verdict) == (WRONG, None)
        expect(tab.locator(".correction")).to_have_value("right answer")
        for _ in range(100):  # the page's policy forbids playwright's own way to wait for a function
            if not tab.evaluate("Object.values(sessionStorage).some((kept) => kept.includes('unsent'))"):
                break
            tab.wait_for_timeout(100)
        assert read_reviews()[-1].correction == "right answer"
        tab.reload()
        expect(tab.locator(".correction")).to_have_value("right answer")
        expect(tab.locator(".faults input").first).to_be_checked()
        tops = [box.bounding_box()["y"] for box in tab.locator(".answer").all()]
        assert (tops[0] == tops[1]) == (width > 700), "the two answers stand in one row where there is room"
        if width > 700:
            tab.mouse.wheel(0, 5000)
            for shown in ("h1", "#notice"):
                assert 0 <= tab.locator(shown).bounding_box()["y"] < height
        else:
            order = [tab.locator(name).first.bounding_box()["y"] for name in ("#question", "#category", ".answer")]
            assert order == sorted(order)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert [
        (each["id"], node["html"]) for one in found for each in one.response["violations"] for node in each["nodes"]
    ] == []


@contextmanager
def answered_tab(script=""):
    """Yield a tab of the page in which a question has its answer, and a form to rate it; a script runs before."""
    from playwright.sync_api import expect, sync_playwright

    with served(Engine()) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.add_init_script(script)
        tab.goto(address)
        tab.fill("#question", "질문입니다")
        tab.locator("#send").click()
        expect(tab.locator(".saved")).to_have_count(1, timeout=60_000)
        yield tab
        browser.close()


@pytest.mark.slow
@needs_browser
def test_what_is_written_while_the_server_is_away_is_sent_when_it_is_back():
    from playwright.sync_api import expect

    with answered_tab() as tab:
        tab.route("**/rate", lambda route: route.abort())
        tab.get_by_label("쓸 만함").check()
        expect(tab.locator(".saved")).to_contain_text("다시 보냅니다", timeout=60_000)
        assert read_reviews() == []
        tab.unroute("**/rate")
        expect(tab.locator(".saved")).to_have_text("data/reviews에 저장했습니다.", timeout=60_000)
    assert [review.marks["adapter"].verdict for review in read_reviews()] == ["usable"]


@pytest.mark.slow
@needs_browser
def test_what_the_server_has_no_room_for_is_sent_once_it_has():
    """And where the browser has no clipboard, as over a network without encryption, the text is copied all the same."""
    from playwright.sync_api import expect

    with answered_tab("Object.defineProperty(navigator, 'clipboard', {value: undefined})") as tab:
        tab.locator(".tools button").first.click()
        expect(tab.locator(".tools button").first).to_have_text("복사했습니다")
        tab.route("**/rate", lambda route: route.fulfill(status=507, body="저장하지 못했습니다: 디스크가 찼습니다"))
        tab.get_by_label("쓸 만함").check()
        expect(tab.locator(".saved")).to_contain_text("디스크가 찼습니다", timeout=60_000)
        told = []
        tab.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        tab.locator("#clear").click()
        tab.wait_for_timeout(500)
        assert told == ["저장하지 못한 평가 1건이 있습니다. 버리고 새로 시작할까요?"]
        expect(tab.locator(".saved")).to_have_count(1)
        tab.unroute("**/rate")
        expect(tab.locator(".saved")).to_have_text("data/reviews에 저장했습니다.", timeout=60_000)
    assert [review.marks["adapter"].verdict for review in read_reviews()] == ["usable"]
