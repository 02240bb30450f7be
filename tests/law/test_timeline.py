"""Versions of an act, read from a repository, and what is in force on a day."""

import subprocess
import sys
from datetime import date

import pytest
from statute_texts import ACT, act_text, commit, supplement

from civilqa.law.statutes import REFERENCE_FOLDER, load_reference
from civilqa.law.timeline import act_on, article_text, read_timeline
from civilqa.law.versions import open_statutes, plain
from civilqa.program.errors import RecordError

FIRST = """##### 제1조 (목적)

이 법은 임차인을 보호한다.

##### 제2조 (대항력)

**①** 인도한 날의 다음 날부터 효력이 생긴다.

**②** 5억원까지 보호한다.

##### 제3조

삭제 <2001.1.1>
"""
SECOND = FIRST.replace(
    "5억원까지 보호한다.", "7억원까지 보호한다. <개정 2024.6.1>\n\n**③** 대리인도 같다. <신설 2024.6.1>"
) + ("\n##### 제4조 (벌칙)\n\n벌금에 처한다.\n")
DELAYED = (
    "제1조(시행일) 이 법은 공포한 날부터 시행한다. 다만, 제4조의 개정규정은 공포 후 3개월이 경과한 날부터 시행한다."
)


@pytest.fixture
def repository(tmp_path):
    """An act as it stood, and amended on 2024-06-01: 제2조 at once, 제4조 from 2024-09-02 on."""
    open_statutes.cache_clear()
    folder = tmp_path / "statutes"
    old = supplement("100", "2024-01-10", "이 법은 공포한 날부터 시행한다.")
    commit(folder, "2024-01-10", {ACT: act_text(FIRST, old)})
    new = act_text(SECOND, old + supplement("200", "2024-06-01", DELAYED), number="200", promulgated="2024-06-01")
    commit(folder, "2024-06-01", {ACT: new.replace("시행일자: 2024-01-10", "시행일자: 2024-06-01")})
    return folder


def history(folder):
    return open_statutes(folder).histories(["임대법"])["임대법"]


def test_versions_are_read_oldest_first_without_notes_and_marks(repository):
    first, second = history(repository)
    assert (first.number, first.first, second.number, second.first) == ("100", True, "200", False)
    assert second.texts[(2, 0), 2] == "② 7억원까지 보호한다."
    assert first.texts[(3, 0), 0] == "삭제"
    assert first.texts[(1, 0), 0] == "(목적)\n이 법은 임차인을 보호한다."


@pytest.mark.parametrize(
    ("day", "article", "text"),
    [
        ("2024-05-31", 2, "(대항력)\n① 인도한 날의 다음 날부터 효력이 생긴다.\n② 5억원까지 보호한다."),
        (
            "2024-06-01",
            2,
            "(대항력)\n① 인도한 날의 다음 날부터 효력이 생긴다.\n② 7억원까지 보호한다.\n③ 대리인도 같다.",
        ),
        ("2024-09-01", 4, None),
        ("2024-09-02", 4, "(벌칙)\n벌금에 처한다."),
        ("2024-09-02", 3, None),
        ("2024-09-02", 9, None),
    ],
)
def test_the_text_of_a_day_is_what_is_in_force_then(repository, day, article, text):
    assert article_text(read_timeline(history(repository)), (article, 0), date.fromisoformat(day)) == text


def test_a_version_in_force_earlier_does_not_undo_what_is_still_to_come(repository):
    """Of two promulgations the later one may be in force first; its text then leaves the earlier one out."""
    third = FIRST.replace("임차인을 보호한다", "임차인과 임대인을 보호한다")
    text = act_text(third, supplement("300", "2024-06-10", "이 법은 공포한 날부터 시행한다."), number="300")
    text = text.replace("공포일자: 2024-01-10", "공포일자: 2024-06-10").replace(
        "시행일자: 2024-01-10", "시행일자: 2024-06-10"
    )
    commit(repository, "2024-06-10", {ACT: text})
    timeline = read_timeline(history(repository))
    assert "임대인을" in article_text(timeline, (1, 0), date(2024, 6, 10))
    assert article_text(timeline, (4, 0), date(2024, 9, 2)) == "(벌칙)\n벌금에 처한다."
    assert "5억원" in article_text(timeline, (2, 0), date(2024, 6, 10))  # which was in force, and was changed back


def test_an_amended_supplementary_provision_dates_what_it_was_of(repository):
    later = DELAYED.replace("3개월", "6개월")
    text = act_text(SECOND, supplement("200", "2024-06-01", later), number="300", promulgated="2024-08-01")
    commit(repository, "2024-08-01", {ACT: text})
    timeline = read_timeline(history(repository))
    assert article_text(timeline, (4, 0), date(2024, 9, 2)) is None
    assert article_text(timeline, (4, 0), date(2024, 12, 2))


