"""Runs an experiment of the paper: trains, selects, writes tables and plots.

    python reproduce_paper.py EXPERIMENT --preset=paper|small --work_dir=FOLDER ...

A cell of a grid is one process of run_classifier.py. The same command again runs what
is missing or has failed. Report and plots: WORK_DIR/EXPERIMENT/report.md.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import os
import re
import shlex
import shutil

import tensorflow.compat.v1 as tf
from absl import flags

import command_line
import glue_data
import modeling
import tokenization
from errors import UserError, reports_user_errors
from experiments import grid, pages, processes, ray_launcher, results
from experiments.catalogue import EXPERIMENTS
from system import console
from weights import checkpoints

_HELP = {"-h", "-help", "--help", "-helpshort", "--helpshort"}
_BASE = ("init_checkpoint", "bert_config_file", "vocab_file")
# Layers of an encoder that is not given: BERT-base, and MiniLM.
_LAYERS = {grid.PAPER: 12, grid.SMALL: 6}
# Flags of this run alone, which a listed command lacks.
_NOT_LISTED = (
    *("list", "dry_run", "shard", "jobs", "job", "report_only"),
    *("launcher", "cpus_per_job", "gpus_per_job"),
)


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    to = {"flag_values": flag_values}
    return {
        "What": (
            flags.DEFINE_enum(
                "preset",
                None,
                grid.PRESETS,
                "The paper's grid, or a small one for a small encoder on CPU.",
                **to,
            ),
            flags.DEFINE_list(
                "tasks",
                None,
                "Tasks of GLUE in the place of the preset's, such as MRPC,RTE.",
                **to,
            ),
            flags.DEFINE_list(
                "task_configs",
                None,
                "Files of further tasks, see docs/tasks.md; table2 has no others.",
                **to,
            ),
            flags.DEFINE_integer(
                "seeds", None, "Seeds 1 to this, in the place of the preset's.", **to
            ),
        ),
        "Files": (
            flags.DEFINE_string(
                "work_dir", None, "Folder of all jobs, results and reports.", **to
            ),
            flags.DEFINE_string(
                "glue_dir", None, "Folder of the tasks' folders, as of glue_data.", **to
            ),
            *command_line.base_flags(flag_values),
            flags.DEFINE_string(
                "run_flags",
                "",
                'More flags of run_classifier.py for all jobs, such as "--xla=true '
                '--precision=bfloat16".',
                **to,
            ),
        ),
        "How": (
            flags.DEFINE_enum(
                "launcher",
                "local",
                ("local", "ray"),
                "Where jobs run: on this machine, or on the Ray cluster that the "
                "environment variable RAY_ADDRESS names.",
                **to,
            ),
            flags.DEFINE_integer("jobs", 1, "Jobs that run at a time.", **to),
            flags.DEFINE_integer(
                "gpus",
                0,
                "GPUs of this machine: each job that runs sees one of them. 0: all "
                "jobs see all.",
                **to,
            ),
            flags.DEFINE_float("cpus_per_job", 1, "CPUs of a job on Ray.", **to),
            flags.DEFINE_float(
                "gpus_per_job",
                0,
                "GPUs of a job on Ray; with 0.5 two share one.",
                **to,
            ),
            flags.DEFINE_string(
                "shard",
                None,
                "Run a part of the jobs: 0/4 is the first of four parts.",
                **to,
            ),
            flags.DEFINE_string(
                "job", None, "Run the one job of this name, as --list writes it.", **to
            ),
            flags.DEFINE_bool("list", False, "Print each job as a command.", **to),
            flags.DEFINE_bool(
                "dry_run",
                False,
                "Say how many jobs there are, and how long they will take.",
                **to,
            ),
            flags.DEFINE_bool(
                "report_only", False, "Run nothing: report on what there is.", **to
            ),
        ),
    }


# --- what is asked for ----------------------------------------------------------


def _task_files(paths):
    """Dict from the names of tasks' files, without endings, to their paths."""
    found: dict[str, str] = {}
    for path in paths or ():
        name = os.path.splitext(os.path.basename(path))[0]
        if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
            raise UserError(
                "--task_configs: %s: name the file with letters, digits, - and _ "
                "alone, because its jobs' folders are called after it" % path
            )
        if name in found or name in glue_data.GLUE_TASKS:
            raise UserError(
                "--task_configs: %s: there is another task %s; rename the file"
                % (path, name)
            )
        found[name] = path
    return found


