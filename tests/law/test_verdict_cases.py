"""Texts that a lawyer would call right, and the same with a wrong citation in them: what is held against each."""

import itertools
import json
import unicodedata
from pathlib import Path

import pytest

from civilqa.law.citations import judge_citation, parse_citations
from civilqa.law.statutes import (
    DELETED,
    EXISTS,
    NO_SUCH_ARTICLE,
    OUTSIDE_TABLE,
    PARTS,
    article_name,
    load_reference,
)
from civilqa.law.verdicts import judge_citations

CASES = json.loads((Path(__file__).parent / "verdict_cases.json").read_text(encoding="utf-8"))
RIGHT = [case for case in CASES if "wrong" not in case]
WRONG = [case for case in CASES if "wrong" in case]
GROUPS = sorted({case["group"] for case in CASES})


def held_against(text: str) -> set[tuple[str, str, str]]:
    """(act, article, kind) of what is wrong with the citations of a text."""
    cited = judge_citations(text)
    kinds = {"deleted": cited.deleted, "invented": cited.invented, "mistitled": cited.mistitled}
    return {(*article, kind) for kind, articles in kinds.items() for article in articles}


def test_there_are_at_least_900_right_and_300_wrong_texts():
    texts = {case["text"] for case in CASES}
    assert len(texts) == len(CASES)
    assert (len(RIGHT) >= 900, len(WRONG) >= 300) == (True, True)


@pytest.mark.parametrize("group", GROUPS)
def test_nothing_is_held_against_a_right_text_decomposed_too(group):
    wrong = []
    for case in (case for case in RIGHT if case["group"] == group):
        cited = judge_citations(case["text"])
        missing = {tuple(article) for article in case.get("valid", [])} - cited.valid
        if held_against(case["text"]) or missing:
            wrong.append(f"{case['text']}: held against it {held_against(case['text'])}, not found {missing}")
        if judge_citations(unicodedata.normalize("NFD", case["text"])) != cited:
            wrong.append(f"{case['text']}: other verdicts where it is decomposed")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("group", GROUPS)
def test_a_wrong_citation_is_found_in_the_same_surroundings_and_no_other(group):
    wrong = []
    for case in (case for case in WRONG if case["group"] == group):
        want = {tuple(fault) for fault in case["wrong"]}
        if held_against(case["text"]) != want:
            wrong.append(f"{case['text']}: held against it {held_against(case['text'])}, want {want}")
    assert not wrong, "\n".join(wrong)


def test_a_former_version_is_named_as_one():
    """Not merely unread: each text cites something that the present version has not, as of a former one."""
    unread = []
    for case in (case for case in RIGHT if case["group"] == "former"):
        found = parse_citations(case["text"])
        if not any(
            citation.former or citation.denied or citation.law not in load_reference().acts for citation in found
        ):
            unread.append(case["text"])
    assert not unread, "\n".join(unread)


def test_a_foreign_code_is_an_act_of_its_own():
    unread = []
    for case in (case for case in RIGHT if case["group"] == "foreign" and "valid" not in case):
        if not any(citation.law not in load_reference().acts for citation in parse_citations(case["text"])):
            unread.append(case["text"])
    assert not unread, "\n".join(unread)


# --- Ranges ----------------------------------------------------------------------------------------------------------

RANGES = (
    "{law} 제{first}부터 제{last}까지",
    "{law} 제{first} 내지 제{last}",
    "{law} 제{first}~제{last}",
    "「{law}」 제{first}에서 제{last}까지의 규정을 준용한다.",
    "{law} 제{first} - 제{last} 및 같은 법 제{last}",
)


def ranges_over_deleted():
    """(act, last article before, first article after) of every run of numbers without an article in force."""
    for law, act in load_reference().acts.items():
        if law.endswith(PARTS):  # of which 같은 법 is the act
            continue
        in_force = [number for number, status in sorted(act.statuses.items()) if status == EXISTS]
        for first, last in itertools.pairwise(in_force):
            if any(first < number < last and status == DELETED for number, status in act.statuses.items()):
                yield law, article_name(first), article_name(last)


def test_a_range_over_any_deleted_article_of_the_table_is_right():
    wrong, count = [], 0
    for law, first, last in ranges_over_deleted():
        for form in RANGES:
            text = form.format(law=law, first=first.removeprefix("제"), last=last.removeprefix("제"))
            count += 1
            cited = judge_citations(text)
            if held_against(text) or not {(law, first), (law, last)} <= cited.valid:
                wrong.append(f"{text}: {held_against(text)}")
    assert not wrong, "\n".join(wrong)
    assert count > 500


def test_a_range_that_ends_on_a_deleted_article_is_not():
    reference = load_reference()
    deleted = [
        (act.law, n) for act in reference.acts.values() for n, status in act.statuses.items() if status == DELETED
    ]
    assert len(deleted) > 300
    for law, number in deleted:
        text = f"{law} 제1조부터 {article_name(number)}까지"
        assert (law, article_name(number), "deleted") in held_against(text), text


def test_what_lies_in_a_range_is_cited_but_for_the_numbers_that_are_no_articles():
    articles = [citation.article for citation in parse_citations("민법 제649조부터 제653조까지")]
    assert articles == ["제649조", "제650조", "제652조", "제653조"]  # 제651조 was deleted
    assert [c.article for c in parse_citations("민법 제1116~1120조")] == [
        "제1116조",
        "제1117조",
        "제1118조",
        "제1120조",
    ]
    assert [c.article for c in parse_citations("난민법 제98~100조")] == ["제98조", "제99조", "제100조"]


