"""Settings that every test shares."""

import os
import sys

# Tests give the same answer with and without a GPU. This has to be set before
# TensorFlow is first imported.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Its start-up notes would stand after pytest's last line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from system import startup  # noqa: F401, I001  (as the programs, before TensorFlow)
import pytest
import tensorflow.compat.v1 as tf

tf.logging.set_verbosity(tf.logging.ERROR)  # The next line warns for itself.
tf.disable_v2_behavior()
tf.logging.set_verbosity(tf.logging.WARN)
# The suite runs in one process per core, so each process keeps to one thread.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture(autouse=True)
def fresh_default_graph():
    """Gives every test an empty default graph."""
    tf.reset_default_graph()
    yield
    tf.reset_default_graph()
