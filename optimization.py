"""Which variables move, and how: the schedule and Adam with decoupled decay."""

import re
from typing import NamedTuple

import tensorflow.compat.v1 as tf

import modeling

WEIGHT_DECAY = 0.01
ADAPTER_WEIGHT_DECAY = 0.01
NO_WEIGHT_DECAY = ("LayerNorm", "layer_norm", "bias")
CLIP_NORM = 1.0


class TrainStep(NamedTuple):
    """What `create_optimizer` builds."""

    train_op: tf.Operation  # one update, global step included
    learning_rate: tf.Tensor  # float32 scalar
    gradient_norm: tf.Tensor  # float32 scalar, before clipping; of one TPU core


def trainable_variables():
    """The variables of the current graph that adapter tuning trains.

    Adapters, layer norms and head, in this order; all else is frozen (Houlsby et
    al., section 2.1). `tf.trainable_variables()` is of no use here: TensorFlow puts
    every variable that was made with `trainable=True` into it, the frozen ones too.
    """
    return [
        variable
        for collection in modeling.TRAINED_COLLECTIONS
        for variable in tf.get_collection(collection)
    ]


def learning_rate_schedule(init_lr, num_train_steps, num_warmup_steps, step):
    """The learning rate of an update.

    1. Warm-up, step < num_warmup_steps: init_lr * step / num_warmup_steps.
    2. After it: linear decay to 0 over all steps, counted from step 0, so that the
       rate drops to init_lr * (1 - num_warmup_steps / num_train_steps) at its end.

    Args:
      init_lr: the peak learning rate.
      num_train_steps: steps of the whole training.
      num_warmup_steps: steps of the warm-up; 0: none.
      step: int scalar tensor, the number of the update, counted from 1: see
        `create_optimizer`.

    Returns:
      Float32 scalar tensor.
    """
    decayed = tf.train.polynomial_decay(
        tf.constant(init_lr, tf.float32), step, num_train_steps, end_learning_rate=0.0
    )
    if not num_warmup_steps:
        return decayed
    step_as_float = tf.cast(step, tf.float32)
    warming = init_lr * step_as_float / tf.constant(num_warmup_steps, tf.float32)
    return tf.where(step_as_float < float(num_warmup_steps), warming, decayed)


def create_optimizer(loss, init_lr, num_train_steps, num_warmup_steps, use_tpu):
    """Builds the update of the trained variables.

    Gradients are clipped to a global norm of 1 over the trained variables only; on
    TPU each core clips its own before they are summed, as in the original program.

    Args:
      loss: float scalar tensor.
      init_lr: the peak learning rate.
      num_train_steps: steps of the whole training.
      num_warmup_steps: steps of the warm-up.
      use_tpu: whether gradients are summed over TPU cores.

    Returns:
      A `TrainStep`.
    """
    global_step = tf.train.get_or_create_global_step()
    # The original's graph leaves open whether the schedule reads the global step
    # before or after its increment. As recorded on CPU it read it after, in every
    # step, so the first update has rate init_lr / num_warmup_steps and the last 0.
    learning_rate = learning_rate_schedule(
        init_lr, num_train_steps, num_warmup_steps, global_step + 1
    )
    optimizer = AdamWeightDecayOptimizer(
        learning_rate=learning_rate,
        weight_decay_rate=WEIGHT_DECAY,
        adapter_weight_decay_rate=ADAPTER_WEIGHT_DECAY,
        exclude_from_weight_decay=NO_WEIGHT_DECAY,
    )
    if use_tpu:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)

    variables = trainable_variables()
    gradients = tf.gradients(loss, variables)
    gradient_norm = tf.global_norm(gradients)
    gradients, _ = tf.clip_by_global_norm(gradients, CLIP_NORM, use_norm=gradient_norm)
    update = optimizer.apply_gradients(zip(gradients, variables))
    # The optimizer leaves the step alone, as BERT's does: it is counted here.
    with tf.control_dependencies([update]):
        train_op = tf.assign_add(global_step, 1).op
    return TrainStep(train_op, learning_rate, gradient_norm)


class AdamWeightDecayOptimizer(tf.train.Optimizer):
    """Adam with decoupled weight decay, as BERT was trained with.

    Differs from Kingma and Ba, 2014 (arXiv:1412.6980), in three ways: the moments
    are not corrected for their bias towards zero; epsilon is added outside the root;
    and the decay of a weight is added to its update, not to the loss (Loshchilov and
    Hutter, 2017, arXiv:1711.05101), since the moments would otherwise mix the
    gradient of the penalty with that of the data.
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
    ):
        """Keeps the settings.

        Args:
          learning_rate: float scalar, tensor or number.
          weight_decay_rate: decay of each weight, times the learning rate.
          adapter_weight_decay_rate: the same for the adapters' weights.
          beta_1: decay of the mean of the gradients.
          beta_2: decay of the mean of the squared gradients.
          epsilon: added to the root of the second moment.
          exclude_from_weight_decay: regular expressions; a variable whose name
            matches one of them does not decay.
          name: name scope of the update.
        """
        super().__init__(False, name)
        self.learning_rate = learning_rate
        self.weight_decay_rate = weight_decay_rate
        self.adapter_weight_decay_rate = adapter_weight_decay_rate
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.exclude_from_weight_decay = exclude_from_weight_decay or ()

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        """Updates each variable that has a gradient; leaves `global_step` alone.

        The moments are the variables `<name>/adam_m` and `<name>/adam_v`.
        """
        adapters = {
            variable.op.name for variable in tf.get_collection(modeling.ADAPTERS)
        }
        updates = []
        for gradient, variable in grads_and_vars:
            if gradient is None:
                continue
            m = self._moment(variable, "adam_m")
            v = self._moment(variable, "adam_v")
            next_m = self.beta_1 * m + (1.0 - self.beta_1) * gradient
            next_v = self.beta_2 * v + (1.0 - self.beta_2) * tf.square(gradient)
            change = next_m / (tf.sqrt(next_v) + self.epsilon)
            decay = self._decay_rate(variable.op.name, adapters)
            if decay:
                change += decay * variable
            updates += [
                variable.assign_sub(self.learning_rate * change),
                m.assign(next_m),
                v.assign(next_v),
            ]
        return tf.group(*updates, name=name)

    def _moment(self, variable, slot):
        return tf.get_variable(
            "%s/%s" % (variable.op.name, slot),
            shape=variable.shape,
            dtype=tf.float32,
            trainable=False,
            use_resource=True,
            initializer=tf.zeros_initializer(),
        )

    def _decay_rate(self, name, adapters):
        if any(re.search(pattern, name) for pattern in self.exclude_from_weight_decay):
            return 0.0
        if name in adapters:
            return self.adapter_weight_decay_rate
        return self.weight_decay_rate
