"""Compares one SavedModel of many tasks with one model per task.

    python -m benchmarks.serving --init_checkpoint=DIR/bert_model.ckpt \\
      --bert_config_file=DIR/bert_config.json --vocab_file=DIR/vocab.txt

Weights and ids are random; models are timed in turns, in one process. Memory is the
resident memory that models add to a new process with TensorFlow. Linux only.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import functools
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

import command_line
import modeling
from serving import saved_model
from system import files
from tasks.classification import Classification
from training import classifier
from tuning import adapters
from weights import adapter_package, base_model, checkpoints, model_variables

FLAGS = flags.FLAGS

_TASKS = 16  # of the examples of a batch, in turn
_COUNTS = (1, 4, _TASKS)
_BASE = base_model.BaseFiles._fields
_TASK_TYPE = Classification(("0", "1"))


class LoadedModel:
    """A loaded SavedModel."""

    def __init__(self, folder):
        self._session = tf.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            found = tf.saved_model.load(self._session, ["serve"], folder).signature_def
        # A single-task model has the default one alone.
        default = found[saved_model.DEFAULT_SIGNATURE]
        self._signature = found.get(_TASK_TYPE.signature, default)

    def run(self, batch):
        """Returns the scores of a batch, a dict from input name to array."""
        feed = {info.name: batch[name] for name, info in self._signature.inputs.items()}
        return self._session.run(self._signature.outputs["scores"].name, feed)

    def run_as_first(self, batch):
        """Runs a batch with the first task for all examples."""
        return self.run(dict(batch, task=np.full_like(batch["task"], "task0")))


def _resident_bytes():
    with open("/proc/self/statm") as reader:
        return int(reader.read().split()[1]) * 4096


def print_memory(folders):
    """Prints the bytes of memory for loading and running models in this process."""
    tf.disable_v2_behavior()
    with tf.Graph().as_default(), tf.Session() as session:
        session.run(tf.matmul(tf.ones([64, 64]), tf.ones([64, 64])))
    before = _resident_bytes()
    batch = dict.fromkeys(("input_ids", "input_mask"), np.ones([1, 16]))
    batch.update(segment_ids=np.zeros([1, 16]), task=["task0"])
    models = [LoadedModel(folder) for folder in folders]
    for model in models:
        model.run(batch)
    print(_resident_bytes() - before)


def write_package(folder, seed):
    """Writes an adapter package of the task "task<seed>" with random weights."""
    config = modeling.BertConfig.from_json_file(FLAGS.bert_config_file)
    random = np.random.RandomState(seed)
    weights = {}
    method = adapters.Adapters(FLAGS.adapter_size)
    variables = model_variables.model_variables(config, method, _TASK_TYPE)
    for name, shape in variables.trained().items():
        values = random.standard_normal(shape) * 0.02 + name.endswith("gamma")
        weights[name] = values.astype(np.float32)
    package_config = adapter_package.make_config(
        adapter_package.describe_type(_TASK_TYPE, "task%d" % seed),
        config,
        files.digest(FLAGS.vocab_file),
        do_lower_case=True,
        max_seq_length=FLAGS.seq_length,
        method=method,
    )
    base = checkpoints.Checkpoint(FLAGS.init_checkpoint)
    base = base.base_fingerprint(variables.frozen())
    adapter_package.write(folder, package_config, weights, base, global_step=1)
    return folder


def write_single(folder, package):
    """Writes a SavedModel of a single task."""
    config = package.bert_config
    base = checkpoints.Checkpoint(FLAGS.init_checkpoint)
    values = dict(base.iterate_values(package.variables.frozen()), **package.weights)

    def get_variable(getter, *args, **kwargs):
        # Initial values are fed, so variables must not share them.
        return getter(*args, **{**kwargs, "initializer": tf.zeros_initializer()})

    with (
        tf.Graph().as_default(),
        tf.Session() as session,
        tf.variable_scope("", custom_getter=get_variable),
    ):
        inputs = {
            name: tf.placeholder(tf.int32, [None, None], name)
            for name in ("input_ids", "input_mask", "segment_ids")
        }
        output = classifier.create_model(
            config,
            False,
            **inputs,
            labels=tf.zeros(tf.shape(inputs["input_ids"])[:1], tf.int32),
            num_labels=_TASK_TYPE.num_outputs,
            use_one_hot_embeddings=False,
            variant=classifier.Variant(method=package.method),
        )
        variables = tf.global_variables()
        feed = {v.initializer.inputs[1]: values[v.op.name] for v in variables}
        session.run([v.initializer for v in variables], feed)
        outputs = {"scores": output.probabilities}
        tf.saved_model.simple_save(session, folder, inputs, outputs)
    return folder


def print_size(title, folders):
    """Prints disk and memory size of models in one process."""
    code = "from benchmarks import serving; serving.print_memory(%r)" % folders
    command = [sys.executable, "-c", code]
    memory = subprocess.check_output(command, stderr=subprocess.DEVNULL)
    paths = (path for folder in folders for path in pathlib.Path(folder).rglob("*"))
    disk = sum(path.stat().st_size for path in paths if path.is_file())
    print("%-44s %7.1f MB %11.1f MB" % (title, disk / 1e6, int(memory) / 1e6))


def random_batch(count):
    """A batch of random ids, with the tasks in turn."""
    config = modeling.BertConfig.from_json_file(FLAGS.bert_config_file)
    shape = [count, FLAGS.seq_length]
    return {
        "input_ids": np.random.RandomState(0).randint(1, config.vocab_size, shape),
        "input_mask": np.ones(shape, np.int32),
        "segment_ids": np.zeros(shape, np.int32),
        "task": np.array(["task%d" % (i % _TASKS) for i in range(count)]),
    }


def run_by_task(models, batch):
    """Runs the examples of each task on the task's model."""
    for i, model in enumerate(models):
        own = batch["task"] == "task%d" % i
        if own.any():
            model.run({name: value[own] for name, value in batch.items()})


