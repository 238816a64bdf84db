"""Predicts texts for many tasks in one process, with one base model in memory.

    model = predictor.Predictor(
        init_checkpoint="bert_model.ckpt",
        bert_config_file="bert_config.json",
        vocab_file="vocab.txt",
    )
    task = model.add("output/mrpc/adapters")
    model.predict(task, [("A cat sat.", "There sat a cat."), ("It rained.", "No.")])

The base model is loaded once. Adapter packages can be added and removed at any time;
each takes as much memory as its own weights.
"""

import itertools
import os
import threading
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import tokenization
from errors import UserError
from inputs import features
from serving import multitask
from tasks import task_type
from weights import adapter_package, base_model, model_variables

BATCH_SIZE = 32

_REMEDY = (
    "give the base model's checkpoint without file endings, `init_checkpoint`, and its "
    "own bert_config.json, `bert_config_file`"
)


class Prediction(NamedTuple):
    """The prediction for one row; a field is None where the task type has none."""

    task: str
    label: str | None = None  # the most probable one
    probability: float | None = None  # of that label
    probabilities: dict[str, float] | None = None  # by label, in the order of their ids
    score: float | None = None  # of a regression; sum of an answer's two logits
    answer: str | None = None  # to a question; "": none
    start: int | None = None  # its first character in the context
    end: int | None = None  # the character after its last
    null_score: float | None = None  # of no answer, to be compared with `score`


class _Tasks(NamedTuple):
    """The tasks at one moment; immutable, so that threads can keep using it."""

    packages: dict[str, adapter_package.AdapterPackage]  # by task name
    stacks: dict[str, multitask.PackageStack]  # see `multitask.stack_packages`


class _Row(NamedTuple):
    """A row to predict."""

    package: adapter_package.AdapterPackage
    task_type: task_type.TaskType
    example: object  # see `task_type.TaskType.make_example`
    features: list[dict]  # see `task_type.TaskType.featurize`


_process: int | None = None  # the one of the first `Predictor`


def _check_process():
    """Refuses a fork of a process with TensorFlow's threads: it would wait for them."""
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise UserError(
            "a Predictor was made before this process forked, and TensorFlow's threads "
            "do not survive that: fork before the first one is made, or start "
            'processes by "spawn"'
        )


