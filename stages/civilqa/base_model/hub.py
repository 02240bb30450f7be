"""From a model's name in params.yaml to files on this disk: their bytes the hub's, and such as can be trained here.

A model is a folder, which is taken as it is, or a hub id at a commit. A commit never changes: what the local cache
holds of it is used as it is, without asking the hub, and what is downloaded is compared with the hub's hashes once.
Needs no torch.
"""

import functools
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import transformers
from huggingface_hub import HfApi, constants, errors, get_hf_file_metadata, get_token, hf_hub_url, is_offline_mode
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedTokenizerFast

from civilqa.base_model.profiles import Profile
from civilqa.program.errors import ModelError
from civilqa.program.files import at_hand
from civilqa.program.lifecycle.machine_errors import FULL

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_EXTRAS = ["tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"]
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FETCH = "fetch.py"  # beside a folder of this repository that is not in git: makes it

# How transformers names its causal language models; the second is what GPT-2 and its like are called.
CAUSAL_SUFFIXES = ("ForCausalLM", "LMHeadModel")
CONTEXT_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")  # as Llama's, GPT-2's and MPT's files say
# Names only: asking transformers for the class itself would import torch. Listing them takes half a second.
names_of_transformers = functools.cache(lambda: frozenset(dir(transformers)))

HUB = "https://huggingface.co"
OFFLINE = (
    "Without the hub the profiles tiny and llama-1b-random run, and after `python models/gemma-270m/fetch.py` "
    "gemma-270m: set model.profile in params.yaml."
)


def locate(name: str, revision: str | None, files: Sequence[str], optional: Sequence[str] = ()) -> Path:
    """Return the folder that holds the given files of a model, downloading and verifying what is missing.

    Args:
        optional: files that are wanted where the model has them.

    Raises:
        ModelError: says whether the name, the revision, the licence, the token, the network, the disk, the bytes or the
            model's files are the matter, and what to do.
    """
    folder = at_hand(name)
    if folder.is_dir():
        for file in files:
            if not (folder / file).is_file():
                raise ModelError(f"{name}: the folder holds no {file}; set the profile's name to one that does")
        return folder
    _require_commit(name, revision)
    return _find_cached(name, revision, files, optional) or _download(name, revision, files, optional)


def locate_weights(name: str, revision: str | None) -> Path:
    """Return the folder that holds a model's configuration and all of its weights; downloads what is missing."""
    return locate(name, revision, [CONFIG, *weight_files(name, revision)], [GENERATION_CONFIG])


def weight_files(name: str, revision: str | None) -> list[str]:
    """Return the names of the files that hold a model's weights: one, or an index and the files that it lists.

    They are named one by one, since a repository can hold its weights twice, in the layout of another library too.

    Raises:
        ModelError: there are none in safetensors. A pickled checkpoint (.bin, .pt) can run code when it is opened.
    """
    if (folder := at_hand(name)).is_dir():
        names = {path.name for path in folder.iterdir()}
    else:
        _require_commit(name, revision)
        cached = next((file for file in (WEIGHTS, INDEX) if _find_cached(name, revision, [file])), None)
        names = {cached} if cached else set(_list_files(name, revision))
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX in names:
        path = locate(name, revision, [INDEX]) / INDEX
        try:
            files = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{path}: no index of weights: {error}; take another model") from None
        if odd := [file for file in files if not re.fullmatch(r"[\w.-]+\.safetensors", file)]:
            found = f"names {odd[0]!r}, which is no file of safetensors beside it"
            raise ModelError(f"{path}: {found}; take another model")
        return [INDEX, *files]
    pickles = sorted(file for file in names if file.endswith((".bin", ".pt", ".pth", ".ckpt")))
    if not pickles:
        raise ModelError(f"{name}: holds neither {WEIGHTS} nor {INDEX}; set the profile's name to a model with weights")
    raise ModelError(
        f"{name}: holds its weights as {', '.join(pickles[:3])} alone, and a pickled checkpoint can run code when it "
        "is opened: only safetensors are read. Look for a revision with safetensors among the pull requests on "
        f"{HUB}/{name}/discussions; or convert a checkpoint that you trust, with transformers' "
        "save_pretrained, and set the profile's name to that folder"
    )


