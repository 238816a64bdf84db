"""TPU without a TPU: the graphs for eight cores, and a core's step under XLA.

`TPUEstimator` builds its graphs for a TPU system that is only described to it, and the
tests read them. What runs on the host is run here, with numbers in place of what the
cores would send; what runs on a core is compiled by XLA for the CPU.
"""

import contextlib
import functools
import importlib
import re

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.tpu import tpu_system_metadata, training_loop
from tensorflow.python.tpu.ops import tpu_ops

import modeling
import optimization
from inputs import features
from tasks import task_type
from tasks.classification import Classification
from tasks.question_answering import QuestionAnswering
from tasks.regression import Regression
from tests import graph_variables, small_run
from training import classifier, estimators
from training import settings as run_settings
from tuning import adapters, registry
from weights import checkpoints

# Imported here: where TensorFlow has no Estimator, estimator_compat has to come first.
tpu_estimator = importlib.import_module(
    "tensorflow_estimator.python.estimator.tpu.tpu_estimator"
)

CORES = 8
MASTER = "grpc://10.0.0.1:8470"
HOST = "/job:tpu_worker/task:0/device:CPU:0"
S = 16  # sequence length
CLASSES = 3
CLASSES_TYPE = Classification.numbered(CLASSES)
BATCH = {"train": 32, "eval": 16, "infer": 16}
FEATURES = ["input_ids", "input_mask", "is_real_example", "label_ids", "segment_ids"]
ADAPTERS = adapters.Adapters(8, 1e-2)


class _GraphBuilt(Exception):
    """Ends an Estimator's call once its graph is there."""


class _Built:
    """The graph of the last call of a `TPUEstimator`, and its `EstimatorSpec`."""

    def __init__(self, monkeypatch):
        """Catches graphs, and describes a TPU of eight cores on one host."""
        system = tpu_system_metadata.TPUSystemMetadata(CORES, 1, CORES, None, ())
        monkeypatch.setattr(
            tpu_system_metadata, "_query_tpu_system_metadata", lambda *_, **__: system
        )
        self.estimator = self.graph = self.spec = None
        build = tpu_estimator.TPUEstimator._call_model_fn

        def call_model_fn(estimator, *args):
            self.estimator = estimator
            self.spec = build(estimator, *args)
            self.graph = tf.get_default_graph()
            raise _GraphBuilt

        monkeypatch.setattr(tpu_estimator.TPUEstimator, "_call_model_fn", call_model_fn)

    def find_by_type(self, *types):
        return [op for op in self.graph.get_operations() if op.type in types]

    def on_core(self, *types):
        """The ops that are part of the replicated computation."""
        return [
            op
            for op in self.find_by_type(*types)
            if "_tpu_replicate" in op.node_def.attr
        ]

    @contextlib.contextmanager
    def host_session(self):
        """A session for the parts of the graph that run on the host."""
        # Else it looks for a kernel of every op, those of the TPU too.
        config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
        with self.graph.as_default(), tf.Session(config=config) as session:
            yield session

    def host_hook(self):
        hooks = self.spec.training_hooks or self.spec.evaluation_hooks
        (hook,) = [
            hook
            for hook in hooks
            if isinstance(hook, tpu_estimator.TPUInfeedOutfeedSessionHook)
        ]
        return hook


@pytest.fixture
def built(monkeypatch):
    """Has the next graph caught."""
    return _Built(monkeypatch)


@pytest.fixture
def sent(monkeypatch):
    """Placeholders where the host would receive from the cores.

    Returns a function from arrays [cores, ...], one for each tensor that a core sends,
    to the feed dict.
    """
    of_core = {}

    def receive(dtypes, shapes, device_ordinal):
        of_core[device_ordinal] = [
            tf.placeholder(dtype, shape) for dtype, shape in zip(dtypes, shapes)
        ]
        return of_core[device_ordinal]

    monkeypatch.setattr(tpu_ops, "outfeed_dequeue_tuple", receive)

    def feed(*arrays):
        assert sorted(of_core) == list(range(CORES))
        return {
            tensor: array[core]
            for core, tensors in of_core.items()
            for tensor, array in zip(tensors, arrays)
        }

    return feed


