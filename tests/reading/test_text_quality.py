"""What in a cell is no text: found with the exact message, and what only looks like it let pass."""

import json

import pytest

from civilqa.reading.account import notes
from civilqa.reading.source import read_source
from civilqa.reading.text_quality import find_damage, find_leftover, quote
from source_files import PARAMS

QUESTION, ANSWER = "전세금을 돌려받지 못했습니다", "임차권등기명령을 신청하십시오"

LOST = "holds characters that were lost, or read in a wrong encoding"
AGAIN = "take the row from where it came from again, or set prepare.check_text to off"

# answer, what is shown of it
DAMAGED = {
    "보증금을 \ufffd\ufffd 돌려받으려면 신청하십시오": "보증금을 \ufffd\ufffd 돌려받으려면 신청하십…",
    "임차권등기명령을 신청하십시오. \ufffd": "…명령을 신청하십시오. \ufffd",
    "보증금은 占쏙옙占쏙옙 받습니다": "보증금은 占쏙옙占쏙옙 받습니다",
    "010-1234-5678로 \ufffd 전화하십시오": "[전화번호]로 \ufffd 전화하십시오",
    "안녕하세요 보증금입니다".encode().decode("cp1252", "replace"): "ì•ˆë…•í•˜ì„¸ìš” ë³´ì¦\ufffdê¸ˆìž…ë‹ˆ…",
    "안녕하세요 보증금입니다".encode().decode("latin-1"): "ì ë í ì ¸ì ë³´ì¦ ê¸ ì ë…",
    "안녕하세요 보증금입니다".encode("cp949").decode("latin-1"): "¾È³çÇÏ¼¼¿ä º¸Áõ±ÝÀÔ´Ï´Ù",
    "임차인의 보증금 반환".encode().decode("cp949", "ignore"): "엫李⑥씤쓽 蹂댁쬆湲 諛섑솚",
    "안녕하세요 전세금을 돌려받으려면 어떻게 해야 하나요".encode().decode(
        "cp949", "replace"
    ): "\ufffd븞\ufffd뀞\ufffd븯\ufffd꽭\ufffd슂 \ufffd쟾…",
    "??? ???? ?? ?????": "??? ???? ?? ?????",
    "뀞섏꽭뒓 븞뀞븯쓣 吏덈Ц뼱뼸": "뀞섏꽭뒓 븞뀞븯쓣 吏덈Ц뼱뼸",
    "ìķĪëħķíķĺìĦ¸ìļĶ 보증금입니다": "ìķĪëħķíķĺìĦ¸ìļĶ 보증금입니다",
    "ë³´ì¦ê¸ 보증금 반환입니다": "ë³´ì¦ê¸ 보증금 반환입니다",
    "??????????": "??????????",
}

