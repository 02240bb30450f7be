"""The page of a chat within this process, whose engine answers at once what it is told to."""

import contextlib
import socket
import threading
import time
from types import SimpleNamespace

import uvicorn

from civilqa.chat.web.guard import MAX_CONNECTIONS
from civilqa.chat.web.page import make_app
from civilqa.law.verdicts import look_up_citations


class Stream:
    """An answer that is there at once, or that does not end before it is told to."""

    def __init__(self, question, category, answer, endless=False):
        self.text, self.finished = answer, not endless
        self.result = {"question": question, "category": category, "answer": answer, "stopped": True, "tokens": 1}
        self.result |= {"citations": look_up_citations(answer), "model": "모델", "notice": "알림"}
        self.result |= {"category_chosen": False}

    def stop(self):
        self.finished = True

    close = stop


class Engine:
    """Answers with what it was made with, in the place of a model."""

    def __init__(self, answer="답변입니다.", categories=("전세사기",)):
        self.answer, self.categories = answer, list(categories)
        self.name, self.notice, self.adapter_sha256 = "모델", "알림", "a" * 64
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
    with running(make_app(engine, host)) as address:
        yield address
        for stream in engine.streams:
            stream.stop()


@contextlib.contextmanager
def running(app):
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()
