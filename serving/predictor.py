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

import threading
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import tokenization
from errors import UserError
from inputs import features
from serving import multitask
from weights import adapter_package, base_model, model_variables

BATCH_SIZE = 32

_REMEDY = (
    "give the base model's checkpoint without file endings, init_checkpoint, and its "
    "own bert_config.json, bert_config_file"
)


class Prediction(NamedTuple):
    """The prediction for one row; a field is None where the task type has none."""

    task: str
    label: str | None = None  # the most probable one
    probability: float | None = None  # of that label
    probabilities: dict[str, float] | None = None  # by label, in the order of their ids
    score: float | None = None  # of a regression


class _Tasks(NamedTuple):
    """The tasks at one moment; immutable, so that threads can keep using it."""

    packages: dict[str, adapter_package.AdapterPackage]  # by task name
    stack: multitask.PackageStack | None  # of the packages in this order; None: no task
    tokenizer: tokenization.FullTokenizer | None  # with their do_lower_case


class _Row(NamedTuple):
    """A row to predict."""

    package: adapter_package.AdapterPackage
    task_id: int
    example: features.InputExample
    features: list[dict]  # see `task_type.TaskType.featurize`; without padding


class Predictor:
    """A base model and the tasks that have been added to it.

    All methods are thread-safe. A prediction uses the tasks that existed when it was
    called, whatever is added or removed meanwhile. Batches are computed one at a time.
    """

    def __init__(
        self, init_checkpoint, bert_config_file, vocab_file, batch_size=BATCH_SIZE
    ):
        """Checks the `base_model.BaseFiles`; the first prediction loads the model.

        `batch_size` is the maximum number of rows in a batch. A `UserError` is raised
        if a file cannot be read, or they do not fit each other.
        """
        if batch_size < 1:
            raise UserError("batch_size=%d: at least 1 is needed" % batch_size)
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
        self._tasks = _Tasks({}, None, None)
        self._changing = threading.Lock()  # held to replace `_tasks`
        self._computing = threading.Lock()  # held to use `_graph`

    @property
    def tasks(self):
        """Names of the tasks in the order in which they were added."""
        return list(self._tasks.packages)

    def labels(self, task):
        """Label strings of a task in the order of their ids; [] without a list."""
        return list(_find(self._tasks, task).labels)

    def output_columns(self, task):
        """Names of the columns of predictions in `predict.py`'s output, a list."""
        return _find(self._tasks, task).task_type.prediction_columns()

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

    def takes_pairs(self, name):
        """Whether a task takes pairs of texts; None if its package lacks the entry."""
        return _find(self._tasks, name).takes_pairs

    def column_names(self):
        """Distinct names of the texts' columns in the tasks' files, tuples of names."""
        found = [package.text_columns for package in self._tasks.packages.values()]
        named = [tuple(each) for each in found if each and isinstance(each[0], str)]
        return list(dict.fromkeys(named))

    def remove(self, name):
        """Removes a task."""
        with self._changing:
            _find(self._tasks, name)
            packages = self._tasks.packages.values()
            self._replace([package for package in packages if package.task != name])

    def _replace(self, packages):
        stack = tokenizer = None
        if packages:
            stack = multitask.stack_packages(packages, self._base.checkpoint)
            # All packages of a stack have the same do_lower_case.
            tokenizer = self._tokenizers[packages[0].config["do_lower_case"]]
        self._tasks = _Tasks({each.task: each for each in packages}, stack, tokenizer)

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
        tasks = self._tasks
        rows = [_encode(tasks, *row) for row in rows]
        scores = [[None] * len(row.features) for row in rows]
        places = [(i, j) for i, each in enumerate(scores) for j in range(len(each))]
        places.sort(key=lambda place: _length(rows[place[0]].features[place[1]]))
        for start in range(0, len(places), self._batch_size):
            here = places[start : start + self._batch_size]
            with self._computing:
                self._graph.load(tasks.stack)
                found = self._graph.run(
                    [rows[i].features[j] for i, j in here],
                    [rows[i].task_id for i, _ in here],
                )
            for (i, j), each in zip(here, found.scores):
                scores[i][j] = each
            if on_batch is not None:
                on_batch(sum(j == 0 for _, j in here))
        return [_prediction(*item) for item in zip(rows, scores)]


