"""Pairs of a right statement and its wrong twin: what a model takes for true, asked by likelihood.

`data/raw/contrasts.jsonl` holds a pair a line. A model that knows the law gives the right statement, as the answer to
the question, more likelihood than a wrong one that differs in a word or a number. No wording is matched and no answer
generated; guessing gets one half.

Source: Warstadt et al. 2020, BLiMP: the benchmark of linguistic minimal pairs for English (arXiv:1912.00582).
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from civilqa.base_model.prompts import FormatParams, Prompter
from civilqa.dataset.records import FIELDS, Record, record_id
from civilqa.program.errors import RecordError
from civilqa.program.files import read_jsonl
from civilqa.scoring.comparison import Permutations, compare_all, mean_scores, system_interval
from civilqa.scoring.gold import read_test_cases
from civilqa.scoring.predictions import Prediction, others_of, systems_of
from civilqa.scoring.seeds import average_seeds

CONTRASTS = Path("data/raw/contrasts.jsonl")

Kind = Literal["conclusion", "number", "article", "parties", "condition", "popular_error"]
KINDS: dict[str, str] = dict(
    zip(get_args(Kind), ("결론", "숫자와 기간", "조문", "당사자", "요건", "흔한 오해"), strict=True)
)
Text = Annotated[str, Field(min_length=1)]


class Contrast(BaseModel, frozen=True, strict=True, extra="forbid"):
    """A right and a wrong answer to the question with this `id`, and the words of the source that decide it.

    `kind` is what the wrong one has wrong.
    """

    id: Text
    kind: Kind
    right: Text
    wrong: Text
    source: Text
    quote: Text

    @model_validator(mode="after")
    def _differ(self) -> "Contrast":
        if self.right.strip() == self.wrong.strip():
            raise ValueError("right and wrong are the same statement")
        return self

    @property
    def statements(self) -> tuple[str, str]:
        return self.right, self.wrong


def read_contrasts(path: Path = CONTRASTS) -> dict[str, list[Contrast]]:
    """Return the pairs of each question by its id, in the order of the file; none where there is no file.

    Raises:
        RecordError: with every line that is not as it must be, in one message.
    """
    contrasts: dict[str, list[Contrast]] = defaultdict(list)
    problems = []
    for number, row in enumerate(read_jsonl(path) if path.is_file() else (), start=1):
        try:
            contrast = Contrast.model_validate(row)
        except ValidationError as error:
            problems += [
                f"{path}:{number}: {'.'.join(map(str, problem['loc'])) or row.get('id')}: {problem['msg']}"
                for problem in error.errors()
            ]
            continue
        if any(contrast.statements == other.statements for other in contrasts[contrast.id]):
            problems.append(f"{path}:{number}: the same pair again; keep one")
        contrasts[contrast.id].append(contrast)
    if problems:
        raise RecordError("\n".join(problems))
    return dict(contrasts)


@dataclass(frozen=True)
class PairedQuestions:
    """The questions that have pairs: first the unseen ones, of the test split and of the further cases, then trained.

    Attributes:
        rows: of each question the prompt of the training in `prompt_ids`, and in `statement_ids` the right and the
            wrong statement of each pair in turn, as tokens without the end token; the longest is `completion_ids`.
        unasked: the same with nothing asked.
    """

    contrasts: dict[str, list[Contrast]]
    unseen: list[Record]
    trained: list[Record]
    rows: list[dict[str, Any]]
    unasked: list[dict[str, Any]]

    def lines(self, bits: dict[str, list[list[float]]]) -> list[Prediction]:
        """Return one line a question: its pairs, what their statements cost each system in bits, the shares preferred.

        Args:
            bits: by system, of each of `rows` and `unasked`; of a model that is shown more than the question, only of
                unseen questions' rows.
        """
        lines = []
        count = len(self.rows)
        for index, record in enumerate([*self.unseen, *self.trained]):
            pairs = self.contrasts[record.id]
            line: Prediction = {
                "id": record.id,
                "part": "unseen" if index < len(self.unseen) else "trained",
                "category": record.category,
                "difficulty": record.difficulty,
                "question": record.question,
                "pairs": [pair.model_dump(exclude={"id"}) for pair in pairs],
            }
            tokens = [len(ids) for ids in self.rows[index]["statement_ids"]]
            prior = bits["base"][count + index]
            for system, found in bits.items():
                if index >= len(found):
                    continue
                alone = found[count + index] if len(found) > count else None
                line[system] = {"bits": found[index], **rate_pairs(pairs, tokens, prior, found[index], alone)}
            lines.append(line)
        return lines


def find_pairs(
    contrasts: dict[str, list[Contrast]],
    test: list[Record],
    train: list[Record],
    params: FormatParams,
    prompter: Prompter,
    *,
    further_cases: bool = True,
    max_train_records: int | None = None,
) -> PairedQuestions:
    """Return the questions that have pairs, with what a model is asked of them.

    Args:
        train: the training questions; a further case that is one of them is not unseen.
        further_cases: False: the test questions alone are unseen ones.
        max_train_records: how many of the training questions are asked; None: all.
    """
    known = {record.id for record in train}
    cases = [
        Record(**{name: getattr(case, name) for name in FIELDS})
        for case in (read_test_cases().values() if further_cases else ())
        if record_id(case.question) not in known
    ]
    unseen, trained = (
        [record for record in part if record.id in contrasts] for part in ([*test, *cases], train[:max_train_records])
    )
    rows, unasked = (
        [pair_row(record, question, contrasts[record.id], params, prompter) for record, question in asked]
        for asked in (
            [(record, record.question) for record in (*unseen, *trained)],
            [(record, "") for record in (*unseen, *trained)],
        )
    )
    return PairedQuestions(contrasts, unseen, trained, rows, unasked)


def pair_row(
    record: Record, question: str, contrasts: list[Contrast], params: FormatParams, prompter: Prompter
) -> dict[str, Any]:
    """Return the row of a record; see PairedQuestions."""
    messages = prompter.messages(question, params.system_prompt(record.category))
    texts = [prompter.render(messages)[0]]
    for contrast in contrasts:
        texts += [prompter.render(messages, statement)[1] for statement in contrast.statements]
    prompt_ids, *completions = prompter.encode(texts)
    return {
        "id": record.id,
        "prompt_ids": prompt_ids,
        "completion_ids": max(completions, key=len),
        "statement_ids": [ids[:-1] for ids in completions],
    }


def compare_contrasts(lines: list[Prediction], permutations: Permutations) -> dict[str, Any]:
    """Return what metrics hold of the pairs: of unseen questions also by kind of error, and the adapter's differences.

    Every question counts the same, however many pairs it has; of several seeds, with its mean over them.
    """
    found: dict[str, Any] = {}
    for part in ("unseen", "trained"):
        rated = [line for line in lines if line["part"] == part]
        if not rated:
            continue
        asked = average_seeds(rated)
        systems = systems_of(asked)
        found[part] = {
            "pairs": sum(len(line["pairs"]) for line in asked),
            **mean_scores(asked, systems),
            "interval": {system: system_interval(rated, system, "contrast_accuracy") for system in systems},
        }
        if part == "unseen":
            found["by_kind"] = {kind: share_by_kind(asked, kind, systems) for kind in KINDS}
            found["difference"] = compare_all(rated, "adapter", others_of(systems), permutations)
    return found


def share_by_kind(lines: list[Prediction], kind: str, systems: Iterable[str]) -> dict[str, float | int]:
    """Return how many pairs are of a kind, and for each system the share of them whose right statement it prefers."""
    places = [(line, index) for line in lines for index, pair in enumerate(line["pairs"]) if pair["kind"] == kind]
    shares = {
        system: sum(line[system]["preferred"][index] for line, index in places) / len(places)
        for system in systems
        if places
    }
    return {"pairs": len(places), **shares}


def rate_pairs(
    contrasts: list[Contrast], tokens: list[int], prior: list[float], bits: list[float], alone: list[float] | None
) -> dict[str, Any]:
    """Return for a question's pairs whether the right statement is `preferred` (1, 0, or 0.5 if equal), and `scores`.

    - contrast_accuracy: the share of pairs whose right statement is preferred: by how much likelier it is after the
      question, per character, than the base finds it without one. That takes out what makes a sentence likely
      whatever is asked: how frequent its words are, and into how few tokens they go. 0.5 is chance, higher is better.
      Source: Holtzman et al. 2021, Surface form competition (arXiv:2104.08315).
    - contrast_per_character, contrast_per_token: the same by likelihood as it is.
    - contrast_text_only: by likelihood per character without the question. Far from 0.5, the pairs give themselves
      away to this model. None where it was not asked.

    Args:
        tokens, prior, bits, alone: of the right and the wrong statement of each pair in turn: its number of tokens, and
            in bits what it costs the base without the question, the system after it, and the system without it.
    """
    characters = [len(statement) for contrast in contrasts for statement in contrast.statements]
    gained = _preferred([before - after for before, after in zip(prior, bits, strict=True)], characters)
    shares = {
        "contrast_accuracy": gained,
        "contrast_per_character": _preferred([-bit for bit in bits], characters),
        "contrast_per_token": _preferred([-bit for bit in bits], tokens),
        "contrast_text_only": None if alone is None else _preferred([-bit for bit in alone], characters),
    }
    scores = {name: None if share is None else sum(share) / len(share) for name, share in shares.items()}
    return {"preferred": gained, "scores": scores}


def _preferred(values: list[float], lengths: list[int]) -> list[float]:
    """Return for each pair 1 if its first value is the larger by its length, 0 if the second is, 0.5 if neither."""
    rates = [value / length for value, length in zip(values, lengths, strict=True)]
    return [float(right > wrong) + (right == wrong) / 2 for right, wrong in zip(rates[::2], rates[1::2], strict=True)]
