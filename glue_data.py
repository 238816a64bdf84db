"""GLUE as a table of tasks; as a program, downloads their data.

python glue_data.py --data_dir=glue --tasks=MRPC,CoLA
"""

import system.startup  # noqa: F401  (before TensorFlow)

from absl import flags

import command_line
from errors import UserError
from inputs import glue_fetch
from system import wording
from tasks import own_tasks, task_data
from tasks.classification import Classification
from tasks.regression import Regression
from tasks.task_data import Split, Task


def _split(name, rows, *columns, **settings):
    """A split in `<name>.tsv`; `columns` are text_a, text_b, label in this order."""
    return Split(name, name + ".tsv", rows, *columns, **settings)


def _test(title, rows, *texts, name="test", index="index", **settings):
    """A test split; `title` names the submission file."""
    settings.update(index=index, submission_file=title + ".tsv")
    return _split(name, rows, *texts, **settings)


def _task(title, kind, metrics, rows, texts, label, train=(), test=(), **settings):
    """A task with train.tsv, dev.tsv and test.tsv of `rows` each, from one archive.

    `train` and `test` are further settings of these splits.
    """
    settings.setdefault("sources", ("glue/data/%s.zip" % title,))
    return Task(
        title.lower(), title, kind, metrics,
        train=_split("train", rows[0], *texts, label, **dict(train)),
        dev=(_split("dev", rows[1], *texts, label),),
        test=(_test(title, rows[2], *texts, **dict(test)),),
        **settings,
    )  # fmt: skip


_BINARY = Classification(("0", "1"))
_ENTAILMENT = Classification(("entailment", "not_entailment"))
# BERT's order, which published MNLI checkpoints share.
_NLI = Classification(("contradiction", "entailment", "neutral"))
_SENTENCE = ("sentence", None)
_SENTENCES = ("sentence1", "sentence2")
_QUESTION = ("question", "sentence")
_QUESTIONS = ("question1", "question2")
_STRINGS = ("#1 String", "#2 String")
_NO_HEADER = {"has_header": False, "num_fields": 4}
_MNLI_ID = {"guid_column": "index"}
_MISMATCHED = {"suffix": "_mm", **_MNLI_ID}

_ROWS = (
    Task(
        "cola", "CoLA", _BINARY, ("matthews",),
        train=_split("train", 8551, 3, None, 1, **_NO_HEADER),
        dev=(_split("dev", 1043, 3, None, 1, **_NO_HEADER),),
        test=(_test("CoLA", 1063, *_SENTENCE),),
        sources=("glue/data/CoLA.zip",),
    ),
    _task("SST-2", _BINARY, ("accuracy",), (67349, 872, 1821), _SENTENCE, "label"),
    _task(
        "MRPC", _BINARY, ("f1", "accuracy"), (3668, 408, 1725), _STRINGS, "Quality",
        sources=(
            "senteval/senteval_data/msr_paraphrase_train.txt",
            "senteval/senteval_data/msr_paraphrase_test.txt",
            "glue/data/mrpc_dev_ids.tsv",
        ),
        assemble=glue_fetch.assemble_mrpc,
    ),
    _task(
        "STS-B", Regression((0.0, 5.0)), ("spearman", "pearson"), (5749, 1500, 1379),
        _SENTENCES, "score",
    ),
    _task(
        "QQP", _BINARY, ("f1", "accuracy"), (363846, 40430, 390965), _QUESTIONS,
        "is_duplicate",
        train={"rows_exact": False, "skips_broken_lines": True},
        test={"index": "id"},
        sources=("glue/data/QQP-clean.zip",),
    ),
    Task(
        "mnli", "MNLI", _NLI, ("accuracy",),
        train=_split("train", 392702, *_SENTENCES, "gold_label", **_MNLI_ID),
        dev=(
            _split("dev_matched", 9815, *_SENTENCES, "gold_label", **_MNLI_ID),
            _split("dev_mismatched", 9832, *_SENTENCES, "gold_label", **_MISMATCHED),
        ),
        test=(
            # The original calls the matched test set just "test" in its guids.
            _test(
                "MNLI-m", 9796, *_SENTENCES,
                name="test_matched", guid_set="test", **_MNLI_ID,
            ),
            _test("MNLI-mm", 9847, *_SENTENCES, name="test_mismatched", **_MISMATCHED),
        ),
        sources=("glue/data/MNLI.zip",),
    ),
    _task(
        "QNLI", _ENTAILMENT, ("accuracy",), (104743, 5463, 5463), _QUESTION, "label",
        train={"rows_exact": False},
        sources=("glue/data/QNLIv2.zip",),
    ),
    _task("RTE", _ENTAILMENT, ("accuracy",), (2490, 277, 3000), _SENTENCES, "label"),
    _task(
        "WNLI", _BINARY, ("accuracy",), (635, 71, 146), _SENTENCES, "label",
        note=(
            "WNLI's dev set is adversarial: most of its first sentences occur in "
            "train, with the opposite label. Dev accuracy below the majority class "
            "is normal and says nothing about the test set."
        ),
    ),
    Task(
        "ax", "AX", _NLI, ("matthews",),
        train=None,
        dev=(),
        # Its files are beside MNLI's, from whose folder it is predicted.
        test=(
            _test("AX", 1104, *_SENTENCES, name="diagnostic", suffix="_ax"),
        ),
        sources=("glue/data/AX.tsv",),
        assemble=glue_fetch.assemble_file,
        model_of="mnli",
    ),
)  # fmt: skip

