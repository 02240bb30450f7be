"""Makes a base model of a GGUF file: python models/from_gguf.py FILE FOLDER

Writes: FOLDER: model.safetensors, config, generation config, tokenizer, chat template where the file has one, and
        from_gguf.json: the hashes of the GGUF file and of what was made of it

The folder is then the `name` of a profile in params.yaml. Quantised weights are multiplied out: what 4 bits have lost
stays lost. They are kept in bf16, which is finer than they are; a file in fp32 or fp16 stays what it is. What
transformers would read wrongly without a word (scaled positions, tensors that its model has no place for, text cut up
in a way that it does not know) is refused.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stages"))

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start()

import argparse
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel
from transformers.integrations.gguf import is_gguf_arch_supported, read_gguf_metadata
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from civilqa.base_model.hub import TOKENIZER
from civilqa.program.errors import ModelError, ParameterError
from civilqa.program.files import folder_aside, read_json, sha256_file, write_json, write_text
from civilqa.program.lifecycle.locks import hold
from civilqa.program.lifecycle.machine_errors import is_out_of_memory

RECORD = "from_gguf.json"
INSTEAD = "take the model in safetensors"
ROPE_FACTORS = "rope_freqs.weight"  # by what llama.cpp divides each rotary frequency, where Llama 3's are scaled
# All files of Llama 3.1 to 3.3; of llama3's four numbers the tensor shows the factor alone.
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
# The ways to cut text in which a piece that is itself a token is that token, whatever the merges make of it.
# Source: llama.cpp, src/llama-vocab.cpp, ignore_merges.
MERGES_IGNORED = frozenset(
    ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano", "tekken")
)
UNROUNDED = {
    None: torch.float32,  # it does not say
    gguf.LlamaFileType.ALL_F32: torch.float32,
    gguf.LlamaFileType.MOSTLY_F16: torch.float16,
}


def read_metadata(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what a GGUF file says of itself, and the names of its tensors.

    Raises:
        ModelError: it is none, not whole, or of a kind that would be read wrongly.
    """
    if not file.is_file():
        raise ModelError(f"{file}: no such file; name a GGUF file")
    try:
        metadata, tensors = read_gguf_metadata(str(file))
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise ModelError(f"{file}: is no GGUF file, or not whole: {error}; download it again") from None
    architecture = metadata["general.architecture"]
    if metadata.get("split.count", 1) > 1:
        join = "join them with `llama-gguf-split --merge` of llama.cpp"
        raise ModelError(f"{file}: is one of {metadata['split.count']} parts; {join}, or {INSTEAD}")
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        found = f"its positions are scaled ({scaling}), which transformers does not read from GGUF"
        raise ModelError(f"{file}: {found}: its answers would be those of another model; {INSTEAD}")
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if metadata.get("tokenizer.ggml.model") == "gpt2" and pre not in ("gpt-2", *GGUF_PRE_TOKENIZER_SPLITS):
        found = f"it cuts text before its tokens in a way ('{pre}') that transformers does not know"
        raise ModelError(f"{file}: {found}: the tokens would be others than those it was trained on; {INSTEAD}")
    return metadata, tensors


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn what transformers or gguf raise over a file, which may hold anything, into a ModelError."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise
        found = f"transformers {transformers.__version__} cannot read it: {type(error).__name__}: {error}"
        raise ModelError(f"{file}: {found}; if the file is whole, {INSTEAD}") from None


def read_model(file: Path) -> PreTrainedModel:
    """Return the model of a GGUF file in fp32, all of its weights multiplied out.

    Raises:
        ModelError: transformers cannot read it, or does not read all of it.
    """
    metadata, tensors = read_metadata(file)
    with reading(file):
        model, report = AutoModelForCausalLM.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
            output_loading_info=True,
        )
    absent = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    left = find_unread(metadata["general.architecture"], tensors, model, report["unexpected_keys"])
    if ROPE_FACTORS in left and model.config.model_type == "llama":
        left.remove(ROPE_FACTORS)
        (factors,) = (tensor.data for tensor in gguf.GGUFReader(str(file)).tensors if tensor.name == ROPE_FACTORS)
        set_llama3_rope(file, model, factors)
    for what, names in (("holds nothing that fits", absent), ("holds what its model has no place for:", left)):
        if names:
            some = f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
            raise ModelError(f"{file}: {what} {some}: it would be another model; {INSTEAD}")
    return model


def find_unread(architecture: str, tensors: tuple[str, ...], model: PreTrainedModel, unexpected: set[str]) -> list[str]:
    """Return the tensors of a file that are in no weight of the model; transformers names them for few architectures.

    A layer's experts, which are one tensor here and several there, are left to its check for missing weights.
    """
    if is_gguf_arch_supported(architecture):
        return sorted(unexpected)
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    read = {names.get_name(name, (".weight", ".bias")) for name in model.state_dict()}
    return sorted(name for name in tensors if name not in read and "_exps" not in name)


