"""Base models, and what the formats of other libraries can hold of packages."""

import contextlib
import os

import modeling
import tokenization
from errors import UserError, printable
from exchange import (
    adapter_files,
    adapterhub_format,
    heads,
    hf_files,
    hugging_face,
    peft_format,
)
from weights import (
    adapter_package,
    base_model,
    package_checks,
    package_conversion,
)

README_NAME = "README.md"
FORMATS = {"adapterhub": adapterhub_format, "peft": peft_format}


def read_base_model(base, do_lower_case):
    """Reads a base model, its layer norms included.

    `base` is a complete `base_model.BaseFiles`; `do_lower_case` is checked against its
    vocabulary, None as True. Returns the `base_model.BaseModel`, and a dict from
    variable to float32 array.

    Raises:
      UserError: the files do not belong to one BERT without adapters.
    """
    found = base_model.read(base)
    bert_config = found.bert_config
    tokenization.check_case(
        do_lower_case is not False,
        do_lower_case is not None,
        found.vocab,
        base.vocab_file,
    )
    variables = modeling.encoder_variables(bert_config)
    shapes = {name: info.shape for name, info in variables.items()}
    report = found.checkpoint.check_fit(shapes)
    more = [name for name in report.left_over if name.startswith("bert/")]
    if more:
        raise UserError(
            "checkpoint %s holds more variables than `bert_config_file` describes, "
            "such as %s; give the base model's own config, and a base model without "
            "adapters (manage_adapters.py export makes a package of a tuned checkpoint)"
            % (base.init_checkpoint, more[0])
        )
    remedy = "copy it again, or give another base model, `init_checkpoint`"
    found.checkpoint.check_values(remedy, variables)
    return found, dict(found.checkpoint.iterate_values(variables))


def read_checkpoint_head(found):
    """The `heads.Head` in the checkpoint of a `BaseModel`.

    A `UserError` is raised if there is none, or several.
    """
    checkpoint, kinds = found.checkpoint, heads.variable_names()
    source = "checkpoint %s" % checkpoint.path
    H = found.bert_config.hidden_size
    kind = heads.find_kind(kinds, checkpoint.shapes, H, source)
    checkpoint.check_values("give another checkpoint, `init_checkpoint`", kinds[kind])
    values = dict(checkpoint.iterate_values(kinds[kind]))
    return heads.Head(kind, *(values[name] for name in kinds[kind]))


def merge_package(values, found, package):
    """Merges a package into `values`, those of a `BaseModel`.

    Returns whether the whole package is merged, so that the outputs are the same. Of a
    package with adapters that cannot be merged, only the layer norms are.

    Raises:
      UserError: the package does not fit the base model.
    """
    adapter_package.check_fit(package, found.identity)
    for mismatch in package_conversion.find_base_mismatches(package, found.checkpoint):
        raise UserError("`adapters`=%s does not fit: %s" % (package.path, mismatch))
    merged = {}
    if not package.method.merge_problem:
        merged = package.method.merge(values, package.weights)
    head = package.task_type.head_shapes(package.bert_config.hidden_size)
    is_merged = merged.keys() - head == values.keys()
    if package.encoder_weights and not is_merged:
        raise UserError(
            "`adapters`=%s holds weights of the encoder itself, such as %s, beside "
            "adapters, and only layer norms can be merged; leave it out"
            % (package.path, package.encoder_weights[0])
        )
    source = merged if is_merged else package.weights
    common = values.keys() & source
    if not common:
        raise UserError(
            "`adapters`=%s holds adapters, which cannot be merged, and no layer norms: "
            "leave it out" % package.path
        )
    values.update((name, source[name]) for name in common)
    return is_merged


