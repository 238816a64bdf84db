"""Made-up damage to what strangers send: it is read, or refused with one message.

`./test.sh` tries few cases; FUZZ_EXAMPLES=10000 in the environment tries that many of
each test, and --hypothesis-show-statistics counts them.
"""

import contextlib
import copy
import datetime
import hashlib
import json
import os
import pathlib
import resource
import shutil
import struct

import adapterhub_layout
import hf_layout
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adapter_package
import adapterhub_format
import checkpoints
import convert_checkpoint
import files
import modeling
import package_checks
import package_conversion
import package_report
from errors import UserError
from tests import small_packages

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "20"))
MOST_GROWTH = 400_000_000  # bytes of memory, over all cases of a test

fuzzed = settings(
    max_examples=EXAMPLES,
    # The few cases of the quick run are the same everywhere.
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    deadline=datetime.timedelta(seconds=20),  # a case
    suppress_health_check=list(HealthCheck),
)

# --- what is made up ------------------------------------------------------------

HOSTILE = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        0.5,
        -0.0,
        1e-9,
        1e308,
        10**6,
        10**9,
        2**31,
        2**40,
    ),
    *(2**62, 2**63, 2**64, 10**30, 10**299, 10**301, float("nan"), float("inf")),
    *(
        "",
        "\x1b[2J",
        "\ud800",
        "\0",
        "a\nb",
        "../../x",
        "/dev/zero",
        "gelu",
        "x" * 5000,
    ),
    *([], {}, [[]], {"": {}}, [1, 2], ["a", "a"], list(range(3000)), {"a": {"b": [0]}}),
]
for _depth in (30, 200):
    _deep = 1
    for _ in range(_depth):
        _deep = [_deep]
    HOSTILE.append(_deep)
VALUES = st.one_of(
    st.sampled_from(HOSTILE),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=5,
    ),
).map(copy.deepcopy)  # Later changes may go inside.


def changed_document(draw, document):
    """A copy of a JSON value with up to three places replaced, removed or added."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        node = document
        while node:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            key = draw(st.sampled_from(keys))
            inner = node[key]
            if isinstance(inner, (dict, list)) and inner and draw(st.booleans()):
                node = inner
                continue
            action = draw(st.sampled_from(("set", "set", "remove", "add")))
            if action == "set":
                node[key] = draw(VALUES)
            elif action == "remove":
                del node[key]
            elif isinstance(node, dict):
                node[draw(st.text(max_size=5) | st.sampled_from(dir(dict)))] = draw(
                    VALUES
                )
            else:
                node.append(draw(VALUES))
            break
    return document


def changed_bytes(draw, data):
    """The bytes with up to four places replaced, removed, added or cut off."""
    data = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        action = draw(st.sampled_from(("flip", "remove", "add", "cut", "repeat")))
        if action == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif action == "remove":
            del data[at : at + draw(st.integers(1, 20))]
        elif action == "add":
            data[at:at] = draw(st.binary(max_size=10))
        elif action == "repeat":
            data[at:at] = data[at : at + 1] * draw(st.sampled_from((1, 50, 5000)))
        elif action == "cut" and draw(st.integers(0, 3)) == 0:
            del data[at:]
    return bytes(data)


def changed_json(draw, document):
    """Bytes of a changed document, or changed bytes of one."""
    data = json.dumps(changed_document(draw, document)).encode("utf-8")
    return data if draw(st.booleans()) else changed_bytes(draw, data)


def changed_safetensors(draw, data):
    """A weights' file with another header, or other bytes."""
    if draw(st.integers(0, 3)) == 0:
        return changed_bytes(draw, data)
    length = 8 + struct.unpack("<Q", data[:8])[0]
    header = changed_json(draw, json.loads(data[8:length]))
    payload = data[length:]
    if draw(st.integers(0, 3)) == 0:
        payload = changed_bytes(draw, payload)
    size = draw(st.sampled_from((len(header), len(header), len(header) + 1, 2**63)))
    return struct.pack("<Q", size) + header + payload


