"""The settings of a run by topic; fields have the names of flags.

Annotations have the ranges of numbers. `Settings.check` checks the settings alone,
`run_checks` against task, model and folder.
"""

from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

from errors import UserError, explain_value_errors
from model import layer_ranges
from system import schema
from training import classifier, distribution, estimators
from tuning import registry
from weights import checkpoints

_MAX_INT = 2**31 - 1  # TensorFlow counts some things in integers of 32 bits.
_Count = Annotated[int, schema.integer(1, _MAX_INT)]
_CountOrZero = Annotated[int, schema.integer(0, _MAX_INT)]


class Data(NamedTuple):
    """Input files, tokenization and padding."""

    data_dir: str
    vocab_file: str
    do_lower_case: bool
    max_seq_length: int  # see `features.check_seq_length`
    dynamic_padding: bool  # ignored on TPU
    length_multiple: int = 1  # of the lengths that dynamic padding pads to


class Model(NamedTuple):
    """The encoder and the initial weights."""

    bert_config_file: str
    init_checkpoint: str | None
    allow_random_base: bool
    adapters: str | None  # folder of a package
    base_model_name: Annotated[str | None, schema.LINE] = None


MethodSettings = NamedTuple(
    "MethodSettings",
    [(each.name, Annotated[Any, each.allowed]) for each in registry.all_settings()],
)


class Tuning(NamedTuple):
    """The tuning method. None: not given, the package's or else the default."""

    train_policy: str | None
    method_settings: MethodSettings
    ablate_adapter_layers: str | None

    def parse_method(self, num_layers, package_method=None):
        """The `tuning.method.Method`, see `registry.parse`; or a `UserError`."""
        settings = self.method_settings._asdict()
        text = self.train_policy or (package_method or registry.DEFAULT).text
        with explain_value_errors("`train_policy`=%.80s" % text):
            return registry.parse(text, settings, num_layers, package_method)

    def parse_ablated_layers(self, method, num_layers):
        """Ablated layers, ascending; a `UserError` if one has no adapters."""
        if not self.ablate_adapter_layers:
            return ()
        name, text = "ablate_adapter_layers", self.ablate_adapter_layers
        layers = layer_ranges.parse_layers(name, text, num_layers)
        adapted = [layer for layer in range(num_layers) if method.layer_hooks(layer)]
        if not set(layers) <= set(adapted):
            allowed = layer_ranges.format_layers(adapted) or "none"
            raise UserError(
                "`%s`=%s: only layers %s have adapters (`train_policy`=%s)"
                % (name, text, allowed, method.text)
            )
        return layers


class Optimization(NamedTuple):
    """Duration and learning rate."""

    learning_rate: Annotated[float, schema.number(above=0)]
    num_train_epochs: Annotated[float, schema.number(above=0, maximum=10_000)]
    warmup_proportion: Annotated[float, schema.number(0, 1)]
    adam_bias_correction: bool


class Devices(NamedTuple):
    """Devices and machines."""

    use_tpu: bool = False
    tpu_name: str | None = None
    tpu_zone: str | None = None
    gcp_project: str | None = None
    master: str | None = None
    num_tpu_cores: _Count = 8
    iterations_per_loop: _Count = 1000
    distribution_strategy: str = distribution.NONE  # one of `distribution.STRATEGIES`
    cluster: distribution.Cluster | None = None  # of several machines
    shards: int = 1  # see `estimators.cpu_shards`


class Run(NamedTuple):
    """Actions, batches, steps, output and devices."""

    output_dir: str
    train_batch_size: _Count
    eval_batch_size: _Count
    predict_batch_size: _Count
    save_checkpoints_steps: _Count
    seed: _CountOrZero
    write_graph: bool = False  # for TensorBoard and other tools
    checkpoint_content: str = checkpoints.ALL  # one of `checkpoints.CONTENTS`
    class_weights: str | None = None  # see `TaskType.weigh_classes`
    do_train: bool = False
    do_eval: bool = False
    do_predict: bool = False
    num_train_steps: int | None = None  # None: no training
    num_warmup_steps: int | None = None
    devices: Devices = Devices()

    @property
    def is_chief(self):
        """Whether this machine writes, evaluates and predicts."""
        return self.devices.cluster is None or self.devices.cluster.is_chief


class DevEvaluation(NamedTuple):
    """Evaluations on the dev sets while training."""

    eval_steps: _CountOrZero = 0  # steps between evaluations; 0: none
    keep_best: str | None = None  # metric of the best checkpoint; None: not kept
    early_stopping: _CountOrZero = 0  # evaluations without improvement; 0: never


