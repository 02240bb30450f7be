"""The answers of the base, of the base shown examples, and of the tuned model, with what a given answer costs each.

A store keeps them outside the stage's outputs, since DVC deletes those before a stage runs. What it keeps is addressed
by everything that decides it (weights, tokens, decoding, versions): a changed adapter never finds its predecessor's
answers, and the base's are there again however often the training changes.
"""

import copy
import functools
import math
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import Prompter, read_formatted
from civilqa.generation.decoding import Decoding, generate, make_cache
from civilqa.model.hardware import DTYPES, Hardware, versions
from civilqa.model.loading import load_base, load_tuned, read_architecture
from civilqa.model.provenance import Adapter
from civilqa.program.errors import ModelError, ParameterError, RecordError
from civilqa.program.files import read_json, sha256_json, write_json

LOGIT_BYTES = 1 << 28
ROOM_FOR_ANSWERS = 1.25  # of the longest training answer's tokens
CPU_BATCH_SIZE = 64
LEAST_SHARED = 256  # tokens; fewer are read as fast with the rest
TUNED = ("adapter", "adapter_retrieval")  # the systems that are the tuned model, with one prompt or another
MAX_BATCH_SIZE = 256  # the cores of any GPU have enough to do by then


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
    limit = decoding.max_new_tokens
    progress = tqdm(desc=description, total=len(batches) * limit, unit=" token", unit_scale=True)

    def count() -> bool:
        progress.update()
        return False

    for number, batch in enumerate(batches, start=1):
        prompts = [rows[index]["prompt_ids"] for index in batch]
        references = [rows[index]["completion_ids"] for index in batch]
        key = sha256_json([identity, asdict(decoding), prompts, references])
        path = answer_store() / f"{key}.json"
        fields = None if regenerate else read_kept(path, len(batch))
        if fields is None:
            model = model or load_model()
            generated = generate(model, tokenizer, prompts, decoding, stopped=count)
            made = [
                Answer(
                    text=tokenizer.decode(ids, skip_special_tokens=True).strip(),
                    tokens=len(ids),
                    stopped=bool(ids) and ids[-1] == decoding.end_token_id,
                    reference_bits=answer_bits(model, prompt, reference),
                )
                for ids, prompt, reference in zip(generated, prompts, references, strict=True)
            ]
            fields = [asdict(answer) for answer in made]
            write_kept(path, fields)
        answers |= {index: Answer(**each) for index, each in zip(batch, fields, strict=True)}
        progress.update(number * limit - progress.n)  # those that ended early, or were kept
    progress.close()
    return [answers[index] for index in range(len(rows))]


def rate_statements(
    rows: list[dict[str, Any]],
    load_model: Callable[[], PreTrainedModel],
    identity: dict[str, Any],
    *,
    regenerate: bool,
    description: str,
) -> list[list[float]]:
    """Return for each row what each of its statements costs the model as the answer, in bits.

    Args:
        rows: `prompt_ids` and `statement_ids` of each question; see answer_questions for the rest.
    """
    rated = []
    begins = shared_beginnings([row["prompt_ids"] for row in rows])
    beginnings: dict[tuple[int, ...], DynamicCache] = {}
    model = None
    for row, begin in zip(tqdm(rows, desc=description, unit=" question"), begins, strict=True):
        prompt, statements = row["prompt_ids"], row["statement_ids"]
        path = answer_store() / f"{sha256_json([identity, prompt, statements, *([len(begin)] if begin else [])])}.json"
        bits = None if regenerate else read_kept(path, len(statements))
        if bits is None:
            model = model or load_model()
            if begin and begin not in beginnings:
                beginnings[begin] = read_tokens(model, list(begin))
            bits = statement_bits(model, prompt, statements, beginnings.get(begin))
            write_kept(path, bits)
        rated.append(bits)
    return rated


def shared_beginnings(prompts: list[list[int]]) -> list[tuple[int, ...]]:
    """Return of each prompt the tokens that are read once for all prompts that begin with them; (): too few for that.

    Few-shot prompts of one category have their examples in common, some ten times as long as what is left. Together are
    prompts that are alike in half of the shortest one. The last two tokens are never shared: what is left is read too.
    """
    half = min(map(len, prompts), default=0) // 2
    groups: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
    for prompt in prompts:
        groups[tuple(prompt[:half])].append(prompt)
    shared = {}
    for key, alike in groups.items():
        first, last = min(alike), max(alike)  # in order: all between begin as these two do
        tokens = [token for token, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))][:-2]
        shared[key] = tuple(tokens) if len(alike) > 1 and len(tokens) >= LEAST_SHARED else ()
    return [shared[tuple(prompt[:half])] for prompt in prompts]


def write_kept(path: Path, answers: list[Any]) -> None:
    """Keep answers with what tells whether they are whole; see read_kept."""
    write_json(path, {"answers": answers, "sha256": sha256_json(answers)})


