"""Gold annotations for questions that have none: a draft from the right answer, a form, and what is wrong with it.

Articles and numbers are found by program. What a right answer must say, and which errors are typical, a person writes.
"""

from typing import Any

from pydantic import ValidationError

from civilqa.dataset.records import question_id
from civilqa.law.citations import parse_citations
from civilqa.law.korean import normalize
from civilqa.law.statutes import EXISTS, NOT_YET_IN_FORCE
from civilqa.law.verdicts import VERDICTS, cited_articles, look_up_citations, write_article
from civilqa.review.marks import GoldForm
from civilqa.scoring.gold import Gold
from civilqa.scoring.judgement import judge_answer
from civilqa.scoring.quantities import parse_quantities

LISTS = ("says", "denies", "required_citations", "acceptable_citations", "forbidden", "numbers")
LABELS = {
    "line": "결론 한 줄",
    "says": "결론을 말하는 문장",
    "denies": "결론과 반대되는 문장",
    "required_citations": "필수 조문",
    "acceptable_citations": "허용 조문",
    "key_points": "핵심 내용",
    "forbidden": "틀린 설명",
    "numbers": "숫자",
}
LEAST = {"says": 2, "denies": 2, "key_points": 1, "forbidden": 1}


def draft_form(question: str, answer: str) -> GoldForm:
    """Return a form with what a right answer tells by itself: its articles, and its numbers that the asker did not."""
    asked = cited_articles(question)
    articles = [(citation["law"], citation["article"]) for citation in look_up_citations(answer)]
    required = [write_article(article) for article in dict.fromkeys(articles) if article not in asked]
    known = parse_quantities(question)
    numbers = {quantity: quantity.text for quantity in parse_quantities(answer) if quantity not in known}
    empty = dict.fromkeys(GoldForm.model_fields, "")
    return GoldForm(**empty | {"required_citations": "\n".join(required), "numbers": "\n".join(numbers.values())})


def gold_fields(name: str, question: str, form: GoldForm) -> dict[str, Any]:
    """Return a line of data/raw/gold.jsonl; whether it is one says find_problems."""
    lists = {key: _lines(getattr(form, key)) for key in LISTS}
    points = [[part.strip() for part in line.split("/") if part.strip()] for line in _lines(form.key_points)]
    points = [wordings for wordings in points if wordings]
    says, denies = lists.pop("says"), lists.pop("denies")
    conclusion = {"line": form.line.strip(), "answer": form.answer or None, "says": says, "denies": denies}
    told = {"id": question_id(name), "question": question, "conclusion": conclusion, "key_points": points}
    return {key: (told | lists).get(key, []) for key in Gold.model_fields}


def find_problems(name: str, question: str, answer: str, form: GoldForm) -> list[str]:
    """Return in Korean what keeps a form from being gold; nothing where it may be used.

    Args:
        answer: the right answer, which must pass by its own annotations.
    """
    fields = gold_fields(name, question, form)
    given = fields | fields["conclusion"]
    problems = [] if given["line"] else [f"{LABELS['line']}: 비어 있습니다"]
    problems += [
        f"{LABELS[key]}: {least}개 이상 적으십시오(지금 {len(given[key])}개)"
        for key, least in LEAST.items()
        if len(given[key]) < least
    ]
    for key in ("required_citations", "acceptable_citations"):
        problems += [f"{LABELS[key]}: {problem}" for citation in given[key] if (problem := _check_citation(citation))]
    articles = [article for key in ("required_citations", "acceptable_citations") for article in map(str, given[key])]
    if repeated := sorted({article for article in articles if articles.count(article) > 1}):
        problems.append(f"조문이 두 번 있습니다: {', '.join(repeated)}")
    problems += [
        f"{LABELS['numbers']}: '{number}'을(를) '3개월', '2억 4천만원'처럼 단위가 있는 숫자 하나로 적으십시오"
        for number in given["numbers"]
        if len(parse_quantities(number)) != 1
    ]
    if problems:
        return problems
    try:
        gold = Gold.model_validate(fields)
    except ValidationError as error:  # what the checks above have no words for
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    # As evaluate judges it; and by itself, since beside itself as the reference nothing that it says is an error.
    reasons = [*judge_answer(answer, gold, answer).reasons]
    reasons += [f"틀린 설명이 들어 있음: {made}" for made in judge_answer(answer, gold).forbidden_found]
    return [f"바른 답변이 이 기준에 맞지 않습니다: {reason}" for reason in reasons]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _check_citation(written: str) -> str | None:
    found = parse_citations(written)
    if len(found) != 1 or found[0].end != len(normalize(written)):
        return f"'{written}'을(를) '민법 제750조'처럼 조문 하나로 적으십시오"
    for citation in look_up_citations(written):
        if citation["status"] not in (EXISTS, NOT_YET_IN_FORCE):
            return f"{written}: {VERDICTS[citation['status']].words}"
    return None
