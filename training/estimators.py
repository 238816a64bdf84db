"""The Estimator: its sessions, checkpoints and summaries; training up to a step."""

import ctypes
import functools
import threading
import weakref

import tensorflow.compat.v1 as tf
import tensorflow.compat.v2 as tf2
from tensorflow.core.protobuf import rewriter_config_pb2

import optimization
from errors import UserError
from system import disk, files
from training import distribution, progress, signals
from training.estimator_compat import CheckpointHook, estimator
from weights import checkpoints

# Assertion text by which the TPU host call reports a loss or gradient.
_NOT_FINITE = "not finite"

CHECKPOINTS_KEPT = 5  # the last ones

# Steps between two log entries of the Estimator.
LOG_STEPS = 100

# TensorFlow's name for the thread that writes an event file.
_EVENT_THREAD = "EventLoggerThread"

# More shards delay the first step: each is a part of the graph. Shards with fewer
# examples take more time than they save (benchmarks/README.md).
_MAX_SHARDS = 4
_SHARD_EXAMPLES = 2


def train_spec(loss, step, scaffold_fn, use_tpu, summary_dir):
    """The `TPUEstimatorSpec` of training, with the tensors of `progress.ProgressHook`.

    Scalars for TensorBoard: "learning_rate" and "gradient_norm"; the Estimator adds
    "loss". On TPU the host writes all three.

    Args:
      loss: float scalar tensor.
      step: an `optimization.TrainStep`.
      scaffold_fn: see `checkpoints.warm_start`.
      use_tpu: whether the graph runs on TPU.
      summary_dir: folder of the scalars from a TPU's host.
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
        # The Estimator sums the losses of the replicas.
        loss=loss / tf.distribute.get_strategy().num_replicas_in_sync,
        train_op=step.train_op,
        scaffold_fn=scaffold_fn,
        host_call=host_call,
    )


def _host_call(loss, step, summary_dir):
    def write_summaries(global_step, loss, learning_rate, gradient_norm):
        # One value per core; learning rate and norm are the same on all.
        writer = tf2.summary.create_file_writer(summary_dir)
        checked = tf.concat([loss, gradient_norm], axis=0)
        is_finite = tf.reduce_all(tf.math.is_finite(checked))
        check = tf.debugging.Assert(is_finite, [_NOT_FINITE, checked])
        with (
            tf.control_dependencies([check]),
            writer.as_default(),
            tf2.summary.record_if(True),
        ):
            global_step = tf.cast(global_step[0], tf.int64)
            tf2.summary.scalar("loss", tf.reduce_mean(loss), step=global_step)
            tf2.summary.scalar("learning_rate", learning_rate[0], step=global_step)
            tf2.summary.scalar("gradient_norm", gradient_norm[0], step=global_step)
            return tf.summary.all_v2_summary_ops()

    tensors = [tf.train.get_or_create_global_step(), loss]
    tensors += [step.learning_rate, step.gradient_norm]
    # On TPU outputs are concatenated over the cores, so scalars become vectors.
    return write_summaries, [
        tf.reshape(tf.cast(tensor, tf.float32), [1]) for tensor in tensors
    ]


# Parameters of glibc's malloc, by their numbers in malloc.h.
_MALLOC_SETTINGS = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: freed bytes that are kept
    -2: 2**26,  # M_TOP_PAD: bytes requested beyond the need
    -4: 0,  # M_MMAP_MAX: separate mappings of large tensors
    -8: 1,  # M_ARENA_MAX: pools; with one, any tensor can reuse all freed memory
}


def keep_freed_memory():
    """Makes glibc's allocator, if it is used, keep freed memory.

    By default it returns the memory of each large tensor to the system: tens of
    thousands of page faults in a training step, 10 to 20 % of its processor time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in _MALLOC_SETTINGS.items():
            mallopt(setting, value)


def cpu_shards(batch_sizes):
    """The number of intra-batch shards on this machine's CPU; 1: no batch is split.

    One core computes each shard; without shards, all cores share each operation and
    wait for each other after it. All batches of a process, of these sizes, are split
    alike: by the number of cores, or not at all.
    """
    if tf.config.list_physical_devices("GPU"):
        return 1
    cores = distribution.available_cores()
    is_split = cores <= _MAX_SHARDS and min(batch_sizes) >= _SHARD_EXAMPLES * cores
    return cores if is_split else 1