def make_study(experiment, values):
    """The study that the flags ask for, without results.

    Args:
      experiment: a `grid.Experiment`.
      values: this program's `FlagValues`.

    Returns:
      A `grid.Study`.

    Raises:
      UserError: a flag is wrong or missing.
    """
    tasks = experiment.tasks[values.preset]
    if values.tasks is not None:
        tasks = tuple(glue_data.get_task(name).name for name in values.tasks)
        for name in tasks:
            if grid.rows(name) is None:
                raise UserError("--tasks: %s has no rows to train on" % name)
    tasks = (*dict.fromkeys(tasks), *_task_files(values.task_configs))
    if not tasks:
        raise UserError(
            "--task_configs is required: this experiment is of further tasks, each "
            "described by a file (docs/tasks.md)"
        )
    if values.seeds is not None and values.seeds < 1:
        raise UserError("--seeds=%d: at least 1 is needed" % values.seeds)
    layers = _LAYERS[values.preset]
    if values.bert_config_file:
        config = modeling.BertConfig.from_json_file(values.bert_config_file)
        layers = config.num_hidden_layers
    study = grid.Study(
        preset=values.preset,
        tasks=tasks,
        layers=layers,
        seeds=(
            tuple(range(1, values.seeds + 1))
            if values.seeds
            else experiment.seeds[values.preset]
        ),
        work_dir=values.work_dir,
    )
    return study._replace(jobs=tuple(experiment.jobs(study)))


