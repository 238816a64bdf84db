"""Loss and gradients of a batch: in parts, and in the range of float16."""

import tensorflow.compat.v1 as tf

import optimization


class LossScale:
    """Keeps gradients in the range of float16 (Micikevicius et al., 2018,
    arXiv:1710.03740, section 3.2).

    The loss is multiplied by a power of two before, the gradients are divided by it
    after the backward pass. A step whose gradients are not finite is left out and
    halves the scale; many finite ones in a row double it. The scale and their number
    are in the checkpoint, so that a resumed training goes on with the same.
    """

    INITIAL = 2.0**15
    DOUBLED_AFTER = 1000  # finite steps in a row

    def __init__(self):
        self.value = optimization.state_variable(
            optimization.LOSS_SCALE, initializer=tf.constant_initializer(self.INITIAL)
        )
        self._finite_steps = optimization.state_variable(
            optimization.FINITE_STEPS, dtype=tf.int64
        )

    def update(self, is_finite):
        """The operation that follows a step; `is_finite` is a bool scalar tensor."""
        value, count = self.value.read_value(), self._finite_steps + 1
        enough = count >= self.DOUBLED_AFTER
        grown = tf.where(enough, 2.0 * value, value)
        smaller = tf.maximum(1.0, 0.5 * value)
        return tf.group(
            self.value.assign(tf.where(is_finite, grown, smaller)),
            self._finite_steps.assign(
                tf.where(
                    tf.logical_and(is_finite, tf.logical_not(enough)),
                    count,
                    tf.zeros_like(count),
                )
            ),
        )


def mean_gradients(
    loss_fn, batch, parts=1, scale=None, policy=optimization.ADAPTER_TUNING
):
    """Loss and gradients of a batch, computed in equal parts, one after the other.

    The parts' means are the means of the whole batch: the same update as in one part,
    in the memory of one part.

    Args:
      loss_fn: function from a batch to a float scalar tensor, the mean of its losses.
      batch: dict of tensors with equal first dimensions, which `parts` divides.
      parts: number of parts.
      scale: a `LossScale`, or None.
      policy: an `optimization.TrainPolicy`.

    Returns:
      The loss, float scalar tensor, and the gradients of
      `optimization.trainable_variables(policy)`.
    """
    pieces = {name: tf.split(value, parts) for name, value in batch.items()}
    losses, sums = [], None
    for i in range(parts):
        # The next part waits, so that two are never in memory at once.
        with tf.control_dependencies(sums or []):
            piece = {name: tf.identity(value[i]) for name, value in pieces.items()}
        with tf.variable_scope(tf.get_variable_scope(), reuse=i > 0 or None):
            loss = loss_fn(piece)
        losses.append(loss)
        variables = optimization.trainable_variables(policy)
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
