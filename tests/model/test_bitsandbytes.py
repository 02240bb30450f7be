import logging
import subprocess
import sys

from conftest import ROOT

IMPORT = """
import sys
sys.path.insert(0, "stages")
import civilqa.model.loading
import logging
log = logging.getLogger("bitsandbytes.backends.cpu.ops")
log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s. Please make sure", "No module")
log.warning("what matters")
"""


def test_the_missing_kernel_is_not_told_and_everything_else_is():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert done.stderr.splitlines() == ["what matters"]
    assert not logging.getLogger("bitsandbytes").disabled
