"""Control dependencies on tensors."""

import tensorflow.compat.v1 as tf


def wait_for(tensors):
    """A context whose operations run after the tensors have been computed.

    TensorFlow inlines calls of functions. A control dependency on a call itself is then
    one on the function's stateful operations only, and an encoder layer has none.
    """
    return tf.control_dependencies([tf.identity(tensor) for tensor in tensors])
