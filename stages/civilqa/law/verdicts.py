"""What is known of the articles that a text cites, and what that is called.

The table knows six statuses (`civilqa.law.statutes`). An asker sees each as a mark with words; scores, predictions and
the report put them into four kinds, by what they say of an answer.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from civilqa.law.citations import judge_citation, parse_citations
from civilqa.law.places import Citation
from civilqa.law.statutes import (
    DELETED,
    EXISTS,
    NO_SUCH_ARTICLE,
    NO_SUCH_PARAGRAPH,
    NOT_YET_IN_FORCE,
    OUTSIDE_TABLE,
    Reference,
    load_reference,
    same_title,
    title_words,
)

Article = tuple[str, str]  # act and article: ("주택임대차보호법", "제3조의2")


class Verdict(NamedTuple):
    """How a status is shown beside an answer, and the kind that it is counted as."""

    mark: str
    words: str
    kind: str


VERDICTS = {
    EXISTS: Verdict("✓", "있는 조문", "valid"),
    NO_SUCH_ARTICLE: Verdict("✗", "없는 조문(지어낸 인용)", "invented"),
    NO_SUCH_PARAGRAPH: Verdict("✗", "없는 항(조문은 있음)", "invented"),
    DELETED: Verdict("✗", "삭제된 조문", "deleted"),
    NOT_YET_IN_FORCE: Verdict("△", "아직 시행되지 않은 조문", "valid"),
    OUTSIDE_TABLE: Verdict("?", "확인하지 못함(조문표에 없는 법령)", "outside"),
}
# The kinds, as the report calls them.
KINDS = {
    "valid": "있는 조문",
    "invented": "없는 조문",
    "deleted": "삭제된 조문",
    "outside": "표에 없는 법령 (확인 못 함)",
}
CITATIONS_NOTE = "조문이 있는지만 확인한 표시입니다. 질문에 맞는 조문인지, 내용이 정확한지는 확인하지 않습니다."


# --- Each citation by its place --------------------------------------------------------------------------------------


def title_matches(citation: Citation, reference: Reference) -> bool | None:
    """Whether the bracketed title is the article's official one; None where the text or the table has none.

    A part of it, or it with a word more (불법행위, 사기죄), is no other title, and a number (10년) is none.
    """
    official = reference.title(citation.law, citation.article)
    if citation.title is None or official is None or citation.former:
        return None
    if same_title(citation.title, official):
        return True
    written, whole = (title_words(title) for title in (citation.title, official))
    if any(char.isdecimal() for char in citation.title) or (
        len(written) > 1 and (written in whole or whole in written)
    ):
        return None
    return False


class LookedUp(TypedDict):
    """A citation with what the table knows of its article.

    `text` is what stands from `start` to `end` in the NFC form of the answer, `paragraph` its 항, if any, `status` one
    of the constants of `civilqa.law.statutes` (`exists`, `no_such_article`, `deleted`, ...), `title` the article's
    official title, `title_matches` whether a title in the text is that one (None: it gives none).
    """

    text: str
    law: str
    article: str
    paragraph: int | None
    status: str
    title: str | None
    title_matches: bool | None
    start: int
    end: int


def look_up_citations(text: str) -> list[LookedUp]:
    """Return every citation of a text in order, looked up in the table of acts; not those that the text denies."""
    reference = load_reference()
    normal = unicodedata.normalize("NFC", text)
    return [
        {
            "text": normal[citation.start : citation.end],
            "law": citation.law,
            "article": citation.article,
            "paragraph": citation.paragraph,
            "status": judge_citation(citation, reference),
            "title": reference.title(citation.law, citation.article),
            "title_matches": title_matches(citation, reference),
            "start": citation.start,
            "end": citation.end,
        }
        for citation in parse_citations(text)
        if not citation.denied
    ]


def invented_paragraph(citation: LookedUp) -> str:
    """Return the 항 of a citation where the article has none such: ` 제15항`, else nothing."""
    return f" 제{citation['paragraph']}항" if citation["status"] == NO_SUCH_PARAGRAPH else ""


def citation_name(citation: LookedUp) -> str:
    """Return a citation's act, article and official title: 민법 제750조(불법행위의 내용), and its 항 if invented."""
    title = f"({citation['title']})" if citation["title"] else ""
    return f"{citation['law']} {citation['article']}{title}{invented_paragraph(citation)}"


