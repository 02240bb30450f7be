"""How many of the articles that an answer needs are among those found for its question."""

from typing import Any

from civilqa.dataset.records import Record, question_id
from civilqa.law.search import ArticleIndex, load_index
from civilqa.law.verdicts import cited_articles, write_article
from civilqa.scoring.comparison import mean_interval
from civilqa.scoring.gold import Gold
from civilqa.scoring.predictions import Prediction

DEPTHS = (1, 3, 5, 10)  # articles looked at

ArticleRecall = dict[str, dict[str, Any]]


def find_articles(records: list[Record], golds: dict[str, Gold], index: ArticleIndex) -> list[dict[str, list[str]]]:
    """Return for each record which articles were `found` for its question, the best first, and which are wanted.

    Those wanted are the `required` ones of its gold, none without, and those that its reference answer `cited`.
    """
    lines = []
    for record in records:
        gold = golds.get(question_id(record.id))
        wanted = {"required": gold.required if gold else (), "cited": cited_articles(record.answer, denied=False)}
        names = {kind: sorted(map(write_article, articles)) for kind, articles in wanted.items()}
        lines.append({"found": [*index.find(record.question, DEPTHS[-1])], **names})
    return lines


def add_articles(lines: list[Prediction], records: list[Record], golds: dict[str, Gold]) -> dict[str, Any]:
    """Note in each line what find_articles says of its record; return what metrics hold of it.

    That is the `recall`, the smallest number of articles in a prompt, and of which statutes they are.
    """
    index = load_index()
    for line, found in zip(lines, find_articles(records, golds, index), strict=True):
        line["articles"] = found
    fewest = min((len(line["retrieval"]["articles"]) for line in lines), default=0)
    return {"fewest_shown": fewest, **index.source, "recall": article_recall([line["articles"] for line in lines])}


def article_recall(lines: list[dict[str, list[str]]]) -> ArticleRecall:
    """Return for `required` and `cited` the mean share of an answer's articles among the first 1, 3, 5, 10 found.

    With `n` questions that want any, and 95 % intervals; 0 to 1, higher is better. An article that the statutes do not
    have counts as not found.
    """
    recall: ArticleRecall = {}
    for kind in ("required", "cited"):
        asked = [line for line in lines if line[kind]]
        recall[kind] = {"n": len(asked)}
        for depth in DEPTHS if asked else ():
            shares = [len({*line["found"][:depth]} & {*line[kind]}) / len(line[kind]) for line in asked]
            low, high = mean_interval(shares, 1.0)
            recall[kind][f"at_{depth}"] = {"mean": sum(shares) / len(shares), "low": low, "high": high}
    return recall


def found_articles(lines: list[Prediction]) -> list[dict[str, list[str]]]:
    """Return what add_articles noted in lines, once a question; the seed of a training changes nothing of it."""
    return [*{line["id"]: line["articles"] for line in lines if "articles" in line}.values()]


def describe_recall(recall: ArticleRecall) -> list[str]:
    """Return a line for each kind of articles that there is."""
    lines = []
    for kind, found in recall.items():
        if found["n"]:
            means = "  ".join(f"@{depth} {found[f'at_{depth}']['mean']:.3f}" for depth in DEPTHS)
            five = found["at_5"]
            lines.append(f"{kind:<9} {means}  [@5: {five['low']:.3f}, {five['high']:.3f}], {found['n']} questions")
    return lines
