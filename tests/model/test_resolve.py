import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from civilqa.base_model.profiles import Profile
from civilqa.model.hardware import (
    HardwareParams,
    Machine,
    are_in_16_bits,
    choose_cuda_graphs,
    choose_device,
    format_table,
    inspect_machine,
)
from civilqa.program.errors import ParameterError
from civilqa.training.recipe import choose_hardware
from small_training import read_preset, read_train

ALL = frozenset({"bitsandbytes", "flash_attn", "liger_kernel"})


# As torch 2.13 from PyPI says of itself, which is built for CUDA 13.
BUILT_FOR = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")


def gpu(name, capability, packages=ALL):
    return Machine(("cuda", "cpu"), name, capability, BUILT_FOR, packages)


CPU = Machine(packages=ALL)
AMX = replace(CPU, cpu_bf16=True)
V100, T4 = gpu("Tesla V100", (7, 0)), gpu("Tesla T4", (7, 5))
A10, L4, H100 = gpu("NVIDIA A10", (8, 6)), gpu("NVIDIA L4", (8, 9)), gpu("NVIDIA H100", (9, 0))
MACHINES = {"cpu": CPU, "v100": V100, "t4": T4, "a10": A10, "l4": L4, "h100": H100}


def choose(machine, preset="balanced", **asked):
    auto = {"device": "auto", "precision": "auto", "cuda_graphs": "auto"}
    hardware = HardwareParams(threads=2, **{key: asked.pop(key, value) for key, value in auto.items()})
    in_16_bits = asked.pop("in_16_bits", True)
    return choose_hardware(hardware, read_train(preset=preset, **asked), read_preset(preset), machine, in_16_bits)


def resolved(machine, **asked):
    _, choices = choose(machine, **asked)
    return {choice.key.rpartition(".")[2]: choice.resolved for choice in choices}


@pytest.mark.parametrize(
    ("machine", "device", "precision", "attention", "liger_kernel", "optimizer_of_4bit"),
    [
        ("cpu", "cpu", "fp32", "varlen", False, "adamw"),
        ("t4", "cuda", "fp16", "varlen", False, "paged_adamw_8bit"),
        ("a10", "cuda", "bf16", "flash_attention_2", True, "paged_adamw_8bit"),
        ("l4", "cuda", "bf16", "flash_attention_2", True, "paged_adamw_8bit"),
        ("h100", "cuda", "bf16", "flash_attention_2", True, "paged_adamw_8bit"),
    ],
)
def test_auto_takes_the_best_that_a_machine_has(machine, device, precision, attention, liger_kernel, optimizer_of_4bit):
    expected = {
        "device": device,
        "precision": precision,
        "attention": attention,
        "liger_kernel": liger_kernel,
        "fused_lora": device == "cuda",
        "compile": False,
    }
    plain = resolved(MACHINES[machine])
    assert plain == {**expected, "quantization": "none", "optimizer": "adamw"}
    small = resolved(MACHINES[machine], preset="memory_efficient")
    assert small == {**expected, "quantization": "4bit", "optimizer": optimizer_of_4bit}


@pytest.mark.parametrize(
    ("machine", "in_16_bits", "asked", "precision", "fused_lora"),
    [
        (CPU, True, "auto", "fp32", False),
        (AMX, True, "auto", "bf16", True),
        (AMX, False, "auto", "fp32", False),
        (AMX, True, "fp32", "fp32", False),
        (replace(AMX, devices=("mps", "cpu")), True, "auto", "fp32", False),
    ],
)
def test_a_cpu_with_amx_computes_in_bf16_what_is_published_in_it(machine, in_16_bits, asked, precision, fused_lora):
    found = resolved(machine, in_16_bits=in_16_bits, precision=asked)
    assert (found["precision"], found["fused_lora"]) == (precision, fused_lora)


@pytest.mark.parametrize(
    ("weights", "config", "expected"),
    [
        ("pretrained", {"dtype": "bfloat16"}, True),
        ("pretrained", {"torch_dtype": "float16"}, True),
        ("pretrained", {"dtype": "float32"}, False),
        ("pretrained", {}, False),
        ("random", {"dtype": "bfloat16"}, False),
    ],
)
def test_weights_are_in_16_bits_if_published_so(tmp_path, weights, config, expected):
    """The merged tiny model, published in fp32, would answer otherwise than its adapter."""
    own = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **config}
    (tmp_path / "config.json").write_text(json.dumps(own), encoding="utf-8")
    profile = Profile(name=str(tmp_path), weights=weights)
    assert are_in_16_bits(profile, AMX) is expected
    assert not are_in_16_bits(profile, CPU)


REFUSED = [
    ("cpu", {"device": "cuda"}, "hardware.device: found cuda", "auto or cpu"),
    ("h100", {"device": "mps"}, "hardware.device: found mps", "auto or cpu"),
    ("cpu", {"precision": "fp16"}, "hardware.precision: found fp16, fp16 needs a CUDA GPU", "auto"),
    ("t4", {"precision": "bf16"}, "of compute capability 7.5 has no bf16", "auto or fp16"),
    ("cpu", {"attention": "flash_attention_2"}, "train.attention: found flash_attention_2", "auto or varlen"),
    ("t4", {"attention": "flash_attention_2"}, "needs compute capability 8.0, found Tesla T4", "auto or varlen"),
    ("h100", {"attention": "flash_attention_2", "precision": "fp32"}, "has no fp32", "auto or varlen"),
    ("cpu", {"liger_kernel": True}, "train.liger_kernel: found true", "auto or false"),
    ("cpu", {"fused_lora": True}, "train.fused_lora: found true", "auto or false"),
    ("t4", {"liger_kernel": True}, "Triton's compiler needs compute capability 8.0", "auto or false"),
    ("cpu", {"optimizer": "paged_adamw_8bit"}, "train.optimizer: found paged_adamw_8bit", "auto or adamw"),
    ("cpu", {"cuda_graphs": True}, "hardware.cuda_graphs: found true, CUDA graphs need a CUDA GPU", "auto or false"),
]


