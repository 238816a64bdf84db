"""Base models and adapter packages from and to the formats of other libraries."""

import numpy as np

import glue_data
import tokenization
from errors import UserError, printable
from exchange import adapterhub_format, hf_tokenizer, hugging_face
from inputs import features
from model import initializers, layer_ranges
from tasks import task_type
from tasks.classification import Classification
from tasks.regression import Regression
from tuning import adapters
from weights import adapter_package, base_model, model_variables, package_conversion

README_NAME = "README.md"


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
    names = list(hugging_face.expected_sources(bert_config.to_dict()))
    shapes = model_variables.frozen_shapes(bert_config)
    for name in names:
        shapes.setdefault(name, [bert_config.hidden_size])  # Layer norms.
    report = found.checkpoint.check_fit(shapes, [])
    more = [name for name in report.left_over if name.startswith("bert/")]
    if more:
        raise UserError(
            "checkpoint %s holds more variables than `bert_config_file` describes, "
            "such as %s; give the base model's own config, and a base model without "
            "adapters (manage_adapters.py export makes a package of a tuned checkpoint)"
            % (base.init_checkpoint, more[0])
        )
    return found, dict(found.checkpoint.iterate_values(names))


def merge_layer_norms(values, found, package):
    """Replaces the layer norms in `values`, those of a `BaseModel`, by a package's.

    Raises:
      UserError: the package does not fit the base model, or holds other weights of it
        than layer norms.
    """
    if package.encoder_weights:
        raise UserError(
            "`adapters`=%s holds weights of the encoder itself, such as %s, and only "
            "layer norms can be merged; leave it out, or make one checkpoint of base "
            "model and package with manage_adapters.py merge, `init_checkpoint`"
            % (package.path, package.encoder_weights[0])
        )
    adapter_package.check_fit(package, found.identity)
    for mismatch in package_conversion.find_base_mismatches(package, found.checkpoint):
        raise UserError("`adapters`=%s does not fit: %s" % (package.path, mismatch))
    values.update((n, v) for n, v in package.weights.items() if "/LayerNorm/" in n)


def import_adapter(folder, base, options, output, new_head_seed=None):
    """Writes the package of an adapter that AdapterHub's library has saved.

    Args:
      folder, output: of the adapter, and of the package, which is made.
      base: `base_model.BaseFiles` of the model that it was trained on, whose layer
        norms become the package's.
      options: `package_conversion.PackageOptions`.
      new_head_seed: seed of a new head; None: the adapter's head is imported.

    Returns:
      The `adapter_package.AdapterPackage`, read back, and texts about what the import
      changed.

    Raises:
      UserError: the folder is damaged, is not supported, or does not fit the base model
        or the options.
    """
    found, values = read_base_model(base, options.do_lower_case)
    bert_config = found.bert_config
    features.check_seq_length(
        options.max_seq_length, bert_config.max_position_embeddings
    )
    adapter = adapterhub_format.read(folder, bert_config)
    do_lower_case = options.do_lower_case is not False
    origin = "adapter %s of AdapterHub (%s)" % (adapter.name, adapter.version)
    if adapter.model_name:
        origin += ", trained on %s" % adapter.model_name
        hf_tokenizer.warn_of_case(adapter.model_name, do_lower_case)
    if new_head_seed is None:
        task, head = _import_head(folder, bert_config, options)
    else:
        kind = _find_task_type(options)
        task = _describe_task(options, kind)
        head = _new_head(bert_config, kind, new_head_seed)
    config = adapter_package.make_config(
        task,
        bert_config,
        found.identity["vocabulary"],
        do_lower_case,
        options.max_seq_length,
        adapters.Adapters(adapter.size, None, activation=adapter.activation),
        origin=printable(origin),
    )
    notes = ["The layer norms are those of `init_checkpoint`.", *adapter.changes]
    if adapter.model_name:
        notes.append(
            "The adapter was trained on %s: make sure that `init_checkpoint` is that "
            "encoder." % printable(adapter.model_name)
        )
    if new_head_seed is not None:
        notes.append("The head is new and random: train it before use.")
    if bert_config.hidden_act == "gelu":
        notes.append(
            "The base model computes GELU by the tanh approximation (gelu_new). "
            "bert-base-uncased and most models of the hub compute the exact one, which "
            "differs by less than 5e-4 per value."
        )
    weights = {
        **{name: v for name, v in values.items() if "/LayerNorm/" in name},
        **adapter.weights,
        **head,
    }
    adapter_package.write(
        output,
        config,
        weights,
        found.checkpoint.base_fingerprint(model_variables.frozen_shapes(bert_config)),
        0,
    )
    return adapter_package.read(output), notes


def _find_task_type(options, has_number_head=False):
    """The `task_type.TaskType`; its labels are in the task's order."""
    task = options.task
    if task is not None:
        labels = list(task.type.labels)
        if options.labels is not None and sorted(options.labels) != sorted(labels):
            raise UserError(
                "`labels`=%s are not the labels of `task_name`=%s: give %s in the "
                "order of the head's outputs"
                % (",".join(options.labels), task.name, ", ".join(labels) or "none")
            )
        return task.type
    labels = options.labels or []
    if labels and has_number_head:
        raise UserError(
            "`labels`=%s: the head has one output, a number without labels; leave "
            "it out" % ",".join(labels)
        )
    if not labels and not has_number_head:
        raise UserError(
            "`task_name`=%s is not a task of GLUE (%s): give its labels in the order "
            "of the head's outputs, `labels`=A,B, or a task file, `task_config`"
            % (options.name, ", ".join(sorted(glue_data.GLUE_TASKS)))
        )
    if len(set(labels)) != len(labels) or not all(labels):
        raise UserError(
            "`labels`=%s: labels must be distinct and not empty" % ",".join(labels)
        )
    return Regression() if has_number_head else Classification(tuple(labels))


