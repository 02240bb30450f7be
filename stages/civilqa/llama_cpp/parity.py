"""Whether a GGUF file, opened by llama.cpp, reads and continues text as the merged model does in transformers."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests
import torch
from transformers import AutoModelForCausalLM

from civilqa.base_model.prompts import Message, Prompter
from civilqa.generation.decoding import Decoding, generate
from civilqa.program.errors import ModelError

SERVER = Path(__file__).with_name("server.py")
SHOWN_LINES = 12
TIMEOUT_SECONDS = 600
FIRST_TOKENS = 8  # of each answer
LIKELIEST = 20  # next tokens, whose log probabilities are compared

# The largest difference allowed between two log probabilities (nats) of llama.cpp and of transformers in fp32.
TOLERANCE = {"f16": 0.1, "q8_0": 1.0}


@dataclass(frozen=True)
class Samples:
    """What a GGUF file is tried with: conversations that ask, and texts of which only the tokens are compared."""

    conversations: list[list[Message]]
    texts: list[str]


@contextmanager
def serve(file: Path) -> Iterator[str]:
    """Run llama.cpp's server with a file; yields its address.

    Raises:
        ModelError: llama.cpp does not open the file; says what it said.
    """
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, str(SERVER), str(file)]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            address = server.stdout.readline().strip()
            if not address:
                server.wait(timeout=TIMEOUT_SECONDS)
                said.seek(0)
                last = "\n".join(said.read().decode(errors="replace").strip().splitlines()[-SHOWN_LINES:])
                raise ModelError(f"{file}: llama.cpp does not open it:\n{last}")
            yield address
        finally:
            server.terminate()
            server.wait()
            server.stdin.close()
            server.stdout.close()


def check_gguf(file: Path, kind: str, folder: Path, prompter: Prompter, samples: Samples) -> dict[str, Any]:
    """Return how llama.cpp with a GGUF file compares with transformers on the folder that it was made from.

    Raises:
        ModelError: it makes other tokens of a text or of a conversation, or its probabilities differ too much.
    """
    prompts = [prompter.render(messages)[0] for messages in samples.conversations]
    with serve(file) as address:
        check_tokens(file, address, prompter, [*prompts, *samples.texts])
        check_chat(file, address, prompter, samples.conversations, prompts)
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
        decoding = Decoding(max_new_tokens=FIRST_TOKENS, batch_size=1, end_token_id=prompter.end_token_id)
        differences, equal = [], 0
        for prompt in prompter.encode(prompts):
            (answer,) = generate(model, prompter.tokenizer, [prompt], decoding)
            expected = expect(model, prompt, answer)
            found = [next_token(address, prompt + answer[:place]) for place in range(len(answer))]
            equal += answer == [token for token, _ in found]
            differences += [
                abs(row[number].item() - logprob)
                for row, (_, likeliest) in zip(expected, found, strict=True)
                for number, logprob in likeliest.items()
            ]
    parity = {
        "texts": len(prompts) + len(samples.texts),
        "prompts": len(prompts),
        "equal_first_tokens": equal,
        "max_logprob_difference": float(f"{max(differences):.3g}"),
        "tolerance": TOLERANCE[kind],
        "xllamacpp": version("xllamacpp"),
    }
    if not parity["max_logprob_difference"] <= parity["tolerance"]:
        remedy = "take --gguf f16" if kind != "f16" else "report this as a defect"
        raise ModelError(f"{file.name}: answers otherwise in llama.cpp than in transformers: {parity}; {remedy}")
    return parity


def ask(address: str, path: str, **fields: Any) -> dict[str, Any]:
    response = requests.post(f"{address}{path}", json=fields, timeout=TIMEOUT_SECONDS)
    response.raise_for_status()
    return response.json()


def read_text(address: str, text: str, add_special: bool) -> list[int]:
    """Return the tokens that llama.cpp reads in a text, special tokens among them."""
    return ask(address, "/tokenize", content=text, add_special=add_special, parse_special=True)["tokens"]


def check_tokens(file: Path, address: str, prompter: Prompter, texts: list[str]) -> None:
    """Stop unless llama.cpp makes the tokens of training of every text.

    Raises:
        ModelError: names the first text that it reads otherwise.
    """
    for text, ids in zip(texts, prompter.encode(texts), strict=True):
        found = read_text(address, text, add_special=False)
        if found != ids:
            at = next((n for n, pair in enumerate(zip(ids, found, strict=False)) if pair[0] != pair[1]), len(ids))
            around = prompter.tokenizer.decode(ids[max(0, at - 3) : at + 3])
            raise ModelError(
                f"{file.name}: llama.cpp cuts text into other tokens than training did, near {around!r}: "
                f"{found[at : at + 3]} there, {ids[at : at + 3]} here"
            )


def check_chat(
    file: Path, address: str, prompter: Prompter, conversations: list[list[Message]], prompts: list[str]
) -> None:
    """Stop unless the file's chat template, and the prompt of the Modelfile, become the tokens of training.

    Both leave the start token to the server. Go's rendering of the Modelfile is a matter of the tests.

    Raises:
        ModelError: names the prompt.
    """
    bos = prompter.tokenizer.bos_token or ""
    for messages, prompt, ids in zip(conversations, prompts, prompter.encode(prompts), strict=True):
        templated = ask(address, "/apply-template", messages=messages)["prompt"]
        for what, text in (("its chat template", templated), ("the Modelfile", prompt.removeprefix(bos))):
            found = read_text(address, text, add_special=True)
            if found != ids:
                raise ModelError(
                    f"{file.name}: by {what} llama.cpp asks {prompter.tokenizer.decode(found)!r}, "
                    f"training asked {prompt!r}"
                )


def next_token(address: str, ids: list[int]) -> tuple[int, dict[int, float]]:
    """Return llama.cpp's greedy token behind others, and the log probabilities of the likeliest.

    Of a token that ends within a character the server gives no probabilities.
    """
    greedy = {"n_predict": 1, "temperature": 0, "repeat_penalty": 1, "cache_prompt": False}
    answer = ask(address, "/completion", prompt=ids, n_probs=LIKELIEST, return_tokens=True, **greedy)
    places = answer.get("completion_probabilities", [])
    likeliest = {token["id"]: token["logprob"] for token in places[0]["top_logprobs"]} if places else {}
    return max(likeliest, key=likeliest.get) if places else answer["tokens"][0], likeliest


@torch.inference_mode()
def expect(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """Return the log probabilities of every token at each place of an answer, shape (answer length, vocabulary)."""
    logits = model(torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
    return logits.float().log_softmax(dim=-1)
