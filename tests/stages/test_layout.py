"""Where things stand: which package may import which, what a stage depends on, and how long a file may be."""

import ast
import filecmp
import shutil
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from accidents import checked
from conftest import ROOT, edit_params

STAGES = ("prepare", "split", "format", "finetune", "evaluate", "benchmark")
LIBRARY = ROOT / "stages/civilqa"

# From the ground up: a package imports from lower floors alone.
FLOORS = (
    {"program"},
    {"base_model", "dataset", "law"},
    {"model", "reading"},
    {"generation"},
    {"training"},
    {"scoring", "speed"},
    {"review"},
    {"chat", "experiments", "llama_cpp"},
    {"inference"},  # a module: the documented door to the engine
)


def imported_modules(path: Path) -> Iterator[Path]:
    """Yield the project's own modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            module = ROOT / "stages" / (name.replace(".", "/") + ".py")
            if module.is_file():
                yield module


def all_modules(path: Path) -> set[Path]:
    """Return the modules that a file imports, directly or through one another."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        new = set(imported_modules(waiting.pop())) - found
        found |= new
        waiting += new
    return found


def room(module: Path) -> str:
    """Return the package of a module, or the module itself where it stands in none."""
    return module.relative_to(LIBRARY).parts[0].removesuffix(".py")


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_packages_import_from_lower_floors_alone():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    upward = [
        f"{module.relative_to(LIBRARY)} imports {imported.relative_to(LIBRARY)}"
        for module in LIBRARY.rglob("*.py")
        if module.name != "__init__.py"
        for imported in imported_modules(module)
        if room(imported) != room(module) and floor[room(imported)] >= floor[room(module)]
    ]
    assert not upward


def test_no_module_imports_itself_through_others():
    TopologicalSorter({path: set(imported_modules(path)) for path in LIBRARY.rglob("*.py")}).prepare()


def test_every_package_says_in_a_line_what_it_is():
    packages = [path for path in LIBRARY.rglob("*") if path.is_dir() and path.name != "__pycache__"]
    silent = [path.name for path in packages if not ast.get_docstring(ast.parse((path / "__init__.py").read_text()))]
    assert packages
    assert not silent


@pytest.mark.parametrize("stage", STAGES)
def test_the_deps_of_a_stage_are_its_script_and_the_packages_that_it_imports(stage):
    script = ROOT / "stages" / f"{stage}.py"
    deps = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["deps"]
    listed = {dep for dep in deps if dep.startswith("stages/") and dep != "stages/accelerate"}
    packages = {f"stages/civilqa/{room(module)}" for module in all_modules(script)}
    assert listed == {f"stages/{stage}.py", *packages}
    assert 2 <= len(packages) <= 7


def test_no_file_is_longer_than_one_reads():
    limits = {
        200: [ROOT / f"stages/{stage}.py" for stage in STAGES],
        250: [ROOT / "README.md", ROOT / "dvc.yaml"],
        450: [*(ROOT / "stages").rglob("*.py")],
    }
    long = [path.relative_to(ROOT) for limit, files in limits.items() for path in files if lines(path) > limit]
    assert not long
    assert sum(map(lines, (LIBRARY / "program/lifecycle").glob("*.py"))) <= 500


def test_setting_a_parameter_changes_one_line_of_params_yaml(tmp_path):
    from dvc.utils.hydra import apply_overrides  # what `dvc exp run -S` writes with

    before = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    for setting in ("train.epochs=2", "train.preset=fast", "tuning.tiny.rank=16", "train.seed=3", "split.fold=4"):
        path = tmp_path / "params.yaml"
        shutil.copy(ROOT / "params.yaml", path)
        apply_overrides(str(path), [setting])
        after = path.read_text(encoding="utf-8").splitlines()
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert len(changed) == 1, setting


# A changed file, and the stages that run again for it besides those whose input changes with their outputs.
CHANGES = {
    "stages/civilqa/chat/web/page.py": [],
    "stages/civilqa/review/marks.py": [],
    "stages/civilqa/experiments/revisions.py": [],
    "stages/civilqa/scoring/report.py": ["evaluate"],
    "stages/civilqa/scoring/report.js": ["evaluate"],
    "stages/civilqa/reading/tables.py": ["prepare"],
    "stages/civilqa/training/memory.py": ["finetune", "benchmark"],
    "stages/civilqa/generation/answers.py": ["finetune", "evaluate", "benchmark"],
    "stages/civilqa/speed/measurements.py": ["benchmark"],
    "stages/civilqa/dataset/records.py": ["prepare", "split", "format", "evaluate"],
    "stages/civilqa/program/files.py": list(STAGES),
}
PARAMETERS = {
    "presets.fast.epochs": [],
    "profiles.llama-1b.revision": [],
    "profiles.gemma-270m.name": [],
    "tuning.gemma-270m": [],
    "tuning.llama-1b.rank": [],
    "tuning.tiny.rank": ["finetune", "benchmark"],
    "tuning.tiny.keep": ["finetune", "benchmark"],
    "chat.max_new_tokens": [],
    "benchmark.repeats": ["benchmark"],
    "evaluate.few_shot_examples": ["evaluate"],
}


def stages_to_run(folder: Path) -> list[str]:
    """Return the stages whose own deps or params differ from dvc.lock; not those that only follow them."""
    import json

    status = json.loads(checked(folder, "dvc", "status", "--json"))
    outputs = ("data/", "models/adapter", "metrics/")
    own = []
    for stage in STAGES:
        changes = [change for entry in status.get(stage, []) if isinstance(entry, dict) for change in entry.items()]
        for kind, what in changes:
            if kind == "changed deps" and any(not name.startswith(outputs) for name in what):
                own.append(stage)
                break
    return own


@pytest.mark.slow
def test_a_change_runs_the_stages_that_it_concerns_and_no_other(run_copy):
    for name, wanted in CHANGES.items():
        path = run_copy / name
        kept = path.read_bytes()
        path.write_bytes(kept + b"\n")
        assert stages_to_run(run_copy) == wanted, name
        path.write_bytes(kept)
    for key, wanted in PARAMETERS.items():
        path = run_copy / "params.yaml"
        kept = path.read_bytes()
        edit_params(path, **{key: "last" if key.endswith("keep") else "0" * 40 if key.endswith("revision") else 7})
        if key == "tuning.tiny.keep":
            path.write_bytes(kept.replace(b"keep: last #", b"keep: best #"))
        assert stages_to_run(run_copy) == wanted, key
        path.write_bytes(kept)
    assert stages_to_run(run_copy) == []
    assert filecmp.cmp(run_copy / "dvc.yaml", ROOT / "dvc.yaml", shallow=False)
