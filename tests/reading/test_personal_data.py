import csv
import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_personal_numbers import NOT_PERSONAL, PERSONAL, unmark

from civilqa.reading.personal_data import MASKS, Finding, find_personal_data, mask_cells, mask_line, mask_personal_data
from conftest import ROOT

RESIDENT, PHONE, EMAIL = "resident_registration_number", "phone", "email"
ACCOUNT, CARD = "account_number", "card_number"

# (kind, text); what must be found stands between « and ».
POSITIVE = [
    (RESIDENT, "홍길동(«900101-1234567»)은 원고이다."),
    (RESIDENT, "주민등록번호: «9001011234567»"),
    (RESIDENT, "주민등록번호 «900101 1234567»입니다."),
    (RESIDENT, "주민번호 «900101 - 1234567»"),
    (RESIDENT, "«000229-3123456»"),
    (RESIDENT, "«201005-4999999»"),
    (RESIDENT, "외국인등록번호 «850615-5123456»"),
    (RESIDENT, "외국인 «850615-6123456»"),
    (RESIDENT, "외국인 «050615-7123456»"),
    (RESIDENT, "외국인 «050615-8123456»"),
    (RESIDENT, "피고 «９００１０１－２２３４５６７»"),
    (RESIDENT, "피고 «900101‐2234567»"),
    (RESIDENT, "피고 «900101–2234567»"),
    (RESIDENT, "피고 «900101−2234567» 원고 홍길동"),
    (RESIDENT, "사업자등록번호와 주민등록번호 «900101-2234567»"),
    (RESIDENT, "계좌 명의인 «900101-2234567»"),
    (RESIDENT, "(주민)등록번호 «900101-1234567»"),
    (RESIDENT, "(주민)등록번호: «900101-1******»"),
    (RESIDENT, "임대인 주민등록번호(법인등록번호) «850511-1234567»"),
    (RESIDENT, "주민(법인)등록번호: «850505-2345678»"),
    (RESIDENT, "주민등록번호/사업자등록번호 : «850505-2345678»"),
    (RESIDENT, "외국인(법인) 등록번호 «850505-5345678»"),
    (RESIDENT, "토지대장 소유자 홍길동 등록번호 «850505-2345678»"),
    (PHONE, "연락처 «010-1234-5678»"),
    (PHONE, "연락처 «01012345678»로 전화"),
    (PHONE, "연락처 «010.1234.5678»"),
    (PHONE, "연락처 «010 1234 5678»"),
    (PHONE, "연락처 «010 - 1234 - 5678»"),
    (PHONE, "연락처 «010. 1234. 5678»"),
    (PHONE, "연락처 «010)1234-5678»"),
    (PHONE, "연락처 «(010) 1234-5678»"),
    (PHONE, "HP«010-1234-5678»"),
    (PHONE, "1.«010-1234-5678»"),
    (PHONE, "«011-123-4567»"),
    (PHONE, "«0161234567»"),
    (PHONE, "«019-1234-5678»"),
    (PHONE, "«+82-10-1234-5678»"),
    (PHONE, "«+82 10 1234 5678»"),
    (PHONE, "«+821012345678»"),
    (PHONE, "«+82-(0)10-1234-5678»"),
    (PHONE, "«+82-2-123-4567»"),
    (PHONE, "사무실 «02-123-4567»"),
    (PHONE, "사무실 «02-1234-5678»번"),
    (PHONE, "사무실 «(02) 123-4567»"),
    (PHONE, "사무실 («02-123-4567»)"),
    (PHONE, "사무실 «02)123-4567»"),
    (PHONE, "사무실 «031-123-4567»"),
    (PHONE, "사무실 «064.123.4567»"),
    (PHONE, "사무실 «051 1234 5678»"),
    (PHONE, "«070-1234-5678»"),
    (PHONE, "«0505-123-4567»"),
    (PHONE, "«0507-1234-5678»"),
    (PHONE, "«０１０－１２３４－５６７８»"),
    (PHONE, "«010—1234—5678»"),
    (PHONE, "국민은행 담당자 «02-1234-5678»"),
    (EMAIL, "«hong@example.com»"),
    (EMAIL, "이메일은 «hong.gildong+law@mail.example.co.kr»입니다."),
    (EMAIL, "«h_g-d%1@example.kr»로 보내세요"),
    (EMAIL, "(«HONG@EXAMPLE.COM»)."),
    (EMAIL, "메일 «01012345678@naver.com»"),
    (EMAIL, "메일 «hong＠example．com»"),
    (EMAIL, "«a@b-c.io», 끝"),
    (ACCOUNT, "국민은행 «123456-01-234567»로 보내십시오."),
    (ACCOUNT, "신한 «110-123-456789»"),
    (ACCOUNT, "우리: «1002-123-456789»"),
    (ACCOUNT, "하나(«123-910123-45607»)"),
    (ACCOUNT, "농협 «301-0123-4567-81»"),
    (ACCOUNT, "기업은행 «123-456789-01-012»"),
    (ACCOUNT, "카카오뱅크 «3333-01-2345678»"),
    (ACCOUNT, "토스뱅크 «1000-1234-5678»"),
    (ACCOUNT, "새마을금고 «9002-1234-5678-9»"),
    (ACCOUNT, "신협 «131-012-345678»"),
    (ACCOUNT, "우체국«123456-02-123456»"),
    (ACCOUNT, "«110-123-456789» (예금주 홍길동)"),
    (ACCOUNT, "계좌번호:\n«110-123-456789»"),
    (ACCOUNT, "대금은 «110-123-456789»로 입금한다."),
    (ACCOUNT, "«110–123–456789»에 송금하였다."),
    (ACCOUNT, "계좌 «１１０－１２３－４５６７８９»"),
    (ACCOUNT, "계좌 «1234-5678-1234-5678»"),
    (CARD, "카드 «4111-1111-1111-1111»"),
    (CARD, "카드 «4111 1111 1111 1111»"),
    (CARD, "카드 «4111111111111111»"),
    (CARD, "«5500–0000–0000–0004»로 결제"),
    (CARD, "번호 1111 «4111 1111 1111 1111»"),
    (CARD, "국민은행 카드 «9410-0000-0000-0005»"),
]

