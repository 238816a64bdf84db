"""Data sets of jobs, with programs, flags and files: GLUE, task files, SQuAD."""

import dataclasses
import os
from collections.abc import Mapping
from types import MappingProxyType

import glue_data
from errors import UserError
from tasks import bad_rows
from tasks.squad import fetch


class Dataset:
    """A data set of a sweep. `settings` are a `job_flags.SweepSettings`.

    Attributes:
      title: name in reports.
      examples: number of training examples; 0: unknown.
      other_examples: number of dev and test examples.
      program: the module that trains and evaluates.
      folder_flag: flag of the data folder, or "".
      batch_size: training batch size; 0: the experiment's.
      best_score: maximum of the metric, as the program writes it.
      baseline: description of the baseline for reports.
    """

    title = ""
    examples = other_examples = 0
    program = "run_classifier.py"
    folder_flag = ""
    batch_size = 0
    best_score = 1.0
    baseline = "The baseline predicts the majority class, or the mean for regression."

    def make_flags(self, settings):
        """Dict of the program's flags for this data set."""
        raise NotImplementedError

    def find_metric(self, settings):
        """The name of the primary metric."""
        raise NotImplementedError

    def find_files(self, settings):
        """Dict from name to path of the files that jobs read."""
        raise NotImplementedError

    def remedy(self, settings):
        """Advice on a missing file, as text."""
        raise NotImplementedError


def _split_files(task, folder):
    return {each.filename: os.path.join(folder, each.filename) for each in task.splits}


class GlueTask(Dataset):
    """A task of GLUE's table."""

    folder_flag = "glue_dir"
    max_seq_length = 128  # of all experiments

    def __init__(self, name):
        self._task = glue_data.GLUE_TASKS[name]
        self.title = self._task.title
        splits = self._task.splits
        if self._task.train is not None:
            self.examples = self._task.train.rows
            self.other_examples = sum(split.rows for split in splits[1:])

    def _folder(self, settings):
        return os.path.join(settings.glue_dir, self.title)

    def make_flags(self, settings):
        return {
            "data_dir": self._folder(settings),
            "task_name": self._task.name,
            "max_seq_length": self.max_seq_length,
        }

    def find_metric(self, settings):
        return self._task.metrics[0]

    def find_files(self, settings):
        return _split_files(self._task, self._folder(settings))

    def remedy(self, settings):
        command = "python glue_data.py --data_dir=%s --tasks=%s fetches it"
        return command % (settings.glue_dir, self.title)


class FileTask(Dataset):
    """A task from a task file (`task_config`)."""

    def __init__(self, name):
        self.title = name

    def _load(self, settings):
        # Jobs refuse bad rows, or skip them with --run_flags=--skip_bad_rows=true.
        path = settings.task_files[self.title]
        return glue_data.select_task(None, path, bad_rows=bad_rows.BadRows())

    def make_flags(self, settings):
        return {"task_config": settings.task_files[self.title]}

    def find_metric(self, settings):
        return self._load(settings)[0].metrics[0]

    def find_files(self, settings):
        task, folder = self._load(settings)
        if not (task.train and task.dev and task.test):
            raise UserError(
                '%s: jobs train, evaluate and predict: give "train", "dev" or '
                '"dev_share", and "test"' % task.config_file
            )
        return {**_split_files(task, folder), "task_config": task.config_file}

    def remedy(self, settings):
        return "correct %s" % settings.task_files[self.title]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquadDataset(Dataset):
    """A training and a dev set of questions."""

    title: str
    train: str  # file
    dev: str
    examples: int
    other_examples: int
    lengths: Mapping  # flags of `run_squad.py`
    batch_size: int = 0

    program = "run_squad.py"
    folder_flag = "squad_dir"
    best_score = 100.0
    baseline = "The baseline is the longest capitalized phrase of the first sentence."

    def make_flags(self, settings):
        train, dev = self.find_files(settings).values()
        return {**self.lengths, "train_file": train, "predict_file": dev}

    def find_metric(self, settings):
        return "f1"

    def find_files(self, settings):
        return {
            name: os.path.join(settings.squad_dir, name)
            for name in (self.train, self.dev)
        }

    def remedy(self, settings):
        if self.train in fetch.SHA256:
            command = "python fetch_squad.py --output_dir=%s fetches it"
            return command % settings.squad_dir
        return "give the folder %s of this program, `squad_dir`" % self.title


QUESTIONS = {
    "squad": SquadDataset(
        title="SQuAD v1.1",
        train="train-v1.1.json",
        dev="dev-v1.1.json",
        examples=87_599,
        other_examples=10_570,
        lengths=MappingProxyType(
            {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64}
        ),
    ),
    "squad_sample": SquadDataset(
        title="sample_data/squad",
        train="train.json",
        dev="dev.json",
        examples=333,
        other_examples=75,
        lengths=MappingProxyType(
            {"max_seq_length": 128, "doc_stride": 64, "max_query_length": 32}
        ),
        batch_size=8,
    ),
}


def find(name):
    """The `Dataset` of a name: of GLUE, of `QUESTIONS`, or of a task file."""
    if name in QUESTIONS:
        return QUESTIONS[name]
    return GlueTask(name) if name in glue_data.GLUE_TASKS else FileTask(name)
