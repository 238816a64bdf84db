"""Estimator assembly for any head: run config, devices, progress, what is logged."""

import sys
import time
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from tqdm import tqdm

# Seconds between two plain lines of progress where there is no terminal.
PLAIN_INTERVAL = 15.0


class ProgressSettings(NamedTuple):
    """What the progress report needs to know beforehand."""

    batch_size: int  # examples of one step
    num_train_steps: int
    summary_dir: str  # where the scalars go when the host writes them for a TPU


def train_spec(loss, step, scaffold_fn, use_tpu, progress):
    """The `TPUEstimatorSpec` of training, with its progress report.

    Scalars for TensorBoard: "learning_rate" and "gradient_norm"; the Estimator adds
    "loss" itself. On TPU they are sent to the host, which writes all three.

    Args:
      loss: float scalar tensor.
      step: an `optimization.TrainStep`.
      scaffold_fn: what `checkpoints.warm_start` gives.
      use_tpu: whether the graph is to run on TPU.
      progress: a `ProgressSettings`.

    Returns:
      A `TPUEstimatorSpec`.
    """
    host_call = None
    hooks = None
    if use_tpu:
        host_call = _host_call(loss, step, progress.summary_dir)
    else:
        tf.summary.scalar("learning_rate", step.learning_rate)
        tf.summary.scalar("gradient_norm", step.gradient_norm)
        hooks = [ProgressHook(loss, step.learning_rate, progress)]
    return tf.estimator.tpu.TPUEstimatorSpec(
        mode=tf.estimator.ModeKeys.TRAIN,
        loss=loss,
        train_op=step.train_op,
        scaffold_fn=scaffold_fn,
        training_hooks=hooks,
        host_call=host_call,
    )


def _host_call(loss, step, summary_dir):
    def write(global_step, loss, learning_rate, gradient_norm):
        # One value a core: the first core's stands for all but the loss.
        with tf2_summary.create_file_writer(summary_dir).as_default():
            with tf2_summary.record_if(True):
                at = tf.cast(global_step[0], tf.int64)
                tf2_summary.scalar("loss", tf.reduce_mean(loss), step=at)
                tf2_summary.scalar("learning_rate", learning_rate[0], step=at)
                tf2_summary.scalar("gradient_norm", gradient_norm[0], step=at)
                return tf.summary.all_v2_summary_ops()

    tf2_summary = tf.compat.v2.summary if hasattr(tf, "compat") else None
    tensors = [tf.train.get_or_create_global_step(), loss]
    tensors += [step.learning_rate, step.gradient_norm]
    # On TPU outputs are concatenated over the cores, so scalars become vectors.
    return write, [tf.reshape(tf.cast(tensor, tf.float32), [1]) for tensor in tensors]


class ProgressHook(tf.estimator.SessionRunHook):
    """A progress bar on a terminal, plain lines elsewhere, both on standard error.

    Examples per second, loss, learning rate, time left; the loss also goes to the log.
    """

    def __init__(self, loss, learning_rate, settings, stream=None):
        """Keeps what is reported.

        Args:
          loss: float scalar tensor.
          learning_rate: float scalar tensor.
          settings: a `ProgressSettings`.
          stream: text stream; standard error by default.
        """
        self._fetches = {
            "loss": loss,
            "learning_rate": learning_rate,
            "step": tf.train.get_or_create_global_step(),
        }
        self._settings = settings
        self._stream = stream or sys.stderr
        self._bar = None

    def after_create_session(self, session, coord):
        del coord
        self._first_step = int(session.run(self._fetches["step"]))
        self._steps_done = self._first_step
        self._started = self._last_line = time.monotonic()
        if self._stream.isatty():
            self._bar = tqdm(
                total=self._settings.num_train_steps,
                initial=self._first_step,
                desc="training",
                unit=" steps",
                file=self._stream,
                dynamic_ncols=True,
            )

    def before_run(self, run_context):
        del run_context
        fetches = {name: self._fetches[name] for name in ("loss", "learning_rate")}
        return tf.estimator.SessionRunArgs(fetches)

    def after_run(self, run_context, run_values):
        del run_context
        self._steps_done += 1
        self._last = run_values.results
        now = time.monotonic()
        if self._steps_done == self._first_step + 1:
            # The first step also warms up; rates are counted from here.
            self._started = now
        if self._bar is not None:
            self._bar.update(1)
            self._bar.set_postfix_str(self._text(now), refresh=False)
        elif now - self._last_line >= PLAIN_INTERVAL:
            self._write_line(now)

    def _rate(self, now):
        steps = self._steps_done - self._first_step - 1
        elapsed = now - self._started
        return steps * self._settings.batch_size / elapsed if steps else 0.0

    def _text(self, now):
        return "%.1f examples/s, loss %.4f, learning rate %.2e" % (
            self._rate(now),
            self._last["loss"],
            self._last["learning_rate"],
        )

    def _write_line(self, now):
        self._last_line = now
        rate = self._rate(now)
        steps_left = self._settings.num_train_steps - self._steps_done
        left = steps_left * self._settings.batch_size / rate if rate else 0.0
        self._stream.write(
            "step %d of %d: %s, %d:%02d left\n"
            % (
                self._steps_done,
                self._settings.num_train_steps,
                self._text(now),
                left // 60,
                left % 60,
            )
        )
        self._stream.flush()

    def end(self, session):
        del session
        now = time.monotonic()
        if self._bar is not None:
            self._bar.close()
        elif self._steps_done > self._first_step:
            self._write_line(now)
        if self._steps_done > self._first_step:
            tf.logging.info(
                "Trained steps %d to %d: %s",
                self._first_step,
                self._steps_done,
                self._text(now),
            )
