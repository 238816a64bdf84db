"""Names and shapes of a model's variables, from its config alone."""

from typing import NamedTuple

import modeling
import optimization


class VariableSet(NamedTuple):
    """Names and shapes of a model's variables, without optimizer slots and step."""

    shapes: dict[str, list[int]]  # of all
    # Trained ones: collection -> names, `modeling.OTHER` if there are any. The rest is
    # frozen.
    collections: dict[str, list[str]]

    def trained(self):
        """The names of the trained variables."""
        return [name for names in self.collections.values() for name in names]

    def new(self):
        """The names of those that a base need not hold."""
        return [
            name
            for collection in modeling.TRAINED_COLLECTIONS
            for name in self.collections[collection]
        ]


def model_variables(
    bert_config, adapter_size, num_outputs, policy=optimization.ADAPTER_TUNING
):
    """All variables of a model.

    Args:
      bert_config: a `modeling.BertConfig`.
      adapter_size: the bottleneck's width; without adapters any.
      num_outputs: labels; 1 for regression.
      policy: an `optimization.TrainPolicy`.

    Returns:
      A `VariableSet`.
    """
    shapes = _shapes_by_collection(bert_config, policy, adapter_size, num_outputs)
    trained = {
        collection: [name for name in of_name if policy.trains(name, collection)]
        for collection, of_name in shapes.items()
    }
    if not trained[modeling.OTHER]:
        del trained[modeling.OTHER]
    return VariableSet(
        shapes={n: shape for each in shapes.values() for n, shape in each.items()},
        collections=trained,
    )


def trained_shapes(
    bert_config, adapter_size, num_outputs, policy=optimization.ADAPTER_TUNING
):
    """Names and shapes of the trained variables, sorted by name.

    Takes what `model_variables` takes; returns a dict from name to list of ints.
    """
    variables = model_variables(bert_config, adapter_size, num_outputs, policy)
    return {name: variables.shapes[name] for name in sorted(variables.trained())}


def frozen_shapes(bert_config, policy=optimization.ADAPTER_TUNING):
    """Names and shapes of the frozen variables, sorted by name: the base.

    Args:
      bert_config: a `modeling.BertConfig`.
      policy: an `optimization.TrainPolicy`.

    Returns:
      Dict from name to list of ints.
    """
    # Adapters and head are never frozen, so their sizes do not matter.
    variables = model_variables(bert_config, 1, 1, policy)
    frozen = variables.shapes.keys() - variables.trained()
    return {name: variables.shapes[name] for name in sorted(frozen)}


def _shapes_by_collection(bert_config, policy, adapter_size, num_outputs):
    """All of a model's variables: collection -> name -> shape."""
    H, wide = bert_config.hidden_size, bert_config.intermediate_size
    layer_norms, adapters = {}, {}
    other = {
        "bert/embeddings/word_embeddings": [bert_config.vocab_size, H],
        "bert/embeddings/token_type_embeddings": [bert_config.type_vocab_size, H],
        "bert/embeddings/position_embeddings": [bert_config.max_position_embeddings, H],
    }

    def dense(scope, n_in, n_out):
        other[scope + "/kernel"] = [n_in, n_out]
        other[scope + "/bias"] = [n_out]

    def layer_norm(scope):
        for name in ("beta", "gamma"):
            layer_norms["%s/LayerNorm/%s" % (scope, name)] = [H]

    layer_norm("bert/embeddings")
    dense("bert/pooler/dense", H, H)
    with_adapters = policy.layers_with_adapters(bert_config.num_hidden_layers)
    for layer in range(bert_config.num_hidden_layers):
        scope = "bert/encoder/layer_%d/" % layer
        for name in ("query", "key", "value"):
            dense(scope + "attention/self/" + name, H, H)
        dense(scope + "attention/output/dense", H, H)
        dense(scope + "intermediate/dense", H, wide)
        dense(scope + "output/dense", wide, H)
        for sublayer in ("attention/output", "output"):
            layer_norm(scope + sublayer)
            if layer in with_adapters:
                within = scope + sublayer + "/adapters/"
                adapters[within + "weights1"] = [H, adapter_size]
                adapters[within + "biases1"] = [1, adapter_size]
                adapters[within + "weights2"] = [adapter_size, H]
                adapters[within + "biases2"] = [1, H]
    return {
        modeling.ADAPTERS: adapters,
        modeling.LAYER_NORM: layer_norms,
        modeling.HEAD: {
            "output_weights": [num_outputs, H],
            "output_bias": [num_outputs],
        },
        modeling.OTHER: other,
    }
