"""The optimizer: learning rate schedule, and Adam with decoupled weight decay."""

import math
import re
from typing import NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

import modeling
from model import initializers
from tuning import registry

WEIGHT_DECAY = 0.01
ADAPTER_WEIGHT_DECAY = 0.01
NO_WEIGHT_DECAY = ("LayerNorm", "layer_norm", "bias")
CLIP_NORM = 1.0

UPDATES = "adam_updates"  # variable of runs with bias correction
LOSS_SCALE, FINITE_STEPS = "loss_scale", "finite_steps"  # variables of float16 runs


class TrainStep(NamedTuple):
    """The update of the trained variables."""

    train_op: tf.Operation  # one update, global step included
    learning_rate: tf.Tensor  # float32 scalar
    gradient_norm: tf.Tensor  # float32 scalar, before clipping; of one TPU core


def trainable_variables(method=registry.DEFAULT):
    """List of the graph's variables that a tuning method trains.

    Adapters, layer norms and head come first. `tf.trainable_variables()` includes
    frozen variables.
    """
    collections = modeling.collection_by_name()
    by_name = {}
    for collection in (*modeling.TRAINED_COLLECTIONS, tf.GraphKeys.TRAINABLE_VARIABLES):
        for variable in tf.get_collection(collection):
            by_name.setdefault(modeling.base_name(variable), variable)
    return [
        variable
        for name, variable in by_name.items()
        if method.trains(name, collections.get(name, modeling.OTHER))
    ]


def dense_gradients(loss, variables):
    """The gradients of a loss as dense tensors; None becomes zeros."""
    return [
        tf.zeros_like(variable) if gradient is None else tf.convert_to_tensor(gradient)
        for variable, gradient in zip(variables, tf.gradients(loss, variables))
    ]


def learning_rate_schedule(init_lr, num_train_steps, num_warmup_steps, step):
    """The learning rate of an update.

    1. Warm-up, step < num_warmup_steps: init_lr * step / num_warmup_steps.
    2. Then: linear decay to 0 over all steps, counted from step 0, so that the rate
       drops to init_lr * (1 - num_warmup_steps / num_train_steps) after warm-up.

    Args:
      init_lr: the peak learning rate.
      num_train_steps: steps of the whole run.
      num_warmup_steps: steps of the warm-up; 0: none.
      step: int scalar tensor, the number of the update, counted from 1.

    Returns:
      Float32 scalar tensor.
    """
    decayed = tf.train.polynomial_decay(
        tf.constant(init_lr, tf.float32), step, num_train_steps, end_learning_rate=0.0
    )
    if not num_warmup_steps:
        return decayed
    step_as_float = tf.cast(step, tf.float32)
    warmup = init_lr * step_as_float / tf.constant(num_warmup_steps, tf.float32)
    return tf.where(step_as_float < float(num_warmup_steps), warmup, decayed)


def state_variable(
    name, shape=(), dtype=tf.float32, initializer=None, use_resource=True
):
    """A non-trainable variable, zero by default, equal on all replicas."""
    return tf.get_variable(
        name,
        shape=shape,
        dtype=dtype,
        trainable=False,
        use_resource=use_resource,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        initializer=initializer or initializers.zeros,
    )


def mean_of_replicas(tensors):
    """Averages tensors over the replicas of a distribution strategy, if any."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tensors

    def mean(strategy, values):
        # `all_reduce` fails to find the variables of other replicas.
        return strategy.extended.batch_reduce_to(
            tf.distribute.ReduceOp.MEAN, [(value, value) for value in values]
        )

    return context.merge_call(mean, args=(tensors,))


def create_optimizer(loss, init_lr, num_train_steps, num_warmup_steps, use_tpu):
    """The training operation of `build_train_step`; the original's function."""
    return build_train_step(
        loss, init_lr, num_train_steps, num_warmup_steps, use_tpu
    ).train_op


