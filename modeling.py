"""BERT with adapters, up to its pooled output.

BERT: Devlin et al., 2018 (arXiv:1810.04805). Adapters: Houlsby et al., 2019
(arXiv:1902.00751), section 2.1. Variables have the names, shapes and collections of
Google's BERT and of the program published with the adapter paper, so that checkpoints
can be exchanged with both.

Axis letters in the comments: B batch, S sequence, F from-sequence, T to-sequence,
N attention heads, D size of one head, H hidden size (N * D), I intermediate size.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from model import (
    activations,
    configuration,
    dependencies,
    gradients,
    initializers,
    random_seeds,
)

# The original's modeling.py has these names.
BertConfig = configuration.BertConfig
gelu = activations.gelu
get_activation = activations.get_activation

# The three collections of variables that adapter tuning trains, in training order.
ADAPTERS = "adapters"
LAYER_NORM = "layer_norm"
HEAD = "head"
TRAINED_COLLECTIONS = (ADAPTERS, LAYER_NORM, HEAD)

# All other variables: embeddings, kernels and biases of BERT.
OTHER = "other"

LAYER_NORM_EPSILON = 1e-12  # of the original's layer norm

# Added to the attention scores of padding: exp(-10000) is exactly 0 in float32.
MASKED_SCORE = -10000.0


class BertModel:
    """BERT, with the layer hooks of a tuning method; by default an adapter after each
    sublayer.
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
          adapter_fn: "feedforward_adapter"; None or "" for no adapter; or a function of
            float [rows, H] that keeps the shape. Ignored if `options` has
            `layer_hooks`.
          options: an `Options`; None: the original's graph.

        Raises:
          ValueError: unknown `adapter_fn`, or sequence longer than the position
            embeddings.
        """
        if not is_training:
            config = dataclasses.replace(
                config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
            )
        self._config = config
        self._options = options = options or Options()
        if options.layer_hooks is None:
            adapter_fn = get_adapter(adapter_fn)
            hooks = (AdapterHooks(adapter_fn),) if adapter_fn else ()
            self._options = options._replace(layer_hooks=lambda index: hooks)
        self._layers = {}  # `_EncoderLayer`s by their hooks

        B, S = get_shape_list(input_ids, expected_rank=2)
        if input_mask is None:
            input_mask = tf.ones([B, S], tf.int32)
        if token_type_ids is None:
            token_type_ids = tf.zeros([B, S], tf.int32)

        with tf.variable_scope(scope, default_name="bert"):
            with tf.variable_scope("embeddings"):
                embedded, self._embedding_table = embedding_lookup(
                    input_ids, config, use_one_hot_embeddings
                )
                self._embedding_output = embedding_postprocessor(
                    embedded, token_type_ids, config
                )
            # [B, 1, 1, T], for scores of [B, N, F, T].
            self._mask_scores = MASKED_SCORE * (
                1.0 - tf.cast(input_mask[:, tf.newaxis, tf.newaxis, :], tf.float32)
            )
            hidden = self._embedding_output
            self._all_encoder_layers = []
            with tf.variable_scope("encoder"):
                for index in range(config.num_hidden_layers):
                    hidden = self._encoder_layer(index, hidden)
                    self._all_encoder_layers.append(hidden)
            with tf.variable_scope("pooler"):
                pooled = dense(hidden[:, 0], config.hidden_size, config, options)
                self._pooled_output = tf.tanh(pooled)

    def _encoder_layer(self, index, hidden):
        config, options = self._config, self._options
        seeds = None
        if config.hidden_dropout_prob or config.attention_probs_dropout_prob:
            # Inputs of the layer, so that recomputation drops the same elements.
            seeds = random_seeds.step_seeds(3)
        hooks = options.layer_hooks(index)
        if hooks not in self._layers:
            self._layers[hooks] = _EncoderLayer(config, options, hooks)
        is_last = index == config.num_hidden_layers - 1
        with tf.variable_scope("layer_%d" % index):
            return self._layers[hooks](
                hidden, self._mask_scores, seeds, is_last and options.pooled_output_only
            )

    def get_pooled_output(self):
        """Float [B, H]: the first position of the last layer, dense and tanh."""
        return self._pooled_output

    def get_first_output(self):
        """Float [B, H]: the last layer at the first position."""
        return self._all_encoder_layers[-1][:, 0]

    def get_sequence_output(self):
        """Float [B, S, H]: the last layer at all positions."""
        return self.get_all_encoder_layers()[-1]

    def get_all_encoder_layers(self):
        """List of float [B, S, H], one per layer, lowest first.

        Raises:
          ValueError: the model was built for its pooled output only.
        """
        if self._options.pooled_output_only:
            raise ValueError("not available with Options.pooled_output_only")
        return self._all_encoder_layers

    def get_embedding_output(self):
        """Float [B, S, H]: sum of the embeddings, layer-normalized."""
        return self._embedding_output

    def get_embedding_table(self):
        """Float [vocab_size, H]: the word piece embeddings."""
        return self._embedding_table


# --- adapters -------------------------------------------------------------------


class LayerHooks:
    """Operations of a tuning method within an encoder layer; by default none.

    Hooks create their variables in the current variable scope. Its name ends with
    "attention/self/query", "key" or "value", "attention/output/dense",
    "intermediate/dense" or "output/dense" in a dense layer, and with "attention/output"
    or "output" in a sublayer. Hooks support shared and per-example weights, see
    `apply_weights`. They are hashable: equal hooks create variables of equal names and
    shapes.
    """

    def dense(self, x, output):
        """Modifies the output of a dense layer, [rows, n_out]; x is [rows, n_in]."""
        del x
        return output

    def sublayer(self, x, residual, normalize):
        """Modifies the output x of a sublayer, [rows, H], before the residual sum.

        `residual`, [rows, H], is the sublayer's input. The layer norm follows:
        `normalize(x + residual)`.
        """
        del residual, normalize
        return x


@dataclasses.dataclass(frozen=True)
class AdapterHooks(LayerHooks):
    """An adapter after each sublayer (Houlsby et al., figure 2)."""

    adapter_fn: Callable  # from float [rows, H] to the same shape

    def sublayer(self, x, residual, normalize):
        return self.adapter_fn(x)


def feedforward_adapter(input_tensor, hidden_size=64, init_scale=1e-3):
    """A bottleneck adapter: x + gelu(x W1 + b1) W2 + b2.

    Houlsby et al., section 2.1 and figure 2. With near-zero initial matrices the
    adapter is a near-identity. As in the original program, the GELU is
    tanh-approximated for every `hidden_act`.

    Args:
      input_tensor: float [rows, H].
      hidden_size: the bottleneck's width.
      init_scale: standard deviation of the truncated normal that initializes W1, W2.

    Returns:
      Float [rows, H].
    """
    normal = initializers.TruncatedNormal(init_scale)
    return input_tensor + bottleneck(
        input_tensor, hidden_size, "gelu", (normal, normal)
    )


def bottleneck(x, size, activation, matrix_initializers, scope="adapters"):
    """f(x W1 + b1) W2 + b2 of x, both float [rows, H].

    `activation` is f, one of `activations.ADAPTER_ACTIVATIONS` or a function of a
    tensor; `matrix_initializers` initialize W1, [H, size], and W2, [size, H].
    """
    H = x.shape.with_rank(2).as_list()[1]
    activation = activations.ADAPTER_ACTIVATIONS.get(activation, activation)
    down_initializer, up_initializer = matrix_initializers
    variables = (
        ("weights1", [H, size], down_initializer),
        ("biases1", [1, size], initializers.zeros),
        ("weights2", [size, H], up_initializer),
        ("biases2", [1, H], initializers.zeros),
    )

    def compute(x, down, down_bias, up, up_bias):
        inner = activation(tf.matmul(x, down) + down_bias)
        return tf.matmul(inner, up) + up_bias

    with tf.variable_scope(scope):
        weights = [get_variable(*variable, (ADAPTERS,)) for variable in variables]
        return apply_weights(compute, x, *weights)


def get_adapter(function_string):
    """Looks up an adapter; see `adapter_fn` of `BertModel`.

    Raises:
      ValueError: unknown name.
    """
    if not function_string:
        return None
    if not isinstance(function_string, str):
        return function_string
    if function_string == "feedforward_adapter":
        return feedforward_adapter
    raise ValueError(
        "unknown adapter %r: allowed are 'feedforward_adapter', None for no adapter, "
        "or a function" % function_string
    )


# --- building blocks ------------------------------------------------------------


def get_variable(name, shape, initializer, collections=()):
    """A float32 variable in GLOBAL_VARIABLES and the given collections.

    Random initial values depend on the graph's seed, if set, and the name.
    """
    return tf.get_variable(
        name,
        shape,
        initializer=_set_seed(initializer, name),
        # Replicas compute the same update.
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        collections=[tf.GraphKeys.GLOBAL_VARIABLES, *collections],
    )


def _set_seed(initializer, name):
    if isinstance(initializer, initializers.RANDOM):
        return initializer._replace(seed=random_seeds.variable_seed(name))
    return initializer


def normal_variable(name, shape, stddev, collections=()):
    """Like `get_variable`, initialized from a truncated normal distribution."""
    initializer = initializers.TruncatedNormal(stddev)
    return get_variable(name, shape, initializer, collections)


def apply_weights(function, x, *weights):
    """Applies shared or per-example weights.

    Args:
      function: of a float tensor [..., n] and the weights; returns [..., m].
      x: float [B, S, n], or [rows, n] with equally many rows of each example in turn.
      *weights: shared, such as [n] and [n, m], or per example, [B, 1, n] and [B, n, m].

    Returns:
      Float [B, S, m] or [rows, m].
    """
    per_example = [weight for weight in weights if weight.shape.rank == 3]
    if not per_example:
        return function(x, *weights)
    *rows, n = get_shape_list(x)
    examples = tf.shape(per_example[0])[0]
    # A -1 for the positions would be ambiguous in an empty batch.
    positions = tf.size(x) // tf.maximum(examples * n, 1)
    output = function(tf.reshape(x, [examples, positions, n]), *weights)
    return tf.reshape(output, [*rows, get_shape_list(output)[-1]])


class VariableInfo(NamedTuple):
    """Shape and collection of a variable."""

    shape: list[int]
    collection: str  # one of `TRAINED_COLLECTIONS`, or `OTHER`
    arguments: dict[str, Any] | None = None  # further ones of `tf.get_variable`


_RECORDED = ("dtype", "initializer", "trainable", "collections", "aggregation")


def _recording_getter(recorded):
    """A custom getter that records variables.

    `recorded` becomes a dict from name to `VariableInfo` and variable. Variables are
    lifted out of functions.
    """

    def get(getter, name, shape, **kwargs):
        with tf.init_scope():
            variable = getter(name, shape, **kwargs)
        collections = set(TRAINED_COLLECTIONS).intersection(kwargs["collections"] or ())
        (collection,) = collections or {OTHER}
        arguments = {key: kwargs[key] for key in _RECORDED}
        shape = tf.TensorShape(shape).as_list()
        recorded[name] = VariableInfo(shape, collection, arguments), variable
        return variable

    return get


def encoder_variables(config, layer_hooks=lambda index: ()):
    """The variables of a `BertModel`: dict from name to `VariableInfo`.

    Builds one layer for each distinct value of `layer_hooks`, see `Options`; by default
    layers have no hooks.
    """
    sizes = tuple(getattr(config, name) for name in configuration.CONFIG_SIZES)
    variables = {}
    for index in range(config.num_hidden_layers):
        for name, info in _one_layer_variables(sizes, layer_hooks(index)).items():
            variables[name.replace("/layer_0/", "/layer_%d/" % index)] = info
    return variables


@functools.lru_cache
def _one_layer_variables(sizes, hooks):
    config = BertConfig(**dict(zip(configuration.CONFIG_SIZES, sizes)))
    config.num_hidden_layers = 1
    options, recorded = Options(layer_hooks=lambda index: hooks), {}
    getter = _recording_getter(recorded)
    with tf.Graph().as_default(), tf.variable_scope("", custom_getter=getter):
        BertModel(config, False, tf.constant([[0]]), options=options)
    return {name: info for name, (info, _) in recorded.items()}


def base_name(variable):
    """A variable's name without ":0" and the replica."""
    return re.sub(r"(/replica_\d+)?:0$", "", variable.name)


