"""The format of an adapter package's two files, and their checks.

Packages come from strangers: no entry is used before it is checked, and memory is
bounded by the length of the files.
"""

import hashlib
import json
import re

import numpy as np
import safetensors
import safetensors.numpy

import modeling
from errors import UserError, printable
from model import configuration
from system import files, schema
from tasks import task_type
from tuning import registry
from weights import diagnosis, model_variables

FORMAT = "adapter-bert"
FORMAT_VERSION = 1
DIGEST = "sha256"  # of the weights' file, and the config's own
MOST_CONFIG_BYTES = files.MAX_JSON_BYTES
MOST_TASK_BYTES = MOST_CONFIG_BYTES - (1 << 16)  # the rest is for the other entries

_MOST_BYTES_PER_ENTRY = 512  # of the weights' header
_SHA256 = schema.pattern(re.compile("[0-9a-f]{64}"), "a SHA-256 in hexadecimal")
_SCORES = schema.Object(
    {}, others=schema.Object({}, others=schema.nullable(schema.number()))
)
# Examples by set: their number by label, or of all where there is no list of labels.
EXAMPLES_SCHEMA = schema.Object({}, others=schema.List(schema.integer()))
_COLUMN = schema.any_of(schema.LINE, schema.integer())

TASK_SCHEMA = schema.Object(
    {
        "name": schema.LINE,
        "labels": schema.List(schema.LINE, unique=True),  # by id
        "is_regression": schema.BOOLEAN,
        "metrics": schema.List(schema.LINE),
    },
    optional={
        "type": schema.LINE,  # one of `task_type.TYPES`; its entries are above
        # Names or numbers of the columns of both texts, null for no second text.
        "text_columns": schema.List(schema.nullable(_COLUMN), 2, 2),
    },
    others=schema.ANY,
)

# The entries of `adapter_config.json`. Earlier versions left the optional ones out.
SCHEMA = schema.Object(
    {
        "format": schema.one_of(FORMAT),
        "format_version": schema.one_of(FORMAT_VERSION),
        "program_version": schema.LINE,
        "task": TASK_SCHEMA,
        "bert_config": schema.Object(
            dict.fromkeys(configuration.CONFIG_SIZES, schema.integer(1)),
            others=schema.ANY,
        ),
        # See `entry_schema` of the method, a `tuning.method.Method`.
        "adapter": schema.Object({}, others=schema.ANY),
        "train_policy": schema.LINE,  # the method
        "vocabulary": _SHA256,  # of the vocabulary file
        "do_lower_case": schema.BOOLEAN,
        "max_seq_length": schema.integer(3),
        "global_step": schema.integer(),
        "parameters": schema.integer(),
        "base": schema.Object(
            {DIGEST: _SHA256, "parameters": schema.integer()}, others=schema.ANY
        ),
        "weights": schema.Object(
            {"bytes": schema.integer(), DIGEST: _SHA256}, others=schema.ANY
        ),
        DIGEST: _SHA256,  # of all other entries
    },
    optional={
        # Settings of the training run, by flag name.
        "settings": schema.Object(
            {},
            optional={
                "learning_rate": schema.number(),
                "warmup_proportion": schema.number(),
                "seed": schema.integer(),
                "adam_bias_correction": schema.BOOLEAN,
            },
            others=schema.ANY,
        ),
        # Scores by dev set and metric; null for a score that is not finite.
        "dev_scores": _SCORES,
        # Scores of the best constant prediction, as `dev_scores`.
        "baseline": _SCORES,
        "health": diagnosis.SCHEMA,
        "examples": EXAMPLES_SCHEMA,
        "license": schema.LINE,  # of this package
        "base_model": schema.LINE,  # its name; `base` identifies it
        "selection": schema.TEXT,  # which step of the run, unless it is the last
        "origin": schema.TEXT,  # where the weights come from, unless from a run
    },
    others=schema.ANY,
)


def _damage_error(path, reason):
    return UserError(
        "%s is damaged (%s): copy the adapter package again"
        % (path, printable(str(reason)))
    )


def config_digest(config):
    """SHA-256 of all entries but the SHA-256 itself; layout does not matter."""
    rest = {key: value for key, value in config.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode("utf-8")).hexdigest()


