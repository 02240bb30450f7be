"""Every score of an answer, with its range and which way is better.

Each is of one answer, so that a mean over questions, a difference between two systems on the same questions and its
interval are all made from the same numbers. None stands for a score that does not apply, and is left out of a mean:
the number of questions behind each mean is kept beside it.
"""

import re
from typing import Literal, NamedTuple

from civilqa.generation.loops import ends_cleanly, repeated_share
from civilqa.law.korean import normalize
from civilqa.law.verdicts import CitedArticles, cited_articles, judge_citations
from civilqa.scoring.abstention import abstains
from civilqa.scoring.gold import Gold
from civilqa.scoring.judgement import Judgement, judge_answer, overlap_scores
from civilqa.scoring.similarity import SIMILARITIES, eojeols

RECALLED_CHRF = 90.0  # from here on an answer is the training answer almost word for word


class Score(NamedTuple):
    """What a score is called in Korean, which way is better (None: neither), and its highest value (None: no limit).

    The lowest is 0 for every one. `group` is the heading that it stands under in the report.
    """

    group: str
    label: str
    better: Literal["higher", "lower"] | None
    best: float | None = 1.0


# In the order in which they are shown.
SCORES = {
    "bits_per_character": Score("예측", "기준 답변 한 글자의 비트 수", "lower", None),
    "contrast_accuracy": Score("옳은 진술과 틀린 진술", "옳은 진술을 더 그럴듯하게 본 비율", "higher"),
    "contrast_per_character": Score("옳은 진술과 틀린 진술", "문장 자체의 그럴듯함을 빼지 않은 값, 글자당", "higher"),
    "contrast_per_token": Score("옳은 진술과 틀린 진술", "문장 자체의 그럴듯함을 빼지 않은 값, 토큰당", "higher"),
    "contrast_text_only": Score("옳은 진술과 틀린 진술", "질문 없이 물은 값 (50%에서 멀면 문장만으로 티가 남)", None),
    "content_accepted": Score("법률 내용", "내용 점수가 기준을 넘은 답변", "higher"),
    "abstention_rate": Score("법률 내용", "답하지 않은 답변 (모른다거나 상담하라고만 함)", None),
    "content_score": Score("법률 내용", "내용 점수", "higher"),
    "conclusion_score": Score("법률 내용", "결론", "higher"),
    "key_point_recall": Score("법률 내용", "핵심 내용 재현율", "higher"),
    "judged_right": Score("법률 내용", "옳은 답변 (LLM 채점)", "higher"),
    "judged_key_point_recall": Score("법률 내용", "핵심 내용 재현율 (LLM 채점)", "higher"),
    "judged_harmful": Score("법률 내용", "기한이나 권리를 잃게 하는 답변 (LLM 채점)", "lower"),
    "judge_failures": Score("법률 내용", "LLM 채점을 얻지 못한 항목 수", None, None),
    "forbidden_rate": Score("법률 내용", "틀린 설명이 든 답변", "lower"),
    "number_f1": Score("법률 내용", "숫자 F1", "higher"),
    "citation_rate": Score("조문 인용", "조문을 인용한 답변", "higher"),
    "citation_validity": Score("조문 인용", "실제로 있는 조문의 비율", "higher"),
    "invented_citation_rate": Score("조문 인용", "없는 조문을 인용한 답변", "lower"),
    "deleted_citation_rate": Score("조문 인용", "삭제된 조문을 인용한 답변", "lower"),
    "mistitled_citation_rate": Score("조문 인용", "조문 제목이 틀린 답변", "lower"),
    "outside_citations": Score("조문 인용", "표에 없는 법령의 조문 수", None, None),
    "citation_precision": Score("조문 인용", "인용 정밀도", "higher"),
    "citation_recall": Score("조문 인용", "인용 재현율", "higher"),
    "citation_f1": Score("조문 인용", "인용 F1", "higher"),
    "reference_citation_f1": Score("조문 인용", "기준 답변과의 인용 F1", "higher"),
    "chrf": Score("기준 답변과 닮은 정도", "chrF++", "higher", 100.0),
    "chrf_cut": Score("기준 답변과 닮은 정도", "chrF++ (기준 답변의 길이까지만)", "higher", 100.0),
    "rouge_1": Score("기준 답변과 닮은 정도", "ROUGE-1 (형태소)", "higher"),
    "rouge_2": Score("기준 답변과 닮은 정도", "ROUGE-2 (형태소)", "higher"),
    "rouge_l": Score("기준 답변과 닮은 정도", "ROUGE-L (형태소)", "higher"),
    "eojeol_f1": Score("기준 답변과 닮은 정도", "어절 F1", "higher"),
    "bert_score": Score("기준 답변과 닮은 정도", "BERTScore F1", "higher"),
    "recalled": Score("기준 답변과 닮은 정도", "그대로 되살린 답변", "higher"),
    "ends_cleanly": Score("답변의 모양", "끝맺고 맴돌지 않은 답변", "higher"),
    "stop_rate": Score("답변의 모양", "스스로 끝맺은 답변", "higher"),
    "repetition": Score("답변의 모양", "되풀이한 말의 비율", "lower"),
    "empty_rate": Score("답변의 모양", "빈 답변", "lower"),
    "copied_near_duplicate": Score("답변의 모양", "시험 질문과 거의 같은 학습 질문에서 베낀 답변", None),
    "length_ratio": Score("답변의 모양", "기준 답변 대비 길이", None, None),
    "hangul_share": Score("답변의 모양", "한글의 비율", "higher"),
}

