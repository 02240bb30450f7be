"""The official names in data/reference/act_names.txt, and how they are found at the end of a text."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from civilqa.law.acts import compact, is_cut, load_names, names_at_end, official_name
from civilqa.law.grammar import SHADOW
from civilqa.law.statutes import PARTS, REFERENCE_FOLDER, load_reference, read_lines
from civilqa.program.errors import RecordError

NAMES = read_lines(REFERENCE_FOLDER / "act_names.txt")


def longest(text: str) -> str | None:
    return next((name for name, _ in names_at_end(compact(text)[::-1])), None)


def test_the_file_holds_each_name_once_in_order_within_200_kilobytes():
    assert sorted(set(NAMES)) == NAMES
    assert len({compact(name) for name in NAMES}) == len(NAMES) > 3000
    assert all(name == name.strip() and name for name in NAMES)
    assert (REFERENCE_FOLDER / "act_names.txt").stat().st_size < 200_000


def test_every_act_of_the_table_is_among_them():
    assert {law for law in load_reference().acts if not law.endswith(PARTS)} <= set(NAMES)


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("집합건물의소유및관리에관한법률", "집합건물의 소유 및 관리에 관한 법률"),
        ("군 형법", "군형법"),
        ("주임법", "주택임대차보호법"),
        ("선박평형수(船舶平衡水) 관리법", "선박평형수(船舶平衡水) 관리법"),
        ("심사기준", None),
    ],
)
def test_a_name_is_known_whatever_its_spaces(name, official):
    assert official_name(name) == official


def test_what_the_text_is_read_as_is_as_long_and_acts_in_hanja_are_known():
    assert all(len(written) == len(read) for written, read in SHADOW.items())
    assert all(official_name(read) for read in SHADOW.values() if len(read) > 1)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("이에 군형법", "군형법"),
        ("이에 형법", "형법"),
        ("대하여 집합건물의 소유 및 관리에 관한 법률", "집합건물의 소유 및 관리에 관한 법률"),
        ("특례법", None),
        ("", None),
    ],
)
def test_the_longest_name_at_the_end_is_found_first(text, name):
    assert longest(text) == name


@given(st.text(alphabet="민형상군법률의 주택", max_size=6), st.sampled_from(NAMES), st.integers(0, 3))
def test_all_names_at_the_end_are_found_the_longest_first(before, name, cut):
    text = compact(before + name)
    text = text[: len(text) - cut]
    want = sorted((known for known in load_names()[0] if text.endswith(known)), key=len, reverse=True)
    assert [length for _, length in names_at_end(text[::-1])] == [len(known) for known in want]
    assert is_cut(text[::-1]) == any(known.endswith(text) and known != text for known in load_names()[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("민법\n형법".encode(), "is cut off: its last line has no end; take data/reference from git again"),
        (b"", "is cut off"),
        (b"\xff\n", "cannot be read"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    path = tmp_path / "act_names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordError, match=rf"act_names\.txt: {message}"):
        read_lines(path)


def test_the_file_is_made_without_the_decrees_of_its_acts(tmp_path):
    """build.py takes the list of all names, in any order, with the 시행령 and 시행규칙 of each act."""
    every = [*reversed(NAMES), "민법 시행령", "주택법 시행령", "주택법 시행규칙", "민법", ""]
    (tmp_path / "names.txt").write_text("\n".join(every), encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import build;"
        "build.write_names(Path(sys.argv[3]), Path(sys.argv[2]).read_text(encoding='utf-8').splitlines())"
    )
    made = tmp_path / "act_names.txt"
    subprocess.run([sys.executable, "-c", code, REFERENCE_FOLDER, tmp_path / "names.txt", made], check=True)
    assert made.read_bytes() == (REFERENCE_FOLDER / "act_names.txt").read_bytes()
