import mmap
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model

from civilqa.base_model.profiles import Profile
from civilqa.model.hardware import STATUS, peak_memory_bytes, reset_peak_memory
from civilqa.model.loading import count_parameters, load_base
from civilqa.program.errors import MemoryShortage, ParameterError
from civilqa.program.lifecycle.machine_errors import is_out_of_memory
from civilqa.program.parameters import read_choice
from civilqa.training import memory
from civilqa.training.adapter import LoraParams, make_lora_config
from civilqa.training.answer_loss import IGNORED_LABEL
from civilqa.training.memory import (
    MIB,
    STATE_BYTES,
    Estimate,
    MemorySampler,
    check_memory,
    check_that_it_fits,
    control_group_bytes,
    estimate_footprint,
    explain_out_of_memory,
    format_seconds,
    free_memory_bytes,
    held_memory_bytes,
    memory_advice,
    trial_pass,
)
from civilqa.training.recipe import TrainingHardware
from small_training import HARDWARE, MODEL, PARAMS, ROOT, TINY, losses_of, recipe_of, tiny_tuning, trainer_of

GIB = 2**30
GPU = TrainingHardware("cuda", "bf16", 2)
RECIPE = recipe_of(86, batch_size=4, gradient_accumulation_steps=2)


# --- before the weights are there ------------------------------------------------------------------------------------


def held(model):
    """Bytes of a model's parameters as they are stored, quantised ones with their scales."""
    size = 0
    for parameter in model.parameters():
        size += parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            size += state.absmax.numel() * state.absmax.element_size()
    return size


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_the_estimate_is_what_the_loaded_base_holds(quantization):
    base = load_base(MODEL, TINY, HARDWARE, quantization)
    footprint = estimate_footprint(TINY, replace(RECIPE, quantization=quantization))
    assert footprint.weights == pytest.approx(held(base), rel=0.02)


@pytest.mark.parametrize(
    "lora",
    [
        {"rank": 4},
        {"rank": 8, "target_modules": ["q_proj", "v_proj"]},
        {"rank": 4, "modules_to_save": ["embed_tokens"]},
        {"rank": 4, "trainable_token_indices": [3, 5]},
    ],
)
def test_the_trained_parameters_are_those_that_peft_trains(small_base, lora):
    params = LoraParams(**lora)
    model = get_peft_model(load_base(MODEL, small_base, HARDWARE), make_lora_config(params, None))
    # Gradient and weight in fp32, and the least that an optimiser keeps.
    bytes_each = 4 + 4 + min(STATE_BYTES.values())
    footprint = estimate_footprint(small_base, replace(RECIPE, lora=params))
    assert footprint.trained == count_parameters(model)["trainable"] * bytes_each


def test_a_training_that_cannot_fit_says_what_would(monkeypatch):
    profile = read_choice("profiles", "llama-1b-random", Profile, "model.profile", PARAMS)
    profile = profile.model_copy(update={"name": str(ROOT / profile.name)})
    recipe = replace(RECIPE, hardware=GPU, lora=LoraParams())
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: 2 * GIB)
    with pytest.raises(
        ParameterError,
        match=r"takes at least 2.36 GiB on the GPU .*2.00 GiB are free.*8bit needs 1.46 GiB.*4bit needs 1.02 GiB",
    ):
        check_memory(profile, recipe)
    assert "at least 1.02 GiB on the GPU" in check_memory(profile, replace(recipe, quantization="4bit"))
    with pytest.raises(ParameterError, match=r"tuning.\*.modules_to_save trains embed_tokens whole"):
        check_memory(profile, replace(recipe, lora=LoraParams(modules_to_save=["embed_tokens"])))


def test_processes_that_share_the_weights_need_their_part_each(monkeypatch):
    profile = read_choice("profiles", "llama-1b-random", Profile, "model.profile", PARAMS)
    profile = profile.model_copy(update={"name": str(ROOT / profile.name)})
    recipe = replace(RECIPE, hardware=GPU, lora=LoraParams(), processes=4)
    monkeypatch.setattr(memory, "free_memory_bytes", lambda device: GIB)
    with pytest.raises(ParameterError, match=r"at least 2.36 GiB"):  # DDP: each has the whole of them
        check_memory(profile, recipe)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "at least 0.59 GiB" in check_memory(profile, recipe)


