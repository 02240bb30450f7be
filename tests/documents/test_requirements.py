import ast
import re
import sys
from importlib.metadata import packages_distributions

from conftest import ROOT

LINES = [
    line.split(" #")[0].strip()
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line.strip() and not line.startswith("#")
]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


# Trackers of train.report_to: installed by who wants one; finetune refuses one that is not there, tests skip.
CHOSEN = {"dvclive", "tensorboard"}
PINNED = {normalized(re.match(r"[\w.-]+", line)[0]) for line in LINES}


def test_every_package_is_pinned_exactly():
    for line in LINES:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ?;.+)?", line), line


def test_what_the_project_imports_is_pinned():
    scripts = [path for folder in ("stages", "tests", "models", "data") for path in (ROOT / folder).rglob("*.py")]
    fetched = {"convert_hf_to_gguf", "conversion"}  # by stages/fetch_converter.py, by its hash
    own = {path.stem for path in scripts} | {"civilqa"} | fetched
    distributions = packages_distributions()
    missing = set()
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for top in {name.partition(".")[0] for name in names} - own - CHOSEN - set(sys.stdlib_module_names):
                if not {normalized(name) for name in distributions.get(top, [top])} & PINNED:
                    missing.add((script.name, top))
    assert missing == set()


def test_flash_attn_is_no_part_of_a_plain_install():
    (line,) = [line for line in LINES if line.startswith("flash-attn")]
    assert line.endswith('extra == "gpu"')
