"""The shapes of instruction datasets, in JSON of every layout, and in Parquet."""

import contextlib
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from civilqa.program.errors import RecordError
from civilqa.reading import json_values
from civilqa.reading.account import notes
from civilqa.reading.source import describe
from civilqa.reading.tables import open_table
from source_files import PARAMS, A, Q, kinds, pairs, read, write

Q2, A2 = "집주인이 바뀌면 어떻게 됩니까", "새 주인이 의무를 이어받습니다"
ROWS = [{"question": Q, "answer": A}, {"question": Q2, "answer": A2}]


def lines(rows, **options):
    return "".join(json.dumps(row, ensure_ascii=False, **options) + "\n" for row in rows)


def turns(*texts, roles=("user", "assistant"), keys=("role", "content")):
    return [{keys[0]: roles[number % 2], keys[1]: text} for number, text in enumerate(texts)]


def sharegpt(*texts):
    return turns(*texts, roles=("human", "gpt"), keys=("from", "value"))


SHAPES = [
    ([{"instruction": Q, "input": "", "output": A}], "Alpaca (instruction, input, output)", (Q, A)),
    (
        [{"instruction": "답하시오.", "input": Q, "output": A}],
        "Alpaca (instruction, input, output)",
        (f"답하시오.\n\n{Q}", A),
    ),
    ([{"instruction": "", "input": Q, "output": A}], "Alpaca (instruction, input, output)", (Q, A)),
    ([{"instruction": Q, "input": None, "output": A}], "Alpaca (instruction, input, output)", (Q, A)),
    ([{"instruction": Q, "output": A}], "Alpaca (instruction, output)", (Q, A)),
    (
        [{"instruction": Q, "context": "집은 빌라입니다.", "response": A, "category": "전세"}],
        "Dolly (instruction, context, response, category)",
        (f"{Q}\n\n집은 빌라입니다.", A, "전세"),
    ),
    ([{"prompt": Q, "completion": A}], "prompt and completion (prompt, completion)", (Q, A)),
    ([{"input": Q, "output": A}], "question and answer (input, output)", (Q, A)),
    ([{"question": Q, "input": "남는 것", "answer": A}], "question and answer (question, answer)", (Q, A)),
    ([{"질문": Q, "답변": A, "난이도": "초급"}], "question and answer (질문, 답변, 난이도)", (Q, A, "", "초급")),
    ([{"messages": turns(Q, A)}], "chat messages (messages)", (Q, A)),
    ([{"messages": turns(Q, A), "분야": "전세"}], "chat messages (messages, 분야)", (Q, A, "전세")),
    ([{"prompt": "제목", "messages": turns(Q, A)}], "chat messages (messages)", (Q, A)),
    ([{"conversations": sharegpt(Q, A)}], "ShareGPT conversations (conversations)", (Q, A)),
    ([{"conversation": sharegpt(Q, A)}], "ShareGPT conversations (conversation)", (Q, A)),
    (
        [{"info": {"id": 1}, "taskinfo": {"instruction": "답하시오.", "input": Q, "output": A}}],
        "Alpaca (taskinfo.instruction, taskinfo.input, taskinfo.output)",
        (f"답하시오.\n\n{Q}", A),
    ),
    (
        [{"info": 1, "분야": "전세", "qa": {"질문": Q, "답": A}}],
        "question and answer (qa.질문, qa.답, 분야)",
        (Q, A, "전세"),
    ),
    ([{"data": {"messages": turns(Q, A)}}], "chat messages (data.messages)", (Q, A)),
]
LAYOUTS = {
    "jsonl": ("d.jsonl", lines),
    "ndjson": ("d.ndjson", lines),
    "jsonlines": ("d.jsonlines", lines),
    "json lines named json": ("d.json", lambda rows: lines([*rows, *rows])),
    "array": ("d.json", lambda rows: json.dumps(rows, ensure_ascii=False)),
    "array over many lines": ("d.json", lambda rows: json.dumps(rows, ensure_ascii=False, indent=4)),
    "array named jsonl": ("d.jsonl", lambda rows: json.dumps(rows, ensure_ascii=False, indent=1)),
    "array in one object": ("d.json", lambda rows: json.dumps({"version": "1.0", "data": rows, "n": [1, 2]}, indent=1)),
    "array further inside": ("d.json", lambda rows: json.dumps({"a": {"b": {"rows": rows, "n": 1}}, "n": [{"x": 1}]})),
    "objects by key": ("d.json", lambda rows: json.dumps({"a": rows[0], "b": rows[0]}, indent=2)),
    "a comma behind each line": ("d.jsonl", lambda rows: lines([*rows, *rows]).replace("\n", ",\n")),
    "a comma behind each line of json": ("d.json", lambda rows: lines([*rows, *rows]).replace("\n", " ,\n")),
    "one object": ("d.json", lambda rows: json.dumps(rows[0], ensure_ascii=False)),
    "one object over many lines of text": ("d.txt", lambda rows: json.dumps(rows[0], ensure_ascii=False, indent=2)),
    "a line for each row in one object": (
        "d.txt",
        lambda rows: '{"n": 2, "rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]}\n",
    ),
    "a line for each row in one object named jsonl": (
        "d.jsonl",
        lambda rows: '\n{"a": {"rows":\n[' + ",\n".join(json.dumps(row) for row in rows) + "]}}",
    ),
    "one object over many lines": ("d.json", lambda rows: json.dumps(rows[0], ensure_ascii=False, indent=2)),
    "objects one after the other": ("d.json", lambda rows: lines([*rows, *rows], indent=2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_are_recognised_in_every_layout_of_json(tmp_path, layout):
    name, dump = LAYOUTS[layout]
    for rows, kind, expected in SHAPES:
        reading = read(write(tmp_path / name, dump(rows)))
        assert (kinds(reading), pairs(reading)) == ([kind], [expected]), rows
        assert {row.reason for row in reading.rejected} <= {"duplicate"}


def test_shapes_are_recognised_in_parquet(tmp_path):
    for rows, kind, expected in SHAPES:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
        reading = read(tmp_path / "d.parquet")
        assert (kinds(reading), pairs(reading)) == ([kind], [expected]), rows


def test_an_input_that_only_later_objects_have_belongs_to_their_questions(tmp_path):
    rows = [{"instruction": f"{number}번째 물음입니다", "output": A} for number in range(1001)]
    rows.append({"instruction": "답하시오.", "input": Q, "output": A})
    assert pairs(read(write(tmp_path / "d.jsonl", lines(rows))))[-1] == (f"답하시오.\n\n{Q}", A)


LATE = [
    (
        {"difficulty": "고급", "분야": "전세"},
        {"question": Q, "answer": A},
        "question and answer (question, answer, 분야, difficulty)",
    ),
    ({"분야": "전세", "난도": "고급"}, {"messages": turns(Q, A)}, "chat messages (messages, 분야, 난도)"),
    (
        {"분류": "전세", "난도": "고급"},
        {"qa": {"질문": Q, "답": A}},
        "question and answer (qa.질문, qa.답, 분류, 난도)",
    ),
    ({"qa": {"질문": Q, "답": A, "분류": "전세", "난도": "고급"}}, {"qa": {"질문": Q, "답": A}}, None),
]


@pytest.mark.parametrize(("late", "row", "kind"), LATE)
def test_a_category_that_only_later_objects_have_is_theirs(tmp_path, monkeypatch, late, row, kind):
    monkeypatch.setattr("civilqa.reading.objects.HEAD_ROWS", 2)
    first = json.loads(json.dumps(row, ensure_ascii=False).replace(Q, Q2))
    reading = read(write(tmp_path / "d.jsonl", lines([first, first, row | late])))
    assert pairs(reading) == [(Q2, A), (Q, A, "전세", "고급")]
    assert dict(reading.tables[0][1].unused) == {}
    assert kinds(reading) == [kind or "question and answer (qa.질문, qa.답, qa.분류, qa.난도)"]


def test_a_late_category_does_not_replace_an_earlier_one_and_two_late_ones_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("civilqa.reading.objects.HEAD_ROWS", 1)
    reading = read(write(tmp_path / "d.jsonl", lines([{**ROWS[0], "분야": "가"}, {**ROWS[1], "category": "나"}])))
    assert pairs(reading) == [(Q, A, "가"), (Q2, A2)]
    assert dict(reading.tables[0][1].unused) == {"category": 1}
    path = write(tmp_path / "d.jsonl", lines([ROWS[0], {**ROWS[1], "분야(대)": "나", "분야(소)": "다"}]))
    with pytest.raises(
        RecordError, match=r"d.jsonl:2: columns 분야\(대\), 분야\(소\) could both be the category; say in"
    ):
        read(path)


# What is inside


def test_a_path_leads_into_objects_and_lists(tmp_path):
    rows = [{"context": "본문", "question": Q, "answers": {"text": [A, "다른 답"], "start": [3, 4]}}]
    for name, content in (("d.jsonl", lines(rows)), ("d.json", json.dumps(rows))):
        reading = read(write(tmp_path / name, content), columns={"answer": "answers.text.0"})
        assert pairs(reading) == [(Q, A)]
        assert kinds(reading) == ["as prepare.columns says (question, answers.text.0)"]
        assert json.loads(reading.rows[0].fields["answers.text"]) == [A, "다른 답"]
    reading = read(
        write(tmp_path / "d.jsonl", lines([{"q": [{"text": Q}], "a": [{"text": A}]}])),
        columns={"question": "q.0.text", "answer": "a.0.text"},
    )
    assert pairs(reading) == [(Q, A)]


def test_a_path_that_leads_nowhere_in_one_row_makes_it_empty(tmp_path):
    rows = [{"question": Q, "answers": [A]}, {"question": Q2, "answers": []}]
    reading = read(write(tmp_path / "d.jsonl", lines(rows)), columns={"answer": "answers.0"})
    assert (pairs(reading), [row.reason for row in reading.rejected]) == ([(Q, A)], ["empty"])


WANT_TEXT = ", want text; say in prepare.columns what inside it is the text, e.g. "
NESTED = [
    (
        {"question": Q, "answer": [A]},
        f"'answer' holds a list{WANT_TEXT}{{answer: answer.0}}",
    ),
    (
        {"question": {"text": Q}, "answer": A},
        f"'question' holds an object{WANT_TEXT}{{question: question.text}}",
    ),
    (
        {"question": Q, "answer": [{"id": 1, "texts": [A]}]},
        f"'answer' holds a list{WANT_TEXT}{{answer: answer.0.texts.0}}",
    ),
    (
        {"question": Q2, "answer": turns(Q, A)},
        "'answer' holds a list, want text; say in prepare.columns that it is a conversation: "
        "{question: answer, answer: answer}",
    ),
    (
        {"question": Q, "answer": A, "category": ["전세"]},
        f"'category' holds a list{WANT_TEXT}{{category: category.0}}",
    ),
]


@pytest.mark.parametrize(("row", "detail"), NESTED)
def test_a_cell_that_holds_no_text_is_a_rejected_row_with_all_of_it(tmp_path, row, detail):
    reading = read(
        write(tmp_path / "d.jsonl", lines([{**ROWS[0], "category": ""}, {**row, "question": row.get("question", Q2)}]))
    )
    (rejected,) = [item for item in reading.rejected if item.reason == "nested"]
    assert (rejected.line, rejected.detail) == (2, detail)
    assert A in rejected.row
    assert reading.read == 2


def test_an_empty_list_fills_no_row(tmp_path):
    reading = read(write(tmp_path / "d.json", [{**ROWS[0], "history": []}, {**ROWS[1], "history": [["가", "나"]]}]))
    assert dict(reading.tables[0][1].unused) == {"history": 1}


def test_where_no_line_is_a_row_the_first_one_says_why(tmp_path):
    with pytest.raises(RecordError, match=r"d.jsonl:1: found a JSON string, want an object; write an array"):
        read(write(tmp_path / "d.jsonl", '"가"\n"나"\n'))


def test_a_list_in_a_column_that_is_not_used_stays_as_json(tmp_path):
    (row,) = read(write(tmp_path / "d.json", [{**ROWS[0], "laws": ["민법", {"조": 312}]}])).rows
    assert json.loads(row.fields["laws"]) == ["민법", {"조": 312}]


# Conversations


def test_of_several_turns_the_first_or_the_last_is_taken_or_the_row_rejected(tmp_path):
    path = write(
        tmp_path / "d.jsonl",
        lines([{"messages": turns(Q, A, Q2, A2)}, {"messages": turns("하나뿐인 물음", "하나뿐인 답")}]),
    )
    expected = {"first": (Q, A), "last": (Q2, A2)}
    for choice, pair in expected.items():
        reading = read(path, multi_turn=choice)
        assert pairs(reading) == [pair, ("하나뿐인 물음", "하나뿐인 답")]
        assert reading.tables[0][1].several_turns == 1
        assert json.loads(reading.rows[0].fields["messages"]) == turns(Q, A, Q2, A2)
    reading = read(path, multi_turn="reject")
    (rejected,) = reading.rejected
    assert (rejected.reason, rejected.line, reading.tables[0][1].several_turns) == ("multi_turn", 1, 0)
    assert rejected.detail == (
        "'messages' holds a conversation of several turns; cut it to one, or set prepare.multi_turn to first or last"
    )
    assert A2 in rejected.row


def test_a_last_question_without_answer_is_a_turn_too(tmp_path):
    path = write(tmp_path / "d.jsonl", lines([{"messages": turns(Q, A, Q2)}]))
    assert pairs(read(path, multi_turn="last")) == pairs(read(path, multi_turn="first")) == [(Q, A)]
    assert read(path).rejected[0].reason == "multi_turn"


def test_content_in_parts_of_text_is_text(tmp_path):
    parts = [{"type": "text", "text": A}, {"type": "text", "text": "둘째"}]
    picture = [{"type": "image", "url": "a.png"}]
    messages = [turns(Q, parts), turns(Q2, picture)]
    reading = read(write(tmp_path / "d.jsonl", lines([{"messages": each} for each in messages])))
    assert pairs(reading) == [(Q, f"{A}\n둘째")]
    assert [row.detail for row in reading.rejected] == ["'messages' has a message 2 whose content is no text"]


def test_what_a_system_message_says_stays_beside_the_record(tmp_path):
    system = [{"role": "system", "content": "변호사로서 답하십시오."}]
    reading = read(write(tmp_path / "d.jsonl", lines([{"messages": system + turns(Q, A)}])))
    assert pairs(reading) == [(Q, A)]
    assert reading.rows[0].fields["messages.system"] == "변호사로서 답하십시오."
    assert dict(reading.tables[0][1].unused) == {"messages.system": 1}


def test_a_conversation_may_have_any_name_if_both_fields_are_mapped_to_it(tmp_path):
    path = write(tmp_path / "d.jsonl", lines([{"대화": turns(Q, A)}]))
    assert pairs(read(path, columns={"question": "대화", "answer": "대화"})) == [(Q, A)]


BROKEN = [
    ("글", "'messages' holds text, want a list of messages"),
    ({"role": "user"}, "'messages' holds an object, want a list of messages"),
    (["글"], "'messages' has a message 1 that is no object"),
    ([{"role": "user"}], "'messages' has a message 1 without role and content (or from and value)"),
    ([{"content": "글"}], "'messages' has a message 1 without role and content (or from and value)"),
    (
        [*turns(Q), {"role": "tool", "content": "글"}],
        "'messages' has a message 2 of 'tool'; want system, user and assistant",
    ),
    ([*turns(Q), {"role": "assistant", "content": ["글"]}], "'messages' has a message 2 whose content is no text"),
    ([*turns(Q), *turns(Q2)], "'messages' has the user's message 2 out of turn; want a question, then its answer"),
    (
        [{"role": "assistant", "content": A}],
        "'messages' has the assistant's message 1 out of turn; want a question, then its answer",
    ),
    (
        [*turns(Q), {"role": "system", "content": "글"}],
        "'messages' has the system's message 2 out of turn; want a question, then its answer",
    ),
    (turns(Q), "'messages' holds a question without an answer"),
]


@pytest.mark.parametrize(("messages", "detail"), BROKEN)
def test_what_is_no_conversation_is_a_rejected_row(tmp_path, messages, detail):
    reading = read(write(tmp_path / "d.jsonl", lines([{"messages": turns(Q2, A2)}, {"messages": messages}])))
    (rejected,) = reading.rejected
    assert (rejected.reason, rejected.line, rejected.detail) == ("unreadable", 2, detail)


@pytest.mark.parametrize("messages", [None, [], ""])
def test_a_conversation_that_is_not_there_is_empty(tmp_path, messages):
    reading = read(write(tmp_path / "d.jsonl", lines([{"messages": turns(Q2, A2)}, {"messages": messages}])))
    (rejected,) = reading.rejected
    assert (rejected.reason, rejected.detail) == ("empty", "empty 'messages'; fill it in or delete the row")


@pytest.mark.parametrize("answer", [[], {}])
def test_an_empty_list_is_no_answer(tmp_path, answer):
    reading = read(write(tmp_path / "d.jsonl", lines([ROWS[0], {"question": Q2, "answer": answer}])))
    assert [(row.reason, row.line) for row in reading.rejected] == [("empty", 2)]


@pytest.mark.parametrize("name", ["completion", "chosen"])
def test_a_prompt_and_its_completion_may_be_messages(tmp_path, name):
    rows = [{"prompt": turns(Q), name: turns(Q, A)[1:]}, {"prompt": turns(Q2), name: turns(Q2, A2)}]
    assert pairs(read(write(tmp_path / "d.jsonl", lines(rows)))) == [(Q, A), (Q2, A2)]


def test_a_row_of_alpaca_with_a_history_is_a_conversation(tmp_path):
    rows = [
        {"instruction": "그럼 기간은 얼마나 되나요?", "input": "", "output": A2, "history": [[Q, A]]},
        {"instruction": Q2, "input": "", "output": A2, "history": []},
    ]
    path = write(tmp_path / "d.json", rows)
    reading = read(path)
    assert pairs(reading) == [(Q2, A2)]
    assert [row.reason for row in reading.rejected] == ["multi_turn"]
    assert pairs(read(path, multi_turn="first")) == [(Q, A), (Q2, A2)]
    assert pairs(read(path, multi_turn="last")) == [("그럼 기간은 얼마나 되나요?", A2), (Q2, A2)]


def test_the_list_of_rows_is_found_beside_other_lists(tmp_path):
    document = {"doc_id": "1", "sentences": [{"id": 1, "text": "글"}, {"id": 2, "text": "글"}], "qas": ROWS}
    reading = read(write(tmp_path / "d.json", [document]))
    assert pairs(reading) == [(Q, A), (Q2, A2)]
    assert {row.fields["doc_id"] for row in reading.rows} == {"1"}


DAMAGED_LINES = [
    ('{"question": "보증금', "Unterminated string starting at character 14"),
    ('{"question": "보증금", ', "Expecting ',' delimiter at character 19"),
    ('{"question":', "Expecting value at character 13"),
    ('{"question": "가", "answer": "나"', "Expecting ',' delimiter at character 32"),
    ('{"question": "가", "answer": "나"} {', "Extra data at character 34"),
]


@pytest.mark.parametrize(("line", "problem"), DAMAGED_LINES)
@pytest.mark.parametrize("name", ["d.jsonl", "d.txt"])
def test_a_damaged_first_line_is_one_bad_row(tmp_path, name, line, problem):
    reading = read(write(tmp_path / name, f"{line}\n{lines(ROWS)}"))
    assert pairs(reading) == [(Q, A), (Q2, A2)]
    ((number, reason, detail),) = [(row.line, row.reason, row.detail) for row in reading.rejected]
    assert (number, reason) == (1, "unreadable")
    assert detail.startswith(f"no JSON: {problem};")


# JSON as one value


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 16])
def test_an_array_is_read_wherever_its_chunks_end(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("civilqa.reading.json_values.CHUNK_CHARACTERS", chunk)
    rows = [
        {"question": f'{number}번 물음 \\ " 입니다', "answer": A, "n": 12345678, "x": [1.5e3, True, None]}
        for number in range(9)
    ]
    path = write(tmp_path / "d.json", '{"meta": {"n": 1234567}, "rows":' + json.dumps(rows, indent=1) + "}")
    found = read(path)
    assert [(row.fields["n"], row.fields["x"]) for row in found.rows] == [("12345678", "[1500.0, true, null]")] * 9
    text = path.read_text("utf-8").split("\n")
    assert all(text[row.line - 1].strip() == "{" for row in found.rows)


def test_what_stands_beside_an_array_is_left_out_by_name(tmp_path):
    path = write(tmp_path / "d.json", {"info": {"name": "상담"}, "codes": [{"id": 1}, {"id": 2}], "data": ROWS, "n": 2})
    reading = read(path)
    assert pairs(reading) == [(Q, A), (Q2, A2)]
    assert [(item.file, item.reason, item.rows) for item in reading.left_out] == [
        (f"{path}[info]", "stands beside the rows", None),
        (f"{path}[codes]", "stands beside the rows", 2),
    ]
    assert reading.rows_left_out == 2
    assert [row.fields["n"] for row in reading.rows] == ["2", "2"]


@pytest.mark.parametrize("written", [[], ["[", "]"]])
def test_what_a_file_says_of_its_rows_is_said_of_each_whether_it_is_an_array_or_not(tmp_path, written):
    whole = json.dumps(
        {"분야": "임대차", "id": "문서 1", "자료": {"질의응답": [{**ROWS[0], "id": 7}]}}, ensure_ascii=False
    )
    reading = read(write(tmp_path / "d.json", whole.join(written or ["", ""])))
    assert [(record.question, record.category) for record in reading.records] == [(Q, "임대차")]
    assert sorted(text for name, text in reading.rows[0].fields.items() if "id" in name) == ["7", "문서 1"]


def test_several_arrays_of_rows_are_several_tables(tmp_path):
    path = write(tmp_path / "d.json", {"train": ROWS[:1], "info": 1, "test": ROWS[1:], "labels": [{"id": 1}]})
    reading = read(path)
    assert pairs(reading) == [(Q, A), (Q2, A2)]
    assert [row.file.removeprefix(str(path)) for row in reading.rows] == ["[train]", "[test]"]
    assert [(item.file.removeprefix(str(path)), item.rows) for item in reading.left_out] == [
        ("[labels]", 1),
    ]


def test_arrays_of_rows_under_very_many_keys_are_all_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_values, "HEAD_ROWS", 2)
    rows = {f"장 {number}": [{"question": f"{number}{Q}", "answer": f"{number}{A}"}] for number in range(5)}
    reading = read(write(tmp_path / "d.json", rows))
    assert pairs(reading) == [(f"{number}{Q}", f"{number}{A}") for number in range(5)]


def test_the_key_of_a_row_stays_beside_it(tmp_path):
    reading = read(
        write(tmp_path / "d.json", {"사례 1": ROWS[0], "사례 2": ROWS[1] | {"key": "own"}, "사례 3": ROWS[1]})
    )
    assert pairs(reading) == [(Q, A), (Q2, A2)]
    assert [row.fields["key"] for row in reading.rows] == ["사례 1", "own"]


@pytest.mark.parametrize("by", ["number", "list"])
def test_a_table_by_columns_is_read_row_by_row(tmp_path, by):
    def column(*cells):
        return list(cells) if by == "list" else {str(number): cell for number, cell in enumerate(cells)}

    whole = {"question": column(Q, Q2, "남는 질문"), "answer": column(A, A2), "url": column("x", "", ""), "version": 1}
    path = write(tmp_path / "d.json", whole)
    reading = read(path)
    assert pairs(reading) == [(Q, A), (Q2, A2)]
    assert [(row.line, row.reason) for row in reading.rejected] == [(4, "empty")]
    assert [(item.file, item.rows) for item in reading.left_out] == [(f"{path}[version]", None)]
    assert dict(reading.tables[0][1].unused) == {"url": 1}


def test_a_number_that_is_too_long_in_a_table_by_columns_is_said(tmp_path):
    content = json.dumps({"question": [Q], "answer": [A], "n": [0]}).replace("[0]", f"[{'1' * 5000}]")
    with pytest.raises(RecordError, match=r"d.json:1: Exceeds the limit \(4300 digits\)"):
        read(write(tmp_path / "d.json", content))


def test_an_object_of_objects_is_no_table_by_columns(tmp_path):
    row = {"question": {"text": Q, "id": 1}, "answer": {"text": A, "id": 2}}
    reading = read(write(tmp_path / "d.json", row))
    assert (pairs(reading), kinds(reading)) == ([(Q, A)], ["question and answer (question.text, answer.text)"])


# Rows inside rows


SQUAD = [
    {
        "title": f"사건 {number}",
        "paragraphs": [
            {"context": f"본문 {number}", "qas": [{"id": 1, "question": f"{number}번 {Q}", "answer": A}] * 2},
            {"context": "물음이 없는 본문", "qas": []},
        ],
    }
    for number in range(2)
]


def squad_parquet(path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(SQUAD), path)
    return path


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "inside.json", "d.parquet"])
def test_rows_in_lists_of_rows_are_a_row_each_with_what_stands_beside_the_list(tmp_path, name):
    content = {"d.json": json.dumps(SQUAD), "d.jsonl": lines(SQUAD), "inside.json": json.dumps({"data": SQUAD})}
    path = squad_parquet(tmp_path / name) if name == "d.parquet" else write(tmp_path / name, content[name])
    reading = read(path)
    assert pairs(reading) == [(f"0번 {Q}", A), (f"1번 {Q}", A)]
    assert kinds(reading) == ["question and answer (paragraphs.qas.question, paragraphs.qas.answer)"]
    assert reading.tables[0][1].lists == ("paragraphs", "paragraphs.qas")
    assert describe(reading.tables[0][1]).endswith("; a row for each of paragraphs, paragraphs.qas")
    fields = reading.rows[1].fields
    assert (fields["title"], fields["paragraphs.context"], fields["paragraphs.qas.id"]) == ("사건 1", "본문 1", "1")
    assert [row.reason for row in reading.rejected] == ["duplicate", "duplicate"]
    assert (reading.read, dict(reading.tables[0][1].left_out)) == (4, {"with an empty list": 2})


