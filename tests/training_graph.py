"""A graph of `model_fn` for training, on made-up examples, with known weights."""

import numpy as np
import tensorflow.compat.v1 as tf

from tests import graph_variables, small_run
from training import classifier
from tuning import adapters

BATCH, LENGTH, CLASSES = 4, 12, 3


def make_config(num_hidden_layers, dropout=0.0):
    """A `modeling.BertConfig` of 50 word pieces."""
    return small_run.small_config(
        50,
        num_hidden_layers=num_hidden_layers,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
    )


def make_batch():
    """Features of `BATCH` examples of different lengths, int32."""
    random = np.random.RandomState(0)
    shape = (BATCH, LENGTH)
    lengths = random.randint(3, LENGTH + 1, [BATCH, 1])
    arrays = {
        "input_ids": random.randint(0, 50, shape),
        "input_mask": np.arange(LENGTH) < lengths,
        "segment_ids": random.randint(0, 2, shape),
        "label_ids": random.randint(0, CLASSES, BATCH),
        "is_real_example": np.ones(BATCH),
    }
    return {name: array.astype(np.int32) for name, array in arrays.items()}


def initialize(session):
    """Sets a model's variables to values that depend on their names only."""
    session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
    random = np.random.RandomState(1)
    variables = sorted(tf.trainable_variables(), key=lambda v: v.op.name)
    for variable in variables:
        variable.load(random.normal(scale=0.3, size=variable.shape), session)


class TrainingGraph:
    """A training graph with the same initial values whatever the computation."""

    def __init__(self, config, computation, base=None, training=None, **variant):
        """Takes fields of `classifier.Variant`; `base` is a checkpoint's path."""
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.feed = {
                tf.placeholder(tf.int32, array.shape, name): array
                for name, array in make_batch().items()
            }
            self.spec = classifier.model_fn_builder(
                config,
                CLASSES,
                init_checkpoint=base,
                learning_rate=1e-2,
                num_train_steps=20,
                num_warmup_steps=0,
                use_tpu=False,
                use_one_hot_embeddings=False,
                variant=classifier.Variant(
                    computation=computation,
                    **{"method": adapters.Adapters(8, 0.3), **variant},
                ),
                training=classifier.Training(**(training or {})),
            )({p.op.name: p for p in self.feed}, None, "train", {})
            self.session = tf.Session()
            if base is None:
                initialize(self.session)
            else:
                self.session.run(
                    [
                        tf.global_variables_initializer(),
                        tf.local_variables_initializer(),
                    ]
                )
            self.model = tf.trainable_variables()

    def values(self):
        """All global variables' values, by name."""
        with self.graph.as_default():
            return self.session.run({v.op.name: v for v in tf.global_variables()})

    def steps(self, count):
        """Trains; returns the losses."""
        return [
            self.session.run([self.spec.loss, self.spec.train_op], self.feed)[0]
            for _ in range(count)
        ]

    def find_by_type(self, kind):
        """Names and dtypes of the operations of a type, those of functions too."""
        nodes = graph_variables.iterate_nodes(self.graph.as_graph_def())
        return [(name, node.attr["T"].type) for name, node in nodes if node.op == kind]
