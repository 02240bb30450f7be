"""Reviews, and an evaluation to review, without a model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from civilqa.dataset.records import Record, record_id, write_records
from civilqa.program.files import write_json, write_jsonl, write_text
from civilqa.review.marks import SYSTEMS, GoldForm, Mark, Review
from civilqa.scoring.comparison import Permutations, compare_systems
from civilqa.scoring.predictions import SYSTEMS as ASKED
from civilqa.scoring.predictions import Prediction, make_predictions

ADAPTER = "a" * 64
NOTICE = "시험용 답변입니다."


def review(number: int = 0, reviewer: str = "김", base: Any = None, adapter: Any = None, **changes: Any) -> Review:
    """Return a review of question `number`; a mark is a verdict, or a list of what is wrong."""
    given = {"base": base, "adapter": adapter}
    marks = {
        system: Mark(verdict="wrong", faults=mark) if isinstance(mark, list) else Mark(verdict=mark, faults=[])
        for system, mark in given.items()
    }
    question = f"{number}번 질문"
    fields = {
        "time": f"2026-11-28T00:00:{number:02}.000+00:00", "reviewer": reviewer, "adapter_sha256": ADAPTER,
        "id": record_id(question), "category": "전세사기", "question": question, "reference": "기준",
        "answers": {"base": f"{number} 베이스", "adapter": f"{number} 튜닝"}, "shown": [*SYSTEMS], "blind": True,
        "marks": marks, "better": None, "correction": "", "note": "", "gold": None,
    }  # fmt: skip
    return Review(**fields | changes)


def chat_review(number: int = 0, reviewer: str = "김", adapter: Any = None, **changes: Any) -> Review:
    """Return a review of the tuned model's answer to a question that was asked in the chat."""
    whole = review(number, reviewer, adapter=adapter)
    alone = {"answers": {"adapter": whole.answers["adapter"]}, "marks": {"adapter": whole.marks["adapter"]}}
    return review(number, reviewer, reference="", shown=["adapter"], blind=False, **alone | changes)


def gold_form(**changes: str) -> GoldForm:
    """Return annotations of 'civil damages for a wrong', as a person fills them in, for ANSWER."""
    filled = {
        "line": "가해자가 손해를 배상한다", "answer": "yes",
        "says": "가해자가 손해를 배상한다\n손해배상을 청구할 수 있다",
        "denies": "손해배상을 청구할 수 없다\n가해자는 배상하지 않는다", "required_citations": "민법 제750조",
        "acceptable_citations": "", "key_points": "고의 또는 과실 / 고의나 과실\n3년 안에 청구",
        "forbidden": "손해배상은 언제든지 청구할 수 있다", "numbers": "3년",
    }  # fmt: skip
    return GoldForm(**filled | changes)


QUESTION = "이웃이 실수로 제 차를 긁었습니다. 손해배상을 청구할 수 있나요?"
ANSWER = (
    "네, 손해배상을 청구할 수 있습니다. 민법 제750조에 따라 고의 또는 과실이 있는 가해자가 손해를 배상합니다. "
    "다친 사실을 알게 된 날부터 3년 안에 청구하고, 수리비 견적서와 현장 사진을 남겨 두십시오."
)


def records(number: int, more: str = "") -> list[Record]:
    """Return records of questions that differ, each with an answer that cites an article and a number.

    Args:
        more: stands behind every question and answer.
    """
    topics = ["보증금", "등기", "유치권", "저당권", "지상권", "전세권", "취득시효", "공유물", "가등기", "임차권"]
    made = []
    for index in range(number):
        topic = topics[index % 10]
        question = f"{topic} 문제로 {index}번째 상담을 드립니다. 어떻게 하면 됩니까?{more}"
        text = f"{index + 2}개월 안에 민법 제{index + 200}조에 따라 {topic} 문제를 {index}번 창구에 신고하십시오.{more}"
        made.append(
            Record(id=record_id(question), question=question, answer=text, category="전세사기", difficulty="초급")
        )
    return made


def answer(text: str, tokens: int, stopped: bool, reference_bits: float) -> Any:
    """Return what a model would have generated; its own class would import torch."""
    return SimpleNamespace(text=text, tokens=tokens, stopped=stopped, reference_bits=reference_bits)


def write_evaluation(folder: Path, number: int = 12, more: str = "") -> list[Prediction]:
    """Write what prepare and evaluate leave behind, without gold; returns the test lines.

    The base's answers do not end. Every second one of the tuned model is the reference, the others cite an article
    that is not the reference's.

    Args:
        more: stands behind every question and answer.
    """
    asked = records(number, more)
    given = {
        "base": [answer(f"{one.category} {index}{more}", 5, False, 90.0) for index, one in enumerate(asked)],
        "few_shot": [answer("가", 5, True, 90.0) for _ in asked],
        "adapter": [
            answer(one.answer if index % 2 else f"민법 제103조 {index}{more}", 5, True, 50.0)
            for index, one in enumerate(asked)
        ],
    }
    nearest = [(asked[index - 1], 0.5, False) for index in range(number)]
    lines = {
        "test": make_predictions(asked, given, {}, NOTICE, {"few_shot": [{"examples": 1}] * number}, nearest),
        "train": make_predictions(asked, {name: given[name] for name in ASKED["train"]}, {}, NOTICE),
    }
    metrics = {
        "adapter_sha256": ADAPTER,
        "profile": "tiny",
        "chrf_signature": "nc:6|nw:2",
        "versions": {"torch": "1"},
        "test_data": {"groups": number, "by_answers": 0, "shared_answers": 0, "untrained_categories": []},
        **compare_systems(lines, {}, Permutations(200, 1)),
    }
    write_records(folder / "data/prepared/records.jsonl", asked)
    for name, part in lines.items():
        write_jsonl(folder / "data/predictions" / f"{name}.jsonl", part)
    write_json(folder / "metrics/evaluate.json", metrics)
    write_text(folder / "data/raw/gold.jsonl", "")
    return lines["test"]
