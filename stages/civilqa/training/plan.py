"""A training as it is planned: read, checked and resolved before any weight is loaded."""

from dataclasses import dataclass
from pathlib import Path

from civilqa.base_model.profiles import ModelParams, Profile, read_profile
from civilqa.base_model.prompts import Prompter, load_tokenizer, read_template
from civilqa.model.capabilities import Choice, format_table
from civilqa.model.hardware import HardwareParams, describe_machine, inspect_machine, versions
from civilqa.model.provenance import Manifest, describe_making
from civilqa.program.parameters import read_choice, read_sections
from civilqa.training.adapter import read_tuning
from civilqa.training.checkpoints import fingerprint
from civilqa.training.examples import Examples, check_validation, pack, read_examples
from civilqa.training.recipe import (
    Preset,
    Recipe,
    TrainParams,
    choose_hardware,
    refuse_fsdp_with_quantization,
    resolve_recipe,
)


@dataclass(frozen=True)
class Plan:
    """All that decides a training, and what is told of it."""

    model: ModelParams
    profile: Profile
    recipe: Recipe
    prompter: Prompter
    examples: Examples
    made_from: Manifest
    choices: list[Choice]
    records: dict[str, int]  # by split
    truncated: int
    estimate_only: bool

    @property
    def lengths(self) -> list[int]:
        """The number of tokens of each training example, or of each pack of them."""
        return [len(example["input_ids"]) for example in self.examples["train"]]

    def fingerprint(self) -> str:
        """Return what a checkpoint must share with this training to be one of it."""
        machine = describe_machine()
        return fingerprint(
            {
                "recipe": self.recipe.as_json(),
                "machine": {name: machine[name] for name in ("processor", "gpus", "system")},
                "model": self.model.model_dump(),
                "profile": self.profile.model_dump(),
                "made_from": self.made_from.model_dump(),
                "examples": self.examples,
                "versions": versions(),
            }
        )


def read_plan(formatted: Path) -> Plan:
    """Read parameters and data, resolve what is left to the machine, and print what came of it.

    Raises:
        PipelineError: something in params.yaml, the data or the base model cannot be trained with.
    """
    train, hardware_params = read_sections(train=TrainParams, hardware=HardwareParams)
    preset = read_choice("presets", train.preset, Preset, "train.preset")
    model, profile = read_profile()
    tuning = read_tuning(model)
    hardware, choices = choose_hardware(hardware_params, train, preset, inspect_machine())
    print(format_table(choices))

    prompter = Prompter(load_tokenizer(profile), read_template(formatted))
    examples, truncated = read_examples(formatted, train, prompter)
    records = {name: len(part) for name, part in examples.items()}
    if train.packing:
        examples["train"] = pack(examples["train"], train.max_length)
    recipe = resolve_recipe(train, preset, tuning, hardware, len(examples["train"]))
    check_validation(examples, recipe)
    refuse_fsdp_with_quantization(recipe.quantization)
    print("finetune: " + ", ".join(f"{key} {value}" for key, value in recipe.schedule.items()))
    return Plan(
        model=model,
        profile=profile,
        recipe=recipe,
        prompter=prompter,
        examples=examples,
        made_from=describe_making(model, profile, recipe.quantization, prompter.template, formatted),
        choices=choices,
        records=records,
        truncated=truncated,
        estimate_only=train.estimate_only,
    )
