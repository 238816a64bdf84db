"""The adapter package's two files: what is in them, and what strangers put there."""

import hashlib
import json
import os
import re
import shutil
import struct
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

import glue_data
import modeling
from errors import UserError
from model import configuration
from serving import multitask
from tasks import own_tasks
from tasks.classification import Classification
from tasks.question_answering import QuestionAnswering
from tasks.regression import Regression
from tests import graph_variables, small_packages
from training import classifier
from tuning import adapters
from weights import (
    adapter_package,
    checkpoints,
    diagnosis,
    model_variables,
    package_checks,
    package_report,
    run_package,
)

TASK = small_packages.Task("pair", 4, ("no", "yes"))


class Questions(small_packages.Task):
    """A task of questions."""

    type = QuestionAnswering(doc_stride=2, max_query_length=8)


CONFIG, WEIGHTS = adapter_package.CONFIG_NAME, adapter_package.WEIGHTS_NAME
BERT_BASE = modeling.BertConfig(30522, type_vocab_size=2)
SHA256 = "0" * 64


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_packages.write_base(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def written(tmp_path_factory, base):
    folder = tmp_path_factory.mktemp("written") / "package"
    return small_packages.write_package(folder, base, TASK)


@pytest.fixture
def folder(tmp_path, written):
    """A package to damage."""
    return shutil.copytree(written, str(tmp_path / "package"))


def contents(folder):
    """Both files' bytes, by name."""
    found = {}
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as reader:
            found[name] = reader.read()
    return found


def put(folder, name, data):
    with open(os.path.join(folder, name), "wb") as writer:
        writer.write(data)


def forge(folder, change=lambda config: None, data=None):
    """Puts other content in, with digests that fit it, as a stranger could."""
    if data is not None:
        put(folder, WEIGHTS, data)
    files = contents(folder)
    config = json.loads(files[CONFIG])
    config["weights"] = {
        "bytes": len(files[WEIGHTS]),
        "sha256": hashlib.sha256(files[WEIGHTS]).hexdigest(),
    }
    change(config)
    config["sha256"] = package_checks.config_digest(config)
    put(folder, CONFIG, json.dumps(config).encode("utf-8"))


def refused(folder, name):
    """The message with which a package is refused; it names the file."""
    with pytest.raises(UserError) as error:
        adapter_package.read(folder)
    message = str(error.value)
    assert os.path.join(folder, name) in message
    assert message.isprintable()
    assert len(message) < 1000
    return message


def with_header(header, payload):
    """A weights' file; `header` is a dict, or bytes that stand in its place."""
    if isinstance(header, dict):
        header = json.dumps(header).encode("utf-8")
    return struct.pack("<Q", len(header)) + header + payload


def parts(folder):
    """Header as a dict, and payload, of a weights' file."""
    data = contents(folder)[WEIGHTS]
    length = 8 + struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:length]), data[length:]


# --- what is in a package -------------------------------------------------------


@pytest.mark.parametrize(("size", "labels"), [(5, 3), (2, 1)])
def test_shapes_are_those_of_the_model(base, size, labels):
    config = modeling.BertConfig.from_json_file(base["bert_config_file"])
    method = adapters.Adapters(size)
    kind = Regression() if labels == 1 else Classification.numbered(labels)
    variables = graph_variables.model_variables(
        config, labels, classifier.Variant(kind, method=method)
    )
    known = model_variables.model_variables(config, method, kind)
    trained, frozen = known.trained(), known.frozen()
    assert set(trained) == set(variables.trained())
    assert {**trained, **frozen} == variables.shapes
    assert not set(trained) & set(frozen)
    assert list(trained) == sorted(trained)
    assert list(frozen) == sorted(frozen)


