"""Conversations on disk: written only when the user asks for it, and never into git."""

from datetime import datetime
from pathlib import Path
from typing import Any

from civilqa.chat.categories import category_note
from civilqa.law.verdicts import CITATIONS_NOTE, citation_name, citation_verdict, distinct_citations
from civilqa.program.files import write_text

CONVERSATIONS = Path("data/conversations")


def save_conversation(exchanges: list[list[dict[str, Any]]], folder: Path = CONVERSATIONS) -> Path:
    """Write a conversation, for each question the results of the models asked, as Markdown; return the new file."""
    now = datetime.now()
    path = folder / f"{now:%Y-%m-%d_%H%M%S_%f}.md"
    notices = dict.fromkeys(result["notice"] for results in exchanges for result in results)
    parts = [f"# 민법 상담 대화 ({now:%Y-%m-%d %H:%M})", *notices, CITATIONS_NOTE]
    for results in exchanges:
        note = category_note(results[0])
        parts.append(f"## 질문{f' ({note})' if note else ''}\n\n{_quote(results[0]['question'])}")
        for result in results:
            parts += [f"### {result['model']}", _quote(result["answer"] or "(답변 없음)")]
            if not result["stopped"]:
                parts.append("(답변이 끝까지 나오지 않았습니다.)")
            if cited := distinct_citations(result):
                verdicts = [(*citation_verdict(citation), citation_name(citation)) for citation in cited]
                parts.append("\n".join(f"- {mark} {name}: {words}" for mark, words, name in verdicts))
    write_text(path, "\n\n".join(parts) + "\n")
    path.chmod(0o600)  # a client's case is for nobody else on this machine
    return path


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())
