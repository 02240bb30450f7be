"""Gold annotations of questions, and what an answer is worth against one.

`data/raw/gold.jsonl` annotates the rows of the dataset, `data/raw/test_cases.jsonl` holds further cases. A line of
either says which articles a right answer must cite and may cite, its key points in alternative wordings, statements
that would be wrong, and numbers with their units. All judging is by wording: it is exact on citations and numbers, and
it misses a key point or an error that is put in words of its own. It counts what is there, and never guesses.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from civilqa.dataset.records import record_id
from civilqa.law.citations import parse_citations
from civilqa.law.verdicts import Article, CitedArticles, article_of, cited_articles, judge_citations, write_article
from civilqa.program.errors import RecordError
from civilqa.program.files import read_jsonl
from civilqa.scoring.korean import Morpheme, normalize, split_sentences, tag_morphemes
from civilqa.scoring.quantities import Quantity, parse_quantities

GOLD = Path("data/raw/gold.jsonl")
TEST_CASES = Path("data/raw/test_cases.jsonl")

# Of the key points, and of the numbers, so many must be there for an answer to pass: matching by wording misses a
# paraphrase now and then, so that one in four is forgiven.
PASSING_SHARE = 0.75

Text = Annotated[str, Field(min_length=1)]


class Basis(BaseModel):
    """A claim of the reference answer, its source and the words of the source that carry it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    claim: Text
    source: Text
    quote: Text


