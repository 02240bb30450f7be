"""Many at once: experiments in DVC's queue, people at one remote, programs that read what another is writing."""

import contextlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

import compare_answers
import export
import pool_folds
from accidents import checked, commit_all, copy_run, outputs, run
from civilqa.inference import InferenceEngine
from civilqa.model import processes
from civilqa.program.errors import ModelError, PipelineError
from civilqa.program.lifecycle.locks import hold
from civilqa.training.checkpoints import KEPT_TRAININGS, forget_old_trainings
from conftest import edit_params

QUESTION = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"
ADAPTER = Path("models/adapter")
WEIGHTS = ADAPTER / "adapter_model.safetensors"
TORN = "adapter torn between two trainings"

# Two of the same training, so that they meet; the others differ in what an experiment varies.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "seed": {"train.seed": 1},
    "same-seed": {"train.seed": 1, "evaluate.few_shot_examples": 2},
    "rate": {"train.learning_rate": 0.001},
    "preset": {"train.preset": "fast"},
    "fold-1": {"split.fold": 1},
    "fold-2": {"split.fold": 2},
    "rank": {"tuning.tiny.rank": 8},
    "dropout": {"tuning.tiny.dropout": 0.1},
    "packing": {"train.packing": True},
    "draw": {"seed": 2},
}


def start(folder: Path, *command: str, **options: Any) -> subprocess.Popen:
    """Start a command as accidents.run runs it, its output in a file, since nobody may read a pipe."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = (folder.parent / f"{folder.name}.{time.monotonic_ns()}.log").open("w", encoding="utf-8")
    options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT} | options
    environment = os.environ | {"PATH": path} | options.pop("environment", {})
    process = subprocess.Popen(command, cwd=folder, env=environment, **options)
    process.log = log
    return process


def printed(process: subprocess.Popen) -> str:
    # Opened anew: who reads from the file that was handed on moves the place where the process writes.
    return Path(process.log.name).read_text(encoding="utf-8")


def set_params(changes: dict[str, Any]) -> list[str]:
    return [argument for key, value in changes.items() for argument in ("-S", f"{key}={str(value).lower()}")]


def stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


# --- experiments -----------------------------------------------------------------------------------------------------


def queue(folder: Path, name: str, changes: dict[str, Any], target: str) -> None:
    checked(folder, "dvc", "exp", "run", "--queue", "--name", name, *set_params(changes), target)


def queue_states(folder: Path) -> dict[str, str]:
    """Return what `dvc queue status` says of each experiment: {"seed": "Running"}."""
    lines = [line.split() for line in checked(folder, "dvc", "queue", "status").splitlines()]
    return {words[1]: words[-1] for words in lines if len(words) > 3 and words[-1] in STATES}


STATES = ("Queued", "Running", "Success", "Failed")


def wait_for_queue(folder: Path, limit_seconds: float, number: int) -> int:
    """Wait until so many experiments have ended; returns the most that ran at once.

    One that a worker is just taking from the queue is shown nowhere.
    """
    most, ends = 0, time.monotonic() + limit_seconds
    while True:
        states = list(queue_states(folder).values())
        most = max(most, states.count("Running"))
        if len(states) == number and not {"Queued", "Running"} & set(states):
            return most
        assert time.monotonic() < ends, f"the queue did not end: {states}"
        time.sleep(1)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in a folder or below it; one that has ended and is not collected does not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_workers(folder: Path) -> None:
    """Wait for DVC's workers, which end by themselves when the queue is empty; none may stay."""
    ends = time.monotonic() + 60
    while (alive := processes_in(folder)) and time.monotonic() < ends:
        time.sleep(0.5)
    assert not alive, [process.cmdline() for process in alive]


def locked(folder: Path, name: str) -> dict[str, Any]:
    """Return the hashes of all that an experiment made, as its dvc.lock has them, but for the timings."""
    revision = checked(folder, "git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").strip()
    text = checked(folder, "git", "show", f"{revision}:dvc.lock")
    stages = YAML(typ="safe").load(text)["stages"]
    return {stage: entry["outs"] for stage, entry in stages.items() if stage != "benchmark"}