NEGATIVE = [
    "",
    "민법 제3조의2 제2항",
    "제152조-제161조",
    "제152조–제161조의3",
    "대법원 2019다12345 판결",
    "서울중앙지방법원 2020가합512345 판결",
    "2019다12345, 2019다12346(병합), 2019다212345",
    "대법원 2020. 5. 21. 선고 2018다287522 전원합의체 판결",
    "헌법재판소 2013. 12. 26. 2011헌바234",
    "2026-06-08",
    "2026. 6. 8.부터 2026. 12. 31.까지",
    "2026-06-08~2026-07-08",
    "2026-06-08-2026-07-08에 입금",
    "2026-06-08 10:30:00에 송금",
    "2026.06.08.자 계약",
    "20260608",
    "120,000,000원",
    "1억 2천만원",
    "120000000원",
    "1201011000000원을 계좌로 송금",
    "국민은행에 12,345,678,901원을 입금",
    "법률 제19356호",
    "대통령령 제33456호(2023. 5. 2. 일부개정)",
    "등기 고유번호 1146-1996-012345",
    "국민은행 근저당권, 1146-2019-012345 부동산",
    "은행 부동산 고유번호 1146-1896-012345",
    "123-45번지",
    "산 12-3",
    "서울 서초구 서초동 1701-1 외 3필지 123-45, 123-46",
    "은행이 소유한 1234567-12345번지",
    "우편번호 06590",
    "(우) 137-070",
    "연 12%와 연 5%의 비율",
    "0.0123456789",
    "0.01012345678의 비율",
    "101동 1203호",
    "래미안 101-1203호",
    "010-XXXX-XXXX",
    "901301-1234567",
    "900230-1234567",
    "010229-3123456",
    "900101-9234567",
    "900101-0234567",
    "900101-123456",
    "900101-12345678",
    "1900101-1234567",
    "법인등록번호 110111-1234567",
    "주민등록번호(법인등록번호) 110111-1234567",
    "법인 등록번호 850511-1234567",
    "사업자등록번호 850511-1234567",
    "부동산등기용 등록번호 850511-1234567",
    "법인번호: 110111-1234567",
    "신한은행(사업자등록번호 202-81-02637)",
    "신한은행(법인등록번호 110111-0012809)",
    "1588-1234로 문의",
    "은행 대표번호 1588-1234, 1600-1234, 1899-1234",
    "국번 없이 112, 119, 132",
    "1345 또는 1350",
    "02-120 다산콜센터",
    "은행 080-123-4567",
    "080-1234-5678",
    "012-345-6789",
    "+1-202-555-0123",
    "010-1234-567",
    "010-12345-5678",
    "5010-1234-5678",
    "123-010-1234-5678",
    "010-1234-5678-9",
    "hong@example",
    "@example.com",
    "단가 @1,000원 12개",
    "hong@.com",
    "4111-1111-1111-1112",
    "0000-0000-0000-0000",
    "4111-1111 1111-1111",
    "24111-1111-1111-1111",
    "문서 110-123-456789",
    "은행나무 110-123-456789",
    "우리 법은 110-123-456789",
    "은행에 갔다. 문서 110-123-456789이다.",
    "은행\n\n문서 110-123-456789",
    "계좌 12-345-6789",
    "계좌 1234-5678-1234-56789",
    "은행 고시 제2020-123456-01호",
    "은행 고시 2020-123456-01호",
    "우체국 등기번호 12345-6789-0123",
    "9788912345678",
    "1700000000000",
    "192.168.123.4567",
    "[주민등록번호] [전화번호] [이메일] [계좌번호] [카드번호]",
]


