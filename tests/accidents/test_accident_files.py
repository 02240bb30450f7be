"""Every file that a program reads, cut off, emptied, flipped or another: one message or the right result."""

import json
import random
import shutil
from pathlib import Path

import pytest

from accidents import checked, leftovers, outputs, run
from civilqa.base_model.hub import read_config
from civilqa.base_model.profiles import Profile
from civilqa.base_model.prompts import (
    FormatParams,
    Prompter,
    check_tokens,
    load_prompter,
    load_tokenizer,
    read_formatted,
)
from civilqa.dataset.records import Record, read_records
from civilqa.generation.answers import Answer, read_kept
from civilqa.law.statutes import load_reference
from civilqa.program.errors import ModelError, PipelineError, RecordError, TemplateError
from civilqa.program.files import read_json, read_jsonl, sha256_json, write_json
from civilqa.scoring.gold import read_gold, read_test_cases
from conftest import ROOT, edit_params
from format import format_records

TINY = Profile(
    name=str(ROOT / "models/tiny"), weights="random", template=str(ROOT / "models/templates/korean_plain.jinja")
)
PROMPTS = FormatParams(style="conversational", statutes_in_prompt=0, seed=1, system_prompts={"default": "답하십시오."})
RECORD = Record(id="q-1", question="보증금은?", answer="돌려받습니다.", category="전세사기", difficulty="초급")


def damages(content, count, seed=0):
    """Yield (kind, bytes): nothing, cuts and flipped bits at random places, bytes of zero, random bytes."""
    draw = random.Random(seed)
    yield "emptied", b""
    yield "zeroed", bytes(len(content))
    yield "random bytes", draw.randbytes(min(len(content), 10_000))
    for _ in range(count):
        yield "cut off", content[: draw.randrange(len(content))]
        place = draw.randrange(len(content))
        yield "bit flipped", content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def try_all(outcomes, path, target, read, count, same=None):
    """Damage a file in every way: reading it raises a PipelineError, or gives what `same` allows.

    `same(kind, value)` says whether what was read is right; None: any value that could be read will do, since nothing
    in the file itself can tell.
    """
    content = path.read_bytes()
    refused = 0
    for kind, damaged in damages(content, count):
        path.write_bytes(damaged)
        with outcomes.trial(f"file {kind}", target, "one message, or read as far as it is whole"):
            try:
                value = read(path)
            except PipelineError:
                refused += 1
            else:
                assert same is None or same(kind, value), f"{kind}: read as {str(value)[:200]}"
    path.write_bytes(content)
    read(path)
    return refused


@pytest.fixture
def count(repeats):
    """How many cuts and flips of each file."""
    return 12 * repeats


@pytest.fixture
def copy(tmp_path):
    def copy(name):
        target = tmp_path / Path(name).name
        shutil.copy2(ROOT / name, target)
        return target

    return copy


def test_gold_and_test_cases(copy, tmp_path, outcomes, count):
    for name, read in (("data/raw/gold.jsonl", read_gold), ("data/raw/test_cases.jsonl", read_test_cases)):
        lines = (ROOT / name).read_bytes().splitlines(keepends=True)
        copy(name).write_bytes(b"".join(lines[:2]))  # checking a line takes long, and they are all alike
        assert try_all(outcomes, tmp_path / Path(name).name, name, read, count) > count // 2


TABLES = ("acts.csv", "titles.csv", "paragraphs.csv", "in_force.csv")


@pytest.mark.parametrize("name", TABLES)
def test_the_table_of_acts(tmp_path, outcomes, count, name):
    for other in TABLES:
        shutil.copy2(ROOT / "data/reference" / other, tmp_path / other)

    def read(path):
        load_reference.cache_clear()
        return load_reference(tmp_path)

    def same(kind, value):
        return kind not in ("cut off", "emptied", "zeroed", "random bytes")

    assert try_all(outcomes, tmp_path / name, f"data/reference/{name}", read, count, same) > count
    load_reference.cache_clear()


def test_records(tmp_path, outcomes, count):
    path = tmp_path / "records.jsonl"
    row = {name: getattr(RECORD, name) for name in ("id", "question", "answer", "category", "difficulty")}
    path.write_text((json.dumps(row, ensure_ascii=False) + "\n") * 20, encoding="utf-8")
    assert try_all(outcomes, path, "data/splits", read_records, 4 * count) > 2 * count


