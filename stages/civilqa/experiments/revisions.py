"""Outputs of a stage as an experiment or commit left them, read from git and DVC's cache."""

import hashlib
import json
import subprocess
from typing import Any

from civilqa.program.errors import PipelineError


def git(*arguments: str) -> str:
    """Return what git prints.

    Raises:
        PipelineError: git failed.
    """
    try:
        finished = subprocess.run(["git", *arguments], capture_output=True, text=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        raise PipelineError("git: not found; experiments are git commits: install git") from None
    if finished.returncode:
        reason = finished.stderr.strip().splitlines()
        raise PipelineError(
            f"git {' '.join(arguments)}: {reason[0] if reason else f'ended with {finished.returncode}'}; run this in "
            "the checkout in which the experiments were made"
        )
    return finished.stdout


def read_rows(revision: str, path: str, name: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of a JSONL output of a revision: an experiment, a branch, a tag or a commit.

    DVC hands out what its cache holds without a look at it; the bytes are compared with the hash in dvc.lock here.

    Args:
        name: what messages call the revision, if not by itself.

    Raises:
        PipelineError: there is no such revision, or its output is not in the cache, or not as it was put there.
    """
    # Here, since they take a second: a wrong argument should not wait for it.
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    name = name or revision
    # The project may be a folder of a larger repository, as whose files DVC names its outputs.
    path_in_repository = git("rev-parse", "--show-prefix").strip() + path
    try:
        files = DVCFileSystem(rev=revision, subrepos=True)
        expected, content = files.info(path_in_repository).get("md5"), files.read_bytes(path_in_repository)
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