def collection_by_name():
    """Dict from base name to collection, for all `TRAINED_COLLECTIONS` of the graph."""
    return {
        base_name(variable): collection
        for collection in TRAINED_COLLECTIONS
        for variable in tf.get_collection(collection)
    }


def dropout(input_tensor, dropout_prob, seed=None):
    """Stateless dropout: the dropped elements depend on the seed alone.

    A step therefore drops the same elements when it is recomputed, or resumed by
    another process. The probability is rounded to 16 bits, since random bits are the
    cost of dropout.

    Args:
      input_tensor: float tensor of any shape.
      dropout_prob: the probability of dropping an element; None or 0.0: none.
      seed: int32 [2]; None: from `random_seeds.step_seeds`.

    Returns:
      Float tensor of the same shape.
    """
    if not dropout_prob:
        return input_tensor
    seed = random_seeds.step_seeds(1)[0] if seed is None else seed
    values = 2**16
    dropped = min(round(dropout_prob * values), values - 1)
    size = tf.size(input_tensor)
    words = tf.random.stateless_uniform(
        [(size + 1) // 2], seed, minval=None, maxval=None, dtype=tf.int32
    )
    drawn = tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:size]
    kept = tf.reshape(drawn, tf.shape(input_tensor)) >= tf.constant(dropped, tf.uint16)
    mask = tf.cast(kept, input_tensor.dtype) * (values / (values - dropped))
    return gradients.override_gradient(
        input_tensor * mask, [input_tensor], lambda dy: [dy * mask]
    )


