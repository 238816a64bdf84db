"""The SavedModel of many tasks: what it holds, and that TensorFlow alone runs it."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import glue_data
from errors import UserError
from serving import predictor, saved_model
from tasks.question_answering import QuestionAnswering
from tests import graph_variables, programs, small_packages
from tests.places import ROOT
from tests.small_packages import FOUR_TASKS, Task
from tuning import adapters, bitfit, head, layer_norm, lora
from weights import adapter_package, base_model, checkpoints, model_variables

TASKS = [task.name for task in FOUR_TASKS]
ROWS = ["three", "pair", "score", "wide", "wide", "score", "pair", "three"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that the tests of this module share."""
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def base(folder):
    """Flags of a small base."""
    return small_packages.write_base(folder / "base")


@pytest.fixture(scope="module")
def packages(folder, base):
    """Folders of the packages of `FOUR_TASKS`."""
    return small_packages.write_packages(folder, base)


@pytest.fixture(scope="module")
def exported(folder, base, packages):
    """A SavedModel of them."""
    return export(packages, base, folder / "models")


def export(packages, base, output, **settings):
    """Exports packages on a base model, given by its flags."""
    files = base_model.BaseFiles(**base)
    return saved_model.export(packages, files, str(output), **settings)


class Questions(Task):
    """A task of questions."""

    type = QuestionAnswering(doc_stride=2, max_query_length=8)


def write_tasks(folder, base):
    """Writes packages of GLUE's tasks, which know if they take pairs, and SQuAD."""
    tasks = (Task("mrpc", 8, ("0", "1")), Task("sst-2", 5, ("0", "1")))
    found = []
    for seed, task in enumerate((*tasks, Task("sts-b", 6, None))):
        path = small_packages.write_package(folder / task.name, base, task, seed)
        known = glue_data.get_task(task.name)
        package = adapter_package.update_task(adapter_package.read(path), known)
        adapter_package.add_scores(package, None, None)
        found.append(path)
    questions = Questions("squad", 4, None)
    return [*found, small_packages.write_package(folder / "squad", base, questions)]


def inputs_of(names, length=9):
    """Inputs of the signature for a made-up batch of rows of these tasks."""
    batch = small_packages.random_batch(len(names), length)
    return dict(batch, task=np.array(names))


@contextlib.contextmanager
def loaded(folder, name="ids"):
    """Loads a SavedModel as a graph; gives a function that runs a signature."""
    with tf.Graph().as_default(), tf.Session() as session:
        model = tf.saved_model.load(session, ["serve"], folder)
        signature = model.signature_def[name]
        outputs = {name: info.name for name, info in signature.outputs.items()}
        names = {name: info.name for name, info in signature.inputs.items()}
        yield lambda inputs, *more: session.run(
            outputs, {names[name]: inputs[name] for name in names}, *more
        )


def test_tuning_methods_share_a_model(tmp_path, base, packages):
    Adapters, Lora = adapters.Adapters, lora.Lora
    methods = {
        "only": head.Head(),  # The first package has fewer weights than others.
        "upper": Adapters(6, None, (1,)),
        "norms": layer_norm.LayerNorm(),
        "biases": bitfit.BitFit(),
        "after": Adapters(3, None, None, "relu", "pfeiffer"),
        "after_upper": Adapters(5, None, (1,), "swish", "pfeiffer"),
        "beside": Adapters(4, None, None, "relu", "parallel"),
        "low_rank": Lora(1),
        "every_dense": Lora(3, 16.0, tuple(lora.TARGETS)),
    }
    tasks = [
        Task(name, 1, ("x", "y", "z") if len(name) % 2 else None, other_method=method)
        for name, method in methods.items()
    ]
    folders = small_packages.write_packages(tmp_path, base, tasks)
    folders.insert(1, packages[0])
    model = export(folders, base, tmp_path / "models")
    inputs = inputs_of(["pair", *methods, *sorted(methods)])
    check_against_single_tasks(run(model, inputs), folders, base, inputs)
    with open(os.path.join(model, "assets", saved_model.TASKS_NAME)) as reader:
        content = json.load(reader)
    assert content["base"] == adapter_package.read(packages[0]).config["base"]


def run(folder, inputs):
    """Loads a SavedModel and runs its signature once."""
    with loaded(folder) as call:
        return call(inputs)


