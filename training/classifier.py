"""The model, BERT with the head of a task, and its `model_fn`."""

import functools
from typing import Annotated, NamedTuple

import tensorflow.compat.v1 as tf

import modeling
import optimization
from system import schema
from tasks.classification import Classification
from tasks.task_type import TaskType
from training import batch_gradients, estimators, scoring
from training.estimator_compat import estimator
from tuning import method as tuning_method
from tuning import registry
from weights import checkpoints


class Computation(NamedTuple):
    """How the model is computed; affects rounding and random numbers only."""

    precision: str = "float32"  # one of `PRECISIONS`
    xla: str = "false"  # whether XLA compiles the layers, one of `XLA`
    recompute_activations: bool = False
    gradient_accumulation_steps: Annotated[int, schema.integer(1, 2**31 - 1)] = 1
    shards: int = 1  # intra-batch shards, see `estimators.cpu_shards`

    @property
    def compile_layers(self):
        """Whether XLA compiles the layers; "auto": on a GPU."""
        if self.xla != "auto":
            return self.xla == "true"
        return bool(tf.config.list_physical_devices("GPU"))


XLA = ("auto", "true", "false")
PLAIN = Computation()
PRECISIONS = {"float32": tf.float32, "bfloat16": tf.bfloat16, "float16": tf.float16}


class Variant(NamedTuple):
    """Options of the model; the defaults give the original's model."""

    task_type: TaskType | None = None  # None: classification
    initial_bias: float = 0.0  # of the head, see `task_type.TaskType.initial_bias`
    computation: Computation = PLAIN
    method: tuning_method.Method = registry.DEFAULT
    ablated_layers: tuple[int, ...] = ()  # layers without the method's hooks


class Training(NamedTuple):
    """Options of training; the defaults are those of the original."""

    bias_correction: bool = False  # see `optimization.AdamWeightDecayOptimizer`
    # Checkpoint of trained variables; takes precedence over `init_checkpoint`.
    adapters_checkpoint: str | None = None
    checkpoint_content: str = checkpoints.ALL  # one of `checkpoints.CONTENTS`
    summary_dir: str | None = None  # where a TPU's host writes scalars


class ModelOutput(NamedTuple):
    """Outputs of the head for a batch of B features."""

    loss: tf.Tensor  # float32 scalar, mean over the batch
    per_example_loss: tf.Tensor  # float32 [B]
    logits: tf.Tensor  # float32 [B, ...], see `task_type.TaskType`
    probabilities: tf.Tensor  # float32 [B, ...], its `compute_scores`


def create_model(
    bert_config,
    is_training,
    input_ids,
    input_mask,
    segment_ids,
    labels,
    num_labels,
    use_one_hot_embeddings,
    variant=None,
):
    """BERT with adapters, and the head of the task.

    Args:
      bert_config: a `modeling.BertConfig`.
      is_training: whether dropout is on.
      input_ids: int32 [B, S].
      input_mask: int32 [B, S].
      segment_ids: int32 [B, S].
      labels: class ids, int32 [B]; or labels of the variant's task type.
      num_labels: number of classes of a classification.
      use_one_hot_embeddings: see `modeling.BertModel`.
      variant: a `Variant`; None: the original's model.

    Returns:
      A `ModelOutput`.
    """
    variant = variant or Variant()
    computation, method = variant.computation, variant.method
    task_type = variant.task_type or Classification.numbered(num_labels)

    def layer_hooks(index):
        return () if index in variant.ablated_layers else method.layer_hooks(index)

    def encode(input_ids, input_mask, segment_ids):
        model = modeling.BertModel(
            config=bert_config,
            is_training=is_training,
            input_ids=input_ids,
            input_mask=input_mask,
            token_type_ids=segment_ids,
            use_one_hot_embeddings=use_one_hot_embeddings,
            scope="bert",
            options=modeling.Options(
                precision=PRECISIONS[computation.precision],
                recompute_activations=computation.recompute_activations,
                pooled_output_only=not task_type.uses_sequence_output,
                layer_hooks=layer_hooks,
                trains=method.trains,
                compile_layers=computation.compile_layers,
            ),
        )
        return task_type.select_output(model)

    inputs = (input_ids, input_mask, segment_ids)
    output = _in_shards(encode, inputs, computation.shards)
    logits = task_type.compute_logits(output, is_training, variant.initial_bias)
    # The Estimator's scalar for TensorBoard has the name "loss".
    with tf.name_scope("head"):
        losses = task_type.compute_losses(logits, labels)
        weights = task_type.training_weights(labels) if is_training else None
        loss = tf.reduce_mean(losses if weights is None else losses * weights)
        scores = task_type.compute_scores(logits)
    return ModelOutput(loss, losses, logits, scores)


