"""Whether a model that was written answers as the one it was made from: logits and answers on a few prompts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from civilqa.base_model.prompts import Prompter
from civilqa.generation.decoding import Decoding, generate
from civilqa.model.hardware import DTYPES
from civilqa.program.errors import ModelError

NEW_TOKENS = 48

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
    """Return logits for each prompt's token ids, and the greedy answers of up to NEW_TOKENS."""
    decoding = Decoding(max_new_tokens=NEW_TOKENS, batch_size=1, end_token_id=prompter.end_token_id)
    logits, answers = [], []
    for prompt in prompts:  # one by one: padding would change the last bits of a sum
        logits.append(model(torch.tensor([prompt], device=model.device)).logits[0].float().cpu())
        answers += generate(model, prompter.tokenizer, [prompt], decoding)
    return Behaviour(logits, answers)


def compare(expected: Behaviour, found: Behaviour) -> dict[str, Any]:
    """Return the largest difference of two logits, and how many of the answers are the same."""
    pairs = zip(expected.logits, found.logits, strict=True)
    return {
        "prompts": len(expected.answers),
        "max_logit_difference": float(f"{max((a - b).abs().max().item() for a, b in pairs):.3g}"),
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
    if parity["max_logit_difference"] > parity["tolerance"]:
        raise ModelError(
            f"{folder}: its logits differ from the adapter's by up to {parity['max_logit_difference']}, want at most "
            f"{parity['tolerance']} in {precision}; export with --precision fp32"
        )
    if precision == "fp32" and parity["equal_answers"] < parity["prompts"]:
        raise ModelError(f"{folder}: answers otherwise than the adapter: {parity}; report this as a defect")
    return parity