def time_in_turns(functions, batch):
    """Median seconds of functions of a batch, over rounds that call each once."""
    seconds = [[] for _ in functions]
    for function in functions:
        function(batch)  # warm-up
    for _ in range(FLAGS.rounds):
        for function, durations in zip(functions, seconds):
            started = time.perf_counter()
            function(batch)
            durations.append(time.perf_counter() - started)
    return [float(np.median(durations)) for durations in seconds]


def print_times(functions):
    """Prints latency and throughput of functions of a batch, a dict by title."""
    print("\n%-44s %12s %14s" % ("", "1 example", "%d examples" % FLAGS.batch_size))
    latencies, seconds = (
        time_in_turns(functions.values(), random_batch(count))
        for count in (1, FLAGS.batch_size)
    )
    for title, latency, duration in zip(functions, latencies, seconds):
        rate = FLAGS.batch_size / duration
        print("%-44s %9.1f ms %8.1f examples/s" % (title, 1e3 * latency, rate))


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    sizes = {  # default and help
        "adapter_size": (64, "Width of the adapters' bottleneck."),
        "seq_length": (128, "Word pieces of each example."),
        "batch_size": (32, "Examples in a batch, for throughput."),
        "rounds": (20, "How often each model is timed."),
    }
    return {
        "Flags": (
            *command_line.define_base_flags(flag_values),
            *(
                flags.DEFINE_integer(name, *value, flag_values=flag_values)
                for name, value in sizes.items()
            ),
        )
    }


def main(argv):
    """Writes the models, and prints their sizes and times."""
    command_line.check_required(FLAGS, _BASE)
    tf.get_logger().setLevel("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        at = functools.partial(os.path.join, folder)
        paths = [write_package(at("package%d" % i), i) for i in range(_TASKS)]
        base_files = base_model.BaseFiles(**{name: FLAGS[name].value for name in _BASE})
        many = {
            count: saved_model.export(paths[:count], base_files, at("many%d" % count))
            for count in _COUNTS
        }
        small = saved_model.export(paths, base_files, at("small"), "bfloat16")
        separate = [
            write_single(at("single%d" % i), adapter_package.read(path))
            for i, path in enumerate(paths)
        ]
        print("\n%-44s %10s %14s" % ("", "disk", "memory"))
        for count in _COUNTS:
            print_size("one model, tasks: %d" % count, [many[count]])
        print_size("one model, tasks: %d, base model in bfloat16" % _TASKS, [small])
        print_size("single-task model", separate[:1])
        print_size("single-task models: %d" % _TASKS, separate)
        singles = [LoadedModel(path) for path in separate]
        print_times(
            {
                "one model of %d tasks" % _TASKS: LoadedModel(many[_TASKS]).run,
                "the same, base model in bfloat16": LoadedModel(small).run,
                "one model of 1 task": LoadedModel(many[1]).run_as_first,
                "single-task model, examples of its task": singles[0].run_as_first,
                "%d single-task models" % _TASKS: lambda batch: run_by_task(
                    singles, batch
                ),
            }
        )


if __name__ == "__main__":
    command_line.run_program(main, __doc__, define_flags(FLAGS), FLAGS)
