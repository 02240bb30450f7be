"""Input made to exhaust the machine or to run elsewhere: bombs, patterns that backtrack, templates, formulas."""

import csv
import io
import json
import re
import time
import zipfile

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

import civilqa.reading.archives
from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import Prompter, load_tokenizer
from civilqa.law.citations import parse_citations
from civilqa.program.errors import ParameterError, RecordError, TemplateError
from civilqa.program.files import read_jsonl, write_csv
from civilqa.program.lifecycle.safe_output import printable, without_secrets
from civilqa.program.parameters import read_params
from civilqa.reading.cleaning import clean
from civilqa.reading.personal_data import find_personal_data, mask_personal_data
from civilqa.reading.tables import open_table
from civilqa.reading.text_quality import find_damage, find_leftover
from civilqa.scoring.quantities import parse_quantities
from conftest import ROOT


@pytest.fixture(autouse=True)
def _at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


# --- patterns --------------------------------------------------------------------------------------------------------

PIECES = [
    "제1조", "제1·", "1,", "민법 ", "(", "((", "「", "법", "관한 ", "에 관한 법률", "의", "  ", " ", "\n", "0", "9",
    "1 ", "-", "01-", "a@", "a.", "a@a.", "010-1234-", "(1)", "①", "및 ", "등 ", "제1조 (", "1억 ", "만 ", "1분의",
    "년 ", "2020년 ", "가목", "이하 ", "구 ", "(이하 ", "시행령 ", "제3조(", "제3조((a)", "<a", "동 ", "·",
    "제1편 ", "1만 ", "12천", "12,", "1.1", "같은 조 ", "가나다 ", "제 ", "§", "(개정 2010.1.1. ", "00-00-",
    "1111 ", "02)", "+82 ", "가는 ", "위한 ", "법률 (", "민법(", "ᄀ", "\u0301", "계좌 11-11-1111 ", "사업자번호 ",
    "://a", "hf_", "\x1b[",
]  # fmt: skip
CHARACTERS = 3000


def seconds(function, text):
    started = time.perf_counter()
    function(text)
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "function",
    [
        parse_citations,
        find_personal_data,
        find_damage,
        find_leftover,
        parse_quantities,
        clean,
        without_secrets,
        printable,
    ],
)
def test_twice_the_text_takes_no_more_than_about_twice_the_time(function):
    function("민법 제1조")  # what it reads once
    slow = []
    for piece in PIECES:
        for before, after in (("", "x"), ("민법 제1조", "원")):
            once, twice = (before + piece * (n // len(piece)) + after for n in (CHARACTERS, 2 * CHARACTERS))
            for _ in range(4):  # other programs run as well: one quiet measurement decides
                longer = seconds(function, twice)
                if longer < 0.05 or longer < 2.5 * seconds(function, once):
                    break
            else:
                slow.append((before, piece, after, longer))
    assert slow == []


def test_a_pattern_that_backtracks_would_be_found():
    pattern = re.compile("(?:a+)+b")
    once, twice = seconds(pattern.search, "a" * 20), seconds(pattern.search, "a" * 22)
    assert twice > 2.5 * once


def test_thousands_of_digits_are_no_quantity_and_no_error():
    assert parse_quantities("1" * 9000 + "원") == []
    assert [quantity.text for quantity in parse_quantities("보증금 2억 4천만원")] == ["2억 4천만원"]


# --- files -----------------------------------------------------------------------------------------------------------


def rewritten(change, name="xl/worksheets/sheet1.xml"):
    """Return the bytes of a workbook with one of its parts changed."""
    book, plain, target = openpyxl.Workbook(), io.BytesIO(), io.BytesIO()
    book.active.append(["question", "answer"])
    book.active.append(["MARK", "answer"])
    book.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as written:
        for part in source.namelist():
            data = source.read(part)
            if part == name:
                assert b"MARK" in data
                data = change(re.sub(rb"^<\?xml[^>]*\?>\s*", b"", data))
            written.writestr(part, data)
    return target.getvalue()


LAUGHS = b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 20) for i in range(8))
ENTITIES = {
    "a file of this machine": b'<!DOCTYPE x [<!ENTITY i SYSTEM "file:///etc/hostname">]>',
    "an address": b'<!DOCTYPE x [<!ENTITY i SYSTEM "http://127.0.0.1:1/">]>',
    "a billion laughs": b'<!DOCTYPE x [<!ENTITY a "AAAAAAAAAAAAAAAAAAAA">' + LAUGHS + b"]>",
}


