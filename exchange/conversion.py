"""Encoders and adapters, from and to the formats of other libraries, as folders."""

import json
import os
import shutil

import tensorflow.compat.v1 as tf
from absl import logging

import command_line
from errors import UserError, printable
from exchange import hf_files, hf_tokenizer, hugging_face, packages
from system import files
from weights import adapter_package, checkpoints

CHECKPOINT_NAME = "bert_model.ckpt"
CONFIG_NAME = "bert_config.json"
VOCAB_NAME = hf_tokenizer.VOCAB_NAME
RECORD_NAME = "conversion.json"
# Raise it when the same input would convert to something else.
_FORMAT = 1


# --- from Hugging Face's layout -------------------------------------------------


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
    _check_input(input_dir)
    output_dir = _local(output_dir)
    if not 0 <= seed < 2**32:
        raise UserError("--seed=%d: it must lie between 0 and %d." % (seed, 2**32 - 1))
    config_path = os.path.join(input_dir, hugging_face.CONFIG_NAME)
    config, stated = hugging_face.read_config(config_path)
    vocabulary = hf_tokenizer.read(input_dir, stated, config_path)
    weight_files = hf_files.find_weights(input_dir)
    plan, missing = hugging_face.match_tensors(
        hf_files.list_tensors(input_dir, weight_files), config
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
            name: files.digest(os.path.join(input_dir, name))
            for name in [
                hugging_face.CONFIG_NAME,
                os.path.basename(vocabulary.path),
                *weight_files,
            ]
        },
        "random_pooler_seed": seed if missing else None,
    }
    if _already_converted(output_dir, record):
        logging.info("%s holds this conversion already: nothing to do.", output_dir)
        return False
    hf_tokenizer.log_case(vocabulary)
    model_name = stated.get("_name_or_path")
    if isinstance(model_name, str) and model_name:
        logging.info("%s calls the encoder %s", config_path, printable(model_name))
        if vocabulary.lower_case is not None:
            hf_tokenizer.warn_of_case(model_name, vocabulary.lower_case)
    values = dict(hugging_face.read_values(plan))
    if missing:
        values.update(hugging_face.random_pooler(config, missing, seed))
        logging.warning("The pooler is random, from --seed=%d.", seed)

    with files.atomic_folder(output_dir, _bytes_of(values)) as folder:
        with open(os.path.join(folder, CONFIG_NAME), "w", encoding="utf-8") as writer:
            writer.write(json.dumps(config, indent=2, sort_keys=True) + "\n")
        with open(os.path.join(folder, VOCAB_NAME), "wb") as writer:
            writer.write(vocabulary.content)
        checkpoints.write(os.path.join(folder, CHECKPOINT_NAME), values)
        outputs = {
            name: files.digest(os.path.join(folder, name))
            for name in sorted(os.listdir(folder))
        }
        with open(os.path.join(folder, RECORD_NAME), "w", encoding="utf-8") as writer:
            writer.write(json.dumps(dict(record, outputs=outputs), indent=2) + "\n")
    logging.info(
        "Wrote %s: %d tensors, %d parameters.",
        os.path.join(output_dir, CHECKPOINT_NAME),
        len(values),
        sum(value.size for value in values.values()),
    )
    return True


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
        found = hf_files.read_json(os.path.join(output_dir, RECORD_NAME))
        outputs = found.pop("outputs")
        if found == record and all(
            files.digest(os.path.join(output_dir, name)) == digest
            for name, digest in outputs.items()
        ):
            return True
    except (UserError, OSError, tf.errors.OpError, KeyError, AttributeError):
        pass  # Not a whole conversion; the message below covers it.
    raise UserError(
        "--output_dir=%s is not empty and does not hold this conversion. Give another "
        "--output_dir, or remove that folder." % output_dir
    )


# --- to Hugging Face's layout ---------------------------------------------------


