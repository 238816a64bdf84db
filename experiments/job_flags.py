"""Command lines of jobs, and the settings and files on which results depend."""

import os
import re
import shlex
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from errors import UserError, explain_value_errors
from experiments import datasets, grid, results
from system import files
from weights import adapter_package, base_model, checkpoints

PROGRAMS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # their folder

BASE = base_model.BaseFiles._fields  # flags of the encoder

# Flags of the grid and of folders, not allowed in --run_flags.
OWN_FLAGS = {
    *("task_config", "task_name", "data_dir", "output_dir"),
    *("train_file", "predict_file"),
    *("train_policy", "adapter_size", "adapter_init_scale", "adapters"),
    "adapter_placement",
    *("ablate_adapter_layers", "adapter_layers", "do_train", "do_eval", "do_predict"),
    *("learning_rate", "num_train_epochs", "adam_bias_correction", "seed"),
    "keep_best",  # Results are of the last checkpoint.
}

# Flags of files, compared by digest.
_INPUTS = {*BASE, "data_dir", "task_config", "train_file", "predict_file"}
# Flags without influence on results: paths in --work_dir, machines, verbosity.
_NOT_COMPARED = {
    *("output_dir", "adapters", "verbosity", "master"),
    *("tpu_name", "tpu_zone", "gcp_project"),
}


class SweepSettings(NamedTuple):
    """Settings of all jobs of a sweep."""

    work_dir: str
    glue_dir: str
    task_files: Mapping[str, str]  # by task name
    flags: Mapping[str, Any]  # of the jobs' program: `BASE` and --run_flags
    gpus: tuple[str, ...] = ()  # GPU ids, one per job; (): jobs see all GPUs
    digests: Mapping[str, Mapping] = MappingProxyType({})  # `input_digests` by task
    squad_dir: str = ""  # folder of SQuAD files


def parse_run_flags(text):
    """Parses --run_flags to a dict.

    Raises:
      UserError: the text is no list of flags, or has a flag of `OWN_FLAGS` or `BASE`.
    """
    with explain_value_errors("`run_flags`=%.200r" % text):
        arguments = shlex.split(text)
    values = {}
    for argument in arguments:
        match = re.fullmatch(r"--(\w+)=(.*)", argument)
        if not match:
            raise UserError(
                "`run_flags`: %.80r is not a flag with its value, such as --xla=true"
                % argument
            )
        name, value = match.groups()
        if name in OWN_FLAGS or name in BASE:
            raise UserError(
                "`run_flags`: --%s is set by the grid, or a flag of this program" % name
            )
        values[name] = value
    return values


def make_flags(job, settings):
    """Dict of the flags of a job's program.

    `settings.flags` override lengths and batch sizes; the job's fields override both.
    """
    dataset = datasets.find(job.task)
    values = dict(dataset.make_flags(settings))
    if not job.without:
        values["train_batch_size"] = dataset.batch_size or grid.BATCH_SIZE
        values["checkpoint_content"] = "trained"  # Smaller; results are the same.
    values.update(settings.flags)
    values["output_dir"] = results.job_folder(settings.work_dir, job)
    values["train_policy"] = job.policy
    values["do_eval"] = "true"
    if job.adapter_size:
        values["adapter_size"] = job.adapter_size
    if job.placement:
        values["adapter_placement"] = job.placement
    if job.without:
        package = results.job_folder(settings.work_dir, job.trained)
        values["adapters"] = os.path.join(package, adapter_package.FOLDER)
        values["ablate_adapter_layers"] = job.without
        return values
    if job.init_scale:
        values["adapter_init_scale"] = job.init_scale
    values.update(
        do_train="true",
        do_predict="true",
        learning_rate=job.learning_rate,
        num_train_epochs=job.epochs,
        adam_bias_correction=str(job.is_corrected).lower(),
        seed=job.seed,
    )
    return values


def make_command(job, settings):
    """List of the arguments of a job's command line."""
    values = sorted(make_flags(job, settings).items())
    program = os.path.join(PROGRAMS, datasets.find(job.task).program)
    return [sys.executable, program, *("--%s=%s" % pair for pair in values)]


def input_digests(name, settings):
    """Dict from flag or file name to digest, for all files of a task's jobs.

    Raises:
      UserError: a file is missing.
    """
    dataset = datasets.find(name)
    paths = {flag: settings.flags[flag] for flag in BASE if flag != "init_checkpoint"}
    for file, path in dataset.find_files(settings).items():
        if not tf.io.gfile.exists(path):
            raise UserError("there is no %s; %s" % (path, dataset.remedy(settings)))
        paths[file] = path
    digests = {key: files.digest(path) for key, path in paths.items()}
    checkpoint = checkpoints.Checkpoint(settings.flags["init_checkpoint"])
    return {**digests, "init_checkpoint": checkpoint.index_digest()}


def _differences(job, result, settings):
    """Yields the differences between a result's flags and inputs and current ones."""
    then, now = result.flags, make_flags(job, settings)
    names = {*then, *now} - _NOT_COMPARED
    if not all(settings.flags.get(name) for name in BASE):
        names &= set(settings.flags)
    digests = settings.digests.get(job.task)
    if result.inputs:
        names -= _INPUTS
        # Without digests, as in a report, files are not compared.
        for name in sorted({*result.inputs, *digests} if digests else ()):
            if result.inputs.get(name) != digests.get(name):
                yield "%s is another file now" % name
    for name in sorted(names):
        if str(then.get(name)) != str(now.get(name)):
            values = (each.get(name, "not given") for each in (then, now))
            yield "--%s is %s there and %s now" % (name, *values)


def check_same_settings(job_results, settings):
    """Refuses results of another encoder, other data or other settings.

    Ignores jobs to repeat, and flags that `settings` lacks, as of a report.

    Raises:
      UserError: names a job, the differences, and both values.
    """
    for job, result in job_results.items():
        differences = list(_differences(job, result, settings))
        if differences and result.status not in results.REPEATED:
            raise UserError(
                "`work_dir`=%s holds a result of other settings, %s: %s; give the same "
                "settings, give another `work_dir`, or delete the folders of these "
                "jobs to run them again"
                % (settings.work_dir, job.name, ", ".join(differences[:4]))
            )
