"""People judge 24 answers in a browser, page and browser are killed meanwhile, and all of it reaches the data."""

import contextlib
import copy
import csv
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from review_files import ANSWER, QUESTION, gold_form, review, write_evaluation

from civilqa.dataset.records import Record, read_records, record_id, write_records
from civilqa.program.files import write_jsonl
from civilqa.review.exports import make_preferences
from civilqa.review.marks import append_review, last_reviews, read_reviews
from civilqa.scoring.gold import read_gold
from conftest import ROOT, copy_project, edit_params

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")


class Page:
    """`chat.py review` as its user runs it, which can be killed and started again."""

    def __init__(self, project: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.project, self.address = project, f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "stages/chat.py", "review", "--port", str(self.port)],
            cwd=self.project, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        assert self.address in self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def saved(self):
        return last_reviews(read_reviews(self.project / "data/reviews"))


@pytest.fixture
def page(tmp_path):
    project = copy_project(tmp_path / "project")
    write_evaluation(project)
    page = Page(project)
    yield page
    page.kill()


@contextlib.contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def begin(tab, page, name):
    from playwright.sync_api import expect

    tab.set_default_timeout(60_000)
    tab.goto(page.address)
    tab.get_by_label("검토자 이름").fill(name)
    tab.get_by_role("button", name="검토 시작").click()
    expect(tab.locator("#question")).to_be_visible(timeout=60_000)


def mark(tab, place, verdict, *faults):
    tab.locator(f"input[name=verdict-{place}][value={verdict}]").check()
    for fault in faults:
        tab.locator(f"input[name=fault-{place}][value={fault}]").check()


def place_of(tab, words):
    """Return where the answer with these words stands: 0 left, 1 right."""
    return 0 if words in tab.locator("#answer-0").inner_text() else 1


def judge(tab, numbers, strict=False):
    """Judge so many questions from where the page stands: an article that is cited is good, otherwise wrong."""
    from playwright.sync_api import expect

    for _ in numbers:
        for place in (0, 1):
            cites = tab.locator(f"#answer-{place} .citations").count()
            if cites and not strict:
                mark(tab, place, "good")
            else:
                mark(tab, place, "wrong", "law")
        expect(tab.locator("#jump option:checked")).to_contain_text("✓", timeout=60_000)
        if tab.locator("#next").is_enabled():
            tab.locator("#next").click()


@needs_browser
def test_two_reviewers_judge_24_answers_the_page_is_killed_and_nothing_is_lost(page):
    from playwright.sync_api import expect

    with browser() as first:
        tab = first.new_page(viewport={"width": 1366, "height": 650})
        begin(tab, page, "김 변호사")
        judge(tab, range(5))
        tab.get_by_label("바른 답변").fill("민법 제200조에 따라 14일 안에 하십시오.")
        expect(tab.locator("#right")).to_contain_text("민법 제200조", timeout=60_000)

        page.kill()
        corrected = tab.locator("#question").inner_text().partition(". ")[2]
        tab.get_by_label("메모").fill("서버가 꺼진 뒤에 적은 메모")
        expect(tab.locator("#status")).to_contain_text("서버에 닿지 않습니다", timeout=60_000)
        assert "서버가 꺼진" not in "".join(one.note for one in page.saved())
        page.start()
        expect(tab.locator("#status")).to_have_text("저장했습니다.", timeout=60_000)  # sent again by itself
        (kept,) = [one for one in page.saved() if one.correction]
        assert (kept.question, kept.note) == (corrected, "서버가 꺼진 뒤에 적은 메모")

        page.kill()
        tab.get_by_label("메모").fill("다시 꺼진 뒤에 적은 메모")
        expect(tab.locator("#status")).to_contain_text("서버에 닿지 않습니다", timeout=60_000)
        page.start()
        tab.reload()  # the tab is gone before it could send it
        expect(tab.locator("#question")).to_have_text(f"6. {corrected}", timeout=60_000)
        assert tab.get_by_label("메모").input_value() == "다시 꺼진 뒤에 적은 메모"
        judge(tab, range(2))
        expect(tab.locator("#progress")).to_have_text("12개 가운데 7개를 마쳤습니다.", timeout=60_000)
        shown = [option.partition(" ")[2] for option in tab.locator("#jump option").all_inner_texts()]
    # The browser is gone, with all that it knew.
    with browser() as second:
        tab = second.new_page()
        begin(tab, page, "김 변호사")
        expect(tab.locator("#progress")).to_have_text("12개 가운데 7개를 마쳤습니다.", timeout=60_000)
        assert [option.partition(" ")[2] for option in tab.locator("#jump option").all_inner_texts()] == shown
        expect(tab.locator("#question")).to_contain_text("8. ")
        other = second.new_context().new_page()  # side by side
        begin(other, page, "이 변호사")
        judge(tab, range(5))
        judge(other, range(11))
        judge(other, range(1), strict=True)
        expect(tab.locator("#progress")).to_have_text("12개 가운데 12개를 마쳤습니다.", timeout=60_000)
        expect(other.locator("#progress")).to_have_text("12개 가운데 12개를 마쳤습니다.", timeout=60_000)

    saved = page.saved()
    assert len(saved) == 24  # of two reviewers, two answers each
    assert all(one.is_whole and one.blind for one in saved)
    check_outputs(page.project, corrected)


