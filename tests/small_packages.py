"""Made-up adapter packages on a small BERT, and one-task runs to compare them with."""

import os
import re
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
import tokenization
from inputs import features
from serving import predictor
from system import files
from tasks.classification import Classification
from tasks.regression import Regression
from tests import small_run
from training import classifier
from tuning import adapters
from tuning import method as tuning_method
from weights import adapter_package, checkpoints, model_variables

VOCAB_SIZE = len(small_run.VOCABULARY)


class Task(NamedTuple):
    """What tells one made-up package from another."""

    name: str
    size: int
    labels: tuple[str, ...] | None  # None: regression
    activation: str = "gelu"
    other_method: tuning_method.Method | None = None  # instead of adapters

    @property
    def method(self):
        """How it is tuned."""
        adapters_method = adapters.Adapters(self.size, None, activation=self.activation)
        return self.other_method or adapters_method

    @property
    def type(self):
        return Regression() if self.labels is None else Classification(self.labels)


# Different bottlenecks, numbers of labels, activations, and a regression.
FOUR_TASKS = (
    Task("pair", 8, ("no", "yes")),
    Task("score", 12, None),
    Task("three", 3, ("a", "b", "c"), "relu"),
    Task("wide", 20, ("0", "1")),
)


def write_base(folder, hidden_size=16, seed=7):
    """Writes a BERT of two layers without adapters; returns its flags."""
    folder.mkdir()
    config = small_run.small_config(
        VOCAB_SIZE,
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        # Else the rows of a batch, and so the tasks' scores, hardly differ.
        initializer_range=0.3,
    )
    (folder / "bert_config.json").write_text(config.to_json_string())
    (folder / "vocab.txt").write_text(
        "".join(word + "\n" for word in small_run.VOCABULARY)
    )

    def build():
        modeling.BertModel(config, False, tf.zeros([1, 2], tf.int32), adapter_fn=None)

    small_run.write_checkpoint(folder / "bert_model.ckpt", build, seed)
    return {
        "bert_config_file": str(folder / "bert_config.json"),
        "vocab_file": str(folder / "vocab.txt"),
        "init_checkpoint": str(folder / "bert_model.ckpt"),
    }


def write_package(folder, base, task, seed=0, do_lower_case=True, zeros="never^"):
    """Writes a package of random weights, large enough to matter; returns its path.

    Variables in whose name `zeros`, a pattern, is found are zero.
    """
    config = modeling.BertConfig.from_json_file(base["bert_config_file"])
    random = np.random.RandomState(seed)
    weights = {}
    variables = model_variables.model_variables(config, task.method, task.type)
    for name, shape in variables.trained().items():
        value = random.standard_normal(shape) * 0.3
        value *= not re.search(zeros, name)
        weights[name] = (value + name.endswith("gamma")).astype(np.float32)
    package_config = adapter_package.make_config(
        {
            "name": task.name,
            **task.type.package_entries(),
            "metrics": ["accuracy"],
            "text_columns": None,
        },
        config,
        files.digest(base["vocab_file"]),
        do_lower_case,
        max_seq_length=24,
        method=task.method,
        base_model=os.path.basename(os.path.dirname(base["init_checkpoint"])),
    )
    fingerprint = checkpoints.Checkpoint(base["init_checkpoint"]).base_fingerprint(
        variables.frozen()
    )
    adapter_package.write(str(folder), package_config, weights, fingerprint, 10)
    return str(folder)


def write_packages(folder, base, tasks=FOUR_TASKS):
    """Writes one package per task, with different weights; returns their paths."""
    return [
        write_package(folder / task.name, base, task, seed)
        for seed, task in enumerate(tasks)
    ]


def random_batch(batch, length, seed=0):
    """Inputs of a made-up batch with padding: dict from name to int32 [B, S]."""
    random = np.random.RandomState(seed)
    lengths = random.randint(3, length + 1, [batch, 1])
    lengths[0] = length
    mask = (np.arange(length) < lengths).astype(np.int32)
    ids = random.randint(1, VOCAB_SIZE, [batch, length], np.int32) * mask
    segments = random.randint(0, 2, [batch, length], np.int32) * mask
    return {"input_ids": ids, "input_mask": mask, "segment_ids": segments}


def encode(base, rows, length):
    """Pairs of texts as a batch, dict from name to int32 [B, S]; see `random_batch`."""
    tokenizer = tokenization.FullTokenizer(base["vocab_file"])
    examples = [
        features.convert_single_example(
            9, features.InputExample(None, *row, "0"), None, length, tokenizer
        )
        for row in rows
    ]
    return {
        name: np.array([getattr(example, name) for example in examples], np.int32)
        for name in ("input_ids", "input_mask", "segment_ids")
    }


def load(session, values):
    """Sets all variables of the session's graph: dict from name to array."""
    for variable in tf.global_variables():
        variable.load(values[variable.op.name], session)


def single_task_scores(package, checkpoint, batch):
    """What the one-task program gives: float32 [B, L], see `task_type`.

    Args:
      package: an `adapter_package.AdapterPackage`.
      checkpoint: the base model's.
      batch: see `random_batch`.
    """
    frozen = package.variables.frozen()
    values = dict(
        checkpoints.Checkpoint(checkpoint).iterate_values(frozen), **package.weights
    )
    with tf.Graph().as_default(), tf.Session() as session:
        output = classifier.create_model(
            package.bert_config,
            False,
            tf.constant(batch["input_ids"]),
            tf.constant(batch["input_mask"]),
            tf.constant(batch["segment_ids"]),
            tf.zeros([len(batch["input_ids"])], package.task_type.label_feature.dtype),
            package.task_type.num_outputs,
            use_one_hot_embeddings=False,
            variant=classifier.Variant(package.task_type, method=package.method),
        )
        load(session, values)
        return session.run(output.probabilities)


def check_served(base, folders):
    """Compares a predictor of several packages with the one-task programs.

    The examples of a batch have different tasks.
    """
    rows = [("a cat sat", "rain fell"), ("music", "on a mat while rain fell")]
    batch = encode(base, rows, 24)
    model = predictor.Predictor(**base)
    tasks = [model.add(folder) for folder in folders]
    predictions = model.predict_mixed([(t, *row) for row in rows for t in tasks])
    found = [
        [p.score] if p.probabilities is None else list(p.probabilities.values())
        for p in predictions
    ]
    for number, (task, folder) in enumerate(zip(tasks, folders)):
        package = adapter_package.read(folder)
        alone = single_task_scores(package, base["init_checkpoint"], batch)
        expected = alone.reshape(len(rows), -1)
        own = found[number :: len(tasks)]
        np.testing.assert_allclose(own, expected, atol=1e-5, err_msg=task)
