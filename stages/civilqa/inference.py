"""Asking the tuned model from Python: the engine, a conversation in the terminal, and how fast it answers.

    engine = InferenceEngine()
    engine.load_finetuned_model()
    print(engine.generate_answer("전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?", category="전세사기")["answer"])

Paths are relative to the root of the repository. Nothing heavy is imported before a model is loaded.
"""

import statistics
from typing import Any

from civilqa.chat.engine import Engine

BENCHMARK_QUESTIONS = (
    "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?",
    "등기하지 않은 매수인도 소유권을 주장할 수 있나요?",
    "점유취득시효가 완성되면 바로 소유자가 되나요?",
)


class InferenceEngine(Engine):
    """An engine with what only its user from Python asks of it."""

    def interactive_chat(self) -> None:
        """Answer questions in the terminal until /끝, as `python stages/chat.py` does."""
        from civilqa.chat.terminal import chat

        self._need_model()
        chat(self)

    def benchmark_generation_speed(self, repeats: int = 3, max_new_tokens: int = 64) -> dict[str, Any]:
        """Measure seconds to the first token and tokens a second, one question at a time; print and return them.

        Medians over `repeats` rounds of three questions, after one round that is not counted. The time to the first
        token holds the reading of the question. The stage benchmark measures more, batches and memory among it.
        """
        self._need_model()
        asked = BENCHMARK_QUESTIONS * (repeats + 1)
        results = [self.generate_answer(question, max_new_tokens=max_new_tokens) for question in asked]
        results = results[len(BENCHMARK_QUESTIONS) :]
        first = [result["first_token_seconds"] for result in results]
        speed = [
            (result["tokens"] - 1) / (result["seconds"] - result["first_token_seconds"])
            for result in results
            if result["tokens"] > 1
        ]
        measured = {
            "model": self.name,
            "answers": len(results),
            "first_token_seconds": statistics.median(first),
            "tokens_per_second": statistics.median(speed) if speed else None,
        }
        shown = f"{measured['tokens_per_second']:.1f}" if speed else "(한 토큰 답변뿐)"
        print(
            f"{self.name}: 첫 토큰까지 {measured['first_token_seconds']:.3f}초, 이후 초당 {shown}토큰 "
            f"(답변 {len(first)}개의 중앙값)"
        )
        return measured
