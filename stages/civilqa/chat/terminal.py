"""In the terminal, in Korean: a conversation with commands, from a pipe one answer a line."""

import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from civilqa.chat.categories import AUTOMATIC, category_note
from civilqa.chat.conversations import save_conversation
from civilqa.chat.engine import Engine
from civilqa.chat.stream import AnswerStream
from civilqa.law.article_texts import cited_text
from civilqa.law.verdicts import CITATIONS_NOTE, citation_name, citation_verdict, distinct_citations
from civilqa.program.errors import QuestionError
from civilqa.program.lifecycle.machine_errors import KOREAN, explain
from civilqa.program.lifecycle.safe_output import printable

COMMANDS = {
    "/분야": "분야를 고릅니다. 예: /분야 전세사기 (이름 없이 쓰면 목록을 봅니다)",
    "/이어서": "앞선 질문과 답변을 함께 보낼지 바꿉니다",
    "/초기화": "지금까지의 대화를 잊습니다",
    "/저장": "지금까지의 대화를 파일로 남깁니다 (이 명령 없이는 아무것도 남지 않습니다)",
    "/도움말": "이 도움말을 봅니다",
    "/끝": "나갑니다 (Ctrl-D도 됩니다)",
}
STYLES = {"✓": "green", "✗": "bold red", "△": "yellow", "?": "dim"}

# Of a line of piped input, so that a file without line ends is not read into memory: UTF-8 takes 3 bytes a syllable.
BYTES_A_CHARACTER = 4


def chat(engine: Engine, base: Engine | None = None, category: str = "") -> None:
    """Answer questions until /끝 or the end of the input, `base` beside `engine` where there is one."""
    conversation = Conversation(engine, base, category)
    conversation.console.print(f"\n{engine.notice}", style="yellow")
    conversation.console.print("질문을 적고 Enter를 누르십시오. 명령은 /도움말, 나가기는 /끝입니다.\n", style="dim")
    conversation.typed = sys.stdin.isatty() and sys.stdout.isatty()
    if conversation.typed:
        lines = typed_lines(conversation)
    else:
        lines = piped_lines(sys.stdin.buffer, BYTES_A_CHARACTER * engine.params.max_question_characters)
    for line in lines:
        if line.strip() == "/끝":
            break
        conversation.handle(line)
    conversation.console.print("안녕히 가십시오." if sys.stdin.isatty() else "")


