"""Turns on oneDNN's operations; to be imported before TensorFlow.

TensorFlow reads this variable when it is loaded. By itself it turns them on only for
processors with AVX512-VNNI, AVX512-BF16 or AMX; those with AVX2 alone gain too, see
benchmarks/README.md. What the user has set stays.
"""

import os
import platform

if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
