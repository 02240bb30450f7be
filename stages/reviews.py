"""Says how far reviewers agree, and brings what they wrote back into the data: python stages/reviews.py

Reads:  data/reviews (the pages of python stages/chat.py review and web write it), data/prepared, data/predictions,
        data/raw/gold.jsonl, metrics/evaluate.json, the profile's tokenizer
Writes: data/reviewed/agreement.json    agreement between reviewers, and of the automatic scores with them
        data/reviewed/corrected.csv     all records with their right answers, and questions from the chat that got one:
                                        prepare.source=data/reviewed/corrected.csv
        data/reviewed/preferences.jsonl better and worse answers, for trl's DPOTrainer
        data/reviewed/gold.jsonl        data/raw/gold.jsonl and what was filled in on the page
        data/reviewed/gold_drafts.jsonl annotations of the other questions without gold, and what each lacks
        data/reviewed/report.html       the evaluation's report with the reviewers' marks
Params: format, model, the selected profile

No stage: people judge at any time, and nothing of a run depends on them before their answers are made its source.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(__doc__, example="format.style")

from pathlib import Path
from typing import Any

from civilqa.base_model.profiles import read_profile
from civilqa.base_model.prompts import FormatParams, Message, load_prompter
from civilqa.dataset.records import read_records
from civilqa.program.errors import RecordError
from civilqa.program.files import read_jsonl, write_json, write_jsonl, write_text
from civilqa.program.parameters import read_sections
from civilqa.review.agreement import collect_ratings, compare_with_scores, measure_agreement
from civilqa.review.evaluation import PREDICTIONS, read_evaluation
from civilqa.review.exports import (
    correct_records,
    make_gold,
    make_preferences,
    make_records,
    report_marks,
    write_dataset,
)
from civilqa.review.marks import FAULTS, REVIEWS, last_reviews, latest_corrections, read_reviews
from civilqa.scoring.gold import GOLD, read_gold
from civilqa.scoring.report import render_report
from civilqa.scoring.scores import SCORES

RECORDS = Path("data/prepared/records.jsonl")
FOLDER = Path("data/reviewed")


def main() -> None:
    reviews = read_reviews()
    if not reviews:
        raise RecordError(f"{REVIEWS}: holds no review; run `python stages/chat.py review` and judge some answers")
    (prompts,) = read_sections(format=FormatParams)
    prompter = load_prompter(read_profile()[1], prompts.style)
    evaluation, records, last = read_evaluation(), read_records(RECORDS), last_reviews(reviews)
    current = [review for review in last if review.key in evaluation.lines]

    def ask(question: str, category: str) -> list[Message]:
        return prompter.messages(question, prompts.system_prompt(category))

    agreement = measure_agreement(last) | {"scores": compare_with_scores(collect_ratings(current), evaluation.lines)}
    write_json(FOLDER / "agreement.json", agreement)
    print_agreement(agreement)

    corrections = latest_corrections(reviews)
    mended, changed, disputed = correct_records(records, corrections)
    added, open_questions = make_records(records, reviews, corrections)
    write_dataset(FOLDER / "corrected.csv", mended + added)
    print(
        f"{FOLDER / 'corrected.csv'}: {len(mended)} records, {len(changed)} of them with a right answer of a reviewer; "
        f"{len(added)} more from the chat"
    )
    if disputed:
        print(f"  left as they were, since reviewers wrote different right answers: {', '.join(disputed)}")
    if open_questions:
        print(f"  of the chat, left out for the same reason: {', '.join(open_questions)}")

    preferences, opposite = make_preferences(last, ask)
    write_jsonl(FOLDER / "preferences.jsonl", preferences)
    print(
        f"{FOLDER / 'preferences.jsonl'}: {len(preferences)} pairs; {opposite} left out, reviewers prefer opposite ones"
    )

    golds = read_gold()
    whole, drafts = make_gold(mended, golds, reviews)
    write_jsonl(FOLDER / "gold.jsonl", [*read_jsonl(GOLD), *whole])
    write_jsonl(FOLDER / "gold_drafts.jsonl", drafts)
    print(f"{FOLDER / 'gold.jsonl'}: {len(golds)} annotated questions and {len(whole)} that were filled in")
    print(f"{FOLDER / 'gold_drafts.jsonl'}: {len(drafts)} drafts; `todo` says what each lacks")

    lines = {"test": [*evaluation.lines.values()], "train": list(read_jsonl(PREDICTIONS / "train.jsonl"))}
    reviewed = report_marks(current)
    write_text(FOLDER / "report.html", render_report(lines, evaluation.metrics, evaluation.notice, reviewed=reviewed))
    print(f"report: {FOLDER / 'report.html'}")


def print_agreement(agreement: dict[str, Any]) -> None:
    """Print how far people agree, and the scores that agree with them most and least."""
    names, shared = agreement["reviewers"], agreement["answers_of_several"]
    print(f"{len(names)} reviewers ({', '.join(names)}): {agreement['answers']} answers judged, {shared} by several")
    if agreement["not_blind"]:
        print(f"  {agreement['not_blind']} reviews were not blind: the reviewer saw whose answer it was")
    for name, found in [("verdict", agreement["verdict"]), *agreement["faults"].items()]:
        label = f"wrong: {name}" if name in FAULTS else name
        if found:
            low, high = found["interval"]
            print(f"  {label:<16} Krippendorff's alpha {found['alpha']:.2f} [{low:.2f}, {high:.2f}]")
        elif name == "verdict":
            print("  no alpha: it takes two reviewers of the same answers, and verdicts that are not all the same")
    scores = agreement["scores"]
    print(f"of people's verdicts: {scores['usable']} usable, {scores['wrong']} wrong, {scores['disputed']} in dispute")
    for name, found in sorted(scores["scores"].items(), key=lambda pair: -pair[1]["auc"]):
        print(f"  {name:<24} AUC {found['auc']:.2f} of {found['n']} answers ({SCORES[name].label})")


if __name__ == "__main__":
    run(main, lock="reviews")
