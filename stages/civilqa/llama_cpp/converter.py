"""llama.cpp's converter, in a folder of its own: where it is, and how it is run."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from civilqa.program.errors import ModelError
from civilqa.program.files import read_json, sha256_file, write_json

CONVERTER = Path(".llama_cpp")
RECORD = "fetched.json"
DRIVER = Path(__file__).with_name("driver.py")
SHOWN_LINES = 12  # of what the converter says when it fails


def find_changed() -> list[str]:
    """Return the files of the converter that are missing or not what was fetched; [] if it is whole."""
    if not (CONVERTER / RECORD).is_file():
        return [RECORD]
    files = read_json(CONVERTER / RECORD)["files"]
    return [
        name
        for name, then in files.items()
        if not (CONVERTER / name).is_file() or sha256_file(CONVERTER / name) != then
    ]


def check_converter() -> None:
    """Stop unless the converter is there and whole.

    Raises:
        ModelError: says how to fetch it.
    """
    if changed := find_changed():
        found = f"{', '.join(changed[:3])} missing or changed" if CONVERTER.exists() else "not there"
        raise ModelError(
            f"{CONVERTER}: llama.cpp's converter: {found}; fetch it (77 MB, once): python stages/fetch_converter.py"
        )


def convert(folder: Path, file: Path, kind: str, texts: list[str], starts_with_bos: bool) -> None:
    """Write a merged model's folder as one GGUF file, with tokenizer and chat template.

    Args:
        kind: f16 or q8_0, of the matrices.
        texts: that a rule for cutting text must leave the tokens of, where the converter does not know the tokenizer.
        starts_with_bos: prompts of training begin with the start token; other programs then put it there.

    Raises:
        ModelError: the converter does not take this model; says what it said.
    """
    with tempfile.TemporaryDirectory() as place:
        job = Path(place) / "job.json"
        write_json(
            job,
            {
                "converter": str(CONVERTER.resolve()),
                "folder": str(folder.resolve()),
                "file": str(file.resolve()),
                "kind": kind,
                "texts": texts,
                "starts_with_bos": starts_with_bos,
            },
        )
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, str(DRIVER), str(job)]
        finished = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
    if finished.returncode or not file.is_file():
        last = "\n".join(finished.stderr.strip().splitlines()[-SHOWN_LINES:])
        raise ModelError(f"{folder}: llama.cpp's converter could not write {file.name}:\n{last}")
