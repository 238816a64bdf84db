"""The BERT graph and the adapters inside it; no loss, no head.

BERT: Devlin et al., 2018 (arXiv:1810.04805). Adapters: Houlsby et al., 2019
(arXiv:1902.00751), section 2.1. Variable names, shapes and collections are those
of Google's BERT and of the program published with the adapter paper, so that
checkpoints can be exchanged with both.

Axis letters in the comments: B batch, S sequence, F from-sequence, T to-sequence,
N attention heads, D size of one head, H hidden size (N * D), I intermediate size.
"""

import collections
import copy
import math
import re
from collections.abc import Callable, Container
from typing import NamedTuple

import numpy as np
import six
import tensorflow.compat.v1 as tf

from model import activations, configuration, random_seeds

# Names that the original's modeling.py has too.
BertConfig = configuration.BertConfig
gelu = activations.gelu
get_activation = activations.get_activation

CONFIG_SIZES = configuration.CONFIG_SIZES

# The three collections of variables that adapter tuning trains, in training order.
ADAPTERS = "adapters"
LAYER_NORM = "layer_norm"
HEAD = "head"
TRAINED_COLLECTIONS = (ADAPTERS, LAYER_NORM, HEAD)

# What belongs to none of them: embeddings, kernels and biases of BERT.
OTHER = "other"

# What the layer normalization of the original's TensorFlow adds to the variance.
LAYER_NORM_EPSILON = 1e-12

# Added to the attention scores of padding: exp(-10000) is exactly 0 in float32.
MASKED_SCORE = -10000.0