class Settings(NamedTuple):
    """All settings of a run."""

    data: Data
    model: Model
    tuning: Tuning
    optimization: Optimization
    computation: classifier.Computation
    run: Run
    dev_evaluation: DevEvaluation

    def check(self):
        """Raises a `UserError` for invalid values and contradictions."""
        values = {}
        for name, kind, value in _iterate_fields(self):
            values[name] = value
            for allowed in filter(None, getattr(kind, "__metadata__", ())):
                if value is not None and not allowed.accepts(value):
                    raise UserError(
                        "`%s`=%.40r: it must be %s" % (name, value, allowed.allowed)
                    )
        for text, applies in _contradictions(SimpleNamespace(**values)).items():
            if applies:
                raise UserError(text % values)

    def complete_devices(self):
        """The `Devices` with cluster and shards; a `UserError` for TF_CONFIG or batch.

        XLA uses all cores for one batch, and replicas are parallel already.
        """
        run, strategy = self.run, self.run.devices.distribution_strategy
        cluster, shards = distribution.take_cluster(strategy), 1
        parts = self.computation.gradient_accumulation_steps
        distribution.check_batch(strategy, cluster, run.train_batch_size, parts)
        is_single = strategy == distribution.NONE and not run.devices.use_tpu
        if is_single and not self.computation.compile_layers:
            is_scored = run.do_eval or self.dev_evaluation.eval_steps
            sizes = [run.train_batch_size // parts] * run.do_train
            sizes += [run.eval_batch_size] * bool(is_scored)
            sizes += [run.predict_batch_size] * bool(is_scored or run.do_predict)
            shards = estimators.cpu_shards(sizes)
        return run.devices._replace(cluster=cluster, shards=shards)


# In these topics an unset flag is None: a package's value or the default applies.
_FROM_PACKAGES = Tuning, MethodSettings


def from_flags(topic, flags, **values):
    """The `NamedTuple` of a topic, from flags; `values` replace those of flags.

    Fields that are topics are made likewise.
    """
    for name, kind in topic.__annotations__.items():
        if name in values:
            continue
        if name in flags:
            is_unset = flags[name].using_default_value and topic in _FROM_PACKAGES
            values[name] = None if is_unset else flags[name].value
        elif hasattr(kind, "_fields"):
            values[name] = from_flags(kind, flags)
    return topic(**values)


def _iterate_fields(topic):
    """Yields name, annotation and value of each setting."""
    for name, kind in topic.__annotations__.items():
        value = getattr(topic, name)
        if hasattr(kind, "_fields"):
            yield from _iterate_fields(value)
        else:
            yield name, kind, value


def _contradictions(run):
    """Messages about contradictions, each with whether it applies, a dict."""
    cores, parts = run.num_tpu_cores, run.gradient_accumulation_steps
    is_distributed = run.distribution_strategy != distribution.NONE
    is_scored = run.do_eval or run.eval_steps
    is_predicted = is_scored or run.do_predict  # Scores need predictions.
    over_cores = "does not divide over `num_tpu_cores`=%(num_tpu_cores)d"
    return {
        "At least one of `do_train`, `do_eval` or `do_predict` must be True: give "
        "`do_train`=true, `do_eval`=true or `do_predict`=true": not (
            run.do_train or run.do_eval or run.do_predict
        ),
        "`train_batch_size`=%(train_batch_size)d does not divide into "
        "`gradient_accumulation_steps`=%(gradient_accumulation_steps)d equal parts: "
        "give a multiple of it": (run.do_train and run.train_batch_size % parts),
        "`adapters` needs its base model, `init_checkpoint`": (
            run.adapters and not run.init_checkpoint
        ),
        "`checkpoint_content`=%(checkpoint_content)s needs the base model whenever a "
        "checkpoint is used: give `init_checkpoint`, and no `allow_random_base`": (
            run.checkpoint_content == checkpoints.TRAINED
            and (run.allow_random_base or not run.init_checkpoint)
        ),
        "`ablate_adapter_layers`=%(ablate_adapter_layers)s removes trained adapters "
        "for evaluation and prediction; train first, or without some with "
        "`adapter_layers`": run.ablate_adapter_layers and run.do_train,
        "`keep_best`=%(keep_best)s needs evaluations while training, `eval_steps`": (
            run.keep_best and not run.eval_steps
        ),
        "`early_stopping`=%(early_stopping)d needs evaluations while training, "
        "`eval_steps`": run.early_stopping and not run.eval_steps,
        "`eval_steps`=%(eval_steps)d needs `do_train`=true: it evaluates while "
        "training": run.eval_steps and not run.do_train,
        "`eval_steps`=%(eval_steps)d is not possible with "
        "`distribution_strategy`=%(distribution_strategy)s: run `do_eval`=true on a "
        "copy of `output_dir`": (
            run.eval_steps and run.distribution_strategy == distribution.MULTI_WORKER
        ),
        "`distribution_strategy`=%(distribution_strategy)s is for GPUs; `use_tpu`=true "
        "needs none": run.use_tpu and is_distributed,
        "`use_tpu`=true needs the TPU: its name, `tpu_name`, or address, `master`": (
            run.use_tpu and not (run.tpu_name or run.master)
        ),
        "`precision`=float16: a TPU has no float16; give bfloat16": (
            run.use_tpu and run.precision == "float16"
        ),
        "`train_batch_size`=%(train_batch_size)d " + over_cores + ", in "
        "`gradient_accumulation_steps`=%(gradient_accumulation_steps)d parts each: "
        "give a multiple of " + str(cores * parts): (
            run.use_tpu and run.do_train and run.train_batch_size % (cores * parts)
        ),
        "`eval_batch_size`=%(eval_batch_size)d " + over_cores + ": give a multiple of "
        "it": run.use_tpu and is_scored and run.eval_batch_size % cores,
        "`predict_batch_size`=%(predict_batch_size)d " + over_cores + ": give a "
        "multiple of it": run.use_tpu
        and is_predicted
        and run.predict_batch_size % cores,
    }