HOLLOW = [{"제목": "가", "문답": []}, {"제목": "나", "문답": None}]


def test_an_object_whose_list_is_empty_is_no_row_and_one_without_a_list_is(tmp_path):
    rows = [{"제목": "다", "문답": ROWS}, *HOLLOW, {"제목": "라"}]
    reading = read(write(tmp_path / "d.json", rows), on_invalid="fail")
    assert pairs(reading) == [(Q, A), (Q2, A2)]
    assert [(row.reason, row.row["제목"]) for row in reading.rejected] == [("empty", "라")]
    assert "warning: " + f"{tmp_path}/d.json: 2 rows with an empty list left out" in [*notes(reading, PARAMS)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:3]), tmp_path / "d.parquet")
    assert (len(read(tmp_path / "d.parquet").records), read(tmp_path / "d.parquet").rows_left_out) == (2, 2)


def test_a_question_beside_an_empty_list_is_a_row_without_an_answer(tmp_path):
    rows = [{"question": Q, "items": [{"text": A}]}, {"question": Q2, "items": []}]
    reading = read(write(tmp_path / "d.json", rows), columns={"answer": "items.text"})
    assert (pairs(reading), [row.detail for row in reading.rejected]) == (
        [(Q, A)],
        ["empty 'answer'; fill it in or delete the row"],
    )