def test_formatted_rows(tmp_path, outcomes, count):
    """A changed letter or token no longer fits the other; what was cut off at the end of a line shows nowhere."""
    prompter = load_prompter(TINY, "conversational")
    path = tmp_path / "train.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in format_records([RECORD] * 3, PROMPTS, prompter)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    right = {line: json.loads(line) for line in lines}[lines[0]]

    def read(path):
        rows = list(read_formatted(path))
        check_tokens(path, rows, prompter)
        return rows

    def same(kind, rows):
        return all(
            (row["prompt_ids"], row["completion_ids"]) == (right["prompt_ids"], right["completion_ids"]) for row in rows
        )

    assert try_all(outcomes, path, "data/formatted", read, 4 * count, same) > 2 * count


def test_rows_formatted_with_another_template_are_refused(tmp_path, outcomes):
    prompter = load_prompter(TINY, "conversational")
    other = Prompter(prompter.tokenizer, prompter.template.replace("질문", "물음"))
    assert other.template != prompter.template
    rows = format_records([RECORD], PROMPTS, prompter)
    with outcomes.trial("formatted with another template", "finetune, evaluate", "refused"):
        check_tokens(tmp_path / "train.jsonl", rows, prompter)
        with pytest.raises(RecordError, match="was formatted with another profile"):
            check_tokens(tmp_path / "train.jsonl", rows, other)


@pytest.mark.parametrize(
    "line",
    [
        *('{"id": "q-1"}', '{"id": "q-1", "prompt_ids": [], "completion_ids": [1]}', "[]", "1", '"text"', "null"),
        '{"id": "q-1", "prompt_ids": [true], "completion_ids": [1]}',
        '{"id": "q-1", "prompt_ids": [1.5], "completion_ids": [1]}',
        '{"id": "q-1", "prompt_ids": [-1], "completion_ids": [1]}',
        '{"id": 1, "prompt_ids": [1], "completion_ids": [1]}',
        '{"prompt_ids": [1], "completion_ids": [1]}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_formatted_row_is_named(tmp_path, outcomes, line):
    path = tmp_path / "train.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    trial = outcomes.trial("line of another kind", "data/formatted", "refused with file and line")
    with trial, pytest.raises(RecordError, match=r"train.jsonl:1: "):
        list(read_formatted(path))


def test_the_tokenizer_s_files(tmp_path, outcomes, count):
    folder = tmp_path / "base"
    shutil.copytree(ROOT / "models/tiny", folder)
    profile = TINY.model_copy(update={"name": str(folder)})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        refused = try_all(
            outcomes, folder / name, f"models/tiny/{name}", lambda path: load_tokenizer(profile), count // 2
        )
        assert refused > count // 4


def test_the_base_s_configuration(tmp_path, outcomes, count):
    folder = tmp_path / "base"
    shutil.copytree(ROOT / "models/tiny", folder)
    profile = TINY.model_copy(update={"name": str(folder)})
    assert (
        try_all(outcomes, folder / "config.json", "models/tiny/config.json", lambda path: read_config(profile), count)
        > count // 2
    )


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"hidden_size": "x"},
            {"hidden_size": 0},
            {"hidden_size": -8},
            {"num_attention_heads": 7},
            {"vocab_size": None},
        ),
        *({"rms_norm_eps": "a"}, {"hidden_act": "nope"}, {"model_type": "nope"}, {"num_hidden_layers": 1.5}),
        *({"rope_parameters": 3}, {"torch_dtype": "x"}, {"num_key_value_heads": 3}, {"head_dim": 0}),
    ],
)
def test_a_configuration_that_no_model_can_have_is_told(tmp_path, outcomes, change):
    """Either it is refused, or transformers makes a model of it that computes."""
    import torch

    from civilqa.base_model.profiles import ModelParams
    from civilqa.model.hardware import Hardware
    from civilqa.model.loading import load_base

    shutil.copytree(ROOT / "models/tiny", tmp_path / "base")
    path = tmp_path / "base/config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    profile = TINY.model_copy(update={"name": str(tmp_path / "base")})
    with outcomes.trial("config.json with an impossible value", "finetune", "refused, or a model that computes"):
        try:
            base = load_base(ModelParams(profile="tiny", seed=1), profile, Hardware("cpu", "fp32", 1))
        except ModelError:
            pass
        else:
            assert torch.isfinite(base(torch.arange(9)[None]).logits).all()


def test_templates(copy, outcomes, count):
    path = copy("models/templates/korean_plain.jinja")
    profile = TINY.model_copy(update={"template": str(path)})

    def read(path):
        prompter = load_prompter(profile, "conversational")
        assert prompter.end_token_id
        return prompter.render(prompter.messages("질문", "안내"), "답")

    assert try_all(outcomes, path, "models/templates", read, count) > count // 2


