"""Merges the adapter into its base and writes a full model that other programs load: python stages/export.py

Reads:  models/adapter, the profile's base model, data/formatted/test.jsonl if it is there, metrics/evaluate.json,
        metrics/finetune.json
Writes: models/merged: model.safetensors, config, generation config, tokenizer, chat template, README.md (model card),
        Modelfile (Ollama), manifest.json
Params: format, model, the selected profile

No stage: the folder follows from the adapter and is as large as the base. The merge is computed on the CPU in fp32,
also for an adapter that was trained on a quantised base: 4-bit weights can take up no more than they hold. The folder
appears only after it was read back and found to answer as the adapter does.
"""

if __name__ == "__main__":
    from civilqa.program.lifecycle.interruptions import end_while_importing

    end_while_importing()

import argparse
import gc
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from civilqa.base_model.formatted import read_formatted
from civilqa.base_model.profiles import Profile, read_profile
from civilqa.base_model.prompts import FormatParams, Prompter, load_prompter
from civilqa.chat.engine import ADAPTER, MERGED
from civilqa.generation.decoding import Decoding, generate
from civilqa.inference import BENCHMARK_QUESTIONS
from civilqa.model.hardware import DTYPES, Hardware, HardwareParams, resolve_hardware, versions
from civilqa.model.loading import load_adapter, load_base, load_tuned
from civilqa.model.provenance import (
    MANIFEST_FILE,
    TRAINED_ON,
    WEIGHTS_FILE,
    Adapter,
    MergedManifest,
    open_adapter,
    seal,
)
from civilqa.program.errors import ModelError, ParameterError, RecordError
from civilqa.program.files import folder_aside, read_json, sha256_file, stamp, write_json, write_text
from civilqa.program.lifecycle.locks import hold
from civilqa.program.lifecycle.stage import run
from civilqa.program.parameters import read_sections

FORMATTED = Path("data/formatted")
EVALUATION = Path("metrics/evaluate.json")
TRAINING = Path("metrics/finetune.json")

PARITY_PROMPTS = 6
PARITY_NEW_TOKENS = 48
MAX_NEW_TOKENS = 512

# The largest difference allowed between any two logits of the adapter on its base, in fp32, and of the merged folder.
# fp32: merging rounds W + BA once, about 1e-5 on logits of size 10 to 30. bf16 has 8 bits of mantissa and fp16 11: a
# logit of 30 is then off by up to 0.12 and 0.015 for each of several roundings on its way.
LOGIT_TOLERANCE = {"fp32": 1e-3, "fp16": 0.1, "bf16": 1.0}

CARD_SCORES = ("bits_per_character", "chrf", "rouge_l", "citation_f1", "stop_rate")


@dataclass(frozen=True)
class Behaviour:
    """What a model does with the parity prompts: logits of shape (prompt length, vocabulary), and new tokens."""

    logits: list[torch.Tensor]
    answers: list[list[int]]


@torch.inference_mode()
def behave(model: PreTrainedModel, prompter: Prompter, prompts: list[list[int]]) -> Behaviour:
    """Return logits for each prompt, and the greedy answers of up to PARITY_NEW_TOKENS."""
    decoding = Decoding(PARITY_NEW_TOKENS, 1, prompter.end_token_id)
    logits, answers = [], []
    for prompt in prompts:
        logits.append(model(torch.tensor([prompt])).logits[0].float())
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


def parity_prompts(adapter: Adapter, prompter: Prompter, prompts: FormatParams) -> list[list[int]]:
    """Return the first test prompts, or questions of our own where the data of the adapter's training is not there."""
    present = {name: sha256_file(FORMATTED / name) for name in TRAINED_ON if (FORMATTED / name).is_file()}
    if present == adapter.manifest.data and (FORMATTED / "test.jsonl").is_file():
        return [row["prompt_ids"] for row in itertools.islice(read_formatted(FORMATTED / "test.jsonl"), PARITY_PROMPTS)]
    system = prompts.system_prompt("")
    return prompter.encode([prompter.render(prompter.messages(text, system))[0] for text in BENCHMARK_QUESTIONS])


def choose_precision(asked: str, profile: Profile, base: PreTrainedModel) -> str:
    """Return fp32, bf16 or fp16: what was asked for, or for `auto` what the base is published in."""
    if asked != "auto":
        return asked
    if profile.weights == "random":
        return "fp32"
    published = str(getattr(base.config, "dtype", None)).removeprefix("torch.")
    return {"bfloat16": "bf16", "float16": "fp16"}.get(published, "fp32")


