"""What a tuned model has to beat besides its bare base: the base shown examples or articles, an old answer copied."""

import hashlib
import heapq
from collections.abc import Callable, Mapping, Set
from functools import lru_cache, partial
from typing import Any

from civilqa.base_model.prompts import FormatParams, Message, Prompter
from civilqa.dataset.near_duplicates import grams, normalize
from civilqa.dataset.records import Record
from civilqa.law.search import load_index


def choose_examples(record: Record, train: list[Record], count: int, seed: int) -> list[Record]:
    """Return the training records to show before a question: of its category first, in an order drawn from the seed.

    The choice does not look at the question, so that questions of one category get the same examples; see
    retrieve_examples for those that do. By SHA-256 of seed and id: neither the file's order nor a library's random
    generator can change it.
    """

    def key(candidate: Record) -> tuple[bool, str]:
        return candidate.category != record.category, hashlib.sha256(f"{seed}:{candidate.id}".encode()).hexdigest()

    return sorted((candidate for candidate in train if candidate.id != record.id), key=key)[:count]


Rows = list[dict[str, Any]]


def further_prompts(
    parts: list[tuple[Rows, list[Record]]],
    train: list[Record],
    near_duplicates: Mapping[str, Set[str]],
    seed: int,
    examples: int,
    retrieved: int,
    articles: int,
    **room: Any,
) -> list[dict[str, Rows]]:
    """Return for each part the rows of each system that is shown more than the question, which is noted in `shown`.

    Args:
        parts: formatted rows with their records.
        examples, retrieved, articles: how many training examples, nearest training questions and articles of the
            statutes are shown; without any of the last two there are no such systems.
        room: the further arguments of few_shot_rows and article_rows.
    """
    choices = {"few_shot": lambda record: choose_examples(record, train, examples, seed)}
    if retrieved:
        choices["retrieved"] = lambda record: retrieve_examples(record, train, retrieved, near_duplicates)
    shows = {system: partial(few_shot_rows, choose=choose, **room) for system, choose in choices.items()}
    if articles:
        shows["retrieval"] = partial(article_rows, find=partial(load_index().find, count=articles), **room)
    shown = [{system: show(*part) for system, show in shows.items()} for part in parts]
    return [rows | {"adapter_retrieval": rows["retrieval"]} if articles else rows for rows in shown]


def fewest_examples(shown: dict[str, list[dict[str, Any]]]) -> dict[str, int]:
    """Return as metrics the smallest number of examples in a prompt of each system that is shown examples."""
    return {
        f"{system}_examples": min((row["examples"] for row in rows), default=0)
        for system, rows in shown.items()
        if not any("articles" in row for row in rows)
    }


def few_shot_prompt(
    record: Record, examples: list[Record], params: FormatParams, prompter: Prompter, room: int
) -> tuple[list[int], int]:
    """Return the prompt's token ids and how many examples are in it, through the template of the training.

    Each example is a turn of user and assistant between the system prompt and the question. The last ones are left out
    until the prompt has at most `room` tokens.
    """
    system, question = prompter.messages(record.question, params.system_prompt(record.category))
    for count in range(len(examples), -1, -1):
        turns: list[Message] = []
        for example in examples[:count]:
            turns.append(prompter.messages(example.question, "")[1])
            turns.append({"role": "assistant", "content": prompter.defuse(example.answer.strip())})
        prompt, _ = prompter.render([system, *turns, question])
        (ids,) = prompter.encode([prompt])
        if len(ids) <= room:
            break
    return ids, count


def nearest_records(
    question: str, train: list[Record], count: int = 1, without: Set[str] = frozenset()
) -> list[tuple[Record, float]]:
    """Return the training records with the most similar questions, the nearest first, and the similarities in 0 to 1.

    Jaccard similarity of character trigrams, as split uses it; of equals the first by id. The answer of the nearest,
    copied, is what a search over the training data would give: a tuned model that does no better has learned nothing
    that lookup lacks.

    Args:
        without: ids of records that are left out.
    """
    wanted = grams(normalize(question))  # not kept: a page is asked new ones for ever

    def similarity(record: Record) -> float:
        found = _grams(record.question)
        return len(wanted & found) / len(wanted | found)

    rated = ((record, similarity(record)) for record in train if record.id not in without)
    return heapq.nsmallest(count, rated, key=lambda pair: (-pair[1], pair[0].id))


@lru_cache(maxsize=1 << 16)
def _grams(question: str) -> set[str]:
    return grams(normalize(question))


def retrieve_examples(
    record: Record, train: list[Record], count: int, near_duplicates: Mapping[str, Set[str]]
) -> list[Record]:
    """Return the training records to show before a question: those with the nearest questions, the nearest first.

    None is of the question's own group of near-duplicates: its answer would be the one that is asked for.

    Source: Liu et al. 2022, What makes good in-context examples for GPT-3? (arXiv:2101.06804).

    Args:
        near_duplicates: of each record the ids of the training records in its group.
    """
    without = {record.id, *near_duplicates[record.id]}
    return [found for found, _ in nearest_records(record.question, train, count, without)]


def few_shot_rows(
    rows: list[dict[str, Any]],
    records: list[Record],
    choose: Callable[[Record], list[Record]],
    params: FormatParams,
    prompter: Prompter,
    *,
    max_new_tokens: int,
    context: int,
) -> list[dict[str, Any]]:
    """Return formatted rows with their prompts replaced by few-shot ones; `shown` says how many `examples` are in each.

    Before a question stand the examples that `choose` returns for it, as many as fit: the prompts leave room for an
    answer of `max_new_tokens`, and for the longest reference answer, in the `context` of so many tokens.
    """
    longest_reference = max((len(row["completion_ids"]) for row in rows), default=0)
    room = context - max(max_new_tokens, longest_reference)
    replaced = []
    for row, record in zip(rows, records, strict=True):
        prompt_ids, shown = few_shot_prompt(record, choose(record), params, prompter, room)
        replaced.append({**row, "prompt_ids": prompt_ids, "shown": {"examples": shown}})
    return replaced


def article_rows(
    rows: list[dict[str, Any]],
    records: list[Record],
    find: Callable[[str], Mapping[str, str]],
    params: FormatParams,
    prompter: Prompter,
    *,
    max_new_tokens: int,
    context: int,
) -> list[dict[str, Any]]:
    """Return formatted rows with articles before their questions; `shown` names the `articles` in each prompt.

    As many of what `find` returns for a question, texts by name, as fit half the context, as in training, and leave
    the room that few_shot_rows leaves.
    """
    longest_reference = max((len(row["completion_ids"]) for row in rows), default=0)
    room = min(context // 2, context - max(max_new_tokens, longest_reference))
    replaced, left_out = [], 0
    for row, record in zip(rows, records, strict=True):
        found, system = find(record.question), params.system_prompt(record.category)
        messages, shown = prompter.fit_articles(record.question, system, [*found.values()], room)
        (ids,) = prompter.encode([prompter.render(messages)[0]])
        replaced.append({**row, "prompt_ids": ids, "shown": {"articles": [*found][:shown]}})
        left_out += len(found) - shown
    if left_out:
        print(f"evaluate: {left_out} articles found are in no prompt: there is room for {room} tokens")
    return replaced
