"""Reads the files of a folder in Hugging Face's layout: JSON files and tensors.

Weights are stored in `model.safetensors` or in PyTorch's `pytorch_model.bin`, or in
shards with an index. Names, shapes and types are read before any value.
"""

import contextlib
import os
from typing import NamedTuple

import numpy as np
import safetensors

from errors import UserError, printable
from exchange import torch_file
from system import files, schema

_INDEX_ENDING = ".index.json"
# The first that exists is read: safetensors are read faster and hold no code.
_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
_SAFETENSORS_ENDING = ".safetensors"
_MAX_JSON_BYTES = 1 << 26  # a tokenizer.json of 120,000 tokens has 4 MB

_FLOAT_TYPES = ("F64", "F32", "F16", "BF16")


class StoredTensor(NamedTuple):
    """A tensor of a file, whose values have not been read."""

    path: str
    name: str
    shape: tuple[int, ...]
    type: str  # as in safetensors, such as "F32"


def read_json(path, content=None):
    """Reads the JSON object in a file; `content` is the schema of `files.read_json`."""
    return files.read_json(path, "fetch it again", _MAX_JSON_BYTES, content)


def model_name(stated, entry):
    """The name of a model, an entry of a file; None if it is missing or no text."""
    name = stated.get(entry)
    return name if isinstance(name, str) and name else None


def enumerate_problems(problems):
    """Formats up to 8 problems and the number of the others."""
    text = "%d found: %s" % (len(problems), "; ".join(problems[:8]))
    more = len(problems) - 8
    return text + ("; and %d more." % more if more > 0 else ".")


def find_weights(folder):
    """Returns the names of the weights' files in a folder; an index comes first.

    Raises:
      UserError: there are no weights, or a file of the index is missing.
    """
    for name in _WEIGHTS_NAMES:
        if os.path.isfile(os.path.join(folder, name)):
            return [name]
        index_name = name + _INDEX_ENDING
        if os.path.isfile(os.path.join(folder, index_name)):
            return [index_name, *_find_shards(folder, index_name)]
    raise UserError(
        "There is neither %s nor %s nor an index (%s) of shards in `input_dir`=%s. "
        "Save weights of another format as safetensors first."
        % (*_WEIGHTS_NAMES, "*" + _INDEX_ENDING, folder)
    )


def _find_shards(folder, index_name):
    index_path = os.path.join(folder, index_name)
    shards = sorted(set(_read_index(index_path).values()))
    for shard in shards:
        # Not a path to another folder.
        if shard not in os.listdir(folder):
            raise UserError(
                "%s names the file %.100r, which is not in that folder."
                % (index_path, shard)
            )
    return shards


_INDEX_SCHEMA = schema.Object(
    {"weight_map": schema.Object({}, others=schema.TEXT)}, others=schema.ANY
)


def _read_index(path):
    """Returns the index: dict from tensor name to file name."""
    return read_json(path, _INDEX_SCHEMA)["weight_map"]


def list_tensors(folder, weight_files):
    """Lists the tensors of the weights' files, as `StoredTensor`s.

    Raises:
      UserError: a file is damaged, or the index and the files disagree.
    """
    tensors = []
    paths = [os.path.join(folder, name) for name in weight_files]
    index_path = paths.pop(0) if paths[0].endswith(_INDEX_ENDING) else None
    for path in paths:
        is_safetensors = path.endswith(_SAFETENSORS_ENDING)
        list_file = _list_safetensors if is_safetensors else torch_file.list_tensors
        tensors += [StoredTensor(path, *each) for each in list_file(path)]
    if index_path:
        stated = set(_read_index(index_path).items())
        actual = {(item.name, os.path.basename(item.path)) for item in tensors}
        if stated != actual:
            name, part = min(stated ^ actual)
            raise UserError(
                "%s and its files disagree, for example on %s in %s. Fetch the "
                "encoder again." % (index_path, printable(name), printable(part))
            )
    return tensors


def _list_safetensors(path):
    with _open_safetensors(path) as stored:
        for key in sorted(stored.keys()):
            view = stored.get_slice(key)
            yield key, tuple(view.get_shape()), view.get_dtype()


@contextlib.contextmanager
def _open_safetensors(path):
    """Opens a safetensors file; raises a `UserError` if it is damaged."""
    try:
        with safetensors.safe_open(path, framework="numpy") as stored:
            yield stored
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            "%s is damaged or not a safetensors file (%s). Fetch it again."
            % (path, printable(str(error)))
        ) from error


def read_tensors(tensors):
    """Reads `StoredTensor`s one at a time, since an encoder may be large.

    Yields:
      Pairs of `StoredTensor` and float32 array, file by file.

    Raises:
      UserError: a file is damaged, a tensor holds no floats (before any is read), or a
        value is not a finite float32.
    """
    for tensor in tensors:
        if tensor.type not in _FLOAT_TYPES:
            types = tensor.type, ", ".join(_FLOAT_TYPES)
            raise UserError(
                "%s: the tensor %s is of type %s, not one of %s. Choose another file."
                % (tensor.path, printable(tensor.name), *types)
            )
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
                    "beyond float32. Fetch the file again, or choose another one."
                    % (path, printable(name))
                )
            yield named[name], value


def _read_safetensors(path, names):
    with _open_safetensors(path) as stored:
        for name in names:
            with np.errstate(over="ignore"):
                value = stored.get_tensor(name).astype(np.float32, copy=False)
            yield name, value
