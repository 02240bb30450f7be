"""One HTML page that says whether tuning helped: the verdict first, then every answer beside the gold one.

The page is self-contained: its style and its one script are inline, nothing is loaded, and a content security policy
allows no other script than that one, whatever a model has written. It is rendered by Jinja with escaping on.
"""

import base64
import hashlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from civilqa.law.article_texts import text_at_hand
from civilqa.law.korean import normalize
from civilqa.law.statutes import article_url, load_reference
from civilqa.law.verdicts import KINDS, Article, CitationMark, cited_articles, mark_citations
from civilqa.scoring.comparison import AT_CEILING, AT_FLOOR, BETTER, PRIMARY, UNDECIDED, WORSE
from civilqa.scoring.contrasts import KINDS as ERRORS
from civilqa.scoring.gold import Gold
from civilqa.scoring.llm_judge import CONCLUSION, ERROR, HARM, KEY_POINT, MADE_UP_LAW, read_vote
from civilqa.scoring.predictions import Prediction
from civilqa.scoring.quantities import parse_quantities
from civilqa.scoring.scorer import describe_scores, may_lead, read_scorer
from civilqa.scoring.scores import SCORES

FOLDER = Path(__file__).parent

LABELS = {
    "base": "베이스",
    "few_shot": "베이스 + 예시",
    "retrieved": "베이스 + 비슷한 예시",
    "nearest": "가장 비슷한 학습 답변 복사",
    "retrieval": "베이스 + 찾은 조문",
    "adapter": "튜닝한 모델",
    "adapter_retrieval": "튜닝한 모델 + 찾은 조문",
}
VERDICTS = {
    BETTER: "나아짐",
    WORSE: "나빠짐",
    UNDECIDED: "차이가 보이지 않음",
    AT_FLOOR: "둘 다 바닥이라 알 수 없음",
    AT_CEILING: "둘 다 만점이라 알 수 없음",
}
RUBRIC = {CONCLUSION: "결론", KEY_POINT: "핵심 내용", ERROR: "틀린 설명", MADE_UP_LAW: "없는 법", HARM: "해로움"}
MARKS = {1: "해당함", 0: "해당하지 않음", None: "알 수 없음"}
MOST_END = 0.5  # of the answers; below, that they do not end is the first thing to say
GROUPS = {
    "test_by_category": "분야별",
    "test_by_difficulty": "난이도별",
    "test_by_fold": "폴드별",
    "test_by_seed": "시드별",
}
DIRECTIONS = {"higher": "높을수록 좋음", "lower": "낮을수록 좋음", None: "참고용"}


def render_report(
    lines: dict[str, list[Prediction]],
    metrics: dict[str, Any],
    notice: str,
    title: str = "민사법 질의응답 모델 평가",
    reviewed: dict[str, Any] | None = None,
) -> str:
    """Return the page.

    Args:
        lines: the predictions of the parts `test` and, where it was asked again, `train`.
        metrics: as in metrics/evaluate.json; of pooled runs, as in metrics/folds.json.
        reviewed: what people said of the answers, as civilqa.review.exports.report_marks gives it.
    """
    reference, scorer = load_reference(), read_scorer()
    tidy = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, **tidy)
    environment.filters |= {"figure": figure, "share": lambda value: "–" if value is None else f"{100 * value:.0f}%"}
    environment.globals |= {"url": article_url, "read_vote": read_vote}
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    told = headline(metrics, scorer)
    if not any(line["gold"] for line in lines["test"]):
        told["lines"][:1] = reference_lines(lines["test"])
    told["lines"][:0] = people_lines(reviewed)
    ranked = {part: [*enumerate(sorted(found, key=badness), start=1)] for part, found in lines.items()}
    forgotten = [pair for pair in ranked.get("train", []) if not pair[1]["adapter"]["scores"]["recalled"]]
    return environment.get_template("report.html.jinja").render(
        title=title,
        notice=notice,
        headline=told,
        metrics=metrics,
        errors=ERRORS,
        table=score_table(metrics),
        groups=[(name, metrics[key]) for key, name in GROUPS.items() if key in metrics],
        cards=[card(line, rank) for rank, line in ranked["test"]],
        forgotten=[card(line, rank) for rank, line in forgotten],
        scores=SCORES,
        worth=describe_scores(scorer),
        systems=[system for system in LABELS if system in metrics["test"]],
        compared=[system for system in ("base", "adapter") if system in metrics["test"]],
        labels=LABELS,
        verdicts=VERDICTS,
        directions=DIRECTIONS,
        rubric=RUBRIC,
        marks=MARKS,
        kinds=KINDS | {"elsewhere": "있는 조문이나 기준 답변에 없음"},
        reviews=reviewed["questions"] if reviewed else {},
        as_of=reference.as_of,
        acts=len(reference.acts),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )  # fmt: skip


