"""What the page shows: answers and examples, as HTML in which nothing that a model or a user wrote does anything."""

import unicodedata
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from civilqa.dataset.records import read_records
from civilqa.law.statutes import EXISTS
from civilqa.law.verdicts import CITATIONS_NOTE, citation_name, citation_verdict, distinct_citations
from civilqa.program.lifecycle.safe_output import printable

EVERYONE = "공통"
EXAMPLES_A_SPLIT = 3
EXAMPLES = {"train": "예시: 모델이 학습한 질문", "test": "예시: 모델이 처음 보는 질문"}
CLASSES = {"✓": "good", "✗": "bad", "△": "unsure", "?": "unsure"}

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)


def answer_html(result: dict[str, Any]) -> str:
    """Return a finished answer: the text with its citations marked, the articles that it cites, how it ended."""
    cited = []
    for citation in distinct_citations(result):
        mark, words = citation_verdict(citation)
        link = law_link(citation) if citation["status"] == EXISTS else None
        cited.append((CLASSES[mark], mark, words, citation_name(citation), link))
    return TEMPLATES.get_template("answer.html.jinja").render(
        parts=parts(result["answer"], result["citations"]), cited=cited, note=CITATIONS_NOTE, stopped=result["stopped"]
    )


def parts(text: str, citations: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return an answer in pieces: text, and for a citation its class and what is known of the article."""
    text = unicodedata.normalize("NFC", text)
    pieces, position = [], 0
    for start, end in dict.fromkeys((citation["start"], citation["end"]) for citation in citations):
        # A range of articles is one place in the text: it is as good as the worst of them.
        verdicts = [citation_verdict(c) for c in citations if (c["start"], c["end"]) == (start, end)]
        mark, words = min(verdicts, key=lambda verdict: "✗△?✓".index(verdict[0]))
        pieces += [(text[position:start], "", ""), (text[start:end], CLASSES[mark], words)]
        position = end
    return [(printable(piece), *rest) for piece, *rest in [*pieces, (text[position:], "", "")] if piece]


def law_link(citation: dict[str, Any]) -> str:
    """Return the address of an article's text. Source: 국가법령정보센터's short addresses, /법령/<act>/<article>."""
    return f"https://www.law.go.kr/{quote('법령')}/{quote(citation['law'])}/{quote(citation['article'])}"


def example_questions(split: str, choices: Collection[str]) -> list[tuple[str, str]]:
    """Return (question, category) of a few records, from different categories as far as there are.

    A category that cannot be chosen on the page, having no system prompt of its own, is the general one there.
    """
    path = Path("data/splits") / f"{split}.jsonl"
    if not path.is_file():
        return []
    by_category: dict[str, list[tuple[str, str]]] = {}
    for record in sorted(read_records(path), key=lambda record: len(record.question)):
        category = record.category if record.category in choices else EVERYONE
        by_category.setdefault(record.category, []).append((printable(record.question), category))
    rounds = zip(*by_category.values(), strict=False)
    return [example for examples in rounds for example in examples][:EXAMPLES_A_SPLIT]
