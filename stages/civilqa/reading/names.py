"""What columns are called: the names that need no mapping, and how names of a file may be shown."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from civilqa.reading.personal_data import mask_personal_data

# In the order of preference, without spaces and punctuation. What only sometimes names a question or an answer
# (title, text, label, 내용, 구분) is not among them: a wrong guess would train on it.
KNOWN: dict[str, tuple[str, ...]] = {
    "question": (
        *("question", "질문", "문의", "질의", "물음", "문", "query", "prompt", "instruction", "instruct", "input"),
        *("q", "user", "human"),
    ),
    "answer": (
        *("answer", "답변", "답", "회신", "회답", "응답", "response", "completion", "output", "reply", "chosen"),
        *("a", "assistant", "gpt"),
    ),
    "category": ("category", "분야", "카테고리", "분류"),
    "difficulty": ("difficulty", "난이도", "난도"),
}
# What is a name only beside the other one.
PAIRED = {"문": "답"}
for one, other in (("q", "a"), ("user", "assistant"), ("human", "gpt")):
    PAIRED |= {one: other, other: one}
# 상담질문, 질의요지 and question_text are named by the word in them; 답변일 and 질문제목 are something else.
# Who asks may stand before a question alone: 고객답변 and user_answer are what the asker said.
WORDS, ASKING = (
    "|".join(sorted(words, key=len, reverse=True))
    for words in ([word for words in KNOWN.values() for word in words], KNOWN["question"])
)
NAME = re.compile(
    rf"(?:(?:상담|법률|민원|질문(?=분))?({WORDS})|(?:고객|사용자|user)({ASKING}))s?"
    r"(?:내용|사항|요지|본문|원문|문|글|text|contents?|body|kor?|kr|korean)?"
)
# What belongs to an instruction. Source: the fields of Stanford Alpaca and of Databricks Dolly.
CONTEXT = ("input", "context")
CHAT = ("messages", "conversations", "conversation")

NAMES_SHOWN = 20
LONGEST_NAME = 40

# How a Korean or any other sentence ends; a column name does not.
SENTENCE = re.compile(r"(?:니다|니까|시오|세요|어요|아요|나요|까요|가요|은요|는요|지요|죠)[.?!\s]*$|[.?!]\s*$")


def plain(name: str) -> str:
    """Return a column name by which it is looked up: NFC, small letters, without spaces, signs and what is in brackets.

    '질문 내용(필수)' is 질문내용.
    """
    name = unicodedata.normalize("NFC", name).casefold()
    outside = re.sub(r"[(\[（].*?[)\]）]", "", name)
    return re.sub(r"[\W_]", "", outside) or re.sub(r"[\W_]", "", name)


@lru_cache(maxsize=4096)  # thousands of files have the same names
def word_in(name: str) -> str:
    """Return the known word that a column is named by; where there is none, its plain name."""
    name = plain(name)
    match = NAME.fullmatch(name)
    return match[1] or match[2] if match else name


def is_known(name: str) -> bool:
    """Tell whether a column name is one that needs no mapping."""
    return any(word_in(name) in words for words in KNOWN.values())


def shown_names(names: Iterable[str]) -> str:
    """Return column names as a message may print them: what may be data of a person is masked or not shown."""
    names = [name for name in names if name]
    shown = [
        f"(text of {len(name)} characters)" if is_text(name) else mask_personal_data(name)[0]
        for name in names[:NAMES_SHOWN]
    ]
    return ", ".join(shown) + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def shown_place(name: str) -> str:
    """Return the name of a file, a sheet or a part of one as messages and reports may hold it."""
    return mask_personal_data(name)[0]


def is_data(cells: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Tell whether the cells of a line are a row of the table rather than its column names.

    They are if one is no name, or stands in its column again further down.
    """
    for number, cell in enumerate(cells):
        text = cell.strip()
        if text and (is_text(text) or any(number < len(row) and row[number].strip() == text for row in below)):
            return True
    return False


def is_text(name: str) -> bool:
    """Tell whether what should be a name is a sentence, too long for one, an address or a number of many digits."""
    return len(name) > LONGEST_NAME or bool(SENTENCE.search(name) or re.search(r"\d{4}|@", name))


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