def test_what_a_process_holds_is_not_free():
    free, held = free_memory_bytes("cpu"), held_memory_bytes("cpu")
    # Of the system, not of the allocator: that may have as much left of what was freed before.
    with mmap.mmap(-1, 2**26) as block:
        for page in range(0, 2**26, mmap.PAGESIZE):
            block[page] = 1
        assert held_memory_bytes("cpu") - held == pytest.approx(2**26, rel=0.1)
    assert free > 0


# --- before the first step -------------------------------------------------------------------------------------------


@pytest.fixture
def make_job(small_base, tmp_path):
    """Makes (trainer, rows, recipe) of six steps, with dropout so that the random state matters."""

    def make():
        rows = [
            {"input_ids": [9 + i] * (20 + 5 * i), "labels": [IGNORED_LABEL] * 8 + [9 + i] * (12 + 5 * i)}
            for i in range(6)
        ]
        recipe = recipe_of(len(rows), tuning=tiny_tuning(dropout=0.1), epochs=2.0)
        return trainer_of(small_base, recipe, rows, tmp_path), rows, recipe

    return make


def losses_and_weights(trainer):
    trainer.train()
    return losses_of(trainer), [p.detach().clone() for p in trainer.model.parameters() if p.requires_grad]


LIMITS = {"memory.max": "4000", "memory.current": "1500", "memory.stat": "anon 1000\ninactive_file 300\n"}
OF_VERSION_1 = {"memory.limit_in_bytes": "4000", "memory.usage_in_bytes": "1500"}
OF_VERSION_1 |= {"memory.stat": "inactive_file 1\ntotal_inactive_file 300\n"}


@pytest.mark.parametrize(
    ("group", "place", "files"),
    [
        ("0::/slurm/job\n", "slurm/job", LIMITS),
        ("0::/slurm/job\n", "slurm", LIMITS),  # of a group that this one is in
        ("0::/docker/abc\n", "", LIMITS),  # a container sees its own group at the root
        ("4:memory:/docker/abc\n1:cpu:/\n", "memory/docker/abc", OF_VERSION_1),
        ("4:memory:/docker/abc\n1:cpu:/\n", "memory", OF_VERSION_1),
    ],
)
def test_what_a_container_may_have_is_what_is_free(tmp_path, group, place, files):
    (tmp_path / "cgroup").write_text(group, encoding="utf-8")
    folder = tmp_path / "fs" / place
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    assert list(control_group_bytes(tmp_path / "cgroup", tmp_path / "fs")) == [2800]
    for name in ("memory.max", "memory.limit_in_bytes"):
        if name in files:
            (folder / name).write_text("max\n" if name == "memory.max" else str(2**63 - 4096), encoding="utf-8")
    assert min([10000, *control_group_bytes(tmp_path / "cgroup", tmp_path / "fs")]) == 10000


@pytest.mark.skipif(not STATUS.exists(), reason="the peak of a process can be begun anew on Linux alone")
def test_the_peak_is_that_since_it_was_reset():
    held = bytearray(300 * MIB)
    before = peak_memory_bytes("cpu")
    del held
    reset_peak_memory("cpu")
    assert peak_memory_bytes("cpu") < before - 200 * MIB


