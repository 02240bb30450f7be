"""What several test modules need."""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from ruamel.yaml import YAML

from accidents import SMALL, Outcomes, checked, commit_all, copy_run
from faults import FEW_STEPS, TARGETS, Program, Site

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from civilqa.inference import InferenceEngine

ROOT = Path(__file__).resolve().parents[1]
HEADER = "question,answer,category,difficulty"

# The tests are offline by design: a test that reaches for the model hub must fail, not download.
os.environ["HF_HUB_OFFLINE"] = "1"

# Several programs of one test share the cores: a thread that waits for another sleeps, and does not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A test's time says how busy the machine is.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")

# A shell starts its background jobs with Ctrl-C ignored, and so would be the programs that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accidents-repeats", type=int, default=1, help="times that each accident is caused")
    parser.addoption("--accidents-report", type=Path, help="JSON that counts what was tried and what held")


def pytest_configure(config: pytest.Config) -> None:
    config.outcomes = Outcomes()


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--accidents-report")
    if hasattr(session.config, "workeroutput"):  # one of several processes that share the tests: another one writes
        session.config.workeroutput["outcomes"] = session.config.outcomes.listed()
    elif path is not None:
        session.config.outcomes.write(path)


def pytest_testnodedown(node: Any, error: Any) -> None:
    """Take over what a process counted that has run a share of the tests; one that crashed counted nothing."""
    node.config.outcomes.add(getattr(node, "workeroutput", {}).get("outcomes", []))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what breaks, attacks and kills whole programs: it takes minutes."""
    for item in items:
        if item.path.is_relative_to(ROOT / "tests/accidents") or item.path.is_relative_to(ROOT / "tests/security"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def outcomes(pytestconfig: pytest.Config) -> Outcomes:
    """Counts tries: `with outcomes.trial("kill -9", "finetune", "goes on from its last checkpoint"): ...`."""
    return pytestconfig.outcomes


@pytest.fixture
def repeats(pytestconfig: pytest.Config) -> int:
    """How often an accident at a random moment is caused: once, or as `--accidents-repeats` says."""
    return pytestconfig.getoption("--accidents-repeats")


def edit_params(path: Path, **changes: Any) -> None:
    """Set keys of a params.yaml, written as in `-S`: edit_params(path, **{"train.epochs": 1})."""
    yaml = YAML()
    params = yaml.load(path.read_text(encoding="utf-8"))
    for dotted, value in changes.items():
        *parents, key = dotted.split(".")
        section = params
        for parent in parents:
            section = section[parent]
        section[key] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def committed(name: str) -> dict[str, Any]:
    """Return the metrics of a stage as they are in the project, from the run that is committed with it."""
    return json.loads((ROOT / "metrics" / f"{name}.json").read_text(encoding="utf-8"))


def copy_project(copy: Path) -> Path:
    """Copy what a clone of the project holds besides its history, without outputs of stages."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    ).stdout.splitlines()
    for name in listed:
        source = ROOT / name
        if source.is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return copy


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which `dvc repro` has run all six stages with small settings, committed; never to be changed."""
    folder = copy_project(tmp_path_factory.mktemp("finished") / "project")
    (folder / "dvc.lock").unlink(missing_ok=True)
    edit_params(folder / "params.yaml", **SMALL)
    checked(folder, "git", "init", "--quiet")
    commit_all(folder, "start")
    checked(folder, "dvc", "repro")
    commit_all(folder, "finished")
    return folder


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be broken."""
    return copy_run(finished_run, tmp_path / "run")


@pytest.fixture(scope="session")
def program() -> Iterator[Callable[[str], Program]]:
    """Returns a program of stages/ with its imports done, started on first use."""
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(name: str) -> Program:
            return stack.enter_context(Program(name))

        yield start


