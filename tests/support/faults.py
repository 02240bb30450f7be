"""Runs a program again and again, each time with one accident caused inside it; its imports are paid for once.

    with Program("finetune") as program:
        ended = program.run(folder, fault={"signal": signal.SIGKILL, "event": 3})

The process behind it has imported all that the program imports and forks for each run: the child executes
`stages/finetune.py` of the folder as `python stages/finetune.py` does. What it is about to do to files of the folder
(open for writing, make, rename, remove, sync) are its events, in their order, and known before they happen: an
accident can be caused at each of them. What is written by libraries in Rust or C++ is no event: a limit on the size of
files hits it, or a signal at a moment in seconds.

A fault is one of
    {"signal": S, "event": n}          the process gets signal S before its event n (from 1)
    {"signal": S, "seconds": t}        ... after t seconds
    {"errno": E, "event": n}           from event n on each event fails with E; "under": only those below this path
    {"file_bytes": n}                  no file grows beyond n bytes (EFBIG)
    {"memory_mib": n}                  no more than n MiB of memory besides what is taken when it starts (RLIMIT_AS)
    {"clock_seconds": s, "call": n}    time.time is s seconds off from its call n on
"""

import contextlib
import errno
import faulthandler
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
READY = "ready"  # the event of a program that has begun


@dataclass(frozen=True)
class Ended:
    """How a run ended: `status` is negative for a signal, `events` what it did to files as [what, path]."""

    status: int
    stdout: str
    stderr: str
    seconds: float
    events: list[list[str]]
    hung: bool

    @property
    def message(self) -> str:
        """The last line of what it said."""
        return ([line for line in self.stderr.replace("\r", "\n").splitlines() if line.strip()] or [""])[-1]


