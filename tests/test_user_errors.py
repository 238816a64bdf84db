"""What the user gets wrong: one message, before anything slow, and nothing written."""

import json
import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import small_run
import tensorflow.compat.v1 as tf
from absl import flags

from tests import programs
from tests.places import GLUE
from training import estimators

ALL = {"do_train": True, "do_eval": True, "do_predict": True}
EVALUATE = {"do_train": False, "do_eval": True, "do_predict": False}
PREDICT = {"do_train": False, "do_eval": False, "do_predict": True}
REQUIRED = ("data_dir", "bert_config_file", "vocab_file", "output_dir")


class Case(NamedTuple):
    """One mistake.

    Attributes:
      parts: what the message must hold: what was given, what is allowed, and the
        flag, file or line to change.
      flags: differences from a run of everything on MRPC that is right; "{root}"
        stands for the folder of the test.
      spoil: breaks files below that folder.
    """

    parts: tuple[str, ...]
    flags: dict = {}  # noqa: RUF012 (nobody changes it)
    spoil: Callable | None = None


# --- ways to break files; each gives a function of the test's folder ---------------


def remove(path):
    return lambda root: (root / path).unlink()


def write(path, content):
    """Puts `content`, text or bytes, into a new or existing file."""
    content = content.encode() if isinstance(content, str) else content
    return lambda root: (root / path).write_bytes(content)


def replace(path, old, new):
    """Replaces the first occurrence of `old`."""

    def spoil(root):
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return spoil


def line(path, number, content):
    """Replaces one line of a file, counted from 1."""
    content = content.encode() if isinstance(content, str) else content

    def spoil(root):
        lines = (root / path).read_bytes().split(b"\n")
        lines[number - 1] = content
        (root / path).write_bytes(b"\n".join(lines))

    return spoil


def config(**changes):
    """Changes fields of the bert_config.json; None removes a field."""

    def spoil(root):
        path = root / "bert" / "bert_config.json"
        fields = {**json.loads(path.read_text()), **changes}
        fields = {key: value for key, value in fields.items() if value is not None}
        path.write_text(json.dumps(fields))

    return spoil


def entry_of(path, value, *names):
    """Changes an entry of a JSON file, by the names on the way to it."""

    def spoil(root):
        content = entries = json.loads((root / path).read_text())
        for name in names[:-1]:
            entries = entries[name]
        entries[names[-1]] = value
        (root / path).write_text(json.dumps(content))

    return spoil


def cut(path, keep=0.3):
    """Leaves the first part of a file, as a broken copy does."""

    def spoil(root):
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: int(len(content) * keep)])

    return spoil


def used_output(*further):
    """Puts the output of a real training run of MRPC there, then breaks it further."""

    def spoil(root):
        shutil.copytree(str(root.parent / "trained"), str(root / "output"))
        for each in further:
            each(root)

    return spoil


def other_base(root):
    shutil.rmtree(str(root / "bert"))
    small_run.write_model(root / "bert", seed=8)


def flip(path, place=0.5):
    """Changes one bit of a file, which keeps its length."""

    def spoil(root):
        content = bytearray((root / path).read_bytes())
        content[int(len(content) * place)] ^= 4
        (root / path).write_bytes(content)

    return spoil


def values(path, change):
    """Writes a checkpoint anew with changed arrays."""

    def spoil(root):
        prefix = str(root / path)
        reader = tf.train.load_checkpoint(prefix)
        arrays = {
            name: change(name, reader.get_tensor(name))
            for name in reader.get_variable_to_shape_map()
        }
        with tf.Graph().as_default(), tf.Session() as session:
            names = sorted(arrays)
            session.run(
                tf.raw_ops.SaveV2(
                    prefix=prefix,
                    tensor_names=names,
                    shape_and_slices=[""] * len(names),
                    tensors=[arrays[name] for name in names],
                )
            )

    return spoil


def as_float64(name, array):
    return array.astype(np.float64) if array.dtype == np.float32 else array


def with_nan(name, array):
    if name == "bert/pooler/dense/kernel":
        array = array.copy()
        array[3] = np.nan
    return array


def foreign_checkpoint(path):
    """A checkpoint of something else, which `tf.train.latest_checkpoint` finds."""

    def spoil(root):
        (root / path).parent.mkdir(exist_ok=True)
        small_run.write_checkpoint(
            root / path, lambda: tf.get_variable("conv/kernel", [3, 3])
        )

    return spoil