OF_PAIRS = ("contrast_accuracy", "contrast_per_character", "contrast_per_token", "contrast_text_only")  # of no answer
OF_VERDICT = ("content_accepted", "content_score", "conclusion_score")  # of no answer that abstains
OF_JUDGE = ("judged_right", "judged_key_point_recall", "judged_harmful", "judge_failures")
OPTIONAL = (*OF_JUDGE, "bert_score", "copied_near_duplicate")  # the last one of copied answers only


def score_answer(
    text: str,
    question: str,
    reference: str,
    gold: Gold | None,
    stopped: bool | None = None,
    reference_bits: float | None = None,
) -> tuple[dict[str, float | None], Judgement | None]:
    """Return every score of one answer, and without gold no judgement; OPTIONAL ones are None, to be put in later.

    - bits_per_character: what a character of the reference answer costs the model, in bits, 0 to ∞. Comparable under
      one tokenizer and one chat template alone: each divides a text into other steps, and only the cost of one way to
      write it is counted. It needs no generated answer and is the most sensitive of the scores; it does not say whether
      the model's own answers are right.
      Source: Graves 2013, Generating sequences with recurrent neural networks (arXiv:1308.0850), on characters.
    - abstention_rate: 1 if the answer declines to answer and says nothing else; see `civilqa.scoring.abstention`. It is
      neither right nor wrong: content_accepted, content_score and conclusion_score are None.
    - reference_citation_f1: of the articles cited against those of the reference answer, for data without gold. None
      where that cites none. An article is the act's full name and its number with 의; 항, 호 and 목 are not compared.
    - ends_cleanly: 1 for an answer that is not empty, that the model ended itself, and of whose 4-grams at most 15 %
      are repeated: what no answer can be used without. None for an answer that no model generated.

    Args:
        gold: the question's annotations; without them the scores that need them are None.
        stopped: whether the model ended the answer itself; None for an answer that no model generated.
        reference_bits: what the reference answer costs the model, in bits.
    """
    text, reference = normalize(text), normalize(reference)
    judgement = judge_answer(text, gold, reference) if gold else None
    asked = cited_articles(question)
    cited = judgement.cited if judgement else judge_citations(text, allowed=asked)
    repetition = repetition_score(text)
    similar = {name: similarity(text, reference) for name, similarity in SIMILARITIES.items()}
    abstained = abstains(text)
    values = {
        "bits_per_character": None if reference_bits is None else reference_bits / len(reference),
        **({"content_accepted": float(judgement.accepted), **judgement.scores} if judgement else {}),
        **(dict.fromkeys(OF_VERDICT) if abstained else {}),
        "abstention_rate": float(abstained),
        **citation_scores(cited),
        "reference_citation_f1": overlap_scores(cited.all, cited_articles(reference, denied=False), asked)[2],
        **similar,
        "ends_cleanly": None if stopped is None else float(ends_cleanly(text, repetition, stopped)),
        "stop_rate": None if stopped is None else float(stopped),
        "repetition": repetition,
        "empty_rate": float(not text.strip()),
        "length_ratio": len(text) / len(reference),
        "hangul_share": hangul_share(text),
        "recalled": float(similar["chrf"] >= RECALLED_CHRF),
    }
    return {name: values.get(name) for name in SCORES if name not in OF_PAIRS}, judgement


def citation_scores(cited: CitedArticles) -> dict[str, float | None]:
    """Return the scores of an answer's citations that need no gold, from the table of acts in data/reference.

    - citation_rate: 1 if the answer cites any article, else 0. Mean: the share of answers that do. Higher is better.
    - citation_validity: of the different articles cited of acts in the table, the share that is in force. 0 to 1,
      higher is better. None where there is none: an answer without citations is neither right nor wrong here.
    - invented_citation_rate: 1 if the answer cites an article that its act does not have. Lower is better.
    - deleted_citation_rate: 1 if it cites a deleted article. Lower is better.
    - mistitled_citation_rate: 1 if it gives an article another title than its own in brackets. Lower is better.
    - outside_citations: the number of articles of acts, decrees and 부칙 that the table does not hold, 0 to ∞. They
      are real or not, which the table cannot tell: never counted as invented.

    Source: own definitions; 국가법령정보센터 for what exists, see data/reference/README.md.
    """
    known = len(cited.valid) + len(cited.invented) + len(cited.deleted)
    return {
        "citation_rate": float(bool(cited.all)),
        "citation_validity": len(cited.valid) / known if known else None,
        "invented_citation_rate": float(bool(cited.invented)),
        "deleted_citation_rate": float(bool(cited.deleted)),
        "mistitled_citation_rate": float(bool(cited.mistitled)),
        "outside_citations": float(len(cited.outside)),
    }


def repetition_score(text: str) -> float:
    """Return the share of 4-grams of 어절 that stood in the answer before, in 0 to 1; lower is better."""
    return repeated_share(eojeols(text))


def hangul_share(text: str) -> float:
    """Return the share of Hangul among the letters of the answer, in 0 to 1; 0 without letters. Higher is better."""
    letters = [character for character in text if character.isalpha()]
    hangul = [letter for letter in letters if re.match(r"[가-힣ㄱ-ㆎ]", letter)]
    return len(hangul) / len(letters) if letters else 0.0