def bert_config(dropout=0.1):
    return small_run.small_config(
        101,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
    )


def write_bert(folder):
    """Writes a checkpoint of BERT without adapters; returns its path."""
    checkpoint = str(folder / "bert.ckpt")
    small_run.write_checkpoint(
        checkpoint,
        lambda: modeling.BertModel(
            bert_config(), False, tf.zeros([1, 2], tf.int32), adapter_fn=None
        ),
    )
    return checkpoint


def settings(folder, **changes):
    devices = run_settings.Devices(
        use_tpu=True, master=MASTER, num_tpu_cores=CORES, iterations_per_loop=5
    )
    return run_settings.Run(
        output_dir=str(folder),
        train_batch_size=BATCH["train"],
        eval_batch_size=BATCH["eval"],
        predict_batch_size=BATCH["infer"],
        save_checkpoints_steps=10,
        num_train_steps=20,
        seed=1,
        devices=devices._replace(**changes),
    )


def model_fn(
    folder,
    config,
    use_tpu=True,
    task_type=CLASSES_TYPE,
    init_checkpoint=None,
    method=ADAPTERS,
    **kept,
):
    variant = classifier.Variant(task_type, method=method)
    return classifier.model_fn_builder(
        bert_config=config,
        num_labels=task_type.num_outputs,
        init_checkpoint=init_checkpoint,
        learning_rate=1e-3,
        num_train_steps=20,
        num_warmup_steps=2,
        use_tpu=use_tpu,
        use_one_hot_embeddings=use_tpu,
        variant=variant,
        training=classifier.Training(
            bias_correction=True, summary_dir=str(folder), **kept
        ),
    )


def build(
    folder, mode, master=MASTER, task_type=CLASSES_TYPE, init_checkpoint=None, **kept
):
    """Has a `TPUEstimator` build the graph of a mode, which `built` catches."""
    estimator = estimators.make_estimator(
        model_fn(folder, bert_config(), True, task_type, init_checkpoint, **kept),
        settings(folder, master=master),
    )
    # The file is not there: graphs are built before the first record is read.
    input_fn = features.input_fn_builder(
        "no.tf_record",
        S,
        is_training=mode == "train",
        drop_remainder=True,
        spec=task_type.feature_spec(S),
        num_examples=32,
        seed=1,
    )
    with pytest.raises(_GraphBuilt):
        if mode == "train":
            estimator.train(input_fn, max_steps=20)
        elif mode == "eval":
            estimator.evaluate(input_fn, steps=2)
        else:
            list(estimator.predict(input_fn))


def test_the_tpu_of_this_machine(tmp_path):
    """Sessions are those of the process, and no service is asked for the TPU."""
    local = settings(tmp_path, master=None, tpu_name="local")
    config = estimators.make_estimator(model_fn(tmp_path, bert_config()), local).config
    assert config.master == config.evaluation_master == ""
    assert not config.session_config.cluster_def.job


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    """The `_Built` of each mode, which no test changes."""
    found = {}
    for mode in BATCH:
        with pytest.MonkeyPatch.context() as patched:
            found[mode] = _Built(patched)
            build(tmp_path_factory.mktemp(mode), mode)
        tf.reset_default_graph()
    return found


@functools.cache
def trained_names(method=ADAPTERS):
    return graph_variables.model_variables(
        bert_config(), CLASSES, classifier.Variant(method=method)
    ).trained()


def variable_of(op, index=0):
    """The name of the variable that an op has as an input, through loops."""
    op = op.inputs[index].op
    while op.type != "VarHandleOp":
        op = op.inputs[0].op
    return op.name


