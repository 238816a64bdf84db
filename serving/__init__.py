"""Many tasks on one base model in one graph: `Predictor`, and a SavedModel for servers.

Imports `weights` and lower layers. Start reading at `multitask`.
"""

import system.startup  # noqa: F401  (before TensorFlow)