def parse_config(data, path):
    """Parses and checks the bytes of `adapter_config.json`.

    Returns a dict: the entries of `SCHEMA`, None for optional ones that are missing. A
    `UserError` is raised if the file is of another program or version, or is damaged.
    """
    try:
        config = files.parse_json_object(data, finite=True)
    except ValueError as error:
        raise _damage_error(path, error) from None
    if config.get("format") != FORMAT:
        raise UserError(
            '%s does not belong to an adapter package of this program (its "format" '
            'is not "%s"); convert_checkpoint.py reads those of AdapterHub and peft'
            % (path, FORMAT)
        )
    if (found := config.get("format_version")) != FORMAT_VERSION:
        raise UserError(
            "%s has format version %.80r, this program reads %d: use the version of "
            "the program that wrote it, %.80r"
            % (path, found, FORMAT_VERSION, config.get("program_version"))
        )
    if config.get(DIGEST) != config_digest(config):
        raise _damage_error(path, "its content is not what was written")
    try:
        check_config(config)
    except (task_type.UnknownTypeError, registry.UnknownMethodError) as error:
        is_method = isinstance(error, registry.UnknownMethodError)
        entry = "train_policy: " if is_method else "task."
        text = "%s: %s%s; use the version of the program that wrote it"
        raise UserError(text % (path, entry, error)) from None
    except ValueError as error:
        raise _damage_error(path, error) from None
    return {**dict.fromkeys(SCHEMA.optional), **config}


def check_config(config):
    """Checks the entries of `SCHEMA`, also against each other.

    A `ValueError` is raised for a wrong one.
    """
    SCHEMA.check(config)
    modeling.BertConfig.from_dict(config["bert_config"]).validate("bert_config")
    variables = package_variables(config)
    counts = variables.parameter_counts()
    parameters, frozen = counts["trained"], counts["total"] - counts["trained"]
    longest = config["bert_config"]["max_position_embeddings"]
    most_bytes = 8 + 4 * parameters + _MOST_BYTES_PER_ENTRY * len(variables.trained())
    for entry, value, least, most in (
        ("max_seq_length", config["max_seq_length"], 0, longest),
        ("parameters", config["parameters"], parameters, parameters),
        ("base.parameters", config["base"]["parameters"], frozen, frozen),
        ("weights.bytes", config["weights"]["bytes"], 0, most_bytes),
    ):
        if not least <= value <= most:
            limit = "%d" if least == most else "at most %d"
            allowed = limit % most + " for a model of this bert_config"
            raise schema.SchemaError(entry, value, allowed)


def package_task_type(config):
    """The `task_type.TaskType` that the entries of `SCHEMA` describe.

    A `ValueError` is raised if it is unknown, or contradicts other entries.
    """
    task = config["task"]
    earlier = "regression" if task["is_regression"] else "classification"
    entries = {name: config[name] for name in ("do_lower_case", "max_seq_length")}
    kind = task_type.find_type(task.get("type", earlier))
    found = kind.from_entries({**task, **entries})
    if found.needs_labels:
        raise ValueError("task.labels are missing")
    return found


def package_method(config):
    """The `tuning.method.Method` of a config, see `registry.from_entry`."""
    num_layers = config["bert_config"]["num_hidden_layers"]
    return registry.from_entry(config["train_policy"], config["adapter"], num_layers)


def package_variables(config):
    """The `model_variables.VariableSet` of a package's model."""
    return model_variables.model_variables(
        modeling.BertConfig.from_dict(config["bert_config"]),
        package_method(config),
        package_task_type(config),
    )


def parse_weights(data, config, path):
    """Parses and checks the bytes of `adapter.safetensors`, see `parse_config`.

    Returns a dict from variable name to float32 array. A `UserError` is raised if they
    are not the ones that the config describes.
    """
    if hashlib.sha256(data).hexdigest() != config["weights"][DIGEST]:
        text = "its %d bytes are not the %d that its config describes"
        raise _damage_error(path, text % (len(data), config["weights"]["bytes"]))
    try:
        weights = safetensors.numpy.load(data)
        check_weights(weights, package_variables(config).trained())
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise _damage_error(path, error) from None
    return weights


def check_weights(weights, shapes):
    """Checks that weights have the given shapes, and are float32 and finite.

    Takes dicts from a variable's name to its array and to its shape, a list of ints.
    A `ValueError` is raised for a wrong, missing or unknown one.
    """
    for name in sorted(set(shapes) ^ set(weights)):
        where = "is missing" if name in shapes else "does not belong there"
        raise ValueError("%.200r %s" % (name, where))
    for name, shape in shapes.items():
        value = weights[name]
        if list(value.shape) != shape or value.dtype != np.float32:
            text = "%s is %s %s, expected float32 %s"
            raise ValueError(text % (name, value.dtype, list(value.shape), shape))
        if not np.isfinite(value).all():
            raise ValueError("%s is not finite" % name)
