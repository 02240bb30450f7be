import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from civilqa.base_model.profiles import read_profile
from civilqa.inference import InferenceEngine
from civilqa.model.hardware import Hardware
from civilqa.model.loading import load_base, load_tuned
from civilqa.model.provenance import open_adapter
from conftest import edit_params, make_adapter
from export import Behaviour, compare

QUESTION = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"


def export(project, *arguments):
    command = [sys.executable, "stages/export.py", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, adapter_folder):
    from conftest import copy_project

    project = copy_project(tmp_path_factory.mktemp("export") / "project")
    shutil.copytree(adapter_folder, project / "models/adapter")
    done = export(project)
    assert done.returncode == 0, done.stderr
    assert "'equal_answers': 3" in done.stdout
    return project


@pytest.fixture
def at_project(exported, monkeypatch):
    monkeypatch.chdir(exported)
    return exported


def test_two_models_are_compared_by_logits_and_answers():
    one = Behaviour([torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]])], [[1, 2], [3]])
    other = Behaviour([torch.tensor([[1.0, 2.5]]), torch.tensor([[0.0, -0.1]])], [[1, 2], [4]])
    assert compare(one, other) == {"prompts": 2, "max_logit_difference": 0.5, "equal_answers": 1}


def test_the_merged_model_answers_as_the_adapter_does(at_project):
    merged = InferenceEngine().configure(max_new_tokens=24).load_finetuned_model("models/merged")
    adapter = InferenceEngine().configure(max_new_tokens=24).load_finetuned_model()
    for category in ("전세사기", ""):
        assert (
            merged.generate_answer(QUESTION, category)["answer"]
            == adapter.generate_answer(QUESTION, category)["answer"]
        )
    assert merged.identity() != adapter.identity()
    manifest = json.loads(Path("models/merged/manifest.json").read_text(encoding="utf-8"))
    assert manifest["parity"]["max_logit_difference"] <= manifest["parity"]["tolerance"] == 1e-3
    assert not merged.passes_turns_on()


def test_the_merged_folder_is_whole_and_ignored_by_git(at_project):
    names = {path.name for path in Path("models/merged").iterdir()}
    assert names >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert names >= {"tokenizer_config.json", "chat_template.jinja", "README.md", "Modelfile", "manifest.json"}
    assert not list(Path("models").glob(".*"))
    card = Path("models/merged/README.md").read_text(encoding="utf-8")
    assert "Not evaluated" in card, "the scores in metrics/evaluate.json are of another adapter"
    assert "No legal advice" in card
    assert str(at_project) not in card


def test_ollama_gets_the_prompt_of_training(at_project):
    engine = InferenceEngine().load_finetuned_model()
    template = Path("models/merged/Modelfile").read_text(encoding="utf-8").split('"""')[1]
    asked = template.replace("{{ .System }}", engine.prompts.system_prompt("")).replace("{{ .Prompt }}", QUESTION)
    prompt, _, end = asked.partition("{{ .Response }}")
    # Ollama puts the start token there itself.
    ids = engine._prompt(QUESTION, "", (), engine.params)[0]
    assert engine._prompter.encode([prompt])[0] == ids[1:]
    assert engine._prompter.encode([end])[0] == [engine._prompter.end_token_id]


