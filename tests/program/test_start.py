"""What holds from a script's first line on: real programs, since these are about what comes before their imports."""

import ast
import os
import re
import signal
import subprocess
import sys

import pytest

from civilqa.program.lifecycle.machine_errors import ENGLISH
from civilqa.program.parameters import read_params
from conftest import ROOT

BEGIN = "import sys; sys.path.insert(0, 'stages'); from civilqa.program.lifecycle.stage import start; start(); "
NO_ARGUMENTS = ("prepare", "split", "format", "finetune", "evaluate", "benchmark", "probe")
HEAVY = re.compile(r"\| *(torch|transformers|pandas|numpy)$", re.MULTILINE)


def call(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False, **options
    )


@pytest.mark.parametrize("name", [*NO_ARGUMENTS, "pool_folds", "compare_answers"])
def test_help_is_the_script_s_docstring_before_any_heavy_import(name):
    done = call("-X", "importtime", f"stages/{name}.py", "--help")
    documentation = ast.get_docstring(ast.parse((ROOT / f"stages/{name}.py").read_text(encoding="utf-8")))
    assert done.returncode == 0
    assert done.stdout.startswith(documentation)
    assert "Reads: " in documentation
    assert "import time:" in done.stderr
    assert HEAVY.findall(done.stderr) == []
    named = re.findall(r"takes no arguments: set e\.g\. (\w+)\.(\w+) in params\.yaml", done.stdout)
    assert len(named) == (name in NO_ARGUMENTS)
    for section, key in named:
        assert section in re.search("^Params: .*", documentation, re.MULTILINE)[0]
        assert key in read_params(ROOT / "params.yaml")[section]


def test_an_argument_is_refused_before_any_heavy_import():
    done = call("-X", "importtime", "stages/finetune.py", "--learning_rate", "5e-5")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert said == [
        "error: stages/finetune.py takes no arguments: set train.learning_rate in params.yaml, or run: "
        "dvc exp run -S train.learning_rate=5e-5"
    ]
    assert "import time:" in done.stderr
    assert HEAVY.findall(done.stderr) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_during_the_imports_is_one_line(name):
    number = getattr(signal, name)
    done = call("-c", f"{BEGIN}import os, time; os.kill(os.getpid(), {int(number)}); time.sleep(60)", timeout=30)
    assert done.returncode == 128 + number
    called = "Ctrl-C" if name == "SIGINT" else name
    assert done.stderr == f"\nerror: interrupted ({called}); run it again: finished work is kept\n"


def test_a_signal_that_was_ignored_stays_so():
    """As nohup and a shell's background jobs ask for."""
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    assert call("-c", f"{ignore}{BEGIN}import os; os.kill(os.getpid(), signal.SIGHUP)").returncode == 0


def test_what_the_machine_refuses_during_the_imports_is_one_line():
    done = call("-c", f"{BEGIN}raise ImportError('libtorch.so: failed to map segment from shared object')")
    assert done.returncode == 1
    assert done.stderr == f"error: libtorch.so: failed to map segment from shared object: {ENGLISH['memory']}\n"


def test_a_defect_during_the_imports_keeps_its_traceback():
    done = call("-c", f"{BEGIN}raise ImportError('no such name')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "ImportError: no such name" in done.stderr


def test_no_garbage_is_looked_for_during_the_imports():
    assert call("-c", f"{BEGIN}import gc; print(gc.isenabled())").stdout == "False\n"


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix closes the streams")
def test_streams_that_were_closed_are_replaced(tmp_path):
    """Otherwise the next file that is opened gets the number of one, and what a library prints ends up in it."""
    path = tmp_path / "file"
    code = f"{BEGIN}print('가', file=sys.stderr); file = open({str(path)!r}, 'w'); print(file.fileno(), file=file)"
    done = subprocess.run(["sh", "-c", f'exec "{sys.executable}" -c "$0" 0<&- 1>&- 2>&-', code], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert int(path.read_text(encoding="utf-8")) > 2


def test_hangul_is_printed_whatever_the_locale():
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert call("-c", f"{BEGIN}print('가')", env=environment).stdout == "가\n"


def test_no_library_tells_its_makers_of_a_run():
    code = "start(); from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    program = f"import sys; sys.path[:0] = ['stages']; from civilqa.program.lifecycle.stage import start; {code}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_HUB")}
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert said.stdout.decode().strip() == "True"