# --- the cases ---------------------------------------------------------------------

FLAG_CASES = (
    *(
        Case(("--%s is required" % name,), {name: value})
        for name, value in zip(REQUIRED, (None, "", None, None))
    ),
    Case(("--task_name is required", "--task_config"), {"task_name": None}),
    Case(
        ("At least one of", "--do_train=true", "--do_eval=true", "--do_predict=true"),
        {"do_train": False, "do_eval": False, "do_predict": False},
    ),
    *(
        Case(("--%s=%r" % (name, value), *parts), {name: value})
        for name, value, *parts in (
            ("train_batch_size", 0, "from 1 to 2147483647"),
            ("eval_batch_size", 10**30, "2147483647"),
            ("predict_batch_size", -1, "from 1"),
            ("save_checkpoints_steps", 0, "from 1"),
            ("iterations_per_loop", -5, "from 1"),
            ("num_tpu_cores", 0, "from 1"),
            ("gradient_accumulation_steps", 0, "from 1"),
            ("eval_steps", -1, "from 0"),
            ("early_stopping", -1, "from 0"),
            ("seed", 2**31, "from 0 to 2147483647"),
            ("learning_rate", float("nan"), "a finite number above 0"),
            ("num_train_epochs", 0.0, "above 0 and at most 10000"),
            ("adapter_init_scale", 0.0, "above 0"),
            ("lora_alpha", 0.0, "above 0"),
            ("adapter_placement", "below", "houlsby", "parallel"),
            ("adapter_activation", "gelu_", "gelu_erf", "swish"),
            ("warmup_proportion", 1.5, "at least 0 and at most 1"),
            ("adapter_size", 0, "at least 1"),
            # One layer of hidden size 16, for which 257 is the first refused.
            ("adapter_size", 257, "hidden_size 16", "at most 256"),
        )
    ),
    Case(("--max_seq_length=2", "at least 3"), {"max_seq_length": 2}),
    Case(
        ("--max_seq_length", "65", "64", "max_position_embeddings"),
        {"max_seq_length": 65},
    ),
    Case(
        ("no training step", "24 examples", "--train_batch_size=32", "=1 is below 1"),
        {"train_batch_size": 32, "num_train_epochs": 1.0},
    ),
    Case(("--use_tpu", "--tpu_name", "--master"), {"use_tpu": True}),
    *(
        Case(
            ("--%s=12" % name, "--num_tpu_cores=8", "a multiple"),
            {"use_tpu": True, "tpu_name": "tpu", name: 12},
        )
        for name in ("train_batch_size", "eval_batch_size", "predict_batch_size")
    ),
    Case(("--keep_best=f1", "--eval_steps"), {"keep_best": "f1"}),
    Case(("--eval_steps=2", "--do_train=true"), {"eval_steps": 2, **EVALUATE}),
    Case(
        ("--keep_best=loss", "the metrics of MRPC are f1"),
        {"eval_steps": 2, "keep_best": "loss"},
    ),
    Case(
        ("--eval_steps=2", "--distribution_strategy=multi_worker"),
        {"eval_steps": 2, "distribution_strategy": "multi_worker"},
    ),
    Case(
        ("--train_batch_size=8", "--gradient_accumulation_steps=3", "equal parts"),
        {"gradient_accumulation_steps": 3},
    ),
    Case(
        ("--train_batch_size=8", "--gradient_accumulation_steps=2", "multiple of 16"),
        {"use_tpu": True, "tpu_name": "tpu", "gradient_accumulation_steps": 2},
    ),
    Case(
        ("--precision=float16", "bfloat16"),
        {"use_tpu": True, "tpu_name": "tpu", "precision": "float16"},
    ),
    Case(
        # The scores of a dev set come from predictions.
        ("--predict_batch_size=12", "--num_tpu_cores=8", "a multiple"),
        {"use_tpu": True, "tpu_name": "tpu", "predict_batch_size": 12, **EVALUATE},
    ),
)