def write_encoder(base, output_dir, adapters=None, do_lower_case=None):
    """Writes a base in Hugging Face's layout.

    Args:
      base: a `base_model.BaseFiles`.
      output_dir: the folder to make.
      adapters: package whose layer norms take the place of the base's, or None.
      do_lower_case: whether its tokenizer lower-cases; None: as the package says, or
        else true.

    Raises:
      UserError: the input is damaged or does not fit, or `output_dir` is there or
        cannot be written.
    """
    output_dir = _new_folder(output_dir)
    package = adapter_package.read(adapters) if adapters else None
    if package:
        case = package.config["do_lower_case"]
        if do_lower_case not in (None, case):
            raise UserError(
                "--do_lower_case=%s does not fit --adapters=%s, which was trained with "
                "%s: leave the flag out" % (do_lower_case, adapters, case)
            )
        do_lower_case = case
    found, values = packages.read_base(base, do_lower_case)
    if package:
        packages.merge_layer_norms(values, found, package)

    with files.atomic_folder(output_dir, _bytes_of(values)) as folder:
        shutil.copyfile(base.vocab_file, os.path.join(folder, VOCAB_NAME))
        hugging_face.write(
            folder, found.bert_config.to_dict(), values, do_lower_case is not False
        )
    logging.info(
        "Wrote %s: %d tensors, %d parameters%s.",
        output_dir,
        len(values),
        sum(value.size for value in values.values()),
        ", with the layer norms of %s" % adapters if adapters else "",
    )


# --- from and to AdapterHub -----------------------------------------------------


def import_adapter(input_dir, base, given, output_dir, new_head_seed=None):
    """Writes the adapter package of an adapter that AdapterHub's library has saved.

    Args:
      input_dir: folder in that library's format.
      base: a `base_model.BaseFiles`.
      given: a `package_conversion.PackageOptions`.
      output_dir: the folder to make.
      new_head_seed: seed of a new head; None: take the folder's.

    Raises:
      UserError: the input is damaged, cannot be represented or does not fit, or
        `output_dir` is there or cannot be written.
    """
    _check_input(input_dir)
    output_dir = _new_folder(output_dir)
    package, notes = packages.from_adapterhub(
        input_dir, base, given, output_dir, new_head_seed
    )
    for note in notes:
        logging.info("%s", note)
    logging.info(
        "Wrote %s: task %s, adapters of size %d, %s, %d parameters.",
        output_dir,
        package.task,
        package.adapter_size,
        package.activation,
        package.config["parameters"],
    )


def export_adapter(adapters, output_dir):
    """Writes an adapter package in AdapterHub's format.

    Args:
      adapters: the package.
      output_dir: the folder to make.

    Raises:
      UserError: the package is damaged, or `output_dir` is there or cannot be written.
    """
    output_dir = _new_folder(output_dir)
    contents = packages.to_adapterhub(adapter_package.read(adapters))
    need = sum(map(len, contents.values()))
    with files.atomic_folder(output_dir, need) as folder:
        for name, content in contents.items():
            with open(os.path.join(folder, name), "wb") as writer:
                writer.write(content)
    print(contents[packages.README_NAME].decode("utf-8"), end="")
    logging.info("Wrote %s.", output_dir)


# --- folders --------------------------------------------------------------------


def _local(path, flag="output_dir"):
    """The real path of a folder of this machine."""
    if "://" in path:
        raise UserError(
            "--%s=%s: it must be a folder of this machine. Copy the files before "
            "or after the conversion." % (flag, path)
        )
    real = os.path.realpath(path)
    command_line.check_utf_8("--%s=%s" % (flag, real), real)
    return real


def _check_input(input_dir):
    if not os.path.isdir(_local(input_dir, "input_dir")):
        raise UserError("--input_dir=%s is not a folder." % input_dir)


def _new_folder(output_dir):
    """The real path of a folder that is not there yet, or is empty."""
    path = _local(output_dir)
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise UserError(
            "--output_dir=%s is there already: give a new folder, nothing is "
            "overwritten." % output_dir
        )
    return path


def _bytes_of(values):
    return sum(value.nbytes for value in values.values())
