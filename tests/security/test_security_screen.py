"""Secrets and control characters: what is shown and written, also when something fails."""

import http.server
import json
import shutil
import subprocess
import sys
import threading

import pytest

from accidents import run
from civilqa.program.errors import PipelineError
from civilqa.program.lifecycle.stage import run as run_main
from conftest import HEADER, edit_params
from loopback_hub import COMMIT, LoopbackHub

# As long as real ones, and put together here so that no scanner takes this file for the leak that it looks for.
HUB_TOKEN = "hf_" + "Sentinel0" * 4
JUDGE_KEY = "judge-" + "sentinel-" * 3
PASSWORD = "pass" + "wordsentinel"
SECRETS = (HUB_TOKEN, JUDGE_KEY, PASSWORD)
ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b1mC1\u202e\u2066"


@pytest.fixture(autouse=True)
def _secrets(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    monkeypatch.setenv("JUDGE_API_KEY", JUDGE_KEY)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home/hf"))


def leaks(text):
    return [secret for secret in SECRETS if secret in text]


def leaking_files(*folders):
    """Return the files that hold one of the secrets, whatever they are."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and any(secret.encode() in path.read_bytes() for secret in SECRETS):
                found.append(path)
    return found


# --- what is shown ---------------------------------------------------------------------------------------------------


def ended(main, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_main(main)
    assert exit_.value.code == 1
    return "".join(capsys.readouterr())


@pytest.mark.parametrize("kind", [PipelineError, ValueError])
def test_neither_an_error_nor_a_traceback_shows_a_secret_or_is_obeyed(capsys, kind):
    said = f"{HUB_TOKEN} {JUDGE_KEY} https://user:{PASSWORD}@host/v1 {ESCAPES} d.csv:3: 보증금"

    def main():
        secret = HUB_TOKEN  # noqa: F841 - a traceback with locals would show it
        raise kind(said)

    shown = ended(main, capsys)
    assert leaks(shown) == []
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "d.csv:3: 보증금" in shown
    assert "https://<hidden>@host/v1" in shown
    assert ("Traceback" in shown) is (kind is ValueError)


def test_a_table_s_names_and_cells_reach_the_terminal_as_text(project, run_stage):
    # In JSON they are written as \u001b, which no look at the file's bytes finds.
    (project / "mine.jsonl").write_text(json.dumps({f"question{ESCAPES}": "1"}) + "\n", encoding="utf-8")
    edit_params(project / "params.yaml", **{"prepare.source": "mine.jsonl"})
    shown = run_stage("prepare").stderr
    assert "mine.jsonl:1: no column" in shown
    assert "\x1b" not in shown

    row = dict.fromkeys(HEADER.split(","), f"{ESCAPES} 질문")
    (project / "mine.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    for on_invalid in ("fail", "drop"):
        edit_params(
            project / "params.yaml", **{"prepare.on_invalid": on_invalid, "prepare.allowed_categories": ["전세사기"]}
        )
        finished = run_stage("prepare")
        assert "mine.jsonl:1: " in finished.stdout + finished.stderr
        assert "\x1b" not in finished.stdout + finished.stderr


def test_questions_and_answers_of_the_terminal_are_text(chat_project, monkeypatch):
    finished = subprocess.run(
        [sys.executable, "stages/chat.py"],
        cwd=chat_project,
        input=f"{ESCAPES} [red]전세금[/red]은 어떻게 하나요?\n/분야 {ESCAPES}\n/{ESCAPES}\n",
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert "[red]전세금[/red]" in finished.stdout
    assert not set("\x1b\x07\x9b\u202e\u2066") & set(finished.stdout + finished.stderr)
    assert leaks(finished.stdout + finished.stderr) == []


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.fixture
def hub():
    served = LoopbackHub({"config.json": b"{}", "tokenizer.json": b"{}"})
    yield served
    served.close()


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((403, "GatedRepo", f"token {HUB_TOKEN}"), "is gated"),
        ((401, None, "Invalid credentials in Authorization header"), "does not accept the token"),
        ((500, None, f"Bearer {HUB_TOKEN}"), "the hub answered"),
    ],
)
def test_a_refused_download_leaves_no_token(project, hub, tmp_path, refusal, said):
    hub.refuse = refusal
    edit_params(
        project / "params.yaml",
        **{"model.profile": "mine", "profiles.mine": {"name": "someone/model", "revision": COMMIT}},
    )
    endpoint = hub.endpoint.replace("http://", f"http://user:{PASSWORD}@")
    for stage in ("prepare", "split", "format"):
        finished = run(project, "python", f"stages/{stage}.py", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")
        assert leaks(finished.stdout + finished.stderr) == []
    assert finished.returncode == 1
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr
    assert leaking_files(project, tmp_path / "home") == []


class Refusing(http.server.BaseHTTPRequestHandler):
    """A judge that refuses the key, and says which it was."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(401, self.headers["Authorization"])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_a_judge_that_refuses_leaves_no_key_anywhere(run_copy, tmp_path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    judge = {"url": url, "model": "m", "max_retries": 0, "timeout_seconds": 5.0}
    edit_params(run_copy / "params.yaml", **{f"evaluate.judge.{key}": value for key, value in judge.items()})
    try:
        finished = run(run_copy, "dvc", "repro", "evaluate", HF_HUB_OFFLINE="1")
    finally:
        server.shutdown()
        server.server_close()
    assert finished.returncode == 0, finished.stderr
    assert "judge: no vote" in finished.stdout
    assert leaks(finished.stdout + finished.stderr) == []
    assert leaking_files(run_copy, tmp_path / "home") == []
    metrics = json.loads((run_copy / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert metrics["test"]["adapter"]["judge_failures"] > 0

    with_password = url.replace("http://", f"http://user:{PASSWORD}@")
    edit_params(run_copy / "params.yaml", **{"evaluate.judge.url": with_password})
    finished = run(run_copy, "python", "stages/evaluate.py", HF_HUB_OFFLINE="1")
    assert finished.returncode == 1
    assert "evaluate.judge.url: holds a user or password" in finished.stderr
    assert leaks(finished.stdout + finished.stderr) == []


@pytest.mark.slow
def test_what_a_whole_run_wrote_holds_no_secret(run_copy, tmp_path):
    shutil.rmtree(run_copy / "models/adapter")
    finished = run(run_copy, "python", "stages/finetune.py", HF_HUB_OFFLINE="1")
    assert finished.returncode == 0, finished.stderr
    assert (run_copy / "models/adapter/README.md").exists()
    assert leaks(finished.stdout + finished.stderr) == []
    assert leaking_files(run_copy, tmp_path / "home") == []
