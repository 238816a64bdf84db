"""Times training and prediction, relative to the machine's matrix products.

    python -m benchmarks.step --config=minilm --seq_length=128
    python -m benchmarks.step --train_policy=adapters --train_policy=full

The graph is timed on random ids, without an input pipeline. The limit is the speed of
the model's plain matrix products, timed between the steps; the fraction of the limit
can be compared between machines.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import collections
import json
import os
import resource
import time

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

import command_line
import modeling
import optimization
from errors import UserError, explain_value_errors
from training import classifier, estimators, settings
from training.estimator_compat import estimator
from tuning import registry

FLAGS = flags.FLAGS

SIZES = {  # hidden size, layers, heads
    "tiny": (64, 2, 4),
    "minilm": (384, 6, 12),
    "bert-base": (768, 12, 12),
    "bert-large": (1024, 24, 16),
}
_TEXTS = {
    "config": "%s, or the path of a bert_config.json." % ", ".join(SIZES),
    "batch_size": "Examples in a batch.",
    "seq_length": "Word pieces of each example.",
    "adapter_size": "Width of the adapters' bottleneck.",
    "precision": "Of products with frozen weights.",
    "xla": "As in run_classifier.py.",
    "recompute_activations": "As in run_classifier.py.",
    "gradient_accumulation_steps": "As in run_classifier.py.",
    "shards": "Intra-batch shards; as in training if not given.",
    "seconds": "How long each of training and prediction is timed.",
    "train_policy": "As in run_classifier.py, with settings after commas, such as "
    "adapters,adapter_layers=3-5. Training steps of several policies are timed in "
    "turns, without the matrix products.",
    "trace": "Also list this many kinds of operations, by time.",
    "json": "Print each result as a line of JSON.",
    "losses": "Instead of times, print losses from the weights in this .npz file, "
    "which is written with random ones if it does not exist.",
}
_LABELS = 2
_DEFAULT = registry.DEFAULT.text
_RESULT_TEXT = """\
%(step)-10s %(milliseconds)8.1f ms  %(examples_per_second)8.1f examples/s  \
%(tokens_per_second)9.0f tokens/s  %(gflops)7.1f GFLOP/s  \
%(fraction_of_limit).2f of the limit  (%(runs)d runs)
           limit %(limit_gflops).1f GFLOP/s, first step after \
%(first_step_seconds).1f s, peak memory so far %(peak_gb).2f GB"""
# The graph optimizer would remove products with unused results.
_NO_REWRITING = tf.ConfigProto()
_NO_REWRITING.graph_options.rewrite_options.disable_meta_optimizer = True


def count_flops(config):
    """Nominal floating point operations of one batch: all positions of all layers.

    A product [m, k] x [k, n] counts 2 m k n. In the backward pass a frozen kernel costs
    one product, a trained one and each product of attention two. Embeddings, pooler and
    head are not counted.

    Returns:
      Operations of the forward pass with frozen kernels, of the whole forward pass, and
      of the backward pass.
    """
    H = config.hidden_size
    rows = config.num_hidden_layers * FLAGS.batch_size * FLAGS.seq_length
    frozen = 2.0 * rows * (4 * H * H + 2 * H * config.intermediate_size)
    attention = 2.0 * 2.0 * rows * FLAGS.seq_length * H
    adapters = 2.0 * 2.0 * 2.0 * rows * H * FLAGS.adapter_size
    rest = attention + adapters
    return frozen, frozen + rest, frozen + 2.0 * rest


def read_config(name):
    """The `modeling.BertConfig` of a preset or a file."""
    if name not in SIZES:
        return modeling.BertConfig.from_json_file(name)
    hidden_size, layers, heads = SIZES[name]
    return modeling.BertConfig(
        30522,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden_size,
        type_vocab_size=2,
    )


class TimedGraph:
    """Times an operation of a graph."""

    def __init__(self, operation, config):
        """Initializes and warms up the operation's graph; `config` of the session."""
        self._operation = operation
        self._session = tf.Session(graph=operation.graph, config=config)
        with operation.graph.as_default():
            self._session.run(
                [tf.global_variables_initializer(), tf.local_variables_initializer()]
            )
        self._session.run(operation)
        self.first_run_ended = time.perf_counter()
        for _ in range(2):
            self._session.run(operation)
        self.seconds = []
        self.processor_seconds = []  # of all threads

    def run(self):
        """Runs the operation and records its time."""
        started, used = time.perf_counter(), time.process_time()
        self._session.run(self._operation)
        self.seconds.append(time.perf_counter() - started)
        self.processor_seconds.append(time.process_time() - used)

    def operations(self):
        """Microseconds of one traced run by operation type, longest first."""
        report = tf.RunMetadata()
        self._session.run(
            self._operation,
            options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE),
            run_metadata=report,
        )
        kinds = {op.name: op.type for op in self._session.graph.get_operations()}
        total = collections.Counter()
        for device in report.step_stats.dev_stats:
            for node in device.node_stats:
                label = node.timeline_label.split(" = ")[-1].split("(")[0]
                kind = kinds.get(node.node_name.split(":")[0], label or node.node_name)
                total[kind] += node.op_end_rel_micros - node.op_start_rel_micros
        return total.most_common()


