"""Runs an experiment of the paper: trains, selects, writes tables and plots.

    python reproduce_paper.py EXPERIMENT --preset=paper|small --work_dir=FOLDER ...

A grid point with one seed is one process of run_classifier.py, or of run_squad.py. The
same command again runs what is missing or has failed. Report and plots:
WORK_DIR/EXPERIMENT/report.md.
"""

import system.startup  # noqa: F401  (before TensorFlow)

import itertools
import os
import re
import shlex

from absl import flags

import command_line
import glue_data
import modeling
import tokenization
from errors import UserError
from experiments import (
    datasets,
    grid,
    job_flags,
    processes,
    ray_launcher,
    reports,
    results,
    selection,
)
from experiments.catalogue import EXPERIMENTS
from system import console, files, wording
from system.wording import pluralize, thousands

# Layers of an encoder that is not given: BERT-base, and MiniLM.
_LAYERS = {grid.PAPER: 12, grid.SMALL: 6}
_GPUS = "/proc/driver/nvidia/gpus"
_OTHER_LAUNCHERS_FLAGS = {"local": ("cpus_per_job", "gpus_per_job"), "ray": ("gpus",)}

_TEXTS = {
    "preset": "The paper's grid, or a small one for a small encoder on CPU.",
    "tasks": "GLUE tasks instead of the preset's, such as MRPC,RTE.",
    "task_configs": "Files that describe further tasks (docs/tasks.md), added to the "
    "experiment; table2 needs them.",
    "seeds": "Number of seeds, counted from 1, instead of the preset's.",
    "work_dir": "Folder of all jobs, results and reports.",
    "glue_dir": "Folder with a folder for each GLUE task, as glue_data.py writes it.",
    "squad_dir": "Folder of SQuAD's files, as fetch_squad.py writes it.",
    "run_flags": "More flags of the jobs' program for all jobs, such as "
    '"--xla=true --precision=bfloat16".',
    "launcher": "Where jobs run: on this machine, or on the Ray cluster that the "
    "environment variable RAY_ADDRESS names.",
    "jobs": "Jobs that run at a time.",
    "gpus": "GPUs of this machine, of those that CUDA_VISIBLE_DEVICES lists: each job "
    "that runs sees one of them. 0: all jobs see all.",
    "cpus_per_job": "CPUs of a job on Ray.",
    "gpus_per_job": "GPUs of a job on Ray; with 0.5 two share one.",
    "shard": "Run a part of the jobs: 0/4 is the first of four parts.",
    "job": "Run the one job of this name, as --list prints it.",
    "list": "Print each job as a command.",
    "dry_run": "Print how many jobs are left, and how long they will take.",
    "report_only": "Run nothing: report on existing results.",
}


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    define = command_line.flag_definer(_TEXTS, flag_values)
    # Each seed takes memory for all jobs of the grid.
    from_0 = {"lower_bound": 0, "upper_bound": 1000}
    from_1 = {"lower_bound": 1, "upper_bound": 1000}
    return {
        "What": (
            define(flags.DEFINE_enum, "preset", None, grid.PRESETS),
            define(flags.DEFINE_list, "tasks", None),
            define(command_line.DEFINE_path_list, "task_configs"),
            define(flags.DEFINE_integer, "seeds", None, **from_1),
        ),
        "Files": (
            define(command_line.DEFINE_path, "work_dir", has_checkpoint=True),
            define(command_line.DEFINE_path, "glue_dir"),
            define(command_line.DEFINE_path, "squad_dir"),
            *command_line.define_base_flags(flag_values),
            define(flags.DEFINE_string, "run_flags", ""),
        ),
        "How": (
            define(flags.DEFINE_enum, "launcher", "local", ("local", "ray")),
            define(flags.DEFINE_integer, "jobs", 1, **from_1),
            define(flags.DEFINE_integer, "gpus", 0, **from_0),
            define(flags.DEFINE_float, "cpus_per_job", 1, **from_0),
            define(flags.DEFINE_float, "gpus_per_job", 0, **from_0),
            define(flags.DEFINE_string, "shard", None),
            define(flags.DEFINE_string, "job", None),
            define(flags.DEFINE_bool, "list", False),
            define(flags.DEFINE_bool, "dry_run", False),
            define(flags.DEFINE_bool, "report_only", False),
        ),
    }


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
        if name in {*found, *glue_data.GLUE_TASKS, *datasets.QUESTIONS}:
            raise UserError(
                "--task_configs: %s: there is another task %s; rename the file"
                % (path, name)
            )
        found[name] = path
    return found