def _normalize(x, beta, gamma):
    """Layer normalization of [..., H]; its gradient takes few passes over memory."""
    centered = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
    inverse = tf.rsqrt(variance + LAYER_NORM_EPSILON)
    normalized = centered * inverse

    def gradient(dy):
        rows = list(range(x.shape.rank - 1))
        dbeta = tf.reduce_sum(dy, axis=rows)
        dgamma = tf.reduce_sum(dy * normalized, axis=rows)
        scaled = dy * gamma
        projection = tf.reduce_mean(scaled * normalized, axis=-1, keepdims=True)
        mean = tf.reduce_mean(scaled, axis=-1, keepdims=True)
        dx = (scaled - mean - normalized * projection) * inverse
        return [dx, dbeta, dgamma]

    return gradients.override_gradient(
        normalized * gamma + beta, [x, beta, gamma], gradient
    )


def make_layer_norm(shape):
    """Creates the variables of a layer norm; returns the function of float [..., H].

    Ba et al., 2016 (arXiv:1607.06450). `shape` is [H].
    """
    collections = (tf.GraphKeys.MODEL_VARIABLES, LAYER_NORM)
    with tf.variable_scope("LayerNorm"):
        beta = get_variable("beta", shape, initializers.zeros, collections)
        gamma = get_variable("gamma", shape, tf.ones_initializer(), collections)
        weights = (tf.convert_to_tensor(beta), tf.convert_to_tensor(gamma))
    return lambda x: apply_weights(_normalize, x, *weights)