DATA_CASES = (
    Case(
        ("MNLIX", "cola", "sst-2", "mrpc", "sts-b", "qqp", "mnli", "qnli", "rte", "ax"),
        {"task_name": "MNLIX"},
    ),
    Case(("--do_train", "AX", "mnli", "--do_predict=true"), {"task_name": "AX"}),
    Case(
        ("{root}/nowhere", "--data_dir", "train.tsv", "dev.tsv", "test.tsv"),
        {"data_dir": "{root}/nowhere"},
    ),
    Case(
        ("--data_dir={root} ", "the folder of MRPC", "train.tsv"),
        {"data_dir": "{root}"},
    ),
    *(
        Case(
            ("{root}/MRPC/%s.tsv" % name, "--data_dir", "glue_data.py"),
            spoil=remove("MRPC/%s.tsv" % name),
        )
        for name in ("train", "dev", "test")
    ),
    Case(
        ("{root}/MNLI/dev_mismatched.tsv", "--data_dir"),
        {"task_name": "MNLI", "data_dir": "{root}/MNLI", "do_predict": False},
        spoil=lambda root: (
            shutil.copytree(os.path.join(GLUE, "MNLI"), str(root / "MNLI")),
            remove("MNLI/dev_mismatched.tsv")(root),
        ),
    ),
    Case(
        ("MRPC/train.tsv, line 1", "'sentence1'", "'#1 String'", "'Quality'"),
        {"task_name": "RTE"},
    ),
    Case(
        ("MRPC/dev.tsv, line 1", "no column '#2 String'", "'second'"),
        spoil=replace("MRPC/dev.tsv", "#2 String", "second"),
    ),
    Case(
        ("MRPC/train.tsv, line 5", "3 tab-separated fields", "expected 5"),
        spoil=line("MRPC/train.tsv", 5, "1\ta cat\tsat"),
    ),
    Case(("MRPC/dev.tsv, line 3", "blank"), spoil=line("MRPC/dev.tsv", 3, "")),
    Case(
        ("MRPC/dev.tsv, line 4", "field 1", "'yes'", "'0', '1'"),
        spoil=line("MRPC/dev.tsv", 4, "yes\t1\t2\ta cat\ta mat"),
    ),
    Case(
        ("MRPC/test.tsv, line 3", "'7'", "expected 1"),
        spoil=line("MRPC/test.tsv", 3, "7\t1\t2\ta cat\ta mat"),
    ),
    *(
        Case(
            ("STS-B/dev.tsv, line 2", "field 5", repr(score), "from 0 to 5"),
            {"task_name": "STS-B", "data_dir": "{root}/STS-B"},
            spoil=line("STS-B/dev.tsv", 2, "0\tnews\ta cat\ta mat\t" + score),
        )
        for score in ("high", "5.5", "nan")
    ),
    Case(("MRPC/train.tsv is empty",), spoil=write("MRPC/train.tsv", "")),
    Case(
        ("MRPC/dev.tsv", "no data rows"),
        spoil=write("MRPC/dev.tsv", "\t".join(small_run.MRPC_COLUMNS) + "\n"),
    ),
    Case(
        ("MRPC/test.tsv, line 2", "0xe9", "UTF-8"),
        spoil=line("MRPC/test.tsv", 2, "0\t1\t2\ta caf\xe9\ta mat".encode("latin-1")),
    ),
)

MODEL_CASES = (
    Case(
        ("bert/bert_config.json", "--bert_config_file"),
        spoil=remove("bert/bert_config.json"),
    ),
    Case(("{root}/bert ", "--bert_config_file"), {"bert_config_file": "{root}/bert"}),
    Case(
        ("bert/bert_config.json", "not JSON", "line"),
        spoil=cut("bert/bert_config.json"),
    ),
    *(
        Case(("bert/bert_config.json", field, *parts), spoil=config(**{field: value}))
        for field, value, *parts in (
            ("vocab_size", None, "a whole number"),
            ("hidden_size", 10**6, "GB of memory, and at most 160", "1000000"),
            ("num_hidden_layers", 10**6, "is 1000000", "from 1 to 1000"),
            ("num_hidden_layers", 0, "is 0", "from 1 to 1000"),
            ("num_attention_heads", 3, "hidden_size 16", "num_attention_heads 3"),
            ("intermediate_size", 3.5, "is 3.5", "a whole number"),
            ("hidden_dropout_prob", 1.0, "is 1.0", "below 1"),
            ("initializer_range", -0.1, "is -0.1", "above 0"),
            ("initializer_range", float("inf"), "above 0"),
            ("hidden_act", "swish", "swish", "gelu", "relu", "tanh"),
            ("hidden_act", 5, "5", "gelu", "relu", "tanh"),
        )
    ),
    Case(("bert/vocab.txt", "--vocab_file"), spoil=remove("bert/vocab.txt")),
    Case(
        ("bert/vocab.txt is empty", "--vocab_file"), spoil=write("bert/vocab.txt", "")
    ),
    *(
        Case(
            ("bert/vocab.txt lacks %s" % token, "[CLS], [SEP], [UNK]", "--vocab_file"),
            spoil=replace("bert/vocab.txt", token, "other"),
        )
        for token in ("[UNK]", "[CLS]")
    ),
    Case(
        ("bert/vocab.txt, line 7", "UTF-8"), spoil=line("bert/vocab.txt", 7, b"caf\xe9")
    ),
    Case(
        (
            "{root}/bert/vocab.txt has 14 entries",
            "vocab_size in {root}/bert/bert_config.json is 13",
            "--vocab_file and --bert_config_file",
        ),
        spoil=config(vocab_size=13),
    ),
)

