"""Says how many of the articles that the answers need are found by their questions alone; no model is asked.

Reads:  data/prepared/records.jsonl, data/raw/gold.jsonl, data/splits (which records are tested on), the statutes
Writes: nothing; prints the recall at 1, 3, 5 and 10 articles of all records, and of the test split
Params: reference

No stage. What evaluate measures of the test split where `evaluate.retrieved_articles` is set, of all records.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__)

from pathlib import Path

from civilqa.dataset.records import read_records
from civilqa.law.search import load_index
from civilqa.scoring.article_recall import article_recall, describe_recall, find_articles
from civilqa.scoring.gold import read_gold

RECORDS = Path("data/prepared/records.jsonl")
TEST = Path("data/splits/test.jsonl")


def main() -> None:
    index, golds, records = load_index(), read_gold(), read_records(RECORDS)
    tested = {record.id for record in read_records(TEST)}
    print(f"{len(index.articles)} articles in force on {index.source['as_of']}, statutes {index.source['commit'][:10]}")
    lines = find_articles(records, golds, index)
    of_test = [line for line, record in zip(lines, records, strict=True) if record.id in tested]
    for name, part in (("all records", lines), ("test split", of_test)):
        for told in describe_recall(article_recall(part)):
            print(f"{name:<12} {told}")


if __name__ == "__main__":
    run(main)
