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


def test_what_is_clean_stays_as_it_is():
    assert [text for text in CLEANED.values() if clean(text) != text] == []
