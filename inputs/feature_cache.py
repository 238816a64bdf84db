"""Cached files of features.

`<file>.key`, written after the file, holds everything that determines the features, and
the file's digest. If they differ, the features are built again.
"""

import dataclasses
import json

import tensorflow.compat.v1 as tf

from errors import UserError
from inputs import features
from system import files

# Increase it when the same example gives other features.
FORMAT_VERSION = 3

_MAX_KEY_BYTES = 1 << 20  # A key file is far smaller.


def cache_key(
    data_digest, split, vocab_file, do_lower_case, task_type, max_seq_length, multiple
):
    """Everything that determines a file of features, as JSON text.

    `data_digest` is that of the file of a `task_data.Split`; for `multiple` see
    `features.write_features`.
    """
    return json.dumps(
        {
            "format": FORMAT_VERSION,
            "data": data_digest,
            "columns": [split.text_a, split.text_b, split.label, split.has_header],
            "part": split.holdout,
            "dialect": split.dialect,
            "vocabulary": files.digest(vocab_file),
            "do_lower_case": bool(do_lower_case),
            "task_type": repr(task_type),
            "max_seq_length": max_seq_length,
            "multiple": multiple,
        },
        sort_keys=True,
    )


def build_features(examples, featurize, spec, output_file, multiple, key):
    """Writes a file of features, unless it is up to date; returns the `TextCounts`.

    See `features.write_features` for the arguments; `key` is a `cache_key`.

    Raises:
      UserError: the file cannot be written.
    """
    key_file = output_file + ".key"
    if counts := _read_counts(output_file, key_file, key):
        tf.logging.info("Features of %s are up to date, reused", output_file)
        return counts
    try:
        files.remove(key_file)
        counts = features.write_features(
            examples, featurize, spec, output_file, multiple
        )
        stored = {
            "key": key,
            "sha256": files.digest(output_file),
            "counts": dataclasses.asdict(counts),
        }
        files.write_whole(key_file, json.dumps(stored))
    except tf.errors.OpError as error:
        raise UserError(
            "the features %s cannot be written (%s): give another `output_dir`"
            % (output_file, error.message)
        ) from None
    return counts


def _read_counts(output_file, key_file, key):
    """The `TextCounts` of an up-to-date file, or None."""
    try:
        stored = files.read_json(key_file, "it is written again", _MAX_KEY_BYTES)
        counts = features.TextCounts(**stored["counts"])
        is_same = (
            stored["key"] == key
            and all(type(count) is int for count in stored["counts"].values())
            and stored["sha256"] == files.digest(output_file)
        )
    except (ValueError, KeyError, TypeError, tf.errors.OpError):
        return None  # Missing, damaged, unreadable, or of an earlier version.
    return counts if is_same else None