@pytest.fixture(scope="session")
def site(
    finished_run: Path, program: Callable[[str], Program], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Site]:
    """Returns the place where a target of faults.TARGETS has accidents, made on first use."""

    @functools.cache
    def make(name: str) -> Site:
        folder = copy_run(finished_run, tmp_path_factory.mktemp(name) / "run")
        edit_params(folder / "params.yaml", **FEW_STEPS)
        return Site(name, program(TARGETS[name].program), folder)

    return make


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what a clone of the project holds besides its history, without outputs of stages."""
    return copy_project(tmp_path / "project")


# What the adapter of make_adapter says that it was trained on, as (category, question).
TRAINED_ON = (
    ("부동산물권", "등기하지 않은 매수인도 소유권을 주장할 수 있나요?"),
    ("전세사기", "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"),
    ("전세사기", "집주인이 바뀌면 보증금은 누구에게 받나요?"),
)


def make_adapter(folder: Path, quantization: str = "none") -> None:
    """Write an adapter for the tiny base that changes its answers, without training it; the project's root is cwd.

    It claims to be trained on data/formatted, where there is any.
    """
    import torch
    from peft import get_peft_model

    from civilqa.base_model.categories import add_questions, write_categories
    from civilqa.base_model.profiles import read_profile
    from civilqa.base_model.prompts import TEMPLATE_FILE, FormatParams
    from civilqa.model.hardware import Hardware
    from civilqa.model.loading import load_base, save_adapter
    from civilqa.model.provenance import describe_making, seal
    from civilqa.program.files import write_text
    from civilqa.program.parameters import read_choice, read_sections
    from civilqa.training.adapter import Tuning, make_lora_config

    model_params, profile = read_profile()
    torch.manual_seed(7)
    base = load_base(model_params, profile, Hardware("cpu", "fp32", 2))
    tuning = read_choice("tuning", model_params.profile, Tuning, "model.profile")
    adapted = get_peft_model(base, make_lora_config(tuning, profile.revision))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    save_adapter(adapted, folder)
    template = Path(profile.template).read_text(encoding="utf-8")
    write_text(folder / TEMPLATE_FILE, template)
    categories: dict[str, Any] = {}
    add_questions(categories, TRAINED_ON, *read_sections(format=FormatParams))
    write_categories(folder, categories)
    formatted = Path("data/formatted") if Path("data/formatted").is_dir() else None
    seal(folder, describe_making(model_params, profile, quantization, template.removesuffix("\n"), formatted))


@pytest.fixture(scope="session")
def base() -> "PreTrainedModel":
    """The tiny base; never to be changed."""
    from civilqa.base_model.profiles import ModelParams, Profile
    from civilqa.model.hardware import Hardware
    from civilqa.model.loading import load_base

    profile = Profile(name=str(ROOT / "models/tiny"), weights="random")
    return load_base(ModelParams(profile="tiny", seed=1), profile, Hardware("cpu", "fp32", 2))


@pytest.fixture(scope="session")
def tokenizer() -> "PreTrainedTokenizerFast":
    """The tiny base's tokenizer."""
    from civilqa.base_model.profiles import Profile
    from civilqa.base_model.prompts import load_tokenizer

    return load_tokenizer(Profile(name=str(ROOT / "models/tiny"), weights="random"))


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for the tiny base, made once."""
    folder = tmp_path_factory.mktemp("adapter")
    with contextlib.chdir(ROOT):
        make_adapter(folder)
    return folder


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The profile of a base that is trained in a second or two; never to be changed."""
    from small_training import write_base

    return write_base(tmp_path_factory.mktemp("small") / "base")


@pytest.fixture(scope="session")
def engine(adapter_folder: Path) -> "InferenceEngine":
    """The engine with that adapter loaded, for short answers."""
    from civilqa.inference import InferenceEngine

    with contextlib.chdir(ROOT):
        return InferenceEngine().configure(max_new_tokens=24).load_finetuned_model(adapter_folder)


@pytest.fixture
def chat_project(project: Path, adapter_folder: Path) -> Path:
    """A copy of the project with an adapter and short answers."""
    shutil.copytree(adapter_folder, project / "models/adapter")
    edit_params(project / "params.yaml", **{"chat.max_new_tokens": 24})
    return project


@pytest.fixture
def run_stage(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python stages/NAME.py` in the copied project, as a user without DVC does."""

    def run(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, f"stages/{name}.py"],
            cwd=project,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )

    return run