def headline(metrics: dict[str, Any], scorer: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a reader should take away: a verdict in a phrase, its colour, and what it rests on, a line each.

    It claims no more than the three scores that were named in advance, and is never green where the answers do not end
    or cite no better than copying the nearest training answer.

    Args:
        scorer: how far the scores of the text were found to be trusted, if that was measured.
    """
    test, differences = metrics["test"], metrics["difference"].get("base", {})
    adapter, nearest = test.get("adapter", {}), test.get("nearest", {})
    verdicts = {name: differences[name]["verdict"] for name in PRIMARY if name in differences}
    knows = verdicts.get("contrast_accuracy")
    ends, cites = adapter.get("ends_cleanly"), adapter.get("reference_citation_f1")
    worse = WORSE in verdicts.values()
    copying_wins = cites is not None and cites < nearest.get("reference_citation_f1", 0)
    if ends is not None and ends < MOST_END:
        phrase = "답변 대부분이 끝맺지 못하거나 같은 말을 맴돕니다"
    elif knows == BETTER:
        phrase = "처음 보는 질문에서 옳은 진술을 더 잘 가려냅니다"
        phrase += ". 나빠진 점도 있습니다" if worse else ""
    elif worse:
        phrase = "튜닝한 뒤 나빠진 점이 있습니다"
    elif knows is None:
        phrase = "법률 지식이 늘었는지 잴 자료가 없습니다"
    else:
        phrase = "법률 지식이 늘었는지 이 자료로는 알 수 없습니다"
    good = knows == BETTER and not worse and not copying_wins and (ends is None or ends >= MOST_END)
    bad = worse or (ends is not None and ends < MOST_END)
    tone = "good" if good else "bad" if bad else ""
    return {"phrase": phrase, "tone": tone, "lines": list(headline_lines(metrics, scorer))}


def people_lines(reviewed: dict[str, Any] | None) -> list[tuple[str, str, None]]:
    """Return what people said of the answers, a line as headline_lines yields it; nothing where nobody did."""
    if not reviewed:
        return []
    parts = [f"{LABELS[system]} {of}개 가운데 {usable}개" for system, (usable, of) in reviewed["usable"].items()]
    split = f" 의견이 갈린 {reviewed['disputed']}개는 뺐습니다." if reviewed["disputed"] else ""
    found = f"검토자 {reviewed['reviewers']}명이 쓸 만하다고 한 답변: {', '.join(reversed(parts))}.{split}"
    return [("사람의 검토", found, None)]


def reference_lines(lines: list[Prediction]) -> list[tuple[str, str, None]]:
    """Return likewise what is known of answers where no question has gold: what the reference itself shows."""
    declined = sum(bool(line["adapter"]["scores"]["abstention_rate"]) for line in lines)
    unknown = "정답 주석이 없어 내용은 채점하지 않았습니다. 아래에서 직접 읽거나 "
    unknown += "python stages/chat.py review로 검토하십시오."
    unknown += f" {declined}개는 답하지 않았습니다." if declined else ""
    held = [line for line in lines if beside_reference(line, "adapter").wanted]
    tuned, copied = (sum(follows_reference(line, system) for line in held) for system in ("adapter", "nearest"))
    found = (
        f"기준 답변에 조문이나 숫자가 있는 {len(held)}개 가운데, 그것을 모두 담고 다른 조문은 들지 않은 답변은 "
        f"{tuned}개, 가장 비슷한 학습 답변을 그대로 베끼면 {copied}개입니다. 그렇다고 내용까지 맞다는 뜻은 아닙니다."
        if held
        else "기준 답변에 조문도 숫자도 없어 대조할 것이 없습니다."
    )
    return [("쓸 만한 답변", unknown, None), ("기준 답변과 대조", found, None)]


def headline_lines(metrics: dict[str, Any], scorer: dict[str, Any] | None) -> Iterator[tuple[str, str, str | None]]:
    """Yield (what is asked, what was found, verdict or None), the most important first."""
    test, pairs = metrics["test"], metrics["contrasts"].get("unseen")
    differences = metrics["difference"].get("base", {})
    adapter, nearest, n = test.get("adapter", {}), test.get("nearest", {}), test["n"]
    measured = describe_scores(scorer).get("content_score")
    abstained = round(adapter.get("abstention_rate", 0) * n)
    declined = f", 답하지 않은 것 {abstained}개" if abstained else ""
    if may_lead(scorer, "content_score"):
        scored = test.get("n_scored", {}).get("adapter", {}).get("content_accepted", n)
        count = round(adapter.get("content_accepted", 0) * scored)
        yield "쓸 만한 답변", f"내용 점수로 {n}개 가운데 {count}개{declined}. {measured}", None
    else:
        unknown = "내용이 맞는지는 자동으로 채점한 점수로 믿을 만하게 가릴 수 없습니다. 아래에서 직접 읽으십시오."
        unknown += f" {abstained}개는 답하지 않았습니다." if abstained else ""
        unmeasured = "그 점수가 지금의 채점 코드와 정답 주석에서 얼마나 믿을 만한지는 재지 않았습니다"
        unmeasured += "(python stages/score_the_scores.py)."
        yield "쓸 만한 답변", f"{unknown} {f'내용 점수는 {measured}' if measured else unmeasured}", None
    if pairs:
        base, tuned = (pairs[system]["contrast_accuracy"] for system in ("base", "adapter"))
        low, high = pairs["interval"]["adapter"]
        yield (
            "법률 지식",
            f"처음 보는 질문 {pairs['n']}개의 진술 {pairs['pairs']}쌍에서 옳은 쪽을 더 그럴듯하게 본 비율: "
            f"{100 * base:.0f}% → {100 * tuned:.0f}% (95% 구간 {100 * low:.0f}~{100 * high:.0f}%, 찍으면 50%).",
            differences["contrast_accuracy"]["verdict"],
        )
    leaks = round(nearest.get("copied_near_duplicate", 0) * n)
    same = f" 다만 {n}개 가운데 {leaks}개는 시험 질문과 거의 같은 질문이나 답변을 베낀 것이어서 시험 성적이 아닙니다."
    leaked = same if leaks else ""
    if (cites := adapter.get("reference_citation_f1")) is not None:
        copied = nearest.get("reference_citation_f1", 0)
        than = "높습니다" if cites > copied else "낮습니다" if cites < copied else "같습니다"
        verdict = differences.get("reference_citation_f1", {}).get("verdict")
        only_form = " 나아졌다는 것은 조문을 인용하게 되었다는 뜻일 뿐, 맞는 조문을 안다는 뜻이 아닙니다."
        yield (
            "조문",
            f"기준 답변과의 인용 F1은 {figure(cites, 'citation_f1')}로, 가장 비슷한 학습 답변을 그대로 베낄 때"
            f"({figure(copied, 'citation_f1')})보다 {than}.".replace("보다 같습니다", "와 같습니다")
            + (only_form if verdict == BETTER and cites <= copied else "")
            + leaked
            if nearest
            else f"기준 답변과의 인용 F1은 {figure(cites, 'citation_f1')}입니다.",
            verdict,
        )
    if found := metrics.get("articles", {}).get("recall", {}).get("required", {}).get("at_5"):
        asked, tuned = (test[system].get("reference_citation_f1") for system in ("retrieval", "adapter_retrieval"))
        yield (
            "조문 찾기",
            f"질문의 낱말로 찾은 조문 5개에 필수 조문이 평균 {100 * found['mean']:.0f}% 들어 있습니다(95% 구간 "
            f"{100 * found['low']:.0f}~{100 * found['high']:.0f}%). 그 조문을 보여 주면 기준 답변과의 인용 F1은 베이스 "
            f"{figure(asked, 'citation_f1')}, 튜닝한 모델 {figure(tuned, 'citation_f1')}입니다.",
            None,
        )
    if "ends_cleanly" in adapter:
        count = round(adapter["ends_cleanly"] * n)
        found = f"{n}개 가운데 {count}개가 스스로 끝맺고 같은 말을 맴돌지 않았습니다."
        yield "끝맺음", found, differences.get("ends_cleanly", {}).get("verdict")
    recall = metrics.get("train_recall", {})
    if (recalled := recall.get("adapter", {}).get("recalled")) is not None:
        count, same = (round(recall["n"] * share) for share in (recalled, recall["adapter"]["recalled_with_articles"]))
        others = f" 그 가운데 {count - same}개는 조문이 학습한 답변과 다릅니다." if same < count else ""
        found = f"학습 질문 {recall['n']}개 가운데 {count}개의 답변을 거의 그대로 되살렸습니다.{others}"
        yield "외운 것", f"{found} 시험 성적이 아닙니다.", None


def score_table(metrics: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the names of the scores that any system has, under the headings of their groups."""
    headings: dict[str, list[str]] = {}
    for name, score in SCORES.items():
        if any(name in metrics["test"].get(system, {}) for system in LABELS) and name != "recalled":
            headings.setdefault(score.group, []).append(name)
    return list(headings.items())


class Beside(NamedTuple):
    """An answer's articles and numbers beside those of the reference answer; the question's own count in neither."""

    wanted: int
    missing_articles: list[Article]
    missing_numbers: list[str]
    foreign_articles: list[Article]

    @property
    def share(self) -> float:
        """Of the articles and numbers of the reference and the foreign articles, how many are as they should be."""
        missing = len(self.missing_articles) + len(self.missing_numbers)
        of = self.wanted + len(self.foreign_articles)
        return (self.wanted - missing) / of if of else 1.0


def beside_reference(line: Prediction, system: str) -> Beside:
    """Return what an answer has of the reference answer's articles and numbers, for questions without gold."""
    asked, answer = line["question"], line[system]["answer"]
    cited, wanted = (cited_articles(text, denied=False) for text in (answer, line["reference"]))
    known = cited_articles(asked)
    numbers = {each: each.text for each in parse_quantities(line["reference"]) if each not in parse_quantities(asked)}
    stated = parse_quantities(answer)
    return Beside(
        wanted=len(wanted - known) + len(numbers),
        missing_articles=sorted(wanted - known - cited),
        missing_numbers=[text for number, text in numbers.items() if number not in stated],
        foreign_articles=sorted(cited - wanted - known),
    )


def follows_reference(line: Prediction, system: str) -> bool:
    """Return whether an answer ends, and has every article and number of the reference and no other article."""
    scores, beside = line[system]["scores"], beside_reference(line, system)
    return scores["ends_cleanly"] != 0 and bool(line[system]["answer"].strip()) and beside.share == 1


def badness(line: Prediction) -> tuple:
    """Return a key that sorts the worst answer of the tuned model first.

    Worst first: what does not end or goes round in circles; then what is not accepted before what abstains, which is
    neither right nor wrong, before what is accepted. Among these what harms the asker by a judge's mark; then what
    misleads, a wrong statement or an invented article; then what is missing, without gold of the reference's articles
    and numbers; then the wording.
    """
    of = {name: 0.0 if score is None else score for name, score in line["adapter"]["scores"].items()}
    misleading = of["forbidden_rate"] + of["invented_citation_rate"] + of["deleted_citation_rate"]
    return (
        of["ends_cleanly"],
        0.5 if of["abstention_rate"] else of["content_accepted"],
        -of["judged_harmful"],
        -misleading,
        of["key_point_recall"],
        of["citation_f1"] if line["gold"] else beside_reference(line, "adapter").share,
        of["chrf"],
        line["id"],
    )


def card(line: Prediction, rank: int) -> dict[str, Any]:
    """Return what the template shows of one question."""
    gold = Gold(id=line["id"], question=line["question"], **line["gold"]) if line["gold"] else None
    required = sorted(gold.required) if gold else []
    systems = [system for system in LABELS if system in line]
    cited = {system: {(mark["law"], mark["article"]) for mark in line[system]["citations"]} for system in systems}
    fitting = cited_articles(line["reference"]) | cited_articles(line["question"])
    fitting |= gold.required | gold.acceptable if gold else set()
    return {
        "line": line,
        "rank": rank,
        "required": required,
        "acceptable": sorted(gold.acceptable) if gold else [],
        "key_points": line["gold"]["key_points"] if gold else [],
        "reference": pieces(line["reference"], mark_citations(line["reference"])),
        "answers": {
            system: pieces(line[system]["answer"], [as_fits(mark, fitting) for mark in line[system]["citations"]])
            for system in systems
        },
        "beside": {} if gold else {system: beside_reference(line, system) for system in systems},
        "missing": {system: [one for one in required if one not in cited[system]] for system in systems},
        "problems": problems(line),
        "articles": texts_of({*required, *cited_articles(line["reference"])}.union(*cited.values())),
    }


def texts_of(articles: Iterable[Article]) -> list[tuple[Article, str]]:
    """Return the articles whose text is at hand, with it."""
    found = ((article, text_at_hand(*article)) for article in sorted(articles))
    return [(article, text) for article, text in found if text]


def as_fits(mark: CitationMark, fitting: Collection[Article]) -> CitationMark:
    """Return a citation's mark as the report shows it: an article that exists is `elsewhere` where it does not fit."""
    fits = mark["kind"] != "valid" or (mark["law"], mark["article"]) in fitting
    return mark if fits else {**mark, "kind": "elsewhere"}


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
    if answer["scores"]["ends_cleanly"] == 0:
        repeated = f"되풀이 {figure(answer['scores']['repetition'], 'repetition')}"
        return f"{'같은 말을 맴돎' if answer['stopped'] else '끝맺지 못함'} · {repeated}"
    if answer["scores"]["abstention_rate"]:
        return "답하지 않음"
    if "judgement" not in answer:
        beside = beside_reference(line, "adapter")
        missing = len(beside.missing_articles) + len(beside.missing_numbers)
        found = [f"정답 주석 없음 · 기준 답변의 조문과 숫자 {beside.wanted - missing}/{beside.wanted}"]
        found += [f"기준에 없는 조문 {len(beside.foreign_articles)}"] if beside.foreign_articles else []
        return " · ".join(found)
    judgement = answer["judgement"]
    if judgement["accepted"]:
        return "내용 맞음"
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
    digits = 0 if percent else 1 if name.startswith("chrf") else 2
    value = round(100 * value if percent else value, digits) + 0.0  # no -0
    sign = "+" if signed and value else ""
    unit = ("%p" if signed else "%") if percent else ""
    return f"{value:{sign}.{digits}f}{unit}".replace("-", "−")