@pytest.mark.parametrize(
    "text",
    ["{{ nope.nope }}", "{% for %}", "{{ 1 / 0 }}", "{% include 'x' %}", "", " \n", "{{ raise_exception('x') }}"],
)
def test_a_template_that_is_none_is_told(tmp_path, outcomes, text):
    path = tmp_path / "x.jinja"
    path.write_text(text, encoding="utf-8")
    with outcomes.trial("template that cannot be rendered", "format", "one message"), pytest.raises(TemplateError):
        assert load_prompter(TINY.model_copy(update={"template": str(path)}), "conversational").end_token_id


def test_kept_answers_that_are_not_whole_are_generated_again(tmp_path, outcomes, count):
    """Every letter counts: an answer with one flipped would be scored."""
    answers = [Answer("민법 제750조에 따릅니다.", 9, True, 12.5), Answer("답", 1, False, 3.25)]
    answers = [vars(answer) for answer in answers]
    path = tmp_path / "kept.json"
    write_json(path, {"answers": answers, "sha256": sha256_json(answers)})
    content = path.read_bytes()
    for kind, damaged in damages(content, 4 * count):
        path.write_bytes(damaged)
        with outcomes.trial(f"file {kind}", ".generations", "the answers as they were, or generated again"):
            assert read_kept(path, 2) in (None, answers)
    path.write_bytes(content)
    assert read_kept(path, 2) == answers
    assert read_kept(path, 3) is None
    assert read_kept(tmp_path / "none.json", 2) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"1", b"\xff", b"{", b"[" * 100_000])
