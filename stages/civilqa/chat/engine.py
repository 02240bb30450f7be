"""Answers questions with the tuned model, with its base, or with a merged model folder.

    engine = InferenceEngine()
    engine.load_finetuned_model()
    print(engine.generate_answer("전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?", category="전세사기")["answer"])

The prompt is the one of training, to the token. Greedy unless asked otherwise: the same question gets the same answer.
Paths are relative to the root of the repository. Nothing heavy is imported before a model is loaded.
"""

import contextlib
import copy
import queue
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from civilqa.law.verdicts import look_up_citations
from civilqa.model.training_lock import ADAPTER, who_writes
from civilqa.program.errors import ModelError, ParameterError, PipelineError, QuestionError, TemplateError
from civilqa.program.files import stamp
from civilqa.program.parameters import BatchSize, Section, check, read_sections
from civilqa.reading.cleaning import clean

if TYPE_CHECKING:
    from civilqa.base_model.prompts import Message

MERGED = Path("models/merged")

# What a model is called where its answers are shown.
TUNED, BASE = "미세조정 모델", "기반 모델"

BENCHMARK_QUESTIONS = (
    "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?",
    "등기하지 않은 매수인도 소유권을 주장할 수 있나요?",
    "점유취득시효가 완성되면 바로 소유자가 되나요?",
)