def random_weights(shapes):
    random = np.random.RandomState(1)
    return {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def test_what_is_written_is_read(tmp_path, base):
    config = modeling.BertConfig.from_json_file(base["bert_config_file"])
    method = adapters.Adapters(4, 0.01, activation="swish")
    variables = model_variables.model_variables(
        config, method, Classification.numbered(3)
    )
    weights = random_weights(variables.trained())
    task = {
        "name": "colour",
        "labels": ["rouge", "été", "bleu"],
        "type": "classification",
        "is_regression": False,
        "metrics": ["accuracy", "f1"],
    }
    given = {
        "vocabulary": "5" * 64,
        "do_lower_case": False,
        "max_seq_length": 20,
        "settings": {"learning_rate": 3e-05, "seed": 1},
        "origin": "elsewhere",
    }
    entries = adapter_package.make_config(task, config, method=method, **given)
    fingerprint = checkpoints.Checkpoint(base["init_checkpoint"]).base_fingerprint(
        variables.frozen()
    )
    scores = {"dev": {"accuracy": 0.75}, "dev_mm": {"accuracy": 0.5}}
    folder = str(tmp_path / "new" / "package")
    entries |= adapter_package.score_entries(scores, None)
    adapter_package.write(folder, entries, weights, fingerprint, 77)
    package = adapter_package.read(folder)
    assert package.path == folder
    assert package.bert_config.to_dict() == config.to_dict()
    assert {name: value.tobytes() for name, value in package.weights.items()} == {
        name: value.tobytes() for name, value in weights.items()
    }
    expected = {
        **given,
        "format": "adapter-bert",
        "format_version": 1,
        "program_version": adapter_package.VERSION,
        "task": task,
        "adapter": {
            "size": 4,
            "layers": [0, 1],
            "init_scale": 0.01,
            "activation": "swish",
        },
        "train_policy": "adapters",
        "dev_scores": scores,
        "global_step": 77,
        "parameters": sum(value.size for value in weights.values()),
        "base": fingerprint,
    }
    assert {key: package.config[key] for key in expected} == expected


def test_no_base_weight_is_in_a_package(folder, base):
    package, data = adapter_package.read(folder), contents(folder)[WEIGHTS]
    frozen = model_variables.frozen_shapes(package.bert_config)
    assert not set(frozen) & set(parts(folder)[0])
    values = dict(
        checkpoints.Checkpoint(base["init_checkpoint"]).iterate_values(frozen)
    )
    assert not [name for name, value in values.items() if value.tobytes() in data]
    assert all(value.tobytes() in data for value in package.weights.values())
    header = data.index(b"}}") + 2
    assert len(data) <= header + 8 + 4 * package.config["parameters"]


def test_bert_base_with_two_labels_takes_less_than_10_mb(tmp_path):
    variables = model_variables.model_variables(
        BERT_BASE, task_type=Classification.numbered(2)
    )
    counts = variables.parameter_counts()
    assert counts["trained"] == 2_419_202
    frozen = counts["total"] - counts["trained"]
    assert frozen == 109_482_240 - 38_400
    task = adapter_package.describe_task(glue_data.get_task("mrpc"))
    config = adapter_package.make_config(task, BERT_BASE, SHA256, True, 128)
    folder = str(tmp_path / "package")
    base = {"sha256": SHA256, "parameters": frozen}
    weights = random_weights(variables.trained())
    adapter_package.write(folder, config, weights, base, 1)
    assert sum(map(len, contents(folder).values())) < 10_000_000


def test_scores_are_added_and_the_rest_is_kept(folder):
    before = adapter_package.read(folder)
    weights = contents(folder)[WEIGHTS]
    scores = {"dev": {"pearson": float("nan"), "spearman": 0.25}}
    diagnostics = diagnosis.Diagnostics(training=[], evaluation=["dev: all the same"])
    adapter_package.add_scores(before, scores, diagnostics)
    after = adapter_package.read(folder)
    assert after.config["dev_scores"] == {"dev": {"pearson": None, "spearman": 0.25}}
    assert contents(folder)[WEIGHTS] == weights
    changed = {k for k in after.config if after.config[k] != before.config[k]}
    assert changed == {"dev_scores", "health", "sha256"}
    assert after.diagnostics == diagnostics
    assert b"NaN" not in contents(folder)[CONFIG]


def test_a_task_that_no_package_can_hold_is_refused():
    task = glue_data.get_task("mrpc")
    adapter_package.check_task(
        task._replace(type=Classification(tuple("雨" * 45 + c for c in "ab")))
    )
    for part, change in (
        ("task.labels[1]", {"type": Classification(("a", "b\nc"))}),
        ("task.text_columns[0]", {"train": task.train._replace(text_a="a\nb")}),
        (
            "1000 labels",
            {"type": Classification(tuple("%05000d" % i for i in range(1000)))},
        ),
    ):
        with pytest.raises(UserError, match=re.escape(part)):
            adapter_package.check_task(task._replace(config_file="t.json", **change))


def test_a_task_of_another_type_is_not_that_of_a_package(tmp_path, base):
    questions = Questions("mail", 4, None)
    path = small_packages.write_package(tmp_path / "package", base, questions)
    package = adapter_package.read(path)
    # Neither type has a list of labels.
    document = {"name": "mail", "dev": "dev.csv", "text_a": "text", "label": "score"}
    task = own_tasks.parse_task({**document, "regression": True}, "mail.json")
    with pytest.raises(UserError, match=r"mail.json.* regression.* question_answering"):
        adapter_package.update_task(package, task)


def test_a_checkpoint_for_a_tpu_is_removed_at_the_end(folder, tmp_path, monkeypatch):
    at_exit = []
    monkeypatch.setattr(run_package.atexit, "register", at_exit.append)
    (tmp_path / "adapters_at_start").mkdir()
    (tmp_path / "adapters_at_start" / "mine").touch()
    package = adapter_package.read(folder)
    prefix = run_package.write_checkpoint(package, str(tmp_path), use_tpu=True)
    assert prefix.startswith(str(tmp_path))
    assert checkpoints.Checkpoint(prefix).shapes.keys() == package.weights.keys()
    (remove,) = at_exit
    remove()
    assert {path.name for path in tmp_path.iterdir()} == {
        "package",
        "adapters_at_start",
    }
    assert os.listdir(tmp_path / "adapters_at_start") == ["mine"]


def test_a_package_is_read_while_it_is_replaced(folder, monkeypatch):
    package = adapter_package.read(folder)
    read, others = adapter_package.files.read, iter(range(2, 6))

    def read_and_replace(path, *arguments):
        data = read(path, *arguments)
        other = next(others, None) if path.endswith(CONFIG) else None
        if other:
            weights = {name: value * other for name, value in package.weights.items()}
            adapter_package.add_scores(
                package._replace(weights=weights), None, diagnosis.Diagnostics()
            )
        return data

    monkeypatch.setattr(adapter_package.files, "read", read_and_replace)
    found = adapter_package.read(folder)
    assert np.array_equal(found.weights[HEAD], 5 * package.weights[HEAD])


# --- damage ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_file_that_was_cut_or_grew(folder, name):
    whole = contents(folder)[name]
    # A config ends in "}\n", and is whole without its line end.
    for length in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 2]:
        put(folder, name, whole[:length])
        refused(folder, name)
    put(folder, name, whole + b"x")
    refused(folder, name)
    put(folder, name, whole)
    adapter_package.read(folder)


