"""The categories of a training: the system prompt that each was asked with, and questions to know a category by.

format writes them beside the data and finetune beside the adapter, like the template: whoever asks the adapter offers
what it was trained on, and never a prompt that no training record had.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pydantic

from civilqa.base_model.prompts import AGAIN, FormatParams
from civilqa.program.errors import RecordError
from civilqa.program.files import write_text

CATEGORIES_FILE = "categories.json"

# A new question is held against so many of each category: of more, a look at all of them would take seconds.
QUESTIONS_A_CATEGORY = 1000


class Category(pydantic.BaseModel):
    """What the training split holds of a category; `questions` are its first QUESTIONS_A_CATEGORY.

    `articles` is how many articles of the statutes stood before each question.
    """

    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    system_prompt: str
    records: int = 0
    articles: int = 0
    questions: list[str] = []


Categories = Mapping[str, Category]  # by name; records without a category have the name ''


def add_questions(categories: dict[str, Category], asked: Iterable[tuple[str, str]], prompts: FormatParams) -> None:
    """Add training questions, each as (category, question)."""
    for name, question in asked:
        own = {"system_prompt": prompts.system_prompt(name), "articles": prompts.statutes_in_prompt}
        found = categories.setdefault(name, Category(**own))
        found.records += 1
        if len(found.questions) < QUESTIONS_A_CATEGORY:
            found.questions.append(question)


def main_category(categories: Categories) -> str:
    """Return the category with the most training records, the first of equals: for who cannot choose, as Ollama."""
    return max(categories, key=lambda name: categories[name].records)


def write_categories(folder: Path, categories: Categories) -> None:
    """Write them for people to read, too: who hands an adapter on hands its training questions on."""
    fields = {
        name: category.model_dump(exclude=None if category.articles else {"articles"})
        for name, category in categories.items()
    }
    write_text(folder / CATEGORIES_FILE, json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_categories(folder: Path, prompts: FormatParams | None = None) -> Categories:
    """Return the categories of formatted data, of an adapter, or of a model that it was merged into.

    Args:
        prompts: of a model that does not say how it was trained, one of another making, the categories that have a
            prompt here; without them such a folder is refused.

    Raises:
        RecordError: the file is missing or is not what format writes.
    """
    path = folder / CATEGORIES_FILE
    if prompts is not None and not path.is_file():
        given = {"" if name == "default" else name: text for name, text in prompts.system_prompts.items()}
        shown = prompts.statutes_in_prompt
        return {name: Category(system_prompt=text, articles=shown) for name, text in sorted(given.items())}
    try:
        return pydantic.TypeAdapter(dict[str, Category]).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"{path}: not found; {AGAIN}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecordError(f"{path}: {where or 'the file'}: {first['msg']}; {AGAIN}") from None