def build_train_step(
    loss,
    init_lr,
    num_train_steps,
    num_warmup_steps,
    use_tpu,
    gradients=None,
    scale=None,
    bias_correction=False,
    method=registry.DEFAULT,
):
    """Builds the update of the trained variables.

    Gradients are clipped to a global norm of 1 over the trained variables. As in the
    original program, each TPU core clips its gradients before the sum. Replicas of a
    distribution strategy average gradients before clipping, equal to one device with
    the whole batch.

    Args:
      loss: float scalar tensor.
      init_lr: the peak learning rate.
      num_train_steps: steps of the whole run.
      num_warmup_steps: steps of the warm-up.
      use_tpu: whether gradients are summed over TPU cores.
      gradients: list for `trainable_variables(method)`; None: computed from the loss.
      scale: the `batch_gradients.LossScale` of the gradients, or None.
      bias_correction: see `AdamWeightDecayOptimizer`.
      method: the `tuning.method.Method`.

    Returns:
      A `TrainStep`.
    """
    global_step = tf.train.get_or_create_global_step()
    # The original's graph does not define whether the schedule reads the global step
    # before or after its increment. Measured on CPU: after, so that the first update
    # has the rate init_lr / num_warmup_steps and the last one 0.
    learning_rate = learning_rate_schedule(
        init_lr, num_train_steps, num_warmup_steps, global_step + 1
    )
    variables = trainable_variables(method)
    if gradients is None:
        gradients = dense_gradients(loss, variables)
    gradients = mean_of_replicas(gradients)
    gradient_norm = tf.global_norm(gradients)
    clip = CLIP_NORM / tf.maximum(gradient_norm, CLIP_NORM)
    if use_tpu:
        gradients = [gradient * clip for gradient in gradients]
    adam = optimizer = AdamWeightDecayOptimizer(
        learning_rate=learning_rate,
        weight_decay_rate=WEIGHT_DECAY,
        adapter_weight_decay_rate=ADAPTER_WEIGHT_DECAY,
        exclude_from_weight_decay=NO_WEIGHT_DECAY,
        bias_correction=bias_correction,
        gradient_scale=1.0 if use_tpu else clip,
        # On TPU the norm is of one core.
        is_finite=None if use_tpu else tf.math.is_finite(gradient_norm),
    )
    if use_tpu:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    update = optimizer.apply_gradients(zip(gradients, variables))
    if scale is not None:
        with tf.control_dependencies([update]):
            update = scale.update(tf.math.is_finite(gradient_norm))
    # Non-finite gradients lower the loss scale. Without loss scaling they end the run,
    # and the step does not count, so that no checkpoint is written after it.
    increment = 1 if scale is not None else tf.cast(adam.is_finite, global_step.dtype)
    with tf.control_dependencies([update]):
        train_op = tf.group(tf.assign_add(global_step, increment))
    return TrainStep(train_op, learning_rate, gradient_norm)


def _bias(beta, t):
    """1 - beta^t; rounding 0.999 to float32 would change the result by 5e-5."""
    return -tf.math.expm1(t * math.log(beta))


def _apply_adam(variable, base_name, decay, **settings):
    """Applies weight decay, the fraction `decay`, then Adam's update.

    The update is one operation. With separate operations, a training step of BERT-base
    on an H200 took 43.5 ms instead of 33.7.
    """
    is_resource = hasattr(variable, "handle")
    m, v = (
        state_variable(base_name + suffix, variable.shape, use_resource=is_resource)
        for suffix in ("/adam_m", "/adam_v")
    )
    # Methods of the variable would wait for the other replicas.
    if is_resource:
        variables = {"var": variable.handle, "m": m.handle, "v": v.handle}
        subtract, apply = tf.raw_ops.AssignSubVariableOp, tf.raw_ops.ResourceApplyAdam
    else:
        variables = {"var": variable, "m": m, "v": v}
        subtract, apply = tf.raw_ops.AssignSub, tf.raw_ops.ApplyAdam
    decayed = []
    if decay is not None:
        target = "resource" if is_resource else "ref"
        decayed = [subtract(**{target: variables["var"]}, value=decay * variable)]
    with tf.control_dependencies(decayed):
        return apply(**variables, **settings)


