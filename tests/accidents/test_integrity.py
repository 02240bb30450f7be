"""An adapter is used with what it was trained on, and whole, or not at all: evaluate, benchmark, chat, export."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

import benchmark
import chat
import evaluate
import export
from accidents import checked, run
from civilqa.base_model.categories import read_categories
from civilqa.inference import InferenceEngine
from civilqa.model.model_card import write_merged_card
from civilqa.model.provenance import MergedManifest, read_manifest
from civilqa.program.errors import PipelineError
from civilqa.program.files import write_json
from conftest import edit_params

pytestmark = pytest.mark.slow

PROGRAMS = {
    "evaluate": (evaluate.main, []),
    "benchmark": (benchmark.main, []),
    "export": (export.main, []),
    "chat": (chat.main, ["--question", "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"]),
    "batch": (chat.main, ["batch", "questions.csv", "answers.jsonl"]),
    "chat test": (chat.main, ["test"]),
    "web": (chat.main, ["web", "--port", "0"]),
}
STAGES = ("evaluate", "benchmark")
ADAPTER = "models/adapter"
FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "categories.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
)


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    """A copy of the finished run, which every test leaves as it found it."""
    copy = tmp_path_factory.mktemp("integrity") / "run"
    shutil.copytree(finished_run, copy, symlinks=True)
    (copy / "questions.csv").write_text("question\n전세보증금을 돌려받지 못했나요?\n", encoding="utf-8")
    return copy


@pytest.fixture(autouse=True)
def _in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def change(folder):
    """Changes a file by a function of its bytes, and puts it back at the end; None deletes it."""
    before: dict[Path, bytes] = {}

    def apply(name, function):
        path = folder / name
        before.setdefault(path, path.read_bytes())
        content = function(before[path])
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)

    yield apply
    for path, content in before.items():
        path.write_bytes(content)


def refusal(program, monkeypatch):
    """Return the message with which a program, started in this process, refuses; fails if it goes on."""
    main, arguments = PROGRAMS[program]
    monkeypatch.setattr(sys, "argv", [f"{program}.py", *arguments])
    with pytest.raises(PipelineError) as refused:
        main()
    assert "Traceback" not in str(refused.value)
    return str(refused.value)


def flip(content):
    """Flip one bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "bit flipped": flip,
    "cut off": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "deleted": lambda content: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_of_the_adapter_is_named_by_every_program(change, outcomes, monkeypatch, name, damage):
    change(f"{ADAPTER}/{name}", DAMAGES[damage])
    # Each program meets every damage and every file; all of them open an adapter in the one place.
    turn = FILES.index(name) * len(DAMAGES) + list(DAMAGES).index(damage)
    for program in [list(PROGRAMS)[(turn + step) % len(PROGRAMS)] for step in (0, 3)]:
        if program == "web" and (name, damage) == ("adapter_config.json", "deleted"):
            continue  # the file by which an adapter is known: the page says that there is no model
        with outcomes.trial(f"adapter: a file {damage}", program, "refuses, names the file"):
            message = refusal(program, monkeypatch)
            assert re.search(
                rf"{re.escape(name)} is (missing|not the file that was written)|학습된 모델이 없습니다", message
            )
            assert "dvc repro" in message


def test_a_file_of_another_adapter_is_refused(change, outcomes, monkeypatch, tmp_path):
    """Weights of the same shape, from another training: they would load."""
    from safetensors.torch import load_file, save_file

    tensors = {key: value + 0.01 for key, value in load_file(f"{ADAPTER}/adapter_model.safetensors").items()}
    save_file(tensors, tmp_path / "other.safetensors", metadata={"format": "pt"})
    change(f"{ADAPTER}/adapter_model.safetensors", lambda content: (tmp_path / "other.safetensors").read_bytes())
    for program in PROGRAMS:
        with outcomes.trial("adapter: weights of another one", program, "refuses, names the file"):
            message = refusal(program, monkeypatch)
            assert "adapter_model.safetensors is not the file that was written" in message