def test_of_two_lists_that_could_both_hold_the_rows_none_does(tmp_path):
    with pytest.raises(RecordError, match=r"no column question, answer; found a, b; say in prepare.columns"):
        read(write(tmp_path / "d.jsonl", lines([{"a": ROWS, "b": ROWS}])))


def test_a_path_may_lead_on_from_rows_in_lists(tmp_path):
    rows = [{"qas": [{"question": Q, "answers": [{"start": 1, "text": A}]}]}]
    path = write(tmp_path / "d.json", rows)
    assert read(path).rejected[0].detail.endswith("{answer: qas.answers.0.text}")
    assert pairs(read(path, columns={"answer": "qas.answers.0.text"})) == [(Q, A)]


KEYS = st.sampled_from(["question", "answer", "질문", "답변", "data", "a", "0", "1", "messages", "category"])
CELLS = st.one_of(st.sampled_from([Q, A, "", "user"]), st.none(), st.integers(0, 9))
VALUES = st.recursive(
    CELLS, lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(KEYS, inside, max_size=4))
)


@settings(max_examples=500, derandomize=True, database=None)
@given(value=VALUES, as_lines=st.booleans())
def test_whatever_json_holds_it_is_rows_or_a_record_error(tmp_path_factory, value, as_lines):
    path = tmp_path_factory.getbasetemp() / ("d.jsonl" if as_lines else "d.json")
    write(path, lines([value]) if as_lines else json.dumps(value))
    with contextlib.suppress(RecordError):
        reading = read(path)
        assert reading.read == len(reading.records) + len(reading.rejected) > 0


