"""Every key of params.yaml broken in turn: the stages that read it say so, before any work."""

import copy
import math
from pathlib import Path

import pytest

from accidents import checked, outputs, run
from benchmark import BenchmarkParams
from civilqa.base_model.profiles import ModelParams, Profile
from civilqa.base_model.prompts import FormatParams
from civilqa.chat.engine import ChatParams
from civilqa.law.statutes import ReferenceParams
from civilqa.model.hardware import HardwareParams
from civilqa.program import parameters
from civilqa.program.errors import ParameterError, PipelineError
from civilqa.program.parameters import read_choice, read_params, read_sections
from civilqa.training.adapter import Tuning
from civilqa.training.recipe import Preset, TrainParams
from conftest import ROOT, edit_params
from evaluate import EvaluateParams
from prepare import PrepareParams
from probe import ProbeParams
from split import SplitParams

PARAMS = read_params(ROOT / "params.yaml")
SECTIONS = {
    "hardware": HardwareParams,
    "model": ModelParams,
    "prepare": PrepareParams,
    "split": SplitParams,
    "format": FormatParams,
    "train": TrainParams,
    "evaluate": EvaluateParams,
    "benchmark": BenchmarkParams,
    "chat": ChatParams,
    "probe": ProbeParams,
    "reference": ReferenceParams,
}
CHOICES = {
    "profiles": (Profile, "model.profile"),
    "tuning": (Tuning, "model.profile"),
    "presets": (Preset, "train.preset"),
}

# Sections whose keys are a user's own names: a misspelt one is another name.
FREE = {("format", "system_prompts"), ("prepare", "columns")}


def walk(value, path=()):
    """Yield the path of every key, the sections' own among them."""
    for name, inner in value.items():
        yield (*path, name)
        if isinstance(inner, dict):
            yield from walk(inner, (*path, name))


# launch is a command that DVC starts; the seed is read with each section that leaves its own empty.
KEYS = [path for path in walk(PARAMS) if len(path) > 1 and not (len(path) == 2 and path[0] in CHOICES)]


def read_all(path, section, choice=None):
    """Read one section as the stages do; raises what they raise."""
    if section in CHOICES:
        kind, chosen_by = CHOICES[section]
        return read_choice(section, choice, kind, chosen_by, path)
    return read_sections(path, **{section: SECTIONS[section]})


def broken(path, change):
    """Return the parameters with the mapping that holds a key changed by `change(mapping, key)`."""
    params = copy.deepcopy(PARAMS)
    mapping = params
    for name in path[:-1]:
        mapping = mapping[name]
    change(mapping, path[-1])
    return params


