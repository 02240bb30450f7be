"""Answers questions with the tuned model, with its base, or with a merged model folder.

The prompt is the one of training, to the token. Greedy unless asked otherwise: the same question gets the same answer.
Paths are relative to the root of the repository. Nothing heavy is imported before a model is loaded.
"""

import contextlib
import copy
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from civilqa.chat.stream import AnswerStream, without_torn_end
from civilqa.law.verdicts import look_up_citations
from civilqa.model.processes import ADAPTER, who_writes
from civilqa.program.errors import ModelError, ParameterError, PipelineError, QuestionError, TemplateError
from civilqa.program.files import sha256_file, stamp
from civilqa.program.parameters import BatchSize, Section, Text, check, read_sections
from civilqa.reading.cleaning import clean

if TYPE_CHECKING:
    from civilqa.base_model.profiles import Profile
    from civilqa.generation.decoding import Decoding
    from civilqa.model.hardware import HardwareParams

MERGED = Path("models/merged")

# What a model is called where its answers are shown.
TUNED, BASE = "미세조정 모델", "기반 모델"


class ChatParams(Section):
    """How questions are asked. Every field may be given to a call instead: generate_answer(question, temperature=0.5).

    temperature 0 is greedy; above it `top_p` and `seed` say how is drawn. multi_turn `auto` passes earlier turns on
    where the base was made for conversations: training asks each question by itself. The fields `engine_` are for
    civilqa.chat.served alone, which asks another program.
    """

    max_new_tokens: Annotated[int, Field(ge=1, le=8192)]
    temperature: Annotated[float, Field(ge=0, le=2)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    repetition_penalty: Annotated[float, Field(ge=1, le=2)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    batch_size: BatchSize
    max_question_characters: Annotated[int, Field(ge=1, le=100_000)]
    multi_turn: Literal["auto", "always", "never"]
    engine_url: Text | None
    engine_model: Text | None
    engine_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)]


Turn = tuple[str, str]  # an earlier question and its answer