def _find_task(name, experiment):
    """The name in `datasets` of an element of --tasks."""
    if name in (*experiment.paper.tasks, *experiment.small.tasks):
        return name
    found = glue_data.get_task(name).name
    if not datasets.find(found).examples:
        raise UserError("--tasks: %s has no training set" % found)
    return found


def make_study(experiment, values):
    """The `grid.Study` of a `grid.Experiment` with the flags' values, without results.

    Raises:
      UserError: a flag is wrong or missing.
    """
    preset = experiment.preset(values.preset)
    tasks = preset.tasks
    if values.tasks is not None:
        tasks = tuple(_find_task(name, experiment) for name in values.tasks)
    tasks = (*dict.fromkeys(tasks), *_task_files(values.task_configs))
    if not tasks:
        raise UserError(
            "no task is given: name some with --tasks, or files of further tasks with "
            "--task_configs (docs/tasks.md)"
        )
    layers = _LAYERS[values.preset]
    if values.bert_config_file:
        config = modeling.BertConfig.from_json_file(values.bert_config_file)
        layers = config.num_hidden_layers
    seeds = values.seeds or preset.seeds
    study = grid.Study(
        values.preset,
        tasks,
        layers,
        seeds,
        values.work_dir,
        selects_by_first_seed=preset.selects_by_first_seed,
    )
    return study._replace(jobs=tuple(experiment.jobs(study)))


def _select_jobs(study, values):
    """The jobs of a study that --shard and --job name."""
    jobs = study.jobs
    if values.shard:
        jobs = select_shard(study, values.shard)
    if values.job:
        jobs = [job for job in jobs if job.name == values.job]
        if not jobs:
            raise UserError(
                "--job=%.200s: there is no such job; --list prints all" % values.job
            )
    return jobs


def select_shard(study, text):
    """The jobs of the shard that a text such as "0/4" names.

    A training run and its evaluations are in the same shard, and so are all seeds of a
    setting if later ones are due for some settings only.
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(
            "--shard=%.40s: give the part and their number, from 0/4 to 3/4" % text
        )
    number, count = int(match[1]), int(match[2])
    of_seeds = {"seed": 0} if study.selects_by_first_seed else {}
    units = [job.trained._replace(**of_seeds) for job in study.jobs]
    selected = set(list(dict.fromkeys(units))[number::count])
    return [job for job, unit in zip(study.jobs, units) if unit in selected]


def _command(name, values):
    """The command line of this run, without the flags of how it runs."""
    groups = define_flags(flags.FlagValues())
    given = [values[holder.name] for holder in (*groups["What"], *groups["Files"])]
    words = [flag.serialize() for flag in given if flag.present]
    return shlex.join(["python", "reproduce_paper.py", name, *words])


def _gpu_names(count):
    """The GPUs to assign, as CUDA_VISIBLE_DEVICES names them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        # CUDA ignores what follows an entry that is no device.
        names = listed.replace(" ", "").split(",")
        names = list(itertools.takewhile(lambda name: name and name[0] != "-", names))
        place = "CUDA_VISIBLE_DEVICES=%s" % listed
    elif os.path.isdir(_GPUS):
        names = [str(number) for number in range(len(os.listdir(_GPUS)))]
        place = "this machine"
    else:
        return tuple(str(number) for number in range(count))
    if count > len(names):
        raise UserError(
            "--gpus=%d: %s has %s" % (count, place, pluralize(len(names), "GPU"))
        )
    return tuple(names[:count])


