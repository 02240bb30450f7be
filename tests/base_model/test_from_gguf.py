"""A GGUF file becomes a base that computes what the model computes that it was written from."""

import json
import shutil
import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import from_gguf
from civilqa.base_model.hub import check_base
from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.model.hardware import Hardware
from civilqa.model.loading import load_base
from civilqa.program.errors import ModelError, ParameterError
from civilqa.program.files import sha256_file
from conftest import ROOT
from gguf_files import Q8_0, write_gguf
from llama_checkpoint import CONFIG, IDS, make_tokenizer

DATASET = ROOT / "data/raw/civil_law_qa_dataset.csv"
TEXT = "민법 제618조는 임대차에 관하여 정한다. 보증금 5,000만원은?\n\n" * 40
CPU = Hardware("cpu", "fp32", 2)
PAD = "<|finetune_right_pad_id|>"


def profile_of(folder):
    return Profile(name=str(folder), pad_token=PAD)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A folder with a model shaped like Llama 3.2, in fp32; its weights are large, so that positions count."""
    folder = tmp_path_factory.mktemp("original")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG | {"initializer_range": 0.3})).float()
    model.save_pretrained(folder)
    make_tokenizer(DATASET).save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def factors(original):
    """What llama.cpp keeps of Llama 3's scaled positions."""
    config = LlamaConfig.from_pretrained(original)
    plain = 500000.0 ** (-np.arange(0, 16, 2) / 16)
    return plain / ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0].numpy()


def logits(folder):
    tokenizer = load_tokenizer(profile_of(folder))
    model = load_base(ModelParams(profile="mine", seed=1), profile_of(folder), CPU)
    with torch.inference_mode():
        return model(input_ids=torch.tensor([tokenizer(TEXT)["input_ids"]])).logits


def make_base(folder, monkeypatch, path):
    monkeypatch.setattr(sys, "argv", ["from_gguf.py", str(path), str(folder)])
    from_gguf.main()


def test_the_base_computes_what_the_model_computes_that_the_file_was_written_from(
    original, factors, tmp_path, monkeypatch
):
    path, base = tmp_path / "small.gguf", tmp_path / "models/mine"
    write_gguf(original, path, more={"rope_freqs.weight": factors})
    make_base(base, monkeypatch, path)
    tokenizer = load_tokenizer(profile_of(base))
    assert check_base(profile_of(base), tokenizer, "") == f"base {base}, weights on this disk"
    assert tokenizer(TEXT)["input_ids"] == load_tokenizer(profile_of(original))(TEXT)["input_ids"]
    assert tokenizer(TEXT)["input_ids"][0] == tokenizer.bos_token_id == IDS["<|begin_of_text|>"]
    assert tokenizer.eos_token_id == IDS["<|end_of_text|>"]
    wanted = logits(original)
    assert torch.allclose(logits(base), wanted, atol=1e-4 * wanted.abs().max())
    rope = json.loads((base / "config.json").read_text())["rope_parameters"]
    assert rope == pytest.approx(json.loads((original / "config.json").read_text())["rope_parameters"])
    with safe_open(base / "model.safetensors", "pt") as weights:
        assert "lm_head.weight" not in weights.keys()  # noqa: SIM118 - no dict
        assert weights.get_tensor("model.norm.weight").dtype == torch.float32
    record = json.loads((base / "from_gguf.json").read_text())
    assert record["gguf"]["sha256"] == sha256_file(path)
    assert record["files"] == {file.name: sha256_file(file) for file in base.iterdir() if file.name != "from_gguf.json"}
    assert from_gguf.find_changed(base) == []
    assert [each.name for each in base.parent.iterdir()] == ["mine"]


def test_weights_in_8_bits_are_multiplied_out_into_bf16(original, factors, tmp_path, monkeypatch):
    path, base = tmp_path / "small.gguf", tmp_path / "mine"
    write_gguf(original, path, kind=Q8_0, more={"rope_freqs.weight": factors})
    make_base(base, monkeypatch, path)
    assert json.loads((base / "config.json").read_text())["dtype"] == "bfloat16"
    with safe_open(original / "model.safetensors", "pt") as before, safe_open(base / "model.safetensors", "pt") as now:
        assert set(before.keys()) == set(now.keys())
        for name in before.keys():  # noqa: SIM118 - no dict
            weight = before.get_tensor(name)
            # Half a step of 8 bits, and the half of bf16's last digit.
            assert (now.get_tensor(name).float() - weight).abs().max() <= weight.abs().max() * (1 / 254 + 1 / 512)


# --- tokenizers ------------------------------------------------------------------------------------------------------


def changed_tokenizer(original, folder, change):
    """Write a copy of the model whose tokenizer.json is changed; return its fields."""
    shutil.copytree(original, folder)
    path = folder / "tokenizer.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    change(fields)
    path.write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")
    return fields


def test_added_tokens_outside_the_alphabet_of_bytes_are_at_their_ids(original, factors, tmp_path, monkeypatch):
    """As DeepSeek's, and words that were added to a Korean model."""
    names = {"<|end_of_text|>": "<｜end▁of▁text｜>", "<|eot_id|>": "전세사기"}

    def rename(fields):
        for old, new in names.items():
            fields["model"]["vocab"].pop(old, None)
            for token in fields["added_tokens"]:
                if token["content"] == old:
                    token["content"] = new

    changed_tokenizer(original, tmp_path / "changed", rename)
    write_gguf(tmp_path / "changed", tmp_path / "small.gguf", more={"rope_freqs.weight": factors})
    make_base(tmp_path / "base", monkeypatch, tmp_path / "small.gguf")
    tokenizer = load_tokenizer(profile_of(tmp_path / "base"))
    assert tokenizer.eos_token == names["<|end_of_text|>"]
    for old, new in names.items():
        assert tokenizer(f"가{new}나", add_special_tokens=False)["input_ids"].count(IDS[old]) == 1
    assert tokenizer(TEXT)["input_ids"] == load_tokenizer(profile_of(original))(TEXT)["input_ids"]


