"""Reads the files of a folder in Hugging Face's layout: JSON, and tensors.

Weights lie in `model.safetensors` or in PyTorch's `pytorch_model.bin`, or in parts
with an index beside them. Names, shapes and types are known before a value is read.
"""

import contextlib
import os
from typing import NamedTuple

import numpy as np
import safetensors

from errors import UserError, printable
from exchange import torch_file
from system import files

_INDEX_ENDING = ".index.json"
# In this order; safetensors, because it is read faster and has no code to refuse.
_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
_SAFETENSORS_ENDING = ".safetensors"
_MOST_JSON_BYTES = 1 << 26  # a tokenizer.json of 120,000 tokens has 4 MB

FLOAT_TYPES = ("F64", "F32", "F16", "BF16")


class StoredTensor(NamedTuple):
    """A tensor of a file, not yet read."""

    path: str
    name: str
    shape: tuple[int, ...]
    type: str  # as safetensors has it, such as "F32"


def read_json(path):
    """Returns the JSON object in a file; trouble becomes a `UserError`."""
    return files.read_json(path, "fetch it anew", _MOST_JSON_BYTES)


def enumerate_problems(problems, limit=8):
    """Returns up to `limit` problems as text, and the number of those left out."""
    text = "%d found: %s" % (len(problems), "; ".join(problems[:limit]))
    more = len(problems) - limit
    return text + ("; and %d more." % more if more > 0 else ".")


def find_weights(folder):
    """Returns the weights' file names in a folder, the index first if there is one.

    Raises:
      UserError: there are none, or the index names a file that is not there.
    """
    for name in _WEIGHTS_NAMES:
        if os.path.isfile(os.path.join(folder, name)):
            return [name]
        index_path = os.path.join(folder, name + _INDEX_ENDING)
        if os.path.isfile(index_path):
            break
    else:
        raise UserError(
            "There is neither %s nor %s in --input_dir=%s, and no %s of one in parts. "
            "Weights in another format have to be saved as safetensors first."
            % (*_WEIGHTS_NAMES, folder, "*" + _INDEX_ENDING)
        )
    parts = sorted(set(_read_index(index_path).values()))
    for part in parts:
        # A part lies beside its index; a path elsewhere is no part of this encoder.
        if os.path.basename(part) != part or not os.path.isfile(
            os.path.join(folder, part)
        ):
            raise UserError(
                "%s names the file %.100r, which is not in that folder."
                % (index_path, part)
            )
    return [name + _INDEX_ENDING, *parts]


def _read_index(path):
    """Returns the index's dict tensor name -> file name."""
    weight_map = read_json(path).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(part, str) for part in weight_map.values())
    ):
        raise UserError(
            '%s: "weight_map" has to be an object of tensor names and file names.'
            % path
        )
    return weight_map


def list_tensors(folder, weight_files):
    """Returns every tensor of the weights' files, a list of `StoredTensor`.

    Raises:
      UserError: a file is damaged, or the index and the files disagree.
    """
    tensors = []
    for name in weight_files:
        if name.endswith(_INDEX_ENDING):
            continue
        path = os.path.join(folder, name)
        tensors += (
            _list_safetensors(path)
            if name.endswith(_SAFETENSORS_ENDING)
            else [StoredTensor(path, *item) for item in torch_file.list_tensors(path)]
        )
    if weight_files[0].endswith(_INDEX_ENDING):
        index_path = os.path.join(folder, weight_files[0])
        stated = set(_read_index(index_path).items())
        actual = {(item.name, os.path.basename(item.path)) for item in tensors}
        if stated != actual:
            name, part = min(stated ^ actual)
            raise UserError(
                "%s and the files beside it disagree, for one on %s in %s. Fetch the "
                "encoder anew." % (index_path, printable(name), printable(part))
            )
    return tensors


def _list_safetensors(path):
    with _opened(path) as stored:
        for key in sorted(stored.keys()):
            view = stored.get_slice(key)
            yield StoredTensor(path, key, tuple(view.get_shape()), view.get_dtype())


@contextlib.contextmanager
def _opened(path):
    """Opens a safetensors file; damage to it becomes a `UserError`."""
    try:
        with safetensors.safe_open(path, framework="numpy") as stored:
            yield stored
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            "%s is damaged or is no safetensors file (%s). Fetch it anew."
            % (path, printable(str(error)))
        ) from error


def read_tensors(tensors):
    """Reads tensors, one at a time since an encoder may be large.

    Args:
      tensors: `StoredTensor`s, all of `FLOAT_TYPES`.

    Yields:
      Pairs of `StoredTensor` and float32 array, file by file.

    Raises:
      UserError: a file is damaged, or a value is no finite float32.
    """
    by_path = {}
    for tensor in tensors:
        by_path.setdefault(tensor.path, {})[tensor.name] = tensor
    for path, named in by_path.items():
        is_safetensors = path.endswith(_SAFETENSORS_ENDING)
        read = _read_safetensors if is_safetensors else torch_file.read
        for name, value in read(path, named):
            if not np.isfinite(value).all():
                raise UserError(
                    "%s: the tensor %s has values that are infinite, not a number or "
                    "beyond float32. Fetch the file anew or choose another one."
                    % (path, printable(name))
                )
            yield named[name], value


def _read_safetensors(path, names):
    with _opened(path) as stored:
        for name in names:
            with np.errstate(over="ignore"):
                value = stored.get_tensor(name).astype(np.float32, copy=False)
            yield name, value