class Engine:
    """One loaded model that answers questions. Threads may share it; it generates for one of them at a time."""

    def __init__(self) -> None:
        """Read the parameters; no model is loaded yet."""
        from civilqa.base_model.profiles import read_profile

        (self.params,) = read_sections(chat=ChatParams)
        self.model_params, self.profile = read_profile()
        self.notice = self.profile.notice  # what a reader must be told beside any answer, in Korean
        self.name = ""
        self._model: Any = None
        self._hardware: Any = None  # of a model in this process
        self._prompter: Any = None
        self.prompts: Any = None
        self._choice: Any = None  # of the category
        self.adapter_sha256: str | None = None  # of the adapter's weights, also where they are merged
        self._articles: Any = None  # to find those that a question is about, where training showed articles:
        self._article_count = 0  # so many
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")

    # Loading

    @staticmethod
    def has_model(folder: Path | str) -> bool:
        """Return whether a folder holds an adapter or a full model, whole or not."""
        return any((Path(folder) / name).is_file() for name in ("adapter_config.json", "config.json"))

    def load_finetuned_model(self, folder: Path | str = ADAPTER) -> Self:
        """Load an adapter on its base, or a full model as stages/export.py writes it.

        Raises:
            ModelError: there is neither in the folder, or it is not whole, or the adapter belongs to another base,
                tokenizer or chat template.
        """
        folder = Path(folder)
        if not self.has_model(folder):
            if writer := who_writes(folder):
                raise ModelError(f"{folder}: 지금 학습하는 중입니다({writer}). 끝난 뒤에 다시 실행하십시오.")
            raise ModelError(
                f"{folder}: 학습된 모델이 없습니다. 먼저 `dvc repro finetune`(또는 python stages/finetune.py)으로 "
                "학습하거나 `dvc pull`로 받아 오십시오."
            )
        self._folder, self._stamp = folder, stamp(folder)
        try:
            self._load(folder)
        except (PipelineError, OSError) as error:
            self._check_that_nothing_was_replaced()  # whatever was met then
            if not isinstance(error, ModelError | TemplateError):
                raise
            raise type(error)(
                f"{folder}: 이 모델을 불러올 수 없습니다. 파일이 손상되었거나 지금의 설정과 맞지 않습니다. "
                f"아래 이유를 보고 설정이나 파일을 되돌리거나 `dvc repro`로 다시 만드십시오.\n{error}"
            ) from None
        self._check_that_nothing_was_replaced()
        return self

    def load_base_beside(self) -> Self:
        """Return another engine with the base of this one, asked with the same prompts and settings.

        Nothing is read again but the base: parameters and adapter may have been changed since this engine was loaded.
        """
        from civilqa.model.loading import load_base

        self._need_model()
        beside = copy.copy(self)
        beside._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")
        beside._model = load_base(self.model_params, self.profile, self._hardware)
        beside._folder, beside._merged, beside._adapter, beside.name = None, False, None, BASE
        return beside

    def load_base_model(self) -> Self:
        """Load the profile's base to compare with, asked with the template of the adapter where there is one."""
        return self._load(None)

    def _load(self, folder: Path | None) -> Self:
        """Load a folder's adapter or full model, or the base where there is no folder."""
        # bitsandbytes looks for an optional package when it is imported, and calls its absence a failure.
        getLogger("bitsandbytes").setLevel("ERROR")
        # Here, since they import torch: --help and a wrong argument should not wait for it.
        from transformers.utils import logging

        from civilqa.base_model import prompts
        from civilqa.base_model.categories import read_categories
        from civilqa.chat.categories import CategoryChoice
        from civilqa.model import provenance
        from civilqa.model.hardware import HardwareParams

        logging.disable_progress_bar()
        self.prompts, hardware_params = read_sections(format=prompts.FormatParams, hardware=HardwareParams)
        self._folder, self._adapter, profile, manifest = folder, None, self.profile, None
        self._merged = folder is not None and not (folder / "adapter_config.json").is_file()
        template = folder or ADAPTER
        if self._merged:
            if (folder / provenance.MANIFEST_FILE).is_file():  # a full model of another making has none
                manifest = provenance.read_manifest(folder, provenance.MergedManifest)
                provenance.check_files(folder, manifest)
            own = {"name": str(folder), "revision": None, "weights": "pretrained", "tokenizer": None, "pad_token": None}
            profile = profile.model_copy(update=own)
        if (folder is None or self._merged) and (template / prompts.TEMPLATE_FILE).is_file():
            self._prompter = prompts.Prompter(prompts.load_tokenizer(profile), prompts.read_template(template))
        else:
            self._prompter = prompts.load_prompter(profile, self.prompts.style)
        if folder and not self._merged:  # what does not fit is said before minutes of loading
            self._adapter = provenance.open_adapter(
                folder, self.model_params, profile, template=self._prompter.template
            )
        self._choice = CategoryChoice(read_categories(template, self.prompts))
        self._article_count = max((each.articles for each in self._choice.categories.values()), default=0)
        self._articles = None
        if self._article_count:
            from civilqa.law.search import load_index

            self._articles = load_index()
        self._load_weights(profile, hardware_params)
        # The template that an export puts into its tokenizer is the one of training, and says nothing of the base.
        self._conversational = manifest.conversational if manifest else bool(self._prompter.tokenizer.chat_template)
        made = manifest.adapter if manifest else self._adapter.identity if self._adapter else {}
        self.adapter_sha256 = made.get(provenance.WEIGHTS_FILE)
        self.name = BASE if folder is None else f"{TUNED}({folder})" if self._merged else TUNED
        return self

    def _load_weights(self, profile: "Profile", hardware: "HardwareParams") -> None:
        """Load what generates: the adapter on its base, or the full model of a profile."""
        from civilqa.model.hardware import resolve_hardware
        from civilqa.model.loading import load_base, load_tuned

        with contextlib.redirect_stdout(sys.stderr):  # stdout is for answers
            self._hardware = resolve_hardware(hardware, profile)
        if self._adapter:
            self._model = load_tuned(self._adapter, self._hardware)
        else:
            self._model = load_base(self.model_params, profile, self._hardware)
        self._context_length = self._model.config.max_position_embeddings

    def _check_that_nothing_was_replaced(self) -> None:
        """Raise the ModelError that says that the folder is no longer the one whose weights are loaded."""
        if self._folder and stamp(self._folder) != self._stamp:
            raise ModelError(
                f"{self._folder}: 불러오는 사이에 다른 모델로 바뀌었습니다(새로 학습하거나 받는 중). 그 일이 끝난 뒤에 "
                "다시 실행하십시오."
            )

    def _need_model(self) -> None:
        if self._model is None:
            raise ModelError("no model is loaded; call load_finetuned_model() or load_base_model() first")

    def identity(self) -> dict[str, Any]:
        """Return what decides the answers: weights, template, system prompts, settings and versions.

        Raises:
            ModelError: the weights on the disk are no longer those that were loaded.
        """
        from civilqa.model.hardware import versions
        from civilqa.model.provenance import base_identity

        self._need_model()
        self._check_that_nothing_was_replaced()
        if self._merged:
            weights = {path.name: sha256_file(path) for path in sorted(self._folder.glob("*.safetensors"))}
        else:
            weights = base_identity(self.model_params, self.profile)
        self._check_that_nothing_was_replaced()  # nor while they were hashed
        return {
            "weights": weights,
            "adapter": self._adapter.identity if self._adapter else None,
            "template": self._prompter.template,
            "categories": {name: category.model_dump() for name, category in self._choice.categories.items()},
            **({"articles": [self._article_count, self._articles.source]} if self._articles else {}),
            "hardware": asdict(self._hardware) if self._hardware else None,
            "settings": self.params.model_dump(exclude={"engine_url", "engine_model", "engine_timeout_seconds"}),
            "versions": versions(),
        }

    # What may be asked

    @property
    def group_size(self) -> int:
        """How many questions of a file are given to generate_answers at once."""
        return self.params.batch_size

    @property
    def categories(self) -> list[str]:
        """The categories that the model was trained on, and is asked in; of another making, those in params.yaml."""
        self._need_model()
        return self._choice.names

    def passes_turns_on(self, multi_turn: str | None = None) -> bool:
        """Return whether earlier turns are passed on under a `multi_turn` setting, by default the one in params.yaml.

        `auto` does so where the base brought a chat template of its own, hence was made for conversations. The template
        of training must show all turns in any case.
        """
        self._need_model()
        setting = multi_turn or self.params.multi_turn
        if setting == "never" or (setting == "auto" and not self._conversational):
            return False
        roles = (("user", "가"), ("assistant", "나"), ("user", "다"))
        try:
            prompt, _ = self._prompter.render([{"role": role, "content": text} for role, text in roles])
        except TemplateError:
            return False
        places = [prompt.find(text) for _, text in roles]
        return -1 not in places and places == sorted(places)

    def check_question(self, question: str, category: str = "") -> None:
        """Raise the QuestionError, if any, that asking this question would."""
        self._prompt(question, category, (), self.params)

    def configure(self, **settings: Any) -> Self:
        """Set fields of ChatParams for all questions from here on, instead of those in params.yaml.

        Raises:
            ParameterError: a setting is unknown or out of its range.
        """
        self.params = self._settings(settings)
        return self

    def _settings(self, changes: dict[str, Any]) -> ChatParams:
        settings, problems = check(ChatParams, {**self.params.model_dump(), **changes}, "settings")
        if problems:
            raise ParameterError("\n".join(problems))
        return settings

    def _prompt(
        self, question: str, category: str, history: Sequence[Turn], settings: ChatParams
    ) -> tuple[list[int], int]:
        """Return the tokens to ask a question with, cleaned as in training, and how many of the latest turns fit in.

        Raises:
            QuestionError: it is empty, too long, holds what no UTF-8 text can, or is of a category never trained on.
        """
        self._need_model()
        if len(question) > settings.max_question_characters:
            raise QuestionError(f"질문이 너무 깁니다. {settings.max_question_characters:,}자 이내로 줄여 주십시오.")
        try:
            question.encode()
        except UnicodeEncodeError:
            message = "질문에 글자로 읽을 수 없는 부분이 있습니다. UTF-8 글자로 다시 입력해 주십시오."
            raise QuestionError(message) from None
        if not (question := clean(question)):
            raise QuestionError("질문이 비어 있습니다. 질문을 입력해 주십시오.")
        chosen, _ = self._choice.choose(question, category)
        room = self._context_length - settings.max_new_tokens
        articles = self._articles.find(question, self._article_count) if self._articles else {}
        (instructions, asked), _ = self._prompter.fit_articles(
            question, self._choice.system_prompt(chosen), [*articles.values()], min(self._context_length // 2, room)
        )
        for start in range(len(history) + 1):
            earlier = [
                {"role": role, "content": self._prompter.defuse(clean(text))}
                for turn in history[start:]
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ]
            prompt, _ = self._prompter.render([instructions, *earlier, asked])
            (ids,) = self._prompter.encode([prompt])
            if len(ids) <= room:
                return ids, len(history) - start
        raise QuestionError(
            f"질문이 너무 깁니다({len(ids):,}토큰). 답변 {settings.max_new_tokens:,}토큰을 빼면 "
            f"{max(room, 0):,}토큰까지 읽습니다. 질문을 줄이거나 max_new_tokens를 낮춰 주십시오."
        )

    # Asking

    def generate_answer(
        self, question: str, category: str = "", *, history: Sequence[Turn] = (), **settings: Any
    ) -> dict[str, Any]:
        """Return the answer to a question, with what is worth knowing about it.

        Args:
            category: decides the system prompt, as in training; else that of the most similar training question.
            history: earlier turns to pass on, whatever multi_turn says; the oldest are left out where the model's
                positions do not suffice.
            settings: any field of ChatParams, instead of the one in params.yaml.

        Returns:
            `answer`, `citations` (see look_up_citations), `question`, `category`, `category_chosen` (whether it was
            none of the caller's), `model`, `notice`, `tokens`, `prompt_tokens`, `history_turns` (how many were passed
            on), `stopped` (whether the model ended the answer itself rather than at max_new_tokens),
            `first_token_seconds`, `seconds`.

        Raises:
            QuestionError: the question is empty or too long, or of a category that the model was not trained on.
            ParameterError: a setting is out of its range.
            ModelError: no model is loaded.
        """
        with contextlib.closing(self.stream_answer(question, category, history=history, **settings)) as stream:
            for _ in stream:
                pass
        return stream.result

    def stream_answer(
        self, question: str, category: str = "", *, history: Sequence[Turn] = (), **settings: Any
    ) -> AnswerStream:
        """Return an iterator over the pieces of an answer as they come; `.result` is then what generate_answer gives.

        Arguments and exceptions are those of generate_answer; an unusable question is refused by this call.
        """
        from civilqa.generation.decoding import decode

        chosen = self._settings(settings)
        prompt, turns = self._prompt(question, category, history, chosen)
        steps = decode(self._model, self._prompter.tokenizer, [prompt], self._decoding(chosen, 1))
        tokens = (token for step in steps for _, token in step)
        describe = partial(self._describe, question, category, len(prompt), turns)
        return AnswerStream(self._worker, tokens, self._text, describe)

    def generate_answers(
        self, questions: Sequence[str], categories: Sequence[str] | str = "", **settings: Any
    ) -> list[dict[str, Any]]:
        """Return the answers to several questions in their order, `batch_size` of them at a time.

        Padding changes the last bits of a sum: where two tokens are equally likely, an answer may differ from the one
        that the question gets alone. The same questions in the same order get the same answers.

        Raises:
            QuestionError: one of the questions cannot be asked; nothing is then generated.
        """
        from civilqa.generation.decoding import generate

        chosen = self._settings(settings)
        each = [categories] * len(questions) if isinstance(categories, str) else categories
        pairs = list(zip(questions, each, strict=True))
        prompts = [self._prompt(*asked, (), chosen)[0] for asked in pairs]
        results = []
        for start in range(0, len(prompts), chosen.batch_size):
            batch = slice(start, start + chosen.batch_size)
            started, stop = time.perf_counter(), threading.Event()
            asked = (self._model, self._prompter.tokenizer, prompts[batch], self._decoding(chosen, len(prompts[batch])))
            try:
                answers = self._worker.submit(generate, *asked, stop.is_set).result()
            finally:  # an exception in who waits, such as Ctrl-C, stops the worker, too
                stop.set()
            timing = {"first_token_seconds": None, "seconds": time.perf_counter() - started}
            for pair, prompt, ids in zip(pairs[batch], prompts[batch], answers, strict=True):
                results.append(self._describe(*pair, len(prompt), 0, ids) | timing)
        return results

    # Generating

    def _decoding(self, settings: ChatParams, batch_size: int) -> "Decoding":
        from civilqa.generation.decoding import Decoding

        chosen = settings.model_dump(include={"max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed"})
        chosen |= {"cuda_graphs": self._hardware.cuda_graphs, "end_token_id": self._prompter.end_token_id}
        return Decoding(batch_size=batch_size, **chosen)

    def _text(self, ids: list[int]) -> str:
        """Return tokens as text without the bytes of a syllable that is not whole yet."""
        return without_torn_end(self._prompter.tokenizer.decode(ids, skip_special_tokens=True))

    def _describe(
        self, question: str, category: str, prompt_tokens: int, history_turns: int, ids: list[int]
    ) -> dict[str, Any]:
        """Return what generate_answer does of an answer's tokens, but how long it took."""
        stopped = bool(ids) and ids[-1] == self._prompter.end_token_id
        return self._result(question, category, prompt_tokens, history_turns, self._text(ids), len(ids), stopped)

    def _result(
        self,
        question: str,
        category: str,
        prompt_tokens: int,
        history_turns: int,
        answer: str,
        tokens: int,
        stopped: bool,
    ) -> dict[str, Any]:
        asked_in, chosen = self._choice.choose(question, category)
        return {
            "answer": answer,
            "citations": look_up_citations(answer),
            "question": question,
            "category": asked_in,
            "category_chosen": chosen,
            "model": self.name,
            "notice": self.notice,
            "prompt_tokens": prompt_tokens,
            "history_turns": history_turns,
            "tokens": tokens,
            "stopped": stopped,
        }
