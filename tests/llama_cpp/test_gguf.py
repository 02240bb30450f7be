"""A merged model as one GGUF file: llama.cpp reads the tokens of training in it, and goes on as transformers does."""

import csv
import json
import re
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import fetch_converter
import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

import export
from civilqa.base_model.prompts import Prompter
from civilqa.inference import BENCHMARK_QUESTIONS
from civilqa.llama_cpp import converter, parity
from civilqa.llama_cpp.driver import find_rule, read_pieces
from civilqa.llama_cpp.parity import Samples, check_gguf
from civilqa.program.errors import ModelError
from conftest import ROOT, make_adapter

FETCHED = ROOT / converter.CONVERTER
needs_converter = pytest.mark.skipif(
    not (FETCHED / converter.RECORD).is_file(),
    reason="llama.cpp's converter is not here: python stages/fetch_converter.py",
)
TEMPLATE = (ROOT / "models/templates/korean_plain.jinja").read_text(encoding="utf-8").removesuffix("\n")
with (ROOT / "data/raw/civil_law_qa_dataset.csv").open(encoding="utf-8", newline="") as file:
    TEXTS = [row[column] for row in csv.DictReader(file) for column in ("question", "answer")]


@pytest.fixture
def at_project(project, monkeypatch):
    """The root of a project with an adapter, and with the converter where it was fetched."""
    monkeypatch.chdir(project)
    make_adapter(project / "models/adapter")
    if FETCHED.is_dir():
        shutil.copytree(FETCHED, project / converter.CONVERTER)
    return project


@pytest.fixture
def run_export(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["export.py", *arguments])
        export.main()

    return run


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_llama_cpp_goes_on_as_the_merged_model_does(at_project, run_export, capsys, kind):
    run_export("--gguf", kind)
    print(printed := capsys.readouterr().out)
    assert "in llama.cpp beside transformers" in printed
    found = json.loads(Path("models/merged/manifest.json").read_text(encoding="utf-8"))["gguf"]
    assert found["file"] == f"model-{kind}.gguf"
    assert 0 < found["max_logprob_difference"] <= found["tolerance"] == parity.TOLERANCE[kind]
    assert kind != "f16" or found["equal_first_tokens"] == found["prompts"]
    assert "GGUF: `model-" in Path("models/merged/README.md").read_text(encoding="utf-8")
    assert f"FROM ./model-{kind}.gguf\n" in Path("models/merged/Modelfile").read_text(encoding="utf-8")


# --- other architectures ---------------------------------------------------------------------------------------------


