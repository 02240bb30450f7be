import contextlib
import copy
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import pytest
import torch
from architectures import FAMILIES, NO_THOUGHT, write_base
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    Phi3Config,
    PhiConfig,
    Qwen3Config,
)

import export
from civilqa.base_model.profiles import Profile, read_profile
from civilqa.base_model.prompts import Prompter, load_prompter
from civilqa.chat.batch import answer_file
from civilqa.chat.served import ServedEngine
from civilqa.generation import answers
from civilqa.inference import BENCHMARK_QUESTIONS, InferenceEngine
from civilqa.llama_cpp.parity import serve
from civilqa.model.hardware import Hardware
from civilqa.model.loading import load_base, load_tuned, save_adapter
from civilqa.model.other_programs import make_modelfile, with_older_keys
from civilqa.model.provenance import open_adapter
from civilqa.program.errors import ModelError
from civilqa.training.adapter import LoraParams, add_adapter
from conftest import ROOT, copy_project, make_adapter
from gguf_files import write_gguf

QUESTION = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"
HUB_ID, REVISION = "someone/base-model", "0123456789abcdef0123456789abcdef01234567"
CPU = Hardware("cpu", "fp32", 2)
KOREAN_PLAIN = (ROOT / "models/templates/korean_plain.jinja").read_text(encoding="utf-8").removesuffix("\n")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, adapter_folder):
    """A project whose adapter was exported by the program, as a user starts it; the other tests call its main()."""
    project = copy_project(tmp_path_factory.mktemp("export") / "project")
    shutil.copytree(adapter_folder, project / "models/adapter")
    command = [sys.executable, "stages/export.py"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "'equal_answers': 3" in done.stdout
    return project


@pytest.fixture
def at_project(exported, monkeypatch):
    monkeypatch.chdir(exported)
    return exported


@pytest.fixture(scope="module")
def engine(exported):
    """The adapter on its base, as chat asks it."""
    with contextlib.chdir(exported):
        return InferenceEngine().load_finetuned_model()


@pytest.fixture
def run_export(monkeypatch):
    """Runs the program in this process, in the current folder."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
        export.main()

    return run


def system_messages(engine, category="전세사기"):
    return engine._prompter.messages(QUESTION, engine.prompts.system_prompt(category))


def test_the_merged_model_answers_as_the_adapter_does(at_project, engine):
    merged = InferenceEngine().load_finetuned_model("models/merged")
    for category in ("전세사기", ""):
        answers = [each.generate_answer(QUESTION, category, max_new_tokens=24)["answer"] for each in (merged, engine)]
        assert answers[0] == answers[1]
    assert merged.identity() != engine.identity()
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


def read_modelfile(path):
    """Return its template, its system prompt and its parameters."""
    return parts_of(Path(path).read_text(encoding="utf-8"))


def parts_of(text):
    template, system = (re.search(f'{key} """(.*?)"""', text, re.DOTALL)[1] for key in ("TEMPLATE", "SYSTEM"))
    return template, system, dict(re.findall(r"PARAMETER (\S+) (.+)", text))


def test_ollama_answers_as_here_by_parameters_that_it_sets_otherwise(at_project, engine):
    _, system, parameters = read_modelfile("models/merged/Modelfile")
    assert system == engine.prompts.system_prompt("전세사기"), "not the prompt that most training records had"
    end = engine._prompter.tokenizer.convert_ids_to_tokens(engine._prompter.end_token_id)
    assert parameters == {"stop": end, "temperature": "0", "repeat_penalty": "1", "num_predict": "512"}


# Ollama's template language is Go's text/template, with a turn's Role and Content.
GO = """
package main

import ("encoding/json"; "os"; "text/template")

type Message struct { Role, Content string }
type Asked struct { System, Prompt, Response string; Messages []*Message }

func main() {
    var asked Asked
    if json.Unmarshal([]byte(os.Args[2]), &asked) != nil { panic("no JSON") }
    template.Must(template.New("").Parse(os.Args[1])).Execute(os.Stdout, asked)
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="Go's own templates decide what Ollama's make of a question")
@pytest.mark.parametrize("earlier", [[], [("user", "앞의 질문"), ("assistant", "앞의 답변")]])
def test_ollama_gets_the_prompt_of_training_whatever_was_asked_before(at_project, engine, tmp_path, earlier):
    template, system, _ = read_modelfile("models/merged/Modelfile")
    (tmp_path / "render.go").write_text(GO, encoding="utf-8")
    turns = [("system", system), *earlier, ("user", QUESTION)]
    asked = {"System": system, "Messages": [{"Role": role, "Content": content} for role, content in turns]}
    command = ["go", "run", str(tmp_path / "render.go"), template, json.dumps(asked)]
    environment = os.environ | {"GOCACHE": str(tmp_path / "cache"), "GOFLAGS": "-mod=mod"}
    rendered = subprocess.run(command, capture_output=True, check=True, env=environment, timeout=300).stdout.decode()
    # Ollama puts the start token of a GGUF file there itself.
    assert engine._prompter.encode([rendered])[0] == engine._prompt(QUESTION, "", (), engine.params)[0][1:]


def rendered_by_turns(template, turns):
    """What Ollama makes of a template without messages: once for each turn, the system prompt with the first."""
    asking = r"{{ if \.System }}(.*){{ else }}(.*){{ end }}{{ if \.Response }}(.*){{ end }}"
    first, later, answered = re.fullmatch(asking, template, re.DOTALL).groups()
    asked = [first.replace("{{ .System }}", "안내"), *[later] * (len(turns) - 1)]
    return "".join(
        piece.replace("{{ .Prompt }}", question) + (answered.replace("{{ .Response }}", answer) if answer else "")
        for piece, (question, answer) in zip(asked, turns, strict=True)
    )


@pytest.mark.parametrize("name", [*FAMILIES])
def test_a_base_made_for_conversations_gets_the_turns_before(tmp_path, name):
    family = FAMILIES[name]
    write_base(tmp_path, family)
    prompter = load_prompter(Profile(name=str(tmp_path), pad_token=family.pad_token), "conversational")
    template, _, _ = parts_of(make_modelfile(prompter, "안내", conversational=True, gguf={"file": "m.gguf"}))
    turns = [("하나", "둘"), ("셋", "넷"), ("다섯", "")]
    rendered = rendered_by_turns(template, turns)
    messages = [{"role": "system", "content": "안내"}]
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    expected = prompter.render(messages[:-1])[0].removeprefix(prompter.tokenizer.bos_token or "")
    # Thoughts stand in the prompt of the last question alone; what was answered stays in Ollama as it was asked.
    assert rendered.replace(NO_THOUGHT, "") == expected.replace(NO_THOUGHT, "")
    assert rendered.endswith(expected[-8:])


def test_ollama_takes_the_gguf_file_which_puts_the_start_token_there_itself(tokenizer):
    prompter = Prompter(copy.deepcopy(tokenizer), KOREAN_PLAIN)
    for gguf, file in ((None, "model-f16.gguf"), ({"file": "m.gguf"}, "m.gguf")):
        modelfile = make_modelfile(prompter, "안내", conversational=False, gguf=gguf)
        assert f"FROM ./{file}\n" in modelfile
        assert tokenizer.bos_token not in modelfile


L3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
L3 |= {"original_max_position_embeddings": 1024}
PLAIN = {"rope_type": "default", "rope_theta": 1e6}
LONG = {"short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
ROPES = [
    (LlamaConfig, PLAIN, {"rope_theta": 1e6, "rope_scaling": None}),
    (PhiConfig, {**PLAIN, "partial_rotary_factor": 0.4}, {"rope_theta": 1e6, "partial_rotary_factor": 0.4}),
    (GPTNeoXConfig, {**PLAIN, "partial_rotary_factor": 0.5}, {"rotary_pct": 0.5, "rotary_emb_base": 1e6}),
    (LlamaConfig, {**L3, "rope_theta": 5e5}, {"rope_theta": 5e5, "rope_scaling": L3}),
    (Qwen3Config, PLAIN, {"rope_theta": 1e6, "rope_scaling": None}),
    (
        Phi3Config,
        {**LONG, "rope_type": "longrope", "rope_theta": 1e6, "original_max_position_embeddings": 4096},
        {"rope_theta": 1e6, "rope_scaling": {**LONG, "type": "longrope"}, "original_max_position_embeddings": 4096},
    ),
    (
        Gemma3TextConfig,
        {"full_attention": PLAIN, "sliding_attention": {"rope_type": "default", "rope_theta": 3e4}},
        {"rope_theta": 1e6, "rope_scaling": None, "rope_local_base_freq": 3e4},
    ),
]


@pytest.mark.parametrize(("kind", "rope", "older"), ROPES)
def test_older_readers_find_the_rotary_embedding_under_their_names(tmp_path, kind, rope, older):
    """transformers 4.57.6 gave the same logits with these keys, and others without (8 architectures, run by hand)."""
    kind(rope_parameters=rope, dtype="float32").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    written = with_older_keys(json.loads(path.read_text(encoding="utf-8")))
    assert {key: written[key] for key in older} == older
    assert written["torch_dtype"] == "float32"
    path.write_text(json.dumps(written), encoding="utf-8")
    read = {name: value for name, value in kind.from_pretrained(tmp_path).rope_parameters.items() if name != "type"}
    assert read == kind(rope_parameters=rope).rope_parameters


def test_the_export_has_them(at_project):
    config = json.loads(Path("models/merged/config.json").read_text(encoding="utf-8"))
    assert (config["rope_theta"], config["rope_scaling"]) == (10000.0, None)


def test_the_tokenizer_of_the_export_renders_the_prompt_of_training(at_project, engine):
    tokenizer = AutoTokenizer.from_pretrained("models/merged")
    messages = system_messages(engine, "전세사기")
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert rendered == engine._prompt(QUESTION, "전세사기", (), engine.params)[0]


# --- outside the project ---------------------------------------------------------------------------------------------

OUTSIDE = """
import json, sys
import torch
from peft import AutoPeftModelForCausalLM
from transformers import pipeline

ask = pipeline("text-generation", model="merged")
seen = {"answer": ask(json.loads(sys.argv[1]), max_new_tokens=16)[0]["generated_text"][-1]["content"]}
for folder in ("adapter", "adapter_of_a_hub_base"):
    model = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        seen[folder] = model(torch.arange(20, 60)[None]).logits.double().sum().item()
print(json.dumps(seen))
"""


def sum_of_logits(model):
    with torch.inference_mode():
        return model(torch.arange(20, 60)[None]).logits.double().sum().item()


def adapter_of_a_hub_base(cache, folder):
    """Write an adapter of a base on the hub, and the base into the client's cache as a download leaves it.

    Returns the sum of its logits here.
    """
    repository = cache / "models--someone--base-model"
    snapshot = repository / "snapshots" / REVISION
    model_params, profile = read_profile()
    load_base(model_params, profile, CPU).save_pretrained(snapshot)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(ROOT / "models/tiny" / name, snapshot / name)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(REVISION, encoding="utf-8")
    base = AutoModelForCausalLM.from_pretrained(str(snapshot))
    base.name_or_path = HUB_ID
    model = add_adapter(base, Profile(name=HUB_ID, revision=REVISION), LoraParams(), False, 3).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    save_adapter(model, folder)
    return sum_of_logits(model)


@pytest.fixture(scope="module")
def outside(exported, engine, tmp_path_factory):
    """What one program that knows nothing of the project makes of the models, and what it should.

    The tiny base exists nowhere but here: it is saved first, where the base of another profile is downloaded.
    """
    folder = tmp_path_factory.mktemp("outside")
    with contextlib.chdir(exported):
        model_params, profile = read_profile()
        load_base(model_params, profile, CPU).save_pretrained(str(folder / "models/tiny"))
        for name in ("merged", "adapter"):
            shutil.copytree(f"models/{name}", folder / name)
        expected = {
            "answer": engine.generate_answer(QUESTION, max_new_tokens=16)["answer"],
            "adapter": sum_of_logits(load_tuned(open_adapter(Path("models/adapter"), model_params, profile), CPU)),
            "adapter_of_a_hub_base": adapter_of_a_hub_base(folder / "hub", folder / "adapter_of_a_hub_base"),
        }
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE, json.dumps(system_messages(engine))],
        cwd=folder,
        env={"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "PATH": "", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), expected


def test_a_pipeline_loads_the_merged_model_outside_the_project(outside):
    seen, expected = outside
    assert seen["answer"].strip() == expected["answer"]


def test_peft_loads_the_adapter_outside_the_project(outside):
    seen, expected = outside
    assert seen["adapter"] == pytest.approx(expected["adapter"], rel=1e-4)


def test_an_adapter_of_a_hub_base_loads_from_anywhere_at_its_revision(outside):
    seen, expected = outside
    assert seen["adapter_of_a_hub_base"] == pytest.approx(expected["adapter_of_a_hub_base"], rel=1e-6)


@contextlib.contextmanager
def ended(server):
    try:
        yield server
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def transformers_serve(exported):
    """The address of `transformers serve` with the merged model."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "models/merged"]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--device", "cpu"],
        cwd=exported,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ended(server):
        wait_for(server, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(scope="module")
def llama_cpp(exported, tmp_path_factory):
    """The address of llama.cpp's server with the merged model."""
    pytest.importorskip("xllamacpp")
    model = tmp_path_factory.mktemp("gguf") / "merged.gguf"
    write_gguf(exported / "models/merged", model)
    with serve(model) as address:
        yield f"{address}/v1"


@pytest.mark.slow
def test_transformers_serve_answers_the_openai_client(at_project, engine, transformers_serve):
    from openai import OpenAI

    client = OpenAI(base_url=transformers_serve, api_key="none")
    expected = engine.generate_answer(QUESTION, max_new_tokens=16)["answer"]
    asked = {"model": "models/merged", "messages": system_messages(engine), "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content.strip() == expected
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in client.chat.completions.create(**asked, stream=True)
        if chunk.choices
    ]
    assert "".join(pieces).strip() == expected
    assert len(pieces) > 3


@pytest.mark.slow
@pytest.mark.parametrize("program", ["transformers_serve", "llama_cpp"])
def test_a_file_of_questions_is_answered_by_a_server_as_it_is_here(at_project, request, tmp_path, program):
    source, settings = tmp_path / "in.csv", {"max_new_tokens": 48, "batch_size": 2}
    source.write_text(
        "\n".join(["question", *BENCHMARK_QUESTIONS * 4, "<|end_of_text|>은 무엇입니까?"]), encoding="utf-8"
    )
    here, there = (tmp_path / f"{name}.jsonl" for name in ("here", "there"))
    answer_file(InferenceEngine().configure(**settings).load_finetuned_model("models/merged"), source, here)
    settings |= {"engine_url": request.getfixturevalue(program), "engine_model": "models/merged"}
    answer_file(ServedEngine().configure(**settings).load_finetuned_model(), source, there)
    kept = ("line", "question", "answer", "citations", "tokens", "stopped", "error")
    expected, found = (
        [{name: json.loads(line)[name] for name in kept} for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (here, there)
    )
    assert found == expected


def wait_for(server, address):
    for _ in range(600):
        assert server.poll() is None, server.stderr.read()
        try:
            if httpx.get(address, timeout=2).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")


# --- other exports ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_half_precision_export_keeps_its_tolerance(at_project, run_export, tmp_path, precision):
    run_export("--precision", precision, "--output", tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    assert str(model.dtype) == {"bf16": "torch.bfloat16", "fp16": "torch.float16"}[precision]


@pytest.mark.slow
def test_an_adapter_of_a_4_bit_base_is_merged_into_the_base_that_was_scored(project, monkeypatch, run_export, capsys):
    monkeypatch.chdir(project)
    make_adapter(project / "models/adapter", quantization="4bit")
    run_export()
    assert "beside the adapter on its 4bit base" in capsys.readouterr().out
    manifest = json.loads((project / "models/merged/manifest.json").read_text(encoding="utf-8"))
    assert manifest["parity"]["max_logit_difference"] <= 1e-3
    assert manifest["parity_with_quantized"]["max_logit_difference"] <= 1e-3
    assert manifest["parity_with_quantized"]["equal_answers"] == manifest["parity"]["prompts"]
    assert manifest["precision"] == "fp32"


def test_without_an_adapter_nothing_is_written(project, monkeypatch, run_export):
    monkeypatch.chdir(project)
    with pytest.raises(ModelError, match="run `dvc repro finetune`"):
        run_export()
    assert not (project / "models/merged").exists()


def test_a_merge_that_answers_otherwise_is_refused_and_the_old_one_kept(at_project, run_export, monkeypatch):
    monkeypatch.setitem(answers.LOGIT_TOLERANCE, "fp32", 1e-12)
    before = Path("models/merged/manifest.json").read_bytes()
    with pytest.raises(ModelError, match="its logits differ"):
        run_export()
    assert Path("models/merged/manifest.json").read_bytes() == before
    assert not Path("models/.merged.part").exists()


def test_a_base_that_was_made_for_conversations_stays_one(project, adapter_folder, monkeypatch, run_export):
    """A base with a chat template of its own passes turns on, as adapter and as merged model alike."""
    shutil.copytree(adapter_folder, project / "models/adapter")
    path = project / "models/tiny/tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    template = (project / "models/templates/korean_plain.jinja").read_text(encoding="utf-8")
    path.write_text(json.dumps({**config, "chat_template": template}), encoding="utf-8")
    monkeypatch.chdir(project)
    run_export()
    for folder in ("models/adapter", "models/merged"):
        assert InferenceEngine().load_finetuned_model(folder).passes_turns_on()
