"""Placements of adapters: what they compute, and that they share a base model."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import modeling
from errors import UserError
from tests import hf_layout, small_packages, small_run
from tests.small_packages import Task
from tuning import adapters, registry
from weights import adapter_package, base_model, package_conversion, package_report


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_packages.write_base(tmp_path_factory.mktemp("adapters") / "bert")


def make_task(placement, size=3, activation="relu", layers=None, name="task"):
    method = adapters.Adapters(size, None, layers, activation, placement)
    return Task(name, 0, ("a", "b", "c"), other_method=method)


def rename(values):
    """Google's variables as Hugging Face names them."""
    renamed = {}
    for name, value in values.items():
        name = name.removeprefix("bert/").replace("layer_", "layer.").replace("/", ".")
        for here, there in (
            ("kernel", "weight"),
            ("gamma", "weight"),
            ("beta", "bias"),
            ("embeddings", "embeddings.weight"),
        ):
            if name.endswith(here):
                value = value.T if here == "kernel" else value
                name = name.removesuffix(here) + there
                break
        renamed[name] = value
    return renamed


def numpy_scores(package, base, batch):
    """Probabilities that numpy computes from a package's weights."""
    values = {**small_run.checkpoint_values(base["init_checkpoint"]), **package.weights}

    def adapter(scope, h, r, normalize):
        def bottleneck(x, name):
            scope_here = "bert/%s/%s/" % (scope.replace("layer.", "layer_"), name)
            scope_here = scope_here.replace(".", "/")
            if scope_here + "weights1" not in values:
                return np.zeros_like(x)
            w1, b1, w2, b2 = (
                values[scope_here + each].astype(np.float64)
                for each in ("weights1", "biases1", "weights2", "biases2")
            )
            return np.maximum(x @ w1 + b1, 0.0) @ w2 + b2

        if package.method.placement == "houlsby":
            return h + bottleneck(h, "adapters")
        if package.method.placement == "pfeiffer":
            return h + bottleneck(normalize(h + r), "adapters_pfeiffer")
        return h + 4.0 * bottleneck(r, "adapters_parallel")

    config = {**package.bert_config.to_dict(), "hidden_act": "gelu_new"}
    names = ("input_ids", "input_mask", "segment_ids")
    _, pooled = hf_layout.numpy_bert(
        config, rename(values), *(batch[name] for name in names), adapter
    )
    logits = pooled @ values["output_weights"].T + values["output_bias"]
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize("placement", adapters.PLACEMENTS)
def test_numpy_computes_the_same(tmp_path, base, placement):
    folder = small_packages.write_package(tmp_path / "a", base, make_task(placement))
    package = adapter_package.read(folder)
    batch = small_packages.random_batch(5, 9)
    found = small_packages.single_task_scores(package, base["init_checkpoint"], batch)
    expected = numpy_scores(package, base, batch)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    plain = {n: v * ("adapters" not in n) for n, v in package.weights.items()}
    plain = numpy_scores(package._replace(weights=plain), base, batch)
    assert np.abs(plain - expected).max() > 1e-2


def test_placements_share_a_base_model(tmp_path, base):
    tasks = (
        make_task("houlsby", 5, "gelu", name="a"),
        make_task("pfeiffer", 3, "relu", name="b"),
        make_task("pfeiffer", 6, "swish", (1,), name="c"),
        make_task("parallel", 8, "swish", (1,), name="d"),
        make_task("parallel", 2, "relu", name="e"),
    )
    folders = small_packages.write_packages(tmp_path, base, tasks)
    small_packages.check_served(base, folders)


