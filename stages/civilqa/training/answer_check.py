"""Whether the model can be used after an epoch: it is asked the validation questions, and must end and not loop.

The loss on validation answers does not show it. It is lowest long before a base has learned to stop: the epoch that it
would choose answers in fluent circles without end.
"""

from dataclasses import dataclass

from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from civilqa.generation.decoding import Decoding, decode
from civilqa.generation.loops import ends_cleanly, is_hopeless, repeated_share
from civilqa.training.answer_loss import IGNORED_LABEL
from civilqa.training.examples import Examples
from civilqa.training.varlen_attention import VARLEN_ATTENTION

MOST_QUESTIONS = 16  # of the validation split, its first ones: they are asked after every epoch
LOOK_EVERY = 32  # tokens


@dataclass(frozen=True)
class AnswerCheck:
    """The questions that are asked after every epoch, and how."""

    prompts: list[list[int]]
    tokenizer: PreTrainedTokenizerFast
    decoding: Decoding

    def share_failed(self, model: PreTrainedModel) -> float:
        """Return the share of answers, in 0 to 1, that are empty, do not end, or loop."""
        answers: list[list[int]] = [[] for _ in self.prompts]
        # Answers are padded to a batch and read what is cached: training's attention may know neither.
        attention = model.config._attn_implementation
        if attention == VARLEN_ATTENTION:
            model.set_attn_implementation("sdpa")
        # The last state of each prompt is a slice of all: for one, linear under autocast copies the head for each row.
        contiguous = model.get_output_embeddings().register_forward_pre_hook(lambda _, states: states[0].contiguous())
        bar = tqdm(total=self.decoding.max_new_tokens, desc="validation answers", unit="token", leave=False)
        try:
            with bar:
                steps = decode(model, self.tokenizer, self.prompts, self.decoding)
                for count, step in enumerate(steps, start=1):
                    bar.update()
                    for index, token in step:
                        answers[index].append(token)
                    left = self.decoding.max_new_tokens - count
                    if count % LOOK_EVERY == 0 and all(
                        is_hopeless(self._words(answers[index]), count, left) for index, _ in step
                    ):
                        break  # as before the first steps of a base: all that go on go round in circles
        finally:
            contiguous.remove()
            model.set_attn_implementation(attention)
        return 1 - sum(map(self._ends_cleanly, answers)) / len(answers)

    def _ends_cleanly(self, tokens: list[int]) -> bool:
        words = self._words(tokens)
        return ends_cleanly(" ".join(words), repeated_share(words), tokens[-1] == self.decoding.end_token_id)

    def _words(self, tokens: list[int]) -> list[str]:
        return self.tokenizer.decode(tokens, skip_special_tokens=True).split()


def make_answer_check(
    examples: Examples, tokenizer: PreTrainedTokenizerFast, max_new_tokens: int, end_token_id: int
) -> AnswerCheck:
    """Return the check by the first questions of the validation split."""
    asked = examples["validation"][:MOST_QUESTIONS]
    prompts = [example["input_ids"][: example["labels"].count(IGNORED_LABEL)] for example in asked]
    return AnswerCheck(prompts, tokenizer, Decoding(max_new_tokens, len(prompts), end_token_id))