class ChatParams(Section):
    """How questions are asked. Every field may be given to a call instead: generate_answer(question, temperature=0.5).

    temperature 0 is greedy; above it `top_p` and `seed` say how is drawn. multi_turn `auto` passes earlier turns on
    where the base was made for conversations: training asks each question by itself.
    """

    max_new_tokens: Annotated[int, Field(ge=1, le=8192)]
    temperature: Annotated[float, Field(ge=0, le=2)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    repetition_penalty: Annotated[float, Field(ge=1, le=2)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    batch_size: BatchSize
    max_question_characters: Annotated[int, Field(ge=1, le=100_000)]
    multi_turn: Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Turn:
    """An earlier question and its answer."""

    question: str
    answer: str


def check_question(question: str, max_characters: int) -> str:
    """Return a question as training would have cleaned it.

    Raises:
        QuestionError: it is empty, too long, or holds what no UTF-8 text can.
    """
    if len(question) > max_characters:
        raise QuestionError(f"질문이 너무 깁니다. {max_characters:,}자 이내로 줄여 주십시오.")
    try:
        question.encode()
    except UnicodeEncodeError:
        raise QuestionError("질문에 글자로 읽을 수 없는 부분이 있습니다. UTF-8 글자로 다시 입력해 주십시오.") from None
    cleaned = clean(question)
    if not cleaned:
        raise QuestionError("질문이 비어 있습니다. 질문을 입력해 주십시오.")
    return cleaned


class InferenceEngine:
    """One loaded model that answers questions. Threads may share it; it generates for one of them at a time."""

    def __init__(self) -> None:
        """Read the parameters. No model is loaded yet.

        Raises:
            ParameterError: params.yaml is missing or not valid.
        """
        from civilqa.base_model.profiles import read_profile

        (self.params,) = read_sections(chat=ChatParams)
        self.model_params, self.profile = read_profile()
        self.name = ""
        self._model: Any = None
        self._prompter: Any = None
        self.prompts: Any = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")

    # Loading

    @staticmethod
    def has_model(folder: Path | str) -> bool:
        """Return whether a folder holds an adapter or a full model, whole or not."""
        return any((Path(folder) / name).is_file() for name in ("adapter_config.json", "config.json"))

    def load_finetuned_model(self, folder: Path | str = ADAPTER) -> "InferenceEngine":
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
        name = TUNED if (folder / "adapter_config.json").is_file() else f"{TUNED}({folder})"
        with self._undisturbed(folder):
            try:
                return self._load(folder, name, template=folder)
            except (ModelError, TemplateError) as error:
                raise type(error)(
                    f"{folder}: 이 모델을 불러올 수 없습니다. 파일이 손상되었거나 지금의 설정과 맞지 않습니다. "
                    f"아래 이유를 보고 설정이나 파일을 되돌리거나 `dvc repro`로 다시 만드십시오.\n{error}"
                ) from None

    def load_base_beside(self) -> "InferenceEngine":
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

    def load_base_model(self, template: Path | str = ADAPTER) -> "InferenceEngine":
        """Load the profile's base without the adapter, to compare with.

        Args:
            template: a folder with the chat template of training; the profile's own is taken where it has none.
        """
        return self._load(None, BASE, Path(template))

    def _load(self, folder: Path | None, name: str, template: Path) -> "InferenceEngine":
        # bitsandbytes looks for an optional package when it is imported, and calls its absence a failure.
        getLogger("bitsandbytes").setLevel("ERROR")
        # Here, since they import torch: --help and a wrong argument should not wait for it.
        from transformers.utils import logging

        from civilqa.base_model.prompts import (
            TEMPLATE_FILE,
            FormatParams,
            Prompter,
            load_prompter,
            load_tokenizer,
            read_template,
        )
        from civilqa.model.hardware import HardwareParams, resolve_hardware
        from civilqa.model.loading import load_base, load_tuned
        from civilqa.model.provenance import MANIFEST_FILE, MergedManifest, check_files, open_adapter, read_manifest

        logging.disable_progress_bar()
        self.prompts, hardware_params = read_sections(format=FormatParams, hardware=HardwareParams)
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for answers
            hardware = resolve_hardware(hardware_params)
        self._hardware = hardware
        merged = folder is not None and not (folder / "adapter_config.json").is_file()
        profile, adapter, manifest = self.profile, None, None
        if merged and (folder / MANIFEST_FILE).is_file():  # a full model of another making has none
            manifest = read_manifest(folder, MergedManifest)
            check_files(folder, manifest)
        if merged:
            own = {"name": str(folder), "revision": None, "weights": "pretrained", "tokenizer": None, "pad_token": None}
            profile = profile.model_copy(update=own)
        if folder is not None and not merged:
            self._prompter = load_prompter(profile, self.prompts.style)
            # What does not fit is said before minutes of loading.
            adapter = open_adapter(folder, self.model_params, profile, template=self._prompter.template)
        elif (template / TEMPLATE_FILE).is_file():
            self._prompter = Prompter(load_tokenizer(profile), read_template(template))
        else:
            self._prompter = load_prompter(profile, self.prompts.style)
        self._model = load_tuned(adapter, hardware) if adapter else load_base(self.model_params, profile, hardware)
        # The template that an export puts into its tokenizer is the one of training, and says nothing of the base.
        self._conversational = bool(self._prompter.tokenizer.chat_template)
        if manifest:
            self._conversational = manifest.conversational
        self.name = name
        self._folder, self._merged, self._adapter = folder, merged, adapter
        return self

    @contextlib.contextmanager
    def _undisturbed(self, folder: Path) -> Iterator[None]:
        """Raise the ModelError that says so if the folder is replaced while the block reads it, whatever it met."""
        self._folder, self._stamp = folder, stamp(folder)
        try:
            yield
        except (PipelineError, OSError):
            self._check_that_nothing_was_replaced()
            raise
        self._check_that_nothing_was_replaced()

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
        from civilqa.program.files import sha256_file

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
            "system_prompts": self.prompts.system_prompts,
            "settings": self.params.model_dump(),
            "versions": versions(),
        }

    # What may be asked

    @property
    def categories(self) -> list[str]:
        """The categories that have a system prompt of their own."""
        from civilqa.base_model.prompts import FormatParams

        # Once a model is loaded, its own: params.yaml may be at work for the next training.
        prompts = self.prompts or read_sections(format=FormatParams)[0]
        return [name for name in prompts.system_prompts if name != "default"]

    @property
    def notice(self) -> str:
        """What a reader must be told beside any answer, in Korean."""
        return self.profile.notice

    def passes_turns_on(self, multi_turn: str | None = None) -> bool:
        """Return whether earlier turns are passed on under a `multi_turn` setting, by default the one in params.yaml.

        `auto` does so where the base brought a chat template of its own, hence was made for conversations. The template
        of training must show all turns in any case.
        """
        self._need_model()
        setting = multi_turn or self.params.multi_turn
        return setting != "never" and self._shows_turns() and (setting == "always" or self._conversational)

    def _shows_turns(self) -> bool:
        roles = (("user", "가"), ("assistant", "나"), ("user", "다"))
        try:
            prompt, _ = self._prompter.render([{"role": role, "content": text} for role, text in roles])
        except TemplateError:
            return False
        places = [prompt.find(text) for _, text in roles]
        return -1 not in places and places == sorted(places)

    def check_question(self, question: str, category: str = "") -> None:
        """Raise the QuestionError, if any, that asking this question would."""
        self._need_model()
        self._prompt(question, category, (), self.params)

    def configure(self, **settings: Any) -> "InferenceEngine":
        """Set fields of ChatParams for all questions from here on, instead of those in params.yaml.

        Raises:
            ParameterError: a setting is unknown or out of its range.
        """
        self.params = self._settings(settings)
        return self

    def _settings(self, changes: dict[str, Any]) -> ChatParams:
        if not changes:
            return self.params
        settings, problems = check(ChatParams, {**self.params.model_dump(), **changes}, "settings")
        if problems:
            raise ParameterError("\n".join(problems))
        return settings

    def _prompt(
        self, question: str, category: str, history: Sequence[Turn], settings: ChatParams
    ) -> tuple[list[int], int]:
        """Return the tokens to ask with, and how many earlier turns are in them: the latest that fit."""
        question = check_question(question, settings.max_question_characters)
        system = self.prompts.system_prompt(category)
        room = self._model.config.max_position_embeddings - settings.max_new_tokens
        for start in range(len(history) + 1):
            ids = self._encode(question, system, history[start:])
            if len(ids) <= room:
                return ids, len(history) - start
        raise QuestionError(
            f"질문이 너무 깁니다({len(ids):,}토큰). 답변 {settings.max_new_tokens:,}토큰을 빼면 "
            f"{max(room, 0):,}토큰까지 읽습니다. 질문을 줄이거나 max_new_tokens를 낮춰 주십시오."
        )

    def _encode(self, question: str, system: str, history: Sequence[Turn]) -> list[int]:
        messages: list[Message] = self._prompter.messages(question, system)
        earlier = [
            {"role": role, "content": self._prompter.defuse(text.strip())}
            for turn in history
            for role, text in (("user", turn.question), ("assistant", turn.answer))
        ]
        prompt, _ = self._prompter.render([messages[0], *earlier, messages[1]])
        return self._prompter.encode([prompt])[0]

    # Asking

    def generate_answer(
        self, question: str, category: str = "", *, history: Sequence[Turn] = (), **settings: Any
    ) -> dict[str, Any]:
        """Return the answer to a question, with what is worth knowing about it.

        Args:
            category: decides the system prompt, as in training; any without one of its own gets the general one.
            history: earlier turns to pass on, whatever multi_turn says; the oldest are left out where the model's
                positions do not suffice.
            settings: any field of ChatParams, instead of the one in params.yaml.

        Returns:
            `answer`, `citations` (see look_up_citations), `question`, `category`, `model`, `notice`, `tokens`,
            `prompt_tokens`, `history_turns` (how many were passed on), `stopped` (whether the model ended the answer
            itself rather than at max_new_tokens), `first_token_seconds`, `seconds`.

        Raises:
            QuestionError: the question is empty or too long.
            ParameterError: a setting is out of its range.
            ModelError: no model is loaded.
        """
        with self.stream_answer(question, category, history=history, **settings) as stream:
            for _ in stream:
                pass
            return stream.result

    def stream_answer(
        self, question: str, category: str = "", *, history: Sequence[Turn] = (), **settings: Any
    ) -> "AnswerStream":
        """Return an iterator over the pieces of an answer as they come; `.result` is then what generate_answer gives.

        Arguments and exceptions are those of generate_answer; an unusable question is refused by this call.
        """
        self._need_model()
        chosen = self._settings(settings)
        ids, turns = self._prompt(question, category, history, chosen)
        about = {
            "question": question,
            "category": category,
            "model": self.name,
            "notice": self.notice,
            "prompt_tokens": len(ids),
            "history_turns": turns,
        }
        return AnswerStream(self, ids, chosen, about)

    def generate_answers(
        self, questions: Sequence[str], categories: Sequence[str] | str = "", **settings: Any
    ) -> list[dict[str, Any]]:
        """Return the answers to several questions in their order, `batch_size` of them at a time.

        Padding changes the last bits of a sum: where two tokens are equally likely, an answer may differ from the one
        that the question gets alone. The same questions in the same order get the same answers.

        Raises:
            QuestionError: one of the questions cannot be asked; nothing is then generated.
        """
        self._need_model()
        chosen = self._settings(settings)
        each = [categories] * len(questions) if isinstance(categories, str) else list(categories)
        prompts = [
            self._prompt(question, category, (), chosen)[0] for question, category in zip(questions, each, strict=True)
        ]
        results = []
        for start in range(0, len(prompts), chosen.batch_size):
            batch = prompts[start : start + chosen.batch_size]
            started = time.perf_counter()
            answers = self._wait_for(batch, chosen)
            seconds = time.perf_counter() - started
            for offset, ids in enumerate(answers):
                about = {
                    "question": questions[start + offset],
                    "category": each[start + offset],
                    "model": self.name,
                    "notice": self.notice,
                    "prompt_tokens": len(batch[offset]),
                    "history_turns": 0,
                }
                results.append(self._result(ids, about) | {"first_token_seconds": None, "seconds": seconds})
        return results

    def _wait_for(self, batch: list[list[int]], settings: ChatParams) -> list[list[int]]:
        stop = threading.Event()
        future = self._worker.submit(self._generate, batch, settings, stop=stop)
        try:
            return future.result()
        except BaseException:  # Ctrl-C: the worker must not go on
            stop.set()
            raise

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
        first, speed = [], []
        for round_number in range(repeats + 1):
            for question in BENCHMARK_QUESTIONS:
                result = self.generate_answer(question, max_new_tokens=max_new_tokens)
                if round_number:
                    first.append(result["first_token_seconds"])
                    rest = result["seconds"] - result["first_token_seconds"]
                    if result["tokens"] > 1:
                        speed.append((result["tokens"] - 1) / rest)
        measured = {
            "model": self.name,
            "answers": len(first),
            "first_token_seconds": statistics.median(first),
            "tokens_per_second": statistics.median(speed) if speed else None,
        }
        shown = f"{measured['tokens_per_second']:.1f}" if speed else "(한 토큰 답변뿐)"
        print(
            f"{self.name}: 첫 토큰까지 {measured['first_token_seconds']:.3f}초, 이후 초당 {shown}토큰 "
            f"(답변 {len(first)}개의 중앙값)"
        )
        return measured

    # Generating, in the worker thread alone

    def _generate(
        self, prompts: list[list[int]], settings: ChatParams, streamer: Any = None, stop: threading.Event | None = None
    ) -> list[list[int]]:
        """Return the new tokens for each prompt, up to and with the end token.

        Args:
            prompts: padded on the left to one batch of shape (len(prompts), longest prompt).
        """
        import torch
        from transformers import GenerationConfig

        from civilqa.generation.key_value_cache import make_cache

        end, pad = self._prompter.end_token_id, self._prompter.tokenizer.pad_token_id
        width = max(map(len, prompts))
        device = self._model.device
        input_ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}

        def stopped(ids: Any, scores: Any, **kwargs: Any) -> Any:
            return torch.full((ids.shape[0],), stop is not None and stop.is_set(), device=ids.device)

        # Instruct models bring sampling settings of their own, which would fill what ours leaves out.
        self._model.generation_config = GenerationConfig(
            do_sample=settings.temperature > 0,
            max_new_tokens=settings.max_new_tokens,
            repetition_penalty=settings.repetition_penalty,
            eos_token_id=end,
            pad_token_id=pad,
            use_cache=True,
            **(sampling if settings.temperature > 0 else {}),
        )
        devices = [device] if device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):  # the caller's draws stay as they were
            torch.manual_seed(settings.seed)
            output = self._model.generate(
                input_ids=input_ids,
                attention_mask=mask,
                past_key_values=make_cache(self._model.config),
                streamer=streamer,
                stopping_criteria=[stopped],
            )
        rows = output[:, width:].tolist()
        return [row[: row.index(end) + 1] if end in row else row for row in rows]

    def _text(self, ids: list[int]) -> str:
        """Return tokens as text without the bytes of a syllable that is not whole yet."""
        text = self._prompter.tokenizer.decode(ids, skip_special_tokens=True).lstrip()
        while text and (text[-1].isspace() or text[-1] == "\ufffd"):
            text = text.rstrip().rstrip("\ufffd")
        return text

    def _result(self, ids: list[int], about: dict[str, Any]) -> dict[str, Any]:
        answer = self._text(ids)
        return {
            "answer": answer,
            "citations": look_up_citations(answer),
            **about,
            "tokens": len(ids),
            "stopped": bool(ids) and ids[-1] == self._prompter.end_token_id,
        }


