import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from civilqa.base_model import words
from civilqa.base_model.words import PARTED_AT_SPACES, WordEncoder, is_parted_at_spaces
from conftest import ROOT

EMBEDDED = json.loads((ROOT / "models/tiny/tokenizer.json").read_text(encoding="utf-8"))
PIECES = [
    " ",
    "  ",
    "\n",
    "\t",
    "\u3000",
    "\x1c",
    "가",
    "임차인은",
    "제3조의2",
    "1234",
    ".",
    "(",
    "'s",
    "Don't",
    "é",
    "한글A",
]
TEXTS = st.lists(st.sampled_from([*PIECES, "<|end_of_text|>", "<|eot_id|>"]), max_size=12).map("".join)


def make_tokenizer(change=lambda parts: None, pattern=PARTED_AT_SPACES[0]):
    made = json.loads(json.dumps(EMBEDDED))
    # Tokens across white space, of which the embedded tokenizer has too few to show a wrong cut.
    for pair in (["Ġ", "Ġ"], ["Ġ", "ĉ"], ["ĉ", "Ġ"], ["Ċ", "Ġ"], ["Ġ", "Ċ"]):
        if "".join(pair) not in made["model"]["vocab"]:
            made["model"]["vocab"]["".join(pair)] = len(made["model"]["vocab"])
            made["model"]["merges"].append(pair if isinstance(made["model"]["merges"][0], list) else " ".join(pair))
    made["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    change(made)
    return Tokenizer.from_str(json.dumps(made))


def whole(tokenizer, texts):
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("pattern", PARTED_AT_SPACES, ids=["embedded", "llama3"])
def test_the_tokens_of_its_words_are_those_of_the_whole_text(pattern):
    tokenizer = make_tokenizer(pattern=pattern)
    encoder = WordEncoder(tokenizer)
    assert encoder.by_word

    @settings(max_examples=200)
    @given(st.lists(TEXTS | st.text(max_size=20).filter(lambda text: text.isprintable()), max_size=4))
    def same(texts):
        assert encoder.encode(texts) == whole(tokenizer, texts)

    same()
    assert [*encoder.known.values()] == whole(tokenizer, [*encoder.known])


def test_a_word_is_looked_at_once(monkeypatch):
    encoder = WordEncoder(make_tokenizer())
    asked = []
    encode = encoder._encode
    monkeypatch.setattr(encoder, "_encode", lambda texts: asked.extend(texts) or encode(texts))
    encoder.encode(["임차인은 이사할 수 있다.", "임대인은 이사할 수 없다."])
    encoder.encode(["임차인은 이사할 수 없다."])
    assert sorted(asked) == sorted(["임차인은", "임대인은", " 이사할", " 수", " 있다.", " 없다."])


def test_no_more_is_remembered_than_said(monkeypatch):
    monkeypatch.setattr(words, "REMEMBERED", 100)
    tokenizer = make_tokenizer()
    encoder = WordEncoder(tokenizer)
    for number in range(100):
        text = f"제{number}조에 따라 청구합니다."
        assert encoder.encode([text]) == whole(tokenizer, [text])
        assert sum(map(len, encoder.known)) <= 100 + len(text)


def whole_text(made):
    made["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def other_pattern(made):
    made["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{L}+ \p{L}+|.|\s"


def prefix_space(made):
    made["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True


def normalizer(made):
    made["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def dropout(made):
    made["model"]["dropout"] = 0.1


@pytest.mark.parametrize("change", [whole_text, other_pattern, prefix_space, normalizer, dropout])
def test_a_tokenizer_that_looks_across_spaces_gets_whole_texts(change):
    tokenizer = make_tokenizer(change)
    assert not is_parted_at_spaces(tokenizer)
    encoder = WordEncoder(tokenizer)
    if change is not dropout:  # which is not the same twice
        texts = ["가 나 다", "임차인은  이사할 수 있다."]
        assert encoder.encode(texts) == whole(tokenizer, texts)
    assert not encoder.known


@pytest.mark.parametrize("token", [AddedToken("<|right|>", rstrip=True), AddedToken("<|a b|>"), AddedToken("임대 ")])
def test_a_special_token_that_takes_a_space_in_stands_in_the_way(token):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens([token])
    assert not is_parted_at_spaces(tokenizer)
    text = f"가 {token.content} 나 <|right|> 다"
    assert WordEncoder(tokenizer).encode([text]) == whole(tokenizer, [text])