# answer, what is shown of it
LEFT = {
    "신청하십시오.<br/>그 다음 이사하십시오": "신청하십시오.<br/>그 다음 이사하십시오",
    "<p>임차권등기명령을 신청하십시오</p>": "<p>임차권등기명령을 신청하…",
    '<a href="https://law.go.kr/법령/민법">민법</a>을 보십시오': '<a href="https://law.go.kr/법령…민법</a>을 보십시오',
    "임차권등기명령을&nbsp;신청하십시오": "임차권등기명령을&nbsp;신청하십시오",
    "임차권등기명령을&nbsp신청하십시오": "임차권등기명령을&nbsp신청하십시오",
    "보증금이 &lt; 3억원이면 우선변제": "보증금이 &lt; 3억원이면 우선변제",
    "갑 &amp; 을의 임대차계약입니다": "갑 &amp; 을의 임대차계약입니다",
    "임대인의 &#39;동의&#39;가 필요합니다": "임대인의 &#39;동의&#39;가 필요합…",
    "임대인의 &#xB3D9;의가 필요합니다": "임대인의 &#xB3D9;의가 필요합니다",
    "임차권등기명령을 신청하십시오</s>": "…등기명령을 신청하십시오</s>",
    "<s>임차권등기명령을 신청하십시오": "<s>임차권등기명령을 신청하…",
    "[INST] 질문 [/INST] 신청하십시오": "[INST] 질문 [/INST] …",
    "<<SYS>>법률가로서 답하십시오": "<<SYS>>법률가로서 답하십시오",
    "신청하십시오<|im_end|>": "신청하십시오<|im_end|>",
    "<|start_header_id|>assistant 신청하십시오": "<|start_header_id|>assistant 신청…",
    "신청하십시오<end_of_turn>": "신청하십시오<end_of_turn>",
    "[CLS] 신청하시면 됩니다 [SEP]": "[CLS] 신청하시면 됩니다 […",
    "### Response: 신청하시면 됩니다": "### Response: 신청하시면 됩니다",
    "첫째, 신청합니다.\\n둘째, 이사합니다": "첫째, 신청합니다.\\n둘째, 이사합니다",
    "첫째, 신청합니다.\\r\\n둘째, 이사합니다": "첫째, 신청합니다.\\r\\n둘째, 이사합니다",
    "\\uc784\\ucc28인은 신청할 수 있습니다": "\\uc784\\ucc28인은 신청할…",
    '임대인이 \\"동의\\"하여야 합니다': '임대인이 \\"동의\\"하여야 합니다',
    "<!-- 답변 --> 신청하시면 됩니다": "<!-- 답변 --> 신청하시…",
    "연락처 010-1234-5678<br>로 전화하십시오": "연락처 [전화번호]<br>로 전화하십시오",
    "<TABLE border=1><TR><TD>보증금": "<TABLE border=1><TR><TD>보증금",
    "<b>신청하십시오</b> 그리고 이사": "<b>신청하십시오</b> 그리고 이사",
    "신청하십시오<br/ >그리고 이사": "신청하십시오<br/ >그리고 이사",
    "신청하십시오<o:p></o:p> 그리고": "신청하십시오<o:p></o:p> 그리고",
    "신청하십시오 ### Assistant: 네": "신청하십시오 ### Assistant: 네",
    "<usr> 신청하시면 됩니다 <unused0>": "<usr> 신청하시면 됩니다 <…",
    "[|assistant|]신청하시면 됩니다": "[|assistant|]신청하시면 됩니다",
    "<0xEA>신청하시면 됩니다": "<0xEA>신청하시면 됩니다",
    "\u2581임차권등기명령을\u2581신청": "\u2581임차권등기명령을\u2581신청",
    "신청하십시오_x000D_그리고 이사": "신청하십시오_x000D_그리고 이사",
    "\\xec\\x9e\\x84차인은 신청합니다": "\\xec\\x9e\\x84차인은 …",
    "%EC%9E%84%EC%B0%A8 신청합니다": "%EC%9E%84%EC%B0%A8 신청…",
    "=EC=9E=84=EC=B0=A8 신청합니다": "=EC=9E=84=EC=B0=A8 신청…",
}

# Whole cells that stand for nothing.
NOTHING = ("nan", "NaN", "None", "null", "NULL", "#N/A", "N/A", "<NA>", "NaT", "#VALUE!", "#REF!", " nan ", "-nan")

TEXT = (
    "주택임대차보호법 제3조의2 <개정 2020. 1. 1.>에 따라 신청하십시오",
    "보증금 < 3억원이고 차임 > 50만원이면 됩니다",
    "점유(占有)와 소유(所有), 占有者의 권리",
    "大判 1992. 4. 14. 91다1234, 傳貰權 設定登記",
    "정말로 그렇습니까???? 네, 그렇습니다!!",
    "R&D 비용과 A&B; 계약, AT&T의 예",
    "······ 이하 생략 ······ 입니다",
    "【판결요지】 [1] 임대차 [2] 전세 #보증금",
    "## 결론\n**신청하십시오.** 1) 요건 2) 절차 [민법](https://law.go.kr)",
    "경로는 C:\\new\\text 폴더입니다",
    "뷁 하고 쓰는 사람도 있고 똠방각하도 있습니다",
    "Él está aquí, naïve façade, Größe, «인용», 25°C ±½, ë 하나",
    "① 신청 → ② 결정 → ③ 등기 ※ 주의 ○○○ 씨",
    "[주민등록번호] [전화번호] [이메일]",
    "ㄱ. 임차인 ㄴ. 임대인 ㅋㅋ 그렇군요",
    "<갑>과 <을>, <A>와 <B>, <A 회사>와 <S 빌딩>의 계약",
    "차임<b 이고 b>보증금인 때에는 <표 1>을, <별지>를 봅니다",
    "HTML에서 <br> 태그는 줄을 바꾸고, `<p>`는 문단이며 '\\n'도 줄 바꿈입니다",
    "연 5%, 12%와 20%의 이율, 100%20일",
    "주소는 https://law.go.kr/%EB%B2%95%EB%A0%B9/%EB%AF%BC%EB%B2%95 입니다",
    "정말요?? 그렇습니다",
    "변수 max_x0100_이 아니라 a_b_c입니다",
)


