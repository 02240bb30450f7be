import json

import pytest
from transformers import AutoModelForCausalLM, FalconH1Config, Gemma2Config, Lfm2Config, MambaConfig

from civilqa.base_model.hub import check_base, context_length, published_dtype, read_config
from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.model.hardware import Hardware
from civilqa.model.loading import load_base, read_architecture
from civilqa.program.errors import ModelError
from conftest import ROOT
from llama_checkpoint import CONFIG, IDS, make_checkpoint

DATASET = ROOT / "data/raw/civil_law_qa_dataset.csv"
CPU = Hardware("cpu", "fp32", 2)
MODEL = ModelParams(profile="mine", seed=1)
PAD = "<|finetune_right_pad_id|>"


@pytest.fixture(scope="module")
def checkpoint():
    return make_checkpoint(DATASET)


@pytest.fixture
def folder(tmp_path, checkpoint):
    """The checkpoint as a folder of the user's own."""
    for name, data in checkpoint.items():
        if "/" not in name:
            (tmp_path / name).write_bytes(data)
    return tmp_path


def profile_of(folder, **changes):
    return Profile(name=str(folder), pad_token=PAD, **changes)


def change_config(folder, **changes):
    (folder / "config.json").write_text(json.dumps(CONFIG | changes), encoding="utf-8")


def test_a_folder_of_ones_own_is_a_base(folder):
    profile = profile_of(folder)
    assert check_base(profile, load_tokenizer(profile), "{{ eos_token }}") == f"base {folder}, weights on this disk"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}},
            r"asks to run code from its own repository \(auto_map\).*transformers has LlamaForCausalLM itself: copy",
        ),
        (
            {"architectures": ["EvilForCausalLM"], "auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}},
            r"asks to run code .*; take a model whose architecture transformers has",
        ),
        (
            {"architectures": ["EvilForCausalLM"]},
            "its architecture is EvilForCausalLM, which is no causal language model",
        ),
        ({"architectures": ["BertForMaskedLM"]}, "its architecture is BertForMaskedLM, which is no causal"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "which is no causal language model"),
        ({"architectures": None}, "its architecture is not named"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"its weights are quantised already \(gptq\)"),
        (
            {"vocab_size": IDS[PAD]},
            f"has embeddings for {IDS[PAD]} tokens, and the tokenizer in .* has ids up to {IDS[PAD]}",
        ),
    ],
)
def test_a_base_that_cannot_be_trained_here_is_refused(folder, changes, message):
    change_config(folder, **changes)
    profile = profile_of(folder)
    with pytest.raises(ModelError, match=message):
        check_base(profile, load_tokenizer(profile), "{{ eos_token }}")


@pytest.mark.parametrize(
    "config",
    [
        Lfm2Config(num_hidden_layers=2, layer_types=["conv", "full_attention"]),
        MambaConfig(),
        FalconH1Config(num_hidden_layers=2),
    ],
)
def test_a_base_whose_layers_are_not_attention_alone_is_refused(folder, config):
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["LlamaForCausalLM"]}), "utf-8")
    profile = profile_of(folder)
    with pytest.raises(ModelError, match=r"has layers of the kind .* which remember what they read as no attention"):
        read_architecture(profile)


def test_how_much_a_base_reads_is_known_by_whatever_name_it_has(folder):
    change_config(folder)
    assert context_length(profile_of(folder)) == CONFIG["max_position_embeddings"]
    gpt2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    (folder / "config.json").write_text(json.dumps(gpt2 | {"n_positions": 512}), encoding="utf-8")
    assert context_length(profile_of(folder)) == 512
    (folder / "config.json").write_text(json.dumps(gpt2), encoding="utf-8")
    with pytest.raises(ModelError, match="says no max_position_embeddings; add the number"):
        context_length(profile_of(folder))


@pytest.mark.parametrize(("given", "found"), [({"dtype": "bfloat16"}, "bfloat16"), ({}, None)])
def test_the_type_that_weights_are_published_in_is_that_of_the_file(folder, given, found):
    older = {"torch_dtype": given["dtype"]} if given else {}
    for fields in (given, older):
        kept = {name: value for name, value in CONFIG.items() if name not in ("dtype", "torch_dtype")}
        (folder / "config.json").write_text(json.dumps(kept | fields), encoding="utf-8")
        assert published_dtype(profile_of(folder)) == found


def test_a_base_that_has_no_fused_attention_is_loaded_with_its_own(tmp_path):
    """Gemma 2 caps its scores, which SDPA cannot."""
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Gemma2Config(**size, num_key_value_heads=1, head_dim=16, vocab_size=64, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    base = load_base(MODEL, Profile(name=str(tmp_path)), CPU)
    assert base.config._attn_implementation == "eager"


def test_a_special_token_without_an_embedding_is_let_be_unless_the_template_uses_it(folder):
    profile = profile_of(folder)
    tokenizer = load_tokenizer(profile)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    assert check_base(profile, tokenizer, "{{ eos_token }}").startswith("base ")
    with pytest.raises(ModelError, match="has ids up to 1280"):
        check_base(profile, tokenizer, "<image>{{ eos_token }}")
    tokenizer.add_tokens(["새말"])
    with pytest.raises(ModelError, match="has ids up to 1281"):
        check_base(profile, tokenizer, "{{ eos_token }}")


@pytest.mark.parametrize("text", ["", "[]", "{'architectures'}", '{"architectures": 3}'])
def test_a_configuration_that_cannot_be_read_is_named(folder, text):
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"config.json: no model configuration"):
        read_config(profile_of(folder))


def test_code_from_a_repository_is_not_run_when_the_base_is_loaded(folder, monkeypatch):
    marker = folder / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    change_config(folder, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
    with pytest.raises(ModelError, match="auto_map"):
        load_base(MODEL, profile_of(folder), CPU)
    assert not marker.exists()


def test_a_cut_off_file_of_weights_is_an_error(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=f"the base model '{folder}' cannot be loaded"):
        load_base(MODEL, profile_of(folder), CPU)


def test_weights_that_the_files_do_not_hold_are_not_drawn_at_random(folder):
    change_config(folder, num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"hold no weights that fit model.layers.2"):
        load_base(MODEL, profile_of(folder), CPU)


def test_weights_of_another_shape_are_an_error(folder):
    change_config(folder, intermediate_size=256)
    with pytest.raises(ModelError, match=f"the base model '{folder}'"):
        load_base(MODEL, profile_of(folder), CPU)


def test_a_llama_3_2_checkpoint_is_read_as_what_it_is(folder):
    base = load_base(MODEL, profile_of(folder), CPU)
    rope = base.config.rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("llama3", 32.0, 500000.0)
    assert base.get_input_embeddings().weight is base.get_output_embeddings().weight


def test_its_tokenizer_pads_with_the_token_made_for_it_and_says_so_where_none_is_set(folder):
    tokenizer = load_tokenizer(profile_of(folder))
    assert tokenizer.pad_token_id == IDS[PAD] != tokenizer.eos_token_id == IDS["<|end_of_text|>"]
    with pytest.raises(ModelError, match=rf"set the profile's pad_token to .* such as {PAD}".replace("|", r"\|")):
        load_tokenizer(Profile(name=str(folder)))
