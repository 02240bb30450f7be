"""Which category a question is asked in: one that the model was trained on, the nearest training question's if none."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from civilqa.base_model.categories import Categories, read_categories
from civilqa.base_model.prompts import FormatParams
from civilqa.dataset.records import Record, record_id
from civilqa.generation.baselines import nearest_records
from civilqa.program.errors import QuestionError
from civilqa.program.lifecycle.safe_output import printable
from civilqa.program.parameters import read_sections
from civilqa.reading.cleaning import clean

AUTOMATIC = "자동"  # what no category is called where one is chosen
SHOWN = 10  # categories that a message names
REMEMBERED = 64  # questions


class Chosen(NamedTuple):
    """A category, and whether it was chosen here rather than given."""

    name: str
    by_nearest: bool


class CategoryChoice:
    """The categories of one model."""

    def __init__(self, categories: Categories) -> None:
        self.categories = categories
        self.names = [name for name in categories if name]
        self._trained_on = [
            Record(id=record_id(question), question=question, answer="", category=name, difficulty="")
            for name, category in categories.items()
            for question in category.questions
        ]
        # Of one question it is wanted for its prompt and its result, of the tuned model and of the base.
        self._nearest = lru_cache(REMEMBERED)(self._find_nearest)

    def choose(self, question: str, given: str = "") -> Chosen:
        """Return the category to ask a question in: the one given, else that of the most similar training question.

        Raises:
            QuestionError: the model was not trained on the category given.
        """
        given = clean(given)
        if given:
            self.check(given)
        if given or not self._trained_on:
            return Chosen(given, by_nearest=False)
        category = self._nearest(clean(question))
        return Chosen(category, by_nearest=bool(category))

    def _find_nearest(self, question: str) -> str:
        ((nearest, _),) = nearest_records(question, self._trained_on)
        return nearest.category

    def check(self, given: str) -> None:
        """Raise the QuestionError, if any, that a question of this category would."""
        if given not in self.names:
            known = ", ".join(self.names[:SHOWN]) + (" …" if len(self.names) > SHOWN else "")
            raise QuestionError(
                f"이 모델은 '{printable(given[:40])}' 분야를 학습하지 않았습니다. "
                f"있는 분야: {printable(known) or '없음'}. 분야를 적지 않으면 가장 비슷한 학습 질문의 분야로 답합니다."
            )

    def system_prompt(self, name: str) -> str:
        return self.categories[name].system_prompt


def check_category(folder: Path, category: str) -> None:
    """Raise the QuestionError that asking in a category would, before the model of a folder is loaded."""
    CategoryChoice(read_categories(folder, *read_sections(format=FormatParams))).check(category)


def category_note(result: dict[str, Any]) -> str:
    """Return what a reader is told of the category of an answer; '' where it has none."""
    if not result["category"]:
        return ""
    how = " (가장 비슷한 학습 질문에서)" if result["category_chosen"] else ""
    return f"분야: {printable(result['category'])}{how}"
