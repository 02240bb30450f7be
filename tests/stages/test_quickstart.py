"""The notebook: what it says is run, cell by cell, as a kernel does."""

import json
import subprocess
import sys

import pytest

from conftest import ROOT, edit_params

CELLS = json.loads((ROOT / "stages/quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
# One namespace for all cells, and as in a kernel an exception ends the run.
KERNEL = """
import json, sys
from pathlib import Path
names = {"__name__": "__main__"}
for cell in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
    exec(compile(cell, "cell", "exec"), names)
"""


def sources() -> list[str]:
    return ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def run_cells(folder, cells, tmp_path):
    (tmp_path / "cells.json").write_text(json.dumps(cells), encoding="utf-8")
    command = [sys.executable, "-c", KERNEL, str(tmp_path / "cells.json")]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, encoding="utf-8")


def test_it_has_ten_cells_and_no_outputs():
    assert len(CELLS) == 10
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in CELLS if "outputs" in cell)


def test_outside_of_the_project_it_asks_for_the_folder(tmp_path):
    done = run_cells(tmp_path, sources()[:1], tmp_path)
    assert "PROJECT에 적으십시오" in done.stderr
    inside = [sources()[0].replace('PROJECT = ""', f"PROJECT = {str(ROOT)!r}")]
    assert run_cells(tmp_path, inside, tmp_path).stdout.strip() == str(ROOT)


@pytest.mark.slow
def test_a_csv_of_one_s_own_is_trained_on_and_asked_about(run_copy, tmp_path):
    mine = run_copy / "data/raw/내 질문.csv"
    rows = (run_copy / "data/raw/civil_law_qa_dataset.csv").read_text(encoding="utf-8")
    mine.write_text(rows, encoding="utf-8")
    edit_params(run_copy / "params.yaml", **{"chat.max_new_tokens": 24})
    cells = [cell.replace("data/raw/civil_law_qa_dataset.csv", "data/raw/내 질문.csv") for cell in sources()]
    done = run_cells(run_copy / "stages/accelerate", cells, tmp_path)
    assert done.returncode == 0, done.stderr
    assert '"recall"' in done.stdout
    assert "법률 지식은 없습니다" in done.stdout
    metrics = json.loads((run_copy / "metrics/prepare.json").read_text(encoding="utf-8"))
    assert "내 질문.csv" in json.dumps(metrics, ensure_ascii=False)
