"""A multiple-choice probe of what a model knows of the statutes: which title does an article have, and which article
does a title belong to? Made from data/reference/titles.csv, without any text of the dataset.
"""

import hashlib
import random
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from civilqa.law.statutes import EXISTS, Reference, same_title

OPTIONS = 4
TASK = "statute_titles"


class Item(NamedTuple):
    """One question with its options; `answer` is the index of the right one."""

    id: str
    kind: str
    query: str
    choices: tuple[str, ...]
    answer: int


def make_items(reference: Reference, count: int, seed: int) -> list[Item]:
    """Return `count` items at most, half of each kind, the same ones for the same table and seed.

    Wrong options are articles or titles of the same act, so that knowing the field is not enough. Articles in force
    only, and no two options with the same title. An act with fewer than four different titles gives none.
    """
    articles: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for (law, article), title in reference.titles.items():
        known = [other for _, other in articles[law]]
        if reference.status(law, article) == EXISTS and not any(same_title(title, other) for other in known):
            articles[law].append((article, title))
    pool = [(law, *entry) for law, members in articles.items() if len(members) >= OPTIONS for entry in members]
    # Not random.shuffle over the pool: an article added to the table must not exchange all the others.
    pool.sort(key=lambda entry: hashlib.sha256(f"{seed}:{entry[0]}:{entry[1]}".encode()).hexdigest())
    items = []
    for index, (law, article, title) in enumerate(pool[:count]):
        draw = random.Random(f"{seed}:{law}:{article}")  # noqa: S311
        others = draw.sample([entry for entry in articles[law] if entry[0] != article], OPTIONS - 1)
        if index % 2:
            kind, query = "title_to_article", f"{law}에서 '{title}'에 관한 조문은"
            right, *wrong = article, *(article for article, _ in others)
        else:
            kind, query = "article_to_title", f"{law} {article}의 제목은"
            right, *wrong = title, *(title for _, title in others)
        choices = [right, *wrong]
        draw.shuffle(choices)
        items.append(Item(f"{law} {article}", kind, query, tuple(choices), choices.index(right)))
    return items


def task_yaml(data: Path) -> str:
    """Return the task's definition for lm-evaluation-harness, on a local JSONL file.

    `acc` takes the most likely option, `acc_norm` divides by its length in bytes first, since short titles are likelier
    as such. Chance is 1 in 4.
    """
    return f"""task: {TASK}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data.as_posix()}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: " "
num_fewshot: 0
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
