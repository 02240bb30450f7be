"""`chat.py batch` with a server in place of a model; real servers are asked in tests/stages/test_export.py."""

import contextlib
import io
import json
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from question_files import QUESTIONS, answered, write_questions

import chat
from civilqa.chat.batch import NO_ANSWER, answer_file
from civilqa.chat.served import ServedEngine
from civilqa.program.errors import EngineError, ParameterError, RecordError
from conftest import ROOT

OF_TRANSFORMERS = {"model", "prompt", "max_tokens", "temperature"}


class FakeServer:
    """Completes a prompt with its number of tokens and its question, as a model of this tokenizer would be served.

    takes_ids: False as `transformers serve`, which takes text and no field that OpenAI's interface lacks.
    adds_start: puts the start token before a text itself, as vLLM and llama.cpp do with Llama's tokenizer.
    change: of a reply, before it is sent. fail: called with the number of the request among those for whole answers;
    an integer that it returns is the status, True cuts the connection.
    """

    def __init__(self, tokenizer, *, takes_ids=True, adds_start=False, models=("tuned",), port=0):
        self.tokenizer, self.takes_ids, self.adds_start, self.models = tokenizer, takes_ids, adds_start, models
        self.change, self.fail, self.seconds = lambda reply: reply, lambda number: None, 0.0
        self.prompts, self.bodies, self.keys = [], [], []
        self.running = self.most = 0
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                data = [{"id": name} for name in outer.models]
                self.reply(*((200, {"data": data}) if self.path == "/v1/models" else (404, {"detail": "Not Found"})))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.keys.append(self.headers.get("Authorization"))
                if self.path != "/v1/completions":
                    return self.reply(404, {"detail": "Not Found"})
                with outer.lock:
                    outer.running += 1
                    outer.most = max(outer.most, outer.running)
                status, reply = outer.complete(body)
                with outer.lock:
                    outer.running -= 1
                if status is True:
                    self.close_connection = True
                    return None
                return self.reply(status, reply)

            def reply(self, status, reply):
                content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status == 307:
                    self.send_header("Location", "http://elsewhere.example/v1/completions")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def complete(self, body):
        if body["model"] not in self.models:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        prompt = body["prompt"]
        if not self.takes_ids and (not isinstance(prompt, str) or set(body) - OF_TRANSFORMERS):
            return 422, {"detail": "Unexpected fields in the request"}
        if isinstance(prompt, str):
            start = [self.tokenizer.bos_token_id] if self.adds_start else []
            prompt = start + self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if body["max_tokens"] > 1:
            with self.lock:
                self.prompts.append(prompt)
                self.bodies.append(body)
                failure = self.fail(len(self.prompts))
            if failure is not None:
                return failure, {"error": {"message": "no more"}}
            time.sleep(random.uniform(0, self.seconds))
        question = self.tokenizer.decode(prompt).partition("### 질문\n")[2].partition("\n")[0]
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 5}
        choice = {"text": f" {len(prompt)}토큰: {question}\n", "finish_reason": "stop"}
        return 200, self.change({"choices": [choice], "usage": usage})

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def serve(tokenizer):
    with contextlib.ExitStack() as stack:

        def start(**options):
            server = FakeServer(tokenizer, **options)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def engine_at(adapter_folder, monkeypatch):
    monkeypatch.chdir(ROOT)

    def load(url, **settings):
        chosen = {"max_new_tokens": 24, "batch_size": 2, **settings}
        return ServedEngine().configure(engine_url=url, **chosen).load_finetuned_model(adapter_folder)

    return load


@pytest.fixture
def source(tmp_path):
    return write_questions(tmp_path / "in.csv")


@pytest.mark.parametrize(
    "server", [{}, {"adds_start": True}, {"takes_ids": False}, {"takes_ids": False, "adds_start": True}]
)
def test_every_server_reads_the_prompt_of_training_to_the_token(serve, engine_at, engine, source, tmp_path, server):
    server = serve(**server)
    asked = engine_at(server.url)
    assert answer_file(asked, source, tmp_path / "out.jsonl") == 0
    expected = [engine._prompt(question, "전세사기", (), engine.params)[0] for question in QUESTIONS]
    assert sorted(server.prompts) == sorted(expected)
    assert {(body["max_tokens"], body["temperature"], body["model"]) for body in server.bodies} == {(24, 0, "tuned")}
    if server.takes_ids:
        assert server.bodies[0]["stop_token_ids"] == [asked._prompter.end_token_id]
        assert {body.get("repetition_penalty") for body in server.bodies if "stop_token_ids" in body} == {1}


