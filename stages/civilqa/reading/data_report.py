"""One HTML page to look at before training: what was kept of the data, what was not and why, and what stands out.

The page is self-contained and has no script. It is rendered by Jinja with escaping on, and every text of the data is
masked in it whatever prepare.mask_personal_data says. Its bytes depend on the data and the parameters alone.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from civilqa.dataset.near_duplicates import grams, group_near_duplicates, normalize
from civilqa.dataset.records import Record, difficulty_order
from civilqa.law.statutes import DELETED, NO_SUCH_ARTICLE, NO_SUCH_PARAGRAPH
from civilqa.reading.account import unused_columns
from civilqa.reading.checks import PrepareParams, Rejected
from civilqa.reading.cited_articles import WORDS
from civilqa.reading.personal_data import MASKS, mask_personal_data
from civilqa.reading.source import Reading

TEMPLATE = Path(__file__).with_name("data_report.html.jinja")

SIMILARITY = 0.8  # what params.yaml has as split.near_duplicate_similarity; split's own list decides
FEW = 5  # records of a category: with fewer, some of the five folds of split have none
COMPARED = 2_000  # records; above, the join would take longer than the rest of the stage
SHOWN = 50  # of places and columns
ROWS_SHOWN = 8  # of each reason, and of each group
GROUPS_SHOWN = 30
ENDS_SHOWN = 5  # of the longest and of the shortest
TEXT_SHOWN = 1_200  # characters of a question or an answer
LABEL_SHOWN = 300  # characters of anything else: a category may be a whole text by mistake
BINS = 12

REASONS = {
    "unreadable": "읽을 수 없음",
    "nested": "글이 아닌 값(목록, 객체)",
    "multi_turn": "여러 차례 주고받은 대화",
    "empty": "빈 칸",
    "too_short": "너무 짧음",
    "unknown_category": "허용하지 않은 분야",
    "unknown_difficulty": "허용하지 않은 난이도",
    "damaged_text": "깨진 글자",
    "leftover": "태그나 기호가 남음",
    "no_such_article": "없는 조문 인용",
    "no_such_paragraph": "없는 항 인용",
    "deleted_article": "삭제된 조문 인용",
    "duplicate": "같은 질문에 같은 답변이 또 있음",
    "conflicting_duplicate": "같은 질문에 다른 답변",
    "another_answer": "같은 질문에 다른 답변(첫째를 씀)",
}

# What the page says in Korean of what a message says in English.
KOREAN = {
    "'question' holds": "질문",
    "'answer' holds": "답변",
    "'category' holds": "분야",
    "'difficulty' holds": "난이도",
    "the answer cites ": "",
    "; further articles: ": "; 그 밖의 조문: ",
    f", {WORDS[DELETED]}": " 삭제된 조문",
    f", {WORDS[NO_SUCH_ARTICLE]}": " 없는 조문",
    f", {WORDS[NO_SUCH_PARAGRAPH]}": " 없는 항",
    "; mend the citation, or list what is right in prepare.allowed_citations": "",
}


def render_data_report(reading: Reading, kept: list[Record], params: PrepareParams) -> str:
    """Return the page.

    Args:
        kept: the records of `reading` that were asked for.
    """
    compared = len(kept) <= COMPARED
    alike = {name: near_duplicates(kept, name) if compared else [] for name in ("question", "answer")}
    ends = {name: longest_and_shortest(kept, name) for name in ("answer", "question")}
    shown = {record.id for pair in ends.values() for side in pair for record in side}
    shown |= {
        record.id for groups in alike.values() for group in groups[:GROUPS_SHOWN] for record, _ in group[:ROWS_SHOWN]
    }
    return load_template().render(
        params=params,
        reading=reading,
        kept=len(kept),
        filtered=len(reading.records) - len(kept),
        tables=reading.tables[:SHOWN],
        left_out=reading.left_out[:SHOWN],
        rejected=bars(Counter(row.reason for row in reading.rejected), REASONS),
        rejected_rows=first_of_each_reason(reading.rejected),
        reasons=REASONS,
        personal_data=bars(reading.personal_data, {kind: token.strip("[]") for kind, token in MASKS.items()}),
        names=by_number(reading.possible_names)[: 2 * SHOWN],
        leftover_places=reading.leftover_places[:SHOWN],
        doubts=reading.doubtful_citations[:SHOWN],
        acts=by_number(reading.acts_outside_table)[:SHOWN],
        lengths={name: histogram(Counter(len(getattr(record, name)) for record in kept)) for name in ends},
        **categories(kept),
        compared=compared,
        alike=alike,
        ends=ends,
        places={
            record.id: f"{row.file}:{row.line}"
            for record, row in zip(reading.records, reading.rows, strict=True)
            if record.id in shown
        },
        unused=by_number(unused_columns(reading)),
        constants={"similarity": SIMILARITY, "few": FEW, "compared": COMPARED, "shown": SHOWN, "groups": GROUPS_SHOWN}
        | {"rows": ROWS_SHOWN},
        text_shown=TEXT_SHOWN,
    )


@cache
def load_template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"masked": masked, "korean": korean, "number": lambda value: f"{value:,}"}
    return environment.get_template(TEMPLATE.name)


def masked(text: str, most: int | None = LABEL_SHOWN) -> str:
    """Return text without what points to a person, cut to the most characters there may be."""
    whole = mask_personal_data(text)[0]
    return whole if most is None or len(whole) <= most else f"{whole[:most]}…"


def korean(message: str) -> str:
    for english, words in KOREAN.items():
        message = message.replace(english, words)
    return message


def first_of_each_reason(rejected: Iterable[Rejected]) -> list[Rejected]:
    seen: Counter[str] = Counter()
    first = []
    for row in rejected:
        seen[row.reason] += 1
        if seen[row.reason] <= ROWS_SHOWN:
            first.append(row)
    return sorted(first, key=lambda row: row.reason)


def by_number(counts: Counter[str]) -> list[tuple[str, int]]:
    """Return what was counted, the most frequent first, by name where the numbers are equal."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def bars(counts: Counter[str], labels: dict[str, str]) -> list[tuple[str, int, int]]:
    """Return (label, number, percent of the largest number) of what was counted, the most frequent first."""
    largest = max(counts.values(), default=0)
    return [(labels.get(name, name), number, round(100 * number / largest)) for name, number in by_number(counts)]