def test_every_flipped_bit_of_the_config_is_found(folder):
    path = os.path.join(folder, CONFIG)
    whole = contents(folder)[CONFIG]
    package_checks.parse_config(whole, path)
    for position in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(UserError, match=CONFIG):
            package_checks.parse_config(bytes(flipped), path)


def test_every_flipped_bit_of_the_weights_is_found(folder):
    whole = contents(folder)[WEIGHTS]
    random = np.random.RandomState(0)
    positions = random.choice(8 * len(whole), 400, replace=False)
    for position in [*range(64), *positions, 8 * len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        put(folder, WEIGHTS, flipped)
        assert "damaged" in refused(folder, WEIGHTS)


def test_flipped_bits_that_fit_their_digest_crash_nothing(folder):
    whole = contents(folder)[WEIGHTS]
    expected = adapter_package.read(folder).weights
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    random = np.random.RandomState(0)
    for position in [*range(64), *random.choice(8 * header, 300, replace=False)]:
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        forge(folder, data=flipped)
        try:
            read = adapter_package.read(folder).weights
        except UserError as error:
            assert WEIGHTS in str(error) or CONFIG in str(error)
        else:
            shapes = {name: value.shape for name, value in read.items()}
            assert shapes == {n: value.shape for n, value in expected.items()}


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: None])
def test_what_is_no_file(folder, name, make):
    path = os.path.join(folder, name)
    os.remove(path)
    make(path)
    assert "cannot be read" in refused(folder, name)