def _in_shards(function, inputs, shards):
    """Applies a function of tensors [B, ...] to shards of a batch.

    Returns a tensor [B, ...]. The sizes of the shards differ by at most one example.
    """
    if shards == 1:
        return function(*inputs)
    B = modeling.get_shape_list(inputs[0])[0]
    sizes = [(B + i) // shards for i in range(shards)]
    outputs = []
    for shard in zip(*(tf.split(x, sizes) for x in inputs)):
        with tf.variable_scope(tf.get_variable_scope(), reuse=bool(outputs) or None):
            outputs.append(function(*shard))
    return tf.concat(outputs, axis=0)


def model_fn_builder(
    bert_config,
    num_labels,
    init_checkpoint,
    learning_rate,
    num_train_steps,
    num_warmup_steps,
    use_tpu,
    use_one_hot_embeddings,
    variant=None,
    training=None,
):
    """Builds the `model_fn` of a task for `TPUEstimator`.

    Args:
      bert_config: a `modeling.BertConfig`.
      num_labels: see `create_model`.
      init_checkpoint: checkpoint to start from, or None.
      learning_rate: peak learning rate.
      num_train_steps: steps of the whole run; None when not training.
      num_warmup_steps: steps of the warm-up; None when not training.
      use_tpu: whether the graph runs on TPU.
      use_one_hot_embeddings: see `modeling.BertModel`.
      variant: a `Variant`; None: the original's model.
      training: a `Training`; None: the original's.

    Returns:
      A function (features, labels, mode, params) -> `TPUEstimatorSpec`.
    """
    variant, training = variant or Variant(), training or Training()
    task_type = variant.task_type or Classification.numbered(num_labels)
    computation = variant.computation
    precision = "float32" if use_tpu else computation.precision
    if use_tpu:  # A TPU compiles the whole step.
        computation = computation._replace(xla="false")
    variant = variant._replace(task_type=task_type, computation=computation)

    def model(features, is_training):
        with checkpoints.content_scope(
            training.checkpoint_content,
            PRECISIONS[precision],
            init_checkpoint,
            variant.method,
        ):
            return create_model(
                bert_config,
                is_training,
                features["input_ids"],
                features["input_mask"],
                features["segment_ids"],
                task_type.read_label_features(features),
                num_labels,
                use_one_hot_embeddings,
                variant,
            )

    warm_start = functools.partial(
        checkpoints.warm_start, init_checkpoint, use_tpu, training.adapters_checkpoint
    )

    def model_fn(features, labels, mode, params):
        del labels, params  # The labels are among the features.
        if mode == estimator.ModeKeys.TRAIN:
            scale = None
            if variant.computation.precision == "float16":
                scale = batch_gradients.LossScale()
            loss, gradients = batch_gradients.mean_gradients(
                lambda part: model(part, is_training=True).loss,
                features,
                variant.computation.gradient_accumulation_steps,
                scale,
                variant.method,
            )
            step = optimization.build_train_step(
                loss,
                learning_rate,
                num_train_steps,
                num_warmup_steps,
                use_tpu,
                gradients,
                scale,
                training.bias_correction,
                variant.method,
            )
            return estimators.train_spec(
                loss, step, warm_start(), use_tpu, training.summary_dir
            )
        output = model(features, is_training=False)
        # The variables of a training session are initialized already.
        scaffold_fn = None if tf.get_variable_scope().reuse else warm_start()
        return _inference_spec(mode, output, features, task_type, scaffold_fn)

    return model_fn


def _inference_spec(mode, output, features, task_type, scaffold_fn):
    """The `TPUEstimatorSpec` of evaluation or prediction."""
    if mode == estimator.ModeKeys.PREDICT:
        return estimator.tpu.TPUEstimatorSpec(
            mode=mode,
            predictions={"probabilities": output.probabilities},
            scaffold_fn=scaffold_fn,
        )
    tf.add_to_collection(scoring.SCORES, output.probabilities)
    return estimator.tpu.TPUEstimatorSpec(
        mode=mode,
        loss=output.loss,
        eval_metrics=_eval_metrics(output, features, task_type),
        scaffold_fn=scaffold_fn,
    )


def _eval_metrics(output, features, task_type):
    """`eval_loss` and the metrics of a task type, without padding examples."""

    def metric_fn(per_example_loss, labels, logits, is_real_example):
        weights = tf.cast(is_real_example, tf.float32)
        loss = tf.metrics.mean(per_example_loss, weights=weights)
        return {"eval_loss": loss, **task_type.eval_metrics(logits, labels, weights)}

    return metric_fn, [
        output.per_example_loss,
        task_type.read_label_features(features),
        output.logits,
        features["is_real_example"],
    ]
