"""From a record to tokens: the one place that knows the prompt.

format, finetune, evaluate, benchmark and chat all take their tokens from here, so that the model is asked exactly what
it was trained on. Needs no torch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pydantic
from transformers import PreTrainedTokenizerFast

from civilqa.base_model.hub import TOKENIZER, TOKENIZER_EXTRAS, locate
from civilqa.base_model.profiles import Profile
from civilqa.base_model.words import WordEncoder
from civilqa.program.errors import ModelError, RecordError, TemplateError
from civilqa.program.files import at_hand, read_jsonl
from civilqa.program.lifecycle.machine_errors import is_out_of_memory
from civilqa.program.parameters import ArticleCount, Section, Seed

Message = dict[str, str]

TEMPLATE_FILE = "chat_template.jinja"  # as tokenizers save it, so that an adapter folder reads the same
INSTRUCTION_TEMPLATE = Path("models/templates/instruction.jinja")
ROWS_CHECKED = 100  # all of them come from one run of format: the first ones say whether it was this tokenizer's
ARTICLES, QUESTION = "관련 조문:", "질문: "  # what stands before the articles of a prompt, and before its question
AGAIN = "run `dvc repro format` (or python stages/format.py)"

# What a template gets put before it, and why. There, since it goes with the data, the adapter and the export: whatever
# program renders it gets the prompt of training.
NO_THOUGHTS = "{%- set enable_thinking = false %}\n"
SYSTEM_IN_QUESTION = (
    "{%- if messages | length > 1 and messages[0]['role'] == 'system' %}"
    "{%- set asked = messages[0]['content'] + '\\n\\n' + messages[1]['content'] %}"
    "{%- set messages = [{'role': 'user', 'content': asked}] + messages[2:] %}"
    "{%- endif %}\n"
)
DAY = {"%d": "08", "%-d": "8", "%m": "06", "%-m": "6", "%B": "June", "%b": "Jun", "%Y": "2026", "%y": "26"}
DAY |= {"%A": "Monday", "%a": "Mon", "%H": "00", "%M": "00", "%S": "00"}
ONE_DAY = (
    "{%- macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{code}', '{text}')" for code, text in DAY.items())
    + " }}{%- endmacro %}\n"
)
DATE = "08 Jun 2026"
DATED = f'{{%- set date_string = "{DATE}" %}}\n'  # Llama 3's have another day of their own where none is given
NOTES = {
    DATED: "the chat template shows a date: set to 8 June 2026, for whatever program renders it",
    ONE_DAY: "the chat template prints today's date, which changes the data every day: set to 8 June 2026",
    NO_THOUGHTS: "the chat template has thoughts before an answer, and the data has none: set to ask without",
    SYSTEM_IN_QUESTION: "the chat template has no place for a system prompt: set to show it before the question",
}


def load_tokenizer(profile: Profile) -> PreTrainedTokenizerFast:
    """Return the profile's tokenizer with a padding token that is not its end token.

    A padding token that is also the end token would be masked out of the loss together with it, and the tuned model
    would never learn to stop.

    Raises:
        ModelError: the tokenizer cannot be loaded, or it has no token to pad with.
    """
    source = profile.tokenizer_source
    if source != profile.name and not at_hand(source).is_dir():
        raise ModelError(
            f"'{source}' is no folder: a profile's tokenizer is null, for the base model's own, or a folder here; "
            "one from another repository would not be pinned"
        )
    folder = locate(source, profile.revision, [TOKENIZER], TOKENIZER_EXTRAS)
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    except BaseException as error:
        # The Rust tokenizer raises a bare Exception on a file that it cannot parse; where it panics, which is a
        # BaseException that no module exports, it is told by its name.
        if is_out_of_memory(error) or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise
        raise ModelError(f"{source}: the tokenizer in {folder} cannot be read: {error}") from None
    found = f"has no token {profile.pad_token!r}"
    if profile.pad_token is None or profile.pad_token in tokenizer.get_vocab():
        if profile.pad_token is not None:
            tokenizer.pad_token = profile.pad_token
        found = f"its padding token is {tokenizer.pad_token!r} and its end token {tokenizer.eos_token!r}"
        if tokenizer.pad_token not in (None, tokenizer.eos_token):
            found = None
    if found:
        names = [token.content for token in tokenizer.added_tokens_decoder.values()]
        names = [name for name in names if name != tokenizer.eos_token]
        # A token made for padding before one kept in reserve.
        fitting = [name for part in ("pad", "reserved", "unused") for name in names if part in name.lower()]
        example = f", such as {fitting[0]}" if fitting else ""
        to_set = "set the profile's pad_token to a token of its vocabulary that is never used in text"
        raise ModelError(f"{source}: {found}; {to_set}{example}")
    tokenizer.padding_side = "left"
    # What a tokenizer.json may ask for: nothing is ever cut or filled up here.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


class FormatParams(Section):
    style: Literal["conversational", "instruction"]
    system_prompts: dict[str, str]
    statutes_in_prompt: ArticleCount
    seed: Seed

    @pydantic.field_validator("system_prompts")
    @classmethod
    def _has_a_default(cls, prompts: dict[str, str]) -> dict[str, str]:
        if "default" not in prompts:
            raise ValueError("no key 'default', the prompt for any other category, or none")
        return prompts

    def system_prompt(self, category: str) -> str:
        """Return the system prompt of a category, the general one where there is none of its own."""
        return self.system_prompts.get(category, self.system_prompts["default"])


@dataclass(frozen=True)
class Prompter:
    """A tokenizer and the template that the model is trained with."""

    tokenizer: PreTrainedTokenizerFast
    template: str

    @property
    def notes(self) -> list[str]:
        """What `fit_template` has set in the template, for the user."""
        return [note for before, note in NOTES.items() if before in self.template]

    @cached_property
    def special_strings(self) -> list[str]:
        """The strings that the tokenizer would read as one special token wherever they stand, longest first.

        White space is text, also where one token stands for it, as in Gemma for up to 31 line breaks.
        """
        strings = (token.content for token in self.tokenizer.added_tokens_decoder.values())
        return sorted((string for string in strings if string.strip()), key=len, reverse=True)

    def defuse(self, text: str) -> str:
        """Return text in which no special token's string is left: a space goes behind its first character.

        A user who types `<|end_of_text|>` has typed these characters, and must not end the prompt with them.
        """
        for special in self.special_strings:
            if special in text:
                text = text.replace(special, f"{special[0]} {special[1:]}")
        return text

    def messages(self, question: str, system_prompt: str, articles: Sequence[str] = ()) -> list[Message]:
        """Return the conversation that asks a question, after the text of articles if any; each text safe to render."""
        asked = question.strip()
        if articles:
            asked = "\n\n".join([ARTICLES, *articles, QUESTION + asked])
        return [
            {"role": "system", "content": self.defuse(system_prompt)},
            {"role": "user", "content": self.defuse(asked)},
        ]

    def fit_articles(
        self, question: str, system_prompt: str, articles: Sequence[str], room: int
    ) -> tuple[list[Message], int]:
        """Return the conversation with as many of the articles as fit, and how many these are.

        The last ones are left out, each as a whole, until the prompt has at most `room` tokens.
        """
        for count in range(len(articles), 0, -1):
            messages = self.messages(question, system_prompt, articles[:count])
            if len(self.encode([self.render(messages)[0]])[0]) <= room:
                return messages, count
        return self.messages(question, system_prompt), 0

    def render(self, messages: list[Message], answer: str | None = None) -> tuple[str, str]:
        """Return (prompt, completion) as text; the completion ends in the template's end token, or is '' unanswered.

        Raises:
            TemplateError: the template fails, or changes the prompt once the answer is there.
        """
        if answer is None:
            return self._apply([messages], add_generation_prompt=True)[0], ""
        return self.render_answered([messages], [answer])[0]

    def render_answered(self, chats: list[list[Message]], answers: list[str]) -> list[tuple[str, str]]:
        """Return the same of several conversations and their answers; per conversation this takes half the time."""
        _, behind = self._around_an_answer
        ends = next((special for special in self.special_strings if behind.startswith(special)), None)
        pairs = self._render_whole(chats, answers)
        # What stands behind the end token is the next turn's: no model is asked to say it.
        return [(prompt, "".join(reply.partition(ends)[:2])) for prompt, reply in pairs] if ends else pairs

    def _render_whole(self, chats: list[list[Message]], answers: list[str]) -> list[tuple[str, str]]:
        prompts = self._apply(chats, add_generation_prompt=True)
        replies = ({"role": "assistant", "content": self.defuse(answer.strip())} for answer in answers)
        answered = [[*messages, reply] for messages, reply in zip(chats, replies, strict=True)]
        pairs = []
        for prompt, whole in zip(prompts, self._apply(answered, add_generation_prompt=False), strict=True):
            if not whole.startswith(prompt):
                raise TemplateError(
                    "the chat template renders the prompt in another way once it is answered, so that a model trained "
                    f"on the one cannot be asked with the other: {prompt[-80:]!r} is not the start of {whole[:200]!r}"
                )
            pairs.append((prompt, whole[len(prompt) :]))
        return pairs

    @cached_property
    def encoder(self) -> WordEncoder:
        return WordEncoder(self.tokenizer.backend_tokenizer)

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of rendered texts. Prompt and completion are encoded apart, as generation does it."""
        return self.encoder.encode(texts)

    @cached_property
    def _around_an_answer(self) -> tuple[str, str]:
        """What the template puts before an answer, beyond its prompt, and behind it."""
        ((_, completion),) = self._render_whole([[{"role": "user", "content": "가"}]], ["나"])
        before, _, behind = completion.partition("나")
        return before, behind

    @cached_property
    def end_token_id(self) -> int:
        """The token that ends an answer: what the template puts right behind it.

        Raises:
            TemplateError: the template puts no special token there, so a tuned model would never stop; or it puts text
                before an answer, which a tuned model would say.
        """
        before, behind = self._around_an_answer
        if before.strip():
            raise TemplateError(
                f"the chat template puts {before!r} before an answer that the prompt has not: a model trained with it "
                "would say that; take it out of the template"
            )
        ids = self.encode([behind])[0]
        if not ids or self.tokenizer.convert_ids_to_tokens(ids[0]) not in self.special_strings:
            raise TemplateError(
                f"the chat template ends an answer with {behind!r}, which is no special token of "
                f"{self.tokenizer.name_or_path}: a model trained with it would not stop"
            )
        if ids[0] == self.tokenizer.pad_token_id:
            raise TemplateError("the chat template ends an answer with the padding token: set another pad_token")
        return ids[0]

    def _apply(self, chats: list[list[Message]], add_generation_prompt: bool) -> list[str]:
        try:
            # Templates that print a date take it from here, so that they print the same one every day.
            return self.tokenizer.apply_chat_template(
                chats,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                date_string=DATE,
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Jinja lets anything out that an expression in the template raises.
            raise TemplateError(f"the chat template cannot be rendered: {type(error).__name__}: {error}") from error


def load_prompter(profile: Profile, style: str) -> Prompter:
    """Return the profile's tokenizer with the template for a `format.style`.

    Raises:
        TemplateError: the template file is missing.
    """
    tokenizer = load_tokenizer(profile)
    if style == "instruction":
        path = INSTRUCTION_TEMPLATE
    elif profile.template is not None:
        path = Path(profile.template)
    elif own := own_template(tokenizer):
        return Prompter(tokenizer, fit_template(tokenizer, own))
    else:
        raise TemplateError(
            f"{profile.tokenizer_source}: has no chat template of its own; set the profile's template, for a base "
            "model to models/templates/korean_plain.jinja"
        )
    if not path.is_file():
        there = sorted(path.as_posix() for path in INSTRUCTION_TEMPLATE.parent.glob("*.jinja"))
        raise TemplateError(f"{path}: no such template file; there are: {', '.join(there)}")
    return Prompter(tokenizer, fit_template(tokenizer, _read(path)))


def own_template(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Return the tokenizer's chat template, of several the one called default; None where it has none."""
    own = tokenizer.chat_template
    return own.get("default") if isinstance(own, dict) else own


def fit_template(tokenizer: PreTrainedTokenizerFast, template: str) -> str:
    """Return the template, with what it lacks to ask and answer as the data does put before it.

    Qwen 3's ends an answered prompt in empty thoughts, and one to be answered before them: the model would be trained
    to say them. Gemma 2's and Mistral's refuse a system prompt; others leave it out without a word, some of them once
    it is answered. What prints today's date would be other data every day.
    """
    if "enable_thinking" in template and NO_THOUGHTS not in template:
        template = NO_THOUGHTS + template
    if "strftime_now" in template and ONE_DAY not in template:
        template = ONE_DAY + template
    if "date_string" in template and DATED not in template:
        template = DATED + template
    with_system = SYSTEM_IN_QUESTION + template
    if not _shows_system_prompt(tokenizer, template) and _shows_system_prompt(tokenizer, with_system):
        return with_system
    return template


def _shows_system_prompt(tokenizer: PreTrainedTokenizerFast, template: str) -> bool:
    """Return whether it does, and goes on doing so once the question is answered."""
    prompter = Prompter(tokenizer, template)
    try:
        ((prompt, _),) = prompter._render_whole([prompter.messages("라마바", "가나다")], ["사아자"])
        return "가나다" in prompt
    except TemplateError:
        return False


def read_template(folder: Path) -> str:
    """Return the chat template that format put beside the formatted data.

    Raises:
        TemplateError: format has not run.
    """
    path = folder / TEMPLATE_FILE
    if not path.is_file():
        raise TemplateError(f"{path}: not found; run `dvc repro`")
    return _read(path)


def _read(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path}: no UTF-8 ({error}); save it as UTF-8, or take it from git again") from None
    if not text.strip():
        raise TemplateError(f"{path}: is empty; take it from git again")
    return text


def read_formatted(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a formatted split; each has an `id`, and tokens in `prompt_ids` and `completion_ids`.

    Raises:
        RecordError: the file is missing or a line of it is not what format writes; names the file and the line.
    """
    for number, row in enumerate(read_jsonl(path), start=1):
        for name in ("prompt_ids", "completion_ids"):
            ids = row.get(name)
            if not isinstance(ids, list) or not ids or not all(type(token) is int and token >= 0 for token in ids):
                raise RecordError(f"{path}:{number}: '{name}' is no list of tokens; {AGAIN}")
        if not isinstance(row.get("id"), str):
            raise RecordError(f"{path}:{number}: has no 'id'; {AGAIN}")
        yield row


def check_tokens(path: Path, rows: Iterable[dict[str, Any]], prompter: Prompter) -> None:
    """Check that the first rows are what this tokenizer and template make of their text.

    Raises:
        RecordError: names the first that is not.
    """
    for row in islice(rows, ROWS_CHECKED):
        try:
            if "messages" in row:
                *asked, answer = row["messages"]
                texts = prompter.render(asked, answer["content"])
            else:
                texts = (row["prompt"], row["completion"])
            made = prompter.encode(list(texts))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordError(
                f"{path}: record {row['id']} has no text to check its tokens by ({error}); {AGAIN}"
            ) from None
        if made != [row["prompt_ids"], row["completion_ids"]]:
            raise RecordError(
                f"{path}: the tokens of record {row['id']} are not what the profile's tokenizer and the chat template "
                f"beside it make of its text: it was formatted with another profile, or is damaged; {AGAIN}"
            )