class BertModel:
    """BERT, with an adapter after each sublayer.

    The classifier reads only the first position of the last layer. So the
    constructor computes the last layer for that position alone (the result is the
    same but for rounding), and the rest of the last layer is added to the graph
    when `get_sequence_output` or `get_all_encoder_layers` asks for it. In training
    the two draw their dropout independently; use one of them.
    """

    def __init__(
        self,
        config,
        is_training,
        input_ids,
        input_mask=None,
        token_type_ids=None,
        use_one_hot_embeddings=False,
        scope=None,
        adapter_fn="feedforward_adapter",
        options=None,
    ):
        """Builds the graph and its variables.

        Args:
          config: a `BertConfig`.
          is_training: whether dropout is on.
          input_ids: int32 [B, S].
          input_mask: int32 [B, S], 1 for tokens and 0 for padding; None: all 1.
          token_type_ids: int32 [B, S], the segment ids; None: all 0.
          use_one_hot_embeddings: look word pieces up by a matrix product with
            one-hot vectors, which is faster on TPU.
          scope: variable scope, "bert" by default.
          adapter_fn: "feedforward_adapter"; None or "" for none; or a function
            from a float [rows, H] tensor to one of the same shape.
          options: an `Options`; None: the original's graph.

        Raises:
          ValueError: unknown `adapter_fn`, sequence longer than the position
            embeddings, or sizes that do not divide.
        """
        config = copy.deepcopy(config)
        if not is_training:
            config.hidden_dropout_prob = 0.0
            config.attention_probs_dropout_prob = 0.0
        self._config = config
        self._adapter_fn = get_adapter(adapter_fn)
        self._options = options = options or Options()
        self._layer_outputs = None

        B, S = get_shape_list(input_ids, expected_rank=2)
        if input_mask is None:
            input_mask = tf.ones([B, S], tf.int32)
        if token_type_ids is None:
            token_type_ids = tf.zeros([B, S], tf.int32)

        with tf.variable_scope(scope, default_name="bert") as variable_scope:
            self._scope = variable_scope
            with tf.variable_scope("embeddings"):
                embedded, self._embedding_table = embedding_lookup(
                    input_ids,
                    config.vocab_size,
                    config.hidden_size,
                    config.initializer_range,
                    use_one_hot_embeddings=use_one_hot_embeddings,
                )
                self._embedding_output = embedding_postprocessor(
                    embedded, token_type_ids, config, options.layer_norm_fn
                )
            # [B, 1, 1, T], for scores of [B, N, F, T].
            self._mask_scores = MASKED_SCORE * (
                1.0 - tf.cast(input_mask[:, tf.newaxis, tf.newaxis, :], tf.float32)
            )
            with tf.variable_scope("encoder"):
                hidden = self._embedding_output
                self._lower_layers = []
                for layer in range(config.num_hidden_layers - 1):
                    hidden = self._layer(layer, hidden)
                    self._lower_layers.append(hidden)
                first = self._layer(
                    config.num_hidden_layers - 1, hidden, first_only=True
                )
            with tf.variable_scope("pooler"):
                self._pooled_output = dense(
                    tf.squeeze(first, axis=1),
                    config.hidden_size,
                    config.initializer_range,
                    activation=tf.tanh,
                    precision=options.precision,
                )

    def _layer(self, index, hidden, first_only=False):
        fixed = [self._mask_scores]
        config = self._config
        if config.hidden_dropout_prob or config.attention_probs_dropout_prob:
            # Made out here, so that computing the layer again drops the same elements.
            fixed.append(random_seeds.of_step(3))

        options = self._options
        has_adapters = options.adapter_layers is None or index in options.adapter_layers

        def layer(hidden, mask_scores, seeds=None):
            return transformer_layer(
                hidden[:, :1, :] if first_only else hidden,
                hidden,
                mask_scores,
                config,
                options,
                adapter_fn=self._adapter_fn if has_adapters else None,
                seeds=seeds,
            )

        with tf.variable_scope("layer_%d" % index) as scope:
            if options.recompute_activations:
                layer = _recomputed(layer, scope, options.trains)
            return layer(hidden, *fixed)

    def get_pooled_output(self):
        """Float [B, H]: the first position of the last layer, dense and tanh."""
        return self._pooled_output

    def get_sequence_output(self):
        """Float [B, S, H]: the last layer at all positions."""
        return self.get_all_encoder_layers()[-1]

    def get_all_encoder_layers(self):
        """List of float [B, S, H], one a layer, lowest first."""
        if self._layer_outputs is None:
            below = [self._embedding_output, *self._lower_layers]
            # Into the very scopes of the constructor, variables reused.
            same_scope = tf.variable_scope(
                self._scope, reuse=True, auxiliary_name_scope=False
            )
            same_names = tf.name_scope(self._scope.original_name_scope)
            with same_scope, same_names, tf.variable_scope("encoder"):
                last = self._layer(len(below) - 1, below[-1])
            self._layer_outputs = [*self._lower_layers, last]
        return self._layer_outputs

    def get_embedding_output(self):
        """Float [B, S, H]: sum of the embeddings, layer-normalized."""
        return self._embedding_output

    def get_embedding_table(self):
        """Float [vocab_size, H]: the word piece embeddings."""
        return self._embedding_table


# --- adapters -------------------------------------------------------------------


def feedforward_adapter(
    input_tensor, hidden_size=64, init_scale=1e-3, activation="gelu"
):
    """A bottleneck adapter: x + gelu(x W1 + b1) W2 + b2.

    Houlsby et al., section 2.1 and figure 2. Its near-zero initial matrices make it
    start as a near-identity. The GELU is always the tanh-approximated one, as in the
    original program, whatever the model's `hidden_act`.

    Args:
      input_tensor: float [rows, H].
      hidden_size: the bottleneck's width.
      init_scale: standard deviation of the truncated normal of the initial W1, W2.
      activation: one of `activations.ADAPTER_ACTIVATIONS`; all but "gelu" are for
        adapters that were trained elsewhere.

    Returns:
      Float [rows, H].
    """
    width = get_shape_list(input_tensor, expected_rank=2)[1]
    with tf.variable_scope("adapters"):

        def projection(index, x, n_in, n_out):
            kept_in = (ADAPTERS,)
            name = "weights%d" % index
            weights = normal_variable(name, [n_in, n_out], init_scale, kept_in)
            name = "biases%d" % index
            biases = get_variable(name, [1, n_out], tf.zeros_initializer(), kept_in)
            return affine(x, weights, tf.reshape(biases, [n_out]))

        inner = projection(1, input_tensor, width, hidden_size)
        inner = activations.ADAPTER_ACTIVATIONS[activation](inner)
        return input_tensor + projection(2, inner, hidden_size, width)


