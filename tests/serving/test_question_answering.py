"""Questions are answered as by the original program, beside classifiers on one BERT."""

import json
import os
import pathlib

import pytest
import tensorflow.compat.v1 as tf

import modeling
from serving import predictor, saved_model
from system import files
from tasks import task_type
from tasks.question_answering import QuestionAnswering
from tasks.squad import answers, examples
from tests import graph_variables, small_packages, squad_data
from tests.small_packages import Task
from weights import adapter_package, base_model, checkpoints, model_variables

WINDOWS = {"doc_stride": 24, "max_query_length": 16}
LENGTH = 64
MOOD = Task("mood", 3, ("bad", "good"))
SCORE = Task("score", 5, None)


def place(*names):
    return os.path.join(squad_data.SQUAD, *names)


def find_base(version):
    """The files of a recorded model, whose checkpoint has adapters and head too."""
    (index,) = tf.io.gfile.glob(place("runs", version, "*.index"))
    return {
        "init_checkpoint": index.removesuffix(".index"),
        "bert_config_file": place("runs", "bert_config.json"),
        "vocab_file": place("runs", "vocab.txt"),
    }


def make_type(version):
    return QuestionAnswering(**WINDOWS, version_2_with_negative=version == "v2.0")


def write_recorded(folder, version):
    """Writes the package of a recorded model, of the task "squad"; returns its path."""
    base, kind = find_base(version), make_type(version)
    config = modeling.BertConfig.from_json_file(base["bert_config_file"])
    checkpoint = checkpoints.Checkpoint(base["init_checkpoint"])
    variables = model_variables.model_variables(config, task_type=kind)
    task = {
        "name": "squad",
        **kind.package_entries(),
        "metrics": ["f1"],
        "text_columns": ["question", "context"],
    }
    vocabulary = files.digest(base["vocab_file"])
    package_config = adapter_package.make_config(task, config, vocabulary, True, LENGTH)
    weights = dict(checkpoint.iterate_values(variables.trained()))
    fingerprint = checkpoint.base_fingerprint(variables.frozen())
    adapter_package.write(folder, package_config, weights, fingerprint, 987)
    return folder


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Folders of packages on the base of version 1.1, by task."""
    folder, base = tmp_path_factory.mktemp("packages"), find_base("v1.1")
    return {
        "squad": write_recorded(str(folder / "squad"), "v1.1"),
        **{
            task.name: small_packages.write_package(folder / task.name, base, task)
            for task in (MOOD, SCORE)
        },
    }


def read_questions(version="v1.1"):
    path = squad_data.data_path("train", version)
    return examples.read_squad_examples(path, is_training=False)


def make_rows(questions):
    return [(each.question_text, each.doc_tokens.text) for each in questions]


def load_expected(version):
    """The original's answers and its n best, by id."""
    return (
        squad_data.load("runs", version, "predictions.json"),
        squad_data.load("runs", version, "nbest_predictions.json.gz"),
    )


@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
def test_answers_are_the_originals(tmp_path, version):
    model = predictor.Predictor(**find_base(version))
    model.add(write_recorded(str(tmp_path / "squad"), version))
    questions = read_questions(version)
    found = model.predict("squad", make_rows(questions))
    expected, n_best = load_expected(version)
    unanswered = 0
    for question, prediction in zip(questions, found):
        text = expected[question.qas_id]
        assert prediction.answer == text
        candidates = {each["text"]: each for each in n_best[question.qas_id]}
        best = candidates[text]
        score = best["start_logit"] + best["end_logit"]
        assert prediction.score == pytest.approx(score, abs=2e-4)
        assert prediction.probability == pytest.approx(best["probability"], abs=1e-4)
        if text:
            part = question.doc_tokens.text[prediction.start : prediction.end]
            assert " ".join(examples.ContextWords(part)) == text
        else:
            unanswered += 1
            assert prediction.start is prediction.end is None
        none = candidates.get("")
        if version == "v2.0":
            null_score = none["start_logit"] + none["end_logit"]
            assert prediction.null_score == pytest.approx(null_score, abs=2e-4)
        assert (prediction.null_score is None) == (version == "v1.1")
    assert len(questions) == len(found) > 70
    assert (unanswered > 0) == (version == "v2.0")


def test_tasks_of_both_kinds_share_a_process(packages):
    model = predictor.Predictor(**find_base("v1.1"), batch_size=3)
    model.add(packages["mood"])
    rows = make_rows(read_questions()[:6])
    before = model.predict("mood", rows)
    model.add(packages["squad"])
    model.add(packages["score"])
    alone = model.predict("squad", rows)
    names = ["squad", "mood", "score"]
    mixed = model.predict_mixed([(name, *row) for row in rows for name in names])
    assert [each.task for each in mixed] == names * len(rows)
    for one, other in zip(mixed[::3], alone):
        assert one.answer == other.answer
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
    # The classifier's graph is the same as without questions.
    assert model.predict("mood", rows) == before
    assert {each.score is None for each in mixed[2::3]} == {False}
    model.remove("mood")
    model.remove("score")
    assert model.predict("squad", rows) == alone


