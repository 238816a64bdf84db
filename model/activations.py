"""Activation functions by their names in configs."""

import math

import tensorflow.compat.v1 as tf

from model import gradients


def gelu(x):
    """Gaussian error linear unit, tanh-approximated, as in Google's BERT.

    0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), from Hendrycks and Gimpel, 2016
    (arXiv:1606.08415). Since (1 + tanh(z)) / 2 = sigmoid(2 z), it is computed as
    x sigmoid(x (a + b x^2)): no power, and fewer passes over memory.

    `x` is a float tensor of any shape.
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


ACTIVATIONS = {"linear": None, "relu": tf.nn.relu, "gelu": gelu, "tanh": tf.tanh}

ADAPTER_ACTIVATIONS = {
    **ACTIVATIONS,
    "linear": tf.identity,
    "gelu_erf": lambda x: 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5))),
    "swish": lambda x: x * tf.sigmoid(x),
    "sigmoid": tf.sigmoid,
}


def is_activation(value):
    """Whether `get_activation` accepts a value."""
    if isinstance(value, str):
        return not value or value.lower() in ACTIVATIONS
    return value is None or callable(value)


def get_activation(activation_string):
    """Looks up an activation of the feed-forward sublayers.

    Args:
      activation_string: a name in `ACTIVATIONS`, case-insensitive; None or "": linear;
        a function is returned unchanged.

    Returns:
      A function of a tensor, or None for linear.

    Raises:
      ValueError: unknown name.
    """
    if not activation_string:
        return None
    if not is_activation(activation_string):
        raise ValueError(
            "unknown activation %r: allowed are %s"
            % (activation_string, ", ".join(ACTIVATIONS))
        )
    if isinstance(activation_string, str):
        return ACTIVATIONS[activation_string.lower()]
    return activation_string
