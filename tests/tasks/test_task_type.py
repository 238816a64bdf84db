"""A task type of two independent tags, defined here alone, through all programs."""

import csv
import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from absl import flags

import predict
from errors import UserError
from exchange import packages
from serving import saved_model
from tasks import own_tasks, task_type
from tests import small_run
from training import classifier
from weights import adapter_package, base_model

TAGS = ("cat", "rain")
WINDOW = 4  # words of a feature


def find_tags(words):
    return "+".join(tag for tag in TAGS if tag in words) or "none"


@dataclasses.dataclass(frozen=True)
class Tags(task_type.TaskType):
    """The tags of a text, such as "cat+rain"; each window of words is a feature."""

    name = "tags"
    metrics: ClassVar = {
        "exact": lambda labels, found: np.mean(np.all(labels == found, axis=1))
    }
    default_metrics = ("exact",)
    label_feature = tf.FixedLenFeature([2], tf.float32)
    num_outputs = 2

    def find_label_problem(self, label):
        return "" if label == find_tags(label) else "%r has other tags" % label

    def parse_label(self, label):
        return [float(tag in label) for tag in TAGS]

    def featurize(self, index, example, *others, **counts):
        words, found = example.text_a.split(), []
        for start in range(0, len(words), WINDOW):
            part = words[start : start + WINDOW]
            label = None if example.label is None else find_tags(part)
            window = dataclasses.replace(example, text_a=" ".join(part), label=label)
            found += super().featurize(index, window, *others, **counts)
        return found

    def compute_losses(self, logits, labels):
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits)
        return tf.reduce_sum(losses, axis=-1)

    @staticmethod
    def compute_scores(logits, is_own=None):
        scores = tf.sigmoid(logits)
        return scores if is_own is None else tf.where_v2(is_own, scores, 0.0)

    def decode(self, examples, scores, featurize):
        for example in examples:
            yield np.max([next(scores) for _ in featurize(example)], axis=0)

    def parse_predictions(self, predictions):
        return np.round(list(predictions))

    def prediction_text(self, prediction):
        return find_tags([tag for tag, p in zip(TAGS, prediction) if p > 0.5])

    def prediction_fields(self, prediction):
        probabilities = dict(zip(TAGS, prediction.tolist()))
        return {
            "label": self.prediction_text(prediction),
            "probabilities": probabilities,
        }

    def prediction_columns(self):
        return ["label", *("probability_" + tag for tag in TAGS)]

    def predict_baseline(self, labels):
        return np.broadcast_to(np.round(np.mean(labels, axis=0)), labels.shape)

    def baseline_loss(self, labels):
        p = np.clip(np.mean(labels, axis=0), 1e-6, 1 - 1e-6)
        return float(-np.sum(p * np.log(p) + (1 - p) * np.log(1 - p)))


@pytest.fixture(scope="module", autouse=True)
def registered():
    task_type.register(Tags)
    yield
    del task_type.TYPES["tags"]


