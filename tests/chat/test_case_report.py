from civilqa.chat.case_report import report_cases
from civilqa.chat.engine import ChatParams
from civilqa.scoring.gold import Conclusion, TestCase


def case(number, group, category="전세사기"):
    return TestCase(
        id=f"q-{number}",
        question=f"{number}번 사례에서 보증금을 어떻게 받나요?",
        conclusion=Conclusion(
            line="임차권등기",
            answer=None,
            says=["임차권등기명령을 신청한다", "임차권등기명령을 신청할 수 있다"],
            denies=["임차권등기명령을 신청할 수 없다", "바로 이사해도 된다"],
        ),
        required_citations=["주택임대차보호법 제3조의3"],
        acceptable_citations=[],
        key_points=[["임차권등기명령"]],
        forbidden=[],
        numbers=[],
        group=group,
        topic="보증금 반환",
        category=category,
        difficulty="초급",
        trap=None,
        answer="주택임대차보호법 제3조의3에 따라 임차권등기명령을 신청합니다.",
    )


class Engine:
    notice = "시험용입니다."
    categories = ("전세사기", "부동산물권")
    params = ChatParams(
        max_new_tokens=8,
        temperature=0,
        top_p=1,
        repetition_penalty=1,
        seed=0,
        batch_size=2,
        max_question_characters=100,
        multi_turn="never",
        engine_url=None,
        engine_model=None,
        engine_timeout_seconds=5.0,
    )

    def __init__(self):
        self.asked = []

    def generate_answers(self, questions, categories):
        self.asked += zip(questions, categories, strict=True)
        wrong = "민법 제9999조에 따릅니다."
        given = {"2": wrong, "4": "모르겠습니다. 변호사와 상담하십시오."}
        found = [given.get(question[0], case(0, "묶음").answer) for question in questions]
        return [{"answer": answer, "tokens": 9, "stopped": True} for answer in found]


def test_the_cases_are_shown_by_group_with_answer_and_reason(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = Engine()
    cases = [case(1, "전세사기 상담"), case(2, "부동산물권", "부동산물권"), case(3, "전세사기 상담", "일반민사")]
    report_cases(engine, cases)
    # One of a category that the model was not trained on is asked as a question without any.
    known = ["전세사기", "부동산물권", ""]
    assert engine.asked == [(case.question, category) for case, category in zip(cases, known, strict=True)]
    out = capsys.readouterr().out
    assert "부동산물권: 0/1 내용 맞음" in out
    assert "전세사기 상담: 2/2 내용 맞음" in out
    assert "✗ 내용 안 맞음 [q-2] 2번 사례에서" in out
    assert "- 필수 조문을 인용하지 않음: 주택임대차보호법 제3조의3" in out
    assert "- 없는 조문을 인용함: 민법 제9999조" in out
    assert "      민법 제9999조에 따릅니다.\n" in out
    assert "보고서: data/test_cases/report.html\n" in out
    assert "모두 3건 가운데 2건 내용 맞음\n" in out
    report_cases(engine, [*cases, case(4, "전세사기 상담")])
    out = capsys.readouterr().out
    assert "– 답하지 않음 [q-4]" in out
    assert "모두 4건 가운데 2건 내용 맞음, 1건 답하지 않음" in out
    assert out.index("시험용입니다") < out.index("부동산물권")


def test_the_page_is_evaluate_s_for_one_system_the_worst_first(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report_cases(Engine(), [case(1, "전세사기 상담"), case(2, "부동산물권", "부동산물권"), case(4, "전세사기 상담")])
    page = (tmp_path / "data/test_cases/report.html").read_text(encoding="utf-8")
    shown = page.partition('<div id="cards">')[2]
    assert shown.index('id="q-2"') < shown.index('id="q-4"') < shown.index('id="q-1"')
    assert "시험 사례에 대한 답변" in page
    assert "시험용입니다" in page
    assert "빠진 필수 조문" in shown
    body = page.partition("<body>")[2]
    assert "베이스" not in body.partition("<h2>읽는 법</h2>")[0].replace("튜닝 − 베이스", "")
    assert "베낄 때" not in body
