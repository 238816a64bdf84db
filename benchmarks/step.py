"""Times a training step and an evaluation pass against the machine's matrix product.

    python -m benchmarks.step --config=minilm --seq_length=128
    python -m benchmarks.step --train_policy=adapters --train_policy=full

The graph is timed on random ids, without an input pipeline. The limit is the rate of
the model's plain matrix products, timed between the steps; the ratio to it can be
compared between machines.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import collections
import resource
import time
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

import command_line
import modeling
import optimization
from errors import reports_user_errors
from training import classifier, estimators, flag_checks
from training.estimator_compat import estimator

FLAGS = flags.FLAGS

_SIZES = {  # hidden size, layers, heads
    "minilm": (384, 6, 12),
    "bert-base": (768, 12, 12),
    "bert-large": (1024, 24, 16),
}
_LABELS = 2
# The graph optimizer would drop products whose results nobody uses.
_NO_REWRITING = tf.ConfigProto()
_NO_REWRITING.graph_options.rewrite_options.disable_meta_optimizer = True


class FlopCount(NamedTuple):
    """Nominal floating point operations of a step: all positions of all layers.

    A product [m, k] x [k, n] counts 2 m k n. In the backward pass a frozen kernel costs
    one product, a trained one two, and so does each product of attention.
    """

    forward: float
    backward: float


def count_flops(config, batch_size, seq_length, adapter_size):
    """The `FlopCount` of one batch; embeddings, pooler and head are not counted."""
    H, wide = config.hidden_size, config.intermediate_size
    rows = batch_size * seq_length
    frozen = 2.0 * rows * (4 * H * H + 2 * H * wide)
    attention = 2.0 * 2.0 * rows * seq_length * H
    adapters = 2.0 * 2.0 * 2.0 * rows * H * adapter_size
    layers = config.num_hidden_layers
    return FlopCount(
        forward=layers * (frozen + attention + adapters),
        backward=layers * (frozen + 2.0 * (attention + adapters)),
    )


def read_config(name):
    """The `modeling.BertConfig` of a preset or a file."""
    if name not in _SIZES:
        return modeling.BertConfig.from_json_file(name)
    hidden_size, layers, heads = _SIZES[name]
    return modeling.BertConfig(
        30522,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        type_vocab_size=2,
    )


class TimedGraph:
    """A graph with one operation that is run repeatedly."""

    def __init__(self, build, config=None):
        """Initializes the graph of `build()`, which returns the operation."""
        self._graph = tf.Graph()
        with self._graph.as_default():
            tf.set_random_seed(1)
            self._fetch = build()
            self._session = tf.Session(config=config)
            self._session.run(
                [tf.global_variables_initializer(), tf.local_variables_initializer()]
            )
        self.seconds = []
        self.processor_seconds = []  # of all threads of this process

    def run(self, times=1, timed=True):
        """Runs the operation and records the seconds of each run."""
        for _ in range(times):
            started, used = time.perf_counter(), time.process_time()
            self._session.run(self._fetch)
            if timed:
                self.seconds.append(time.perf_counter() - started)
                self.processor_seconds.append(time.process_time() - used)

    def operations(self):
        """Microseconds of one traced run, by kind of operation, longest first."""
        report = tf.RunMetadata()
        self._session.run(
            self._fetch,
            options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE),
            run_metadata=report,
        )
        kinds = {op.name: op.type for op in self._graph.get_operations()}
        total = collections.Counter()
        for device in report.step_stats.dev_stats:
            for node in device.node_stats:
                label = node.timeline_label.split(" = ")[-1].split("(")[0]
                kind = kinds.get(node.node_name.split(":")[0], label or node.node_name)
                total[kind] += node.op_end_rel_micros - node.op_start_rel_micros
        return total.most_common()


def shards():
    """The number of shards, by default as in training: `estimators.cpu_shards`."""
    if FLAGS.shards is not None:
        return FLAGS.shards
    rows = FLAGS.batch_size // FLAGS.gradient_accumulation_steps
    return 1 if FLAGS.xla else estimators.cpu_shards([rows])


def read_policy(text, num_layers):
    """The `optimization.TrainPolicy` of a flag's value."""
    name, _, layers = text.partition(":")
    if name != modeling.ADAPTERS:
        name, layers = text, None
    return flag_checks.parse_policy(name, layers, num_layers)