def read(tmp_path, monkeypatch, rows, **changes):
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"question": question, "answer": answer}, ensure_ascii=False) for question, answer in rows]
    (tmp_path / "d.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return read_source("d.jsonl", PARAMS.model_copy(update={"source": "d.jsonl", "min_answer_characters": 2} | changes))


def rows_of(answers):
    return [(f"{number}번째 질문입니다", answer) for number, answer in enumerate(answers, start=1)]


def test_the_cases_are_many():
    assert len(DAMAGED) + len(LEFT) + len(NOTHING) >= 45


@pytest.mark.parametrize("check_text", ["warn", "reject"])
def test_a_row_with_lost_characters_is_rejected(tmp_path, monkeypatch, check_text):
    reading = read(tmp_path, monkeypatch, rows_of(DAMAGED), check_text=check_text)
    assert not reading.records
    assert {row.reason for row in reading.rejected} == {"damaged_text"}
    for row, (answer, shown) in zip(reading.rejected, DAMAGED.items(), strict=True):
        assert row.detail == f"'answer' {LOST}: \"{shown}\"; {AGAIN}"
        assert row.row["answer"] == answer or "[전화번호]" in row.row["answer"]


def test_leftovers_are_rejected_where_they_shall_be(tmp_path, monkeypatch):
    reading = read(tmp_path, monkeypatch, rows_of(LEFT), check_text="reject")
    assert not reading.records
    assert {row.reason for row in reading.rejected} == {"leftover"}
    assert [row.detail for row in reading.rejected] == [
        f"'answer' holds what is no text: \"{shown}\"; take it out, or set prepare.check_text to warn"
        for shown in LEFT.values()
    ]


def test_leftovers_are_counted_and_told_with_a_warning(tmp_path, monkeypatch):
    reading = read(tmp_path, monkeypatch, rows_of([*LEFT, ANSWER]), check_text="warn")
    assert (len(reading.records), reading.rejected, reading.leftovers) == (len(LEFT) + 1, [], len(LEFT))
    assert reading.leftover_places == [
        f"d.jsonl:{line}: 'answer' holds \"{shown}\"" for line, shown in enumerate(LEFT.values(), start=1)
    ]
    (told,) = [line for line in notes(reading, PARAMS) if "leftovers" in line]
    assert told == (
        f"warning: leftovers of markup or escapes in {len(LEFT)} rows, which the model would learn to write "
        f"(prepare.check_text): {'; '.join(reading.leftover_places[:5])}; ..."
    )


def test_no_more_places_are_kept_than_one_looks_at(tmp_path, monkeypatch):
    reading = read(tmp_path, monkeypatch, rows_of(f"{number}번을 신청하십시오<br>" for number in range(5000)))
    assert (reading.leftovers, len(reading.leftover_places)) == (5000, 100)
    assert reading.leftover_places[-1].startswith("d.jsonl:100:")


def test_nothing_is_said_of_it_if_it_is_not_looked_for(tmp_path, monkeypatch):
    reading = read(tmp_path, monkeypatch, rows_of([*DAMAGED, *LEFT]), check_text="off")
    assert (len(reading.records), reading.leftovers) == (len(DAMAGED) + len(LEFT), 0)


@pytest.mark.parametrize("check_text", ["reject", "warn", "off"])
def test_what_stands_for_nothing_is_an_empty_cell(tmp_path, monkeypatch, check_text):
    reading = read(tmp_path, monkeypatch, rows_of(NOTHING), check_text=check_text)
    assert [row.detail for row in reading.rejected] == ["empty 'answer'; fill it in or delete the row"] * len(NOTHING)


def test_the_question_and_the_category_are_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = {"question": f"{QUESTION}\ufffd", "answer": ANSWER, "category": "", "difficulty": ""}
    rows = [
        row,
        row | {"question": QUESTION, "category": "전세<br>사기"},
        row | {"question": "질문입니다", "category": "nan"},
    ]
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    reading = read_source("d.jsonl", PARAMS.model_copy(update={"source": "d.jsonl", "check_text": "reject"}))
    assert [row.detail.partition(" holds")[0] for row in reading.rejected] == ["'question'", "'category'"]
    assert [record.category for record in reading.records] == [""]


@pytest.mark.parametrize("cell", ["-", "--", ".", "…", "·····", "[]", "{}", "*", "“”", "----------"])
def test_a_cell_without_a_letter_is_empty(tmp_path, monkeypatch, cell):
    reading = read(tmp_path, monkeypatch, [("질문입니다", cell)], min_answer_characters=1)
    assert [row.detail for row in reading.rejected] == ["'answer' is punctuation alone; fill it in or delete the row"]


def test_what_only_looks_like_it_is_text(tmp_path, monkeypatch):
    assert {
        text: (find_damage(text), find_leftover(text)) for text in TEXT if find_damage(text) or find_leftover(text)
    } == {}
    reading = read(tmp_path, monkeypatch, rows_of(TEXT), check_text="reject")
    assert [row.detail for row in reading.rejected] == []


def test_a_message_never_shows_a_number_cut_in_two():
    for padding in range(30):
        text = f"연락처 010-1234-5678{'가' * padding}<br>{'나' * padding}900101-1234567입니다"
        shown = quote(text, find_leftover)
        assert "<br>" in shown
        assert not any(char.isdigit() for char in shown)
