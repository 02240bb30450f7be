import csv

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import load_prompter
from civilqa.model.hardware import Hardware
from civilqa.model.loading import load_adapter, load_base, save_adapter
from civilqa.program.errors import TemplateError
from civilqa.training import special_tokens
from civilqa.training.adapter import LoraParams, make_lora_config
from civilqa.training.special_tokens import check_special_tokens, find_untrained
from conftest import ROOT
from llama_checkpoint import CHAT_TOKENS, CONFIG, IDS, make_checkpoint, make_tokenizer

CPU = Hardware("cpu", "fp32", 2)
MODEL = ModelParams(profile="mine", seed=1)
DATASET = ROOT / "data/raw/civil_law_qa_dataset.csv"
CHAT_IDS = [IDS[token] for token in CHAT_TOKENS]


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base and an instruct checkpoint: in the second the chat template's tokens are trained."""
    made = {}
    for kind in ("base", "instruct"):
        made[kind] = tmp_path_factory.mktemp(kind)
        for name, data in make_checkpoint(DATASET, kind == "instruct").items():
            if "/" not in name:
                (made[kind] / name).write_bytes(data)
    return made


def judge(folder, template, **lora):
    profile = Profile(
        name=str(folder),
        pad_token="<|finetune_right_pad_id|>",  # noqa: S106
        template=f"models/templates/{template}.jinja",
    )
    prompter = load_prompter(profile, "conversational")
    return check_special_tokens(load_base(MODEL, profile, CPU), prompter, profile, LoraParams(**lora))


def test_the_plain_template_fits_a_base_model(folders):
    assert judge(folders["base"], "korean_plain") == (
        "special tokens of the template <|end_of_text|>: known to the base"
    )


def test_the_chat_template_does_not_fit_a_base_model_and_the_error_names_token_and_remedy(folders):
    with pytest.raises(TemplateError) as caught:
        judge(folders["base"], "llama3_instruct")
    message = str(caught.value)
    assert f"the chat template uses {', '.join(CHAT_TOKENS)}, which" in message
    assert "<|begin_of_text|>" not in message, "the tokenizer itself puts it before any text"
    assert "models/templates/korean_plain.jinja, which ends answers in the base's own <|end_of_text|>" in message
    assert f"trainable_token_indices: {CHAT_IDS}" in message


def test_the_chat_template_fits_the_instruct_model(folders):
    assert judge(folders["instruct"], "llama3_instruct").endswith("<|eot_id|>: known to the base")


def test_tokens_that_this_training_trains_may_be_new_to_the_base(folders):
    line = judge(folders["base"], "llama3_instruct", trainable_token_indices=CHAT_IDS)
    assert line.endswith(f"{', '.join(CHAT_TOKENS)}: trained in this run")
    with pytest.raises(TemplateError, match=r"the chat template uses <\|eot_id\|>, which"):
        judge(folders["base"], "llama3_instruct", trainable_token_indices=CHAT_IDS[:2])
    line = judge(folders["base"], "llama3_instruct", modules_to_save=["embed_tokens"])
    assert line.endswith(": trained in this run")


def test_random_weights_are_not_judged_and_it_says_so():
    profile = Profile(name="models/tiny", weights="random", template="models/templates/llama3_instruct.jinja")
    prompter = load_prompter(profile, "conversational")
    line = check_special_tokens(load_base(MODEL, profile, CPU), prompter, profile, LoraParams())
    assert line.endswith("not judged, since the base's weights are random")


# --- the statistics --------------------------------------------------------------------------------------------------

VOCABULARY, HIDDEN = 2000, 64
RESERVED = list(range(1900, 2000))
TRAINED, NEW = 10, 11  # a token that text has moved, and one that never occurred


def matrix(common: float, noise: float, scale: float = 1.0) -> torch.Tensor:
    """Rows of which the reserved ones, and NEW, share a point at `common` and differ by `noise`."""
    generator = torch.Generator().manual_seed(1)
    weight = scale * torch.randn(VOCABULARY, HIDDEN, generator=generator)
    rows = [*RESERVED, NEW]
    point = common * torch.randn(HIDDEN, generator=generator)
    weight[rows] = point + noise * torch.randn(len(rows), HIDDEN, generator=generator)
    return weight


