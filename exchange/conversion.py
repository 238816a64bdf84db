"""Converts folders of encoders and adapters between formats of libraries."""

import functools
import os

import tensorflow.compat.v1 as tf
from absl import logging

import command_line
from errors import UserError, printable
from exchange import heads, hf_files, hf_tokenizer, hugging_face, packages
from inputs import features
from system import files
from weights import adapter_package, checkpoints, model_variables

CHECKPOINT_NAME = "bert_model.ckpt"
CONFIG_NAME = "bert_config.json"
VOCAB_NAME = hf_tokenizer.VOCAB_NAME
RECORD_NAME = "conversion.json"
# Raise it when the same input is converted differently.
_FORMAT = 1


def convert(
    input_dir, output_dir, init_missing_pooler=False, seed=12345, keep_head=False
):
    """Converts an encoder in Hugging Face's layout to a checkpoint.

    `output_dir` may exist if it is empty or holds this conversion; in the second case
    False is returned, otherwise True. With `init_missing_pooler` an encoder without a
    pooler gets a random one, from a seed of 0 to 2**32 - 1. With `keep_head` the
    checkpoint has the head of the model's task too, see `heads`.

    Raises:
      UserError: the input is damaged or not a BERT of this project, or `output_dir`
        has other content. `output_dir` is not changed then.
    """
    _check_input(input_dir)
    output_dir = _resolve(output_dir)
    config_path = os.path.join(input_dir, hugging_face.CONFIG_NAME)
    config, stated = hugging_face.read_config(config_path)
    vocabulary = hf_tokenizer.read(input_dir, stated, config_path)
    weight_files = hf_files.find_weights(input_dir)
    matches, missing = hugging_face.match_tensors(
        hf_files.list_tensors(input_dir, weight_files), config, keep_head
    )
    if missing and not init_missing_pooler:
        raise UserError(
            "The encoder in `input_dir`=%s has no pooler (%s), and BERT's classifier "
            "reads its output. Give an encoder with a pooler, or `init_missing_pooler` "
            "for a random one, which adapter tuning does not train, and question "
            "answering does not read." % (input_dir, ", ".join(sorted(missing)))
        )

    vocabulary_file = os.path.basename(vocabulary.path)
    inputs = (hugging_face.CONFIG_NAME, vocabulary_file, *weight_files)
    record = {
        "format": _FORMAT,
        "inputs": _digest_files(input_dir, inputs),
        "random_pooler_seed": seed if missing else None,
        **({"keep_head": True} if keep_head else {}),
    }
    if _already_converted(output_dir, record):
        text = "%s holds this conversion already: nothing is converted."
        logging.info(text, output_dir)
        return False
    hf_tokenizer.log_case(vocabulary)
    if model_name := hf_files.model_name(stated, "_name_or_path"):
        logging.info("%s calls the encoder %s", config_path, printable(model_name))
        if vocabulary.lower_case is not None:
            hf_tokenizer.warn_of_case(model_name, vocabulary.lower_case)
    values = dict(hugging_face.read_values(matches))
    if missing:
        values.update(
            heads.random_variables(
                {name: source.shape for name, source in missing.items()},
                *(config["initializer_range"], seed),
            )
        )
        logging.warning("The pooler is random, from `seed`=%d.", seed)
    if keep_head and isinstance(stated.get("id2label"), dict):
        names = printable(", ".join(map(str, stated["id2label"].values())))
        text = "The head's outputs are %s: the task needs its labels in this order"
        logging.info(text, names)

    with files.atomic_folder(output_dir, _count_bytes(values)) as folder:
        at = functools.partial(os.path.join, folder)
        files.write_whole(at(CONFIG_NAME), files.format_json(config))
        files.write_whole(at(VOCAB_NAME), vocabulary.content)
        checkpoints.write(at(CHECKPOINT_NAME), values)
        record["outputs"] = _digest_files(folder, sorted(os.listdir(folder)))
        files.write_whole(at(RECORD_NAME), files.format_json(record))
    _log_written(os.path.join(output_dir, CHECKPOINT_NAME), values)
    return True