@pytest.mark.parametrize(("machine", "asked", "found", "remedy"), REFUSED)
def test_what_a_machine_cannot_do_is_refused_with_the_key_and_what_to_set(machine, asked, found, remedy):
    with pytest.raises(ParameterError) as error:
        choose(MACHINES[machine], **asked)
    assert found in str(error.value)
    assert str(error.value).startswith("params.yaml: ")
    assert str(error.value).endswith(f"set it to {remedy}")


@pytest.mark.parametrize(
    ("device", "asked", "resolved"),
    [
        ("cuda", "auto", True),
        ("cpu", "auto", False),
        ("mps", "auto", False),
        ("cuda", False, False),
        ("cpu", False, False),
    ],
)
def test_answers_are_generated_by_cuda_graphs_where_there_is_cuda(device, asked, resolved):
    params = HardwareParams(device="auto", precision="auto", threads=2, cuda_graphs=asked)
    assert choose_cuda_graphs(params, device).resolved is resolved


@pytest.mark.parametrize(
    ("package", "asked", "key", "fallback"),
    [
        ("flash_attn", {"attention": "flash_attention_2"}, "attention", "varlen"),
        ("liger_kernel", {"liger_kernel": True}, "liger_kernel", False),
    ],
)
def test_an_optional_package_that_is_missing_is_the_reason_for_auto_and_an_error_if_asked_for(
    package, asked, key, fallback
):
    without = replace(H100, packages=ALL - {package})
    _, choices = choose(without)
    (choice,) = [choice for choice in choices if choice.key.endswith(key)]
    assert choice.resolved == fallback
    assert "not installed" in choice.why
    with pytest.raises(ParameterError, match="not installed"):
        choose(without, **asked)


def test_quantisation_without_bitsandbytes_is_refused_under_the_key_that_asks_for_it():
    without = replace(H100, packages=frozenset())
    with pytest.raises(ParameterError, match=r"presets.memory_efficient.quantization: found 4bit"):
        choose(without, preset="memory_efficient")
    assert resolved(without, preset="memory_efficient", quantization="none")["quantization"] == "none"


def test_what_is_asked_for_and_can_be_done_stands():
    asked = {"precision": "fp16", "attention": "sdpa", "liger_kernel": False, "compile": True, "quantization": "8bit"}
    assert {key: resolved(H100, **asked)[key] for key in asked} == asked
    assert resolved(H100, optimizer="paged_adamw_8bit")["optimizer"] == "paged_adamw_8bit"
    assert resolved(H100, device="cpu")["attention"] == "varlen"


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (BUILT_FOR, (7, 0), False),
        (BUILT_FOR, (8, 9), True),  # code for 8.0 or 8.6
        (BUILT_FOR, (11, 0), False),
        (BUILT_FOR, (12, 1), True),
        (BUILT_FOR, (13, 0), True),  # compiled by the driver, from what is there for 12.0
        (("sm_90a",), (9, 0), True),
        ((), (7, 0), True),  # unknown
    ],
)
def test_a_gpu_that_torch_was_not_built_for_is_refused_with_the_build_to_install(architectures, capability, runs):
    machine = replace(V100, compute_capability=capability, architectures=architectures)
    if runs:
        assert resolved(machine)["device"] == "cuda"
        return
    with pytest.raises(ParameterError, match=r"was not built .*sm_75.*previous-versions"):
        choose(machine)
    assert resolved(machine, device="cpu")["device"] == "cpu"


def test_eight_bits_need_turing():
    with pytest.raises(ParameterError, match=r"train.quantization: found 8bit, needs compute capability 7.5.*4bit"):
        choose(replace(V100, architectures=()), quantization="8bit")


def test_compiling_without_a_compiler_is_refused():
    with pytest.raises(ParameterError, match=r"train.compile: found true, torch.compile finds no"):
        choose(replace(CPU, compiler=False), compile=True)


def test_an_apple_gpu_trains_in_fp32_and_does_not_quantise():
    apple = Machine(("mps", "cpu"), packages=ALL)
    assert (resolved(apple)["device"], resolved(apple)["precision"]) == ("mps", "fp32")
    with pytest.raises(ParameterError, match="found mps; set it to none"):
        choose(apple, quantization="4bit")


def test_the_table_shows_what_was_asked_what_it_became_and_why():
    _, choices = choose(T4)
    lines = format_table(choices).splitlines()
    assert lines[0].split() == ["what", "asked", "resolved", "why"]
    assert len(lines) == 9
    (precision,) = [line for line in lines if line.startswith("hardware.precision")]
    assert precision.split(maxsplit=3) == [
        "hardware.precision",
        "auto",
        "fp16",
        "Tesla T4 of compute capability 7.5 has no bf16, which needs 8.0",
    ]


def test_more_processes_than_gpus_are_told_so(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    properties = {0: SimpleNamespace(name="A100", major=8, minor=0)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    machine = inspect_machine()

    def asked(device):
        return HardwareParams(device=device, precision="auto", threads=1, cuda_graphs="auto")

    with pytest.raises(ParameterError, match="launch: found a process number 2 on a machine with 1 GPU"):
        choose_device(asked("auto"), machine, True)
    device, _ = choose_device(asked("cpu"), machine, True)
    assert device.resolved == "cpu"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert choose_device(asked("auto"), inspect_machine(), True)[0].resolved == "cpu"