@pytest.mark.parametrize(
    ("common", "noise", "scale"),
    [
        (0.0, 0.0, 1.0),  # rows of zeros
        (0.0, 1e-20, 0.02),  # what weight decay left of them
        (0.5, 0.0, 1.0),  # rows that are the same to the bit
        (0.5, 0.05, 1.0),  # nearly the same
        (3.0, 0.1, 1.0),  # pushed together further out than the trained ones
        (0.01, 0.002, 0.02),
    ],
)
def test_a_row_in_the_cluster_of_reserved_tokens_is_untrained_at_any_scale(common, noise, scale):
    assert find_untrained(matrix(common, noise, scale), RESERVED, [TRAINED, NEW]) == {NEW}


def test_a_few_reserved_tokens_that_were_used_after_all_change_nothing():
    weight = matrix(0.5, 0.05)
    weight[RESERVED[:20]] = torch.randn(20, HIDDEN, generator=torch.Generator().manual_seed(2))
    assert find_untrained(weight, RESERVED, [TRAINED, NEW]) == {NEW}


def test_bfloat16_is_judged_alike():
    assert find_untrained(matrix(0.5, 0.05).to(torch.bfloat16), RESERVED, [TRAINED, NEW]) == {NEW}


def test_reserved_tokens_that_look_like_any_other_judge_nobody():
    weight = torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(3))
    assert find_untrained(weight, RESERVED, [TRAINED, NEW]) is None


def test_without_reserved_tokens_rows_near_zero_are_still_seen():
    assert find_untrained(matrix(0.0, 1e-9), [], [TRAINED, NEW]) == {NEW}
    assert find_untrained(matrix(0.5, 0.05), [], [TRAINED, NEW]) is None


@pytest.mark.slow
def test_pretraining_itself_leaves_the_tokens_that_never_occur_in_the_cluster():
    """Not made for the test: what a hundred steps of AdamW on the questions and answers do to tied embeddings."""
    with DATASET.open(encoding="utf-8", newline="") as file:
        texts = [f"{row['question']}\n{row['answer']}" for row in csv.DictReader(file)]
    begin, end = IDS["<|begin_of_text|>"], IDS["<|end_of_text|>"]
    encoded = make_tokenizer(DATASET).encode_batch(texts, add_special_tokens=False)
    stream = torch.tensor([token for text in encoded for token in (begin, *text.ids, end)])
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    torch.set_num_threads(1)  # matrices this small lose time to more
    for _ in range(100):
        starts = torch.randint(0, len(stream) - 65, (8,)).tolist()
        batch = torch.stack([stream[start : start + 64] for start in starts])
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.set_num_threads(2)
    reserved = [i for token, i in IDS.items() if "reserved" in token]
    assert find_untrained(model.get_input_embeddings().weight, reserved, [begin, end, *CHAT_IDS]) == set(CHAT_IDS)


@pytest.mark.parametrize(
    ("name", "is_free"),
    [
        ("<|reserved_special_token_17|>", True),
        ("<unused42>", True),
        ("[PAD7]", True),
        ("[control_8]", True),  # Mistral's
        ("<SPECIAL_20>", True),
        ("[PAD]", False),
        ("[INST]", False),
        ("[control_plane]", False),
    ],
)
def test_places_that_tokenizers_keep_free_are_known_by_their_names(name, is_free):
    assert bool(special_tokens.RESERVED.search(name)) == is_free


# --- training single tokens ------------------------------------------------------------------------------------------


def test_rows_that_are_trained_alone_are_saved_loaded_and_merged_tied(folders, tmp_path):
    profile = Profile(name=str(folders["base"]))
    lora = make_lora_config(LoraParams(trainable_token_indices=CHAT_IDS), None)
    model = get_peft_model(load_base(MODEL, profile, CPU), lora)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1 if "trainable_tokens" in name else 0.01)
    model.eval()
    ids = torch.tensor([[5, *CHAT_IDS, 7]])
    with torch.inference_mode():
        before = model(ids).logits
    save_adapter(model, tmp_path / "adapter")
    loaded = load_adapter(load_base(MODEL, profile, CPU), tmp_path / "adapter")
    merged = load_adapter(load_base(MODEL, profile, CPU), tmp_path / "adapter").merge_and_unload()
    with torch.inference_mode():
        assert torch.equal(loaded(ids).logits, before)
        assert torch.allclose(merged(ids).logits, before, atol=1e-4)
    assert merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert (tmp_path / "adapter/adapter_model.safetensors").stat().st_size < 200_000, "not the whole embeddings"