@pytest.mark.slow
def test_queued_experiments_are_those_run_alone(outcomes, run_copy, tmp_path, repeats):
    chosen, last = (EXPERIMENTS, "evaluate") if repeats >= 10 else (dict(list(EXPERIMENTS.items())[:2]), "finetune")
    alone = copy_run(run_copy, tmp_path / "alone")
    queue(run_copy, "wrong", {"train.epochs": -1}, last)
    for name, changes in chosen.items():
        queue(run_copy, name, changes, last)
    # Its workers keep its output open: who waits for the end of that waits for theirs.
    assert start(run_copy, sys.executable, "-m", "dvc", "queue", "start", "--jobs", "2").wait(120) == 0
    assert wait_for_queue(run_copy, 240 * len(chosen), len(chosen) + 1) == 2
    end_workers(run_copy)
    states = queue_states(run_copy)
    with outcomes.trial("a wrong experiment among others", "dvc queue", "shown as failed, its log says why"):
        assert states.pop("wrong") == "Failed"
        assert "train.epochs: found -1" in checked(run_copy, "dvc", "queue", "logs", "wrong")
        assert set(states.values()) == {"Success"}
    assert list((run_copy / ".checkpoints").iterdir()) == []
    assert not list((run_copy / ".generations").glob("*.part"))
    assert checked(run_copy, "git", "status", "--short") == ""
    for number, (name, changes) in enumerate(chosen.items()):
        with outcomes.trial("two experiments at a time", "dvc queue", "the bytes of the experiment run alone"):
            # In a copy of the checkout and in the workspace by turns; nothing is taken from the run cache.
            where = ["--temp"] if number % 2 == 0 else []
            shutil.rmtree(alone / ".dvc/cache/runs", ignore_errors=True)
            checked(alone, "dvc", "exp", "run", *where, "--name", name, *set_params(changes), last)
            assert locked(run_copy, name) == locked(alone, name)
            checked(alone, "git", "checkout", "--quiet", "--force", ".")


@pytest.mark.slow
def test_the_same_training_in_two_folders_takes_turns(outcomes, finished_run, run_copy, tmp_path):
    other = copy_run(finished_run, tmp_path / "other")
    shared = {"environment": {"DVC_ROOT": str(tmp_path)}}
    with outcomes.trial("the same training twice at once", "finetune", "the second waits, both get the same bytes"):
        both = [start(folder, sys.executable, "stages/finetune.py", **shared) for folder in (run_copy, other)]
        assert [process.wait(300) for process in both] == [0, 0], [printed(process)[-2000:] for process in both]
        assert sum("the same training in another folder) holds it: waiting" in printed(p) for p in both) == 1
        assert outputs(run_copy) == outputs(other) == outputs(finished_run)
        assert list((tmp_path / ".checkpoints").iterdir()) == []


@pytest.mark.slow
def test_what_a_killed_worker_was_at_is_queued_again(outcomes, run_copy, repeats):
    """Everything of DVC's is killed, as when the machine goes down. What README.md says to do then is done."""
    for number in range(min(repeats, 5)):
        name, changes = f"killed-{number}", {"prepare.min_answer_characters": 11 + number}
        with outcomes.trial("kill -9", "dvc queue", "removed from the queue and queued again, it ends"):
            queue(run_copy, name, changes, "prepare")
            assert start(run_copy, sys.executable, "-m", "dvc", "queue", "start").wait(120) == 0
            time.sleep(random.uniform(2, 6))
            for process in processes_in(run_copy):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            end_workers(run_copy)
            if queue_states(run_copy).get(name) == "Running":
                checked(run_copy, "dvc", "queue", "kill", name)
            if name in queue_states(run_copy):
                checked(run_copy, "dvc", "queue", "remove", name)
            run(run_copy, "dvc", "exp", "remove", name)
            queue(run_copy, name, changes, "prepare")
            checked(run_copy, "dvc", "queue", "start")
            wait_for_queue(run_copy, 120, number + 1)
            end_workers(run_copy)
            assert queue_states(run_copy)[name] == "Success"
            lock = YAML(typ="safe").load((run_copy / "dvc.lock").read_text(encoding="utf-8"))["stages"]
            assert locked(run_copy, name)["prepare"] == lock["prepare"]["outs"]