def part_of(jobs, text):
    """The jobs of one part; what evaluates a training is in the part of that.

    Args:
      jobs: list of `grid.Job`.
      text: such as "0/4".

    Raises:
      UserError: it is no such text.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(
            "--shard=%.40s: give the part and their number, from 0/4 to 3/4" % text
        )
    number, count = int(match[1]), int(match[2])
    trainings = list(dict.fromkeys(job.trained for job in jobs))
    chosen = set(trainings[number::count])
    return [job for job in jobs if job.trained in chosen]


def _job_named(jobs, name):
    for job in jobs:
        if job.name == name:
            return [job]
    raise UserError("--job=%.200s: there is no such job; --list prints all" % name)


def _command(name, values, without=()):
    """The command line of this run, but for some flags."""
    words = ["python", "reproduce_paper.py", name]
    for holder in _flags_in_order(values):
        if holder.present and holder.name not in without:
            words.append(holder.serialize())
    return shlex.join(words)


def _flags_in_order(values):
    own = flags.FlagValues()
    groups = define_flags(own)
    return [values[holder.name] for group in groups.values() for holder in group]


def _run_flags(text):
    """--run_flags as a dict.

    Raises:
      UserError: it has another word, or a flag that a job has by itself.
    """
    found = {}
    for word in shlex.split(text):
        match = re.fullmatch(r"--(\w+)=(.*)", word)
        if not match:
            raise UserError(
                "--run_flags: %.80r is no flag with its value, such as --xla=true"
                % word
            )
        name, value = match.groups()
        if name in processes.OWN_FLAGS or name in _BASE:
            raise UserError(
                "--run_flags: --%s is a matter of the grid, or a flag of this program"
                % name
            )
        found[name] = value
    return found


def _place(values):
    base = {name: values[name].value for name in _BASE if values[name].value}
    return processes.Place(
        work_dir=values.work_dir,
        glue_dir=values.glue_dir or "",
        task_files=_task_files(values.task_configs),
        flags={**base, **_run_flags(values.run_flags)},
        gpus=values.gpus,
    )


def check_files(place, tasks):
    """Reads what every job needs, so that not all of them fail of it.

    Args:
      place: a `processes.Place`.
      tasks: names of tasks.

    Raises:
      UserError: base, vocabulary or a task's rows are not there.
    """
    checkpoints.read_shapes(place.flags["init_checkpoint"])
    tokenization.FullTokenizer(place.flags["vocab_file"])
    for name in tasks:
        if name in place.task_files:
            glue_data.select_task(None, place.task_files[name])
            continue
        task = glue_data.get_task(name)
        path = os.path.join(place.glue_dir, task.title, task.train.filename)
        if not tf.io.gfile.exists(path):
            raise UserError(
                "--glue_dir=%s has no %s/%s: python glue_data.py --data_dir=%s "
                "--tasks=%s fetches it"
                % (
                    place.glue_dir,
                    task.title,
                    task.train.filename,
                    place.glue_dir,
                    task.title,
                )
            )


# --- what is done ---------------------------------------------------------------


def _print_plan(jobs, known):
    """What --dry_run says."""
    done = sum(processes.is_done(job, known) for job in jobs)
    print("%d jobs, %d of them done" % (len(jobs), done))
    steps = [grid.steps(job) for job in jobs]
    unknown = sum(each is None for each in steps)
    more = ", and those of %d jobs on further tasks" % unknown if unknown else ""
    print(
        "{:,} training steps of {} rows{}".format(
            sum(filter(None, steps)), grid.BATCH_SIZE, more
        )
    )
    seconds = processes.seconds_left(jobs, known)
    if seconds is None:
        print("how long they take is known when the first has ended")
    else:
        print("about %.1f hours are left, one job at a time" % (seconds / 3600))


def _report(name, experiment, study, known, values):
    """Writes the report on all jobs of the study."""
    study = study._replace(results=known)
    page = experiment.report(study)
    pages.end(study, page, _command(name, values, _NOT_LISTED))
    path = page.write(os.path.join(study.work_dir, name))
    console.say("Report: %s", path)


def _run_all(name, experiment, values):
    """Does what the flags of an experiment say; returns the exit status."""
    study = make_study(experiment, values)
    jobs = list(study.jobs)
    if values.shard:
        jobs = part_of(jobs, values.shard)
    if values.job:
        jobs = _job_named(jobs, values.job)
    if values.list:
        for job in jobs:
            print("%s --job=%s" % (_command(name, values, _NOT_LISTED), job.name))
        return 0
    command_line.check_required(values, ["work_dir"])
    known = results.read_all(study.work_dir, jobs)
    place = _place(values)
    results.check_same_base(known, place.flags)
    if values.dry_run:
        _print_plan(jobs, known)
        return 0
    if not values.report_only:
        needed = [*_BASE]
        if any(task not in place.task_files for task in study.tasks):
            needed.append("glue_dir")
        command_line.check_required(values, needed)
        if values.jobs < 1 or values.gpus < 0:
            raise UserError("--jobs=%d: at least 1 is needed" % values.jobs)
        check_files(place, dict.fromkeys(job.task for job in jobs))
        start = processes.Process
        if values.launcher == "ray":
            start = ray_launcher.start(values.cpus_per_job, values.gpus_per_job)
        known = processes.run(jobs, place, values.jobs, start)
    if values.job:
        # Many run at once; the report is that of the command without it.
        is_done = all(processes.is_done(job, known) for job in jobs)
        return 0 if is_done else 1
    known = results.read_all(study.work_dir, study.jobs)
    _report(name, experiment, study, known, values)
    return 0


def _help_text(values, groups):
    width = max(40, shutil.get_terminal_size((88, 24)).columns)
    about = [__doc__, "EXPERIMENT is one of"]
    about += ["  %-14s %s" % (name, each.about) for name, each in EXPERIMENTS.items()]
    return command_line.help_text("\n".join(about), groups, values, width)


@reports_user_errors
def main(argv):
    """Runs one experiment.

    Args:
      argv: the program's name, the experiment, then flags.

    Returns:
      The exit status.
    """
    console.start()
    for word in argv[1:]:
        command_line.check_utf_8(word, word)
    values = flags.FlagValues()
    groups = define_flags(values)
    if not argv[1:] or _HELP.intersection(argv[1:]):
        print(_help_text(values, groups), end="")
        return 0 if argv[1:] else 1
    name = argv[1]
    if name not in EXPERIMENTS:
        raise UserError(
            "%.80r is no experiment: the first word is one of %s"
            % (name, ", ".join(EXPERIMENTS))
        )
    try:
        words = values(argv[1:])
    except flags.Error as error:
        raise UserError(
            "%s; python reproduce_paper.py --help says more" % error
        ) from None
    command_line.refuse_words(words, "--preset=small")
    command_line.check_required(values, ["preset"])
    command_line.settle_paths(values)
    return _run_all(name, EXPERIMENTS[name], values)


if __name__ == "__main__":
    command_line.run_program(main)