class Predictor:
    """A base model and the tasks that have been added to it.

    All methods are thread-safe. A prediction uses the tasks that existed when it was
    called, whatever is added or removed meanwhile. Batches are computed one at a time.
    A process may fork before the first one is made, and not after it.
    """

    def __init__(
        self, init_checkpoint, bert_config_file, vocab_file, batch_size=BATCH_SIZE
    ):
        """Checks the `base_model.BaseFiles`; the first prediction loads the model.

        `batch_size` is the maximum number of rows in a batch. A `UserError` is raised
        if a file cannot be read, or they do not fit each other.
        """
        _check_process()
        if batch_size < 1:
            raise UserError("`batch_size`=%d: at least 1 is needed" % batch_size)
        self._batch_size = batch_size
        paths = base_model.BaseFiles(init_checkpoint, bert_config_file, vocab_file)
        self._base = base = base_model.read(paths, _REMEDY)
        self._tokenizers = {
            do_lower_case: tokenization.FullTokenizer(vocab_file, do_lower_case)
            for do_lower_case in (True, False)
        }
        # Reads all, so damage is found.
        base.checkpoint.base_fingerprint(
            model_variables.frozen_shapes(base.bert_config)
        )
        self._graph = _Graph(base.bert_config, init_checkpoint)
        self._tasks = _Tasks({}, {})
        self._changing = threading.Lock()  # held to replace `_tasks`
        self._computing = threading.Lock()  # held to use `_graph`

    @property
    def tasks(self):
        """Names of the tasks in the order in which they were added."""
        return list(self._tasks.packages)

    @property
    def packages(self):
        """Dict from the names of the tasks to their `AdapterPackage`s."""
        return dict(self._tasks.packages)

    def add(self, package, known_tasks=None):
        """Adds the task of a package, see `multitask.read_package`; returns its name.

        A `UserError` is raised if the name is taken, or base model, vocabulary or
        do_lower_case differ from those of the other tasks.
        """
        found = multitask.read_package(package, known_tasks)
        adapter_package.check_fit(found, self._base.identity)
        with self._changing:
            self._replace([*self._tasks.packages.values(), found])
        return found.task

    def remove(self, name):
        """Removes a task."""
        with self._changing:
            _find(self._tasks, name)
            packages = self._tasks.packages.values()
            self._replace([package for package in packages if package.task != name])

    def _replace(self, packages):
        stacks = {}
        if packages:
            stacks = multitask.stack_packages(packages, self._base.checkpoint)
        self._tasks = _Tasks({each.task: each for each in packages}, stacks)

    def predict(self, task, rows):
        """Predicts rows, texts or pairs of texts, of one task; see `predict_mixed`."""
        return self.predict_mixed(
            (task, row, None) if isinstance(row, str) else (task, *row) for row in rows
        )

    def predict_mixed(self, rows, on_batch=None):
        """Predicts rows of several tasks; rows of similar length share a batch.

        Args:
          rows: iterable of (task, text_a, text_b); text_b is None for a single text.
          on_batch: function that is called with the number of rows of each computed
            batch, for progress bars; or None.

        Returns a list of `Prediction`, in the order of the rows. A `UserError` is
        raised if a row's task does not exist, or scores are not finite.
        """
        _check_process()
        tasks = self._tasks
        rows = [_encode(tasks, self._tokenizers, *row) for row in rows]
        scores = [[None] * len(row.features) for row in rows]
        for signature, batch in _make_batches(rows, self._batch_size):
            stack = tasks.stacks[signature]
            with self._computing:
                found = self._graph.run(
                    self._graph.load(stack),
                    [rows[i].features[j] for i, j in batch],
                    [stack.tasks.index(rows[i].package.task) for i, _ in batch],
                )
            for (i, j), each in zip(batch, found):
                scores[i][j] = each
            if on_batch is not None:
                on_batch(sum(j == 0 for _, j in batch))
        return [_prediction(*item) for item in zip(rows, scores)]


def _find(tasks, name):
    """The package of a task; raises a `UserError` if there is none."""
    if name not in tasks.packages:
        known = ", ".join(tasks.packages) or "none"
        raise UserError("there is no task %r, there are: %s" % (name, known))
    return tasks.packages[name]


def _encode(tasks, tokenizers, task, text_a, text_b):
    """The `_Row` of a row, truncated as in training."""
    package = _find(tasks, task)
    if package.takes_pairs not in (None, bool(text_b)):
        raise UserError(
            "the task %s takes %s, unlike the row with %.80r"
            % (task, "two texts" if package.takes_pairs else "one text", text_a)
        )
    task_type = package.task_type
    example = task_type.make_example(text_a, text_b)
    tokenizer = tokenizers[package.config["do_lower_case"]]
    found = task_type.featurize(
        features.NOT_LOGGED, example, package.config["max_seq_length"], tokenizer
    )
    for each in () if task_type.keeps_padding else found:
        length = sum(each["input_mask"])
        for name in features.SEQUENCES:
            each[name] = each[name][:length]
    return _Row(package, task_type, example, found)


def _make_batches(rows, batch_size):
    """Yields pairs of a signature and a batch of features, of similar lengths.

    A batch is a list of pairs: the number of a row, and that of a feature of it.
    """
    places = sorted(
        (row.task_type.signature, len(feature["input_ids"]), i, j)
        for i, row in enumerate(rows)
        for j, feature in enumerate(row.features)
    )
    for signature, group in itertools.groupby(places, key=lambda place: place[0]):
        while batch := [(i, j) for *_, i, j in itertools.islice(group, batch_size)]:
            yield signature, batch