def _describe_task(options, kind):
    """The package's entry "task"."""
    if options.task is not None:
        return adapter_package.describe_task(options.task, options.task.model_of)
    return {
        "name": options.name,
        **kind.package_entries(),
        "metrics": list(kind.default_metrics),
        "text_columns": None,
    }


def _import_head(folder, bert_config, options):
    """The package's entry "task", and the head's variables in its label order."""
    head = adapterhub_format.read_head(folder, bert_config.hidden_size)
    if head is None:
        raise UserError(
            "`input_dir`=%s has no head (no %s): save it with with_head=True, or give "
            "`new_head` for a new, untrained one"
            % (folder, adapterhub_format.HEAD_CONFIG_NAME)
        )
    count = len(head.bias)
    if head.labels is not None and count > 1:
        task_labels = options.task.type.labels if options.task else head.labels
        if options.labels is None:
            if sorted(task_labels) == sorted(head.labels):
                options = options._replace(labels=head.labels)
        elif options.labels != head.labels and (
            sorted(options.labels) == sorted(head.labels)
        ):
            raise UserError(
                "`labels`=%s: the head in `input_dir`=%s has its outputs in the order "
                "%s; leave it out"
                % (",".join(options.labels), folder, printable(",".join(head.labels)))
            )
    kind = _find_task_type(options, has_number_head=count == 1)
    entries = _describe_task(options, kind)
    if count != kind.num_outputs:
        raise UserError(
            "the head in `input_dir`=%s has %d outputs, task %s needs %d: give the "
            "task and labels that it was trained on, `task_name` and `labels`"
            % (folder, count, entries["name"], kind.num_outputs)
        )
    order = list(range(count))
    if kind.labels:
        if options.labels is None:
            found = printable(", ".join(head.labels or ["unnamed"]))
            raise UserError(
                "the labels of the head in `input_dir`=%s are %s: give those of the "
                "task in the order of its outputs, such as `labels`=%s"
                % (folder, found, ",".join(kind.labels))
            )
        order = [options.labels.index(label) for label in kind.labels]
    return entries, {
        "output_weights": head.weights[order],
        "output_bias": head.bias[order],
    }


def _new_head(bert_config, kind, seed):
    shape = [kind.num_outputs, bert_config.hidden_size]
    return {
        "output_weights": initializers.truncated_normal(
            np.random.RandomState(seed), shape, task_type.HEAD_INITIALIZER_RANGE
        ),
        "output_bias": np.zeros(shape[:1], np.float32),
    }


_README = """# %(name)s

An adapter of Houlsby et al. in the format of AdapterHub's library `adapters`,
written by Adapter-BERT %(version)s from the package with SHA-256
%(sha256)s.

It holds the adapters (size %(size)d, %(activation)s, after both sublayers of layers
%(layers)s) and the head (%(outputs)s).

The format has no place for the following:

- **The layer norms.** They were trained with the adapters, and the scores depend on
  them. Convert the base model with the layer norms of the package, and load the adapter
  into the result:

      python convert_checkpoint.py --to=huggingface --adapters=PACKAGE \\
        --init_checkpoint=.../bert_model.ckpt --vocab_file=.../vocab.txt \\
        --bert_config_file=.../bert_config.json --output_dir=BASE

- The pooler, which the head reads. It is part of the base model.
- Other entries of the package: scores on the dev set, metrics (%(metrics)s), training
  settings, case (%(case)s), max_seq_length (%(length)d), SHA-256 of the vocabulary and
  of the base model, which the library does not check:
  %(base)s.

Loading it:

    from adapters import BertAdapterModel

    model = BertAdapterModel.from_pretrained("BASE")
    name = model.load_adapter("THIS_FOLDER", use_safetensors=True)
    model.set_active_adapters(name)
"""


def format_adapter(package):
    """Converts an `AdapterPackage` to AdapterHub's format.

    Returns:
      Dict from file name to bytes; `README_NAME` lists what the format lacks.

    Raises:
      UserError: it has no adapters, holds more than adapters, layer norms and head, or
        its head is of another task type than those that `import_adapter` reads.
    """
    problem, method = "", package.method
    if package.encoder_weights:
        problem = "weights of the encoder itself, such as " + package.encoder_weights[0]
    elif not package.adapter_size:
        problem = "no adapters but %s (`train_policy`=%s)"
        problem %= (method.description, method.text)
    elif placement := package.config["adapter"].get("placement"):
        problem = "adapters of `adapter_placement`=%s" % placement
    elif not isinstance(package.task_type, (Classification, Regression)):
        problem = "a head of the task type %s" % package.task_type.name
    if problem:
        raise UserError(
            "`adapters`=%s holds %s, for which AdapterHub's format has no place; use "
            "the package itself" % (package.path, problem)
        )
    config = package.config
    files = adapterhub_format.format_files(package)
    readme = _README % {
        "name": adapterhub_format.adapter_name(package),
        "version": adapter_package.VERSION,
        "sha256": config["sha256"],
        "size": package.adapter_size,
        "activation": package.activation,
        "layers": layer_ranges.format_layers(config["adapter"]["layers"]),
        "outputs": "labels in this order: %s" % ", ".join(package.labels)
        if package.labels
        else "one number",
        "metrics": ", ".join(config["task"]["metrics"]),
        "case": "lower-cased" if config["do_lower_case"] else "cased",
        "length": config["max_seq_length"],
        "base": config["base"]["sha256"],
    }
    return {**files, README_NAME: readme.encode("utf-8")}