def nearest_behind(tensor, op_type):
    """Names of the ops of a type that a tensor is computed from, nearest ones only."""
    found, seen, waiting = set(), set(), [tensor.op]
    while waiting:
        op = waiting.pop()
        if op in seen:
            continue
        seen.add(op)
        if op.type == op_type:
            found.add(op.name)
        else:
            waiting += [source.op for source in op.inputs]
    return found


# --- the graphs ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "eval", "infer"])
def test_the_computation_is_replicated_and_fed_with_static_shapes(replicated, mode):
    built = replicated[mode]
    (metadata,) = built.find_by_type("TPUReplicateMetadata")
    assert metadata.get_attr("num_replicas") == CORES
    per_core = BATCH[mode] // CORES
    batch = [
        (per_core,) if name.startswith(("is_", "label")) else (per_core, S)
        for name in FEATURES
    ]
    enqueue = built.find_by_type("InfeedEnqueueTuple")
    assert [op.get_attr("device_ordinal") for op in enqueue] == list(range(CORES))
    assert {op.device for op in enqueue} == {HOST}
    # For prediction, the Estimator adds two signals after the features.
    for op in enqueue:
        assert [tuple(x.shape.as_list()) for x in op.inputs][: len(batch)] == batch
    (dequeue,) = built.on_core("InfeedDequeueTuple")
    assert [tuple(x.shape.as_list()) for x in dequeue.outputs][: len(batch)] == batch


def updated_by(update):
    """The names of the variables that a ResourceApplyAdam updates: weight, moments."""
    return [variable_of(update, index) for index in range(3)]


def test_each_trained_variable_gets_one_sum_over_the_cores(replicated):
    built = replicated["train"]
    trained = trained_names()
    gradients = {}
    for update in built.on_core("ResourceApplyAdam"):
        name, *moments = updated_by(update)
        assert moments == [name + "/adam_m", name + "/adam_v"]
        # The other input of this product is whether all gradients are finite.
        product = update.inputs[-1].op
        assert product.type == "MulNoNan"
        gradients[name] = nearest_behind(product.inputs[0], "CrossReplicaSum")
    assert sorted(gradients) == sorted(trained)
    assert [len(names) for names in gradients.values()] == [1] * len(trained)
    # No two share a sum, and nothing else is summed.
    sums = {op.name for op in built.on_core("CrossReplicaSum")}
    assert set.union(*gradients.values()) == sums
    assert len(built.find_by_type("CrossReplicaSum")) == len(trained) == 28


def test_each_core_drops_other_elements(replicated):
    built = replicated["train"]
    joined = [op.outputs[0] for op in built.on_core("ConcatV2")]
    drawn = [seeds for seeds in joined if seeds.dtype == tf.int32]
    # Seeds of the embeddings, of two layers and of the head.
    assert len(drawn) == 1 + 2 + 1
    for seed in drawn:
        assert len(nearest_behind(seed, "XlaReplicaId")) == 1
        read = nearest_behind(seed, "ReadVariableOp")
        assert {variable_of(built.graph.get_operation_by_name(n)) for n in read} == {
            "global_step"
        }


def _decays(name):
    return not re.search("LayerNorm|layer_norm|bias", name)