class AdamWeightDecayOptimizer(tf.train.Optimizer):
    """Adam with decoupled weight decay, BERT's optimizer.

    Two differences from Kingma and Ba, 2014 (arXiv:1412.6980): there is no bias
    correction by default; and weight decay is added to the update, not to the loss
    (Loshchilov and Hutter, 2017, arXiv:1711.05101), where its gradient would enter the
    moments.

    Without bias correction the moments are (1 - 0.9^t) and (1 - 0.999^t) of their
    unbiased values after t updates, and an update is up to 6.6 times (t = 12) the
    corrected one. At high learning rates this decides whether a run learns at all:
    `benchmarks/README.md`.
    """

    def __init__(
        self,
        learning_rate,
        weight_decay_rate=0.0,
        adapter_weight_decay_rate=0.0,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-6,
        exclude_from_weight_decay=None,
        name="AdamWeightDecayOptimizer",
        bias_correction=False,
        gradient_scale=1.0,
        is_finite=None,
    ):
        """Makes an optimizer.

        Args:
          learning_rate: float scalar, tensor or number.
          weight_decay_rate: decay of weights, times the learning rate.
          adapter_weight_decay_rate: the same for weights of adapters.
          beta_1: decay of the mean of the gradients.
          beta_2: decay of the mean of the squared gradients.
          epsilon: added to the root of the second moment.
          exclude_from_weight_decay: regular expressions; variables whose name
            matches one do not decay.
          name: name scope of the update.
          bias_correction: divide the moments by 1 - beta^t in update t (Kingma and Ba,
            algorithm 1). The variable `UPDATES` holds t; skipped steps do not count.
          gradient_scale: float scalar, a factor of all gradients.
          is_finite: bool scalar tensor, whether the gradients are finite; None:
            computed from their global norm.
        """
        super().__init__(False, name)
        self.learning_rate = learning_rate
        self.weight_decay_rate = weight_decay_rate
        self.adapter_weight_decay_rate = adapter_weight_decay_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.exclude_from_weight_decay = exclude_from_weight_decay or ()
        self.is_finite = is_finite  # a tensor once gradients are applied
        self.bias_correction = bias_correction
        self.gradient_scale = gradient_scale

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        """Updates each variable that has a gradient; ignores `global_step`.

        If a gradient is not finite, no variable changes. The moments are the variables
        `<name>/adam_m` and `<name>/adam_v`.
        """
        adapters = {
            modeling.base_name(variable)
            for variable in tf.get_collection(modeling.ADAPTERS)
        }
        grads_and_vars = [
            (g, v) for g, v in grads_and_vars if g is not None and v is not None
        ]
        if self.is_finite is None:
            norm = tf.global_norm([gradient for gradient, _ in grads_and_vars])
            self.is_finite = tf.math.is_finite(norm)

        def if_finite(new, old):
            return tf.where(self.is_finite, new, old)

        rate, epsilon = self.learning_rate, self.epsilon
        updates = []
        if self.bias_correction:
            count = state_variable(UPDATES)
            t = count + 1.0
            bias_m, bias_v = _bias(self.beta_1, t), _bias(self.beta_2, t)
            # The operation adds epsilon to the root of the biased moment.
            rate *= tf.sqrt(bias_v) / bias_m
            epsilon *= tf.sqrt(bias_v)
            updates.append(count.assign(if_finite(t, count)))

        # The operation computes 1 - beta_2 in float32: for 0.999 it is 1.3e-5 too
        # small. Scaling gradients by the root of this error makes `adam_v` exact;
        # dividing the rate by the scale leaves the update unchanged.
        rounded = np.float32(1.0) - np.float32(self.beta_2)
        scale = math.sqrt((1.0 - self.beta_2) / float(rounded))
        # With non-finite gradients, a rate of 0 and no decay of the moments change
        # nothing. All updates depend on `is_finite`, and so come after the gradients.
        finite = tf.cast(self.is_finite, tf.float32)
        settings = {
            "beta1_power": tf.constant(0.0),  # disables the operation's correction
            "beta2_power": tf.constant(0.0),
            "lr": finite * rate / scale,
            "beta1": if_finite(self.beta_1, 1.0),
            "beta2": if_finite(self.beta_2, 1.0),
            "epsilon": tf.convert_to_tensor(epsilon),
        }
        decay_rate = finite * self.learning_rate
        # The scale of a non-finite norm is not finite.
        gradient_scale = if_finite(self.gradient_scale * scale, 0.0)
        for gradient, variable in grads_and_vars:
            base_name = modeling.base_name(variable)
            decay = self._decay_rate(base_name, adapters)
            decay = decay_rate * decay if decay else None
            gradient = tf.math.multiply_no_nan(gradient, gradient_scale)
            updates.append(
                _apply_adam(variable, base_name, decay, grad=gradient, **settings)
            )
        return tf.group(*updates, name=name)

    def _decay_rate(self, name, adapters):
        if any(re.search(pattern, name) for pattern in self.exclude_from_weight_decay):
            return 0.0
        if name in adapters:
            return self.adapter_weight_decay_rate
        return self.weight_decay_rate
