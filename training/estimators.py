"""Estimator assembly for any head: run config, devices, what is logged."""

import ctypes
import os
import threading
import weakref
from typing import NamedTuple

import tensorflow.compat.v1 as tf
import tensorflow.compat.v2 as tf2
from tensorflow.core.protobuf import rewriter_config_pb2

import optimization
from errors import UserError
from system import disk, files
from training import distribution, progress, signals
from training.estimator_compat import estimator
from weights import checkpoints

# By this the host of a TPU says that a loss or a gradient is not finite.
_NOT_FINITE = "not finite"

CHECKPOINTS_KEPT = 5  # the newest ones

# Steps between two reports of the Estimator's own.
LOG_STEPS = 100

# TensorFlow's name for the thread that writes an event file.
_EVENT_THREAD = "EventLoggerThread"

# The number of cores on which a batch in shards was seen to be faster.
_LANE_CORES = 2


def train_spec(loss, step, scaffold_fn, use_tpu, summary_dir):
    """The `TPUEstimatorSpec` of training, and what its `progress.ProgressHook` reads.

    Scalars for TensorBoard: "learning_rate" and "gradient_norm"; the Estimator adds
    "loss" itself. On TPU they are sent to the host, which writes all three.

    Args:
      loss: float scalar tensor.
      step: an `optimization.TrainStep`.
      scaffold_fn: what `checkpoints.warm_start` gives.
      use_tpu: whether the graph is to run on TPU.
      summary_dir: where the scalars go when the host writes them for a TPU.

    Returns:
      A `TPUEstimatorSpec`.
    """
    (loss,) = optimization.mean_of_replicas([loss])
    signals.add_stop_flag()
    host_call = None
    if use_tpu:
        host_call = _host_call(loss, step, summary_dir)
    else:
        tf.summary.scalar("learning_rate", step.learning_rate)
        tf.summary.scalar("gradient_norm", step.gradient_norm)
        progress.report(loss, step)
    return estimator.tpu.TPUEstimatorSpec(
        mode=estimator.ModeKeys.TRAIN,
        # The Estimator adds the losses of the replicas up.
        loss=loss / tf.distribute.get_strategy().num_replicas_in_sync,
        train_op=step.train_op,
        scaffold_fn=scaffold_fn,
        host_call=host_call,
    )


def _host_call(loss, step, summary_dir):
    def write(global_step, loss, learning_rate, gradient_norm):
        # One value a core: the first core's stands for all but the loss.
        writer = tf2.summary.create_file_writer(summary_dir)
        seen = tf.concat([loss, gradient_norm], axis=0)
        check = tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(seen)), [_NOT_FINITE, seen]
        )
        with (
            tf.control_dependencies([check]),
            writer.as_default(),
            tf2.summary.record_if(True),
        ):
            at = tf.cast(global_step[0], tf.int64)
            tf2.summary.scalar("loss", tf.reduce_mean(loss), step=at)
            tf2.summary.scalar("learning_rate", learning_rate[0], step=at)
            tf2.summary.scalar("gradient_norm", gradient_norm[0], step=at)
            return tf.summary.all_v2_summary_ops()

    tensors = [tf.train.get_or_create_global_step(), loss]
    tensors += [step.learning_rate, step.gradient_norm]
    # On TPU outputs are concatenated over the cores, so scalars become vectors.
    return write, [tf.reshape(tf.cast(tensor, tf.float32), [1]) for tensor in tensors]


class RunSettings(NamedTuple):
    """What an Estimator of this program is made of."""

    output_dir: str
    train_batch_size: int
    eval_batch_size: int
    predict_batch_size: int
    save_checkpoints_steps: int
    num_train_steps: int | None
    seed: int
    use_tpu: bool
    tpu_name: str | None
    tpu_zone: str | None
    gcp_project: str | None
    master: str | None
    num_tpu_cores: int
    iterations_per_loop: int
    distribution_strategy: str = distribution.NONE  # one of `distribution.STRATEGIES`
    cluster: distribution.Cluster | None = None  # of several machines
    shards: int = 1  # see `cpu_shards`
    write_graph: bool = False  # for TensorBoard and other tools

    @property
    def is_chief(self):
        """Whether this machine writes, evaluates and predicts."""
        return self.cluster is None or self.cluster.is_chief


# Settings by their numbers in glibc's malloc.h.
_MALLOC_SETTINGS = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: freed bytes that are kept
    -2: 2**26,  # M_TOP_PAD: bytes asked for beyond what is needed
    -4: 0,  # M_MMAP_MAX: allocations, of large tensors, apart from all others
    -8: 1,  # M_ARENA_MAX: pools; with one a tensor can take any other's place
}


