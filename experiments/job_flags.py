"""The command line of a job's run, and the settings and files its result depends on."""

import os
import re
import shlex
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from errors import UserError
from experiments import datasets, grid, results
from system import files
from weights import adapter_package, checkpoints

# The folder of the programs that jobs run.
PROGRAMS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# The flags of the encoder.
BASE = ("init_checkpoint", "bert_config_file", "vocab_file")

# Flags that make a job, or name its folders: --run_flags cannot give them.
OWN_FLAGS = {
    *("task_config", "task_name", "data_dir", "output_dir"),
    *("train_file", "predict_file"),
    *("train_policy", "adapter_size", "adapter_init_scale", "adapters"),
    "adapter_placement",
    *("ablate_adapter_layers", "adapter_layers", "do_train", "do_eval", "do_predict"),
    *("learning_rate", "num_train_epochs", "adam_bias_correction", "seed"),
    "keep_best",  # Results are those of the last checkpoint.
}

# Flags of files, which are compared by their digests.
_INPUTS = {*BASE, "data_dir", "task_config", "train_file", "predict_file"}
# Paths in --work_dir, machines and verbosity: they change no result.
_NOT_COMPARED = {
    *("output_dir", "adapters", "verbosity", "master"),
    *("tpu_name", "tpu_zone", "gcp_project"),
}


class SweepSettings(NamedTuple):
    """Settings that all jobs of a sweep share."""

    work_dir: str
    glue_dir: str
    task_files: Mapping[str, str]  # from a task's name to its file
    flags: Mapping[str, Any]  # of the jobs' program: `BASE`, and --run_flags
    gpus: tuple[str, ...] = ()  # their names, dealt out to the jobs; (): left alone
    digests: Mapping[str, Mapping] = MappingProxyType({})  # by task, `input_digests`
    squad_dir: str = ""  # folder of sets of questions


def parse_run_flags(text):
    """--run_flags as a dict.

    Raises:
      UserError: it is no list of flags, or has one that a job sets.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError("`run_flags`=%.200r: %s" % (text, error)) from None
    found = {}
    for word in words:
        match = re.fullmatch(r"--(\w+)=(.*)", word)
        if not match:
            raise UserError(
                "`run_flags`: %.80r is no flag with its value, such as --xla=true"
                % word
            )
        name, value = match.groups()
        if name in OWN_FLAGS or name in BASE:
            raise UserError(
                "`run_flags`: --%s is a matter of the grid, or a flag of this program"
                % name
            )
        found[name] = value
    return found


def make_flags(job, settings):
    """The flags of a job's program, a dict.

    The user's flags for all jobs override lengths and batches of the grid, and the
    job's own flags override both.
    """
    dataset = datasets.find(job.task)
    values = dict(dataset.make_flags(settings))
    if not job.without:
        values["train_batch_size"] = dataset.batch_size or grid.BATCH_SIZE
        values["checkpoint_content"] = "trained"  # Small, and the same numbers.
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
    """The command line of a job, a list of arguments."""
    values = sorted(make_flags(job, settings).items())
    program = os.path.join(PROGRAMS, datasets.find(job.task).program)
    return [sys.executable, program, *("--%s=%s" % pair for pair in values)]


def input_digests(name, settings):
    """Digests of the files that a task's jobs read: a dict from flag or file name.

    Raises:
      UserError: the checkpoint or a required file is missing.
    """
    dataset = datasets.find(name)
    paths = {flag: settings.flags[flag] for flag in BASE if flag != "init_checkpoint"}
    for file, path in dataset.find_files(settings).items():
        if tf.io.gfile.exists(path):
            paths[file] = path
        elif file in dataset.required_files(settings):
            raise UserError("there is no %s; %s" % (path, dataset.remedy(settings)))
    digests = {key: files.digest(path) for key, path in paths.items()}
    checkpoint = checkpoints.Checkpoint(settings.flags["init_checkpoint"])
    return {**digests, "init_checkpoint": checkpoint.index_digest()}


def _differences(job, result, settings):
    """Differences of a result's flags and inputs from the current ones, as texts."""
    then, now = result.flags, make_flags(job, settings)
    names = {*then, *now} - _NOT_COMPARED
    if not all(settings.flags.get(name) for name in BASE):
        names &= set(settings.flags)
    digests = settings.digests.get(job.task)
    if result.inputs and digests:
        names -= _INPUTS
        for name in sorted({*result.inputs, *digests}):
            if result.inputs.get(name) != digests.get(name):
                yield "%s is another file now" % name
    for name in sorted(names):
        if str(then.get(name)) != str(now.get(name)):
            values = (each.get(name, "not given") for each in (then, now))
            yield "--%s is %s there and %s now" % (name, *values)


def check_same_settings(known, settings):
    """Refuses results of another encoder, data or settings than those of now.

    Results of jobs that are repeated may differ. Where `settings` lacks a flag of the
    encoder, as those of a report may, only the flags that it has are compared.

    Raises:
      UserError: naming a job, what differs, and both values.
    """
    for job, result in known.items():
        found = list(_differences(job, result, settings))
        if found and result.status not in results.REPEATED:
            raise UserError(
                "`work_dir`=%s holds a result of other settings, %s: %s; give the same "
                "again, another `work_dir`, or delete the folders of such jobs, and "
                "they are run again"
                % (settings.work_dir, job.name, ", ".join(found[:4]))
            )
