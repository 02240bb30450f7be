"""Answers in batches, the cost of a given answer in bits, and a store that keeps both.

The store lies outside the stage's outputs, since DVC deletes those before a stage runs. What it keeps is addressed by
everything that decides it (weights, tokens, decoding, versions): a changed adapter never finds its predecessor's
answers, and the base's are there again however often the training changes.
"""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from civilqa.generation.decoding import Decoding, generate
from civilqa.program.errors import RecordError
from civilqa.program.files import read_json, sha256_json, write_json


@dataclass(frozen=True)
class Answer:
    """What a model answered to one question.

    `stopped` says whether it ended its answer itself rather than at the limit of tokens. `reference_bits` is what the
    dataset's own answer costs the model, in bits: lower is better.
    """

    text: str
    tokens: int
    stopped: bool
    reference_bits: float


def answer_store() -> Path:
    """Return the folder of kept answers: in the main checkout, also when DVC runs an experiment in a copy of it."""
    return Path(os.environ.get("DVC_ROOT", ".")) / ".generations"


def answer_questions(
    rows: list[dict[str, Any]],
    load_model: Callable[[], PreTrainedModel],
    identity: dict[str, Any],
    tokenizer: PreTrainedTokenizerFast,
    decoding: Decoding,
    *,
    regenerate: bool,
    description: str,
) -> list[Answer]:
    """Return the answers to formatted rows, in their order.

    Args:
        rows: lines of data/formatted; `prompt_ids` is asked, `completion_ids` is the reference.
        load_model: called once, and only if an answer is not in the store.
        identity: all that decides the model's numbers besides the rows and `decoding`.
        regenerate: generate also what the store has.
    """
    # Batches of like length pad little. A batch is kept as a whole: padding changes the last bits of a sum, so that an
    # answer is sure to be the same again only among the same neighbours.
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]["prompt_ids"]), rows[index]["id"]))
    batches = [order[start : start + decoding.batch_size] for start in range(0, len(order), decoding.batch_size)]
    answers: dict[int, Answer] = {}
    model = None
    for batch in tqdm(batches, desc=description, unit=" batch"):
        prompts = [rows[index]["prompt_ids"] for index in batch]
        references = [rows[index]["completion_ids"] for index in batch]
        key = sha256_json([identity, asdict(decoding), prompts, references])
        path = answer_store() / f"{key}.json"
        kept = None if regenerate else read_kept(path, len(batch))
        if kept is None:
            model = model or load_model()
            kept = [
                make_answer(generated, tokenizer, decoding, answer_bits(model, prompt, reference))
                for generated, prompt, reference in zip(
                    generate(model, tokenizer, prompts, decoding), prompts, references, strict=True
                )
            ]
            fields = [asdict(answer) for answer in kept]
            write_json(path, {"answers": fields, "sha256": sha256_json(fields)})
        answers |= dict(zip(batch, kept, strict=True))
    return [answers[index] for index in range(len(rows))]


def read_kept(path: Path, count: int) -> list[Answer] | None:
    """Return the answers of a batch as they were kept, or None if they were not, or are not whole any more."""
    try:
        entry = read_json(path)
    except RecordError:
        entry = {}
    fields = entry.get("answers")
    if isinstance(fields, list) and len(fields) == count and entry.get("sha256") == sha256_json(fields):
        return [Answer(**each) for each in fields]
    if path.exists():
        print(f"answers: {path} is damaged, or of an older layout: generated again")
    return None


@torch.inference_mode()
def answer_bits(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> float:
    """Return what an answer costs the model in bits: -Σ log2 p(token | prompt and the tokens before it).

    The end token is left out: the sum is the cost of the text, to be divided by its characters.
    """
    text = completion[:-1]
    input_ids = torch.tensor([prompt + text], device=model.device)
    logits = model(input_ids=input_ids, logits_to_keep=len(text) + 1, use_cache=False).logits
    # Shapes: logits (1, len(text) + 1, vocabulary); the last row predicts the end token.
    log_probabilities = logits[0, :-1].float().log_softmax(dim=-1)
    chosen = log_probabilities.gather(1, input_ids[0, len(prompt) :, None])
    return -chosen.double().sum().item() / math.log(2)


def make_answer(
    generated: list[int], tokenizer: PreTrainedTokenizerFast, decoding: Decoding, reference_bits: float
) -> Answer:
    """Return the Answer for generated tokens."""
    return Answer(
        text=tokenizer.decode(generated, skip_special_tokens=True).strip(),
        tokens=len(generated),
        stopped=bool(generated) and generated[-1] == decoding.end_token_id,
        reference_bits=reference_bits,
    )
