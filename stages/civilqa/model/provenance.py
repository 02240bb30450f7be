"""What an adapter was made from, and whether that is what it meets now. Needs no torch.

finetune writes it beside the adapter, as manifest.json: base, tokenizer, chat template, training data, and the
adapter's own files, each by hash. An adapter is opened here or not at all:

    evaluate, benchmark     base, tokenizer, own files; template and training data as data/formatted holds them now
    chat, export            base, tokenizer, own files; template as the profile has it: they need no data
    probe                   base, tokenizer, own files: it asks without a template
    chat on a merged model  its own files: base, tokenizer and template are among them
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic

from civilqa.base_model.hub import TOKENIZER, TOKENIZER_EXTRAS, locate, read_config
from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import read_template
from civilqa.model.processes import who_writes
from civilqa.program.errors import ModelError
from civilqa.program.files import at_hand, sha256_file, sha256_json, write_json

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
MANIFEST_FILE = "manifest.json"
TRAINED_ON = ("train.jsonl", "validation.jsonl")

# For people and for other programs: nothing here reads them, and who hands a model on may write into them.
UNSEALED = (MANIFEST_FILE, "README.md", "Modelfile")

TRAIN_AGAIN = "train it again with `dvc repro finetune` (-f -s where DVC sees no change; or python stages/finetune.py)"


class Manifest(pydantic.BaseModel):
    """What an adapter's manifest.json holds. `data` is by file name, `files` by name within the adapter's folder."""

    model_config = pydantic.ConfigDict(frozen=True, strict=True, extra="forbid")
    again: ClassVar[str] = TRAIN_AGAIN

    base: dict[str, Any]
    quantization: Literal["none", "8bit", "4bit"]
    tokenizer: dict[str, str]
    template_sha256: str
    data: dict[str, str]
    files: dict[str, str] = {}


class MergedManifest(Manifest):
    """What the manifest.json of a merged model holds: that of its adapter, and how it was merged."""

    again: ClassVar[str] = "export it again: python stages/export.py"

    adapter: dict[str, str]
    conversational: bool
    precision: str
    parity: dict[str, Any]
    parity_with_quantized: dict[str, Any] | None = None
    gguf: dict[str, Any] | None = None
    versions: dict[str, Any]


@dataclass(frozen=True)
class Adapter:
    """An adapter whose files are those that were trained, for the base that they were trained on."""

    folder: Path
    manifest: Manifest
    model: ModelParams
    profile: Profile

    @property
    def identity(self) -> dict[str, str]:
        """What decides, with the base, what the adapter does."""
        files = {name: self.manifest.files[name] for name in (WEIGHTS_FILE, CONFIG_FILE)}
        return {**files, "quantization": self.manifest.quantization}


def describe_making(
    model: ModelParams, profile: Profile, quantization: str, template: str, formatted: Path | None = None
) -> Manifest:
    """Return what an adapter that is trained now, on the data in `formatted`, is made from; `seal` adds `files`."""
    return Manifest(
        base=base_identity(model, profile),
        quantization=quantization,
        tokenizer=tokenizer_identity(profile),
        template_sha256=template_identity(template),
        data={name: sha256_file(formatted / name) for name in TRAINED_ON} if formatted else {},
    )


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder, with the hash of each of its files; the last thing to be written into it."""
    paths = (path for path in folder.iterdir() if path.is_file() and path.name not in UNSEALED)
    files = {path.name: sha256_file(path) for path in paths}
    write_json(folder / MANIFEST_FILE, manifest.model_copy(update={"files": files}).model_dump(exclude_none=True))


