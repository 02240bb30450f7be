"""The warning that the law has moved since rows were last read."""

import pytest
from statute_texts import ACT, act_text, commit

from civilqa.dataset.records import Record
from civilqa.law.versions import open_statutes
from civilqa.reading.newer_law import newer_law

RECORDS = [Record(id=f"q-{n}", question=f"{n}?", answer="답", category="", difficulty="") for n in (1, 2, 3)]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Statutes of 2024-06-01, and readings of two of three rows."""
    monkeypatch.chdir(tmp_path)
    open_statutes.cache_clear()
    commit(tmp_path / "statutes", "2024-06-01", {ACT: act_text("##### 제1조 (목적)\n\n목적이다.\n")})
    (tmp_path / "params.yaml").write_text("reference:\n  as_of:\n  statutes: statutes\n", encoding="utf-8")
    (tmp_path / "data/raw").mkdir(parents=True)
    return tmp_path


def read(project, *laws):
    lines = [f"q-{n},2025-01-01,{law}: 임대법,no change\n" for n, law in enumerate(laws, start=1)]
    (project / "data/raw/reviews.csv").write_text("id,read_on,basis,finding\n" + "".join(lines), encoding="utf-8")


def test_rows_read_against_an_older_law_are_counted(project):
    read(project, "2024-01-01", "2024-03-01", "2024-06-01")
    assert newer_law(RECORDS) == (
        "the statutes are of 2024-06-01; 2 rows were last read against the law of 2024-01-01 to 2024-03-01: "
        "python stages/law_changes.py 2024-01-01 2024-06-01 lists what changed"
    )


def test_readings_may_come_from_excel(project):
    read(project, "2024-06-01", "2024-06-01", "2024-06-01")
    path = project / "data/raw/reviews.csv"
    path.write_bytes(path.read_text(encoding="utf-8").encode("cp949"))
    assert newer_law(RECORDS) is None


def test_rows_without_a_reading_are_counted(project):
    read(project, "2024-06-01")
    assert newer_law(RECORDS) == "the statutes are of 2024-06-01; 2 rows have no reading in data/raw/reviews.csv"


def test_nothing_is_said_where_all_were_read_since(project):
    read(project, "2024-06-01", "2024-06-01", "2025-01-01")
    assert newer_law(RECORDS) is None


def test_nothing_is_said_without_readings_or_statutes(project):
    assert newer_law(RECORDS) is None
    read(project, "2024-01-01")
    (project / "params.yaml").write_text("reference: {as_of: , statutes: }\n", encoding="utf-8")
    assert newer_law(RECORDS) is None


@pytest.mark.parametrize("named", ["data", "nowhere"])
def test_statutes_that_cannot_be_read_stop_nothing(project, named):
    read(project, "2024-01-01")
    (project / "params.yaml").write_text(f"reference: {{as_of: , statutes: {named}}}\n", encoding="utf-8")
    said = f"the rows were not compared with the law of today: {named}: reference.statutes is no git repository"
    assert said in newer_law(RECORDS)