class AnswerStream:
    """The pieces of one answer as they are generated, whole characters only; joined they are `result["answer"]`.

    `result` is None until the last piece is out. `close` stops the generation: `result` then holds what there is, with
    `stopped` False.
    """

    def __init__(self, engine: InferenceEngine, prompt: list[int], settings: ChatParams, about: dict[str, Any]) -> None:
        self.result: dict[str, Any] | None = None
        self._engine, self._settings, self._about = engine, settings, about
        self._prompt = prompt
        self._ids: list[int] = []
        self._shown = ""
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._done = False
        self._started = self._first = time.perf_counter()
        self._future = engine._worker.submit(self._run)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._done:
            # With a timeout, since Windows delivers Ctrl-C only between waits.
            with contextlib.suppress(queue.Empty):
                piece = self._pieces.get(timeout=0.2)
                if piece is not None:
                    return piece
                self._done = True
                self.result = self._result(0.0) if self._future.cancelled() else self._future.result()
        raise StopIteration

    def __enter__(self) -> "AnswerStream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def finished(self) -> bool:
        """Whether nothing more is generated, read or not."""
        return self._future.done()

    def stop(self) -> None:
        """Stop generating, from any thread and without waiting; who iterates gets what there is."""
        self._stop.set()
        if self._future.cancel():  # others were before it: it need not begin
            self._pieces.put(None)

    def close(self) -> None:
        """Stop generating, and wait until it has stopped; at most one token more is computed."""
        self.stop()
        for _ in self:
            pass

    def _run(self) -> dict[str, Any]:
        self._started = self._first = time.perf_counter()  # not while it waited for others
        try:
            if not self._stop.is_set():
                self._engine._generate([self._prompt], self._settings, streamer=self, stop=self._stop)
            self._show(self._engine._text(self._ids))
            return self._result(time.perf_counter() - self._started)
        finally:
            self._pieces.put(None)

    def _result(self, seconds: float) -> dict[str, Any]:
        timing = {"first_token_seconds": self._first - self._started, "seconds": seconds}
        return self._engine._result(self._ids, self._about) | timing

    # What transformers calls on a streamer: first with the prompt, of shape (1, length), then with each token.

    def put(self, ids: Any) -> None:
        if ids.ndim > 1:
            return
        if not self._ids:
            self._first = time.perf_counter()
        self._ids += ids.tolist()
        self._show(self._engine._text(self._ids))

    def end(self) -> None:
        pass

    def _show(self, text: str) -> None:
        if len(text) > len(self._shown):
            self._pieces.put(text[len(self._shown) :])
            self._shown = text