class Program:
    """A program of stages/ with its imports done."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, __file__, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # threads that wait for each other are slow on a busy machine
        )

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def run(
        self,
        folder: Path,
        *arguments: str,
        fault: dict[str, Any] | None = None,
        stdin: str = "",
        timeout: float = 120,
    ) -> Ended:
        """Run it in a folder; one that takes longer than `timeout` seconds is killed, and has hung."""
        asked = {
            "folder": str(folder),
            "arguments": arguments,
            "fault": fault or {},
            "stdin": stdin,
            "timeout": timeout,
        }
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the process that runs {self.name} is gone"
        return Ended(**json.loads(answer))


@dataclass(frozen=True)
class Target:
    """What is run, and which paths it writes."""

    program: str
    writes: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    stdin: str = ""
    varies: bool = False  # whether two runs write other bytes: timings, the date of a conversation


TARGETS = {
    "prepare": Target(
        "prepare", ("data/prepared", "data/rejected.jsonl", "metrics/prepare.json", "metrics/plots/dataset.csv")
    ),
    "split": Target("split", ("data/splits", "metrics/split.json")),
    "format": Target("format", ("data/formatted", "metrics/format.json", "metrics/plots/lengths.csv")),
    "finetune": Target(
        "finetune",
        (
            "models/adapter",
            "metrics/finetune.json",
            "metrics/plots/loss_train.csv",
            "metrics/plots/loss_validation.csv",
        ),
    ),
    "evaluate": Target(
        "evaluate",
        (
            "data/predictions",
            "metrics/evaluate.json",
            "metrics/plots/scores.csv",
            "metrics/plots/scores_by_group.csv",
            "metrics/plots/bits.csv",
            "metrics/plots/differences.csv",
        ),
    ),
    "benchmark": Target("benchmark", ("metrics/benchmark.json", "metrics/plots/speed.csv"), varies=True),
    "export": Target("export", ("models/merged",)),
    "batch": Target("chat", ("answers.jsonl",), ("--max-new-tokens", "4", "batch", "questions.csv", "answers.jsonl")),
    "chat": Target(
        "chat", ("data/conversations",), ("--max-new-tokens", "4"), "보증금을 못 받았습니다.\n/저장\n", varies=True
    ),
}
# Two epochs, and so a checkpoint to go on from, in four steps.
FEW_STEPS = {"train.epochs": 2, "train.batch_size": 7, "hardware.threads": 1}
# Folders that hold files which belong together: all of one run, or none.
WHOLE_FOLDERS = ("data/splits", "data/formatted", "models/adapter", "models/merged")
# What stands in such a folder before: an earlier export is known by its manifest, and nothing else is replaced by one.
OLDER = {"models/merged": "manifest.json"}
OLDER_CONTENT = b'{"parity": {}}'
QUICK = ("prepare", "split", "format")


class Site:
    """A copy of a finished run in which one target has accidents."""

    def __init__(self, name: str, program: Program, folder: Path) -> None:
        self.name, self.target, self.program, self.folder = name, TARGETS[name], program, folder
        questions = "question\n" + "".join(f"{number}번째 질문입니다.\n" for number in range(20))
        (folder / "questions.csv").write_text(questions, encoding="utf-8")
        self.clear()
        self.calm = self.run()
        assert self.calm.status == 0, self.calm.stderr
        self.reference = self.written()
        assert self.reference

    def clear(self) -> None:
        """Take away what the target writes; folders that it replaces whole hold something older."""
        for name in (*self.target.writes, ".checkpoints", ".generations"):
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            if name in WHOLE_FOLDERS:
                path.mkdir(parents=True)
                (path / OLDER.get(name, "older")).write_bytes(OLDER_CONTENT)
        for path in self.folder.glob("*.part"):
            path.unlink()

    def run(self, fault: dict[str, Any] | None = None, timeout: float = 120) -> Ended:
        return self.program.run(
            self.folder, *self.target.arguments, fault=fault, stdin=self.target.stdin, timeout=timeout
        )

    def written(self) -> dict[str, bytes]:
        """Return the bytes of what the target has written, by path; what is not finished by its name is left out."""
        files = [path for name in self.target.writes for path in (self.folder / name, *(self.folder / name).rglob("*"))]
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in files
            if path.is_file() and path.suffix != ".part"
        }

    def check_whole(self) -> None:
        """Everything that there is under its name is as an undisturbed run writes it, or as it was before."""
        for name, content in self.written().items():
            if self.target.varies:
                assert content.endswith(b"\n"), f"{name} is not whole"
                if name.endswith(".json"):
                    json.loads(content)
            elif content != OLDER_CONTENT:
                assert content == self.reference[name], f"{name} differs from an undisturbed run's"
        for name in set(self.target.writes) & set(WHOLE_FOLDERS):
            found = {path.name for path in (self.folder / name).glob("*")}
            whole = {Path(path).name for path in self.reference if path.startswith(f"{name}/")}
            assert found in (set(), {OLDER.get(name, "older")}, whole), (
                f"{name} holds some files of a run and not the others: {found}"
            )
        ignored = ["git", "status", "--porcelain", "--untracked-files=all"]
        listed = subprocess.run(ignored, cwd=self.folder, capture_output=True, text=True, check=True).stdout
        assert ".part" not in listed, f"git would commit what is half written: {listed}"

    def check_next_run(self) -> Ended:
        """The next run ends well, with the bytes of an undisturbed one, and leaves nothing behind."""
        finished = self.name == "batch" and self.written() == self.reference
        ended = self.run()
        if finished and "이미 있습니다" in ended.message:  # all was written before the accident
            assert ended.status == 1
        else:
            assert ended.status == 0, ended.stderr
        if not self.target.varies:
            assert self.written() == self.reference
        else:
            assert self.written()
        left = [path for path in self.folder.rglob("*") if path.suffix == ".part" and "conversations" not in str(path)]
        assert left == []
        left = list((self.folder / ".checkpoints").glob("*"))
        assert left == []
        return ended


def moments(count: int, repeats: int) -> list[int]:
    """Return at which of `count` events an accident is to happen: the first, the last and random ones; 20: all."""
    if repeats >= 20:
        return list(range(1, count + 1))
    return sorted({1, count, *random.sample(range(1, count + 1), min(repeats, count))})


def main() -> None:
    name = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the imports print is no answer
    sys.path.insert(0, str(ROOT / "stages"))
    import_all(name)
    for line in sys.stdin:
        asked = json.loads(line)
        answers.write(json.dumps(run_once(name, **asked)) + "\n")
        answers.flush()


def import_all(name: str) -> None:
    """Import what the program imports, at its top and later."""
    __import__(name)
    if name == "chat":
        for module in ("chat.batch", "chat.terminal", "model.loading", "base_model.prompts"):
            __import__(f"civilqa.{module}")


def run_once(
    name: str, folder: str, arguments: list[str], fault: dict[str, Any], stdin: str, timeout: float
) -> dict[str, Any]:
    """Fork, run the program in the child, and return how it ended."""
    typed = Path(folder) / ".stdin"
    typed.write_text(stdin, encoding="utf-8")
    # Pipes: a limit on the size of files must not hit what is said of it.
    pipes = {what: os.pipe() for what in ("stdout", "stderr", "events")}
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(typed, os.O_RDONLY), 0)
        os.dup2(pipes["stdout"][1], 1)
        os.dup2(pipes["stderr"][1], 2)
        os.chdir(folder)
        run_as_main(name, arguments, fault, pipes["events"][1])
    for reading, writing in pipes.values():
        os.close(writing)
        os.set_blocking(reading, False)
    said = dict.fromkeys(pipes, b"")
    status, hung = wait(child, {what: reading for what, (reading, _) in pipes.items()}, said, fault, timeout)
    for reading, _ in pipes.values():
        os.close(reading)
    typed.unlink()
    events = said["events"].decode(errors="replace").splitlines()
    return {
        "status": status,
        "stdout": said["stdout"].decode(errors="replace"),
        "stderr": said["stderr"].decode(errors="replace"),
        "seconds": time.monotonic() - started,
        "events": [line.split("\t") for line in events if line != READY],
        "hung": hung,
    }


def wait(
    child: int, pipes: dict[str, int], said: dict[str, bytes], fault: dict[str, Any], timeout: float
) -> tuple[int, bool]:
    """Return the child's status and whether it had to be killed; hear what it says, send the signal that is due."""
    started = time.monotonic()
    ready = None
    sent = "seconds" not in fault
    hung = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        for what, pipe in pipes.items():
            with contextlib.suppress(BlockingIOError):
                while piece := os.read(pipe, 1 << 16):
                    said[what] += piece
        if ended:
            return os.waitstatus_to_exitcode(status), hung
        now = time.monotonic()
        if ready is None and said["events"]:
            ready = now
        if not sent and ready is not None and now >= ready + fault["seconds"]:
            os.kill(child, fault["signal"])
            sent = True
        if now > started + timeout and not hung:
            os.kill(child, signal.SIGABRT)  # shows where it hangs
            hung = True
        time.sleep(0.002)


