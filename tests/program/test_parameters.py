from pathlib import Path

import dvc.utils.serialize
import pytest

from civilqa.base_model.profiles import Profile
from civilqa.program.errors import ParameterError
from civilqa.program.parameters import SECTIONS, Section, read_choice, read_params, read_sections
from civilqa.training.adapter import Tuning
from civilqa.training.recipe import Preset, TrainParams
from conftest import ROOT


class Small(Section):
    epochs: float
    batch_size: int
    name: str | None


class Outer(Section):
    name: str
    small: Small


class Seeded(Section):
    seed: int


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_section_is_read_with_its_types(tmp_path):
    path = write(tmp_path, "train: {epochs: 4, batch_size: 2, name: null}\n")
    (small,) = read_sections(path, train=Small)
    assert (small.epochs, small.batch_size, small.name) == (4, 2, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epochs: 4, batch_size: 2}", "train.name: missing"),
        ("train: {epoch: 4, batch_size: 2, name: a, epochs: 1}", "unknown key 'epoch' (did you mean 'epochs'?)"),
        ("train: {epochs: 4, batch_size: 2.5, name: a}", "train.batch_size: found 2.5"),
        ("train: {epochs: four, batch_size: 2, name: a}", "train.epochs: found 'four'"),
        ("train: {epochs: '4', batch_size: 2, name: a}", "train.epochs: found '4'"),
        ("train: {epochs: true, batch_size: 2, name: a}", "train.epochs: found True"),
        ("train: {epochs: .nan, batch_size: 2, name: a}", "train.epochs: found nan"),
        ("train: 3", "train: found 3, want a mapping with the keys epochs, batch_size, name"),
        ("trian: {epochs: 4}", "unknown section 'trian' (did you mean 'train'?)"),
        ("prepare: {}", "train: missing section"),
        ("- 1", "holds list, want sections"),
        ("", "holds NoneType, want sections"),
        ("train: {epochs: 4", "not readable as YAML"),
        ("train: {epochs: 4}\ntrain: {epochs: 5}", "not readable as YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, text, message):
    with pytest.raises(ParameterError) as error:
        read_sections(write(tmp_path, text), train=Small)
    assert message in str(error.value)
    assert "params.yaml: " in str(error.value)


def test_every_problem_is_reported_at_once(tmp_path):
    path = write(tmp_path, "train: {epochs: x, batch_size: y, name: 1, nam: 2}\n")
    with pytest.raises(ParameterError) as error:
        read_sections(path, train=Small)
    assert len(str(error.value).splitlines()) == 4


def test_a_missing_file_says_where_to_start(tmp_path):
    with pytest.raises(ParameterError, match="run the stage from the root of the repository"):
        read_params(tmp_path / "params.yaml")


def test_an_unknown_choice_lists_those_there_are(tmp_path):
    path = write(tmp_path, "presets: {fast: {}, balanced: {}}\n")
    with pytest.raises(ParameterError, match=r"train.preset: unknown preset 'fats' .*'fast'.*: fast, balanced"):
        read_choice("presets", "fats", Preset, "train.preset", path)


def test_a_nested_key_is_named_in_full(tmp_path):
    path = write(tmp_path, "presets: {mine: {name: a, small: {epochs: 1, batch_size: 2, name: b, epoch: 3}}}\n")
    with pytest.raises(ParameterError, match=r"presets.mine.small: unknown key 'epoch' \(did you mean 'epochs'\?\)"):
        read_choice("presets", "mine", Outer, "train.preset", path)


def test_a_profile_needs_no_more_than_its_name(tmp_path):
    path = write(tmp_path, "profiles: {mine: {name: someone/model, revision: abc}}\ntuning: {mine: {}}\n")
    assert read_choice("profiles", "mine", Profile, "model.profile", path).weights == "pretrained"
    assert read_choice("tuning", "mine", Tuning, "model.profile", path).rank == 16


def test_a_seed_of_a_section_s_own_comes_before_the_project_s(tmp_path):
    for own, found in (("", 1), ("seed: null", 1), ("seed: 2", 2), ("seed: 0", 0)):
        (seeded,) = read_sections(write(tmp_path, f"seed: 1\nsplit: {{{own}}}\n"), split=Seeded)
        assert seeded.seed == found


# Every form that `dvc exp run -S key=value` was seen to write, and those that YAML 1.1 reads otherwise.
@pytest.mark.parametrize(
    "text",
    [
        *("1e-05", "1e-5", "5E-4", "0.0001", "1.", ".5", "+3", "-0.5", ".inf"),
        *("4", "012", "0o17", "1_000", "true", "null", "~", "on", "yes", "NO"),
        *("'4'", '"전세사기"', "['전세사기']", "12:30:00", "2026-06-08"),
    ],
)
def test_values_are_read_as_dvc_reads_them(tmp_path, text):
    path = write(tmp_path, f"train:\n  x: {text}\n")
    assert repr(read_params(path)) == repr(dvc.utils.serialize.load_yaml(str(path)))


def test_a_small_learning_rate_set_with_dvc_is_a_number(tmp_path):
    assert read_params(write(tmp_path, "train: {learning_rate: 1e-05}\n"))["train"]["learning_rate"] == 0.00001


@pytest.mark.parametrize("preset", ["fast", "balanced", "quality", "memory_efficient"])
def test_every_preset_of_params_yaml_is_valid(preset):
    assert read_choice("presets", preset, Preset, "train.preset", ROOT / "params.yaml")


@pytest.mark.parametrize("profile", read_params(ROOT / "params.yaml")["profiles"])
def test_every_profile_of_params_yaml_is_valid(profile):
    assert read_choice("profiles", profile, Profile, "model.profile", ROOT / "params.yaml")


def test_hub_models_are_pinned_to_a_revision():
    for name, profile in read_params(ROOT / "params.yaml")["profiles"].items():
        if profile["weights"] == "pretrained" and not profile["name"].startswith("models/"):
            assert len(profile["revision"]) == 40, name


def test_the_presets_are_those_of_the_design():
    presets = read_params(ROOT / "params.yaml")["presets"]
    stated = {name: (p["epochs"], p["learning_rate"], p["batch_size"]) for name, p in presets.items()}
    assert stated == {
        "fast": (2, 2e-4, 4),
        "balanced": (4, 1e-4, 2),
        "quality": (6, 5e-5, 1),
        "memory_efficient": (3, 1e-4, 1),
    }
    assert presets["memory_efficient"]["quantization"] == "4bit"
    assert presets["memory_efficient"]["gradient_checkpointing"]


def test_params_yaml_has_no_section_that_no_stage_reads():
    assert set(read_params(ROOT / "params.yaml")) == set(SECTIONS)


def test_train_parameters_refuse_a_negative_learning_rate(tmp_path):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("  learning_rate:\n", "  learning_rate: -1\n")
    with pytest.raises(ParameterError, match=r"train.learning_rate: found -1"):
        read_sections(write(tmp_path, text), train=TrainParams)
