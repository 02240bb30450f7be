"""The adapter's folder, and the lock of the process that is training it. Needs no library but the lock's."""

from pathlib import Path

from civilqa.program.lifecycle.locks import who_holds

ADAPTER = Path("models/adapter")
WORKSPACE_LOCK = Path(".checkpoints/workspace")


def who_writes(folder: Path) -> str | None:
    """Return the process that is training the adapter of a folder, or None; also for any folder but the adapter's.

    DVC deletes the adapter before it trains a new one: what is missing is then to be waited for.
    """
    return who_holds(WORKSPACE_LOCK) if folder.resolve() == ADAPTER.resolve() else None
