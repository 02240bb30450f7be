"""A file of questions as `chat.py batch` gets one, and what it makes of it."""

import json
from pathlib import Path
from typing import Any

QUESTIONS = [f"{number}번째 질문입니다." for number in range(11)]


def write_questions(path: Path) -> Path:
    """Write the questions, all of one category, as CSV; returns the path."""
    path.write_text("질문,분야\n" + "".join(f"{question},전세사기\n" for question in QUESTIONS), encoding="utf-8")
    return path


def answered(path: Path) -> list[dict[str, Any]]:
    """Return the lines of an answer file."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]