def set_llama3_rope(file: Path, model: PreTrainedModel, factors: np.ndarray) -> None:
    """Put the scaling of rotary frequencies into the model's configuration, which transformers does not read.

    Args:
        factors: by which each frequency is divided, of shape (head_dim / 2,).

    Raises:
        ModelError: they are not those of a Llama 3.
    """
    config = model.config
    plain = config.rope_parameters["rope_theta"] ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    config.rope_parameters |= {"rope_type": "llama3", "factor": float(factors.max()), **LLAMA3_ROPE}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    if factors.shape != plain.shape or not np.allclose(plain / scaled.numpy(), factors, rtol=1e-4):
        raise ModelError(f"{file}: its {ROPE_FACTORS} are not those of Llama 3.1 to 3.3, the only known; {INSTEAD}")


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model, tokenizer and record into a folder that is there.

    Raises:
        ModelError: the file cannot be read as the model that it is.
        OSError: the disk is full.
    """
    read = read_model(file)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    dtype = UNROUNDED.get(read_metadata(file)[0].get("general.file_type"), torch.bfloat16)
    # A fresh one: transformers does not save a model that it has read from GGUF.
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    del read
    model.save_pretrained(str(folder))
    write_tokenizer(file, folder, config.vocab_size)
    files = {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()}
    source = {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_file(file)}
    versions = {name: version(name) for name in ("gguf", "tokenizers", "torch", "transformers")}
    dtype_name = str(dtype).removeprefix("torch.")
    write_json(folder / RECORD, {"gguf": source, "dtype": dtype_name, "files": files, "versions": versions})


def write_tokenizer(file: Path, folder: Path, size: int) -> None:
    """Write a GGUF file's tokenizer, of as many tokens as the model has.

    transformers builds a byte-level one as GPT-2's, whose <|endoftext|> it adds behind the vocabulary.
    """
    with reading(file):
        read = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        metadata, _ = read_metadata(file)
    read.save_pretrained(str(folder))
    path, config_path = folder / TOKENIZER, folder / "tokenizer_config.json"
    before = path.read_text(encoding="utf-8")
    tokenizer = json.loads(before)
    if metadata.get("tokenizer.ggml.model") == "gpt2":
        put_added_tokens(tokenizer, gguf.GGUFReader(str(file)))
        if metadata.get("tokenizer.ggml.pre") in MERGES_IGNORED:
            tokenizer["model"]["ignore_merges"] = True
    elif (tokenizer["pre_tokenizer"] or {}).get("type") == "Metaspace":
        put_space_before_each_part(tokenizer, metadata.get("tokenizer.ggml.add_space_prefix", True))
    added = {token["content"] for token in tokenizer["added_tokens"] if token["id"] >= size}
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] not in added]
    if tokenizer != json.loads(before):
        write_text(path, json.dumps(tokenizer, ensure_ascii=False))
        fields = read_json(config_path)
        write_json(config_path, {name: value for name, value in fields.items() if str(value) not in added})


def put_added_tokens(tokenizer: dict[str, Any], file: gguf.GGUFReader) -> None:
    """Put the added tokens of a byte-level tokenizer at their ids.

    Where one holds a character that is not of the alphabet of bytes, transformers spells it in bytes in its place, and
    adds the token itself behind the vocabulary.
    """
    fields = (file.get_field(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type"))
    pieces, kinds = (field.contents() if field else [] for field in fields)
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    spelled = {number: piece for piece, number in tokenizer["model"]["vocab"].items()}
    for number, (piece, kind) in enumerate(zip(pieces, kinds, strict=False)):
        if kind not in (gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED):
            continue
        if spelled.get(number) != piece:
            tokenizer["model"]["vocab"].pop(spelled.get(number), None)
            tokenizer["model"]["vocab"][piece] = number
        own = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        added[piece] = {"id": number, "content": piece, **own, "special": kind == gguf.TokenType.CONTROL}
    tokenizer["added_tokens"] = sorted(added.values(), key=lambda token: token["id"])


def put_space_before_each_part(tokenizer: dict[str, Any], prefixed: bool) -> None:
    """Have a SentencePiece tokenizer put its space before each part of a text between special tokens, or before none.

    So llama.cpp and the tokenizers of these files' origins do; transformers puts it before the first part alone.
    """
    steps = [{"type": "Prepend", "prepend": "▁"}] if prefixed else []
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    tokenizer["pre_tokenizer"], tokenizer["normalizer"] = None, {"type": "Sequence", "normalizers": steps}


def find_changed(folder: Path) -> list[str]:
    """Return the files of a folder made by `convert` that are missing, or no longer what was written."""
    written = read_json(folder / RECORD)["files"]
    return [
        name for name, hash_ in written.items() if not (folder / name).is_file() or sha256_file(folder / name) != hash_
    ]


def describe(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.iterdir())
    return f"{folder}: {size / 1e6:.0f} MB, weights in {read_json(folder / RECORD)['dtype']}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python models/from_gguf.py", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="a GGUF file")
    parser.add_argument("folder", type=lambda name: Path(name).absolute(), help="to write: a new one, or empty")
    arguments = parser.parse_args()
    folder = arguments.folder
    if os.path.lexists(folder) and not (folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())):
        raise ParameterError(f"{folder}: is there already, and is no empty folder; name a new one")
    with (
        hold(folder.with_name(f".{folder.name}"), f"conversion to {folder}", wait=False),
        folder_aside(folder) as aside,
    ):
        convert(arguments.file.absolute(), aside)
    print(f"{describe(folder)}. Make it the name of a profile: stages/README.md, Base models")


if __name__ == "__main__":
    run(main)