def run_as_main(name: str, arguments: list[str], fault: dict[str, Any], events: int) -> None:
    """Be the program: `python stages/NAME.py ARGUMENTS` with a fault."""
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - the standard streams
            for number, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        sys.stderr.reconfigure(line_buffering=True)
        sys.argv = [f"stages/{name}.py", *arguments]
        cause(fault, events)
        faulthandler.enable()
        try:
            runpy.run_path(f"stages/{name}.py", run_name="__main__")
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def cause(fault: dict[str, Any], events: int) -> None:
    """Have the accident happen in this process, once the program has begun."""
    from civilqa.program.lifecycle import stage

    first = stage.start

    def begin(*arguments: Any, **named: Any) -> None:
        first(*arguments, **named)
        os.write(events, f"{READY}\n".encode())  # what came before is the interpreter's own start
        watch_files(fault, events)
        limit(fault)

    stage.start = begin


def limit(fault: dict[str, Any]) -> None:
    """Limit the size of files or the memory, or set the clock."""
    import resource

    if "file_bytes" in fault:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["file_bytes"], resource.RLIM_INFINITY))
    if "memory_mib" in fault:
        size = psutil.Process().memory_info().vms + fault["memory_mib"] * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
    if "clock_seconds" in fault:
        move_clock(fault["clock_seconds"], fault["call"])


def move_clock(seconds: float, call: int) -> None:
    real, calls = time.time, iter(range(1, 2**62))

    def moved() -> float:
        return real() + (seconds if next(calls) >= call else 0)

    for module in list(sys.modules.values()):  # those that took the function from its module
        if getattr(module, "time", None) is real:
            module.time = moved
    time.time = moved


def watch_files(fault: dict[str, Any], log: int) -> None:
    """Note what is done to files of the folder, and cause the fault at its event."""
    root = f"{Path.cwd()}{os.sep}"
    count = 0
    asleep = False

    def happen(what: str, path: Any) -> None:
        nonlocal count, asleep
        if asleep or not isinstance(path, str | bytes | os.PathLike):
            return
        name = os.path.realpath(os.fsdecode(path))
        if not name.startswith(root) or "__pycache__" in name:
            return
        name = name.removeprefix(root)
        if "under" in fault and not f"{name}/".startswith(fault["under"]):
            return
        count += 1
        asleep = True
        os.write(log, f"{what}\t{name}\n".encode())
        if "event" in fault and "signal" in fault and count == fault["event"]:
            os.kill(os.getpid(), fault["signal"])
        asleep = False
        # A full disk still renames and removes.
        freely = what in ("rename", "remove", "rmdir") and fault.get("errno") in (errno.ENOSPC, errno.EDQUOT)
        if "errno" in fault and count >= fault["event"] and not freely:
            raise OSError(fault["errno"], os.strerror(fault["errno"]), None if what == "sync" else os.fsdecode(path))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            ):
                happen("open", path)
        elif event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate"):
            happen(event.removeprefix("os."), arguments[0])

    sync, paths = os.fsync, {}

    def fsync(number: int) -> None:
        happen("sync", paths.get(number) or f"/proc/self/fd/{number}")
        sync(number)

    os.fsync = fsync
    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
