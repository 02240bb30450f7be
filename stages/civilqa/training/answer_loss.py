"""The loss of the answer tokens of a padding-free row, without the logits of all of them at once.

The output layer is a good part of a small model's work, and its logits the largest numbers of a step: 721 answer tokens
of a vocabulary of 262,144 are 0.76 GB in fp32, and a plain loss holds them three times. It runs on the tokens before
answer tokens alone. Where it is frozen, as beside LoRA, and the last thing that the model does, it is taken in chunks,
each of which leaves its loss and the gradient of its inputs, and no logits.

Source: Hsu et al. 2024, Liger Kernel (arXiv:2410.10989), section 3.2, which takes the same gradient in a GPU's kernel.
"""

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from civilqa.model.loading import WideLinear

IGNORED_LABEL = -100  # what the loss skips, in torch and transformers
CHUNK_LOGITS = 2**25  # of one chunk: 128 MiB in fp32


class ChunkedLoss(torch.autograd.Function):
    """The summed cross-entropy in nats of labels (tokens,), from states (tokens, size) by a frozen output layer."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor
    ) -> torch.Tensor:
        loss, gradient = hidden.new_zeros((), dtype=torch.float32), torch.empty_like(hidden, dtype=torch.float32)
        tokens = max(1, CHUNK_LOGITS // len(weight))
        # The same memory for each chunk: the system clears every page of what is allocated anew, a tenth of a step.
        # One row for each token of the vocabulary: the other way round the product takes up to twice as long on a CPU.
        room = weight.new_empty(len(weight) * min(tokens, len(labels)))
        fp32 = room if room.dtype == torch.float32 else torch.empty_like(room, dtype=torch.float32)
        for states, targets, kept in zip(*(t.split(tokens) for t in (hidden, labels, gradient)), strict=True):
            product, logits = (t[: len(weight) * len(states)].view(len(weight), -1) for t in (room, fp32))
            torch.mm(weight, states.to(weight.dtype).T, out=product)
            if bias is not None:
                product += bias[:, None]
            logits.copy_(product)
            logits.sub_(logits.amax(0))
            at_labels = logits.gather(0, targets[None])[0]
            total = logits.exp_().sum(0)
            loss += (total.log() - at_labels).sum()
            if ctx.needs_input_grad[0]:  # the mean row of the weights by probability, less the label's row
                product.copy_(logits)
                kept.copy_(product.T @ weight).div_(total[:, None]).sub_(weight[targets])
        ctx.save_for_backward(gradient)
        ctx.dtype = hidden.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * scale).to(ctx.dtype), None, None, None


def ends_in_frozen_head(base: PreTrainedModel) -> bool:
    """Return whether the output layer is frozen and its outputs are the logits, neither scaled nor capped."""
    head = base.get_output_embeddings()
    if type(head) not in (torch.nn.Linear, WideLinear) or head.weight.requires_grad:
        return False
    outputs: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _, inputs, output: outputs.append(output.clone()))
    was_training = base.training
    with torch.inference_mode():
        logits = base.eval()(input_ids=torch.arange(4, device=head.weight.device)[None], use_cache=False).logits
    base.train(was_training)
    hook.remove()
    return torch.equal(logits, outputs[0])


def summed_answer_loss(
    model: torch.nn.Module, row: dict[str, Any], head: torch.nn.Linear | None
) -> tuple[torch.Tensor, int]:
    """Return the summed loss in nats of the answer tokens of a row, and their number.

    Args:
        row: what trl's collator makes without padding; `labels` of shape (1, tokens), those of the prompts and of each
            record's first token ignored.
        head: the model's output layer, if `ends_in_frozen_head`; None: the loss is that of whole logits.
    """
    inputs = {name: value for name, value in row.items() if name != "labels"}
    labels = row["labels"][0]
    before = (labels[1:] != IGNORED_LABEL).nonzero()[:, 0]
    targets = labels[before + 1]
    if head is None:
        logits = model(**inputs, logits_to_keep=before, use_cache=False).logits[0]  # (answer tokens, vocabulary)
        return cross_entropy(logits.float(), targets, reduction="sum"), len(before)
    head.forward = lambda hidden: hidden  # so that what comes out is what would have gone into it
    try:
        hidden = model(**inputs, logits_to_keep=before, use_cache=False).logits[0]  # (answer tokens, hidden size)
    finally:
        del head.forward
    return ChunkedLoss.apply(hidden, head.weight, head.bias, targets), len(before)