def write_rows(path, count, seed):
    random = np.random.RandomState(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "tags"])
        for n in range(count):
            others = [*random.choice(["on", "a", "mat", "sat"], random.randint(1, 9))]
            words = [
                tag for bit, tag in enumerate(TAGS) if n >> bit & 1 for _ in "1234"
            ]
            words = [*words, *others] if n % 3 else [*others[:4], *words]
            writer.writerow([" ".join(words), find_tags(words)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tags")
    for seed, (name, count) in enumerate({"train": 64, "dev": 20, "test": 9}.items()):
        write_rows(folder / (name + ".csv"), count, seed)
    files = {name: name + ".csv" for name in ("train", "dev", "test")}
    document = {"name": "weather", "type": "tags", "text_a": "text", "label": "tags"}
    (folder / "task.json").write_text(json.dumps({**document, **files}))
    return folder


@pytest.fixture(scope="module")
def base(folder):
    return small_run.write_model(folder / "bert", initializer_range=0.3)


@pytest.fixture(scope="module")
def output(folder, base):
    """The folder of a run that trained, evaluated and predicted."""
    small_run.run(
        task_config=str(folder / "task.json"),
        output_dir=str(folder / "out"),
        do_train=True,
        do_eval=True,
        do_predict=True,
        learning_rate=1e-2,
        adam_bias_correction=True,
        num_train_epochs=30.0,
        adapter_init_scale=0.1,
        **base,
    )
    return folder / "out"


def base_files(base):
    return {name: base[name] for name in base_model.BaseFiles._fields}


def test_it_is_learned_and_predicted(output, folder):
    dev = json.loads((output / "eval_results.json").read_text())["sets"]["dev"]
    assert dev["scores"]["exact"] > 0.8 > dev["baseline"]["exact"]
    assert dev["examples"] == 20
    lines = (output / "test_predictions.tsv").read_text().splitlines()
    rows = list(csv.DictReader((folder / "test.csv").open()))
    right = [line.endswith("\t" + row["tags"]) for line, row in zip(lines[1:], rows)]
    assert len(lines) == 10 and sum(right) >= 7


def test_its_package_is_predicted_with(output, folder, base):
    package = adapter_package.read(str(output / "adapters"))
    assert package.task_type == Tags()
    with pytest.raises(UserError, match="a head of the task type tags"):
        packages.format_adapter(package, "adapterhub")
    values, written = flags.FlagValues(), folder / "predictions.csv"
    predict.define_flags(values)
    given = {**base_files(base), "adapters": package.path, "output": written}
    given["input"] = folder / "test.csv"
    values(["predict.py", *("--%s=%s" % item for item in given.items())])
    assert predict.run(values) == 0
    rows = list(csv.DictReader(written.open()))
    found = [[float(row["probability_" + tag]) for tag in TAGS] for row in rows]
    expected = np.loadtxt(output / "test_results.tsv")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    lines = (output / "test_predictions.tsv").read_text().splitlines()[1:]
    assert [row["label"] for row in rows] == [line.split("\t")[1] for line in lines]


def test_its_package_is_served(output, folder, base):
    files = base_model.BaseFiles(**base_files(base))
    made = saved_model.export([str(output / "adapters")], files, str(folder / "served"))
    with tf.Graph().as_default(), tf.Session() as session:
        model = tf.saved_model.load(session, ["serve"], made)
        signature = model.signature_def["ids"]
        # It makes its own features, so the model takes no texts.
        assert model.signature_def["serving_default"] == signature
        ids = small_run.VOCABULARY.index("cat") + np.arange(3)[np.newaxis]
        batch = {"input_ids": ids, "input_mask": ids > 0, "segment_ids": 0 * ids}
        feed = {signature.inputs[name].name: value for name, value in batch.items()}
        feed[signature.inputs["task"].name] = ["weather"]
        scores = session.run(signature.outputs["scores"].name, feed)
    # Scores of independent tags, which do not add up to 1.
    assert scores.shape == (1, 2) and abs(scores.sum() - 1) > 1e-3


def test_an_unknown_type_is_refused_by_name(output, folder, monkeypatch):
    monkeypatch.delitem(task_type.TYPES, "tags")
    for read in (
        lambda: adapter_package.read(str(output / "adapters")),
        lambda: own_tasks.load_task(str(folder / "task.json")),
    ):
        with pytest.raises(
            UserError,
            match=r'"tags".*one of classification, question_answering, regress',
        ):
            read()


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'regression'"):
        task_type.register(type("Other", (Tags,), {"name": "regression"}))


class _LastToken(Tags):
    uses_sequence_output = True

    def compute_logits(self, output, is_training, initial_bias=0.0):
        return super().compute_logits(output[:, -1], is_training, initial_bias)


def test_a_head_on_the_sequence_output():
    with tf.Graph().as_default():
        ids = tf.ones([3, 7], tf.int32)
        output = classifier.create_model(
            small_run.small_config(9),
            False,
            *(ids, ids, ids),
            tf.ones([3, 2]),
            2,
            use_one_hot_embeddings=False,
            variant=classifier.Variant(task_type=_LastToken()),
        )
    assert output.logits.shape == [3, 2]