def test_a_path_that_is_no_folder(folder, tmp_path):
    for path in (str(tmp_path / "none"), os.path.join(folder, CONFIG)):
        assert "an adapter package is a folder" in refused(path, CONFIG)


# --- strangers' configs ---------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"Adapters of the MRPC task, see the paper.\n",
        b"{}",
        b'{"format": ["adapter-bert"]}',
        b'{"format": "adapter-bert"}',
        b'{"format": "adapter-bert", "format_version": 1}',
        b'{"format": "adapter-bert", "a": ' + b"[" * 800 + b"]" * 800 + b"}",
        b'{"format": "adapter-bert", "format_version": NaN}',
        b" " * (1 << 23),
    ],
    ids=lambda data: "%d-%s" % (len(data), data[:12]),
)
def test_configs_of_other_programs(folder, data):
    put(folder, CONFIG, data)
    refused(folder, CONFIG)


def test_a_package_of_adapterhub_is_told_where_to_go(folder):
    put(folder, CONFIG, b'{"config": {"mh_adapter": true}, "hidden_size": 768}')
    assert "convert_checkpoint.py" in refused(folder, CONFIG)


def test_a_version_to_come_is_told_apart_from_damage(folder):
    forge(folder, lambda config: config.update(format_version=2))
    message = refused(folder, CONFIG)
    assert "damaged" not in message
    assert "version 2, this program reads 1" in message
    forge(folder, lambda config: config.update(format_version=1, train_policy="lora"))
    message = refused(folder, CONFIG)
    assert "damaged" not in message
    assert "train_policy" in message and "use the version of the program" in message


def _changed(*path_and_value):
    *path, key, value = path_and_value

    def change(config):
        for step in path:
            config = config[step]
        config[key] = value

    return change


DEEP = []
for _ in range(50):
    DEEP = [DEEP]

# `tests/system/test_schema.py` has the kinds of values that a schema refuses; here are
# combinations of entries, and values that could take memory or reach a terminal.
FORGED = [
    *(_changed(key, value) for key in ("task", "bert_config") for value in (None, [])),
    *(
        _changed(key, value)
        for key in ("max_seq_length", "global_step", "parameters")
        for value in (-1, True, 2**70, 10**4000)
    ),
    *(
        _changed("bert_config", key, value)
        for key in configuration.CONFIG_SIZES
        for value in (0, "16", 10**9, 10**18)
    ),
    *(
        _changed("bert_config", key, value)
        for key, value in (
            ("hidden_act", "exec"),
            ("hidden_dropout_prob", float("1e999")),
            ("initializer_range", 10**400),
        )
    ),
    *(
        _changed("adapter", key, value)
        for key, value in (
            ("size", 0),
            ("size", 10**18),
            ("size", 3),
            ("layers", []),
            ("layers", [0]),
            ("layers", [1, 0]),
            ("layers", list(range(2_000))),
            ("activation", "exec"),
        )
    ),
    *(
        _changed("task", key, value)
        for key, value in (
            ("labels", []),
            ("labels", ["a"]),
            ("labels", [str(i) for i in range(2_000)]),
            ("name", "a\x1b[2J"),
            ("metrics", ["\x9b2J"]),
            ("type", "regression"),
            ("text_columns", ["a\nb", None]),
        )
    ),
    _changed("base", "parameters", 1),
    _changed("weights", "bytes", 2**62),
    _changed("dev_scores", {"dev": {"f1": "high"}}),
    _changed("settings", {"a": float("nan")}),
    _changed("settings", DEEP),
    _changed("settings", {"a": DEEP}),
    _changed("settings", {"learning_rate": "high"}),
    _changed("health", {"training": [1]}),
    _changed("max_seq_length", 1000),
]