def histogram(lengths: Counter[int]) -> dict[str, Any]:
    """Return quartiles of lengths in characters, and bars of equal steps; the last one holds all that is longer.

    The steps are 1, 2 or 5 times a power of ten.
    """
    ordered, total, seen = sorted(lengths), lengths.total(), 0
    quantiles: dict[float, int] = {}
    for length in ordered:
        seen += lengths[length]
        for share in (0.25, 0.5, 0.75, 0.98):
            if seen >= share * total:
                quantiles.setdefault(share, length)
    reach = max(1, quantiles[0.98] - ordered[0])
    step = next(size * 10**power for power in range(12) for size in (1, 2, 5) if size * 10**power * (BINS - 2) >= reach)
    first = ordered[0] // step
    bins = Counter(min(length // step - first, BINS - 1) for length in lengths.elements())
    last = max(bins)
    rows = [
        (
            f"{(first + number) * step:,}자 이상"
            if number == BINS - 1
            else f"{(first + number) * step:,}~{(first + number + 1) * step - 1:,}자",
            bins[number],
            round(100 * bins[number] / max(bins.values())),
        )
        for number in range(last + 1)
    ]
    names = ("q25", "median", "q75")
    quartiles = {name: quantiles[share] for name, share in zip(names, (0.25, 0.5, 0.75), strict=True)}
    return {"min": ordered[0], **quartiles, "max": ordered[-1], "bars": rows}


def categories(kept: Iterable[Record]) -> dict[str, Any]:
    """Return the records by category and difficulty, the largest first, and which of both are few."""
    cells = Counter((record.category or "(없음)", record.difficulty or "(없음)") for record in kept)
    by_category: Counter[str] = Counter()
    by_difficulty: Counter[str] = Counter()
    for (category, difficulty), number in cells.items():
        by_category[category] += number
        by_difficulty[difficulty] += number
    few = [name for counts in (by_category, by_difficulty) for name, number in by_number(counts) if number < FEW]
    difficulties = sorted(by_difficulty.items(), key=lambda item: difficulty_order(item[0]))
    return {"cells": cells, "by_category": by_number(by_category), "by_difficulty": difficulties, "few": few}


def near_duplicates(kept: list[Record], name: str) -> list[list[tuple[Record, float]]]:
    """Return the groups of records whose questions, or answers, are nearly the same, the largest first.

    Each with its similarity to the first of its group, 0 to 1: it may be less than that of a neighbour, which joins
    them.
    """
    groups: dict[int, list[Record]] = {}
    labels = group_near_duplicates([getattr(record, name) for record in kept], SIMILARITY, f"{name}s")
    for record, label in zip(kept, labels, strict=True):
        groups.setdefault(label, []).append(record)
    several = sorted(
        (sorted(group, key=lambda record: record.id) for group in groups.values() if len(group) > 1),
        key=lambda group: (-len(group), group[0].id),
    )
    return [[(record, alike(group[0], record, name)) for record in group] for group in several]


def alike(left: Record, right: Record, name: str) -> float:
    """Return the similarity of two records' questions or answers as near_duplicates measures it, 0 to 1."""
    one, other = (grams(normalize(getattr(record, name))) for record in (left, right))
    return len(one & other) / len(one | other)


def longest_and_shortest(kept: list[Record], name: str) -> tuple[list[Record], list[Record]]:
    """Return the records with the longest and with the shortest questions or answers."""

    def key(record: Record) -> tuple[int, str]:
        return len(getattr(record, name)), record.id

    lengths = sorted(len(getattr(record, name)) for record in kept)
    short, long = lengths[:ENDS_SHOWN][-1], lengths[-ENDS_SHOWN:][0]
    ends = [record for record in kept if not short < len(getattr(record, name)) < long]
    return heapq.nlargest(ENDS_SHOWN, ends, key=key), heapq.nsmallest(ENDS_SHOWN, ends, key=key)
