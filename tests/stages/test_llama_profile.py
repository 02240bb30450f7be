"""From a hub model to answers: every stage on a checkpoint shaped like Llama-3.2-1B, served on the loopback."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load, load_file

from conftest import ROOT, edit_params
from llama_checkpoint import CHAT_TOKENS, IDS, make_checkpoint
from loopback_hub import COMMIT, LoopbackHub

BOS, EOS, PAD = (IDS[name] for name in ("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>"))
CHAT_IDS = [IDS[token] for token in CHAT_TOKENS]

# What a practitioner's own script does with the adapter, away from the project.
OUTSIDE = """
import json, sys
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer
model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
messages = [{"role": "system", "content": "상담가"}, {"role": "user", "content": "전세란?"}]
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
with torch.inference_mode():
    logits = model(**ids).logits[0, -1]
base = model.get_base_model()
embeddings, output = base.get_input_embeddings().weight, base.get_output_embeddings().weight
print(json.dumps({
    "ids": ids["input_ids"][0].tolist(),
    "tied": bool((embeddings is output) or torch.equal(embeddings, output)),
    "rope": base.config.rope_parameters["rope_type"],
    "finite": bool(logits.isfinite().all()),
    "pad": tokenizer.pad_token_id,
    "lora": sum("lora_B" in name and bool(p.abs().sum() > 0) for name, p in model.named_parameters()),
}))
"""


@pytest.fixture
def hub():
    server = LoopbackHub(make_checkpoint(ROOT / "data/raw/civil_law_qa_dataset.csv"))
    yield server
    server.close()


@pytest.fixture
def online(hub, tmp_path):
    return os.environ | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def choose(project, template, **lora):
    edit_params(
        project / "params.yaml",
        **{
            "model.profile": "mine",
            "profiles.mine": {
                "name": "someone/model",
                "revision": COMMIT,
                "template": f"models/templates/{template}.jinja",
                "pad_token": "<|finetune_right_pad_id|>",
            },
            "tuning.mine": {"rank": 4, "alpha": 8} | lora,
            "prepare.difficulties": ["초급"],
            "train.epochs": 1,
            "train.learning_rate": 0.01,
            "evaluate.max_new_tokens": 8,
            "evaluate.max_train_records": 2,
        },
    )


def run(project, environment, *stages):
    printed = ""
    for stage in stages:
        finished = subprocess.run(
            [sys.executable, f"stages/{stage}.py"],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        printed += finished.stdout
    return printed


@pytest.mark.slow
def test_a_hub_model_is_formatted_tuned_evaluated_and_loaded_from_outside(project, hub, online, tmp_path):
    choose(project, "korean_plain")
    printed = run(project, online, "prepare", "split", "format")
    assert "model.safetensors" not in hub.downloads(), "format needs no weights"
    for line in (project / "data/formatted/train.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert row["prompt_ids"][0] == BOS
        assert (row["prompt_ids"] + row["completion_ids"]).count(BOS) == 1
        assert row["completion_ids"][-1] == EOS
        assert PAD not in row["prompt_ids"] + row["completion_ids"]

    printed += run(project, online, "finetune")
    assert "special tokens of the template <|end_of_text|>: known to the base" in printed
    assert "finetune: at least" in printed
    adapter = json.loads((project / "models/adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("someone/model", COMMIT)

    # The hub is asked for nothing more: a later stage runs with the network gone.
    gone = online | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    hub.seen.clear()
    run(project, gone, "evaluate")
    assert hub.seen == []
    metrics = json.loads((project / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert metrics["test"]["adapter"]["bits_per_character"] < metrics["test"]["base"]["bits_per_character"]

    finished = subprocess.run(
        [sys.executable, "-c", OUTSIDE, str(project / "models/adapter")],
        cwd=tmp_path,
        env=online,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    seen = json.loads(finished.stdout.splitlines()[-1])
    assert seen.pop("ids").count(BOS) == 1
    assert seen == {"tied": True, "rope": "llama3", "finite": True, "pad": PAD, "lora": seen["lora"]}
    assert seen["lora"] > 0, "LoRA was trained and loaded"


@pytest.mark.slow
def test_the_chat_template_on_a_base_model_stops_before_training_or_trains_its_tokens(project, hub, online):
    choose(project, "llama3_instruct")
    run(project, online, "prepare", "split", "format")
    finished = subprocess.run(
        [sys.executable, "stages/finetune.py"],
        cwd=project,
        env=online,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert finished.returncode == 1
    assert (
        f"the chat template uses {', '.join(CHAT_TOKENS)}, which someone/model was never trained on" in finished.stderr
    )
    assert "Traceback" not in finished.stderr
    assert not (project / "models/adapter/adapter_model.safetensors").exists()

    choose(project, "llama3_instruct", trainable_token_indices=CHAT_IDS)
    printed = run(project, online, "format", "finetune", "evaluate")
    assert f"special tokens of the template {', '.join(CHAT_TOKENS)}: trained in this run" in printed
    tuned = load_file(project / "models/adapter/adapter_model.safetensors")
    rows = next(value for name, value in tuned.items() if name.endswith("trainable_tokens_delta"))
    base = load(hub.files["model.safetensors"])["model.embed_tokens.weight"][CHAT_IDS].float()
    assert rows.shape == base.shape
    assert (rows - base).norm(dim=1).min() > 0.1, "each of them was moved"