def keep_freed_memory():
    """Has this process keep the memory that it frees, where it runs on glibc.

    By default every large tensor is given back to the system and the next one is asked
    for page by page: tens of thousands of page faults in a training step, which took a
    tenth to a fifth of its processor time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in _MALLOC_SETTINGS.items():
            mallopt(setting, value)


def cpu_shards(batch_sizes):
    """The number of intra-batch shards on this machine's CPU, one core for each.

    Each shard is computed by one core. Without shards all cores share each operation,
    and wait for each other after it.
    The threads of an operation belong to the process, whatever its sessions ask for, so
    a process uses shards for all that it computes or for nothing.

    Args:
      batch_sizes: those of all batches that the process computes.

    Returns:
      The number of shards; 1: none.
    """
    if tf.config.list_physical_devices("GPU"):
        return 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count()
    return cores if cores == _LANE_CORES and min(batch_sizes) >= cores else 1


def session_config(shards=1):
    """The `tf.ConfigProto` for CPU and GPU; `shards` as `cpu_shards` gives them."""
    config = tf.ConfigProto(allow_soft_placement=True)
    if shards > 1:
        config.intra_op_parallelism_threads = 1
        config.inter_op_parallelism_threads = shards
    cpus = [name for name in distribution.local_devices() if name.startswith("/cpu")]
    config.device_count["CPU"] = max(1, len(cpus))
    # By default the graph optimizer replaces sums of large tensors by an accumulation
    # in temporary variables, which took a tenth of a training step on CPU.
    config.graph_options.rewrite_options.memory_optimization = (
        rewriter_config_pb2.RewriterConfig.NO_MEM_OPT
    )
    return config


def train(model_fn, settings, input_fn, watch, stop):
    """Trains up to a step, on all devices and machines of the settings.

    Args:
      model_fn: what `classifier.model_fn_builder` gives.
      settings: a `RunSettings`.
      input_fn: what `features.input_fn_builder` gives.
      watch: a `progress.ProgressHook`, the same for all parts of a training.
      stop: the step to end with, at most the last of the settings.

    Raises:
      UserError: the loss or a gradient was not finite.
      signals.StoppedBySignal: after a checkpoint of the last step.
    """

    def train_there(placement, hooks):
        trained = make_estimator(model_fn, settings, placement)
        if not settings.use_tpu:
            # Before the Estimator's own hook for the loss, which knows less.
            hooks = [*hooks, watch]
            if settings.cluster is None:
                # The Estimator's own would save a step before `watch` has its loss.
                hooks.append(
                    tf.train.CheckpointSaverHook(
                        settings.output_dir,
                        save_steps=settings.save_checkpoints_steps,
                        save_graph_def=settings.write_graph,
                    )
                )
        sees_losses = settings.is_chief and not settings.use_tpu
        save = SaveHook(settings.output_dir, watch if sees_losses else None)
        hooks = [*hooks, save, signals.StopHook(request)]
        try:
            trained.train(input_fn, hooks=hooks, max_steps=stop)
        except (estimator.NanLossDuringTrainingError, progress.NotFiniteError):
            raise _diverged(settings.output_dir, watch) from None
        except tf.errors.InvalidArgumentError as error:
            if _NOT_FINITE not in str(error):
                raise
            raise _diverged(settings.output_dir, watch) from None

    with signals.record_signal() as request:
        distribution.run(
            settings.distribution_strategy,
            session_config(settings.shards),
            settings.cluster,
            stop,
            train_there,
        )
    distribution.remove_worker_files(settings.output_dir, settings.cluster)
    if request.number is not None:
        raise signals.StoppedBySignal(
            request.number,
            "stopped after step %d of %d, with a checkpoint; the same command "
            "resumes from there" % (request.step, settings.num_train_steps),
        )


def prepare_summaries(folder, write_graph):
    """Makes the writer of a folder's event file, which the Estimator then finds.

    Args:
      folder: its path.
      write_graph: whether the event file is to hold the Estimator's graph.
    """
    # When it is made it writes the graph that is the default: an empty one.
    with tf.Graph().as_default():
        writer = tf.summary.FileWriterCache.get(folder)
    if writer in _prepared_writers:  # It is kept for the whole process.
        return
    _prepared_writers.add(writer)
    if not write_graph:
        writer.add_graph = writer.add_meta_graph = lambda *_, **__: None
    # It writes in a thread; an error there comes again in the next call.
    threading.excepthook = _thread_ended
    events, explained = writer.event_writer, disk.explain_errors(folder)
    events.add_event = explained(events.add_event)
    events.flush = explained(events.flush)


_prepared_writers = weakref.WeakSet()


def _thread_ended(failure):
    if failure.thread is None or failure.thread.name != _EVENT_THREAD:
        threading.__excepthook__(failure)


class SaveHook(estimator.SessionRunHook):
    """Writes the last losses beside each checkpoint, and explains failed saves.

    The losses are there before the checkpoint is: a resumed run reads them, and ends
    with the diagnostics of one that was not interrupted.

    TensorFlow's own error for a file above the system's limit is that for the end of
    the input, and would end the training as if it were complete. What was written of a
    checkpoint that failed is removed.
    """

    def __init__(self, output_dir, watch=None):
        """Keeps what is saved, and where.

        Args:
          output_dir: the folder of the checkpoints.
          watch: the `progress.ProgressHook` of the losses; None: none are written.
        """
        self._output_dir = output_dir
        self._watch = watch

    def begin(self):
        (saver,) = tf.get_collection(tf.GraphKeys.SAVERS)
        need = sum(
            variable.shape.num_elements() * variable.dtype.size
            for variable in tf.global_variables()
        )
        save = disk.explain_errors(self._output_dir, need)(saver.save)

        def save_or_clear(session, path, *args, global_step, **kwargs):
            prefix = "%s-%d" % (path, global_step)
            try:
                if self._watch is not None:
                    self._watch.write_losses(prefix)
                saved = save(session, path, *args, global_step=global_step, **kwargs)
            except UserError:
                for path in files.list_with_prefix(prefix, "[_.]*"):
                    files.remove(path)
                raise
            progress.remove_stale_losses(self._output_dir)
            return saved

        saver.save = save_or_clear


def _diverged(output_dir, watch):
    values, where = watch.last_values, ""
    if values is not None:
        where = " in step %d: loss %g, gradient norm %g, learning rate %g" % (
            watch.steps_done,
            values["loss"],
            values["gradient_norm"],
            values["learning_rate"],
        )
        if watch.steps_done == 1:
            return UserError(
                "the training diverged%s. Nothing was updated before, so no training "
                "setting is at fault: the weights of --init_checkpoint, or the labels "
                "of a regression, are too large for float32" % where
            )
    return UserError(
        "the training diverged%s. Nothing was written after the last good checkpoint, "
        "%s. Train again with a lower --learning_rate, --adam_bias_correction=true or "
        "a longer --warmup_proportion, and a new --output_dir"
        % (where, checkpoints.latest(output_dir))
    )


def make_estimator(model_fn, settings, placement=distribution.ONE_DEVICE):
    """The `TPUEstimator`, which on CPU and GPU is an ordinary Estimator.

    Args:
      model_fn: what `classifier.model_fn_builder` gives.
      settings: a `RunSettings`.
      placement: where it trains; it evaluates and predicts on one device.

    Returns:
      A `TPUEstimator`.
    """
    cluster = None
    if settings.use_tpu and settings.tpu_name:
        cluster = tf.distribute.cluster_resolver.TPUClusterResolver(
            settings.tpu_name,
            zone=settings.tpu_zone,
            project=settings.gcp_project,
        )
    run_config = estimator.tpu.RunConfig(
        cluster=cluster,
        master=placement.master or settings.master,
        train_distribute=placement.strategy,
        model_dir=settings.output_dir,
        keep_checkpoint_max=CHECKPOINTS_KEPT,
        checkpoint_save_graph_def=settings.write_graph,
        tf_random_seed=settings.seed,
        save_checkpoints_steps=settings.save_checkpoints_steps,
        # Only the chief writes into the folder; this makes a writer of its own.
        log_step_count_steps=LOG_STEPS if settings.is_chief else None,
        session_config=None if settings.use_tpu else session_config(settings.shards),
        # A short training shows its course too.
        save_summary_steps=max(1, min(100, (settings.num_train_steps or 100) // 50)),
        tpu_config=estimator.tpu.TPUConfig(
            iterations_per_loop=settings.iterations_per_loop,
            num_shards=settings.num_tpu_cores,
            per_host_input_for_training=estimator.tpu.InputPipelineConfig.PER_HOST_V2,
        ),
    )
    return estimator.tpu.TPUEstimator(
        use_tpu=settings.use_tpu,
        model_fn=model_fn,
        config=run_config,
        train_batch_size=settings.train_batch_size,
        eval_batch_size=settings.eval_batch_size,
        predict_batch_size=settings.predict_batch_size,
    )
