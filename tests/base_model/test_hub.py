"""The real client library against a small hub on the loopback."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from civilqa.base_model import hub as hub_module
from civilqa.base_model.hub import TOKENIZER, TOKENIZER_EXTRAS, check_weights, locate, locate_weights, weight_files
from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.program.errors import ModelError
from conftest import ROOT, edit_params
from loopback_hub import COMMIT, LoopbackHub

NAME = "someone/model"
TOKEN = "hf_secretsecretsecret"  # noqa: S105
FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"], "vocab_size": 3072}',
    "generation_config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 1000,
    "tokenizer.json": (ROOT / "models/tiny/tokenizer.json").read_bytes(),
    "tokenizer_config.json": (ROOT / "models/tiny/tokenizer_config.json").read_bytes(),
    "consolidated.safetensors": b"the same weights in another library's layout",
    "pytorch_model.bin": b"and as a pickle",
}


@pytest.fixture
def server():
    server = LoopbackHub(dict(FILES))
    yield server
    server.close()


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The hub as this process's client sees it, with an empty cache and no token."""
    point_client_at(monkeypatch, server.endpoint, tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return server


def point_client_at(monkeypatch, endpoint, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache/hub"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache/assets"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "cache/token"))
    forget_listing()


def forget_listing():
    """What a new process does not know."""
    hub_module._list_files.cache_clear()


def unplug(monkeypatch, tmp_path):
    """A network on which nothing answers: a port that nobody listens on."""
    gone = LoopbackHub()
    gone.close()
    point_client_at(monkeypatch, gone.endpoint, tmp_path)


def blob(folder, name="model.safetensors"):
    return (folder / name).resolve()


def turn_a_bit(path):
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_taken_as_it_is():
    assert locate(str(ROOT / "models/tiny"), None, [TOKENIZER], TOKENIZER_EXTRAS) == ROOT / "models/tiny"


def test_a_folder_without_the_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"holds no tokenizer.json"):
        locate(str(tmp_path), None, [TOKENIZER])


def test_a_folder_with_pickled_weights_alone_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds its weights as pytorch_model.bin alone.*only safetensors are read"):
        weight_files(str(tmp_path), None)


def test_a_folder_that_lacks_a_shard_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (tmp_path / "model-1.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds no model-2.safetensors"):
        locate_weights(str(tmp_path), None)


# --- names and revisions ---------------------------------------------------------------------------------------------


def test_a_name_that_is_neither_folder_nor_hub_id_is_refused():
    with pytest.raises(ModelError, match="is neither a folder here nor a hub id"):
        locate("models/there/is no such", None, [TOKENIZER])


@pytest.mark.parametrize(("revision", "found"), [(None, "found none"), ("main", "found 'main', which can move")])
def test_a_revision_that_can_move_is_refused_with_the_commit_that_it_is_now(hub, revision, found):
    with pytest.raises(ModelError, match=f"needs a pinned revision: {found}.*is now revision: {COMMIT}"):
        locate(NAME, revision, [TOKENIZER])
    assert hub.downloads() == []


def test_a_revision_that_can_move_is_refused_offline_too(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"set the profile's revision to a commit of 40 hex digits"):
        locate(NAME, "main", [TOKENIZER])


def test_a_tokenizer_from_another_repository_is_refused():
    with pytest.raises(ModelError, match=r"'someone/else' is no folder: .* would not be pinned"):
        load_tokenizer(Profile(name=NAME, revision=COMMIT, tokenizer="someone/else"))


# --- what is downloaded ----------------------------------------------------------------------------------------------


def test_format_downloads_configuration_and_tokenizer_and_asks_whether_the_weights_are_there(project, server, tmp_path):
    finished = run_format(project, tmp_path, server.endpoint)
    assert finished.returncode == 0, finished.stderr
    assert "base someone/model, 0.00 GB to download before training" in finished.stdout
    assert set(server.downloads()) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
        "generation_config.json",
    }
    assert f"HEAD /{NAME}/resolve/{COMMIT}/model.safetensors" in server.seen

    # A second run asks for the weights alone again; nothing else is fetched twice.
    server.seen.clear()
    assert run_format(project, tmp_path, server.endpoint).returncode == 0
    assert server.downloads() == []


def test_the_weights_are_one_file_though_the_repository_holds_them_three_times(hub):
    folder = locate_weights(NAME, COMMIT)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_the_weights_are_the_files_of_the_index(hub):
    del hub.files["model.safetensors"]
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    hub.files["model.safetensors.index.json"] = json.dumps(index).encode()
    for shard in index["weight_map"].values():
        hub.files[shard] = shard.encode()
    folder = locate_weights(NAME, COMMIT)
    assert {path.name for path in folder.iterdir()} >= {"model.safetensors.index.json", *index["weight_map"].values()}
    assert "consolidated.safetensors" not in hub.downloads()


@pytest.mark.parametrize("shard", ["../../elsewhere.safetensors", "weights.bin", "/etc/x.safetensors"])
def test_an_index_that_points_elsewhere_is_refused(hub, shard):
    del hub.files["model.safetensors"]
    hub.files["model.safetensors.index.json"] = json.dumps({"weight_map": {"a": shard}}).encode()
    with pytest.raises(ModelError, match="which is no file of safetensors beside it"):
        locate_weights(NAME, COMMIT)


