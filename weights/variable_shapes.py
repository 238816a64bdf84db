"""Names and shapes of a model's variables, from its config alone."""

from typing import NamedTuple

import modeling
import optimization


class VariableSet(NamedTuple):
    """Names and shapes of a model's variables, without optimizer slots and step."""

    shapes: dict[str, list[int]]  # of all variables
    collections: dict[str, list[str]]  # names of the trained ones, by collection

    def trained(self):
        """Names of the trained variables."""
        return [name for names in self.collections.values() for name in names]

    def task_specific(self):
        """Names of the trained variables that a checkpoint of BERT may lack."""
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
      adapter_size: size of the bottleneck; any, if the policy has no adapters.
      num_outputs: number of labels; 1 for regression.
      policy: an `optimization.TrainPolicy`.

    Returns:
      A `VariableSet`.
    """
    by_collection = _shapes_by_collection(
        bert_config, policy, adapter_size, num_outputs
    )
    trained = {
        collection: [name for name in shapes if policy.trains(name, collection)]
        for collection, shapes in by_collection.items()
    }
    if not trained[modeling.OTHER]:
        del trained[modeling.OTHER]
    shapes = {n: shape for each in by_collection.values() for n, shape in each.items()}
    return VariableSet(shapes, trained)


def trained_shapes(
    bert_config, adapter_size, num_outputs, policy=optimization.ADAPTER_TUNING
):
    """Shapes of the trained variables: dict from name to list of ints, sorted by name.

    The arguments are those of `model_variables`.
    """
    variables = model_variables(bert_config, adapter_size, num_outputs, policy)
    return {name: variables.shapes[name] for name in sorted(variables.trained())}


def frozen_shapes(bert_config, policy=optimization.ADAPTER_TUNING):
    """Shapes of the base model's frozen variables, see `trained_shapes`."""
    # The sizes of adapters and head do not matter: they are never frozen.
    variables = model_variables(bert_config, 1, 1, policy)
    frozen = variables.shapes.keys() - variables.trained()
    return {name: variables.shapes[name] for name in sorted(frozen)}


def _shapes_by_collection(bert_config, policy, adapter_size, num_outputs):
    """Shapes of all variables: collection -> name -> list of ints."""
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