class Gold(BaseModel):
    """The annotations of one question. `id` is the record's id where it is a row of the dataset.

    Attributes:
        required_citations: what a right answer must cite, as `act article`.
        acceptable_citations: what it may cite besides; neither missing nor wrong.
        key_points: what it must say, each a list of alternative wordings; a wording may end within a word.
        forbidden: wrong statements that are typical for the question, each a full sentence.
        numbers: numbers with units that it must state.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: Text
    question: Text
    required_citations: list[Text]
    acceptable_citations: list[Text]
    key_points: list[Annotated[list[Text], Field(min_length=1)]]
    forbidden: list[Text]
    numbers: list[Text]
    basis: list[Basis] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_notation(self) -> "Gold":
        for name in ("required_citations", "acceptable_citations"):
            written = getattr(self, name)
            for citation in written:
                found = parse_citations(citation)
                if len(found) != 1 or found[0].end != len(normalize(citation)):
                    raise ValueError(f"{name}: {citation!r} is not one citation; write it like '민법 제750조'")
            if len({article_of(parse_citations(citation)[0]) for citation in written}) < len(written):
                raise ValueError(f"{name}: an article is listed twice")
        if both := self.required & {article_of(parse_citations(text)[0]) for text in self.acceptable_citations}:
            raise ValueError(f"{sorted(both)} are required and acceptable; keep each in one list")
        for number in self.numbers:
            if len(parse_quantities(number)) != 1:
                raise ValueError(f"numbers: {number!r} is not one number with a unit, like '3개월' or '2억 4천만원'")
        return self

    @cached_property
    def required(self) -> frozenset[Article]:
        """The articles that a right answer must cite."""
        return frozenset(article_of(parse_citations(text)[0]) for text in self.required_citations)

    @cached_property
    def acceptable(self) -> frozenset[Article]:
        """The articles that it may cite: those listed, and those that the asker named."""
        listed = {article_of(parse_citations(text)[0]) for text in self.acceptable_citations}
        return frozenset(listed | cited_articles(self.question)) - self.required


class TestCase(Gold):
    """A case of its own, never trained on, with the answer of reference.

    `trap` says what is wrong with the question (a wrong premise, an article that does not exist), where something is.
    """

    __test__ = False  # pytest collects classes of this name

    group: Text
    topic: Text
    category: str
    difficulty: str
    trap: str | bool | None
    answer: Text


def read_gold(path: Path = GOLD) -> dict[str, Gold]:
    """Return the annotations of the dataset's rows by record id.

    Raises:
        RecordError: with every line that is not as it must be, in one message.
    """
    return _read(path, Gold, belongs_to_dataset=True)


def read_test_cases(path: Path = TEST_CASES) -> dict[str, TestCase]:
    """Return the further cases by id, in the order of the file.

    Raises:
        RecordError: with every line that is not as it must be, in one message.
    """
    return _read(path, TestCase, belongs_to_dataset=False)


def _read(path: Path, kind: type[Gold], *, belongs_to_dataset: bool) -> dict[str, Any]:
    entries: dict[str, Gold] = {}
    problems = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            entry = kind.model_validate(row)
        except ValidationError as error:
            problems += [
                f"{path}:{number}: {'.'.join(map(str, problem['loc'])) or row.get('id')}: {problem['msg']}"
                for problem in error.errors()
            ]
            continue
        if entry.id in entries:
            problems.append(f"{path}:{number}: id {entry.id!r} again; every id must be unique")
        if belongs_to_dataset and entry.id != record_id(entry.question):
            problems.append(
                f"{path}:{number}: found id {entry.id!r}, but the question's id is {record_id(entry.question)!r}; "
                "the question was changed, or the line belongs to another one"
            )
        entries[entry.id] = entry
    if problems:
        raise RecordError("\n".join(problems))
    return entries


# --- Key points ------------------------------------------------------------------------------------------------------

_NOISE = re.compile(r"[\s\"'“”‘’「」『』()\[\],·ㆍ:;*]+")
# 다음 날부터가 아니라 denies what it names; 뿐만 아니라 does not.
_DENIED = re.compile(r"(?:이|가|은|는|라는것은|라는것이|것은|것이)?(?:아니|아닙|아닌)")
# What a noun may take without a change of meaning. 도, 만, 까지 and 부터 change it.
_CASE_TAGS = ("JKS", "JKC", "JKO", "JKG")
_TOPIC_PARTICLES = {("은", "JX"), ("는", "JX")}


def says(text: str, wording: str) -> bool:
    """Return whether a text says something in a given wording.

    Either as it stands, white space, quotes and brackets aside; or with other case particles, as 임대인의 지위 is said
    by 임대인 지위를: the same morphemes next to each other within a sentence once 이, 가, 을, 를, 의, 은 and 는 are
    out. A wording may end within a word (`해지할 수 있`). It is not said where 이 아니라 follows, nor as the tail of a
    longer number (1년 is not said by 11년).
    """
    wanted = _compact(wording)
    found = _compact(text)
    start = found.find(wanted)
    while start >= 0:
        within_number = wanted[0].isdigit() and start > 0 and found[start - 1].isdigit()
        if not within_number and not _DENIED.match(found, start + len(wanted)):
            return True
        start = found.find(wanted, start + 1)
    run = _bare(tag_morphemes(wording))
    return any(_has_run(_bare(sentence.morphemes), run) for sentence in split_sentences(text))


def _compact(text: str) -> str:
    return _NOISE.sub("", normalize(text))


@lru_cache(maxsize=4096)
def _bare(morphemes: tuple[Morpheme, ...]) -> tuple[Morpheme, ...]:
    out = (*_CASE_TAGS, "SP", "SF", "SSO", "SSC")
    return tuple(m for m in morphemes if m[1] not in out and m not in _TOPIC_PARTICLES)


def _has_run(morphemes: tuple[Morpheme, ...], run: tuple[Morpheme, ...]) -> bool:
    """Whether `run` stands in `morphemes` without a gap, and 아니 does not follow."""
    forms, wanted = [form for form, _ in morphemes], [form for form, _ in run]
    for start in range(len(forms) - len(wanted) + 1):
        end = start + len(wanted)
        if forms[start:end] == wanted and "아니" not in forms[end : end + 1]:
            return True
    return False


# --- Forbidden statements --------------------------------------------------------------------------------------------

_NEGATIONS = {"없", "않", "아니", "못", "안", "못하", "말"}
_CONDITION = {"으면": "면", "면": "면", "다면": "면", "라면": "면", "어야": "야", "아야": "야", "여야": "야"}
_CONCESSION = {"어도", "아도", "여도", "더라도", "라도", "으라도"}
_MEANINGFUL = ("NN", "NR", "SN", "SL", "VV", "VA", "VX", "VCN", "XR", "MAG")
_LIMITS = {("만", "JX"), ("도", "JX"), ("부터", "JX"), ("까지", "JX")}
_EMPTY_NOUNS = {("수", "NNB"), ("것", "NNB"), ("바", "NNB"), ("데", "NNB")}
_REJECTED = re.compile(
    r"틀린|틀렸|틀립|잘못|오해|사실이 아니|사실과 다르|옳지 않|맞지 않|보기 어렵|볼 수 없"
    r"|아닙니다|아니다|아니며|아니고|아니라"
)


def states(text: str, statement: str) -> bool:
    """Return whether a sentence of a text makes a statement.

    It does if the statement's words that carry meaning (nouns, verbs, adjectives, adverbs, numbers, 만, 도, 부터, 까지,
    conditions and concessions) all stand in it in the same order, within about one and a half times the statement's
    length, with as many negations, and if the sentence does not go on to reject them (…는 것은 틀린 말입니다). Endings
    and case particles do not matter. A statement in other words is not found: what is found is there.
    """
    wanted = [form for form, _ in _meaning(tag_morphemes(statement))]
    negations = sum(form in _NEGATIONS for form in wanted)
    for sentence in split_sentences(text):
        found = _meaning(sentence.morphemes)
        end = _ordered_match([form for form, _ in found], wanted, negations)
        if end is not None and not _REJECTED.search(_rest(sentence.text, found, end)):
            return True
    return False


def _meaning(morphemes: Iterable[Morpheme]) -> list[Morpheme]:
    """The morphemes that carry a text's meaning, in order."""
    kept = []
    for form, tag in morphemes:
        if tag == "EC" and (form in _CONDITION or form in _CONCESSION):
            kept.append((_CONDITION.get(form, "어도"), tag))
        elif (form, tag) in _LIMITS or (tag.startswith(_MEANINGFUL) and (form, tag) not in _EMPTY_NOUNS):
            kept.append((form, tag))
    return kept


