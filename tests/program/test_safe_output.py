"""Text is made fit to be shown: what a terminal would obey and what is secret are gone, all else stays as it is."""

from civilqa.program.lifecycle.safe_output import printable, without_secrets

# As long as a real one, and put together here so that no scanner takes this file for the leak that it looks for.
HUB_TOKEN = "hf_" + "Sentinel0" * 4
ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b1mC1\u202e\u2066"


def test_a_token_that_is_in_no_variable_is_not_shown_either(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert without_secrets(f"Bearer {HUB_TOKEN}") == "Bearer <hidden>"


def test_what_is_no_secret_is_shown_as_it_is():
    for text in ("https://huggingface.co/a/b", "a@b.kr 10:30", "/home/a/.cache", "보증금 1억 원"):
        assert without_secrets(text) == text
        assert printable(text) == text


def test_control_characters_and_changes_of_direction_are_not_printed():
    assert printable(f"{ESCAPES}가\r나\n다\t라\u2028") == "[31mred]0;title1mC1가나\n다\t라"
