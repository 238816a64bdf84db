"""What has to be set before TensorFlow is imported; programs import this first.

TensorFlow reads these variables when it is loaded. What the user has set stays.
"""

import os
import platform

# By itself TensorFlow turns oneDNN's operations on only for processors with
# AVX512-VNNI, AVX512-BF16 or AMX; those with AVX2 alone gain too: benchmarks/README.md.
if platform.machine().lower() in ("x86_64", "amd64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Its start-up notes look like errors and bury what a program says.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