class Options(NamedTuple):
    """Options beyond the original's; the defaults give the original's graph."""

    # dtype of products with frozen kernels and of attention: float32, bfloat16 or
    # float16. Everything else is float32.
    precision: tf.DType = tf.float32
    # Gradient checkpointing of each layer: less memory, more time.
    recompute_activations: bool = False
    # Compute the last layer at the first position only: the pooled output depends on
    # nothing else. Saves 10/12 of the layer's products, on any device.
    pooled_output_only: bool = False
    # Compile the encoder's layers with XLA.
    compile_layers: bool = False
    # Whether a variable gets a gradient, from its name and collection.
    trains: Callable[[str, str], bool] = lambda name, collection: True
    # The `LayerHooks` of a layer, from its index; None: `adapter_fn`.
    layer_hooks: Callable[[int], tuple[LayerHooks, ...]] | None = None


def add_bias(x, bias):
    """x + bias, a function for `apply_weights`."""
    # oneDNN computes a matrix product and `bias_add` as one operation.
    return tf.nn.bias_add(x, bias) if bias.shape.rank == 1 else x + bias


def linear(x, n_out, config, options, name, hooks=()):
    """A linear layer with the variable names of TensorFlow 1.

    Args:
      x: float [rows, n_in].
      n_out: output width.
      config: a `BertConfig`, for the standard deviation of the initial kernel.
      options: an `Options`.
      name: variable scope of `kernel` and `bias`.
      hooks: `LayerHooks` of the encoder's layer.

    Returns:
      [rows, n_out] of dtype `options.precision`.
    """
    n_in, dtype = x.shape.with_rank(2).as_list()[1], options.precision
    with tf.variable_scope(name):
        kernel = normal_variable("kernel", [n_in, n_out], config.initializer_range)
        bias = get_variable("bias", [n_out], initializers.zeros)
        product = tf.matmul(tf.cast(x, dtype), tf.cast(kernel, dtype))
        output = apply_weights(add_bias, product, tf.cast(bias, dtype))
        for hook in hooks:
            output = hook.dense(x, output)
        return output


def dense(x, n_out, config, options, hooks=()):
    """The layer `linear` in the scope "dense", with a float32 output."""
    return tf.cast(linear(x, n_out, config, options, "dense", hooks), tf.float32)