def test_answers_stand_in_the_order_of_the_file_with_what_this_process_adds(serve, engine_at, source, tmp_path):
    server = serve()
    server.seconds = 0.05
    source.write_text(source.read_text(encoding="utf-8") + " ,전세사기\n민법 제9999조에 따릅니까?,\n", encoding="utf-8")
    assert answer_file(engine_at(server.url, batch_size=4), source, tmp_path / "out.jsonl") == 1
    lines = answered(tmp_path / "out.jsonl")
    assert [line["line"] for line in lines] == list(range(2, 15))
    assert [line["answer"].partition(": ")[2] for line in lines[:11]] == QUESTIONS
    assert (lines[0]["tokens"], lines[0]["stopped"], lines[0]["model"]) == (5, True, "미세조정 모델(tuned)")
    assert "법률 지식은 없습니다" in lines[0]["notice"]
    assert (lines[11]["answer"], lines[11]["error"][:7]) == (None, "질문이 비어 ")
    assert lines[12]["citations"][0]["status"] == "no_such_article"
    assert 1 < server.most <= 4


@pytest.mark.parametrize("failure", [True, 500])
def test_a_server_that_dies_in_the_middle_loses_nothing_that_was_written(
    serve, engine_at, source, tmp_path, monkeypatch, failure
):
    monkeypatch.setattr("civilqa.chat.served.GROUPS", 1)
    monkeypatch.setattr("civilqa.chat.served.RETRIES", 0)
    server = serve()
    answer_file(engine_at(server.url), source, tmp_path / "calm.jsonl")
    server.prompts.clear()
    server.fail = lambda number: failure if number > 7 else None
    target = tmp_path / "out.jsonl"
    with pytest.raises(EngineError, match="이어서 합니다"):
        answer_file(engine_at(server.url), source, target)
    assert not target.exists()
    assert len(answered(tmp_path / "out.jsonl.part")) == 1 + 6
    server.fail = lambda number: None
    server.prompts.clear()
    # Neither how many are asked at a time nor for how long one waits decides an answer.
    answer_file(engine_at(server.url, batch_size=3, engine_timeout_seconds=9.0), source, target)
    assert len(server.prompts) == 5
    assert target.read_bytes() == (tmp_path / "calm.jsonl").read_bytes()


@pytest.mark.parametrize("change", ["address", "model", "settings"])
def test_answers_of_another_server_or_model_are_not_continued(serve, engine_at, source, tmp_path, monkeypatch, change):
    monkeypatch.setattr("civilqa.chat.served.RETRIES", 0)
    server, other = serve(models=("one", "two")), serve(models=("one", "two"))
    server.fail = lambda number: True
    with pytest.raises(EngineError):
        answer_file(engine_at(server.url, engine_model="one"), source, tmp_path / "out.jsonl")
    changed = {"engine_model": "two" if change == "model" else "one", "max_new_tokens": 24 + (change == "settings")}
    engine = engine_at(other.url if change == "address" else server.url, **changed)
    with pytest.raises(RecordError, match="다른 실행에서 쓰다 만 파일"):
        answer_file(engine, source, tmp_path / "out.jsonl")


def test_a_busy_server_is_asked_again(serve, engine_at, source, tmp_path):
    server = serve()
    server.fail = lambda number: 503 if number == 2 else None
    assert answer_file(engine_at(server.url), source, tmp_path / "out.jsonl") == 0
    assert len(server.prompts) == 12


def test_an_empty_answer_has_its_line_with_the_reason(serve, engine_at, source, tmp_path):
    server = serve()
    server.change = lambda reply: {**reply, "choices": [{"text": " \n", "finish_reason": "stop"}]}
    assert answer_file(engine_at(server.url), source, tmp_path / "out.jsonl") == 11
    assert {(line["answer"], line["error"]) for line in answered(tmp_path / "out.jsonl")} == {("", NO_ANSWER)}


def shape(**changes):
    return lambda reply: {**reply, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shape(choices=[]), "OpenAI 방식의 답이 아닙니다"),
        (shape(usage=None), "OpenAI 방식의 답이 아닙니다"),
        (lambda reply: [reply], "OpenAI 방식의 답이 아닙니다"),
        (lambda reply: b"<html>", "OpenAI 방식의 답이 아닙니다.*<html>"),
        (shape(choices=[{"text": None, "finish_reason": "stop"}]), "OpenAI 방식의 답이 아닙니다"),
        (
            shape(usage={"prompt_tokens": 9, "completion_tokens": 1}),
            "서버의 토크나이저가 이 모델의 것이 아닙니다.*서버에서는 9토큰",
        ),
    ],
)
def test_a_server_of_another_kind_is_said_before_anything_is_asked(serve, engine_at, change, message):
    server = serve()
    server.change = change
    with pytest.raises(EngineError, match=message):
        engine_at(server.url)
    assert server.prompts == []


