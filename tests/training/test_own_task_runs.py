"""A task from a JSON file, from its rows to predictions, by all programs."""

import csv
import json
import os
import pathlib
import re
import shutil
import types

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from sklearn.utils.class_weight import compute_class_weight

import manage_adapters
import predict
import run_classifier
from errors import UserError
from inputs import features
from serving import saved_model
from tasks import own_tasks, task_data
from tasks.classification import Classification
from tests import small_run
from training import plots, progress, scoring
from weights import adapter_package, base_model, diagnosis, run_record

LABELS = ("cats", "mats & rats", "雨")


def write_rows(path, count, seed):
    """Rows of three labels, each with a word for its label, in quotes where needed."""
    random = np.random.RandomState(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "said", "kind"])
        for n in range(count):
            words = ["cat", "mat", "rain"][n % 3 : n % 3 + 1] * 2
            words.append(random.choice(["on", "a", 'the "and"', "while, and"]))
            random.shuffle(words)
            writer.writerow([n, " ".join(words), LABELS[n % 3]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    write_rows(folder / "train.csv", 36, 1)
    write_rows(folder / "test.csv", 6, 2)
    document = {
        "name": "kinds",
        "train": "train.csv",
        "dev_share": 0.25,
        "test": "test.csv",
        "test_labels": True,
        "text_a": "said",
        "label": "kind",
        "metrics": ["macro_f1", "matthews"],
        "max_seq_length": 16,
    }
    (folder / "kinds.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def base(folder):
    model = small_run.write_model(folder / "bert", initializer_range=0.3)
    del model["max_seq_length"]  # The task's file has it.
    return model


@pytest.fixture(scope="module")
def output(folder, base):
    """The folder of a run that trained, evaluated, predicted and drew."""
    small_run.run(
        task_config=str(folder / "kinds.json"),
        output_dir=str(folder / "out"),
        do_train=True,
        do_eval=True,
        do_predict=True,
        plots=True,
        learning_rate=1e-2,
        adam_bias_correction=True,
        num_train_epochs=20.0,
        **base,
    )
    return folder / "out"


def read(path):
    return json.loads(path.read_text())


def test_an_evaluation_scores_each_label(output):
    dev = read(output / "eval_results.json")["sets"]["dev"]
    assert dev["examples"] == 9
    assert set(dev["scores"]) == {"macro_f1", "matthews"}
    assert dev["scores"]["macro_f1"] > 0.5
    assert dev["labels"] == list(LABELS)
    matrix = np.array(dev["confusion_matrix"])
    assert matrix.sum(axis=1).tolist() == [3, 3, 3]
    right = np.diag(matrix)
    assert np.allclose(dev["recall"], right / 3)
    assert np.allclose(dev["precision"], right / np.maximum(matrix.sum(axis=0), 1))
    for name in ("dev", "test"):
        data = (output / ("confusion_matrix_%s.png" % name)).read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 5000


def test_dollars_are_no_formulas(tmp_path):
    path = str(tmp_path / "a.png")
    plots.confusion_matrix(path, "a$_$b", ["$_$", "x"], [[1, 0], [0, 1]])
    assert os.path.getsize(path) > 5000


def test_predictions_for_the_dev_set_are_listed(output, folder):
    with open(folder / "train.csv", newline="") as file:
        source = list(csv.reader(file))
    with open(output / "dev_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    matrix = np.zeros([3, 3], int)
    for row in rows:
        # The lines that dev_share took.
        assert [row["text_a"], row["gold"]] == source[int(row["line"]) - 1][1:]
        probabilities = [float(row["probability_" + label]) for label in LABELS]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert row["label"] == LABELS[np.argmax(probabilities)]
        assert float(row["probability"]) == max(probabilities)
        matrix[LABELS.index(row["gold"]), LABELS.index(row["label"])] += 1
    dev = read(output / "eval_results.json")["sets"]["dev"]
    assert matrix.tolist() == dev["confusion_matrix"]
    log = (output / "log.txt").read_text()
    assert "9 examples of train.csv (held out by `dev_share`): dev_pred" in log
    # A table of both sets with labels.
    table = re.findall(r"mats & rats +(\d\.\d\d) +(\d\.\d\d) +(\d\.\d\d) +(\d+)", log)
    expected = [dev[name][1] for name in ("precision", "recall", "f1")]
    assert table[0] == (*("%.2f" % each for each in expected), "3")
    assert [line[3] for line in table] == ["3", "2"]


def test_a_carriage_return_in_a_text_ends_no_row(tmp_path):
    task_type = Classification(("a", "b"))
    example = features.InputExample("x", "a\rcat", label="a", line=2)
    split = task_data.Split("dev", "d.csv", 0, "text", None, "label")
    run = types.SimpleNamespace(
        task=types.SimpleNamespace(type=task_type, text_columns=("text", None)),
        inputs=types.SimpleNamespace(examples={"dev": [example]}),
        settings=types.SimpleNamespace(output_dir=str(tmp_path)),
        result_name=str,
    )
    scoring.write_dev_predictions(run, split, [np.array([0.75, 0.25])])
    with open(tmp_path / "dev_predictions.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["text_a"], row["probability_b"]) == ("a\rcat", "0.25")


def test_a_test_set_with_labels_is_scored(output):
    results = read(output / "test_scores.json")
    assert results["examples"] == 6 and results["scores"]["macro_f1"] > 0.5
    lines = (output / "test_predictions.tsv").read_text().split("\n")
    assert lines[0] == "index\tprediction" and len(lines) == 8
    right = sum(
        line == "%d\t%s" % (n, LABELS[n % 3]) for n, line in enumerate(lines[1:7])
    )
    assert right == np.trace(results["confusion_matrix"])


def test_a_test_set_with_labels_is_scored_with_a_package(output, base, folder):
    again = folder / "again"
    small_run.run(
        task_config=str(folder / "kinds.json"),
        output_dir=str(again),
        adapters=str(output / "adapters"),
        do_predict=True,
        **base,
    )
    expected = read(output / "test_scores.json")
    assert read(again / "test_scores.json") == {**expected, "global_step": 0}


def test_the_package_carries_the_task(output, base, capfdbinary, folder):
    package = adapter_package.read(str(output / "adapters"))
    assert package.text_columns == ["said", None] and not package.takes_pairs
    assert package.labels == list(LABELS)
    assert package.config["max_seq_length"] == 16
    assert package.config["dev_scores"]["dev"]["macro_f1"] > 0.5
    # Its own column is found, although another has a name that is known.
    rows = folder / "rows.csv"
    rows.write_text("text,said\nmat,rain on rain\nmat,\n")
    given = {**base, "adapters": package.path, "input": rows}
    del given["train_batch_size"]
    values = flags.FlagValues()
    predict.define_flags(values)
    values(["predict.py", *("--%s=%s" % item for item in given.items())])
    assert predict.run(values) == predict.ROWS_SKIPPED
    out, err = capfdbinary.readouterr()
    assert out.splitlines()[1].startswith("2\tkinds\t雨\t".encode())
    assert b"line 3: said is empty" in err


def test_a_package_without_its_columns(output, base, folder):
    package = adapter_package.read(str(output / "adapters"))
    description = dict(package.config, task=dict(package.config["task"]))
    del description["task"]["text_columns"]
    old = str(folder / "old")
    adapter_package._write(old, description, package.weights)
    files = base_model.BaseFiles(*(base[name] for name in base_model.BaseFiles._fields))
    known_tasks = own_tasks.load_tasks([str(folder / "kinds.json")])
    made = saved_model.export(
        [old], files, str(folder / "models"), known_tasks=known_tasks
    )
    (task,) = read(pathlib.Path(made) / "assets" / "tasks.json")["tasks"]
    assert task["text_columns"] == ["said", None]
    more = {
        "kinds": known_tasks["kinds"]._replace(type=Classification((*LABELS, "more")))
    }
    with pytest.raises(UserError, match="give the file that it was trained with"):
        saved_model.export([old], files, str(folder / "models"), known_tasks=more)


def test_a_package_from_the_checkpoint(output, folder):
    (index,) = output.glob("model.ckpt-[1-9]*.index")
    checkpoint = "--checkpoint=" + str(index)[: -len(".index")]
    made = str(folder / "made")
    manage_adapters.main(
        ["manage_adapters.py", "export", checkpoint, "--output=" + made]
    )
    own, exported = (adapter_package.read(str(p)) for p in (output / "adapters", made))
    assert exported.config["task"] == own.config["task"]
    assert exported.config["weights"] == own.config["weights"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 9}, "--task_config"),
        ({"labels": ["雨", "cats", "mats & rats"]}, "--task_name"),
    ],
)
def test_another_task_in_the_same_folder_is_refused(
    output, base, folder, capsys, change, message
):
    path = folder / "changed.json"
    path.write_text(json.dumps({**read(folder / "kinds.json"), **change}))
    before = sorted(os.listdir(output))
    with pytest.raises(SystemExit):
        small_run.run(
            task_config=str(path), output_dir=str(output), do_eval=True, **base
        )
    assert message in capsys.readouterr().err
    assert sorted(os.listdir(output)) == before


def test_a_training_file_that_changed_is_not_evaluated(
    output, base, folder, tmp_path, capsys
):
    for name in ("train.csv", "test.csv"):
        shutil.copy(folder / name, tmp_path)
    with open(tmp_path / "train.csv", "a") as file:
        file.write("36,a mat,cats\n")
    with pytest.raises(SystemExit):
        small_run.run(
            task_config=str(folder / "kinds.json"), data_dir=str(tmp_path),
            output_dir=str(output), do_eval=True, **base,
        )  # fmt: skip
    assert "differs in train_rows" in capsys.readouterr().err


def test_an_evaluation_keeps_warnings_of_a_training_that_ended_meanwhile(
    output, base, folder, tmp_path, monkeypatch
):
    shutil.copytree(output, tmp_path / "out")
    score, warnings = scoring.score, ["the loss did not fall"]

    def end_training(*args):
        diagnostics = diagnosis.Diagnostics(training=warnings)
        run_record.write_diagnostics(str(tmp_path / "out"), diagnostics)
        return score(*args)

    monkeypatch.setattr(scoring, "score", end_training)
    small_run.run(
        task_config=str(folder / "kinds.json"), output_dir=str(tmp_path / "out"),
        do_eval=True, **base,
    )  # fmt: skip
    for name in ("run.json", "eval_results.json", "adapters/adapter_config.json"):
        assert read(tmp_path / "out" / name)["health"]["training"] == warnings


def test_classes_are_weighted(tmp_path, base, capsys):
    """In training alone, where the loss of each example has the factor of its class."""
    words = ["cats"] * 12 + ["rain"] * 3 + ["mats"] * 9
    rows = "".join("%s,%s on a mat\n" % (word, word) for word in words)
    (tmp_path / "train.csv").write_text("kind,said\n" + rows)
    document = {"name": "kinds", "train": "train.csv", "text_a": "said"}
    document.update(label="kind", dev="train.csv", labels=["cats", "mats", "rain"])
    path = tmp_path / "kinds.json"
    given = {"task_config": str(path), "do_train": True, "num_train_epochs": 1.0}
    given.update(do_eval=True, learning_rate=1e-12, max_seq_length=16, **base)

    def start(name, flag=None, **entries):
        path.write_text(json.dumps({**document, **entries}))
        output = tmp_path / name
        small_run.run(output_dir=str(output), class_weights=flag, **given)
        (checkpoint,) = output.glob("model.ckpt-3.index")
        losses = progress.read_losses(str(checkpoint.with_suffix("")))
        return np.mean(losses), read(output / "run.json")["training"]["class_weights"]

    plain, weights = start("plain")
    assert weights is None
    balanced, weights = start("balanced", "balanced")
    expected = compute_class_weight("balanced", classes=np.unique(words), y=words)
    assert weights == pytest.approx(expected.tolist())
    listed, weights = start("listed", class_weights=weights)
    assert listed == balanced and weights == pytest.approx(expected.tolist())
    # Nothing is trained at this rate, so that factors are all that differs.
    assert start("triple", class_weights=[3, 3, 3])[0] == pytest.approx(3 * plain)
    texts = [
        (tmp_path / name / "eval_results.txt").read_text()
        for name in ("plain", "triple")
    ]
    assert texts[0] == texts[1]

    # Records of earlier versions lack the entry.
    path_of_record = tmp_path / "plain" / "run.json"
    record = read(path_of_record)
    del record["training"]["class_weights"]
    path_of_record.write_text(json.dumps(record))
    capsys.readouterr()
    numbers = {"type": "regression", "labels": None}
    differs = "another run, its training differs in class_weights"
    for name, flag, entries, part in (
        ("balanced", None, {}, differs),
        ("plain", "balanced", {}, differs),
        ("x", "balanced", {"class_weights": [1, 1, 2]}, "leave one of the two out"),
        ("x", None, {"class_weights": [1, 2]}, 'as long as "labels", of which 3'),
        ("x", None, {"class_weights": [1, 0, 1]}, "class_weights[1]"),
        ("x", None, {"class_weights": [1, 1, 1e30]}, "class_weights[2]"),
        ("x", None, {"class_weights": [1], **numbers}, "regression has no classes"),
    ):
        with pytest.raises(SystemExit):
            start(name, flag, **entries)
        assert part in capsys.readouterr().err


def test_a_regression_is_predicted(tmp_path, base):
    rows = "".join(
        "%s on a mat,%d\n" % (word, 9 * n) for n, word in enumerate("abcdefgh")
    )
    (tmp_path / "rows.csv").write_text("said,score\n" + rows)
    document = {"name": "scores", "train": "rows.csv", "test": "rows.csv"}
    document.update(text_a="said", label="score", regression=True, max_seq_length=16)
    (tmp_path / "task.json").write_text(json.dumps(document))
    output = tmp_path / "out"
    given = {"task_config": str(tmp_path / "task.json"), "output_dir": str(output)}
    small_run.run(do_train=True, do_predict=True, num_train_epochs=1.0, **given, **base)
    scores = np.loadtxt(output / "test_results.tsv")
    lines = (output / "test_predictions.tsv").read_text().splitlines()
    assert lines[1:] == ["%d\t%.3f" % pair for pair in enumerate(scores)]


def test_check_reports_on_each_split(folder, base, capsys):
    config = str(folder / "kinds.json")
    small_run.run(check=True, task_config=config)
    text = capsys.readouterr().err
    assert "text 'said'; label 'kind'; 3 labels ('cats', 'mats & rats', '雨')" in text
    assert 'train: 27 examples, 9 of "cats" (33.3 %)' in text
    assert "train: the longest example has 4 words" in text
    small_run.run(check=True, task_config=config, vocab_file=base["vocab_file"])
    text = capsys.readouterr().err
    assert "[UNK]" in text and "truncated at max_seq_length 16" in text
    assert "4 words" not in text


def test_check_warns(folder, capsys):
    path = folder / "suspicious.json"
    path.write_text(json.dumps({**read(folder / "kinds.json"), "text_a": "n"}))
    small_run.run(check=True, task_config=str(path))
    problem = "train: 27 of 27 examples have a number for text_a"
    assert "warning: " + problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "--task_name is required: Task of GLUE"),
        ({}, "--data_dir is required"),
        ({"task_name": "mprc", "data_dir": "x"}, "mprc (did you mean mrpc?)"),
        ({"task_config": "x", "data_dir": "x", "task_name": "rte"}, "both given"),
        ({"task_name": "MRPC", "task_config": "x.json"}, "both given"),
        ({"task_name": "MRPC"}, "--data_dir is required"),
        ({"task_config": "gone.json"}, "gone.json"),
        (
            {"task_name": "MRPC", "data_dir": "x", "max_seq_length": 2},
            "--max_seq_length=2 leaves no room",
        ),
    ],
)
def test_which_task(capsys, settings, message):
    with pytest.raises(SystemExit):
        small_run.run(check=True, **settings)
    assert message in capsys.readouterr().err


