import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from civilqa.model.loading import load_base
from civilqa.speed.measurements import (
    Limits,
    Work,
    compare,
    decode_work,
    describe_bound,
    measure_limits,
    prefill_work,
    training_work,
)
from civilqa.training.adapter import add_adapter
from small_training import HARDWARE, MODEL, TINY, tiny_tuning

BATCH, LENGTH = 2, 24
# One token against one other, forward, in all of tiny's layers: 4 layers of 8 heads of 32, two products of 2 FLOPs.
ATTENTION = 4 * 8 * 32 * 4


def load_tiny():
    return load_base(MODEL, TINY, HARDWARE)


def adapted(modules_to_save):
    lora = tiny_tuning(modules_to_save=modules_to_save)
    return add_adapter(load_tiny(), TINY, lora, gradient_checkpointing=False, seed=1).train()


def counted(run):
    """Return the FLOPs of the matrix products that torch itself counts. It leaves the CPU's attention out."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_training_flops_are_those_that_torch_counts():
    model = adapted(["embed_tokens"])
    ids = torch.randint(5, 3000, (BATCH, LENGTH))
    products = counted(lambda: model(input_ids=ids, labels=ids, use_cache=False).loss.backward())
    # Forward once, backward twice, and of all pairs of tokens the half that a causal model sees.
    attention = 3 * ATTENTION / 2 * LENGTH * BATCH * LENGTH
    assert training_work(model, BATCH, LENGTH).flops == products + attention


def test_a_frozen_embedding_costs_a_third_less_than_a_trained_one():
    ids = torch.randint(5, 3000, (BATCH, LENGTH))
    model = adapted([])
    products = counted(lambda: model(input_ids=ids, labels=ids, use_cache=False).loss.backward())
    attention = 3 * ATTENTION / 2 * LENGTH * BATCH * LENGTH
    # The first layer's queries, keys and values need no gradient of their input: nothing below them is trained.
    assert training_work(model, BATCH, LENGTH).flops == pytest.approx(products + attention, rel=0.02)


def test_prefill_and_decode_flops_are_those_that_torch_counts():
    base = load_tiny()
    ids = torch.randint(5, 3000, (BATCH, LENGTH))
    with torch.inference_mode():
        products = counted(lambda: base(input_ids=ids, logits_to_keep=1))
        cache = base(input_ids=ids).past_key_values
        one = counted(lambda: base(input_ids=ids[:, :1], past_key_values=cache))
    assert prefill_work(base, BATCH, LENGTH).flops == products + ATTENTION / 2 * LENGTH * BATCH * LENGTH
    # Two new tokens are one pass after the first.
    assert decode_work(base, BATCH, LENGTH, 2).flops == one + ATTENTION * (LENGTH + 1) * BATCH


def test_decode_reads_the_weights_once_for_all_sequences():
    base = load_tiny()
    one, eight = (decode_work(base, n, 0, 65).bytes for n in (1, 8))
    layers = 4 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 896)
    weights = 64 * 4 * (layers + 256 * 3072)
    assert (one - weights) * 8 == eight - weights
    assert weights < one < 2 * weights


@pytest.mark.parametrize(
    ("compute", "memory", "word"), [(0.8, 0.1, "compute"), (0.1, 0.9, "memory bandwidth"), (0.3, 0.2, "overhead")]
)
def test_the_nearest_limit_is_named(compute, memory, word):
    assert describe_bound(compute, memory).startswith(f"{word}: ")


def test_rates_are_shares_of_what_was_measured():
    found = compare(Work(flops=6e9, bytes=1e9), 2.0, Limits(matmul_flops_per_second=5e9, copy_bytes_per_second=1e10))
    assert found["compute_share"] == 0.6
    assert found["memory_share"] == 0.05
    assert found["bound_by"].isascii()


def test_the_machine_s_limits_can_be_measured():
    limits = measure_limits("cpu", torch.float32)
    # The slowest machine that runs this project at all does more than a thousandth of a current one.
    assert limits.matmul_flops_per_second > 1e8
    assert limits.copy_bytes_per_second > 1e7