def open_adapter(
    folder: Path,
    model: ModelParams,
    profile: Profile,
    *,
    template: str | None = None,
    formatted: Path | None = None,
) -> Adapter:
    """Return the adapter of a folder, having checked that it is whole and belongs to what it is used with.

    Args:
        template: the chat template that it is to be asked with.
        formatted: in place of `template`, the folder of formatted data that it must have been trained on.

    Raises:
        ModelError: names everything that does not fit, and what to do.
    """
    manifest = read_manifest(folder, Manifest)
    check_files(folder, manifest, (WEIGHTS_FILE, CONFIG_FILE))
    chosen = f"profile '{model.profile}'"
    problems = []
    if difference := _difference(manifest.base, base_identity(model, profile)):
        problems.append(f"was trained on another base model than the one of {chosen}: {difference}")
    if difference := _difference(manifest.tokenizer, tokenizer_identity(profile)):
        problems.append(f"was trained with another tokenizer than the one of {chosen}: {difference}")
    source = "format.style and the profile"
    if formatted is not None:
        template, source = read_template(formatted), str(formatted)
        now = {name: sha256_file(formatted / name) if (formatted / name).is_file() else None for name in TRAINED_ON}
        if difference := _difference(manifest.data, now):
            problems.append(f"was trained on other data than {formatted} holds: {difference}")
    if template is not None and manifest.template_sha256 != (now := template_identity(template)):
        problems.append(
            f"was trained with another chat template than the one of {source}: "
            f"{_shown(manifest.template_sha256)} then, {_shown(now)} now"
        )
    if problems:
        put_back = "or put back what it was trained with: the data, the templates, and in params.yaml model, profiles"
        lines = [*(f"{folder}: {problem}" for problem in problems), f"{TRAIN_AGAIN}, {put_back} and format"]
        raise ModelError("\n".join(lines))
    return Adapter(folder, manifest, model, profile)


def read_manifest(folder: Path, kind: type[Manifest]) -> Any:
    """Return what a folder says of its making.

    Raises:
        ModelError: there is no adapter or merged model in the folder, or it does not say.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        if writer := who_writes(folder):
            raise ModelError(f"{folder}: is being made by {writer}; wait until it has ended, then start again")
        raise ModelError(f"{folder}: holds no {MANIFEST_FILE}; run `dvc repro finetune` (or python stages/finetune.py)")
    try:
        return kind.model_validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{path}: does not say what the model was made from ({where}{': ' if where else ''}{first['msg']}): it is "
            f"damaged, or older than this check; {kind.again}"
        ) from None


def check_files(folder: Path, manifest: Manifest, needed: tuple[str, ...] = ()) -> None:
    """Check that the files of a folder are those that its manifest was written for, the needed ones among them.

    Raises:
        ModelError: names the files that are missing or changed.
    """
    wrong = [
        f"{name} is {'missing' if not (folder / name).is_file() else 'not the file that was written'}"
        for name, then in sorted(manifest.files.items())
        if not (folder / name).is_file() or sha256_file(folder / name) != then
    ]
    wrong += [f"{MANIFEST_FILE} names no {name}" for name in needed if name not in manifest.files]
    if wrong:
        raise ModelError(
            f"{folder}: {', '.join(wrong)}: damaged, or of another model; copy the folder whole once more, or "
            f"take it from DVC's cache with `dvc checkout --force`, or {manifest.again}"
        )


def base_identity(model: ModelParams, profile: Profile) -> dict[str, Any]:
    """Return what decides the base's weights: same identity, same weights."""
    if profile.weights == "random":
        return {"weights": "random", "seed": model.seed, "config_sha256": sha256_json(read_config(profile))}
    folder = at_hand(profile.name)
    if folder.is_dir():
        locate(profile.name, profile.revision, ["config.json"])
        files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
        return {"weights": "folder", "sha256": {path.name: sha256_file(path) for path in files}}
    return {"weights": "hub", "name": profile.name, "revision": profile.revision}


def tokenizer_identity(profile: Profile) -> dict[str, str]:
    """Return the hashes of what decides how text becomes tokens.

    Raises:
        ModelError: the tokenizer's files cannot be had or read.
    """
    folder = locate(profile.tokenizer_source, profile.revision, [TOKENIZER], TOKENIZER_EXTRAS)
    identity = {TOKENIZER: sha256_file(folder / TOKENIZER)}
    config = folder / "tokenizer_config.json"
    if config.is_file():
        try:
            fields = dict(json.loads(config.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ModelError(f"{config}: no JSON object: {error}; take the tokenizer's files from one place") from None
        fields.pop("chat_template", None)  # which template is used is a question of its own
        identity[config.name] = sha256_json(fields)
    return identity


def template_identity(template: str) -> str:
    """Return the SHA-256 of a chat template's text."""
    return hashlib.sha256(template.encode()).hexdigest()


def _difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the entries in which two identities differ, in words; '' if they do not."""
    before, after = dict(_flat(then)), dict(_flat(now))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {_shown(before.get(name))} then, {_shown(after.get(name))} now" for name in names)


def _flat(identity: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in identity.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    """Return a value for a message, of a hash the first digits."""
    text = "nothing" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
