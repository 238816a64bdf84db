"""Predictions in process: those of the single-task program, whatever else is loaded."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import glue_data
from errors import UserError
from serving import predictor
from tasks import task_data
from tests import small_packages, small_run
from tests.places import ROOT
from tests.small_packages import Task
from tuning import adapters, bitfit, head, layer_norm, top_k
from weights import adapter_package, checkpoints, diagnosis

MRPC = Task("mrpc", 8, ("0", "1"))
STS_B = Task("sts-b", 5, None, "relu")
THREE = Task("three", 3, ("a", "b", "c"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Flags of a small base."""
    return small_packages.write_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def paths(tmp_path_factory, base):
    """Folders of packages, by the task's name."""
    tasks = (MRPC, STS_B, THREE)
    folder = tmp_path_factory.mktemp("packages")
    found = small_packages.write_packages(folder, base, tasks)
    return dict(zip([task.name for task in tasks], found))


def load(base, *folders, **settings):
    """A predictor with packages."""
    model = predictor.Predictor(**base, **settings)
    for folder in folders:
        model.add(folder)
    return model


def texts(count, seed=0):
    """Pairs of made-up sentences of different lengths, some without a second one."""
    random = np.random.RandomState(seed)

    def sentence():
        return " ".join(random.choice(small_run.WORDS, random.randint(1, 14)))

    return [(sentence(), sentence() if i % 3 else None) for i in range(count)]


def numbers(predictions):
    """Probabilities, or the score, of each prediction."""
    return [
        [p.score] if p.label is None else list(p.probabilities.values())
        for p in predictions
    ]


@pytest.mark.parametrize(
    ("task", "write_data"),
    [(MRPC, small_run.write_mrpc), (STS_B, small_run.write_sts_b)],
)
def test_predictions_are_those_of_run_classifier(
    tmp_path, base, paths, task, write_data
):
    data = write_data(tmp_path / "data")
    rows = tmp_path / "data" / "test.tsv"
    # Some of the texts are so long that they are truncated.
    rows.write_text(rows.read_text().replace("cat", "cat sat on a mat while rain fell"))
    longest = adapter_package.read(paths[task.name]).config["max_seq_length"]
    small_run.run(
        **base,
        **data,
        do_predict=True,
        adapters=paths[task.name],
        adapter_size=task.size,
        max_seq_length=longest,
        output_dir=str(tmp_path / "out"),
    )
    expected = np.loadtxt(tmp_path / "out" / "test_results.tsv", ndmin=2)
    row = glue_data.get_task(task.name)
    examples = task_data.read_examples(row, data["data_dir"], row.test[0])
    model = load(base, *paths.values(), batch_size=3)
    pairs = [(example.text_a, example.text_b) for example in examples]
    # Each of their words is one piece.
    assert max(len(" ".join(pair).split()) for pair in pairs) + 3 > longest
    found = model.predict(task.name, pairs)
    np.testing.assert_allclose(numbers(found), expected, atol=1e-5)
    assert expected.std(axis=0).min() > 1e-3
    if task.labels:
        best = np.argmax(expected, axis=1)
        assert [p.label for p in found] == [task.labels[i] for i in best]
        np.testing.assert_allclose(
            [p.probability for p in found], expected.max(axis=1), atol=1e-5
        )


def test_rows_of_mixed_tasks_and_lengths_come_back_in_their_order(base, paths):
    model = load(base, *paths.values(), batch_size=4)
    names = [model.tasks[i % 3] for i in range(23)]
    rows = texts(23)
    sizes = []
    mixed = model.predict_mixed(
        [(name, *row) for name, row in zip(names, rows)], sizes.append
    )
    assert [p.task for p in mixed] == names
    assert sizes == [4, 4, 4, 4, 4, 3]
    alone = [model.predict(name, [row])[0] for name, row in zip(names, rows)]
    for one, other in zip(numbers(mixed), numbers(alone)):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert len({tuple(x) for x in numbers(alone)}) == 23
    by_task = {p.task: p for p in mixed}
    assert list(by_task["three"].probabilities) == ["a", "b", "c"]
    assert by_task["sts-b"].score is not None
    assert by_task["sts-b"].label is by_task["sts-b"].probability is None


