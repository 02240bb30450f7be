"""Files as public sources have them, from the raw file to formatted records, without a change to the file."""

import csv
import io
import json
import shutil

import pyarrow
import pyarrow.parquet
import pytest

import format
import prepare
import split
from civilqa.dataset.records import read_records
from civilqa.program.files import read_json, read_jsonl
from conftest import ROOT, edit_params
from source_files import write, write_xlsx

SUBJECTS = (
    *(
        "보증금을 돌려받지 못하면",
        "집주인이 바뀌면",
        "임차권등기명령을 신청하려면",
        "전입신고를 늦게 하면",
        "공유물을 나누려면",
    ),
    *("유치권을 행사하려면", "저당권이 말소되면", "가등기가 있으면", "취득시효가 완성되면", "묵시적으로 갱신되면"),
    *("확정일자를 받으면", "전세권을 설정하면"),
)
STEPS = ("내용증명", "지급명령", "조정 신청", "소송")
QUESTIONS = [f"{subject} 어떻게 해야 합니까?" for subject in SUBJECTS]
ANSWERS = [
    f"{subject} 먼저 계약서와 등기사항증명서를 확인하고, {weeks}주 안에 {STEPS[weeks % 4]}을 준비하십시오."
    for weeks, subject in enumerate(SUBJECTS, start=2)
]
PAIRS = list(zip(QUESTIONS, ANSWERS, strict=True))


def alpaca(path):
    """Stanford Alpaca: one array."""
    rows = [
        {"instruction": question, "input": "특약은 없습니다." if number % 3 == 0 else "", "output": answer}
        for number, (question, answer) in enumerate(PAIRS)
    ]
    return write(path / "alpaca.json", json.dumps(rows, ensure_ascii=False, indent=2))


def sharegpt(path):
    """ShareGPT: a line for each conversation, one of them of two turns."""
    rows = [
        {"id": f"c{number}", "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
        for number, (question, answer) in enumerate(PAIRS)
    ]
    rows[3]["conversations"] += [{"from": "human", "value": "더 있습니까?"}, {"from": "gpt", "value": "더는 없습니다."}]
    return write(path / "sharegpt.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def aihub(path):
    """AI-Hub: what a row says is inside an object of each element, beside what is known of the source."""
    rows = [
        {
            "info": {"id": number, "lawClass": "민사"},
            "taskinfo": {"instruction": "답하시오.", "input": question, "output": answer, "sentences": [question]},
        }
        for number, (question, answer) in enumerate(PAIRS)
    ]
    return write(
        path / "aihub.json", json.dumps({"info": {"version": "1.2"}, "data": rows}, ensure_ascii=False, indent=1)
    )


def workbook(path):
    """A workbook of an office: a title, merged categories, a remark, and a sheet that explains."""
    rows = [["2026년 상담 사례집"], [], ["분야", "질문", "답변", "비고"]]
    rows += [
        ["전세" if number == 0 else "물권" if number == 6 else None, *pair, "확인" if number % 4 == 0 else None]
        for number, pair in enumerate(PAIRS)
    ]
    notes = [["이 표는 상담 사례를 모은 것입니다."], ["문의는 총무과로 하십시오."]]
    return write_xlsx(path / "cases.xlsx", 상담__A1_D1__A4_A9__A10_A15=rows, 안내=notes)


def korean_csv(path):
    """Excel's CSV in Korea: cp949, two columns with Korean names."""
    text = io.StringIO()
    csv.writer(text).writerows([("질문", "답변"), *PAIRS])
    return write(path / "korean.csv", text.getvalue().encode("cp949"))


def parquet(path):
    """A DataFrame with its index, as pandas writes it."""
    columns = {"question": QUESTIONS, "answer": ANSWERS, "__index_level_0__": list(range(len(PAIRS)))}
    pyarrow.parquet.write_table(pyarrow.table(columns), path / "indexed.parquet")
    return path / "indexed.parquet"


# What makes the file, changes of parameters, kept and left out rows, and what is printed
SOURCES = {
    "alpaca": (alpaca, {}, 12, 0, ["alpaca.json: json, encoding utf-8; Alpaca (instruction, input, output)"]),
    "sharegpt": (
        sharegpt,
        {"prepare.multi_turn": "first"},
        12,
        0,
        [
            "sharegpt.jsonl: jsonl, encoding utf-8; ShareGPT conversations (conversations)",
            "columns not used, kept in data/prepared/extra.jsonl: id in 12 rows",
            "warning: of 1 conversation of several turns the first one was taken (prepare.multi_turn)",
        ],
    ),
    "aihub": (
        aihub,
        {"prepare.columns": {"question": "taskinfo.input", "answer": "taskinfo.output"}},
        12,
        0,
        [
            "aihub.json: json, encoding utf-8; as prepare.columns says (taskinfo.input, taskinfo.output)",
            "warning: left out: aihub.json[info]: stands beside the rows",
            "columns not used, kept in data/prepared/extra.jsonl: info.id in 12 rows, info.lawClass in 12 rows, "
            "taskinfo.instruction in 12 rows, taskinfo.sentences in 12 rows",
        ],
    ),
    "workbook": (
        workbook,
        {},
        12,
        3,
        [
            "cases.xlsx[상담]: xlsx, column names on line 3; question and answer (질문, 답변, 분야)",
            "warning: cases.xlsx[상담]: 1 row above the column names left out",
            "cases.xlsx[상담]: 10 cells filled with the text of the merged cell that they belong to",
            "warning: left out: cases.xlsx[안내]: found a row of 1 cell where the column names should be (2 rows)",
            "columns not used, kept in data/prepared/extra.jsonl: 비고 in 3 rows",
        ],
    ),
    "korean_csv": (
        korean_csv,
        {},
        12,
        0,
        ["korean.csv: csv, encoding cp949, delimiter ','; question and answer (질문, 답변)"],
    ),
    "parquet": (
        parquet,
        {},
        12,
        0,
        [
            "indexed.parquet: parquet; question and answer (question, answer)",
            "columns not used, kept in data/prepared/extra.jsonl: __index_level_0__ in 12 rows",
        ],
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_as_people_have_it_runs_from_raw_to_formatted(tmp_path, monkeypatch, capsys, source):
    make, changes, kept, left_out, printed = SOURCES[source]
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("adapter*", "merged*"))
    monkeypatch.chdir(tmp_path)
    path = make(tmp_path)
    before = path.read_bytes()
    edit_params(tmp_path / "params.yaml", **{"prepare.source": path.name, **changes})
    prepare.main()
    said = [line.removeprefix("prepare: ") for line in capsys.readouterr().out.splitlines()]
    assert [line for line in said if line in printed] == printed, said
    split.main()
    format.main()
    assert path.read_bytes() == before
    rows = read_json(prepare.METRICS)["rows"]
    assert (rows["kept"], rows["filtered"], rows["rejected"], rows["left_out"]) == (kept, 0, 0, left_out)
    formatted = [record for name in split.SPLITS for record in read_jsonl(format.FOLDER / f"{name}.jsonl")]
    assert len(formatted) == kept
    records = read_records(prepare.RECORDS)
    answers = [record.answer for record in records]
    assert answers == ANSWERS
    assert all(question in record.question for question, record in zip(QUESTIONS, records, strict=True))
    if source == "workbook":
        assert [record.category for record in records] == ["전세"] * 6 + ["물권"] * 6