def _digest_files(folder, names):
    return {name: files.digest(os.path.join(folder, name)) for name in names}


def _already_converted(output_dir, record):
    """Whether `output_dir` holds the conversion `record`; refuses other content."""
    if not os.path.lexists(output_dir):
        return False
    if not os.path.isdir(output_dir):
        raise UserError("`output_dir`=%s is a file, not a folder." % output_dir)
    if not os.listdir(output_dir):
        return False
    try:
        found = hf_files.read_json(os.path.join(output_dir, RECORD_NAME))
        outputs = found.pop("outputs")
        if found == record and _digest_files(output_dir, outputs) == outputs:
            return True
    except (UserError, OSError, tf.errors.OpError, KeyError, TypeError):
        pass  # An incomplete conversion, for which the message below fits too.
    raise UserError(
        "`output_dir`=%s is not empty and does not hold this conversion. Give another "
        "`output_dir`, or remove that folder." % output_dir
    )


def write_model(base, output_dir, adapters=None, do_lower_case=None, keep_head=False):
    """Converts a base model, a `base_model.BaseFiles`, to Hugging Face's layout.

    The package `adapters`, if it is given, is merged into the base model; of one that
    cannot be merged, the layer norms are. If `do_lower_case` is None, it is that of the
    package, or True. With `keep_head` the head of the package or the checkpoint is
    written too.

    Raises:
      UserError: the input is damaged or does not fit, or `output_dir` exists or cannot
        be written.
    """
    output_dir = _new_folder(output_dir)
    package = adapter_package.read(adapters) if adapters else None
    if package:
        case = package.config["do_lower_case"]
        if do_lower_case not in (None, case):
            raise UserError(
                "`do_lower_case`=%s does not fit `adapters`=%s, which was trained with "
                "%s: leave it out" % (do_lower_case, adapters, case)
            )
        do_lower_case = case
    found, values = packages.read_base_model(base, do_lower_case)
    head = None
    if package:
        is_merged = packages.merge_package(values, found, package)
        if keep_head:
            head = _package_head(package, is_merged)
    elif keep_head:
        head = packages.read_checkpoint_head(found)

    with files.atomic_folder(output_dir, _count_bytes(values)) as folder:
        tf.io.gfile.copy(base.vocab_file, os.path.join(folder, VOCAB_NAME))
        hugging_face.write(
            folder,
            found.bert_config.to_dict(),
            values,
            do_lower_case is not False,
            head,
        )
    _log_written(output_dir, values)


def _package_head(package, is_merged):
    """The `heads.Head` of a package.

    A `UserError` is raised if the written model would give different outputs.
    """
    head, problem = None, ""
    if not is_merged:
        formats = packages.FORMATS.items()
        names = [n for n, each in formats if not packages.find_problem(package, each)]
        problem = "its adapters are not merged; use `to`=%s" % "|".join(names)
    elif package.task_type.library_head is None:
        problem = "its task type is %s" % package.task_type.name
    else:
        head = heads.export_head(package)
        problem = head.find_problem()
    if problem:
        raise UserError(
            "`adapters`=%s: its head cannot be written with `keep_head`: %s"
            % (package.path, problem)
        )
    return head


