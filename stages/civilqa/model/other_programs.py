"""What programs other than transformers 5 read of an exported model."""

from typing import Any

from civilqa.base_model.prompts import Prompter

MAX_NEW_TOKENS = 512


def with_older_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config.json that transformers 4 reads as transformers 5 does, and what reads as it does: vLLM, Ollama.

    They know the rotary embedding by other names; without these they take a default, and answer as another model.
    """
    rope = config.get("rope_parameters") or {}
    by_layer = {kind: given for kind, given in rope.items() if isinstance(given, dict)}
    whole = by_layer.get("full_attention", rope)
    older = {"torch_dtype": config.get("dtype")}
    if not by_layer.keys() - {"full_attention", "sliding_attention"} and "rope_theta" in whole:
        older["rope_theta"] = whole["rope_theta"]
        scaled = {name: value for name, value in whole.items() if name != "rope_theta"}
        older["rope_scaling"] = scaled if scaled.get("rope_type", "default") != "default" else None
        if "sliding_attention" in by_layer:
            older["rope_local_base_freq"] = by_layer["sliding_attention"]["rope_theta"]
    return older | config


def make_modelfile(
    prompter: Prompter, system_prompt: str, conversational: bool, gguf: dict[str, Any] | None = None
) -> str:
    """Return Ollama's Modelfile: the prompt of training in Go's template language.

    Ollama puts the start token there itself. It reads special tokens in a question as such; no template prevents it.

    Args:
        system_prompt: one of training's; Ollama has one alone.
        conversational: earlier turns are passed on, as in the chat; else each question stands alone, as in training.
        gguf: what the manifest says of the folder's GGUF file, which Ollama is then to take.
    """
    system, question = ("{{ .System }}", "{{ .Prompt }}") if conversational else ("{{ $.System }}", "{{ .Content }}")
    turns = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    prompt, completion = prompter.render(turns, "{{ .Response }}")
    prompt = prompt.removeprefix(prompter.tokenizer.bos_token or "")
    template = prompt + completion
    if not conversational:
        template = (
            "{{ range $i, $_ := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}" + prompt + "{{ end }}{{ end }}"
        )
    end = prompter.tokenizer.convert_ids_to_tokens(prompter.end_token_id)
    source = f"./{gguf['file']}" if gguf else "."
    return (
        "# ollama create civil-law -f Modelfile\n"
        f"FROM {source}\n"
        f'TEMPLATE """{template}"""\n'
        f'SYSTEM """{system_prompt}"""\n'
        f"PARAMETER stop {end}\n"
        "PARAMETER temperature 0\n"
        "PARAMETER repeat_penalty 1\n"  # its default of 1.1 hits article numbers that the question holds
        f"PARAMETER num_predict {MAX_NEW_TOKENS}\n"
    )
