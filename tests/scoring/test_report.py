import re
from html.parser import HTMLParser

import pytest

from civilqa.dataset.records import Record
from civilqa.generation.answers import Answer
from civilqa.scoring.article_recall import article_recall
from civilqa.scoring.comparison import Permutations, compare_systems
from civilqa.scoring.gold import Conclusion, Gold
from civilqa.scoring.predictions import SYSTEMS, make_predictions
from civilqa.scoring.report import figure, headline, render_report

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> \" ' & {{ 7 * 7 }}"
NOTICE = "무작위 가중치에서 시작한 모델입니다."


def record(number, **changes):
    fields = {
        "id": f"q-{number}",
        "question": f"{number}번 질문",
        "answer": "답은 민법 제750조입니다.",
        "category": "전세사기",
    }
    return Record(**fields | {"difficulty": "초급"} | changes)


def gold(number):
    return Gold(
        id=f"q-{number}", question=f"{number}번 질문",
        conclusion=Conclusion(
            line="답", answer=None, says=["손해를 배상한다", "가해자가 배상한다"],
            denies=["배상하지 않는다", "답이 없다"],
        ),
        required_citations=["민법 제750조"], acceptable_citations=[],
        key_points=[["답은"], ["없는 말"]], forbidden=["답이 없다"], numbers=["3년"],
    )  # fmt: skip


def make(texts, golds=True, notice=NOTICE, *, leaks=False, retrieved=False, looked_up=False, **changes):
    records = [record(number, **changes) for number in range(len(texts))]
    entries = {r.id: gold(number) for number, r in enumerate(records)} if golds else {}
    given = {
        "base": [Answer("가", 5, False, 90.0) for _ in texts],
        "few_shot": [Answer("가", 5, False, 90.0) for _ in texts],
        "adapter": [Answer(text, 5, True, 50.0 + i) for i, text in enumerate(texts)],
    }
    if retrieved:
        given["retrieved"] = [Answer("비슷한 예시를 본 답", 5, True, 80.0) for _ in texts]
    if looked_up:
        given |= {
            name: [Answer("민법 제750조", 5, True, 80.0)] * len(texts) for name in ("retrieval", "adapter_retrieval")
        }
    nearest = [(record(99), 0.5, leaks)] * len(texts)
    examples = {system: [{"examples": 1}] * len(texts) for system in ("few_shot", "retrieved")}
    examples |= {name: [{"articles": ["민법 제751조"]}] * len(texts) for name in ("retrieval", "adapter_retrieval")}
    lines = {"test": make_predictions(records, given, entries, notice, examples, nearest)}
    lines["train"] = make_predictions(records, {name: given[name] for name in SYSTEMS["train"]}, entries, notice)
    metrics = {
        "profile": "tiny",
        "test_data": {"groups": len(texts), "by_answers": 0, "shared_answers": 0, "untrained_categories": []},
        **compare_systems(lines, {}, Permutations(200, 1)),
        "chrf_signature": "nc:6|nw:2",
        "versions": {"torch": "1"},
    }
    return lines, metrics


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_model_output_is_escaped():
    lines, metrics = make([ATTACK], notice=ATTACK, question=ATTACK, answer=ATTACK, category=ATTACK)
    page = Page(render_report(lines, metrics, ATTACK))
    assert len(page.of("script")) == 1
    assert page.of("img") == []
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(ATTACK) >= 4