def import_adapter(input_dir, base, options, output_dir, new_head_seed=None):
    """Writes the package of an adapter that another library has saved.

    Args:
      input_dir, output_dir: of the adapter, and of the package: new or empty.
      base: `base_model.BaseFiles` of the model that it was trained on.
      options: `package_conversion.PackageOptions`.
      new_head_seed: seed of a new head; None: the adapter's head is imported.

    Raises:
      UserError: the adapter is damaged, is not supported, or does not fit the base
        model or the options, or `output_dir` exists or cannot be written.
    """
    _check_input(input_dir)
    output_dir = _new_folder(output_dir)
    library = packages.find_format(input_dir)
    found, values = packages.read_base_model(base, options.do_lower_case)
    bert_config, length = found.bert_config, options.max_seq_length
    features.check_seq_length(length, bert_config.max_position_embeddings)
    adapter = library.read(input_dir, bert_config, keep_head=new_head_seed is None)
    do_lower_case = options.do_lower_case is not False
    origin, notes = adapter.title, list(adapter.changes)
    if adapter.model_name:
        origin += ", trained on %s" % adapter.model_name
        hf_tokenizer.warn_of_case(adapter.model_name, do_lower_case)
        notes.append(
            "The adapter was trained on %s: make sure that `init_checkpoint` is that "
            "encoder." % printable(adapter.model_name)
        )
    if new_head_seed is None:
        task, variables = heads.import_head(adapter.head, input_dir, options)
    else:
        H = bert_config.hidden_size
        task, variables = heads.new_head(H, options, new_head_seed)
        notes.append("The head is new and random: train it before use.")
    if bert_config.hidden_act == "gelu":
        notes.append(
            "The base model computes GELU by the tanh approximation (gelu_new). "
            "bert-base-uncased and most models of the hub compute the exact one, which "
            "differs by less than 5e-4 per value."
        )
    vocabulary = found.identity["vocabulary"]
    config = adapter_package.make_config(
        *(task, bert_config, vocabulary, do_lower_case, length, adapter.method),
        origin=printable(origin),
    )
    trained = model_variables.model_variables(bert_config, adapter.method)
    norms = {name: values[name] for name in trained.trained() if name in values}
    if norms:
        notes.append("The layer norms are those of `init_checkpoint`.")
    weights = {**norms, **adapter.weights, **variables}
    base_digest = found.checkpoint.base_fingerprint(trained.frozen())
    adapter_package.write(output_dir, config, weights, base_digest, 0)
    package = adapter_package.read(output_dir)
    for note in notes:
        logging.info("%s", note)
    logging.info(
        "Wrote %s: task %s, %s (train_policy %s), %d parameters.",
        *(output_dir, package.task, package.method.description, package.method.text),
        package.config["parameters"],
    )


def export_adapter(adapters, output_dir, to):
    """Converts the package in a folder to a format, one of `packages.FORMATS`.

    Raises:
      UserError: the package is damaged or not supported, or `output_dir` exists or
        cannot be written.
    """
    output_dir = _new_folder(output_dir)
    contents = packages.format_adapter(adapter_package.read(adapters), to)
    need = sum(map(len, contents.values()))
    with files.atomic_folder(output_dir, need) as folder:
        for name, content in contents.items():
            files.write_whole(os.path.join(folder, name), content)
    print(contents[packages.README_NAME], end="")
    logging.info("Wrote %s.", output_dir)


def _resolve(path, field="output_dir"):
    """The real path of a local folder."""
    if "://" in path:
        raise UserError(
            "`%s`=%s: it must be a local folder. Copy the files before or after the "
            "conversion." % (field, path)
        )
    real = os.path.realpath(path)
    command_line.check_utf_8("`%s`=%s" % (field, real), real)
    return real


def _check_input(input_dir):
    if not os.path.isdir(_resolve(input_dir, "input_dir")):
        raise UserError("`input_dir`=%s is not a folder." % input_dir)


def _new_folder(output_dir):
    """The real path of a folder that does not exist or is empty."""
    path = _resolve(output_dir)
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise UserError(
            "`output_dir`=%s exists, and nothing is overwritten: give a new folder."
            % output_dir
        )
    return path


def _count_bytes(values):
    return sum(value.nbytes for value in values.values())


def _log_written(path, values):
    count = sum(value.size for value in values.values())
    logging.info("Wrote %s: %d tensors, %d parameters.", path, len(values), count)