def run(project, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_outputs(project, corrected):
    """Look at what stages/reviews.py makes of the review of 24 answers by two people, and run prepare on it."""
    out = run(project, "stages/reviews.py")
    assert "2 reviewers (김 변호사, 이 변호사): 24 answers judged, 24 by several" in out
    folder = project / "data/reviewed"
    agreement = json.loads((folder / "agreement.json").read_text(encoding="utf-8"))
    assert 0.5 < agreement["verdict"]["alpha"] < 1  # they differ on one question
    assert agreement["scores"]["scores"]["citation_rate"]["auc"] > 0.9

    drafts = [json.loads(line) for line in (folder / "gold_drafts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(drafts) == 12
    assert all(draft["required_citations"] and draft["numbers"] and draft["todo"] for draft in drafts)
    assert (folder / "gold.jsonl").read_text(encoding="utf-8") == ""

    preferences = [json.loads(line) for line in (folder / "preferences.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(preferences) > 6
    assert {frozenset(row) for row in preferences} == {frozenset({"prompt", "chosen", "rejected"})}
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "검토자 2명이 쓸 만하다고 한 답변" in report
    assert "김 변호사의 바른 답변" in report

    with (folder / "corrected.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["question"] == corrected]
    assert row["answer"] == "민법 제200조에 따라 14일 안에 하십시오."
    before = {record.id: record for record in read_records(project / "data/prepared/records.jsonl")}
    edit_params(project / "params.yaml", **{"prepare.source": "data/reviewed/corrected.csv"})
    run(project, "stages/prepare.py")
    after = {record.id: record for record in read_records(project / "data/prepared/records.jsonl")}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == [
        name for name in before if before[name].question == corrected
    ]


@needs_browser
def test_by_keyboard_alone_one_begins_judges_mends_and_goes_on(page):
    from playwright.sync_api import expect

    with browser() as started:
        tab = started.new_page()
        tab.set_default_timeout(60_000)
        tab.goto(page.address)
        press = tab.keyboard.press
        tab.keyboard.type("kim")
        press("Enter")
        expect(tab.locator("#question")).to_be_focused(timeout=60_000)  # where a screen reader reads on
        first = tab.locator("#question").inner_text()

        def tab_to(selector):
            for _ in range(60):
                press("Tab")
                if tab.locator(f"{selector}:focus").count():
                    return
            raise AssertionError(f"{selector} cannot be reached")

        tab_to("input[name=verdict-0]")
        press("Space")
        tab_to("input[name=verdict-1]")
        press("Space")
        press("ArrowRight")
        press("ArrowRight")
        tab_to("input[name=fault-1]")
        press("Space")
        tab_to("input[name=better]")
        press("Space")
        tab_to("#correction")
        tab.keyboard.type("right answer")
        tab_to("#note")
        tab.keyboard.type("note")
        tab_to("#gold summary")
        press("Enter")
        tab_to("#gold-line")
        tab.keyboard.type("line")
        expect(tab.locator("#problems")).to_contain_text("2개 이상 적으십시오", timeout=60_000)
        press("Control+Enter")
        expect(tab.locator("#question")).not_to_have_text(first)
        expect(tab.locator("#question")).to_be_focused()
        expect(tab.locator("#progress")).to_have_text("12개 가운데 1개를 마쳤습니다.", timeout=60_000)
    (saved,) = page.saved()
    assert saved.is_whole
    assert [saved.marks[system].verdict for system in saved.shown] == ["good", "wrong"]
    assert saved.better == saved.shown[0]
    assert (saved.correction, saved.note, saved.gold.line) == ("right answer", "note", "line")


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1366, 650), (390, 844)])
def test_the_page_is_accessible_and_fits(page, scheme, width, height, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    with browser() as started:
        tab = started.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        requests = []
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.address)
        found = [Axe().run(tab)]
        begin(tab, page, "김")
        mark(tab, 0, "wrong", "law")
        tab.locator("[data-from=reference]").click()
        tab.locator("#gold summary").click()
        tab.locator("#gold-line").fill("결론")
        tab.locator("#problems p").first.wait_for()
        found.append(Axe().run(tab))
        tab.screenshot(path=tmp_path / "page.png", full_page=True)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert [
        (each["id"], node["html"]) for one in found for each in one.response["violations"] for node in each["nodes"]
    ] == []
    assert [url for url in requests if not url.startswith((page.address, "data:"))] == []


def test_a_filled_in_form_becomes_gold(tmp_path):
    project = copy_project(tmp_path / "project")
    write_evaluation(project, 2)
    own = Record(id=record_id(QUESTION), question=QUESTION, answer=ANSWER, category="", difficulty="")
    write_records(project / "data/prepared/records.jsonl", [own])
    append_review(review(0, id=own.id, question=QUESTION, gold=gold_form()), project / "data/reviews")
    assert "0 annotated questions and 1 that were filled in" in run(project, "stages/reviews.py")
    shutil.copy(project / "data/reviewed/gold.jsonl", project / "data/raw/gold.jsonl")
    (gold,) = read_gold(project / "data/raw/gold.jsonl").values()
    assert gold.question == QUESTION
    assert "1 annotated questions and 0 that were filled in" in run(project, "stages/reviews.py")


def test_the_preferences_train_with_trl(tmp_path, base, tokenizer):
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    from civilqa.base_model.profiles import ModelParams, Profile
    from civilqa.model.hardware import Hardware
    from civilqa.model.loading import load_base

    def ask(question, category):
        return [{"role": "system", "content": category}, {"role": "user", "content": question}]

    made, _ = make_preferences([review(number, "김", "good", ["law"], correction="답") for number in range(4)], ask)
    write_jsonl(tmp_path / "preferences.jsonl", made)
    path = str(tmp_path / "preferences.jsonl")
    examples = load_dataset("json", data_files=path, split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (ROOT / "models/templates/korean_plain.jinja").read_text(encoding="utf-8")
    model = load_base(
        ModelParams(profile="tiny", seed=1),
        Profile(name=str(ROOT / "models/tiny"), weights="random"),
        Hardware("cpu", "fp32", 2),
    )
    arguments = DPOConfig(str(tmp_path / "out"), max_steps=2, use_cpu=True, report_to=[], per_device_train_batch_size=2)
    done = DPOTrainer(model, base, args=arguments, train_dataset=examples, processing_class=tokenizer).train()
    assert done.global_step == 2
    assert 0 < done.training_loss < 2
