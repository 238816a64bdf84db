"""The head of tasks whose examples are rows: what it reads, and its layers.

Axis letters: B features of a batch, L outputs of the head, H hidden size.
"""

from typing import NamedTuple

import tensorflow.compat.v1 as tf

import modeling
from model import activations
from system import schema

INITIALIZER_RANGE = 0.02


class HeadForm(NamedTuple):
    """A form of head; the defaults are the original's, a linear layer on the pooler.

    Others are those of AdapterHub's library, and come with imported packages.
    """

    uses_pooler: bool = True  # if not, the last layer's output at the first position
    # Activation of a hidden layer of size H, one of `activations.ADAPTER_ACTIVATIONS`;
    # None: there is no hidden layer.
    hidden: str | None = None

    @property
    def signature(self):
        """See `task_type.TaskType.signature`."""
        if self == DEFAULT:
            return "ids"
        source = "pooled" if self.uses_pooler else "first"
        return "_".join(filter(None, ("ids", source, self.hidden)))

    @property
    def _scope(self):
        # Other names than the original's: earlier versions know its form alone.
        return "" if self == DEFAULT else "head/"

    @property
    def output_variables(self):
        """Names of the output layer's weights and bias."""
        return self._scope + "output_weights", self._scope + "output_bias"

    @property
    def hidden_variables(self):
        """Names of the hidden layer's weights and bias; () without one."""
        if self.hidden is None:
            return ()
        return self._scope + "hidden_weights", self._scope + "hidden_bias"

    def describe(self):
        """The form in words."""
        source = "the pooler" if self.uses_pooler else "the first position, no pooler"
        return "%s on %s" % ("two layers" if self.hidden else "linear", source)

    def entries(self):
        """The entry of a package, which `from_entries` reads; {} for the default."""
        return {} if self == DEFAULT else {"head": self._asdict()}

    def shapes(self, hidden_size, num_outputs):
        """The variables: dict from name to list of ints."""
        H, L = hidden_size, num_outputs
        return {
            **dict(zip(self.hidden_variables, ([H, H], [H]))),
            **dict(zip(self.output_variables, ([L, H], [L]))),
        }

    def select_output(self, model):
        """The input of the head, float32 [B, H], of a `modeling.BertModel`."""
        if self.uses_pooler:
            return model.get_pooled_output()
        return model.get_first_output()

    def compute_logits(self, output, num_outputs, dropout, initial_bias):
        """The head: float32 [B, L], from float32 [B, H].

        `dropout` is the probability before each layer, `initial_bias` that of the
        outputs.
        """
        H, L = output.shape[-1], num_outputs
        if self.hidden is not None:
            zeros = tf.zeros_initializer()
            output = linear(output, self.hidden_variables, H, zeros, dropout)
            output = activations.ADAPTER_ACTIVATIONS[self.hidden](output)
        bias = tf.constant_initializer(initial_bias)
        return linear(output, self.output_variables, L, bias, dropout)


DEFAULT = HeadForm()


def linear(x, names, n_out, initial_bias, dropout):
    """Dropout, and a linear layer whose weights are transposed.

    Args:
      x: float [..., H].
      names: of the weights, [n_out, H], and of the bias.
      n_out: number of outputs.
      initial_bias: an initializer.
      dropout: probability.

    Returns:
      Float32 [..., n_out].
    """
    x = modeling.dropout(x, dropout)
    collections = (modeling.HEAD,)
    weights = modeling.normal_variable(
        *(names[0], [n_out, x.shape[-1]], INITIALIZER_RANGE), collections=collections
    )
    bias = modeling.get_variable(names[1], [n_out], initial_bias, collections)
    # The name "loss" is taken by the Estimator's scalar for TensorBoard.
    with tf.name_scope("head"):
        return modeling.apply_weights(_apply_linear, x, weights, bias)


def _apply_linear(x, weights, bias):
    return modeling.add_bias(tf.matmul(x, weights, transpose_b=True), bias)


_SCHEMA = schema.Object(
    {
        "uses_pooler": schema.BOOLEAN,
        "hidden": schema.nullable(schema.one_of(*activations.ADAPTER_ACTIVATIONS)),
    }
)


def from_entries(entries):
    """The `HeadForm` of the entry "head" of a package's task; the default without it.

    A `ValueError` is raised if it is no form.
    """
    if entries.get("head") is None:
        return DEFAULT
    _SCHEMA.check(entries["head"], "head")
    return HeadForm(**entries["head"])
