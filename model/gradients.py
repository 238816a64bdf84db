"""Custom gradients."""

import itertools

import tensorflow.compat.v1 as tf

_numbers = itertools.count()


def override_gradient(output, inputs, gradient):
    """Replaces the gradient of a tensor.

    Unlike `tf.custom_gradient` it leaves no unused operations in the graph, and takes
    variables that are not global.

    Args:
      output: tensor, computed from the inputs.
      inputs: list of tensors and variables.
      gradient: function of the gradient of the output that returns a list of gradients
        of the inputs, None for an input without one.

    Returns:
      A tensor equal to `output`.
    """
    name = "OverriddenGradient%d" % next(_numbers)

    @tf.RegisterGradient(name)
    def _(op, dy, *_):
        del op
        return [None, *gradient(dy)]

    with tf.get_default_graph().gradient_override_map({"IdentityN": name}):
        return tf.identity_n([output, *inputs])[0]