CASED = "{root}/cased_L-12_H-768_A-12/bert_model.ckpt"
UNCASED = "{root}/uncased_L-12_H-768_A-12/bert_model.ckpt"
BASE_DATA = "bert/bert_model.ckpt.data-00000-of-00001"
CHECKPOINT_CASES = (
    *(
        Case(
            (
                "--do_lower_case=%s does not fit --init_checkpoint=%s" % (given, path),
                "Set --do_lower_case=%s" % (not given),
            ),
            {"do_lower_case": given, "init_checkpoint": path},
        )
        for given, path in ((True, CASED), (False, UNCASED))
    ),
    *(
        Case(
            ("{root}/" + name, "--init_checkpoint", "without endings"),
            {"init_checkpoint": "{root}/" + name},
        )
        for name in ("nowhere/bert_model.ckpt", "bert", "bert/bert_model.ckpt.index")
    ),
    Case(
        ("--init_checkpoint", "random", "--allow_random_base"),
        {"init_checkpoint": None},
    ),
    *(
        Case(("{root}/bert/bert_model.ckpt", *parts, "--init_checkpoint"), spoil=spoil)
        for spoil, *parts in (
            (remove(BASE_DATA), "cannot be read"),
            (cut("bert/bert_model.ckpt.index"), "cannot be read"),
            (cut(BASE_DATA, 0.99), "cannot be read"),
            (flip(BASE_DATA), "cannot be read", "copy it again"),
            (values("bert/bert_model.ckpt", as_float64), "is float64"),
            (values("bert/bert_model.ckpt", with_nan), "kernel is not finite"),
        )
    ),
    Case(
        ("{root}/other.ckpt", "no variable of BERT", "conv/kernel", "bert/embeddings"),
        {"init_checkpoint": "{root}/other.ckpt"},
        spoil=foreign_checkpoint("other.ckpt"),
    ),
    Case(
        ("{root}/bert/bert_model.ckpt", "[16]", "[32]", "--bert_config_file"),
        spoil=config(hidden_size=32),
    ),
    Case(
        (
            "{root}/bert/bert_model.ckpt lacks frozen variables",
            "bert/encoder/layer_1/",
            "--bert_config_file",
            "--allow_random_base",
        ),
        spoil=config(num_hidden_layers=2),
    ),
    Case(
        ("adapters/", "[1, 64]", "[1, 8]", "--adapter_size"),
        {"init_checkpoint": "{root}/../trained/model.ckpt-9", "adapter_size": 8},
    ),
    Case(
        ("output_bias", "[2]", "[1]", "the same task", "--init_checkpoint"),
        {
            "init_checkpoint": "{root}/../trained/model.ckpt-9",
            "task_name": "STS-B",
            "data_dir": "{root}/STS-B",
        },
    ),
)

BEST = {"metric": "accuracy", "set": "dev", "score": 0.5, "global_step": 9}
TASK_ON_MRPC = json.dumps(
    {
        "name": "same",
        **{split: split + ".tsv" for split in ("train", "dev")},
        "text_a": "#1 String",
        "text_b": "#2 String",
        "label": "Quality",
        "labels": ["0", "1"],
    }
)
FROM_HEAD = {
    "task_name": None,
    "task_config": "{root}/task.json",
    "init_checkpoint": "{root}/../trained/model.ckpt-9",
}
HEAD_CASES = tuple(
    Case(
        (
            "--init_checkpoint={root}/../trained/model.ckpt-9",
            'task mrpc, whose outputs are the labels ["0", "1"]',
            '["1", "0"]',
            "{root}/task.json",
        ),
        {**FROM_HEAD, **dict.fromkeys(ALL, False), **dict.fromkeys(todo, True)},
        write("task.json", TASK_ON_MRPC.replace('["0", "1"]', '["1", "0"]')),
    )
    for todo in (["do_eval"], ["do_train"])
)