@pytest.mark.parametrize("kind", ENTITIES)
def test_entities_in_a_workbook_are_not_resolved(tmp_path, kind):
    path = tmp_path / "d.xlsx"
    path.write_bytes(rewritten(lambda data: ENTITIES[kind] + data.replace(b"MARK", b"&i;")))
    with pytest.raises(RecordError, match=r"d\.xlsx:1: cannot be read as an Excel workbook"):
        list(open_table(path)[1])


def test_a_workbook_that_unpacks_to_more_than_the_limit_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "d.xlsx"
    path.write_bytes(rewritten(lambda data: data.replace(b"MARK", b"A" * 3_000_000)))
    assert path.stat().st_size < 20_000
    assert len(next(iter(open_table(path)[1])).fields["question"]) == 3_000_000
    monkeypatch.setattr(civilqa.reading.archives, "UNPACKED_BYTES", 1_000_000)
    with pytest.raises(RecordError, match=r"d\.xlsx: would unpack to 0\.0 GiB, want at most 0; save the table as CSV"):
        open_table(path)


def test_a_parquet_file_that_unpacks_to_more_than_the_limit_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "d.parquet"
    table = pyarrow.table({"question": ["A" * 3_000_000], "answer": ["a"]})
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False)
    assert len(list(open_table(path)[1])) == 1
    monkeypatch.setattr(civilqa.reading.archives, "UNPACKED_BYTES", 1_000_000)
    with pytest.raises(RecordError, match=r"d\.parquet: would unpack to"):
        open_table(path)


@pytest.mark.parametrize("bomb", ["[" * 200_000, '{"a":' * 100_000, "1" * 10_000, '{"a": ' + "1" * 10_000 + "}"])
def test_a_json_bomb_is_a_bad_line_with_its_number(tmp_path, bomb):
    path = tmp_path / "d.jsonl"
    path.write_text('{"question": "a"}\n' + bomb + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"d\.jsonl:2: "):
        list(read_jsonl(path))
    _, bad = open_table(path)[1]
    assert str(bad).startswith(f"{path}:2: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: " + "[" * 20_000, "nested too deeply"),
        ("train: !!python/object/apply:os.system ['touch ran']", "not readable as YAML"),
        ("train: !!python/name:os.system", "not readable as YAML"),
    ],
)
def test_yaml_that_nests_without_end_or_names_code_is_refused(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match=message):
        read_params()
    assert not (tmp_path / "ran").exists()


# --- chat templates --------------------------------------------------------------------------------------------------

TEMPLATES = {
    "files": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['os'] }}",
    "attribute": "{{ messages.__init__.__globals__['os'].system('touch ran') }}",
    "include": "{% include '/etc/hostname' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "changes what it is given": "{{ messages.append(1) }}",
    "range": "{% for i in range(1000000000) %}a{% endfor %}",
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_template_of_a_model_reaches_nothing_outside_its_sandbox(tmp_path, kind):
    tokenizer = load_tokenizer(Profile(name="models/tiny", weights="random"))
    with pytest.raises(TemplateError, match="cannot be rendered"):
        Prompter(tokenizer, TEMPLATES[kind]).render([{"role": "user", "content": "가"}])


# --- spreadsheets ----------------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://evil.example","가")']


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_csv_is_a_formula(tmp_path, text):
    path = tmp_path / "d.csv"
    write_csv(path, [{"series": text, "score": -1.5}], ["series", "score"])
    (row,) = csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""))
    assert row == {"series": f"'{text}".replace("\r", " "), "score": "-1.5"}


def test_json_lines_hold_what_was_given(tmp_path):
    assert json.loads(json.dumps(FORMULAS)) == FORMULAS
    assert mask_personal_data("=1+1")[0] == clean("=1+1") == "=1+1"