# --- what has to come of it -----------------------------------------------------


def read_or_refuse(call, *arguments):
    """What the call returns; None where it refuses with one printable message."""
    try:
        return call(*arguments)
    except UserError as error:
        message = str(error)
        assert message and len(message) < 20_000
        assert message.isprintable(), ascii(message)
        return None


@pytest.fixture(autouse=True)
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MOST_GROWTH


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_packages.write_base(tmp_path_factory.mktemp("fuzz") / "bert")


@pytest.fixture(scope="module")
def written(tmp_path_factory, base):
    """A sound package."""
    task = small_packages.Task("pair", 4, ("no", "yes"))
    folder = tmp_path_factory.mktemp("fuzz") / "package"
    return pathlib.Path(small_packages.write_package(folder, base, task))


@pytest.fixture
def package(tmp_path, written):
    """A package to damage."""
    return pathlib.Path(shutil.copytree(written, tmp_path / "package"))


def check_package(folder):
    found = read_or_refuse(adapter_package.read, str(folder))
    if found is not None:
        lines = package_report.summary(found) + package_report.table([found, found])
        assert all(line.isprintable() for line in lines)
        assert all(np.isfinite(value).all() for value in found.weights.values())


# --- the readers ----------------------------------------------------------------


@fuzzed
@given(data=st.data())
def test_json(data):
    text = changed_json(data.draw, {"a": [1, 2.5, {"b": None}], "c": "d"})
    with contextlib.suppress(ValueError):
        assert isinstance(files.parse_json_object(text), dict)


@fuzzed
@given(data=st.data())
def test_bert_config(base, data):
    path = pathlib.Path(base["bert_config_file"]).with_name("changed.json")
    seed = json.loads(pathlib.Path(base["bert_config_file"]).read_text())
    path.write_bytes(changed_json(data.draw, seed))
    config = read_or_refuse(modeling.BertConfig.from_json_file, str(path))
    if config is not None:
        modeling.BertConfig.from_dict(config.to_dict()).validate("again")
        read_or_refuse(config.check_adapter_size, data.draw(st.integers(1)))


@fuzzed
@given(data=st.data())
def test_bytes_of_a_package(package, written, data):
    for name in (adapter_package.CONFIG_NAME, adapter_package.WEIGHTS_NAME):
        sound = (written / name).read_bytes()
        (package / name).write_bytes(changed_bytes(data.draw, sound))
    check_package(package)


def _forge(package, config):
    weights = (package / adapter_package.WEIGHTS_NAME).read_bytes()
    if isinstance(config.get("weights"), dict):
        config["weights"].setdefault("bytes", len(weights))
        config["weights"].setdefault("sha256", hashlib.sha256(weights).hexdigest())
    config["sha256"] = package_checks.config_digest(config)
    path = package / adapter_package.CONFIG_NAME
    path.write_text(json.dumps(config))


@fuzzed
@given(data=st.data())
def test_config_of_a_package_with_digests_that_fit(package, written, data):
    seed = json.loads((written / adapter_package.CONFIG_NAME).read_bytes())
    _forge(package, changed_document(data.draw, seed))
    check_package(package)


@fuzzed
@given(data=st.data())
def test_weights_of_a_package_with_digests_that_fit(package, written, data):
    sound = (written / adapter_package.WEIGHTS_NAME).read_bytes()
    weights = package / adapter_package.WEIGHTS_NAME
    weights.write_bytes(changed_safetensors(data.draw, sound))
    config = json.loads((written / adapter_package.CONFIG_NAME).read_bytes())
    config["weights"] = {}
    _forge(package, config)
    check_package(package)


