"""Asks the tuned model: in the terminal, one question, a file of questions, the test cases, or a page in the browser.

    python stages/chat.py                          a conversation; questions from a pipe are answered line by line
    python stages/chat.py --question 질문 [--json]  one answer
    python stages/chat.py batch IN OUT             a table of questions to .jsonl, .csv or .xlsx; goes on where stopped
    python stages/chat.py test                     data/raw/test_cases.jsonl: answers, accepted or not and why, a page
    python stages/chat.py web                      a page on this machine
    python stages/chat.py review                   a page to judge and mend the answers of the last evaluation

Reads:  models/adapter with its chat template, the profile's base model; review: data/predictions, metrics/evaluate.json
Writes: what it is told to; test: data/test_cases/report.html; review: data/reviews
Params: chat, format, model, the selected profile, hardware, reference

No stage: no output of it is tracked. Unlike the stages it has arguments, since its user has no parameters to edit.
"""

from civilqa.program.lifecycle.machine_errors import KOREAN
from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start(messages=KOREAN)

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from civilqa.chat.engine import ADAPTER
from civilqa.inference import InferenceEngine
from civilqa.law.versions import find_statutes
from civilqa.program.errors import ParameterError

SETTINGS = {
    "max_new_tokens": (int, "답변의 최대 토큰 수"),
    "temperature": (float, "0이면 항상 같은 답, 클수록 다양한 답 (0~2)"),
    "top_p": (float, "확률 합이 이 값이 될 때까지의 후보에서 고름 (0~1)"),
    "repetition_penalty": (float, "1보다 크면 같은 말을 덜 되풀이함 (1~2)"),
    "seed": (int, "temperature가 0보다 클 때 쓰는 난수의 씨앗"),
}


