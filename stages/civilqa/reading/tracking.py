"""Whether git or DVC knows the source: what neither knows is missing in the copies that queued experiments run in."""

import shlex
import subprocess
from pathlib import Path


def untracked_note(source: Path) -> str | None:
    """Return what to do before `dvc exp run --queue` where the source is known to neither; None where it is known.

    Outside a git repository, where there are no experiments, there is nothing to do.
    """
    name = shlex.quote(source.as_posix())
    if any(path.with_name(f"{path.name}.dvc").is_file() for path in (source, *source.parents) if path.name):
        return None
    try:
        if git("rev-parse") or not git("ls-files", "--error-unmatch", "--", source.as_posix()):
            return None
        ignored = not git("check-ignore", "--quiet", "--", source.as_posix())
    except FileNotFoundError:  # no git: no experiments
        return None
    if ignored:
        how = f"git ignores it: `cp {name} data/raw/`, and set prepare.source to the copy"
    else:
        how = f"run `git add -N {name}`, or, if it must not be in git, `dvc add {name}` and what that asks to be added"
    return f"{source}: known to neither git nor DVC; `dvc exp run --queue` and `--temp` do not find it: {how}"


def git(*arguments: str) -> int:
    """Return the status that git ends with."""
    return subprocess.run(["git", *arguments], capture_output=True, check=False).returncode
