"""Settings that every test shares."""

import gc
import os
import sys

# Tests give the same answer with and without a GPU. This has to be set before
# TensorFlow is first imported.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Its start-up notes would stand after pytest's last line.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The number of threads, below, is that of all sessions.
os.environ["TF_OVERRIDE_GLOBAL_THREADPOOL"] = "0"

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from system import startup  # noqa: F401, I001  (as the programs, before TensorFlow)
import pytest
import tensorflow.compat.v1 as tf

tf.logging.set_verbosity(tf.logging.ERROR)  # The next line warns for itself.
tf.disable_v2_behavior()
tf.logging.set_verbosity(tf.logging.WARN)
# The suite runs in one process per core, so each process keeps to one thread, and
# has one core for all that asks: batches are computed in one shard.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
os.sched_getaffinity = lambda process: {0}


# A graph is a hundred thousand objects that all stay: looking among them for garbage
# took a sixth of a test's time.
gc.set_threshold(200_000, 50, 50)

# Nor are graphs optimized, which takes longer than the few steps of a test. Programs
# that tests start as processes of their own do that, and so does a test that asks for
# `optimized_graphs`.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
_start_session = tf.Session.__init__


def _start_as_built(session, target="", graph=None, config=None):
    if config is not None:
        as_built = tf.ConfigProto()
        as_built.CopyFrom(config)
        as_built.graph_options.rewrite_options.disable_meta_optimizer = True
        config = as_built
    _start_session(session, target, graph, config)


tf.Session.__init__ = _start_as_built


def pytest_collection_modifyitems(items):
    """Long tests first: at the end one process would wait for the other's long ones."""
    items.sort(key=lambda item: item.path.parent.name != "training")


@pytest.fixture
def optimized_graphs(monkeypatch):
    """Has TensorFlow optimize the graphs of a test, as it does for users."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    monkeypatch.setattr(tf.Session, "__init__", _start_session)
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(autouse=True)
def fresh_default_graph():
    """Gives every test an empty default graph."""
    tf.reset_default_graph()
    yield
    tf.reset_default_graph()
