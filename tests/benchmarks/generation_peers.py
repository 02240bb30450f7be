"""Generates the same answers as evaluate does, and one by one with plain transformers, and divides the two.

    python tests/benchmarks/generation_peers.py

Writes generation_peers.json beside this file. The model is the tuned one, its adapter merged; the questions are those
of data/formatted, taken again from the first where there are fewer than asked for (run `dvc repro` before). Every
answer goes on to the last token, so that both ways do the same work. One by one is what a user writes down first: the
model's `generate` on one prompt after the other. A ratio counts only if all answers are the same: so it is measured in
fp32, on a GPU too. In 16 bits batches of other shapes round otherwise, and of two near-equal tokens the other one wins.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from projects import ROOT, write_report
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from civilqa.base_model.profiles import read_profile
from civilqa.base_model.prompts import load_tokenizer
from civilqa.generation.decoding import Decoding, generate
from civilqa.model.hardware import HardwareParams, resolve_hardware
from civilqa.model.loading import load_tuned
from civilqa.model.provenance import open_adapter
from civilqa.program.files import read_jsonl
from civilqa.program.parameters import read_sections
from civilqa.speed.measurements import synchronize

RESULT = Path(__file__).with_suffix(".json")
ADAPTER = Path("models/adapter")
FORMATTED = Path("data/formatted")


def read_prompts(number: int) -> list[list[int]]:
    """Return prompts of the dataset as tokens, like lengths together as evaluate batches them."""
    rows = [row for name in ("test", "train") for row in read_jsonl(Path(f"data/formatted/{name}.jsonl"))]
    return sorted((row["prompt_ids"] for row in islice(cycle(rows), number)), key=len)


def no_token(model: PreTrainedModel) -> int:
    """Return an end token that the model never generates: every answer is as long as it may be."""
    return model.config.vocab_size


def generate_batched(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]], decoding: Decoding
) -> list[list[int]]:
    size = decoding.batch_size
    batches = (prompts[start : start + size] for start in range(0, len(prompts), size))
    return [answer for batch in batches for answer in generate(model, tokenizer, batch, decoding)]


@torch.inference_mode()
def generate_one_by_one(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]], new: int
) -> list[list[int]]:
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=new, eos_token_id=no_token(model), pad_token_id=tokenizer.pad_token_id
    )
    answers = []
    for prompt in prompts:
        input_ids = torch.tensor([prompt], device=model.device)
        output = model.generate(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
        answers.append(output[0, len(prompt) :].tolist())
    return answers


def measure(work: Callable[[], list[list[int]]], device: str, repeats: int) -> tuple[list[list[int]], dict[str, Any]]:
    """Return what was generated, and the seconds of the repeats."""
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        started = time.perf_counter()
        answers = work()
        synchronize(device)
        seconds.append(round(time.perf_counter() - started, 3))
    tokens = sum(map(len, answers))
    middle = statistics.median(seconds)
    return answers, {"seconds": middle, "all_seconds": seconds, "tokens_per_second": round(tokens / middle, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate in batches and one by one, and compare.")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5, help="the median counts")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    size, new, repeats = arguments.batch_size, arguments.new_tokens, arguments.repeats
    output = arguments.output.resolve()
    with contextlib.chdir(ROOT):
        (params,) = read_sections(hardware=HardwareParams)
        model_params, profile = read_profile()
        hardware = resolve_hardware(params.model_copy(update={"precision": "fp32"}), profile)
        tokenizer = load_tokenizer(profile)
        model = load_tuned(open_adapter(ADAPTER, model_params, profile, formatted=FORMATTED), hardware)
        prompts = read_prompts(arguments.prompts)
    decoding = Decoding(new, size, no_token(model), cuda_graphs=hardware.cuda_graphs)
    generate_batched(model, tokenizer, prompts[:size], decoding)  # not measured: the first call is slower
    single, one_by_one = measure(lambda: generate_one_by_one(model, tokenizer, prompts, new), hardware.device, repeats)
    batched, ours = measure(lambda: generate_batched(model, tokenizer, prompts, decoding), hardware.device, repeats)
    same = sum(left == right for left, right in zip(single, batched, strict=True))
    ratio = round(one_by_one["seconds"] / ours["seconds"], 2)
    print(f"one by one {one_by_one['tokens_per_second']:>10,.0f} tokens/s, {one_by_one['seconds']:.2f} s")
    print(f"ours       {ours['tokens_per_second']:>10,.0f} tokens/s, {ours['seconds']:.2f} s in batches of {size}")
    print(f"{ratio} times as fast; {same} of {len(prompts)} answers the same", end="")
    print("" if same == len(prompts) else ": does not count")
    write_report(
        output,
        {
            **{"profile": model_params.profile, "device": hardware.device, "precision": hardware.precision},
            **{"threads": hardware.threads, "prompts": len(prompts), "batch_size": size, "new_tokens": new},
            **{"repeats": repeats, "one_by_one": one_by_one, "ours": ours, "times_as_fast": ratio},
            "same_answers": same,
        },
    )


if __name__ == "__main__":
    main()
