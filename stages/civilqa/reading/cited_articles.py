"""The articles that an answer cites and that are not: deleted ones, and those that do not exist."""

from collections.abc import Collection

from civilqa.law.citations import Citation, judge_citation, parse_citations
from civilqa.law.statutes import DELETED, NO_SUCH_ARTICLE, NO_SUCH_PARAGRAPH, OUTSIDE_TABLE, load_reference
from civilqa.law.verdicts import Article, write_article

WORDS = {
    NO_SUCH_PARAGRAPH: "a paragraph (항) that does not exist",
    DELETED: "which was deleted",
    NO_SUCH_ARTICLE: "which does not exist",
}
# From the least to the most wrong: an answer is rejected for the last one that it has.
REASONS = {
    NO_SUCH_PARAGRAPH: "no_such_paragraph",
    DELETED: "deleted_article",
    NO_SUCH_ARTICLE: "no_such_article",
}
CHARACTERS_AROUND = 20
ARTICLES_SHOWN = 8  # of one answer


def article_of(citation: Citation) -> Article:
    """Return the act and the article of a citation."""
    return citation.law, citation.article


def read_article(written: str) -> Article:
    """Return the act and the article that a parameter names: `민법 제651조`.

    Raises:
        ValueError: it names no article of an act of the table, or more than one.
    """
    found = {article_of(citation) for citation in parse_citations(written)}
    if len(found) != 1:
        raise ValueError(f"{written!r} names {len(found)} articles, want one, written like 민법 제651조")
    law, article = found.pop()
    if law not in load_reference().acts:
        raise ValueError(f"{written!r} needs no leave: {law} is not in data/reference, and is not checked; take it out")
    return law, article


def doubtful_citations(answer: str, allowed: Collection[Article]) -> tuple[list[Citation], list[str]]:
    """Return the citations of an answer that do not hold, each article once, and the act of each that is unchecked.

    Args:
        allowed: articles that hold whatever the table says.
    """
    reference = load_reference()
    doubtful: dict[Article, Citation] = {}
    outside: list[str] = []
    for citation in parse_citations(answer):
        status = judge_citation(citation, reference)
        if status in WORDS and article_of(citation) not in allowed:
            doubtful.setdefault(article_of(citation), citation)
        if status == OUTSIDE_TABLE and not citation.denied:
            outside.append(citation.law)
    return list(doubtful.values()), outside


def describe_doubts(answer: str, citations: list[Citation]) -> tuple[str, str]:
    """Return (reason, detail) for citations that do not hold, with the words of the answer around each."""
    reference = load_reference()
    found = []
    for citation in citations[:ARTICLES_SHOWN]:
        begin, end = citation.start - CHARACTERS_AROUND, citation.end + CHARACTERS_AROUND
        words = " ".join(answer[max(0, begin) : end].split())
        quoted = f"{'…' if begin > 0 else ''}{words}{'…' if end < len(answer) else ''}"
        status = judge_citation(citation, reference)
        paragraph = f" 제{citation.paragraph}항" if status == NO_SUCH_PARAGRAPH else ""
        found.append(f"{write_article(article_of(citation))}{paragraph}, {WORDS[status]} ('{quoted}')")
    found_statuses = {judge_citation(citation, reference) for citation in citations}
    reason = [reason for status, reason in REASONS.items() if status in found_statuses][-1]
    more = len(citations) - len(found)
    cited = "; ".join([*found, f"further articles: {more}"] if more else found)
    return reason, f"the answer cites {cited}; mend the citation, or list what is right in prepare.allowed_citations"
