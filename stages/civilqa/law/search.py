"""Finds the articles that a question is about, among those in force of the statutes at hand: BM25 over morphemes.

Sources: Robertson and Zaragoza 2009, The probabilistic relevance framework: BM25 and beyond; Lù 2024, BM25S
(arXiv:2407.03618).
"""

import functools
import hashlib
import os
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from civilqa.law.citations import parse_citations
from civilqa.law.korean import tag_morphemes
from civilqa.law.statutes import PARTS, article_name, load_reference
from civilqa.law.timeline import article_text, read_timeline
from civilqa.law.versions import CLONE, Statutes, find_statutes
from civilqa.program.errors import ParameterError, RecordError
from civilqa.program.files import read_jsonl, sha256_json, write_jsonl

CONTENT = ("NNG", "NNP", "VV", "VA", "XR", "SL", "SH")  # tags of morphemes that carry meaning
K1, B = 1.5, 0.75  # of BM25: the library's own

ArticleTexts = dict[str, str]  # by name: 민법 제618조: 민법 제618조(임대차) 임대차는 당사자 일방이 ...


class ArticleIndex:
    """The articles in force on a day, to be searched.

    Attributes:
        articles: their texts as a prompt shows them.
        source: the commit of the statutes and the day, for metrics.
    """

    def __init__(self, articles: ArticleTexts, terms: list[list[str]], source: dict[str, str]) -> None:
        from bm25s import BM25  # half a second, for those alone who look articles up

        self.articles, self.source = articles, source
        self._names = list(articles)
        self._bm25 = BM25(k1=K1, b=B, backend="numpy")
        self._bm25.index(terms, show_progress=False)

    def find(self, question: str, count: int) -> ArticleTexts:
        """Return the articles that fit a question best, the best first; of equals the first in the statutes.

        Fewer than `count` where fewer have a word of it.
        """
        terms = content_morphemes(question)
        if not terms:
            return {}
        scores = self._bm25.get_scores(terms)
        places = [place for place in np.argsort(-scores, kind="stable")[:count] if scores[place] > 0]
        return {self._names[place]: self.articles[self._names[place]] for place in places}

    def training_articles(self, record: str, question: str, answer: str, count: int, seed: int) -> list[str]:
        """Return the texts to show before a question that is trained on: of what its answer cites, and of others.

        The first `count` cited articles that the statutes have, filled up with the best found for the question; in an
        order drawn from the seed and the record's id, so that a place says nothing about which are right.
        """
        cited = dict.fromkeys(f"{found.law} {found.article}" for found in parse_citations(answer))
        gold = [name for name in cited if name in self.articles][:count]
        others = [name for name in self.find(question, count + len(gold)) if name not in gold]
        chosen = [*gold, *others][:count]
        chosen.sort(key=lambda name: hashlib.sha256(f"{seed}:{record}:{name}".encode()).hexdigest())
        return [self.articles[name] for name in chosen]


@functools.cache
def load_index() -> ArticleIndex:
    """Return the index of the acts of the table as of `reference.as_of`, without their decrees and rules.

    To read the morphemes of some 6,000 articles takes a minute or two: they are kept in `.statute-index`.

    Raises:
        ParameterError: there are no statutes.
        RecordError: they cannot be read.
    """
    statutes, reference = find_statutes(), load_reference()
    if statutes is None:
        raise ParameterError(
            "params.yaml: reference.statutes: is empty, or names no folder, and articles are to be found in it; set it "
            f"to a clone of a repository of statutes ({CLONE}) or to what dvc import made of one "
            "(data/reference/README.md), or set evaluate.retrieved_articles and format.statutes_in_prompt to 0"
        )
    acts = [act for act in reference.acts if not act.endswith(PARTS)]
    source = {"commit": statutes.pin, "as_of": reference.as_of}
    by = [source, acts, CONTENT, *map(version, ("kiwipiepy", "kiwipiepy_model"))]
    path = Path(os.environ.get("DVC_ROOT", ".")) / ".statute-index" / f"{sha256_json(by)}.jsonl"
    rows = _read_rows(path)
    if not rows:
        found = list(_articles(statutes, acts, date.fromisoformat(reference.as_of)))
        rows = [
            {"name": f"{law} {article}", "text": text, "terms": content_morphemes(law) + content_morphemes(text)}
            for law, article, text in tqdm(found, desc="articles", unit=" articles")
        ]
        write_jsonl(path, rows)
    # The title in brackets is a text's first line, where it has one.
    articles = {
        row["name"]: row["name"] + (row["text"].replace("\n", " ", 1) if row["text"][0] == "(" else f" {row['text']}")
        for row in rows
    }
    return ArticleIndex(articles, [row["terms"] for row in rows], source)


def _read_rows(path: Path) -> list[dict]:
    """Return what was kept of an index; nothing where nothing was, or it is damaged."""
    try:
        rows = list(read_jsonl(path))
    except RecordError:
        rows = []
    return rows if all(row.keys() == {"name", "text", "terms"} for row in rows) else []


def _articles(statutes: Statutes, acts: list[str], day: date) -> Iterator[tuple[str, str, str]]:
    """Yield act, article and text of what is in force on a day."""
    for law, versions in statutes.histories(acts).items():
        if law not in acts:
            continue
        timeline = read_timeline(versions)
        for number in sorted({number for number, _ in timeline}):
            if text := article_text(timeline, number, day):
                yield law, article_name(number), text


def content_morphemes(text: str) -> list[str]:
    """Return the forms of a text's nouns, verbs, adjectives, roots and foreign words, in order."""
    return [form for form, tag in tag_morphemes(text) if tag.partition("-")[0] in CONTENT]
