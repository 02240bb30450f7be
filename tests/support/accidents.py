"""What the tests of accidents share: a finished run to break, and a count of what was tried and what held.

    pytest tests/accidents --accidents-repeats 20 --accidents-report tests/accidents/counted.json
    python tests/support/accidents.py   writes the table of tests/README.md from tests/accidents/counted.json

The first is the long form: every accident at so many random moments; without the options each happens once or a few
times. Rows of the report that a run did not try stay as they were.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
REPORT = TESTS / "accidents" / "counted.json"
README = TESTS / "README.md"
BEGIN, END = "<!-- accidents: written by tests/support/accidents.py -->", "<!-- accidents: end -->"

# A run that takes seconds: it shows what runs and what is written, not what is learned.
SMALL = {
    "prepare.difficulties": ["초급"],
    "train.epochs": 1,
    "train.max_length": 192,
    "train.overlong": "truncate",
    "evaluate.few_shot_examples": 1,
    "evaluate.max_new_tokens": 8,
    "evaluate.max_train_records": 2,
    "evaluate.permutations": 100,
    "benchmark.repeats": 1,
    "benchmark.warmup": 1,
    "benchmark.new_tokens": 2,
    "benchmark.train_length": 16,
}


class Outcomes:
    """Counts, for each accident and what it hit, how often it was caused and how often the outcome was right."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}

    @contextmanager
    def trial(self, accident: str, target: str, outcome: str) -> Iterator[None]:
        """Count what the block does as one try, which held if the block raises nothing.

        Args:
            accident: what is caused, as a row of the table names it: `kill -9`.
            target: what it hits: `finetune`, `chat`, `batch`, `web`, `export`, `dvc`.
            outcome: what has to happen, in words that the table shows.
        """
        row = self._row(accident, target, outcome)
        row["tried"] += 1
        yield
        row["held"] += 1

    def _row(self, accident: str, target: str, outcome: str) -> dict[str, Any]:
        return self.rows.setdefault((accident, target), {"outcome": outcome, "tried": 0, "held": 0})

    def listed(self) -> list[dict[str, Any]]:
        """Return the rows as the report holds them."""
        return [{"accident": accident, "target": target, **row} for (accident, target), row in self.rows.items()]

    def add(self, counted: list[dict[str, Any]]) -> None:
        """Add what another process has counted."""
        for row in counted:
            mine = self._row(row["accident"], row["target"], row["outcome"])
            mine["tried"] += row["tried"]
            mine["held"] += row["held"]

    def write(self, path: Path) -> None:
        """Write the report, the rows of this run in place of what it held of them before."""
        kept = {(row["accident"], row["target"]): row for row in [*_read(path), *self.listed()]}
        path.write_text(
            json.dumps([kept[key] for key in sorted(kept)], indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def run(folder: Path, *command: str, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder with the tests' own Python first on the path; `python` and `dvc` are theirs."""
    variables = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"} | environment
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=variables,
        timeout=timeout,
        check=False,
    )


def checked(folder: Path, *command: str, **environment: str) -> str:
    """Run a command that must end well; returns what it printed."""
    finished = run(folder, *command, **environment)
    output = finished.stdout + finished.stderr
    assert finished.returncode == 0, f"{' '.join(command)} ended with {finished.returncode}:\n{output[-4000:]}"
    return output


def commit_all(folder: Path, message: str) -> None:
    """Commit everything in a repository, as somebody who has set a name."""
    checked(folder, "git", "add", "--all")
    checked(folder, "git", "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-qm", message)


def outputs(folder: Path) -> dict[str, bytes]:
    """Return the bytes of everything that the stages write and two runs must agree in, by path.

    The adapter, the data, the predictions and the metrics; not the benchmark and not what differs from run to run.
    """
    roots = ["data/prepared", "data/splits", "data/formatted", "data/predictions", "models/adapter", "metrics"]
    paths = [path for root in roots for path in sorted((folder / root).rglob("*")) if path.is_file()]
    varying = ("metrics/benchmark.json", "metrics/plots/speed.csv", "metrics/runs/", "metrics/probe.json")
    named = {path.relative_to(folder).as_posix(): path for path in [*paths, folder / "data/rejected.jsonl"]}
    return {name: path.read_bytes() for name, path in named.items() if not name.startswith(varying)}


def leftovers(folder: Path) -> list[str]:
    """Return what a broken run must not leave: files written aside, locks, checkpoints of a finished training."""
    found = [path for path in folder.rglob("*.part") if ".venv" not in path.parts]
    found += [*folder.glob(".checkpoints/*")] if (folder / ".checkpoints").exists() else []
    return sorted(path.relative_to(folder).as_posix() for path in found)


def copy_run(source: Path, target: Path) -> Path:
    """Copy a finished run whole: repository, DVC's cache, outputs."""
    return Path(shutil.copytree(source, target, symlinks=True))


def _read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def format_table(rows: list[dict[str, Any]]) -> str:
    """Return the report as a Markdown table: a line for each accident and outcome, with all that it hit."""
    alike: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        alike.setdefault((row["accident"], row["outcome"]), []).append(row)
    lines = ["| accident | what happens | hits | tried | held |", "| --- | --- | --- | --- | --- |"]
    for (accident, outcome), hits in alike.items():
        targets = ", ".join(f"{row['target']} {row['held']}/{row['tried']}" for row in hits)
        lines.append(f"| {accident} | {outcome} | {targets} | {_total(hits, 'tried')} | {_total(hits, 'held')} |")
    return "\n".join([*lines, f"| **all** | | | **{_total(rows, 'tried')}** | **{_total(rows, 'held')}** |"])


def _total(rows: list[dict[str, Any]], key: str) -> int:
    return sum(row[key] for row in rows)


def main() -> None:
    argparse.ArgumentParser(description="Write the table of tests/README.md from what the tests counted.").parse_args()
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    README.write_text(f"{before}{BEGIN}\n{format_table(_read(REPORT))}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
