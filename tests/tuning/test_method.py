"""A tuning method is one class: here low-rank updates of the queries' kernels.

Hu et al., 2022 (arXiv:2106.09685).
"""

import dataclasses

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from serving import predictor, saved_model
from tests import small_packages, small_run
from tests.small_packages import Task
from tuning.method import METHODS, Method
from weights import adapter_package, base_model, checkpoints, package_conversion


@dataclasses.dataclass(frozen=True)
class LowRankHooks(modeling.LayerHooks):
    rank: int
    is_own: tf.Tensor | None = None  # bool [B, rank]

    def dense(self, x, output):
        if not tf.get_variable_scope().name.endswith("/query"):
            return output

        def update(x, down, up):
            inner = tf.matmul(x, down)
            if self.is_own is not None:
                inner = tf.where_v2(self.is_own[:, tf.newaxis], inner, 0.0)
            return tf.matmul(inner, up)

        collections, (n_in, n_out) = (modeling.ADAPTERS,), (x.shape[1], output.shape[1])
        down = modeling.normal_variable("down", [n_in, self.rank], 0.1, collections)
        up = modeling.normal_variable("up", [self.rank, n_out], 0.1, collections)
        return output + modeling.apply_weights(update, x, down, up)


@dataclasses.dataclass(frozen=True)
class LowRank(Method):
    name = "low_rank"
    argument = "R"
    help = "low-rank updates, head"
    unit_axes = {"/query/down": 1, "/query/up": 0}  # noqa: RUF012

    rank: int = 1

    @classmethod
    def parse(cls, argument, settings, num_layers):
        return cls(int(argument))

    @property
    def text(self):
        return "low_rank:%d" % self.rank

    def layer_hooks(self, index):
        return (LowRankHooks(self.rank),)

    def trains(self, name, collection):
        return collection in (modeling.ADAPTERS, modeling.HEAD)

    @classmethod
    def serving_hooks(cls, used, own):
        return (LowRankHooks(1, own["low_rank_units"]),)

    def merge(self, values, weights):
        merged = dict(values)
        for name, down in weights.items():
            if name.endswith("/down"):
                scope = name.removesuffix("/down")
                merged[scope + "/kernel"] = (
                    values[scope + "/kernel"] + down @ weights[scope + "/up"]
                )
            elif not name.endswith("/up"):
                merged[name] = down
        return merged


@pytest.fixture
def low_rank(monkeypatch):
    monkeypatch.setitem(METHODS, LowRank.name, LowRank)


def test_a_method_is_one_class(tmp_path, monkeypatch, low_rank):
    base = small_packages.write_base(tmp_path / "bert")
    setting = {
        **small_run.write_mrpc(tmp_path / "MRPC"),
        **{"max_seq_length": 24, "train_batch_size": 8, "learning_rate": 1e-2},
        "train_policy": "low_rank:2",
        "do_predict": True,
    }

    def run(name, **flags):
        output = tmp_path / name
        small_run.run(output_dir=str(output), **{**base, **setting, **flags})
        return np.loadtxt(output / "test_results.tsv")

    expected = run("a", do_train=True)
    package = str(tmp_path / "a" / "adapters")
    weights = adapter_package.read(package).weights
    assert sorted({name.rpartition("/")[2] for name in weights}) == [
        *("down", "output_bias", "output_weights", "up")
    ]
    scale = np.mean([v.std() for n, v in weights.items() if n.endswith("/up")])
    assert scale > 0.05
    np.testing.assert_array_equal(run("b", adapters=package), expected)

    # Merged, the model is a BERT.
    merged = str(tmp_path / "merged.ckpt")
    package_conversion.merge(package, base["init_checkpoint"], merged)
    assert not [n for n in checkpoints.Checkpoint(merged).shapes if "down" in n]
    found = run("c", init_checkpoint=merged, train_policy="head")
    np.testing.assert_allclose(found, expected, atol=1e-5)

    # On one base model with other methods, and with another rank.
    other, wide = (
        small_packages.write_package(tmp_path / task.name, base, task)
        for task in (
            Task("other", 5, ("x", "y", "z")),
            Task("wide", 1, ("x", "y"), other_method=LowRank(3)),
        )
    )
    rows = [
        line.split("\t")[3:]
        for line in (tmp_path / "MRPC" / "test.tsv").read_text().splitlines()[1:]
    ]
    model = predictor.Predictor(**base)
    for folder in (other, package, wide):
        model.add(folder)
    found = [list(p.probabilities.values()) for p in model.predict("mrpc", rows)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    batch = small_packages.encode(base, rows, 24)
    for task, folder in (("other", other), ("wide", wide)):
        alone = small_packages.single_task_scores(
            adapter_package.read(folder), base["init_checkpoint"], batch
        )
        found = [list(p.probabilities.values()) for p in model.predict(task, rows)]
        np.testing.assert_allclose(found, alone, atol=1e-5)
    saved_model.export(
        [package, other], base_model.BaseFiles(**base), str(tmp_path / "saved")
    )