def _find(tasks, name):
    """The package of a task; raises a `UserError` if there is none."""
    if name not in tasks.packages:
        known = ", ".join(tasks.packages) or "none"
        raise UserError("there is no task %r, there are: %s" % (name, known))
    return tasks.packages[name]


def _encode(tasks, task, text_a, text_b):
    """The `_Row` of a row, truncated as in training."""
    package = _find(tasks, task)
    if package.takes_pairs not in (None, bool(text_b)):
        raise UserError(
            "the task %s takes %s, unlike the row with %.80r"
            % (task, "two texts" if package.takes_pairs else "one text", text_a)
        )
    example = features.InputExample(None, text_a, text_b)
    found = package.task_type.featurize(
        features.NOT_LOGGED, example, package.config["max_seq_length"], tasks.tokenizer
    )
    for each in found:
        length = _length(each)
        for name in ("input_ids", "input_mask", "segment_ids"):
            each[name] = each[name][:length]
    return _Row(package, list(tasks.packages).index(task), example, found)


def _length(feature):
    return sum(feature["input_mask"])


def _prediction(row, scores):
    """A `Prediction` from the scores of a `_Row`'s features."""
    package = row.package
    if not np.isfinite(scores).all():
        raise UserError(
            "the scores of task %s are not finite: the weights of its adapter package "
            "%s overflow; train it again" % (package.task, package.path)
        )
    task_type = package.task_type
    own = iter([each[: task_type.num_outputs] for each in scores])
    (prediction,) = task_type.decode([row.example], own, lambda _: row.features)
    return Prediction(package.task, **task_type.prediction_fields(prediction))


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
        self._values = {}  # placeholder of a table, by the table's name
        self._tables = {}  # variable, see `multitask.PackageStack.tables`
        self._built = {}  # `multitask.Outputs` by `PackageStack.graph_key`
        self._outputs = None  # the one of the loaded stack
        self._loaded = None  # the stack that the tables hold

    def load(self, stack):
        """Loads a `multitask.PackageStack` into the tables, unless it is loaded."""
        if stack is self._loaded:
            return
        tables, key = stack.tables(), stack.graph_key()
        with self._graph.as_default():
            self._make_tables(tables)
            if key not in self._built:
                # All outputs share the frozen variables.
                with tf.variable_scope("", reuse=tf.AUTO_REUSE):
                    self._built[key] = multitask.build_graph(
                        self._config, stack, self._tables, *self._inputs
                    )
                self._restore()
        self._loaded = None
        self._session.run(
            [self._tables[name].initializer for name in tables],
            {self._values[name]: value for name, value in tables.items()},
        )
        self._outputs = self._built[key]
        self._loaded = stack

    def _make_tables(self, tables):
        """Creates missing tables, variables with any number of rows."""
        for name in tables.keys() - self._tables:
            value = tables[name]
            shape = [None, *value.shape[1:]]
            self._values[name] = tf.placeholder(value.dtype, shape)
            self._tables[name] = tf.Variable(
                self._values[name],
                trainable=False,
                collections=[],
                validate_shape=False,
                name="tables/" + name,
                use_resource=True,
                shape=tf.TensorShape(shape),
            )

    def _restore(self):
        """Loads those of the base model's variables, the global ones, that are new."""
        if self._session is None:
            # The process may use the GPU for other work.
            options = tf.GPUOptions(allow_growth=True)
            config = tf.ConfigProto(gpu_options=options)
            self._session = tf.Session(config=config)
        new = [v for v in tf.global_variables() if v.name not in self._restored]
        if new:
            tf.train.Saver(new).restore(self._session, self._checkpoint)
            self._restored.update(variable.name for variable in new)

    def run(self, batch, task_ids):
        """Computes the `multitask.Outputs` of features of tasks of the loaded stack."""
        values = []
        for name in ("input_ids", "input_mask", "segment_ids"):
            longest = max(len(feature[name]) for feature in batch)
            rows = np.zeros([len(batch), longest], np.int32)
            for row, feature in zip(rows, batch):
                row[: len(feature[name])] = feature[name]
            values.append(rows)
        return self._session.run(
            self._outputs, dict(zip(self._inputs, [*values, task_ids]))
        )