def step_builder(config, mode, policy=optimization.ADAPTER_TUNING):
    """A function that builds a step on random ids and returns its operation."""
    random = np.random.RandomState(0)
    shape = (FLAGS.batch_size, FLAGS.seq_length)

    def build():
        batch = {
            "input_ids": random.randint(0, config.vocab_size, shape),
            "input_mask": np.ones(shape),
            "segment_ids": np.zeros(shape),
            "label_ids": random.randint(0, _LABELS, shape[:1]),
            "is_real_example": np.ones(shape[:1]),
        }
        # Variables, because constants would be folded into the graph.
        features = {
            name: tf.get_local_variable(name, initializer=array.astype(np.int32))
            for name, array in batch.items()
        }
        spec = classifier.model_fn_builder(
            config,
            _LABELS,
            init_checkpoint=None,
            learning_rate=3e-4,
            num_train_steps=1000,
            num_warmup_steps=100,
            use_tpu=False,
            use_one_hot_embeddings=False,
            variant=classifier.Variant(
                classifier.adapter_function(FLAGS.adapter_size, 1e-3),
                computation=classifier.Computation(
                    precision=FLAGS.precision,
                    xla=FLAGS.xla,
                    recompute_activations=FLAGS.recompute_activations,
                    gradient_accumulation_steps=FLAGS.gradient_accumulation_steps,
                    shards=shards(),
                ),
                policy=policy,
            ),
        )(features, None, mode, {})
        if mode == estimator.ModeKeys.TRAIN:
            return spec.train_op
        return spec.predictions["probabilities"].op

    return build


def products_builder(config):
    """A function that builds the frozen matrix products of one forward pass."""

    def build():
        H, wide = config.hidden_size, config.intermediate_size
        rows = FLAGS.batch_size * FLAGS.seq_length // shards()
        dtype = classifier.PRECISIONS[FLAGS.precision]

        def variable(name, shape):
            initial = tf.cast(tf.random.normal(shape, stddev=0.1), dtype)
            return tf.get_local_variable(name, initializer=initial)

        inputs = [
            {n: variable("input_%d_%d" % (shard, n), [rows, n]) for n in (H, wide)}
            for shard in range(shards())
        ]
        last = [[] for _ in inputs]
        for layer in range(config.num_hidden_layers):
            for index, shape in enumerate([(H, H)] * 4 + [(H, wide), (wide, H)]):
                kernel = variable("kernel_%d_%d" % (layer, index), shape)
                for shard, of_width in enumerate(inputs):
                    # In sequence, as in the model.
                    with tf.control_dependencies(last[shard]):
                        last[shard] = [tf.matmul(of_width[shape[0]], kernel).op]
        return tf.group(*last)

    return build


def print_rates(title, flops, seconds, limit):
    """Prints one line of figures from the median of the timings."""
    step = float(np.median(seconds))
    rate, speed = FLAGS.batch_size / step, flops / step
    text = (
        "%-10s %8.1f ms  %8.1f examples/s  %9.0f tokens/s  %7.1f GFLOP/s  %.2f of the "
        "limit  (%d runs)"
    )
    tokens = rate * FLAGS.seq_length
    values = (1e3 * step, rate, tokens, speed / 1e9, speed / limit, len(seconds))
    print(text % (title, *values), flush=True)


def compare_policies(config):
    """Prints the time of a training step of each policy, measured in turns."""
    models = []
    for text in FLAGS.train_policy:
        policy = read_policy(text, config.num_hidden_layers)
        build = step_builder(config, estimator.ModeKeys.TRAIN, policy)
        models.append(TimedGraph(build, estimators.session_config(shards())))
        models[-1].run(3, timed=False)
    end = time.perf_counter() + FLAGS.seconds * len(models)
    while time.perf_counter() < end:
        for model in models:
            model.run()
    for text, model in zip(FLAGS.train_policy, models):
        ratios = np.divide(model.processor_seconds, models[0].processor_seconds)
        medians = map(np.median, (model.seconds, model.processor_seconds))
        quartiles = np.percentile(ratios, [50, 25, 75])
        print(
            "%-14s %8.1f ms, %8.1f ms of processor time: %.2f of the first's "
            "(quartiles %.2f and %.2f; %d turns)"
            % (text, *(1e3 * each for each in medians), *quartiles, len(ratios)),
            flush=True,
        )