def read_kept(path: Path, count: int) -> list[Any] | None:
    """Return what was kept of `count` answers, or None if nothing was, or it is not whole any more."""
    try:
        entry = read_json(path)
    except RecordError:
        entry = {}
    fields = entry.get("answers")
    if isinstance(fields, list) and len(fields) == count and entry.get("sha256") == sha256_json(fields):
        return fields
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


@torch.inference_mode()
def read_tokens(model: PreTrainedModel, tokens: list[int], before: DynamicCache | None = None) -> DynamicCache:
    """Return the cache of a model that has read tokens, after those of another cache, which stays as it is."""
    cache = make_cache(model.config) if before is None else copy.deepcopy(before)
    model(torch.tensor([tokens], device=model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


@torch.inference_mode()
def statement_bits(
    model: PreTrainedModel, prompt: list[int], statements: list[list[int]], beginning: DynamicCache | None = None
) -> list[float]:
    """Return what each statement costs the model after the prompt, in bits; see answer_bits.

    The prompt is read once, and of the statements as many at a time as LOGIT_BYTES holds the logits of, two at least.

    Args:
        beginning: the cache of the prompt's first tokens, where they have been read: of all but two at most.
    """
    read = read_tokens(model, prompt[beginning.get_seq_length() if beginning else 0 : -1], beginning)
    bits: list[float] = []
    width = max(map(len, statements))
    count = max(2, LOGIT_BYTES // (4 * width * model.config.vocab_size))
    for start in range(0, len(statements), count):
        some = statements[start : start + count]
        # Filled up on the right, where no token that counts can see it: attention is causal.
        rows = [[prompt[-1], *ids, *[prompt[-1]] * (width - len(ids))] for ids in some]
        tokens = torch.tensor(rows, device=model.device)
        cache = copy.deepcopy(read)
        cache.batch_repeat_interleave(len(some))
        logits = model(input_ids=tokens[:, :-1], past_key_values=cache, use_cache=True).logits
        log_probabilities = logits.float().log_softmax(dim=-1).gather(2, tokens[:, 1:, None])[..., 0]  # (count, width)
        for row, ids in zip(log_probabilities, some, strict=True):
            bits.append(-row[: len(ids)].double().sum().item() / math.log(2))
    return bits


def answer_limit(asked: int | Literal["auto"], train: Path) -> int:
    """Return how many tokens an answer may have, of what `evaluate.max_new_tokens` asks for.

    auto: what the longest answer of the training split has, and a quarter more. A model that does not stop shows by
    then; every further token would take as long as those before and say nothing. The test split has no part in it.
    """
    if asked != "auto":
        return asked
    longest = max(len(row["completion_ids"]) for row in read_formatted(train))
    return math.ceil(longest * ROOM_FOR_ANSWERS)


def choose_batch_size(
    asked: int | Literal["auto"], rows: list[dict[str, Any]], max_new_tokens: int, profile: Profile, hardware: Hardware
) -> int:
    """Return how many questions are asked at a time, of what `evaluate.batch_size` asks for.

    auto: on cuda what the card has memory for. All of its memory rather than what is free decides, so that one card
    always gives the same answers.
    """
    if asked != "auto":
        return asked
    if hardware.device != "cuda":
        return CPU_BATCH_SIZE
    config = read_architecture(profile)
    longest = max((len(row["prompt_ids"]) for row in rows), default=0)
    memory = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    chosen = largest_batch(memory, config, hardware.dtype.itemsize, longest + max_new_tokens)
    print(f"evaluate: {chosen} questions at a time (asked: auto)")
    return chosen


def largest_batch(memory_bytes: int, config: PreTrainedConfig, itemsize: int, tokens: int) -> int:
    """Return how many rows of so many tokens fit beside the weights: a power of two, MAX_BATCH_SIZE at most."""
    with torch.device("meta"):  # shapes alone, no memory
        weights = sum(part.numel() for part in AutoModelForCausalLM.from_config(config).parameters()) * itemsize
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    cached = 2 * config.num_hidden_layers * heads * head * itemsize
    widest = getattr(config, "intermediate_size", None) or 4 * config.hidden_size  # GPT-2 names none
    # Of each token four times its keys and values: growing, fixed, moved, kept for later; and what the widest layer
    # makes of a prompt. Of each row its logits, in the type of the weights and twice in fp32.
    row = tokens * (4 * cached + 6 * widest * itemsize) + config.vocab_size * (itemsize + 8)
    # A tenth is CUDA's own. Twice the weights: an adapter of a quantised base has a base beside the plain one.
    fitting = max(1, int(0.9 * memory_bytes - 2 * weights) // row)
    return min(1 << (fitting.bit_length() - 1), MAX_BATCH_SIZE)


def check_room(rows: list[dict[str, Any]], max_new_tokens: int, context: int) -> None:
    """Stop if an answer could go on beyond what the base was made to read.

    Raises:
        ParameterError: says how many tokens there is room for.
    """
    longest = max((len(row["prompt_ids"]) for row in rows), default=0)
    if longest + max_new_tokens > context:
        raise ParameterError(
            f"params.yaml: evaluate.max_new_tokens: {max_new_tokens} tokens an answer, want at most "
            f"{context - longest}: the base reads {context} tokens, and the longest question has {longest}"
        )


def ask_systems(
    rows: dict[str, list[dict[str, Any]]],
    pairs: dict[str, list[dict[str, Any]]],
    adapter: Adapter,
    hardware: Hardware,
    tokenizer: PreTrainedTokenizerFast,
    decoding: Decoding,
    *,
    regenerate: bool,
) -> tuple[dict[str, list[Answer]], dict[str, list[list[float]]]]:
    """Return each system's answers to its rows, and what the statements of its pairs cost it, in bits.

    A model is loaded if something of it is not in the store. All but those of TUNED are the base with other prompts:
    nothing of the training is in their store's key.
    """
    base = functools.cache(lambda: load_base(adapter.model, adapter.profile, hardware))
    tuned = functools.cache(lambda: load_tuned(adapter, hardware, base()))
    identity = {
        "base": adapter.manifest.base,
        "device": hardware.device,
        "precision": hardware.precision,
        "threads": hardware.threads,
        "versions": versions(),
    }
    answers, bits = {}, {}
    # The adapter comes last: merging it changes the base in place.
    for system in sorted(rows, key=TUNED.__contains__):
        load = tuned if system in TUNED else base
        whose = {**identity, "adapter": adapter.identity if system in TUNED else None}
        answers[system] = answer_questions(
            rows[system], load, whose, tokenizer, decoding, regenerate=regenerate, description=f"answers: {system}"
        )
        bits[system] = rate_statements(
            pairs[system], load, whose, regenerate=regenerate, description=f"contrasts: {system}"
        )
    return answers, bits


# --- Whether a model that was written answers as the one it was made from ---------------------------------------------

PARITY_TOKENS = 48

# The largest difference allowed between any two logits of the adapter on its base, in fp32, and of the merged folder.
# fp32: merging rounds W + BA once, about 1e-5 on logits of size 10 to 30. bf16 has 8 bits of mantissa and fp16 11: a
# logit of 30 is then off by up to 0.12 and 0.015 for each of several roundings on its way.
LOGIT_TOLERANCE = {"fp32": 1e-3, "fp16": 0.1, "bf16": 1.0}


@dataclass(frozen=True)
class Behaviour:
    """What a model does with some prompts: logits of shape (prompt length, vocabulary), and new tokens, of each."""

    logits: list[torch.Tensor]
    answers: list[list[int]]


@torch.inference_mode()
def behave(model: PreTrainedModel, prompter: Prompter, prompts: list[list[int]]) -> Behaviour:
    """Return logits for each prompt's token ids, and the greedy answers of up to PARITY_TOKENS."""
    decoding = Decoding(max_new_tokens=PARITY_TOKENS, batch_size=1, end_token_id=prompter.end_token_id)
    logits, answers = [], []
    for prompt in prompts:  # one by one: padding would change the last bits of a sum
        logits.append(model(torch.tensor([prompt], device=model.device)).logits[0].float().cpu())
        answers += generate(model, prompter.tokenizer, [prompt], decoding)
    return Behaviour(logits, answers)


def compare(expected: Behaviour, found: Behaviour) -> dict[str, Any]:
    """Return the largest difference of two logits, and how many of the answers are the same."""
    pairs = zip(expected.logits, found.logits, strict=True)
    apart = torch.stack([(a - b).abs().max() for a, b in pairs]).max().item()  # NaN where any is, as Python's is not
    return {
        "prompts": len(expected.answers),
        "max_logit_difference": float(f"{apart:.3g}"),
        "equal_answers": sum(a == b for a, b in zip(expected.answers, found.answers, strict=True)),
    }


def check_parity(
    folder: Path, prompter: Prompter, prompts: list[list[int]], precision: str, adapter: Behaviour
) -> dict[str, Any]:
    """Return how the model written to a folder compares with the adapter on its base.

    Raises:
        ModelError: a logit is further off than LOGIT_TOLERANCE, or in fp32 an answer differs.
    """
    written = AutoModelForCausalLM.from_pretrained(str(folder), dtype=DTYPES[precision]).eval()
    parity = compare(adapter, behave(written, prompter, prompts))
    parity["tolerance"] = LOGIT_TOLERANCE[precision]
    if not parity["max_logit_difference"] <= parity["tolerance"]:
        raise ModelError(
            f"{folder}: its logits differ from the adapter's by up to {parity['max_logit_difference']}, want at most "
            f"{parity['tolerance']} in {precision}; export with --precision fp32"
        )
    if precision == "fp32" and parity["equal_answers"] < parity["prompts"]:
        raise ModelError(f"{folder}: answers otherwise than the adapter: {parity}; report this as a defect")
    return parity