def shards():
    """The number of shards; default: `estimators.cpu_shards`."""
    if FLAGS.shards is not None:
        return FLAGS.shards
    rows = FLAGS.batch_size // FLAGS.gradient_accumulation_steps
    return 1 if FLAGS.xla == "true" else estimators.cpu_shards([rows])


def read_method(text, num_layers):
    """The `tuning.method.Method` of a flag's value."""
    policy, *settings = text.split(",")
    if not all(setting.count("=") == 1 for setting in settings):
        raise UserError(
            "--train_policy=%s: give METHOD,SETTING=VALUE,..., such as lora:8,"
            "lora_alpha=16" % text
        )
    known = {each.name: each.type for each in registry.all_settings()}
    values = dict(setting.split("=") for setting in settings)
    if policy == registry.DEFAULT.name:
        values.setdefault("adapter_size", FLAGS.adapter_size)
    with explain_value_errors("--train_policy=%s" % text):
        if unknown := sorted(values.keys() - known.keys()):
            raise ValueError("there is no setting %s" % unknown[0])
        values = {name: known[name](value) for name, value in values.items()}
        return registry.parse(policy, values, num_layers)


def run_in_turns(models, seconds):
    """Runs each `TimedGraph` in turn for `seconds`."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for model in models:
            model.run()


def random_batch(config):
    """A batch of random ids without padding: dict from name to array."""
    random = np.random.RandomState(0)
    shape = (FLAGS.batch_size, FLAGS.seq_length)
    return {
        "input_ids": random.randint(0, config.vocab_size, shape),
        "input_mask": np.ones(shape),
        "segment_ids": np.zeros(shape),
        "label_ids": random.randint(0, _LABELS, shape[:1]),
        "is_real_example": np.ones(shape[:1]),
    }


def build_spec(config, mode, method=None):
    """The `TPUEstimatorSpec` of a step on random ids, in the default graph."""
    model_fn = classifier.model_fn_builder(
        config,
        _LABELS,
        init_checkpoint=None,
        learning_rate=3e-4,
        num_train_steps=1000,
        num_warmup_steps=100,
        use_tpu=False,
        use_one_hot_embeddings=False,
        variant=classifier.Variant(
            computation=settings.from_flags(
                classifier.Computation, FLAGS, shards=shards()
            ),
            method=method or read_method(_DEFAULT, 0),
        ),
    )
    tf.set_random_seed(1)
    # Variables, because constants would be folded.
    features = {
        name: tf.get_local_variable(
            name, dtype=tf.int32, initializer=array.astype(np.int32)
        )
        for name, array in random_batch(config).items()
    }
    return model_fn(features, None, mode, {})


def build_step(config, mode, method=None):
    """The `TimedGraph` of a step on random ids."""
    with tf.Graph().as_default():
        spec = build_spec(config, mode, method)
        if mode == estimator.ModeKeys.TRAIN:
            operation = spec.train_op
        else:
            operation = spec.predictions["probabilities"].op
        return TimedGraph(operation, estimators.session_config(shards()))


def build_products(config):
    """The `TimedGraph` of the frozen matrix products of one forward pass."""
    H, wide = config.hidden_size, config.intermediate_size
    rows = FLAGS.batch_size * FLAGS.seq_length // shards()
    dtype = classifier.PRECISIONS[FLAGS.precision]

    def variable(name, shape):
        initial = tf.cast(tf.random.normal(shape, stddev=0.1), dtype)
        return tf.get_local_variable(name, initializer=initial)

    with tf.Graph().as_default():
        tf.set_random_seed(1)
        inputs = [
            {n: variable("input_%d_%d" % (shard, n), [rows, n]) for n in (H, wide)}
            for shard in range(shards())
        ]
        last = [[] for _ in inputs]
        for layer in range(config.num_hidden_layers):
            for index, shape in enumerate([(H, H)] * 4 + [(H, wide), (wide, H)]):
                kernel = variable("kernel_%d_%d" % (layer, index), shape)
                for shard, by_width in enumerate(inputs):
                    # In sequence, as in the model.
                    with tf.control_dependencies(last[shard]):
                        last[shard] = [tf.matmul(by_width[shape[0]], kernel).op]
        return TimedGraph(tf.group(*last), _NO_REWRITING)


def compare_policies(config):
    """Prints the time of a training step of each policy, measured in turns."""
    num_layers = config.num_hidden_layers
    methods = [read_method(text, num_layers) for text in FLAGS.train_policy]
    models = [build_step(config, estimator.ModeKeys.TRAIN, each) for each in methods]
    run_in_turns(models, FLAGS.seconds * len(models))
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
    print("Peak memory of all: %.2f GB" % peak_memory())


def compare_to_products(config, title, mode, flops, frozen_flops):
    """Prints the speed of a step, and the limit.

    `flops` are of the step, `frozen_flops` of the matrix products.
    """
    if device_type() == "GPU":
        tf.config.experimental.reset_memory_stats("GPU:0")
    started = time.perf_counter()
    model = build_step(config, mode)
    first_step = model.first_run_ended - started
    peak = peak_memory()
    products = build_products(config)
    # Each twice, because the first run has cold caches.
    run_in_turns([model] * 2 + [products] * 2, FLAGS.seconds)
    limit = frozen_flops / np.median(products.seconds) / 1e9
    seconds = np.median(model.seconds)
    rate, speed = FLAGS.batch_size / seconds, flops / seconds / 1e9
    result = {
        "step": title,
        "milliseconds": 1e3 * seconds,
        "examples_per_second": rate,
        "tokens_per_second": rate * FLAGS.seq_length,
        "gflops": speed,
        "fraction_of_limit": speed / limit,
        "runs": len(model.seconds),
        "limit_gflops": limit,
        "first_step_seconds": first_step,
        "peak_gb": peak,
        "operations": model.operations()[: FLAGS.trace] if FLAGS.trace else [],
    }
    if FLAGS.json:
        print(json.dumps(result), flush=True)
        return
    print(_RESULT_TEXT % result, flush=True)
    for kind, micros in result["operations"]:
        print("           %8.1f ms  %s" % (micros / 1e3, kind))


def device_type():
    """TensorFlow's device: "GPU" or "CPU"."""
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"


