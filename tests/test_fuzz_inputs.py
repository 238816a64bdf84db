"""Damaged rows, questions, vocabularies and torch files: read, or refused in a line."""

import io
import json
import os
import shutil

import hf_layout
import numpy as np
import pytest
import torch_layout
from hypothesis import given
from hypothesis import strategies as st

import glue_data
import tokenization
from exchange import conversion, torch_file
from inputs import features, text_lines, text_rows
from tasks import own_tasks, task_data
from tasks.squad import examples as squad_examples
from tasks.squad import scores
from tests.fuzzing import (
    bounded_memory,  # noqa: F401  (a fixture)
    changed_bytes,
    changed_json,
    fuzzed,
    read_or_refuse,
)

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "é", "##c", "z"]

# --- rows of text ---------------------------------------------------------------

TABLES = {
    text_rows.TSV: b"text_a\ttext_b\ttask\none two\tthree\tx\nfour\t\ty\n",
    text_rows.CSV: b'text_a,text_b,task\n"one, ""two""\r\n",three,x\nfour,,y\n',
    text_rows.JSONL: b'{"text_a": "one", "text_b": "two", "task": "x"}\n'
    b'{"text_a": "\\u00e9", "task": "y"}\n',
    text_rows.LINES: b"x\tone\ttwo\ny\tthree\n",
}
MARKS = (b"\r", b"\n", b"\r\n", b"\0", b'"', b",", b"\t", b"\xff", b"\xef\xbb\xbf")


