"""From a model's name in params.yaml to a folder on this disk."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from civilqa.errors import ModelError

TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"]
# safetensors alone: a pickled checkpoint can run code when it is opened.
MODEL_FILES = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json"]

OFFLINE = "Without the hub the profiles tiny and llama-1b-random run: set model.profile in params.yaml."


def locate(name: str, revision: str | None, files: list[str]) -> Path:
    """Return the folder that holds the given files of a model, downloading what is missing.

    A folder is taken as it is. A hub model at a full commit is taken from the local cache without asking the hub, since
    a commit never changes.

    Args:
        files: names or patterns; the first of them must be there in the end.

    Raises:
        ModelError: says whether the name, the revision, the licence, the network or the model's files are the matter.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _download(name, revision, files)
    if not (folder / files[0]).is_file():
        raise ModelError(f"{name}: {folder} holds no {files[0]}; set the profile's name to a folder or hub id with one")
    return folder


def _download(name: str, revision: str | None, files: list[str]) -> Path:
    where = f"'{name}' at revision {revision or 'main'}"
    try:
        if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
            try:
                cached = Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=True))
                if (cached / files[0]).is_file():
                    return cached
            except LocalEntryNotFoundError:
                pass  # not downloaded yet
        return Path(snapshot_download(name, revision=revision, allow_patterns=files))
    except GatedRepoError:
        raise ModelError(
            f"{where} is gated: accept its licence on https://huggingface.co/{name}, make a token that may read it on "
            f"https://huggingface.co/settings/tokens and set it with `export HF_TOKEN=...`. {OFFLINE}"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"{where}: the model is there, the revision is not; set the profile's revision") from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"{where}: no such folder here and no such model on the hub, or one that your token may not see; set the "
            f"profile's name, or HF_TOKEN. {OFFLINE}"
        ) from None
    except HFValidationError:
        raise ModelError(f"'{name}' is neither a folder here nor a hub id such as meta-llama/Llama-3.2-1B") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{where} is not in the local cache and the hub gave no answer: {reason}\n{OFFLINE}") from None