def check_against_single_tasks(outputs, packages, base, inputs, atol=1e-5):
    """Compares each row with a single-task model."""
    batch = {name: inputs[name] for name in inputs if name != "task"}
    seen = 0
    for package in map(adapter_package.read, packages):
        rows = np.flatnonzero(inputs["task"] == package.task)
        expected = small_packages.single_task_scores(
            package, base["init_checkpoint"], batch
        ).reshape(len(inputs["task"]), -1)[rows]
        used = expected.shape[1]
        np.testing.assert_allclose(outputs["scores"][rows, :used], expected, atol=atol)
        np.testing.assert_array_equal(outputs["scores"][rows, used:], 0)
        label_ids = np.argmax(expected, axis=1)
        np.testing.assert_array_equal(outputs["label_id"][rows], label_ids)
        labels = [(package.labels or [""])[i].encode("utf-8") for i in label_ids]
        assert outputs["label"][rows].tolist() == labels
        seen += len(rows)
    assert seen == len(inputs["task"])


LOAD = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
inputs = {name: tf.constant(value) for name, value in np.load(sys.argv[2]).items()}
outputs = model.signatures["ids"](**inputs)
assert "modeling" not in sys.modules and "absl.flags" in sys.modules
np.savez(sys.argv[3], **{name: value.numpy() for name, value in outputs.items()})
"""


def run_process(*arguments, cwd=None):
    """Runs a command without this project; returns its output."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={key: os.environ[key] for key in os.environ if key != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tensorflow_alone_runs_it_and_scores_equal_single_task_models(
    tmp_path, exported, packages, base
):
    inputs = inputs_of(ROWS)
    np.savez(tmp_path / "in.npz", **inputs)
    # -I: neither the working directory nor PYTHONPATH is searched for modules.
    run_process(
        sys.executable,
        "-I",
        "-c",
        LOAD,
        exported,
        tmp_path / "in.npz",
        tmp_path / "out.npz",
    )
    outputs = dict(np.load(tmp_path / "out.npz", allow_pickle=True))
    assert outputs["scores"].shape == (8, 3)
    check_against_single_tasks(outputs, packages, base, inputs)


ROWS_OF_TEXT = [  # text_a, text_b, task
    ("A cat sat on a mat", "while RAIN fell.", "mrpc"),
    ("music", "", "sst-2"),
    ("a cat " * 20, "on a mat " * 20, "sts-b"),  # truncated
    ("", "", "sst-2"),
    ("cat\u0301 sat\u200b,unknown", "rain\tfell", "mrpc"),
]


@pytest.fixture(scope="module")
def text_model(folder, base):
    """A SavedModel of tasks of texts and pairs, and its packages."""
    found = write_tasks(folder / "tasks", base)
    return export(found, base, folder / "models" / "glue"), found


def test_texts_are_answered_as_by_a_predictor(text_model, base):
    model = predictor.Predictor(**base)
    for package in text_model[1]:
        model.add(package)
    inputs = dict(zip(("text_a", "text_b", "task"), map(list, zip(*ROWS_OF_TEXT))))
    with loaded(text_model[0], "serving_default") as call:
        found = call(inputs)
        empty = call({name: [] for name in inputs})
        for name, values, part in (
            ("text_b", ["a"], "text_b: its shape"),
            ("task", ["squad"] * 5, "has no such task:] [squad squad squad"),
            ("text_b", ["a"] * 5, "must not have it; rows, from 0:] [1 3]"),
            ("text_b", [""] * 5, "must not have it; rows, from 0:] [0 2 4]"),
        ):
            with pytest.raises(tf.errors.InvalidArgumentError) as error:
                call({**inputs, name: values})
            assert part in error.value.message
    assert {name: value.shape for name, value in empty.items()} == {
        "scores": (0, 2),
        "label_id": (0,),
        "label": (0,),
    }
    rows = [(task, *texts) for *texts, task in ROWS_OF_TEXT]
    for prediction, scores, label in zip(
        model.predict_mixed(rows), found["scores"], found["label"]
    ):
        expected = [prediction.score, 0.0]
        if prediction.probabilities:
            expected = list(prediction.probabilities.values())
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        assert label.decode() == (prediction.label or "")


def test_the_clients_of_the_documents(text_model, tmp_path):
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    code = ("import sys\nsys.path.append(%r)\n" % str(ROOT)).join(blocks)
    for name in ("glue", "squad"):
        shutil.copytree(text_model[0], tmp_path / "models" / name / "1")
    output = run_process(sys.executable, "-I", "-c", code, cwd=tmp_path)
    assert output.count("b'") == 2 and output.count("[") == 4
    found = re.search(r"(.*) slice\((\d+), (\d+), None\) -?\d+\.\d+\n$", output)
    (context,) = re.findall(r'example\("Who sat\?", "(.*)"\)', code)
    assert context[int(found[2]) : int(found[3])] == found[1]


