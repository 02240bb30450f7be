"""Which columns are understood without a word from the user, and what becomes of the others."""

import json
import unicodedata

import pytest

from civilqa.program.errors import RecordError
from source_files import A, Q, kinds, pairs, read, write

OTHER_Q, OTHER_A = "집주인이 바뀌면 어떻게 됩니까", "새 주인이 의무를 이어받습니다"


def table(tmp_path, names, *cells):
    cells = cells or (Q, A)
    return write(tmp_path / "data.csv", ",".join(names) + "\n" + ",".join(cells) + "\n")


NAMES = [
    ("질문", "답변"),
    ("질문", "답"),
    ("문의", "회신"),
    ("질의", "답변"),
    ("질의요지", "회답"),
    ("질문 내용", "답변 내용"),
    ("질문_내용", "답변_내용"),
    ("질문(필수)", "답변(필수)"),
    ("[질문]", "[답변]"),
    ("Question", "Answer"),
    ("QUESTION", "ANSWER"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("input", "output"),
    ("Instruction", "Response"),
    ("query", "reply"),
    ("q", "a"),
    ("Q", "A"),
    ("문", "답"),
    ("user", "assistant"),
    ("human", "gpt"),
    ("instruct", "response"),
    ("prompt", "chosen"),
    ("상담질문", "상담답변"),
    ("질문 본문", "답변 본문"),
    ("질의사항", "답변글"),
    ("question_ko", "answer_ko"),
    ("question_text", "answers"),
    ("user_input", "output"),
    ("고객 문의", "답변"),
    ("사용자 질의", "회신"),
    ("user_query", "response"),
    ("question", "답변"),
]


@pytest.mark.parametrize("names", NAMES, ids="/".join)
def test_these_names_need_no_mapping(tmp_path, names):
    for form in ("NFC", "NFD"):
        path = table(tmp_path, [unicodedata.normalize(form, name) for name in names])
        assert pairs(read(path)) == [(Q, A)]


@pytest.mark.parametrize(
    "names",
    [
        *(
            ("질문자", "답변"),
            ("질문", "답변일"),
            ("질문 제목", "답변"),
            ("질문유형", "답변"),
            ("q", "답변"),
            ("질문", "a"),
        ),
        *(("문", "답변"), ("user", "output"), ("질문", "assistant"), ("제목", "내용"), ("text", "label")),
        *(("질문", "고객 회신"), ("질의", "사용자답변"), ("query", "user_response"), ("고객질문", "고객답변")),
    ],
    ids="/".join,
)
def test_what_only_resembles_a_name_is_none(tmp_path, names):
    with pytest.raises(RecordError, match=r"no column (question|answer)"):
        read(table(tmp_path, names))


@pytest.mark.parametrize(
    "names", [("분야", "난이도"), ("카테고리", "난도"), ("분류", "Difficulty"), ("법률 분야", "난이도")]
)
def test_names_of_category_and_difficulty_need_no_mapping(tmp_path, names):
    path = table(tmp_path, [names[1], "답변", names[0], "질문"], "초급", A, "전세사기", Q)
    assert pairs(read(path)) == [(Q, A, "전세사기", "초급")]


def test_what_is_said_of_who_asks_is_no_category(tmp_path):
    assert pairs(read(table(tmp_path, ["질문", "답변", "고객 분류"], Q, A, "VIP"))) == [(Q, A)]


def test_category_and_difficulty_may_be_missing(tmp_path):
    assert pairs(read(table(tmp_path, ["question", "answer"]))) == [(Q, A)]


def test_the_first_of_several_known_names_counts_and_the_others_are_named(tmp_path):
    reading = read(table(tmp_path, ["문의", "답", "질문", "답변"], "문의한 것", "답한 것", Q, A))
    assert pairs(reading) == [(Q, A)]
    assert dict(reading.tables[0][1].unused) == {"문의": 1, "답": 1}
    assert reading.rows[0].fields["문의"] == "문의한 것"


def test_two_names_that_could_both_be_meant_are_asked_for(tmp_path):
    path = table(tmp_path, ["질문(필수)", "질문(선택)", "답변"], Q, "", A)
    with pytest.raises(
        RecordError, match=r"data.csv:1: columns 질문\(필수\), 질문\(선택\) could both be the question; say in"
    ):
        read(path)
    assert pairs(read(path, columns={"question": "질문(필수)"})) == [(Q, A)]


def test_a_mapped_column_goes_before_a_known_one_which_stays_beside_the_record(tmp_path):
    reading = read(table(tmp_path, ["question", "사연", "answer"], "제목일 뿐", Q, A), columns={"question": "사연"})
    assert pairs(reading) == [(Q, A)]
    assert reading.rows[0].fields["question (not used)"] == "제목일 뿐"
    assert kinds(reading) == ["as prepare.columns says (사연, answer)"]


def test_a_mapping_may_be_written_in_either_form_of_unicode(tmp_path):
    path = table(tmp_path, [unicodedata.normalize("NFD", "사연"), "답변"])
    for form in ("NFC", "NFD"):
        assert pairs(read(path, columns={"question": unicodedata.normalize(form, "사연")})) == [(Q, A)]


def test_an_unused_column_may_be_there_twice_and_a_used_one_may_not(tmp_path):
    reading = read(table(tmp_path, ["질문", "답변", "비고", "비고"], Q, A, "가", "나"))
    assert reading.rows[0].fields | {"비고": "가", "비고 (2)": "나"} == reading.rows[0].fields
    with pytest.raises(RecordError, match=r"column 답변 is there more than once; rename or delete one"):
        read(table(tmp_path, ["질문", "답변", "답변"], Q, A, A))
    with pytest.raises(RecordError, match=r"column 사연 is there more than once"):
        read(table(tmp_path, ["사연", "답변", "사연"], Q, A, A), columns={"question": "사연"})


def test_columns_that_are_not_used_are_counted_by_the_rows_that_fill_them(tmp_path):
    text = f"질문,답변,url,비고\n{Q},{A},https://a.example,\n{OTHER_Q},{OTHER_A},nan,확인\n"
    assert dict(read(write(tmp_path / "data.csv", text)).tables[0][1].unused) == {"url": 1, "비고": 1}


@pytest.mark.parametrize("word", ["nan", "NaN", "None", "NULL", "#N/A", "N/A", "<NA>", "#REF!", " nan ", "#VALUE!"])
def test_what_stands_for_nothing_is_nothing(tmp_path, word):
    reading = read(table(tmp_path, ["질문", "답변", "분야"], Q, A, word))
    assert pairs(reading) == [(Q, A)]
    (rejected,) = read(write(tmp_path / "data.csv", f"질문,답변\n{Q},{word}\n{OTHER_Q},{A}\n")).rejected
    assert (rejected.reason, rejected.line, rejected.row["answer"]) == ("empty", 2, word)


# Columns without a name


def test_a_column_without_a_name_is_left_out_and_counted(tmp_path):
    for cells in (("0", "17"), ("가", "나")):
        text = f",질문,답변\n{cells[0]},{Q},{A}\n{cells[1]},{OTHER_Q},{OTHER_A}\n"
        reading = read(write(tmp_path / "data.csv", text))
        assert pairs(reading) == [(Q, A), (OTHER_Q, OTHER_A)]
        assert dict(reading.tables[0][1].unused) == {"column 1 (no name)": 2}
        assert [row.fields["column 1 (no name)"] for row in reading.rows] == list(cells)


def test_empty_cells_behind_the_last_name_are_nothing_and_text_there_is_a_comma_without_quotes(tmp_path):
    text = f"질문,답변,,\n{Q},{A},,\n{OTHER_Q},{OTHER_A}\n{Q},첫째, {A},\n{Q},{A}, ,\n{Q},{A}, ,,,\n"
    reading = read(write(tmp_path / "data.csv", text))
    assert pairs(reading) == [(Q, A), (OTHER_Q, OTHER_A)]
    assert [(row.line, row.reason, row.detail[:22]) for row in reading.rejected] == [
        (4, "unreadable", "found 4 fields, want 2"),
        (6, "unreadable", "found 6 fields, want 2"),
        (5, "duplicate", reading.rejected[2].detail[:22]),
    ]


def test_a_comma_outside_quotes_is_told_also_where_the_last_cell_is_empty(tmp_path):
    text = (
        f"질문,답변,분야,난이도\n{Q},{A},전세,\n{OTHER_Q},끝나기 6개월 전부터, 2개월 전까지 요구할 수 있습니다.,전세,\n"
    )
    reading = read(write(tmp_path / "data.csv", text))
    assert pairs(reading) == [(Q, A, "전세")]
    assert [row.detail[:22] for row in reading.rejected] == ["found 5 fields, want 4"]


def test_a_space_behind_the_delimiter_belongs_to_no_cell(tmp_path):
    text = f'질문, 답변, 분야\n"{Q}", "첫째, {A}", "전세"\n{OTHER_Q}, {OTHER_A}, 전세\n'
    reading = read(write(tmp_path / "data.csv", text))
    assert pairs(reading) == [(Q, f"첫째, {A}", "전세"), (OTHER_Q, OTHER_A, "전세")]
    assert not reading.rejected


def test_a_text_may_begin_with_a_space_where_the_names_do_not(tmp_path):
    reading = read(write(tmp_path / "data.csv", f'질문,답변\n{Q}, "{A}" 하고 답하였습니다.\n'))
    assert pairs(reading) == [(Q, f'"{A}" 하고 답하였습니다.')]


@pytest.mark.parametrize("again", ["\ufeff질문 내용,답변 내용,", "질문 내용 , 답변 내용,"])
def test_the_names_again_are_no_row_whatever_cannot_be_seen_in_them(tmp_path, again):
    text = f"질문 내용,답변 내용,\n{Q},{A},\n{again}\n{OTHER_Q},{OTHER_A},\n"
    reading = read(write(tmp_path / "data.csv", text))
    assert pairs(reading) == [(Q, A), (OTHER_Q, OTHER_A)]
    assert dict(reading.tables[0][1].left_out) == {"with the column names again": 1}


# Where the names stand


def test_names_below_a_title_are_found_and_the_title_is_counted(tmp_path):
    text = f"2026년 상담 사례,,\n,,\n담당,총무과,\n질문,답변,분야\n{Q},{A},전세\n"
    reading = read(write(tmp_path / "data.csv", text))
    assert pairs(reading) == [(Q, A, "전세")]
    assert dict(reading.tables[0][1].left_out) == {"above the column names": 2}
    assert reading.tables[0][1].header_line == 4
    assert (reading.records and reading.rows[0].line, reading.rows_left_out) == (5, 2)


def test_a_title_does_not_decide_the_delimiter(tmp_path):
    text = f"가,나,다,라,마,바\n질문\t답변\n{Q}\t{A}\n"
    reading = read(write(tmp_path / "data.txt", text))
    assert (pairs(reading), reading.tables[0][1].info.delimiter) == ([(Q, A)], "\t")


def test_a_title_over_several_lines_in_quotes_keeps_the_numbers_of_lines(tmp_path):
    reading = read(write(tmp_path / "data.csv", f'"제목\n부제",\n질문,답변\n"{Q}\n",{A}\n,{A}\n'))
    assert (reading.rows[0].line, reading.rejected[0].line) == (4, 6)


def test_names_further_down_than_twenty_rows_are_not_looked_for(tmp_path):
    text = "머리말\n" * 20 + f"질문,답변\n{Q},{A}\n"
    with pytest.raises(RecordError, match=r"data.csv:1: found a row of 1 cell where the column names should be"):
        read(write(tmp_path / "data.csv", text))


def test_what_excel_obeys_on_the_first_line_is_obeyed_here(tmp_path):
    for first in ("sep=;", '"sep=;"', "SEP=;"):
        reading = read(write(tmp_path / "data.csv", f"{first}\r\n질문;답변\r\n{Q};{A}\r\n"))
        assert (pairs(reading), reading.rows[0].line) == ([(Q, A)], 3)


def test_rows_of_empty_cells_are_left_out_and_counted(tmp_path):
    reading = read(write(tmp_path / "data.csv", f"질문,답변\n{Q},{A}\n,\n\n , \n,,\n"))
    assert (pairs(reading), reading.rejected) == ([(Q, A)], [])
    assert dict(reading.tables[0][1].left_out) == {"of empty cells": 3}
    assert reading.rows_left_out == 3
    reading = read(write(tmp_path / "data.tsv", f"질문\t답변\n{Q}\t{A}\n\t\n   \n\n"))
    assert (len(reading.records), reading.rows_left_out) == (1, 2)


def test_column_names_that_stand_there_again_are_no_row(tmp_path):
    text = f"질문,답변\n{Q},{A}\n"
    reading = read(write(tmp_path / "data.csv", text + text.replace("보증금", "전세금")))
    assert (len(reading.records), reading.rejected) == (2, [])
    assert dict(reading.tables[0][1].left_out) == {"with the column names again": 1}


def test_a_vertical_bar_parts_cells(tmp_path):
    assert pairs(read(write(tmp_path / "data.txt", f"질문|답변|분야\n{Q}|{A}|전세\n"))) == [(Q, A, "전세")]


PERSON = "홍길동,010-1234-5678,전세금을 못 받았습니다,내용증명을 보내십시오"


@pytest.mark.parametrize(
    "text",
    [
        f"{PERSON}\n{PERSON.replace('홍길동', '김철수')}\n",
        "홍길동,서울시 강남구,전세\n김철수,부산시 남구,전세\n",
        "900101-1234567,가\n",
        "홍길동의 문의입니다.,가\n",
        "hong@example.org,가\n",
    ],
)
def test_a_row_in_place_of_the_names_is_said_and_not_shown(tmp_path, text):
    with pytest.raises(RecordError) as error:
        read(write(tmp_path / "data.csv", text))
    said = str(error.value).removeprefix(str(tmp_path / "data.csv"))
    cells = text.split("\n")[0].count(",") + 1
    assert said == (
        f":1: found a row of {cells} cells where the column names should be; put a line with the names above it, e.g. "
        "question,answer"
    )


def test_a_remark_in_a_name_is_not_shown_where_it_could_be_of_a_person(tmp_path):
    reading = read(table(tmp_path, ["질문(010-1234-5678)", "답변(a@b.kr)"]))
    assert (pairs(reading), kinds(reading)) == (
        [(Q, A)],
        ["question and answer ((text of 17 characters), (text of 10 characters))"],
    )


def test_names_in_a_message_are_masked_and_cut(tmp_path):
    names = ["전화 02-123-456", "번호 900101-1234567", "가" * 41, "홍길동입니다", *(f"열 {n}" for n in range(28))]
    path = write(tmp_path / "data.jsonl", json.dumps(dict.fromkeys(names, "x"), ensure_ascii=False) + "\n")
    with pytest.raises(RecordError) as error:
        read(path)
    said = str(error.value)
    hidden = "(text of 17 characters), (text of 41 characters), (text of 6 characters)"
    assert f"found 전화 02-123-456, {hidden}, 열 0, 열 1" in said
    assert "열 15 and 12 more; say in prepare.columns" in said