def citation_verdict(citation: LookedUp) -> tuple[str, str]:
    """Return the mark and the words for a citation."""
    mark, words, _ = VERDICTS[citation["status"]]
    if citation["title_matches"] is False:
        return "△", f"{words}, 답변에 적힌 제목은 다름"
    return mark, words


def distinct_citations(result: dict[str, Any]) -> list[LookedUp]:
    """Return the `citations` of an answer's result, each article once, in the order of their last mention."""
    return list({(citation_name(c), citation_verdict(c)): c for c in reversed(result["citations"])}.values())[::-1]


class CitationMark(TypedDict):
    """A citation as predictions hold it, by its place in the NFC text; `kind` is one of KINDS.

    `article` has the 항 where it is that which is invented: `제3조 제15항`.
    """

    start: int
    end: int
    law: str
    article: str
    kind: str
    mistitled: bool


def mark_citations(text: str, allowed: Iterable[Article] = ()) -> list[CitationMark]:
    """Return the mark of every citation of a text in order.

    Args:
        allowed: articles that are neither invented nor deleted whatever the table says: an answer to a question about
            an article that does not exist has to name it.
    """
    allowed, acts = set(allowed), load_reference().acts
    marks: list[CitationMark] = []
    for citation in look_up_citations(text):
        law, article = citation["law"], citation["article"]
        kind = VERDICTS[citation["status"]].kind
        marks.append(
            {
                "start": citation["start"],
                "end": citation["end"],
                "law": law,
                "article": article + invented_paragraph(citation),
                "kind": "valid" if (law, article) in allowed and law in acts else kind,
                "mistitled": citation["title_matches"] is False,
            }
        )
    return marks


# --- The different articles of a text --------------------------------------------------------------------------------


@dataclass(frozen=True)
class CitedArticles:
    """The different articles that a text cites, by kind.

    `valid`, `invented`, `deleted` and `outside` are disjoint. `outside` are acts, decrees and supplementary provisions
    that the table does not hold: neither confirmed nor invented. `mistitled` are citations of existing articles whose
    title in brackets is another's. An article in force only later is valid.
    """

    valid: frozenset[Article]
    invented: frozenset[Article]
    deleted: frozenset[Article]
    outside: frozenset[Article]
    mistitled: frozenset[Article]

    @property
    def all(self) -> frozenset[Article]:
        """Every article cited."""
        return self.valid | self.invented | self.deleted | self.outside


def judge_citations(text: str, allowed: Iterable[Article] = ()) -> CitedArticles:
    """Return the articles that a text cites by kind; see `mark_citations` for `allowed`."""
    marks = mark_citations(text, allowed)
    groups: dict[str, set[Article]] = {
        kind: {(mark["law"], mark["article"]) for mark in marks if mark["kind"] == kind} for kind in KINDS
    }
    mistitled = frozenset((mark["law"], mark["article"]) for mark in marks if mark["mistitled"])
    # The same article may be cited as it is now and in a former version: it counts once, by the better of the two.
    groups["invented"] -= groups["valid"] | groups["outside"]
    groups["outside"] -= groups["valid"]
    return CitedArticles(**{kind: frozenset(articles) for kind, articles in groups.items()}, mistitled=mistitled)


def cited_articles(text: str, denied: bool = True) -> frozenset[Article]:
    """Return the different (act, article) pairs that a text cites; 항, 호 and 목 are not compared.

    Args:
        denied: also those of which it says that they are not, or no longer, the law.
    """
    return frozenset((found.law, found.article) for found in parse_citations(text) if denied or not found.denied)


def write_article(article: Article) -> str:
    """("민법", "제750조") → `민법 제750조`."""
    return " ".join(article)