def test_the_tables_hold_sixty_different_cases_each():
    assert len(set(POSITIVE)) == len(POSITIVE) >= 60
    assert len(set(NEGATIVE)) == len(NEGATIVE) >= 60


def test_personal_data_is_found_with_its_exact_span():
    wrong = {}
    for kind, marked in POSITIVE:
        text, start, end = unmark(marked)
        if (found := find_personal_data(text)) != [Finding(kind, start, end)]:
            wrong[kind, marked] = found
    assert wrong == {}


def test_a_mask_replaces_the_finding_and_nothing_else():
    wrong = {}
    for kind, marked in POSITIVE:
        text, start, end = unmark(marked)
        if (masked := mask_personal_data(text)) != (text[:start] + MASKS[kind] + text[end:], {kind: 1}):
            wrong[kind, marked] = masked
    assert wrong == {}


def test_other_numbers_of_legal_text_are_not_found():
    assert {text: found for text in NEGATIVE if (found := find_personal_data(text))} == {}
    assert {text: masked for text in NEGATIVE if (masked := mask_personal_data(text)) != (text, {})} == {}


@pytest.mark.parametrize("between", ["\u200b", "\ufeff", "\u00ad", "\u2060"])
def test_what_nobody_sees_hides_no_number(between):
    hidden = between.join("010-1234-5678")
    assert mask_personal_data(f"연{between}락처 {hidden}") == (f"연{between}락처 [전화번호]", {PHONE: 1})
    assert mask_personal_data(f"가{between}나") == (f"가{between}나", {})


@pytest.mark.parametrize(
    "marks", ["**", "*", "`", "<b> </b>", "<br> <br/>", "\\n \\t", "&nbsp; &nbsp;", '" "', "“ ”", "「 」", "→ ?"]
)
@pytest.mark.parametrize(
    ("label", "number", "mask"),
    [
        ("계좌번호: ", "110-123-456789", "[계좌번호]"),
        ("국민은행 ", "12345601234567", "[계좌번호]"),
        ("", "900101-1234567", "[주민등록번호]"),
        ("여권번호 ", "M12345678", "[여권번호]"),
        ("면허 ", "11-12-345678-90", "[운전면허번호]"),
        ("차량 ", "12가3456", "[차량번호]"),
        ("", "010-1234-5678", "[전화번호]"),
        ("", "4111-1111-1111-1111", "[카드번호]"),
        ("", "1@a.kr", "[이메일]"),
    ],
)
def test_marks_around_a_number_hide_nothing_and_stay(marks, label, number, mask):
    left, right = marks.split() if " " in marks else (marks, marks)
    assert mask_personal_data(f"{label}{left}{number}{right} 입니다")[0] == f"{label}{left}{mask}{right} 입니다"