def test_saved_model_cli_shows_and_runs_it(tmp_path, exported, packages, base):
    cli = pathlib.Path(sys.executable).with_name("saved_model_cli")
    shown = run_process(cli, "show", "--dir", exported, "--all")
    for name in ("input_ids", "input_mask", "segment_ids", "task"):
        assert "inputs['%s'] tensor_info" % name in shown
    for name in ("scores", "label_id", "label"):
        assert "outputs['%s'] tensor_info" % name in shown

    inputs = inputs_of(ROWS)
    np.savez(tmp_path / "in.npz", **inputs)
    run_process(
        cli,
        "run",
        "--dir",
        exported,
        "--tag_set=serve",
        "--signature_def=ids",
        "--inputs=" + ";".join("%s=in.npz[%s]" % (name, name) for name in inputs),
        "--outdir=.",
        cwd=tmp_path,
    )
    outputs = {
        name: np.load(tmp_path / (name + ".npy"), allow_pickle=True)
        for name in ("scores", "label_id", "label")
    }
    check_against_single_tasks(outputs, packages, base, inputs)


def test_an_added_task_changes_no_bit_of_the_others(tmp_path, base, packages, exported):
    added = small_packages.write_package(
        tmp_path / "added",
        base,
        Task("added", 64, tuple("abcdefghijklmnopqrst"), "tanh"),
        seed=9,
    )
    more = export([packages[0], added, *packages[1:]], base, tmp_path / "models")
    for names in (ROWS, ["three"]):
        inputs = inputs_of(names)
        few, many = run(exported, inputs), run(more, inputs)
        assert many["scores"].shape == (len(names), 20)
        np.testing.assert_array_equal(many["scores"][:, :3], few["scores"])
        np.testing.assert_array_equal(many["scores"][:, 3:], 0)
        assert many["label"].tolist() == few["label"].tolist()


TOO_MANY = small_packages.VOCAB_SIZE
UNSOUND = [  # an input, its value for two examples of length 9, part of the message
    ("input_mask", lambda x: x[:1], "its shape"),
    ("input_mask", lambda x: x[:, :1], "its shape"),
    ("segment_ids", lambda x: x[:0], "its shape"),
    ("input_ids", lambda x: x[:1], "its shape"),
    ("input_ids", lambda x: x[:, :0], "input_ids"),
    ("input_ids", lambda x: np.ones([2, 33]), "input_ids"),
    ("task", lambda x: x[:1], "its shape"),
    ("task", lambda x: np.array(["pair", "nothing"]), "[nothing]"),
    ("segment_ids", lambda x: x + 2, "from 0 to 1"),
    ("segment_ids", lambda x: x - 2, "from 0 to 1"),
    ("input_mask", lambda x: x + 1, "from 0 to 1"),
    ("input_mask", lambda x: x * [[1], [0]], "all 0 in the rows, from 0:] [1]"),
    ("input_ids", lambda x: x * 0 + TOO_MANY, "from 0 to %d" % (TOO_MANY - 1)),
    ("input_ids", lambda x: np.full_like(x, -(2**31)), "from 0 to %d" % (TOO_MANY - 1)),
]


def test_an_unsound_request_fails_with_the_name_of_the_input(exported):
    with loaded(exported) as call:
        for name, change, part in UNSOUND:
            inputs = inputs_of(["pair", "score"])
            call(inputs)
            inputs[name] = change(inputs[name])
            with pytest.raises(tf.errors.InvalidArgumentError) as error:
                call(inputs)
            assert part in error.value.message


def test_an_empty_batch_has_an_empty_answer(exported):
    inputs = {name: value[:0] for name, value in inputs_of(["pair"]).items()}
    outputs = run(exported, inputs)
    assert {name: value.shape for name, value in outputs.items()} == {
        "scores": (0, 3),
        "label_id": (0,),
        "label": (0,),
    }