def test_entries_that_are_none_of_berts_set_nothing(folder):
    def change(config):
        config["bert_config"].update(
            {"validate": 1, "to_dict": 1, "__class__": "int", "__dict__": {}}
        )

    expected = adapter_package.read(folder).bert_config.to_dict()
    forge(folder, change)
    assert adapter_package.read(folder).bert_config.to_dict() == expected


@pytest.mark.parametrize("change", FORGED)
def test_forged_configs(folder, change):
    forge(folder, change)
    tracemalloc.start()
    try:
        refused(folder, CONFIG)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_a_terminal_does_not_obey_a_message(folder):
    forge(folder, _changed("adapter", "activation", "\x1b[2J\u202e\ud800"))
    assert "adapter.activation" in refused(folder, CONFIG)


# --- strangers' weights ---------------------------------------------------------

HEAD = "output_bias"


def _renamed(header):
    header["bert/output_bias"] = header.pop(HEAD)


def _entry(**changes):
    return lambda header: header[HEAD].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        _renamed,
        lambda header: header.pop(HEAD),
        _entry(dtype="I32"),
        _entry(dtype="BF16", shape=[4]),
        _entry(dtype="PICKLE"),
        _entry(shape=[2, 1]),
        _entry(shape=[2**32, 2**32]),
        _entry(shape=[0, 2**64 - 1]),
        _entry(shape=None),
        _entry(data_offsets=[0, 8]),
        _entry(data_offsets=[2**63, 2**63 + 8]),
        _entry(data_offsets=[-8, 0]),
        lambda header: header.update(__metadata__={"a": 1}),
        lambda header: header.update(
            x=dict(header[HEAD], shape=[0], data_offsets=[0, 0])
        ),
    ],
)
def test_forged_headers_of_the_weights(folder, change):
    header, payload = parts(folder)
    change(header)
    forge(folder, data=with_header(header, payload))
    refused(folder, WEIGHTS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2**64 - 1) + b"{}",
        with_header({}, b""),
        with_header(b"\xff\xff", b""),
        with_header(b'{"a":' * 500, b""),
        b"\x80\x04\x95" + b"\x00" * 100,
    ],
    ids=lambda data: "%d-%s" % (len(data), data[:12]),
)
def test_weights_of_other_programs(folder, data):
    forge(folder, data=data)
    refused(folder, WEIGHTS)


def test_weights_longer_than_such_a_model_has(folder):
    header, payload = parts(folder)
    text = json.dumps(header).encode("utf-8") + b" " * 100_000
    forge(folder, data=with_header(text, payload))
    assert "weights.bytes" in refused(folder, CONFIG)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(folder, value):
    weights = dict(adapter_package.read(folder).weights)
    weights["output_weights"] = weights["output_weights"].copy()
    weights["output_weights"][1, 3] = value
    forge(folder, data=safetensors.numpy.save(weights))
    assert "output_weights is not finite" in refused(folder, WEIGHTS)


# --- writing --------------------------------------------------------------------


def write_again(package, path):
    """Writes a package with other weights."""
    weights = {name: value + 1 for name, value in package.weights.items()}
    adapter_package.add_scores(
        package._replace(path=path, weights=weights), None, diagnosis.Diagnostics()
    )


