"""Gradients that are cheaper than those which TensorFlow derives."""

import itertools

import tensorflow.compat.v1 as tf

_numbers = itertools.count()


def override_gradient(output, inputs, gradient):
    """Gives a tensor another gradient.

    `tf.custom_gradient` would leave operations in the graph that nothing reaches, and
    finds the variables of a function only among the global ones.

    Args:
      output: tensor, computed from the inputs.
      inputs: list of tensors and variables.
      gradient: function from the gradient of the output to a list of those of the
        inputs, None for an input without one.

    Returns:
      The same tensor. Its gradient goes to the inputs alone.
    """
    name = "OverriddenGradient%d" % next(_numbers)

    @tf.RegisterGradient(name)
    def _(op, dy, *_):
        del op
        return [None, *gradient(dy)]

    with tf.get_default_graph().gradient_override_map({"IdentityN": name}):
        return tf.identity_n([output, *inputs])[0]