def test_an_element_that_is_no_row_is_one_bad_row(tmp_path):
    content = (
        '[\n{"question": "' + Q + '", "answer": "' + A + '"},\n3,\n{"a": 1, "a": 2},\n{"n": ' + "1" * 5000 + "}\n,]"
    )
    reading = read(write(tmp_path / "d.json", content))
    assert pairs(reading) == [(Q, A)]
    advice = "; write an array of objects, or one JSON object a line"
    assert [(row.line, row.detail[:60]) for row in reading.rejected] == [
        (3, ("found a JSON number, want an object" + advice)[:60]),
        (4, ("key 'a' is there more than once" + advice)[:60]),
        (5, "Exceeds the limit (4300 digits) for integer string conversio"),
    ]


MAP = "say in prepare.columns what yours are called, e.g. {question: 질문}"
UNUSABLE = [
    ("[]", ":1: the file is empty; want rows; write an array of objects, or one JSON object a line"),
    (
        '{"data": []}',
        ":1: no column question, answer; found data; a table needs one with the questions and one with the answers",
    ),
    ("{}", ":1: no column question, answer; found none; a table needs one with the questions and one with the answers"),
    (
        '[{"question": "가"',
        ":1: no JSON: Expecting ',' delimiter at character 18; write an array of objects, or one JSON object a line",
    ),
    (
        '{"data": [\n{"question": "가"}\n{"a": 1}]}',
        ":3: no JSON: Expecting ',' or ']' at character 1; write an array of objects, or one JSON object a line",
    ),
    ('{"a": 1, "a": 2}', ":1: key 'a' is there more than once; write an array of objects, or one JSON object a line"),
    (
        '{"a": 1} x',
        ":1: no JSON: Expecting value at character 10; write an array of objects, or one JSON object a line",
    ),
    ("{3: 1}", ":1: no JSON: want a key between double quotes; write an array of objects, or one JSON object a line"),
    ("[" * 100_000, ":1: JSON nested too deeply; write an array of objects, or one JSON object a line"),
    (
        '[{"id": 1, "text": "가"}]',
        f":1: no column question, answer; found id, text; {MAP}",
    ),
]


@pytest.mark.parametrize(("content", "message"), UNUSABLE)
def test_json_that_is_no_table_is_refused_with_what_to_do(tmp_path, content, message):
    path = write(tmp_path / "d.json", content)
    with pytest.raises(RecordError) as error:
        read(path)
    assert str(error.value) == f"{path}{message}"


def test_a_value_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("civilqa.reading.json_values.FIELD_CHARACTERS", 1000)
    monkeypatch.setattr("civilqa.reading.json_values.CHUNK_CHARACTERS", 100)
    path = write(tmp_path / "d.json", '[\n{"question": "' + "가" * 5000)
    with pytest.raises(RecordError, match=r"d.json:2: found a value of more than 1000 characters; write an array"):
        read(path)


def test_a_table_read_for_its_own_sake_keeps_its_columns(tmp_path):
    info, rows = open_table(write(tmp_path / "d.json", {"data": [{"a": {"b": 1, "c": [2]}, "질문": Q}]}))
    assert info.columns == ("a.b", "a.c", "질문")
    assert [row.fields for row in rows] == [{"a.b": "1", "a.c": [2], "질문": Q}]
