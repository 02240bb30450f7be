"""Merges the adapter into its base and writes a full model that other programs load: python stages/export.py

Reads:  models/adapter, the profile's base model, data/formatted/test.jsonl if it is there, metrics/evaluate.json,
        metrics/finetune.json
Writes: models/merged: model.safetensors, config, generation config, tokenizer, chat template, README.md (model card),
        Modelfile (Ollama), categories.json (training's system prompts and questions), manifest.json; with --gguf also
        model-f16.gguf or model-q8_0.gguf
Params: format, model, the selected profile

No stage: the folder follows from the adapter and is as large as the base. The merge is computed on the CPU in fp32. An
adapter that was trained on a quantised base is merged into that base, multiplied out: the model that was scored. The
folder appears only after it was read back and found to answer as the adapter does, a GGUF file only after llama.cpp
read and continued text as transformers does.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start()

import argparse
import contextlib
import gc
import itertools
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from civilqa.base_model.categories import main_category, read_categories, write_categories
from civilqa.base_model.hub import published_dtype
from civilqa.base_model.profiles import read_profile
from civilqa.base_model.prompts import FormatParams, Prompter, load_prompter, read_formatted
from civilqa.chat.engine import ADAPTER, MERGED
from civilqa.generation.answers import LOGIT_TOLERANCE, Behaviour, behave, check_parity, compare
from civilqa.inference import BENCHMARK_QUESTIONS
from civilqa.llama_cpp.converter import check_converter, convert
from civilqa.llama_cpp.parity import TOLERANCE, Samples, check_gguf
from civilqa.model.hardware import DTYPES, Hardware, versions
from civilqa.model.loading import load_adapter, load_base, load_tuned
from civilqa.model.model_card import write_merged_card
from civilqa.model.other_programs import MAX_NEW_TOKENS, make_modelfile, with_older_keys
from civilqa.model.provenance import MANIFEST_FILE, TRAINED_ON, Adapter, MergedManifest, open_adapter, seal
from civilqa.program.errors import ModelError, ParameterError, RecordError
from civilqa.program.files import folder_aside, read_json, sha256_file, stamp, write_json, write_text
from civilqa.program.lifecycle.locks import hold
from civilqa.program.parameters import read_sections

FORMATTED = Path("data/formatted")

PARITY_PROMPTS = 6
GGUF_ROWS = 100  # of each split, whose prompts and answers must have the same tokens in llama.cpp


def has_data(adapter: Adapter) -> bool:
    """Return whether the data of the adapter's training is there, and its test questions with it."""
    present = {name: sha256_file(FORMATTED / name) for name in TRAINED_ON if (FORMATTED / name).is_file()}
    return present == adapter.manifest.data and (FORMATTED / "test.jsonl").is_file()


def parity_prompts(adapter: Adapter, prompter: Prompter, system_prompt: str) -> list[list[int]]:
    """Return the first test prompts, or questions of our own where the data of the adapter's training is not there."""
    if has_data(adapter):
        return [row["prompt_ids"] for row in itertools.islice(read_formatted(FORMATTED / "test.jsonl"), PARITY_PROMPTS)]
    asked = [prompter.messages(text, system_prompt) for text in BENCHMARK_QUESTIONS]
    return prompter.encode([prompter.render(messages)[0] for messages in asked])


def exact_hardware() -> Hardware:
    return Hardware("cpu", "fp32", torch.get_num_threads())


def merge(adapter: Adapter, prompter: Prompter, prompts: list[list[int]]) -> tuple[PreTrainedModel, Behaviour]:
    """Return the merged model in fp32, and what the adapter on its base does with the prompts.

    A base that was quantised for training is quantised, then multiplied out.
    """
    quantization = adapter.manifest.quantization
    base = load_base(adapter.model, adapter.profile, exact_hardware(), quantization)
    if quantization != "none":
        base = base.dequantize()  # quantised weights could not take up what is merged into them
    adapted = load_adapter(base, adapter.folder)
    behaviour = behave(adapted, prompter, prompts)
    # safe_merge refuses weights that are not numbers.
    return adapted.merge_and_unload(safe_merge=True), behaviour


def check_dequantized(quantization: str, parity: dict[str, Any]) -> dict[str, Any]:
    """Return how a base that was multiplied out compares with the quantised one that the adapter was trained on.

    With 8 bits the inputs of each layer are rounded, too, which no weights can show: the difference is only told.

    Raises:
        ModelError: with 4 bits a logit is further off than LOGIT_TOLERANCE in fp32.
    """
    if quantization == "4bit" and not parity["max_logit_difference"] <= LOGIT_TOLERANCE["fp32"]:
        raise ModelError(
            f"{ADAPTER}: multiplied out, its {quantization} base answers otherwise: {parity}; report this as a defect"
        )
    return parity


def write_model(model: PreTrainedModel, prompter: Prompter, precision: str, folder: Path) -> None:
    """Write weights, configurations, tokenizer and chat template as transformers reads them."""
    end, tokenizer = prompter.end_token_id, prompter.tokenizer
    model = model.to(DTYPES[precision])
    model.config.eos_token_id, model.config.pad_token_id = end, tokenizer.pad_token_id
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": end, "pad_token_id": tokenizer.pad_token_id}
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=MAX_NEW_TOKENS, **ids)
    model.save_pretrained(str(folder))
    path = folder / "config.json"
    write_json(path, with_older_keys(read_json(path)))
    tokenizer.chat_template = prompter.template
    # Servers end an answer at the tokenizer's end token unless they are told another.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    tokenizer.save_pretrained(str(folder))
    # As every version of transformers reads it, 4 and 5 alike, and without what is true on this disk alone.
    path = folder / "tokenizer_config.json"
    of_this_disk = ("backend", "is_local", "local_files_only")
    config = {key: value for key, value in read_json(path).items() if key not in of_this_disk}
    config["additional_special_tokens"] = config.pop("extra_special_tokens", [])
    write_json(path, {**config, "tokenizer_class": "PreTrainedTokenizerFast"})


