import pytest
import torch
from transformers import BertConfig, BertModel

from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.program.errors import ModelError
from civilqa.scoring.bert_score import BertScore
from conftest import ROOT


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A small random encoder on the embedded tokenizer: enough to prove the arithmetic."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = load_tokenizer(Profile(name=str(ROOT / "models/tiny"), weights="random"))
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(str(folder))
    return BertScore(str(folder), "cpu")


def test_identical_text_scores_one_and_an_empty_one_zero(encoder):
    assert encoder.score("보증금을 반환한다", "보증금을 반환한다") == pytest.approx(1)
    assert encoder.score("", "보증금을 반환한다") == 0


def test_it_is_the_f1_of_greedy_matches_and_symmetric(encoder):
    left, right = (encoder._vectors(text).tolist() for text in ("보증금을 반환한다", "임차인이 이사한다"))
    similarity = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in right] for a in left]
    precision = sum(max(row) for row in similarity) / len(similarity)
    recall = sum(max(column) for column in zip(*similarity, strict=True)) / len(similarity[0])
    expected = 2 * precision * recall / (precision + recall)
    assert encoder.score("보증금을 반환한다", "임차인이 이사한다") == pytest.approx(expected)
    assert encoder.score("임차인이 이사한다", "보증금을 반환한다") == pytest.approx(expected)
    assert expected < 1


def test_long_texts_are_cut_at_the_encoders_length(encoder):
    assert 0 < encoder.score("보증금을 반환한다. " * 200, "보증금을 반환한다.") <= 1


def test_a_folder_without_an_encoder_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        BertScore(str(tmp_path), "cpu")
