"""Turns a BERT encoder in Hugging Face's layout into a checkpoint for this project.

    python convert_checkpoint.py --input_dir=FOLDER --output_dir=FOLDER

The input folder is laid out as `hf_encoder` describes it. The output folder gets
`bert_model.ckpt`, `bert_config.json` and `vocab.txt` under the names of Google's
releases, and `conversion.json`, by which a second run knows that nothing is left
to do. Both folders are local.
"""

import hashlib
import json
import os
import shutil

import numpy as np
import tensorflow.compat.v1 as tf
from absl import app, flags, logging

import checkpoints
import hf_encoder
import tokenization
from errors import UserError, reports_user_errors

CHECKPOINT_NAME = "bert_model.ckpt"
CONFIG_NAME = "bert_config.json"
VOCAB_NAME = hf_encoder.VOCAB_NAME
RECORD_NAME = "conversion.json"
_TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
# Raise it when the same input would convert to something else.
_FORMAT = 1


def define_flags():
    """Defines this program's flags."""
    flags.DEFINE_string(
        "input_dir",
        None,
        "Folder with config.json, vocab.txt and model.safetensors (or its parts and "
        "model.safetensors.index.json) of a BERT encoder in Hugging Face's layout.",
    )
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder to make, with bert_model.ckpt, bert_config.json and vocab.txt.",
    )
    flags.DEFINE_bool(
        "init_missing_pooler",
        False,
        "If the encoder has no pooler, make a random one instead of ending with an "
        "error. Adapter tuning never trains the pooler.",
    )
    flags.DEFINE_integer(
        "seed", 12345, "Seed of the random pooler, for --init_missing_pooler."
    )
    flags.mark_flags_as_required(["input_dir", "output_dir"])


@reports_user_errors
def main(argv):
    """Converts what the flags name."""
    if len(argv) > 1:
        raise UserError(
            "Unexpected argument %r: everything is given by flags, see --help."
            % argv[1]
        )
    logging.set_verbosity(logging.INFO)
    values = flags.FLAGS
    convert(
        values.input_dir, values.output_dir, values.init_missing_pooler, values.seed
    )


def convert(input_dir, output_dir, init_missing_pooler=False, seed=12345):
    """Converts one encoder; see the module's text for the files.

    Args:
      input_dir: the folder in Hugging Face's layout.
      output_dir: the folder to make; it may exist if it is empty or holds this very
        conversion.
      init_missing_pooler: make a random pooler if the encoder has none.
      seed: seed of the random pooler, 0 to 2**32 - 1.

    Returns:
      True, or False if `output_dir` already held this conversion.

    Raises:
      UserError: the input is damaged or is not a BERT that this project can run, or
        `output_dir` holds something else. `output_dir` is then as it was.
    """
    for flag, path in (("input_dir", input_dir), ("output_dir", output_dir)):
        if "://" in path:
            raise UserError(
                "--%s=%s: it must be a folder of this machine. Copy the files before "
                "or after the conversion." % (flag, path)
            )
    output_dir = os.path.realpath(output_dir)
    if not os.path.isdir(input_dir):
        raise UserError("--input_dir=%s is not a folder." % input_dir)
    if not 0 <= seed < 2**32:
        raise UserError("--seed=%d: it must lie between 0 and %d." % (seed, 2**32 - 1))
    config = hf_encoder.read_config(os.path.join(input_dir, hf_encoder.CONFIG_NAME))
    vocab_file = os.path.join(input_dir, VOCAB_NAME)
    _check_vocabulary(vocab_file, config["vocab_size"])
    weight_files = hf_encoder.find_weights(input_dir)
    plan, missing = hf_encoder.match_tensors(
        hf_encoder.list_tensors(input_dir, weight_files),
        hf_encoder.expected_sources(config),
    )
    if missing and not init_missing_pooler:
        raise UserError(
            "The encoder in --input_dir=%s has no pooler (%s), and BERT's classifier "
            "reads its output. Give an encoder that has one, or --init_missing_pooler "
            "for a random one, which stays as it is during adapter tuning."
            % (input_dir, ", ".join(sorted(missing)))
        )

    record = {
        "format": _FORMAT,
        "inputs": {
            name: _sha256(os.path.join(input_dir, name))
            for name in [hf_encoder.CONFIG_NAME, VOCAB_NAME, *weight_files]
        },
        "random_pooler_seed": seed if missing else None,
    }
    if _already_converted(output_dir, record):
        logging.info("%s holds this conversion already: nothing to do.", output_dir)
        return False
    _tell_case(input_dir)
    values = {name: hf_encoder.read_tensor(*plan[name]) for name in plan}
    if missing:
        values.update(_random_pooler(config, missing, seed))
        logging.warning("The pooler is random, from --seed=%d.", seed)
    try:
        _write_output(output_dir, config, vocab_file, values, record)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            "Cannot write --output_dir=%s: %s. It is as it was; give a folder that can "
            "be written, on a disk with space for it." % (output_dir, error)
        ) from error
    logging.info(
        "Wrote %s: %d tensors, %d parameters.",
        os.path.join(output_dir, CHECKPOINT_NAME),
        len(values),
        sum(value.size for value in values.values()),
    )
    return True