def write_gguf(folder: Path, kind: str, adapter: Adapter, prompter: Prompter, system_prompt: str) -> dict[str, Any]:
    """Write the merged model of a folder as one GGUF file into it; return its name, and how it compares.

    Raises:
        ModelError: llama.cpp's converter does not take the model, or llama.cpp answers otherwise.
    """
    conversations = [prompter.messages(text, system_prompt) for text in BENCHMARK_QUESTIONS]
    texts = []
    for path in sorted(FORMATTED.glob("*.jsonl")) if has_data(adapter) else []:
        for row in itertools.islice(read_formatted(path), GGUF_ROWS):
            texts += [prompter.tokenizer.decode(row[part]) for part in ("prompt_ids", "completion_ids")]
    asked = [prompter.render(messages)[0] for messages in conversations]
    starts_with_bos = prompter.encode(asked)[0][0] == prompter.tokenizer.bos_token_id
    file = folder / f"model-{kind}.gguf"
    convert(folder, file, kind, [*asked, *texts], starts_with_bos)
    return {"file": file.name, **check_gguf(file, kind, folder, prompter, Samples(conversations, texts))}


def check_output(folder: Path) -> None:
    """Stop unless a folder is new, empty or an earlier export: it will be deleted before the new one takes its place.

    Raises:
        ParameterError: says what is there.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ParameterError(f"--output {folder}: is no folder of its own; name a new one")
    if not folder.exists() or not any(folder.iterdir()):
        return
    with contextlib.suppress(RecordError):
        if "parity" in read_json(folder / MANIFEST_FILE):
            return
    raise ParameterError(f"--output {folder}: holds files that are no earlier export; name a new folder")


def export(output: Path, precision: str, gguf: str | None) -> None:
    """Write the merged folder aside, look whether it answers as the adapter does, and put it in place whole.

    Raises:
        ModelError: there is no adapter, it was replaced meanwhile, or the folder does not answer as it does.
    """
    (prompts,) = read_sections(format=FormatParams)
    model_params, profile = read_profile()
    before = stamp(ADAPTER)
    prompter = load_prompter(profile, prompts.style)
    trained = open_adapter(ADAPTER, model_params, profile, template=prompter.template)
    categories = read_categories(ADAPTER, prompts)
    system_prompt = categories[main_category(categories)].system_prompt
    questions = parity_prompts(trained, prompter, system_prompt)
    conversational = bool(prompter.tokenizer.chat_template)  # before the one of training is put there
    quantization, quantized = trained.manifest.quantization, None

    with folder_aside(output) as folder:
        if quantization != "none":
            quantized = behave(load_tuned(trained, exact_hardware()), prompter, questions)
        merged, adapter = merge(trained, prompter, questions)
        beside = None if quantized is None else check_dequantized(quantization, compare(adapter, quantized))
        if precision == "auto":
            published = published_dtype(profile) if profile.weights != "random" else None
            precision = {"bfloat16": "bf16", "float16": "fp16"}.get(published, "fp32")
        write_model(merged, prompter, precision, folder)
        del merged
        gc.collect()
        manifest = MergedManifest(
            **trained.manifest.model_dump(exclude={"files"}),
            adapter=trained.identity,
            conversational=conversational,
            precision=precision,
            parity=check_parity(folder, prompter, questions, precision, adapter),
            parity_with_quantized=beside,
            gguf=write_gguf(folder, gguf, trained, prompter, system_prompt) if gguf else None,
            versions=versions(),
        )
        if stamp(ADAPTER) != before:
            raise ModelError(f"{ADAPTER}: was replaced while it was exported; export again once its training has ended")
        write_categories(folder, categories)
        write_merged_card(folder, trained, categories, manifest)
        write_text(folder / "Modelfile", make_modelfile(prompter, system_prompt, conversational, manifest.gguf))
        seal(folder, manifest)
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"{output}: {size / 1e6:.1f} MB in {precision}; parity: {manifest.parity}")
    if not manifest.gguf:
        print("for Ollama, whose Modelfile names the GGUF file, export with --gguf f16")
    if quantized is not None:
        print(f"beside the adapter on its {quantization} base: {manifest.parity_with_quantized}")
    if manifest.gguf:
        print(f"in llama.cpp beside transformers in fp32: {manifest.gguf}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python stages/export.py", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=MERGED, help=f"folder to write (default {MERGED})")
    choices = ("auto", "fp32", "bf16", "fp16")
    parser.add_argument("--precision", choices=choices, default="auto", help="auto: what the base is published in")
    what = "also one GGUF file for llama.cpp and Ollama, its matrices in 16 or 8 bits"
    parser.add_argument("--gguf", choices=tuple(TOLERANCE), help=what)
    arguments = parser.parse_args()
    check_output(arguments.output)
    if arguments.gguf:
        check_converter()
    aside = arguments.output.with_name(f".{arguments.output.name}")
    with hold(aside, f"export to {arguments.output}", wait=False):
        export(arguments.output, arguments.precision, arguments.gguf)


if __name__ == "__main__":
    run(main)