def embedding_lookup(input_ids, config, use_one_hot_embeddings=False):
    """Embeds word pieces.

    Args:
      input_ids: int32 [B, S].
      config: a `BertConfig`.
      use_one_hot_embeddings: see `BertModel`.

    Returns:
      Float [B, S, H], and the table, float [vocab_size, H].
    """
    shape = [config.vocab_size, config.hidden_size]
    table = normal_variable("word_embeddings", shape, config.initializer_range)
    B, S = get_shape_list(input_ids, expected_rank=2)
    if use_one_hot_embeddings:
        one_hot = tf.one_hot(tf.reshape(input_ids, [-1]), depth=config.vocab_size)
        output = tf.reshape(tf.matmul(one_hot, table), [B, S, config.hidden_size])
    else:
        output = tf.gather(table, input_ids)
    return output, table


def embedding_postprocessor(input_tensor, token_type_ids, config):
    """Adds segment and position embeddings, then layer norm and dropout.

    Args:
      input_tensor: float [B, S, H], the word piece embeddings.
      token_type_ids: int32 [B, S].
      config: a `BertConfig`.

    Returns:
      Float [B, S, H].

    Raises:
      ValueError: S is known and exceeds `max_position_embeddings`.
    """
    _, S, H = get_shape_list(input_tensor, expected_rank=3)
    types, positions = config.type_vocab_size, config.max_position_embeddings
    if isinstance(S, int) and positions < S:
        raise ValueError(
            "sequence length %d exceeds max_position_embeddings %d" % (S, positions)
        )
    stddev = config.initializer_range
    table = normal_variable("token_type_embeddings", [types, H], stddev)
    # The table is tiny: a one-hot product is the fast look-up everywhere.
    one_hot = tf.one_hot(token_type_ids, depth=types)
    output = input_tensor + tf.einsum("bst,th->bsh", one_hot, table)
    output += normal_variable("position_embeddings", [positions, H], stddev)[:S]
    return dropout(make_layer_norm([H])(output), config.hidden_dropout_prob)


def transformer_layer(
    queries_from,
    hidden,
    mask_scores,
    config,
    options,
    hooks=(),
    seeds=None,
):
    """One layer of the encoder: self-attention, then the feed-forward sublayer.

    Vaswani et al., 2017 (arXiv:1706.03762). Each sublayer ends with dense, dropout,
    adapter (a hook), residual sum and layer norm, in this order.

    Args:
      queries_from: float [B, F, H], the positions of `hidden` to compute.
      hidden: float [B, T, H], the output of the layer below.
      mask_scores: float [B, 1, 1, T], added to the attention scores.
      config: a `BertConfig`.
      options: an `Options`.
      hooks: `LayerHooks`, applied in turn.
      seeds: int32 [3, 2], for dropout; None: see `dropout`.

    Returns:
      Float [B, F, H].
    """
    attention_seed, attended_seed, output_seed = (
        [None] * 3 if seeds is None else tf.unstack(seeds)
    )
    H = config.hidden_size
    B, F, _ = get_shape_list(queries_from, expected_rank=3)
    # The rest works on [B * F, H] matrices: reshaping between rank 3 and rank 2 is not
    # free on TPU.
    residual = tf.reshape(queries_from, [-1, H])

    def sublayer_output(x, residual, seed):
        x = dense(x, H, config, options, hooks)
        x = dropout(x, config.hidden_dropout_prob, seed)
        normalize = make_layer_norm([H])
        for hook in hooks:
            x = hook.sublayer(x, residual, normalize)
        return normalize(x + residual)

    with tf.variable_scope("attention"):
        with tf.variable_scope("self"):
            context = attention(
                queries_from,
                hidden,
                mask_scores,
                config,
                options,
                hooks,
                attention_seed,
            )
        with tf.variable_scope("output"):
            attended = sublayer_output(context, residual, attended_seed)
    with tf.variable_scope("intermediate"):
        inner = dense(attended, config.intermediate_size, config, options, hooks)
        if activation := activations.get_activation(config.hidden_act):
            inner = activation(inner)
    with tf.variable_scope("output"):
        output = sublayer_output(inner, attended, output_seed)
    return tf.reshape(output, [B, F, H])