def _check_vocabulary(path, vocab_size):
    """Refuses a vocabulary that the tokenizer or the embedding table cannot take."""
    if not os.path.isfile(path):
        raise UserError(
            "There is no %s in --input_dir=%s. Only encoders with BERT's vocabulary "
            "file can be converted." % (VOCAB_NAME, os.path.dirname(path))
        )
    tokens = len(tokenization.FullTokenizer(path).vocab)
    if tokens > vocab_size:
        raise UserError(
            "%s has %d tokens, more than the vocab_size of %d in %s beside it: the "
            "last ones have no embedding. Use the two files of the same encoder."
            % (path, tokens, vocab_size, hf_encoder.CONFIG_NAME)
        )
    if tokens < vocab_size:
        logging.warning(
            "%s has %d tokens, vocab_size is %d: the last %d rows of the word "
            "embeddings are never used.",
            path,
            tokens,
            vocab_size,
            vocab_size - tokens,
        )


def _tell_case(input_dir):
    """Says which `--do_lower_case` the encoder's own tokenizer stands for."""
    path = os.path.join(input_dir, _TOKENIZER_CONFIG_NAME)
    if os.path.isfile(path):
        lower = hf_encoder.read_json(path).get("do_lower_case")
        if isinstance(lower, bool):
            logging.info("By %s, run this encoder with --do_lower_case=%s", path, lower)


def _random_pooler(config, missing, seed):
    """Returns a pooler as BERT initializes it: kernel by truncated normal, zero bias.

    Args:
      config: dict, the content of a `bert_config.json`.
      missing: dict variable name -> `Source`, the pooler's kernel and bias.
      seed: seed of the kernel.

    Returns:
      A dict variable name -> float32 array.
    """
    random = np.random.RandomState(seed)
    values = {}
    for name, source in missing.items():
        if not source.transposed:
            values[name] = np.zeros(source.shape, np.float32)
            continue
        kernel = random.standard_normal(source.shape)
        while (outside := np.abs(kernel) > 2).any():
            kernel[outside] = random.standard_normal(outside.sum())
        values[name] = (kernel * config["initializer_range"]).astype(np.float32)
    return values


def _already_converted(output_dir, record):
    """Says whether `output_dir` holds the conversion that `record` describes.

    Raises:
      UserError: it holds something else.
    """
    if not os.path.lexists(output_dir):
        return False
    if not os.path.isdir(output_dir):
        raise UserError("--output_dir=%s is a file, not a folder." % output_dir)
    if not os.listdir(output_dir):
        return False
    try:
        found = hf_encoder.read_json(os.path.join(output_dir, RECORD_NAME))
        outputs = found.pop("outputs")
        if found == record and all(
            _sha256(os.path.join(output_dir, name)) == digest
            for name, digest in outputs.items()
        ):
            return True
    except (UserError, OSError, KeyError, AttributeError):
        pass  # Not a whole conversion; the message below covers it.
    raise UserError(
        "--output_dir=%s is not empty and does not hold this conversion. Give another "
        "--output_dir, or remove that folder." % output_dir
    )


def _write_output(output_dir, config, vocab_file, values, record):
    """Writes all files beside `output_dir`, then moves them there in one step."""
    os.makedirs(os.path.dirname(output_dir), exist_ok=True)
    working_dir = "%s.tmp-%d" % (output_dir, os.getpid())
    os.mkdir(working_dir)
    try:
        with open(os.path.join(working_dir, CONFIG_NAME), "w", encoding="utf-8") as f:
            f.write(json.dumps(config, indent=2, sort_keys=True) + "\n")
        shutil.copyfile(vocab_file, os.path.join(working_dir, VOCAB_NAME))
        checkpoints.write(os.path.join(working_dir, CHECKPOINT_NAME), values)
        outputs = {
            name: _sha256(os.path.join(working_dir, name))
            for name in sorted(os.listdir(working_dir))
        }
        with open(os.path.join(working_dir, RECORD_NAME), "w", encoding="utf-8") as f:
            f.write(json.dumps(dict(record, outputs=outputs), indent=2) + "\n")
        os.rename(working_dir, output_dir)
    except BaseException:
        shutil.rmtree(working_dir, ignore_errors=True)
        raise


def _sha256(path):
    """Returns the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as reader:
        for block in iter(lambda: reader.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    define_flags()
    app.run(main)