def test_a_repository_with_pickled_weights_alone_is_refused_before_any_is_downloaded(hub):
    del hub.files["model.safetensors"], hub.files["consolidated.safetensors"]
    with pytest.raises(ModelError, match=r"holds its weights as pytorch_model.bin alone"):
        check_weights(NAME, COMMIT)
    assert hub.downloads() == []


def test_a_repository_without_weights_is_refused(hub):
    hub.files = {"config.json": b"{}"}
    with pytest.raises(ModelError, match=r"holds neither model.safetensors nor model.safetensors.index.json"):
        check_weights(NAME, COMMIT)


def test_a_repository_that_is_no_model_is_refused(hub):
    hub.files = {"data.csv": b""}
    with pytest.raises(ModelError, match=r"holds no config.json, so that it is no transformers model"):
        check_weights(NAME, COMMIT)


def test_files_in_folders_of_a_repository_are_not_its_weights(hub):
    hub.files = {"config.json": b"{}", "other/model.safetensors": b"x", "original/consolidated.00.pth": b"x"}
    with pytest.raises(ModelError, match=r"holds neither model.safetensors nor model.safetensors.index.json"):
        check_weights(NAME, COMMIT)


def test_a_repository_without_a_fast_tokenizer_says_how_to_get_one(hub):
    del hub.files["tokenizer.json"]
    with pytest.raises(ModelError, match=r"holds no tokenizer.json; save its tokenizer to a folder"):
        load_tokenizer(Profile(name=NAME, revision=COMMIT))


# --- who may read it -------------------------------------------------------------------------------------------------


def run_format(project, tmp_path, endpoint, **environment):
    """The format stage, as a user runs it on a profile that names the hub's model."""
    edit_params(
        project / "params.yaml",
        **{
            "model.profile": "mine",
            "profiles.mine": {"name": NAME, "revision": COMMIT, "template": "models/templates/korean_plain.jinja"},
        },
    )
    for split in ("train", "validation", "test"):
        (project / "data/splits").mkdir(parents=True, exist_ok=True)
        (project / f"data/splits/{split}.jsonl").write_text(
            json.dumps(dict.fromkeys(("id", "question", "answer", "category", "difficulty"), split)) + "\n"
        )
    return subprocess.run(
        [sys.executable, "stages/format.py"],
        cwd=project,
        env=os.environ
        | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        (
            (401, "GatedRepo", None),
            "is gated: accept its licence on https://huggingface.co/someone/model with the account",
        ),
        (
            (403, "GatedRepo", None),
            "a fine-grained token also needs 'Read access to contents of all public gated repos",
        ),
        ((401, None, "Invalid credentials in Authorization header"), "the hub does not accept the token in use"),
        ((401, "RepoNotFound", None), "no such model on the hub, or one that your token may not see"),
        ((404, "RepoNotFound", None), "no such model on the hub, or one that your token may not see"),
        ((404, "RevisionNotFound", None), "the model is there, the revision is not"),
        ((400, None, None), "the hub answered BadRequestError"),
        ((503, None, None), "the hub answered HfHubHTTPError: Server error '503 Service Unavailable'"),
    ],
)
def test_what_the_hub_refuses_is_told_in_the_users_terms(project, tmp_path, server, refuse, message):
    server.refuse = refuse
    finished = run_format(project, tmp_path, server.endpoint, HF_TOKEN=TOKEN)
    assert server.seen, "the client must have asked the hub of the test"
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "secretsecret" not in finished.stdout + finished.stderr


@pytest.mark.parametrize("token", [f"{TOKEN}é한", f"{TOKEN}\x01", f"{TOKEN} {TOKEN}"])
def test_a_token_that_cannot_be_sent_is_not_printed(project, tmp_path, server, token):
    server.gated = TOKEN
    finished = run_format(project, tmp_path, server.endpoint, HF_TOKEN=token)
    assert finished.returncode == 1
    assert "token" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "secretsecret" not in finished.stdout + finished.stderr


def test_a_gated_model_without_a_token_says_how_to_give_one(hub):
    hub.gated = TOKEN
    with pytest.raises(
        ModelError, match=r"accept its licence on https://huggingface.co/someone/model, make a token.*export"
    ):
        check_weights(NAME, COMMIT)


def test_a_gated_model_is_read_with_the_right_token_which_storage_never_sees(hub, monkeypatch):
    hub.gated = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    locate_weights(NAME, COMMIT)
    assert "GET /storage/model.safetensors" in hub.seen
    assert hub.tokens_at_storage == []


# --- bytes on the way and on the disk --------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_changed_bytes_of_the_same_size_are_noticed_and_downloaded_again(hub, file):
    hub.changed = {file}
    with pytest.raises(
        ModelError, match=f"{file} in the local cache is not the hub's.*It has been removed; run the stage"
    ):
        locate_weights(NAME, COMMIT)
    hub.changed = set()
    assert (locate_weights(NAME, COMMIT) / file).read_bytes() == FILES[file]