@pytest.mark.parametrize(
    ("text", "layers"),
    [("adapters", None), ("adapters", "1"), ("full", None), ("top_k:1", None),
     ("layer_norm", None), ("head", None), ("bitfit", None), ("lora:2", None),
     ("adapters pfeiffer", None), ("adapters parallel", None)],
)  # fmt: skip
def test_a_core_assigns_to_nothing_that_is_frozen(built, tmp_path, text, layers):
    policy, _, placement = text.partition(" ")
    settings = {"adapter_layers": layers, "adapter_placement": placement or None}
    method = registry.parse(policy, settings, 2)
    build(tmp_path, "train", method=method)
    trained = trained_names(method)
    updated = [updated_by(op) for op in built.on_core("ResourceApplyAdam")]
    assert sorted(updated) == sorted([n, n + "/adam_m", n + "/adam_v"] for n in trained)
    assigned = [
        variable_of(op)
        for op in built.on_core("AssignVariableOp", "AssignAddVariableOp")
    ]
    assert sorted(assigned) == ["adam_updates", "global_step"]
    decayed = [variable_of(op) for op in built.on_core("AssignSubVariableOp")]
    assert sorted(decayed) == [n for n in sorted(trained) if _decays(n)]
    # Each one's gradient is summed, but for that of a bias which changes nothing.
    idle = "bert/encoder/layer_1/attention/self/key/bias"
    sums = built.find_by_type("CrossReplicaSum")
    assert len(sums) in (len(trained), len(trained) - (idle in trained))