def byte_level(pieces=None):
    """A byte-level BPE; without an expression of its own it cuts text as GPT-2's does."""
    tokenizer = Tokenizer(models.BPE())
    cut = [pre_tokenizers.Split(Regex(pieces), "isolated")] if pieces else []
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pieces)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, last])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<pad>", "<s>", "<e>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentencepiece():
    """A BPE as Gemma's: spaces are written, and what has no token is spelled in bytes."""
    special = ["<pad>", "<e>", "<s>", "<unk>"]
    spelled = [f"<0x{number:02X}>" for number in range(256)]
    tokenizer = Tokenizer(models.BPE(fuse_unk=True, byte_fallback=True, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=[*special, *spelled], limit_alphabet=500, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    fields = json.loads(tokenizer.to_str())
    fields["added_tokens"] = [token for token in fields["added_tokens"] if token["content"] in special]
    return Tokenizer.from_str(json.dumps(fields))


SIZE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096, "tie_word_embeddings": True}
L3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
L3 |= {"original_max_position_embeddings": 64, "rope_theta": 5e5}
GEMMA_ROPE = {
    "full_attention": {"rope_type": "default", "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
CUT = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ARCHITECTURES = {
    "llama3": (lambda: byte_level(CUT), LlamaConfig, {"rope_parameters": L3}),
    "qwen3": (byte_level, Qwen3Config, {}),
    "smollm2": (byte_level, LlamaConfig, {"vocab_size": 49152}),  # by which the converter knows it
    "phi3": (
        sentencepiece,
        Phi3Config,
        {"tie_word_embeddings": False, "rope_parameters": PLAIN_ROPE, "pad_token_id": 0},
    ),
    "gemma3": (
        sentencepiece,
        Gemma3TextConfig,
        {"rope_parameters": GEMMA_ROPE, "sliding_window": 16, "query_pre_attn_scalar": 16},
    ),
}


def write_checkpoint(folder, name):
    """Write a small random model of an architecture, as an export writes it; return its prompter."""
    make, kind, more = ARCHITECTURES[name]
    tokenizer = make()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<s>", "<e>")])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<e>", pad_token="<pad>")  # noqa: S106
    fast.chat_template = TEMPLATE
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(kind(**SIZE | {"vocab_size": len(fast), "initializer_range": 0.3} | more))
    for name, weights in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weights, 0.5, 1.5)
    model.config.bos_token_id, model.config.eos_token_id = fast.bos_token_id, fast.eos_token_id
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(export.with_older_keys(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    return Prompter(fast, TEMPLATE)


@pytest.mark.slow
@needs_converter
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_and_tokenizers_survive_the_way_to_llama_cpp(tmp_path, monkeypatch, name):
    monkeypatch.chdir(ROOT)
    prompter = write_checkpoint(tmp_path, name)
    conversations = [prompter.messages(text, "법률 전문가로서 답하십시오.") for text in BENCHMARK_QUESTIONS]
    file = tmp_path / "model-f16.gguf"
    converter.convert(tmp_path, file, "f16", TEXTS, starts_with_bos=True)
    found = check_gguf(file, "f16", tmp_path, prompter, Samples(conversations, TEXTS))
    print(name, found)
    assert found["texts"] == len(TEXTS) + len(conversations)


# --- tokenizers ------------------------------------------------------------------------------------------------------


def test_llama_cpps_rule_is_one_that_keeps_the_tokens_of_all_texts(tokenizer):
    assert find_rule(tokenizer.backend_tokenizer, TEXTS) == "llama-bpe"
    assert find_rule(byte_level(), TEXTS) == "gpt-2"


def test_a_tokenizer_that_cuts_text_in_a_way_of_its_own_is_refused():
    with pytest.raises(SystemExit, match=r"llama\.cpp has no rule that cuts text as this tokenizer does"):
        find_rule(byte_level(r"\p{N}|[^\p{N}]+"), TEXTS)


def test_the_score_of_a_piece_is_the_rank_of_its_merge(monkeypatch):
    fields = {
        "model": {"vocab": {"<u>": 0, "a": 1, "b": 2, "ab": 3, "aab": 4, "<0x41>": 5}, "unk_token": "<u>"},
        "added_tokens": [{"id": 6, "content": "<e>", "special": True}, {"id": 7, "content": "\n\n", "special": False}],
    }
    fields["model"]["merges"] = [["a", "b"], "a ab"]
    texts, scores, kinds = read_pieces(fields, 9)
    assert texts == [b"<u>", b"a", b"b", b"ab", b"aab", b"<0x41>", b"<e>", b"\n\n", b"[PAD8]"]
    assert scores == [0, 0, 0, 0, -1, 0, 0, 0, 0]
    assert kinds == [2, 1, 1, 1, 1, 6, 3, 4, 5]  # unknown, normal, byte, control, user-defined, unused


@pytest.fixture
def served(monkeypatch, tokenizer):
    """A server that reads text as the tokenizer does, but for what a test changes; and its prompter."""
    prompter, changes = Prompter(tokenizer, TEMPLATE), {}

    def ask(address, path, **fields):
        if path == "/apply-template":
            return {"prompt": prompter.render(fields["messages"])[0].removeprefix(changes.get("left out", ""))}
        text = fields["content"].replace(*changes.get("read", ("", "")))
        start = [tokenizer.bos_token_id] if fields["add_special"] else []
        return {"tokens": start + prompter.encode([text])[0]}

    monkeypatch.setattr(parity, "ask", ask)
    return prompter, changes


def test_a_text_that_llama_cpp_cuts_otherwise_is_named(served):
    prompter, changes = served
    parity.check_tokens(Path("m.gguf"), "", prompter, TEXTS[:4])
    changes["read"] = ("전세", "전 세")
    with pytest.raises(
        ModelError, match=r"m\.gguf: llama\.cpp cuts text into other tokens than training did, near .*전세"
    ):
        parity.check_tokens(Path("m.gguf"), "", prompter, TEXTS[:4])


def test_a_prompt_with_two_start_tokens_is_refused(served):
    prompter, changes = served
    messages = [prompter.messages("유치권이란?", "답하십시오.")]
    prompts = [prompter.render(messages[0])[0]]
    changes["left out"] = prompter.tokenizer.bos_token
    parity.check_chat(Path("m.gguf"), "", prompter, messages, prompts)
    changes["left out"] = ""
    with pytest.raises(ModelError, match=r"by its chat template llama\.cpp asks"):
        parity.check_chat(Path("m.gguf"), "", prompter, messages, prompts)


@pytest.mark.parametrize(("kind", "remedy"), [("q8_0", "take --gguf f16"), ("f16", "report this as a defect")])
def test_a_file_that_answers_otherwise_is_refused_with_what_to_take(served, tmp_path, monkeypatch, kind, remedy):
    prompter, changes = served
    changes["left out"] = prompter.tokenizer.bos_token
    config = LlamaConfig(
        vocab_size=3072, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    monkeypatch.setattr(parity, "serve", lambda file: nullcontext(""))
    monkeypatch.setattr(parity, "next_token", lambda address, ids: (0, {0: -99.0}))
    samples = Samples([prompter.messages("유치권이란?", "답하십시오.")], [])
    with pytest.raises(ModelError, match=rf"m\.gguf: answers otherwise .*'equal_first_tokens': 0.*; {remedy}"):
        check_gguf(Path("m.gguf"), kind, tmp_path, prompter, samples)


# --- what is not there -----------------------------------------------------------------------------------------------


def test_without_the_converter_the_error_says_how_to_fetch_it(tmp_path, monkeypatch, run_export):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"not there; fetch it \(77 MB, once\): python stages/fetch_converter\.py"):
        run_export("--gguf", "q8_0")
    assert not (tmp_path / "models").exists()


def test_an_archive_other_than_the_pinned_one_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.tar.gz").write_bytes(b"other")
    monkeypatch.setattr(sys, "argv", ["fetch_converter.py", "--archive", "other.tar.gz"])
    with pytest.raises(ModelError, match="has the hash"):
        fetch_converter.main()
    assert not converter.CONVERTER.exists()


@pytest.mark.parametrize("name", ["typo.tar.gz", "."])
def test_an_archive_that_is_not_there_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fetch_converter.py", "--archive", name])
    with pytest.raises(ModelError, match=rf"^{re.escape(name)}: no such file; --archive takes what was downloaded"):
        fetch_converter.main()
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_of_the_converter_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / converter.CONVERTER
    folder.mkdir()
    (folder / "a.py").write_text("1", encoding="utf-8")
    hashes = {"a.py": "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"}
    (folder / converter.RECORD).write_text(json.dumps({"files": hashes}), encoding="utf-8")
    converter.check_converter()
    (folder / "a.py").write_text("2", encoding="utf-8")
    with pytest.raises(ModelError, match=r"a\.py missing or changed"):
        converter.check_converter()