def test_a_piece_that_no_merge_makes_is_its_token_where_the_rule_says_so(original, factors, tmp_path, monkeypatch):
    word = "".join(bytes_to_unicode()[byte] for byte in "임대차".encode())

    def forget(fields):
        merges = (pair if isinstance(pair, list) else pair.split(" ") for pair in fields["model"]["merges"])
        fields["model"]["merges"] = [pair for pair in merges if "".join(pair) != word]

    wanted = changed_tokenizer(original, tmp_path / "changed", forget)["model"]["vocab"][word]
    found = {}
    for pre in ("llama-bpe", "qwen2"):
        write_gguf(tmp_path / "changed", tmp_path / f"{pre}.gguf", pre=pre, more={"rope_freqs.weight": factors})
        make_base(tmp_path / pre, monkeypatch, tmp_path / f"{pre}.gguf")
        tokenizer = load_tokenizer(profile_of(tmp_path / pre))
        found[pre] = tokenizer("임대차", add_special_tokens=False)["input_ids"]
    assert found["llama-bpe"] == [wanted] != found["qwen2"]


@pytest.mark.parametrize("prefixed", [True, False])
def test_the_space_of_sentencepiece_stands_before_each_part_or_before_none(prefixed):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.train_from_iterator(["가나 다라"], trainers.BpeTrainer(special_tokens=["<s>"], show_progress=False))
    fields = json.loads(tokenizer.to_str())
    from_gguf.put_space_before_each_part(fields, prefixed)
    pieces = " ".join(Tokenizer.from_str(json.dumps(fields)).encode("<s>가나<s>다라").tokens)
    assert [part.strip().startswith("▁") for part in pieces.split("<s>")[1:]] == [prefixed] * 2


# --- what is refused -------------------------------------------------------------------------------------------------


def test_positions_scaled_in_an_unknown_way_are_refused(original, factors, tmp_path):
    path = tmp_path / "small.gguf"
    write_gguf(original, path, more={"rope_freqs.weight": factors * 1.5})
    with pytest.raises(ModelError, match=r"its rope_freqs.weight are not those of Llama 3"):
        from_gguf.read_model(path)


def test_a_tensor_that_the_model_has_no_place_for_is_refused(original, factors, tmp_path):
    path = tmp_path / "small.gguf"
    write_gguf(original, path, more={"rope_freqs.weight": factors, "blk.1.attn_q.bias": np.ones(64)})
    with pytest.raises(ModelError, match=r"has no place for: blk.1.attn_q.bias: it would be another model"):
        from_gguf.read_model(path)


def test_a_tensor_that_is_not_there_is_not_drawn_at_random(original, tmp_path):
    path, copy = tmp_path / "small.gguf", tmp_path / "copy"
    copy.mkdir()
    for file in original.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / "config.json").read_text())
    write_gguf(original, path)
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    write_gguf(copy, path)
    with pytest.raises(ModelError, match=r"holds nothing that fits model.layers.2.* and others"):
        from_gguf.read_model(path)


def test_text_cut_by_an_unknown_rule_is_refused(original, tmp_path):
    path = tmp_path / "small.gguf"
    write_gguf(original, path, pre="of-next-year")
    with pytest.raises(ModelError, match=r"cuts text before its tokens in a way \('of-next-year'\)"):
        from_gguf.read_model(path)


@pytest.mark.parametrize(
    ("architecture", "fields", "message"),
    [
        ("of-next-year", {}, "cannot read it: .*architecture of-next-year is not supported"),
        ("llama", {"llama.rope.scaling.type": "yarn"}, r"its positions are scaled \(yarn\)"),
        ("llama", {"split.count": 3}, "is one of 3 parts; join them"),
    ],
)
def test_a_file_of_a_kind_that_would_be_read_wrongly_is_refused(tmp_path, architecture, fields, message):
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(str(path), architecture)
    for name, value in fields.items():
        (writer.add_string if isinstance(value, str) else writer.add_uint16)(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match=message):
        from_gguf.read_model(path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all" * 9, b"GGUF\x03\0\0\0" + b"\xff" * 40])
def test_a_file_that_is_no_gguf_is_named(tmp_path, content):
    path = tmp_path / "small.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"{path}: is no GGUF file, or not whole: .*; download it again"):
        from_gguf.read_model(path)


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_named(original, tmp_path, kept):
    path = tmp_path / "small.gguf"
    write_gguf(original, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ModelError, match=f"{path}: .*(download it again|if the file is whole)"):
        from_gguf.read_model(path)


def test_no_file_is_an_error_and_leaves_no_folder(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="no such file"):
        make_base(tmp_path / "mine", monkeypatch, tmp_path / "none.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_in_the_way_stays_as_it_is(tmp_path, monkeypatch):
    for name in ("file", "folder/file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(ParameterError, match=f"{name}: is there already, and is no empty folder"):
            make_base(tmp_path / name, monkeypatch, tmp_path / "none.gguf")
    assert (tmp_path / "file").read_text() == (tmp_path / "folder/file").read_text() == "mine"


def test_a_disk_that_is_full_leaves_nothing_and_is_told_in_a_line(original, factors, tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "small.gguf"
    write_gguf(original, path, more={"rope_freqs.weight": factors})
    finished = subprocess.run(
        [sys.executable, ROOT / "models/from_gguf.py", path, tmp_path / "mine"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert finished.returncode == 1
    assert f"error: {tmp_path / 'mine'}" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["small.gguf"]