def test_tasks_that_trained_less_are_answered_beside_the_others(tmp_path, base, paths):
    tasks = (
        Task("upper", 6, ("a", "b"), other_method=adapters.Adapters(6, None, (1,))),
        Task("norms", 1, ("x", "y", "z"), other_method=layer_norm.LayerNorm()),
        Task("biases", 1, ("p", "q"), other_method=bitfit.BitFit()),
        Task("score", 1, None, other_method=head.Head()),
    )
    folders = small_packages.write_packages(tmp_path, base, tasks)
    model = load(base, paths["three"], *folders)
    rows = texts(6)
    batch = small_packages.encode(base, rows, 24)
    for name, folder in (("three", paths["three"]), *zip(model.tasks[1:], folders)):
        package = adapter_package.read(folder)
        expected = small_packages.single_task_scores(
            package, base["init_checkpoint"], batch
        )
        found = numbers(model.predict(name, rows))
        np.testing.assert_allclose(
            found, expected.reshape(6, -1), atol=1e-5, err_msg=name
        )
    assert model.tasks == ["three", "upper", "norms", "biases", "score"]


def test_layers_of_its_own_are_refused(tmp_path, base):
    task = Task("top", 1, ("a", "b"), other_method=top_k.TopK((1,)))
    folder = small_packages.write_package(tmp_path / "top", base, task)
    with pytest.raises(UserError, match=r"manage_adapters.py merge .*top\)"):
        load(base, folder)


def test_frozen_layer_norms_of_another_base_are_found(tmp_path, base):
    task = Task("head", 1, ("a", "b"), other_method=head.Head())
    folder = small_packages.write_package(tmp_path / "head", base, task)
    checkpoint = base["init_checkpoint"]
    values = {
        name: tf.train.load_variable(checkpoint, name)
        for name in checkpoints.Checkpoint(checkpoint).shapes
    }
    values["bert/embeddings/LayerNorm/beta"] += 1.0
    other = str(tmp_path / "other.ckpt")
    checkpoints.write(other, values)
    load(base, folder)
    with pytest.raises(UserError, match="its base is"):
        load(dict(base, init_checkpoint=other), folder)


def test_a_text_alone_is_a_row(base, paths):
    model = load(base, paths["mrpc"])
    # Each for itself: the rows of a batch are not rounded alike.
    one, same, other = (
        model.predict("mrpc", [row])
        for row in ("a cat sat", ("a cat sat", ""), ("a cat sat", "on a mat"))
    )
    assert one == same
    assert one != other
    assert model.predict("mrpc", []) == []


def test_packages_come_and_go_and_the_others_stay_the_same(base, paths):
    rows = texts(9)
    model = load(base, paths["mrpc"])
    before = model.predict("mrpc", rows)
    # Other activations, sizes and numbers of labels.
    assert model.add(paths["sts-b"]) == "sts-b"
    assert model.add("third=" + paths["three"]) == "third"
    assert model.tasks == ["mrpc", "sts-b", "third"]
    assert [*model.packages["third"].labels] == ["a", "b", "c"]
    assert model.predict("mrpc", rows) == before
    third = model.predict("third", rows)
    assert {p.task for p in third} == {"third"}
    model.remove("mrpc")
    assert model.predict("third", rows) == third
    with pytest.raises(UserError, match=r"no task 'mrpc', there are: sts-b, third"):
        model.predict("mrpc", rows)
    model.add(paths["mrpc"])
    assert model.predict("mrpc", rows) == before
    for name in model.tasks:
        model.remove(name)
    with pytest.raises(UserError, match="no task 'third', there are: none"):
        model.remove("third")


def test_a_call_keeps_the_tasks_that_it_began_with(base, paths):
    model = load(base, paths["mrpc"], paths["three"], batch_size=2)
    rows = texts(6)
    before = model.predict("mrpc", rows)

    def change(_):
        if "three" in model.tasks:
            model.remove("mrpc")
            model.remove("three")
            model.add("mrpc=" + paths["three"])
            # Called in the middle of the other call.
            assert len(model.predict("mrpc", rows)[0].probabilities) == 3

    found = model.predict_mixed([("mrpc", *row) for row in rows], change)
    assert found == before
    assert model.tasks == ["mrpc"]


