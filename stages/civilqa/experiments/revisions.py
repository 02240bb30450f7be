"""Outputs of a stage as an experiment or commit left them, read from git and DVC's cache."""

import hashlib
import json
from typing import Any

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from scmrepo.exceptions import SCMError

from civilqa.program.errors import PipelineError


def read_rows(revision: str, path: str, name: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of a JSONL output of a revision: an experiment, a branch, a tag or a commit.

    DVC hands out what its cache holds without a look at it; the bytes are compared with the hash in dvc.lock here.

    Args:
        name: what messages call the revision, if not by itself.

    Raises:
        PipelineError: there is no such revision, or its output is not in the cache, or not as it was put there.
    """
    name = name or revision
    try:
        files = DVCFileSystem(rev=revision)
        expected, content = files.info(path).get("md5"), files.read_bytes(path)
    except (DvcException, SCMError, OSError) as error:
        raise PipelineError(
            f"{path} of {name}: cannot be read: {error or type(error).__name__}; `dvc exp list` names the "
            "experiments, `dvc fetch` gets outputs from a remote, and running it again makes them again"
        ) from None
    damaged = PipelineError(
        f"{path} of {name}: damaged in DVC's cache; get it from a remote (`dvc fetch`), or run it again with "
        "`dvc exp run --force`"
    )
    if expected is not None and hashlib.md5(content, usedforsecurity=False).hexdigest() != expected:
        raise damaged
    try:
        rows = [json.loads(line) for line in content.decode("utf-8").splitlines()]
    except ValueError:
        raise damaged from None
    if not all(isinstance(row, dict) for row in rows):
        raise damaged
    return rows
