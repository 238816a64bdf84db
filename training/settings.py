"""Settings of a run by topic; their fields are named like the flags."""

from typing import NamedTuple

from training import distribution


def from_flags(topic, flags, **others):
    """A `NamedTuple` of a topic; its fields have the values of flags or `others`."""
    values = {name: flags[name].value for name in topic._fields if name in flags}
    return topic(**{**values, **others})


class Inputs(NamedTuple):
    """From text to batches."""

    data_dir: str
    vocab_file: str
    do_lower_case: bool
    max_seq_length: int
    dynamic_padding: bool  # ignored on TPU
    length_multiple: int = 1  # of the lengths that dynamic padding pads to


class Devices(NamedTuple):
    """Where a run computes."""

    use_tpu: bool = False
    tpu_name: str | None = None
    tpu_zone: str | None = None
    gcp_project: str | None = None
    master: str | None = None
    num_tpu_cores: int = 8
    iterations_per_loop: int = 1000
    distribution_strategy: str = distribution.NONE  # one of `distribution.STRATEGIES`
    cluster: distribution.Cluster | None = None  # of several machines
    shards: int = 1  # see `estimators.cpu_shards`


class Run(NamedTuple):
    """Batches, steps, checkpoints and devices."""

    output_dir: str
    train_batch_size: int
    eval_batch_size: int
    predict_batch_size: int
    save_checkpoints_steps: int
    seed: int
    write_graph: bool = False  # for TensorBoard and other tools
    num_train_steps: int | None = None  # None: no training
    num_warmup_steps: int | None = None
    devices: Devices = Devices()

    @property
    def is_chief(self):
        """Whether this machine writes, evaluates and predicts."""
        return self.devices.cluster is None or self.devices.cluster.is_chief


class DevEvaluation(NamedTuple):
    """Evaluations on the dev sets while training."""

    eval_steps: int = 0  # steps between two; 0: none
    keep_best: str | None = None  # metric of the best checkpoint; None: none is kept
