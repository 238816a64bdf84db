"""`run_squad.py` against the original program, and what it does better."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from absl import flags
from absl.testing import flagsaver

import command_line
import manage_adapters
import modeling
import predict
import run_squad
from errors import UserError
from tasks import own_tasks
from tasks.question_answering import QuestionAnswering
from tasks.squad import examples
from tests import small_run, squad_data
from training import distribution, progress, scoring
from training.estimator_compat import estimator
from weights import adapter_package, checkpoints

CASES = squad_data.load("functions", "main_cases.json")
RUNS = squad_data.load("runs", "runs.json")
SHORT = {"max_seq_length": 64, "doc_stride": 24, "max_query_length": 16}

# Where this program ends otherwise than the original, see docs/differences.md.
STATUS = {
    "no checkpoint at all": 1,
    "dev with v2 flag (a question with nothing but the null answer?)": 0,
    "unknown flag": 1,
}


def run(**settings):
    """Runs `main` as the command line would, with every other flag at its default."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["run_squad.py"])
    tf.reset_default_graph()
    saved = flagsaver.save_flag_values(run_squad.FLAGS)
    parse = command_line.make_parser("", run_squad.FLAG_GROUPS, run_squad.FLAGS)
    try:
        parse(["run_squad.py", *("--%s=%s" % item for item in settings.items())])
        run_squad.main([])
    finally:
        flagsaver.restore_flag_values(saved, run_squad.FLAGS)


def place(path):
    return os.path.join(squad_data.SQUAD, path)


def model_files(version="v1.1"):
    (checkpoint,) = tf.io.gfile.glob(place("runs/%s/*.index" % version))
    return {
        "bert_config_file": place("runs/bert_config.json"),
        "vocab_file": place("runs/vocab.txt"),
        "init_checkpoint": checkpoint.removesuffix(".index"),
    }


@pytest.mark.parametrize("record", RUNS, ids=lambda record: record["folder"])
def test_recorded_models_predict_as_in_the_original(record, tmp_path):
    version = record["folder"]
    run(
        **{**record["flags"], **model_files(version)},
        predict_file=place(record["predict_file"]),
        do_eval=True,
        output_dir=tmp_path,
    )
    expected = squad_data.load("runs", version, "predictions.json")
    assert json.loads((tmp_path / "predictions.json").read_text()) == expected
    found = json.loads((tmp_path / "nbest_predictions.json").read_text())
    for qas_id, answers in squad_data.load(
        "runs", version, "nbest_predictions.json.gz"
    ).items():
        assert [a["text"] for a in found[qas_id]] == [a["text"] for a in answers]
        for name in ("start_logit", "end_logit"):
            logits = [[each[name] for each in a] for a in (found[qas_id], answers)]
            np.testing.assert_allclose(*logits, atol=1e-4)
    report = json.loads((tmp_path / "eval_results.json").read_text())["sets"]["dev"]
    official = record["official"]
    official = official.get("with_null_odds", official)
    found = {**report, **report["scores"]}
    for name, score in official.items():
        if not name.endswith("total"):
            assert found[name] == pytest.approx(score, abs=1e-4), name
    assert report["baseline"]["f1"] < 20 < report["scores"]["f1"]
    assert report["examples"] == len(expected)
    assert ("null_odds.json" in os.listdir(tmp_path)) == (version == "v2.0")


def make_flags(case, folder):
    made = {name: folder / os.path.basename(name) for name in CASES["made"]}
    for name, path in made.items():
        path.write_text(json.dumps(CASES["made"][name]))
    given = {
        name: made.get(value) or place(value)
        if "/" in str(value) and not value.startswith("/")
        else value
        for name, value in case["flags"].items()
    }
    if case["output_dir_given"]:
        given["output_dir"] = folder / "out"
    return given


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["name"])
def test_command_lines_end_as_in_the_original(case, tmp_path, capfd):
    status = STATUS.get(case["name"], case["returncode"])
    given = make_flags(case, tmp_path)
    if case["name"] == "train one example 3 steps":
        given["allow_random_base"] = True
    if status:
        with pytest.raises(SystemExit) as ended:
            run(**given)
        assert ended.value.code == status
        assert not (tmp_path / "out").exists()
        _, _, error = capfd.readouterr().err.rpartition("error: ")
        # It names what is to be changed.
        assert "--" in error or "/x/" in error
    else:
        run(**given)
        for name in case["files_left"]:
            is_graph = name.endswith((".meta", "graph.pbtxt"))
            assert is_graph or [*(tmp_path / "out").glob(name)], name