def test_a_day_means_the_last_commit_by_then(repository):
    statutes = open_statutes(repository)
    assert statutes.commit("2024-05-31")[0] == history(repository)[0].commit
    assert statutes.commit("2026-01-01") == (statutes.pin, date(2026, 1, 1))
    assert statutes.commit(statutes.pin[:8]) == (statutes.pin, date(2024, 6, 1))
    assert [
        version.number for version in statutes.histories(["임대법"], statutes.commit("2024-05-31")[0])["임대법"]
    ] == ["100"]
    assert act_on(history(repository), date(2024, 5, 1)).number == "100"


@pytest.mark.parametrize(
    ("written", "message"), [("2001-01-01", "begins only after 2001-01-01"), ("nosuch", "no commit 'nosuch'")]
)
def test_a_revision_that_is_not_there_is_named(repository, written, message):
    with pytest.raises(RecordError, match=message):
        open_statutes(repository).commit(written)


def test_what_is_no_repository_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(RecordError, match=r"reference\.statutes is no git repository .* git clone"):
        open_statutes(tmp_path / "plain")


def test_a_file_that_is_no_act_is_named_with_its_commit(repository):
    commit(repository, "2024-07-01", {ACT: "<html>"})
    with pytest.raises(RecordError, match=r"kr/임대법/법률\.md at [0-9a-f]{10}: no text of an act: '제목'"):
        history(repository)


def test_notes_of_amendment_are_no_law():
    assert plain("  1\\. 민법 <개정 2024.9.10>\n\n**①** 가 [제3조에서 이동 <2020.1.1>]") == "1. 민법\n① 가"
    assert plain("1. 삭제 <2009.4.1>") == "1. 삭제"
    assert plain("「민법」 <별표> [이하 같다]") == "「민법」 <별표> [이하 같다]"


def test_a_folder_of_dvc_import_is_read_with_the_history_of_its_repository(repository, tmp_path, monkeypatch):
    """dvc imports files alone; the commit that it pins, and the repository, stand in the .dvc file beside them."""
    monkeypatch.chdir(tmp_path)
    pinned = history(repository)[0].commit
    (tmp_path / "texts.dvc").write_text(
        f"deps:\n- path: kr\n  repo:\n    url: {repository}\n    rev_lock: {pinned}\nouts:\n- path: texts\n",
        encoding="utf-8",
    )
    statutes = open_statutes(tmp_path / "texts")
    assert statutes.pin == pinned
    assert [version.number for version in statutes.histories(["임대법"])["임대법"]] == ["100"]
    newer = commit(repository, "2024-07-01", {"kr/x/법률.md": "y"})  # dvc update: the copy is fetched again
    path = tmp_path / "texts.dvc"
    path.write_text(path.read_text(encoding="utf-8").replace(pinned, newer), encoding="utf-8")
    open_statutes.cache_clear()
    assert len(open_statutes(tmp_path / "texts").histories(["임대법"])["임대법"]) == 2


# --- The table made from it ------------------------------------------------------------------------------------------


def test_the_table_is_made_from_a_repository(repository, tmp_path, monkeypatch):
    """The acts of a table, and their decrees, by build.py; its constants name the acts of the real one."""
    commit(
        repository,
        "2024-07-01",
        {
            "kr/임대법/시행령.md": act_text(
                "##### 제1조 (목적)\n\n영이다.\n", law="임대법 시행령", promulgated="2024-07-01", effective="2024-07-01"
            )
        },
    )
    monkeypatch.syspath_prepend(str(REFERENCE_FOLDER))
    import build

    monkeypatch.setattr(build, "SHORT_NAMES", {"임대법": ["임법"]})
    monkeypatch.setattr(build, "TITLED_ACTS", {"임대법"})
    monkeypatch.setattr(build, "load_reference", lambda: type("Table", (), {"acts": ["임대법"]}))
    build.build(repository, date(2024, 7, 1), [], tmp_path)
    rows = (tmp_path / "acts.csv").read_text(encoding="utf-8").splitlines()
    assert rows[1:] == [
        "임대법,임법,200,2024-06-01,2024-06-01,2024-07-01,1-2,3,4",
        "임대법 시행령,,100,2024-07-01,2024-07-01,2024-07-01,1,,",
    ]
    assert (tmp_path / "in_force.csv").read_text(encoding="utf-8").splitlines()[1:] == [
        "임대법,제2조,3,2024-06-01,제200호 부칙 제1조,,",
        "임대법,제4조,,2024-09-02,제200호 부칙 제1조 단서,,",
        "임대법 시행령,제1조,,2024-07-01,제100호 부칙,,",
    ]
    assert (tmp_path / "paragraphs.csv").read_text(encoding="utf-8").splitlines()[1:] == ["임대법,1-3,2"]
    load_reference.cache_clear()
    for day, status in {"2024-09-01": "not_yet_in_force", "2024-09-02": "exists"}.items():
        table = load_reference(tmp_path, day)
        assert table.status("임대법", "제4조") == status
    assert [table.status("임대법", "제2조", p, "2024-05-31") for p in (2, 3, 4)] == [
        "exists",
        "not_yet_in_force",
        "no_such_paragraph",
    ]


def test_without_statutes_the_command_says_how_to_get_them():
    finished = subprocess.run(
        [sys.executable, REFERENCE_FOLDER / "build.py"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert "reference.statutes in params.yaml; README.md says how to get them" in finished.stderr