@pytest.fixture
def run_folder(tmp_path, written, base):
    """A run's folder with a checkpoint, as `manage_adapters.py export` takes it."""
    sound = adapter_package.read(str(written))
    frozen = adapter_package.frozen_shapes(sound.bert_config)
    values = dict(checkpoints.iterate_values(base["init_checkpoint"], frozen))
    values.update(sound.weights, global_step=np.int64(10))
    (tmp_path / "run").mkdir()
    checkpoints.write(str(tmp_path / "run" / "model.ckpt-10"), values)
    return tmp_path / "run"


RUN = {
    "task": "mrpc",
    "labels": ["0", "1"],
    "adapter_size": 4,
    "vocabulary": "0" * 64,
    "do_lower_case": True,
    "max_seq_length": 24,
    "activation": "gelu",
}
TRAINING = {"adapter_init_scale": 1e-3, "seed": 1}
SETS = {"dev": {"examples": 4, "scores": {"f1": 0.5, "accuracy": float("nan")}}}


@fuzzed
@given(data=st.data())
def test_records_beside_a_checkpoint(run_folder, written, data):
    config = json.loads((written / adapter_package.CONFIG_NAME).read_bytes())
    identity = dict(RUN, bert_config=config["bert_config"])
    record = {"identity": identity, "training": TRAINING, "parameters": {}}
    results = {"task": "mrpc", "global_step": 10, "sets": SETS}
    (run_folder / "run.json").write_bytes(changed_json(data.draw, record))
    (run_folder / "eval_results.json").write_bytes(changed_json(data.draw, results))
    output = run_folder.parent / "made"
    shutil.rmtree(output, ignore_errors=True)
    read_or_refuse(
        package_conversion.export,
        str(run_folder / "model.ckpt-10"),
        str(output),
        package_conversion.Given(),
    )
    if output.exists():
        check_package(output)
    assert {"run"} <= set(os.listdir(run_folder.parent)) <= {"run", "made"}


@fuzzed
@given(data=st.data())
def test_encoders_of_hugging_face(tmp_path, data):
    for left in ("encoder", "output"):
        shutil.rmtree(tmp_path / left, ignore_errors=True)
    folder = pathlib.Path(hf_layout.write_encoder(tmp_path / "encoder"))
    if data.draw(st.booleans()):
        (folder / "config.json").write_bytes(changed_json(data.draw, hf_layout.CONFIG))
    if data.draw(st.booleans()):
        (folder / "tokenizer_config.json").write_bytes(
            changed_json(data.draw, {"do_lower_case": True, "model_max_length": 512})
        )
    weights = folder / "model.safetensors"
    if data.draw(st.booleans()):
        weights.write_bytes(changed_safetensors(data.draw, weights.read_bytes()))
    if data.draw(st.booleans()):
        names = hf_layout.random_weights(hf_layout.CONFIG)
        index = {"weight_map": dict.fromkeys(names, "part.safetensors")}
        weights.rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_bytes(
            changed_json(data.draw, index)
        )
    read_or_refuse(convert_checkpoint.convert, str(folder), str(tmp_path / "output"))
    assert {"encoder"} <= set(os.listdir(tmp_path)) <= {"encoder", "output"}


@fuzzed
@given(data=st.data())
def test_adapters_of_adapterhub(tmp_path, data):
    shutil.rmtree(tmp_path / "adapter", ignore_errors=True)
    folder = pathlib.Path(adapterhub_layout.write_adapter(tmp_path / "adapter"))
    config = modeling.BertConfig.from_dict(hf_layout.CONFIG)
    for name in ("adapter_config.json", "head_config.json"):
        if data.draw(st.booleans()):
            sound = json.loads((folder / name).read_text())
            (folder / name).write_bytes(changed_json(data.draw, sound))
    for name in ("adapter.safetensors", "model_head.safetensors"):
        if data.draw(st.booleans()):
            sound = (folder / name).read_bytes()
            (folder / name).write_bytes(changed_safetensors(data.draw, sound))
    read_or_refuse(adapterhub_format.read, str(folder), config)
    read_or_refuse(adapterhub_format.read_head, str(folder), config.hidden_size)