# --- Documents -------------------------------------------------------------------------------------------------------

DOCUMENTS = (
    *(
        "심사기준",
        "화해조서",
        "조정조서",
        "차용증",
        "계약서",
        "표준임대차계약서",
        "관리규약",
        "정관",
        "취업규칙",
        "업무처리지침",
        "이행각서",
    ),
    *(
        "확약서",
        "확인서",
        "입주자모집공고",
        "합의서",
        "시행세칙",
        "입찰요강",
        "처리요령",
        "업무편람",
        "매뉴얼",
        "가이드라인",
        "모범규준",
    ),
    *(
        "기본통칙",
        "회칙",
        "방침",
        "조정안",
        "화해권고안",
        "회생계획안",
        "시방서",
        "보험증권",
        "보관증",
        "공정증서",
        "설명서",
        "특약사항",
    ),
    *(
        "일반조건",
        "등기예규",
        "업무협약",
        "해설서",
        "회의록",
        "준비서면",
        "판결문",
        "양해각서",
        "업무규정",
        "조례",
        "행동강령",
        "별지",
    ),
)
OF_DOCUMENTS = (
    "민법 제618조에 따른 임대차라도 {} 제5조에 따라 거절될 수 있습니다.",
    "민법 제618조가 적용되지만 「{}」 제5조에 따라 거절될 수 있습니다.",
    "민법 제618조가 적용되지만 위 {}의 제5조에 따라 거절될 수 있습니다.",
    "민법 제618조가 적용되지만 {}상 제5조에 따라 거절될 수 있습니다.",
    "민법 제618조가 적용되지만 '{}' 제5조에 따라 거절될 수 있습니다.",
    "민법 제618조가 적용되지만 {}에 따르면 제5조의 사유가 있어 거절됩니다.",
    "민법 제618조가 적용되지만 {}(2024년 제정) 제5조에 따라 거절될 수 있습니다.",
    "민법 제618조. {} 제5조 및 제6조",
)


@pytest.mark.parametrize("form", OF_DOCUMENTS)
def test_an_article_of_a_document_is_not_the_acts_before_it(form):
    taken = [name for name in DOCUMENTS if judge_citations(form.format(name)).valid != {("민법", "제618조")}]
    assert not taken


@pytest.mark.parametrize(
    ("text", "articles"),
    [
        ("민법 제543조. 임대차계약은 제618조에 따라 성립합니다.", ["제543조", "제618조"]),
        (
            "주택임대차보호법 제30조. 표준계약서(제30조)를 쓰면 확정일자는 제3조의6에 따릅니다.",
            ["제30조", "제30조", "제3조의6"],
        ),
        ("주택임대차보호법은 특별법입니다. 대항력 제3조, 계약의 갱신 제6조", ["제3조", "제6조"]),
        (
            "주택임대차보호법 제3조에 따라 대항력을 얻고 계약서를 다시 쓰면 제6조의3에 따라 갱신됩니다.",
            ["제3조", "제6조의3"],
        ),
    ],
)
def test_an_article_that_is_the_acts_stays_so_beside_a_document(text, articles):
    assert [citation.article for citation in parse_citations(text)] == articles


# --- What a text itself says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["민법 제651조는 삭제되었다. 제651조는 20년을 정했다.", "민법 제1200조는 없는 조문이다. 민법 제1200조"]
)
def test_an_article_that_the_text_denies_is_denied_throughout(text):
    found = parse_citations(text)
    assert [citation.denied for citation in found] == [True, True]
    assert {judge_citation(citation, load_reference()) for citation in found} == {OUTSIDE_TABLE}
    assert judge_citations(text).all == frozenset()


def test_an_article_in_force_is_cited_whatever_the_text_says_of_it():
    (citation,) = parse_citations("민법 제779조는 삭제되었다.")
    assert (citation.denied, judge_citation(citation, load_reference())) == (False, EXISTS)


def test_an_article_that_never_was_is_invented_though_it_is_called_repealed():
    (citation,) = parse_citations("민법 제1200조는 2016년에 삭제되었다.")
    assert judge_citation(citation, load_reference()) == NO_SUCH_ARTICLE


# --- Within an act's own text ----------------------------------------------------------------------------------------


def test_the_act_of_a_decree_is_what_the_decree_calls_법():
    text = "법 제49조제1항에 따라 제3조와 「소득세법」 제12조, 법 제5조를 적용하고 이 영 제4조를 준용한다."
    found = parse_citations(text, within="주택법 시행령")
    assert [(citation.law, citation.article) for citation in found] == [
        ("주택법", "제49조"),
        ("주택법 시행령", "제3조"),
        ("소득세법", "제12조"),
        ("주택법", "제5조"),
        ("주택법 시행령", "제4조"),
    ]


def test_the_words_that_an_amendment_replaces_are_a_former_versions():
    text = '제14조 중 "「국세기본법」 제33조"를 "「국세징수법」 제18조"로 하고, 단서 중 "「민법」 제1200조"를 삭제한다.'
    assert [citation.former for citation in parse_citations(text)] == [True, True, True]
    assert not held_against(text)
    assert held_against('"「민법」 제1200조"를 읽었다.') == {("민법", "제1200조", "invented")}