@pytest.mark.parametrize("placement", ["pfeiffer", "parallel"])
def test_a_run_and_its_package(tmp_path, base, placement, capsys):
    setting = {
        **small_run.write_mrpc(tmp_path / "MRPC"),
        **{"max_seq_length": 24, "train_batch_size": 8, "learning_rate": 1e-2},
        **{"adapter_size": 4, "adapter_layers": "1", "do_predict": True},
        **base,
    }

    def run(name, **flags):
        output = tmp_path / name
        small_run.run(output_dir=str(output), **{**setting, **flags})
        return np.loadtxt(output / "test_results.tsv")

    expected = run("a", do_train=True, adapter_placement=placement)
    text = capsys.readouterr().err
    assert "adapters (%s adapters in layers 1, head): 148 adapters" % placement in text
    folder = str(tmp_path / "a" / "adapters")
    package = adapter_package.read(folder)
    scale = {"pfeiffer": 0.02, "parallel": None}[placement]
    assert package.method == adapters.Adapters(4, scale, (1,), "relu", placement)
    np.testing.assert_array_equal(run("b", adapters=folder), expected)
    capsys.readouterr()
    for flags in (
        {"adapters": folder, "adapter_placement": "houlsby"},
        {"output_dir": str(tmp_path / "a")},
    ):
        with pytest.raises(SystemExit):
            small_run.run(**{"output_dir": str(tmp_path / "c"), **setting, **flags})
        assert "--adapter_placement" in capsys.readouterr().err
    exported = package_conversion.export(
        tf.train.latest_checkpoint(str(tmp_path / "a")),
        str(tmp_path / "exported"),
        package_conversion.PackageOptions(),
        base_model.BaseFiles(),
    )
    assert exported.method == package.method
    summary = "\n".join(package_report.format_summary(package))
    assert "the feed-forward sublayer of layers 1" in summary
    with pytest.raises(UserError, match=r"cannot be merged.*the feed-forward"):
        package_conversion.merge(folder, base["init_checkpoint"], str(tmp_path / "m"))


@pytest.mark.parametrize(
    ("settings", "limits", "stds"),
    [
        ({}, (2e-3, 2e-3), (1e-3, 1e-3)),
        ({"adapter_init_scale": 0.3}, (0.6, 0.6), (0.3, 0.3)),
        ({"adapter_placement": "pfeiffer"}, (0.04, 0.04), (0.02, 0.02)),
        # Kaiming: a uniform distribution within 1 / sqrt(64).
        ({"adapter_placement": "parallel"}, (1 / 8, 0), (1 / 8 / 3**0.5, 0)),
    ],
    ids=str,
)
def test_initial_values(settings, limits, stds):
    """Those of the original program, or of AdapterHub's library."""
    config = small_run.small_config(50, hidden_size=64, intermediate_size=128)
    method = registry.parse("adapters", {"adapter_size": 64, **settings}, 2)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        options = modeling.Options(layer_hooks=method.layer_hooks)
        modeling.BertModel(config, False, tf.constant([[0]]), options=options)
        session.run(tf.global_variables_initializer())
        values = session.run({v.op.name: v for v in tf.global_variables()})
    added = {name: value for name, value in values.items() if "/adapters" in name}
    for number, limit, std in zip((1, 2), limits, stds):
        end = "weights%d" % number
        found = [value for name, value in added.items() if name.endswith(end)]
        assert len(found) in (2, 4)
        # A normal distribution has 0.88 of its deviation within two of them.
        std *= 0.88 if limit == 2 * std else 1
        for value in found:
            assert np.abs(value).max() <= limit
            np.testing.assert_allclose(value.std(), std, rtol=0.05)
        assert not limit or np.ptp([value[0, 0] for value in found]) > 0
    biases = [value for name, value in added.items() if "biases" in name]
    assert biases and not any(map(np.any, biases))
    described = method.describe_adapters(2)
    assert ("initial scale %g" % stds[0] in described) == (stds[0] == stds[1])


def test_parallel_adapters_have_no_scale():
    settings = {"adapter_placement": "parallel", "adapter_init_scale": 0.1}
    with pytest.raises(ValueError, match=r"`adapter_init_scale`=0\.1: parallel"):
        registry.parse("adapters", settings, 2)


def test_parallel_adapters_change_nothing_at_first():
    config = small_run.small_config(50)
    method = adapters.Adapters(8, placement="parallel")
    outputs = []
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        ids = tf.constant([[5, 9, 3]])
        for hooks in (method.layer_hooks, lambda index: ()):
            options = modeling.Options(layer_hooks=hooks)
            with tf.variable_scope("", reuse=tf.AUTO_REUSE):
                model = modeling.BertModel(
                    config, False, ids, scope="bert", options=options
                )
            outputs.append(model.get_pooled_output())
        session.run(tf.global_variables_initializer())
        added, plain = session.run(outputs)
        np.testing.assert_array_equal(added, plain)
        down = [v for v in tf.global_variables() if v.op.name.endswith("weights1")]
        assert all(np.ptp(value) > 0.1 for value in session.run(down))
