"""The program that predicts rows: its files, their order, and its messages."""

import csv
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest
from absl import flags

import predict
from errors import UserError
from inputs import text_rows
from serving import predictor
from tests import programs, small_packages, small_run
from tests.places import ROOT
from tests.small_packages import Task
from tuning import adapters, lora, top_k
from weights import adapter_package, package_conversion

TASKS = (
    Task("mrpc", 8, ("0", "1")),
    Task("sts-b", 5, None),
    Task("three", 3, ("a", "b", "1")),
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Flags of a small base."""
    return small_packages.write_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def packages(tmp_path_factory, base):
    """Folders of the packages of `TASKS`."""
    folder = tmp_path_factory.mktemp("packages")
    return small_packages.write_packages(folder, base, TASKS)


@pytest.fixture(scope="module")
def model(base, packages):
    """A predictor with all packages."""
    found = predictor.Predictor(**base)
    for folder in packages:
        found.add(folder)
    return found


def arguments(base, folders, *others):
    """The command line."""
    return [
        "predict.py",
        *("--adapters=" + folder for folder in folders),
        *("--%s=%s" % item for item in base.items()),
        *map(str, others),
    ]


def run(base, folders, *others):
    """Runs the program in this process; returns its exit status."""
    values = flags.FlagValues()
    predict.define_flags(values)
    values(arguments(base, folders, *others))
    return predict.run(values)


def sentences(count, seed=0):
    """Made-up sentences of different lengths."""
    random = np.random.RandomState(seed)
    return [
        " ".join(random.choice(small_run.WORDS, random.randint(1, 12)))
        for _ in range(count)
    ]


def give_input(monkeypatch, content):
    """Puts bytes into standard input."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(content)
    file.seek(0)
    monkeypatch.setattr(sys, "stdin", file)


def table(content, delimiter="\t"):
    """Rows of a table, text or bytes, as dicts."""
    text = content if isinstance(content, str) else content.decode()
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    return list(csv.DictReader(io.StringIO(text), delimiter=delimiter, quoting=quoting))


def check_predictions(rows, predictions):
    """Compares the program's rows, as dicts, with those of a predictor."""
    assert len(rows) == len(predictions)
    for row, prediction in zip(rows, predictions):
        assert row["task"] == prediction.task
        if prediction.label is None:
            assert float(row["score"]) == pytest.approx(prediction.score, abs=1e-5)
            assert not row.get("label") and not row.get("probability_1")
            continue
        assert row["label"] == prediction.label
        assert float(row["probability"]) == pytest.approx(
            prediction.probability, abs=1e-5
        )
        for label, probability in prediction.probabilities.items():
            found = float(row["probability_" + label])
            assert found == pytest.approx(probability, abs=1e-5)


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_a_file_of_each_kind(tmp_path, base, packages, model, ending, capsys):
    pairs = list(zip(sentences(7), sentences(7, seed=1)))
    content = {
        "tsv": "id\tsentence1\tsentence2\n"
        + "".join("x\t%s\t%s\n" % pair for pair in pairs),
        "csv": "sentence1,sentence2\n" + "".join('"%s",%s\n' % pair for pair in pairs),
        "jsonl": "".join(
            json.dumps({"text_a": a, "text_b": b}) + "\n" for a, b in pairs
        ),
    }[ending]
    source, target = tmp_path / ("in." + ending), tmp_path / ("out." + ending)
    source.write_text(content)
    others = ("--input=%s" % source, "--output=%s" % target, "--batch_size=3")
    assert run(base, packages[:1], *others) == 0
    text = target.read_text()
    if ending == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        assert all(isinstance(row["probability"], float) for row in rows)
    else:
        rows = table(text, "\t" if ending == "tsv" else ",")
    assert list(rows[0]) == [
        "line", "task", "label", "probability", "probability_0", "probability_1"
    ]  # fmt: skip
    first = 1 if ending == "jsonl" else 2
    assert [int(row["line"]) for row in rows] == list(range(first, first + 7))
    check_predictions(rows, model.predict("mrpc", pairs))
    assert sorted(os.listdir(tmp_path)) == sorted([source.name, target.name])
    assert "7 rows predicted, 0 skipped" in capsys.readouterr().err


def test_tasks_in_one_file(tmp_path, base, packages, model, monkeypatch):
    # Chunks and batches end within the file.
    monkeypatch.setattr(predict, "CHUNK_ROWS", 4)
    names = [TASKS[i % 3].name for i in range(10)]
    texts = sentences(10)
    source, target = tmp_path / "in.csv", tmp_path / "out.tsv"
    source.write_text(
        "text,kind\n" + "".join("%s,%s\n" % pair for pair in zip(texts, names))
    )
    others = ("--input=%s" % source, "--output=%s" % target, "--task_column=kind")
    assert run(base, packages, *others, "--batch_size=3") == 0
    rows = table(target.read_text())
    # A column for each label of any task, and one for scores.
    assert list(rows[0]) == [
        "line", "task", "label", "probability", "score",
        "probability_0", "probability_1", "probability_a", "probability_b",
    ]  # fmt: skip
    expected = [model.predict(task, [text])[0] for task, text in zip(names, texts)]
    check_predictions(rows, expected)
    assert rows[2]["probability_0"] == rows[0]["probability_a"] == ""


def test_lines_from_standard_input(base, packages, model, monkeypatch, capsysbinary):
    pairs = list(zip(sentences(3), sentences(3, seed=1)))
    lines = "".join("%s\t%s\n" % pair for pair in pairs) + "a cat sat"
    give_input(monkeypatch, lines.encode())
    assert run(base, packages[1:2]) == 0
    output = capsysbinary.readouterr().out
    rows = table(output)
    assert list(rows[0]) == ["line", "task", "score"]
    check_predictions(rows, model.predict("sts-b", [*pairs, "a cat sat"]))


def test_lines_of_several_tasks_from_standard_input(
    base, packages, model, monkeypatch, capsysbinary
):
    give_input(monkeypatch, b"mrpc\ta cat\ta mat\nthree\train\nhello\tmusic\n")
    assert run(base, packages) == predict.ROWS_SKIPPED
    output, errors = capsysbinary.readouterr()
    rows = [("mrpc", "a cat", "a mat"), ("three", "rain", None)]
    check_predictions(table(output), [model.predict_mixed([row])[0] for row in rows])
    assert b"skipped: standard input, line 3: unknown task 'hello'" in errors
    assert b"2 rows predicted, 1 skipped" in errors


BAD_ROWS = {
    "tsv": (
        b"text_a\ttext_b\na cat\ta mat\na\xff\tb\nrain\n\train\nmusic\t\n",
        {3: "not UTF-8", 4: "1 field, expected 2", 5: "text_a is empty"},
        [2, 6],
    ),
    "csv": (
        b'text\n"a\ncat"\n\n"rain" fell\nmusic\n',
        {4: "a blank line", 5: "not valid CSV"},
        [2, 6],
    ),
    "jsonl": (
        b'{"text": "a cat"}\n{"text": 1}\n{"tex": "a"}\n{"text"\n{"text": "music"}\n',
        {2: "text is 1", 3: "no column 'text_a', ", 4: "not JSON"},
        [1, 5],
    ),
}


@pytest.mark.parametrize("ending", BAD_ROWS)
def test_a_bad_row_is_reported_and_does_not_stop_the_others(
    tmp_path, base, packages, model, ending, capsys
):
    content, problems, good = BAD_ROWS[ending]
    source, target = tmp_path / ("in." + ending), tmp_path / "out.tsv"
    source.write_bytes(content)
    others = ("--input=%s" % source, "--output=%s" % target)
    assert run(base, packages[:1], *others) == predict.ROWS_SKIPPED
    errors = capsys.readouterr().err.splitlines()
    reports = [line for line in errors if line.startswith("skipped: ")]
    assert len(reports) == len(problems)
    for report, (line, problem) in zip(reports, problems.items()):
        assert report.startswith("skipped: %s, line %d: %s" % (source, line, problem))
    assert errors[-1] == "2 rows predicted, %d skipped" % len(problems)
    rows = table(target.read_text())
    assert [int(row["line"]) for row in rows] == good
    check_predictions(rows[1:], model.predict("mrpc", ["music"]))


@pytest.mark.parametrize("from_file", [True, False])
def test_strict_ends_at_the_first_bad_row_before_any_output(
    tmp_path, base, packages, monkeypatch, capsysbinary, from_file
):
    def no_prediction(*_):
        raise AssertionError("predicted")

    monkeypatch.setattr(predict, "CHUNK_ROWS", 1)
    content = b"a cat\n\nrain\n\n"
    monkeypatch.setattr(predictor.Predictor, "predict_mixed", no_prediction)
    others, line = ["--strict"], 2
    give_input(monkeypatch, content)
    if from_file:
        (tmp_path / "in.tsv").write_bytes(b"text\n" + content)
        others.append("--input=%s" % (tmp_path / "in.tsv"))
        line = 3
    with pytest.raises(UserError, match="line %d: a blank line .*--strict" % line):
        run(base, packages[:1], *others)
    assert capsysbinary.readouterr().out == b""


def test_a_stream_that_pauses_or_breaks(monkeypatch):
    go_on = threading.Event()

    def rows():
        yield text_rows.Row(1)
        yield text_rows.Row(2)
        go_on.wait()
        yield text_rows.Row(3)
        raise UserError("broken")

    chunks = predict._chunk_stream(rows())
    assert [row.line for row in next(chunks)] == [1, 2]
    go_on.set()
    assert [row.line for row in next(chunks)] == [3]
    with pytest.raises(UserError, match="broken"):
        next(chunks)
    monkeypatch.setattr(predict, "CHUNK_ROWS", 2)
    lines = [
        [row.line for row in chunk]
        for chunk in predict._chunk_stream(iter(map(text_rows.Row, range(5))))
    ]
    assert lines == [[0, 1], [2, 3], [4]]


def test_no_sound_row_is_an_error(tmp_path, base, packages, monkeypatch):
    (tmp_path / "in.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    target = tmp_path / "out.tsv"
    give_input(monkeypatch, b"\n\n")
    for name, others in (
        (r".*in\.jsonl", ["--input=%s" % (tmp_path / "in.jsonl")]),
        ("standard input", []),
    ):
        with pytest.raises(UserError, match="none of the 2 rows of %s" % name):
            run(base, packages[:1], "--output=%s" % target, *others)
        assert os.listdir(tmp_path) == ["in.jsonl"]


def test_a_file_without_rows(tmp_path, base, packages):
    (tmp_path / "in.tsv").write_text("text\n")
    target = tmp_path / "out.csv"
    others = ("--input=%s" % (tmp_path / "in.tsv"), "--output=%s" % target)
    assert run(base, packages[:1], *others) == 0
    header = "line,task,label,probability,probability_0,probability_1\n"
    assert target.read_text() == header


def test_the_output_is_written_whole_or_not_at_all(
    tmp_path, base, packages, monkeypatch
):
    monkeypatch.setattr(predict, "CHUNK_ROWS", 2)
    (tmp_path / "in.tsv").write_text("text\n" + "a cat\n" * 5)
    target = tmp_path / "out.tsv"
    predict_mixed = predictor.Predictor.predict_mixed
    chunks = []

    def fail(self, rows, on_batch):
        chunks.append(list(rows))
        if len(chunks) == 2:
            raise KeyboardInterrupt
        return predict_mixed(self, chunks[-1], on_batch)

    monkeypatch.setattr(predictor.Predictor, "predict_mixed", fail)
    others = ["--input=%s" % (tmp_path / "in.tsv"), "--output=%s" % target]
    with pytest.raises(KeyboardInterrupt):
        run(base, packages[:1], *others)
    assert os.listdir(tmp_path) == ["in.tsv"]
    # An earlier one stays.
    target.write_text("earlier")
    chunks.clear()
    with pytest.raises(KeyboardInterrupt):
        run(base, packages[:1], *others, "--overwrite")
    assert target.read_text() == "earlier"
    assert len(os.listdir(tmp_path)) == 2


def test_nothing_is_overwritten_unless_asked(tmp_path, base, packages):
    (tmp_path / "in.tsv").write_text("text\na cat\n")
    target = tmp_path / "out.tsv"
    target.write_text("earlier")
    others = ["--input=%s" % (tmp_path / "in.tsv"), "--output=%s" % target]
    with pytest.raises(UserError, match=r"out\.tsv exists .*--overwrite"):
        run(base, packages[:1], *others)
    assert target.read_text() == "earlier"
    assert run(base, packages[:1], *others, "--overwrite") == 0
    assert len(table(target.read_text())) == 1


def test_a_tsv_that_a_spreadsheet_quoted_gets_one_note(
    tmp_path, base, packages, capsysbinary
):
    content = b'text\n"a ""cat"", and"\n"the ""dog"""\n"a cat"\n'
    for name, notes in (("in.tsv", 1), ("in.csv", 0)):
        (tmp_path / name).write_bytes(content)
        assert run(base, packages[:1], "--input=%s" % (tmp_path / name)) == 0
        said = capsysbinary.readouterr().err
        assert said.count(b"note: ") == notes
        assert said.count(b"in.tsv: 2 rows with ") == notes


def test_columns_by_name(tmp_path, base, packages, model):
    (tmp_path / "in.tsv").write_text("text\tfirst\tother\na\tcat\tmat\n")
    source, target = "--input=%s" % (tmp_path / "in.tsv"), tmp_path / "out.tsv"
    others = (source, "--output=%s" % target, "--overwrite", "--text_a_column=first")
    assert run(base, packages[:1], *others) == 0
    check_predictions(table(target.read_text()), model.predict("mrpc", ["cat"]))
    assert run(base, packages[:1], *others, "--text_b_column=other") == 0
    check_predictions(
        table(target.read_text()), model.predict("mrpc", [("cat", "mat")])
    )


def test_another_delimiter_and_encoding(tmp_path, base, packages, model):
    source, target = tmp_path / "in.csv", tmp_path / "out.tsv"
    source.write_bytes('id;text\n1;"caf\xe9; cat"\n2;a mat\n'.encode("latin-1"))
    others = ["--input=%s" % source, "--output=%s" % target, "--delimiter=;"]
    assert run(base, packages[:1], *others, "--encoding=latin-1") == 0
    expected = model.predict("mrpc", [("caf\xe9; cat", None), ("a mat", None)])
    check_predictions(table(target.read_text()), expected)
    with pytest.raises(UserError, match="seem to be separated by semicolons"):
        run(base, packages[:1], "--input=%s" % source)


@pytest.mark.parametrize(
    "method",
    [
        top_k.TopK((1,)),
        lora.Lora(2),
        lora.Lora(2, 16.0, tuple(lora.TARGETS)),
        adapters.Adapters(4),
    ],
    ids=str,
)
def test_a_merged_checkpoint_needs_no_package(tmp_path, base, method):
    # The score of a regression is its logit.
    task = Task("merged", 4, None, other_method=method)
    folder = small_packages.write_package(tmp_path / "package", base, task)
    package, checkpoint = adapter_package.read(folder), base["init_checkpoint"]
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\na cat\nrain fell\n")
    rows = [("a cat", None), ("rain fell", None)]
    batch = small_packages.encode(base, rows, 24)
    expected = small_packages.single_task_scores(package, checkpoint, batch)
    merged = dict(base, init_checkpoint=str(tmp_path / "model.ckpt"))
    package_conversion.merge(folder, checkpoint, merged["init_checkpoint"])
    assert run(merged, [], "--input=%s" % source, "--output=%s" % target) == 0
    found = [float(row["score"]) for row in table(target.read_text(), ",")]
    np.testing.assert_allclose(found, expected.reshape(-1), atol=1e-5)
    assert np.ptp(found) > 1e-3
    with pytest.raises(UserError, match="--adapters is required"):
        run(base, [], "--input=%s" % source)


def test_kept_columns(tmp_path, base, packages):
    rows = [
        {"id": "7", "text": "a cat", "label": "x\ty", "extra": 0.1},
        {"id": "8", "text": "rain", "label": "z", "more": None},
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = tmp_path / "out.jsonl"
    others = ["--input=%s" % source, "--keep_columns=all"]
    assert run(base, packages[:1], *others, "--output=%s" % target) == 0
    first, second = map(json.loads, target.read_text().splitlines())
    assert (first["id"], first["text"], first["input_label"]) == ("7", "a cat", "x\ty")
    assert first["extra"] == 0.1 and "extra" not in second and "more" not in second
    assert first["label"] in ("0", "1") and second["input_label"] == "z"
    # A table has all columns, in the order of the file.
    target = tmp_path / "out.csv"
    assert run(base, packages[:1], *others, "--output=%s" % target) == 0
    found = table(target.read_text(), ",")
    assert list(found[0])[:7] == [
        "line", "id", "text", "input_label", "extra", "more", "task"
    ]  # fmt: skip
    assert [row["extra"] for row in found] == ["0.1", ""]
    with pytest.raises(UserError, match=r"in.jsonl, line 1: 'x.ty' holds a tab"):
        run(base, packages[:1], *others)
    others[1] = "--keep_columns=id,txt"
    with pytest.raises(
        UserError, match=r"txt: there is no such .* 'id', 'text', 'label', 'e"
    ):
        run(base, packages[:1], *others)
    twice = tmp_path / "twice.csv"
    twice.write_text("text,id,id\na cat,1,2\n")
    for kept in ("all", "id"):
        with pytest.raises(UserError, match="the column id twice"):
            run(base, packages[:1], "--input=%s" % twice, "--keep_columns=" + kept)
    others[1] = "--keep_columns=id"
    target = tmp_path / "out.tsv"
    assert run(base, packages[:1], *others, "--output=%s" % target) == 0
    assert [row["id"] for row in table(target.read_text())] == ["7", "8"]


def test_a_table_on_a_terminal(tmp_path, base, packages, monkeypatch, capsysbinary):
    source = tmp_path / "in.csv"
    source.write_text("text,id\n%s,1\nrain,\x1b[1m\n" % ("a cat " * 20))
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    others = ("--input=%s" % source, "--keep_columns=id,text")
    assert run(base, packages[2:], *others) == 0
    output, errors = capsysbinary.readouterr()
    header, *lines = output.decode().splitlines()
    assert header.split() == ["line", "id", "text", "task", "label", "probability"]
    assert {line.find("three") for line in lines} == {header.index("task")}
    assert "a cat a...  three" in lines[0] and "\\x1b[1m  rain" in lines[1]
    assert max(map(len, lines)) <= 90
    assert b"no room for 3 columns" in errors


def test_a_label_that_the_output_cannot_hold(tmp_path, base, monkeypatch):
    task = Task("odd", 2, ("a\tb", "c"))
    folder = small_packages.write_package(tmp_path / "odd", base, task)
    give_input(monkeypatch, b"a cat\n")
    with pytest.raises(UserError, match=r"a\\tb' holds a tab .*`output`"):
        run(base, [folder])
    assert run(base, [folder], "--output=%s" % (tmp_path / "out.csv")) == 0


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (["--init_checkpoint="], "--init_checkpoint is required"),
        (["--text_b_column=x", "--input=a.tsv"], "--text_a_column"),
        (["--delimiter=;;"], "--delimiter=;;: give one character"),
        (["--delimiter=;", "--input=a.tsv"], "--delimiter=; is for an --input in"),
        (["--encoding=utf-16"], "--encoding=utf-16: give an encoding of Python"),
        (["--task_column=x"], "--task_column names a column of a file"),
        (["--keep_columns=x"], "--keep_columns names a column of a file"),
        (["--input=a.txt"], r"`input`=a.txt: .*\.tsv, \.csv, \.jsonl"),
        (["--output=a.txt"], r"`output`=a.txt: .*\.tsv, \.csv, \.jsonl"),
        (["--output=none/a.tsv"], "there is no folder none"),
        (["--input=none.tsv"], "--input=none.tsv cannot be read"),
        (["--batch_size=0"], "`batch_size`=0: at least 1"),
        (["--adapters=none"], "none/adapter_config.json cannot be read"),
    ],
)
def test_flags_that_cannot_be_followed(base, packages, others, message):
    with pytest.raises(UserError, match=message):
        run(base, packages[:1], *others)


def start(base, folders, *others):
    """Starts the program as a user would."""
    command = [sys.executable, *arguments(base, folders, *others)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe)


def test_exit_status(base, packages):
    done = programs.run(*arguments(base, packages[:1]), input="a cat\n\nrain\n")
    assert done.returncode == 2
    assert [row["line"] for row in table(done.stdout)] == ["1", "3"]
    assert "skipped: standard input, line 2: a blank line\n" in done.stderr
    assert done.stderr.endswith("2 rows predicted, 1 skipped\n")


def _open_full():
    return pathlib.Path("/dev/full").open("wb")


def test_a_full_disk_for_the_copy_of_standard_input(base, packages, monkeypatch):
    give_input(monkeypatch, b"a cat\n")
    monkeypatch.setattr(predict.tempfile, "TemporaryFile", _open_full)
    with pytest.raises(UserError, match=r"--strict does \(No space .*TMPDIR"):
        run(base, packages[:1], "--strict")


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_closed_stream(base, packages, monkeypatch, stream):
    monkeypatch.setattr(sys, stream, None)
    with pytest.raises(UserError, match=r"standard (in|out)put is closed: give a file"):
        run(base, packages[:1])


def test_lines_are_predicted_as_they_come_until_nobody_reads(base, packages):
    process = start(base, packages[:1])
    process.stdin.write(b"a cat\n")
    process.stdin.flush()
    # The line is predicted before the input ends; a thread waits for more.
    assert process.stdout.readline().startswith(b"line\ttask")
    assert process.stdout.readline().startswith(b"1\tmrpc\t")
    process.stdout.close()
    process.stdin.write(b"a cat\n" * 3)
    process.stdin.flush()
    errors = process.stderr.read()
    assert process.wait() in (1, -signal.SIGPIPE)
    process.stdin.close()
    assert b"Traceback" not in errors and b"BrokenPipe" not in errors