def test_trainings_that_forget_at_the_same_time_do_not_stumble(outcomes, tmp_path, repeats):
    for _ in range(repeats):
        root = tmp_path / "checkpoints"
        for number in range(40):
            (root / f"{number:064x}").mkdir(parents=True)
            (root / f"{number:064x}" / "weights").write_bytes(b"x")
        running = root / f"{5:064x}"
        os.utime(running, (1, 1))
        problems: list[BaseException] = []

        def forget(number: int, root: Path = root, problems: list = problems) -> None:
            try:
                forget_old_trainings(root / f"{number + 1000:064x}")
            except BaseException as error:  # a thread's own exception would be lost
                problems.append(error)

        with (
            outcomes.trial("others delete the same old checkpoints", "finetune", "goes on; one that runs is kept"),
            hold(running, "a training"),
        ):
            threads = [threading.Thread(target=forget, args=(number,)) for number in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert problems == []
            assert running.is_dir()
            left = [path for path in root.iterdir() if path.is_dir()]
            assert len(left) == KEPT_TRAININGS + 1
        shutil.rmtree(root)


# --- a remote --------------------------------------------------------------------------------------------------------


def add_remote(folder: Path, store: Path, verify: bool = True) -> None:
    """Add a default remote by hand, as README.md says to: `dvc remote add` cannot write Hangul."""
    with (folder / ".dvc/config").open("a", encoding="utf-8") as file:
        file.write(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {store}\n")
        file.write("    verify = true\n" if verify else "")
    # DVC's parser refuses a section twice.
    text = (folder / ".dvc/config").read_text(encoding="utf-8")
    first, _, rest = text.partition("[core]\n    remote = store\n")
    (folder / ".dvc/config").write_text(first.replace("[core]\n", "[core]\n    remote = store\n") + rest, "utf-8")


def clone(source: Path, target: Path) -> Path:
    checked(source.parent, "git", "clone", "--quiet", str(source), str(target))
    return target


def stored(store: Path, content: bytes) -> Path:
    """Return the file of a remote that holds these bytes."""
    return next(path for path in store.rglob("*") if path.is_file() and path.read_bytes() == content)


@pytest.fixture
def shared_run(run_copy: Path, tmp_path: Path) -> Path:
    """A finished run whose remote is a folder with Hangul and a space in its name; nothing is pushed yet."""
    add_remote(run_copy, tmp_path / "공유 폴더")
    commit_all(run_copy, "remote")
    return run_copy


@pytest.mark.slow
def test_colleagues_pull_what_was_pushed_and_run_what_they_changed(outcomes, shared_run, tmp_path):
    with outcomes.trial("fresh clone elsewhere", "dvc pull", "the pushed bytes, and nothing runs again"):
        checked(shared_run, "dvc", "push", "--run-cache")
        colleague = clone(shared_run, tmp_path / "동료의 저장소")
        checked(colleague, "dvc", "pull")
        assert outputs(colleague) == outputs(shared_run)
        assert stages_run(checked(colleague, "dvc", "repro")) == []
    with outcomes.trial("a colleague changes a parameter", "dvc push", "only its stage runs, the first runs nothing"):
        edit_params(colleague / "params.yaml", **{"prepare.min_answer_characters": 11})
        assert stages_run(checked(colleague, "dvc", "repro")) == ["prepare"]
        commit_all(colleague, "eleven")
        checked(colleague, "dvc", "push")
        checked(shared_run, "git", "pull", "--quiet", "--ff-only", str(colleague), "HEAD")
        checked(shared_run, "dvc", "pull")
        assert stages_run(checked(shared_run, "dvc", "repro")) == []
        assert outputs(colleague) == outputs(shared_run)


@pytest.mark.slow
def test_what_is_wrong_in_a_remote_is_said_and_mended_by_another_push(outcomes, shared_run, tmp_path):
    checked(shared_run, "dvc", "push")
    weights = (shared_run / WEIGHTS).read_bytes()
    damages = {"missing": None, "truncated": weights[:1000], "changed by a bit": weights[:5000] + b"?" + weights[5001:]}
    for kind, content in damages.items():
        with outcomes.trial(f"an object of the remote is {kind}", "dvc pull", "an error; push and pull mend it"):
            path = stored(tmp_path / "공유 폴더", weights)
            path.chmod(0o644)
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            colleague = clone(shared_run, tmp_path / "colleague")
            pulled = run(colleague, "dvc", "pull")
            assert pulled.returncode == 1
            assert "failed to pull data" in pulled.stderr
            assert not (colleague / ADAPTER).exists()
            path.unlink(missing_ok=True)
            # DVC takes a folder whose list is in the remote for whole, and would push nothing.
            for listing in (tmp_path / "공유 폴더").rglob("*.dir"):
                listing.unlink()
            checked(shared_run, "dvc", "push")
            checked(colleague, "dvc", "pull")
            assert outputs(colleague) == outputs(shared_run)
            shutil.rmtree(colleague)


@pytest.mark.slow
def test_a_remote_that_takes_nothing_loses_nothing(outcomes, shared_run, tmp_path):
    store = tmp_path / "공유 폴더"
    with outcomes.trial("the remote is a file", "dvc push", "an error; the next push is whole"):
        store.write_text("", encoding="utf-8")
        pushed = run(shared_run, "dvc", "push")
        assert pushed.returncode != 0
        assert "ERROR" in pushed.stderr
        assert "Traceback" not in pushed.stderr
        store.unlink()
    with outcomes.trial("no room for the weights in the remote", "dvc push", "an error; the next push is whole"):
        limit_kib = (shared_run / WEIGHTS).stat().st_size // 2048
        pushed = run(shared_run, "bash", "-c", f"ulimit -f {limit_kib}; trap '' XFSZ; dvc push")
        assert pushed.returncode != 0
        assert "ERROR" in pushed.stderr
        checked(shared_run, "dvc", "push")
        colleague = clone(shared_run, tmp_path / "colleague")
        checked(colleague, "dvc", "pull")
        assert outputs(colleague) == outputs(shared_run)


@pytest.mark.slow
def test_a_push_or_pull_that_is_killed_is_done_by_the_next(outcomes, shared_run, tmp_path, repeats):
    store = tmp_path / "공유 폴더"
    for number in range(repeats):
        colleague = tmp_path / f"colleague-{number}"
        with outcomes.trial("kill -9", "dvc push", "the next push is whole"):
            shutil.rmtree(store, ignore_errors=True)
            kill_after(shared_run, random.uniform(0.3, 2.5), "dvc", "push")
            checked(shared_run, "dvc", "push")
        with outcomes.trial("kill -9", "dvc pull", "the next pull is whole, and nothing runs again"):
            clone(shared_run, colleague)
            kill_after(colleague, random.uniform(0.3, 3), "dvc", "pull")
            checked(colleague, "dvc", "pull")
            assert outputs(colleague) == outputs(shared_run)
            assert "Running stage" not in checked(colleague, "dvc", "repro", "--dry")
        shutil.rmtree(colleague)


def kill_after(folder: Path, seconds: float, *command: str) -> None:
    process = start(folder, *command)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()


# --- the adapter, while it is made -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_chat_goes_on_while_its_adapter_is_trained_anew(outcomes, run_copy):
    ask = ["stages/chat.py", "--max-new-tokens", "8"]
    chat = start(run_copy, sys.executable, *ask, stdin=subprocess.PIPE, text=True, encoding="utf-8")
    training = None
    try:
        put(chat, 1)
        with outcomes.trial("training begins anew", "chat", "goes on with the adapter that it has loaded"):
            training = start(run_copy, "dvc", "repro", "--force", "--single-item", "--no-run-cache", "finetune")
            # DVC deletes the adapter, then starts the training, which takes its lock once it has imported torch.
            wait_until(lambda: (run_copy / f"{processes.WORKSPACE_LOCK}.holder").exists(), training)
            assert not (run_copy / ADAPTER).exists()
            put(chat, 2)
            answers = printed(chat).split("질문> ")[1:]
            assert answers[0].split(" · ")[0] == answers[1].split(" · ")[0]
        with outcomes.trial("training is under way", "chat", "says which process trains, and to wait"):
            late = run(run_copy, sys.executable, *ask, "--question", QUESTION)
            assert training.poll() is None
            assert not (run_copy / ADAPTER).exists()
            assert late.returncode == 1
            assert re.search(r"지금 학습하는 중입니다\(process \d+ \(training in this folder\)\)", late.stderr)
            assert "Traceback" not in late.stderr
        assert training.wait(300) == 0, printed(training)[-2000:]
    finally:
        chat.stdin.close()
        assert chat.wait(60) == 0
        if training is not None and training.poll() is None:
            for process in processes_in(run_copy):
                process.kill()


def put(chat: subprocess.Popen, number: int) -> None:
    """Ask a chat its n-th question and wait for the answer."""
    chat.stdin.write(f"{QUESTION}\n")
    chat.stdin.flush()
    wait_until(lambda: printed(chat).count("토큰 · ") == number, chat)


def wait_until(condition: Any, process: subprocess.Popen, limit_seconds: float = 120) -> None:
    ends = time.monotonic() + limit_seconds
    while not condition():
        assert process.poll() is None, printed(process)[-2000:]
        assert time.monotonic() < ends, printed(process)[-2000:]
        time.sleep(0.02)


@pytest.fixture
def here(chat_project, monkeypatch):
    """The project with an adapter, as the current folder."""
    monkeypatch.chdir(chat_project)
    return chat_project


def replace_adapter() -> None:
    """Put an equal adapter in place as a training does: other files, hence another one for all that can be told."""
    shutil.copytree(ADAPTER, "aside")
    shutil.rmtree(ADAPTER)
    Path("aside").rename(ADAPTER)


def test_an_adapter_that_is_replaced_while_it_is_loaded_is_refused(outcomes, here, monkeypatch):
    from civilqa.model import loading as models

    load = models.load_tuned
    for when in ("before", "after"):

        def load_meanwhile(*arguments: Any, when: str = when) -> Any:
            if when == "before":
                replace_adapter()
            loaded = load(*arguments)
            if when == "after":
                replace_adapter()
            return loaded

        monkeypatch.setattr(models, "load_tuned", load_meanwhile)
        with (
            outcomes.trial(TORN, "chat", "refused with a message"),
            pytest.raises(ModelError, match="다른 모델로 바뀌었습니다"),
        ):
            InferenceEngine().load_finetuned_model()
    monkeypatch.setattr(models, "load_tuned", lambda *arguments: shutil.rmtree(ADAPTER) or load(*arguments))
    with (
        outcomes.trial("adapter deleted while it is loaded", "chat", "refused with a message"),
        pytest.raises(ModelError, match="다른 모델로 바뀌었습니다"),
    ):
        InferenceEngine().load_finetuned_model()


def test_answers_are_never_put_down_to_another_adapter(outcomes, here):
    engine = InferenceEngine().configure(max_new_tokens=8).load_finetuned_model()
    before = engine.generate_answer(QUESTION)["answer"]
    assert engine.identity() == engine.identity()
    replace_adapter()
    with outcomes.trial("adapter replaced after loading", "batch", "refused with a message, before any answer"):
        with pytest.raises(ModelError, match="다른 모델로 바뀌었습니다"):
            engine.identity()
        shutil.rmtree(ADAPTER)
        assert engine.generate_answer(QUESTION)["answer"] == before
    with outcomes.trial("params.yaml edited, adapter gone", "web", "the base beside it is the one of its start"):
        beside = engine.load_base_beside().generate_answer(QUESTION)["answer"]
        (here / "params.yaml").write_text("hardware: {", encoding="utf-8")
        assert engine.load_base_beside().generate_answer(QUESTION)["answer"] == beside != before
        assert "전세사기" in engine.categories


def test_an_export_of_an_adapter_that_is_replaced_meanwhile_is_given_up(outcomes, here, monkeypatch):
    merge = export.merge
    monkeypatch.setattr(export, "merge", lambda *arguments: (merge(*arguments), replace_adapter())[0])
    with (
        outcomes.trial(TORN, "export", "given up with a message, nothing half-written"),
        pytest.raises(ModelError, match="was replaced while it was exported"),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        export.export(Path("models/merged"), "fp32", gguf=None)
    assert not list(Path("models").glob("*merged*"))


@pytest.mark.slow
def test_of_two_exports_at_once_one_is_told_of_the_other(outcomes, chat_project):
    with outcomes.trial("two at once", "export", "one ends whole, the other says which process is at it"):
        both = [start(chat_project, sys.executable, "stages/export.py") for _ in range(2)]
        ended = sorted(process.wait(300) for process in both)
        texts = [printed(process) for process in both]
        assert ended == [0, 1], texts
        assert sum("export to models/merged) holds it; let it end" in text for text in texts) == 1
        assert not any("Traceback" in text for text in texts)
        assert sorted(path.name for path in (chat_project / "models").glob("*merged*")) == ["merged"]


def test_a_missing_adapter_is_said_to_be_under_way_only_while_its_training_lives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert processes.who_writes(ADAPTER) is None
    with hold(processes.WORKSPACE_LOCK, "training in this folder"):
        assert processes.who_writes(ADAPTER) == f"process {os.getpid()} (training in this folder)"
        assert processes.who_writes(Path("elsewhere")) is None
    # What a training that was killed leaves behind.
    Path(f"{processes.WORKSPACE_LOCK}.holder").write_text('{"pid": 1, "purpose": "x"}', encoding="utf-8")
    assert processes.who_writes(ADAPTER) is None


# --- folds and comparisons -------------------------------------------------------------------------------------------


def forge_experiments(folder: Path) -> None:
    """Make the finished run an experiment of each fold. (Five real ones take minutes, and differ in nothing here.)"""
    head = checked(folder, "git", "rev-parse", "HEAD").strip()
    for fold in range(5):
        edit_params(folder / "params.yaml", **{"split.fold": fold})
        commit_all(folder, f"fold {fold}") if fold else None
        checked(folder, "git", "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/fold-{fold}", "HEAD")
    checked(folder, "git", "reset", "--quiet", "--hard", head)


@pytest.mark.slow
def test_folds_and_comparisons_name_what_they_miss(outcomes, run_copy, monkeypatch):
    forge_experiments(run_copy)
    monkeypatch.chdir(run_copy)
    programs = {"pool_folds": (pool_folds, []), "compare_answers": (compare_answers, ["fold-1"])}

    def complains(program: str, accident: str, message: str, *arguments: str) -> None:
        module, usual = programs[program]
        monkeypatch.setattr(sys, "argv", [program, *(arguments or usual)])
        with outcomes.trial(accident, program, "says what and which"), pytest.raises(PipelineError, match=message):
            module.main()
        assert not Path("metrics/folds.json").exists()

    complains("pool_folds", "records tested twice", "is tested in 5 folds")
    complains(
        "pool_folds", "experiment of that name missing", "no experiment none of this commit; there are: fold-0", "none"
    )
    complains("compare_answers", "experiment of that name missing", "none: cannot be read", "none")
    predictions = Path("data/predictions/test.jsonl").read_bytes()
    in_cache = stored(Path(".dvc/cache"), predictions)
    in_cache.chmod(0o644)
    for damaged in (predictions[:-10], predictions.replace(b"\n", b" \n", 1), b"[]\n"):
        in_cache.write_bytes(damaged)
        complains("pool_folds", "predictions damaged in the cache", "test.jsonl of fold-0: damaged in DVC's cache")
        complains("compare_answers", "predictions damaged in the cache", "test.jsonl of fold-1: damaged in DVC's cache")
    in_cache.unlink()
    complains("pool_folds", "predictions gone from the cache", "test.jsonl of fold-0: cannot be read")
    complains("compare_answers", "predictions gone from the cache", "test.jsonl of fold-1: cannot be read")
    Path("data/predictions/test.jsonl").write_bytes(predictions[:-10])
    complains("compare_answers", "predictions damaged in the workspace", r"test\.jsonl:\d+: no JSON", "workspace")

    Path("params.yaml").write_text("split: {fold: 0", encoding="utf-8")
    complains("pool_folds", "params.yaml broken", r"params\.yaml: not readable as YAML")
    Path("params.yaml").write_text("split: {fold: 0}", encoding="utf-8")
    complains("pool_folds", "params.yaml without folds", r"params\.yaml: has no split\.fold and split\.folds")
    commit_all(run_copy, "a later commit")
    checked(run_copy, "git", "checkout", "--quiet", "HEAD~1", "--", "params.yaml")
    complains("pool_folds", "experiments of an older commit", "of this commit; there are: none", "fold-0")
    monkeypatch.setenv("PATH", "")
    complains("pool_folds", "git is missing", "git: not found")
    monkeypatch.undo()
    monkeypatch.chdir(run_copy)
    shutil.rmtree(".git")
    complains("pool_folds", "no git repository", "not a git repository")
    complains("compare_answers", "no git repository", "not a git repository")