def test_decomposed_syllables_hide_no_bank():
    text = unicodedata.normalize("NFD", "국민은행 12345601234567, 공일공-1234-5678")
    assert mask_personal_data(text)[0] == "국민은행 [계좌번호], [전화번호]"


def test_a_columns_name_tells_what_its_cells_hold():
    cells = {
        "계좌번호": "110234567890",
        "여권번호": "M12345678",
        "차량번호": "12가3456",
        "주민번호 앞자리": "900101",
        "비고": "110234567890",
        "010-1111-2222": "가",
        "010-3333-4444": "나",
    }
    assert mask_cells(cells) == {
        "계좌번호": "[계좌번호]",
        "여권번호": "[여권번호]",
        "차량번호": "[차량번호]",
        "주민번호 앞자리": "[주민등록번호]",
        "비고": "110234567890",
        "[전화번호]": "가",
        "[전화번호] 6": "나",
    }
    assert mask_cells(cells, numbers=False) == cells


def test_a_columns_name_counts_without_a_remark_or_a_number():
    cells = {
        "연락처_배우자": "1098765432",
        "계좌번호 2": "110234567890",
        "(환급)계좌번호 (2)": "3333012345678",
        "주민등록번호(필수)": "407154123456",
        "phone3": "533124567",
        "건수 (2)": "1098765432",
    }
    assert [*mask_cells(cells).values()] == [
        *("[전화번호]", "[계좌번호]", "[계좌번호]", "[주민등록번호]", "[전화번호]"),
        "1098765432",
    ]


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("홍,보증금,110234567890,끝", "홍,보증금,[계좌번호],끝"),
        ('1098765432;"407154123456";2026', '[계좌번호];"[계좌번호]";2026'),
        ('["12가3456", 110234567890, "hong@a.kr"]', '["12가3456", [계좌번호], "[이메일]"]'),
        ('{"환급 계좌번호 2": "110234567890", "건수": 12}', '{"환급 계좌번호 2": "[계좌번호]", "건수": 12}'),
    ],
)
def test_a_row_that_fell_into_no_columns_is_masked_as_under_each_of_them(line, masked):
    columns = ("이름", "계좌번호 (2)", "주민등록번호")
    assert mask_line(line, columns) == masked
    assert mask_line(masked, columns) == masked
    assert mask_line(line, columns, numbers=False) == line


@pytest.mark.parametrize(
    ("column", "number"),
    [
        ("휴대폰(본인)", "1098765432"),
        ("주민번호 앞자리", "10301"),
        ("입금 은행", "110-234-567890"),
        ("여권", "M12345678"),
        ("운전면허", "131234567890"),
        ("카드번호", "1234-5678-9012-3456"),
        ("차량번호", "12나1234"),
    ],
)
def test_each_kind_of_number_is_masked_in_such_a_row(column, number):
    assert number not in mask_line(f'가,"{number}",나', ("이름", column))
    assert mask_line(f'가,"{number}",나', ("이름", "건수")) == f'가,"{number}",나'


def test_findings_of_several_kinds_come_in_the_order_of_the_text_and_are_counted():
    text = "홍길동(900101-1234567, 010-1234-5678, h@a.kr)은 010-1111-2222로. 국민 123456-01-234567, 4111 1111 1111 1111"
    masked, counts = mask_personal_data(text)
    assert masked == "홍길동([주민등록번호], [전화번호], [이메일])은 [전화번호]로. 국민 [계좌번호], [카드번호]"
    assert counts == {RESIDENT: 1, PHONE: 2, EMAIL: 1, ACCOUNT: 1, CARD: 1}


def test_no_answer_of_the_dataset_holds_personal_data():
    with (ROOT / "data/raw/civil_law_qa_dataset.csv").open(encoding="utf-8-sig", newline="") as file:
        answers = [row["answer"] for row in csv.DictReader(file)]
    assert len(answers) >= 60
    assert {answer: find_personal_data(answer) for answer in answers if find_personal_data(answer)} == {}


