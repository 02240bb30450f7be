import unicodedata

import pytest

import source_files
from civilqa.program.errors import RecordError
from civilqa.reading.checks import PrepareParams
from civilqa.reading.source import Reading, read_source
from conftest import HEADER

ROW = "질문입니다,답변입니다,전세사기,초급"

PARAMS = source_files.PARAMS.model_copy(update={"on_invalid": "fail"})


def read(tmp_path, content, **changes) -> Reading:
    path = tmp_path / "data.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_source(str(path), PARAMS.model_copy(update=changes))


def fields(record):
    return record.question, record.answer, record.category, record.difficulty


def test_a_row_becomes_a_record(tmp_path):
    (record,) = read(tmp_path, f"{HEADER}\n{ROW}\n").records
    assert fields(record) == ("질문입니다", "답변입니다", "전세사기", "초급")


def test_a_category_is_looked_at_in_every_row(tmp_path):
    nfd = unicodedata.normalize("NFD", "전세사기")
    written = {
        "전세사기": "전세사기",
        nfd: "전세사기",
        " nan ": "",
        "전화 010-1234-5678": "전화 [전화번호]",
        "전세<br/>": "전세<br/>",
    }
    rows = [(f"{number}번 질문입니다", category) for number, category in enumerate([*written] * 2)]
    reading = read(tmp_path, "\n".join([HEADER, *(f"{question},답변입니다,{text},초급" for question, text in rows)]))
    assert [record.category for record in reading.records] == [*written.values()] * 2
    assert reading.personal_data == {"phone": 2}
    assert reading.leftovers == 2
    damaged = read(tmp_path, f"{HEADER}\n{ROW}쏙옙\n가{ROW}쏙옙\n", on_invalid="drop")
    assert [row.reason for row in damaged.rejected] == ["damaged_text"] * 2


WRITTEN_OTHERWISE = {
    "bom": f"{HEADER}\n{ROW}\n".encode("utf-8-sig"),
    "cp949": f"{HEADER}\n{ROW}\n".encode("cp949"),
    "utf-16": f"{HEADER}\n{ROW}\n".encode("utf-16"),
    "crlf": f"{HEADER}\r\n{ROW}\r\n",
    "no newline": f"{HEADER}\n{ROW}",
    "blank lines": f"{HEADER}\n\n{ROW}\n\n",
    "spaces": f" question , answer,category,difficulty\n{ROW}\n",
    "nfd": f"{HEADER}\n" + unicodedata.normalize("NFD", ROW) + "\n",
    "invisible": f"{HEADER}\n  질문입니다 ,\u200b답변입니다\ufeff,전세사기\t,초급\n",
    "order": "difficulty,category,answer,question\n초급,전세사기,답변입니다,질문입니다\n",
    "more columns": f"note,{HEADER}\n비고,{ROW}\n",
    "semicolon": f"{HEADER}\n{ROW}\n".replace(",", ";"),
    "tab": f"{HEADER}\n{ROW}\n".replace(",", "\t"),
}


def test_the_same_row_written_otherwise_is_the_same_record(tmp_path):
    expected = read(tmp_path, f"{HEADER}\n{ROW}\n").records
    found = {name: read(tmp_path, content).records for name, content in WRITTEN_OTHERWISE.items()}
    assert found == dict.fromkeys(WRITTEN_OTHERWISE, expected)


def test_quoted_commas_quotes_and_line_breaks_are_text(tmp_path):
    (record,) = read(tmp_path, f'{HEADER}\n"첫째, 둘째","그는 ""예""라고\n답했다",전세사기,초급\n').records
    assert record.question == "첫째, 둘째"
    assert record.answer == '그는 "예"라고\n답했다'


def test_other_column_names_can_be_mapped(tmp_path):
    content = f"사연,조언,category,difficulty\n{ROW}\n"
    (record,) = read(tmp_path, content, columns={"question": "사연", "answer": "조언"}).records
    assert fields(record)[:2] == ("질문입니다", "답변입니다")


