"""Low-rank updates: their initial values, packages, and several on one base model."""

import json

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import manage_adapters
import modeling
from errors import UserError
from tests import small_packages, small_run
from tests.small_packages import Task
from tuning import registry
from weights import (
    adapter_package,
    base_model,
    checkpoints,
    package_checks,
    package_conversion,
)

EVERY = "query,key,value,attention_output,intermediate,output"


def parse(text, targets, alpha=8.0):
    settings = {"lora_targets": targets, "lora_alpha": alpha}
    return registry.parse(text, settings, 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_packages.write_base(tmp_path_factory.mktemp("lora") / "bert")


def test_packages_of_a_run(tmp_path, base, capsys):
    flags = {"lora_targets": "value,output", "lora_alpha": 3.0}
    setting = {
        **small_run.write_mrpc(tmp_path / "MRPC"),
        **{"max_seq_length": 24, "train_batch_size": 8, "learning_rate": 1e-2},
        "do_predict": True,
    }

    def run(name, **others):
        output = tmp_path / name
        small_run.run(output_dir=str(output), **{**base, **setting, **others})
        return np.loadtxt(output / "test_results.tsv")

    expected = run("a", do_train=True, train_policy="lora:2", **flags)
    package = str(tmp_path / "a" / "adapters")
    read = adapter_package.read(package)
    assert read.method == parse("lora:2", "output, value", 3)
    layers = ["bert/encoder/layer_%d/" % i for i in range(2)]
    assert sorted(read.weights) == sorted(
        [
            *("output_bias", "output_weights"),
            *(
                layer + dense + "/lora_" + each
                for layer in layers
                for dense in ("attention/self/value", "output/dense")
                for each in "AB"
            ),
        ]
    )
    scale = np.mean([v.std() for n, v in read.weights.items() if n.endswith("/lora_B")])
    assert scale > 0.02
    # Method and settings are the package's, unless they are given.
    np.testing.assert_array_equal(run("b", adapters=package), expected)
    for name, value, texts in (
        ("lora_alpha", 4.0, "lora_alpha is 3.0, given is 4.0"),
        ("lora_targets", "value", 'is "value,output", given is "value"'),
        ("train_policy", "lora:1", 'train_policy is "lora:2", given is "lora:1"'),
        ("train_policy", "adapters", 'is "lora:2", given is "adapters"'),
    ):
        with pytest.raises(SystemExit):
            run("c", adapters=package, **{name: value})
        assert texts in capsys.readouterr().err
    exported = package_conversion.export(
        tf.train.latest_checkpoint(str(tmp_path / "a")),
        str(tmp_path / "exported"),
        package_conversion.PackageOptions(),
        base_model.BaseFiles(),
    )
    assert exported.method == read.method

    # Merged, the model is a BERT.
    merged = str(tmp_path / "merged.ckpt")
    flags = {"init_checkpoint": base["init_checkpoint"], "output": merged}
    manage_adapters.main(
        ["", "merge", package, *("--%s=%s" % flag for flag in flags.items())]
    )
    assert "with --train_policy=head\n" in capsys.readouterr().out
    assert not [n for n in checkpoints.Checkpoint(merged).shapes if "lora" in n]
    found = run("d", init_checkpoint=merged, train_policy="head")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_example_has_its_own_update(tmp_path, base):
    """Ranks, alphas and targets differ, and other methods share the base model."""
    tasks = (
        Task("adapters", 5, ("x", "y", "z")),
        Task("narrow", 0, ("x", "y"), other_method=parse("lora:1", "query,value")),
        Task("wide", 0, ("x", "y", "z"), other_method=parse("lora:3", EVERY, 16.0)),
        Task("biases", 0, None, other_method=parse("bitfit", "query,value")),
    )
    folders = small_packages.write_packages(tmp_path, base, tasks)
    small_packages.check_served(base, folders)
    # The updates matter.
    package = adapter_package.read(folders[2])
    plain = {n: v * ("lora" not in n) for n, v in package.weights.items()}
    batch = small_packages.random_batch(4, 9)
    scores = [
        small_packages.single_task_scores(each, base["init_checkpoint"], batch)
        for each in (package, package._replace(weights=plain))
    ]
    assert np.abs(scores[0] - scores[1]).max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "policy", "part"),
    [
        ({"alpha": 0}, "lora:2", "adapter.alpha"),
        ({"alpha": "8"}, "lora:2", "adapter.alpha"),
        ({"alpha": None}, "lora:2", "adapter.alpha"),
        ({"targets": []}, "lora:2", "adapter.targets"),
        ({"targets": ["query", "query"]}, "lora:2", "adapter.targets has"),
        ({"targets": ["bias"]}, "lora:2", "adapter.targets[0]"),
        ({"size": 4}, "lora:2", "adapter.size"),
        ({"placement": "pfeiffer"}, "lora:2", "adapter.placement is not known"),
        ({}, "lora:3", "parameters"),
        ({}, "lora:x", "1 to 65536"),
        ({}, "head", "adapter.alpha"),
    ],
)
def test_forged_entries(tmp_path, base, changes, policy, part):
    task = Task("t", 0, ("x", "y"), other_method=parse("lora:2", "query,value"))
    folder = small_packages.write_package(tmp_path / "package", base, task)
    config = json.loads((tmp_path / "package" / "adapter_config.json").read_text())
    config["adapter"].update(changes)
    config["train_policy"] = policy
    config["sha256"] = package_checks.config_digest(config)
    with pytest.raises(UserError) as error:
        package_checks.parse_config(json.dumps(config).encode(), folder)
    assert part in str(error.value).replace('"', "") and folder in str(error.value)


