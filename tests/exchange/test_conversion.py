"""Tests of the conversion: outputs against numpy, and everything it refuses."""

import hashlib
import json
import os

import ml_dtypes
import numpy as np
import pytest
import safetensors
import tensorflow.compat.v1 as tf
import torch_layout
from absl import flags
from adapterhub_layout import write_base
from hf_layout import (
    CONFIG,
    TOKENS,
    legacy,
    numpy_bert,
    prefixed,
    random_batch,
    random_weights,
    write_encoder,
)
from safetensors.numpy import load_file, save_file

import convert_checkpoint
import modeling
from errors import UserError
from exchange import conversion, heads, hugging_face
from tests import programs, small_packages, small_run
from weights import adapter_package, base_model, checkpoints, model_variables


def converted_bert(folder, batch):
    """Runs this project's BERT on a converted folder, as `numpy_bert` does."""
    config = modeling.BertConfig.from_json_file(
        os.path.join(folder, "bert_config.json")
    )
    prefix = os.path.join(folder, "bert_model.ckpt")
    with tf.Graph().as_default(), tf.Session() as session:
        ids, mask, types = (tf.constant(part, tf.int32) for part in batch)
        model = modeling.BertModel(config, False, ids, mask, types, adapter_fn=None)
        variables = tf.global_variables()
        stored = dict(tf.train.list_variables(prefix))
        assert {v.op.name: v.shape.as_list() for v in variables} == stored
        tf.train.Saver(variables).restore(session, prefix)
        return session.run([model.get_sequence_output(), model.get_pooled_output()])


def read_checkpoint(folder):
    reader = tf.train.load_checkpoint(os.path.join(folder, "bert_model.ckpt"))
    return {
        name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
    }