def get_adapter(function_string):
    """The adapter that a name stands for.

    Args:
      function_string: "feedforward_adapter"; None or "" for no adapter; anything
        that is not a string is returned as it is.

    Returns:
      A function from a float [rows, H] tensor to another, or None.

    Raises:
      ValueError: an unknown name.
    """
    if not function_string:
        return None
    if not isinstance(function_string, six.string_types):
        return function_string
    if function_string == "feedforward_adapter":
        return feedforward_adapter
    raise ValueError(
        "unknown adapter %r: allowed are 'feedforward_adapter', None for no adapter, "
        "or a function" % function_string
    )


# --- building blocks ------------------------------------------------------------


def get_variable(name, shape, initializer, collections=()):
    """A float32 resource variable in GLOBAL_VARIABLES and the given collections."""
    return tf.get_variable(
        name,
        shape,
        initializer=initializer,
        use_resource=True,
        # Replicas compute the same update.
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        collections=[tf.GraphKeys.GLOBAL_VARIABLES, *collections],
    )


def normal_variable(name, shape, stddev, collections=()):
    """Like `get_variable`, at first drawn from a truncated normal distribution.

    From the graph's seed, if it has one, and the variable's name.
    """
    seed = random_seeds.of_variable(name)
    initializer = tf.truncated_normal_initializer(stddev=stddev, seed=seed)
    return get_variable(name, shape, initializer, collections)


def truncated_normal(random, shape, stddev):
    """Draws from a normal distribution what `normal_variable` is initialized with.

    Values beyond two standard deviations are drawn again, as TensorFlow does.

    Args:
      random: a `np.random.RandomState`.
      shape: sequence of ints.
      stddev: standard deviation before truncation.

    Returns:
      Float32 array of the shape.
    """
    values = random.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = random.standard_normal(outside.sum())
    return (values * stddev).astype(np.float32)


def base_name(variable):
    """A variable's name, the same for all its replicas, without ":0"."""
    return re.sub(r"(/replica_\d+)?:0$", "", variable.name)


def collection_by_name():
    """Dict from a variable's base name to which of the three collections it is in.

    Of the current graph, in training order.
    """
    return {
        base_name(variable): collection
        for collection in TRAINED_COLLECTIONS
        for variable in tf.get_collection(collection)
    }