def test_nothing_is_loaded_from_elsewhere():
    page = Page(render_report(*make(["답은 민법 제750조입니다."]), NOTICE))
    assert not {"link", "iframe", "img", "object", "base"} & {tag for tag, _ in page.tags}
    assert page.of("script") == [{}]
    elsewhere = [attributes["href"] for attributes in page.of("a") if not attributes["href"].startswith("#")]
    assert elsewhere
    assert all(href.startswith("https://www.law.go.kr/") for href in elsewhere)
    assert "url(" not in page.text
    (policy,) = [meta["content"] for meta in page.of("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none';")
    assert re.search(r"script-src 'sha256-[\w+/]{43}='", policy)


def test_citations_are_marked_and_linked():
    text = "민법 제750조와 민법 제3000조, 민법 제436조, 항공안전법 제1조, 민법 제103조(불공정한 법률행위)"
    page = Page(render_report(*make([text]), NOTICE))
    classes = {
        attributes["class"] for attributes in page.of("a") if "title" in attributes and "cite" in attributes["class"]
    }
    assert {"cite valid", "cite invented", "cite deleted", "cite outside", "cite elsewhere mistitled"} <= classes
    assert any(attributes["href"].endswith("%EB%AF%BC%EB%B2%95/%EC%A0%9C750%EC%A1%B0") for attributes in page.of("a"))
    missing = Page(render_report(*make(["조문이 없는 답"]), NOTICE))
    assert "빠진 필수 조문: 민법 제750조" in missing.text


def test_the_text_of_articles_is_beside_the_answers_where_it_is_at_hand(monkeypatch):
    texts = {("민법", "제750조"): "<b>고의</b> 또는 과실", ("민법", "제103조"): "선량한 풍속"}
    monkeypatch.setattr("civilqa.scoring.report.text_at_hand", lambda law, article: texts.get((law, article)))
    page = Page(render_report(*make(["민법 제103조에 따라"]), NOTICE))
    assert page.text.count("<b>고의</b> 또는 과실") == 1  # required
    assert page.text.count("선량한 풍속") == 1  # cited
    monkeypatch.undo()
    assert "조문 보기" not in Page(render_report(*make(["민법 제103조에 따라"]), NOTICE)).text


def test_an_answer_that_came_back_with_other_articles_is_told():
    """In chrF++ the number of an article hardly weighs."""
    right = (
        "고의나 과실로 위법하게 손해를 입힌 사람은 그 손해를 배상할 책임이 있습니다. 근거는 민법 제750조이며, 손해와 "
        "가해자를 안 날부터 3년 안에 청구하여야 하므로 치료비 영수증과 진단서를 먼저 모아 두십시오."
    )
    texts = [right, right.replace("750", "751"), right.replace("제750조", "제750조와 제751조"), "아니요"]
    lines, metrics = make(texts, answer=right)
    recall = metrics["train_recall"]["adapter"]
    assert (recall["recalled"], recall["recalled_with_articles"]) == (0.75, 0.25)
    found = "가운데 3개의 답변을 거의 그대로 되살렸습니다. 그 가운데 2개는 조문이 학습한 답변과 다릅니다. 시험 성적이"
    assert f"학습 질문 4개 {found}" in Page(render_report(lines, metrics, NOTICE)).text
    same = Page(render_report(*make([right], answer=right), NOTICE)).text
    assert "학습 질문 1개 가운데 1개의 답변을 거의 그대로 되살렸습니다. 시험 성적이 아닙니다." in same
    without = right.replace("민법 제750조이며", "민법이며")
    assert make([without], answer=without)[1]["train_recall"]["adapter"]["recalled_with_articles"] == 1


def test_the_worst_answer_is_first_and_one_click_away():
    texts = [
        "답은 민법 제750조, 없는 말은 3년입니다.",
        "답은 민법 제3000조입니다.",
        "답은 민법 제750조입니다.",
    ]
    page = Page(render_report(*make(texts), NOTICE))
    order = [attributes["id"] for attributes in page.of("article") if "id" in attributes]
    assert order == ["q-1", "q-0", "q-2"]  # an invented article, words of no law, the reference
    (jump,) = [attributes["href"] for attributes in page.of("a") if attributes.get("class") == "jump"]
    assert jump == "#q-1"


def test_the_page_says_what_it_rests_on():
    page = Page(render_report(*make(["답"]), NOTICE))
    assert NOTICE in page.text
    assert "2026-06-08" in page.text
    assert "시험 성적이 아닙니다" in page.text
    assert "split.fold=0,1,2,3,4" in page.text


def test_the_page_says_where_a_verdict_rests_on_less_than_its_questions():
    lines, metrics = make(["답"] * 12)
    page = Page(render_report(lines, metrics, NOTICE)).text
    assert not any(word in page for word in ("묶음입니다", "글자 그대로", "학습하지 않은 분야"))

    def show(**changes):
        return Page(render_report(lines, metrics | {"test_data": metrics["test_data"] | changes}, NOTICE)).text

    assert "시험 12문항은 3묶음입니다. 한 묶음은 질문이나 답변이 같거나" in show(groups=3, by_answers=2)
    assert "시험 12문항은 5묶음입니다. 한 묶음은 질문이 같거나" in show(groups=5)
    assert "시험 12문항 가운데 7문항은 답변이 학습 자료에도 글자 그대로 있습니다." in show(shared_answers=7)
    assert "학습하지 않은 분야가 있습니다: (없음), 상속." in show(untrained_categories=["", "상속"])


def test_a_system_that_was_asked_for_is_shown_and_no_other():
    page = Page(render_report(*make(["답"], retrieved=True), NOTICE)).text
    assert page.count("베이스 + 비슷한 예시") >= 2, "in the table and beside the other answers"
    assert "비슷한 예시를 본 답" in page
    assert "비슷한 예시" not in Page(render_report(*make(["답"]), NOTICE)).text


def test_a_copy_of_a_near_duplicate_is_told_beside_the_score():
    lines, metrics = make(["답"] * 3, leaks=True)
    assert metrics["test"]["nearest"]["copied_near_duplicate"] == 1
    leaky = Page(render_report(lines, metrics, NOTICE)).text
    assert "다만 3개 가운데 3개는 시험 질문과 거의 같은" in leaky
    assert "질문 유사도 50%, 시험 질문과 거의 같음" in leaky
    clean = Page(render_report(*make(["답"] * 3), NOTICE)).text
    assert "다만 3개" not in clean
    assert ", 시험 질문과 거의 같음" not in clean
    assert "시험 질문과 거의 같은 학습 질문에서 베낀 답변" in clean, "the row is there with 0 %"


def test_length_matched_chrf_stands_beside_the_plain_one():
    lines, metrics = make(["답은 민법 제750조입니다. " * 5])
    page = Page(render_report(lines, metrics, NOTICE)).text
    means = metrics["test"]["adapter"]
    assert means["chrf_cut"] != means["chrf"]
    assert page.index("chrF++ 높을수록") < page.index("chrF++ (기준 답변의 길이까지만)")
    assert f"{means['chrf_cut']:.1f}" in page


def test_without_gold_no_score_that_needs_it_is_shown():
    text = Page(render_report(*make(["답은 민법 제103조입니다."], golds=False), NOTICE)).text
    assert "정답 주석 없음" in text
    assert "정답 주석이 없어 내용은 채점하지 않았습니다." in text
    assert "통과율" not in text


def test_without_gold_answers_are_held_against_what_the_reference_itself_shows():
    reference = "민법 제750조에 따라 3년 안에 청구합니다."
    texts = [reference, "근거는 민법 제750조입니다.", "민법 제103조에 따라 안에 청구합니다.", "따라 안에 청구합니다."]
    lines, metrics = make(texts, golds=False, answer=reference)
    page = Page(render_report(lines, metrics, NOTICE))
    order = [attributes["id"] for attributes in page.of("article") if "id" in attributes]
    assert order[-1] == "q-0"
    assert order[-2] == "q-1"  # the article without the number, in other words
    assert {*order[:2]} == {"q-2", "q-3"}
    assert "있는 4개 가운데, 그것을 모두 담고 다른 조문은 들지 않은 답변은 1개" in page.text
    assert "베끼면 0개입니다" in page.text  # the nearest training answer has the article and no number
    assert "기준 답변의 조문과 숫자 1/2" in page.text
    assert "기준 답변의 조문과 숫자 0/2 · 기준에 없는 조문 1" in page.text
    assert "기준 답변에 있으나 빠진 조문: 민법 제750조" in page.text
    assert "기준 답변에 있으나 빠진 숫자: 3년" in page.text
    classes = {each["href"][-16:]: each["class"] for each in page.of("a") if "cite" in each.get("class", "")}
    assert classes["%EC%A0%9C103%EC%A1%B0"[-16:]] == "cite elsewhere"  # it exists, and is not the reference's


def test_a_reference_without_articles_and_numbers_is_followed_by_nothing():
    lines, metrics = make(["모르겠습니다.", "등기하여야 합니다."], golds=False, answer="등기하여야 합니다.")
    text = Page(render_report(lines, metrics, NOTICE)).text
    assert "기준 답변에 조문도 숫자도 없어 대조할 것이 없습니다." in text
    assert "모두 담고" not in text


@pytest.mark.parametrize(("seeds", "method", "other"), [([1], "클로퍼-피어슨", "하우"), ([1, 2], "하우", "클로퍼")])
def test_the_methods_named_are_those_of_the_intervals(seeds, method, other):
    lines, metrics = make(["답은 민법 제750조입니다."])
    text = Page(render_report(lines, metrics | {"seeds": seeds}, NOTICE)).text
    assert method in text
    assert other not in text


def test_marks_of_people_lead_the_report_and_stand_beside_each_answer():
    lines, metrics = make(["답은 민법 제750조입니다.", "가"])
    said = {"verdicts": {"base": [("김", "wrong", "틀림", "법리, 숫자·기간")], "adapter": [("김", "good", "좋음", "")]}}
    said["texts"] = [("김", ATTACK, "메모")]
    reviewed = {
        "reviewers": 1,
        "usable": {"base": (0, 1), "adapter": (1, 1)},
        "disputed": 0,
        "questions": {"q-0": said},
    }
    html = render_report(lines, metrics, NOTICE, reviewed=reviewed)
    text = Page(html).text
    assert "검토자 1명이 쓸 만하다고 한 답변: 튜닝한 모델 1개 가운데 1개, 베이스 1개 가운데 0개." in text
    assert text.index("사람의 검토") < text.index("쓸 만한 답변")
    assert "틀림 법리, 숫자·기간" in " ".join(text.split())
    assert ATTACK in text
    assert "<img" not in html
    assert "사람의 검토" not in render_report(lines, metrics, NOTICE)


def test_answers_that_do_not_end_or_go_round_in_circles_are_the_first_to_be_shown():
    lines, metrics = make(["답은 민법 제3000조입니다.", "같은 말을 한 번 더 " * 9, "답은 민법 제750조입니다."])
    page = Page(render_report(lines, metrics, NOTICE))
    order = [attributes["id"] for attributes in page.of("article") if "id" in attributes]
    assert order == ["q-1", "q-0", "q-2"]
    assert "같은 말을 맴돎 · 되풀이" in page.text
    assert "3개 가운데 2개가 스스로 끝맺고" in page.text


def test_an_abstention_stands_between_wrong_and_right_answers():
    texts = ["답은 민법 제750조입니다. 가해자가 손해를 배상합니다.", "모르겠습니다.", "배상하지 않습니다."]
    lines, metrics = make(texts)
    page = Page(render_report(lines, metrics, NOTICE))
    order = [attributes["id"] for attributes in page.of("article") if "id" in attributes]
    assert lines["test"][0]["adapter"]["judgement"]["accepted"]
    assert order == ["q-2", "q-1", "q-0"]
    assert re.search(r"튜닝한 모델\s*답하지 않음\s*모르겠습니다\.", page.text)
    assert metrics["test"]["adapter"]["abstention_rate"] == pytest.approx(1 / 3)
    assert metrics["test"]["n_scored"]["adapter"]["content_accepted"] == 2
    assert "1개는 답하지 않았습니다" in page.text


def test_the_same_results_give_the_same_bytes():
    lines, metrics = make(["답은 민법 제750조입니다.", ATTACK])
    assert render_report(lines, metrics, NOTICE) == render_report(lines, metrics, NOTICE)


def difference(verdict):
    return {"verdict": verdict, "n": 12, "mean": 0, "low": 0, "high": 0, "p": 1.0}


PAIRS = {
    "n": 54,
    "pairs": 270,
    "base": {"contrast_accuracy": 0.5},
    "adapter": {"contrast_accuracy": 0.8},
    "interval": {"adapter": (0.7, 0.9)},
}


@pytest.mark.parametrize(
    ("verdicts", "ends", "cites", "phrase", "tone"),
    [
        ({"contrast_accuracy": "better"}, 1.0, 0.5, "처음 보는 질문에서 옳은 진술을 더 잘 가려냅니다", "good"),
        ({"contrast_accuracy": "better"}, 1.0, 0.1, "처음 보는 질문에서 옳은 진술을 더 잘 가려냅니다", ""),
        ({"contrast_accuracy": "better"}, 0.0, 0.5, "답변 대부분이 끝맺지 못하거나 같은 말을 맴돕니다", "bad"),
        (
            {"contrast_accuracy": "better", "ends_cleanly": "worse"}, 0.6, 0.5,
            "처음 보는 질문에서 옳은 진술을 더 잘 가려냅니다. 나빠진 점도 있습니다", "bad",
        ),
        ({"contrast_accuracy": "no difference seen"}, 1.0, 0.5, "법률 지식이 늘었는지 이 자료로는 알 수 없습니다", ""),
        ({"contrast_accuracy": "worse"}, 1.0, 0.5, "튜닝한 뒤 나빠진 점이 있습니다", "bad"),
        ({}, 1.0, 0.5, "법률 지식이 늘었는지 잴 자료가 없습니다", ""),
    ],
)  # fmt: skip
def test_the_headline_claims_no_more_than_the_scores_named_in_advance(verdicts, ends, cites, phrase, tone):
    """Green only where knowledge rose, the answers end, and copying the nearest answer cites no better."""
    known = "contrast_accuracy" in verdicts
    found = headline(
        {
            "difference": {"base": {name: difference(verdict) for name, verdict in verdicts.items()}},
            "contrasts": {"unseen": PAIRS} if known else {},
            "test": {
                "n": 12,
                "adapter": {"ends_cleanly": ends, "reference_citation_f1": cites},
                "nearest": {"reference_citation_f1": 0.2},
            },
        },
        None,
    )
    assert (found["phrase"], found["tone"]) == (phrase, tone)
    lines = {asked: text for asked, text, _ in found["lines"]}
    assert f"12개 가운데 {12 * ends:.0f}개" in lines["끝맺음"]
    assert ("낮습니다" if cites < 0.2 else "높습니다") in lines["조문"]
    assert ("진술 270쌍" in lines.get("법률 지식", "")) == known


@pytest.mark.parametrize(
    ("verdict", "cites", "only_form"),
    [("better", 0.03, True), ("better", 0.2, True), ("better", 0.3, False), ("no difference seen", 0.03, False)],
)
def test_citing_better_than_a_base_that_cites_nothing_is_called_no_knowledge(verdict, cites, only_form):
    metrics = {
        "difference": {"base": {"reference_citation_f1": difference(verdict)}},
        "contrasts": {},
        "test": {
            "n": 12,
            "adapter": {"reference_citation_f1": cites},
            "nearest": {"reference_citation_f1": 0.2},
        },
    }
    (found,) = (text for asked, text, _ in headline(metrics, None)["lines"] if asked == "조문")
    assert ("맞는 조문을 안다는 뜻이 아닙니다" in found) == only_form


def test_a_score_of_the_text_leads_only_where_it_was_found_to_tell_right_from_wrong():
    adapter = {"content_accepted": 0.25, "abstention_rate": 1 / 3}
    test = {"n": 12, "n_scored": {"adapter": {"content_accepted": 8}}, "adapter": adapter}
    metrics = {"difference": {}, "contrasts": {}, "test": test}

    def usable(auc):
        measured = {"auc": auc, "right_accepted": {"k": 9, "n": 10}, "wrong_accepted": {"k": 1, "n": 10}}
        scorer = {"cases": {"held_out": {"scores": {"content_score": measured}}}} if auc else None
        return {asked: text for asked, text, _ in headline(metrics, scorer)["lines"]}["쓸 만한 답변"]

    assert usable(0.92).startswith("내용 점수로 12개 가운데 2개, 답하지 않은 것 4개. 옳게 쓴 답변 10개 가운데 9개를")
    assert "가릴 수 없습니다" in usable(0.72)
    assert "2개" not in usable(0.72).partition("내용 점수는")[0]
    assert "재지 않았습니다" not in usable(0.72)
    assert usable(None).endswith("재지 않았습니다(python stages/score_the_scores.py).")
    assert "4개는 답하지 않았습니다" in usable(0.72)


@pytest.mark.parametrize(
    ("value", "name", "signed", "expected"),
    [
        (0.256, "rouge_l", False, "26%"),
        (-0.001, "rouge_l", True, "0%p"),
        (-0.05, "rouge_l", True, "−5%p"),
        (12.345, "chrf", True, "+12.3"),
        (4.718, "bits_per_character", False, "4.72"),
        (None, "chrf", False, "–"),
    ],
)
def test_figures_are_written_as_a_reader_wants_them(value, name, signed, expected):
    assert figure(value, name, signed) == expected


# --- a language model's marks ---


JUDGED = {
    "model": "judge-1 " + ATTACK, "votes": 3, "answers": 100, "kappa": 0.71, "kappa_interval": [0.52, 0.86],
    "right_accepted": {"k": 44, "n": 50}, "wrong_accepted": {"k": 6, "n": 50},
    "right_harmful": {"k": 2, "n": 50}, "wrong_harmful": {"k": 31, "n": 50}, "least_kappa": 0.6, "counted": True,
}  # fmt: skip


def judged(**changes):
    lines, metrics = make(["답은 민법 제750조입니다."])
    marks = [
        {"kind": "conclusion", "line": "답", "votes": ["1", "<think>음</think>1", "0"], "mark": 1},
        {"kind": "made_up_law", "line": "없는 법", "votes": ["1", None, ATTACK], "mark": None},
        {"kind": "harm", "line": "기한을 놓침", "votes": ["1", "1", "1"], "mark": 1},
    ]
    lines["test"][0]["adapter"]["judge"] = {"right": None, "lines": marks}
    page = Page(render_report(lines, {**metrics, "judge": JUDGED | changes}, NOTICE))
    assert page.of("img") == []
    return " ".join(page.text.split())


def test_a_judge_is_shown_with_its_agreement_and_every_vote():
    text = judged()
    assert "옳고 그름을 미리 아는 답변 100개에서 일치도(코헨의 카파) 0.71 [95% 구간 0.52, 0.86]" in text
    assert "옳은 답변 50개 가운데 44개를, 틀린 답변 50개 가운데 6개를" in text
    assert "옳은 답변 2개와 틀린 답변 31개가 해롭다고" in text
    assert "LLM 채점: 알 수 없음 결론: 답 해당함 표 1 1 0없는 법: 없는 법 알 수 없음 표 1 – –" in text
    assert "해로움: 기한을 놓침 해당함 표 1 1 1" in text
    assert "세지 않" not in text


def test_a_judge_that_does_not_agree_is_shown_and_said_not_to_count():
    assert "어디에도 세지 않습니다" in judged(kappa=0.4, counted=False)
    assert "LLM 채점: 알 수 없음 (믿을 만하지 않아 세지 않음)" in judged(kappa=0.4, counted=False)
    assert "채점을 하나도 얻지 못했습니다" in judged(kappa=None, counted=False)


def test_what_was_looked_up_is_told_with_its_recall_and_every_system_s_interval():
    lines, metrics = make(["답", "나", "다"], looked_up=True)
    found = [{"found": ["민법 제750조"], "required": ["민법 제750조"], "cited": []}] * 3
    metrics["articles"] = {"recall": article_recall(found)}
    assert set(metrics["difference"]) == {"base", "few_shot", "nearest", "retrieval", "adapter_retrieval"}
    assert set(metrics["interval"]) == set(metrics["difference"]) | {"adapter"}
    page = Page(render_report(lines, metrics, NOTICE)).text
    assert "필수 조문이 평균 100% 들어 있습니다(95% 구간 29~100%)" in page
    assert "인용 F1은 베이스 100%, 튜닝한 모델 100%입니다" in page
    assert page.count("보여 준 조문: 민법 제751조") == 6
    assert "튜닝 − 베이스 + 찾은 조문 [95% 구간]" in page
    plain = make(["답"])
    assert "찾은 조문" not in Page(render_report(*plain, NOTICE)).text
