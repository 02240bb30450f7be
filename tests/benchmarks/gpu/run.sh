#!/usr/bin/env bash
# Measures the project on one NVIDIA GPU; run it in the root of a checkout: bash tests/benchmarks/gpu/run.sh PHASE...
# run.py says which phases there are. Where the project's packages are missing, and the wheels that fetch_wheels.sh
# fetched are in .whl/, those are installed into .whl/site first.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
export OUT=${OUT:-/tmp/civilqa-gpu-results} PYTHONUNBUFFERED=1 PYTHONUTF8=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export PYTHONWARNINGS=ignore::FutureWarning
if ! $python -c 'import sys, importlib.util as u; sys.exit(not u.find_spec("trl"))' && [[ -d .whl ]]; then
  export PYTHONPATH=$PWD/.whl/site
  [[ -d $PYTHONPATH ]] ||
    $python -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$PYTHONPATH" .whl/*.whl || exit
fi
exec $python "$here/run.py" "$@"