class KoreanParser(argparse.ArgumentParser):
    """argparse with its headings in Korean."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(add_help=False, allow_abbrev=False, **kwargs)
        self._positionals.title, self._optionals.title = "인자", "옵션"
        self.add_argument("-h", "--help", action="help", help="이 도움말을 보고 끝냅니다")

    def format_help(self) -> str:
        return super().format_help().replace("usage:", "사용법:", 1)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.format_usage().replace('usage:', '사용법:', 1)}오류: {message}\n")


def make_parser() -> KoreanParser:
    parser = KoreanParser(
        prog="python stages/chat.py", description="미세조정한 모델에게 민법을 묻습니다. 답변은 법률 자문이 아닙니다."
    )
    add_model_options(parser)
    parser.add_argument("--base", action="store_true", help="기반 모델(미세조정 전)의 답변을 나란히 봅니다")
    parser.add_argument("--question", metavar="질문", help="이 질문에만 답하고 끝냅니다")
    parser.add_argument("--json", action="store_true", help="--question의 답변을 JSON 한 줄로 출력합니다")
    commands = parser.add_subparsers(metavar="명령", title="명령", parser_class=KoreanParser)

    batch = commands.add_parser("batch", help="파일의 질문에 모두 답합니다. 중단되면 이어서 합니다")
    columns = "question(질문) 열이 있는 CSV, JSON, 엑셀, Parquet 파일. category(분야) 열은 없어도 됩니다"
    batch.add_argument("source", metavar="질문파일", type=Path, help=columns)
    batch.add_argument("target", metavar="답변파일", type=Path, help="새로 쓸 .jsonl, .csv(엑셀용) 또는 .xlsx")
    batch.add_argument("--batch-size", type=int, help="한 번에 답할 질문 수")
    batch.add_argument(
        "--engine-url", metavar="주소", help="모델을 여기서 돌리지 않고 물을 서버: http://localhost:8000/v1"
    )
    batch.add_argument("--engine-model", metavar="이름", help="그 서버가 부르는 모델 이름. 하나뿐이면 없어도 됩니다")
    test = commands.add_parser("test", help="시험 사례에 답하게 하고 묶음별로 내용이 맞는지와 이유를 봅니다")
    web = commands.add_parser("web", help="이 컴퓨터의 웹 브라우저에서 묻습니다")
    web.add_argument("--host", default="127.0.0.1", help="주소. 기본값 127.0.0.1은 이 컴퓨터에서만 열립니다")
    web.add_argument("--port", type=int, default=7860, help="포트 (기본값 7860)")
    review = commands.add_parser("review", help="마지막 평가의 답변을 브라우저에서 검토하고 바로잡습니다")
    review.add_argument("--port", type=int, default=7860, help="포트 (기본값 7860)")
    review.set_defaults(act=review_answers)
    parser.set_defaults(act=converse)
    for command, act in ((batch, answer_batch), (test, run_tests), (web, serve)):
        # SUPPRESS: what stands before the command is not set back to a default.
        add_model_options(command, argparse.SUPPRESS)
        command.set_defaults(act=act)
    return parser


def add_model_options(parser: KoreanParser, default: Any = None) -> None:
    folder = f"어댑터나 병합된 모델의 폴더 (기본값 {ADAPTER})"
    parser.add_argument("--model", metavar="폴더", type=Path, default=default or ADAPTER, help=folder)
    category = "분야: 모델이 학습한 것 가운데 하나. 없으면 가장 비슷한 학습 질문의 분야"
    parser.add_argument("--category", metavar="분야", default="" if default is None else default, help=category)
    for name, (kind, meaning) in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="값", type=kind, default=default, help=meaning)


def main() -> None:
    arguments = make_parser().parse_args()
    engine = InferenceEngine()
    given = {name: getattr(arguments, name, None) for name in (*SETTINGS, "batch_size", "engine_url", "engine_model")}
    engine.configure(**{name: value for name, value in given.items() if value is not None})
    if arguments.category and engine.has_model(arguments.model):
        from civilqa.chat.categories import check_category

        check_category(arguments.model, arguments.category)
    if arguments.json and arguments.question is None:
        raise ParameterError("--json은 --question과 함께 씁니다.")
    find_statutes()  # what is wrong with them is said now, rather than beside an answer
    arguments.act(engine, arguments)


def converse(engine: InferenceEngine, arguments: argparse.Namespace) -> None:
    from civilqa.chat.terminal import Conversation, chat

    engine.load_finetuned_model(arguments.model)
    base = engine.load_base_beside() if arguments.base else None
    if arguments.question is None:
        chat(engine, base, arguments.category)
    elif arguments.json:
        for one in filter(None, (engine, base)):
            print(json.dumps(one.generate_answer(arguments.question, arguments.category), ensure_ascii=False))
    else:
        conversation = Conversation(engine, base, arguments.category)
        conversation.console.print(engine.notice, style="yellow")
        conversation.answer(arguments.question)


def answer_batch(engine: InferenceEngine, arguments: argparse.Namespace) -> None:
    from civilqa.chat.batch import answer_file, check_files
    from civilqa.chat.served import ServedEngine

    check_files(arguments.source, arguments.target)  # what is wrong is said before the model is loaded
    if engine.params.engine_url:
        engine = ServedEngine().configure(**engine.params.model_dump())
    engine.load_finetuned_model(arguments.model)
    refused = answer_file(engine, arguments.source, arguments.target, arguments.category)
    print(f"{arguments.target}에 답변을 모두 썼습니다.")
    if refused:
        print(f"답하지 못한 질문이 {refused}건 있습니다. 이유는 각 줄의 error에 있습니다.", file=sys.stderr)


def run_tests(engine: InferenceEngine, arguments: argparse.Namespace) -> None:
    from civilqa.chat.case_report import report_cases
    from civilqa.scoring.gold import read_test_cases

    cases = list(read_test_cases().values())  # what is wrong with them is said before the model is loaded
    report_cases(engine.load_finetuned_model(arguments.model), cases)


def serve(engine: InferenceEngine, arguments: argparse.Namespace) -> None:
    from civilqa.chat.web.page import serve_page

    serve_page(engine, arguments.model, arguments.host, arguments.port)


def review_answers(engine: InferenceEngine, arguments: argparse.Namespace) -> None:
    from civilqa.chat.web.review import serve_review

    serve_review(arguments.port)


if __name__ == "__main__":
    run(main, messages=KOREAN)