NO_TEST_SET = Case(
    ("--do_predict", '{root}/task.json, "test"\n'),
    {**FROM_HEAD, **PREDICT},
    write("task.json", TASK_ON_MRPC),
)

HOLDS = "--output_dir={root}/output holds another run"
OUTPUT_CASES = (
    Case(
        (HOLDS, '"mrpc" there, "sts-b" now', "a new --output_dir", "--task_name"),
        {"task_name": "STS-B", "data_dir": "{root}/STS-B"},
        used_output(),
    ),
    Case(
        (HOLDS, "task", '"mrpc" there, "sts-b" now', "a new --output_dir"),
        {"task_name": "STS-B", "data_dir": "{root}/STS-B"},
        used_output(remove("output/checkpoint")),
    ),
    Case(
        (HOLDS, "differs in base", "a new --output_dir", "--init_checkpoint"),
        spoil=used_output(other_base),
    ),
    Case(
        (HOLDS, "max_seq_length", "32 there, 16 now", "a new --output_dir"),
        {"max_seq_length": 16, **PREDICT},
        used_output(),
    ),
    *(
        Case(
            (HOLDS, "%s: %r there, %r now" % (name, then, now), "a new --output_dir"),
            {name: now},
            used_output(),
        )
        for name, then, now in (
            ("adapter_size", 64, 8),
            ("learning_rate", 5e-05, 0.01),
            ("num_train_epochs", 3.0, 4.0),
            ("train_batch_size", 8, 4),
            ("seed", 1, 2),
        )
    ),
    Case(
        ("{root}/output/run.json is damaged", "delete it", "--output_dir"),
        spoil=used_output(cut("output/run.json")),
    ),
    *(
        Case(
            ("{root}/output/run.json", entry, "delete it", "--output_dir"),
            spoil=used_output(entry_of("output/run.json", value, *path)),
        )
        for entry, value, *path in (
            ("identity.labels[0]", 1, "identity", "labels", 0),
            ("identity.max_seq_length", "x", "identity", "max_seq_length"),
            ("training", [], "training"),
            ("health.training", "x", "health", "training"),
        )
    ),
    *(
        Case(
            ("{root}/output/best/best.json", entry, "delete the folder"),
            PREDICT,
            used_output(
                lambda root: (root / "output/best").mkdir(),
                write("output/best/best.json", json.dumps(BEST)),
                entry_of("output/best/best.json", value, entry),
            ),
        )
        for entry, value in (("set", None), ("score", float("nan")), ("score", True))
    ),
    Case(
        ("--output_dir={root}/output", "adapters/", "[1, 64]", "[1, 8]"),
        {"adapter_size": 8},
        used_output(remove("output/run.json")),
    ),
    Case(
        ("--output_dir={root}/output", "conv/kernel", "a new --output_dir"),
        spoil=foreign_checkpoint("output/model.ckpt-9"),
    ),
    Case(
        ("{root}/output/model.ckpt-9", "cannot be read", "--output_dir"),
        spoil=used_output(cut("output/model.ckpt-9.data-00000-of-00001", 0.99)),
    ),
    *(
        Case(
            ("{root}/output/model.ckpt-9", part, "`checkpoint`", "a new --output_dir"),
            EVALUATE,
            used_output(spoil),
        )
        for part, spoil in (
            ("cannot be read", flip("output/model.ckpt-9.data-00000-of-00001")),
            ("float64", values("output/model.ckpt-9", as_float64)),
            ("kernel is not finite", values("output/model.ckpt-9", with_nan)),
        )
    ),
    *(
        Case(
            ("{root}/output", "checkpoint", 'model_checkpoint_path: "model.ckpt-9"'),
            spoil=used_output(write("output/checkpoint", content)),
        )
        for content in ("", "model_checkpoint_path", b"\xff\xfe\x00")
    ),
    Case(
        (HOLDS, "its training differs in train_rows", "--data_dir"),
        spoil=used_output(replace("MRPC/train.tsv", "cat", "mat")),
    ),
    Case(
        ("--output_dir={root}/output", "model.ckpt-9", "`checkpoint`"),
        spoil=used_output(remove("output/checkpoint")),
    ),
    Case(("--output_dir={root}/output", "folder"), spoil=write("output", "a file")),
    Case(
        ("--output_dir={root}/file/output", "folder"),
        {"output_dir": "{root}/file/output"},
        write("file", "a file"),
    ),
)