def merge(adapter: Adapter, prompter: Prompter, prompts: list[list[int]]) -> tuple[PreTrainedModel, Behaviour]:
    """Return the merged model in fp32, and what the adapter on its base does with the prompts."""
    hardware = Hardware("cpu", "fp32", torch.get_num_threads())
    adapted = load_adapter(load_base(adapter.model, adapter.profile, hardware), adapter.folder)
    behaviour = behave(adapted, prompter, prompts)
    # safe_merge refuses weights that are not numbers.
    return adapted.merge_and_unload(safe_merge=True), behaviour


def write_model(model: PreTrainedModel, prompter: Prompter, precision: str, folder: Path) -> None:
    """Write weights, configurations, tokenizer and chat template as transformers reads them."""
    end, tokenizer = prompter.end_token_id, prompter.tokenizer
    model = model.to(DTYPES[precision])
    model.config.eos_token_id = end
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(str(folder))
    tokenizer.chat_template = prompter.template
    # Servers end an answer at the tokenizer's end token unless they are told another.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    tokenizer.save_pretrained(str(folder))
    # As every version of transformers reads it, 4 and 5 alike, and without what is true on this disk alone.
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in ("backend", "is_local", "local_files_only")}
    config["additional_special_tokens"] = config.pop("extra_special_tokens", [])
    write_json(path, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def check_parity(
    folder: Path, prompter: Prompter, prompts: list[list[int]], precision: str, adapter: Behaviour
) -> dict:
    """Return how the written folder compares with the adapter on its base.

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


def make_modelfile(prompter: Prompter, prompts: FormatParams) -> str:
    """Return Ollama's Modelfile: the prompt of training in Go's template language, for one question.

    Ollama puts the start token there itself. It reads special tokens in a question as such; no template prevents it.
    """
    turns = [{"role": "system", "content": "{{ .System }}"}, {"role": "user", "content": "{{ .Prompt }}"}]
    prompt, completion = prompter.render(turns, "{{ .Response }}")
    template = (prompt + completion).removeprefix(prompter.tokenizer.bos_token or "")
    end = prompter.tokenizer.convert_ids_to_tokens(prompter.end_token_id)
    return (
        "# ollama create civil-law -f Modelfile\n"
        "FROM .\n"
        f'TEMPLATE """{template}"""\n'
        f'SYSTEM """{prompts.system_prompt("")}"""\n'
        f"PARAMETER stop {end}\n"
        "PARAMETER temperature 0\n"
        f"PARAMETER num_predict {MAX_NEW_TOKENS}\n"
    )


def make_card(adapter: Adapter, prompts: FormatParams, manifest: MergedManifest) -> str:
    """Return the model card: what this is, what it scored, how it is asked, what it must not be used for."""
    profile, parity = adapter.profile, manifest.parity
    system_prompts = "\n".join(f"- {category}: {text}" for category, text in prompts.system_prompts.items())
    front = (
        "language: ko\nlibrary_name: transformers\npipeline_tag: text-generation\ntags: [law, korean, civil-law, lora]"
    )
    if profile.weights == "pretrained" and not Path(profile.name).is_dir():
        front += f"\nbase_model: {profile.name}"
    base = f"`{profile.name}`" + (f" at {profile.revision}" if profile.revision else "")
    return f"""---
{front}
---
# Korean civil-law question answering

> {profile.notice}
>
> {profile.metrics_notice}

A LoRA adapter merged into its base, {base} (profile `{adapter.model.profile}`), in {manifest.precision}.
It was tuned on questions and answers about Korean civil law (민법), one question at a time.

## Evaluation

{evaluation_table(adapter)}

{training_line(adapter)}

Merging: on {parity["prompts"]} prompts the logits differ from the adapter's by at most
{parity["max_logit_difference"]:g} (tolerance {parity["tolerance"]:g}), and {parity["equal_answers"]} of
{parity["prompts"]} answers are the same.

## Asking it

The prompt is the chat template's, with one of these system prompts, which training put before every question:

{system_prompts}

```python
from transformers import pipeline

ask = pipeline("text-generation", model="models/merged")
messages = [
    {{"role": "system", "content": "{prompts.system_prompt("")}"}},
    {{"role": "user", "content": "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"}},
]
print(ask(messages)[0]["generated_text"][-1]["content"])
```

A special token's string in a question (`<|end_of_text|>`) is parsed as the token by transformers, vLLM and Ollama. The
project's own programs put a space into it first; do the same in front of any other server.

## Limits

No legal advice. The model cites articles that do not exist or do not fit, and is certain of them. Statutes are as of
2026-06-08. The base model's licence applies to the merged weights.
"""


def read_metrics(path: Path, adapter: Adapter) -> dict[str, Any] | None:
    """Return a metrics file if it is of this adapter, else None: those of another one would be a false claim.

    Raises:
        RecordError: it is no JSON object.
    """
    if not path.is_file():
        return None
    metrics = read_json(path)
    return metrics if metrics.get("adapter_sha256") == adapter.manifest.files[WEIGHTS_FILE] else None


def evaluation_table(adapter: Adapter) -> str:
    """Return the scores of base and adapter as Markdown, as metrics/evaluate.json has them."""
    metrics = read_metrics(EVALUATION, adapter)
    if metrics is None:
        return "Not evaluated: `dvc repro evaluate` writes the scores, and a new export puts them here."
    test, differences = metrics["test"], metrics["difference"]["base"]
    lines = [
        f"{test['n']} test questions that were never trained on; 95 % intervals of the difference.",
        "",
        "| score | base | tuned | difference | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in CARD_SCORES:
        if name in test["base"] and name in test["adapter"] and name in differences:
            change = differences[name]
            lines.append(
                f"| {name} | {test['base'][name]:.3f} | {test['adapter'][name]:.3f} | {change['mean']:+.3f} "
                f"[{change['low']:+.3f}, {change['high']:+.3f}] | {change['verdict']} |"
            )
    return "\n".join(lines)


def training_line(adapter: Adapter) -> str:
    """Return a sentence on how the adapter was trained, if metrics/finetune.json is there and is of this adapter."""
    training = read_metrics(TRAINING, adapter)
    if training is None:
        return ""
    schedule = training["schedule"]
    return (
        f"Training: {training['records']['train']} records, preset `{training['preset']}`, {schedule['epochs']:g} "
        f"epochs, learning rate {schedule['learning_rate']:g}, batch {schedule['batch_size']}, base quantization "
        f"{schedule['quantization']}."
    )


def check_output(folder: Path) -> None:
    """Stop unless a folder is new, empty or an earlier export: it will be deleted before the new one takes its place.

    Raises:
        ParameterError: says what is there.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ParameterError(f"--output {folder}: is no folder of its own; name a new one")
    if not folder.exists() or not any(folder.iterdir()):
        return
    try:
        exported = "parity" in read_json(folder / MANIFEST_FILE)
    except RecordError:
        exported = False
    if not exported:
        raise ParameterError(f"--output {folder}: holds files that are no earlier export; name a new folder")


def export(output: Path, asked_precision: str) -> None:
    """Write the merged folder aside, look whether it answers as the adapter does, and put it in place whole.

    Raises:
        ModelError: there is no adapter, it was replaced meanwhile, or the folder does not answer as it does.
    """
    prompts, hardware_params = read_sections(format=FormatParams, hardware=HardwareParams)
    model_params, profile = read_profile()
    before = stamp(ADAPTER)
    prompter = load_prompter(profile, prompts.style)
    trained = open_adapter(ADAPTER, model_params, profile, template=prompter.template)
    hardware = resolve_hardware(hardware_params)
    questions = parity_prompts(trained, prompter, prompts)
    quantization = trained.manifest.quantization
    conversational = bool(prompter.tokenizer.chat_template)

    check_quantized = None
    with folder_aside(output) as folder:
        if quantization != "none":
            check_quantized = behave(load_tuned(trained, hardware), prompter, questions)
        merged, adapter = merge(trained, prompter, questions)
        precision = choose_precision(asked_precision, profile, merged)
        write_model(merged, prompter, precision, folder)
        del merged
        gc.collect()
        manifest = MergedManifest(
            **trained.manifest.model_dump(exclude={"files"}),
            adapter=trained.identity,
            conversational=conversational,
            precision=precision,
            parity=check_parity(folder, prompter, questions, precision, adapter),
            parity_with_quantized=None if check_quantized is None else compare(adapter, check_quantized),
            versions=versions(),
        )
        if stamp(ADAPTER) != before:
            raise ModelError(f"{ADAPTER}: was replaced while it was exported; export again once its training has ended")
        write_text(folder / "README.md", make_card(trained, prompts, manifest))
        write_text(folder / "Modelfile", make_modelfile(prompter, prompts))
        seal(folder, manifest)
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"{output}: {size / 1e6:.1f} MB in {precision}; parity: {manifest.parity}")
    if check_quantized is not None:
        print(f"beside the adapter on its {quantization} base: {manifest.parity_with_quantized}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python stages/export.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=MERGED, help=f"folder to write (default {MERGED})")
    choices = ("auto", "fp32", "bf16", "fp16")
    parser.add_argument("--precision", choices=choices, default="auto", help="auto: what the base is published in")
    arguments = parser.parse_args()
    check_output(arguments.output)
    aside = arguments.output.with_name(f".{arguments.output.name}")
    with hold(aside, f"export to {arguments.output}", wait=False):
        export(arguments.output, arguments.precision)


if __name__ == "__main__":
    run(main)
