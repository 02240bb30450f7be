"""What the page shows: texts, and answers as HTML in which nothing that a model or a user wrote does anything."""

import html
import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Any

from civilqa.dataset.records import read_records
from civilqa.law.verdicts import CITATIONS_NOTE, citation_name, citation_verdict, distinct_citations
from civilqa.program.lifecycle.safe_output import printable

TITLE = "민법 질의응답"
DISCLAIMER = (
    "**법률 자문이 아닙니다.** 언어 모델이 만든 답변이며 틀리거나 없는 조문을 댈 수 있습니다. 실제 사건은 변호사나 "
    "대한법률구조공단(국번 없이 132)과 상담하십시오. 이름, 주민등록번호, 주소 같은 개인정보는 적지 마십시오."
)
MISSING = (
    "## 아직 물어볼 모델이 없습니다\n\n학습된 어댑터가 있어야 답할 수 있습니다. 저장소 폴더에서 "
    "`dvc repro finetune`으로 학습하거나 `dvc pull`로 받은 다음, 이 화면을 연 명령"
    "(`python stages/chat.py web`)을 다시 실행하십시오."
)
EVERYONE = "공통"

EXAMPLES_A_SPLIT = 3

CLASSES = {"✓": "good", "✗": "bad", "△": "unsure", "?": "unsure"}


def escaped(text: str) -> str:
    """Return text as HTML that says the same and does nothing.

    Line ends become tags: Markdown ends an HTML block at an empty line, and would read what follows as Markdown.
    """
    return html.escape(printable(text)).replace("\n", "<br>")


def marked(text: str, citations: list[dict[str, Any]]) -> str:
    """Return an answer as HTML with each citation marked by what is known of the article."""
    text = unicodedata.normalize("NFC", text)
    parts, position = [], 0
    for start, end in dict.fromkeys((citation["start"], citation["end"]) for citation in citations):
        # A range of articles is one place in the text: it is as good as the worst of them.
        verdicts = [citation_verdict(c) for c in citations if (c["start"], c["end"]) == (start, end)]
        mark, words = min(verdicts, key=lambda verdict: "✗△?✓".index(verdict[0]))
        parts.append(escaped(text[position:start]))
        parts.append(f'<mark class="{CLASSES[mark]}" title="{escaped(words)}">{escaped(text[start:end])}</mark>')
        position = end
    return "".join([*parts, escaped(text[position:])])


def answer_html(result: dict[str, Any]) -> str:
    """Return a finished answer as one HTML block: the text, the articles it cites, how it ended."""
    lines = [marked(result["answer"], result["citations"]) or "(답변 없음)"]
    cited = distinct_citations(result)
    if cited:
        lines.append("<ul>")
        for citation in cited:
            mark, words = citation_verdict(citation)
            name = escaped(citation_name(citation))
            lines.append(f'<li class="{CLASSES[mark]}"><b>{mark} {escaped(words)}</b> {name}</li>')
        lines.append(f"</ul><small>{CITATIONS_NOTE}</small>")
    if not result["stopped"]:
        lines.append("<small>답변이 끝까지 나오지 않았습니다(멈추었거나 길이 제한).</small>")
    return block("".join(lines))


def block(content: str) -> str:
    return f'<div class="answer">{content}</div>'


def messages(exchanges: list[list[dict[str, Any]]], index: int) -> list[dict[str, str]]:
    """Return the conversation with one of the models as the chat window takes it."""
    shown = []
    for results in exchanges:
        if len(results) > index:
            shown.append({"role": "user", "content": block(escaped(results[index]["question"]))})
            shown.append({"role": "assistant", "content": answer_html(results[index])})
    return shown


def asking(question: str, answer: str) -> list[dict[str, str]]:
    """Return an exchange that is going on."""
    return [
        {"role": "user", "content": block(escaped(question))},
        {"role": "assistant", "content": block(escaped(answer) or "…")},
    ]


def example_questions(split: str, choices: Collection[str]) -> list[list[str]]:
    """Return [question, category] of a few records, from different categories as far as there are.

    A category that cannot be chosen on the page, having no system prompt of its own, is the general one there.
    """
    path = Path("data/splits") / f"{split}.jsonl"
    if not path.is_file():
        return []
    by_category: dict[str, list[list[str]]] = {}
    for record in sorted(read_records(path), key=lambda record: len(record.question)):
        by_category.setdefault(record.category, []).append(
            [record.question, record.category if record.category in choices else EVERYONE]
        )
    rounds = zip(*by_category.values(), strict=False)
    return [example for examples in rounds for example in examples][:EXAMPLES_A_SPLIT]
