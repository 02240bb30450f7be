"""What a tuned model has to beat besides its bare base: the base shown examples, and an old answer copied."""

import hashlib
from typing import Any

from civilqa.base_model.prompts import FormatParams, Message, Prompter
from civilqa.dataset.near_duplicates import grams, normalize
from civilqa.dataset.records import Record


def choose_examples(record: Record, train: list[Record], count: int, seed: int) -> list[Record]:
    """Return the training records to show before a question: of its category first, in an order drawn from the seed.

    The choice does not look at the question, so that questions of one category get the same examples: choosing the
    nearest ones would mix two baselines. By SHA-256 of seed and id: neither the file's order nor a library's random
    generator can change it.
    """

    def key(candidate: Record) -> tuple[bool, str]:
        return candidate.category != record.category, hashlib.sha256(f"{seed}:{candidate.id}".encode()).hexdigest()

    return sorted((candidate for candidate in train if candidate.id != record.id), key=key)[:count]


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


def nearest_record(question: str, train: list[Record]) -> tuple[Record, float]:
    """Return the training record with the most similar question, and the similarity in 0 to 1.

    Jaccard similarity of character trigrams, as split uses it; of equals the first by id. Its answer, copied, is what a
    search over the training data would give: a tuned model that does no better has learned nothing that lookup lacks.
    """
    wanted = grams(normalize(question))

    def similarity(record: Record) -> float:
        found = grams(normalize(record.question))
        return len(wanted & found) / len(wanted | found)

    best = min(train, key=lambda record: (-similarity(record), record.id))
    return best, similarity(best)


def few_shot_rows(
    rows: list[dict[str, Any]],
    records: list[Record],
    train: list[Record],
    params: FormatParams,
    prompter: Prompter,
    *,
    count: int,
    seed: int,
    max_new_tokens: int,
    context: int,
) -> list[dict[str, Any]]:
    """Return formatted rows with their prompts replaced by few-shot ones; `examples` says how many are in each.

    The prompts leave room for an answer of `max_new_tokens`, and for the longest reference answer, in the `context` of
    so many tokens.
    """
    longest_reference = max((len(row["completion_ids"]) for row in rows), default=0)
    room = context - max(max_new_tokens, longest_reference)
    replaced = []
    for row, record in zip(rows, records, strict=True):
        examples = choose_examples(record, train, count, seed)
        prompt_ids, shown = few_shot_prompt(record, examples, params, prompter, room)
        replaced.append({**row, "prompt_ids": prompt_ids, "examples": shown})
    return replaced