CASES = (
    *FLAG_CASES,
    *DATA_CASES,
    *MODEL_CASES,
    *CHECKPOINT_CASES,
    *HEAD_CASES,
    NO_TEST_SET,
    *OUTPUT_CASES,
)


# --- what they run on --------------------------------------------------------------


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder with a model, data and the output of a training run, all in order."""
    folder = tmp_path_factory.mktemp("originals")
    model = small_run.write_model(folder / "bert")
    rows = small_run.write_mrpc(folder / "MRPC")
    small_run.write_sts_b(folder / "STS-B")
    trained = str(folder / "trained")
    small_run.run(do_train=True, output_dir=trained, **model, **rows)
    return folder


@pytest.fixture
def root(originals, tmp_path):
    """The test's own copy, to be broken; the trained output lies beside it."""
    folder = tmp_path / "files"
    for name in ("bert", "MRPC", "STS-B"):
        shutil.copytree(str(originals / name), str(folder / name))
    shutil.copytree(str(originals / "trained"), str(tmp_path / "trained"))
    return folder


def settings_for(case_flags, root):
    settings = {
        **ALL,
        "task_name": "MRPC",
        "data_dir": "{root}/MRPC",
        "bert_config_file": "{root}/bert/bert_config.json",
        "vocab_file": "{root}/bert/vocab.txt",
        "init_checkpoint": "{root}/bert/bert_model.ckpt",
        "output_dir": "{root}/output",
        "max_seq_length": 32,
        "train_batch_size": 8,
        **case_flags,
    }
    return {name: filled_in(value, root) for name, value in settings.items()}


def filled_in(value, root):
    return value.replace("{root}", str(root)) if isinstance(value, str) else value


def snapshot(folder):
    """Every path below a folder, with the bytes of files and None for folders."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


class EstimatorMade(Exception):
    """All checks have passed."""


@pytest.fixture
def no_estimator(monkeypatch):
    def make_estimator(*_, **__):
        raise EstimatorMade

    monkeypatch.setattr(estimators, "make_estimator", make_estimator)


# --- the tests ---------------------------------------------------------------------


@pytest.mark.parametrize("used", [False, True])
def test_what_the_cases_break_is_right_before(root, no_estimator, used):
    if used:
        used_output()(root)
    with pytest.raises(EstimatorMade):
        small_run.run(**settings_for({}, root))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.parts[0])
def test_mistake_gives_one_message_and_writes_nothing(case, root, no_estimator, capsys):
    settings = settings_for(case.flags, root)
    if case.spoil:
        case.spoil(root)
    before = snapshot(root.parent)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        small_run.run(**settings)
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines(keepends=True)
    # The adapters of most cases are wider than the small model.
    (message,) = [each for each in lines if not each.startswith("warning: --adapter_s")]
    assert message.startswith("error: ")
    assert message.endswith("\n")
    for part in case.parts:
        assert filled_in(part, root) in message
    assert snapshot(root.parent) == before


@pytest.mark.parametrize("do_train", [True, False])
def test_the_task_of_a_head_is_named(root, no_estimator, capsys, do_train):
    write("task.json", TASK_ON_MRPC)(root)
    todo = {**EVALUATE, "do_train": do_train}
    with pytest.raises(EstimatorMade):
        small_run.run(**settings_for({**FROM_HEAD, **todo}, root))
    text = capsys.readouterr().err
    assert ("starts from the head of task mrpc" in text) == do_train
    assert ("was trained on task mrpc, not on same" in text) == (not do_train)


def test_a_process_prints_a_user_error_once_and_last(root):
    remove("MRPC/test.tsv")(root)
    arguments = ["--%s=%s" % pair for pair in settings_for({}, root).items()]
    done = programs.run("run_classifier.py", *arguments)
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if "error: " in line] == lines[-1:]
    assert "MRPC/test.tsv does not exist" in lines[-1] and "--data_dir" in lines[-1]
    assert not (root / "output").exists()


def test_every_number_flag_of_the_program_has_a_case():
    """A new flag with a range comes with a case that leaves the range."""
    given = {name for case in CASES for name in case.flags}
    numbers = {
        flag.name
        for flag in flags.FLAGS.flags_by_module_dict()["run_classifier"]
        if flag.flag_type() in ("int", "float")
    }
    assert numbers
    assert numbers <= given