def session_config(shards=1):
    """The `tf.ConfigProto` for CPU and GPU; for `shards` see `cpu_shards`."""
    config = tf.ConfigProto(allow_soft_placement=True)
    if shards > 1:
        config.intra_op_parallelism_threads = 1
        config.inter_op_parallelism_threads = shards
    cpus = [name for name in distribution.local_devices() if name.startswith("/cpu")]
    config.device_count["CPU"] = max(1, len(cpus))
    rewriter = rewriter_config_pb2.RewriterConfig
    options = config.graph_options.rewrite_options
    # The memory optimizer replaces sums of large tensors by accumulation in temporary
    # variables, which takes a tenth of a training step on CPU.
    options.memory_optimization = rewriter.NO_MEM_OPT
    # These take half of the graph optimizer's time, and make no step faster.
    options.meta_optimizer_iterations = rewriter.ONE
    options.constant_folding = rewriter.OFF
    options.layout_optimizer = rewriter.OFF
    options.loop_optimization = rewriter.OFF
    return config


def train(model_fn, settings, input_fn, progress_hook, last_step, evaluation=None):
    """Trains up to `last_step`, on all devices and machines of a `settings.Run`.

    `progress_hook` is a `progress.ProgressHook`, `evaluation` an `Evaluation` of
    `periodic_evaluation`, or None.

    Raises:
      UserError: the loss or a gradient was not finite.
      signals.StoppedBySignal: after a checkpoint of the last step.
    """
    devices = settings.devices

    def train_on_strategy(hooks, strategy=None, master=None):
        task_estimator = make_estimator(model_fn, settings, strategy, master)
        if not devices.use_tpu:
            # Runs before the Estimator's `NanTensorHook`, so that it has the values.
            hooks = [*hooks, progress_hook]
            if devices.cluster is None:
                # The Estimator's saver hook would run before `progress_hook`, and
                # checkpoints would lack the last loss.
                hooks.append(
                    CheckpointHook(
                        settings.output_dir,
                        save_steps=settings.save_checkpoints_steps,
                        eval_steps=evaluation.eval_steps if evaluation else 0,
                        listeners=evaluation and [evaluation],
                        save_graph_def=settings.write_graph,
                    )
                )
        has_losses = settings.is_chief and not devices.use_tpu
        save = SaveHook(settings.output_dir, progress_hook if has_losses else None)
        hooks = [*hooks, save, signals.StopHook(request)]
        try:
            task_estimator.train(input_fn, hooks=hooks, max_steps=last_step)
        except estimator.NanLossDuringTrainingError:
            raise _divergence_error(settings.output_dir, progress_hook) from None
        except tf.errors.InvalidArgumentError as error:
            if _NOT_FINITE not in str(error):
                raise
            raise _divergence_error(settings.output_dir, progress_hook) from None

    with signals.record_signal() as request:
        if evaluation:
            evaluation.stop_request = request
        distribution.run(
            devices.distribution_strategy,
            session_config(devices.shards),
            devices.cluster,
            last_step,
            train_on_strategy,
        )
    distribution.remove_worker_files(settings.output_dir, devices.cluster)
    if request.number is not None:
        raise signals.StoppedBySignal(
            request.number,
            "stopped after step %d of %d, with a checkpoint; the same command "
            "resumes from there" % (request.step, settings.num_train_steps),
        )


def prepare_summaries(folder, write_graph):
    """Creates the cached writer of a folder's event file, which the Estimator uses."""
    # A new writer writes the default graph, here an empty one.
    with tf.Graph().as_default():
        writer = tf.summary.FileWriterCache.get(folder)
    if writer in _prepared_writers:
        return
    _prepared_writers.add(writer)
    if not write_graph:
        writer.add_graph = writer.add_meta_graph = lambda *_, **__: None
    hook = threading.excepthook
    if getattr(hook, "func", None) is not _ignore_writer_error:
        threading.excepthook = functools.partial(_ignore_writer_error, hook)
    events, explained = writer.event_writer, disk.explain_errors(folder)
    events.add_event = explained(events.add_event)
    events.flush = explained(events.flush)


def prepare_evaluation(folder):
    """Makes the Estimator write no scalars of evaluations, see `write_scalars`.

    Their tags differ from those of training and of the task's metrics.
    """
    prepare_summaries(folder, write_graph=False)
    tf.summary.FileWriterCache.get(folder).add_summary = lambda *_, **__: None