def test_category_and_difficulty_may_be_empty_or_not_there(tmp_path):
    for content in (f"{HEADER}\n질문입니다,답변입니다,,\n", "question,answer\n질문입니다,답변입니다\n"):
        (record,) = read(tmp_path, content).records
        assert fields(record) == ("질문입니다", "답변입니다", "", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("question,category\na,b\n", r"data.csv:1: no column answer; found question, category; say in prepare.columns"),
        ("answer,물음표,category\na,b,c\n", r"data.csv:1: no column question; found answer, 물음표, category; say in"),
        (f"{HEADER}\n", r"has no rows below its header"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path, content, message):
    with pytest.raises(RecordError, match=message):
        read(tmp_path, content)


UNUSABLE_ROWS = [
    (f"{ROW}\na,b,c\n", 3, "unreadable", "found 3 fields, want 4"),
    (f"{ROW}\n질문, 쉼표,답변,전세사기,초급\n", 3, "unreadable", "found 5 fields, want 4"),
    (",답변입니다,전세사기,초급\n", 2, "empty", "empty 'question'; fill it in or delete the row"),
    ("질문입니다, \u200b ,전세사기,초급\n", 2, "empty", "empty 'answer'; fill it in or delete the row"),
    ("가,답변입니다,전세사기,초급\n", 2, "too_short", "'question' has 1 characters, want 2"),
    ("질문입니다,답변입니다,상속,초급\n", 2, "unknown_category", "category '상속' is not among"),
    ("질문입니다,답변입니다,전세사기,최상\n", 2, "unknown_difficulty", "allowed_difficulties: 초급, 중급, 고급"),
    (
        "질문입니다,민법 제9999조에 따릅니다,전세사기,초급\n",
        2,
        "no_such_article",
        "cites 민법 제9999조, which does not exist",
    ),
    (
        "질문입니다,민법 제651조에 따릅니다,전세사기,초급\n",
        2,
        "deleted_article",
        "cites 민법 제651조, which was deleted",
    ),
    (f"{ROW}\n{ROW}\n", 3, "duplicate", "data.csv:2 again with the same answer; left out"),
    ("질문입니다,가나,전세사기,초급\n질문입니다 ,다라,,\n", 2, "conflicting_duplicate", "another answer in"),
]


def test_a_row_that_cannot_be_used_is_rejected_with_its_line_and_reason(tmp_path):
    for rows, line, reason, detail in UNUSABLE_ROWS:
        reading = read(
            tmp_path,
            f"{HEADER}\n{rows}",
            allowed_categories=["전세사기", ""],
            allowed_difficulties=["초급", "중급", "고급"] if "최상" in rows else [],
        )
        rejected = reading.rejected[0]
        assert (rejected.line, rejected.reason) == (line, reason), rows
        assert detail in rejected.detail
        assert rejected.row
        assert len(reading.records) + len(reading.rejected) == reading.read


def test_of_contradicting_answers_none_is_kept(tmp_path):
    reading = read(tmp_path, f"{HEADER}\n질문입니다,가나,,\n다른 질문,다라,,\n질문입니다,마바,,\n")
    assert [record.question for record in reading.records] == ["다른 질문"]
    assert [row.line for row in reading.rejected] == [2, 4]


def test_citations_of_acts_outside_the_table_are_counted_and_kept(tmp_path):
    reading = read(tmp_path, f"{HEADER}\n질문입니다,공직선거법 제18조를 보십시오,,\n")
    assert (len(reading.records), reading.citations_outside_table) == (1, 1)


DOUBTFUL = (
    "임대차 기간은 민법 제651조에 따라 20년을 넘지 못합니다. 담당 010-1234-5678. 민법 제1200조와 제1200조, "
    "민법 제618조를 보십시오."
)


def test_what_does_not_hold_is_shown_once_each_with_the_words_around_it(tmp_path):
    (rejected,) = read(tmp_path, f'{HEADER}\n질문입니다,"{DOUBTFUL}",,\n').rejected
    assert rejected.reason == "no_such_article"
    assert rejected.detail == (
        "the answer cites 민법 제651조, which was deleted "
        "('임대차 기간은 민법 제651조에 따라 20년을 넘지 못합니다. 담…'); "
        "민법 제1200조, which does not exist "
        "('…넘지 못합니다. 담당 [전화번호]. 민법 제1200조와 제1200조, 민법 제618조를…'); "
        "mend the citation, or list what is right in prepare.allowed_citations"
    )


def test_doubtful_citations_are_rejected_kept_with_a_warning_or_not_looked_at(tmp_path):
    content = f'{HEADER}\n질문입니다,"{DOUBTFUL}",,\n질문 둘,난민법 제3조를 보십시오,,\n'
    found = {kind: read(tmp_path, content, check_citations=kind) for kind in ("reject", "warn", "off")}
    assert {kind: (len(r.records), len(r.rejected)) for kind, r in found.items()} == {
        "reject": (1, 1),
        "warn": (2, 0),
        "off": (2, 0),
    }
    assert {kind: r.citations_outside_table for kind, r in found.items()} == {"reject": 1, "warn": 1, "off": 0}
    assert found["off"].doubtful_citations == found["reject"].doubtful_citations == []
    ((file, line, detail),) = found["warn"].doubtful_citations
    assert (file, line) == (found["reject"].rejected[0].file, 2)
    assert detail == found["reject"].rejected[0].detail


def test_rows_in_doubt_are_counted_and_the_first_kept_and_of_an_answer_the_first_articles_named(tmp_path):
    articles = "조, 제".join(str(1200 + number) for number in range(30))
    rows = "".join(f"질문입니다 {number},민법 제{articles}조에 따릅니다.,,\n" for number in range(120))
    reading = read(tmp_path, f"{HEADER}\n{rows}".replace("조, 제", "조와 제"), check_citations="warn")
    assert (reading.in_doubt, len(reading.doubtful_citations)) == (120, 100)
    detail = reading.doubtful_citations[0][2]
    assert "민법 제1207조, which does not exist" in detail
    assert "제1208조, which" not in detail
    assert "; further articles: 22; mend the citation" in detail


def test_an_allowed_citation_holds_whatever_the_table_says(tmp_path):
    content = f'{HEADER}\n질문입니다,"{DOUBTFUL}",,\n'
    assert read(tmp_path, content, allowed_citations=["민법 제651조", "민법 제1200조"]).rejected == []
    (rejected,) = read(tmp_path, content, allowed_citations=["민법 제651조"]).rejected
    assert "제651조, which" not in rejected.detail
    content = f"{HEADER}\n질문입니다,주택임대차보호법 제5조에 따릅니다,,\n"
    assert read(tmp_path, content, allowed_citations=["주임법 제5조"]).rejected == []


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("제651조", "'제651조' names 0 articles, want one, written like 민법 제651조"),
        ("민법 제651조, 제652조", "'민법 제651조, 제652조' names 2 articles, want one"),
        ("민법", "'민법' names 0 articles"),
        ("난민법 제3조", "난민법 is not in data/reference, and is not checked; take it out"),
    ],
)
def test_an_allowed_citation_names_one_article(written, message):
    with pytest.raises(ValueError, match=message):
        PrepareParams.model_validate({**PARAMS.model_dump(), "allowed_citations": [written]})


