"""Two multiple-choice probes of what a model knows, asked by likelihood: of the statutes, and of what is no law at all.

Statutes: which title does an article have, and which article does a title belong to? Made from
data/reference/titles.csv, without any text of the dataset. General: geography, arithmetic, everyday life and grammar,
from data/raw/general_knowledge.jsonl, written for this project: what tuning on law should leave as it is.
"""

import hashlib
import random
from collections import defaultdict
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field, ValidationError, model_validator

from civilqa.law.statutes import EXISTS, Reference, same_title
from civilqa.program.errors import RecordError
from civilqa.program.files import read_jsonl

OPTIONS = 4
STATUTES, GENERAL = "statute_titles", "general_knowledge"
GENERAL_ITEMS = Path("data/raw/general_knowledge.jsonl")
# How the most likely option is found: by its likelihood, by that per character, and by that over its likelihood without
# the question. What decides is named in advance.
MEASURES = ("acc", "acc_norm", "acc_mutual_info")
DECIDES = "acc_norm"


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
        items.append(shuffle(f"{law} {article}", kind, query, right, wrong, draw))
    return items


def shuffle(name: str, kind: str, query: str, right: str, wrong: list[str], draw: random.Random) -> Item:
    """Return an item with its options in an order that is drawn."""
    choices = [right, *wrong]
    draw.shuffle(choices)
    return Item(name, kind, query, tuple(choices), choices.index(right))


class GeneralItem(BaseModel, frozen=True, strict=True, extra="forbid"):
    """A line of data/raw/general_knowledge.jsonl: the beginning of a sentence, and what ends it rightly and wrongly."""

    kind: Annotated[str, Field(min_length=1)]
    query: Annotated[str, Field(min_length=1)]
    right: Annotated[str, Field(min_length=1)]
    wrong: Annotated[list[str], Field(min_length=OPTIONS - 1, max_length=OPTIONS - 1)]

    @model_validator(mode="after")
    def _differ(self) -> "GeneralItem":
        if len({self.right, *self.wrong} - {""}) < OPTIONS:
            raise ValueError(f"want {OPTIONS} different options")
        return self


def read_items(seed: int, path: Path = GENERAL_ITEMS) -> list[Item]:
    """Return the items of a file, their options in an order drawn from the seed.

    Raises:
        RecordError: with every line that is not as it must be, in one message.
    """
    items, problems = [], []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            given = GeneralItem.model_validate(row)
        except ValidationError as error:
            problems += [
                f"{path}:{number}: {'.'.join(map(str, problem['loc'])) or row.get('query')}: {problem['msg']}"
                for problem in error.errors()
            ]
            continue
        draw = random.Random(f"{seed}:{given.query}")  # noqa: S311
        items.append(shuffle(given.query, given.kind, given.query, given.right, given.wrong, draw))
    if problems:
        raise RecordError("\n".join(problems))
    return items


def task_yaml(task: str, data: Path) -> str:
    """Return the definition of a task for lm-evaluation-harness, on a local JSONL file, with MEASURES as its metrics.

    Short options are likelier as such, hence `acc_norm`; so are frequent ones, hence `acc_mutual_info`. Chance is 1 in
    4 by each.
    """
    metrics = "".join(f"\n  - metric: {name}\n    aggregation: mean\n    higher_is_better: true" for name in MEASURES)
    return f"""task: {task}
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
metric_list:{metrics}
metadata:
  version: 1.0
"""