# Pieces that touch: whole numbers, halves of numbers, separators, labels and masks, and anything at all.
PIECES = st.one_of(
    st.sampled_from([unmark(marked)[0] for _, marked in POSITIVE + PERSONAL]),
    st.sampled_from([marked[marked.index("«") + 1 : marked.index("»")] for _, marked in POSITIVE + PERSONAL]),
    st.sampled_from(NEGATIVE + NOT_PERSONAL),
    st.sampled_from(
        ["-", " ", ".", ". ", "－", "(", ")", "+82", "0", "@", "a.kr", "국민 ", "계좌", "다. ", "\n\n", "호"]
    ),
    st.sampled_from(
        [
            "*",
            "·",
            "ㅡ",
            "~5",
            "공일공 ",
            "O1O-",
            "[at]",
            " 골뱅이 ",
            "-\n",
            "\u200b",
            "/",
            " 우리",
            "뒷자리 ",
            "☎ ",
            "(주)한빛(",
            "번호 ",
            "주민번호 ",
            "면허 ",
            "여권",
            "M",
            "차량",
            "12가",
        ]
    ),
    st.sampled_from(["호", "12가", "판결", "은행", "국민은행 ", "사건 ", ", "]),
    st.sampled_from(list(MASKS.values())),
    st.from_regex(r"[0-9０-９]{1,8}", fullmatch=True),
    st.text(max_size=8),
)


@settings(max_examples=1000)
@example(["010-1234-5678", "a@b.com", "010-1234-5678"])
@example(["010-1234-5678", "+82-10-1234-5678", "(02)123-4567"])
@example(["hong@example.com", "900101-1234567", "hong@example.com", "h_g@a.kr"])
@example(["110-123-456789 문서, 국민 ", "123456-01-234567"])
@example(["110234567890 계좌로 송금했습니다", "64123456-01", "우체국 예금 상품설명서 2020-12345678-01"])
@given(st.lists(PIECES, max_size=8))
def test_masking_any_text_is_safe_and_final(pieces: list[str]):
    text = "".join(pieces)
    findings = find_personal_data(unicodedata.normalize("NFC", text))
    ends = [0, *(finding.end for finding in findings)]
    assert all(end <= finding.start < finding.end <= len(text) for end, finding in zip(ends, findings, strict=False))
    masked, counts = mask_personal_data(text)
    assert sum(counts.values()) == len(findings)
    assert mask_personal_data(masked) == (masked, {})
    if not re.search(r"[\d@＠공영뱅]|at", text):
        assert (masked, counts) == (text, {})


def test_time_is_linear_in_the_length_of_a_hostile_text():
    # 100,000 characters take well under a second; a quadratic search would take minutes.
    slow = {}
    for hostile in (
        *("0", "1-", "1 ", "12-", "a.", "a@", "a@b.", "010-", "900101-", "4111 "),
        *(
            "국민 1234-5678-90 ",
            "국민 110-123-456789 ",
            "900101-1******",
            "900101-1234567",
            "*",
            "*-",
            "12가",
            "12가1234, ",
        ),
        *(
            "여권 M1234567 ",
            "(주)한빛(",
            "국민은행 ",
            "계좌 110 ",
            "02-2110-3000~5, ",
            "주민번호 ",
            "11-12-123456-",
            "○ ",
            "1* ",
            "공일공",
            "공일공 일이삼사 오육칠",
            "a골뱅이",
            "a [at] ",
            "a@가.",
            "가@",
            "a at b dot ",
            "82-10-",
            "010-1*",
            "뒷자리 ",
            "계좌번호 ",
            "증권 1234567890 우리 ",
            "연락처 1098765432, ",
            "연락처(",
            "10-987",
            "주민번호 앞 ",
            "**",
            "**1",
            "*1 ",
            "<b ",
            "<br>",
            "\\n",
        ),
    ):
        text = "010-1234-5678 " + hostile * (100_000 // len(hostile))
        begin = time.process_time()
        find_personal_data(text)
        if (seconds := time.process_time() - begin) >= 10:
            slow[hostile] = seconds
    assert slow == {}
