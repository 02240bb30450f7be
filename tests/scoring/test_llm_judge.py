import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from civilqa.program.errors import PipelineError
from civilqa.scoring.optional_scores import Judge, JudgeParams, read_verdict

POINTS = [["다음 날부터"], ["전입신고"]]


class FakeServer:
    """Answers /chat/completions with the given replies in turn, the last one again and again."""

    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.path, self.headers.get("Authorization"), body))
                status, text = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@pytest.fixture
def serve():
    servers = []

    def start(*replies):
        servers.append(FakeServer(*replies))
        return servers[-1]

    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


def judge_at(url, store, retries=2):
    return Judge(JudgeParams(url=url, model="judge-1", max_retries=retries, timeout_seconds=5.0), store)


def test_each_key_point_gets_a_verdict(serve, tmp_path):
    server = serve((200, "1"), (200, "0"))
    scores = judge_at(server.url, tmp_path).score("질문", "답변", POINTS)
    assert scores == {"judged_key_point_recall": 1 / 2, "judge_failures": 0}
    path, _, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "judge-1"
    assert body["temperature"] == 0
    assert "<핵심>다음 날부터</핵심>" in body["messages"][1]["content"]


def test_a_busy_server_is_asked_again(serve, tmp_path):
    server = serve((429, ""), (503, ""), (200, "1"))
    assert judge_at(server.url, tmp_path).verdict("질문", "답변", POINTS[0]) == 1
    assert len(server.requests) == 3


def test_failures_are_counted_apart_and_not_kept(serve, tmp_path, capsys):
    server = serve((200, "아마도 1"), (200, "1"))
    assert judge_at(server.url, tmp_path).score("질문", "답변", POINTS) == {
        "judged_key_point_recall": 1,
        "judge_failures": 1,
    }
    # The verdict that was given is kept; the other is asked for again.
    assert judge_at(server.url, tmp_path).score("질문", "답변", POINTS)["judge_failures"] == 0
    assert len(server.requests) == 3

    broken = serve((500, ""))
    assert judge_at(broken.url, tmp_path, retries=1).score("질문", "답변", POINTS) == {
        "judged_key_point_recall": None,
        "judge_failures": 2,
    }
    assert "no verdict" in capsys.readouterr().out


def test_an_address_without_a_server_is_a_failure_and_no_crash(tmp_path):
    assert judge_at("http://127.0.0.1:9/v1", tmp_path, retries=0).score("질문", "답변", POINTS)["judge_failures"] == 2


def test_verdicts_are_kept(serve, tmp_path):
    server = serve((200, "1"))
    for _ in range(2):
        judge_at(server.url, tmp_path).score("질문", "답변", POINTS)
    assert len(server.requests) == len(POINTS)
    judge_at(server.url, tmp_path).score("질문", "다른 답변", POINTS)
    assert len(server.requests) == 2 * len(POINTS)


def test_the_key_comes_from_the_environment_and_is_written_nowhere(serve, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JUDGE_API_KEY", "key-for-tests")
    server = serve((200, "1"), (401, ""))
    judge_at(server.url, tmp_path, retries=0).score("질문", "답변", POINTS)
    assert server.requests[0][1] == "Bearer key-for-tests"
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir()) + capsys.readouterr().out
    assert "key-for-tests" not in written


def test_an_address_needs_a_model(tmp_path):
    with pytest.raises(PipelineError, match=r"judge\.model"):
        Judge(JudgeParams(url="http://x", model=None, max_retries=0, timeout_seconds=1.0), tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), (" 0\n", 0), ("1.", 1), ("10", None), ("예", None), ("", None), (None, None)]
)
def test_verdicts_are_0_or_1_and_nothing_else(text, expected):
    assert read_verdict({"choices": [{"message": {"content": text}}]}) == expected


@pytest.mark.parametrize("reply", [None, {}, {"choices": []}, [], {"choices": [{"text": "1"}]}])
def test_a_reply_of_another_shape_is_no_verdict(reply):
    assert read_verdict(reply) is None
