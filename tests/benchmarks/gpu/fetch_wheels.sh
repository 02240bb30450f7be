#!/usr/bin/env bash
# Fetches what a bare GPU machine without network lacks beside torch 2.11+cu130 and the usual packages (numpy, pandas,
# pyarrow, pytest, psutil, jinja2, ...) into .whl/: run it in the root of a checkout. 30 MB.
# bitsandbytes' wheel is cut down to its library for CUDA 13.0: 3.6 MB of 43.
set -euo pipefail
rm -rf .whl && mkdir .whl # two versions of a package would stop the install
names=(transformers tokenizers trl peft bitsandbytes liger-kernel accelerate datasets huggingface_hub httpx2 httpcore2
  pydantic pydantic-core annotated-types typing-inspection typing-extensions ruamel.yaml ruamel.yaml.clib filelock dill
  multiprocess xxhash truststore idna anyio h11)
wanted=()
for name in "${names[@]}"; do wanted+=("$(grep -oE "^$name==[^ ;]+" requirements.txt | head -1)"); done
platforms=()
for glibc in 2_28 2_27 2_24 2_17 2014 1; do platforms+=(--platform "manylinux${glibc/#2_/_2_}_x86_64"); done
python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
  -d .whl "${wanted[@]}"
python3 - << 'PY'
import csv, glob, io, os, zipfile
(path,) = glob.glob(".whl/bitsandbytes-*.whl")
keep = ("libbitsandbytes_cuda130.so", "libbitsandbytes_cpu.so")
with zipfile.ZipFile(path) as whole, zipfile.ZipFile(path + ".part", "w", zipfile.ZIP_DEFLATED) as cut:
    dropped = {n for n in whole.namelist() if n.endswith(".so") and os.path.basename(n) not in keep}
    for name in whole.namelist():
        if name in dropped:
            continue
        data = whole.read(name)
        if name.endswith(".dist-info/RECORD"):
            text = io.StringIO()
            rows = [row for row in csv.reader(io.StringIO(data.decode())) if row and row[0] not in dropped]
            csv.writer(text, lineterminator="\n").writerows(rows)
            data = text.getvalue().encode()
        cut.writestr(whole.getinfo(name), data)
os.replace(path + ".part", path)
PY
du -cb .whl/*.whl | tail -1
