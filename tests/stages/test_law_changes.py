"""What a change of the law touches: python stages/law_changes.py OLD NEW."""

import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import law_changes
import pytest
from statute_texts import act_text, commit, supplement

from civilqa.dataset.records import Record, record_id, write_records
from civilqa.law.versions import open_statutes
from civilqa.program.errors import ParameterError, PipelineError, RecordError
from civilqa.reading.law_readings import REVIEWS, read_reviews, summarize
from conftest import ROOT

ACT = "kr/신탁법/법률.md"  # an act of the table, so that it counts as cited; its texts here are made up
FIRST = """##### 제1조 (목적)

이 법은 신탁을 정한다.

##### 제2조 (한도)

**①** 수탁자는 3개월 안에 알린다.

**②** 한도는 5억원으로 한다.

**③** 수익자는 언제든지 장부를 볼 수 있다.

##### 제3조 (금지)

수탁자는 신탁재산을 고유재산으로 하지 못한다. 다만, 신탁행위로 달리 정하면 그러하지 아니하다.

##### 제4조 (처벌)

벌금에 처한다.
"""
AT_ONCE = "이 법은 공포한 날부터 시행한다."
DELAYED = (
    f"제1조(시행일) {AT_ONCE} 다만, 제5조의 개정규정은 공포 후 3개월이 경과한 날부터 시행한다.\n\n\n"
    "제2조(적용례) 제4조의 개정규정은 이 법 시행 전에 저지른 행위에도 적용한다."
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A dataset of rows that cite articles of an act, and statutes with one version of it, of 2024-01-10."""
    monkeypatch.chdir(tmp_path)
    open_statutes.cache_clear()
    commit(
        tmp_path / "statutes",
        "2024-01-10",
        {ACT: act_text(FIRST, supplement("100", "2024-01-10", AT_ONCE), law="신탁법")},
    )
    (tmp_path / "params.yaml").write_text("reference:\n  as_of:\n  statutes: statutes\n", encoding="utf-8")
    rows = {
        "한도는?": "신탁법 제2조 제2항에 따라 한도는 5억원입니다.",
        "장부는?": "신탁법 제2조 제3항에 따라 볼 수 있습니다.",
        "금지는?": "신탁법 제3조에 따라 금지됩니다.",
        "처벌은?": "신탁법 제4조에 따라 처벌됩니다.",
        "목적은?": "신탁법 제1조입니다.",
    }
    write_records(
        tmp_path / "data/prepared/records.jsonl",
        [Record(id=record_id(q), question=q, answer=a, category="신탁", difficulty="초급") for q, a in rows.items()],
    )
    basis = {"claim": "금지", "source": "신탁법 제3조", "quote": "신탁행위로 달리 정하면 그러하지 아니하다"}
    gold = {"id": record_id("금지는?"), "question": "금지는?", "basis": [basis]}
    (tmp_path / "data/raw").mkdir()
    (tmp_path / "data/raw/gold.jsonl").write_text(json.dumps(gold, ensure_ascii=False) + "\n", encoding="utf-8")
    return tmp_path


def amend(project: Path, articles: str, supplements: str = DELAYED, day: str = "2024-06-01") -> str:
    open_statutes.cache_clear()
    old = supplement("100", "2024-01-10", AT_ONCE)
    text = act_text(
        articles, old + supplement("200", day, supplements), law="신탁법", number="200", promulgated=day, effective=day
    )
    return commit(project / "statutes", day, {ACT: text})


def run(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["law_changes.py", *arguments])
    status = 0
    try:
        law_changes.main()
    except SystemExit as ended:
        status = ended.code
    return status, capsys.readouterr().out


def touched(output: str) -> list[tuple[str, str, str]]:
    """(rank, entry, article) of every line of the table."""
    cells = [[cell.strip() for cell in line.split("│")[1:4]] for line in output.splitlines() if line.startswith("│")]
    return [tuple(row) for row in cells]


def test_nothing_is_touched_where_nothing_changed(project, monkeypatch, capsys):
    commit(project / "statutes", "2024-06-01", {"README.md": "x"})
    status, output = run(monkeypatch, capsys, "2024-01-10", "2024-06-01")
    assert (status, "변경 0건" in output) == (0, True)


def test_what_a_change_touches_is_ranked(project, monkeypatch, capsys):
    changed = (
        FIRST.replace("5억원", "7억원")
        .replace(" 다만, 신탁행위로 달리 정하면 그러하지 아니하다.", "")
        .replace("**③** 수익자", "**③** 대리인도 같다.\n\n**④** 수익자")
        .replace("벌금에", "징역 또는 벌금에")
    )
    amend(project, changed)
    status, output = run(monkeypatch, capsys, "2024-01-10", "2024-06-01")
    rows = {question: f"행 {record_id(question)}" for question in ("한도는?", "장부는?", "금지는?", "처벌은?")}
    assert touched(output) == [
        ("인용한 말이 없어짐", rows["금지는?"], "신탁법 제3조"),
        ("인용한 말이 없어짐", f"정답 기준 {record_id('금지는?')}", "신탁법 제3조"),
        ("숫자가 바뀜", rows["한도는?"], "신탁법 제2조"),
        ("조문 번호가 바뀜", rows["장부는?"], "신탁법 제2조"),
        ("조문이 바뀜", rows["처벌은?"], "신탁법 제4조"),
        ("조문이 바뀜", rows["처벌은?"], "신탁법 제200호 부칙 제2조"),
    ]
    assert status == law_changes.UNREAD
    assert "한도는 [-5억원으로-] {+7억원으로+} 한다." in output
    assert "2024-06-01 시행(제200호 부칙 제1조)" in output
    assert record_id("목적은?") not in output


def test_the_page_needs_nothing_else_and_shows_each_change(project, monkeypatch, capsys):
    amend(project, FIRST.replace("벌금에", "<b>벌금</b>에"))
    run(monkeypatch, capsys, "2024-01-10", "2024-06-01")
    page = (project / "data/law_changes.html").read_text(encoding="utf-8")
    assert "<ins>&lt;b&gt;벌금&lt;/b&gt;에</ins>" in page
    assert "<script" not in page
    assert "src=" not in page
    assert "https://www.law.go.kr/" in page


def test_a_renumbered_article_says_where_it_went(project, monkeypatch, capsys):
    amend(
        project,
        FIRST.replace(
            "제4조 (처벌)\n\n벌금에 처한다.", "제4조\n\n삭제 <2024.6.1>\n\n##### 제9조 (처벌)\n\n벌금에 처한다."
        ),
    )
    _, output = run(monkeypatch, capsys, "2024-01-10", "2024-06-01")
    assert ("조문 번호가 바뀜", f"행 {record_id('처벌은?')}", "신탁법 제4조") in touched(output)
    assert "→ 제9조" in output


def test_what_comes_into_force_is_a_change_of_that_day(project, monkeypatch, capsys):
    later = DELAYED.replace("제5조의 개정규정", "제4조의 개정규정")
    amend(project, FIRST.replace("벌금에", "징역에"), later)
    entry = ("조문이 바뀜", f"행 {record_id('처벌은?')}", "신탁법 제4조")
    status, output = run(monkeypatch, capsys, "2024-09-01", "2024-09-02")
    assert (status, touched(output)) == (law_changes.UNREAD, [entry])
    assert "신탁법 제4조 시행: 제200호, 2024-06-01 공포, 2024-09-02 시행(제200호 부칙 제1조 단서)" in output
    # A reading between promulgation and that day does not settle it.
    for law_of, wanted in {"2024-09-01": law_changes.UNREAD, "2024-09-02": law_changes.READ}.items():
        line = f"{record_id('처벌은?')},2024-10-01,{law_of}: 신탁법,no change\n"
        (project / "data/raw/reviews.csv").write_text("id,read_on,basis,finding\n" + line, encoding="utf-8")
        assert run(monkeypatch, capsys, "2024-09-01", "2024-09-02")[0] == wanted
    assert run(monkeypatch, capsys, "2024-06-02", "2024-09-01")[0] == 0
    assert run(monkeypatch, capsys, "2024-09-02", "2025-01-01")[0] == 0


def test_a_supplementary_provision_of_no_article_touches_all_that_cites_the_act(project, monkeypatch, capsys):
    amend(
        project,
        FIRST,
        f"제1조(시행일) {AT_ONCE}\n\n\n제2조(적용범위) 이 법은 2024년 5월 31일 이전에 맺은 신탁에 적용한다.",
    )
    _, output = run(monkeypatch, capsys, "2024-01-10", "2024-06-01")
    assert {entry for _, entry, _ in touched(output)} >= {
        f"행 {record_id(q)}" for q in ("목적은?", "한도는?", "처벌은?")
    }
    assert {article for _, _, article in touched(output)} == {"신탁법 제200호 부칙 제2조"}


def test_a_decree_touches_what_cites_the_articles_that_it_names(project, monkeypatch, capsys):
    decree = "##### 제1조 (한도)\n\n법 제4조에 따른 벌금은 100만원으로 한다.\n"
    facts = {"law": "신탁법 시행령", "promulgated": "2024-02-01", "effective": "2024-02-01"}
    open_statutes.cache_clear()
    commit(
        project / "statutes",
        "2024-02-01",
        {"kr/신탁법/시행령.md": act_text(decree, supplement("100", "2024-02-01", AT_ONCE), **facts)},
    )
    _, output = run(monkeypatch, capsys, "2024-01-10", "2024-03-01")
    assert touched(output) == [("조문이 바뀜", f"행 {record_id('처벌은?')}", "신탁법 시행령 제1조")]
    assert "신탁법 제4조의 하위 법령" in output


def test_rows_that_were_read_since_are_told_apart(project, monkeypatch, capsys):
    amend(project, FIRST.replace("벌금에", "징역에"), AT_ONCE)
    for law_of, status in {"2024-05-31": law_changes.UNREAD, "2024-06-01": law_changes.READ}.items():
        line = f"{record_id('처벌은?')},2024-07-01,{law_of}: 신탁법,no change\n"
        (project / "data/raw/reviews.csv").write_text("id,read_on,basis,finding\n" + line, encoding="utf-8")
        assert run(monkeypatch, capsys, "2024-01-10", "2024-06-01")[0] == status


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((), PipelineError, "name two commits or days"),
        (("2024-06-01", "2024-01-10"), PipelineError, "is not before 2024-01-10"),
        (("2024-01-10", "nosuch"), RecordError, "no commit 'nosuch'"),
    ],
)
def test_wrong_arguments_are_named(project, monkeypatch, capsys, arguments, error, message):
    amend(project, FIRST.replace("벌금에", "징역에"))
    with pytest.raises(error, match=message):
        run(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ("", ParameterError, r"reference\.statutes: is empty; .*git clone"),
        ("nowhere", RecordError, r"nowhere: reference\.statutes is no git repository .*git clone"),
    ],
)
def test_without_statutes_it_says_how_to_get_them(project, monkeypatch, capsys, named, error, message):
    (project / "params.yaml").write_text(f"reference: {{as_of: , statutes: {named}}}\n", encoding="utf-8")
    with pytest.raises(error, match=message):
        run(monkeypatch, capsys, "2024-01-10", "2024-06-01")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("id,read_on\n", r"reviews\.csv:1: found the columns id, read_on, want id, read_on, basis, finding"),
        ("id,read_on,basis,finding\nq-1,2026-13-01,2026-06-08: 민법,x\n", r"reviews\.csv:2: month must be in 1\.\.12"),
        ("id,read_on,basis,finding\nq-1,2026-01-01,민법,x\n", r"reviews\.csv:2: Invalid isoformat string: '민법'"),
        ("id,read_on,basis,finding\nq-1,2026-01-01\n", r"reviews\.csv:2: found 2 fields, want 4"),
        (
            "id,read_on,basis,finding\nq-1,2026-02-01,2026-01-01: 민법,x\nq-1,2026-01-01,2026-01-01: 민법,x\n",
            r"reviews\.csv:3: q-1 was read later in a line above",
        ),
    ],
)
def test_a_damaged_line_of_the_readings_is_named(tmp_path, lines, message):
    (tmp_path / "reviews.csv").write_text(lines, encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        read_reviews(tmp_path / "reviews.csv")


def test_the_last_reading_counts(tmp_path):
    path = tmp_path / "reviews.csv"
    lines = [
        "id,read_on,basis,finding",
        "q-1,2026-01-01,2025-12-31: 민법,x",
        'q-1,2026-02-01,"2026-01-31: 민법, 형법",y',
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    review = read_reviews(path)["q-1"]
    assert (review.law_of, review.acts, review.finding) == (date(2026, 1, 31), ("민법", "형법"), "y")
    assert summarize([review]).splitlines()[2:] == ["| 2026-01-31 | 1 | 2026-02-01 | 2 |"]
    assert read_reviews(tmp_path / "none.csv") == {}


def test_the_data_card_has_the_table_of_the_readings():
    reviews = read_reviews(ROOT / REVIEWS)
    card = (ROOT / "data/README.md").read_text(encoding="utf-8")
    table = summarize(reviews.values()) if reviews else "## The law moves"
    assert table in card, f"put this table into data/README.md under The law moves:\n{table}"


# --- The real statutes, where they are at hand: STATUTES=/path/to/clone pytest -m "" FILE ----------------------------

OLD, NEW = "2025-04-01", "2026-06-08"
# Found by reading the promulgations and their 부칙, not by the program.
KNOWN = {
    ("전세사기피해자 지원 및 주거안정에 관한 특별법", "제20956호 부칙 제2조", "added", "20956", None),
    ("전세사기피해자 지원 및 주거안정에 관한 특별법", "제19425호 부칙 제2조", "changed", "20956", None),
    ("전세사기피해자 지원 및 주거안정에 관한 특별법", "제25조의9", "added", "21634", "2026-11-13"),
    ("전세사기피해자 지원 및 주거안정에 관한 특별법", "제25조의13", "added", "21634", "2026-05-12"),
    ("형법", "제123조의2", "added", "21450", "2026-03-12"),
    ("형법", "제347조", "changed", "21231", "2025-12-23"),
    ("민법", "제1004조의2", "in_force", "20432", "2026-01-01"),
    ("공인중개사법", "제25조", "changed", "21024", "2026-02-15"),
    ("공인중개사법", "제41조의2", "added", "21409", "2026-08-28"),
    ("국세기본법", "제35조", "changed", "21212", "2026-07-01"),
}
UNCHANGED = (
    *("가등기담보 등에 관한 법률", "공증인법", "대한민국헌법", "민사조정법", "법률구조법", "부동산등기법", "신탁법"),
    *("부동산 실권리자명의 등기에 관한 법률", "집합건물의 소유 및 관리에 관한 법률", "부동산등기 특별조치법"),
)


@pytest.mark.slow
@pytest.mark.skipif("STATUTES" not in os.environ, reason="needs a clone of the statutes: STATUTES=/path/to/clone")
def test_known_changes_of_the_real_statutes_are_found_and_no_other_act_is_reported():
    statutes = open_statutes(Path(os.environ["STATUTES"]))
    acts = {law for law, *_ in KNOWN} | {*UNCHANGED}
    changes = law_changes.list_changes(statutes, acts, OLD, NEW)
    found = {(c.law, c.article, c.kind, c.number, str(since.day)) for c in changes for since in c.since}
    found |= {(*change[:4], None) for change in found}
    assert found >= KNOWN
    assert {change.law for change in changes} & {*UNCHANGED} == set()


@pytest.mark.slow
@pytest.mark.skipif("STATUTES" not in os.environ, reason="needs a clone of the statutes: STATUTES=/path/to/clone")
def test_the_committed_table_is_what_the_real_statutes_make(tmp_path):
    command = [sys.executable, "data/reference/build.py", os.environ["STATUTES"], "--as-of", NEW, "--output", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True)
    for name in ("acts", "paragraphs", "in_force"):  # titles depend on what data/raw cites
        assert (tmp_path / f"{name}.csv").read_bytes() == (ROOT / f"data/reference/{name}.csv").read_bytes()