OLD = {"base": {"weights": "random"}, "quantization": "none"}
MANIFESTS = {
    "older": lambda content: json.dumps(OLD).encode(),
    "cut off": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "no UTF-8": lambda content: b"\xff\xfe" + content,
    "a list": lambda content: b"[]",
    "deleted": lambda content: None,
    "without files": lambda content: json.dumps({**json.loads(content), "files": {}}).encode(),
    "with a misspelt key": lambda content: content.replace(b'"quantization"', b'"quantisation"'),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_says_nothing_is_refused(change, outcomes, monkeypatch, kind):
    change(f"{ADAPTER}/manifest.json", MANIFESTS[kind])
    for program in PROGRAMS:
        with outcomes.trial("adapter: manifest damaged or older", program, "refuses, says to train again"):
            message = refusal(program, monkeypatch)
            assert "manifest.json" in message
            assert "dvc repro finetune" in message


MISFITS = {
    # what is changed: (how, what the message says)
    "seed of the base": (
        lambda change: edit_params(Path("params.yaml"), **{"model.seed": 1}),
        r"another base model than the one of profile 'tiny': seed 20260608 then, 1 now",
    ),
    "shape of the base": (
        lambda change: change(
            "models/tiny/config.json", lambda c: c.replace(b'"rms_norm_eps": 1', b'"rms_norm_eps": 2')
        ),
        r"another base model than the one of profile 'tiny': config_sha256 \w{12}… then, \w{12}… now",
    ),
    "tokenizer": (
        lambda change: change("models/tiny/tokenizer.json", lambda c: c + b"\n"),
        r"another tokenizer than the one of profile 'tiny': tokenizer.json \w{12}… then, \w{12}… now",
    ),
    "tokenizer's settings": (
        lambda change: change(
            "models/tiny/tokenizer_config.json", lambda c: json.dumps({**json.loads(c), "pad_token": "<pad>"}).encode()
        ),
        r"tokenizer",
    ),
}


@pytest.mark.parametrize("kind", MISFITS)
def test_an_adapter_of_another_base_or_tokenizer_is_refused(change, outcomes, monkeypatch, kind):
    change("params.yaml", lambda content: content)
    how, expected = MISFITS[kind]
    how(change)
    for program in PROGRAMS:
        with outcomes.trial(f"adapter: another {kind}", program, "refuses, names what differs"):
            assert re.search(expected, refusal(program, monkeypatch))


def test_programs_without_the_data_compare_the_template_with_the_profile_s(change, outcomes, monkeypatch):
    change("models/templates/korean_plain.jinja", lambda content: content.replace("질문".encode(), "물음".encode()))
    assert "물음" in Path("models/templates/korean_plain.jinja").read_text(encoding="utf-8")
    for program in (name for name in PROGRAMS if name not in STAGES):
        with outcomes.trial("adapter: another template", program, "refuses, names what differs"):
            message = refusal(program, monkeypatch)
            assert "another chat template than the one of format.style and the profile" in message


@pytest.mark.parametrize(("name", "said"), [("train.jsonl", "other data"), ("chat_template.jinja", "chat template")])
def test_stages_compare_data_and_template_with_what_is_formatted_now(change, outcomes, monkeypatch, name, said):
    change(f"data/formatted/{name}", lambda content: content.replace("전세".encode(), "월세".encode()) + b"\n")
    for program in STAGES:
        with outcomes.trial(f"adapter: another {name}", program, "refuses, names what differs"):
            message = refusal(program, monkeypatch)
            assert f"{said} than" in message
            assert "data/formatted" in message


def test_another_fold_s_adapter_is_not_evaluated(folder, change, outcomes, monkeypatch):
    """Its training questions are the test questions of now: it would seem to know them."""
    changed = ["params.yaml", *(f"data/{kind}/{name}.jsonl" for kind in ("splits", "formatted") for name in SPLITS)]
    for name in changed:
        change(name, lambda content: content)
    edit_params(folder / "params.yaml", **{"split.fold": 1})
    checked(folder, "python", "stages/split.py")
    checked(folder, "python", "stages/format.py")
    with outcomes.trial("adapter of another fold", "evaluate", "refuses, names what differs"):
        assert "train.jsonl" in refusal("evaluate", monkeypatch)
    checked(folder, "git", "checkout", "--", "metrics")


SPLITS = ("train", "validation", "test")


def test_rows_out_of_step_with_their_records_are_refused(change, outcomes, monkeypatch):
    change("data/formatted/test.jsonl", lambda content: b"".join(reversed(content.splitlines(keepends=True))))
    with outcomes.trial("formatted rows in another order", "evaluate", "refuses, says what to run"):
        assert "data/formatted/test.jsonl: does not hold the records of" in refusal("evaluate", monkeypatch)


def test_a_test_question_among_those_of_training_is_refused(change, outcomes, monkeypatch):
    first = Path("data/splits/train.jsonl").read_bytes().splitlines(keepends=True)[0]
    row = Path("data/formatted/train.jsonl").read_bytes().splitlines(keepends=True)[0]
    change("data/splits/test.jsonl", lambda content: content + first)
    change("data/formatted/test.jsonl", lambda content: content + row)
    with outcomes.trial("a training question in the test split", "evaluate", "refuses, names it"):
        assert "1 questions are in train and in test" in refusal("evaluate", monkeypatch)


def test_every_mismatch_is_told_at_once(change, monkeypatch):
    change("params.yaml", lambda content: content)
    edit_params(Path("params.yaml"), **{"model.seed": 1})
    change("data/formatted/train.jsonl", lambda content: content + b"{}\n")
    message = refusal("evaluate", monkeypatch)
    assert "another base model" in message
    assert "other data" in message


def test_the_manifest_is_sorted_json_that_names_every_file(folder):
    text = (folder / ADAPTER / "manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    assert text == json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    assert set(manifest["files"]) == set(FILES)
    assert set(manifest["data"]) == {"train.jsonl", "validation.jsonl"}


def test_the_model_card_may_be_edited(change):
    change(f"{ADAPTER}/README.md", lambda content: content + "한 줄 더\n".encode())
    assert InferenceEngine().load_finetuned_model(ADAPTER).name


@pytest.fixture
def merged(folder):
    """The merged model; the card it gets names the scores of its adapter."""
    if not (folder / "models/merged").exists():
        checked(folder, "python", "stages/export.py")
    return folder / "models/merged"


def test_the_card_of_the_merged_model_shows_the_scores_of_its_own_adapter(merged):
    test = json.loads(Path("metrics/evaluate.json").read_text(encoding="utf-8"))["test"]
    card = (merged / "README.md").read_text(encoding="utf-8")
    assert f"| bits_per_character | {test['base']['bits_per_character']:.3f} |" in card
    assert "Training: " in card


def test_scores_of_another_adapter_are_not_shown(merged, change, tmp_path):
    def card():
        adapter = export.open_adapter(Path(ADAPTER), *export.read_profile())
        write_merged_card(tmp_path, adapter, read_categories(merged), read_manifest(merged, MergedManifest))
        return (tmp_path / "README.md").read_text(encoding="utf-8")

    assert "Not evaluated" not in card()
    change("metrics/evaluate.json", lambda content: content.replace(b'"adapter_sha256": "', b'"adapter_sha256": "0'))
    assert "Not evaluated" in card()


def test_a_merged_model_carries_the_provenance_of_its_adapter(merged):
    own = json.loads((merged / "manifest.json").read_text(encoding="utf-8"))
    adapter = json.loads(Path(f"{ADAPTER}/manifest.json").read_text(encoding="utf-8"))
    for key in ("base", "data", "quantization", "template_sha256", "tokenizer"):
        assert own[key] == adapter[key]
    assert own["adapter"]["adapter_model.safetensors"] == adapter["files"]["adapter_model.safetensors"]
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= set(own["files"])


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "generation_config.json", "manifest.json"])
def test_a_damaged_merged_model_is_not_asked(merged, change, outcomes, name, damage):
    if name == "manifest.json" and damage == "deleted":
        pytest.skip("then it is a full model of another making, which is asked as it is")
    change(f"models/merged/{name}", DAMAGES[damage])
    with outcomes.trial(f"merged model: a file {damage}", "chat", "refuses, names the file"):
        with pytest.raises(PipelineError, match=f"{re.escape(name)}|is not the file that was written") as refused:
            InferenceEngine().load_finetuned_model(merged)
        assert "python stages/export.py" in str(refused.value)


@pytest.mark.parametrize("program", ["evaluate", "benchmark", "export", "chat"])
def test_a_refusal_is_one_message_and_no_traceback(folder, change, outcomes, program):
    change(f"{ADAPTER}/adapter_model.safetensors", flip)
    arguments = PROGRAMS[program][1]
    with outcomes.trial("adapter: a file bit flipped", f"python stages/{program}.py", "ends with 1 and one message"):
        finished = run(folder, "python", f"stages/{program}.py", *arguments)
        assert finished.returncode == 1
        assert "adapter_model.safetensors is not the file that was written" in finished.stderr
        assert "Traceback" not in finished.stderr
    assert not (folder / "models/.merged.part").exists()


def test_a_committed_older_adapter_is_refused_by_name(change, monkeypatch):
    change(f"{ADAPTER}/manifest.json", lambda content: content)
    write_json(Path(ADAPTER) / "manifest.json", OLD)
    assert "older than this check" in refusal("evaluate", monkeypatch)