def test_json_of_another_kind_is_told(tmp_path, outcomes, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    trial = outcomes.trial("JSON of another kind", "metrics", "one message")
    with trial, pytest.raises(RecordError, match=r"x\.json"):
        read_json(path)


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(RecordError, match=r"x\.jsonl:2: no JSON"):
        list(read_jsonl(path))


# --- through the programs --------------------------------------------------------------------------------------------

# stage, file, what is done to it, what is said
BROKEN = [
    ("prepare", "data/reference/acts.csv", "cut", "is cut off"),
    ("split", "data/prepared/records.jsonl", "cut", "no JSON"),
    ("format", "data/splits/test.jsonl", "cut", "no JSON"),
    ("format", "models/tiny/tokenizer.json", "cut", "the tokenizer in"),
    ("finetune", "data/formatted/train.jsonl", "cut", "no JSON"),
    ("finetune", "data/formatted/train.jsonl", "empty", "holds no records"),
    ("finetune", "models/tiny/config.json", "cut", "no model configuration"),
    ("evaluate", "data/formatted/test.jsonl", "cut", "no JSON"),
    ("evaluate", "data/raw/gold.jsonl", "cut", "no JSON"),
]


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes(b"" if how == "empty" else content[: len(content) // 2])


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "name", "how", "said"), BROKEN)
def test_a_stage_names_the_file_and_writes_nothing(run_copy, program, outcomes, stage, name, how, said):
    before = outputs(run_copy)
    damage(run_copy / name, how)
    expected = outputs(run_copy)
    with outcomes.trial(f"{name}: {how}", f"python stages/{stage}.py", "ends with 1 and one message"):
        if stage == "prepare":  # the table of acts belongs to the code: prepare reads the one beside its own modules
            finished = run(run_copy, "python", "stages/prepare.py")
            status, message = finished.returncode, finished.stderr
        else:
            ended = program(stage).run(run_copy)
            status, message = ended.status, ended.stderr
        assert status == 1, message
        assert Path(name).name in message or "models/tiny" in message
        assert said in message
        assert "Traceback" not in message
        assert outputs(run_copy) == expected
        assert leftovers(run_copy) == []
    assert set(before) == set(expected)


@pytest.mark.slow
def test_dvc_makes_damaged_outputs_again_with_the_same_bytes(run_copy, outcomes):
    """A letter of a question, of a token list, of a template: what still parses, DVC's hashes find."""
    before = outputs(run_copy)
    changes = {
        "data/prepared/records.jsonl": lambda content: content.replace("전세".encode(), "월세".encode(), 1),
        "data/splits/train.jsonl": lambda content: content.replace("전세".encode(), "월세".encode(), 1),
        "data/formatted/chat_template.jinja": lambda content: content + b" ",
        "data/formatted/test.jsonl": lambda content: content[: content.index(b"\n") + 1],
        "models/adapter/adapter_model.safetensors": lambda content: content[:-8] + b"\0" * 8,
        "data/predictions/test.jsonl": lambda content: b"",
        "metrics/evaluate.json": lambda content: content[:10],
        "metrics/plots/scores.csv": lambda content: b"",
    }
    for name, change in changes.items():
        path = run_copy / name
        path.unlink(missing_ok=True) if path.is_symlink() else None
        content = before[name]
        assert change(content) != content
        path.write_bytes(change(content))
    with outcomes.trial("outputs changed behind DVC", "dvc repro", "the undisturbed bytes"):
        checked(run_copy, "dvc", "repro")
        assert outputs(run_copy) == before
        assert leftovers(run_copy) == []


@pytest.mark.slow
def test_a_damaged_object_of_dvc_s_cache_is_found_and_made_again(run_copy, outcomes):
    before = outputs(run_copy)
    objects = [path for path in (run_copy / ".dvc/cache/files/md5").rglob("*") if path.is_file()]
    weights = max(objects, key=lambda path: path.stat().st_size)
    weights.chmod(0o644)
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    shutil.rmtree(run_copy / "models/adapter")
    checked(run_copy, "dvc", "checkout")  # DVC takes its own cache for right, and hands the damaged file out
    with outcomes.trial("object of DVC's cache flipped", "chat", "refuses the adapter, names the file"):
        finished = run(run_copy, "python", "stages/chat.py", "--question", "보증금을 돌려받지 못했나요?")
        assert finished.returncode == 1
        assert "adapter_model.safetensors is not the file that was written" in finished.stderr
    with outcomes.trial("object of DVC's cache flipped", "dvc repro", "the undisturbed bytes, and the cache healed"):
        checked(run_copy, "dvc", "repro")
        assert outputs(run_copy) == before
        shutil.rmtree(run_copy / "models/adapter")
        checked(run_copy, "dvc", "checkout")
        assert outputs(run_copy) == before


# accident: file, what is done to it, what an error has to name
LOCKS = {
    "dvc.lock: cut off": ("dvc.lock", lambda text: text[: len(text) // 2], "dvc.lock"),
    "dvc.lock: merge conflict": (
        "dvc.lock",
        lambda text: "<<<<<<< HEAD\n" + text + "=======\n>>>>>>> other\n",
        "dvc.lock",
    ),
    "dvc.lock: emptied": ("dvc.lock", lambda text: "", "dvc.lock"),
    "dvc.yaml: cut off in a key": (
        "dvc.yaml",
        lambda text: text[: text.index("cmd: python stages/evaluate.py") + 3],
        "dvc.yaml",
    ),
    "dvc.yaml: cut off in a dependency": (  # DVC takes half a dependency for a whole one
        "dvc.yaml",
        lambda text: text[: text.index("- stages/civilqa", text.index("python stages/evaluate.py")) + 12],
        "dependency 'stages/civ' does not exist",
    ),
    "dvc.yaml: merge conflict": (
        "dvc.yaml",
        lambda text: "<<<<<<< HEAD\n" + text + "=======\n>>>>>>> other\n",
        "dvc.yaml",
    ),
}


@pytest.mark.slow
def test_dvc_s_own_files_broken_are_told_or_do_no_harm(run_copy, outcomes):
    before = outputs(run_copy)
    for accident, (name, change, named) in LOCKS.items():
        path = run_copy / name
        text = path.read_text(encoding="utf-8")
        path.write_text(change(text), encoding="utf-8")
        with outcomes.trial(accident, "dvc repro", "an error that names the file, or the undisturbed bytes"):
            finished = run(run_copy, "dvc", "repro")
            said = finished.stdout + finished.stderr
            assert "Traceback" not in said
            assert finished.returncode == 0 or named in said
        path.write_text(text, encoding="utf-8")
        with outcomes.trial(accident, "dvc repro after it is put back", "the undisturbed bytes"):
            checked(run_copy, "dvc", "repro")
            assert outputs(run_copy) == before


@pytest.mark.slow
def test_damaged_answers_are_generated_again_with_the_same_bytes(run_copy, outcomes):
    before = outputs(run_copy)
    for path in (run_copy / ".generations").iterdir():
        path.write_bytes(path.read_bytes().replace(b'"tokens": ', b'"tokens": 1'))
    with outcomes.trial("answers of .generations changed", "evaluate", "generated again, the undisturbed bytes"):
        assert "generated again" in checked(run_copy, "python", "stages/evaluate.py")
        assert outputs(run_copy) == before


@pytest.mark.slow
def test_a_training_that_runs_away_ends_with_what_to_change(run_copy, outcomes):
    before = outputs(run_copy)
    edit_params(run_copy / "params.yaml", **{"train.learning_rate": 1.0, "tuning.tiny.alpha": 65536})
    with outcomes.trial("loss that is no number", "finetune", "ends with 1 and one message, the adapter untouched"):
        finished = run(run_copy, "python", "stages/finetune.py")
        assert "Traceback" not in finished.stderr
        assert finished.returncode == 1
        assert "the training ran away" in finished.stderr
        assert outputs(run_copy) == before