def _prediction(row, scores):
    """A `Prediction` from the scores of a `_Row`'s features."""
    package, task_type = row.package, row.task_type
    if not all(np.isfinite(each).all() for each in scores):
        raise UserError(
            "the scores of task %s are not finite: the weights of its adapter package "
            "%s overflow; train it again" % (package.task, package.path)
        )
    own = iter([each[: task_type.num_outputs] for each in scores])
    (prediction,) = task_type.decode([row.example], own, lambda _: row.features)
    return Prediction(package.task, **task_type.prediction_fields(prediction))


def _make_table(name, value):
    """A variable for tables of any number of rows, initialized from what is fed."""
    shape = [None, *value.shape[1:]]
    return tf.Variable(
        tf.placeholder(value.dtype, shape),
        trainable=False,
        collections=[],
        validate_shape=False,
        name="tables/" + name,
        use_resource=True,
        shape=tf.TensorShape(shape),
    )


class _Graph:
    """Graph and session: the base model, and tables of the tasks' weights.

    It is not thread-safe.
    """

    def __init__(self, config, checkpoint):
        self._config = config
        self._checkpoint = checkpoint
        self._graph = tf.Graph()
        self._session = None
        self._restored = set()  # names of variables
        with self._graph.as_default():
            # int32: ids, mask and segments [B, S], tasks' ids [B].
            self._inputs = [tf.placeholder(tf.int32, [None, None]) for _ in range(3)]
            self._inputs.append(tf.placeholder(tf.int32, [None]))
        self._tables = {}  # by signature: a variable by its name in the stack
        self._built = {}  # scores by `PackageStack.graph_key`
        self._loaded = {}  # by signature: the stack in the tables, and its scores

    def load(self, stack):
        """Loads a `multitask.PackageStack` into its tables, unless it is loaded.

        Returns its scores, a tensor of this graph.
        """
        loaded, scores = self._loaded.pop(stack.signature, (None, None))
        if loaded is not stack:
            scores = self._fill_tables(stack)
        self._loaded[stack.signature] = stack, scores
        return scores

    def _fill_tables(self, stack):
        values, key = stack.tables(), stack.graph_key()
        tables = self._tables.setdefault(stack.signature, {})
        with self._graph.as_default():
            for name in values.keys() - tables:
                tables[name] = _make_table(name, values[name])
            if key not in self._built:
                # All graphs share the frozen variables.
                with tf.variable_scope("", reuse=tf.AUTO_REUSE):
                    self._built[key] = multitask.build_graph(
                        self._config, stack, tables, *self._inputs
                    ).scores
                self._restore()
        assign = {tables[name].initializer: value for name, value in values.items()}
        feed = {each.inputs[1]: value for each, value in assign.items()}
        self._session.run(list(assign), feed)
        return self._built[key]

    def _restore(self):
        """Restores the base model's variables that are not restored yet."""
        if self._session is None:
            # The process may use the GPU for other work.
            options = tf.GPUOptions(allow_growth=True)
            config = tf.ConfigProto(gpu_options=options)
            self._session = tf.Session(config=config)
        new = [v for v in tf.global_variables() if v.name not in self._restored]
        if new:
            tf.train.Saver(new).restore(self._session, self._checkpoint)
            self._restored.update(variable.name for variable in new)

    def run(self, scores, batch, task_ids):
        """Computes scores, see `load`, of features of tasks of the loaded stack."""
        values = []
        for name in features.SEQUENCES:
            longest = max(len(feature[name]) for feature in batch)
            rows = np.zeros([len(batch), longest], np.int32)
            for row, feature in zip(rows, batch):
                row[: len(feature[name])] = feature[name]
            values.append(rows)
        return self._session.run(scores, dict(zip(self._inputs, [*values, task_ids])))