def same_weights(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


def digests(folder):
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in os.listdir(folder)
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The checkpoint of the plain encoder, a dict name -> array."""
    folder = tmp_path_factory.mktemp("plain")
    conversion.convert(write_encoder(folder / "in"), str(folder / "out"))
    return read_checkpoint(str(folder / "out"))


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_outputs_equal_numpy(tmp_path, activation):
    config = dict(CONFIG, hidden_act=activation)
    weights = random_weights(config, seed=3)
    source = write_encoder(tmp_path / "in", config, weights)
    output = tmp_path / "deep" / "out"
    assert conversion.convert(source, str(output)) is True
    batch = random_batch(config)
    sequence, pooled = converted_bert(str(output), batch)
    wanted_sequence, wanted_pooled = numpy_bert(config, weights, *batch)
    np.testing.assert_allclose(sequence, wanted_sequence, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(pooled, wanted_pooled, rtol=2e-5, atol=2e-5)
    assert np.abs(pooled).max() > 0.1
    assert sorted(os.listdir(output)) == [
        "bert_config.json",
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
        "conversion.json",
        "vocab.txt",
    ]
    assert os.listdir(tmp_path / "deep") == ["out"]
    assert (output / "vocab.txt").read_bytes() == (
        tmp_path / "in" / "vocab.txt"
    ).read_bytes()


def test_config_fields(tmp_path):
    source = write_encoder(tmp_path / "in")
    conversion.convert(source, str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "bert_config.json").read_text())
    assert len(written) == 11
    assert written.items() <= {**CONFIG, "hidden_act": "gelu"}.items()


@pytest.mark.parametrize("layout", [prefixed, legacy])
def test_other_names_for_the_same_weights(tmp_path, plain, layout):
    source = write_encoder(tmp_path / "in", weights=layout(random_weights(CONFIG)))
    conversion.convert(source, str(tmp_path / "out"))
    assert same_weights(read_checkpoint(str(tmp_path / "out")), plain)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_float_types_become_float32(tmp_path, dtype):
    weights = {n: w.astype(dtype) for n, w in random_weights(CONFIG).items()}
    source = write_encoder(tmp_path / "in", weights=weights)
    conversion.convert(source, str(tmp_path / "out"))
    stored = read_checkpoint(str(tmp_path / "out"))
    assert {value.dtype for value in stored.values()} == {np.dtype(np.float32)}
    name = "encoder.layer.1.intermediate.dense.weight"
    np.testing.assert_array_equal(
        stored["bert/encoder/layer_1/intermediate/dense/kernel"],
        weights[name].astype(np.float32).T,
    )


def write_parts(folder, weights):
    """Writes weights as two files and their index; returns the index."""
    write_encoder(folder)
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number in (1, 2):
        part = "model-0000%d-of-00002.safetensors" % number
        names = sorted(weights)[number - 1 :: 2]
        save_file({name: weights[name] for name in names}, str(folder / part))
        weight_map.update(dict.fromkeys(names, part))
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def test_weights_in_parts(tmp_path, plain):
    write_parts(tmp_path / "in", random_weights(CONFIG))
    conversion.convert(str(tmp_path / "in"), str(tmp_path / "out"))
    assert same_weights(read_checkpoint(str(tmp_path / "out")), plain)


def write_torch(folder, weights, old=False):
    """Writes an encoder with pytorch_model.bin alone; returns its path."""
    write_encoder(folder)
    (folder / "model.safetensors").unlink()
    torch_layout.save(folder / "pytorch_model.bin", weights, old)
    return str(folder)


@pytest.mark.parametrize("old, layout", [(False, prefixed), (True, legacy)])
def test_weights_of_pytorch(tmp_path, plain, layout, old):
    source = write_torch(tmp_path / "in", layout(random_weights(CONFIG)), old)
    conversion.convert(source, str(tmp_path / "out"))
    assert same_weights(read_checkpoint(str(tmp_path / "out")), plain)
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert sorted(record["inputs"]) == ["config.json", "pytorch_model.bin", "vocab.txt"]


def test_safetensors_go_before_files_of_pytorch(tmp_path, plain):
    source = write_encoder(tmp_path / "in")
    torch_layout.save(
        tmp_path / "in" / "pytorch_model.bin", random_weights(CONFIG, seed=9)
    )
    conversion.convert(source, str(tmp_path / "out"))
    assert same_weights(read_checkpoint(str(tmp_path / "out")), plain)


@pytest.mark.parametrize(
    "change, part",
    [
        (lambda m: m.pop("pooler.dense.bias"), "disagree"),
        (lambda m: m.update({"more": "model-00001-of-00002.safetensors"}), "disagree"),
        (lambda m: m.update({"pooler.dense.bias": "none.safetensors"}), "none"),
        (lambda m: m.update({"pooler.dense.bias": "../in/vocab.txt"}), "vocab"),
        (lambda m: m.update({"pooler.dense.bias": 3}), "weight_map"),
    ],
)
def test_wrong_index(tmp_path, change, part):
    index = write_parts(tmp_path / "in", random_weights(CONFIG))
    change(index["weight_map"])
    path = tmp_path / "in" / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    refused(tmp_path, [str(path), part])


DENSE = "encoder.layer.1.output.dense.weight"


def refused(folder, parts, **arguments):
    """Asserts that folder/in is refused, with `parts` in the message."""
    with pytest.raises(UserError) as caught:
        conversion.convert(str(folder / "in"), str(folder / "out"), **arguments)
    for part in parts:
        assert part in str(caught.value)
    assert os.listdir(folder) == ["in"]


@pytest.mark.parametrize(
    "field, value",
    [
        ("model_type", "roberta"),
        ("is_decoder", True),
        ("hidden_act", "silu"),
        ("layer_norm_eps", 1e-3),
        ("num_attention_heads", 5),
        ("num_hidden_layers", "two"),
        ("vocab_size", None),
        ("hidden_dropout_prob", 1.5),
    ],
)
def test_config_that_is_refused(tmp_path, field, value):
    write_encoder(tmp_path / "in", dict(CONFIG, **{field: value}))
    refused(tmp_path, ["config.json", field])


def test_config_with_only_the_sizes(tmp_path, plain):
    fields = [field for field in CONFIG if isinstance(CONFIG[field], int)]
    source = write_encoder(tmp_path / "in", {field: CONFIG[field] for field in fields})
    conversion.convert(source, str(tmp_path / "out"))
    assert same_weights(read_checkpoint(str(tmp_path / "out")), plain)
    config = json.loads((tmp_path / "out" / "bert_config.json").read_text())
    assert (
        config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == 0.1
    )
    assert (config["hidden_act"], config["initializer_range"]) == ("gelu", 0.02)


@pytest.mark.parametrize(
    "field, value, notice",
    [
        ("hidden_act", "gelu", "tanh approximation"),
        ("layer_norm_eps", 1e-5, "layer_norm_eps is 1e-05"),
        ("auto_map", {"AutoModel": "code.Model"}, "auto_map"),
        ("_name_or_path", "bert-base-uncased", "`do_lower_case`=False does not fit"),
        ("vocab_size", 11, None),
    ],
)
def test_deviations_are_logged(tmp_path, monkeypatch, field, value, notice):
    logged = []
    monkeypatch.setattr(
        hugging_face.logging, "warning", lambda text, *args: logged.append(text % args)
    )
    source = write_encoder(tmp_path / "in", dict(CONFIG, **{field: value}))
    (tmp_path / "in" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    conversion.convert(source, str(tmp_path / "out"))
    assert len(logged) == (notice is not None)
    assert all(notice in text for text in logged)


@pytest.mark.parametrize(
    "change, parts",
    [
        (
            lambda w: [w.pop(n) for n in list(w) if "pooler" in n or n == DENSE],
            [DENSE + " is missing", "pooler.dense.weight is missing"],
        ),
        (
            lambda w: w.update({DENSE: np.ascontiguousarray(w[DENSE].T)}),
            [DENSE, "[20, 12]", "[12, 20]"],
        ),
        (
            lambda w: w.update({"embeddings.LayerNorm.gamma": w["pooler.dense.bias"]}),
            ["embeddings.LayerNorm.gamma is not part"],
        ),
        (
            lambda w: w.update({"bert.pooler.dense.bias": w["pooler.dense.bias"]}),
            ["pooler.dense.bias exists with and without"],
        ),
        (
            lambda w: w.update({DENSE: w[DENSE].astype(np.int8)}),
            [DENSE + " is of type I8"],
        ),
        (lambda w: w[DENSE].fill(np.nan), [DENSE, "not a number"]),
        (
            lambda w: w.update({DENSE: w[DENSE].astype(np.float64) * 1e300}),
            [DENSE, "beyond float32"],
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path, change, parts):
    weights = random_weights(CONFIG)
    change(weights)
    write_encoder(tmp_path / "in", weights=weights)
    refused(tmp_path, parts)


HEADS = {
    "classifier.weight": np.ones((2, 12), np.float32),
    "classifier.bias": np.ones(2, np.float32),
    "qa_outputs.weight": np.ones((2, 12), np.int32),
    "cls.predictions.transform.dense.weight": np.full((12, 12), np.nan, np.float32),
    "cls.predictions.decoder\x1b[2J.bias": np.array(3, np.float32),
}


@pytest.mark.parametrize("prefix", ["", "bert.", "model.encoder.bert."])
def test_heads_are_left_out_whatever_the_prefix(tmp_path, monkeypatch, plain, prefix):
    logged = []
    monkeypatch.setattr(
        hugging_face.logging, "info", lambda text, *args: logged.append(text % args)
    )
    weights = {prefix + name: w for name, w in random_weights(CONFIG).items()}
    weights[prefix + "embeddings.position_ids"] = np.arange(9)[None]
    source = write_encoder(tmp_path / "in", weights={**weights, **HEADS})
    conversion.convert(source, str(tmp_path / "out"))
    assert same_weights(read_checkpoint(str(tmp_path / "out")), plain)
    (left_out,) = [text for text in logged if "left out" in text]
    assert "5 found" in left_out and "\x1b" not in left_out
    for name in ("classifier.bias", "qa_outputs.weight", r"decoder\x1b[2J.bias"):
        assert name in left_out
    assert "position_ids" not in left_out


def test_folders_of_no_or_two_encoders(tmp_path):
    name = "embeddings.word_embeddings.weight"
    weights = random_weights(CONFIG)
    two = {side + n: w for side in ("a.", "b.") for n, w in weights.items()}
    write_encoder(tmp_path / "in", weights=two)
    refused(tmp_path, ["one BERT encoder", "hold 2", "a." + name, "b." + name])
    del weights[name]
    write_encoder(tmp_path / "in", weights=weights)
    refused(tmp_path, ["one BERT encoder", name, "hold 0", "embeddings.LayerNorm"])


@pytest.mark.parametrize(
    "layers, named", [(10**9, "num_hidden_layers"), (40, "encoder.layer.2.")]
)
def test_more_layers_than_there_are_tensors(tmp_path, layers, named):
    write_encoder(tmp_path / "in", dict(CONFIG, num_hidden_layers=layers))
    refused(tmp_path, [named, "config.json"])


def test_missing_pooler(tmp_path, plain):
    weights = random_weights(CONFIG)
    del weights["pooler.dense.weight"], weights["pooler.dense.bias"]
    source = write_encoder(tmp_path / "in", weights=weights)
    refused(tmp_path, ["`init_missing_pooler`", "bert/pooler/dense/kernel"])
    stored = []
    for seed in (1, 1, 2):
        output = str(tmp_path / ("out%d" % len(stored)))
        conversion.convert(source, output, init_missing_pooler=True, seed=seed)
        stored.append(read_checkpoint(output))
    kernels = [values.pop("bert/pooler/dense/kernel") for values in stored]
    assert np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
    assert kernels[0].shape == (12, 12)
    # A normal distribution of deviation 0.05, truncated at two deviations: 0.88 * 0.05.
    assert 0.035 < kernels[0].std() < 0.053
    assert np.abs(kernels).max() <= 0.1
    assert not stored[0].pop("bert/pooler/dense/bias").any()
    assert all(np.array_equal(stored[0][name], plain[name]) for name in stored[0])
    assert len(stored[0]) == len(plain) - 2


def test_doubled_lines_are_taken_as_they_are(tmp_path, plain):
    source = write_encoder(tmp_path / "in", tokens=[*TOKENS[:-2], "a", "\u00a0"])
    conversion.convert(source, str(tmp_path / "out"))
    assert same_weights(read_checkpoint(str(tmp_path / "out")), plain)
    vocab = (tmp_path / "in" / "vocab.txt").read_bytes()
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == vocab


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_missing_file(tmp_path, name):
    write_encoder(tmp_path / "in")
    (tmp_path / "in" / name).unlink()
    refused(tmp_path, [name])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("length", [0, 5, -3])
def test_damaged_file(tmp_path, name, length):
    write_encoder(tmp_path / "in")
    path = tmp_path / "in" / name
    path.write_bytes(path.read_bytes()[:length])
    refused(tmp_path, [str(path), "is damaged"])


@pytest.mark.parametrize(
    "source, output, parts",
    [
        ("in/vocab.txt", "out", ["`input_dir`", "not a folder"]),
        ("none", "out", ["`input_dir`", "not a folder"]),
        ("gs://x/in", "out", ["`input_dir`", "local folder"]),
        ("in", "gs://x/out", ["`output_dir`", "local folder"]),
        ("in", "in", ["`output_dir`", "not empty"]),
        ("in", "", ["`output_dir`", "not empty"]),
        ("in", "in/vocab.txt", ["`output_dir`", "not a folder"]),
        ("in", "in/vocab.txt/out", ["vocab.txt/out", "cannot be written"]),
    ],
)
def test_folders_that_are_refused(tmp_path, monkeypatch, source, output, parts):
    monkeypatch.chdir(tmp_path)
    write_encoder(tmp_path / "in")
    before = digests(tmp_path / "in")
    with pytest.raises(UserError) as caught:
        conversion.convert(source, output)
    for part in parts:
        assert part in str(caught.value)
    assert os.listdir(tmp_path) == ["in"]
    assert digests(tmp_path / "in") == before


def test_second_run_recognises_its_own_output(tmp_path):
    source = write_encoder(tmp_path / "in")
    output = tmp_path / "out"
    output.mkdir()
    assert conversion.convert(source, str(output)) is True
    before = digests(output)
    times = [os.stat(output / name).st_mtime_ns for name in sorted(before)]
    # The seed plays no part where the pooler is not made.
    assert conversion.convert(source, str(output), seed=8) is False
    assert digests(output) == before
    assert [os.stat(output / name).st_mtime_ns for name in sorted(before)] == times


@pytest.mark.parametrize(
    "name", ["vocab.txt", "conversion.json", "bert_model.ckpt.data-00000-of-00001"]
)
def test_other_content_is_never_overwritten(tmp_path, name):
    source = write_encoder(tmp_path / "in")
    output = tmp_path / "out"
    conversion.convert(source, str(output))
    if name == "vocab.txt":
        write_encoder(tmp_path / "in", tokens=[*TOKENS[:-1], "other"])
    else:
        (output / name).write_bytes(b"{}")
    before = digests(output)
    with pytest.raises(UserError, match="does not hold this conversion"):
        conversion.convert(source, str(output))
    assert digests(output) == before


def test_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    source = write_encoder(tmp_path / "in")

    def full_disk(prefix, values):
        with open(prefix, "w") as writer:
            writer.write("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion.checkpoints, "write", full_disk)
    refused(tmp_path, [str(tmp_path / "out"), "No space left"])
    assert os.path.isdir(source)


# --- to Hugging Face's layout ---------------------------------------------------


def test_round_trip_bit_for_bit(tmp_path):
    base = write_base(tmp_path / "base")
    conversion.write_model(base, str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == [
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    wanted = random_weights(CONFIG)
    found = load_file(str(tmp_path / "out" / "model.safetensors"))
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert value.tobytes() == wanted[name].tobytes(), name
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == dict(CONFIG, pad_token_id=0, torch_dtype="float32")
    with safetensors.safe_open(
        str(tmp_path / "out" / "model.safetensors"), framework="numpy"
    ) as stored:
        assert stored.metadata() == {"format": "pt"}
    conversion.convert(str(tmp_path / "out"), str(tmp_path / "again"))
    for name in ("bert_config.json", "vocab.txt", "bert_model.ckpt.index"):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (tmp_path / "base" / "checkpoint" / name).read_bytes()


def test_settings_of_written_encoders(tmp_path):
    base = write_base(tmp_path / "base")
    path = tmp_path / "base" / "checkpoint" / "bert_config.json"
    config = json.loads(path.read_text())
    for number, (activation, written_activation, lower_case) in enumerate(
        (
            ("gelu", "gelu_new", None),
            ("GELU", "gelu_new", True),
            ("tanh", "tanh", False),
            (None, "linear", None),
        )
    ):
        # Unknown entries of a bert_config.json are not written.
        path.write_text(json.dumps(dict(config, hidden_act=activation, pooler_type=1)))
        output = tmp_path / str(number)
        conversion.write_model(base, str(output), None, lower_case)
        written = json.loads((output / "config.json").read_text())
        assert written["hidden_act"] == written_activation
        assert written.keys() == {*CONFIG, "pad_token_id", "torch_dtype"}
        assert json.loads((output / "tokenizer_config.json").read_text()) == {
            "do_lower_case": lower_case is not False,
            "model_max_length": 9,
            "tokenizer_class": "BertTokenizer",
        }


@pytest.fixture
def packaged(tmp_path):
    """A base and the folder of a package on it, cased."""
    flags = small_packages.write_base(tmp_path / "base")
    base = base_model.BaseFiles(**flags)
    folder = small_packages.write_package(
        tmp_path / "package",
        flags,
        small_packages.FOUR_TASKS[0],
        do_lower_case=False,
    )
    return base, folder


def test_layer_norms_of_a_package_take_the_place_of_the_bases(tmp_path, packaged):
    base, folder = packaged
    conversion.write_model(base, str(tmp_path / "plain"))
    conversion.write_model(base, str(tmp_path / "merged"), folder)
    plain, merged = (
        load_file(str(tmp_path / name / "model.safetensors"))
        for name in ("plain", "merged")
    )
    differ = {name for name in plain if not np.array_equal(plain[name], merged[name])}
    assert differ == {name for name in plain if "LayerNorm" in name}
    package = adapter_package.read(folder)
    np.testing.assert_array_equal(
        merged["encoder.layer.1.output.LayerNorm.weight"],
        package.weights["bert/encoder/layer_1/output/LayerNorm/gamma"],
    )
    path = tmp_path / "merged" / "tokenizer_config.json"
    assert json.loads(path.read_text())["do_lower_case"] is False
    with pytest.raises(UserError, match="`do_lower_case`=True does not fit"):
        conversion.write_model(base, str(tmp_path / "x"), folder, True)


def not_written(folder, base, part, **arguments):
    before = sorted(os.listdir(folder))
    with pytest.raises(UserError) as caught:
        conversion.write_model(base, str(folder / "out"), **arguments)
    assert part in str(caught.value)
    assert sorted(os.listdir(folder)) == before


def test_bases_that_are_refused(tmp_path, packaged):
    base, folder = packaged
    other = small_packages.write_base(tmp_path / "other", seed=8)
    not_written(
        tmp_path,
        base._replace(init_checkpoint=other["init_checkpoint"]),
        "its base is",
        adapters=folder,
    )
    (tmp_path / "other" / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n[PAD]\na\n")
    vocab_file = other["vocab_file"]
    not_written(
        tmp_path,
        base._replace(vocab_file=vocab_file),
        "its vocabulary is",
        adapters=folder,
    )
    not_written(tmp_path, base, "cannot be read", adapters=str(tmp_path / "none"))
    # A tuned checkpoint: its adapters would be lost in silence.
    names = model_variables.frozen_shapes(adapter_package.read(folder).bert_config)
    values = dict(checkpoints.Checkpoint(base.init_checkpoint).iterate_values(names))
    values.update(adapter_package.read(folder).weights)
    (tmp_path / "tuned").mkdir()
    tuned = str(tmp_path / "tuned" / "model.ckpt")
    checkpoints.write(tuned, values)
    not_written(tmp_path, base._replace(init_checkpoint=tuned), "without adapters")


@pytest.mark.parametrize("name", ["output/dense/kernel", "output/LayerNorm/gamma"])
@pytest.mark.parametrize(
    ("dtype", "factor", "problem"),
    [
        (np.float32, np.nan, "is not finite in checkpoint "),
        (np.float16, 1, "is float16 in checkpoint "),
        (np.int32, 1, "of dtype int32"),
    ],
)
def test_weights_of_a_base_model_that_are_refused(
    tmp_path, packaged, name, dtype, factor, problem
):
    base, folder = packaged
    source = checkpoints.Checkpoint(base.init_checkpoint)
    values = dict(source.iterate_values(source.shapes))
    name = "bert/encoder/layer_0/" + name
    values[name] = (values[name] * np.float32(factor)).astype(dtype)
    broken = str(tmp_path / "model.ckpt")
    # `checkpoints.write` cannot be used: NaN does not equal what it wrote.
    small_run.write_checkpoint(
        broken,
        lambda: [tf.get_variable(n, initializer=v) for n, v in values.items()],
    )
    base = base._replace(init_checkpoint=broken)
    for adapters in (None, folder):
        not_written(tmp_path, base, problem, adapters=adapters)
        not_written(tmp_path, base, name, adapters=adapters)
        not_written(tmp_path, base, broken, adapters=adapters)


def test_a_disk_that_does_not_keep_what_is_written(tmp_path, packaged, monkeypatch):
    base, _ = packaged
    save_file = hugging_face.safetensors.numpy.save_file

    def damage(tensors, path, metadata):
        name = min(tensors)
        save_file({**tensors, name: tensors[name] + 1}, path, metadata)

    monkeypatch.setattr(hugging_face.safetensors.numpy, "save_file", damage)
    not_written(tmp_path, base, "does not hold what was written")


# --- the command line -----------------------------------------------------------


@pytest.mark.parametrize(
    "given, parts",
    [
        ({}, ["--to=checkpoint needs --output_dir and --input_dir"]),
        (
            {"to": "package", "output_dir": "x"},
            ["--to=package needs --input_dir and", " and --task_name or --task_config"],
        ),
        ({"to": "huggingface", "init_checkpoint": "x"}, ["--bert_config_file and"]),
        ({"to": "adapterhub", "output_dir": "x"}, ["needs --adapters"]),
        (
            {"input_dir": "x", "output_dir": "y", "adapters": "z"},
            ["--adapters does not go with --to=checkpoint", "--input_dir"],
        ),
        (
            {"to": "adapterhub", "adapters": "x", "output_dir": "y", "seed": 3},
            ["--seed does not go with --to=adapterhub", "--adapters"],
        ),
    ],
)
def test_flags_of_each_direction(given, parts):
    values = flags.FlagValues()
    groups = convert_checkpoint.define_flags(values)
    values(["x", *("--%s=%s" % item for item in given.items())])
    with pytest.raises(UserError) as caught:
        convert_checkpoint._check_flags(values)
    for part in parts:
        assert part in str(caught.value)
    # Each flag has its place in the help, and each direction's flags exist.
    named = {holder.name for group in groups.values() for holder in group}
    assert named == {*values.flag_values_dict()} - {"help", "helpfull", "helpshort"}
    for needed, taken in convert_checkpoint._DIRECTIONS.values():
        assert {*needed, *taken} <= named


def test_program(tmp_path, plain):
    weights = random_weights(CONFIG)
    del weights["pooler.dense.weight"], weights["pooler.dense.bias"]
    source = write_encoder(tmp_path / "in", weights=weights)
    (tmp_path / "in" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    flags = ["--input_dir=%s" % source, "--output_dir=%s" % (tmp_path / "out")]
    refusal = programs.run("convert_checkpoint.py", *flags)
    assert refusal.returncode == 1
    assert refusal.stderr.splitlines()[-1].startswith("error: The encoder in")
    assert "Traceback" not in refusal.stderr
    done = programs.run(
        "convert_checkpoint.py", *flags, "--init_missing_pooler", "--seed=4"
    )
    assert done.returncode == 0, done.stderr
    assert "39 tensors, 2812 parameters" in done.stderr
    assert "--do_lower_case=False" in done.stderr
    assert "The pooler is random, from --seed=4" in done.stderr
    stored = read_checkpoint(str(tmp_path / "out"))
    sources = hugging_face.expected_sources(CONFIG).items()
    pooler = {name: source.shape for name, source in sources if "pooler" in name}
    made = heads.random_variables(pooler, CONFIG["initializer_range"], 4)
    assert same_weights(stored, {**plain, **made})
    base = tmp_path / "out"
    done = programs.run(
        "convert_checkpoint.py",
        "--to=huggingface",
        "--init_checkpoint=%s" % (base / "bert_model.ckpt"),
        "--bert_config_file=%s" % (base / "bert_config.json"),
        "--vocab_file=%s" % (base / "vocab.txt"),
        "--do_lower_case=false",
        "--output_dir=%s" % (tmp_path / "back"),
    )
    assert done.returncode == 0, done.stderr
    assert "39 tensors, 2812 parameters" in done.stderr
    found = load_file(str(tmp_path / "back" / "model.safetensors"))
    assert same_weights({name: found[name] for name in weights}, weights)
    path = tmp_path / "back" / "tokenizer_config.json"
    assert json.loads(path.read_text())["do_lower_case"] is False