def check_weights(name: str, revision: str | None) -> int:
    """Return how many bytes of a model's weights are still to be downloaded, having checked that they can be.

    Raises:
        ModelError: they are not there, may not be read, or do not fit on the disk.
    """
    files = weight_files(name, revision)
    if at_hand(name).is_dir():
        locate(name, revision, files)
        return 0
    if not (missing := [file for file in files if not _find_cached(name, revision, [file])]):
        return 0
    _require_listed(name, revision, missing)
    with _explain(name, revision):
        for file in missing:
            get_hf_file_metadata(hf_hub_url(name, file, revision=revision))
    return _check_disk(name, revision, missing)


def read_config(profile: Profile) -> dict[str, Any]:
    """Return the base model's config.json, having checked that this pipeline can train such a model.

    Raises:
        ModelError: it needs code of its own, is no causal language model of transformers, or is quantised already.
    """
    path = locate(profile.name, profile.revision, [CONFIG], [GENERATION_CONFIG]) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architectures = list(config.get("architectures") or [])
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{path}: no model configuration: {error}; take another model") from None
    known = [name for name in architectures if name in names_of_transformers()]
    if config.get("auto_map"):
        edit = f"copy the model to a folder, delete auto_map from its {CONFIG} and set the profile's name to the folder"
        take = "take a model whose architecture transformers has"
        way_out = f"transformers has {known[0]} itself: {edit}" if known else take
        raise ModelError(
            f"{profile.name}: its {CONFIG} asks to run code from its own repository (auto_map), which this pipeline "
            f"never does (no trust_remote_code); {way_out}"
        )
    if not any(name.endswith(CAUSAL_SUFFIXES) for name in known):
        raise ModelError(
            f"{profile.name}: its architecture is {', '.join(architectures) or 'not named'}, which is no causal "
            f"language model of transformers {transformers.__version__}; take a text model named ...ForCausalLM"
        )
    heads, groups = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(groups, int) and (groups < 1 or heads % groups):
        raise ModelError(
            f"{profile.name}: its {CONFIG} shares {groups} num_key_value_heads among {heads} num_attention_heads, "
            "which cannot be done evenly: the file is damaged; take it from where the model came from"
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unnamed method")
        raise ModelError(
            f"{profile.name}: its weights are quantised already ({method}); take the model in full precision, and let "
            "the preset quantise it: `-S train.preset=memory_efficient`"
        )
    return config


def published_dtype(profile: Profile) -> str | None:
    """Return torch's name of the type that a base's weights are published in, None where its file does not say.

    Raises:
        ModelError: see read_config.
    """
    config = read_config(profile)
    return config.get("dtype") or config.get("torch_dtype")


def context_length(profile: Profile) -> int:
    """Return how many tokens of prompt and answer together the base model was made for.

    Raises:
        ModelError: the model's configuration cannot be had, or does not say.
    """
    config = read_config(profile)
    length = next((config[name] for name in CONTEXT_LENGTHS if isinstance(config.get(name), int)), None)
    if length is None:
        raise ModelError(f"{profile.name}: its {CONFIG} says no {CONTEXT_LENGTHS[0]}; add the number")
    return length


def check_base(profile: Profile, tokenizer: PreTrainedTokenizerFast, template: str) -> str:
    """Check all that can be known of the base model before it is downloaded; returns what was found, for the user.

    A special token without an embedding does no harm where nothing puts it into a prompt: Gemma 3's tokenizer has one
    for images, which its text models cannot take.

    Args:
        template: the chat template that it is asked with.

    Raises:
        ModelError: it cannot be had, does not fit on the disk, cannot be trained here, or has another tokenizer.
    """
    config = read_config(profile)
    named = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    idle = {
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special and token.content not in named and token.content not in template
    }
    largest = max(number for number in tokenizer.get_vocab().values() if number not in idle)
    if largest >= config.get("vocab_size", 0):
        raise ModelError(
            f"{profile.name}: has embeddings for {config.get('vocab_size', 0)} tokens, and the tokenizer in "
            f"{profile.tokenizer_source} has ids up to {largest}; set the profile's tokenizer to the one made for it"
        )
    if profile.weights == "random":
        return f"base {profile.name}, random weights"
    missing = check_weights(profile.name, profile.revision)
    where = f"{missing / 1e9:.2f} GB to download before training" if missing else "weights on this disk"
    return f"base {profile.name}, {where}"


def _require_commit(name: str, revision: str | None) -> None:
    """Raise unless the model is a hub id pinned by a full commit; says which commit that would be now."""
    if (script := Path(name).parent / FETCH).is_file():
        raise ModelError(f"{name}: is not here yet; run `python {script.as_posix()}`, which says what it fetches")
    try:
        validate_repo_id(name)
    except errors.HFValidationError:
        raise ModelError(f"'{name}' is neither a folder here nor a hub id such as meta-llama/Llama-3.2-1B") from None
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return
    where = f"'{name}' is no folder here, and as a hub id it needs a pinned revision"
    found = "found none" if revision is None else f"found '{revision}', which can move"
    if is_offline_mode():
        commits = f"a commit of 40 hex digits from {HUB}/{name}/commits/main"
        raise ModelError(f"{where}: {found}; set the profile's revision to {commits}. {OFFLINE}")
    commit = _ask_first(name, revision or "main").commit_hash
    raise ModelError(f"{where}: {found}; '{revision or 'main'}' is now revision: {commit}")


def _find_cached(name: str, revision: str, files: Sequence[str], optional: Sequence[str] = ()) -> Path | None:
    """Return the snapshot in the local cache if it holds the files, and of the optional ones what the model has."""
    try:
        wanted = [*files, *optional]
        folder = Path(HfApi().snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        return None
    return folder if all((folder / file).is_file() for file in files) else None


def _download(name: str, revision: str, files: Sequence[str], optional: Sequence[str]) -> Path:
    listing = _list_files(name, revision)
    _require_listed(name, revision, files)
    wanted = [file for file in (*files, *optional) if file in listing]
    _check_disk(name, revision, [file for file in wanted if not _find_cached(name, revision, [file])])
    with _explain(name, revision):
        folder = Path(HfApi().snapshot_download(name, revision=revision, allow_patterns=wanted))
        # The client itself compares no more than their sizes.
        found = HfApi().verify_repo_checksums(name, revision=revision)
    changed = [
        f"{file['path']} in the local cache is not the hub's (its hash is {file['actual']}, the hub's "
        f"{file['expected']}): it was damaged or changed on the way or on this disk. {_remove(folder / file['path'])}"
        for file in found.mismatches
        if file["path"] in wanted
    ]
    if changed:
        raise ModelError(
            f"{_where(name, revision)}: {'; '.join(changed)}; run the stage again to download it. If it ends here "
            "again, suspect what lies between: HF_ENDPOINT, a proxy"
        )
    return folder


def _remove(path: Path) -> str:
    """Remove a file from the cache; returns what was done, or what is to be done where that is not allowed."""
    blob = path.resolve()
    try:
        blob.unlink()
        path.unlink(missing_ok=True)  # where the cache holds links to its files
    except OSError as error:
        return f"It cannot be removed ({error}): remove {blob}"
    return "It has been removed"


def _require_listed(name: str, revision: str, files: Sequence[str]) -> None:
    if absent := [file for file in files if file not in _list_files(name, revision)]:
        save = "save its tokenizer to a folder with transformers' AutoTokenizer and set the profile's tokenizer to it"
        way_out = save if TOKENIZER in absent else "take another model"
        raise ModelError(f"{_where(name, revision)}: the repository holds no {', '.join(absent)}; {way_out}")


@functools.cache
def _list_files(name: str, revision: str) -> dict[str, RepoFile]:
    """Return the files at the top of a repository, with their sizes and hashes, by name."""
    _ask_first(name, revision)
    with _explain(name, revision):
        entries = HfApi().list_repo_tree(name, revision=revision)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def _ask_first(name: str, revision: str) -> Any:
    """Ask for one file's metadata: whether the hub answers, knows the model, and lets this user read it.

    Other requests of the client are repeated for 24 s before it gives up on a network that is not there. This one is
    asked twice at most, and once where it ran into its time limit.
    """
    url = hf_hub_url(name, CONFIG, revision=revision)
    with _explain(name, revision):
        try:
            answer = get_hf_file_metadata(url)
        except errors.RemoteEntryNotFoundError:
            raise ModelError(
                f"{_where(name, revision)}: holds no {CONFIG}, so that it is no transformers model; take another"
            ) from None
        except (httpx2.NetworkError, httpx2.RemoteProtocolError, errors.HfHubHTTPError) as error:
            if isinstance(error, errors.HfHubHTTPError) and error.response.status_code < 500:
                raise
            time.sleep(1)
            answer = get_hf_file_metadata(url)
    if answer.commit_hash is None:
        raise ModelError(
            f"{_where(name, revision)}: {constants.ENDPOINT} answers, but not as a model hub does; see whether "
            f"HF_ENDPOINT is right and whether this network wants a login. {OFFLINE}"
        )
    return answer


def _check_disk(name: str, revision: str, files: Sequence[str]) -> int:
    """Return the size of files of a repository in bytes.

    Raises:
        ModelError: the file system of the local cache has less room than that.
    """
    needed = sum(_list_files(name, revision)[file].size for file in files)
    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    if needed > free:
        raise ModelError(
            f"{_where(name, revision)}: {needed / 1e9:.2f} GB are to be downloaded to {cache}, and its file system has "
            f"{free / 1e9:.2f} GB free; make room there, or put the cache on another disk: `export HF_HOME=/folder`"
        )
    return needed


def _where(name: str, revision: str | None) -> str:
    return f"'{name}' at revision {revision or 'main'}"


@contextmanager
def _explain(name: str, revision: str | None) -> Iterator[None]:
    """Turn what the client raises into a ModelError that says what to do."""
    where, page, cache = _where(name, revision), f"{HUB}/{name}", constants.HF_HUB_CACHE
    absent, tokens = f"{where} is not, or not whole, in the local cache ({cache})", f"{HUB}/settings/tokens"
    try:
        yield
        return
    except errors.GatedRepoError:
        way_in = (
            f"accept its licence on {page}, make a token that may read it on {tokens} and set it with "
            "`export HF_TOKEN=...` (or `hf auth login`)"
        )
        if get_token() is not None:
            way_in = (
                f"accept its licence on {page} with the account that the token in use belongs to, and wait until "
                "access is granted; a fine-grained token also needs 'Read access to contents of all public gated repos "
                f"you can access' ({tokens}); set another token with `export HF_TOKEN=...`"
            )
        found = f"{where} is gated: {way_in}. {OFFLINE}"
    except errors.RevisionNotFoundError:
        to_set = f"set the profile's revision to one of {page}/commits/main"
        found = f"{where}: the model is there, the revision is not; {to_set}"
    except errors.RepositoryNotFoundError:
        found = (
            f"{where}: no such folder here and no such model on the hub, or one that your token may not see; set the "
            f"profile's name, or HF_TOKEN. {OFFLINE}"
        )
    except errors.HfHubHTTPError as error:
        found = f"{where}: the hub answered {_reason(error)}\n{OFFLINE}"
        if error.response.status_code == 401:
            found = (
                f"{where}: the hub does not accept the token in use; make another on {tokens} and set it with `export "
                "HF_TOKEN=...`, or `unset HF_TOKEN` for a model that needs none"
            )
    except UnicodeError:
        found = f"{where}: the token in use holds characters that no token has; set it again: `export HF_TOKEN=...`"
    except (httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:  # hf_xet raises RuntimeError
        found = f"{where}: cannot be downloaded to {cache}: {_reason(error)}"
        if isinstance(error, OSError) and error.errno in FULL:
            found = (
                f"{where}: the disk is full: {_reason(error)}; make room in {cache}, or put the cache on another disk: "
                "`export HF_HOME=/folder`"
            )
        elif is_offline_mode():
            found = f"{absent}, and HF_HUB_OFFLINE is set. {OFFLINE}"
        elif isinstance(error, (httpx2.HTTPError, errors.LocalEntryNotFoundError)):
            found = (
                f"{absent}, and the hub ({constants.ENDPOINT}) cannot be reached or broke off: {_reason(error)}; run "
                f"the stage again once the network is there: what was downloaded whole is kept. {OFFLINE}"
            )
    raise ModelError(found)


def _reason(error: Exception) -> str:
    """Return the first line of an error's text, without the token: also one that is not in the environment."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    token = get_token()
    return text.replace(token, "<token>") if token else text
