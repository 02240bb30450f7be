"""Whoever works in Korean is told in Korean what is wrong with the data, where, and what to do."""

import ast
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from civilqa.program.lifecycle.languages import in_korean, speaks_korean
from conftest import edit_params

STAGES = Path(__file__).parents[2] / "stages"
PATTERNS = ("data_report", "personal_", "contacts", "addresses", "text_quality")  # these speak to a page, or not at all
# Where the data stages say what is wrong. English names of files, keys and commands stay in the Korean.
SPEAKING = [
    *(STAGES / f"{name}.py" for name in ("prepare", "split", "format")),
    *(path for path in sorted((STAGES / "civilqa/reading").glob("*.py")) if not path.stem.startswith(PATTERNS)),
    *sorted((STAGES / "civilqa/dataset").glob("*.py")),
    *(STAGES / f"civilqa/law/{name}.py" for name in ("search", "statutes", "versions")),
    *(STAGES / f"civilqa/program/{name}.py" for name in ("files", "parameters")),
    STAGES / "civilqa/base_model/prompts.py",
]
# Words of these texts that are names: programs, formats, values of parameters, parts of a chat.
NAMES = re.findall(
    r"\w+",
    "git dvc json jinja max_length params role content from value system user assistant true false fold first "
    "last drop reject warn off keep_first keep_variants truncate question answer category difficulty train test "
    "validation default prepare split format finetune python tiny template tokenizer name revision id none gguf "
    "extra jsonl sheet gib parquet excel lfs legalize hub clone udfff ",
)


def template(node: ast.expr) -> str | None:
    """Return a text of the code with {} for each value in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def messages(path: Path) -> Iterator[str]:
    """Yield what a module raises, says or yields to be said: its English texts of three words or more."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            aside |= {id(part) for part in node.values}
        if isinstance(node, ast.Compare):  # with what a library says
            aside.add(id(node.left))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "compile",
            "bar",
        ):
            aside |= {id(part) for argument in node.args for part in ast.walk(argument)}
    for node in ast.walk(tree):
        text = template(node) if isinstance(node, ast.expr) and id(node) not in aside else None
        words = re.findall(r"(?:^|(?<=[\s(']))[a-z]{2,}(?![\w-])", text or "")
        if text and len(words) >= 3 and not re.search(r"\(\?|^\s*(---|\||\{%)", text):
            yield ("{}" if text[0] in ".;," else "") + text.strip() + (" {}" if text.endswith(": ") else "")


def english_in(text: str) -> list[str]:
    """Return the English words of a text that are no names: outside of backquotes, paths and keys of parameters."""
    text = re.sub(r"`[^`]*`|--[\w-]+|https?://\S+|'[^']*'|\S*[._/]\S*", " ", text)
    return [word for word in re.findall(r"(?<![A-Za-z])[a-z]{3,}(?![A-Za-z])", text) if word not in NAMES]


def translations(text: str) -> Iterator[str]:
    """Yield the Korean of a text of the code with a word, or a number, for each value in it."""
    parts = text.split("{}")
    for values in itertools.product(("⟨값⟩", "7", "", "7 rows"), repeat=min(len(parts) - 1, 7)):
        yield in_korean("".join(part + value for part, value in zip(parts, [*values, ""], strict=False)))


SAID = sorted({(path.name, text) for path in SPEAKING for text in messages(path)})


@pytest.mark.parametrize(("file", "text"), SAID, ids=[f"{file}-{text[:50]}" for file, text in SAID])
def test_everything_that_a_data_stage_says_has_its_korean(file, text):
    found = translations(text)
    first = next(found)
    assert not english_in(first) or any(not english_in(korean) for korean in found), first


