"""Variables and operations of graphs."""

import tensorflow.compat.v1 as tf

import modeling
import optimization
from training import classifier
from weights.model_variables import VariableSet


def model_variables(bert_config, num_labels, variant):
    """Builds the model in a separate graph to list its variables.

    Args:
      bert_config: a `modeling.BertConfig`.
      num_labels: outputs of the head.
      variant: a `classifier.Variant`.

    Returns:
      A `VariableSet`; trained names are in the order in which gradients are taken.
    """
    with tf.Graph().as_default():
        ids = tf.placeholder(tf.int32, [1, 1])
        dtype = tf.int32
        if variant.task_type is not None:
            dtype = variant.task_type.label_feature.dtype
        labels = tf.placeholder(dtype, [1])
        classifier.create_model(
            bert_config,
            False,
            ids,
            ids,
            ids,
            labels,
            num_labels,
            use_one_hot_embeddings=False,
            variant=variant,
        )
        collection_of = modeling.collection_by_name()
        trained = {collection: [] for collection in modeling.TRAINED_COLLECTIONS}
        for variable in optimization.trainable_variables(variant.method):
            name = modeling.base_name(variable)
            collection = collection_of.get(name, modeling.OTHER)
            trained.setdefault(collection, []).append(name)
        return VariableSet(
            shapes={v.op.name: v.shape.as_list() for v in tf.global_variables()},
            collections=trained,
        )


def optimized_graph(session, operation, feed=None):
    """The `GraphDef` that TensorFlow executes on the CPU for an operation."""
    report = tf.RunMetadata()
    options = tf.RunOptions(output_partition_graphs=True)
    session.run(operation, feed, options, report)
    (graph,) = report.partition_graphs
    return graph


def names_before(graph, name):
    """Set of the operations' names in a `GraphDef` that one needs, and its own."""
    return {node.name for node in tf.graph_util.extract_sub_graph(graph, [name]).node}


def ancestors(*ops):
    """Set of the operations that have to run before some, and these."""
    found, to_visit = set(), list(ops)
    while to_visit:
        op = to_visit.pop()
        if op not in found:
            found.add(op)
            to_visit += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return found


def iterate_nodes(graph_def):
    """Yields names and nodes of a graph, with the nodes of functions for each call."""
    functions = {each.signature.name: each for each in graph_def.library.function}

    def expand(prefix, nodes):
        for node in nodes:
            name = prefix + node.name
            function = functions.get(node.attr["f"].func.name)
            if function is None:
                yield name, node
            else:
                yield from expand(name + "/", function.node_def)

    yield from expand("", graph_def.node)
