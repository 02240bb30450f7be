"""The real client library against a small hub on the loopback."""

import http.server
import json
import os
import subprocess
import sys
import threading

import pytest

from civilqa.errors import ModelError
from civilqa.hub import TOKENIZER_FILES, locate
from conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_folder_is_taken_as_it_is():
    assert locate(str(ROOT / "models/tiny"), None, TOKENIZER_FILES) == ROOT / "models/tiny"


def test_a_folder_without_the_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"holds no tokenizer.json"):
        locate(str(tmp_path), None, TOKENIZER_FILES)


def test_a_name_that_is_neither_folder_nor_hub_id_is_refused():
    with pytest.raises(ModelError, match="is neither a folder here nor a hub id"):
        locate("models/there/is no such", None, TOKENIZER_FILES)


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers every request with the status and error code of its server; notes what it was asked."""

    def do_GET(self):
        self.server.seen.append(self.path)
        body = json.dumps({"error": "no"}).encode()
        self.send_response(self.server.status)
        if self.server.error_code:
            self.send_header("X-Error-Code", self.server.error_code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.seen, server.status, server.error_code = [], 200, None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "error_code", "message"),
    [
        (401, "GatedRepo", "is gated: accept its licence on https://huggingface.co/meta-llama/Llama-3.2-1B"),
        (403, "GatedRepo", "export HF_TOKEN"),
        (404, "RepoNotFound", "no such model on the hub, or one that your token may not see"),
        (404, "RevisionNotFound", "the model is there, the revision is not"),
        (400, None, "is not in the local cache and the hub gave no answer"),
    ],
)
def test_what_the_hub_refuses_is_told_in_the_users_terms(project, tmp_path, hub, status, error_code, message):
    hub.status, hub.error_code = status, error_code
    params = project / "params.yaml"
    text = params.read_text(encoding="utf-8").replace("  profile: tiny", "  profile: llama-1b")
    params.write_text(text, encoding="utf-8")
    for split in ("train", "validation", "test"):
        (project / "data/splits").mkdir(parents=True, exist_ok=True)
        (project / f"data/splits/{split}.jsonl").write_text("", encoding="utf-8")
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_secretsecretsecret",
    }
    finished = subprocess.run(
        [sys.executable, "stages/format.py"],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert hub.seen, "the client must have asked the hub of the test"
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "secretsecret" not in finished.stdout + finished.stderr


def test_a_pinned_commit_in_the_cache_is_used_without_the_hub(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--someone--model" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert locate("someone/model", COMMIT, TOKENIZER_FILES) == snapshot
