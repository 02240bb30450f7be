"""Asks a model that another program serves at an OpenAI-compatible address: vLLM, llama.cpp, `transformers serve`.

The weights are there. Tokenizer, chat template and system prompts are read here, so that the prompt is the one of
training to the token. It goes to /completions as token ids, or as text to a server that takes no ids. What the server
says that it has read is counted: of a text before anything else is asked, since another number is another tokenizer,
and of each question. /chat/completions is never asked: there the server renders the prompt, with a template that nobody
here has seen.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema
from urllib3.exceptions import ReadTimeoutError

from civilqa.chat.engine import TUNED, ChatParams, Engine
from civilqa.chat.stream import without_torn_end
from civilqa.program.errors import EngineError, ParameterError
from civilqa.program.lifecycle.safe_output import CREDENTIALS, printable
from civilqa.program.openai_session import open_session

if TYPE_CHECKING:
    from civilqa.base_model.profiles import Profile
    from civilqa.model.hardware import HardwareParams

KEY_VARIABLE = "ENGINE_API_KEY"
RETRIES = 2
CONNECT_SECONDS = 10.0
GROUPS = 4  # a group ends with its slowest answer: of so many in flight after one another, it keeps few waiting
TRIED = "전세보증금을 돌려받지 못했는데 어떻게 해야 하나요?"
SHOWN = 300  # characters of what a server says
CONTINUED = "여기까지의 답변은 남아 있고, 같은 명령을 다시 실행하면 이어서 합니다."


class Refused(EngineError):
    """The server does not take the request as it stands."""


class Completion(NamedTuple):
    """What a server generated for a prompt; `tokens` counts the end token, `stopped` says that it came."""

    text: str
    prompt_tokens: int
    tokens: int
    stopped: bool


class Server:
    """One model behind an OpenAI-compatible address. Threads may share it."""

    def __init__(self, params: ChatParams) -> None:
        """Find the model.

        Raises:
            EngineError: there is no such server, or it serves several models and none of them is named.
        """
        self.url, self.timeout = str(params.engine_url).rstrip("/"), params.engine_timeout_seconds
        if CREDENTIALS.search(self.url):
            raise EngineError(
                "chat.engine_url: 주소의 '@' 앞에 사용자나 비밀번호가 있습니다. 지우고, 키는 "
                f"`export {KEY_VARIABLE}=...`로 주십시오."
            )
        # Too slow once is too slow: the server goes on with the question that nobody waits for.
        self.session = open_session(KEY_VARIABLE, RETRIES, connections=params.batch_size, slow_retries=0)
        self.model = params.engine_model or self._only_model()

    def complete(self, prompt: dict[str, Any], max_tokens: int) -> Completion:
        """Return the likeliest continuation of a prompt.

        Args:
            prompt: the fields of the request that hold it.

        Raises:
            Refused: the server does not take these fields, or has no room for so many tokens.
            EngineError: it cannot be reached, or answers otherwise than OpenAI's interface has it.
        """
        body = {"model": self.model, "max_tokens": max_tokens, "temperature": 0, **prompt}
        reply = self._request("POST", "/completions", body)
        try:
            choice, usage = reply["choices"][0], reply["usage"]
            stopped = choice["finish_reason"] == "stop"
            completion = Completion(choice["text"], usage["prompt_tokens"], usage["completion_tokens"], stopped)
        except (KeyError, IndexError, TypeError):
            raise self._no_such_interface(reply) from None
        numbers = (completion.prompt_tokens, completion.tokens)
        if not isinstance(completion.text, str) or not all(isinstance(number, int) for number in numbers):
            raise self._no_such_interface(reply)
        if not stopped and completion.tokens < max_tokens:
            raise EngineError(
                f"{self.url}: 서버가 답변을 {completion.tokens}토큰에서 끊었습니다. 서버의 문맥 길이를 늘리거나 "
                f"(vllm serve --max-model-len, llama-server -c) chat.max_new_tokens를 줄이십시오. {CONTINUED}"
            )
        return completion

    def _only_model(self) -> str:
        names = self._models()
        if len(names) == 1:
            return names[0]
        raise EngineError(
            f"{self.url}: 어느 모델에 물을지 chat.engine_model(--engine-model)에 적으십시오. 서버가 알려 준 모델: "
            f"{', '.join(names) or '없음'}"
        )

    def _models(self) -> list[str]:
        reply = self._request("GET", "/models")
        try:
            return [str(model["id"]) for model in reply["data"]]
        except (KeyError, TypeError):
            raise self._no_such_interface(reply) from None

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        address = f"{self.url}{path}"
        try:
            response = self.session.request(
                method, address, json=body, timeout=(CONNECT_SECONDS, self.timeout), allow_redirects=False
            )
        except (MissingSchema, InvalidSchema, InvalidURL):
            raise EngineError(
                f"chat.engine_url: '{self.url}': http://나 https://로 시작하는 주소가 아닙니다."
            ) from None
        except requests.RequestException as error:
            raise self._unreachable(error) from None
        if response.is_redirect:  # the questions would go to whom nobody named
            target = response.headers["Location"][:SHOWN]
            raise EngineError(
                f"{address}: 서버가 {target}(으)로 보냅니다. 그 주소가 맞으면 chat.engine_url에 적으십시오."
            )
        if response.ok:
            try:
                return response.json()
            except ValueError:
                raise self._no_such_interface(response.text) from None
        said = read_message(response)
        if response.status_code in (401, 403):
            raise EngineError(
                f"{self.url}: 서버가 접근을 허락하지 않습니다({response.status_code}). API 키를 "
                f"`export {KEY_VARIABLE}=...`로 준 뒤 다시 실행하십시오. 서버의 말: {said}"
            )
        if response.status_code == 404:
            raise self._not_found(path, said)
        if response.status_code in (400, 413, 422):
            raise Refused(f"{address}: 서버가 요청을 받지 않습니다({response.status_code}). 서버의 말: {said}")
        # `transformers serve` lists what is in the hub's cache, and fails where there is none.
        instead = "모델 이름을 chat.engine_model(--engine-model)에 적으면 목록을 묻지 않습니다."
        what_now = instead if path == "/models" else CONTINUED
        raise EngineError(f"{address}: 서버가 오류로 답했습니다({response.status_code}). {what_now} 서버의 말: {said}")

    def _not_found(self, path: str, said: str) -> EngineError:
        """Return what a 404 means: no such model, or no such interface."""
        if path == "/completions" and self.model not in (names := self._models()):
            return EngineError(
                f"{self.url}: 서버에 '{self.model}' 모델이 없습니다. chat.engine_model(--engine-model)을 고치십시오. "
                f"서버가 알려 준 모델: {', '.join(names) or '없음'}"
            )
        return EngineError(
            f"{self.url}{path}: 서버에 이 주소가 없습니다(404). chat.engine_url에는 http://localhost:8000/v1처럼 "
            f"/v1까지 적습니다. /completions가 없는 서버에는 물을 수 없습니다. 서버의 말: {said}"
        )

    def _unreachable(self, error: requests.RequestException) -> EngineError:
        reason = getattr(error.args[0], "reason", None) if error.args else None
        if isinstance(error, requests.ReadTimeout) or isinstance(reason, ReadTimeoutError):
            return EngineError(
                f"{self.url}: 서버가 {self.timeout:g}초 안에 답하지 않았습니다. chat.batch_size를 줄이거나 "
                f"chat.engine_timeout_seconds를 늘리십시오. {CONTINUED}"
            )
        return EngineError(
            f"{self.url}: 서버에 연결할 수 없습니다({type(reason or error).__name__}). 서버가 켜져 있는지, "
            f"chat.engine_url이 맞는지 확인하십시오. {CONTINUED}"
        )

    def _no_such_interface(self, reply: Any) -> EngineError:
        return EngineError(
            f"{self.url}: OpenAI 방식의 답이 아닙니다. chat.engine_url에는 http://localhost:8000/v1처럼 /v1까지 "
            f"적습니다. 서버의 말: {str(reply)[:SHOWN]}"
        )


def read_message(response: requests.Response) -> str:
    """Return what a server says of an error: vLLM and llama.cpp in `error`, FastAPI in `detail`."""
    try:
        reply = response.json()
        said = reply.get("error") or reply.get("detail") or reply
        return str(said.get("message", said) if isinstance(said, dict) else said)[:SHOWN]
    except (ValueError, AttributeError):
        return response.text[:SHOWN]


class ServedEngine(Engine):
    """An engine whose model is behind `chat.engine_url`. It answers files of questions, the likeliest token always."""

    def _settings(self, changes: dict[str, Any]) -> ChatParams:
        settings = super()._settings(changes)
        if settings.temperature or settings.repetition_penalty != 1:
            raise ParameterError(
                "chat.engine_url의 서버에는 temperature 0, repetition_penalty 1로만 묻습니다. 다른 값은 뜻이 서버마다 "
                "다릅니다. 두 값을 되돌리거나 chat.engine_url을 비우십시오."
            )
        return settings

    def _load(self, folder: Path | None) -> Self:
        super()._load(folder)
        self.name = f"{TUNED}({self._model.model})"
        return self

    def _load_weights(self, profile: "Profile", hardware: "HardwareParams") -> None:
        """Find the model at the address, and in which form it takes a prompt, in place of loading one.

        Raises:
            EngineError: it cannot be asked with the prompt of training.
        """
        from civilqa.base_model.hub import context_length

        self._context_length = context_length(profile)
        self._model = Server(self.params)
        system_prompt = self._choice.system_prompt(self._choice.choose(TRIED).name)
        text, _ = self._prompter.render(self._prompter.messages(TRIED, system_prompt))
        (ids,) = self._prompter.encode([text])
        self._find_start(text, len(ids))
        self._as_text = False
        try:
            self._ask(ids, 1)
        except Refused:
            self._as_text = True
        form = "글로" if self._as_text else "토큰으로"
        asked = f"{self._model.url}의 {self._model.model}에게 묻습니다. 질문은 {form} 보냅니다."
        print(printable(asked), file=sys.stderr)

    def _find_start(self, text: str, tokens: int) -> None:
        """Find out how a prompt of training begins as text: some servers put the start token before it themselves.

        Raises:
            EngineError: the server reads it otherwise, hence has another tokenizer.
        """
        bos = self._prompter.tokenizer.bos_token or ""
        for self._left_out in dict.fromkeys(("", bos)):
            read = self._model.complete({"prompt": text.removeprefix(self._left_out)}, 1).prompt_tokens
            if read == tokens:
                return
        raise EngineError(
            f"{self._model.url}: 서버의 토크나이저가 이 모델의 것이 아닙니다. 시험 질문이 여기서는 {tokens}토큰, "
            f"서버에서는 {read}토큰입니다. python stages/export.py가 쓴 폴더를 서버에 올리거나, 서버의 모델을 "
            "--model로 주십시오."
        )

    def identity(self) -> dict[str, Any]:
        """Return what decides the answers, as far as it is known here; of the weights, what the server calls them."""
        settings = self.params.model_dump(exclude={"batch_size", "engine_timeout_seconds"})
        return {**super().identity(), "settings": settings, "served": self._model.model}

    @property
    def group_size(self) -> int:
        return GROUPS * self.params.batch_size

    def generate_answers(
        self, questions: Sequence[str], categories: Sequence[str] | str = "", **settings: Any
    ) -> list[dict[str, Any]]:
        """Return the answers to several questions in their order; `batch_size` requests are under way at a time.

        Raises:
            QuestionError: one of the questions cannot be asked; nothing is then generated.
            EngineError: the server failed at one of them; the others' answers are lost with it.
        """
        chosen = self._settings(settings)
        each = [categories] * len(questions) if isinstance(categories, str) else categories
        pairs = list(zip(questions, each, strict=True))
        prompts = [self._prompt(*asked, (), chosen)[0] for asked in pairs]
        pool = ThreadPoolExecutor(chosen.batch_size, thread_name_prefix="ask")
        try:
            completions = list(pool.map(self._ask, prompts, [chosen.max_new_tokens] * len(prompts)))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return [
            self._result(*pair, answer.prompt_tokens, 0, without_torn_end(answer.text), answer.tokens, answer.stopped)
            for pair, answer in zip(pairs, completions, strict=True)
        ]

    def _ask(self, ids: list[int], max_tokens: int) -> Completion:
        """Return the answer to a prompt of training.

        Raises:
            EngineError: the server did not read this prompt.
        """
        if self._as_text:
            prompt = {"prompt": self._prompter.tokenizer.decode(ids).removeprefix(self._left_out)}
        else:
            # vLLM with an adapter on its base stops at the base's end token alone; llama.cpp has it from the GGUF file.
            # A penalty of the base's own generation_config.json would hold there, too.
            prompt = {"prompt": ids, "stop_token_ids": [self._prompter.end_token_id], "repetition_penalty": 1}
        answer = self._model.complete(prompt, max_tokens)
        if answer.prompt_tokens != len(ids):
            raise EngineError(
                f"{self._model.url}: 서버가 학습 때와 다른 질문을 읽었습니다. 보낸 것은 {len(ids)}토큰인데 읽은 것은 "
                f"{answer.prompt_tokens}토큰입니다. 질문을 바꾸거나 자르는 설정을 서버에서 끄십시오. {CONTINUED}"
            )
        return answer