def peak_memory():
    """Peak memory of the GPU, or of this process, in GB."""
    if device_type() == "GPU":
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e9
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def print_losses(config, path):
    """Prints the losses of evaluation and of five training steps as JSON.

    Weights are read from an .npz file. If missing, it is written with the batch and
    with noisy initial weights: initial adapters and biases hardly affect the loss.
    """
    modes, session_config = estimator.ModeKeys, estimators.session_config(shards())
    with tf.Graph().as_default(), tf.Session(config=session_config) as session:
        with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
            evaluation = build_spec(config, modes.EVAL)
            variables = {modeling.base_name(v): v for v in tf.global_variables()}
            training = build_spec(config, modes.TRAIN)
        session.run(tf.global_variables_initializer())
        session.run(tf.local_variables_initializer())
        if not os.path.exists(path):
            random = np.random.RandomState(1)
            values = session.run(variables)
            for name, value in values.items():
                values[name] = random.normal(value, 0.05).astype(np.float32)
            np.savez(path, **values, **random_batch(config))
        with np.load(path) as arrays:
            for name, variable in variables.items():
                variable.load(arrays[name], session)
        loss = session.run(evaluation.loss)
        steps = [session.run([training.loss, training.train_op]) for _ in range(5)]
        trained = optimization.trainable_variables()
    result = {
        "device": device_type(),
        "loss": float(loss),
        "training_losses": [float(each) for each, _ in steps],
        "trained_parameters": sum(each.shape.num_elements() for each in trained),
    }
    print(json.dumps(result), flush=True)


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    define = command_line.flag_definer(_TEXTS, flag_values)
    integer, switch = flags.DEFINE_integer, flags.DEFINE_bool
    return {
        "Flags": (
            define(flags.DEFINE_string, "config", "minilm"),
            define(integer, "batch_size", 32, lower_bound=1),
            define(integer, "seq_length", 128, lower_bound=1),
            define(integer, "adapter_size", 64, lower_bound=1),
            define(flags.DEFINE_enum, "precision", "float32", [*classifier.PRECISIONS]),
            define(flags.DEFINE_enum, "xla", "auto", classifier.XLA),
            define(switch, "recompute_activations", False),
            define(integer, "gradient_accumulation_steps", 1, lower_bound=1),
            define(integer, "shards", None, lower_bound=1),
            define(flags.DEFINE_float, "seconds", 20.0),
            define(flags.DEFINE_multi_string, "train_policy", [_DEFAULT]),
            define(integer, "trace", 0),
            define(switch, "json", False),
            define(flags.DEFINE_string, "losses", None),
        )
    }


def main(argv):
    tf.logging.set_verbosity(tf.logging.ERROR)
    estimators.keep_freed_memory()
    config = read_config(FLAGS.config)
    if FLAGS.train_policy != [_DEFAULT]:
        compare_policies(config)
        return
    if FLAGS.losses:
        print_losses(config, FLAGS.losses)
        return
    sizes = (FLAGS.batch_size, FLAGS.seq_length, FLAGS.adapter_size, shards())
    print(
        "%s, batch %d, length %d, adapters %d, shards %d, TensorFlow %s"
        % (FLAGS.config, *sizes, tf.version.VERSION)
    )
    frozen, forward, backward = count_flops(config)
    training = (estimator.ModeKeys.TRAIN, forward + backward)
    compare_to_products(config, "training", *training, frozen)
    prediction = (estimator.ModeKeys.PREDICT, forward)
    compare_to_products(config, "prediction", *prediction, frozen)


if __name__ == "__main__":
    command_line.run_program(main, __doc__, define_flags(FLAGS), FLAGS)
