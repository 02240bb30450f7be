"""One HTML page that says whether tuning helped: the verdict first, then every answer beside the gold one.

The page is self-contained: its style and its one script are inline, nothing is loaded, and a content security policy
allows no other script than that one, whatever a model has written. It is rendered by Jinja with escaping on.
"""

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from civilqa.law.statutes import article_url, load_reference
from civilqa.law.verdicts import KINDS, CitationMark, mark_citations
from civilqa.scoring.comparison import BETTER, EQUAL, UNDECIDED, WORSE
from civilqa.scoring.gold import Gold
from civilqa.scoring.korean import normalize
from civilqa.scoring.predictions import Prediction
from civilqa.scoring.scores import SCORES

FOLDER = Path(__file__).parent

LABELS = {
    "base": "베이스",
    "few_shot": "베이스 + 예시",
    "nearest": "가장 비슷한 학습 답변 복사",
    "adapter": "튜닝한 모델",
}
VERDICTS = {BETTER: "나아짐", WORSE: "나빠짐", EQUAL: "차이 없음", UNDECIDED: "판정 불가"}
GROUPS = {"test_by_category": "분야별", "test_by_difficulty": "난이도별", "test_by_fold": "폴드별"}
DIRECTIONS = {"higher": "높을수록 좋음", "lower": "낮을수록 좋음", None: "참고용"}


