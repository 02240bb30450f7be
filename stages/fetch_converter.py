"""Fetches llama.cpp's converter for `export.py --gguf`: python stages/fetch_converter.py

Writes: .llama_cpp: convert_hf_to_gguf.py with its modules, its licence, fetched.json (hashes)

It has no package of its own; the source archive of llama-cpp-python on PyPI holds it. Nothing is installed or built,
and no code of the archive runs now: its Python files are taken out, and run with the project's own torch and
transformers when a model is converted.
"""

from civilqa.program.lifecycle.stage import run, start

if __name__ == "__main__":
    start()

import argparse
import hashlib
import tarfile
from pathlib import Path

import requests

from civilqa.llama_cpp.converter import CONVERTER, RECORD, find_changed
from civilqa.program.errors import ModelError
from civilqa.program.files import folder_aside, sha256_file, write_json
from civilqa.program.lifecycle.locks import hold

URL = (
    "https://files.pythonhosted.org/packages/ec/e9/"
    "e7de2b0463ea3ffbf0ede6cb21b58c1258a8f6521aae45ca773a59fe7cf3/llama_cpp_python-0.3.36.tar.gz"
)
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
WITHIN = "llama_cpp_python-0.3.36/vendor/llama.cpp/"
TAKEN = ("LICENSE", "convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/")

INTRODUCTION = f"""\
llama.cpp's convert_hf_to_gguf.py, out of the source of llama-cpp-python 0.3.36 (both under the MIT licence)
from  {URL}: 77 MB
to    {CONVERTER}: 2 MB. Nothing is installed; the archive is removed afterwards
"""


def download(file: Path) -> None:
    """Write the archive.

    Raises:
        ModelError: it cannot be had.
    """
    try:
        with requests.get(URL, stream=True, timeout=60) as response, file.open("wb") as written:
            response.raise_for_status()
            for piece in response.iter_content(1 << 20):
                written.write(piece)
    except requests.RequestException as error:
        raise ModelError(
            f"{URL}: cannot be downloaded ({type(error).__name__}); without a network, fetch it elsewhere and give "
            "its place: --archive FILE"
        ) from None


def extract(archive: Path, folder: Path) -> None:
    """Write the converter's files out of the archive.

    Raises:
        ModelError: it is not the archive that is pinned.
    """
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ModelError(f"{archive}: has the hash {found}, want {SHA256}; fetch {URL} again")
    with tarfile.open(archive) as opened:
        for member in opened:
            name = member.name.removeprefix(WITHIN)
            if member.isfile() and name != member.name and name.startswith(TAKEN):
                member.name = name
                opened.extract(member, folder, filter="data")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python stages/fetch_converter.py", description=__doc__.splitlines()[0])
    parser.add_argument("--archive", type=Path, help="a file that was downloaded before")
    archive = parser.parse_args().archive
    if archive and not archive.is_file():
        raise ModelError(f"{archive}: no such file; --archive takes what was downloaded from {URL}")
    with hold(CONVERTER.with_name(f".{CONVERTER.name}"), f"fetching {CONVERTER}", wait=False):
        if not find_changed():
            print(f"{CONVERTER}: is there and whole; nothing to do")
            return
        print(INTRODUCTION, flush=True)
        with folder_aside(CONVERTER) as folder:
            if archive is None:
                download(folder / "archive.part")
            extract(archive or folder / "archive.part", folder)
            (folder / "archive.part").unlink(missing_ok=True)
            files = (path for path in sorted(folder.rglob("*")) if path.is_file())
            hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
            write_json(folder / RECORD, {"url": URL, "sha256": SHA256, "files": hashes})
    print(f"{CONVERTER}: fetched. Next: python stages/export.py --gguf q8_0")


if __name__ == "__main__":
    run(main)
