"""Whether the base model knows the special tokens that the chat template puts into every prompt and answer."""

import math
import re

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import Prompter
from civilqa.program.errors import TemplateError
from civilqa.training.adapter import LoraParams

# What tokenizers call the places that they keep free: <|reserved_special_token_17|>, <unused42>, <extra_id_3>, [PAD7],
# and Mistral's [control_8] and <SPECIAL_20>.
RESERVED = re.compile(
    r"reserved|unused|extra_id|dummy|place.?holder|^\[(PAD|control_)\d+\]$|^<(pad_?|special_)\d+>$", re.IGNORECASE
)
MIN_RESERVED = 5  # fewer show no cluster
SAMPLE = 4096  # rows at least, if there are more: of the reserved ones, and of all, which they are compared with


def check_special_tokens(base: PreTrainedModel, prompter: Prompter, profile: Profile, lora: LoraParams) -> str:
    """Check that the base was trained on each special token of the template, or that this training trains it.

    Llama 3's base models never saw the tokens of its chat template. A model tuned with them on LoRA alone cannot tell
    one from the other, gives the end token no more than a few per cent, and does not stop. What goes in is judged by
    its input embedding, what the model must say itself by its output embedding; most small models use one for both.

    Returns:
        One line for the user: trained, being trained, or not judged and why.

    Raises:
        TemplateError: a token is neither; names it and what to do.

    Source: meta-pytorch/torchtune#2429, hiyouga/LLaMA-Factory#5593, unslothai/unsloth#915.
    """
    messages = [{"role": "system", "content": "가"}, {"role": "user", "content": "나"}]
    parts = prompter.encode(list(prompter.render(messages, "다")))
    # Without those that the tokenizer puts around any text (Llama's begin token): the base was trained with them.
    special = set(prompter.tokenizer.convert_tokens_to_ids(prompter.special_strings))
    special -= set(prompter.tokenizer("가")["input_ids"])
    prompt_ids, completion_ids = ([i for i in dict.fromkeys(part) if i in special] for part in parts)
    names = {i: prompter.tokenizer.convert_ids_to_tokens(i) for i in [*prompt_ids, *completion_ids]}
    found = f"special tokens of the template {', '.join(names.values()) or 'none'}:"
    if profile.weights == "random":
        return f"{found} not judged, since the base's weights are random"
    sides = [(base.get_input_embeddings(), prompt_ids), (base.get_output_embeddings(), completion_ids)]
    if sides[0][0].weight is sides[1][0].weight:
        sides = [(sides[0][0], list(names))]
    trained_now, untrained, unclear = set(), set(), False
    for module, ids in sides:
        now = {i for i in ids if _is_being_trained(base, module, i, lora)}
        trained_now |= now
        verdict = find_untrained(module.weight, _reserved_ids(prompter.tokenizer, module, names), ids)
        unclear |= verdict is None
        untrained |= (verdict or set()) - now
    if wrong := [i for i in names if i in untrained]:
        raise TemplateError(
            f"the chat template uses {', '.join(names[i] for i in wrong)}, which {profile.name} was never trained on "
            "(their embeddings are those of its reserved tokens): a model tuned with them would not stop. Set the "
            "profile's template to models/templates/korean_plain.jinja, which ends answers in the base's own "
            f"{prompter.tokenizer.eos_token}; or take the base's instruct model; or train the embeddings: "
            f"trainable_token_indices: {wrong} in the entry of `tuning`"
        )
    if trained_now == set(names):
        return f"{found} trained in this run"
    if unclear:
        why = "since the base has no reserved tokens, or none that differ from the others, to tell untrained ones by"
        return f"{found} not judged, {why}"
    also = ", ".join(names[i] for i in sorted(trained_now))
    return f"{found} known to the base" + (f", {also} trained on in this run" if also else "")


def find_untrained(weight: torch.Tensor, reserved: list[int], ids: list[int]) -> set[int] | None:
    """Return which of some tokens' rows lie in the cluster of tokens that were never trained, or None if there is none.

    A token that never occurs is moved by no text, only by what moves all rows alike (weight decay, and in an output
    matrix the push away from every hidden state). The rows of such tokens end up close together, near zero or near a
    common point, far from those that text has moved apart. The reserved tokens show where: the median of their rows is
    the centre, robust to the few of them that were used after all. A row is untrained if it lies closer to the centre
    than the geometric mean of two distances, that of the median reserved row and that of the median ordinary row. Where
    the second is not three times the first, the reserved rows are no cluster (random weights; an input matrix that kept
    its initial noise), and only rows near zero are judged: those shorter than a hundredth of the median row. Small
    Llamas pretrained for the purpose, 300 and 1500 steps with and without weight decay, gave 11 to 65 times for tied
    and for output embeddings, 3 to 7 times for untied input embeddings.

    Args:
        weight: of shape (vocabulary, hidden).
        reserved: ids of tokens that the tokenizer keeps free.
        ids: of the tokens to judge.

    Source: Land and Bartolo 2024, Fishing for Magikarp (arXiv:2405.05417): the Euclidean distance to the mean embedding
    of known unused tokens is their main indicator. unsloth's fix_untrained_tokens looks for rows of zeros.
    """
    vocabulary = weight.shape[0]
    sample = _rows(weight, list(range(0, vocabulary, max(1, vocabulary // SAMPLE))))  # the same ones every time
    judged = _rows(weight, ids)
    near_zero = judged.norm(dim=1) < sample.norm(dim=1).median() / 100
    found = {i for i, flag in zip(ids, near_zero.tolist(), strict=True) if flag}
    if len(reserved) < MIN_RESERVED:
        return found or None
    cluster = _rows(weight, reserved[:: max(1, len(reserved) // SAMPLE)])
    centre = cluster.median(dim=0).values
    near, far = ((rows - centre).norm(dim=1).median().item() for rows in (cluster, sample))
    if far < 3 * near:
        return found or None
    limit = math.sqrt(max(near, far / 1000) * far)  # rows that are the same to the bit leave no distance to scale
    distances = (judged - centre).norm(dim=1).tolist()
    return found | {i for i, distance in zip(ids, distances, strict=True) if distance < limit}


def _rows(weight: torch.Tensor, ids: list[int]) -> torch.Tensor:
    return weight.detach()[torch.tensor(ids, dtype=torch.long, device=weight.device)].float()


def _reserved_ids(tokenizer: PreTrainedTokenizerFast, module: torch.nn.Module, used: dict[int, str]) -> list[int]:
    """Return the ids that are named as reserved, and rows of the matrix that belong to no token."""
    beyond = range(max(tokenizer.get_vocab().values()) + 1, module.weight.shape[0])
    named = [i for i, token in tokenizer.added_tokens_decoder.items() if RESERVED.search(token.content)]
    return [i for i in (*named, *beyond) if i not in used]


def _is_being_trained(base: PreTrainedModel, module: torch.nn.Module, token_id: int, lora: LoraParams) -> bool:
    name = next(name for name, candidate in base.named_modules() if candidate is module).rpartition(".")[2]
    if name in lora.modules_to_save:
        return True
    # peft trains these rows in the input embeddings, and in the output layer where it is the same matrix.
    return module is base.get_input_embeddings() and token_id in lora.trainable_token_indices
