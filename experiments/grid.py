"""Grids as data: a job is one grid point with one seed, one run of a program.

The fields of a `Job` determine its name and folder, so that experiments with the same
working folder share jobs.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from experiments import datasets
from tuning import registry

PAPER, SMALL = "paper", "small"
PRESETS = (PAPER, SMALL)

# Values of --train_policy, for top_k and lora followed by a number.
ADAPTERS, FULL, TOP_K, LAYER_NORM = "adapters", "full", "top_k", "layer_norm"
LORA, BITFIT = "lora", "bitfit"

BATCH_SIZE = 32  # the default

# WNLI is left out, as in the paper.
GLUE = ("cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte")

# The grid of section 3.2, also used for sections 3.4 to 3.6: docs/reproducing.md.
PAPER_RATES = ("3e-5", "3e-4", "3e-3")
PAPER_EPOCHS = (3, 20)
# Standard deviation in the paper's text; the published program has 1e-3.
PAPER_SCALE = "1e-2"

# Epochs for a small encoder: 500 to 800 steps of the small tasks. The second value is
# for methods that sweep epochs, as the paper does for adapters.
_SMALL_EPOCHS = {
    **{"cola": (3, 10), "mrpc": (5,), "sts-b": (3, 10)},
    **dict.fromkeys(("sst-2", "qqp", "mnli", "qnli"), (1,)),
}
_OTHER_EPOCHS = (10,)
SMALL_SCALE = "1e-3"


class Job(NamedTuple):
    """One run. Floats are str, for exact names."""

    task: str  # a name for `datasets.find`
    policy: str  # --train_policy
    learning_rate: str
    epochs: int
    seed: int
    adapter_size: int = 0  # 0: no adapters
    init_scale: str = ""
    is_corrected: bool = False  # --adam_bias_correction
    without: str = ""  # evaluation only, with adapters of these layers ablated: "0-4"
    placement: str = ""  # --adapter_placement; "": the paper's

    @property
    def name(self):
        """Name of the job's folder, and value of --job."""
        method = self.policy.replace(":", "")
        if self.adapter_size:
            method += str(self.adapter_size)
            method += "-" * bool(self.placement) + self.placement
            method += "-init" * bool(self.init_scale) + self.init_scale
        name = "%s-%s-lr%s-ep%d" % (self.task, method, self.learning_rate, self.epochs)
        name += "-corrected" if self.is_corrected else ""
        name += "-seed%d" % self.seed
        return name + ("-without%s" % self.without if self.without else "")

    @property
    def family(self):
        """The tuning method without its number, and its placement."""
        method = self.policy.partition(":")[0]
        return method + "-" * bool(self.placement) + self.placement

    @property
    def trained(self):
        """The training job of an evaluation; itself for training jobs."""
        return self._replace(without="")


class Method(NamedTuple):
    """A tuning method and its sweep."""

    policy: str
    learning_rates: tuple[str, ...]
    epochs: tuple[int, ...] = ()  # (): the small preset's for the task
    adapter_sizes: tuple[int, ...] = (0,)
    init_scale: str = ""
    is_corrected: bool = False
    sweeps_epochs: bool = False  # over all epochs of the small preset
    placement: str = ""

    def fits(self, layers):
        """Whether an encoder with a number of layers can be tuned so."""
        try:
            registry.parse(self.policy, {}, layers)
        except ValueError:
            return False
        return True

    def jobs(self, task, seeds):
        """The jobs for one task, a list."""
        small = _SMALL_EPOCHS.get(task, _OTHER_EPOCHS)
        epochs = self.epochs or (small if self.sweeps_epochs else small[:1])
        swept = itertools.product(
            self.adapter_sizes, epochs, self.learning_rates, seeds
        )
        rest = (self.init_scale, self.is_corrected, "", self.placement)
        return [
            Job(task, self.policy, rate, passes, seed, size, *rest)
            for size, passes, rate, seed in swept
        ]


def adapters(rates, sizes=(64,), epochs=(), scale=PAPER_SCALE):
    """The `Method` of the paper."""
    return Method(ADAPTERS, rates, epochs, sizes, scale)


def make_methods(policy, numbers, *args, **kwargs):
    """List of a `Method` for each number of a policy; see `Method` for the others."""
    return [Method("%s:%d" % (policy, n), *args, **kwargs) for n in numbers]


def small_adapters(rates=("1e-3",), sizes=(64,), sweeps_epochs=False):
    """The `Method` for a small encoder; few steps need bias correction."""
    return Method(ADAPTERS, rates, (), sizes, SMALL_SCALE, True, sweeps_epochs)


class Study(NamedTuple):
    """An experiment with the user's settings, its jobs and their results."""

    preset: str
    tasks: tuple[str, ...]
    layers: int  # of the encoder
    seeds: int
    work_dir: str
    jobs: tuple[Job, ...] = ()
    results: Mapping = MappingProxyType({})  # from ended `Job`s to `results.Result`
    selects_by_first_seed: bool = False  # see `Preset`

    def select(self, **values):
        """The list of jobs with these values of fields or properties."""
        return [
            job
            for job in self.jobs
            if all(getattr(job, name) == value for name, value in values.items())
        ]


class Preset(NamedTuple):
    """The grid of an experiment: tasks x methods x seeds."""

    tasks: tuple[str, ...]  # (): task files are required
    seeds: int
    methods: Iterable[Method]
    # Whether later seeds train the best settings of the first seed only.
    selects_by_first_seed: bool = False


class Experiment(NamedTuple):
    """An experiment; the value of a module's `EXPERIMENT`."""

    title: str  # of the report
    about: str  # one sentence
    paper: Preset
    small: Preset
    write_report: Callable  # function of a `Study` and the `reports.Report` to fill
    # Function of a training job and the number of layers; returns evaluations, `Job`s.
    evaluations: Callable = lambda job, layers: []

    def preset(self, name):
        return self.paper if name == PAPER else self.small

    def jobs(self, study):
        """List of the jobs of a `Study`: training runs, then evaluations."""
        trained = [
            job
            for task in study.tasks
            for method in self.preset(study.preset).methods
            if method.fits(study.layers)
            for job in method.jobs(task, range(1, study.seeds + 1))
        ]
        rest = [e for job in trained for e in self.evaluations(job, study.layers)]
        return list(dict.fromkeys([*trained, *rest]))


def steps(job, batch_size=None):
    """Training steps of a job; 0 if the data set's size is unknown.

    `batch_size` None: the data set's.
    """
    dataset = datasets.find(job.task)
    batch_size = batch_size or dataset.batch_size or BATCH_SIZE
    return 0 if job.without else int(dataset.examples / batch_size * job.epochs)


def cost(job):
    """Estimated cost of a job in training examples; 0 as for `steps`.

    A forward pass counts as a third of a training example.
    """
    dataset = datasets.find(job.task)
    trained = 0 if job.without else dataset.examples * job.epochs
    return dataset.other_examples / 3 + trained