_TEXTS = {
    "config": "minilm, bert-base, bert-large, or the path of a bert_config.json.",
    "batch_size": "Examples in a batch.",
    "seq_length": "Word pieces of each example.",
    "adapter_size": "Width of the adapters' bottleneck.",
    "precision": "Of products with frozen weights.",
    "xla": "Compile the step.",
    "recompute_activations": "Recompute activations in the backward pass.",
    "gradient_accumulation_steps": "Micro-batches of a training batch.",
    "shards": "Intra-batch shards; as in training if not given.",
    "seconds": "How long each of training and prediction is timed.",
    "train_policy": "As in run_classifier.py; adapters:3-5 has adapters only in these "
    "layers. Training steps of several policies are timed in turns, without the matrix "
    "products.",
    "trace": "Also list this many kinds of operations of a step, by their time.",
}


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""

    def define(kind, name, *values, **rest):
        return kind(name, *values, _TEXTS[name], flag_values=flag_values, **rest)

    precisions = list(classifier.PRECISIONS)
    return {
        "Flags": (
            define(flags.DEFINE_string, "config", "minilm"),
            define(flags.DEFINE_integer, "batch_size", 32),
            define(flags.DEFINE_integer, "seq_length", 128),
            define(flags.DEFINE_integer, "adapter_size", 64),
            define(flags.DEFINE_enum, "precision", "float32", precisions),
            define(flags.DEFINE_bool, "xla", False),
            define(flags.DEFINE_bool, "recompute_activations", False),
            define(flags.DEFINE_integer, "gradient_accumulation_steps", 1),
            define(flags.DEFINE_integer, "shards", None, lower_bound=1),
            define(flags.DEFINE_float, "seconds", 20.0),
            define(flags.DEFINE_multi_string, "train_policy", [modeling.ADAPTERS]),
            define(flags.DEFINE_integer, "trace", 0),
        )
    }


@reports_user_errors
def main(argv):
    tf.logging.set_verbosity(tf.logging.ERROR)
    estimators.keep_freed_memory()
    config = read_config(FLAGS.config)
    if FLAGS.train_policy != [modeling.ADAPTERS]:
        compare_policies(config)
        return
    total = count_flops(config, FLAGS.batch_size, FLAGS.seq_length, FLAGS.adapter_size)
    sizes = (FLAGS.batch_size, FLAGS.seq_length, FLAGS.adapter_size, shards())
    print(
        "%s, batch %d, length %d, adapters %d, shards %d, TensorFlow %s"
        % (FLAGS.config, *sizes, tf.version.VERSION)
    )
    for title, mode, flops in (
        ("training", estimator.ModeKeys.TRAIN, total.forward + total.backward),
        ("prediction", estimator.ModeKeys.PREDICT, total.forward),
    ):
        model = TimedGraph(
            step_builder(config, mode), estimators.session_config(shards())
        )
        model.run(3, timed=False)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        products = TimedGraph(products_builder(config), _NO_REWRITING)
        products.run(2, timed=False)
        end = time.perf_counter() + FLAGS.seconds
        while time.perf_counter() < end:
            model.run(2)
            products.run(2)
        products_flops = count_flops(config, FLAGS.batch_size, FLAGS.seq_length, 0)
        attention = 4.0 * FLAGS.batch_size * FLAGS.seq_length**2 * config.hidden_size
        frozen = products_flops.forward - config.num_hidden_layers * attention
        limit = frozen / float(np.median(products.seconds))
        print_rates(title, flops, model.seconds, limit)
        print(
            "           limit %.1f GFLOP/s, peak memory so far %.2f GB"
            % (limit / 1e9, peak * 1024 / 1e9)
        )
        for kind, micros in model.operations()[: FLAGS.trace]:
            print("           %8.1f ms  %s" % (micros / 1e3, kind))


if __name__ == "__main__":
    command_line.run_program(main, __doc__, define_flags(FLAGS), FLAGS)
