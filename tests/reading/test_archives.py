"""Tables inside .gz and .zip, and folders."""

import contextlib
import io
import json
import re
import zipfile

import pytest

from civilqa.program.errors import RecordError
from civilqa.program.files import sha256_file
from civilqa.reading.account import count_files, describe_sources
from source_files import A, Q, pairs, read, write, write_gz, write_xlsx, zip_of

CSV = f"질문,답변\n{Q},{A}\n"
OTHER = CSV.replace("보증금", "전세금")


def left_out(reading, root):
    return [(item.file.removeprefix(f"{root}/"), item.reason, item.rows) for item in reading.left_out]


def packed(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


CONTENTS = {
    "d.csv": CSV,
    "d.txt": CSV,
    "d.tsv": CSV.replace(",", "\t"),
    "d.json": json.dumps([{"질문": Q, "답변": A}]),
    "d.jsonl": json.dumps({"질문": Q, "답변": A}),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_packed_file_is_read_as_what_is_in_it(tmp_path, name):
    plain = read(write(tmp_path / name, CONTENTS[name]))
    for packed in (
        write_gz(tmp_path / f"{name}.gz", CONTENTS[name]),
        zip_of(tmp_path / "d.zip", {f"안/{name}": CONTENTS[name]}),
    ):
        reading = read(packed)
        assert (pairs(reading), reading.records) == ([(Q, A)], plain.records)
    assert reading.rows[0].file == f"{tmp_path}/d.zip/안/{name}"


def test_a_packed_workbook_is_read_sheet_by_sheet(tmp_path):
    book = write_xlsx(tmp_path / "d.xlsx", 가=[["질문", "답변"], [Q, A]], 나=[["코드"], [1]])
    for packed in (
        write_gz(tmp_path / "d.xlsx.gz", book.read_bytes()),
        zip_of(tmp_path / "d.zip", {"d.xlsx": book.read_bytes()}),
    ):
        reading = read(packed)
        assert pairs(reading) == [(Q, A)]
        assert [(item.reason, item.rows) for item in reading.left_out] == [
            ("no column question, answer; found 코드", 1)
        ]


def test_every_member_of_an_archive_is_read_or_left_out_by_name(tmp_path):
    path = zip_of(
        tmp_path / "d.zip",
        {
            "b.csv": OTHER,
            "a/a.csv": CSV,
            "a/codes.csv": "코드,이름\n1,전세\n2,물권\n",
            "readme.txt": "이 자료는 상담 사례입니다.\n문의는 총무과로 하십시오.\n",
            "license.txt": '"열린 따옴표\n',
            "binary.txt": b"\x00\x01",
            "picture.png": b"\x89PNG",
            "inner.zip": packed({"c.csv": CSV.replace("보증금", "계약금"), "deep.zip": packed({"d.csv": CSV})}),
            "__MACOSX/._a.csv": b"\x00",
            ".DS_Store": b"\x00",
            "c/d.csv.gz": b"",
            "empty/": b"",
        },
    )
    reading = read(path)
    assert pairs(reading) == [(Q, A), *((Q.replace("보증금", word), A) for word in ("전세금", "계약금"))]
    assert left_out(reading, path) == [
        (".DS_Store", "a hidden file", None),
        ("__MACOSX/._a.csv", "a hidden file", None),
        ("a/codes.csv", "no column question, answer; found 코드, 이름", 2),
        ("binary.txt", "no table: not a text file (a NUL character); save the file as UTF-8", None),
        (
            "c/d.csv.gz",
            "no table: the file is empty; want the column names on the first line, then the rows",
            None,
        ),
        ("inner.zip/deep.zip", "an archive in an archive in an archive", None),
        (
            "license.txt",
            'no table: the row that starts here has a double quote (") that is never closed; close it, and write a '
            'double quote in a quoted field twice ("")',
            None,
        ),
        ("picture.png", "no table", None),
        ("readme.txt", "found a row of 1 cell where the column names should be", 2),
    ]
    assert reading.rows_left_out == 4


def test_thousands_of_files_of_one_object_are_one_dataset(tmp_path):
    members = {
        f"TL/{n:03}.json": json.dumps({"info": {"id": n}, "taskinfo": {"input": f"{n}번 {Q}", "output": A}})
        for n in range(30)
    }
    reading = read(zip_of(tmp_path / "d.zip", members))
    assert (len(reading.records), len(reading.tables)) == (30, 30)
    assert reading.rows[7].file.endswith("d.zip/TL/007.json")
    (source,) = describe_sources(reading.tables)
    assert (source["tables"], source["rows"], source["file"]) == (30, 30, f"{tmp_path}/d.zip/TL/000.json")
    assert source["sha256"] == sha256_file(tmp_path / "d.zip")


@pytest.mark.parametrize("codec", ["cp949", "utf-8"])
def test_names_in_an_archive_may_be_in_the_encoding_of_korean_windows_or_not_said_to_be_utf8(tmp_path, codec):
    name = "가나.csv".encode(codec)
    path = write(tmp_path / "d.zip", packed({"x" * len(name): CSV}).replace(b"x" * len(name), name))
    assert read(path).rows[0].file == f"{path}/가나.csv"


def encrypted():
    data = bytearray(packed({"a.csv": CSV}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def damaged_member():
    return packed({"a.csv": CSV}).replace("보증금".encode(), "보중금".encode(), 1)


AGAIN = "; the file is damaged, export it again"


@pytest.mark.parametrize(
    ("stray", "reason", "rows"),
    [
        (" ;\n1;\n2;3\n", "found no column names", 2),
        ("월,문의,월,문의\n1,20,2,30\n", "no column answer; found 월, 문의, 월 (2), 문의 (2)", 1),
        ("질문(앞),질문(뒤)\n가,나\n다,라\n", "no column answer; found 질문(앞), 질문(뒤)", 2),
    ],
)
def test_a_file_that_is_no_table_of_questions_stops_nothing(tmp_path, stray, reason, rows):
    write(tmp_path / "in/a.csv", stray)
    write(tmp_path / "in/b.csv", CSV)
    path = zip_of(tmp_path / "d.zip", {"a.csv": stray, "b.csv": CSV})
    for root in (tmp_path / "in", path):
        reading = read(root)
        assert pairs(reading) == [(Q, A)]
        assert left_out(reading, root) == [("a.csv", reason, rows)]
    with pytest.raises(RecordError, match="a.csv:1: " + re.escape(reason)):
        read(tmp_path / "in/a.csv")


PACKED = [
    (
        "d.zip",
        b"no zip",
        f":1: cannot be read as a zip file from here on (File is not a zip file){AGAIN}",
    ),
    ("d.zip", encrypted(), ": is protected by a password; unpack it and give its files"),
    (
        "d.zip",
        damaged_member(),
        f":1: cannot be read as a zip file from here on (Bad CRC-32 for file 'a.csv'){AGAIN}",
    ),
    (
        "d.csv.gz",
        b"no gz",
        f":1: cannot be read as a gz file from here on (Not a gzipped file (b'no')){AGAIN}",
    ),
    (
        "d.csv.gz",
        b"\x1f\x8b\x08\x00",
        ":1: cannot be read as a gz file from here on (Compressed file ended before the end-of-stream marker was "
        f"reached){AGAIN}",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), PACKED)
def test_an_archive_that_cannot_be_unpacked_is_refused(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(RecordError) as error:
        read(path)
    assert str(error.value) == f"{path}{message}"


def test_whatever_byte_of_an_archive_is_damaged_it_is_rows_or_refused(tmp_path):
    for path in (zip_of(tmp_path / "d.zip", {"a.csv": CSV}), write_gz(tmp_path / "d.csv.gz", CSV)):
        whole = path.read_bytes()
        for place in range(len(whole)):
            for byte in (0x00, 0xFF):
                write(path, whole[:place] + bytes([byte]) + whole[place + 1 :])
                with contextlib.suppress(RecordError):
                    read(path)


def test_an_archive_without_a_table_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"d.zip: no table in it; put a file there that ends in .csv"):
        read(zip_of(tmp_path / "d.zip", {"a.png": b""}))
    with pytest.raises(RecordError, match=r"d.zip/codes.csv:1: no column question, answer; found 코드"):
        read(zip_of(tmp_path / "d.zip", {"codes.csv": "코드,이름\n1,전세\n"}))
    with pytest.raises(RecordError, match=r"d.tar.gz: unknown suffix '.tar.gz'"):
        read(write_gz(tmp_path / "d.tar.gz", b""))


def test_what_unpacks_to_more_than_the_limit_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("civilqa.reading.archives.UNPACKED_BYTES", 1_000_000)
    written = []
    monkeypatch.setattr("civilqa.reading.archives.CHUNK_BYTES", 100_000)
    real = zipfile.ZipExtFile.read
    monkeypatch.setattr(zipfile.ZipExtFile, "read", lambda self, n=-1: written.append(n) or real(self, n))
    bomb = CSV + "가" * 3_000_000
    message = r": would unpack to 0.0 GiB, want at most 0; save the table as CSV, or in several files"
    for path in (write_gz(tmp_path / "d.csv.gz", bomb), zip_of(tmp_path / "d.zip", {"a.csv": bomb})):
        assert path.stat().st_size < 30_000
        with pytest.raises(RecordError, match=message):
            read(path)
    assert written == []  # the sizes that a zip file states are enough


def test_nothing_is_left_of_what_was_unpacked(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    read(write_gz(tmp_path / "d.csv.gz", CSV))
    with pytest.raises(RecordError):
        read(zip_of(tmp_path / "d.zip", {"a.csv": '질문,답변\n"가\n'}))
    assert list((tmp_path / "temporary").iterdir()) == []


# Folders


def folder(tmp_path):
    write(tmp_path / "in/a.csv", CSV)
    write(tmp_path / "in/2024/b.json", [{"질문": Q.replace("보증금", "전세금"), "답변": A}])
    write(tmp_path / "in/읽어 보기.txt", "이 자료는 상담 사례입니다.\n")
    write(tmp_path / "in/메모.docx", b"PK")
    write(tmp_path / "in/.gitignore", "/x\n")
    return tmp_path / "in"


def test_a_folder_is_its_tables_and_every_other_file_is_left_out_by_name(tmp_path):
    root = folder(tmp_path)
    for on_invalid in ("fail", "drop"):
        reading = read(root, on_invalid=on_invalid)
        assert pairs(reading) == [(Q.replace("보증금", "전세금"), A), (Q, A)]
        assert left_out(reading, root) == [
            (".gitignore", "a hidden file", None),
            ("메모.docx", "no table", None),
            ("읽어 보기.txt", "found a row of 1 cell where the column names should be", 1),
        ]


def test_a_table_of_a_folder_without_the_columns_is_left_out_as_in_an_archive(tmp_path):
    root = folder(tmp_path)
    write(root / "codes.csv", "코드,이름\n1,전세\n")
    write(root / "empty.json", "")
    for on_invalid in ("fail", "drop"):
        found = left_out(read(root, on_invalid=on_invalid), root)
        assert ("codes.csv", "no column question, answer; found 코드, 이름", 1) in found
        assert any(
            file == "empty.json" and reason.startswith("no table: the file is empty") for file, reason, _ in found
        )


def test_a_link_to_a_file_that_is_read_or_to_none_is_left_out(tmp_path):
    root = folder(tmp_path)
    (root / "0.csv").symlink_to(root / "a.csv")
    (root / "none.csv").symlink_to(root / "gone.csv")
    reading = read(root)
    assert len(reading.records) == 2
    assert count_files(reading)["files"] == {"read": 2, "left_out": 5}
    assert {("0.csv", "a link to a file that is read", None), ("none.csv", "a link to nothing", None)} <= set(
        left_out(reading, root)
    )


def test_a_folder_of_notes_alone_is_refused(tmp_path):
    write(tmp_path / "in/a.txt", "이 자료는 상담 사례입니다.\n")
    with pytest.raises(RecordError, match=r"a.txt:1: found a row of 1 cell where the column names should be"):
        read(tmp_path / "in")


def test_a_file_that_cannot_be_read_is_left_out_if_it_is_a_note_and_stops_the_stage_otherwise(tmp_path):
    root = folder(tmp_path)
    write(root / "binary.txt", b"\x00\x01")
    reason = "no table: not a text file (a NUL character); save the file as UTF-8"
    assert ("binary.txt", reason, None) in left_out(read(root), root)
    write(root / "broken.xlsx", b"PK no zip\x00")
    with pytest.raises(RecordError, match=r"broken.xlsx:1: cannot be read as an Excel workbook"):
        read(root)


def test_the_progress_bar_ends_before_a_file_stops_the_stage(tmp_path, capsys):
    with pytest.raises(RecordError) as error:  # it holds the frames, and with them a bar that is still open
        read(write(tmp_path / "d.csv", b"\x00"))
    assert capsys.readouterr().err.endswith("\n"), error