def changed_table(draw, data):
    """A table with other bytes, among them such as mean something in one."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(MARKS)) + data[at:]
    return changed_bytes(draw, data)


def read_rows(content, kind, columns, tasks):
    lines = text_lines.stream_lines(io.BytesIO(content), "rows")
    return list(text_rows.read_rows(lines, kind, columns, tasks, "rows"))


@fuzzed
@given(data=st.data())
def test_rows_of_text(data):
    kind = data.draw(st.sampled_from(sorted(TABLES)))
    content = changed_table(data.draw, TABLES[kind])
    texts = ((None, None), ("text_a", None), ("task", "text_a"))
    columns = text_rows.Columns(
        *data.draw(st.sampled_from(texts)),
        task=data.draw(st.sampled_from((None, "task"))),
    )
    tasks = ("x", "y") if columns.task else ("x",)

    rows = read_or_refuse(read_rows, content, kind, columns, tasks)
    for row in rows or ():
        assert 1 <= row.line <= content.count(b"\n") + 1
        assert row.problem.isprintable()
        assert bool(row.problem) != bool(row.text_a.strip())


@fuzzed
@given(
    texts=st.lists(st.tuples(st.text(), st.text()), min_size=1),
    kind=st.sampled_from((text_rows.CSV, text_rows.JSONL)),
)
def test_what_is_written_is_read(texts, kind):
    names = ["text_a", "text_b"]
    content = text_rows.format_header(kind, names) + b"".join(
        text_rows.format_row(kind, names, dict(zip(names, pair))) for pair in texts
    )
    rows = read_rows(content, kind, text_rows.Columns(), ("x",))
    assert len(rows) == len(texts)
    for row, (text_a, text_b) in zip(rows, texts):
        if not text_rows.is_blank(text_a):
            second = None if text_rows.is_blank(text_b) else text_b
            assert (row.problem, row.text_a, row.text_b) == ("", text_a, second)
        else:
            assert row.problem == "text_a is empty"


QUESTION = {
    "id": "x",
    "question": "What flew?",
    "answers": [{"text": "kite", "answer_start": 8}],
    "is_impossible": False,
}
SQUAD_FILE = {
    "data": [{"paragraphs": [{"context": "The red kite flew.", "qas": [QUESTION]}]}]
}


@fuzzed
@given(data=st.data(), is_training=st.booleans(), version_2=st.booleans())
def test_questions(data, is_training, version_2, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "questions.json"
    path.write_bytes(changed_json(data.draw, SQUAD_FILE))
    read = squad_examples.read_squad_examples
    for example in read_or_refuse(read, str(path), is_training, version_2) or ():
        assert isinstance(example.question_text, str)
        if is_training and not example.is_impossible:
            assert example.doc_tokens[example.start_position : example.end_position + 1]
    read_or_refuse(scores.read_references, str(path), version_2)


TASK_FILES = {
    ("cola", "train"): b"id\t1\t\tA text.\nid\t0\t*\tOf an text.\n",
    ("sst-2", "train"): b"sentence\tlabel\nfine \t1\nbad \t0\n",
    ("sts-b", "dev"): b"sentence1\tscore\tsentence2\na\t2.5\tb\nc\t0\td\n",
    ("mrpc", "test"): b"index\t#1 String\t#2 String\n0\ta\tb\n1\tc\td\n",
    ("qqp", "train"): b"question1\tquestion2\tis_duplicate\na\tb\t1\nc\td\t0\n",
}


@fuzzed
@given(data=st.data())
def test_files_of_glue(tmp_path, data):
    name, set_name = data.draw(st.sampled_from(sorted(TASK_FILES)))
    task = glue_data.get_task(name)
    split = next(each for each in task.splits if each.name == set_name)
    content = changed_table(data.draw, TASK_FILES[name, set_name])
    (tmp_path / split.filename).write_bytes(content)
    examples = read_or_refuse(task_data.read_examples, task, str(tmp_path), split)
    check_examples(task, split, examples)


def check_examples(task, split, examples):
    for example in examples or ():
        assert isinstance(example.text_a, str)
        if split.has_labels:
            assert not task.type.find_label_problem(example.label)


OWN_TASK = {
    "name": "own",
    "train": "train.csv",
    "dev_share": 0.25,
    "text_a": "text_a",
    "text_b": "text_b",
    "label": "task",
    "labels": ["x", "y"],
    "metrics": ["macro_f1"],
    "max_seq_length": 32,
    "seed": 3,
}


@fuzzed
@given(data=st.data())
def test_tasks_of_ones_own(tmp_path, data):
    ending = data.draw(st.sampled_from(sorted(text_rows.KINDS)))
    document = dict(OWN_TASK, train="train" + ending)
    if data.draw(st.booleans()):
        del document["labels"]
    path = tmp_path / "task.json"
    rows, text = TABLES[text_rows.KINDS[ending]], json.dumps(document).encode()
    # Only one of them is changed, since an error in one hides the other's.
    if data.draw(st.booleans()):
        text = changed_json(data.draw, document)
    else:
        rows = changed_table(data.draw, rows)
    path.write_bytes(text)
    (tmp_path / document["train"]).write_bytes(rows)
    found = read_or_refuse(own_tasks.load_task, str(path))
    if found is None:
        return
    task, folder = found
    assert own_tasks.parse_task(own_tasks.task_entries(task), str(path)) == task
    for split in task.splits:
        examples = read_or_refuse(task_data.read_examples, task, folder, split)
        check_examples(task, split, examples)


# --- vocabularies ---------------------------------------------------------------


@fuzzed
@given(data=st.data())
def test_vocabularies(tmp_path, data):
    path = tmp_path / "vocab.txt"
    path.write_bytes(changed_table(data.draw, "\n".join(PIECES).encode() + b"\n"))
    vocab = read_or_refuse(tokenization.load_vocab, str(path))
    if vocab is None:
        return
    size = data.draw(st.integers(0, 20))
    read_or_refuse(features.check_vocabulary, str(path), vocab, size, "config.json")
    tokenizer = read_or_refuse(tokenization.FullTokenizer, str(path), True)
    if tokenizer is not None:
        pieces = tokenizer.tokenize(data.draw(st.text()))
        assert len(tokenizer.convert_tokens_to_ids(pieces)) == len(pieces)


@fuzzed
@given(data=st.data())
def test_tokenizers_of_hugging_face(tmp_path, data):
    for left in ("encoder", "output"):
        shutil.rmtree(tmp_path / left, ignore_errors=True)
    hf_layout.write_encoder(tmp_path / "encoder")
    (tmp_path / "encoder" / "vocab.txt").unlink()
    tokenizer = tmp_path / "encoder" / "tokenizer.json"
    hf_layout.write_tokenizer(tmp_path / "encoder")
    sound = json.loads(tokenizer.read_text())
    tokenizer.write_bytes(changed_json(data.draw, sound))
    folders = [str(tmp_path / name) for name in ("encoder", "output")]
    read_or_refuse(conversion.convert, *folders)
    assert {"encoder"} <= set(os.listdir(tmp_path)) <= {"encoder", "output"}


# --- torch files ----------------------------------------------------------------


@pytest.fixture(scope="module", params=[False, True], ids=["zip", "before_1.6"])
def sound(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "sound.bin"
    arrays = {
        "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "a.bias": np.arange(3, dtype=np.float64),
        "ids": np.arange(5, dtype=np.int64),
    }
    torch_layout.save(path, arrays, old=request.param)
    return path.read_bytes()


def _read_all(path):
    names = [name for name, _, _ in torch_file.list_tensors(path)]
    return dict(torch_file.read(path, names))


def check_torch_file(path):
    for name, value in (read_or_refuse(_read_all, str(path)) or {}).items():
        assert isinstance(name, str)
        assert value.dtype == np.float32


@fuzzed
@given(data=st.data())
def test_bytes_of_a_torch_file(tmp_path, sound, data):
    path = tmp_path / "damaged.bin"
    path.write_bytes(changed_bytes(data.draw, sound))
    check_torch_file(path)


COUNTS = st.integers(-2, 20) | st.sampled_from((2**31 - 1, -(2**31), 10**6))


@fuzzed
@given(data=st.data())
def test_tensors_of_a_torch_file(tmp_path, data):
    """Sound instructions with hostile numbers, then with other bytes."""
    path = tmp_path / "made.bin"
    kinds = ("FloatStorage", "HalfStorage", "LongStorage", "open")
    items = {
        data.draw(st.text(max_size=5)): torch_layout.tensor(
            data.draw(st.sampled_from(("0", "1", "../x", ""))),
            data.draw(COUNTS),
            data.draw(st.lists(COUNTS, max_size=4)),
            data.draw(st.lists(COUNTS, max_size=4)),
            offset=data.draw(COUNTS),
            storage=data.draw(st.sampled_from(kinds)),
        )
        for _ in range(data.draw(st.integers(0, 3)))
    }
    code = torch_layout.program(items)
    if data.draw(st.booleans()):
        code = changed_bytes(data.draw, code)
    storages = {key: np.arange(12, dtype=np.float32) for key in ("0", "1")}
    write = torch_layout.write if data.draw(st.booleans()) else torch_layout.write_old
    write(path, code, storages)
    check_torch_file(path)
