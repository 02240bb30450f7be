"""Asks the tuned model questions in the terminal, with the prompt that it was trained on: python stages/chat.py

Reads:  models/adapter with its chat template, the profile's base model
Params: chat, format, model, the selected profile, hardware

No stage: it writes nothing. A line is a question, from the keyboard or a pipe; each is asked by itself. `/분야 이름`
takes the system prompt of that category from here on, `/끝` or the end of the input leaves.
"""

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from civilqa.answers import Decoding, generate
from civilqa.hardware import HardwareParams, resolve_hardware
from civilqa.models import load_tuned, read_manifest
from civilqa.parameters import Section, read_sections
from civilqa.profiles import read_profile
from civilqa.prompts import FormatParams, Prompter, load_tokenizer, read_template
from civilqa.stage import run

ADAPTER = Path("models/adapter")
HELP = "질문을 한 줄로 적고 Enter를 누르십시오. 분야 바꾸기: /분야 이름 · 나가기: /끝"


class ChatParams(Section):
    max_new_tokens: Annotated[int, Field(ge=1)]


def main() -> None:
    params, prompts, hardware_params = read_sections(chat=ChatParams, format=FormatParams, hardware=HardwareParams)
    model_params, profile = read_profile()
    read_manifest(ADAPTER)  # a missing adapter is said before minutes of loading
    hardware = resolve_hardware(hardware_params)
    prompter = Prompter(load_tokenizer(profile), read_template(ADAPTER))
    model = load_tuned(model_params, profile, hardware, ADAPTER)
    decoding = Decoding(params.max_new_tokens, batch_size=1, end_token_id=prompter.end_token_id)

    print(f"\n{profile.notice}\n{HELP}\n")
    category = ""
    while True:
        print(f"[{category or '공통'}] 질문> ", end="", flush=True)
        line = sys.stdin.readline()
        text = line.strip()
        if not line or text == "/끝":
            print()
            return
        if text.startswith("/분야"):
            category = text.removeprefix("/분야").strip()
            known = [name for name in prompts.system_prompts if name != "default"]
            if category not in known:
                print(f"분야는 {', '.join(known)} 가운데서 고르십시오. 지금은 공통 안내문으로 답합니다.")
                category = ""
        elif text.startswith("/"):
            print(HELP)
        elif text:
            prompt, _ = prompter.render(prompter.messages(text, prompts.system_prompt(category)))
            (answer,) = generate(model, prompter.tokenizer, prompter.encode([prompt]), decoding)
            print(f"\n{prompter.tokenizer.decode(answer, skip_special_tokens=True).strip()}\n")


if __name__ == "__main__":
    run(main)
