"""What a text says of the articles that it names: that they were repealed, that they never were, that they were another
law's.

Saying so is not citing them. What a text says of an article once, it says of it throughout: an article that is gone and
is cited of a former version in one place is so in all.
"""

import bisect
import itertools
import re
from dataclasses import replace

from civilqa.law import grammar
from civilqa.law.places import Citation
from civilqa.law.statutes import DELETED, NO_SUCH_ARTICLE, Reference

WORDS_READ = 16  # between 제651조는 and 삭제되었다
LOOKED_BACK = 100  # characters, within the sentence
LOOKED_AHEAD = 160  # within the sentence and the next


def with_what_is_said(text: str, found: list[Citation], reference: Reference) -> list[Citation]:
    """Return the citations; those of articles that are gone as former, denied or a foreign code's where that is said.

    Args:
        text: with `grammar.SHADOW` applied.
        found: in ascending order.
    """
    status = {(c.law, c.article): reference.status(c.law, c.article) for c in found}
    gone = {article for article, known in status.items() if known in (DELETED, NO_SUCH_ARTICLE)}
    if not gone:
        return found
    former = {(c.law, c.article) for c in found if c.former} & gone
    denied, foreign = set(), {}
    lists = _lists(text, found)
    begins = [*(begin for begin, _ in lists), len(text)]
    for citation, (begin, end) in zip(found, lists, strict=True):
        article = citation.law, citation.article
        if article not in gone or article in former or article in denied or article in foreign:
            continue
        before = text[max(0, begin - LOOKED_BACK) : begin]
        before = before[max((stop.end() for stop in grammar.SENTENCE_END.finditer(before)), default=0) :]
        if topic := grammar.FOREIGN_TOPIC.search(before):
            foreign[article] = f"{topic['country']} {citation.law}"
            continue
        next_begin = begins[bisect.bisect_left(begins, end)]
        if grammar.REPEALED_BEFORE.search(before) or _is_denied(text, citation, end, next_begin, status[article]):
            denied.add(article)
        elif grammar.FORMER_SAID.search(before):
            former.add(article)
    return [
        replace(
            c,
            law=foreign.get(article, c.law),
            former=c.former or article in former,
            denied=article in denied,
        )
        for c in found
        for article in [(c.law, c.article)]
    ]


def _lists(text: str, found: list[Citation]) -> list[tuple[int, int]]:
    """For each citation where the list that it is in begins and ends: 제651조와 제652조는."""
    lists: list[list[int]] = []
    for citation in found:
        last = lists[-1] if lists else None
        if last and (citation.start < last[1] or grammar.AND.fullmatch(text, last[1], citation.start)):
            last[1] = max(last[1], citation.end)
            lists.append(last)
        else:
            lists.append([citation.start, citation.end])
    return [(begin, end) for begin, end in lists]


def _is_denied(text: str, citation: Citation, end: int, next_begin: int, status: str) -> bool:
    """Whether it is said to be gone, or no law yet, between the end of its list of citations and the next one."""
    gone = grammar.NO_MORE if status == DELETED else grammar.UNREAL
    stated = grammar.STATED.match(text, end)
    if stated and (grammar.NEVER_WAS.match(text, stated.end()) or _is_said(gone, text, stated.end())):
        return True
    if status == DELETED:
        if any(grammar.REPEALED_NOTE.match(text, place) for place in (citation.end, end)) or (
            citation.title and grammar.REPEALED_NOTE.match(f"({citation.title})")
        ):
            return True
        of_it = grammar.STATED_OF_IT.match(text, end)
        if of_it and _is_said(gone, text, of_it.end()):
            return True
    elif grammar.NOT_YET.match(text, end):
        return True
    referred = grammar.REFERRED.search(text, end, min(next_begin, end + LOOKED_AHEAD))
    if not referred or len(grammar.SENTENCE_END.findall(text, end, referred.start())) > (not referred["gone"]):
        return False
    if referred["gone"]:
        return not _has_other_subject(text[end : referred.start()].split())
    return bool(grammar.NEVER_WAS.match(text, referred.end()) or _is_said(gone, text, referred.end()))


def _is_said(what: re.Pattern, text: str, start: int) -> bool:
    """Whether the rest of the sentence says `what` of its subject."""
    before: list[str] = []
    words = re.compile(r"\S+").finditer(text, start, grammar.sentence_end(text, start))
    for word in itertools.islice(words, WORDS_READ):
        if what.match(text, word.start()):
            return not _has_other_subject(before)
        before.append(word[0])
    return False


def _has_other_subject(words: list[str]) -> bool:
    """Whether one of the two last words of a clause, but for those of the cause, is a subject or an object."""
    begin = max((place for place, word in enumerate(words, 1) if grammar.CLAUSE_END.fullmatch(word)), default=0)
    said = [word for word in words[begin:] if not grammar.CAUSE.match(word)]
    return any(grammar.OTHER_SUBJECT.fullmatch(word) for word in said[-2:])