def write_scalars(folder, step, values):
    """Writes a dict from name to number to the event file of evaluations."""
    prepare_evaluation(folder)
    writer, summary = tf.summary.FileWriterCache.get(folder), tf.Summary()
    for name, value in values.items():
        summary.value.add(tag=name, simple_value=value)
    tf.summary.FileWriter.add_summary(writer, summary, step)
    writer.flush()


_prepared_writers = weakref.WeakSet()


def _ignore_writer_error(hook, failure):
    # The writer's next call raises the error of its thread again.
    if failure.thread is None or failure.thread.name != _EVENT_THREAD:
        hook(failure)


class SaveHook(estimator.SessionRunHook):
    """Writes the last losses before each checkpoint, and explains failed saves.

    Removes the files of a failed save. TensorFlow raises `OutOfRangeError` if a file
    exceeds the system's size limit, which the Estimator takes for the end of the input:
    training would end as if it were complete.
    """

    def __init__(self, output_dir, progress_hook=None):
        """Takes the folder, and the `ProgressHook` if losses are written."""
        self._output_dir = output_dir
        self._progress_hook = progress_hook

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
                if self._progress_hook is not None:
                    self._progress_hook.write_losses(prefix)
                saved = save(session, path, *args, global_step=global_step, **kwargs)
            except UserError:
                for path in files.list_with_prefix(prefix, "[_.]*"):
                    files.remove(path)
                raise
            if self._progress_hook is not None:
                progress.remove_stale_losses(self._output_dir)
            return saved

        saver.save = save_or_clear


def _divergence_error(output_dir, progress_hook):
    values, step = progress_hook.last_values, ""
    if values is not None:
        step = " in step %d: loss %g, gradient norm %g, learning rate %g" % (
            progress_hook.steps_done,
            values["loss"],
            values["gradient_norm"],
            values["learning_rate"],
        )
        if progress_hook.steps_done == 1:
            return UserError(
                "training diverged%s. No update came before, so no training "
                "setting is the cause: the weights of `init_checkpoint`, or the labels "
                "of a regression, are too large for float32" % step
            )
    return UserError(
        "training diverged%s. Nothing was written after the last good checkpoint, "
        "%s. Train again with a lower `learning_rate`, `adam_bias_correction`=true or "
        "a longer `warmup_proportion`, and a new `output_dir`"
        % (step, checkpoints.latest(output_dir))
    )


def make_estimator(model_fn, settings, strategy=None, master=None):
    """The `TPUEstimator`, on CPU and GPU an ordinary Estimator.

    Strategy and master are for training on several devices; evaluation and prediction
    use one device.
    """
    devices, cluster = settings.devices, None
    if devices.use_tpu and devices.tpu_name:
        cluster = tf.distribute.cluster_resolver.TPUClusterResolver(
            devices.tpu_name, zone=devices.tpu_zone, project=devices.gcp_project
        )
    run_config = estimator.tpu.RunConfig(
        cluster=cluster,
        master=master or devices.master,
        train_distribute=strategy,
        model_dir=settings.output_dir,
        keep_checkpoint_max=CHECKPOINTS_KEPT,
        checkpoint_save_graph_def=settings.write_graph,
        tf_random_seed=settings.seed,
        save_checkpoints_steps=settings.save_checkpoints_steps,
        # Only the chief writes event files.
        log_step_count_steps=LOG_STEPS if settings.is_chief else None,
        session_config=None if devices.use_tpu else session_config(devices.shards),
        # At least 50 points per curve.
        save_summary_steps=max(1, min(100, (settings.num_train_steps or 100) // 50)),
        tpu_config=estimator.tpu.TPUConfig(
            iterations_per_loop=devices.iterations_per_loop,
            num_shards=devices.num_tpu_cores,
            per_host_input_for_training=estimator.tpu.InputPipelineConfig.PER_HOST_V2,
        ),
    )
    return estimator.tpu.TPUEstimator(
        use_tpu=devices.use_tpu,
        model_fn=model_fn,
        config=run_config,
        train_batch_size=settings.train_batch_size,
        eval_batch_size=settings.eval_batch_size,
        predict_batch_size=settings.predict_batch_size,
    )