def test_initial_values_are_those_of_the_libraries():
    """A is uniform within 1 / sqrt(n_in) and another in each layer, B is zero."""
    H = 64
    config = small_run.small_config(50, hidden_size=H, intermediate_size=2 * H)
    method = parse("lora:16", "query,output")
    options = modeling.Options(layer_hooks=method.layer_hooks)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(1)
        modeling.BertModel(config, False, tf.constant([[0]]), options=options)
        session.run(tf.global_variables_initializer())
        values = session.run({v.op.name: v for v in tf.global_variables()})
    found = [value for name, value in sorted(values.items()) if "lora_A" in name]
    assert [value.shape for value in found] == [(H, 16), (2 * H, 16)] * 2
    for value in found:
        bound = len(value) ** -0.5
        assert np.abs(value).max() <= bound
        np.testing.assert_allclose(value.std(), bound / 3**0.5, rtol=0.1)
        assert abs(value.mean()) < 0.1 * bound
    assert np.abs(found[0] - found[2]).max() > 0.1
    zeros = [value for name, value in values.items() if "lora_B" in name]
    assert len(zeros) == 4 and not any(map(np.any, zeros))


@pytest.mark.parametrize(
    ("text", "settings", "part"),
    [
        ("lora:0", {}, "1 to 65536"),
        ("lora:x", {}, "1 to 65536"),
        ("lora", {}, "lora:R"),
        ("lora:2", {"lora_targets": "query,keys"}, "'keys'"),
        ("lora:2", {"lora_targets": ""}, "''"),
        ("lora:2", {"adapter_layers": "1"}, "a setting of adapters, not of lora:2"),
        ("lora:2", {"adapter_size": 8}, "a setting of adapters, not of lora:2"),
        ("adapters", {"lora_targets": "key"}, "a setting of lora:R, not of adapters"),
        ("adapters", {"lora_alpha": 4.0}, "a setting of lora:R, not of adapters"),
    ],
)
def test_settings_that_cannot_be(text, settings, part):
    with pytest.raises(ValueError) as error:
        registry.parse(text, settings, 2)
    assert part in str(error.value)