def test_what_a_killed_program_moved_away_is_found(folder, tmp_path):
    before = adapter_package.read(folder)
    summary = package_report.format_summary(before)
    os.rename(folder, folder + ".replaced")
    for path in (folder, folder + "/"):
        found = adapter_package.read(path)
        assert found.config == before.config
    assert package_report.format_summary(found._replace(path=folder)) == summary
    assert multitask.read_package("other=" + folder).task == "other"
    # The next write replaces it.
    adapter_package.add_scores(found, {"dev": {"f1": 0.5}}, diagnosis.Diagnostics())
    assert os.listdir(tmp_path) == ["package"]
    assert adapter_package.read(folder).config["dev_scores"] == {"dev": {"f1": 0.5}}


@pytest.mark.parametrize("name", ["", "notes.txt", "notes \udcff"])
def test_what_is_no_package_is_not_replaced(folder, tmp_path, name):
    package, path = adapter_package.read(folder), tmp_path / "mine"
    notes = path
    if name:
        path.mkdir()
        notes = path / name  # The last one's name is not UTF-8.
    notes.write_text("my notes")
    with pytest.raises(UserError, match=r"mine .*move it away"):
        write_again(package, str(path))
    assert notes.read_text() == "my notes"


def test_weights_of_a_diverged_training_are_not_written(folder):
    before, package = contents(folder), adapter_package.read(folder)
    package.weights["output_bias"] = np.array([0, np.nan], np.float32)
    with pytest.raises(UserError, match="output_bias is not finite"):
        adapter_package.add_scores(package, None, diagnosis.Diagnostics())
    assert contents(folder) == before


def test_a_slash_at_the_end(tmp_path, base):
    package = small_packages.write_package(str(tmp_path / "p") + "/", base, TASK)
    assert set(os.listdir(package)) == {CONFIG, WEIGHTS, "README.md"}
    small_packages.write_package(str(tmp_path / "p") + "/", base, TASK, seed=1)
    adapter_package.read(package)


# --- fitting --------------------------------------------------------------------


@pytest.fixture
def fitting(folder, base):
    """A package, and all that it is compared with."""
    package = adapter_package.read(folder)
    config = modeling.BertConfig.from_json_file(base["bert_config_file"])
    frozen = model_variables.frozen_shapes(config)
    return package, {
        "bert_config": config.to_dict(),
        "vocabulary": package.config["vocabulary"],
        "do_lower_case": True,
        "adapter_size": 4,
        "labels": ["no", "yes"],
        "base": checkpoints.Checkpoint(base["init_checkpoint"]).base_fingerprint(
            frozen
        ),
    }


def test_what_it_was_trained_with_fits(fitting):
    package, given = fitting
    adapter_package.check_fit(package, given)
    adapter_package.check_fit(package, {})
    # Dropout does not decide whether weights fit.
    given["bert_config"]["hidden_dropout_prob"] = 0.5
    adapter_package.check_fit(package, given)


@pytest.mark.parametrize(
    ("key", "value", "flag"),
    [
        ("vocabulary", "beef", "`vocab_file`"),
        ("do_lower_case", False, "`do_lower_case`"),
        ("adapter_size", 64, "`adapter_size`"),
        ("labels", ["yes", "no"], "`task_name`"),
        ("labels", [], "`task_name`"),
        ("base", {"sha256": "beef"}, "`init_checkpoint`"),
        ("bert_config", {"vocab_size": 99}, "`bert_config_file`"),
        ("bert_config", {"num_attention_heads": 4}, "`bert_config_file`"),
        ("bert_config", {"hidden_act": "relu"}, "`bert_config_file`"),
    ],
)
def test_what_does_not_fit_is_told_with_both_values(fitting, key, value, flag):
    package, given = fitting
    ours, theirs = given[key], value
    if isinstance(value, dict):
        ours, theirs = {name: ours[name] for name in value}, {**ours, **value}
    (misfit,) = adapter_package.find_mismatches(package, {**given, key: theirs})
    with pytest.raises(UserError, match=re.escape(misfit)) as error:
        adapter_package.check_fit(package, {**given, key: theirs})
    for part in (json.dumps(ours), json.dumps(value), key, flag):
        assert part in misfit
    assert package.path in str(error.value)
