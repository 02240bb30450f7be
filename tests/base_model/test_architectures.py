"""Bases of eight families go from raw rows to a verdict and an export, and one prompt holds all the way.

The stages are forked from processes that have done their imports: run by `python stages/NAME.py`, forty starts of torch
would be most of the time. The question of the chat and what other programs render are asked in the test's own process.
"""

import json
import re
import shutil
import signal
from dataclasses import replace

import pytest
from architectures import CHATML, EXAONE, FAMILIES, NO_THOUGHT, write_base
from transformers import AutoTokenizer

from accidents import SMALL
from civilqa.base_model.hub import check_base
from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import Prompter, load_prompter, load_tokenizer, read_formatted, read_template
from civilqa.inference import InferenceEngine
from civilqa.program.errors import PipelineError
from civilqa.program.files import read_jsonl, sha256_file
from civilqa.training.answer_loss import IGNORED_LABEL
from civilqa.training.examples import make_examples
from conftest import copy_project, edit_params
from faults import FEW_STEPS

ADAPTER = "models/adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def split(program, tmp_path_factory):
    """A project whose data was prepared and split, which no base has a part in; never to be changed."""
    folder = copy_project(tmp_path_factory.mktemp("split") / "project")
    changes = {"train.max_length": 1024, "train.overlong": "stop", "train.learning_rate": 0.01}
    edit_params(folder / "params.yaml", **SMALL | FEW_STEPS | changes)
    contrasts = folder / "data/raw/contrasts.jsonl"  # a tenth of them: each is asked of each system
    contrasts.write_text("".join(contrasts.open(encoding="utf-8").readlines()[::10]), encoding="utf-8")
    for stage in ("prepare", "split"):
        checked(program(stage).run(folder))
    return folder


def checked(ended):
    assert ended.status == 0, ended.stderr
    return ended


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def at_base(split, family, tmp_path, monkeypatch):
    """A project with a base of the family and its profile."""
    folder = tmp_path / "run"
    shutil.copytree(split, folder, symlinks=True)
    write_base(folder / "models/mine", family)
    profile = {"name": "models/mine"} | ({"pad_token": family.pad_token} if family.pad_token else {})
    tuning = {"rank": 4, "alpha": 8, "keep": "last"}
    edit_params(folder / "params.yaml", **{"model.profile": "mine", "profiles.mine": profile, "tuning.mine": tuning})
    monkeypatch.chdir(folder)
    return folder


UNKNOWN = {
    "thoughts that an answer has not": (
        {"template": EXAONE.replace("enable_thinking is defined and enable_thinking", "true")},
        {},
        r"the chat template puts '\n</think>\n\n' before an answer that the prompt has not",
    ),
    "thoughts that a prompt alone has": (
        {"template": EXAONE.replace(NO_THOUGHT, "", 1)},
        {},
        "the chat template renders the prompt in another way once it is answered",
    ),
    "no turn of the user's": (
        {"template": "{{ raise_exception('tools alone') }}"},
        {},
        "the chat template cannot be rendered: TemplateError: tools alone",
    ),
    "an answer that nothing ends": (
        {"template": CHATML.replace("<|im_end|>", "")},
        {},
        "which is no special token of",
    ),
    "code of its own": (
        {},
        {"architectures": ["ExaoneForCausalLM"], "auto_map": {"AutoModelForCausalLM": "modeling_exaone.Exaone"}},
        "asks to run code from its own repository (auto_map), which this pipeline never does",
    ),
    "an encoder beside it": (
        {},
        {"architectures": ["Gemma3ForConditionalGeneration"]},
        "its architecture is Gemma3ForConditionalGeneration, which is no causal language model",
    ),
    "a pad that ends answers": ({"pad": "[|endofturn|]"}, {}, "set the profile's pad_token to a token of its"),
}


def look_at(profile):
    """Look at a base as format does before it writes anything."""
    prompter = load_prompter(profile, "conversational")
    check_base(profile, prompter.tokenizer, prompter.template)
    return prompter.end_token_id


@pytest.mark.parametrize(("traits", "config", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_trait_that_is_unknown_is_refused_in_a_sentence(tmp_path, traits, config, said):
    write_base(tmp_path, replace(FAMILIES["exaone-4"], **traits))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | config), encoding="utf-8")
    profile = Profile(name=str(tmp_path))
    with pytest.raises(PipelineError, match=re.escape(said)):
        look_at(profile)


