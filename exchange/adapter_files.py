"""The common parts of formats of adapters: their result, and files of Hugging Face.

A format is a module with `recognizes`, `read`, `read_head`, `find_problem`,
`format_files` and `describe_use`; see `packages`.
"""

import os
from typing import NamedTuple

import numpy as np

from errors import UserError, printable
from exchange import hf_files
from tuning.method import Method

CONFIG_NAME = "adapter_config.json"


class ForeignAdapter(NamedTuple):
    """An adapter of another library, as a tuning method and its variables."""

    title: str  # its name, library and version, for people
    model_name: str | None  # the model that it was trained on; None: not stated
    method: Method
    weights: dict[str, np.ndarray]  # float32, by variable
    changes: list[str]  # texts on what is represented differently here


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