def test_an_answer_that_the_server_cuts_short_or_to_another_prompt_is_an_error(serve, engine_at):
    server = serve()
    engine = engine_at(server.url)
    server.change = shape(choices=[{"text": "가", "finish_reason": "length"}])
    with pytest.raises(EngineError, match=r"5토큰에서 끊었습니다. 서버의 문맥 길이를 늘리거나"):
        engine.generate_answers(QUESTIONS[:1])
    server.change = shape(usage={"prompt_tokens": 3, "completion_tokens": 5})
    with pytest.raises(EngineError, match=r"학습 때와 다른 질문을 읽었습니다.*읽은 것은 3토큰"):
        engine.generate_answers(QUESTIONS[:1])


@pytest.mark.parametrize(
    ("models", "settings", "message"),
    [
        (("one", "two"), {}, r"chat.engine_model\(--engine-model\)에 적으십시오. 서버가 알려 준 모델: one, two"),
        ((), {}, "서버가 알려 준 모델: 없음"),
        (("one",), {"engine_model": "two"}, "서버에 'two' 모델이 없습니다.*서버가 알려 준 모델: one"),
    ],
)
def test_a_model_that_the_server_has_not_is_said(serve, engine_at, models, settings, message):
    with pytest.raises(EngineError, match=message):
        engine_at(serve(models=models).url, **settings)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:9/v1", "서버에 연결할 수 없습니다"),
        ("127.0.0.1/v1", "http://나 https://로 시작하는 주소가 아닙니다"),
        ("http://user:secret@127.0.0.1/v1", "사용자나 비밀번호가 있습니다"),
        ("{root}", r"/models: 서버에 이 주소가 없습니다\(404\).*/v1까지 적습니다"),
    ],
)
def test_an_address_that_cannot_be_asked_is_said(serve, engine_at, monkeypatch, url, message):
    monkeypatch.setattr("civilqa.chat.served.RETRIES", 0)
    with pytest.raises(EngineError, match=message) as error:
        engine_at(url.format(root=serve().url.removesuffix("/v1")))
    assert "secret" not in str(error.value)


def test_a_server_without_completions_is_said(serve, engine_at, monkeypatch):
    server = serve()
    monkeypatch.setattr(server, "complete", lambda body: (404, {"detail": "Not Found"}))
    with pytest.raises(
        EngineError, match=r"/completions: 서버에 이 주소가 없습니다\(404\).*/completions가 없는 서버에는"
    ):
        engine_at(server.url)


def test_a_server_that_takes_too_long_is_said(serve, engine_at, monkeypatch):
    monkeypatch.setattr("civilqa.chat.served.RETRIES", 1)
    server = serve()
    engine = engine_at(server.url, engine_timeout_seconds=0.2)
    server.fail, before = lambda number: time.sleep(0.5), len(server.keys)
    with pytest.raises(EngineError, match=r"서버가 0\.2초 안에 답하지 않았습니다.*engine_timeout_seconds를 늘리십시오"):
        engine.generate_answers(QUESTIONS[:1])
    assert len(server.keys) == before + 1, "asked once: the server would work at each question in vain"


def test_a_server_that_sends_elsewhere_is_not_followed(serve, engine_at):
    server = serve()
    engine = engine_at(server.url)
    server.fail = lambda number: 307
    with pytest.raises(EngineError, match=r"서버가 http://elsewhere.example/v1/completions\(으\)로 보냅니다"):
        engine.generate_answers(QUESTIONS[:1])


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    serve, engine_at, source, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ENGINE_API_KEY", "key-for-tests")
    server = serve()
    engine = engine_at(server.url)
    answer_file(engine, source, tmp_path / "out.jsonl")
    assert set(server.keys) == {"Bearer key-for-tests"}
    server.fail = lambda number: 401
    with pytest.raises(EngineError, match=r"접근을 허락하지 않습니다\(401\).*export ENGINE_API_KEY") as error:
        engine.generate_answers(QUESTIONS[:1])
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())
    assert "key-for-tests" not in f"{written}{capsys.readouterr()}{error.value}"


@pytest.mark.parametrize("settings", [{"temperature": 0.5}, {"repetition_penalty": 1.1}])
def test_a_server_is_asked_for_the_likeliest_answer_alone(serve, engine_at, settings):
    with pytest.raises(ParameterError, match="temperature 0, repetition_penalty 1로만"):
        engine_at(serve().url, **settings)


def test_chat_batch_asks_the_server_and_loads_no_weights(serve, chat_project, source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(chat_project)
    monkeypatch.setattr("civilqa.model.loading.load_base", None)
    server, target = serve(), tmp_path / "out.csv"
    arguments = ["batch", str(source), str(target), "--engine-url", server.url, "--engine-model", "tuned"]
    monkeypatch.setattr(sys, "argv", ["chat.py", *arguments])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    chat.main()
    captured = capsys.readouterr()
    assert captured.out == f"{target}에 답변을 모두 썼습니다.\n"
    assert f"{server.url}의 tuned에게 묻습니다. 질문은 토큰으로 보냅니다." in captured.err
    assert len(target.read_text(encoding="utf-8-sig").splitlines()) == 12