def attention(queries_from, hidden, mask_scores, config, options, hooks=(), seed=None):
    """Multi-head attention; see `transformer_layer` for the arguments.

    Returns:
      The concatenated heads, [B * F, H] of dtype `options.precision`. Softmax is always
      float32.
    """
    H, N = config.hidden_size, config.num_attention_heads
    D = H // N

    def project(x, name):
        B, length, _ = get_shape_list(x, expected_rank=3)
        rows = tf.reshape(x, [-1, H])
        y = linear(rows, H, config, options, name, hooks)
        return tf.transpose(tf.reshape(y, [B, length, N, D]), [0, 2, 1, 3])

    query = project(queries_from, "query")  # [B, N, F, D]
    key = project(hidden, "key")  # [B, N, T, D]
    value = project(hidden, "value")
    query *= 1.0 / math.sqrt(D)
    scores = tf.matmul(query, key, transpose_b=True)  # [B, N, F, T]
    probs = tf.nn.softmax(tf.cast(scores, tf.float32) + mask_scores)
    probs = dropout(probs, config.attention_probs_dropout_prob, seed)
    context = tf.matmul(tf.cast(probs, options.precision), value)  # [B, N, F, D]
    return tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, H])


class _EncoderLayer:
    """One function for several encoder layers, called with each layer's weights.

    The function is traced once, so graphs of deep models are built, optimized and
    compiled in the time of one layer.
    """

    def __init__(self, config, options, hooks):
        self._arguments = (config, options, hooks)
        self._weights = None  # dict from name in the layer to `VariableInfo`
        self._functions = {}  # by which weights are trained, and `first_only`

    def __call__(self, hidden, mask_scores, seeds, first_only):
        """Creates the variables of the current scope's layer, and calls the function.

        See `transformer_layer` for the other arguments.

        Args:
          first_only: compute the first position only.

        Returns:
          Float [B, T, H]; [B, 1, H] with `first_only`.
        """
        scope = tf.get_variable_scope().name + "/"
        if self._weights is None:
            recorded = self._record_variables(hidden, mask_scores, seeds)
            variables = [variable for _, variable in recorded.values()]
            self._weights = {
                name.removeprefix(scope): info for name, (info, _) in recorded.items()
            }
        else:
            variables = [
                _create_variable(name, info) for name, info in self._weights.items()
            ]
        weights = list(map(tf.convert_to_tensor, variables))
        fixed = [mask_scores] if seeds is None else [mask_scores, seeds]
        options = self._arguments[1]
        trained = tuple(
            options.trains(scope + name, info.collection)
            for name, info in self._weights.items()
        )
        key = trained, first_only
        if key not in self._functions:
            self._functions[key] = tf.function(
                functools.partial(self._compute, *key),
                autograph=False,
                jit_compile=options.compile_layers or None,
            )
        function = self._functions[key]
        if options.recompute_activations:
            return gradients.recompute(function, hidden, weights, *fixed)
        return function(hidden, weights, *fixed)

    def _record_variables(self, hidden, mask_scores, seeds):
        """Creates and records the variables of the first layer."""
        recorded = {}

        def run():
            scope = tf.get_variable_scope()
            with tf.variable_scope(scope, custom_getter=_recording_getter(recorded)):
                transformer_layer(
                    hidden, hidden, mask_scores, *self._arguments, seeds=seeds
                )

        tf.function(run, autograph=False).get_concrete_function()
        return recorded

    def _compute(self, trained, first_only, hidden, weights, mask_scores, seeds=None):
        # XLA would compute unused gradients.
        values = {
            name: weight if is_trained else tf.stop_gradient(weight)
            for name, weight, is_trained in zip(self._weights, weights, trained)
        }

        def get_value(getter, name, *args, **kwargs):
            return values[name]

        if seeds is not None:
            # Or the masks of all layers are drawn when a step starts, stay in memory,
            # and the shard that does not draw them waits for the other.
            with dependencies.wait_for([hidden]):
                seeds = tf.identity(seeds)
        root = tf.VariableScope(reuse=False)
        queries_from = hidden[:, :1] if first_only else hidden
        with tf.variable_scope(root, custom_getter=get_value):
            return transformer_layer(
                queries_from, hidden, mask_scores, *self._arguments, seeds=seeds
            )


def _create_variable(name, info):
    """Creates a recorded variable in the current scope."""
    arguments = dict(info.arguments)
    # Each layer has its own seed.
    arguments["initializer"] = _set_seed(arguments["initializer"], name)
    return tf.get_variable(name, info.shape, **arguments)


def get_shape_list(tensor, expected_rank=None):
    """The shape of a tensor: ints for static, scalar int32 tensors for dynamic sizes.

    Raises:
      ValueError: unexpected rank.
    """
    rank = tensor.shape.rank
    if expected_rank not in (None, rank):
        raise ValueError(
            "tensor %s has rank %s (shape %s), expected rank %s"
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