def test_personal_data_is_masked_and_counted(tmp_path):
    content = f"{HEADER}\n질문입니다,010-1234-5678로 연락하십시오,,\n"
    reading = read(tmp_path, content)
    assert reading.records[0].answer == "[전화번호]로 연락하십시오"
    assert reading.personal_data == {"phone": 1}
    assert "010-1234-5678" in read(tmp_path, content, mask_personal_data=False).records[0].answer


def test_what_is_counted_is_in_rows_that_are_kept(tmp_path):
    kept = "질문입니다 하나,010-9876-5432로&nbsp;민법 제1300조를 물으십시오,전세,\n"
    rows = [
        kept,
        kept.replace("물으십시오", "물으세요"),
        "질문입니다 둘,a@b.kr로 파산법 제2조를<br>물으십시오,물권,\n",
        "질문입니다 셋,011-987-6543으로<br>물으십시오,상속,\n",
        "질문입니다 넷,\ufffd 016-987-6543<br>,전세,\n",
    ]
    allowed = {"allowed_categories": ["전세", "물권"], "check_citations": "warn", "on_invalid": "drop"}
    reading = read(tmp_path, f"{HEADER}\n{''.join(rows)}", **allowed)

    def counts():
        places = [place.partition(": ")[0].rpartition("/")[2] for place in reading.leftover_places]
        doubts = [line for _, line, _ in reading.doubtful_citations]
        return dict(reading.personal_data), reading.leftovers, places, reading.in_doubt, doubts

    assert counts() == ({"phone": 1, "email": 1}, 2, ["data.csv:2", "data.csv:4"], 1, [2])
    assert reading.citations_outside_table == 1
    assert reading.keep(reading.records[1:]) == reading.records[1:]
    assert counts() == ({"email": 1}, 1, ["data.csv:4"], 0, [])
    reading.keep(reading.records[:1])
    assert counts() == ({"phone": 1}, 1, ["data.csv:2"], 1, [2])
    assert reading.citations_outside_table == 0


def test_many_rows_are_prepared_by_several_processes_as_by_one(tmp_path, monkeypatch):
    rows = [f"질문입니다 {number},{number}번 답변은 민법 제{number % 1300 + 1}조입니다,," for number in range(300)]
    whole = read(tmp_path, "\n".join([HEADER, *rows]))
    monkeypatch.setattr("civilqa.dataset.parallel.CHUNK", 40)
    assert read(tmp_path, "\n".join([HEADER, *rows])) == whole


def test_a_row_is_held_as_it_was_read_and_shares_the_text_of_its_record(tmp_path):
    reading = read(tmp_path, f"{HEADER},비고\n 질문입니다,답변 하나,전세사기,초급,가\n질문 둘,010-1234-5678로,,,나\n")
    assert [row.fields for row in reading.rows] == [
        {"question": " 질문입니다", "answer": "답변 하나", "category": "전세사기", "difficulty": "초급", "비고": "가"},
        {"question": "질문 둘", "answer": "010-1234-5678로", "category": "", "difficulty": "", "비고": "나"},
    ]
    assert reading.rows[0].fields["answer"] is reading.records[0].answer
    assert reading.rows[1].fields["question"] is reading.records[1].question


def test_of_many_contradicting_answers_five_places_are_shown(tmp_path):
    rows = "".join(f"질문입니다,답변 {number},,\n" for number in range(7))
    details = [row.detail for row in read(tmp_path, f"{HEADER}\n{rows}").rejected]
    assert len(details) == 7
    places = ", ".join(f"{tmp_path / 'data.csv'}:{line}" for line in range(3, 8))
    way_on = "delete the wrong one, or set prepare.same_question to keep_first or keep_variants"
    assert details[0] == f"the same question has another answer in {places} and more; {way_on}"
    assert all(detail.count("data.csv:") == 5 and " and more" in detail for detail in details)
    rows = "".join(f"질문입니다,답변 {number},,\n" for number in range(6))
    assert " and more" not in read(tmp_path, f"{HEADER}\n{rows}").rejected[0].detail
