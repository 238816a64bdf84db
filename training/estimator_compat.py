"""The Estimator, on a TensorFlow that still has it and on one that dropped it.

TensorFlow 2.15 is the last that brings the Estimator as `tf.estimator`; there this
module hands that on and does nothing else. Later the package tensorflow-estimator
2.15.0 still works once it finds what it imports: this module puts stand-ins in the
places of what was removed, before the package is first imported.
"""

import importlib
import sys
import types

import tensorflow.compat.v1 as tf

WITH_ESTIMATOR = "2.15"
WITHOUT_ESTIMATOR = ("2.21",)  # those that the tests were run with


def _unavailable(what):
    def function(*_, **__):
        raise NotImplementedError(
            "%s is not there on TensorFlow %s: it went with its Estimator; use "
            "TensorFlow %s" % (what, tf.version.VERSION, WITH_ESTIMATOR)
        )

    return function


def _init_run_config(config, tf_config):
    """Reads TF_CONFIG; `distribution.py` starts the machines of a cluster itself."""
    config._distribute_coordinator_mode = None
    config._init_distributed_setting_from_environment_var(tf_config)
    config._maybe_overwrite_session_config_for_distributed_training()


class _Embedding:
    """For the names that are only compared with or inherited from."""

    __init__ = _unavailable("Embedding on TPU through the Estimator")


class _NoShutdown(tf.train.SessionRunHook):
    """Takes the place of the hook that shut TPU workers down, and of its actions."""

    def __init__(self, *_, **__):
        pass


class _NoExport:
    """Stands for the decorator that entered names into TensorFlow's public API."""

    def __init__(self, *_, **__):
        pass

    def __call__(self, symbol):
        return symbol

    def export_constant(self, module_name, name):
        """Does nothing: constants need no name in the public API."""


_EMBEDDING_NAMES = (
    "AdagradParameters",
    "AdamParameters",
    "FtrlParameters",
    "MomentumParameters",
    "ProximalAdagradParameters",
    "RMSPropParameters",
    "StochasticGradientDescentParameters",
    "TableConfig",
    "FeatureConfig",
    "TPUEmbedding",
)

_STAND_INS = {
    # Ran the Estimator on several machines; of it only the reading of TF_CONFIG for a
    # single one is needed.
    "tensorflow.python.distribute.estimator_training": {
        "init_run_config": _init_run_config,
        "should_run_distribute_coordinator": lambda config: False,
        "train_and_evaluate": _unavailable("The distribute coordinator"),
        "estimator_train": _unavailable("The distribute coordinator"),
        "estimator_evaluate": _unavailable("The distribute coordinator"),
    },
    # Embedding tables on TPU, which nothing here has.
    "tensorflow.python.tpu.tpu_embedding": dict.fromkeys(_EMBEDDING_NAMES, _Embedding),
    "tensorflow.python.tpu.tpu_embedding_gradient": {},
    # Watched the TPU workers' heartbeat: one that hangs is no longer noticed.
    "tensorflow.python.tpu.session_support": {
        "start_worker_watchdog": lambda *_, **__: None,
        "GracefulShutdownHook": _NoShutdown,
        "ResetComputation": _NoShutdown,
        "ShutdownAllWorkers": _NoShutdown,
        "ShutdownLameWorkers": _NoShutdown,
    },
    # Decorates with names of an API that TensorFlow no longer knows.
    "tensorflow_estimator.python.estimator.estimator_export": {
        "estimator_export": _NoExport
    },
}


def _load():
    version = ".".join(tf.version.VERSION.split(".")[:2])
    if version == WITH_ESTIMATOR:
        return tf.estimator
    if version not in WITHOUT_ESTIMATOR:
        raise ImportError(
            "TensorFlow %s was not tried with this program: install %s or %s, as "
            "requirements.txt does"
            % (tf.version.VERSION, WITH_ESTIMATOR, " or ".join(WITHOUT_ESTIMATOR))
        )
    for name, content in _STAND_INS.items():
        module = types.ModuleType(name, "Stand-in from estimator_compat.py.")
        vars(module).update(content)
        sys.modules[name] = module
        package, _, attribute = name.rpartition(".")
        if package in sys.modules:
            setattr(sys.modules[package], attribute, module)
    # Only now can it be imported.
    return importlib.import_module(
        "tensorflow_estimator.python.estimator.api._v1.estimator"
    )


estimator = _load()

# It would have Ctrl-C end a training on TPU without a checkpoint; see `signals`.
importlib.import_module(
    "tensorflow_estimator.python.estimator.tpu.tpu_estimator"
).InstallSignalHandlerHook = tf.train.SessionRunHook