def test_flags_have_the_originals_defaults():
    expected = {
        **dict.fromkeys(("bert_config_file", "vocab_file", "output_dir")),
        **dict.fromkeys(("train_file", "predict_file", "init_checkpoint")),
        **dict.fromkeys(("tpu_name", "tpu_zone", "gcp_project", "master")),
        **dict.fromkeys(("do_train", "do_predict", "use_tpu"), False),
        **dict.fromkeys(("verbose_logging", "version_2_with_negative"), False),
        **{"do_lower_case": True, "max_seq_length": 384, "doc_stride": 128},
        **{"max_query_length": 64, "train_batch_size": 32, "predict_batch_size": 8},
        **{"learning_rate": 5e-5, "num_train_epochs": 3.0, "warmup_proportion": 0.1},
        **{"save_checkpoints_steps": 1000, "iterations_per_loop": 1000},
        **{"n_best_size": 20, "max_answer_length": 30, "num_tpu_cores": 8},
        "null_score_diff_threshold": 0.0,
    }
    assert len(expected) == 30
    assert {n: run_squad.FLAGS[n].default for n in expected} == expected


# --- training -------------------------------------------------------------------


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Flags of 20 steps on a recorded file, from BERT without a head."""
    folder = tmp_path_factory.mktemp("squad")
    config = modeling.BertConfig.from_json_file(place("runs/bert_config.json"))

    def build():
        modeling.BertModel(config, False, tf.zeros([1, 2], tf.int32), adapter_fn=None)

    small_run.write_checkpoint(folder / "bert_model.ckpt", build)
    return {
        **SHORT,
        **model_files(),
        "init_checkpoint": folder / "bert_model.ckpt",
        "train_file": place("data/train-v1.1.json"),
        "predict_file": place("data/train-v1.1.json"),
        "do_train": True,
        "base_model_name": "google/bert-small",
        "train_batch_size": 8,
        "num_train_epochs": 2.0,
        "learning_rate": 3e-3,
        "save_checkpoints_steps": 8,
    }


@pytest.fixture(scope="module")
def output(training, tmp_path_factory):
    """The folder of an undisturbed run, which is evaluated twice."""
    folder = tmp_path_factory.mktemp("undisturbed")
    evaluation = {"eval_steps": 10, "keep_best": "f1", "do_eval": True}
    run(**training, **evaluation, do_predict=True, output_dir=folder)
    return folder


def test_training_writes_what_the_original_does_and_a_package(output, training):
    files = {*os.listdir(output)}
    assert files >= {"train.tf_record", "eval.tf_record", "predictions.json"}
    # int(79 questions / 8 * 2 epochs); there are 236 windows.
    lines = (output / "eval_steps.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [each["global_step"] for each in steps] == [10, 19]
    assert set(steps[0]["sets"]["dev"]) == {"exact_match", "f1"}
    assert (
        "(1.92 epochs, 0.644 over all 236 windows)" in (output / "log.txt").read_text()
    )
    values = small_run.last_values(output)
    assert "cls/squad/output_weights/adam_m" in values
    package = adapter_package.read(str(output / "adapters"))
    assert package.task_type == QuestionAnswering(24, 16)
    assert package.weights["cls/squad/output_bias"].shape == (2,)
    card = (output / "adapters" / "README.md").read_text()
    assert card.startswith('---\nbase_model: "google/bert-small"\nlibrary_name: ')
    assert 'pipeline_tag: "question-answering"' in card
    dev = json.loads((output / "eval_results.json").read_text())["sets"]["dev"]
    assert "  79 in train; %d in dev\n" % dev["examples"] in card
    assert "linear at each position" in card
    scores = dev["scores"]["f1"], dev["baseline"]["f1"]
    assert "| dev | f1 | %.4f | %.4f |" % scores in card
    assert package.config["baseline"]["dev"]["f1"] == dev["baseline"]["f1"]
    # Only adapters, layer norms and head have changed.
    base = small_run.checkpoint_values(training["init_checkpoint"])
    changed = {name for name in base if (base[name] != values[name]).any()}
    assert changed <= set(package.weights) and "LayerNorm" in str(changed)
    head = values["cls/squad/output_weights"]
    assert (package.weights["cls/squad/output_weights"] == head).all()


def test_a_run_resumes_and_a_package_predicts_with_the_same_bytes(
    output, training, tmp_path, monkeypatch, capfd
):
    resumed, settings = tmp_path / "resumed", {**training, "do_predict": True}
    after_run, left = progress.ProgressHook.after_run, iter(range(12))

    def interrupt(*args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return after_run(*args)

    with monkeypatch.context() as patched:
        patched.setattr(progress.ProgressHook, "after_run", interrupt)
        with pytest.raises(SystemExit):
            run(**settings, output_dir=resumed)
    assert small_run.last_values(resumed)["global_step"] == 8
    with pytest.raises(SystemExit):
        run(**{**settings, "doc_stride": 12}, output_dir=resumed)
    assert "its training differs in doc_stride: 24 there, 12" in capfd.readouterr().err
    run(**settings, output_dir=resumed)
    undisturbed = small_run.last_values(output)
    for name, value in small_run.last_values(resumed).items():
        assert value.tobytes() == undisturbed[name].tobytes(), name

    served = tmp_path / "served"
    settings = {**settings, "do_train": False, "adapters": output / "adapters"}
    found = run_squad.run(**settings, output_dir=served)
    assert str(served / "predictions.json") in found.predictions["dev"]
    for folder in (resumed, served):
        name = "nbest_predictions.json"
        assert (folder / name).read_bytes() == (output / name).read_bytes()


def test_one_checkpoint_is_evaluated_while_training_goes_on(
    output, training, tmp_path, monkeypatch
):
    folder = tmp_path / "out"
    shutil.copytree(output, folder)
    settings = {**training, "do_train": False, "do_eval": True, "output_dir": folder}
    before = run_squad.run(**settings)
    predict, last = scoring.predict, str(folder / "model.ckpt-19")

    def go_on(*args):
        values = small_run.checkpoint_values(last)
        values.update({name: value + 1 for name, value in values.items()})
        checkpoints.write(str(folder / "model.ckpt-20"), values)
        tf.train.update_checkpoint_state(str(folder), str(folder / "model.ckpt-20"))
        return predict(*args)

    monkeypatch.setattr(scoring, "predict", go_on)
    assert run_squad.run(**settings).scores == before.scores
    written = json.loads((folder / "eval_results.json").read_text())
    assert written["global_step"] == before.global_step == 19


def test_two_devices_train_as_one(output, training, tmp_path, monkeypatch):
    devices = ["/cpu:0", "/cpu:1"]
    monkeypatch.setattr(distribution, "local_devices", lambda: devices)
    run(**training, distribution_strategy="mirrored", output_dir=tmp_path)
    expected = small_run.last_values(output)
    # Gradients of these are zero but for rounding, which Adam makes steps of.
    noise = ("cls/squad/output_bias", "bert/encoder/layer_1/output/LayerNorm/beta")
    for name, value in small_run.last_values(tmp_path).items():
        if not name.startswith(noise):
            np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


def test_questions_are_trained_on_in_the_originals_order(training):
    saved = flagsaver.save_flag_values(run_squad.FLAGS)
    run_squad.FLAGS(["run_squad.py", "--train_file=%s" % training["train_file"]])
    found = run_squad.read_examples(
        run_squad.FLAGS, False, run_squad.make_task(run_squad.FLAGS).train
    )
    flagsaver.restore_flag_values(saved, run_squad.FLAGS)
    expected = squad_data.load("examples", "shuffled_train_v1.1.json")
    assert [example.qas_id for example in found] == expected


def test_check_reports_without_a_model(training, capfd):
    given = {name: training[name] for name in (*SHORT, "train_file", "vocab_file")}
    run(check=True, **given)
    text = capfd.readouterr().err
    assert "236 windows, at most 64 long and 24 apart" in text
    assert "with an empty text (id" in text


def test_settings_that_no_package_can_hold(training, capfd):
    given = {name: training[name] for name in (*SHORT, "train_file", "vocab_file")}
    changes = {"null_score_diff_threshold": float("inf"), "n_best_size": 0}
    for name, value in {**changes, "max_answer_length": 1 << 31}.items():
        with pytest.raises(SystemExit):
            run(check=True, **given, **{name: value})
        assert name in capfd.readouterr().err


def test_scores_of_other_settings_are_not_the_packages(
    output, training, tmp_path, capfd
):
    shutil.copytree(output, tmp_path / "out")
    settings = {**training, "do_train": False, "do_eval": True}
    found = run_squad.run(**settings, max_answer_length=1, output_dir=tmp_path / "out")
    before, after = (
        adapter_package.read(str(folder / "adapters")).config
        for folder in (output, tmp_path / "out")
    )
    assert found.scores != before["dev_scores"] and after == before
    assert "keeps its scores" in capfd.readouterr().err


def test_check_of_nothing(tmp_path, capfd):
    with pytest.raises(SystemExit):
        run(check=True)
    assert "--check needs files: --train_file, --predict" in capfd.readouterr().err
    path = squad_data.write_file(tmp_path / "a.json", [])
    run(check=True, train_file=path)
    assert "train: the longest example has 0 words" in capfd.readouterr().err


def test_predict_gives_the_answers_of_the_run(output, training, tmp_path):
    questions = examples.read_squad_examples(training["predict_file"], False)
    source, target = tmp_path / "questions.csv", tmp_path / "answers.csv"
    with source.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "context"])
        writer.writerows((q.question_text, q.doc_tokens.text) for q in questions)
    values = flags.FlagValues()
    predict.define_flags(values)
    given = {**model_files(), "init_checkpoint": training["init_checkpoint"]}
    given.update(adapters=output / "adapters", input=source, output=target)
    values(["predict.py", *("--%s=%s" % item for item in given.items())])
    # A question is empty.
    assert predict.run(values) == predict.ROWS_SKIPPED
    rows = list(csv.DictReader(target.open(newline="")))
    answered = [q for q in questions if q.question_text.strip()]
    assert len(rows) == len(answered) == len(questions) - 1
    n_best = json.loads((output / "nbest_predictions.json").read_text())
    columns = ["answer", "start", "end", "probability", "score"]
    assert list(rows[0]) == ["line", "task", *columns]
    for question, row in zip(answered, rows):
        best = n_best[question.qas_id][0]
        assert row["answer"] == best["text"]
        assert float(row["probability"]) == pytest.approx(best["probability"], abs=1e-6)
        score = best["start_logit"] + best["end_logit"]
        assert float(row["score"]) == pytest.approx(score, abs=1e-5)
        part = question.doc_tokens.text[int(row["start"]) : int(row["end"])]
        assert " ".join(examples.ContextWords(part)) == row["answer"]


def test_packages_of_questions_are_managed(output, training, tmp_path, capfd):
    base = "--init_checkpoint=%s" % training["init_checkpoint"]
    made, merged = str(tmp_path / "package"), tmp_path / "merged.ckpt"

    def manage(*arguments):
        manage_adapters.main(["manage_adapters.py", *arguments])

    checkpoint = tf.train.latest_checkpoint(str(output))
    manage("export", "--checkpoint=" + checkpoint, "--output=" + made)
    expected, found = map(adapter_package.read, (str(output / "adapters"), made))
    assert found.config["task"] == expected.config["task"]
    assert found.config["weights"] == expected.config["weights"]
    manage("verify", made, base)
    assert "package: OK" in capfd.readouterr().out
    manage("info", made)
    text = capfd.readouterr().out
    assert "questions about a context" in text
    assert 'pairs, in the columns "question" and "context"' in text
    manage("merge", made, base, "--output=%s" % merged)
    settings = {**training, "do_train": False, "do_predict": True}
    run(**{**settings, "init_checkpoint": merged}, output_dir=tmp_path / "out")
    name = "nbest_predictions.json"
    assert (tmp_path / "out" / name).read_bytes() == (output / name).read_bytes()


def test_other_programs_refuse_packages_and_task_files_of_questions(
    output, training, tmp_path, capfd
):
    with pytest.raises(SystemExit):
        small_run.run(
            **small_run.write_sts_b(tmp_path / "STS-B"),
            **{**model_files(), "init_checkpoint": str(training["init_checkpoint"])},
            adapters=str(output / "adapters"),
            output_dir=str(tmp_path / "out"),
            max_seq_length=64,
            do_eval=True,
        )
    assert (
        "of the task type question_answering; give one of regr"
        in capfd.readouterr().err
    )
    task = {"name": "q", "type": "question_answering", "text_a": 0, "test": "a.tsv"}
    with pytest.raises(UserError, match="type"):
        own_tasks.parse_task(task, "task.json")


# --- names of the original ------------------------------------------------------


def test_the_originals_model_fn_gives_logits(tmp_path):
    config = modeling.BertConfig.from_json_file(place("runs/bert_config.json"))
    checkpoint = model_files()["init_checkpoint"]
    ids = np.random.RandomState(0).randint(0, config.vocab_size, [3, 9])
    batch = {"input_ids": ids, "input_mask": ids > 9, "segment_ids": ids % 2}
    with tf.Graph().as_default(), tf.Session() as session:
        batch = {name: tf.constant(value, tf.int32) for name, value in batch.items()}
        model_fn = run_squad.model_fn_builder(
            config, checkpoint, 1e-3, None, None, False, False
        )
        found = {**batch, "unique_ids": tf.constant([7, 8, 9])}
        spec = model_fn(found, None, estimator.ModeKeys.PREDICT, {})
        with tf.variable_scope("", reuse=True):
            start, end = run_squad.create_model(config, False, *batch.values(), False)
        session.run(tf.global_variables_initializer())
        found, again = session.run([spec.predictions, (start, end)])
    assert sorted(found) == ["end_logits", "start_logits", "unique_ids"]
    np.testing.assert_array_equal(found["start_logits"], again[0])
    np.testing.assert_array_equal(found["end_logits"], again[1])
    assert found["start_logits"].shape == (3, 9)
