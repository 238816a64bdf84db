"""Training of a run: resuming, checkpoints, evaluations at their steps, the package."""

import tensorflow.compat.v1 as tf

from system import console, disk, files
from training import estimators, periodic_evaluation, progress, run_log, scoring
from weights import checkpoints, diagnosis, run_package, run_record


def train(run):
    """Trains up to the last step, unless it has been reached, and writes the package.

    Resumes from the last checkpoint in `output_dir`, if any. Returns the
    `diagnosis.Diagnostics` of the trained weights and the `Evaluation.results` of
    `periodic_evaluation`.
    """
    settings, step_reached = run.settings, run.step_reached
    labels = run.task.type.read_labels(run.inputs.examples[run.task.train.name])
    losses = []
    if step_reached is not None:
        losses = progress.read_losses(checkpoints.latest(settings.output_dir))
    progress_hook = progress.ProgressHook(
        settings,
        run.task.type.baseline_loss(labels),
        skips_infinite=run.training["precision"] == "float16",
        losses=losses,
    )
    results, is_complete = {}, (step_reached or 0) >= settings.num_train_steps
    is_complete = is_complete or periodic_evaluation.stops_early(run, step_reached)
    is_due = periodic_evaluation.is_due(run, step_reached)
    if is_due and (is_complete or settings.devices.use_tpu):
        results = _evaluate_checkpoint(run, progress_hook)
    if is_complete:
        console.say(
            "Training in %s has already reached step %d of %d: nothing to train",
            settings.output_dir,
            step_reached,
            settings.num_train_steps,
        )
        diagnostics = run.diagnostics
        if diagnostics.training is None:
            diagnostics = diagnostics._replace(training=progress_hook.diagnose())
        if tf.io.gfile.exists(run_package.package_folder(settings.output_dir)):
            return diagnostics, results
    else:
        results = _train_remaining_steps(run, progress_hook)
        diagnostics = diagnosis.Diagnostics(training=progress_hook.diagnose())
    if settings.is_chief:
        run_record.write_diagnostics(settings.output_dir, diagnostics)
        run_package.write(settings.output_dir, run.package, diagnostics)
    return diagnostics, results


def _evaluate_checkpoint(run, progress_hook):
    """Evaluates the last checkpoint in a new session."""
    estimator = estimators.make_estimator(run.model_fn, run.settings)
    estimators.prepare_evaluation(estimator.eval_dir())
    results = {
        split.name: scoring.evaluate_split(estimator, run, split)
        for split in run.task.dev
    }
    periodic_evaluation.record(run, results, progress_hook)
    return results


def _train_remaining_steps(run, progress_hook):
    settings, split = run.settings, run.task.train
    output_dir = settings.output_dir
    input_fn = run.inputs.make_input_fn(split, "train")
    examples = len(run.inputs.examples[split.name])
    features = run.inputs.write_features(split, "train").counts.features
    run_log.log_training(settings, examples, features, run.training)
    if run.step_reached is not None:
        console.say("Resuming the run in %s from step %d", output_dir, run.step_reached)
    if settings.is_chief:
        run_record.write_diagnostics(output_dir, None)
        # An interrupted save leaves these.
        for path in files.list_folder(output_dir, "model.ckpt-*_temp*"):
            files.remove(path)
        _warn_about_space(settings)
        estimators.prepare_summaries(output_dir, settings.write_graph)
    eval_steps, last_step = run.dev_evaluation.eval_steps, settings.num_train_steps

    def train_until(step, evaluation=None):
        estimators.train(
            run.model_fn, settings, input_fn, progress_hook, step, evaluation
        )

    if not eval_steps:
        train_until(last_step)
        return {}
    if not settings.devices.use_tpu:
        evaluation = periodic_evaluation.Evaluation(run, progress_hook)
        train_until(last_step, evaluation)
        return evaluation.results
    for step in periodic_evaluation.stop_steps(
        eval_steps, run.step_reached or 0, last_step
    ):
        train_until(step)
        results = _evaluate_checkpoint(run, progress_hook)
        if periodic_evaluation.stops_early(run, step):
            break
    return results


def _warn_about_space(settings):
    """Warns if the run's checkpoints will need more space than is free."""
    record = run_record.read(settings.output_dir)
    counts, content = record["parameters"], record["identity"]["checkpoint_content"]
    saved = "total" if content == checkpoints.ALL else "trained"
    size = 4 * (counts[saved] + 2 * counts["trained"])  # Adam's moments are saved too.
    # At the start, at each interval and at the end; the next one is written before the
    # oldest is deleted.
    written = 2 + (settings.num_train_steps - 1) // settings.save_checkpoints_steps
    count = min(written, estimators.CHECKPOINTS_KEPT + 1)
    existing = sum(
        tf.io.gfile.stat(path).length
        for path in files.list_folder(settings.output_dir, "model.ckpt-*")
    )
    folder, need = settings.output_dir, count * size - existing
    if "://" not in folder and (free := disk.free_bytes(folder)) < need:
        console.warn(
            "%s: %d checkpoints of %s need %s, and %s are free there: make space, or "
            "the run will end before its last step",
            *(folder, count, *map(disk.format_size, (size, need, free))),
        )