GLUE_TASKS = {row.name: row for row in _ROWS}


def get_task(name, remedy=""):
    """Looks up a task of GLUE, ignoring case and dashes: "sst2" is "SST-2".

    Raises:
      UserError: unknown task; it ends with `remedy`.
    """
    for task in GLUE_TASKS.values():
        if task_data.plain_name(task.name) == task_data.plain_name(name):
            return task
    raise UserError(
        "Task not found: %s%s. The tasks are %s%s"
        % (
            *(name, wording.suggest(name, GLUE_TASKS)),
            *(", ".join(sorted(GLUE_TASKS)), remedy),
        )
    )


def select_task(task_name, task_config, data_dir=None, bad_rows=None):
    """Returns the task of `task_name` or `task_config`, and its data folder.

    `data_dir` overrides the folder of the task file. See `task_data.read_examples` for
    `bad_rows`.

    Raises:
      UserError: unknown task, or both are given.
    """
    if task_name and task_config:
        raise UserError(
            "`task_name`=%s and `task_config`=%s are both given: leave one of them out"
            % (task_name, task_config)
        )
    if task_config:
        return own_tasks.load_task(task_config, GLUE_TASKS, data_dir, bad_rows)
    return get_task(task_name, "; for your own data: `task_config`"), data_dir


class DataProcessor:
    """The original program's interface to a task.

    Examples are lists of `InputExample`, of the first dev and test set. Labels are a
    list of strings, by id.
    """

    task = None

    def get_train_examples(self, data_dir):
        return task_data.read_examples(self.task, data_dir, self.task.train)

    def get_dev_examples(self, data_dir):
        return task_data.read_examples(self.task, data_dir, self.task.dev[0])

    def get_test_examples(self, data_dir):
        return task_data.read_examples(self.task, data_dir, self.task.test[0])

    def get_labels(self):
        return list(self.task.type.labels)


class ColaProcessor(DataProcessor):
    task = GLUE_TASKS["cola"]


class MnliProcessor(DataProcessor):
    task = GLUE_TASKS["mnli"]


class MrpcProcessor(DataProcessor):
    task = GLUE_TASKS["mrpc"]


_TEXTS = {
    "data_dir": "Local folder for the tasks' folders.",
    "tasks": "Tasks to download, separated by commas, such as MRPC,CoLA.",
    "base_url": "URL of a server with the benchmark's files under their usual paths.",
}


def define_flags(flag_values):
    """Defines this program's flags; returns the groups of its help."""
    define = command_line.flag_definer(_TEXTS, flag_values)
    server = "https://dl.fbaipublicfiles.com"
    return {
        "GLUE": (
            define(command_line.DEFINE_path, "data_dir"),
            define(flags.DEFINE_list, "tasks", ["all"]),
            define(flags.DEFINE_string, "base_url", server),
        )
    }


def main(argv):
    command_line.check_required(flags.FLAGS, ["data_dir"])
    data_dir = flags.FLAGS.data_dir
    command_line.check_local(flags.FLAGS, "data_dir")
    names = [name for name in flags.FLAGS.tasks if name.strip()]
    if not names:
        raise UserError("--tasks is empty; give names, or leave it out for all tasks")
    selected = GLUE_TASKS.values()
    if [name.lower() for name in names] != ["all"]:
        selected = [get_task(name) for name in names]  # Before the first download.
    for task in selected:
        glue_fetch.fetch_task(task, data_dir, flags.FLAGS.base_url)


if __name__ == "__main__":
    # Flags are not defined on import: `run_classifier.py`, which imports this module,
    # defines --data_dir too.
    groups = define_flags(flags.FLAGS)
    command_line.run_program(main, __doc__, groups, flags.FLAGS)
