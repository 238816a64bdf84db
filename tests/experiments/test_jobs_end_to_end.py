"""One job of each kind, on a small BERT and a few rows, and the report on them."""

import json
from unittest import mock

import pytest
import tensorflow.compat.v1 as tf
from absl import flags
from absl.testing import flagsaver

import run_classifier
from errors import UserError
from experiments import job_flags, processes, results
from experiments.grid import Job
from tests import small_run
from training import estimators

# Far from the identity, so that it shows when they are taken out.
OF_ADAPTERS = {"adapter_size": 4, "init_scale": "1"}
TRAINED = Job("mrpc", "adapters", "1e-3", 1, 1, **OF_ADAPTERS)
KINDS = [
    TRAINED,
    TRAINED._replace(without="0"),
    Job("mail", "full", "1e-4", 1, 2, is_corrected=True),
    Job("mail", "full", "1e30", 1, 1),
]


class InThisProcess(processes.Process):
    """A job that runs in this process, since starting another takes seconds."""

    def __init__(self, job, settings, number):
        del number
        self.job, self.number = job, 0
        words = job_flags.make_command(job, settings)[1:]
        if not flags.FLAGS.is_parsed():
            flags.FLAGS(["run_classifier.py"])
        # A second shard doubles the graph.
        one_shard = mock.patch.object(estimators, "cpu_shards", lambda _: 1)
        with flagsaver.flagsaver(), one_shard:
            flags.FLAGS(words)
            try:
                run_classifier.main.__wrapped__([])
                self._status, self._tail = 0, ""
            except UserError as error:
                self._status, self._tail = 1, "error: %s" % error

    def has_ended(self):
        return True

    def wait(self):
        return self._status, self._tail, 1.5


@pytest.fixture
def settings(tmp_path):
    """Data of a task of GLUE and of a task of one's own, and a base model."""
    base = small_run.write_model(tmp_path / "bert")
    glue = tmp_path / "glue"
    glue.mkdir()
    small_run.write_mrpc(glue / "MRPC")
    mail = tmp_path / "mail"
    mail.mkdir()
    for name in ("train", "dev", "test"):
        rows = ["a cat sat\t%s" % label for label in ("no", "yes") * 12]
        rows += ["a row without a label"] * (name == "train")
        (mail / (name + ".tsv")).write_text("\n".join(["text\tlabel", *rows, ""]))
    record = {name: name + ".tsv" for name in ("train", "dev", "test")}
    record.update(name="mail", text_a="text", label="label", test_labels=True)
    (mail / "mail.json").write_text(json.dumps(record))
    names = ("init_checkpoint", "bert_config_file", "vocab_file")
    return job_flags.SweepSettings(
        # Only TensorFlow's file functions open this path, as with a bucket's address.
        work_dir="file://%s" % (tmp_path / "work"),
        glue_dir=str(glue),
        task_files={"mail": str(mail / "mail.json")},
        flags={
            **{name: base[name] for name in names},
            "max_seq_length": 32,
            "train_batch_size": 8,
            **job_flags.parse_run_flags("--skip_bad_rows=true"),
        },
    )


def test_one_job_of_each_kind(settings):
    known = processes.run(KINDS, settings, start=InThisProcess)
    assert list(known) == KINDS
    assert known == results.read_all(settings.work_dir, KINDS)
    for job, result in list(known.items())[:-1]:
        assert result.status in (results.OK, results.COLLAPSED), result.reason
        folder = results.job_folder(settings.work_dir, job)
        left = tf.io.gfile.listdir(folder)
        assert not [name for name in left if "ckpt" in name or "tf_record" in name]
    trained, without, full, diverged = known.values()
    assert trained.metric == "f1"
    assert trained.flags["adapter_size"] == 4
    assert 0 < trained.parameters["trained"] < full.parameters["trained"]
    assert full.flags["adam_bias_correction"] == "true"
    assert full.flags["seed"] == 2
    assert set(without.sets["dev"]) >= {"scores", "baseline", "eval_accuracy"}
    # Taking adapters out changes the loss, and needed no second training.
    losses = [each.sets["dev"]["eval_loss"] for each in (trained, without)]
    assert losses[0] != losses[1]
    assert full.test_score is not None
    assert trained.test_score is None
    assert diverged.status == results.DIVERGED, diverged.reason
    # Finished jobs are not run again.
    assert processes.run(KINDS, settings, start=None) == known