def test_check_lists_all_bad_rows(folder, capsys):
    lines = (folder / "train.csv").read_bytes().splitlines(keepends=True)
    lines[3:3] = [b"\n", b"1,a mat,\n", b"2,caf\xe9,cats\n", b"3,a,mat,cats\n"]
    lines += [b"9,on,\n"] * 25
    (folder / "bad.csv").write_bytes(b"".join(lines))
    config = {**read(folder / "kinds.json"), "train": "bad.csv"}
    (folder / "bad.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit):
        small_run.run(check=True, task_config=str(folder / "bad.json"))
    text = capsys.readouterr().err
    assert 'train: 27 examples, 9 of "cats" (33.3 %)' in text
    for part in (
        "error: some rows cannot be used: correct them; --skip_bad_rows",
        "bad.csv: 1 bad row (blank line)\n    line 4: a blank line\n",
        "bad row (unreadable)\n    line 6: not UTF-8 (byte 0xe9), perhaps Latin-1: ",
        "(number of fields)\n    line 7: 4 comma-separated fields, expected 3\n",
        "bad.csv: 26 bad rows (label), the first 20\n    line 5: label, field 3: ''",
    ):
        assert part in text
    assert text.count("    line ") == 23


def test_bad_rows_are_skipped_and_counted(folder, base, capsys):
    header, *rows = (folder / "train.csv").read_text().splitlines()
    for name, more in (
        ("rows", ["5,on", "6,on,Cats"]),
        ("held/rows", ["5,on", "6,on,", "7,on"]),
        ("t", ["x"]),
    ):
        content = "\n".join([header, *rows[:12], *more, *rows[12:], ""])
        (folder / "held").mkdir(exist_ok=True)
        (folder / (name + ".csv")).write_text(content)
    document = {**read(folder / "kinds.json"), "train": "rows.csv"}
    document["dev"] = "held/rows.csv"
    del document["dev_share"]
    (folder / "rows.json").write_text(json.dumps(document))
    settings = {
        "task_config": str(folder / "rows.json"), "output_dir": str(folder / "rows"),
        "do_train": True, "do_eval": True, "num_train_epochs": 1.0, **base,
    }  # fmt: skip
    with pytest.raises(SystemExit):
        small_run.run(**settings)
    assert "rows.csv, line 14: 2 comma-separated fields" in capsys.readouterr().err
    small_run.run(skip_bad_rows=True, **settings)
    text = capsys.readouterr().err
    assert (
        "warning: rows are skipped:" in text and "line 15: label, field 3: ''" in text
    )
    counts = {"rows.csv": 5}
    assert read(folder / "rows" / "run.json")["skipped_rows"] == counts
    results = read(folder / "rows" / "eval_results.json")
    assert results["sets"]["dev"]["examples"] == 36
    small_run.run(skip_bad_rows=True, **{**settings, "do_train": False})
    assert "line 15: label: 'Cats' is a rarer form of 'cats'" in capsys.readouterr().err
    assert read(folder / "rows" / "run.json")["skipped_rows"] == counts
    # Who uses its package does not train on them.
    (task,) = own_tasks.load_tasks([settings["task_config"]]).values()
    assert task.type.labels == LABELS
    # Predictions are identified by their row.
    document["test"] = "t.csv"
    (folder / "rows.json").write_text(json.dumps(document))
    with pytest.raises(SystemExit):
        small_run.run(skip_bad_rows=True, do_predict=True, **settings)
    assert "t.csv, line 14" in capsys.readouterr().err


def test_the_tasks_are_listed(capsys):
    small_run.run(task_name="help")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[2].startswith("mrpc   texts '#1 String' and '#2 String'; label 'Quali")


def test_a_length_on_the_command_line_comes_before_the_files(folder):
    config = "--task_config=%s" % (folder / "kinds.json")
    for given, length in (((), 16), (("--max_seq_length=9",), 9)):
        with flagsaver.flagsaver():
            flags.FLAGS(["x", config, *given])
            run_classifier.set_task_flags(flags.FLAGS)
            assert flags.FLAGS.max_seq_length == length
