import unicodedata

from civilqa.reading.cleaning import clean

CLEANED = {
    "  두   칸  ": "두 칸",
    "한\u00a0칸\u3000넓은 칸": "한 칸 넓은 칸",
    "가\u200b나\ufeff다": "가나다",
    "가\x00나\x07다": "가 나 다",
    "첫째\r\n둘째\r셋째": "첫째\n둘째\n셋째",
    "가\n\n\n\n나": "가\n\n나",
    "가 \n 나": "가\n나",
    unicodedata.normalize("NFD", "민법"): "민법",
    "①항 ㎡ Ⅳ": "①항 ㎡ Ⅳ",
}


def test_text_is_cleaned():
    assert {text: clean(text) for text in CLEANED} == CLEANED


def test_a_text_without_hidden_characters_is_cleaned_like_any_other():
    # A text with NUL in it goes the long way, and NUL at its end leaves nothing.
    for code in range(0x110000):
        text = f" 가{chr(code)}  나 {chr(code)}"
        if code % 64 == 0 or code < 0x3100:
            assert clean(text) == clean(f"{text}\0"), hex(code)


def test_what_is_clean_stays_as_it_is():
    assert [text for text in CLEANED.values() if clean(text) != text] == []
