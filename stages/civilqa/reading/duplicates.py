"""Rows with the same question: copies of one another, or several answers to it."""

import re
import unicodedata
from dataclasses import replace
from itertools import islice

from civilqa.dataset.records import Record, variant_id
from civilqa.program.errors import RecordError
from civilqa.reading.checks import PrepareParams, Rejected, reject
from civilqa.reading.rows import Row

PLACES_SHOWN = 5

# Reasons for which a row is left out and the stage goes on: what it says is kept, or the user chose the other answer.
LEFT_OUT = ("duplicate", "another_answer")

# What two answers that say the same may differ in. Any other word may turn a statement of law around (선의, 악의), so
# that no measure of similarity is taken: whether two months or three are right, the author must say.
COURTESY = re.compile(r"안녕하(?:세요|십니까)|(?:감사합|감사드립|고맙습)니다")
_PUNCTUATION = "".join(re.escape(chr(i)) for i in range(1 << 16) if unicodedata.category(chr(i)).startswith("P"))
_MARKS = f"[{_PUNCTUATION}\u119e]+"  # with what NFKC makes of ㆍ, which statutes have for a middle dot
MARKS = re.compile(rf"(?<!\d){_MARKS}|{_MARKS}(?!\d)")  # not the point in 3.5
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
# Particles of subject and topic, and the ends of sentences in any level of speech.
_ENDINGS = "은|는|이|가|습니다|\u11b8니다|는다|\u11ab다|다|어요|아요|세요|십시오|십시요|시오|요"
ENDING = re.compile(rf"(?<=\S)(?:{unicodedata.normalize('NFD', _ENDINGS)})(?=\s|$)")


def essence(answer: str) -> str:
    """Return an answer without Unicode form, case, spaces, punctuation, manners, and the endings of its words."""
    text = COURTESY.sub("", unicodedata.normalize("NFKC", answer).casefold())
    text = ENDING.sub("", unicodedata.normalize("NFD", MARKS.sub(" ", THOUSANDS.sub("", text))))
    return re.sub(r"(?<!\d) | (?!\d)", "", " ".join(text.split())) or answer  # not the space in 1, 2


def settle_duplicates(
    records: list[Record], rows: list[Row], params: PrepareParams
) -> tuple[list[Record], list[Row], list[Rejected]]:
    """Return the records and their rows with each question once, or once an answer, and the rows that are left out.

    Of rows whose answers say the same the first is kept. Where they differ, prepare.same_question says what to do. One
    is kept in any case, unless the stage stops for it (prepare.on_invalid: fail).

    Raises:
        RecordError: two questions have the same id by chance.
    """
    first: dict[str, int] = {}
    same_question: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        if first.setdefault(record.id, index) != index:
            same_question.setdefault(record.id, [first[record.id]]).append(index)
    left_out: dict[int, Rejected] = {}
    named: dict[int, Record] = {}
    for indices in same_question.values():
        places = {index: f"{rows[index].file}:{rows[index].line}" for index in indices}
        if len({records[index].question for index in indices}) > 1:
            raise RecordError(f"{', '.join(places.values())}: two questions have the same id by chance; reword one")
        answers: dict[str, int] = {}
        for index in indices:
            kept = answers.setdefault(essence(records[index].answer), index)
            if kept != index:
                nearly = "" if records[index].answer == records[kept].answer else "nearly "
                detail = f"the question of {places[kept]} again with {nearly}the same answer; left out"
                left_out[index] = reject(rows[index], "duplicate", detail, params)
        different = list(answers.values())
        if params.same_question == "keep_variants":
            named |= {index: replace(records[index], id=variant_id(records[index])) for index in different[1:]}
        elif len(different) > 1:
            left_out |= choose(different, rows, places, params)
    stay = [index for index in range(len(records)) if index not in left_out]
    return [named.get(index, records[index]) for index in stay], [rows[index] for index in stay], [*left_out.values()]


def choose(different: list[int], rows: list[Row], places: dict[int, str], params: PrepareParams) -> dict[int, Rejected]:
    """Return which rows with different answers to one question are not kept: all but the first, or all to decide on."""
    if params.same_question == "keep_first" or params.on_invalid == "drop":
        reason = "another_answer" if params.same_question == "keep_first" else "conflicting_duplicate"
        detail = (
            f"the same question has another answer in {places[different[0]]}, which is kept (prepare.same_question)"
        )
        return {index: reject(rows[index], reason, detail, params) for index in different[1:]}
    rejected = {}
    for index in different:
        others = (places[other] for other in different if other != index)
        shown = ", ".join(islice(others, PLACES_SHOWN)) + (" and more" if next(others, None) else "")
        way_on = "delete the wrong one, or set prepare.same_question to keep_first or keep_variants"
        detail = f"the same question has another answer in {shown}; {way_on}"
        rejected[index] = reject(rows[index], "conflicting_duplicate", detail, params)
    return rejected
