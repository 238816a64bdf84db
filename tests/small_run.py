"""A small BERT and a few made-up rows, for runs of `run_classifier.main` in tests."""

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags
from absl.testing import flagsaver

import modeling
import run_classifier

WORDS = ("cat", "sat", "on", "a", "mat", "while", "rain", "fell", "and", "music")
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS)

MRPC_COLUMNS = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
STS_B_COLUMNS = ("index", "genre", "sentence1", "sentence2", "score")


def run(**settings):
    """Runs `main` as the command line would, with every other flag at its default."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["run_classifier.py"])
    tf.reset_default_graph()
    with flagsaver.flagsaver(**settings):
        run_classifier.main([])


def small_config(vocab_size, **changes):
    """A `modeling.BertConfig` of two layers; `changes` are others of its sizes."""
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
    }
    return modeling.BertConfig(vocab_size, **{**sizes, **changes})


def write_checkpoint(path, build, seed=7):
    """Saves freshly initialized variables.

    Args:
      path: path of the checkpoint without endings.
      build: function without arguments that makes the variables.
      seed: seed of their values.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        build()
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(path), write_meta_graph=False)


def checkpoint_values(checkpoint):
    """The tensors of a checkpoint: dict from name to array."""
    reader = tf.train.load_checkpoint(str(checkpoint))
    return {
        name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
    }


def last_values(output_dir):
    """The tensors of the last checkpoint in a folder."""
    return checkpoint_values(tf.train.latest_checkpoint(str(output_dir)))


def write_model(folder, seed=7, dropout=0.1, initializer_range=0.02):
    """Writes the three files of a BERT without adapters and head; returns its flags."""
    folder.mkdir()
    config = small_config(
        len(VOCABULARY),
        num_hidden_layers=1,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=initializer_range,
    )
    (folder / "bert_config.json").write_text(config.to_json_string())
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in VOCABULARY))

    def build():
        modeling.BertModel(config, False, tf.zeros([1, 2], tf.int32), adapter_fn=None)

    write_checkpoint(folder / "bert_model.ckpt", build, seed)
    return {
        "bert_config_file": str(folder / "bert_config.json"),
        "vocab_file": str(folder / "vocab.txt"),
        "init_checkpoint": str(folder / "bert_model.ckpt"),
        "max_seq_length": 32,
        "train_batch_size": 8,
    }


def _sentence(random):
    return " ".join(random.choice(WORDS, random.randint(3, 12)))


def _write_rows(folder, columns, row):
    """Writes train, dev and test with 24, 10 and 7 rows; tests have an "index"."""
    folder.mkdir()
    random = np.random.RandomState(0)
    for name, count in (("train", 24), ("dev", 10), ("test", 7)):
        lines = [columns(name == "test")]
        lines += [row(name == "test", i, random) for i in range(count)]
        text = "".join("\t".join(fields) + "\n" for fields in lines)
        (folder / (name + ".tsv")).write_text(text)
    return {"data_dir": str(folder)}


def write_mrpc(folder):
    """Writes a folder of MRPC; returns its flags."""

    def columns(is_test):
        return ("index" if is_test else MRPC_COLUMNS[0], *MRPC_COLUMNS[1:])

    def row(is_test, i, random):
        first = str(i if is_test else i % 2)
        return (first, "1", "2", _sentence(random), _sentence(random))

    return {"task_name": "MRPC", **_write_rows(folder, columns, row)}


def write_sts_b(folder):
    """Writes a folder of STS-B; returns its flags."""

    def columns(is_test):
        return STS_B_COLUMNS[:-1] if is_test else STS_B_COLUMNS

    def row(is_test, i, random):
        fields = (str(i), "news", _sentence(random), _sentence(random))
        return fields if is_test else (*fields, "%.3f" % random.uniform(0, 5))

    return {"task_name": "STS-B", **_write_rows(folder, columns, row)}