@pytest.mark.parametrize("mode", ["train", "eval", "infer"])
def test_word_pieces_are_looked_up_by_a_matrix_product(replicated, mode):
    built = replicated[mode]
    assert not built.on_core("Gather", "GatherV2", "GatherNd", "ResourceGather")
    reads = [
        op
        for op in built.on_core("ReadVariableOp")
        if variable_of(op) == "bert/embeddings/word_embeddings"
    ]
    products = [user for op in reads for user in op.outputs[0].consumers()]
    assert [op.type for op in products] == ["MatMul"]
    one_hot = products[0].inputs[0]
    assert one_hot.op.type == "OneHot"
    assert one_hot.shape.as_list() == [BATCH[mode] // CORES * S, 101]


def test_questions_train_in_a_replicated_computation(built, tmp_path):
    build(tmp_path, "train", task_type=QuestionAnswering())
    batches = built.find_by_type("InfeedEnqueueTuple")
    assert len(batches) == CORES
    shapes = {tuple(x.shape.as_list()) for op in batches for x in op.inputs}
    assert shapes == {(BATCH["train"] // CORES,), (BATCH["train"] // CORES, S)}
    updated = {updated_by(op)[0] for op in built.on_core("ResourceApplyAdam")}
    head = {"cls/squad/output_weights", "cls/squad/output_bias"}
    encoder = {n for n in trained_names() if not n.startswith("output_")}
    assert updated - encoder == head
    assert len(built.find_by_type("CrossReplicaSum")) == len(updated)
    assert not built.on_core("Gather", "GatherV2", "GatherNd", "ResourceGather")


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_the_scaffold_starts_variables_from_the_checkpoint(built, tmp_path, mode):
    checkpoint = write_bert(tmp_path)
    # With a local master, the host's part of the graph can be run.
    build(tmp_path, mode, master="local", init_checkpoint=checkpoint)
    saved = {
        name: tf.train.load_variable(checkpoint, name)
        for name in checkpoints.Checkpoint(checkpoint).shapes
    }
    assert len(saved) == 39
    with built.host_session() as session:
        built.spec.scaffold.finalize()
        session.run(built.spec.scaffold.init_op)
        for variable in tf.global_variables():
            if variable.op.name in saved:
                np.testing.assert_array_equal(
                    session.run(variable), saved.pop(variable.op.name)
                )
    assert not saved


def test_trained_variables_alone_are_global_on_a_tpu_too(built, tmp_path):
    checkpoint = write_bert(tmp_path)
    build(
        tmp_path,
        "train",
        master="local",
        init_checkpoint=checkpoint,
        checkpoint_content=checkpoints.TRAINED,
    )
    with built.host_session() as session:
        names = {v.op.name for v in tf.global_variables() if "adam_" not in v.op.name}
        assert names == {*trained_names(), "global_step"}
        frozen = [v for v in tf.local_variables() if v.op.name.startswith("bert/")]
        assert len(frozen) == 39 - 10
        built.spec.scaffold.finalize()
        session.run(built.spec.scaffold.local_init_op)
        for variable in frozen:
            np.testing.assert_array_equal(
                session.run(variable),
                tf.train.load_variable(checkpoint, variable.op.name),
            )


# --- what the host does -----------------------------------------------------------


@pytest.mark.parametrize("task_type", [CLASSES_TYPE, Regression()])
def test_eval_metrics_come_from_all_cores_without_padding(
    built, sent, tmp_path, task_type
):
    build(tmp_path, "eval", "local", task_type)
    random = np.random.RandomState(0)
    losses = random.uniform(0.0, 2.0, BATCH["eval"]).astype(np.float32)
    logits = random.normal(size=(BATCH["eval"], CLASSES)).astype(np.float32)
    labels = np.argmax(logits, axis=1).astype(np.int32)
    labels[:4] = (labels[:4] + 1) % CLASSES
    is_real = np.ones(BATCH["eval"], np.int32)
    # Padding examples: far off, so that even a small weight would show.
    is_real[13:] = 0
    losses[13:] = 1000.0
    labels[13:] = (labels[13:] + 1) % CLASSES
    if task_type == Regression():
        labels, logits = labels.astype(np.float32), logits[:, :1]
    arrays = [
        array.reshape((CORES, BATCH["eval"] // CORES, *array.shape[1:]))
        for array in (losses, labels, logits, is_real)
    ]
    values = {name: value for name, (value, _) in built.spec.eval_metric_ops.items()}
    with built.host_session() as session:
        session.run(tf.local_variables_initializer())
        session.run(built.host_hook()._dequeue_ops, sent(*arrays))
        scores = session.run(values)
    expected = {"eval_loss": losses[:13].mean()}
    if task_type == CLASSES_TYPE:
        expected["eval_accuracy"] = 9 / 13
    assert scores == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("task_type", "shape"),
    [(CLASSES_TYPE, (CLASSES,)), (Regression(), (1,)), (QuestionAnswering(), (2, S))],
)
def test_predictions_keep_the_order_of_the_examples(
    built, sent, tmp_path, task_type, shape
):
    build(tmp_path, "infer", "local", task_type)
    per_core = (CORES, BATCH["infer"] // CORES)
    shape = (*per_core, *shape)
    scores = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    feed = sent(scores, np.zeros((*per_core, 1), bool), np.zeros(per_core))
    with built.host_session() as session:
        rows = session.run(built.spec.predictions, feed)["probabilities"]
    np.testing.assert_array_equal(rows, scores.reshape((BATCH["infer"], *shape[2:])))


def test_the_host_writes_the_scalars_of_training(built, sent, tmp_path):
    build(tmp_path, "train", "local")
    column = np.ones((CORES, 1), np.float32)
    arrays = (7 * column, np.arange(CORES)[:, np.newaxis], 0.25 * column, 3 * column)
    hook = built.host_hook()
    with built.host_session() as session:
        hook.begin()
        session.run(hook._init_ops)
        session.run(hook._dequeue_ops, sent(*arrays))
    scalars = {}
    for path in tf.io.gfile.glob(str(tmp_path / "events.out.tfevents.*")):
        for event in tf.train.summary_iterator(path):
            for value in event.summary.value:
                scalars[value.tag] = (event.step, float(tf.make_ndarray(value.tensor)))
    assert scalars == {
        "loss": (7, 3.5),
        "learning_rate": (7, 0.25),
        "gradient_norm": (7, 3.0),
    }


# --- what a core does -------------------------------------------------------------


def _examples(steps, batch_size):
    """Random features, int32 [steps, batch_size, ...], the last five tokens padding."""
    random = np.random.RandomState(0)
    sequences = (steps, batch_size, S)
    arrays = {
        "input_ids": random.randint(0, 101, sequences),
        "input_mask": np.broadcast_to(np.arange(S) < S - 5, sequences),
        "segment_ids": random.randint(0, 2, sequences),
        "label_ids": random.randint(0, CLASSES, sequences[:2]),
        "is_real_example": np.ones(sequences[:2]),
    }
    return {name: array.astype(np.int32) for name, array in arrays.items()}


def _resource_global_step():
    # `TPUEstimator` makes the step a resource variable.
    with tf.variable_scope("", use_resource=True):
        tf.train.create_global_step()


def _values(session):
    variables = tf.global_variables()
    names = [variable.op.name for variable in variables]
    return dict(zip(names, session.run(variables)))


def _train_under_xla(examples, config, folder):
    """Trains as a core does: one compiled computation with the steps in a loop.

    Returns:
      Float [steps] of losses, and the variables before and after.
    """
    steps = len(examples["label_ids"])
    step_fn = model_fn(folder, config, use_tpu=True)

    def computation(*stacked):
        def body(i, losses):
            batch = {name: array[i] for name, array in zip(examples, stacked)}
            spec = step_fn(batch, None, "train", {})
            with tf.control_dependencies([spec.train_op]):
                return i + 1, losses + tf.one_hot(i, steps) * spec.loss

        initial = [0, tf.zeros([steps])]
        return training_loop.while_loop(lambda i, _: i < steps, body, initial)[1]

    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        _resource_global_step()
        stacked = [tf.placeholder(tf.int32, x.shape) for x in examples.values()]
        (losses,) = tf.xla.experimental.compile(computation, stacked)
        session.run(tf.global_variables_initializer())
        before = _values(session)
        report = tf.RunMetadata()
        result = session.run(
            losses,
            dict(zip(stacked, examples.values())),
            options=tf.RunOptions(output_partition_graphs=True),
            run_metadata=report,
        )
        ran = {node.op for graph in report.partition_graphs for node in graph.node}
        # The step is compiled as a whole, none of it is left to the executor.
        assert "_XlaRun" in ran or "XlaLaunch" in ran
        assert not ran & {"MatMul", "BatchMatMulV2", "AssignVariableOp"}
        return result, before, _values(session)


def _train_without_xla(examples, config, folder, before):
    with tf.Graph().as_default(), tf.Session() as session:
        _resource_global_step()
        batch = {
            name: tf.placeholder(tf.int32, array.shape[1:])
            for name, array in examples.items()
        }
        spec = model_fn(folder, config, use_tpu=False)(batch, None, "train", {})
        for variable in tf.global_variables():
            session.run(
                variable.initializer, {variable.initial_value: before[variable.op.name]}
            )
        losses = [
            session.run(
                [spec.loss, spec.train_op],
                {batch[name]: array[i] for name, array in examples.items()},
            )[0]
            for i in range(len(examples["label_ids"]))
        ]
        return losses, _values(session)


@pytest.fixture
def one_core(monkeypatch):
    # XLA has the sum over the cores for TPU only; of one core it is the gradient.
    monkeypatch.setattr(tpu_ops, "cross_replica_sum", lambda x, *_: tf.identity(x))


def test_steps_under_xla_equal_those_without(monkeypatch, one_core, tmp_path):
    monkeypatch.setattr(task_type, "HEAD_DROPOUT", 0.0)
    config = bert_config(dropout=0.0)
    examples = _examples(steps=3, batch_size=4)
    losses, before, compiled = _train_under_xla(examples, config, tmp_path)
    expected_losses, expected = _train_without_xla(examples, config, tmp_path, before)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert sorted(compiled) == sorted(expected)
    assert compiled["global_step"] == compiled[optimization.UPDATES] == 3
    for name, value in expected.items():
        np.testing.assert_allclose(compiled[name], value, atol=1e-5, err_msg=name)
    changed = {name for name in before if np.any(before[name] != compiled[name])}
    assert set(trained_names()) <= changed


def test_steps_with_dropout_run_under_xla(one_core, tmp_path):
    examples = _examples(steps=2, batch_size=4)
    losses, _, _ = _train_under_xla(examples, bert_config(), tmp_path)
    assert np.isfinite(losses).all()
    assert (losses > 0).all()