def test_a_trial_pass_changes_no_weight_and_no_random_state(make_job):
    trainer, rows, recipe = make_job()
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    random_state = torch.random.get_rng_state()
    estimate = trial_pass(trainer, rows, recipe)
    assert estimate.seconds > 0
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(torch.equal(p, q) for p, q in zip(trainer.model.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_a_training_after_a_trial_pass_is_the_one_without(make_job):
    trainer, _, _ = make_job()
    losses, weights = losses_and_weights(trainer)
    trainer, rows, recipe = make_job()
    trial_pass(trainer, rows, recipe)
    same_losses, same_weights = losses_and_weights(trainer)
    assert losses == same_losses
    assert all(torch.equal(weight, same) for weight, same in zip(weights, same_weights, strict=True))


def test_the_estimate_grows_with_the_steps(make_job):
    trainer, rows, recipe = make_job()
    short = trial_pass(trainer, rows, recipe)
    long = trial_pass(trainer, rows, replace(recipe, steps=600))
    assert long.seconds > 10 * short.seconds


@pytest.mark.parametrize(("device", "share"), [("cpu", 65 / 85), ("cuda", 1.0)])
def test_a_step_shrinks_with_its_tokens_where_they_are_what_it_takes(make_job, monkeypatch, device, share):
    """Not on a GPU at so few: starting the kernels takes the time there."""
    trainer, rows, recipe = make_job()
    passes = []
    monkeypatch.setattr(memory, "_pass_seconds", lambda *_: passes.append(10.0 / len(passes or "1")) or passes[-1])
    for name in ("peak_memory_bytes", "held_memory_bytes", "free_memory_bytes"):
        monkeypatch.setattr(memory, name, lambda device: 1)
    recipe = replace(recipe, hardware=replace(recipe.hardware, device=device))
    estimate = trial_pass(trainer, rows, recipe)
    assert len(passes) == (2 if device == "cuda" else 1)  # the first compiles kernels there, however long it takes
    assert estimate.seconds == pytest.approx(recipe.steps * min(passes) * share)


def test_a_training_that_does_not_fit_is_stopped_with_what_to_change():
    with pytest.raises(MemoryShortage, match=r"20.0 GiB, and there are 16.0\nIn params.yaml.*\n  1. train.preset"):
        check_that_it_fits(Estimate(60.0, 20 * GIB, 16 * GIB), RECIPE, 800)


def test_a_training_that_nearly_fills_the_memory_is_warned_of(capsys):
    check_that_it_fits(Estimate(60.0, 15 * GIB, 16 * GIB), RECIPE, 800)
    assert "warning: 94% of the memory" in capsys.readouterr().out
    check_that_it_fits(Estimate(60.0, 8 * GIB, 16 * GIB), RECIPE, 800)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.4, "3 s"), (119, "119 s"), (120, "2 min"), (3600, "60 min"), (12000, "3 h 20 min")]
)
def test_seconds_are_said_as_a_person_does(seconds, said):
    assert format_seconds(seconds) == said


# --- along the run, and when it runs out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("not enough memory: you tried to allocate 12345 bytes."),
    ],
)
def test_every_way_in_which_memory_runs_out_ends_with_what_to_change(error):
    with pytest.raises(MemoryShortage) as shortage, explain_out_of_memory(RECIPE, 800):
        raise error
    text = str(shortage.value)
    assert text.startswith("training ran out of memory: ")
    assert "1. train.preset: memory_efficient" in text
    assert shortage.value.__cause__ is None, "a traceback would keep the tensors alive"


def test_the_cpu_s_real_allocator_is_recognised():
    with pytest.raises(MemoryShortage), explain_out_of_memory(RECIPE, 800):
        torch.empty(2**60, dtype=torch.uint8)


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(RECIPE, 800):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_block_that_ends_well_ends_well():
    with explain_out_of_memory(RECIPE, 800):
        pass


def test_advice_is_in_order_of_effect_and_names_nothing_that_is_so_already():
    first, *_ = memory_advice(replace(RECIPE, hardware=replace(GPU, precision="fp32")), 800)
    assert first.startswith("hardware.precision")
    keys = [advice.split(":")[0] for advice in memory_advice(replace(RECIPE, hardware=GPU), 800)]
    assert keys[:4] == ["train.preset", "train.batch_size", "train.gradient_checkpointing", "train.quantization"]
    lean = replace(RECIPE, hardware=GPU, batch_size=1, gradient_checkpointing=True, quantization="4bit")
    assert not [advice for advice in memory_advice(lean, 200) if advice.startswith("train.")]


def test_advice_keeps_the_number_of_records_of_a_step():
    (advice,) = [
        line for line in memory_advice(replace(RECIPE, hardware=GPU), 800) if line.startswith("train.batch_size")
    ]
    assert "gradient_accumulation_steps: 8" in advice


class State:
    def __init__(self, global_step, max_steps):
        self.global_step, self.max_steps = global_step, max_steps


def test_memory_is_sampled_along_the_run_and_not_at_every_step_of_a_long_one():
    sampler = MemorySampler("cpu")
    for step in range(1, 1001):
        sampler.on_step_end(None, State(step, 1000), None)
    assert len(sampler.rows) == 200
    assert sampler.rows[-1]["step"] == 1000
    assert all(row["of"] == "process" and row["mib"] > 50 for row in sampler.rows)


def test_the_memory_of_a_gpu_is_sampled_beside_that_of_the_process(monkeypatch):
    monkeypatch.setattr(memory, "held_memory_bytes", {"cpu": 3 * 2**20, "cuda": 5 * 2**20}.__getitem__)
    sampler = MemorySampler("cuda")
    sampler.on_step_end(None, State(1, 1), None)
    assert sampler.rows == [{"step": 1, "of": "process", "mib": 3}, {"step": 1, "of": "GPU", "mib": 5}]