def dropout(input_tensor, dropout_prob, seed=None):
    """Sets elements to 0 with the given probability and scales up the others.

    Random numbers are what dropout costs. An element is dropped by 16 random bits, so
    the probability is met to 2^-17 (up to 255/256, the highest); the scale is that of
    the probability met. The lower 8 bits decide for one element in 256 and are shared
    along the first axis, which leaves a correlation of less than 1e-4 there.

    What is dropped follows from the seed alone, so a step that is computed again, or
    resumed by another process, drops the same elements.

    Args:
      input_tensor: float tensor of any shape.
      dropout_prob: the probability of dropping an element; None or 0.0: none.
      seed: int32 [2]; None: of this step and place, `random_seeds.of_step`.

    Returns:
      Float tensor of the same shape.
    """
    if not dropout_prob:
        return input_tensor
    seed = random_seeds.of_step(1)[0] if seed is None else seed
    values = 2**16
    dropped = min(round(dropout_prob * values), values - 256)

    @tf.custom_gradient
    def masked(x):
        shape = tf.shape(x)
        size, shared = tf.size(x), tf.reduce_prod(shape[1:])
        words = tf.random.stateless_uniform(
            [(size + shared + 3) // 4], seed, minval=None, maxval=None, dtype=tf.int32
        )
        drawn = tf.reshape(tf.bitcast(words, tf.uint8), [-1])
        upper = tf.reshape(drawn[:size], shape)
        lower = tf.reshape(drawn[size : size + shared], shape[1:])
        # 256 upper + lower >= dropped
        is_below = tf.cast(lower < dropped % 256, tf.uint8)
        kept = upper >= tf.constant(dropped // 256, tf.uint8) + is_below
        mask = tf.cast(kept, x.dtype) * (values / (values - dropped))
        return x * mask, lambda dy: dy * mask

    return masked(input_tensor)


def _recomputed(layer, scope, trains):
    """A layer that keeps its input alone for the backward pass (Chen et al., 2016,
    arXiv:1604.06174).

    Args:
      layer: function of a float tensor, and of more that need no gradient.
      scope: the variable scope that it is called in.
      trains: see `Options`.

    Returns:
      The same function.
    """

    @tf.custom_gradient
    def run(hidden, *fixed):
        def grad(dy, variables=()):
            # Not before dy is there: else both computations would be made one.
            with tf.control_dependencies([dy]):
                again = tf.identity(hidden)
            with tf.variable_scope(scope, reuse=True):
                output = layer(again, *fixed)
            collections = collection_by_name()
            wanted = [
                v
                for v in variables
                if trains(base_name(v), collections.get(base_name(v), OTHER))
            ]
            dx, *found = tf.gradients(
                output, [again, *wanted], dy, stop_gradients=again
            )
            of_name = {base_name(v): g for v, g in zip(wanted, found)}
            inputs = [dx, *(None for _ in fixed)]
            return inputs, [of_name.get(base_name(v)) for v in variables]

        output = layer(hidden, *fixed)
        # TensorFlow looks for the layer's variables among the global ones alone.
        known = tf.get_collection_ref(tf.GraphKeys.GLOBAL_VARIABLES)
        known.extend(tf.local_variables())
        return output, grad

    def without_local_ones(*inputs):
        output = run(*inputs)
        known = tf.get_collection_ref(tf.GraphKeys.GLOBAL_VARIABLES)
        local = {id(variable) for variable in tf.local_variables()}
        known[:] = [variable for variable in known if id(variable) not in local]
        return output

    return without_local_ones


@tf.custom_gradient
def _normalize(x, beta, gamma):
    """Layer normalization of [..., H], with its gradient in few passes."""
    centered = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
    inverse = tf.rsqrt(variance + LAYER_NORM_EPSILON)
    normalized = centered * inverse

    def grad(dy):
        rows = list(range(x.shape.rank - 1))
        dbeta = tf.reduce_sum(dy, axis=rows)
        dgamma = tf.reduce_sum(dy * normalized, axis=rows)
        scaled = dy * gamma
        along = tf.reduce_mean(scaled * normalized, axis=-1, keepdims=True)
        mean = tf.reduce_mean(scaled, axis=-1, keepdims=True)
        dx = (scaled - mean - normalized * along) * inverse
        return dx, dbeta, dgamma

    return normalized * gamma + beta, grad


def layer_norm(input_tensor, name="LayerNorm"):
    """Layer normalization over the last axis (Ba et al., 2016, arXiv:1607.06450).

    Args:
      input_tensor: float [..., H].
      name: variable scope of `beta` and `gamma`, both [H].

    Returns:
      Float tensor of the same shape.
    """
    width = input_tensor.shape.as_list()[-1]
    kept_in = (tf.GraphKeys.MODEL_VARIABLES, LAYER_NORM)
    with tf.variable_scope(name):
        beta = get_variable("beta", [width], tf.zeros_initializer(), kept_in)
        gamma = get_variable("gamma", [width], tf.ones_initializer(), kept_in)
        return _normalize(input_tensor, tf.identity(beta), tf.identity(gamma))


class Options(NamedTuple):
    """What the original's graph has no choice of; the defaults are its own."""

    # What frozen kernels and attention are multiplied in: float32, bfloat16 or float16.
    # All else, variables too, is float32.
    precision: tf.DType = tf.float32
    # Keep only the input of each layer for the backward pass and compute the rest again
    # there: less memory, more time.
    recompute_activations: bool = False
    # From float [..., H] to the same shape, in the variable scopes that this is called
    # in.
    layer_norm_fn: Callable = layer_norm
    # Whether queries, keys and values of all positions come from one matrix product,
    # which keeps many cores busy; for one core three products are as fast, and nothing
    # is put together and taken apart.
    joined_projections: bool = True
    adapter_layers: Container[int] | None = None  # with adapters; None: all
    # Whether a variable is trained, from its base name and its collection, or `OTHER`:
    # what is computed again gives no other's gradient.
    trains: Callable = lambda name, collection: collection != OTHER


def _dense_variables(n_in, n_out, initializer_range):
    kernel = normal_variable("kernel", [n_in, n_out], initializer_range)
    return kernel, get_variable("bias", [n_out], tf.zeros_initializer())


def affine(x, kernel, bias, precision=tf.float32):
    """x kernel + bias, computed in the given dtype.

    Args:
      x: float [rows, n_in].
      kernel: float [n_in, n_out], tensor or variable.
      bias: float [n_out], the same.
      precision: dtype.

    Returns:
      Tensor [rows, n_out] of that dtype.
    """
    # One operation of oneDNN, which adds before it rounds; apart they are two.
    product = tf.matmul(tf.cast(x, precision), tf.cast(kernel, precision))
    return tf.nn.bias_add(product, tf.cast(bias, precision))


def dense(
    input_tensor,
    n_out,
    initializer_range,
    activation=None,
    name="dense",
    precision=tf.float32,
):
    """x kernel + bias, under the variable names of TensorFlow 1's dense layer.

    Args:
      input_tensor: float [rows, n_in].
      n_out: output width.
      initializer_range: standard deviation of the kernel's truncated normal.
      activation: function of a tensor, or None.
      name: variable scope of `kernel` and `bias`.
      precision: dtype of product and sum.

    Returns:
      Float32 [rows, n_out].
    """
    n_in = get_shape_list(input_tensor, expected_rank=2)[1]
    with tf.variable_scope(name):
        kernel, bias = _dense_variables(n_in, n_out, initializer_range)
        output = affine(input_tensor, kernel, bias, precision)
        output = tf.cast(output, tf.float32)
        return output if activation is None else activation(output)


def embedding_lookup(
    input_ids,
    vocab_size,
    embedding_size=128,
    initializer_range=0.02,
    word_embedding_name="word_embeddings",
    use_one_hot_embeddings=False,
):
    """Looks word pieces up in the embedding table.

    Args:
      input_ids: int32 [B, S].
      vocab_size: rows of the table.
      embedding_size: width E of the table.
      initializer_range: standard deviation of the table's truncated normal.
      word_embedding_name: name of the table's variable.
      use_one_hot_embeddings: by a matrix product with one-hot vectors.

    Returns:
      Float [B, S, E], and the table, float [vocab_size, E].
    """
    shape = [vocab_size, embedding_size]
    table = normal_variable(word_embedding_name, shape, initializer_range)
    B, S = get_shape_list(input_ids, expected_rank=2)
    if use_one_hot_embeddings:
        one_hot = tf.one_hot(tf.reshape(input_ids, [-1]), depth=vocab_size)
        output = tf.reshape(tf.matmul(one_hot, table), [B, S, embedding_size])
    else:
        output = tf.gather(table, input_ids)
    return output, table


def embedding_postprocessor(
    input_tensor, token_type_ids, config, layer_norm_fn=layer_norm
):
    """Adds segment and position embeddings, then layer norm and dropout.

    Args:
      input_tensor: float [B, S, H], the word piece embeddings.
      token_type_ids: int32 [B, S].
      config: a `BertConfig`.
      layer_norm_fn: see `Options`.

    Returns:
      Float [B, S, H].

    Raises:
      ValueError: S is known and exceeds `max_position_embeddings`.
    """
    _, S, H = get_shape_list(input_tensor, expected_rank=3)
    if isinstance(S, int) and config.max_position_embeddings < S:
        raise ValueError(
            "sequence length %d exceeds max_position_embeddings %d"
            % (S, config.max_position_embeddings)
        )
    stddev = config.initializer_range
    shape = [config.type_vocab_size, H]
    types = normal_variable("token_type_embeddings", shape, stddev)
    shape = [config.max_position_embeddings, H]
    positions = normal_variable("position_embeddings", shape, stddev)
    # The table of segments is tiny: a one-hot product is the fast look-up everywhere.
    one_hot = tf.one_hot(token_type_ids, depth=config.type_vocab_size)
    output = input_tensor + tf.einsum("bst,th->bsh", one_hot, types) + positions[:S]
    return dropout(layer_norm_fn(output), config.hidden_dropout_prob)


def transformer_layer(
    queries_from,
    hidden,
    mask_scores,
    config,
    options,
    adapter_fn=None,
    seeds=None,
):
    """One layer of the encoder, at the positions that are asked for.

    Self-attention (Vaswani et al., 2017, arXiv:1706.03762), then the feed-forward
    sublayer. Each ends with dense, dropout, adapter, residual sum and layer norm, in
    this order.

    Args:
      queries_from: float [B, F, H], the positions of `hidden` to compute.
      hidden: float [B, T, H], the output of the layer below at all positions.
      mask_scores: float [B, 1, 1, T], added to the attention scores.
      config: a `BertConfig`.
      options: an `Options`.
      adapter_fn: function of a float [rows, H] tensor, or None.
      seeds: int32 [3, 2], for dropout; None: as `dropout` says.

    Returns:
      Float [B, F, H].
    """
    attention_seed, attended_seed, output_seed = (
        [None] * 3 if seeds is None else tf.unstack(seeds)
    )
    H = config.hidden_size
    B, F, _ = get_shape_list(queries_from, expected_rank=3)
    # All that follows works on [B * F, H] matrices: reshaping back and forth between
    # rank 3 and rank 2 is not free on TPU.
    residual = tf.reshape(queries_from, [-1, H])

    def sublayer_output(x, residual, seed):
        x = dense(x, H, config.initializer_range, precision=options.precision)
        x = dropout(x, config.hidden_dropout_prob, seed)
        if adapter_fn is not None:
            x = adapter_fn(x)
        return options.layer_norm_fn(x + residual)

    with tf.variable_scope("attention"):
        with tf.variable_scope("self"):
            context = attention(
                queries_from, hidden, mask_scores, config, options, attention_seed
            )
        with tf.variable_scope("output"):
            attended = sublayer_output(context, residual, attended_seed)
    with tf.variable_scope("intermediate"):
        inner = dense(
            attended,
            config.intermediate_size,
            config.initializer_range,
            activation=activations.get_activation(config.hidden_act),
            precision=options.precision,
        )
    with tf.variable_scope("output"):
        output = sublayer_output(inner, attended, output_seed)
    return tf.reshape(output, [B, F, H])


def attention(queries_from, hidden, mask_scores, config, options, seed=None):
    """Multi-head attention from some positions to all.

    Args:
      queries_from: float [B, F, H].
      hidden: float [B, T, H]; the very same tensor where all positions are computed.
      mask_scores: float [B, 1, 1, T], added to the scores.
      config: a `BertConfig`.
      options: an `Options`; the softmax is float32 whatever the precision.
      seed: int32 [2], for dropout; None: as `dropout` says.

    Returns:
      Float [B * F, H] of the precision, the concatenated heads.
    """
    precision = options.precision
    H, N = config.hidden_size, config.num_attention_heads
    D = H // N
    variables = []
    for name in ("query", "key", "value"):
        with tf.variable_scope(name):
            variables.append(_dense_variables(H, H, config.initializer_range))

    def project(x, parts):
        # One matrix product for several projections: [rows, H] x [H, P * H].
        B, length, _ = get_shape_list(x, expected_rank=3)
        kernel = tf.concat([tf.cast(kernel, precision) for kernel, _ in parts], axis=1)
        bias = tf.concat([bias for _, bias in parts], axis=0)
        y = affine(tf.reshape(x, [-1, H]), kernel, bias, precision)
        return [  # [B, N, S, D] each
            tf.transpose(tf.reshape(part, [B, length, N, D]), [0, 2, 1, 3])
            for part in tf.split(y, len(parts), axis=1)
        ]

    def dropped_softmax(scores):
        probs = tf.nn.softmax(tf.cast(scores, tf.float32) + mask_scores)
        probs = dropout(probs, config.attention_probs_dropout_prob, seed)
        return tf.cast(probs, precision)  # [B, N, F, T]

    scale = 1.0 / math.sqrt(D)
    if queries_from is hidden:
        groups = [variables]
        if not options.joined_projections:
            groups = [[v] for v in variables]
        query, key, value = (y for group in groups for y in project(hidden, group))
        probs = dropped_softmax(tf.matmul(scale * query, key, transpose_b=True))
        context = tf.matmul(probs, value)
    else:
        query = scale * project(queries_from, variables[:1])[0]
        context = _attend_from_few(query, hidden, *variables[1:], dropped_softmax)
    context = tf.transpose(context, [0, 2, 1, 3])  # [B, F, N, D]
    return tf.reshape(context, [-1, H])


def _attend_from_few(query, hidden, key_variables, value_variables, dropped_softmax):
    """Attention without keys and values at all positions, the same but for rounding.

    q (h K)^T = (q K^T) h^T and p (h V) = (p h) V: K and V multiply the few queries and
    sums, instead of every position.

    Args:
      query: float [B, N, F, D], scaled; F is small.
      hidden: float [B, T, H].
      key_variables: kernel [H, N * D] and bias [N * D].
      value_variables: the same.
      dropped_softmax: function from scores [B, N, F, T] to weights of the same shape.

    Returns:
      Float [B, N, F, D] of the query's dtype.
    """
    precision = query.dtype
    N, D = query.shape[1], query.shape[3]
    hidden = tf.cast(hidden, precision)

    def by_head(kernel):  # [H, N, D]
        return tf.reshape(tf.cast(kernel, precision), [-1, N, D])

    # The bias of the keys adds the same to all scores of a query: softmax ignores it.
    kernel, _ = key_variables
    inner = tf.einsum("bnfd,hnd->bnfh", query, by_head(kernel))
    probs = dropped_softmax(tf.einsum("bnfh,bth->bnft", inner, hidden))

    kernel, bias = value_variables
    sums = tf.einsum("bnft,bth->bnfh", probs, hidden)
    context = tf.einsum("bnfh,hnd->bnfd", sums, by_head(kernel))
    # After dropout the weights of a query need not add up to 1.
    weights = tf.reduce_sum(tf.cast(probs, tf.float32), axis=-1, keepdims=True)
    bias = weights * tf.reshape(bias, [N, 1, D])
    return tf.cast(tf.cast(context, tf.float32) + bias, precision)


def get_shape_list(tensor, expected_rank=None):
    """The shape of a tensor: ints where known, scalar int32 tensors where not.

    Raises:
      ValueError: the rank is not `expected_rank`.
    """
    rank = tensor.shape.rank
    if expected_rank is not None and rank != expected_rank:
        raise ValueError(
            "tensor %s has rank %s (shape %s) where rank %d is needed"
            % (tensor.name, rank, tensor.shape, expected_rank)
        )
    static = tensor.shape.as_list()
    if None not in static:
        return static
    dynamic = tf.shape(tensor)
    return [dynamic[i] if size is None else size for i, size in enumerate(static)]


def get_assignment_map_from_checkpoint(tvars, init_checkpoint):
    """Pairs variables with the tensors of the same name in a checkpoint.

    Args:
      tvars: variables of the current graph.
      init_checkpoint: path of the checkpoint, without its file endings.

    Returns:
      A dict from name in the checkpoint to name in the graph, for
      `tf.train.init_from_checkpoint`, and a dict whose keys are the names, with and
      without ":0", of the variables that it initializes.
    """
    in_checkpoint = {name for name, _ in tf.train.list_variables(init_checkpoint)}
    assignment_map = collections.OrderedDict()
    initialized_variable_names = {}
    for variable in tvars:
        name = base_name(variable)
        if name in in_checkpoint:
            assignment_map[name] = name
            initialized_variable_names[name] = 1
            initialized_variable_names[name + ":0"] = 1
    return assignment_map, initialized_variable_names