def typed_lines(conversation: "Conversation") -> Iterator[str]:
    """Yield what is typed. Ctrl-C clears the line, Ctrl-D ends. The history is kept in memory alone."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter

    completer = WordCompleter(list(COMMANDS), sentence=True)
    session = PromptSession(completer=completer, complete_while_typing=False)
    while True:
        try:
            yield session.prompt(f"[{conversation.category or AUTOMATIC}] 질문> ")
        except KeyboardInterrupt:
            conversation.console.print("나가려면 /끝을 입력하거나 Ctrl-D를 누르십시오.", style="dim")
        except EOFError:
            return


def piped_lines(file: BinaryIO, limit: int) -> Iterator[str]:
    """Yield the lines of a pipe; one that is longer than `limit` bytes is cut, which makes it too long to ask.

    Bytes that are not UTF-8 become surrogates, which no question may hold.
    """
    while line := file.readline(limit + 1):
        whole = line
        while not line.endswith(b"\n") and line:
            line = file.readline(limit + 1)
        yield whole.decode("utf-8", errors="surrogateescape")


class Conversation:
    """What a conversation in the terminal remembers, and what its commands do."""

    def __init__(self, engine: Engine, base: Engine | None, category: str) -> None:
        self.engines, self.category = [engine, base] if base else [engine], category
        self.passes_turns_on = engine.passes_turns_on()
        self.typed = False  # whether a person is there to go on after Ctrl-C
        self.exchanges: list[list[dict[str, Any]]] = []
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())

    def handle(self, line: str) -> None:
        """Answer a question or obey a command."""
        text = line.strip()
        name, _, argument = text.partition(" ")
        if not text.startswith("/"):
            if text:
                self.ask(line)
        elif name == "/분야":
            self.choose(argument.strip())
        elif name == "/이어서":
            self.toggle_turns()
        elif name == "/초기화":
            self.exchanges.clear()
            self.console.print("대화를 비웠습니다.\n")
        elif name == "/저장":
            self.save()
        else:
            if name != "/도움말":
                self.console.print(f"'{printable(name[:20])}' 명령은 없습니다.")
            for command, meaning in COMMANDS.items():
                self.console.print(f"  {command}  {meaning}")
            self.console.print()

    def choose(self, category: str) -> None:
        known = [AUTOMATIC, *self.engines[0].categories]
        if category in known:
            self.category = "" if category == AUTOMATIC else category
            how = f"'{category}' 분야로" if self.category else "가장 비슷한 학습 질문의 분야로"
            self.console.print(f"이제 {how} 답합니다.\n")
        else:
            problem = f"'{printable(category[:20])}' 분야는 학습하지 않았습니다. " if category else ""
            listed = printable(", ".join(known))
            self.console.print(f"{problem}분야: {listed} (지금은 '{self.category or AUTOMATIC}')\n")

    def toggle_turns(self) -> None:
        if not self.passes_turns_on and not self.engines[0].passes_turns_on("always"):
            self.console.print("이 모델의 대화 형식은 앞선 대화를 담지 못합니다.\n")
            return
        self.passes_turns_on = not self.passes_turns_on
        text = "이제 앞선 질문과 답변을 함께 보냅니다. 질문을 하나씩 학습한 모델은 엉뚱하게 답할 수 있습니다.\n"
        self.console.print(text if self.passes_turns_on else "이제 질문을 하나씩 따로 묻습니다.\n")

    def save(self) -> None:
        if not self.exchanges:
            self.console.print("저장할 대화가 없습니다.\n")
            return
        try:
            path = save_conversation(self.exchanges)
        except OSError as error:
            self.console.print(f"저장하지 못했습니다: {explain(error, KOREAN) or error}\n", style="red")
        else:
            self.console.print(f"{path}에 저장했습니다.\n")

    def ask(self, question: str) -> None:
        """Answer a question, or say why not. Ctrl-C stops the answer, and the program only where nobody types."""
        if not sys.stdin.isatty():
            shown = question.strip().encode("utf-8", "replace").decode()[:200]
            self.console.print(f"[{self.category or AUTOMATIC}] 질문> {printable(shown)}")
        try:
            self.answer(question)
        except QuestionError as error:
            self.console.print(f"{error}\n", style="red")
        except Exception as error:  # what was said so far must not be lost to one answer
            message = explain(error, KOREAN)
            if message is None or not self.typed:
                raise
            self.console.print(f"{message}\n", style="red")

    def answer(self, question: str) -> None:
        """Ask, show what comes as it comes, and remember it.

        Raises:
            QuestionError: the question cannot be asked.
            KeyboardInterrupt: the answer was stopped by Ctrl-C, and nobody types who might ask another.
        """
        streams = []
        for index, engine in enumerate(self.engines):
            earlier = [each[index] for each in self.exchanges] if self.passes_turns_on else []
            history = [(result["question"], result["answer"]) for result in earlier if not result.get("interrupted")]
            streams.append(engine.stream_answer(question, self.category, history=history))
        if len(streams) == 1:
            self.console.print()
            results = receive(streams, lambda _, piece: self.console.print(Text(piece), end="", soft_wrap=True))
            self.console.print()
        else:
            texts = ["", ""]

            def show(index: int, piece: str) -> None:
                texts[index] += piece
                live.update(self.side_by_side([text or "…" for text in texts]), refresh=True)

            with Live(self.side_by_side(["…", "…"]), console=self.console, transient=True, auto_refresh=False) as live:
                results = receive(streams, show)
            self.console.print(self.side_by_side([printable(result["answer"]) or "(답변 없음)" for result in results]))
        if note := category_note(results[0]):
            self.console.print(f"\n{note}", style="dim")
        for result in results:
            self.show_notes(result)
        self.exchanges.append(results)
        if results[0].get("interrupted") and not self.typed:
            raise KeyboardInterrupt

    def side_by_side(self, texts: list[str]) -> Table:
        """Return a table of the models' texts; below each other where the window is narrow."""
        names = [engine.name for engine in self.engines]
        if self.console.width >= 80:
            table = Table(*(Column(name, ratio=1, overflow="fold") for name in names), expand=True)
            table.add_row(*map(Text, texts))
            return table
        table = Table(show_header=False, expand=True, show_lines=True)
        for name, text in zip(names, texts, strict=True):
            table.add_row(Text.assemble((name, "bold"), "\n", text))
        return table

    def show_notes(self, result: dict[str, Any]) -> None:
        """Show the articles cited with what is known of them, and how the answer came to its end."""
        cited = distinct_citations(result)
        if cited:
            self.console.print(f"\n인용 조문 ({result['model']})", style="bold")
            for citation in cited:
                mark, words = citation_verdict(citation)
                name = printable(citation_name(citation))
                self.console.print(Text.assemble((f"  {mark} ", STYLES[mark]), f"{name}: {words}"))
                if text := cited_text(citation):
                    self.console.print(Padding(Text(printable(text), style="dim"), (0, 0, 0, 4)))
            self.console.print(f"  {CITATIONS_NOTE}", style="dim")
        end = "" if result["stopped"] else " · 길이 제한에서 끊김"
        if result.get("interrupted"):
            end = " · 답변을 멈췄습니다"
        name = f"{result['model']}: " if len(self.engines) > 1 else ""
        self.console.print(f"\n{name}{result['tokens']:,}토큰 · {result['seconds']:.1f}초{end}\n", style="dim")


def receive(streams: list[AnswerStream], show: Callable[[int, str], None]) -> list[dict[str, Any]]:
    """Return the results of answers, whose pieces `show` gets with their number as they come; Ctrl-C stops them all."""
    interrupted = {}
    try:
        for index, answering in enumerate(streams):
            for piece in answering:
                show(index, printable(piece))
    except KeyboardInterrupt:
        interrupted = {"interrupted": True}
    finally:
        for answering in streams:
            answering.close()
    return [answering.result | interrupted for answering in streams]
