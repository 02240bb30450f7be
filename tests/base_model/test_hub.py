"""The real client library against a small hub on the loopback."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, snapshot_download

import format as format_stage
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


# --- folders ---------------------------------------------------------------------------------------------------------


def test_a_queued_experiment_reads_a_base_that_git_does_not_hold_in_the_main_checkout(tmp_path, monkeypatch):
    folder, copy = tmp_path / "checkout/models/base", tmp_path / "copy"
    folder.mkdir(parents=True)
    copy.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(FILES[name])
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "checkout"))
    assert locate_weights("models/base", None) == folder
    assert check_weights("models/base", None) == 0
    pad = "<|finetune_right_pad_id|>"
    assert load_tokenizer(Profile(name="models/base", pad_token=pad)).pad_token == pad


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


def test_format_downloads_configuration_and_tokenizer_and_asks_whether_the_weights_are_there(
    project, hub, monkeypatch, capsys
):
    choose_hub_model(project)
    monkeypatch.chdir(project)
    format_stage.main()
    assert "base someone/model, 0.00 GB to download before training" in capsys.readouterr().out
    assert set(hub.downloads()) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
        "generation_config.json",
    }
    assert f"HEAD /{NAME}/resolve/{COMMIT}/model.safetensors" in hub.seen

    # A second run asks for the weights alone again; nothing else is fetched twice.
    hub.seen.clear()
    forget_listing()
    format_stage.main()
    assert hub.downloads() == []


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


def choose_hub_model(project):
    """Make a project's profile name the hub's model, and give format something to do."""
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


def test_a_refusal_ends_the_stage_with_a_message_and_no_token(project, server, tmp_path):
    """As a user runs it; the client in the other tests is that of this process."""
    choose_hub_model(project)
    server.refuse = (401, "GatedRepo", None)
    finished = subprocess.run(
        [sys.executable, "stages/format.py"],
        cwd=project,
        env=os.environ
        | {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert server.seen, "the client must have asked the hub of the test"
    assert finished.returncode == 1
    assert "is gated: accept its licence on https://huggingface.co/someone/model with the account" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert "secretsecret" not in finished.stdout + finished.stderr


def refusal(capfd):
    """What is said where the tokenizer cannot be had, once it is known that nothing said holds a token."""
    with pytest.raises(ModelError) as refused:
        locate(NAME, COMMIT, [TOKENIZER], TOKENIZER_EXTRAS)
    assert "secretsecret" not in f"{refused.value}{capfd.readouterr()}"
    return str(refused.value)


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
def test_what_the_hub_refuses_is_told_in_the_users_terms(hub, monkeypatch, capfd, refuse, message):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.refuse = refuse
    assert message in refusal(capfd)
    assert hub.seen, "the client must have asked the hub of the test"


@pytest.mark.parametrize("token", [f"{TOKEN}é한", f"{TOKEN}\x01", f"{TOKEN} {TOKEN}"])
def test_a_token_that_cannot_be_sent_is_not_printed(hub, monkeypatch, capfd, token):
    monkeypatch.setenv("HF_TOKEN", token)
    hub.gated = TOKEN
    assert "token" in refusal(capfd)


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


@pytest.mark.parametrize("links", [True, False], ids=["links", "as on Windows, where the client keeps plain files"])
def test_changed_bytes_of_the_same_size_are_noticed_and_downloaded_again(hub, monkeypatch, links):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", not links)
    hub.changed = {"model.safetensors", "config.json"}  # hashed by SHA-256, and as git does
    with pytest.raises(ModelError) as refused:
        locate_weights(NAME, COMMIT)
    for file in hub.changed:
        assert re.search(f"{file} in the local cache is not the hub's.*It has been removed", str(refused.value))
    assert "; run the stage again to download it" in str(refused.value)
    hub.changed = set()
    folder = locate_weights(NAME, COMMIT)
    assert {path.is_symlink() for path in folder.iterdir()} == {links}
    for file in ("model.safetensors", "config.json"):
        assert (folder / file).read_bytes() == FILES[file]


def test_files_of_another_download_are_left_as_they_are(hub):
    hub.changed = {"model.safetensors"}
    snapshot_download(NAME, revision=COMMIT, allow_patterns=["model.safetensors"])
    locate(NAME, COMMIT, ["config.json"])
    assert (locate(NAME, COMMIT, ["model.safetensors"]) / "model.safetensors").is_file()


def test_a_changed_file_that_may_not_be_removed_is_named(hub, monkeypatch):
    def refuse(path, **kwargs):
        if re.fullmatch("[0-9a-f]{64}", path.name):
            raise PermissionError(13, "Permission denied")
        unlink(path, **kwargs)

    unlink = Path.unlink
    hub.changed = {"model.safetensors"}
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ModelError, match=r"It cannot be removed .*Permission denied.*: remove .*/blobs/[0-9a-f]{64};"):
        locate_weights(NAME, COMMIT)


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