def refusal(params, path):
    """Return the message with which the section of a key is refused, or None if it is read.

    The parameters are handed over as read from the file, which takes longer than checking them; see `FILES` for that.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameters, "read_params", lambda path: params)
        try:
            read_all(Path("params.yaml"), path[0], path[1] if path[0] in CHOICES else None)
        except ParameterError as error:
            return str(error)
    return None


def default_of(path):
    """Return whether a key may be left out, since it has a default; a section's seed is then the project's."""
    return (path[0] == "profiles" and path[-1] != "name") or path[0] == "tuning" or path[-1] == "seed"


def test_every_section_that_a_stage_reads_is_walked():
    assert set(PARAMS) == {*SECTIONS, *CHOICES, "launch", "seed"}
    assert len(KEYS) > 130


def test_every_missing_key_is_named(outcomes):
    for path in KEYS:
        if default_of(path) or (path[:2] in FREE and len(path) > 2 and path[-1] != "default"):
            continue
        target = broken(path, lambda mapping, key: mapping.pop(key))
        with outcomes.trial("params.yaml: key missing", path[0], "refused by its full name"):
            message = refusal(target, path)
            assert message is not None, path
            assert ".".join(path[:-1]) in message, (path, message)
            assert path[-1] in message, (path, message)


def test_every_misspelt_key_is_named_with_the_right_one(outcomes):
    for path in KEYS:
        if path[:2] in FREE and len(path) > 2:
            continue
        target = broken(path, lambda mapping, key: mapping.update({f"{key}x": mapping.pop(key)}))
        with outcomes.trial("params.yaml: key misspelt", path[0], "refused, the right name suggested"):
            message = refusal(target, path)
            assert message is not None, path
            assert f"unknown key '{path[-1]}x'" in message, message
            assert f"did you mean '{path[-1]}'" in message, message


WRONG = {
    "a list of a list": [[1]],
    "a mapping": {"a": {"b": 1}},
    "minus one": -1,
    "minus a half": -0.5,
    "not a number": math.nan,
    "infinite": math.inf,
    "10^30": 10**30,
    "10^300": 1e300,
    "a truth value": True,
    "a text": "nonsense",
    "a long text": "가" * 100_000,
    "a line break": "a\nb",
    "null": None,
    "zero": 0,
    "an empty text": "",
}


# Keys that hold a text of the user's own.
TEXTS = {
    *("profile", "preset", "name", "revision", "tokenizer", "template", "pad_token", "target_modules"),
    *("source", "python", "bert_score_model", "url", "model", "engine_url", "engine_model", "statutes"),
}
NULLABLE = {
    *(("train", key) for key in ("epochs", "learning_rate", "batch_size", "quantization", "gradient_checkpointing")),
    *(("train", key) for key in ("max_length", "keep", "early_stopping_patience", "checkpoint_steps")),
    *(("train", "neftune_noise_alpha"), ("evaluate", "max_train_records"), ("evaluate", "bert_score_model")),
    ("split", "near_duplicate_answer_similarity"),
    *(("evaluate", "judge", "url"), ("evaluate", "judge", "model")),
    *(
        ("profiles", name, key)
        for name in PARAMS["profiles"]
        for key in ("revision", "tokenizer", "template", "pad_token")
    ),
}
# Keys that zero is right for.
ZERO = {
    *("seed", "fold", "validation_fraction", "dropout", "max_train_records", "few_shot_examples", "warmup"),
    *("warmup_fraction", "weight_decay", "temperature", "max_retries", "retrieved_examples"),
    *("retrieved_articles", "statutes_in_prompt"),
}
# Keys that any number is right for as such: the data decide, and prepare, split and evaluate look at them.
COUNTS = {
    *("min_question_characters", "min_answer_characters", "near_duplicate_answer_characters"),
    *("max_train_records", "fold", "folds"),
}


def may_be_right(path, value, old):
    """Return whether a wrong value of WRONG happens to be a right one for this key."""
    key = path[-1]
    if value is None:
        return path in NULLABLE or path[-1] == "seed"
    if isinstance(value, bool):
        return isinstance(old, bool) or key in {
            "gradient_checkpointing",
            "liger_kernel",
            "compile",
            "fused_lora",
            "cuda_graphs",
        }
    if isinstance(value, str):
        free = path[:2] in FREE and len(path) > 2
        return free or (key in TEXTS and value == WRONG["a text"]) or (key == "target_modules")
    if isinstance(value, int) and path == ("split", "seed"):
        return True  # drawn from by its SHA-256
    if value == 0:
        return key in ZERO
    return isinstance(value, int) and value > 1 and key in COUNTS


@pytest.mark.parametrize("kind", WRONG)
def test_every_wrong_value_is_refused_by_its_full_name(outcomes, kind):
    value = WRONG[kind]
    for path in KEYS:
        old = PARAMS
        for name in path:
            old = old[name]
        if (old == value and type(old) is type(value)) or may_be_right(path, value, old):
            continue
        target = broken(path, lambda mapping, key: mapping.update({key: value}))
        with outcomes.trial(f"params.yaml: {kind}", path[0], "refused by its full name"):
            message = refusal(target, path)
            assert message is not None, (path, value)
            assert ".".join(path) in message, (path, message)
            assert len(message) < 2000, (path, "the message repeats a long value")


FILES = {
    # what stands in the file: whether it is read, or what the message says
    "byte order mark": (lambda text: b"\xef\xbb\xbf" + text, None),
    "Windows line ends": (lambda text: text.replace(b"\n", b"\r\n"), None),
    "old Mac line ends": (lambda text: text.replace(b"\n", b"\r"), None),
    "an anchor": (lambda text: text.replace(b"model:\n", b"model: &m\n"), None),
    "UTF-16": (lambda text: text.decode().encode("utf-16"), "not readable as YAML"),
    "a tab": (lambda text: text.replace(b"  profile", b"\tprofile"), "not readable as YAML"),
    "NUL bytes": (lambda text: text[:100] + b"\0" + text[100:], "not readable as YAML"),
    "bytes": (lambda text: bytes(range(256)), "not readable as YAML"),
    "nothing": (lambda text: b"", "holds NoneType"),
    "comments alone": (lambda text: b"# nothing\n", "holds NoneType"),
    "a text": (lambda text: b"model", "holds str"),
    "a list": (lambda text: b"- model\n", "holds list"),
    "a section twice": (lambda text: text + b"model: {}\n", "not readable as YAML"),
    "a key twice": (lambda text: text.replace(b"  seed", b"  seed: 1\n  seed", 1), "not readable as YAML"),
    "two documents": (lambda text: text + b"---\nmodel: 1\n", "not readable as YAML"),
    "a merge conflict": (lambda text: b"<<<<<<< HEAD\n" + text + b"=======\n>>>>>>> x\n", "not readable as YAML"),
    "an unknown alias": (lambda text: text.replace(b"profile: tiny", b"profile: *x"), "not readable as YAML"),
    "code": (lambda text: text.replace(b"tiny #", b"!!python/name:os.system #"), "not readable as YAML"),
    "a day that is none": (lambda text: text.replace(b"tiny #", b"2026-13-45 #"), "not readable as YAML"),
    "5000 digits": (lambda text: text.replace(b"tiny #", b"9" * 5000 + b" #"), "not readable as YAML"),
    "5000 brackets": (lambda text: b"model: " + b"[" * 5000 + b"]" * 5000, "not readable as YAML"),
    "a list in itself": (lambda text: b"model: &a [*a]\n", "model: found"),
    "a section that is a list": (lambda text: b"model: [1]\n", "model: found [1]"),
    "cut off": (lambda text: text[: text.index(b"seed: ") + 4], "not readable as YAML"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_params_yaml_is_named(tmp_path, outcomes, kind):
    change, said = FILES[kind]
    path = tmp_path / "params.yaml"
    path.write_bytes(change((ROOT / "params.yaml").read_bytes()))
    with outcomes.trial("params.yaml: " + kind, "reading", "read" if said is None else "one message"):
        if said is None:
            assert read_sections(path, model=ModelParams)[0].profile == "tiny"
        else:
            with pytest.raises(ParameterError) as error:
                read_sections(path, model=ModelParams)
            assert said in str(error.value)


def test_a_params_yaml_that_is_a_folder_is_named(tmp_path, outcomes):
    (tmp_path / "params.yaml").mkdir()
    trial = outcomes.trial("params.yaml: a folder", "reading", "one message")
    with trial, pytest.raises(ParameterError, match="cannot be read: Is a directory"):
        read_params(tmp_path / "params.yaml")


def test_cut_off_anywhere_it_is_never_read_as_another(tmp_path, outcomes):
    """A shorter file either is refused or lacks whole keys at the end, which the stages that need them refuse."""
    text = (ROOT / "params.yaml").read_bytes()
    whole = read_params(ROOT / "params.yaml")
    path = tmp_path / "params.yaml"
    for end in range(0, len(text), 997):
        path.write_bytes(text[:end])
        with outcomes.trial("params.yaml: cut off", "reading", "refused, or the keys that are left are unchanged"):
            for section, kind in SECTIONS.items():
                try:
                    (read,) = read_sections(path, **{section: kind})
                except PipelineError:
                    continue
                # What is left of the last number or word may be a shorter one: the last section alone may differ.
                if section != "probe":
                    later = list(whole)[list(whole).index(section) + 1]
                    assert read == read_sections(ROOT / "params.yaml", **{section: kind})[
                        0
                    ] or later not in read_params(path)


# --- a sample of it through the programs themselves ------------------------------------------------------------------

SAMPLE = {
    # stage: (key, value, what it says)
    "prepare": ("prepare.min_answer_characters", 0, "prepare.min_answer_characters: found 0"),
    "split": ("split.folds", 1000, "split.folds: found 1000"),
    "format": ("profiles.tiny.template", "models/templates/none.jinja", "none.jinja: no such template file"),
    "finetune": ("tuning.tiny.target_modules", ["q_projj"], "found 'q_projj', which the base 'models/tiny' has not"),
    "evaluate": ("evaluate.seed", 2**32, "evaluate.seed: found 4294967296"),
    "benchmark": ("hardware.threads", 10**6, "hardware.threads: found 1000000"),
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", SAMPLE)
def test_a_stage_ends_with_the_key_and_changes_nothing(run_copy, program, outcomes, stage):
    key, value, said = SAMPLE[stage]
    before = outputs(run_copy)
    edit_params(run_copy / "params.yaml", **{key: value})
    with outcomes.trial("params.yaml: wrong value", f"python stages/{stage}.py", "ends with 1, names the key"):
        ended = program(stage).run(run_copy)
        assert ended.status == 1, ended.stdout + ended.stderr
        assert said in ended.stderr
        assert "Traceback" not in ended.stderr
        assert outputs(run_copy) == before


@pytest.mark.slow
def test_under_dvc_wrong_values_are_told_and_the_right_ones_heal(run_copy, outcomes):
    before = outputs(run_copy)
    for setting, said in (
        ("split.fold=-1", "split.fold: found -1"),
        ("model.profile=3", "profiles.3"),
        ("train.preset=best", "presets.best"),
        ("split.fould=1", "split.fould"),
    ):
        with outcomes.trial("-S with a wrong value", "dvc exp run", "ends with an error that names it"):
            finished = run(run_copy, "dvc", "exp", "run", "-S", setting)
            assert finished.returncode != 0
            assert said in finished.stdout + finished.stderr
            assert "Traceback" not in finished.stdout + finished.stderr
        checked(run_copy, "git", "checkout", "--", "params.yaml", "dvc.lock", "metrics")
    checked(run_copy, "dvc", "repro")
    with outcomes.trial("-S with a wrong value", "dvc repro afterwards", "the undisturbed bytes"):
        assert outputs(run_copy) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [("", "'prepare.source'"), ("train: [", "params.yaml"), ("a: 1\n", "'prepare.source'")],
)
def test_dvc_says_what_is_wrong_with_a_broken_file(run_copy, outcomes, text, said):
    (run_copy / "params.yaml").write_text(text, encoding="utf-8")
    with outcomes.trial(
        "params.yaml: broken", "dvc repro", "ends with an error that names the file or the first missing key"
    ):
        finished = run(run_copy, "dvc", "repro")
        output = finished.stdout + finished.stderr
        assert finished.returncode != 0
        assert said in output
        assert "Traceback" not in output