def _ordered_match(forms: list[str], wanted: list[str], negations: int) -> int | None:
    """Where the first stretch of `forms` ends that holds `wanted` in order, closely, with so many negations."""
    room = len(wanted) * 3 // 2 + 1
    for start in (index for index, form in enumerate(forms) if form == wanted[0]):
        position, matched = start, 0
        while position < min(len(forms), start + room) and matched < len(wanted):
            matched += forms[position] == wanted[matched]
            position += 1
        if matched == len(wanted) and sum(form in _NEGATIONS for form in forms[start:position]) == negations:
            following = forms[position : position + 1]
            if not (following and following[0] in _NEGATIONS):
                return position
    return None


def _rest(sentence: str, found: list[Morpheme], end: int) -> str:
    """What of a sentence stands behind its `end`-th meaningful morpheme, roughly: from the next one's first place."""
    position = 0
    for form, _ in found[:end]:
        at = sentence.find(form, position)
        position = at + len(form) if at >= 0 else position
    return sentence[position:]


# --- The whole answer ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """What an answer is worth against its gold annotations.

    Every score is in 0 to 1, higher is better, None where it does not apply. `passed` asks for every required article,
    PASSING_SHARE of the key points and of the numbers, no forbidden statement and no invented or deleted article;
    `reasons` says in Korean what of this is missing.

    Attributes:
        citation_precision: of the articles cited, acceptable ones aside, the share that is required; None where there
            are none.
        citation_recall: of the required articles, the share that is cited.
        citation_f1: their harmonic mean; 0 where a required article is there to cite and none is cited.
        missing_citations: required, not cited.
        wrong_citations: cited, neither required nor acceptable.
        key_points_hit: for each key point, whether it is said.
        forbidden_found: the forbidden statements that are made.
        numbers_found, numbers_missing: of the gold's numbers.
        numbers_wrong: other numbers in the answer, but for those of the question and the reference answer.
    """

    cited: CitedArticles
    citation_precision: float | None
    citation_recall: float | None
    citation_f1: float | None
    missing_citations: tuple[str, ...]
    wrong_citations: tuple[str, ...]
    key_points_hit: tuple[bool, ...]
    key_point_recall: float | None
    forbidden_found: tuple[str, ...]
    numbers_found: tuple[str, ...]
    numbers_missing: tuple[str, ...]
    numbers_wrong: tuple[str, ...]
    number_f1: float | None
    passed: bool
    reasons: tuple[str, ...]


def judge_answer(text: str, gold: Gold, reference_answer: str | None = None) -> Judgement:
    """Return what an answer is worth against gold annotations.

    Args:
        reference_answer: whose articles and numbers count as acceptable, too; of a TestCase its own `answer`.
    """
    if reference_answer is None:
        reference_answer = gold.answer if isinstance(gold, TestCase) else ""
    acceptable = (gold.acceptable | cited_articles(reference_answer)) - gold.required
    cited = judge_citations(text, allowed=acceptable | gold.required)
    precision, recall, f1 = overlap_scores(cited.all, gold.required, acceptable)
    hit = tuple(any(says(text, wording) for wording in wordings) for wordings in gold.key_points)
    forbidden = tuple(statement for statement in gold.forbidden if states(text, statement))
    numbers = judge_numbers(text, gold, reference_answer)
    judgement = {
        "cited": cited,
        "citation_precision": precision,
        "citation_recall": recall,
        "citation_f1": f1,
        "missing_citations": tuple(map(write_article, sorted(gold.required - cited.all))),
        "wrong_citations": tuple(map(write_article, sorted(cited.all - gold.required - acceptable))),
        "key_points_hit": hit,
        "key_point_recall": sum(hit) / len(hit) if hit else None,
        "forbidden_found": forbidden,
        **numbers,
    }
    reasons = _reasons(judgement, gold)
    return Judgement(**judgement, passed=not reasons, reasons=tuple(reasons))


def judge_numbers(text: str, gold: Gold, reference_answer: str) -> dict[str, Any]:
    """Return number_f1 and the numbers found, missing and wrong. Where the gold has none, number_f1 is None."""
    wanted = {parse_quantities(number)[0]: number for number in gold.numbers}
    found = {quantity: quantity.text for quantity in parse_quantities(text)}
    allowed = {*parse_quantities(gold.question), *parse_quantities(reference_answer)} - set(wanted)
    wrong: set[Quantity] = set(found) - set(wanted) - allowed
    _, _, f1 = overlap_scores(set(found), set(wanted), allowed)
    return {
        "numbers_found": tuple(number for quantity, number in wanted.items() if quantity in found),
        "numbers_missing": tuple(number for quantity, number in wanted.items() if quantity not in found),
        "numbers_wrong": tuple(text for quantity, text in found.items() if quantity in wrong),
        "number_f1": f1,
    }


def overlap_scores(
    found: Iterable[Any], required: Iterable[Any], acceptable: Iterable[Any]
) -> tuple[float | None, float | None, float | None]:
    """Return precision, recall and F1 of a set against a required one; acceptable members count nowhere.

    Precision is None where nothing is left to be right or wrong, recall and F1 where nothing is required.
    """
    required = set(required)
    counted = set(found) - (set(acceptable) - required)
    right = counted & required
    precision = len(right) / len(counted) if counted else None
    if not required:
        return precision, None, None
    return precision, len(right) / len(required), 2 * len(right) / (len(counted) + len(required))


def _reasons(judgement: dict[str, Any], gold: Gold) -> list[str]:
    """Return in Korean what keeps an answer from passing."""
    cited: CitedArticles = judgement["cited"]
    reasons = []
    if judgement["missing_citations"]:
        reasons.append("필수 조문을 인용하지 않음: " + ", ".join(judgement["missing_citations"]))
    if cited.invented:
        reasons.append("없는 조문을 인용함: " + ", ".join(map(write_article, sorted(cited.invented))))
    if cited.deleted:
        reasons.append("삭제된 조문을 인용함: " + ", ".join(map(write_article, sorted(cited.deleted))))
    if judgement["forbidden_found"]:
        reasons.append("틀린 설명이 들어 있음: " + " / ".join(judgement["forbidden_found"]))
    missed = [
        wordings[0] for wordings, hit in zip(gold.key_points, judgement["key_points_hit"], strict=True) if not hit
    ]
    if not _enough(len(gold.key_points) - len(missed), len(gold.key_points)):
        reasons.append(f"핵심 내용 {len(gold.key_points)}개 가운데 {len(missed)}개가 빠짐: " + " / ".join(missed))
    if not _enough(len(judgement["numbers_found"]), len(gold.numbers)):
        reasons.append("숫자가 빠짐: " + ", ".join(judgement["numbers_missing"]))
    return reasons


def _enough(hits: int, wanted: int) -> bool:
    return Fraction(hits) >= Fraction(str(PASSING_SHARE)) * wanted