def check_rows(folder, family, tokenizer):
    """Look at every formatted row, and at what the loss is taken of."""
    end, pad = tokenizer.convert_tokens_to_ids([family.end, tokenizer.pad_token])
    assert pad != end
    for name in ("train", "validation", "test"):
        path = folder / f"data/formatted/{name}.jsonl"
        rows = list(read_formatted(path))
        examples, truncated = make_examples(path, rows, 1024, "stop")
        assert rows
        assert not truncated
        for row, example in zip(rows, examples, strict=True):
            system, user, answer = (message["content"] for message in row["messages"])
            prompt, completion = (tokenizer.decode(row[part]) for part in ("prompt_ids", "completion_ids"))
            assert prompt.count(system) == prompt.count(user) == 1
            assert completion.lstrip() == answer.strip() + family.end, "neither thoughts nor a second end"
            if family.bos is not None:
                assert row["prompt_ids"].count(tokenizer.bos_token_id) == family.begins
                assert row["prompt_ids"][1] != tokenizer.bos_token_id
            assert example["labels"].count(end) == 1
            assert example["labels"].count(IGNORED_LABEL) == len(row["prompt_ids"])
            assert pad not in example["input_ids"]


def check_untrained(folder, family, program):
    """A base that has not learned the token that ends answers is not trained, and the token is named."""
    write_base(folder / "models/untrained", family, (family.end,))
    edit_params(folder / "params.yaml", **{"profiles.mine.name": "models/untrained"})
    ended = program("finetune").run(folder)
    edit_params(folder / "params.yaml", **{"profiles.mine.name": "models/mine"})
    assert ended.status == 1
    assert f"the chat template uses {family.end}, which models/untrained was never trained on" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (folder / ADAPTER).exists()


def train_and_resume(folder, program):
    """Train, then again with a kill after the first epoch's checkpoint; both must come to the same adapter."""
    calm = checked(program("finetune").run(folder))
    places = {path.split("/")[2] for _, path in calm.events if "/checkpoint-" in path}
    last = max(places, key=lambda name: int(name.rpartition("-")[2]))
    event = next(number for number, (_, path) in enumerate(calm.events, start=1) if f"/{last}" in path)
    undisturbed = sha256_file(folder / ADAPTER)
    shutil.rmtree(folder / "models/adapter")
    killed = program("finetune").run(folder, fault={"signal": signal.SIGKILL, "event": event})
    assert killed.status == -signal.SIGKILL
    resumed = checked(program("finetune").run(folder))
    assert "a run was cut off; goes on from its step 2 of 4" in resumed.stdout
    assert sha256_file(folder / ADAPTER) == undisturbed


@pytest.mark.slow
def test_one_prompt_holds_from_raw_rows_to_the_export(at_base, family, program):
    said = checked(program("format").run(at_base)).stdout
    assert [line for line in said.splitlines() if "chat template" in line] == [f"format: {n}" for n in family.notes]
    assert f"answers end in {family.end}" in said
    profile = Profile(name="models/mine", pad_token=family.pad_token)
    tokenizer = load_tokenizer(profile)
    check_rows(at_base, family, tokenizer)

    check_untrained(at_base, family, program)
    train_and_resume(at_base, program)

    verdict = checked(program("evaluate").run(at_base, timeout=300)).stdout
    scores = json.loads((at_base / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert scores["test"]["adapter"]["bits_per_character"] < scores["test"]["base"]["bits_per_character"]
    assert "report: data/predictions/report.html" in verdict
    formatted = json.loads((at_base / "metrics/format.json").read_text(encoding="utf-8"))
    assert scores["asked_with"]["template"] == formatted["template_sha256"]

    exported = checked(program("export").run(at_base))
    parity = json.loads((at_base / "models/merged/manifest.json").read_text(encoding="utf-8"))["parity"]
    assert parity["equal_answers"] == parity["prompts"], exported.stdout
    check_prompts(at_base, Prompter(tokenizer, read_template(at_base / "data/formatted")).end_token_id)


def check_prompts(folder, end):
    """Training, evaluation, the chat, and whoever renders the exported template have the same tokens of a question."""
    outside = AutoTokenizer.from_pretrained(str(folder / "models/merged"))
    chats = [InferenceEngine().load_finetuned_model(place) for place in ("models/adapter", "models/merged")]
    test = list(read_jsonl(folder / "data/splits/test.jsonl"))
    rows = list(read_formatted(folder / "data/formatted/test.jsonl"))
    for record, row in zip(test, rows, strict=True):
        for chat in chats:
            assert chat._prompt(record["question"], record["category"], (), chat.params)[0] == row["prompt_ids"]
        asked = row["messages"][:-1]
        for more in ({}, {"enable_thinking": True}):
            rendered = outside.apply_chat_template(asked, add_generation_prompt=True, return_dict=False, **more)
            assert rendered == row["prompt_ids"]
    generation = json.loads((folder / "models/merged/generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == outside.eos_token_id == end
    assert generation["pad_token_id"] == outside.pad_token_id != end
    answers = [chat.generate_answer(test[0]["question"], max_new_tokens=8)["answer"] for chat in chats]
    assert answers[0] == answers[1]