def test_another_thread_does_not_change_what_is_being_computed(
    base, paths, monkeypatch
):
    model = load(base, paths["mrpc"])
    rows = texts(4)
    before = model.predict("mrpc", rows)
    compute = predictor._Graph.run
    threads, found = [], []

    def other_thread():
        model.remove("mrpc")
        model.add("mrpc=" + paths["three"])
        found.extend(model.predict("mrpc", rows))

    def disturbed(graph, *batch):
        if not threads:
            threads.append(threading.Thread(target=other_thread))
            threads[0].start()
            # Time enough to put other weights there, if nothing kept it from that.
            threads[0].join(2)
        return compute(graph, *batch)

    monkeypatch.setattr(predictor._Graph, "run", disturbed)
    assert model.predict("mrpc", rows) == before
    threads[0].join()
    assert numbers(found) == numbers(load(base, paths["three"]).predict("three", rows))


def test_a_name_has_one_package(base, paths):
    model = load(base, paths["mrpc"])
    with pytest.raises(UserError, match=r"are both of the task mrpc.*NAME="):
        model.add(paths["mrpc"])
    assert model.add("again=" + paths["mrpc"]) == "again"
    rows = texts(3)
    assert numbers(model.predict("again", rows)) == numbers(model.predict("mrpc", rows))


def test_a_package_of_another_base_is_refused(tmp_path, base):
    other = small_packages.write_base(tmp_path / "other", seed=8)
    folder = small_packages.write_package(tmp_path / "package", other, MRPC)
    model = predictor.Predictor(**base)
    names = r"\(other\), given .*\(base\)"
    with pytest.raises(UserError, match="its base is .*%s.* `init_checkpoint`" % names):
        model.add(folder)
    assert model.tasks == []


def test_scores_that_are_no_numbers_are_refused_by_the_tasks_name(
    tmp_path, base, paths
):
    found = adapter_package.read(paths["mrpc"])
    weights = dict(found.weights)
    weights["output_weights"] = np.full_like(weights["output_weights"], 3e38)
    folder = str(tmp_path / "large")
    large = found._replace(path=folder, weights=weights)
    adapter_package.add_scores(large, None, diagnosis.Diagnostics())
    model = load(base, paths["three"], "large=" + folder)
    rows = texts(2)
    assert np.isfinite(numbers(model.predict("three", rows))).all()
    with pytest.raises(UserError, match=r"task large are not finite.*/large "):
        model.predict_mixed([("three", *rows[0]), ("large", *rows[1])])


def test_packages_of_different_case_are_refused(tmp_path, base, paths):
    cased = small_packages.write_package(
        tmp_path / "cased", base, THREE, do_lower_case=False
    )
    model = load(base, paths["mrpc"])
    with pytest.raises(UserError, match="do_lower_case"):
        model.add(cased)
    assert model.tasks == ["mrpc"]
    # Folded, "Cat" is a word of the vocabulary.
    row = model.predict("mrpc", ["Cat"])
    assert row == model.predict("mrpc", ["cat"])
    model.remove("mrpc")
    model.add(cased)
    upper, lower, unknown = (model.predict("three", [x]) for x in ("Cat", "cat", "xyz"))
    assert upper == unknown
    assert upper != lower


# A server that forks before it makes a predictor, and once more after that.
_SERVER = """
import os
from serving import predictor

def load():
    model = predictor.Predictor(%(base)r, %(config)r, %(vocabulary)r)
    model.add(%(mrpc)r)
    model.add(%(score)r)
    return model

def predict(model):
    print(model.predict("mrpc", ["a cat sat"])[0].probability, flush=True)

is_parent = os.fork()
model = load()
predict(model)
if is_parent:
    os.wait()
if is_parent and os.fork():
    os.wait()
elif is_parent:
    for call in (load, lambda: predict(model)):
        try:
            call()
        except ValueError as error:
            print(str(error).partition(",")[0].replace(" ", "_"), flush=True)
"""


def test_in_a_program_that_has_not_set_up_tensorflow_and_forks(base, paths):
    """Eager execution and the behaviour of TensorFlow 2 are on there."""
    code = _SERVER % {
        "base": base["init_checkpoint"],
        "config": base["bert_config_file"],
        "vocabulary": base["vocab_file"],
        "mrpc": paths["mrpc"],
        "score": paths["sts-b"],
    }
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout
    expected = load(base, paths["mrpc"]).predict("mrpc", ["a cat sat"])[0].probability
    *found, first, second = output.decode().split()
    assert list(map(float, found)) == pytest.approx([expected] * 2, abs=1e-5)
    assert first == second == "a_Predictor_was_made_before_this_process_forked"
