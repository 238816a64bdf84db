"""Shared code of the formats of adapters: results of reading, weights, schemas.

A format is a module with

    NAME, METHODS, USE               its library, the tuning methods that it can hold,
                                     and Python code that loads its files
    recognizes(stated)               whether an adapter_config.json is of the format
    read(folder, bert_config, keep_head)
    find_problem(package)            what it lacks to hold a package of `METHODS`, or ""
    format_files(package)

`packages` has a table of all.
"""

import json
import os
from typing import NamedTuple

import numpy as np

import modeling
from errors import UserError, explain_value_errors, printable
from exchange import heads, hf_files
from system import schema
from tuning.method import Method
from weights import model_variables

CONFIG_NAME = "adapter_config.json"


def constant_schema(value, reason):
    """A schema of one value, with the reason for messages."""
    return schema.Value(
        lambda found: type(found) is type(value) and found == value,
        "%s: %s" % (json.dumps(value), reason),
    )


def fixed_entry(value, reason):
    """The default of an entry, see `complete_config`, and a schema of it alone."""
    return value, constant_schema(value, reason)


def absent_entry(reason):
    """As `fixed_entry`, of an entry that has to be missing or empty."""
    return None, schema.Value(lambda value: not value, "missing: " + reason)


_UNKNOWN = absent_entry("it is not known")[1]


def complete_config(config, entries, unchecked):
    """Adds defaults to the entries of a config, and checks them.

    `entries` maps names to pairs of default and schema, and `unchecked` lists the
    names of others. A `ValueError` is raised for a wrong or unknown entry.
    """
    config = {**{entry: default for entry, (default, _) in entries.items()}, **config}
    schema.Object(
        {entry: allowed for entry, (_, allowed) in entries.items()},
        optional=dict.fromkeys(set(unchecked) - entries.keys(), schema.ANY),
        others=_UNKNOWN,
    ).check(config)
    return config


def config_errors(folder, remedy):
    """See `explain_value_errors`, for the config of an adapter."""
    return explain_value_errors(os.path.join(folder, CONFIG_NAME), remedy)


class ForeignAdapter(NamedTuple):
    """An adapter of another library, as a tuning method and its variables."""

    title: str  # its name, library and version, for people
    model_name: str | None  # the model that it was trained on; None: not stated
    method: Method
    weights: dict[str, np.ndarray]  # float32, by variable
    changes: list[str]  # texts on what is represented differently here
    head: heads.Head | None  # None: there is none, or it was not asked for


def read_weights(folder, names, rename):
    """Reads the first file that exists of `names`: dict from name to float32 array.

    `rename` is a function of a tensor's name; a `UserError` is raised if two get the
    same, or there is no file.
    """
    present = [name for name in names if os.path.isfile(os.path.join(folder, name))]
    if not present:
        raise UserError(
            "There is no %s in `input_dir`=%s." % (" or ".join(names), folder)
        )
    renamed = {}
    for tensor, value in hf_files.read_tensors(
        hf_files.list_tensors(folder, present[:1])
    ):
        name = rename(tensor.name)
        if name in renamed:
            raise UserError("%s holds %s twice." % (tensor.path, printable(name)))
        renamed[name] = value
    return renamed


def check_shapes(found, shapes, folder):
    """Refuses weights other than those that a config describes, a dict of shapes."""
    problems = ["%s is missing" % name for name in shapes if name not in found]
    others = sorted(found.keys() - shapes)
    problems += ["%s is not part of it" % printable(name) for name in others]
    problems += [
        "%s has shape %s, by the config it is %s"
        % (name, list(found[name].shape), list(shape))
        for name, shape in shapes.items()
        if name in found and found[name].shape != shape
    ]
    if problems:
        raise UserError(
            "The weights in %s do not fit its config and `bert_config_file`. Give the "
            "base model that they were trained on, or fetch them again. %s"
            % (folder, hf_files.enumerate_problems(problems))
        )


def complete_variables(values, method, bert_config, folder):
    """Makes all variables of a tuning method's adapters from those of a library.

    `values` is a dict from variable to float64 array. Variables that it lacks become
    zeros, smaller ones are padded with zeros, and vectors [n] get the shape [1, n].

    Returns:
      Dict from variable to float32 array, and texts on what was changed.

    Raises:
      UserError: a value is beyond float32.
    """
    variables = model_variables.model_variables(bert_config, method)
    weights, is_padded = {}, False
    for name in variables.collections[modeling.ADAPTERS]:
        whole = np.zeros(variables.shapes[name])
        if name in values:
            rows, columns = np.atleast_2d(values[name]).shape
            whole[:rows, :columns] = values[name]
            is_padded |= whole.shape != (rows, columns)
        with np.errstate(over="ignore"):
            weights[name] = whole.astype(np.float32)
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise UserError("The scaled weights in %s are beyond float32." % folder)
    changes = []
    if absent := len(weights) - len(values):
        changes.append(
            "%d of %d variables had no tensor: they are zeros, which is equivalent."
            % (absent, len(weights))
        )
    if is_padded:
        changes.append(
            "Bottleneck sizes or ranks differed: all have the largest one, padded with "
            "zeros, which is equivalent."
        )
    return weights, changes