@pytest.mark.parametrize(
    ("english", "korean"),
    [
        (
            "error: data/raw/a.csv:3: empty 'answer'; fill it in or delete the row\n"
            "Every one of them is in data/rejected.jsonl; mend them, or set prepare.on_invalid to drop",
            "오류: data/raw/a.csv:3: '답변' 칸이 비었습니다. 채우거나 그 행을 지우십시오\n"
            "모두 data/rejected.jsonl에 있습니다. 고치거나 prepare.on_invalid를 drop으로 바꾸십시오",
        ),
        (
            "error: params.yaml: unknown section 'trian' (did you mean 'train'?); there are: launch, seed",
            "오류: params.yaml: 'trian': 알 수 없는 절입니다 ('train' 아닙니까?). 있는 것: launch, seed",
        ),
        (
            "a.csv:2: the answer cites 민법 제9999조, which does not exist ('…은 민법 제9999조에 따라…'); "
            "민법 제651조, which was deleted ('민법 제651조'); "
            "mend the citation, or list what is right in prepare.allowed_citations",
            "a.csv:2: 답변이 든 조문: 민법 제9999조: 없는 조문('…은 민법 제9999조에 따라…'); "
            "민법 제651조: 삭제된 조문('민법 제651조'). "
            "인용을 고치거나, 맞는 조문이면 prepare.allowed_citations에 적으십시오",
        ),
        (
            "prepare: warning: data/raw/b.xlsx[Sheet1]: 2 rows of empty cells left out",
            "prepare: 주의: data/raw/b.xlsx[Sheet1]: 빈칸뿐인 2행을 뺐습니다",
        ),
        (
            "params.yaml: split.fold: found 7, want 0 to 4, since split.folds is 5",
            "params.yaml: split.fold: 7입니다. split.folds가 5이므로 0부터 4까지여야 합니다",
        ),
        (
            "warning: left out: a.xlsx[안내]: no column question, 답변; found 작성요령 (1 row)",
            "주의: 읽지 않음: a.xlsx[안내]: 열 질문, 답변: 없습니다. 있는 열: 작성요령(1행)",
        ),
        (
            "warning: left out: a.json[codes]: stands beside the rows (2 rows)",
            "주의: 읽지 않음: a.json[codes]: 행과 나란히 있는 값(2행)",
        ),
        (
            "warning: left out: b.csv: no column 사연 (question), as prepare.columns says; found 글",
            "주의: 읽지 않음: b.csv: prepare.columns에 적힌 열 사연 (question): 없습니다. 있는 열: 글",
        ),
        ("Traceback (most recent call last): KeyError", "Traceback (most recent call last): KeyError"),
        ("nobody knows this, and that; or it", "nobody knows this, and that; or it"),
        ("salt and pepper", "salt and pepper"),
    ],
)
def test_place_finding_and_remedy_are_in_korean_and_names_stay(english, korean):
    assert in_korean(english) == korean


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LANG": "ko_KR.UTF-8"}, True),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "ko"}, True),
        ({"LANG": "ko_KR.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "kok_IN"}, False),
        ({}, False),
    ],
)
def test_the_language_is_the_terminals(monkeypatch, variables, expected):
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert speaks_korean.__wrapped__() is expected


@pytest.mark.slow
def test_a_stage_speaks_the_language_of_its_terminal_and_writes_the_same_bytes(project):
    def run(language: str) -> tuple[str, bytes]:
        source = project / "data/raw/mine.csv"
        source.write_text("질문,답변\n보증금을 못 돌려받으면 어떻게 하나요?,민법 제9999조에 따라 청구할 수 있습니다.\n")
        edit_params(project / "params.yaml", **{"prepare.source": "data/raw/mine.csv"})
        environment = os.environ | {"LANG": language, "LC_ALL": language, "LANGUAGE": language}
        ended = subprocess.run(
            [sys.executable, "stages/prepare.py"], cwd=project, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 1
        return ended.stderr, (project / "data/rejected.jsonl").read_bytes()

    (english, first), (korean, second) = run("C.UTF-8"), run("ko_KR.UTF-8")
    assert "which does not exist" in english
    assert "없는 조문" in korean
    assert "which" not in korean
    assert first == second
