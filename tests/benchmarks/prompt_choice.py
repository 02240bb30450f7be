"""Measures which system prompt a question should be asked with that comes without a category.

    python tests/benchmarks/prompt_choice.py

Asks models/adapter the questions that it was trained on, with the prompt of each one's own category, of the category of
the nearest training question (the question itself here), of the category with the most records, and with the general
prompt; and counts how many training answers come back. How often the nearest question has the right category is counted
where it is another question: in the test split, and among the training questions, each without itself. Writes
prompt_choice.json beside this file; it takes two or three minutes on two cores. Run `dvc repro` before.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, "stages")

from civilqa.base_model.categories import Category, main_category
from civilqa.chat.categories import CategoryChoice
from civilqa.dataset.records import Record, read_records
from civilqa.generation.baselines import nearest_records
from civilqa.inference import InferenceEngine
from civilqa.model.hardware import describe_machine, versions
from civilqa.program.files import write_json

RESULT = Path(__file__).with_suffix(".json")
SPLITS = Path("data/splits")


def share_of_right_categories(records: list[Record], train: list[Record]) -> dict[str, int]:
    """Count the records whose nearest training question, other than themselves, is of their category."""
    found = [nearest_records(record.question, train, without={record.id})[0][0] for record in records]
    right = sum(near.category == record.category for near, record in zip(found, records, strict=True))
    return {"questions": len(records), "right": right}


def count_returned(engine: InferenceEngine, records: list[Record], categories: list[str] | str) -> int:
    """Count the training answers that come back word for word."""
    answers = engine.generate_answers([record.question for record in records], categories)
    return sum(found["answer"] == record.answer for found, record in zip(answers, records, strict=True))


def main() -> None:
    train, test = (read_records(SPLITS / f"{name}.jsonl") for name in ("train", "test"))
    engine = InferenceEngine().load_finetuned_model()
    trained = engine._choice
    returned = {
        "own_category": count_returned(engine, train, [record.category for record in train]),
        "nearest_question": count_returned(engine, train, ""),
        "most_records": count_returned(engine, train, main_category(trained.categories)),
    }
    engine._choice = CategoryChoice({"": Category(system_prompt=engine.prompts.system_prompts["default"])})
    returned["general_prompt"] = count_returned(engine, train, "")
    result: dict[str, Any] = {
        "training_questions": len(train),
        "answers_returned": returned,
        "category_of_the_nearest": {
            "test": share_of_right_categories(test, train),
            "train_without_itself": share_of_right_categories(train, train),
        },
        "machine": describe_machine(),
        "versions": versions(),
    }
    write_json(RESULT, result)
    print(returned, result["category_of_the_nearest"])


if __name__ == "__main__":
    main()
