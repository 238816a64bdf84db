"""Loss and gradients of a batch: gradient accumulation and loss scaling."""

import tensorflow.compat.v1 as tf

import optimization
from model import dependencies
from tuning import registry


class LossScale:
    """Dynamic loss scaling for float16 (Micikevicius et al., 2018, arXiv:1710.03740).

    The loss is multiplied by a power of two before the backward pass, and the gradients
    are divided by it. A step with non-finite gradients is skipped and halves the scale;
    `DOUBLED_AFTER` consecutive finite steps double it. Checkpoints have the scale and
    the number of finite steps.
    """

    INITIAL = 2.0**15
    DOUBLED_AFTER = 1000

    def __init__(self):
        self.value = optimization.state_variable(
            optimization.LOSS_SCALE, initializer=tf.constant_initializer(self.INITIAL)
        )
        self._finite_steps = optimization.state_variable(
            optimization.FINITE_STEPS, dtype=tf.int64
        )

    def update(self, is_finite):
        """The update after a step; `is_finite` is a bool scalar tensor."""
        value, count = self.value.read_value(), self._finite_steps + 1
        is_doubled = count >= self.DOUBLED_AFTER
        larger = tf.where(is_doubled, 2.0 * value, value)
        smaller = tf.maximum(1.0, 0.5 * value)
        restarts = tf.logical_or(is_doubled, tf.logical_not(is_finite))
        return tf.group(
            self.value.assign(tf.where(is_finite, larger, smaller)),
            self._finite_steps.assign(tf.where(restarts, tf.zeros_like(count), count)),
        )


def mean_gradients(loss_fn, batch, parts=1, scale=None, method=registry.DEFAULT):
    """The loss and gradients of a batch, accumulated over equal parts.

    Equal to the result of the whole batch, in the memory of one part.

    Args:
      loss_fn: function from a batch to its mean loss, a float scalar tensor.
      batch: dict of tensors with equal first dimensions, divisible by `parts`.
      parts: number of parts.
      scale: a `LossScale`, or None.
      method: the `tuning.method.Method`.

    Returns the loss, a float scalar tensor, and the gradients of
    `optimization.trainable_variables(method)`.
    """
    splits = {name: tf.split(value, parts) for name, value in batch.items()}
    losses, sums = [], None
    for i in range(parts):
        # Each part waits for the previous one, so that one is in memory at a time.
        with dependencies.wait_for(sums or []):
            part = {name: tf.identity(value[i]) for name, value in splits.items()}
        with tf.variable_scope(tf.get_variable_scope(), reuse=i > 0 or None):
            loss = loss_fn(part)
        losses.append(loss)
        variables = optimization.trainable_variables(method)
        if scale is None:
            gradients = optimization.dense_gradients(loss, variables)
        else:
            value = scale.value.read_value()
            scaled = optimization.dense_gradients(loss * value, variables)
            gradients = [gradient / value for gradient in scaled]
        if sums is not None:
            gradients = [a + b for a, b in zip(sums, gradients)]
        sums = gradients
    if parts == 1:
        return losses[0], sums
    return tf.add_n(losses) / parts, [gradient / parts for gradient in sums]
