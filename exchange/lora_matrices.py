"""LoRA's matrices of other libraries, from and to the variables of `tuning.lora`.

Libraries keep a rank and a scaling for each dense layer, and need not update all layers
of the encoder. Here rank, scaling and targets are the same in each.
"""

import collections
from typing import NamedTuple

import numpy as np

from errors import UserError
from exchange import adapter_files, hugging_face
from system import schema
from tuning import lora
from weights import model_variables

ALPHA = schema.number(1e-6, 1e6)  # Scalings are finite, and not 0.


class Update(NamedTuple):
    """The update of a dense layer there: scaling x up down, [n_out, n_in]."""

    down_name: str  # of a float32 tensor [rank, n_in]
    up_name: str  # of a float32 tensor [n_out, rank]
    rank: int
    scaling: float


def target_scopes(bert_config):
    """The scopes of all dense layers that can be updated."""
    for index in range(bert_config.num_hidden_layers):
        for end in lora.TARGETS.values():
            yield "bert/encoder/layer_%d/%s" % (index, end)


def import_updates(updates, found, bert_config, folder):
    """Converts a dict from scope to `Update`, of `folder`.

    `found` is a dict from name to array, exactly the tensors of the updates. Returns
    the `lora.Lora`, its variables, and texts on what is represented differently: dense
    layers without an update have one of zeros, smaller ranks are padded with zeros, and
    other scalings become part of the second matrix.

    A `UserError` is raised if the tensors are others, or a scaled weight is beyond
    float32.
    """
    kernels = hugging_face.expected_sources(bert_config.to_dict())
    shapes = {}
    for scope, update in updates.items():
        n_out, n_in = kernels[scope + "/kernel"].shape
        shapes[update.down_name] = (update.rank, n_in)
        shapes[update.up_name] = (n_out, update.rank)
    adapter_files.check_shapes(found, shapes, folder)
    rank = max(update.rank for update in updates.values())
    scalings = collections.Counter(update.scaling for update in updates.values())
    alpha = scalings.most_common(1)[0][0] * rank
    if abs(alpha - round(alpha)) < 1e-9 * alpha:
        alpha = float(round(alpha))  # It was divided by the rank.
    targets = tuple(
        name
        for name, end in lora.TARGETS.items()
        if any(scope.split("/", 3)[3] == end for scope in updates)
    )
    method = lora.Lora(rank, alpha, targets)
    weights = {}
    variables = model_variables.model_variables(bert_config, method)
    for name, shape in variables.shapes.items():
        scope, _, matrix = name.rpartition("/")
        if matrix not in ("lora_A", "lora_B"):
            continue
        value = np.zeros(shape)  # float64
        if update := updates.get(scope):
            stored = found[update.down_name].T
            if matrix == "lora_B":
                scaling = update.scaling / method.scaling
                stored = found[update.up_name].T.astype(np.float64) * scaling
            value[: stored.shape[0], : stored.shape[1]] = stored
        with np.errstate(over="ignore"):
            weights[name] = value.astype(np.float32)
    if not all(np.isfinite(value).all() for value in weights.values()):
        raise UserError("The scaled weights in %s are beyond float32." % folder)
    changes = []
    if len(scalings) > 1:
        changes.append(
            "Scalings differed: all are %g, and the rest is part of lora_B."
            % method.scaling
        )
    if absent := len(weights) // 2 - len(updates):
        changes.append(
            "%d dense layers had no update: theirs are zeros, which is equivalent."
            % absent
        )
    if any(update.rank < rank for update in updates.values()):
        changes.append(
            "Ranks differed: all are %d, padded with zeros, which is equivalent." % rank
        )
    return method, weights, changes


def export_updates(package):
    """The matrices of a package, transposed: dict from scope to a pair of arrays."""
    return {
        scope: tuple(
            np.ascontiguousarray(package.weights["%s/lora_%s" % (scope, letter)].T)
            for letter in "AB"
        )
        for scope in target_scopes(package.bert_config)
        if scope + "/lora_A" in package.weights
    }
