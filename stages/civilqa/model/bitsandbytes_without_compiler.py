"""Imports bitsandbytes without torch's compiler, which takes 2 s to load; to be imported before peft and trl.

When imported, bitsandbytes has torch compile two functions, for optimisers on the CPU that nothing here uses. Doing
without bitsandbytes is no way out: peft imports it wherever it is installed.
"""

import os
from unittest.mock import patch

with patch.dict(os.environ, TORCHDYNAMO_DISABLE="1"):
    import bitsandbytes  # noqa: F401
