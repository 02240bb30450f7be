"""What programs other than transformers 5 read of an exported model."""

from typing import Any

from civilqa.base_model.prompts import Prompter

MAX_NEW_TOKENS = 512
LONGROPE = ("short_factor", "long_factor")


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
        if "partial_rotary_factor" in whole:
            older["partial_rotary_factor"] = whole["partial_rotary_factor"]
        if (
            scaled.get("rope_type") == "longrope" and config.get("model_type") == "phi3"
        ):  # which takes these three alone
            older["rope_scaling"] = {"type": "longrope"} | {name: scaled[name] for name in LONGROPE}
        if config.get("model_type", "").startswith("gpt_neox"):
            older |= {"rotary_pct": whole["partial_rotary_factor"], "rotary_emb_base": whole["rope_theta"]}
        if "sliding_attention" in by_layer:
            older["rope_local_base_freq"] = by_layer["sliding_attention"]["rope_theta"]
    return older | config


def make_modelfile(
    prompter: Prompter, system_prompt: str, conversational: bool, gguf: dict[str, Any] | None = None
) -> str:
    """Return Ollama's Modelfile: the prompt of training in Go's template language.

    It takes the GGUF file, which says how to cut text and puts the start token there itself. What Ollama makes of a
    folder depends on its version: some put the start token there twice, some cut text by a default, few architectures
    are read. It reads special tokens in a question as such; no template prevents it.

    Args:
        system_prompt: one of training's; Ollama has one alone.
        conversational: earlier turns are passed on, as in the chat; else each question stands alone, as in training.
        gguf: what the manifest says of the folder's GGUF file; without it the file that is to be made.
    """
    source = gguf["file"] if gguf else "model-f16.gguf"
    system, question = ("{{ .System }}", "{{ .Prompt }}") if conversational else ("{{ $.System }}", "{{ .Content }}")
    asked, reply = {"role": "user", "content": question}, "{{ .Response }}"
    turns = [{"role": "system", "content": system}, asked]
    prompt, completion = prompter.render(turns, reply)
    prompt = prompt.removeprefix(prompter.tokenizer.bos_token or "")
    if conversational:
        # It renders the template once for each turn, and the system prompt with the first.
        whole, _ = prompter.render([*turns, {"role": "assistant", "content": reply}, asked])
        later = whole.rpartition(reply)[2].removeprefix(completion.partition(reply)[2])
        asking = "{{ if .System }}" + prompt + "{{ else }}" + later + "{{ end }}"
        template = asking + "{{ if .Response }}" + completion + "{{ end }}"
    else:
        template = (
            "{{ range $i, $_ := .Messages }}{{ if eq (len (slice $.Messages $i)) 1 }}" + prompt + "{{ end }}{{ end }}"
        )
    end = prompter.tokenizer.convert_ids_to_tokens(prompter.end_token_id)
    return (
        "# ollama create civil-law -f Modelfile\n"
        f"FROM ./{source}\n"
        f'TEMPLATE """{template}"""\n'
        f'SYSTEM """{system_prompt}"""\n'
        f"PARAMETER stop {end}\n"
        "PARAMETER temperature 0\n"
        "PARAMETER repeat_penalty 1\n"  # its default of 1.1 hits article numbers that the question holds
        f"PARAMETER num_predict {MAX_NEW_TOKENS}\n"
    )