def test_assets_hold_what_a_client_needs(exported, base):
    assets = pathlib.Path(exported) / "assets"
    assert (assets / "vocab.txt").read_bytes() == pathlib.Path(
        base["vocab_file"]
    ).read_bytes()
    content = json.loads((assets / "tasks.json").read_text("utf-8"))
    assert content["do_lower_case"] is True
    assert [task["name"] for task in content["tasks"]] == TASKS
    assert [task["labels"] for task in content["tasks"]] == [
        list(task.labels or ()) for task in FOUR_TASKS
    ]
    assert [task["is_regression"] for task in content["tasks"]] == [0, 1, 0, 0]
    assert {task["max_seq_length"] for task in content["tasks"]} == {24}


def test_versions_are_numbered_and_written_whole(tmp_path, base, packages):
    output = tmp_path / "models"
    (output / "7").mkdir(parents=True)
    (output / "notes").mkdir()
    made = export(packages[:1], base, output)
    assert made == str(output / "8")
    assert sorted(os.listdir(output)) == ["7", "8", "notes"]


@pytest.fixture(scope="module")
def small(folder, base, packages):
    """A SavedModel of the same tasks with frozen weights in bfloat16."""
    return export(packages, base, folder / "models", frozen_dtype="bfloat16")


def test_bfloat16_halves_the_frozen_weights(tmp_path, exported, small, base, packages):
    prefix = os.path.join("variables", "variables")
    sizes = [
        os.path.getsize(os.path.join(path, prefix + ".data-00000-of-00001"))
        for path in (exported, small)
    ]
    package = adapter_package.read(packages[0])
    assert sizes[0] - sizes[1] == 2 * package.config["base"]["parameters"]

    # Exactly what a base model of the rounded weights gives.
    rounded = str(tmp_path / "rounded.ckpt")
    names = model_variables.frozen_shapes(package.bert_config)
    values = checkpoints.Checkpoint(base["init_checkpoint"]).iterate_values(names)
    to_bfloat16 = tf.bfloat16.as_numpy_dtype
    checkpoints.write(
        rounded,
        {name: value.astype(to_bfloat16).astype("f4") for name, value in values},
    )
    inputs = inputs_of(ROWS)
    outputs = run(small, inputs)
    check_against_single_tasks(
        outputs, packages, dict(base, init_checkpoint=rounded), inputs
    )
    assert np.abs(outputs["scores"] - run(exported, inputs)["scores"]).max() > 1e-4


def test_weights_are_cast_when_they_are_needed(small, optimized_graphs):
    metadata = tf.RunMetadata()
    with loaded(small) as call:
        options = tf.RunOptions(output_partition_graphs=True)
        call(inputs_of(ROWS), options, metadata)
    (graph,) = metadata.partition_graphs
    kernel = "bert/encoder/layer_1/intermediate/dense/kernel"
    (read,) = (
        each.name
        for each in graph.node
        if each.op == "ReadVariableOp" and each.input[0] == kernel
    )
    layer = "bert/encoder/layer_0/PartitionedCall/"
    needed = graph_variables.names_before(graph, read)
    assert layer + "output/dense/BiasAdd" in needed


def test_a_task_can_have_another_name(tmp_path, base, packages):
    made = export([packages[0], "other=" + packages[0]], base, tmp_path)
    outputs = run(made, dict(inputs_of(["pair"] * 2), task=["pair", "other"]))
    assert outputs["scores"].shape == (2, 2)
    with pytest.raises(UserError, match=r"both of the task pair.*NAME="):
        export([packages[0]] * 2, base, tmp_path)
    with pytest.raises(UserError, match="a name is needed"):
        export(["=" + packages[0]], base, tmp_path)
    assert os.listdir(tmp_path) == ["1"]


def test_impossible_outputs_are_refused(tmp_path, base, packages):
    (tmp_path / "file").write_text("")
    for output in (str(tmp_path / "file"), "gs://bucket/models"):
        with pytest.raises(UserError, match="`output`=" + output):
            saved_model.export(packages, base_model.BaseFiles(**base), output=output)


def test_the_program_exports_and_says_what_is_missing(tmp_path, base, packages):
    given = ["--%s=%s" % item for item in base.items()]
    given += ["--adapters=" + packages[0], "--adapters=" + packages[1]]
    done = programs.run(
        "export_saved_model.py", *given, "--output=models", cwd=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    outputs = run(str(tmp_path / "models" / "1"), inputs_of(["score", "pair"]))
    assert outputs["scores"].shape == (2, 2)

    done = programs.run("export_saved_model.py", *given, cwd=str(tmp_path))
    assert done.returncode == 1
    assert "error: --output is required" in done.stderr
    assert "Traceback" not in done.stderr