def run_outside(folder, code):
    """Run code that knows nothing of the project, elsewhere."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_pipeline_loads_the_merged_model_outside_the_project(at_project, tmp_path):
    shutil.copytree("models/merged", tmp_path / "merged")
    engine = InferenceEngine().configure(max_new_tokens=16).load_finetuned_model()
    messages = engine._prompter.messages(QUESTION, engine.prompts.system_prompt(""))
    code = (
        "from transformers import pipeline\n"
        "ask = pipeline('text-generation', model='merged')\n"
        f"print(ask({messages!r}, max_new_tokens=16)[0]['generated_text'][-1]['content'])"
    )
    assert run_outside(tmp_path, code).strip() == engine.generate_answer(QUESTION)["answer"]


def test_peft_loads_the_adapter_outside_the_project(at_project, tmp_path):
    """The tiny base exists nowhere but here: it is saved first, where the base of another profile is downloaded."""
    model_params, profile = read_profile()
    hardware = Hardware("cpu", "fp32", 2)
    load_base(model_params, profile, hardware).save_pretrained(str(tmp_path / "models/tiny"))
    shutil.copytree("models/adapter", tmp_path / "adapter")
    code = (
        "import torch\nfrom peft import AutoPeftModelForCausalLM\n"
        "model = AutoPeftModelForCausalLM.from_pretrained('adapter').eval()\n"
        "print(model(torch.arange(20, 60)[None]).logits.double().sum().item())"
    )
    adapter = open_adapter(Path("models/adapter"), model_params, profile)
    with torch.inference_mode():
        logits = load_tuned(adapter, hardware)(torch.arange(20, 60)[None]).logits
    assert float(run_outside(tmp_path, code)) == pytest.approx(logits.double().sum().item(), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_half_precision_export_keeps_its_tolerance(at_project, tmp_path, precision):
    done = export(at_project, "--precision", precision, "--output", str(tmp_path / "merged"))
    assert done.returncode == 0, done.stderr
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    assert str(model.dtype) == {"bf16": "torch.bfloat16", "fp16": "torch.float16"}[precision]


@pytest.mark.slow
def test_an_adapter_of_a_4_bit_base_is_merged_in_full_precision(project, monkeypatch):
    monkeypatch.chdir(project)
    make_adapter(project / "models/adapter", quantization="4bit")
    done = export(project)
    assert done.returncode == 0, done.stderr
    assert "beside the adapter on its 4bit base" in done.stdout
    manifest = json.loads((project / "models/merged/manifest.json").read_text(encoding="utf-8"))
    assert manifest["parity"]["max_logit_difference"] <= 1e-3
    assert manifest["parity_with_quantized"]["max_logit_difference"] > 1e-3
    assert manifest["precision"] == "fp32"


def test_without_an_adapter_nothing_is_written(project):
    done = export(project)
    assert done.returncode == 1
    assert "run `dvc repro finetune`" in done.stderr
    assert not (project / "models/merged").exists()


def test_a_merge_that_answers_otherwise_is_refused_and_the_old_one_kept(at_project):
    code = (
        "import sys; sys.path.insert(0, 'stages'); import export\n"
        "export.LOGIT_TOLERANCE['fp32'] = 1e-12; sys.argv = ['export.py']\n"
        "from civilqa.program.lifecycle.stage import run; run(export.main)"
    )
    before = Path("models/merged/manifest.json").read_bytes()
    done = subprocess.run([sys.executable, "-c", code], cwd=at_project, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "its logits differ" in done.stderr
    assert Path("models/merged/manifest.json").read_bytes() == before
    assert not Path("models/.merged.part").exists()


@pytest.mark.slow
def test_transformers_serve_answers_the_openai_client(at_project):
    from openai import OpenAI

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = str(at_project / "models/merged")
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "transformers.cli.transformers",
            "serve",
            folder,
            "--port",
            str(port),
            "--device",
            "cpu",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        wait_for(server, f"http://127.0.0.1:{port}/health")
        engine = InferenceEngine().configure(max_new_tokens=16).load_finetuned_model()
        expected = engine.generate_answer(QUESTION)["answer"]
        messages = engine._prompter.messages(QUESTION, engine.prompts.system_prompt(""))
        asked = {"model": folder, "messages": messages, "max_tokens": 16, "temperature": 0}
        whole = client.chat.completions.create(**asked)
        assert whole.choices[0].message.content.strip() == expected
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(**asked, stream=True)
            if chunk.choices
        ]
        assert "".join(pieces).strip() == expected
        assert len(pieces) > 3
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(server, address):
    for _ in range(600):
        assert server.poll() is None, server.stderr.read()
        try:
            if httpx.get(address, timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


def test_the_tokenizer_of_the_export_renders_the_prompt_of_training(at_project):
    engine = InferenceEngine().load_finetuned_model()
    tokenizer = AutoTokenizer.from_pretrained("models/merged")
    messages = engine._prompter.messages(QUESTION, engine.prompts.system_prompt("전세사기"))
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert rendered == engine._prompt(QUESTION, "전세사기", (), engine.params)[0]


def test_a_base_that_was_made_for_conversations_stays_one(project, adapter_folder, monkeypatch):
    """A base with a chat template of its own passes turns on, as adapter and as merged model alike."""
    shutil.copytree(adapter_folder, project / "models/adapter")
    path = project / "models/tiny/tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    template = (project / "models/templates/korean_plain.jinja").read_text(encoding="utf-8")
    path.write_text(json.dumps({**config, "chat_template": template}), encoding="utf-8")
    edit_params(project / "params.yaml", **{"chat.max_new_tokens": 8})
    monkeypatch.chdir(project)
    assert export(project).returncode == 0
    for folder in ("models/adapter", "models/merged"):
        assert InferenceEngine().load_finetuned_model(folder).passes_turns_on()