def render_report(
    lines: dict[str, list[Prediction]], metrics: dict[str, Any], notice: str, title: str = "민사법 질의응답 모델 평가"
) -> str:
    """Return the page.

    Args:
        lines: the predictions of the parts `test` and, where it was asked again, `train`.
        metrics: as in metrics/evaluate.json; `test_by_fold` is shown where it is there.
    """
    reference = load_reference()
    tidy = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, **tidy)
    environment.filters |= {"figure": figure, "share": lambda value: "–" if value is None else f"{100 * value:.0f}%"}
    environment.globals |= {"url": article_url}
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    ranked = {part: [*enumerate(sorted(found, key=badness), start=1)] for part, found in lines.items()}
    forgotten = [pair for pair in ranked.get("train", []) if not pair[1]["adapter"]["scores"]["recalled"]]
    differences = metrics["difference"].get("base", {}).values()
    return environment.get_template("report.html.jinja").render(
        title=title,
        notice=notice,
        headline=headline(metrics),
        metrics=metrics,
        tally={name: sum(found["verdict"] == name for found in differences) for name in VERDICTS},
        table=score_table(metrics),
        groups=[(name, metrics[key]) for key, name in GROUPS.items() if key in metrics],
        cards=[card(line, rank) for rank, line in ranked["test"]],
        forgotten=[card(line, rank) for rank, line in forgotten],
        scores=SCORES,
        systems=[system for system in LABELS if system in metrics["test"]],
        labels=LABELS,
        verdicts=VERDICTS,
        directions=DIRECTIONS,
        kinds=KINDS,
        as_of=reference.as_of,
        acts=len(reference.acts),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def headline(metrics: dict[str, Any]) -> dict[str, str]:
    """Return what a reader should take away: a verdict in a phrase, and sentences on prediction, answers and recall."""
    differences = metrics["difference"].get("base", {})
    n = metrics["test"]["n"]
    bits = differences.get("bits_per_character")
    substance = {name: differences[name]["verdict"] for name in SUBSTANCE if name in differences}
    better = [SCORES[name].label for name, found in substance.items() if found == BETTER]
    worse = [SCORES[name].label for name, found in substance.items() if found == WORSE]
    passed = ""
    if "passed" in metrics["test"].get("adapter", {}):
        annotated = differences["passed"]["n"] if "passed" in differences else n
        counts = {system: round(metrics["test"][system]["passed"] * annotated) for system in ("base", "adapter")}
        passed = f" 통과한 답변은 베이스 {counts['base']}개, 튜닝한 모델 {counts['adapter']}개({annotated}문항)입니다."
    if "passed" not in substance:
        answers = "정답 주석이 없어 답변의 법률 내용은 채점하지 않았습니다."
    elif better or worse:
        parts = [f"{', '.join(names)}에서 {how}" for names, how in ((better, "나아졌고"), (worse, "나빠졌고")) if names]
        answers = f"답변의 법률 내용은 {', '.join(parts)}, 나머지는 {n}문항으로 판정할 수 없습니다."
    else:
        answers = f"답변의 법률 내용이 나아졌는지는 시험 질문 {n}개로 판정할 수 없습니다."
    verdict = UNDECIDED if bits is None else bits["verdict"]
    if verdict == BETTER and not worse:
        phrase = "튜닝이 도움이 되었습니다" if better else "예측은 나아졌고, 답변의 법률 내용은 아직 판정할 수 없습니다"
    elif verdict == WORSE and not better:
        phrase = "튜닝한 뒤 나빠졌습니다"
    elif verdict == BETTER or better:
        phrase = "나아진 점과 나빠진 점이 함께 있습니다" if worse else "답변의 법률 내용이 나아졌습니다"
    else:
        phrase = "튜닝이 도움이 되었는지 판정할 수 없습니다"
    return {"phrase": phrase, "answers": answers + passed, "verdict": verdict}


# What an answer is worth to someone who asks a legal question, apart from its wording.
SUBSTANCE = ("passed", "key_point_recall", "forbidden_rate", "number_f1", "citation_f1", "invented_citation_rate")


def score_table(metrics: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the names of the scores that any system has, under the headings of their groups."""
    headings: dict[str, list[str]] = {}
    for name, score in SCORES.items():
        if any(name in metrics["test"].get(system, {}) for system in LABELS) and name != "recalled":
            headings.setdefault(score.group, []).append(name)
    return list(headings.items())


def badness(line: Prediction) -> tuple:
    """Return a key that sorts the worst answer of the tuned model first.

    Worst first: a wrong statement or an invented article misleads; then what is missing; then the wording.
    """
    of = {name: 0.0 if score is None else score for name, score in line["adapter"]["scores"].items()}
    misleading = of["forbidden_rate"] + of["invented_citation_rate"] + of["deleted_citation_rate"]
    return of["passed"], -misleading, of["key_point_recall"], of["citation_f1"], of["chrf"], line["id"]


def card(line: Prediction, rank: int) -> dict[str, Any]:
    """Return what the template shows of one question."""
    gold = Gold(id=line["id"], question=line["question"], **line["gold"]) if line["gold"] else None
    required = sorted(gold.required) if gold else []
    systems = [system for system in LABELS if system in line]
    cited = {system: {(mark["law"], mark["article"]) for mark in line[system]["citations"]} for system in systems}
    return {
        "line": line,
        "rank": rank,
        "required": required,
        "acceptable": sorted(gold.acceptable) if gold else [],
        "key_points": line["gold"]["key_points"] if gold else [],
        "reference": pieces(line["reference"], mark_citations(line["reference"])),
        "answers": {system: pieces(line[system]["answer"], line[system]["citations"]) for system in systems},
        "missing": {system: [one for one in required if one not in cited[system]] for system in systems},
        "problems": problems(line),
    }


def pieces(text: str, citations: list[CitationMark]) -> list[tuple[str, CitationMark | None]]:
    """Return a text in pieces, each with its citation or None. Citations of one range share a piece."""
    text = normalize(text)
    found: list[tuple[str, CitationMark | None]] = []
    position = 0
    for citation in citations:
        if citation["start"] < position:
            continue
        if citation["start"] > position:
            found.append((text[position : citation["start"]], None))
        found.append((text[citation["start"] : citation["end"]], citation))
        position = citation["end"]
    return [*found, (text[position:], None)] if position < len(text) else found


def problems(line: Prediction) -> str:
    """Return in one line of Korean what is wrong with the tuned model's answer."""
    answer = line["adapter"]
    if not answer["answer"].strip():
        return "빈 답변"
    if "judgement" not in answer:
        return f"정답 주석 없음 · chrF++ {answer['scores']['chrf']:.1f}"
    judgement = answer["judgement"]
    if judgement["passed"]:
        return "통과"
    hit, points = sum(judgement["key_points_hit"]), len(judgement["key_points_hit"])
    found = [f"핵심 내용 {hit}/{points}"]
    if judgement["missing_citations"]:
        found.append(f"빠진 필수 조문 {len(judgement['missing_citations'])}")
    if count := len({(c["law"], c["article"]) for c in answer["citations"] if c["kind"] in ("invented", "deleted")}):
        found.append(f"없거나 삭제된 조문 {count}")
    if judgement["forbidden_found"]:
        found.append(f"틀린 설명 {len(judgement['forbidden_found'])}")
    return " · ".join(found)


def figure(value: float | None, name: str, signed: bool = False) -> str:
    """Return a score as a reader wants it: shares in percent, others with as many digits as they are worth."""
    if value is None:
        return "–"
    percent = SCORES[name].best == 1.0
    digits = 0 if percent else 1 if name == "chrf" else 2
    value = round(100 * value if percent else value, digits) + 0.0  # no -0
    sign = "+" if signed and value else ""
    unit = ("%p" if signed else "%") if percent else ""
    return f"{value:{sign}.{digits}f}{unit}".replace("-", "−")
