"""The Estimator, on TensorFlow with and without `tf.estimator`.

TensorFlow 2.15 is the last version with `tf.estimator`, exported here. Later versions
use the package tensorflow-estimator 2.15.0: this module registers substitutes for
removed TensorFlow modules that the package imports.
"""

import importlib
import sys
import types

import tensorflow.compat.v1 as tf

WITH_ESTIMATOR = "2.15"
WITHOUT_ESTIMATOR = ("2.21",)  # tested versions


def _unavailable(feature):
    def function(*_, **__):
        raise NotImplementedError(
            "%s was removed from TensorFlow %s with its Estimator; use TensorFlow %s"
            % (feature, tf.version.VERSION, WITH_ESTIMATOR)
        )

    return function


def _init_run_config(config, tf_config):
    """Reads TF_CONFIG; `distribution.py` starts the servers of a cluster."""
    config._distribute_coordinator_mode = None
    config._init_distributed_setting_from_environment_var(tf_config)
    config._maybe_overwrite_session_config_for_distributed_training()


class CheckpointHook(tf.train.CheckpointSaverHook):
    """Writes checkpoints at the multiples of `eval_steps` too, unless that is 0."""

    def __init__(self, *args, eval_steps, **kwargs):
        super().__init__(*args, **kwargs)
        is_due = self._timer.should_trigger_for_step
        self._timer.should_trigger_for_step = lambda step: (
            is_due(step) or (eval_steps and step % eval_steps == 0)
        )


class _Embedding:
    """Substitute for names that are only compared with or inherited from."""

    __init__ = _unavailable("Embedding on TPU through the Estimator")


class _NoExport:
    """Substitute for the decorator that adds names to TensorFlow's public API."""

    def __init__(self, *_, **__):
        pass

    def __call__(self, symbol):
        return symbol

    def export_constant(self, module_name, name):
        """Does nothing."""


def _no_hook(*_, **__):
    """Substitute for the hook that shuts TPU workers down, and for its actions."""
    return tf.train.SessionRunHook()


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

_SUBSTITUTES = {
    # The Estimator on several machines, of which `distribution.py` replaces the rest.
    "tensorflow.python.distribute.estimator_training": {
        "init_run_config": _init_run_config,
        "should_run_distribute_coordinator": lambda config: False,
        "train_and_evaluate": _unavailable("The distribute coordinator"),
        "estimator_train": _unavailable("The distribute coordinator"),
        "estimator_evaluate": _unavailable("The distribute coordinator"),
    },
    # Embedding tables on TPU, which are not used here.
    "tensorflow.python.tpu.tpu_embedding": dict.fromkeys(_EMBEDDING_NAMES, _Embedding),
    "tensorflow.python.tpu.tpu_embedding_gradient": {},
    # The watchdog of TPU workers: a worker that hangs is not detected.
    "tensorflow.python.tpu.session_support": {
        "start_worker_watchdog": lambda *_, **__: None,
        "GracefulShutdownHook": _no_hook,
        "ResetComputation": _no_hook,
        "ShutdownAllWorkers": _no_hook,
        "ShutdownLameWorkers": _no_hook,
    },
    # Decorators with names of the removed API.
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
            "TensorFlow %s is not supported: install %s or %s, as "
            "requirements.txt does"
            % (tf.version.VERSION, WITH_ESTIMATOR, " or ".join(WITHOUT_ESTIMATOR))
        )
    for name, content in _SUBSTITUTES.items():
        module = types.ModuleType(name, "Substitute, see estimator_compat.py.")
        vars(module).update(content)
        sys.modules[name] = module
        package, _, attribute = name.rpartition(".")
        if package in sys.modules:
            setattr(sys.modules[package], attribute, module)
    return importlib.import_module(
        "tensorflow_estimator.python.estimator.api._v1.estimator"
    )


estimator = _load()

# With this hook, Ctrl-C ends training on TPU without a checkpoint, see `signals`.
importlib.import_module(
    "tensorflow_estimator.python.estimator.tpu.tpu_estimator"
).InstallSignalHandlerHook = tf.train.SessionRunHook
