"""Conversations as instruction datasets hold them: OpenAI's messages, and ShareGPT's conversations."""

from dataclasses import dataclass
from typing import Any

from civilqa.reading.names import shown_names

# Source: OpenAI's chat format, and the names that ShareGPT and the tools reading it use.
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}


@dataclass(frozen=True)
class Conversation:
    """Questions with their answers in order; `last_question` is one more that has no answer."""

    system: str
    turns: list[tuple[str, str]]
    last_question: str | None


def is_messages(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, dict) and {"role", "from"} & each.keys() for each in value)


def join_messages(asked: list[Any], answered: Any) -> list[Any]:
    """Return the conversation of a prompt that is messages and a completion, which may be a text.

    Of preferences the completion may hold the prompt once more. Source: trl, dataset formats.
    """
    if not is_messages(answered):
        answered = [{"role": "assistant", "content": answered}] if answered else []
    return answered if answered[: len(asked)] == asked else [*asked, *answered]


def with_history(history: list[Any], question: str, answer: str) -> list[Any]:
    """Return the conversation of a question and its answer behind earlier ones, each a pair of texts.

    Source: LLaMA-Factory, data/README.md, `history` of the format alpaca.
    """
    pairs = [*(pair if isinstance(pair, list) else [pair] for pair in history), [question, answer]]
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=False)
    ]


def read_conversation(messages: Any) -> Conversation:
    """Return a list of messages, each with role and content, or from and value, as questions and answers.

    Raises:
        ValueError: it is no conversation of user and assistant in turn; the text says what it is, without a subject.
    """
    if not isinstance(messages, list):
        raise ValueError(f"holds {'an object' if isinstance(messages, dict) else 'text'}, want a list of messages")
    system, texts = "", []
    for number, message in enumerate(messages, start=1):
        role, text = read_message(number, message)
        if role == "system" and number == 1:
            system = text
            continue
        if role != ("user", "assistant")[len(texts) % 2]:
            raise ValueError(f"has the {role}'s message {number} out of turn; want a question, then its answer")
        texts.append(text)
    if not texts:
        raise ValueError("holds no messages")
    last_question = texts[-1] if len(texts) % 2 else None
    return Conversation(system, list(zip(texts[::2], texts[1::2], strict=False)), last_question)


def read_message(number: int, message: Any) -> tuple[str, str]:
    """Return role and text of a message.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(message, dict):
        raise ValueError(f"has a message {number} that is no object")
    role = message.get("role", message.get("from"))
    text = message.get("content", message.get("value"))
    if role is None or text is None:
        raise ValueError(f"has a message {number} without role and content (or from and value)")
    if not isinstance(role, str) or role.strip().casefold() not in ROLES:
        raise ValueError(f"has a message {number} of {shown_names([str(role)])!r}; want system, user and assistant")
    if isinstance(text, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in text):
        text = "\n".join(str(part.get("text", "")) for part in text)
    if not isinstance(text, str):
        raise ValueError(f"has a message {number} whose content is no text")
    return ROLES[role.strip().casefold()], text