def test_bytes_that_change_in_the_cache_are_noticed_offline(hub, monkeypatch):
    folder = locate_weights(NAME, COMMIT)
    turn_a_bit(blob(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"model.safetensors in the local cache is not the hub's"):
        locate_weights(NAME, COMMIT)


def test_a_changed_file_that_may_not_be_removed_is_named(hub, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    folder = locate_weights(NAME, COMMIT)
    turn_a_bit(blob(folder))
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ModelError, match=f"It cannot be removed .*Permission denied.*: remove {blob(folder)}"):
        locate_weights(NAME, COMMIT)


def test_what_was_found_right_is_not_hashed_again(hub, monkeypatch):
    locate_weights(NAME, COMMIT)
    monkeypatch.setattr(hub_module, "sha256_file", lambda path: pytest.fail(f"{path} hashed again"))
    locate_weights(NAME, COMMIT)


def test_a_cache_that_another_program_filled_is_verified_by_the_names_of_its_blobs(hub, monkeypatch):
    folder = locate_weights(NAME, COMMIT)
    shutil.rmtree(constants.HF_ASSETS_CACHE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate_weights(NAME, COMMIT) == folder
    shutil.rmtree(constants.HF_ASSETS_CACHE)
    turn_a_bit(blob(folder))
    with pytest.raises(ModelError, match="is not the hub's"):
        locate_weights(NAME, COMMIT)


def test_a_cache_without_links_is_verified_by_the_hubs_listing(hub, monkeypatch, capsys):
    """As on Windows, where the client keeps plain files."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    folder = locate_weights(NAME, COMMIT)
    assert not (folder / "model.safetensors").is_symlink()
    turn_a_bit(folder / "model.safetensors")
    with pytest.raises(ModelError, match="is not the hub's"):
        locate_weights(NAME, COMMIT)
    locate_weights(NAME, COMMIT)

    # Filled by another program, and no hub to ask: it says so.
    shutil.rmtree(constants.HF_ASSETS_CACHE)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    locate_weights(NAME, COMMIT)
    assert "without the hub its bytes cannot be checked" in capsys.readouterr().out


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept of a broken download: whole chunks
    hub.broken = {"model.safetensors": 1}
    folder = locate_weights(NAME, COMMIT)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert hub.ranges == [f"bytes={len(FILES['model.safetensors']) // 2}-"]


def test_a_download_that_keeps_breaking_off_ends_in_an_error_and_the_next_run_completes_it(hub, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept of a broken download: whole chunks
    hub.broken = {"model.safetensors": 1000}
    with pytest.raises(ModelError, match=r"broke off: RemoteProtocolError.*run the stage again"):
        locate_weights(NAME, COMMIT)
    hub.broken = {}
    hub.seen.clear()
    folder = locate_weights(NAME, COMMIT)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert set(hub.downloads()) == {"model.safetensors"}


# --- no network ------------------------------------------------------------------------------------------------------


def test_without_a_network_the_error_comes_soon_and_names_what_runs(monkeypatch, tmp_path):
    unplug(monkeypatch, tmp_path)
    started = time.monotonic()
    with pytest.raises(
        ModelError, match=r"is not, or not whole, in the local cache .* cannot be reached.*tiny and llama-1b-random run"
    ):
        locate_weights(NAME, COMMIT)
    # The client's own way takes 24 s: waits of 1, 2, 4, 8 and 8 s. Here there is one, of 1 s.
    assert time.monotonic() - started < 10


def test_offline_on_purpose_is_told_from_no_network(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match=r"HF_HUB_OFFLINE is set\. Without the hub the profiles tiny and llama-1b-random"
    ):
        locate_weights(NAME, COMMIT)
    assert hub.seen == []


@pytest.mark.parametrize("offline", [False, True])
def test_a_pinned_commit_in_the_cache_is_used_without_the_hub(hub, monkeypatch, tmp_path, offline):
    folder = locate_weights(NAME, COMMIT)
    unplug(monkeypatch, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    assert locate_weights(NAME, COMMIT) == folder
    assert check_weights(NAME, COMMIT) == 0


def test_a_login_page_in_place_of_the_hub_is_recognised(hub):
    hub.refuse = (200, None, None)
    with pytest.raises(ModelError, match=r"answers, but not as a model hub does; see whether HF_ENDPOINT is right"):
        locate_weights(NAME, COMMIT)


# --- the disk --------------------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_noticed_before_the_download(hub, monkeypatch):
    locate(NAME, COMMIT, ["config.json"])
    size = len(FILES["model.safetensors"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size - 1))
    for look in (check_weights, locate_weights):
        with pytest.raises(ModelError, match=r"0.00 GB are to be downloaded to .*cache/hub, .*export HF_HOME=/folder"):
            look(NAME, COMMIT)
    assert "model.safetensors" not in hub.downloads()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))
    assert check_weights(NAME, COMMIT) == size


def test_a_disk_that_fills_up_during_the_download_is_told(hub, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", fail)
    with pytest.raises(ModelError, match=r"the disk is full: OSError: .*No space left on device; make room in"):
        locate_weights(NAME, COMMIT)