def _check_writable(folder):
    """Refuses a folder in --work_dir that cannot be written, before jobs run."""
    with files.working_folder(os.path.join(folder, "writable")):
        pass


def _duration(seconds):
    for size, noun in ((3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return "%.1f %s" % (seconds / size, noun)
    return "%.0f seconds" % seconds


def plan_text(jobs, job_results, settings, later=0):
    """How many jobs and training steps are left, and for how long, as lines.

    `later` is the number of jobs that may become due, see `selection.count_pending`.
    """
    batch_size = str(settings.flags.get("train_batch_size"))
    # A wrong one is for the program to refuse.
    size = int(batch_size) if re.fullmatch("[1-9][0-9]{0,5}", batch_size) else None
    left = [job for job in jobs if not results.is_done(job, job_results)]
    count = pluralize(len(jobs), "job")
    if not left:
        return "%s, all done" % count if jobs else "no job is due"
    text = "%s, %d of them done" % (count, len(jobs) - len(left))
    if later:
        text += "; at most %d more follow, of the settings selected by seed 1" % later
    count = thousands(sum(grid.steps(job, size) for job in left))
    text += "\n%s training steps are left, by the data's official sizes" % count
    unknown = sum(job.task in settings.task_files for job in left)
    if unknown:
        text += ", and those of %s on further tasks" % pluralize(unknown, "job")
    seconds = processes.seconds_left(jobs, job_results)
    if seconds is None:
        return text + "\nthe first finished job will show how long they take"
    return text + "\nabout %s are left, one job at a time" % _duration(seconds)


def _write_report(folder, experiment, study, command, pending):
    """Writes the report on all jobs of the study; for `pending` see `start_report`."""
    report = reports.start_report(study, experiment.title, pending)
    experiment.write_report(study, report)
    reports.finish_report(study, report, command)
    path = report.write(folder)
    if results.has_jobs(study.work_dir):
        # The archive may have more results, of other tasks or from another machine.
        archive = results.read_archive(folder)
        results.add_results(archive, study.results)
        results.write_archive(folder, archive)
    console.say("Report: %s", path)


def _prepare_jobs(jobs, settings, values):
    """Checks what jobs need; returns settings with GPUs and digests.

    A dry run needs neither encoder nor data, and checks them where all are given.
    """
    for name in _OTHER_LAUNCHERS_FLAGS[values.launcher]:
        if values[name].present:
            raise UserError(
                "--%s does not go with --launcher=%s" % (name, values.launcher)
            )
    settings = settings._replace(gpus=_gpu_names(values.gpus))
    if values.launcher == "ray":
        ray_launcher.check_installed()
    required = [*job_flags.BASE]
    needed = {datasets.find(job.task).folder_flag for job in jobs}
    required += sorted(needed - {""})
    if values.dry_run and not all(values[name].value for name in required):
        return settings
    command_line.check_required(values, required)
    tokenization.FullTokenizer(values.vocab_file)
    tasks = {job.task for job in jobs}
    digests = {task: job_flags.input_digests(task, settings) for task in tasks}
    return settings._replace(digests=digests)


def _read_results(study, experiment=None):
    """The study with the results that its folder has now."""
    job_results = results.read_all(study.work_dir, study.jobs, experiment)
    return study._replace(results=job_results)


def _exit_status(jobs, job_results):
    """0, or 1 where jobs are not finished, which is reported."""
    left = [job for job in jobs if not results.is_done(job, job_results)]
    if not left:
        return 0
    statuses = [each.status for each in results.list_results(left, job_results)]
    held = statuses.count(results.HELD)
    console.warn(
        "%d of %s not finished, %d of them failed%s: the same command runs them again",
        len(left),
        pluralize(len(jobs), "job"),
        statuses.count(results.FAILED),
        ", %d held by another process or its lock file (see above: first wait for it, "
        "or delete the file)" % held
        if held
        else "",
    )
    return 1


def _run_jobs(candidates, study, settings, values):
    """Runs the jobs that are due, until no more become due.

    Returns the exit status, and the study with all results.
    """
    start = processes.Process
    if values.launcher == "ray":
        start = ray_launcher.start(values.cpus_per_job, values.gpus_per_job)
    ended: dict = {}
    jobs = due = selection.due_jobs(candidates, study)
    while True:
        later = selection.count_pending(candidates, due)
        console.say("%s", plan_text(jobs, study.results, settings, later))
        ended.update(processes.run(jobs, settings, values.jobs, start))
        study, begun = _read_results(study), set(due)
        due = selection.due_jobs(candidates, study)
        jobs = [job for job in due if job not in begun]
        if not jobs:
            return _exit_status(due, ended), study


def _run_experiment(name, experiment, values):
    """Runs, lists or reports on an experiment; returns the exit status."""
    if values.job and values.report_only:
        raise UserError("--job does not go with --report_only: a report is on all jobs")
    study = make_study(experiment, values)
    candidates = _select_jobs(study, values)
    if values.job:
        study = study._replace(jobs=tuple(candidates), selects_by_first_seed=False)
    if study.work_dir:
        study = _read_results(study, name)
    jobs = selection.due_jobs(candidates, study)
    if values.list:
        for job in jobs:
            print("%s --job=%s" % (_command(name, values), job.name))
        return 0
    command_line.check_required(values, ["work_dir"])
    base = {name: values[name].value for name in job_flags.BASE if values[name].value}
    settings = job_flags.SweepSettings(
        work_dir=values.work_dir,
        glue_dir=values.glue_dir or "",
        squad_dir=values.squad_dir or "",
        task_files=_task_files(values.task_configs),
        flags={**base, **job_flags.parse_run_flags(values.run_flags)},
    )
    if not values.report_only:
        settings = _prepare_jobs(jobs, settings, values)
    job_flags.check_same_settings(study.results, settings)
    if values.dry_run:
        later = selection.count_pending(candidates, jobs)
        print(plan_text(jobs, study.results, settings, later))
        return 0
    folder = os.path.join(study.work_dir, name)
    # Many runs of --job share a folder: the report is that of the command without it.
    if not values.job:
        _check_writable(folder)
    status = 0
    if not values.report_only:
        # All archives: later experiments find jobs, and read only these.
        results.import_archives(study.work_dir, EXPERIMENTS)
        _check_writable(os.path.join(study.work_dir, results.JOBS))
        status, study = _run_jobs(candidates, study, settings, values)
    if not values.job:
        due = selection.due_jobs(study.jobs, study)
        pending = selection.count_pending(study.jobs, due)
        study = study._replace(jobs=tuple(due))
        _write_report(folder, experiment, study, _command(name, values), pending)
    return status


def main(argv):
    """Runs one experiment; returns the exit status."""
    return command_line.run_with_own_flags(run, argv)


def run(argv, values):
    """Runs the program with empty `FlagValues`; may raise a `UserError`."""
    groups = define_flags(values)
    if not argv[1:] or command_line.HELP_FLAGS.intersection(argv[1:]):
        about = ["  %-14s %s" % (n, each.about) for n, each in EXPERIMENTS.items()]
        text = "\n".join([__doc__, "EXPERIMENT is one of", *about])
        command_line.print_help(text, groups, values)
        return 0 if argv[1:] else 1
    name = argv[1]
    if name not in EXPERIMENTS:
        raise UserError(
            "unknown experiment %.80r: the first argument is one of %s%s"
            % (name, ", ".join(EXPERIMENTS), wording.suggest(name, EXPERIMENTS))
        )
    positional = command_line.parse_flags([argv[0], *argv[2:]], values)
    command_line.refuse_positional_arguments(argv, positional)
    command_line.check_required(values, ["preset"])
    return _run_experiment(name, EXPERIMENTS[name], values)


if __name__ == "__main__":
    command_line.run_program(main)
