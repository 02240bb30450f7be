"""Imports bitsandbytes without torch's compiler, which takes 2 s to load; to be imported before peft and trl.

When imported, bitsandbytes has torch compile two functions, for optimisers on the CPU that nothing here uses. Doing
without bitsandbytes is no way out: peft imports it wherever it is installed.

On processors with AVX512-BF16 it also looks for another package's kernel, which would make asking a 4-bit model on them
faster, and warns where there is none. Nobody misses it who has installed what requirements.txt says: not shown.
"""

import logging
import os
from unittest.mock import patch


def is_worth_telling(record: logging.LogRecord) -> bool:
    """Say whether a message of bitsandbytes' CPU part is any but that of the kernel that is not there."""
    return "Failed to load CPU gemm_4bit_forward" not in str(record.msg)


logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(is_worth_telling)
with patch.dict(os.environ, TORCHDYNAMO_DISABLE="1"):
    import bitsandbytes  # noqa: F401
