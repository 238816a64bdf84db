"""Questions, and the original program's figures on them, see tests/data/README.md."""

import functools
import gzip
import json
import os

import tokenization
from tasks.squad import examples, features
from tests.places import DATA

SQUAD = os.path.join(DATA, "squad")


def load(*names):
    """Reads a JSON file, zipped or not."""
    path = os.path.join(SQUAD, *names)
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as reader:
        return json.load(reader)


@functools.cache
def get_tokenizer(do_lower_case=True):
    return tokenization.FullTokenizer(
        os.path.join(DATA, "vocab_uncased.txt"), do_lower_case
    )


def data_path(split, version):
    return os.path.join(SQUAD, "data", "%s-%s.json" % (split, version))


def read(split, version):
    """The examples of a recorded file; the version is "v1.1" or "v2.0"."""
    return examples.read_squad_examples(
        data_path(split, version), split == "train", version == "v2.0"
    )


def make_features(found, settings, is_training):
    """The features of examples with recorded settings, a list."""
    output = []
    features.convert_examples_to_features(
        found,
        get_tokenizer(settings.get("do_lower_case", True)),
        settings["max_seq_length"],
        settings["doc_stride"],
        settings["max_query_length"],
        is_training,
        output.append,
    )
    return output


def write_file(path, paragraphs):
    """Writes a file in SQuAD's format; `paragraphs`: pairs of context and questions."""
    content = [{"context": context, "qas": qas} for context, qas in paragraphs]
    path.write_text(json.dumps({"data": [{"paragraphs": content}]}), encoding="utf-8")
    return str(path)