def test_contexts_without_an_answer(packages, tmp_path):
    """Of white space, or of characters that are no tokens."""
    model = predictor.Predictor(**find_base("v1.1"))
    model.add(packages["squad"])
    for context in (" \t ", "\u200b"):
        (found,) = model.predict("squad", [("who ?", context)])
        assert found == predictor.Prediction("squad", answer="")


# --- the SavedModel ---------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(packages, tmp_path_factory):
    """SavedModels of classifiers, without and with questions."""
    folder = tmp_path_factory.mktemp("models")
    base = base_model.BaseFiles(**find_base("v1.1"))
    return [
        saved_model.export([packages[name] for name in names], base, str(folder))
        for names in (["mood", "score"], ["mood", "squad", "score"])
    ]


def make_batch(questions):
    """The windows of questions, and a batch of them as a client makes it."""
    kind, tokenizer = make_type("v1.1"), squad_data.get_tokenizer()
    tokenizer = type(tokenizer)(find_base("v1.1")["vocab_file"])
    windows = [
        values["window"]
        for number, question in enumerate(questions)
        for values in kind.featurize(number, question, LENGTH, tokenizer)
    ]
    names = ("input_ids", "input_mask", "segment_ids")
    batch = {name: [getattr(each, name) for each in windows] for name in names}
    return windows, batch


def test_a_client_finds_the_originals_answers(exported):
    questions = read_questions()
    windows, batch = make_batch(questions)
    with tf.Graph().as_default(), tf.Session() as session:
        model = tf.saved_model.load(session, ["serve"], exported[1])
        assert sorted(model.signature_def) == [
            "ids",
            "question_answering",
            "serving_default",
        ]
        signature = model.signature_def["question_answering"]
        feed = {signature.inputs[name].name: value for name, value in batch.items()}
        feed[signature.inputs["task"].name] = ["squad"] * len(windows)
        outputs = {name: info.name for name, info in signature.outputs.items()}
        found = session.run(outputs, feed)
    logits = found["start_logits"], found["end_logits"]
    results = [[] for _ in questions]
    for window, *each in zip(windows, *logits):
        result = answers.RawResult(window.unique_id, *each)
        results[window.example_index].append((window, result))
    decoding = answers.Decoding()
    chosen = [answers.choose_answers(*p, decoding) for p in zip(questions, results)]
    expected = {each.qas_id: each.best.text for each in chosen}
    assert expected == load_expected("v1.1")[0]


def load_graph(folder):
    """The graph of a SavedModel and its signatures."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        return graph, tf.saved_model.load(session, ["serve"], folder).signature_def


def test_signatures_share_the_base_model_and_classifiers_stay_as_they_are(exported):
    computed = []
    for folder in exported:
        graph, signatures = load_graph(folder)
        outputs = signatures["serving_default"].outputs.values()
        names = [info.name.partition(":")[0] for info in outputs]
        needed = tf.graph_util.extract_sub_graph(graph.as_graph_def(), names)
        # The last layer is another function: that of its first position alone.
        layers = [
            node.attr["f"].func.name for node in needed.node if node.attr["f"].func.name
        ]
        assert len(layers) == len(set(layers)) == 2
        nodes = graph_variables.iterate_nodes(needed)
        computed.append(sorted(node.op for _, node in nodes))
        prefix = os.path.join(folder, "variables", "variables")
        names = checkpoints.Checkpoint(prefix).shapes
        frozen = {name for name in names if not name.startswith("tasks/")}
        config = modeling.BertConfig.from_json_file(place("runs", "bert_config.json"))
        assert frozen == set(model_variables.frozen_shapes(config))
    assert computed[0] == computed[1] and len(computed[0]) > 300


def test_tasks_json_has_what_a_client_needs(exported):
    path = pathlib.Path(exported[1]) / "assets" / saved_model.TASKS_NAME
    task = json.loads(path.read_text("utf-8"))["tasks"][1]
    assert task["name"] == "squad" and task["signature"] == "question_answering"
    assert {name: task[name] for name in WINDOWS} == WINDOWS
    decoding = answers.Decoding()
    for name in ("n_best_size", "max_answer_length", "null_score_diff_threshold"):
        assert task[name] == getattr(decoding, name)


# --- entries of packages ----------------------------------------------------------


def test_entries_that_no_window_fits_are_refused():
    kind = make_type("v2.0")
    decoding = answers.Decoding(5, 7, False, False, -1.5)
    entries = QuestionAnswering(**WINDOWS, decoding=decoding).package_entries()
    text = {"do_lower_case": False, "max_seq_length": LENGTH}
    found = task_type.find_type("question_answering").from_entries({**entries, **text})
    assert found.decoding == decoding
    assert found == make_type("v1.1") != kind
    for changes, message in (
        ({"doc_stride": 0}, "doc_stride"),
        ({"max_query_length": 61}, "max_query_length"),
        ({"n_best_size": 0}, "n_best_size"),
        ({"max_answer_length": "1"}, "max_answer_length"),
        ({"null_score_diff_threshold": None}, "null_score_diff_threshold"),
    ):
        with pytest.raises(ValueError, match=message):
            QuestionAnswering.from_entries({**entries, **text, **changes})
