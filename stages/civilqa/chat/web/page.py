"""How the page is laid out and what its buttons do, in gradio, in Korean. It asks no other machine for anything.

Neither a share link nor analytics nor gradio's own run history; conversations are in memory until the page is closed,
and on disk only when asked for.
"""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported, which reads it once

import gradio as gr
from fastapi import FastAPI

from civilqa.chat.conversations import save_conversation
from civilqa.chat.engine import BASE, Engine, Turn
from civilqa.chat.stream import AnswerStream
from civilqa.chat.web.content import DISCLAIMER, EVERYONE, MISSING, TITLE, asking, example_questions, messages
from civilqa.chat.web.guard import MAX_OPEN, WaitingRoom
from civilqa.program.errors import ModelError, QuestionError
from civilqa.program.lifecycle.machine_errors import KOREAN, explain

MAX_EXCHANGES = 50  # of one conversation: it is sent to the page with every piece of an answer
SECONDS_BETWEEN_UPDATES = 0.1

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
"""


class Page:
    """The events of the page. One object serves all browsers; what belongs to one is in `exchanges`, which gradio keeps
    for each open page."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.room = engine, WaitingRoom()
        self.base: Engine | None = None  # loaded when a comparison is first asked for
        self.loading = threading.Lock()

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
        windows = before = [messages(exchanges, 0), messages(exchanges, 1)]
        if len(exchanges) >= MAX_EXCHANGES:
            yield *before, exchanges, question, "대화가 길어졌습니다. '새 대화'를 눌러 주십시오."
            return
        results: list[dict[str, Any]] = []
        try:
            for index in range(2 if compare else 1):
                if index:
                    yield *with_last(windows, index, question, "기반 모델을 불러옵니다…"), exchanges, question, ""
                engine = self.load_base() if index else self.engine
                asked = [turn[index] for turn in exchanges if len(turn) > index] if passes_turns_on else []
                stream = self.answer(engine, question, category, asked, request)
                try:
                    yield *with_last(windows, index, question, ""), exchanges, question, ""
                    for text in grown(stream):
                        yield *with_last(windows, index, question, text), exchanges, question, ""
                finally:
                    stream.stop()  # where the browser is gone, gradio drops this generator, and must not wait for it
                results.append(stream.result)
                windows = [messages([*exchanges, results], at) for at in range(2)]
        except Exception as error:
            message = str(error) if isinstance(error, QuestionError | ModelError) else explain(error, KOREAN)
            if message is None:
                raise
            yield *before, exchanges, question, f"⚠️ {message}"
            return
        yield *windows, [*exchanges, results], "", ""

    def load_base(self) -> Engine:
        with self.loading:
            self.base = self.base or self.engine.load_base_beside()
        return self.base

    def answer(
        self, engine: Engine, question: str, category: str, asked: list[dict[str, Any]], request: gr.Request
    ) -> AnswerStream:
        """Begin an answer, if there is room for it; `asked` are the earlier results to pass on."""
        history = [Turn(result["question"], result["answer"]) for result in asked if result["stopped"]]
        category = "" if category in (None, EVERYONE) else category
        return self.room.start(
            request.session_hash,
            request.client.host if request.client else "",
            lambda: engine.stream_answer(question or "", category, history=history),
        )

    def stop(self, request: gr.Request) -> None:
        """End the answer of this browser; what there is of it stays."""
        self.room.stop(request.session_hash)

    def save(self, exchanges: list[list[dict[str, Any]]]) -> str:
        """Write the conversation, and return what to tell."""
        if not exchanges:
            return "저장할 대화가 없습니다."
        try:
            path = save_conversation(exchanges)
        except OSError as error:
            return f"⚠️ 저장하지 못했습니다: {explain(error, KOREAN) or error}"
        return f"이 페이지를 연 컴퓨터의 `{path}`에 저장했습니다."


def with_last(windows: list[Any], index: int, question: str, text: str) -> list[Any]:
    """Return both windows, one of them with an exchange that is going on."""
    return [window + asking(question, text) if at == index else window for at, window in enumerate(windows)]


def grown(stream: AnswerStream) -> Iterator[str]:
    """Yield the text so far, a few times a second."""
    text, shown = "", 0.0
    for piece in stream:
        text += piece
        if time.monotonic() - shown >= SECONDS_BETWEEN_UPDATES:
            yield text
            shown = time.monotonic()


def make_page(engine: Engine, saves: bool = True) -> gr.Blocks:
    """Return the page of a loaded engine.

    Args:
        saves: whether conversations may be written to this machine: not by whoever else can open the page.
    """
    page = Page(engine)
    with gr.Blocks(title=TITLE) as blocks:
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
            concurrency_limit=None,  # the waiting room decides, and says why; gradio's queue would in English
            show_progress="hidden",
            api_name="ask",
        )
        stop.click(page.stop, queue=False)
        clear.click(lambda: ([], [], [], ""), None, [tuned_window, base_window, exchanges, status])
        if saves:
            save.click(page.save, exchanges, status)
        compare.change(lambda on: gr.update(visible=on), compare, base_window)
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
    with gr.Blocks(title=TITLE) as blocks:
        gr.Markdown(f"# {TITLE}")
        gr.Markdown(MISSING, elem_id="missing")
        gr.Textbox(str(error), label="자세한 내용", interactive=False)
    return blocks


def mount(blocks: gr.Blocks, show_error: bool) -> FastAPI:
    """Return the web application of a page, with nothing around it; `show_error`: a defect is told in the browser."""
    blocks.queue(max_size=MAX_OPEN, api_open=False)
    app = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=show_error,
        ssr_mode=False,  # whatever the environment says: it would open a port of its own
        mcp_server=False,
        theme=gr.themes.Default(font=[*FONTS, "system-ui", "sans-serif"], font_mono=["D2Coding", "monospace"]),
        css=CSS,
        head=HEAD,
    )
    return app
