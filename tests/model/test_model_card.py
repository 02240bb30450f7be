import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id

from civilqa.base_model.categories import Category
from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.model.model_card import write_adapter_card, write_merged_card
from civilqa.model.provenance import Adapter, Manifest, MergedManifest

REVISION = "0123456789abcdef0123456789abcdef01234567"
HUB = {"weights": "hub", "name": "someone/base-model", "revision": REVISION}
RANDOM = {"weights": "random", "seed": 1, "config_sha256": "0" * 64}
FACTS = {
    "data": {"records": {"train": 43, "validation": 5}},
    "training": {"learning_rate": 1e-4},
    "metrics": {"train_last": 0.5},
}

CATEGORIES = {
    "": Category(system_prompt="상담가", records=1),
    "전세사기": Category(system_prompt="전세 전문가", records=2, questions=["질문"]),
}


def test_the_card_of_a_hub_base_names_it_with_its_revision(tmp_path):
    write_adapter_card(tmp_path, FACTS, HUB, CATEGORIES, "고지")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == "someone/base-model"
    assert card.data.library_name == "peft"
    assert card.data.language == "ko"
    assert REVISION in card.text
    assert "AutoPeftModelForCausalLM" in card.text
    for said in ("| records: train | 43 |", "| learning_rate | 0.0001 |", "| train_last | 0.5 |", "> 고지"):
        assert said in card.text


def test_the_card_says_that_it_is_no_legal_advice(tmp_path):
    write_adapter_card(tmp_path, FACTS, RANDOM, CATEGORIES, "고지")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "법률 자문이 아닙니다" in text
    assert "no legal advice" in text


def test_the_card_of_a_base_that_is_not_on_the_hub_promises_no_download(tmp_path):
    write_adapter_card(tmp_path, FACTS, RANDOM, CATEGORIES, "고지")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model is None
    assert "AutoPeftModelForCausalLM" not in card.text


def test_the_card_s_bytes_depend_on_what_it_says_alone(tmp_path):
    for name in "ab":
        write_adapter_card(tmp_path / name, FACTS, HUB, CATEGORIES, "고지")
    assert (tmp_path / "a/README.md").read_bytes() == (tmp_path / "b/README.md").read_bytes()


def check_for_the_hub(card, base, licence):
    """Check what the hub asks of a card's head; it checks more only when it is asked over the network."""
    data = card.data
    assert (data.base_model, data.license, data.language, data.metrics) == (
        base,
        licence,
        "ko",
        ["bits_per_character", "chrf", "rouge"],
    )
    for name in [*data.datasets, *([base] if base else [])]:
        validate_repo_id(name)
    assert card.content.startswith("---\n")


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("meta-llama/Llama-3.2-1B", "llama3.2"),
        ("google/gemma-3-270m", "gemma"),
        ("someone/base-model", "other"),
        (None, "other"),
    ],
)
def test_the_hub_finds_licence_base_data_language_and_metrics_in_both_cards(tmp_path, merged_card, name, licence):
    write_adapter_card(tmp_path / "adapter", FACTS, HUB | {"name": name} if name else RANDOM, CATEGORIES, "고지")
    check_for_the_hub(ModelCard.load(tmp_path / "adapter/README.md"), name, licence)
    profile = Profile(name=name, revision=REVISION) if name else Profile(name="models/tiny", weights="random")
    check_for_the_hub(merged_card(profile), name, licence)


def test_the_hub_finds_the_scores_of_the_merged_model(merged_card):
    write_metrics(evaluate=EVALUATION)
    (result,) = merged_card(Profile(name="someone/base-model", revision=REVISION)).data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("chrf", 1.25, "civil-law-qa")


# --- merged models ---------------------------------------------------------------------------------------------------

MADE_FROM = {"base": HUB, "quantization": "none", "tokenizer": {}, "template_sha256": "0" * 64, "data": {}}
MERGED = MergedManifest(
    **MADE_FROM,
    adapter={},
    conversational=False,
    precision="bf16",
    parity={"prompts": 6, "max_logit_difference": 0.25, "equal_answers": 5, "tolerance": 1.0},
    versions={},
)
CHANGE = {"mean": 0.25, "low": -0.1, "high": 0.6, "verdict": "undecided"}
EVALUATION = {
    "adapter_sha256": "a",
    "test": {"n": 12, "base": {"chrf": 1.0, "rouge_l": 0.5}, "adapter": {"chrf": 1.25}},
    "difference": {"base": {"chrf": CHANGE, "rouge_l": CHANGE}},
}
TRAINING = {
    "adapter_sha256": "a",
    "preset": "fast",
    "records": {"train": 43},
    "schedule": {"epochs": 2.0, "learning_rate": 1e-4, "batch_size": 8, "quantization": "none"},
}


@pytest.fixture
def merged_card(tmp_path, monkeypatch):
    """Writes the card of a model merged from an adapter whose weights have the hash `a`, and returns it."""
    monkeypatch.chdir(tmp_path)

    def write(profile):
        adapter = Adapter(
            Path("models/adapter"),
            Manifest(**MADE_FROM, files={"adapter_model.safetensors": "a"}),
            ModelParams(profile="mine", seed=1),
            profile,
        )
        write_merged_card(tmp_path, adapter, CATEGORIES, MERGED)
        return ModelCard.load(tmp_path / "README.md")

    return write


def write_metrics(**files):
    Path("metrics").mkdir(exist_ok=True)
    for name, content in files.items():
        Path(f"metrics/{name}.json").write_text(json.dumps(content), encoding="utf-8")


def test_the_merged_card_says_what_it_is_and_how_it_is_asked(merged_card):
    card = merged_card(Profile(name="someone/base-model", revision=REVISION))
    assert card.data.base_model == "someone/base-model"
    assert card.data.library_name == "transformers"
    for said in (
        f"`someone/base-model` at {REVISION} (profile `mine`), in bf16.",
        "by at most\n0.25 (tolerance 1), and 5 of\n6 answers",
        "- (no category) (1 records): 상담가\n- 전세사기 (2 records): 전세 전문가\n",
        '"content": "전세 전문가"}',  # the prompt that most training records had
        "No legal advice",
    ):
        assert said in card.text


def test_the_merged_card_of_a_folder_names_no_base_on_the_hub(merged_card):
    Path("base").mkdir()
    assert merged_card(Profile(name="base")).data.base_model is None
    assert merged_card(Profile(name="base", weights="random")).data.base_model is None


def test_the_merged_card_shows_the_scores_of_its_own_adapter_that_base_and_adapter_have(merged_card):
    write_metrics(evaluate=EVALUATION, finetune=TRAINING)
    card = merged_card(Profile(name="someone/base-model", revision=REVISION))
    assert "12 test questions" in card.text
    assert "| chrf | 1.000 | 1.250 | +0.250 [-0.100, +0.600] | undecided |\n\nTraining: 43 records" in card.text
    assert "preset `fast`, 2 epochs, learning rate 0.0001, batch 8, base quantization none." in card.text
    assert "rouge_l" not in card.text


def test_the_merged_card_shows_no_figures_of_another_adapter(merged_card):
    profile = Profile(name="someone/base-model", revision=REVISION)
    write_metrics(evaluate={**EVALUATION, "adapter_sha256": "b"}, finetune=TRAINING)
    text = merged_card(profile).text
    assert "Not evaluated" in text
    assert "Training: " in text
    write_metrics(evaluate=EVALUATION, finetune={**TRAINING, "adapter_sha256": "b"})
    text = merged_card(profile).text
    assert "Not evaluated" not in text
    assert "Training: " not in text
