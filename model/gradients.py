"""Custom gradients."""

import tensorflow.compat.v1 as tf

from model import dependencies

_NAME = "OverriddenGradient"


@tf.RegisterGradient(_NAME)
def _compute_gradient(op, dy, *_):
    return [None, *op.overridden_gradient(dy)]


def override_gradient(output, inputs, gradient):
    """Replaces the gradient of a tensor.

    Unlike `tf.custom_gradient` it leaves no unused operations in the graph, and takes
    variables that are not global.

    Args:
      output: tensor, computed from the inputs.
      inputs: list of tensors and variables.
      gradient: function from the output's gradient to a list of the inputs' gradients,
        tensors or None.

    Returns:
      A tensor equal to `output`.
    """
    with tf.get_default_graph().gradient_override_map({"IdentityN": _NAME}):
        output = tf.identity_n([output, *inputs])[0]
    # An attribute, because TensorFlow's registry would keep all graphs in memory.
    output.op.overridden_gradient = gradient
    return output


def recompute(layer, hidden, weights, *fixed):
    """Calls `layer(hidden, weights, *fixed)` with gradient checkpointing.

    The layer is recomputed in the backward pass; only its inputs stay in memory (Chen
    et al., 2016, arXiv:1604.06174).
    """

    def gradient(dy):
        # Delay recomputation until dy is available, or common-subexpression elimination
        # merges it with the forward pass.
        with dependencies.wait_for([dy]):
            again = tf.identity(hidden)
        recomputed = layer(again, weights, *fixed)
        return tf.gradients(recomputed, [again, *weights], dy, stop_gradients=again)

    output = layer(hidden, weights, *fixed)
    return override_gradient(output, [hidden, *weights], gradient)