def find_format(folder):
    """The module of `FORMATS` that reads a folder.

    A `UserError` is raised for a folder of another format; if that is known, it names
    the format and the program that reads it.
    """
    path = os.path.join(folder, adapter_files.CONFIG_NAME)
    if os.path.exists(path):
        stated = hf_files.read_json(path)
        for library in FORMATS.values():
            if library.recognizes(stated):
                return library
        if stated.get("format") == package_checks.FORMAT:
            raise UserError("`input_dir`=%s is an adapter package already." % folder)
        reason = "its %s is of neither library" % adapter_files.CONFIG_NAME
    elif os.path.exists(os.path.join(folder, hugging_face.CONFIG_NAME)):
        raise UserError(
            "`input_dir`=%s holds a whole model (%s) and no adapter (%s): convert it "
            "with `to`=checkpoint" % (folder, hugging_face.CONFIG_NAME, path)
        )
    else:
        reason = "it has no %s" % adapter_files.CONFIG_NAME
    inner = [
        name
        for name in sorted(os.listdir(folder))
        if os.path.exists(os.path.join(folder, name, adapter_files.CONFIG_NAME))
    ]
    if inner:
        reason += ", but its folder %s has one" % printable(inner[0])
    elif any(name.endswith(".index") for name in os.listdir(folder)):
        reason += (
            ", but checkpoints, of which manage_adapters.py export makes a package"
        )
    raise UserError(
        "`input_dir`=%s is not an adapter of AdapterHub or peft: %s. Give the folder "
        "that save_adapter or save_pretrained wrote." % (folder, reason)
    )


def describe_folder(folder):
    """The library and the import of an adapter of another library; "" for others."""
    with contextlib.suppress(UserError, OSError):
        text = "%s holds an adapter of %s: python convert_checkpoint.py --to=package "
        text += "--input_dir=%s makes a package of it"
        return text % (folder, find_format(folder).NAME, folder)
    return ""


_README = """# %(name)s

%(description)s, in the format of %(library)s, written by
Adapter-BERT %(version)s from the package with SHA-256
%(sha256)s.

The head: %(outputs)s.

The format has no place for the following:

%(norms)s- The pooler, if the head reads it. It is part of the base model.
- Other entries of the package: scores on the dev set, metrics (%(metrics)s), training
  settings, case (%(case)s), max_seq_length (%(length)d), SHA-256 of the vocabulary and
  of the base model, which the library does not check:
  %(base)s.

Loading it; BASE is the base model, converted to Hugging Face's layout:

    python convert_checkpoint.py --to=huggingface %(option)s\\
      --init_checkpoint=.../bert_model.ckpt --vocab_file=.../vocab.txt \\
      --bert_config_file=.../bert_config.json --output_dir=BASE

%(use)s"""
_NORMS = """\
- **The layer norms.** They were trained with the adapters, and the scores depend on
  them. Convert the base model with the layer norms of the package, --adapters below.
"""


def find_problem(package, library):
    """The part of an `AdapterPackage` that a library's format lacks, or ""."""
    method = package.method
    if package.encoder_weights:
        return "weights of the encoder itself, such as " + package.encoder_weights[0]
    if package.task_type.library_head is None:
        return "a head of the task type %s" % package.task_type.name
    if not isinstance(method, library.METHODS):
        return "%s (`train_policy`=%s)" % (method.description, method.text)
    return library.find_problem(package)


def format_adapter(package, to):
    """Converts an `AdapterPackage` to a format, one of `FORMATS`.

    Returns:
      Dict from file name to content; `README_NAME` lists what the format lacks.

    Raises:
      UserError: the format has no place for what it holds.
    """
    library = FORMATS[to]
    if problem := find_problem(package, library):
        raise UserError(
            "`adapters`=%s holds %s, for which the format of %s has no place; use the "
            "package itself" % (package.path, problem, library.NAME)
        )
    config = package.config
    method = package.method
    norms = any("/LayerNorm/" in name for name in package.weights)
    model_class = package.task_type.library_head.model_class
    use = {"model_class": model_class, "count": package.task_type.num_outputs}
    readme = _README % {
        "name": printable(package.task),
        "description": "%s (train_policy %s)" % (method.description, method.text),
        "library": library.NAME,
        "version": adapter_package.VERSION,
        "sha256": config["sha256"],
        "outputs": "labels in this order: %s" % ", ".join(package.labels)
        if package.labels
        else "%d outputs without labels" % package.task_type.num_outputs,
        "norms": _NORMS if norms else "",
        "metrics": ", ".join(config["task"]["metrics"]),
        "case": "lower-cased" if config["do_lower_case"] else "cased",
        "length": config["max_seq_length"],
        "base": config["base"]["sha256"],
        "option": "--adapters=PACKAGE " if norms else "",
        "use": library.USE % use,
    }
    return {**library.format_files(package), README_NAME: readme}
