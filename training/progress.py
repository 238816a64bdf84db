"""Progress of a training run, and its losses."""

import collections
import math
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf
from tqdm import tqdm

from system import console, files, wording
from training.estimator_compat import estimator
from weights import diagnosis

# Seconds between two lines where there is no terminal: one line for each tenth of the
# steps, within these limits.
SHORTEST_INTERVAL = 15.0
LONGEST_INTERVAL = 600.0

# Steps after the warm-up before a high loss is reported.
_MIN_STEPS = 100

_LOSSES = ".losses"  # ending of the file, little-endian float32
_MAX_LOSS_BYTES = 1 << 28

# The graph collection of the tensors that `ProgressHook` reads.
_REPORT = "training_report"

# tqdm's steps per second are left out; the postfix has examples per second.
_BAR = (
    "training: {percentage:.0f}%|{bar}| {n_fmt}/{total_fmt} steps "
    "[{elapsed}<{remaining}{postfix}]"
)


def report(loss, step):
    """Adds a loss and an `optimization.TrainStep` to the collection of the hook."""
    for tensor in (loss, step.learning_rate, step.gradient_norm):
        tf.add_to_collection(_REPORT, tensor)


class ProgressHook(estimator.SessionRunHook):
    """A progress bar on a terminal, plain lines elsewhere, both on standard error.

    Shows examples per second, loss, learning rate and time left. Raises the Estimator's
    `NanLossDuringTrainingError` if the loss or the gradient norm is not finite. Warns
    once if the loss does not fall below that of a constant prediction.
    """

    def __init__(self, settings, baseline_loss, skips_infinite=False, losses=()):
        """Initializes the hook.

        Args:
          settings: a `settings.Run`.
          baseline_loss: the `TaskType.baseline_loss` of the training labels.
          skips_infinite: whether loss scaling skips steps with infinite gradients.
          losses: the losses before the first step, see `read_losses`.
        """
        self._settings = settings
        self._baseline_loss, self._skips_infinite = baseline_loss, skips_infinite
        self._bar = None
        # Losses of the last steps, a tenth of all.
        self._window = max(1, settings.num_train_steps // 10)
        self._losses = collections.deque(losses, maxlen=self._window)
        self._has_warned = self._has_recovered = False
        self.last_values: dict | None = None  # of the fetches in the last step

    def begin(self):
        # The tensors of the first replica are means over all replicas.
        tensors = tf.get_collection(_REPORT)[:3]
        self._fetches = dict(zip(("loss", "learning_rate", "gradient_norm"), tensors))
        self._global_step = tf.train.get_or_create_global_step()

    def after_create_session(self, session, coord):
        del coord
        self._first_step = self.steps_done = int(session.run(self._global_step))
        self._started = self._last_line = time.monotonic()
        self._last_line_step = self._first_step
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=self._settings.num_train_steps,
                initial=self._first_step,
                bar_format=_BAR,
                dynamic_ncols=True,
            )

    def before_run(self, run_context):
        del run_context
        return estimator.SessionRunArgs(self._fetches)

    def after_run(self, run_context, run_values):
        del run_context
        self.last_values = values = run_values.results
        self.steps_done += 1
        if not self._skips_infinite and not (
            math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])
        ):
            if self._bar is not None:
                self._bar.close()
            raise estimator.NanLossDuringTrainingError
        self._losses.append(float(values["loss"]))
        self._check_loss()
        now = time.monotonic()
        if self.steps_done == self._first_step + 1:
            # The first step includes the start of the session.
            self._started = now
        if self._bar is not None:
            self._bar.update(1)
            self._bar.set_postfix_str(self._format_values(now), refresh=False)
        elif self._is_line_due(now):
            self._write_line(now)

    def add_pause(self, seconds):
        """Excludes the time of an evaluation from the examples per second."""
        self._started += seconds

    def _is_line_due(self, now):
        elapsed = now - self._last_line
        tenth = self.steps_done - self._last_line_step >= self._window
        return elapsed >= (SHORTEST_INTERVAL if tenth else LONGEST_INTERVAL)

    def _check_loss(self):
        """Warns once if the loss does not fall; logs once when it falls after that."""
        warmup_steps = self._settings.num_warmup_steps
        min_steps = max(2 * self._window, _MIN_STEPS) + warmup_steps
        if self.steps_done < min_steps or len(self._losses) < self._window:
            return
        mean = self._mean_loss()
        learns = mean < diagnosis.MAX_LOSS_RATIO * self._baseline_loss
        text = "the mean loss of the last %s is %.4f"
        text %= (wording.pluralize(len(self._losses), "step"), mean)
        if not learns and not self._has_warned:
            self._has_warned = True
            console.warn(
                "step %d: no better than a degenerate model so far: %s; a constant "
                "prediction gives %.4f" % (self.steps_done, text, self._baseline_loss)
            )
        elif learns and self._has_warned and not self._has_recovered:
            self._has_recovered = True
            console.say("  step %d: the loss decreases now: %s", self.steps_done, text)

    def _mean_loss(self):
        return sum(self._losses) / len(self._losses)

    def _rate(self, now):
        """Examples per second; None before the second step."""
        steps, elapsed = self.steps_done - self._first_step - 1, now - self._started
        return steps * self._settings.train_batch_size / elapsed if steps else None

    def _format_values(self, now):
        learning_rate = self.last_values["learning_rate"]
        text = "loss %.4f, learning rate %.2e" % (self._mean_loss(), learning_rate)
        rate = self._rate(now)
        return text if rate is None else "%.1f examples/s, %s" % (rate, text)

    def _write_line(self, now):
        self._last_line, self._last_line_step = now, self.steps_done
        step, last_step = self.steps_done, self._settings.num_train_steps
        text, rate = self._format_values(now), self._rate(now)
        if rate is not None:
            left = (last_step - step) * self._settings.train_batch_size / rate
            text += ", %d:%02d left" % (left // 60, left % 60)
        console.say("  step %d of %d: %s", step, last_step, text)

    def end(self, session):
        del session
        now = time.monotonic()
        if self._bar is not None:
            self._bar.close()
        first, last = self._first_step, self.steps_done
        if last > first:
            console.say(
                "Trained steps %d to %d: %s", first, last, self._format_values(now)
            )

    def write_losses(self, checkpoint):
        """Writes the last losses beside a checkpoint; see `read_losses`."""
        if self._losses:
            data = np.array(self._losses, "<f4").tobytes()
            files.write_whole(checkpoint + _LOSSES, data)

    def diagnose(self):
        """Warnings about the loss of the last steps; None if no step was seen."""
        if not self._losses:
            return None
        steps = len(self._losses)
        return diagnosis.check_loss(self._mean_loss(), steps, self._baseline_loss)


def read_losses(checkpoint):
    """The losses of `write_losses`, a list; [] if there is no file."""
    path = checkpoint + _LOSSES
    if not tf.io.gfile.exists(path):
        return []
    data = files.read(path, _MAX_LOSS_BYTES, "delete it")
    return np.frombuffer(data, "<f4", len(data) // 4).astype(float).tolist()


def remove_stale_losses(output_dir):
    """Removes loss files whose checkpoint was deleted."""
    for path in files.list_folder(output_dir, "*" + _LOSSES):
        if not tf.io.gfile.exists(path.removesuffix(_LOSSES) + ".index"):
            tf.io.gfile.remove(path)
