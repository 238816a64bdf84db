"""Activation functions of tensors, by their names in configs."""

import math

import six
import tensorflow.compat.v1 as tf

from model import gradients


def gelu(x):
    """Gaussian error linear unit, tanh-approximated, as in Google's BERT.

    0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), from Hendrycks and Gimpel, 2016
    (arXiv:1606.08415). Since (1 + tanh(z)) / 2 = sigmoid(2 z), it is computed as
    x sigmoid(x (a + b x^2)): no power, and fewer passes over memory.

    Args:
      x: float tensor of any shape.

    Returns:
      Float tensor of the same shape.
    """
    a = 2.0 * math.sqrt(2.0 / math.pi)
    b = 0.044715 * a
    squared = tf.square(x)
    gate = tf.sigmoid(x * (a + b * squared))

    def gradient(dy):
        # d/dx [x g(u(x))] = g + x g (1 - g) u', where u' = a + 3 b x^2.
        through_gate = tf.raw_ops.SigmoidGrad(y=gate, dy=x)
        return [dy * (gate + through_gate * (a + (3.0 * b) * squared))]

    return gradients.override_gradient(x * gate, [x], gradient)


# Of the feed-forward sublayers.
ACTIVATIONS = {"linear": None, "relu": tf.nn.relu, "gelu": gelu, "tanh": tf.tanh}

# "gelu" is the tanh-approximated one here too; "gelu_erf" is exact.
ADAPTER_ACTIVATIONS = {
    "linear": tf.identity,
    "relu": tf.nn.relu,
    "gelu": gelu,
    "tanh": tf.tanh,
    "gelu_erf": lambda x: 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5))),
    "swish": lambda x: x * tf.sigmoid(x),
    "sigmoid": tf.sigmoid,
}


def get_activation(activation_string):
    """The activation that a name stands for.

    Args:
      activation_string: "linear", "relu", "gelu" or "tanh", in any case; None or ""
        for linear; anything that is not a string is returned as it is.

    Returns:
      A function of a tensor, or None for linear.

    Raises:
      ValueError: an unknown name.
    """
    if not activation_string:
        return None
    if not isinstance(activation_string, six.string_types):
        return activation_string
    name = activation_string.lower()
    if name not in ACTIVATIONS:
        raise ValueError(
            "unknown activation %r: allowed are %s"
            % (activation_string, ", ".join(sorted(ACTIVATIONS)))
        )
    return ACTIVATIONS[name]
